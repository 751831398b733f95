//! Removing contents from a file storage: only what is theirs goes, and what somebody
//! else has put there stays.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bt_lite::storage::{Stored, open_file};
use bt_lite::{Bitfield, ContentId, ContentName, FileStorage, Manifest, Storage, StorageError};
use bytes::Bytes;
use tempfile::TempDir;

struct TestDir {
    root: TempDir,
    content: Bytes,
    manifest: Manifest,
}

impl TestDir {
    fn new() -> Self {
        let content: Vec<u8> = (0..50_000u32).map(|i| (i / 7) as u8).collect();
        Self {
            root: tempfile::tempdir().unwrap(),
            manifest: Manifest::of(&content).unwrap(),
            content: content.into(),
        }
    }

    fn open(&self) -> FileStorage {
        FileStorage::open(self.root.path().join("dir")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("dir").join(name)
    }

    fn id(&self) -> ContentId {
        self.manifest.id()
    }

    /// Stores the content as a download does, and remembers it.
    async fn store(&self, storage: &FileStorage, name: &str) {
        let blob = storage
            .create(&named(name), &self.manifest)
            .await
            .unwrap()
            .blob;
        blob.write_at(0, vec![self.content.clone()]).await.unwrap();
        blob.finish().await.unwrap();
        let stored = Stored::new(named(name), self.manifest.clone(), blob);
        storage.remember(&stored).await.unwrap();
    }

    /// Begins a download.
    async fn interrupt(&self, storage: &FileStorage) {
        let blob = storage
            .create(&named("x"), &self.manifest)
            .await
            .unwrap()
            .blob;
        blob.write_at(0, vec![self.content.clone()]).await.unwrap();
        let all = Bitfield::all(self.manifest.geometry().chunks());
        blob.commit(&all).await.unwrap();
    }

    /// What is in the directory, but for the catalogue.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.path().join("dir")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.ends_with(".catalogue")).collect();
        names.sort();
        names
    }
}

fn named(name: &str) -> ContentName {
    name.parse().unwrap()
}

/// Writes a file that is as long as another one, with other bytes.
fn overwrite(path: &Path) {
    let len = fs::metadata(path).unwrap().len();
    fs::remove_file(path).unwrap();
    fs::write(path, vec![1; len as usize]).unwrap();
}

async fn is_remembered(storage: &FileStorage) -> bool {
    let catalogue = storage.catalogue().await.unwrap();
    assert_eq!(catalogue.lost, []);
    !catalogue.remembered.is_empty()
}

#[tokio::test]
async fn removed_content_is_gone_with_its_record_and_its_space() {
    let dir = TestDir::new();
    let storage = dir.open();
    dir.store(&storage, "a").await;
    dir.store(&storage, "b").await;
    let open = storage.open(&named("a")).await.unwrap();
    open.read_at(0, 10).await.unwrap();
    storage.remove(&named("a"), &dir.id(), None).await.unwrap();
    assert_eq!(dir.names(), ["b"]);
    // Who has it open hears that it is gone.
    let read = open.read_at(0, 10).await;
    let path = dir.path("a");
    assert_eq!(read, Err(StorageError::Changed { path }));
    for storage in [&storage, &dir.open()] {
        let catalogue = storage.catalogue().await.unwrap();
        assert_eq!(catalogue.lost, []);
        assert_eq!(catalogue.remembered.len(), 1);
    }
}

#[tokio::test]
async fn file_that_was_overwritten_by_hand_stays() {
    let dir = TestDir::new();
    for with_record in [true, false] {
        let storage = dir.open();
        dir.store(&storage, "a").await;
        let known = storage.open(&named("a")).await.unwrap().file();
        if !with_record {
            storage.forget(&named("a"), &dir.id()).await.unwrap();
        }
        overwrite(&dir.path("a"));
        for known in [known.as_ref(), None] {
            let removed = storage.remove(&named("a"), &dir.id(), known).await;
            let path = dir.path("a");
            assert_eq!(removed, Err(StorageError::Changed { path }));
        }
        assert_eq!(fs::read(dir.path("a")).unwrap(), vec![1; 50_000]);
        assert!(!is_remembered(&storage).await);
        fs::remove_file(dir.path("a")).unwrap();
    }
}

