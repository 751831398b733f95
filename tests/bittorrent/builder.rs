//! What is made is read back the same.

use std::io::{self, Read};

use bt_lite::FolderPath;
use bt_lite::bittorrent::metainfo::{BuildError, MAX_PIECE_LEN, default_piece_length};
use bt_lite::bittorrent::{Metainfo, MetainfoBuilder, MetainfoError, MetainfoFormat};
use proptest::prelude::*;
use sha1::{Digest, Sha1};

use crate::reference::bytes_of;

fn path(text: &str) -> FolderPath {
    text.parse().unwrap()
}

/// Reads a few bytes at a time.
struct Dribble(io::Cursor<Vec<u8>>);

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(4099);
        self.0.read(&mut buffer[..len])
    }
}

fn contents(path: &FolderPath, length: u64) -> Vec<u8> {
    bytes_of(path.as_str(), length as usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_built_is_read_back_and_verifies(
        files in prop::collection::btree_map("[a-c]{1,2}", 0_u64..200_000, 1..6),
        folders in prop::collection::vec("[x-z]", 6),
        format in 0..3,
        shift in 0..3_u32,
        private: bool,
    ) {
        let format = [MetainfoFormat::V1, MetainfoFormat::V2, MetainfoFormat::Hybrid]
            [format as usize];
        prop_assume!(files.values().any(|length| *length > 0));
        let mut builder = MetainfoBuilder::folder("name").unwrap()
            .format(format)
            .piece_length((16 << 10) << shift)
            .private(private)
            .tier(["http://a/".to_owned(), "udp://b:1".to_owned()])
            .web_seed("http://w/");
        let mut expected = Vec::new();
        for ((name, length), folder) in files.iter().zip(&folders) {
            let path = path(&format!("{folder}/{name}"));
            expected.push((path.clone(), *length));
            builder = builder.add(path, *length);
        }
        let lengths = expected.clone();
        let made = builder.build(|path| {
            let (_, length) = lengths.iter().find(|(of, _)| of == path).unwrap();
            Ok(Dribble(io::Cursor::new(contents(path, *length))))
        }).unwrap();
        prop_assert_eq!(&Metainfo::from_bytes(&made.to_bytes()).unwrap(), &made);
        prop_assert_eq!(made.is_private(), private);
        prop_assert_eq!(made.trackers(), &[["http://a/", "udp://b:1"]]);
        prop_assert_eq!(made.web_seeds(), &["http://w/"]);
        if format != MetainfoFormat::V1 {
            expected.sort();
        }
        let files = made.files().iter().filter(|file| !file.is_padding());
        let files: Vec<_> = files.map(|file| (file.path().clone(), file.length())).collect();
        prop_assert_eq!(files, expected);

        let mut all = Vec::new();
        for file in made.files() {
            prop_assert_eq!(file.offset(), all.len() as u64);
            match file.is_padding() {
                true => all.resize(all.len() + file.length() as usize, 0),
                false => all.extend(contents(file.path(), file.length())),
            }
        }
        for piece in 0..made.pieces() {
            let start = piece as usize * made.piece_length() as usize;
            let bytes = &all[start..][..made.len_of_piece(piece) as usize];
            if let Some(hash) = made.piece_hash_v1(piece) {
                prop_assert_eq!(hash, <[u8; 20]>::from(Sha1::digest(bytes)));
            }
            if let Some(hash) = made.piece_root(piece) {
                prop_assert!(hash.verify(&bytes[..made.data_len_of_piece(piece) as usize]));
            }
            prop_assert_eq!(made.piece_hash_v1(piece).is_some(), format != MetainfoFormat::V2);
            prop_assert_eq!(made.piece_root(piece).is_some(), format != MetainfoFormat::V1);
        }
    }
}

#[test]
fn pieces_of_v1_have_any_length() {
    let builder = MetainfoBuilder::file("a", 100_000).unwrap();
    let made = builder
        .piece_length(999)
        .build(|path| Ok(io::Cursor::new(contents(path, 100_000))));
    let made = made.unwrap();
    assert_eq!((made.pieces(), made.len_of_piece(100)), (101, 100));
    let last = contents(&path("a"), 100_000)[99_900..].to_vec();
    assert_eq!(
        made.piece_hash_v1(100).unwrap(),
        <[u8; 20]>::from(Sha1::digest(last))
    );
}

#[test]
fn usual_length_of_pieces_makes_one_to_two_thousand() {
    for (total, expected) in [
        (0, 16 << 10),
        (32 << 20, 16 << 10),
        ((32 << 20) + 1, 32 << 10),
    ] {
        assert_eq!(default_piece_length(total), expected, "{total}");
    }
    for total in (25..34).flat_map(|shift| [(1 << shift) + 1, 3 << shift]) {
        let pieces = total / u64::from(default_piece_length(total));
        assert!((1024..=2048).contains(&pieces), "{pieces} of {total}");
    }
    assert_eq!(default_piece_length(u64::MAX), 16 << 20);
}

#[test]
fn file_that_has_changed_or_cannot_be_read_is_an_error() {
    let build = |length: usize| {
        let builder = MetainfoBuilder::file("a", 70_000).unwrap();
        builder.build(|_| Ok(io::Cursor::new(vec![7; length])))
    };
    assert!(build(70_000).is_ok());
    for length in [0, 69_999, 70_001, 200_000] {
        let found = build(length);
        assert!(
            matches!(
                found,
                Err(BuildError::Length {
                    expected: 70_000,
                    ..
                })
            ),
            "{found:?}"
        );
    }
    let builder = MetainfoBuilder::file("a", 1).unwrap();
    let found = builder.build(|_| Err::<io::Empty, _>(io::ErrorKind::PermissionDenied.into()));
    assert!(matches!(found, Err(BuildError::Read { .. })), "{found:?}");
}

#[test]
fn what_can_be_no_torrent_is_refused_before_it_is_read() {
    fn refused(builder: MetainfoBuilder) -> MetainfoError {
        let built = builder.build(|path| -> io::Result<io::Empty> { panic!("{path} is read") });
        match built {
            Err(BuildError::Metainfo(error)) => error,
            other => panic!("{other:?}"),
        }
    }
    let folder = || MetainfoBuilder::folder("f").unwrap();
    assert_eq!(refused(folder()), MetainfoError::NoData);
    assert_eq!(refused(folder().add(path("a"), 0)), MetainfoError::NoData);
    let twice = folder().add(path("a"), 1).add(path("A"), 1);
    assert!(matches!(refused(twice), MetainfoError::Folder(_)));
    let within = folder().add(path("a"), 1).add(path("a/b"), 1);
    assert!(matches!(refused(within), MetainfoError::Folder(_)));
    let long = folder().add(path("a"), u64::MAX).add(path("b"), u64::MAX);
    assert_eq!(refused(long), MetainfoError::TooLong);
    let many = folder().add(path("a"), 2 << 20).piece_length(1);
    assert_eq!(
        refused(many),
        MetainfoError::TooManyPieces { found: 2 << 20 }
    );
    for (format, length) in [
        (MetainfoFormat::V1, 0),
        (MetainfoFormat::V1, MAX_PIECE_LEN + 1),
        (MetainfoFormat::V2, 8 << 10),
        (MetainfoFormat::V2, 48 << 10),
        (MetainfoFormat::Hybrid, 8 << 10),
    ] {
        let builder = folder()
            .add(path("a"), 1)
            .format(format)
            .piece_length(length);
        let found = i64::from(length);
        assert_eq!(refused(builder), MetainfoError::PieceLength { found });
    }
    for name in ["", "..", "a/b", "nul", "a\\b", "x "] {
        assert!(MetainfoBuilder::folder(name).is_err(), "{name:?}");
    }
}

#[test]
fn links_and_rights_are_written_in_every_format() {
    for format in [
        MetainfoFormat::V1,
        MetainfoFormat::V2,
        MetainfoFormat::Hybrid,
    ] {
        let builder = MetainfoBuilder::folder("f").unwrap().format(format);
        let made = builder
            .add_executable(path("bin/run"), 3)
            .add_symlink(path("bin/latest"), path("bin/run"))
            .add(path("z"), 3)
            .build(|_| Ok(&b"abc"[..]))
            .unwrap();
        let read = Metainfo::from_bytes(&made.to_bytes()).unwrap();
        let find = |name: &str| {
            let mut files = read.files().iter();
            files.find(|file| file.path().as_str() == name).unwrap()
        };
        assert!(find("bin/run").is_executable() && !find("z").is_executable());
        assert_eq!(find("bin/latest").symlink_target(), Some(&path("bin/run")));
    }
}

#[test]
fn trackers_change_and_the_hash_does_not() {
    let builder = MetainfoBuilder::file("a", 3)
        .unwrap()
        .tracker("http://old/");
    let mut torrent = builder.build(|_| Ok(&b"abc"[..])).unwrap();
    let hash = torrent.info_hash_v1();
    for tiers in [
        vec![],
        vec![vec!["http://new/".to_owned()]],
        vec![vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]],
    ] {
        torrent.set_trackers(tiers.clone());
        let read = Metainfo::from_bytes(&torrent.to_bytes()).unwrap();
        assert_eq!((read.trackers(), read.info_hash_v1()), (&tiers[..], hash));
    }
}
