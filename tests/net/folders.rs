//! Folders travel between whole peers as one thing, and arrive as the same tree.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use bt_lite::content::{FolderIndexError, FolderPathError};
use bt_lite::storage::FilePool;
use bt_lite::{
    ContentId, DownloadError, FileStorage, Folder, FolderEntry, FolderError, FolderEvent,
    FolderIndex, FolderOptions, FolderPath, MemoryStorage, Peer, ShareSource, StorageError,
};
use futures::StreamExt;
use tempfile::TempDir;

use crate::on_both_networks;
use crate::world::{World, content, named, soon};

/// What is at each path of a tree: the bytes and whether it can be run, the target of a
/// link, or nothing for a folder.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    File(Vec<u8>, bool),
    Link(String),
    Folder,
}

fn tree(root: &Path) -> BTreeMap<String, Seen> {
    fn walk(root: &Path, dir: &Path, seen: &mut BTreeMap<String, Seen>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let at = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let kind = path.symlink_metadata().unwrap();
            let found = if kind.is_symlink() {
                Seen::Link(fs::read_link(&path).unwrap().to_str().unwrap().to_owned())
            } else if kind.is_dir() {
                walk(root, &path, seen);
                Seen::Folder
            } else {
                let runs = kind.permissions().mode() & 0o100 != 0;
                Seen::File(fs::read(&path).unwrap(), runs)
            };
            seen.insert(at, found);
        }
    }
    let mut seen = BTreeMap::new();
    walk(root, root, &mut seen);
    seen
}

