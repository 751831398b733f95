//! One content over several files: how torrents lie in a directory.

mod apart;
mod common;
mod common_storage;
mod layout;
mod ranges;
mod record;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::blocking::{run, run_on};
pub(crate) use apart::ChosenFiles;
pub(crate) use common_storage::CommonStorage;
use layout::Layout;
pub(crate) use layout::{SpannedFile, SpannedLink};
use tree::{Left, SpannedTree};

use crate::content::{Bitfield, ContentId, ContentName, Manifest};
use crate::storage::{Blob, Partial, Storage, StorageError, WriteJob, check_range};

/// Where one content lies: in these files of a directory. What is between them is padding.
#[derive(Debug, Clone)]
pub(crate) struct SpannedStorage {
    root: PathBuf,
    files: Arc<[SpannedFile]>,
    links: Arc<[SpannedLink]>,
    length: u64,
    overwrites: bool,
    chosen: Arc<ChosenFiles>,
}

impl SpannedStorage {
    /// `files` are in the order of their bytes, none over another, and within `length`.
    /// `overwrites` says whether files that have their names may be changed.
    pub(crate) fn new(root: &Path, files: Vec<SpannedFile>, length: u64, overwrites: bool) -> Self {
        // The working directory may be another one later.
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
        Self {
            root,
            files: files.into(),
            links: Arc::default(),
            length,
            overwrites,
            chosen: Arc::default(),
        }
    }

    /// The same with these links beside the files. They are made when all is complete.
    pub(crate) fn links(mut self, links: Vec<SpannedLink>) -> Self {
        self.links = links.into();
        self
    }

    async fn open_tree(&self, manifest: &Manifest) -> Result<(SpannedTree, Left), StorageError> {
        let (id, geometry) = (manifest.id(), manifest.geometry());
        let (root, layout, overwrites) = (self.root.clone(), self.layout(), self.overwrites);
        let chosen = Arc::clone(&self.chosen);
        run(move || SpannedTree::open(root, layout, (id, geometry), overwrites, chosen)).await
    }

    /// Which of the files are wanted. Of the others none is made, and what is written there
    /// lies apart until they are wanted.
    pub(crate) fn chosen(&self) -> &Arc<ChosenFiles> {
        &self.chosen
    }

    fn layout(&self) -> Layout {
        Layout {
            files: self.files.to_vec(),
            links: self.links.to_vec(),
            length: self.length,
        }
    }
}

#[async_trait]
impl Storage for SpannedStorage {
    /// What is there of an earlier download is found again. What was recorded of it is vouched
    /// for, in files that have not changed since.
    async fn create(
        &self,
        _name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let (tree, left) = self.open_tree(manifest).await?;
        let blob = Arc::new(SpannedBlob(Arc::new(tree)));
        Ok(Partial::resumed(blob, left.present).verified(left.verified))
    }

    fn path(&self, _name: &ContentName) -> Option<PathBuf> {
        let top = self.files.first()?.path.elements().next()?;
        Some(self.root.join(top))
    }

    async fn has_partial(&self, _id: &ContentId) -> bool {
        true
    }

    async fn discard_partial(&self, id: &ContentId) -> Result<bool, StorageError> {
        let (root, layout, id) = (self.root.clone(), self.layout(), *id);
        run(move || SpannedTree::discard(&root, &layout, id)).await
    }

    /// What lies there may be another content, so nothing is opened by its name.
    async fn open(&self, _name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        Err(StorageError::Unsupported {
            what: "opening a torrent by its name",
        })
    }
}

/// The bytes of the content.
struct SpannedBlob(Arc<SpannedTree>);

#[async_trait]
impl Blob for SpannedBlob {
    fn length(&self) -> u64 {
        self.0.length()
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        check_range(offset, len as u64, self.length())?;
        let tree = Arc::clone(&self.0);
        run_on(len, move || tree.read(offset, len)).await
    }

    fn read_now(&self, offset: u64, len: usize) -> Option<Bytes> {
        check_range(offset, len as u64, self.length()).ok()?;
        self.0.read_cached(offset, len)
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        check_range(offset, len as u64, self.length())?;
        let tree = Arc::clone(&self.0);
        run_on(len, move || tree.write(offset, &pieces)).await
    }

