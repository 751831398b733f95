//! The directory of a file storage: the one place that gives names to the
//! operating system, and the split between platforms.
//!
//! Both variants promise the same: a name is looked up in the directory that
//! was opened and nowhere else, no link is followed, and only regular files
//! are opened. On Unix the directory is held open and every step is relative
//! to it; elsewhere the checks stand beside the steps, so somebody who swaps
//! entries at the right moment can come between.

#[cfg(any(not(unix), test))]
#[cfg_attr(unix, allow(dead_code))]
mod portable;
#[cfg(unix)]
mod unix;

use std::fs::FileType;
use std::io;

#[cfg(not(unix))]
pub(super) use portable::{DataFile, Dir, open_path};
#[cfg(unix)]
pub(super) use unix::{DataFile, Dir, open_path};

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(unix), allow(dead_code))]
pub(super) enum Kind {
    File,
    /// A regular file that has another name besides, so that writing to it
    /// would change something outside the storage.
    SharedFile,
    Link,
    Directory,
    Pipe,
    Socket,
    Device,
    Other,
}

impl Kind {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::File => "a regular file",
            Self::SharedFile => "a file that has another name too",
            Self::Link => "a symbolic link",
            Self::Directory => "a directory",
            Self::Pipe => "a pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
            Self::Other => "something unknown",
        }
    }
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileTypeExt;
            if kind.is_fifo() {
                return Self::Pipe;
            }
            if kind.is_socket() {
                return Self::Socket;
            }
            if kind.is_block_device() || kind.is_char_device() {
                return Self::Device;
            }
        }
        if kind.is_file() {
            Self::File
        } else if kind.is_symlink() {
            Self::Link
        } else if kind.is_dir() {
            Self::Directory
        } else {
            Self::Other
        }
    }
}

/// Why an entry was not opened.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is not what the storage reads or writes.
    Kind(Kind),
    Io(io::Error),
}

impl<E: Into<io::Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Io(error.into())
    }
}

/// The end of a file where bytes were expected.
fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends too early")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bytes::Bytes;

    use super::*;

    /// One set of cases for both variants, so that the one that does not run
    /// on this platform keeps the same promises.
    macro_rules! both_variants {
        ($($variant:ident),*) => { $(
            mod $variant {
                use super::super::$variant::{Dir, open_path};
                use super::super::super::disk::{Disk, DiskFile};
                use super::*;

                #[test]
                fn name_is_changed_or_added_and_replaces_nothing() {
                    let place = tempfile::tempdir().unwrap();
                    let dir = Dir::open(place.path()).unwrap();
                    let file = dir.open_or_create("p").unwrap();
                    file.write_at(0, &[Bytes::from_static(b"new")]).unwrap();
                    fs::write(place.path().join("taken"), "old").unwrap();
                    let renamed = dir.rename("p", "taken").unwrap_err();
                    assert!([
                        io::ErrorKind::AlreadyExists,
                        io::ErrorKind::Unsupported,
                    ].contains(&renamed.kind()));
                    let linked = dir.link("p", "taken").unwrap_err();
                    assert_eq!(linked.kind(), io::ErrorKind::AlreadyExists);
                    assert_eq!(fs::read(place.path().join("taken")).unwrap(), b"old");
                    assert!(dir.is_at("p", &file).unwrap());

                    match dir.rename("p", "free") {
                        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                            dir.link("p", "free").unwrap();
                            dir.remove("p").unwrap();
                        }
                        done => done.unwrap(),
                    }
                    dir.sync_above().unwrap();
                    dir.sync().unwrap();
                    assert_eq!(dir.kind("p").unwrap(), None);
                    assert_eq!(dir.kind("free").unwrap(), Some(Kind::File));
                    assert_eq!(fs::read(place.path().join("free")).unwrap(), b"new");
                    assert!(!dir.is_at("p", &file).unwrap());
                }

                #[test]
                fn positional_write_of_many_pieces_is_read_back() {
                    // More pieces than one system call takes.
                    let pieces: Vec<Bytes> = (0..3000u32)
                        .map(|i| Bytes::from(vec![i as u8; (i % 7) as usize]))
                        .collect();
                    let whole = pieces.concat();
                    let place = tempfile::tempdir().unwrap();
                    let dir = Dir::open(place.path()).unwrap();
                    let file = dir.open_or_create("p").unwrap();
                    file.write_at(5, &pieces).unwrap();
                    assert_eq!(file.read_at(5, whole.len()).unwrap(), whole);
                    assert_eq!(file.read_at(0, 5).unwrap(), [0; 5][..]);
                    let error = file.read_at(6, whole.len()).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                }

                #[test]
                fn directory_entry_is_refused_as_a_file() {
                    let place = tempfile::tempdir().unwrap();
                    fs::create_dir(place.path().join("d")).unwrap();
                    let dir = Dir::open(place.path()).unwrap();
                    for refused in [
                        dir.open_existing("d"),
                        dir.open_or_create("d"),
                        open_path(&place.path().join("d")),
                    ] {
                        assert!(matches!(refused, Err(Refused::Kind(Kind::Directory))));
                    }
                }

                #[cfg(unix)]
                #[test]
                fn link_is_refused_as_a_file() {
                    let place = tempfile::tempdir().unwrap();
                    let outside = tempfile::NamedTempFile::new().unwrap();
                    std::os::unix::fs::symlink(outside.path(), place.path().join("l")).unwrap();
                    let dir = Dir::open(place.path()).unwrap();
                    assert_eq!(dir.kind("l").unwrap(), Some(Kind::Link));
                    for refused in [dir.open_existing("l"), dir.open_or_create("l")] {
                        assert!(matches!(refused, Err(Refused::Kind(Kind::Link))));
                    }
                }
            }
        )* };
    }

    both_variants!(portable);
    #[cfg(unix)]
    both_variants!(unix);
}
