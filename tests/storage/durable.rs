//! The file storage after an interruption: what it resumes, what it does not
//! trust, and what it remembers.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bt_lite::storage::{Blob, Catalogue, Lost, Partial, Stored, open_file};
use bt_lite::{Bitfield, ChunkIndex, ContentName, FileStorage, Manifest, Storage, StorageError};
use bytes::Bytes;
use tempfile::TempDir;

const CHUNK: usize = 16 << 10;
const CHUNKS: u32 = 6;

struct TestDownload {
    dir: TempDir,
    content: Bytes,
    manifest: Manifest,
}

impl TestDownload {
    fn new() -> Self {
        let mut content = vec![0; CHUNKS as usize * CHUNK - 99];
        fill(&mut content);
        Self {
            dir: tempfile::tempdir().unwrap(),
            manifest: Manifest::of(&content).unwrap(),
            content: content.into(),
        }
    }

    fn storage(&self) -> FileStorage {
        FileStorage::open(self.dir.path()).unwrap()
    }

    fn verifying(&self) -> FileStorage {
        let builder = FileStorage::builder(self.dir.path());
        builder.verify_on_resume(true).open().unwrap()
    }

    fn path(&self, ending: &str) -> PathBuf {
        let id = self.manifest.id();
        self.dir.path().join(format!("{id}.{ending}"))
    }

    fn exists(&self) -> StorageError {
        StorageError::Exists {
            name: name(),
            path: Some(self.target()),
        }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("a")
    }

    async fn create(&self, storage: &FileStorage) -> Partial {
        self.try_create(storage).await.unwrap()
    }

    async fn try_create(&self, storage: &FileStorage) -> Result<Partial, StorageError> {
        storage.create(&name(), &self.manifest).await
    }

    async fn write(&self, partial: &Partial, chunks: &Bitfield) {
        for chunk in chunks.iter() {
            let range = self.manifest.geometry().range_of(chunk);
            let bytes = self.content.slice(range.start as usize..range.end as usize);
            partial
                .blob
                .write_at(range.start, vec![bytes])
                .await
                .unwrap();
        }
    }

    /// Interrupts a download after it has committed these chunks.
    async fn interrupted(&self, chunks: &[u32]) {
        let partial = self.create(&self.storage()).await;
        self.write(&partial, &set(chunks)).await;
        partial.blob.commit(&set(chunks)).await.unwrap();
    }

    /// Writes the missing chunks, and finishes.
    async fn complete(&self, partial: Partial) -> Result<(), StorageError> {
        let mut missing = Bitfield::none(CHUNKS);
        partial.present.iter_missing().for_each(|chunk| {
            missing.insert(chunk);
        });
        self.write(&partial, &missing).await;
        partial.blob.finish().await
    }

    async fn check_completes(&self, partial: Partial) {
        self.complete(partial).await.unwrap();
        assert_eq!(fs::read(self.target()).unwrap(), self.content);
        for ending in ["part", "journal"] {
            assert!(!self.path(ending).exists(), "{ending}");
        }
    }

    /// Finishes the content, and has the storage remember it.
    async fn finished(&self) -> FileStorage {
        let storage = self.storage();
        let partial = self.create(&storage).await;
        let blob = partial.blob.clone();
        self.complete(partial).await.unwrap();
        self.remember(&storage, "a", blob).await;
        storage
    }

    async fn remember(&self, storage: &FileStorage, name: &str, blob: Arc<dyn Blob>) {
        let stored = Stored::new(name.parse().unwrap(), self.manifest.clone(), blob);
        storage.remember(&stored).await.unwrap();
    }

    /// The catalogue of a newly opened storage.
    async fn catalogue(&self) -> Catalogue {
        let storage = self.storage();
        let catalogue = storage.catalogue().await.unwrap();
        for entry in &catalogue.remembered {
            let manifest = storage.manifest(&entry.name, &entry.id).await.unwrap();
            assert_eq!(manifest.as_ref(), Some(&self.manifest));
        }
        catalogue
    }

    /// The names in the catalogue of a newly opened storage.
    async fn offered(&self) -> Vec<String> {
        let entries = self.catalogue().await.remembered;
        entries.iter().map(|entry| entry.name.to_string()).collect()
    }