#[tokio::test]
async fn file_that_was_only_touched_is_known_by_its_bytes() {
    let dir = TestDir::new();
    let storage = dir.open();
    dir.store(&storage, "a").await;
    let known = storage.open(&named("a")).await.unwrap().file();
    fs::write(dir.path("a"), &dir.content).unwrap();
    let (name, id) = (named("a"), dir.id());
    storage.remove(&name, &id, known.as_ref()).await.unwrap();
    assert_eq!(dir.names(), [""; 0]);
}

#[tokio::test]
async fn file_that_is_gone_already_is_not_found_and_its_record_goes() {
    let dir = TestDir::new();
    let storage = dir.open();
    dir.store(&storage, "a").await;
    fs::remove_file(dir.path("a")).unwrap();
    let removed = storage.remove(&named("a"), &dir.id(), None).await;
    assert_eq!(removed, Err(StorageError::NotFound { name: named("a") }));
    assert!(!is_remembered(&storage).await);
}

#[tokio::test]
async fn links_and_directories_and_what_they_lead_to_stay() {
    let dir = TestDir::new();
    let storage = dir.open();
    let outside = dir.root.path().join("outside");
    fs::write(&outside, &dir.content).unwrap();
    symlink(&outside, dir.path("link")).unwrap();
    fs::create_dir(dir.path("directory")).unwrap();
    for name in ["link", "directory"] {
        let removed = storage.remove(&named(name), &dir.id(), None).await;
        assert!(
            matches!(removed, Err(StorageError::NotAFile { .. })),
            "{removed:?}"
        );
    }
    assert_eq!(dir.names(), ["directory", "link"]);
    assert_eq!(fs::read(&outside).unwrap(), dir.content);
    // A second name of the file is somebody else's.
    dir.store(&storage, "a").await;
    fs::hard_link(dir.path("a"), dir.root.path().join("second")).unwrap();
    storage.remove(&named("a"), &dir.id(), None).await.unwrap();
    let second = fs::read(dir.root.path().join("second")).unwrap();
    assert_eq!(second, dir.content);
}

#[tokio::test]
async fn file_that_lies_elsewhere_stays_also_if_one_here_has_its_name() {
    let dir = TestDir::new();
    let storage = dir.open();
    let outside = dir.root.path().join("outside");
    fs::write(&outside, &dir.content).unwrap();
    let blob = open_file(&outside).await.unwrap();
    let known = blob.file();
    let stored = Stored::new(named("a"), dir.manifest.clone(), blob);
    storage.remember(&stored).await.unwrap();
    fs::write(dir.path("a"), &dir.content).unwrap();
    let (name, id) = (named("a"), dir.id());
    let removed = storage.remove(&name, &id, known.as_ref()).await;
    assert_eq!(removed, Err(StorageError::NotFound { name }));
    assert_eq!(fs::read(&outside).unwrap(), dir.content);
    assert_eq!(dir.names(), ["a"]);
    assert!(!is_remembered(&storage).await);
}

#[tokio::test]
async fn names_of_the_storage_itself_cannot_be_removed() {
    let dir = TestDir::new();
    let storage = dir.open();
    dir.interrupt(&storage).await;
    let name = named(&format!("{}.part", dir.id()));
    let removed = storage.remove(&name, &dir.id(), None).await;
    assert_eq!(removed, Err(StorageError::Reserved { name }));
    assert!(storage.has_partial(&dir.id()).await);
}

#[tokio::test]
async fn name_with_a_partial_and_a_complete_file_loses_the_one_that_is_meant() {
    let dir = TestDir::new();
    let storage = dir.open();
    dir.interrupt(&storage).await;
    fs::write(dir.path("x"), &dir.content).unwrap();
    assert_eq!(storage.discard_partial(&dir.id()).await, Ok(true));
    assert_eq!(dir.names(), ["x"]);
    fs::remove_file(dir.path("x")).unwrap();

    dir.interrupt(&storage).await;
    fs::write(dir.path("x"), &dir.content).unwrap();
    storage.remove(&named("x"), &dir.id(), None).await.unwrap();
    assert!(storage.has_partial(&dir.id()).await);
    assert!(!dir.path("x").exists());
}

