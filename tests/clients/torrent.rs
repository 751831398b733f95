//! The torrent of the cells: a folder with an empty file, small ones, a nested one, and one
//! of many pieces.

use std::fs;
use std::path::Path;

use bt_lite::bittorrent::{InfoHashV1, Metainfo, MetainfoBuilder, MetainfoFormat};

/// The folder.
pub(crate) const NAME: &str = "folder";

const PIECE_LEN: u32 = 32 << 10;

/// Paths and lengths in bytes. Some borders of files lie within pieces, and others not.
const FILES: [(&str, usize); 6] = [
    ("a/deep/er/small", 700),
    ("a/empty", 0),
    ("a/piece", PIECE_LEN as usize),
    ("b", 100_001),
    ("large", 700_000),
    ("z", 1),
];

/// Which pieces lie in a directory at the start.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Share {
    All,
    None,
    /// Those whose index leaves this remainder.
    Part {
        of: usize,
        at: usize,
    },
    /// All but those of these indices.
    Without {
        first: usize,
        last: usize,
    },
}

/// A file of four pieces, of which only the first and the last reach into other files: its
/// path, its number, and the two in the middle.
pub(crate) const MIDDLE: (&str, usize, Share) = ("b", 3, Share::Without { first: 2, last: 3 });

impl Share {
    fn has(self, piece: usize) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Part { of, at } => piece % of == at,
            Self::Without { first, last } => !(first..=last).contains(&piece),
        }
    }
}

fn bytes(path: &str, len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(path.len() as u64);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

/// The torrent with this tracker.
pub(crate) fn torrent(format: MetainfoFormat, tracker: &str) -> Metainfo {
    let mut builder = MetainfoBuilder::folder(NAME).unwrap();
    for (path, len) in FILES {
        builder = builder.add(path.parse().unwrap(), len as u64);
    }
    let builder = builder.format(format).piece_length(PIECE_LEN);
    let open = |path: &bt_lite::FolderPath| {
        let found = FILES.iter().find(|(known, _)| *known == path.as_str());
        let (path, len) = found.unwrap();
        Ok(std::io::Cursor::new(bytes(path, *len)))
    };
    builder.tracker(tracker).build(open).unwrap()
}

/// The hash by which trackers know it.
pub(crate) fn announced(metainfo: &Metainfo) -> InfoHashV1 {
    let v2 = metainfo.info_hash_v2().map(|hash| hash.truncated());
    metainfo.info_hash_v1().or(v2).unwrap()
}

/// Writes what a share has: files of the whole length, with zeros where the rest is to
/// come, and none where there is nothing.
pub(crate) fn write_share(metainfo: &Metainfo, share: Share, directory: &Path) {
    let piece_len = metainfo.piece_length() as usize;
    for file in metainfo.files().iter().filter(|file| !file.is_padding()) {
        let path = file.path().as_str();
        let first = file.offset() as usize;
        let mut data = bytes(path, file.length() as usize);
        let mut has_any = matches!(share, Share::All);
        for (at, byte) in data.iter_mut().enumerate() {
            match share.has((first + at) / piece_len) {
                true => has_any = true,
                false => *byte = 0,
            }
        }
        if has_any {
            let path = directory.join(NAME).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, data).unwrap();
        }
    }
}

/// What of the torrent is not in a directory, byte for byte. Files without bytes need not
/// be there if they are not made.
pub(crate) fn differences(directory: &Path, makes_empty_files: bool) -> Vec<&'static str> {
    let wrong = FILES.iter().filter(|(path, len)| {
        let found = match fs::read(directory.join(NAME).join(path)) {
            Err(_) if *len == 0 && !makes_empty_files => Some(Vec::new()),
            found => found.ok(),
        };
        found != Some(bytes(path, *len))
    });
    wrong.map(|(path, _)| *path).collect()
}