    /// Checks that one content is lost for this reason, and not reported again.
    async fn check_lost(&self, name: &str, error: StorageError) {
        let catalogue = self.catalogue().await;
        assert!(catalogue.remembered.is_empty());
        let lost = Lost::new(self.manifest.id(), name.parse().unwrap(), error);
        assert_eq!(catalogue.lost, [lost]);
        let catalogue = self.catalogue().await;
        assert!(catalogue.remembered.is_empty() && catalogue.lost.is_empty());
    }

    /// The segments of the catalogue, in order.
    fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|e| e == "catalogue"))
            .collect();
        paths.sort();
        paths
    }
}

/// Fills the bytes with the same pseudorandom sequence every time.
fn fill(bytes: &mut [u8]) {
    let mut state = 7u32;
    for byte in bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
}

fn name() -> ContentName {
    "a".parse().unwrap()
}

fn set(chunks: &[u32]) -> Bitfield {
    let mut set = Bitfield::none(CHUNKS);
    for &chunk in chunks {
        set.insert(ChunkIndex(chunk));
    }
    set
}

fn alter(path: &Path, at: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at as u64).unwrap();
}

#[tokio::test]
async fn interrupted_download_resumes_at_each_commit() {
    let test = TestDownload::new();
    test.interrupted(&[1, 2]).await;
    let partial = test.create(&test.storage()).await;
    assert_eq!(partial.present, set(&[1, 2]));
    assert_eq!(partial.verified, set(&[]));
    test.write(&partial, &set(&[0, 5])).await;
    partial.blob.commit(&set(&[0, 1, 2, 5])).await.unwrap();
    // Not committed.
    test.write(&partial, &set(&[3])).await;
    drop(partial);
    let partial = test.create(&test.storage()).await;
    assert_eq!(partial.present, set(&[0, 1, 2, 5]));
    test.check_completes(partial).await;
}

#[tokio::test]
async fn altered_chunk_is_detected_before_the_content_is_published_and_fetched_again() {
    let test = TestDownload::new();
    test.interrupted(&[0, 1, 2, 4]).await;
    alter(&test.path("part"), 2 * CHUNK + 5);
    let partial = test.create(&test.storage()).await;
    assert_eq!(partial.present, set(&[0, 1, 2, 4]));
    let altered = StorageError::Altered {
        path: test.path("part"),
        chunk: ChunkIndex(2),
    };
    let blob = partial.blob.clone();
    assert_eq!(test.complete(partial).await, Err(altered.clone()));
    assert!(!test.target().exists());
    let again = blob.write_at(0, vec![test.content.slice(..CHUNK)]).await;
    assert_eq!(again, Err(altered));
    drop(blob);
    let partial = test.create(&test.storage()).await;
    assert_eq!(partial.present, set(&[0, 1, 4]));
    test.check_completes(partial).await;
}

#[tokio::test]
async fn altered_chunk_that_was_written_again_is_not_an_error() {
    let test = TestDownload::new();
    test.interrupted(&[0, 1, 2]).await;
    alter(&test.path("part"), CHUNK + 5);
    let partial = test.create(&test.storage()).await;
    test.write(&partial, &set(&[1])).await;
    drop(partial);
    // It was written but not committed.
    let partial = test.create(&test.storage()).await;
    assert_eq!(partial.present, set(&[0, 2]));
    test.check_completes(partial).await;
}

#[tokio::test]
async fn truncated_unfinished_file_loses_the_chunks_at_its_end() {
    let test = TestDownload::new();
    for (length, present) in [
        (4 * CHUNK + 1, &[0, 3][..]),
        (4 * CHUNK, &[0, 3]),
        (4 * CHUNK - 1, &[0]),
        (0, &[]),
    ] {
        test.interrupted(&[0, 3, 4, 5]).await;
        let file = File::options().write(true).open(test.path("part")).unwrap();
        file.set_len(length as u64).unwrap();
        let partial = test.create(&test.storage()).await;
        assert_eq!(partial.present, set(present), "{length}");
    }
    test.interrupted(&[0, 5]).await;
    let file = File::options().write(true).open(test.path("part")).unwrap();
    file.set_len(1 << 20).unwrap();
    let partial = test.create(&test.storage()).await;
    assert_eq!(partial.present, set(&[0, 5]));
    test.check_completes(partial).await;
}

