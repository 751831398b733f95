//! The directory of a file storage. This is the only module that passes names to
//! the operating system, and the only one that differs between platforms.
//!
//! Both variants look up a name in the directory that was opened and nowhere
//! else, follow no link, and open regular files only. On Unix the directory is
//! held open, and every step is relative to it. Elsewhere each check precedes
//! its step, so another program that swaps entries at the right moment can get
//! between the two.

#[cfg(any(not(unix), test))]
#[cfg_attr(unix, allow(dead_code))]
mod portable;
#[cfg(unix)]
mod syncs;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub(super) use portable::{DataFile, Dir, examine_path, open_path};
#[cfg(all(test, unix))]
pub(super) use syncs::times;
#[cfg(unix)]
pub(super) use unix::{DataFile, Dir, examine_path, open_path};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use bytes::Bytes;

    use super::super::disk::{EntryKind, Refused};

    /// The same cases for both variants, so that the one that is not used on
    /// this platform behaves the same.
    macro_rules! both_variants {
        ($($variant:ident),*) => { $(
            mod $variant {
                use super::super::$variant::{Dir, examine_path, open_path};
                use super::super::super::disk::{Disk, DiskFile};
                use super::*;

                #[test]
                fn rename_and_link_replace_nothing() {
                    let root = tempfile::tempdir().unwrap();
                    let dir = Dir::open(root.path()).unwrap();
                    let file = dir.open_or_create("p").unwrap();
                    file.write_at(0, &[Bytes::from_static(b"new")]).unwrap();
                    fs::write(root.path().join("taken"), "old").unwrap();
                    let renamed = dir.rename("p", "taken").unwrap_err();
                    assert!([
                        io::ErrorKind::AlreadyExists,
                        io::ErrorKind::Unsupported,
                    ].contains(&renamed.kind()));
                    let linked = dir.link("p", "taken").unwrap_err();
                    assert_eq!(linked.kind(), io::ErrorKind::AlreadyExists);
                    assert_eq!(fs::read(root.path().join("taken")).unwrap(), b"old");
                    assert!(dir.is_at("p", &file).unwrap());

                    match dir.rename("p", "free") {
                        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                            dir.link("p", "free").unwrap();
                            dir.remove("p").unwrap();
                        }
                        done => done.unwrap(),
                    }
                    dir.sync_parent().unwrap();
                    dir.sync().unwrap();
                    assert_eq!(dir.kind("p").unwrap(), None);
                    assert_eq!(dir.kind("free").unwrap(), Some(EntryKind::File));
                    assert_eq!(fs::read(root.path().join("free")).unwrap(), b"new");
                    assert!(!dir.is_at("p", &file).unwrap());
                }

                #[test]
                fn folders_are_made_entered_moved_and_removed() {
                    let root = tempfile::tempdir().unwrap();
                    let dir = Dir::open(root.path()).unwrap();
                    dir.make_dir("a").unwrap();
                    let taken = dir.make_dir("a").unwrap_err();
                    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
                    let a = dir.enter("a".as_ref()).unwrap();
                    a.make_dir("b").unwrap();
                    let file = dir.create_new("f").unwrap();
                    assert!(dir.create_new("f").is_err());
                    file.write_at(0, &[Bytes::from_static(b"new")]).unwrap();
                    file.set_executable(true).unwrap();
                    let b = a.enter("b".as_ref()).unwrap();
                    dir.link_into("f", &b, "g").unwrap();
                    assert!(dir.link_into("f", &b, "g").is_err());
                    b.make_link("l", "g").unwrap();
                    assert_eq!(b.read_link("l".as_ref()).unwrap(), "g");
                    for (path, found) in [("a/b/g", true), ("a/b/l", false), ("a/b", false)] {
                        assert_eq!(dir.open_within(path).is_ok(), found, "{path}");
                    }
                    for name in ["f", "missing"] {
                        assert!(dir.enter(name.as_ref()).is_err(), "{name}");
                    }
                    assert!(matches!(
                        b.enter("l".as_ref()),
                        Err(Refused::Kind(EntryKind::Link))
                    ));

                    dir.make_dir("taken").unwrap();
                    let moved = a.move_dir("b", &dir, "taken").unwrap_err();
                    assert_eq!(moved.kind(), io::ErrorKind::AlreadyExists);
                    a.move_dir("b", &dir, "free").unwrap();
                    let names = |dir: &Dir, max| {
                        let mut names = dir.all_names(max).unwrap();
                        names.sort();
                        names
                    };
                    assert_eq!(names(&dir, 9), ["a", "f", "free", "taken"]);
                    assert_eq!(names(&dir, 1).len(), 2);
                    dir.replace("f", "a").unwrap_err();
                    let g = dir.enter("free".as_ref()).unwrap();
                    assert_eq!(g.look("l".as_ref()).unwrap().unwrap().kind, EntryKind::Link);
                    assert_eq!(g.look("g".as_ref()).unwrap().unwrap().stat.len, 3);
                    assert!(g.look("missing".as_ref()).unwrap().is_none());
                    dir.remove_dir("free".as_ref()).unwrap_err();
                    for name in ["l", "g"] {
                        g.remove_entry(name.as_ref()).unwrap();
                    }
                    dir.remove_dir("free".as_ref()).unwrap();
                }

                #[test]
                fn many_pieces_are_written_and_read_back() {
                    // More pieces than one system call takes.
                    let pieces: Vec<Bytes> = (0..3000u32)
                        .map(|i| Bytes::from(vec![i as u8; (i % 7) as usize]))
                        .collect();
                    let whole = pieces.concat();
                    let root = tempfile::tempdir().unwrap();
                    let dir = Dir::open(root.path()).unwrap();
                    let file = dir.open_or_create("p").unwrap();
                    file.write_at(5, &pieces).unwrap();
                    assert_eq!(file.read_at(5, whole.len()).unwrap(), whole);
                    assert_eq!(file.read_at(0, 5).unwrap(), [0; 5][..]);
                    let error = file.read_at(6, whole.len()).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                }

                #[test]
                fn file_is_examined_as_if_it_were_open() {
                    let root = tempfile::tempdir().unwrap();
                    let (dir, path) = (Dir::open(root.path()).unwrap(), root.path().join("p"));
                    assert_eq!(dir.examine("p").unwrap(), None);
                    assert_eq!(examine_path(&path).unwrap(), None);
                    let file = dir.open_or_create("p").unwrap();
                    file.write_at(0, &[Bytes::from_static(b"new")]).unwrap();
                    for modified in [0, 1_700_000_000_123_456_789_u64] {
                        let time = std::time::Duration::from_nanos(modified);
                        file.set_modified(std::time::UNIX_EPOCH + time).unwrap();
                        let stat = file.stat().unwrap();
                        let found = dir.examine("p").unwrap();
                        assert_eq!(found, Some((EntryKind::File, stat)));
                        assert_eq!(examine_path(&path).unwrap(), found);
                    }
                    fs::create_dir(root.path().join("d")).unwrap();
                    let (kind, _) = dir.examine("d").unwrap().unwrap();
                    assert_eq!(kind, EntryKind::Directory);
                }

                #[test]
                fn directory_is_not_opened_as_a_file() {
                    let root = tempfile::tempdir().unwrap();
                    fs::create_dir(root.path().join("d")).unwrap();
                    let dir = Dir::open(root.path()).unwrap();
                    for refused in [
                        dir.open_existing("d"),
                        dir.open_or_create("d"),
                        open_path(&root.path().join("d")),
                    ] {
                        assert!(matches!(refused, Err(Refused::Kind(EntryKind::Directory))));
                    }
                }

                #[cfg(unix)]
                #[test]
                fn link_is_not_opened_as_a_file() {
                    let root = tempfile::tempdir().unwrap();
                    let outside = tempfile::NamedTempFile::new().unwrap();
                    std::os::unix::fs::symlink(outside.path(), root.path().join("l")).unwrap();
                    let dir = Dir::open(root.path()).unwrap();
                    assert_eq!(dir.kind("l").unwrap(), Some(EntryKind::Link));
                    for refused in [dir.open_existing("l"), dir.open_or_create("l")] {
                        assert!(matches!(refused, Err(Refused::Kind(EntryKind::Link))));
                    }
                }
            }
        )* };
    }

    both_variants!(portable);
    #[cfg(unix)]
    both_variants!(unix);
}
