//! The file storage in directories that others have changed.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bt_lite::content::{PieceDigests, UnsafeName};
use bt_lite::storage::{Blob, Stored, open_file};
use bt_lite::{
    Bitfield, ContentId, ContentName, FileStorage, Geometry, Manifest, Storage, StorageError,
};
use bytes::Bytes;
use sha1::{Digest, Sha1};
use tempfile::TempDir;

/// A storage in its own directory, and a file outside the directory that must not
/// be touched.
struct TestDir {
    root: TempDir,
    storage: FileStorage,
    content: Bytes,
    manifest: Manifest,
}

const OUTSIDE: &[u8] = b"outside";

impl TestDir {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("outside"), OUTSIDE).unwrap();
        let storage = FileStorage::open(root.path().join("dir")).unwrap();
        let content: Vec<u8> = (0..50_000u32).map(|i| (i / 7) as u8).collect();
        Self {
            root,
            storage,
            manifest: Manifest::of(&content).unwrap(),
            content: content.into(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("dir")
    }

    fn outside(&self) -> PathBuf {
        self.root.path().join("outside")
    }

    fn part(&self) -> PathBuf {
        self.dir().join(format!("{}.part", self.manifest.id()))
    }

    async fn create(&self, name: &str) -> Result<Arc<dyn Blob>, StorageError> {
        let created = self.storage.create(&named(name), &self.manifest).await?;
        Ok(created.blob)
    }

    async fn open(&self, name: &str) -> Result<Arc<dyn Blob>, StorageError> {
        self.storage.open(&named(name)).await
    }

    async fn written(&self, name: &str) -> Arc<dyn Blob> {
        let blob = self.create(name).await.unwrap();
        blob.write_at(0, vec![self.content.clone()]).await.unwrap();
        blob
    }

    fn exists<T>(&self, name: &str) -> Result<T, StorageError> {
        Err(StorageError::Exists {
            name: named(name),
            path: Some(self.dir().join(name)),
        })
    }

    fn check_outside(&self) {
        assert_eq!(fs::read(self.outside()).unwrap(), OUTSIDE);
    }
}

fn named(name: &str) -> ContentName {
    name.parse().unwrap()
}

fn not_a_file<T>(path: &Path, found: &'static str) -> Result<T, StorageError> {
    let path = path.to_path_buf();
    Err(StorageError::NotAFile { path, found })
}

fn tampered(path: PathBuf, how: &'static str) -> StorageError {
    StorageError::Tampered { path, how }
}

fn check_same<T>(result: Result<T, StorageError>, expected: Result<(), StorageError>) {
    assert_eq!(result.map(|_| ()), expected);
}

/// Creates several files that are not regular. Returns their names, and how the
/// storage describes them.
fn irregular(test: &TestDir) -> Vec<(&'static str, &'static str)> {
    let at = |name: &str| test.dir().join(name);
    symlink(test.outside(), at("link")).unwrap();
    symlink(test.root.path().join("nowhere"), at("dangling")).unwrap();
    fs::create_dir(at("directory")).unwrap();
    let mkfifo = Command::new("mkfifo").arg(at("pipe")).status().unwrap();
    assert!(mkfifo.success());
    drop(UnixListener::bind(at("socket")).unwrap());
    vec![
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("directory", "a directory"),
        ("pipe", "a pipe"),
        ("socket", "a socket"),
    ]
}

#[tokio::test]
async fn torrent_is_stored_and_resumed_but_its_manifest_is_not_recorded() {
    let test = TestDir::new();
    let content = test.content.clone();
    let geometry = Geometry::of_torrent(content.len() as u64, 7_000).unwrap();
    let hashes = content
        .chunks(7_000)
        .map(|piece| Sha1::digest(piece).into());
    let digests = PieceDigests::v1(hashes.collect());
    let id = ContentId::of_torrent_v1(&[7; 20]);
    let manifest = Manifest::torrent(id, geometry, digests).unwrap();
    let name = named("torrent");

    let mut done = Bitfield::none(geometry.chunks());
    for chunks in [3, geometry.chunks()] {
        let partial = test.storage.create(&name, &manifest).await.unwrap();
        assert_eq!(partial.present, done, "what was committed is there");
        for chunk in geometry.indices().take(chunks as usize) {
            let range = geometry.range_of(chunk);
            let bytes = content.slice(range.start as usize..range.end as usize);
            partial
                .blob
                .write_at(range.start, vec![bytes])
                .await
                .unwrap();
            done.insert(chunk);
        }
        partial.blob.commit(&done).await.unwrap();
        if done.is_complete() {
            partial.blob.finish().await.unwrap();
        }
    }
    assert_eq!(fs::read(test.dir().join("torrent")).unwrap(), content);

    let blob = test.storage.open(&name).await.unwrap();
    let stored = Stored::new(name.clone(), manifest, blob);
    let refused = test.storage.remember(&stored).await;
    assert!(
        matches!(refused, Err(StorageError::Unsupported { .. })),
        "{refused:?}"
    );
    assert!(
        test.storage
            .catalogue()
            .await
            .unwrap()
            .remembered
            .is_empty()
    );
    assert_eq!(test.storage.manifest(&name, &id).await, Ok(None));
}