#[tokio::test]
async fn journal_without_its_file_and_file_without_its_journal_are_not_trusted() {
    let test = TestDownload::new();
    for ending in ["part", "journal"] {
        test.interrupted(&[0, 1]).await;
        fs::remove_file(test.path(ending)).unwrap();
        let partial = test.create(&test.storage()).await;
        assert_eq!(partial.present, set(&[]), "{ending}");
    }
    let partial = test.create(&test.storage()).await;
    test.check_completes(partial).await;
}

#[tokio::test]
async fn damaged_journal_is_trusted_up_to_the_damage_and_one_of_another_content_is_not() {
    let test = TestDownload::new();
    test.interrupted(&[0]).await;
    let good = fs::metadata(test.path("journal")).unwrap().len();
    let partial = test.create(&test.storage()).await;
    test.write(&partial, &set(&[1, 2])).await;
    partial.blob.commit(&set(&[0, 1, 2])).await.unwrap();
    drop(partial);
    alter(&test.path("journal"), good as usize + 20);
    let partial = test.create(&test.storage()).await;
    assert_eq!(partial.present, set(&[0]));
    drop(partial);

    let other = TestDownload::new();
    let journal = other.path("journal");
    fs::rename(test.path("journal"), test.dir.path().join("kept")).unwrap();
    fs::write(&journal, "no journal at all").unwrap();
    fs::copy(&journal, test.path("journal")).unwrap();
    let partial = test.create(&test.storage()).await;
    assert_eq!(partial.present, set(&[]));
    drop(partial);
    // The content id is in the header, before the checksum.
    fs::copy(test.dir.path().join("kept"), test.path("journal")).unwrap();
    alter(&test.path("journal"), 40);
    let partial = test.create(&test.storage()).await;
    assert_eq!(partial.present, set(&[]));
    test.check_completes(partial).await;
}

#[tokio::test]
async fn linked_journal_is_left_alone() {
    let test = TestDownload::new();
    let outside = test.dir.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    let check_refused = async |found: &'static str| {
        let path = test.path("journal");
        let created = test.try_create(&test.storage()).await.map(|_| ());
        assert_eq!(created, Err(StorageError::NotAFile { path, found }));
        assert_eq!(fs::read(&outside).unwrap(), b"mine");
    };
    fs::hard_link(&outside, test.path("journal")).unwrap();
    check_refused("a file with more than one hard link").await;
    fs::remove_file(test.path("journal")).unwrap();
    std::os::unix::fs::symlink(&outside, test.path("journal")).unwrap();
    check_refused("a symbolic link").await;
    fs::remove_file(test.path("journal")).unwrap();
    let partial = test.create(&test.storage()).await;
    test.check_completes(partial).await;
}

#[tokio::test]
async fn verification_on_resume_finds_all_correct_chunks_whatever_the_journal_says() {
    let test = TestDownload::new();
    test.interrupted(&[0, 1, 2, 5]).await;
    alter(&test.path("part"), CHUNK);
    let partial = test.create(&test.verifying()).await;
    assert_eq!(partial.present, set(&[0, 2, 5]));
    assert_eq!(partial.verified, partial.present);
    drop(partial);
    // The wrong chunk is no longer committed, with or without verification.
    let partial = test.create(&test.storage()).await;
    assert_eq!(partial.present, set(&[0, 2, 5]));
    drop(partial);

    fs::remove_file(test.path("journal")).unwrap();
    let partial = test.create(&test.verifying()).await;
    assert_eq!(partial.present, set(&[0, 2, 5]));
    partial.blob.commit(&partial.present).await.unwrap();
    drop(partial);
    let partial = test.create(&test.storage()).await;
    assert_eq!(partial.present, set(&[0, 2, 5]));
    test.check_completes(partial).await;
}

