//! File storages in other directories, and contents that replace files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bt_lite::storage::Stored;
use bt_lite::{ContentName, FileStorage, Manifest, Storage, StorageError};
use bytes::Bytes;

fn named(name: &str) -> ContentName {
    name.parse().unwrap()
}

fn sample() -> (Bytes, Manifest) {
    let bytes: Vec<u8> = (0..70_000u32).map(|i| (i / 5) as u8).collect();
    let manifest = Manifest::of(&bytes).unwrap();
    (bytes.into(), manifest)
}

async fn store(storage: &dyn Storage, name: &str) -> Stored {
    let (bytes, manifest) = sample();
    let blob = storage.create(&named(name), &manifest).await.unwrap().blob;
    blob.write_at(0, vec![bytes]).await.unwrap();
    blob.finish().await.unwrap();
    Stored::new(named(name), manifest, blob)
}

#[tokio::test]
async fn content_in_another_directory_is_found_again_by_the_storage() {
    let root = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(root.path().join("main")).unwrap();
    let outside = root.path().join("new/outside");
    let cases = [
        (outside.clone(), outside),
        ("a/b".into(), root.path().join("main/a/b")),
    ];
    for (given, at) in cases {
        let other = storage.in_directory(&given).await.unwrap();
        let stored = store(&*other, "x").await;
        assert_eq!(
            stored.blob.path().unwrap(),
            fs::canonicalize(&at).unwrap().join("x")
        );
        assert_eq!(fs::read(at.join("x")).unwrap(), sample().0);
        storage.remember(&stored).await.unwrap();
        let again = FileStorage::open(root.path().join("main")).unwrap();
        let catalogue = again.catalogue().await.unwrap();
        assert_eq!(catalogue.lost, []);
        let found = catalogue.remembered.iter().map(|found| found.blob.path());
        assert!(
            found
                .flatten()
                .any(|path| path == stored.blob.path().unwrap())
        );
        // It is not the one of the storage itself.
        let removed = storage
            .remove(&named("x"), &stored.manifest.id(), None)
            .await;
        assert_eq!(removed, Err(StorageError::NotFound { name: named("x") }));
        assert!(at.join("x").exists());
    }
}

#[tokio::test]
async fn directory_keeps_its_own_interrupted_downloads_and_their_lock() {
    let root = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(root.path().join("main")).unwrap();
    let (bytes, manifest) = sample();
    let id = manifest.id();
    let other = storage.in_directory(Path::new("sub")).await.unwrap();
    let same = storage
        .in_directory(&root.path().join("main/sub"))
        .await
        .unwrap();
    let blob = other.create(&named("x"), &manifest).await.unwrap().blob;
    blob.write_at(0, vec![bytes.slice(..32_768)]).await.unwrap();
    let locked = same.create(&named("x"), &manifest).await.unwrap_err();
    assert!(matches!(locked, StorageError::Locked { .. }), "{locked}");
    drop(blob);
    assert!(other.has_partial(&id).await);
    assert!(!storage.has_partial(&id).await);
    assert_eq!(storage.discard_partial(&id).await, Ok(false));
    assert_eq!(same.discard_partial(&id).await, Ok(true));
    // The own directory is the storage itself.
    let own = storage
        .in_directory(root.path().join("main").as_path())
        .await
        .unwrap();
    let stored = store(&*own, "y").await;
    assert_eq!(storage.path(&named("y")), stored.blob.path());
    storage.open(&named("y")).await.unwrap();
}

#[tokio::test]
async fn path_that_is_no_directory_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(root.path().join("main")).unwrap();
    let file = root.path().join("file");
    fs::write(&file, "mine").unwrap();
    for path in [file.clone(), file.join("below")] {
        let refused = storage.in_directory(&path).await.err().unwrap();
        assert!(
            matches!(refused, StorageError::NotADirectory { .. }),
            "{refused}"
        );
    }
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[tokio::test]
async fn only_a_file_is_replaced_and_no_link_is_followed() {
    let root = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(root.path().join("main")).unwrap();
    let (at, outside) = (root.path().join("main"), root.path().join("outside"));
    fs::write(&outside, "mine").unwrap();
    symlink(&outside, at.join("link")).unwrap();
    fs::create_dir(at.join("directory")).unwrap();
    let (bytes, manifest) = sample();
    for name in ["link", "directory"] {
        let refused = storage.create_replacing(&named(name), &manifest).await;
        let refused = refused.err().unwrap();
        assert!(
            matches!(refused, StorageError::NotAFile { .. }),
            "{refused}"
        );
    }
    // One that comes later is left alone as well.
    fs::write(at.join("x"), "old").unwrap();
    let created = storage.create_replacing(&named("x"), &manifest).await;
    let blob = created.unwrap().blob;
    blob.write_at(0, vec![bytes.clone()]).await.unwrap();
    fs::remove_file(at.join("x")).unwrap();
    symlink(&outside, at.join("x")).unwrap();
    let refused = blob.finish().await.unwrap_err();
    assert!(matches!(refused, StorageError::Exists { .. }), "{refused}");
    assert_eq!(fs::read(&outside).unwrap(), b"mine");
    fs::remove_file(at.join("x")).unwrap();
    fs::write(at.join("x"), "old").unwrap();
    blob.finish().await.unwrap();
    assert_eq!(fs::read(at.join("x")).unwrap(), bytes);
}

#[tokio::test]
async fn content_that_is_open_when_it_is_replaced_has_changed_for_those_who_read_it() {
    let root = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(root.path()).unwrap();
    for old in [10, 70_000] {
        let path = root.path().join("x");
        fs::write(&path, vec![7; old]).unwrap();
        let open = storage.open(&named("x")).await.unwrap();
        let (bytes, manifest) = sample();
        let created = storage.create_replacing(&named("x"), &manifest).await;
        let blob = created.unwrap().blob;
        blob.write_at(0, vec![bytes.clone()]).await.unwrap();
        assert_eq!(open.read_at(0, 10).await.unwrap(), vec![7; 10]);
        blob.finish().await.unwrap();
        let read = open.read_at(0, 10).await;
        assert_eq!(read, Err(StorageError::Changed { path }));
    }
}