#[tokio::test]
async fn irregular_file_is_not_opened_and_not_replaced() {
    let test = TestDir::new();
    for (name, found) in irregular(&test) {
        let path = test.dir().join(name);
        check_same(test.open(name).await, not_a_file(&path, found));
        check_same(test.create(name).await, test.exists(name));
        assert!(!test.part().exists(), "{name}");
    }
    test.check_outside();
    assert!(!test.root.path().join("nowhere").exists());
}

#[tokio::test]
async fn irregular_file_that_appears_meanwhile_is_not_replaced() {
    let test = TestDir::new();
    let names: Vec<_> = irregular(&test).into_iter().map(|(name, _)| name).collect();
    for name in names {
        let (there, aside) = (test.dir().join(name), test.root.path().join("aside"));
        fs::rename(&there, &aside).unwrap();
        let blob = test.written(name).await;
        fs::rename(&aside, &there).unwrap();
        let before = fs::symlink_metadata(&there).unwrap().file_type();
        check_same(blob.finish().await, test.exists(name));
        let after = fs::symlink_metadata(&there).unwrap().file_type();
        assert_eq!(before, after);
        assert_eq!(fs::read(test.part()).unwrap(), test.content);
    }
    test.check_outside();
}

#[tokio::test]
async fn irregular_file_under_the_unfinished_name_is_left_alone() {
    let test = TestDir::new();
    for (name, found) in irregular(&test) {
        fs::rename(test.dir().join(name), test.part()).unwrap();
        check_same(test.create("a").await, not_a_file(&test.part(), found));
        fs::rename(test.part(), test.dir().join(name)).unwrap();
    }
    test.check_outside();
    assert!(!test.root.path().join("nowhere").exists());
}

#[tokio::test]
async fn unfinished_file_with_two_hard_links_is_left_alone() {
    let test = TestDir::new();
    fs::hard_link(test.outside(), test.part()).unwrap();
    let found = "a file with more than one hard link";
    check_same(test.create("a").await, not_a_file(&test.part(), found));
    test.check_outside();
}

#[tokio::test]
async fn unfinished_file_of_another_length_is_truncated_or_extended() {
    let test = TestDir::new();
    for length in [0, 10, 60_000] {
        fs::write(test.part(), vec![1; length]).unwrap();
        let blob = test.create("a").await.unwrap();
        let found = fs::metadata(test.part()).unwrap().len();
        assert_eq!(found, test.content.len() as u64);
        drop(blob);
    }
    test.written("a").await.finish().await.unwrap();
    assert_eq!(fs::read(test.dir().join("a")).unwrap(), test.content);
}

#[tokio::test]
async fn unfinished_file_is_locked_against_other_opens() {
    let test = TestDir::new();
    let locked = || {
        let id = test.manifest.id();
        Err(StorageError::Locked {
            id,
            path: Some(test.part()),
        })
    };
    // A lock belongs to an open file, so this acts like another process.
    let foreign = File::create(test.part()).unwrap();
    foreign.try_lock().unwrap();
    check_same(test.create("a").await, locked());
    drop(foreign);
    let blob = test.create("a").await.unwrap();
    assert!(File::open(test.part()).unwrap().try_lock().is_err());
    let other = FileStorage::open(test.dir()).unwrap();
    check_same(other.create(&named("a"), &test.manifest).await, locked());
    drop(blob);
    drop(other.create(&named("a"), &test.manifest).await.unwrap());
    assert!(File::open(test.part()).unwrap().try_lock().is_ok());
}

#[tokio::test]
async fn finished_content_can_be_downloaded_again_under_another_name() {
    let test = TestDir::new();
    let first = test.written("a").await;
    first.finish().await.unwrap();
    let second = test.written("b").await;
    second.finish().await.unwrap();
    for name in ["a", "b"] {
        assert_eq!(fs::read(test.dir().join(name)).unwrap(), test.content);
    }
    assert!(!test.part().exists());
}

#[tokio::test]
async fn truncated_unfinished_file_is_an_error_that_names_it() {
    let test = TestDir::new();
    let blob = test.written("a").await;
    let file = File::options().write(true).open(test.part()).unwrap();
    file.set_len(40_000).unwrap();
    let read = blob.read_at(30_000, 20_000).await;
    assert_eq!(read, Err(tampered(test.part(), "truncated")));
    let read = blob.read_at(30_000, 10_000).await.unwrap();
    assert_eq!(read, test.content[30_000..40_000]);
}