#[tokio::test]
async fn space_is_reserved_at_the_start_only_on_request() {
    for preallocate in [false, true] {
        let test = TestDownload::new();
        let builder = FileStorage::builder(test.dir.path());
        let storage = builder.preallocate(preallocate).open().unwrap();
        let partial = test.create(&storage).await;
        let part = fs::metadata(test.path("part")).unwrap();
        assert_eq!(part.len(), test.content.len() as u64);
        let taken = part.blocks() * 512 >= part.len();
        assert_eq!(taken, preallocate);
        test.check_completes(partial).await;
    }
}

#[tokio::test]
async fn removed_directory_is_an_error_that_names_it() {
    let test = TestDownload::new();
    let storage = test.storage();
    let partial = test.create(&storage).await;
    fs::remove_dir_all(test.dir.path()).unwrap();
    let (path, how) = (test.path("part"), "removed");
    let removed = StorageError::Tampered { path, how };
    assert_eq!(test.complete(partial).await, Err(removed));
    match test.try_create(&storage).await.map(|_| ()) {
        Err(StorageError::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::NotFound),
        other => panic!("{other:?}"),
    }
    let partial = test.create(&test.storage()).await;
    test.check_completes(partial).await;
}

/// The other process of the next test. Does nothing when it is run as a test.
#[tokio::test]
async fn holder_in_another_process() {
    let Some(dir) = std::env::var_os("BT_LITE_TEST_HOLD") else {
        return;
    };
    let test = TestDownload::new();
    let storage = FileStorage::open(dir).unwrap();
    let partial = test.create(&storage).await;
    test.write(&partial, &set(&[0, 4])).await;
    partial.blob.commit(&set(&[0, 4])).await.unwrap();
    println!("\nheld");
    // Waits until the test closes standard input, or kills this process.
    std::io::stdin().lines().for_each(drop);
}

#[tokio::test]
async fn content_that_another_process_writes_is_locked_until_that_process_is_killed() {
    let test = TestDownload::new();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "durable::holder_in_another_process",
            "--nocapture",
        ])
        .env("BT_LITE_TEST_HOLD", test.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(holder.stdout.take().unwrap());
    assert!(output.lines().any(|line| line.unwrap() == "held"));
    let locked = test.try_create(&test.storage()).await.map(|_| ());
    let id = test.manifest.id();
    let path = Some(test.path("part"));
    assert_eq!(locked, Err(StorageError::Locked { id, path }));
    holder.kill().unwrap();
    holder.wait().unwrap();
    let partial = test.create(&test.storage()).await;
    assert_eq!(partial.present, set(&[0, 4]));
    test.check_completes(partial).await;
}

#[tokio::test]
async fn finished_content_is_offered_after_a_restart_until_it_changes() {
    let test = TestDownload::new();
    test.finished().await;
    assert_eq!(test.offered().await, ["a"]);
    let stored = test.catalogue().await.remembered.remove(0);
    let read = stored.blob.read_at(0, test.content.len()).await;
    assert_eq!(read.unwrap(), test.content);
    // Immediately, and without changing the length.
    alter(&test.target(), 7);
    let path = test.target();
    let changed = stored.blob.read_at(0, 1).await;
    let error = StorageError::Changed { path };
    assert_eq!(changed, Err(error.clone()));
    test.check_lost("a", error).await;
    // The original bytes have another modification time, and so count as changed.
    alter(&test.target(), 7);
    assert!(test.offered().await.is_empty());
}

#[tokio::test]
async fn file_that_is_gone_or_replaced_by_a_link_is_not_offered() {
    for replaced in [false, true] {
        let test = TestDownload::new();
        test.finished().await;
        let aside = test.dir.path().join("aside");
        fs::rename(test.target(), &aside).unwrap();
        if replaced {
            std::os::unix::fs::symlink(&aside, test.target()).unwrap();
        }
        let path = test.target();
        let error = match replaced {
            true => StorageError::Changed { path },
            false => StorageError::NotFound { name: name() },
        };
        test.check_lost("a", error).await;
        assert_eq!(fs::read(&aside).unwrap(), test.content);
    }
}