#[tokio::test]
async fn discarding_refuses_what_another_storage_writes_and_leaves_links_alone() {
    let dir = TestDir::new();
    let (storage, other) = (dir.open(), dir.open());
    let blob = storage
        .create(&named("x"), &dir.manifest)
        .await
        .unwrap()
        .blob;
    for storage in [&storage, &other] {
        let refused = storage.discard_partial(&dir.id()).await.unwrap_err();
        let path = Some(dir.path(&format!("{}.part", dir.id())));
        let id = dir.id();
        assert_eq!(refused, StorageError::Locked { id, path });
    }
    drop(blob);
    assert_eq!(other.discard_partial(&dir.id()).await, Ok(true));
    assert_eq!(dir.names(), [""; 0]);

    let outside = dir.root.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    symlink(&outside, dir.path(&format!("{}.part", dir.id()))).unwrap();
    let refused = storage.discard_partial(&dir.id()).await.unwrap_err();
    assert!(
        matches!(refused, StorageError::NotAFile { .. }),
        "{refused}"
    );
    assert_eq!(fs::read(&outside).unwrap(), b"mine");
}

#[tokio::test]
async fn directory_that_cannot_be_written_keeps_the_file_and_its_record() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TestDir::new();
    let storage = dir.open();
    dir.store(&storage, "a").await;
    let at = dir.root.path().join("dir");
    fs::set_permissions(&at, fs::Permissions::from_mode(0o500)).unwrap();
    // The superuser may write it all the same.
    let is_refused = fs::write(at.join("probe"), "").is_err();
    let removed = storage.remove(&named("a"), &dir.id(), None).await;
    fs::set_permissions(&at, fs::Permissions::from_mode(0o700)).unwrap();
    if is_refused {
        assert!(
            matches!(removed, Err(StorageError::Io { .. })),
            "{removed:?}"
        );
        assert!(is_remembered(&storage).await);
        storage.remove(&named("a"), &dir.id(), None).await.unwrap();
    }
    assert!(!dir.path("a").exists());
}

#[tokio::test]
async fn draft_that_a_crash_left_behind_goes_and_one_that_is_written_stays() {
    let dir = TestDir::new();
    let storage = dir.open();
    let left = format!("{}.draft", dir.id());
    fs::write(dir.path(&left), "some").unwrap();
    let mut draft = storage.draft(&named("x")).await.unwrap();
    draft.append(dir.content.clone()).await.unwrap();
    dir.open().catalogue().await.unwrap();
    assert!(!dir.path(&left).exists());
    assert_eq!(dir.names().len(), 1);
    draft.publish(&dir.id()).await.unwrap();
    assert_eq!(dir.names(), ["x"]);
    assert_eq!(fs::read(dir.path("x")).unwrap(), dir.content);
    // Somebody else takes it away.
    let mut draft = storage.draft(&named("y")).await.unwrap();
    draft.append(dir.content.clone()).await.unwrap();
    let name = dir.names().into_iter().find(|name| name != "x").unwrap();
    fs::remove_file(dir.path(&name)).unwrap();
    let published = draft.publish(&dir.id()).await.err().unwrap();
    assert!(
        matches!(published, StorageError::Tampered { .. }),
        "{published}"
    );
    assert_eq!(dir.names(), ["x"]);
}

#[tokio::test]
async fn stamp_within_one_tick_of_the_clock_proves_nothing() {
    let dir = TestDir::new();
    let (storage, path) = (dir.open(), dir.path("x"));
    let time = SystemTime::now() + Duration::from_secs(3600);
    let write = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
    };
    write(&dir.content);
    let known = open_file(&path).await.unwrap().file();
    let other = vec![7; dir.content.len()];
    write(&other);
    let removed = storage.remove(&named("x"), &dir.id(), known.as_ref()).await;
    let changed = matches!(removed, Err(StorageError::Changed { .. }));
    assert!(changed, "{removed:?}");
    assert_eq!(fs::read(&path).unwrap(), other);
    write(&dir.content);
    let removed = storage.remove(&named("x"), &dir.id(), known.as_ref()).await;
    assert_eq!((removed, path.exists()), (Ok(()), false));
}

#[tokio::test]
async fn file_elsewhere_that_is_away_for_a_while_is_not_forgotten() {
    let dir = TestDir::new();
    let storage = dir.open();
    let [path, away] = ["y", "z"].map(|name| dir.root.path().join(name));
    fs::write(&path, &dir.content).unwrap();
    let blob = open_file(&path).await.unwrap();
    let stored = Stored::new(named("x"), dir.manifest.clone(), blob);
    storage.remember(&stored).await.unwrap();
    fs::rename(&path, &away).unwrap();
    let catalogue = storage.catalogue().await.unwrap();
    assert_eq!((catalogue.remembered.len(), catalogue.lost.len()), (0, 1));
    fs::rename(&away, &path).unwrap();
    let catalogue = storage.catalogue().await.unwrap();
    assert_eq!((catalogue.remembered.len(), catalogue.lost.len()), (1, 0));
}