#[tokio::test]
async fn file_that_is_deleted_or_replaced_while_it_is_open_is_an_error_that_names_it() {
    for replaced in [false, true] {
        let test = TestDir::new();
        let finished = test.written("a").await;
        finished.finish().await.unwrap();
        let path = test.dir().join("a");
        let opened = test.open("a").await.unwrap();
        let by_path = open_file(&path).await.unwrap();
        let blobs = [&finished, &opened, &by_path];
        for blob in blobs {
            assert_eq!(blob.read_at(10, 20).await.unwrap(), test.content[10..30]);
            check_read_now(&**blob, &test.content[10..30]);
        }
        match replaced {
            false => fs::remove_file(&path).unwrap(),
            true => {
                let other = test.dir().join("other");
                fs::write(&other, &test.content).unwrap();
                fs::rename(&other, &path).unwrap();
            }
        }
        for blob in blobs {
            let path = path.clone();
            assert_eq!(blob.read_now(10, 20), None);
            assert_eq!(
                blob.read_at(10, 20).await,
                Err(StorageError::Changed { path })
            );
        }
    }
}

/// A file that was just read is in memory. Only Linux tells.
fn check_read_now(blob: &dyn Blob, expected: &[u8]) {
    let read = blob.read_now(10, 20);
    if cfg!(target_os = "linux") {
        assert_eq!(read.as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn file_that_changes_while_it_is_open_is_an_error_that_names_it() {
    let test = TestDir::new();
    let finished = test.written("a").await;
    finished.finish().await.unwrap();
    let path = test.dir().join("a");
    let opened = test.open("a").await.unwrap();
    let by_path = open_file(&path).await.unwrap();
    let read = || async { [&finished, &opened, &by_path].map(|blob| blob.read_at(10, 20)) };
    for read in read().await {
        assert_eq!(read.await.unwrap(), test.content[10..30]);
    }
    // The length is the same, so only the modification time has changed.
    let mut other = test.content.to_vec();
    other[15] ^= 1;
    check_read_now(&*opened, &test.content[10..30]);
    fs::write(&path, &other).unwrap();
    assert_eq!(opened.read_now(10, 20), None);
    for read in read().await {
        let path = path.clone();
        assert_eq!(read.await, Err(StorageError::Changed { path }));
    }
    fs::write(&path, "short").unwrap();
    for read in read().await {
        let path = path.clone();
        assert_eq!(read.await, Err(StorageError::Changed { path }));
    }
}

#[tokio::test]
async fn unfinished_file_that_was_removed_or_replaced_is_not_published() {
    let test = TestDir::new();
    for replaced in [false, true] {
        let blob = test.written("a").await;
        fs::remove_file(test.part()).unwrap();
        if replaced {
            fs::write(test.part(), "something else").unwrap();
        }
        let how = if replaced { "replaced" } else { "removed" };
        assert_eq!(blob.finish().await, Err(tampered(test.part(), how)));
        assert!(!test.dir().join("a").exists());
        // The open file is still readable.
        let read = blob.read_at(0, test.content.len()).await.unwrap();
        assert_eq!(read, test.content);
    }
}

#[tokio::test]
async fn directory_that_moves_is_followed() {
    let test = TestDir::new();
    let blob = test.written("a").await;
    let moved = test.root.path().join("moved");
    fs::rename(test.dir(), &moved).unwrap();
    fs::create_dir(test.dir()).unwrap();
    blob.finish().await.unwrap();
    assert_eq!(fs::read(moved.join("a")).unwrap(), test.content);
    assert!(test.open("a").await.is_ok());
    assert_eq!(fs::read_dir(test.dir()).unwrap().count(), 0);
}

#[tokio::test]
async fn directory_without_permission_is_an_error() {
    let test = TestDir::new();
    fs::set_permissions(test.dir(), Permissions::from_mode(0o500)).unwrap();
    // The root user can write anyway: then there is nothing to test.
    let denied = File::create(test.dir().join("probe")).is_err();
    let created = test.create("a").await;
    fs::set_permissions(test.dir(), Permissions::from_mode(0o700)).unwrap();
    match created {
        Err(StorageError::Io { source, .. }) => {
            assert!(denied);
            assert_eq!(source.kind(), ErrorKind::PermissionDenied);
        }
        Ok(_) => assert!(!denied),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn other_files_in_the_directory_are_ignored() {
    let test = TestDir::new();
    let odd = test.dir().join(OsStr::from_bytes(b"\xff\xfe"));
    fs::write(&odd, "odd").unwrap();
    fs::write(test.dir().join("a.part"), "mine").unwrap();
    test.written("a").await.finish().await.unwrap();
    assert_eq!(fs::read(&odd).unwrap(), b"odd");
    assert_eq!(fs::read(test.dir().join("a.part")).unwrap(), b"mine");
    let read = test.open("a.part").await.unwrap().read_at(0, 4).await;
    assert_eq!(read.unwrap(), &b"mine"[..]);
}

#[tokio::test]
async fn every_safe_name_except_the_reserved_ones_is_accepted() {
    let test = TestDir::new();
    let longest = "é".repeat(127) + "x";
    assert_eq!(longest.len(), 255);
    for name in ["a b", "文件 ☃.iso", "-rf", "x.part", "~", &longest] {
        test.written(name).await.finish().await.unwrap();
        let blob = test.open(name).await.unwrap();
        let read = blob.read_at(0, test.content.len()).await.unwrap();
        assert_eq!(read, test.content, "{name}");
        assert_eq!(fs::read(test.dir().join(name)).unwrap(), test.content);
    }
    for ending in ["part", "journal", "manifest"] {
        let name = format!("{}.{ending}", test.manifest.id());
        fs::write(test.dir().join(&name), "x").unwrap();
        let reserved = || Err(StorageError::Reserved { name: named(&name) });
        check_same(test.create(&name).await, reserved());
        check_same(test.open(&name).await, reserved());
    }
}

#[tokio::test]
async fn unsafe_name_is_refused_for_a_download_but_an_existing_file_is_read() {
    let test = TestDir::new();
    for (name, reason) in [
        (".bash_profile", UnsafeName::Hidden),
        ("...", UnsafeName::Edge { found: '.' }),
        (" a b ", UnsafeName::Edge { found: ' ' }),
        ("C:evil", UnsafeName::Character { found: ':' }),
        ("a*b", UnsafeName::Character { found: '*' }),
        ("Aux.txt", UnsafeName::Device),
        ("com\u{b2}", UnsafeName::Device),
        (
            "a\u{202e}gpj.exe",
            UnsafeName::Invisible { found: '\u{202e}' },
        ),
        ("a\u{200b}", UnsafeName::Invisible { found: '\u{200b}' }),
    ] {
        let refused = StorageError::UnsafeName {
            name: named(name),
            reason,
        };
        let text = refused.to_string();
        assert!(text.contains(&reason.to_string()), "{text}");
        assert!(!text.contains(['\u{202e}', '\u{200b}']), "{text:?}");
        assert_eq!(test.storage.check_name(&named(name)), Err(refused.clone()));
        check_same(test.create(name).await, Err(refused));
        assert!(!test.part().exists(), "{name}");
        // The user may keep any file in the directory.
        fs::write(test.dir().join(name), "mine").unwrap();
        let read = test.open(name).await.unwrap().read_at(0, 4).await;
        assert_eq!(read.unwrap(), &b"mine"[..]);
    }
    test.check_outside();
}

#[tokio::test]
async fn directory_is_created_with_its_parents() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b/c");
    FileStorage::open(&path).unwrap();
    FileStorage::open(&path).unwrap();
    assert!(path.is_dir());
    fs::write(root.path().join("file"), "x").unwrap();
    for bad in ["file", "file/below"] {
        let error = FileStorage::open(root.path().join(bad)).unwrap_err();
        let StorageError::Io { what, source, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(source.kind(), ErrorKind::NotADirectory);
        assert!(what.contains(root.path().to_str().unwrap()), "{what}");
    }
}

#[tokio::test]
async fn user_file_is_opened_through_links_and_never_written() {
    let test = TestDir::new();
    let names = irregular(&test);
    for path in [test.outside(), test.dir().join("link")] {
        let blob = open_file(&path).await.unwrap();
        assert_eq!(blob.length(), OUTSIDE.len() as u64);
        assert_eq!(blob.read_at(3, 4).await.unwrap(), OUTSIDE[3..]);
        let read_only = Err(StorageError::ReadOnly);
        let written = blob.write_at(0, vec![Bytes::from_static(b"x")]).await;
        assert_eq!(written, read_only);
        assert_eq!(blob.commit(&Bitfield::none(1)).await, read_only);
        assert_eq!(blob.finish().await, read_only);
    }
    for (name, found) in names
        .into_iter()
        .filter(|(_, found)| !found.contains("link"))
    {
        let path = test.dir().join(name);
        check_same(open_file(&path).await, not_a_file(&path, found));
    }
    match open_file(test.dir().join("dangling")).await.map(|_| ()) {
        Err(StorageError::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::NotFound),
        other => panic!("{other:?}"),
    }
    test.check_outside();
}