#[tokio::test]
async fn file_elsewhere_is_offered_after_a_restart_until_it_changes() {
    let (test, elsewhere) = (TestDownload::new(), tempfile::tempdir().unwrap());
    let path = elsewhere.path().join("file");
    for at_once in [true, false] {
        fs::write(&path, &test.content).unwrap();
        if !at_once {
            let file = File::options().write(true).open(&path).unwrap();
            let past = std::time::SystemTime::UNIX_EPOCH;
            file.set_modified(past).unwrap();
        }
        let blob = open_file(&path).await.unwrap();
        test.remember(&test.storage(), "shared", blob).await;
        for _ in 0..2 {
            assert_eq!(test.offered().await, ["shared"]);
        }
        // If the file was written within one tick of the file system's clock, its
        // bytes are compared.
        alter(&path, 9);
        let path = path.clone();
        test.check_lost("shared", StorageError::Changed { path })
            .await;
    }
}

#[tokio::test]
async fn file_whose_folder_is_away_is_reported_each_time_and_offered_again() {
    let (test, elsewhere) = (TestDownload::new(), tempfile::tempdir().unwrap());
    let (folder, away) = (elsewhere.path().join("disk"), elsewhere.path().join("away"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), &test.content).unwrap();
    let blob = open_file(folder.join("file")).await.unwrap();
    test.remember(&test.storage(), "shared", blob).await;
    fs::rename(&folder, &away).unwrap();
    let name: ContentName = "shared".parse().unwrap();
    let error = StorageError::NotFound { name: name.clone() };
    let lost = Lost::new(test.manifest.id(), name.clone(), error).recorded(true);
    for mount_point in [false, true] {
        if mount_point {
            fs::create_dir(&folder).unwrap();
        }
        for _ in 0..2 {
            let catalogue = test.catalogue().await;
            assert!(catalogue.remembered.is_empty());
            assert_eq!(catalogue.lost, std::slice::from_ref(&lost));
        }
    }
    fs::remove_dir(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    assert_eq!(test.offered().await, ["shared"]);
    // One that is away can be forgotten.
    fs::rename(&folder, &away).unwrap();
    let forgotten = test.storage().forget(&name, &test.manifest.id()).await;
    forgotten.unwrap();
    let catalogue = test.catalogue().await;
    assert!(catalogue.remembered.is_empty() && catalogue.lost.is_empty());
}

#[tokio::test]
async fn content_is_offered_even_if_its_record_cannot_be_updated() {
    let (test, elsewhere) = (TestDownload::new(), tempfile::tempdir().unwrap());
    let path = elsewhere.path().join("file");
    fs::write(&path, &test.content).unwrap();
    let blob = open_file(&path).await.unwrap();
    test.remember(&test.storage(), "a", blob).await;
    // The file was just written, so it is hashed, and a new record should be written
    // to avoid this the next time. But there is no number left for a segment.
    let outside = elsewhere.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    let first = test.segments().remove(0);
    let last = first.with_file_name(format!("{:064x}.catalogue", u64::MAX >> 1));
    fs::hard_link(&outside, last).unwrap();
    assert_eq!(test.offered().await, ["a"]);
    assert_eq!(test.segments().len(), 2);
    assert_eq!(fs::read(&outside).unwrap(), b"mine");
}

#[tokio::test]
async fn contents_of_one_name_in_different_directories_are_all_remembered() {
    let (test, elsewhere) = (TestDownload::new(), tempfile::tempdir().unwrap());
    let storage = test.finished().await;
    let (path, bytes) = (elsewhere.path().join("other"), b"another content");
    fs::write(&path, bytes).unwrap();
    let other = Manifest::of(bytes).unwrap();
    let blob = open_file(&path).await.unwrap();
    let stored = Stored::new(name(), other.clone(), blob);
    storage.remember(&stored).await.unwrap();
    for storage in [&storage, &test.storage()] {
        let entries = storage.catalogue().await.unwrap().remembered;
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [test.manifest.id(), other.id()]);
        for manifest in [&test.manifest, &other] {
            let found = storage.manifest(&name(), &manifest.id()).await;
            assert_eq!(found, Ok(Some(manifest.clone())));
        }
    }
    // One is forgotten without the other.
    storage.forget(&name(), &test.manifest.id()).await.unwrap();
    for storage in [storage, test.storage()] {
        let entries = storage.catalogue().await.unwrap().remembered;
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [other.id()]);
        let gone = storage.manifest(&name(), &test.manifest.id()).await;
        assert_eq!(gone, Ok(None));
    }
}

