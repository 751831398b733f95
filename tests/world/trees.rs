//! Folders on disk, and what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bt_lite::{FileStorage, FolderPath, Peer};
use tempfile::TempDir;

use super::{World, content};

/// What is at each path of a tree: the bytes and whether it can be run, the target of a
/// link, or nothing for a folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    File(Vec<u8>, bool),
    Link(String),
    Folder,
}

pub(crate) fn tree(root: &Path) -> BTreeMap<String, Seen> {
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

pub(crate) fn write(root: &Path, path: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A folder with one of everything.
pub(crate) fn sample(root: &Path) {
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
pub(crate) fn many(root: &Path, files: usize) {
    for number in 0..files {
        let bytes = content(100 + number, number as u64);
        write(root, &format!("dir-{}/file-{number}", number % 7), bytes);
    }
}

pub(crate) async fn on_files(world: &World, name: &str, dir: &Path) -> Peer {
    let storage = FileStorage::open(dir).unwrap();
    world.builder(name, storage).start().await.unwrap()
}

pub(crate) async fn sharing_again(world: &World, name: &str, dir: &Path) -> Peer {
    let storage = FileStorage::open(dir).unwrap();
    let builder = world.builder(name, storage).share_stored();
    builder.start().await.unwrap()
}

pub(crate) fn path(text: &str) -> FolderPath {
    text.parse().unwrap()
}

/// What is in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// Where the owner has the folder, and where a storage is.
pub(crate) struct Dirs {
    pub(crate) from: TempDir,
    pub(crate) to: TempDir,
}

impl Dirs {
    pub(crate) fn new() -> Self {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Self { from, to }
    }

    /// The folder at the owner.
    pub(crate) fn folder(&self) -> PathBuf {
        self.from.path().join("folder")
    }
}