fn write(root: &Path, path: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A folder with one of everything.
fn sample(root: &Path) {
    write(root, "read me.txt", "hello");
    write(root, ".hidden/.gitignore", "*");
    write(root, "empty file", "");
    write(root, "a/b/c/deep.bin", content(40_000, 1));
    write(root, "a/same", content(40_000, 1));
    write(root, "a/long.bin", content((1 << 20) + 7, 2));
    write(root, "bin/run", "#!/bin/sh\n");
    write(root, "bin/not run", "#!/bin/sh\n");
    let runs = fs::Permissions::from_mode(0o755);
    fs::set_permissions(root.join("bin/run"), runs).unwrap();
    fs::create_dir_all(root.join("nothing/in/it")).unwrap();
    symlink("libfoo.so.1", root.join("a/libfoo.so")).unwrap();
    symlink("libfoo.so.1.2", root.join("a/libfoo.so.1")).unwrap();
    write(root, "a/libfoo.so.1.2", "library");
    symlink("../bin", root.join("a/up")).unwrap();
    symlink("missing", root.join("dangling")).unwrap();
}

/// Many small files in some folders.
fn many(root: &Path, files: usize) {
    for number in 0..files {
        let bytes = content(100 + number, number as u64);
        write(root, &format!("dir-{}/file-{number}", number % 7), bytes);
    }
}

async fn on_files(world: &World, name: &str, dir: &Path) -> Peer {
    let storage = FileStorage::open(dir).unwrap();
    world.builder(name, storage).start().await.unwrap()
}

async fn sharing_again(world: &World, name: &str, dir: &Path) -> Peer {
    let storage = FileStorage::open(dir).unwrap();
    let builder = world.builder(name, storage).share_stored();
    builder.start().await.unwrap()
}

fn path(text: &str) -> FolderPath {
    text.parse().unwrap()
}

/// What is in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

struct Dirs {
    from: TempDir,
    to: TempDir,
}

impl Dirs {
    fn new() -> Self {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Self { from, to }
    }

    /// The folder at the owner.
    fn folder(&self) -> std::path::PathBuf {
        self.from.path().join("folder")
    }
}

async fn sample_travels(world: &World) {
    let dirs = Dirs::new();
    sample(&dirs.folder());
    let owner = world.node("owner").await.peer;
    let shared = owner.share_folder(dirs.folder(), None).await.unwrap();
    assert_eq!(shared.name, named("folder"));
    assert_eq!(owner.folders(), std::slice::from_ref(&shared));
    assert_eq!(owner.contents().len(), 1);
    assert_eq!(owner.contents()[0].name, shared.name);
    let leecher = on_files(world, "leecher", dirs.to.path()).await;
    let got = leecher.download_folder("folder").await.unwrap();
    assert_eq!(got, shared);
    assert_eq!(tree(&dirs.to.path().join("folder")), tree(&dirs.folder()));
    // Nothing but the folder, and no file has two names.
    assert_eq!(names(dirs.to.path()), ["folder"]);
    let meta = dirs.to.path().join("folder/a/same").metadata().unwrap();
    assert_eq!(meta.nlink(), 1);
    // Again: it is here.
    assert_eq!(leecher.download_folder(shared.id).await.unwrap(), shared);

    // And from there, without the first owner.
    owner.shutdown().await;
    let last = tempfile::tempdir().unwrap();
    let peer = on_files(world, "last", last.path()).await;
    let options = FolderOptions::new().name(named("other"));
    let got = peer.download_folder_with(shared.id, options).await.unwrap();
    assert_eq!(got.name, named("other"));
    assert_eq!(tree(&last.path().join("other")), tree(&dirs.folder()));
}

on_both_networks! {
    async fn folder_travels_with_everything_in_it(world: World) {
        sample_travels(&world).await;
    }

    async fn selection_is_all_that_is_fetched(world: World) {
        let dirs = Dirs::new();
        sample(&dirs.folder());
        let owner = world.node("owner").await.peer;
        let shared = owner.share_folder(dirs.folder(), Some(named("f"))).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let options = FolderOptions::new().path(path("bin")).path(path("a/b/c/deep.bin"));
        let options = options.path(path("nothing"));
        let got = leecher.download_folder_with(shared.id, options.clone()).await.unwrap();
        assert_eq!((got.files, got.length), (3, 40_020));
        let all = tree(&dirs.folder());
        let wanted = ["a", "a/b", "a/b/c", "a/b/c/deep.bin", "bin", "bin/not run", "bin/run",
            "nothing", "nothing/in", "nothing/in/it"];
        let found = tree(&dirs.to.path().join("f"));
        assert_eq!(found.keys().collect::<Vec<_>>(), wanted);
        assert!(found.iter().all(|(at, seen)| all[at] == *seen));

        // The same again changes nothing, and another part needs another name.
        let again = on_files(&world, "again", dirs.to.path()).await;
        assert_eq!(again.download_folder_with(shared.id, options).await.unwrap(), got);
        let more = FolderOptions::new().path(path("a"));
        let error = leecher.download_folder_with(shared.id, more).await.unwrap_err();
        assert_eq!(error, FolderError::AlreadyHere { id: shared.id });
        let missing = FolderOptions::new().path(path("a/b/d")).name(named("g"));
        let third = tempfile::tempdir().unwrap();
        let third = on_files(&world, "third", third.path()).await;
        let error = third.download_folder_with(shared.id, missing).await.unwrap_err();
        assert_eq!(error, FolderError::NoSuchPath { path: path("a/b/d") });
    }

    async fn folder_is_visible_only_when_it_is_whole_and_goes_on_from_there(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 40);
        write(&dirs.folder(), "gone", content(50_000, 99));
        let owner = world.node("owner").await.peer;
        let shared = owner.share_folder(dirs.folder(), None).await.unwrap();
        fs::rename(dirs.folder().join("gone"), dirs.from.path().join("gone")).unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let mut download = leecher.download_folder("folder");
        let mut events = download.events();
        let mut most = 0;
        while let Some(event) = events.next().await {
            if let FolderEvent::Progress(progress) = event {
                most = progress.files_done;
            }
            if most == 40 {
                break;
            }
        }
        assert_eq!(most, 40);
        let home = format!("{}.folder", shared.id);
        assert_eq!(names(dirs.to.path()), [home]);
        // As a process that ends in the middle.
        leecher.shutdown().await;
        assert_eq!((&mut download).await, Err(DownloadError::ShutDown.into()));
        assert!(matches!(events.next().await, Some(FolderEvent::Failed(_))));

        fs::rename(dirs.from.path().join("gone"), dirs.folder().join("gone")).unwrap();
        owner.shutdown().await;
        let owner = world.node("owner").await.peer;
        owner.share_folder(dirs.folder(), None).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let mut download = leecher.download_folder("folder");
        assert_eq!((&mut download).await, Ok(shared));
        assert_eq!(download.progress().files_found, 40);
        assert_eq!(tree(&dirs.to.path().join("folder")), tree(&dirs.folder()));
        assert_eq!(names(dirs.to.path()), ["folder"]);
    }

    async fn new_version_fetches_only_what_has_changed(world: World) {
        let dirs = Dirs::new();
        let files = 60;
        many(&dirs.folder(), files);
        let owner = world.node("owner").await.peer;
        let first = owner.share_folder(dirs.folder(), None).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        leecher.download_folder(first.id).await.unwrap();

        let newer = dirs.from.path().join("newer");
        many(&newer, files);
        for number in [3, 20, 41] {
            let name = format!("dir-{}/file-{number}", number % 7);
            write(&newer, &name, content(1000, 1000 + number));
        }
        // What is not changed is nowhere but at the leecher.
        owner.unshare(&first.id).await;
        fs::remove_dir_all(dirs.folder()).unwrap();
        let second = owner.share_folder(&newer, None).await.unwrap();
        let mut download = leecher.download_folder("newer");
        assert_eq!((&mut download).await, Ok(second));
        assert_eq!(download.progress().files_found, files - 3);
        assert_eq!(tree(&dirs.to.path().join("newer")), tree(&newer));
        // The first one is as it was.
        assert_eq!(tree(&dirs.to.path().join("folder")).len(), tree(&newer).len());
    }

    async fn folders_are_shared_again_after_a_restart(world: World) {
        let dirs = Dirs::new();
        sample(&dirs.folder());
        let keeps = tempfile::tempdir().unwrap();
        let owner = sharing_again(&world, "owner", keeps.path()).await;
        let shared = owner.share_folder(dirs.folder(), None).await.unwrap();
        let leecher = sharing_again(&world, "leecher", dirs.to.path()).await;
        leecher.download_folder(shared.id).await.unwrap();
        for (name, dir) in [("owner", keeps.path()), ("leecher", dirs.to.path())] {
            owner.shutdown().await;
            leecher.shutdown().await;
            let peer = sharing_again(&world, name, dir).await;
            assert_eq!(peer.folders(), std::slice::from_ref(&shared));
            let last = tempfile::tempdir().unwrap();
            let other = on_files(&world, &format!("after-{name}"), last.path()).await;
            other.download_folder("folder").await.unwrap();
            assert_eq!(tree(&last.path().join("folder")), tree(&dirs.folder()));
            other.shutdown().await;
            // And not any more once it is withdrawn.
            assert!(peer.unshare(&shared.id).await);
            assert_eq!(peer.folders(), []);
            assert_eq!(peer.stats().contents, 0);
            peer.shutdown().await;
            let peer = sharing_again(&world, name, dir).await;
            assert_eq!(peer.folders(), []);
            peer.shutdown().await;
        }
        assert_eq!(names(dirs.to.path()), ["folder"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_travels_on_many_threads() {
    soon(async { sample_travels(&World::tcp().await).await }).await;
}