#[tokio::test]
async fn content_that_another_one_has_replaced_under_its_path_is_not_reported_as_lost() {
    let test = TestDownload::new();
    let storage = test.finished().await;
    fs::write(test.target(), b"another content").unwrap();
    let other = Manifest::of(b"another content").unwrap();
    let blob = storage.open(&name()).await.unwrap();
    let stored = Stored::new(name(), other.clone(), blob);
    storage.remember(&stored).await.unwrap();
    for _ in 0..2 {
        let catalogue = test.storage().catalogue().await.unwrap();
        assert_eq!(catalogue.lost, []);
        let ids: Vec<_> = catalogue.remembered.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [other.id()]);
    }
}

#[tokio::test]
async fn record_that_is_damaged_renamed_or_forgotten_is_ignored() {
    let test = TestDownload::new();
    let storage = test.finished().await;
    storage.forget(&name(), &test.manifest.id()).await.unwrap();
    assert!(test.offered().await.is_empty());

    for damage in [
        |path: &Path| alter(path, 50),
        |path: &Path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(fs::metadata(path).unwrap().len() - 1).unwrap();
        },
        |path: &Path| fs::write(path, "short").unwrap(),
        |path: &Path| {
            let mut digits = path.file_stem().unwrap().to_str().unwrap().to_owned();
            digits.replace_range(62..63, "f");
            let renamed = path.with_file_name(digits + ".catalogue");
            fs::rename(path, renamed).unwrap();
        },
    ] {
        let storage = test.storage();
        let blob = storage.open(&name()).await.unwrap();
        test.remember(&storage, "a", blob).await;
        assert_eq!(test.offered().await, ["a"]);
        drop(storage);
        // It was updated when it was offered, so there may be two segments.
        test.segments().iter().for_each(|path| damage(path));
        let catalogue = test.catalogue().await;
        assert!(catalogue.remembered.is_empty() && catalogue.lost.is_empty());
        assert_eq!(fs::read(test.target()).unwrap(), test.content);
        test.segments()
            .iter()
            .for_each(|path| fs::remove_file(path).unwrap());
    }
}