    fn write_job(&self, offset: u64, pieces: &[Bytes]) -> Option<WriteJob> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, len, self.length()).ok()?;
        let (tree, pieces) = (Arc::clone(&self.0), pieces.to_vec());
        Some(Box::new(move || tree.write(offset, &pieces)))
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        let (tree, verified) = (Arc::clone(&self.0), verified.clone());
        run(move || tree.commit(&verified)).await
    }

    async fn finish(&self) -> Result<(), StorageError> {
        let tree = Arc::clone(&self.0);
        run(move || tree.finish(&tree.all())).await
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.0.path())
    }

    fn release(&self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[cfg(unix)]
    use super::super::dir::times;
    use super::*;
    use crate::content::ChunkIndex;

    const LEN: u64 = 16 << 10;

    /// Three chunks: a file that ends in the second one, one without bytes, padding, and a
    /// file in the rest.
    fn content() -> (Bytes, Manifest) {
        let mut bytes: Vec<u8> = (0..3 * LEN).map(|n| (n % 251) as u8).collect();
        bytes[LEN as usize + 5..2 * LEN as usize].fill(0);
        let manifest = Manifest::of(&bytes).unwrap();
        (bytes.into(), manifest)
    }

    fn storage(root: &Path, overwrites: bool) -> SpannedStorage {
        let file = |path: &str, range, executable| SpannedFile {
            path: path.parse().unwrap(),
            range,
            executable,
        };
        let files = vec![
            file("t/a", 0..LEN + 5, true),
            file("t/sub/none", LEN + 5..LEN + 5, false),
            file("t/sub/b", 2 * LEN..3 * LEN, false),
        ];
        SpannedStorage::new(root, files, 3 * LEN, overwrites)
    }

    async fn create(storage: &SpannedStorage) -> Result<Partial, StorageError> {
        let (_, manifest) = content();
        storage.create(&manifest.id().into(), &manifest).await
    }

    async fn write(partial: &Partial, chunk: u32) -> Result<(), StorageError> {
        let (bytes, manifest) = content();
        let range = manifest.geometry().range_of(ChunkIndex(chunk));
        let (start, end) = (range.start as usize, range.end as usize);
        let middle = start + 100;
        let pieces = vec![bytes.slice(start..middle), bytes.slice(middle..end)];
        partial.blob.write_at(range.start, pieces).await
    }

    fn present(partial: &Partial) -> Vec<u32> {
        partial.present.iter().map(|chunk| chunk.0).collect()
    }

    #[tokio::test]
    async fn commit_that_comes_late_leaves_finished_files_as_they_are() {
        let (root, (bytes, _)) = (tempfile::tempdir().unwrap(), content());
        let partial = create(&storage(root.path(), false)).await.unwrap();
        for chunk in [2, 0, 1] {
            write(&partial, chunk).await.unwrap();
        }
        partial.blob.finish().await.unwrap();
        partial.blob.commit(&Bitfield::all(3)).await.unwrap();
        let read = partial.blob.read_at(0, bytes.len()).await;
        assert_eq!(read.unwrap(), bytes);
    }

    #[tokio::test]
    async fn files_get_their_names_when_all_is_there() {
        let (root, (bytes, manifest)) = (tempfile::tempdir().unwrap(), content());
        let storage = storage(root.path(), false);
        let partial = create(&storage).await.unwrap();
        assert_eq!(present(&partial), [0; 0]);
        for chunk in [2, 0, 1] {
            write(&partial, chunk).await.unwrap();
        }
        let blob = &partial.blob;
        assert!(!root.path().join("t/a").exists());
        assert_eq!(blob.read_at(0, bytes.len()).await.unwrap(), bytes);
        blob.commit(&Bitfield::all(3)).await.unwrap();
        blob.finish().await.unwrap();
        blob.finish().await.unwrap();
        assert_eq!(
            fs::read(root.path().join("t/a")).unwrap(),
            bytes[..LEN as usize + 5]
        );
        assert_eq!(
            fs::read(root.path().join("t/sub/b")).unwrap(),
            bytes[2 * LEN as usize..]
        );
        assert_eq!(fs::read(root.path().join("t/sub/none")).unwrap(), b"");
        assert_eq!(fs::read_dir(root.path().join("t/sub")).unwrap().count(), 2);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path| {
                fs::metadata(root.path().join(path))
                    .unwrap()
                    .permissions()
                    .mode()
            };
            assert_eq!((mode("t/a") & 0o100, mode("t/sub/b") & 0o100), (0o100, 0));
        }
        blob.release();
        assert_eq!(
            blob.read_at(5, 2 * LEN as usize).await.unwrap(),
            bytes[5..2 * LEN as usize + 5]
        );
        assert_eq!(write(&partial, 0).await, Err(StorageError::ReadOnly));
        let again = create(&storage).await.unwrap();
        assert_eq!(present(&again), [0, 1, 2]);
        assert_eq!(again.blob.read_at(0, bytes.len()).await.unwrap(), bytes);
        assert_eq!(blob.path(), storage.path(&manifest.id().into()));
        fs::write(root.path().join("t/sub/b"), "other").unwrap();
        let changed = blob.read_at(2 * LEN, 5).await;
        assert!(
            matches!(changed, Err(StorageError::Changed { .. })),
            "{changed:?}"
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn finished_files_and_their_names_are_durable_and_so_is_what_is_removed() {
        let above = tempfile::tempdir().unwrap();
        let root = above.path().join("in");
        fs::create_dir(&root).unwrap();
        let storage = storage(&root, false);
        let partial = create(&storage).await.unwrap();
        for chunk in [2, 0, 1] {
            write(&partial, chunk).await.unwrap();
        }
        assert!(!times(&root.join("t/a.bt_lite-part")).is_durable());
        partial.blob.commit(&Bitfield::all(3)).await.unwrap();
        let record = format!(".{}.bt_lite-state", content().1.id());
        assert!(root.join(&record).exists() && times(&root).is_durable());
        partial.blob.finish().await.unwrap();
        for path in ["t/a", "t/sub/none", "t/sub/b", &record] {
            let (path, file) = (root.join(path), times(&root.join(path)));
            let named = times(path.parent().unwrap());
            assert!(file.is_durable() && named.is_durable(), "{path:?}");
            // A name must not outlive a crash without the bytes.
            assert!(file.synced < named.changed, "{path:?}");
        }
        assert!(times(&root).is_durable() && times(&root.join("t")).is_durable());
        assert!(times(above.path()).synced > 0);

        let id = content().1.id();
        fs::remove_file(root.join("t/a")).unwrap();
        storage.discard_partial(&id).await.unwrap();
        assert!(!root.join(&record).exists());
        assert!(times(&root).is_durable());

        // They are without a record as well, which cannot be written here.
        fs::remove_dir_all(root.join("t")).unwrap();
        fs::create_dir(root.join(&record)).unwrap();
        let partial = create(&storage).await.unwrap();
        for chunk in [2, 0, 1] {
            write(&partial, chunk).await.unwrap();
        }
        partial.blob.finish().await.unwrap();
        assert!(times(&root).is_durable());
    }

    #[tokio::test]
    async fn what_is_in_memory_and_in_one_open_file_is_read_at_once() {
        let (root, (bytes, _)) = (tempfile::tempdir().unwrap(), content());
        let partial = create(&storage(root.path(), false)).await.unwrap();
        let blob = &partial.blob;
        assert_eq!(blob.read_now(0, 10), None, "nothing is open");
        for chunk in 0..3 {
            write(&partial, chunk).await.unwrap();
        }
        if blob.read_now(0, 10).is_none() {
            // This system or its file system cannot read so.
            return;
        }
        let end = LEN as usize + 5;
        assert_eq!(blob.read_now(0, end).unwrap(), bytes[..end]);
        assert_eq!(blob.read_now(0, end + 1), None, "padding follows");
        assert_eq!(blob.read_now(3 * LEN, 1), None, "beyond the end");
        blob.finish().await.unwrap();
        assert_eq!(
            blob.read_now(2 * LEN, 10),
            None,
            "it is open for writing no more"
        );
        blob.read_at(2 * LEN, 10).await.unwrap();
        let read = blob.read_now(2 * LEN, 10).unwrap();
        assert_eq!(read, bytes[2 * LEN as usize..][..10]);
        fs::write(root.path().join("t/sub/b"), "other").unwrap();
        assert_eq!(blob.read_now(2 * LEN, 5), None, "it has changed");
    }

    #[tokio::test]
    async fn what_an_earlier_download_left_is_found_again() {
        let (root, (bytes, _)) = (tempfile::tempdir().unwrap(), content());
        let storage = storage(root.path(), false);
        let first = create(&storage).await.unwrap();
        write(&first, 1).await.unwrap();
        drop(first);
        // Nobody vouches for what was not committed.
        let second = create(&storage).await.unwrap();
        assert_eq!(
            (present(&second), second.verified.count()),
            (vec![0, 1, 2], 0)
        );
        let read = second.blob.read_at(LEN, LEN as usize).await.unwrap();
        assert_eq!(read, bytes[LEN as usize..2 * LEN as usize]);
        drop(second);
        assert_eq!(storage.discard_partial(&content().1.id()).await, Ok(true));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert_eq!(storage.discard_partial(&content().1.id()).await, Ok(false));
    }

    #[tokio::test]
    async fn files_of_the_user_are_read_and_never_changed_unless_that_is_wanted() {
        let (root, (bytes, _)) = (tempfile::tempdir().unwrap(), content());
        let path = root.path().join("t/a");
        fs::create_dir(root.path().join("t")).unwrap();
        let mut other = bytes[..LEN as usize + 5].to_vec();
        other[7] ^= 1;
        fs::write(&path, &other).unwrap();
        let partial = create(&storage(root.path(), false)).await.unwrap();
        assert_eq!(present(&partial), [0, 1]);
        let refused = write(&partial, 0).await;
        assert!(
            matches!(refused, Err(StorageError::Exists { .. })),
            "{refused:?}"
        );
        // What is the same is written already.
        write(&partial, 1).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), other);
        drop(partial);
        let partial = create(&storage(root.path(), true)).await.unwrap();
        write(&partial, 0).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes[..LEN as usize + 5]);
        drop(partial);

        fs::write(&path, "short").unwrap();
        let refused = create(&storage(root.path(), false)).await.map(|_| ());
        assert!(
            matches!(refused, Err(StorageError::Exists { .. })),
            "{refused:?}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"short");
        create(&storage(root.path(), true)).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), LEN + 5);
    }

    #[tokio::test]
    async fn what_reaches_into_a_file_that_is_not_wanted_lies_apart() {
        let (root, (bytes, manifest)) = (tempfile::tempdir().unwrap(), content());
        let file = |path: &str, range| SpannedFile {
            path: path.parse().unwrap(),
            range,
            executable: false,
        };
        // The border of both lies in the second chunk.
        let files = || {
            let files = vec![file("t/a", 0..LEN + 5), file("t/sub/b", LEN + 5..3 * LEN)];
            SpannedStorage::new(root.path(), files, 3 * LEN, false)
        };
        let only_first = Some((vec![true, false], Vec::new()));
        let tree = |storage: &SpannedStorage| {
            let of = (manifest.id(), manifest.geometry());
            let chosen = Arc::clone(storage.chosen());
            SpannedTree::open(root.path().into(), storage.layout(), of, false, chosen).unwrap()
        };
        let chunks = |numbers: &[u32]| {
            let mut chunks = Bitfield::none(3);
            numbers.iter().for_each(|chunk| {
                chunks.insert(ChunkIndex(*chunk));
            });
            chunks
        };
        let write = |tree: &SpannedTree, chunk: u64| {
            let range = (chunk * LEN) as usize..((chunk + 1) * LEN) as usize;
            tree.write(chunk * LEN, &[bytes.slice(range)]).unwrap();
        };
        let apart = || {
            let mut entries = fs::read_dir(root.path()).unwrap();
            entries.any(|entry| entry.unwrap().path().to_str().unwrap().ends_with("apart"))
        };
        let storage = files();
        storage.chosen().set(only_first.clone());
        let (first, left) = tree(&storage);
        assert!(left.present.is_empty() && !root.path().join("t/sub").exists());
        write(&first, 0);
        write(&first, 1);
        first.finish_chosen(&chunks(&[0, 1])).unwrap();
        assert_eq!(
            fs::read(root.path().join("t/a")).unwrap(),
            bytes[..LEN as usize + 5]
        );
        assert!(!root.path().join("t/sub").exists());
        assert_eq!(
            first.read(LEN, LEN as usize).unwrap(),
            bytes[LEN as usize..][..LEN as usize]
        );
        drop(first);

        // It is found again, as long as it is not wanted and when it is.
        let storage = files();
        storage.chosen().set(only_first);
        let (second, left) = tree(&storage);
        assert_eq!(
            (left.present, left.verified),
            // What lies apart is verified anew.
            (chunks(&[0, 1]), chunks(&[0]))
        );
        drop(second);
        let storage = files();
        let (third, left) = tree(&storage);
        assert_eq!(
            (left.present, left.verified),
            (chunks(&[0, 1]), chunks(&[0]))
        );
        assert_eq!(
            third.read(0, 2 * LEN as usize).unwrap(),
            bytes[..2 * LEN as usize]
        );
        write(&third, 2);
        assert!(apart());
        third.finish(&chunks(&[0, 1, 2])).unwrap();
        assert_eq!(
            fs::read(root.path().join("t/sub/b")).unwrap(),
            bytes[LEN as usize + 5..]
        );
        assert!(!apart());
        drop(third);
        let (fourth, left) = tree(&files());
        assert_eq!(left.verified, chunks(&[0, 1, 2]));
        drop(fourth);
    }

    /// A file that ends in the second of three chunks, and one with the rest, which is not
    /// wanted, and of which something else has the name.
    fn beside_another(root: &Path, overwrites: bool) -> (SpannedStorage, Vec<u8>) {
        let file = |path: &str, range| SpannedFile {
            path: path.parse().unwrap(),
            range,
            executable: false,
        };
        let files = vec![file("t/a", 0..LEN + 5), file("t/b", LEN + 5..3 * LEN)];
        let storage = SpannedStorage::new(root, files, 3 * LEN, overwrites);
        let only_first = Some((vec![true, false], Vec::new()));
        storage.chosen().set(only_first);
        let mut other = content().0[LEN as usize + 5..].to_vec();
        other[7] ^= 1;
        fs::create_dir_all(root.join("t")).unwrap();
        fs::write(root.join("t/b"), &other).unwrap();
        (storage, other)
    }

    #[tokio::test]
    async fn file_that_is_not_wanted_and_another_one_is_left_alone() {
        for overwrites in [false, true] {
            let (root, (bytes, manifest)) = (tempfile::tempdir().unwrap(), content());
            let (storage, other) = beside_another(root.path(), overwrites);
            let open = || {
                let of = (manifest.id(), manifest.geometry());
                let chosen = Arc::clone(storage.chosen());
                let root = root.path().into();
                SpannedTree::open(root, storage.layout(), of, overwrites, chosen).unwrap()
            };
            let (tree, left) = open();
            assert_eq!(left.present.iter().count(), 1);
            let mut verified = Bitfield::none(3);
            for chunk in [0, 1] {
                let range = (chunk * LEN) as usize..((chunk + 1) * LEN) as usize;
                tree.write(chunk * LEN, &[bytes.slice(range)]).unwrap();
                verified.insert(ChunkIndex(chunk as u32));
            }
            tree.finish_chosen(&verified).unwrap();
            let here = || fs::read(root.path().join("t/b")).unwrap();
            assert_eq!(here(), other);
            // Where the other file differs, what was fetched is read.
            assert_eq!(
                tree.read(0, 2 * LEN as usize).unwrap(),
                bytes[..2 * LEN as usize]
            );
            let rest = tree.read(2 * LEN - 1, 2).unwrap();
            assert_eq!(rest, bytes[2 * LEN as usize - 1..][..2]);
            drop(tree);
            // The next run does not take the other file for what was fetched.
            let (tree, left) = open();
            assert_eq!(left.verified.iter().count(), 1);
            let range = LEN as usize..2 * LEN as usize;
            tree.write(LEN, &[bytes.slice(range)]).unwrap();
            // When it is wanted, it is in the way.
            storage.chosen().set(None);
            verified.insert(ChunkIndex(2));
            match tree.finish(&verified) {
                Ok(()) => {
                    assert!(overwrites);
                    assert_eq!(here(), bytes[LEN as usize + 5..]);
                }
                Err(error) => {
                    assert!(!overwrites && matches!(error, StorageError::Exists { .. }));
                    assert_eq!(here(), other);
                }
            }
        }
    }

    fn tree(root: &Path, storage: &SpannedStorage) -> Result<SpannedTree, StorageError> {
        let (_, manifest) = content();
        let of = (manifest.id(), manifest.geometry());
        let (chosen, overwrites) = (Arc::clone(storage.chosen()), storage.overwrites);
        let opened = SpannedTree::open(root.into(), storage.layout(), of, overwrites, chosen);
        opened.map(|(tree, _)| tree)
    }

    fn of_chunks(numbers: &[u32]) -> Bitfield {
        let mut chunks = Bitfield::none(3);
        for number in numbers {
            chunks.insert(ChunkIndex(*number));
        }
        chunks
    }

    fn is_changed<T>(result: Result<T, StorageError>) -> bool {
        matches!(result, Err(StorageError::Changed { .. }))
    }

    #[test]
    fn file_that_changes_after_it_was_verified_is_not_recorded_as_right() {
        let (root, (bytes, _)) = (tempfile::tempdir().unwrap(), content());
        let storage = storage(root.path(), false);
        let first = tree(root.path(), &storage).unwrap();
        first.write(0, std::slice::from_ref(&bytes)).unwrap();
        first.finish(&first.all()).unwrap();
        drop(first);
        let second = tree(root.path(), &storage).unwrap();
        let path = root.path().join("t/sub/b");
        let mut other = fs::read(&path).unwrap();
        other[3] ^= 1;
        fs::write(&path, other).unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(9);
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(later).unwrap();
        assert!(is_changed(second.read(2 * LEN, 5)));
        assert_eq!(second.read_cached(2 * LEN, 5), None);
        assert!(is_changed(second.finish(&second.all())));
        drop(second);
        let of = (content().1.id(), content().1.geometry());
        let chosen = Arc::clone(storage.chosen());
        let (_, left) =
            SpannedTree::open(root.path().into(), storage.layout(), of, false, chosen).unwrap();
        assert_eq!(left.verified, of_chunks(&[0, 1]));
    }

    #[test]
    fn file_of_somebody_else_is_left_alone_whatever_was_here_before() {
        for overwrites in [false, true] {
            let root = tempfile::tempdir().unwrap();
            let (storage, _) = beside_another(root.path(), overwrites);
            fs::write(root.path().join("t/b.bt_lite-part"), "begun").unwrap();
            fs::write(root.path().join("t/b"), "of somebody else").unwrap();
            tree(root.path(), &storage).unwrap();
            let found = fs::read(root.path().join("t/b")).unwrap();
            assert_eq!(found, b"of somebody else");
        }
    }

    #[test]
    fn part_that_is_gone_is_told_and_one_that_is_named_stays_locked() {
        let (root, (bytes, _)) = (tempfile::tempdir().unwrap(), content());
        let (storage, _) = beside_another(root.path(), false);
        fs::remove_file(root.path().join("t/b")).unwrap();
        storage.chosen().set(None);
        let tree = tree(root.path(), &storage).unwrap();
        storage.chosen().set(Some((vec![true, false], Vec::new())));
        tree.write(0, &[bytes.slice(..2 * LEN as usize)]).unwrap();
        tree.finish_chosen(&of_chunks(&[0, 1])).unwrap();
        // The first file has its name, and was what others saw locked.
        let taken = self::tree(root.path(), &storage).map(|_| ());
        assert!(
            matches!(taken, Err(StorageError::Locked { .. })),
            "{taken:?}"
        );
        tree.finish_chosen(&of_chunks(&[0, 1])).unwrap();
        fs::remove_file(root.path().join("t/a")).unwrap();
        assert!(is_changed(tree.finish_chosen(&of_chunks(&[0, 1]))));
    }

    #[tokio::test]
    async fn what_lay_apart_and_is_gone_is_told_and_not_made_anew() {
        let (root, (bytes, manifest)) = (tempfile::tempdir().unwrap(), content());
        let (storage, _) = beside_another(root.path(), false);
        fs::remove_file(root.path().join("t/b")).unwrap();
        let of = (manifest.id(), manifest.geometry());
        let chosen = Arc::clone(storage.chosen());
        let opened = SpannedTree::open(root.path().into(), storage.layout(), of, false, chosen);
        let (tree, _) = opened.unwrap();
        let range = LEN as usize..2 * LEN as usize;
        tree.write(LEN, &[bytes.slice(range)]).unwrap();
        let apart = root.path().join(record::apart_name(manifest.id()));
        let cut = fs::File::options().write(true).open(&apart).unwrap();
        cut.set_len(7).unwrap();
        let changed = |read: Result<Bytes, StorageError>| {
            assert!(
                matches!(read, Err(StorageError::Changed { .. })),
                "{read:?}"
            );
        };
        changed(tree.read(LEN, LEN as usize));
        fs::remove_file(&apart).unwrap();
        tree.release();
        changed(tree.read(LEN, LEN as usize));
        assert!(!apart.exists());
        drop(tree);
        fs::write(&apart, "x").unwrap();
        assert_eq!(storage.discard_partial(&manifest.id()).await, Ok(true));
        assert!(!apart.exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn more_files_than_are_open_are_written_and_read_at_the_same_time() {
        const FILES: u64 = 100;
        let root = tempfile::tempdir().unwrap();
        let files = (0..FILES).map(|file| SpannedFile {
            path: format!("t/{file}").parse().unwrap(),
            range: file * 1000..(file + 1) * 1000,
            executable: false,
        });
        let storage = SpannedStorage::new(root.path(), files.collect(), FILES * 1000, false);
        let bytes = vec![7; FILES as usize * 1000];
        let manifest = Manifest::of(&bytes).unwrap();
        let name = manifest.id().into();
        let partial = storage.create(&name, &manifest).await.unwrap();
        let taken = storage.create(&name, &manifest).await.map(|_| ());
        assert!(
            matches!(taken, Err(StorageError::Locked { .. })),
            "{taken:?}"
        );
        let tasks = (0..8 * FILES).map(|n| {
            let (blob, file) = (Arc::clone(&partial.blob), n * 37 % FILES);
            tokio::spawn(async move {
                let written = vec![Bytes::from(vec![7; 1000])];
                blob.write_at(file * 1000, written).await?;
                blob.read_at(file * 1000, 1000).await
            })
        });
        for done in futures::future::join_all(tasks).await {
            assert_eq!(done.unwrap().unwrap(), [7; 1000][..]);
        }
        partial.blob.finish().await.unwrap();
        assert_eq!(fs::read(root.path().join("t/99")).unwrap(), [7; 1000]);
    }

    fn verified(partial: &Partial) -> Vec<u32> {
        partial.verified.iter().map(|chunk| chunk.0).collect()
    }

    /// Gives a file other bytes that nobody can tell by its stamp.
    fn change_secretly(path: &Path) {
        let modified = fs::metadata(path).unwrap().modified().unwrap();
        let mut bytes = fs::read(path).unwrap();
        bytes[0] ^= 1;
        fs::write(path, bytes).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(modified).unwrap();
    }

    #[tokio::test]
    async fn what_was_committed_is_not_verified_again_unless_its_files_changed() {
        let (root, _) = (tempfile::tempdir().unwrap(), content());
        let storage = storage(root.path(), false);
        let first = create(&storage).await.unwrap();
        for chunk in [0, 2] {
            write(&first, chunk).await.unwrap();
        }
        let mut commits = Bitfield::none(3);
        commits.insert(ChunkIndex(2));
        first.blob.commit(&commits).await.unwrap();
        drop(first);
        // Of a file that has not changed, what was not committed does not count.
        let second = create(&storage).await.unwrap();
        assert_eq!((present(&second), verified(&second)), (vec![2], vec![2]));
        write(&second, 0).await.unwrap();
        drop(second);
        // It was written after the commit.
        let third = create(&storage).await.unwrap();
        assert_eq!(
            (present(&third), verified(&third)),
            (vec![0, 1, 2], vec![2])
        );
        third.blob.commit(&commits).await.unwrap();
        for chunk in [0, 1] {
            write(&third, chunk).await.unwrap();
        }
        third.blob.commit(&Bitfield::all(3)).await.unwrap();
        third.blob.finish().await.unwrap();
        drop(third);
        let names = |root: &Path| fs::read_dir(root).unwrap().count();
        assert_eq!(names(root.path()), 2);
        let complete = create(&storage).await.unwrap();
        assert_eq!(verified(&complete), [0, 1, 2]);
        complete.blob.finish().await.unwrap();
        drop(complete);
        // What is not noticed is not read.
        change_secretly(&root.path().join("t/sub/b"));
        assert_eq!(verified(&create(&storage).await.unwrap()), [0, 1, 2]);
        let path = root.path().join("t/sub/b");
        let touched = fs::File::options().write(true).open(path).unwrap();
        touched.set_modified(std::time::SystemTime::now()).unwrap();
        let changed = create(&storage).await.unwrap();
        assert_eq!(
            (present(&changed), verified(&changed)),
            (vec![0, 1, 2], vec![0, 1])
        );
        drop(changed);
        fs::remove_file(root.path().join("t/a")).unwrap();
        let removed = create(&storage).await.unwrap();
        assert_eq!((present(&removed), verified(&removed)), (vec![2], vec![]));
        drop(removed);
        storage.discard_partial(&content().1.id()).await.unwrap();
        assert_eq!(names(root.path()), 1);
    }

    #[tokio::test]
    async fn what_nobody_has_verified_yet_is_not_forgotten() {
        let (root, (bytes, manifest)) = (tempfile::tempdir().unwrap(), content());
        fs::create_dir(root.path().join("t")).unwrap();
        let path = root.path().join("t/a");
        fs::write(&path, &bytes[..LEN as usize + 5]).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let before = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        file.set_modified(before).unwrap();
        let storage = storage(root.path(), false);
        let first = create(&storage).await.unwrap();
        assert_eq!(present(&first), [0, 1]);
        write(&first, 2).await.unwrap();
        let mut verified_by_now = Bitfield::none(3);
        verified_by_now.insert(ChunkIndex(2));
        verified_by_now.insert(ChunkIndex(0));
        first.blob.commit(&verified_by_now).await.unwrap();
        drop(first);
        let second = create(&storage).await.unwrap();
        let all = (present(&second), verified(&second));
        assert_eq!(all, (vec![0, 1, 2], vec![0, 2]));
        assert_eq!(manifest.geometry().chunks(), 3);
    }

    #[tokio::test]
    async fn record_that_is_damaged_or_reserved_by_its_name_vouches_for_nothing() {
        let (root, (_, manifest)) = (tempfile::tempdir().unwrap(), content());
        let storage = storage(root.path(), false);
        let partial = create(&storage).await.unwrap();
        for chunk in 0..3 {
            write(&partial, chunk).await.unwrap();
        }
        partial.blob.finish().await.unwrap();
        drop(partial);
        let record = root.path().join(&record::names(manifest.id())[0]);
        let mut bytes = fs::read(&record).unwrap();
        bytes[20] ^= 1;
        fs::write(&record, bytes).unwrap();
        assert_eq!(verified(&create(&storage).await.unwrap()), [0; 0]);
        let path = record::names(ContentId::of(b"x"))[0].to_uppercase();
        let files = vec![SpannedFile {
            path: path.parse().unwrap(),
            range: 0..3 * LEN,
            executable: false,
        }];
        let storage = SpannedStorage::new(root.path(), files, 3 * LEN, true);
        let refused = create(&storage).await.map(|_| ());
        assert!(
            matches!(refused, Err(StorageError::Reserved { .. })),
            "{refused:?}"
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn links_are_made_when_all_is_there_and_replace_nothing() {
        let (root, (bytes, _)) = (tempfile::tempdir().unwrap(), content());
        let link = |path: &str, target: &str| SpannedLink {
            path: path.parse().unwrap(),
            target: target.to_owned(),
        };
        let links = vec![link("t/l", "sub/b"), link("t/new/l", "../a")];
        let storage = |overwrites| storage(root.path(), overwrites).links(links.clone());
        let taken = root.path().join("t/l");
        fs::create_dir(root.path().join("t")).unwrap();
        fs::write(&taken, "mine").unwrap();
        for overwrites in [false, true] {
            let refused = create(&storage(overwrites)).await.map(|_| ());
            assert!(
                matches!(refused, Err(StorageError::Exists { .. })),
                "{refused:?}"
            );
        }
        fs::remove_file(&taken).unwrap();
        std::os::unix::fs::symlink("a", &taken).unwrap();
        let refused = create(&storage(false)).await.map(|_| ());
        assert!(
            matches!(refused, Err(StorageError::Exists { .. })),
            "{refused:?}"
        );
        for _ in 0..2 {
            let partial = create(&storage(true)).await.unwrap();
            for chunk in 0..3 {
                write(&partial, chunk).await.unwrap();
            }
            partial.blob.finish().await.unwrap();
            assert_eq!(fs::read_link(&taken).unwrap(), Path::new("sub/b"));
            let second = root.path().join("t/new/l");
            assert_eq!(fs::read(second).unwrap(), bytes[..LEN as usize + 5]);
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn no_link_leads_out_of_the_directory() {
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), root.path().join("t")).unwrap();
        let refused = create(&storage(root.path(), true)).await.map(|_| ());
        assert!(
            matches!(refused, Err(StorageError::NotADirectory { .. })),
            "{refused:?}"
        );
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