#[tokio::test]
async fn damaged_manifest_is_an_error_that_names_its_segment() {
    let test = TestDownload::new();
    let storage = test.finished().await;
    // A second record makes the first one count as durable, so that its manifest is
    // not looked at before it is wanted.
    let blob = storage.open(&name()).await.unwrap();
    test.remember(&storage, "b", blob).await;
    drop(storage);
    let segment = test.segments().remove(0);
    let len = fs::metadata(&segment).unwrap().len() as usize;
    alter(&segment, len / 2 - 40);
    let storage = test.storage();
    let entries = storage.catalogue().await.unwrap().remembered;
    assert_eq!(entries.len(), 2);
    let manifest = storage.manifest(&entries[1].name, &entries[1].id).await;
    assert_eq!(manifest, Ok(Some(test.manifest.clone())));
    match storage.manifest(&entries[0].name, &entries[0].id).await {
        Err(StorageError::Io { what, source, .. }) => {
            assert_eq!(source.kind(), ErrorKind::InvalidData);
            assert!(what.contains(segment.to_str().unwrap()), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn segments_of_many_restarts_become_few() {
    let test = TestDownload::new();
    test.finished().await;
    for restart in 0..40 {
        let storage = test.storage();
        let blob = storage.open(&name()).await.unwrap();
        test.remember(&storage, &format!("n{}", restart % 7), blob)
            .await;
        if restart % 5 == 0 {
            storage
                .forget(
                    &format!("n{}", restart % 7).parse().unwrap(),
                    &test.manifest.id(),
                )
                .await
                .unwrap();
        }
    }
    assert!(test.segments().len() <= 10, "{:?}", test.segments());
    let mut offered = test.offered().await;
    offered.sort();
    // 35 was the last restart that forgot one: n0. 30 forgot n2, and 37 wrote it anew.
    assert_eq!(offered, ["a", "n1", "n2", "n3", "n4", "n5", "n6"]);
}

#[tokio::test]
async fn what_several_storages_remember_at_the_same_time_is_all_there() {
    let test = TestDownload::new();
    let first = test.finished().await;
    // It knows nothing of the segments that the others write.
    let second = test.storage();
    second.catalogue().await.unwrap();
    for n in 0..30 {
        let other = test.storage();
        let blob = other.open(&name()).await.unwrap();
        test.remember(&other, &format!("other {n:02}"), blob).await;
    }
    let blob = second.open(&name()).await.unwrap();
    test.remember(&second, "second", blob.clone()).await;
    test.remember(&first, "first", blob).await;
    let mut expected: Vec<_> = (0..30).map(|n| format!("other {n:02}")).collect();
    expected.extend(["a", "first", "second"].map(String::from));
    for storage in [test.storage(), first, second] {
        let mut found = Vec::new();
        for entry in storage.catalogue().await.unwrap().remembered {
            let manifest = storage.manifest(&entry.name, &entry.id).await.unwrap();
            assert_eq!(manifest.as_ref(), Some(&test.manifest));
            found.push(entry.name.to_string());
        }
        found.sort();
        let mut expected = expected.clone();
        expected.sort();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn irregular_segment_is_left_alone() {
    let test = TestDownload::new();
    let storage = test.finished().await;
    let first = test.segments().remove(0);
    let at = |n: u64| first.with_file_name(format!("{n:064x}.catalogue"));
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("outside"), "mine").unwrap();
    std::os::unix::fs::symlink(outside.path().join("outside"), at(7)).unwrap();
    fs::create_dir(at(9)).unwrap();
    let other = test.storage();
    let blob = storage.open(&name()).await.unwrap();
    test.remember(&other, "b", blob).await;
    assert_eq!(test.offered().await, ["a", "b"]);
    assert!(at(10).exists());
    assert_eq!(fs::read(outside.path().join("outside")).unwrap(), b"mine");
}

#[tokio::test]
async fn leftovers_of_a_finished_content_are_removed() {
    let test = TestDownload::new();
    for (by_catalogue, linked) in [(true, false), (false, false), (false, true)] {
        test.interrupted(&[0, 1, 2, 3, 4, 5]).await;
        // As if the process had been killed right after publishing, or between
        // the two steps of publishing.
        match linked {
            true => fs::hard_link(test.path("part"), test.target()).unwrap(),
            false => fs::rename(test.path("part"), test.target()).unwrap(),
        }
        match by_catalogue {
            true => assert!(test.offered().await.is_empty()),
            false => {
                let created = test.try_create(&test.storage()).await.map(|_| ());
                assert_eq!(created, Err(test.exists()));
            }
        }
        assert!(!test.path("journal").exists());
        assert!(!test.path("part").exists());
        let found = test.storage().open(&name()).await.unwrap();
        found.sync().await.unwrap();
        fs::remove_file(test.target()).unwrap();
    }
}

#[tokio::test]
async fn content_of_one_chunk_has_no_journal_and_starts_anew() {
    for len in [0, 1, CHUNK] {
        let mut content = vec![0; len];
        fill(&mut content);
        let test = TestDownload {
            dir: tempfile::tempdir().unwrap(),
            manifest: Manifest::of(&content).unwrap(),
            content: content.into(),
        };
        let all = Bitfield::all(1);
        let partial = test.create(&test.storage()).await;
        test.write(&partial, &all).await;
        partial.blob.commit(&all).await.unwrap();
        // It waits in memory.
        assert!(!test.path("part").exists() && !test.path("journal").exists());
        assert_eq!(partial.blob.read_at(0, len).await.unwrap(), test.content);
        drop(partial);

        // As a kill between writing and publishing leaves it.
        fs::write(test.path("part"), &test.content).unwrap();
        let partial = test.create(&test.storage()).await;
        assert_eq!(partial.present, Bitfield::none(1));
        assert!(partial.untouched);
        drop(partial);
        let partial = test.create(&test.verifying()).await;
        assert_eq!(partial.present, all);
        drop(partial);
        fs::write(test.path("part"), vec![9; 2 * CHUNK]).unwrap();
        let partial = test.create(&test.storage()).await;
        test.write(&partial, &all).await;
        partial.blob.finish().await.unwrap();
        assert_eq!(fs::read(test.target()).unwrap(), test.content);
        assert!(!test.path("part").exists());
    }
}
