//! Torrents that mean harm, or do not fit together: each is refused, and says why.

use bt_lite::bittorrent::metainfo::{MAX_INFO_LEN, MAX_METAINFO_LEN};
use bt_lite::bittorrent::{InfoHashV1, InfoHashV2, Metainfo, MetainfoError};
use bt_lite::content::{FolderIndexError, LinkTargetError, MAX_PATH_DEPTH};

use crate::reference::{TORRENTS, torrent};
use crate::value::{Value, strings};

/// A torrent of libtorrent, changed.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> Result<Metainfo, MetainfoError> {
    let mut value = Value::parse(torrent(name));
    change(&mut value);
    Metainfo::from_bytes(&value.encode())
}

fn changed_info(name: &str, change: impl FnOnce(&mut Value)) -> Result<Metainfo, MetainfoError> {
    changed(name, |value| change(value.at("info")))
}

/// The single file of v1 with this length, length of a piece, and number of hashes.
fn single(length: i64, piece: i64, hashes: usize) -> Result<Metainfo, MetainfoError> {
    changed_info("single-v1", |info| {
        info.set("length", length);
        info.set("piece length", piece);
        info.set("pieces", vec![7; 20 * hashes]);
    })
}

/// A folder of v1 with files of one byte at these paths.
fn folder(paths: &[&[&str]]) -> Result<Metainfo, MetainfoError> {
    changed_info("v1", |info| {
        let files = paths.iter().map(|path| {
            let mut file = Value::Dict(Default::default());
            file.set("length", 1);
            file.set("path", strings(path));
            file
        });
        info.set("files", files.collect::<Vec<_>>());
        info.set("pieces", vec![7; 20]);
    })
}

macro_rules! assert_error {
    ($found:expr, $pattern:pat) => {
        let found = $found;
        assert!(matches!(found, Err($pattern)), "{found:?}");
    };
}

#[test]
fn path_that_leads_elsewhere_is_refused() {
    assert!(folder(&[&["a"], &["b", ".hidden"]]).is_ok());
    let deep = vec!["d"; 65];
    let long = "x".repeat(256);
    let long_path = vec!["yyyyyyyyyyyyyyyy"; 60];
    for path in [
        &[][..],
        &[""],
        &[".."],
        &["."],
        &["a", "..", "b"],
        &["/etc/passwd"],
        &["a/b"],
        &["a\\b"],
        &["C:"],
        &["a:b"],
        &["nul"],
        &["COM1.txt"],
        &["a\0"],
        &["a "],
        &["a."],
        &["a\u{202e}gpj.exe"],
        &[&long],
        &deep,
        &long_path,
    ] {
        assert_error!(folder(&[path]), MetainfoError::Path { .. });
        let [name] = path else { continue };
        let named = changed_info("v1", |info| info.set("name", *name));
        assert_error!(named, MetainfoError::Path { .. });
        let tree = changed_info("v2", |info| {
            let leaf = info.at("file tree").at("c").clone();
            info.at("file tree")
                .dict()
                .insert(name.as_bytes().into(), leaf);
        });
        assert!(tree.is_err(), "{name:?}");
    }
    let not_text = changed_info("v1", |info| info.set("name", vec![0xff, 0xfe]));
    assert_error!(not_text, MetainfoError::Bencode(_));
}

#[test]
fn names_in_utf_8_come_before_others() {
    let torrent = changed_info("v1", |info| {
        info.set("name", vec![0xff]);
        info.set("name.utf-8", "name");
        let file = &mut info.at("files").list()[0];
        file.set("path", Value::List(vec![vec![0xff].into()]));
        file.set("path.utf-8", strings(&["b", "é"]));
    });
    let torrent = torrent.unwrap();
    assert_eq!(torrent.name(), "name");
    assert_eq!(torrent.files()[0].path().as_str(), "b/é");
}

#[test]
fn files_that_are_in_each_others_way_are_refused() {
    for paths in [
        &[&["a"][..], &["a"]][..],
        &[&["a"], &["A"]],
        &[&["a", "x"], &["A", "y"]],
        &[&["a"], &["a", "b"]],
        &[&["ſ"], &["s"]],
    ] {
        assert_error!(folder(paths), MetainfoError::Folder(_));
    }
    let both = changed_info("v2", |info| {
        let leaf = info.at("file tree").at("c").clone();
        info.at("file tree").at("c").set("d", leaf);
    });
    assert_error!(both, MetainfoError::FileAndFolder { .. });
    let empty = changed_info("v2", |info| _ = info.at("file tree").at("d"));
    assert_error!(empty, MetainfoError::EmptyFolder { .. });
    let clash = changed_info("v2", |info| {
        let leaf = info.at("file tree").at("c").clone();
        info.at("file tree").set("C", leaf);
    });
    assert_error!(clash, MetainfoError::Folder(FolderIndexError::Case { .. }));
}

#[test]
fn link_that_leads_out_is_refused() {
    let link = |target: &[&str], length: i64| {
        changed_info("links-v1", |info| {
            let files = info.at("files").list();
            let is_link = |file: &mut Value| file.dict().contains_key(&b"symlink path"[..]);
            let link = files
                .iter_mut()
                .find_map(|file| is_link(file).then_some(file));
            let link = link.unwrap();
            link.set("symlink path", strings(target));
            link.set("length", length);
        })
    };
    assert!(link(&["b", "exact"], 0).is_ok());
    assert!(link(&["nothing"], 0).is_ok());
    assert_error!(link(&["..", "x"], 0), MetainfoError::Path { .. });
    assert_error!(link(&[], 0), MetainfoError::Path { .. });
    assert_error!(link(&["a.txt"], 1), MetainfoError::Symlink { .. });
    let through = link(&["a.txt", "x"], 0);
    assert_error!(
        through,
        MetainfoError::Folder(FolderIndexError::Symlink {
            source: LinkTargetError::Through { .. },
            ..
        })
    );
    let without_target = changed_info("v1", |info| info.at("files").list()[0].set("attr", "l"));
    assert_error!(without_target, MetainfoError::Symlink { .. });
}

#[test]
fn lengths_and_hashes_fit_each_other() {
    assert!(single(100_000, 32768, 4).is_ok());
    // As short as one byte, and as long as libtorrent takes.
    assert!(single(3, 1, 3).is_ok());
    assert!(single(100_000, 256 << 20, 1).is_ok());
    for piece in [
        0,
        -1,
        i64::MIN,
        i64::MAX,
        (256 << 20) + 1,
        1 << 32,
        (1 << 32) + 16384,
    ] {
        assert_error!(single(100_000, piece, 1), MetainfoError::PieceLength { .. });
    }
    for hashes in [0, 3, 5] {
        assert_error!(
            single(100_000, 32768, hashes),
            MetainfoError::HashCount { .. }
        );
    }
    assert_error!(single(0, 32768, 0), MetainfoError::NoData);
    assert_error!(single(-1, 32768, 4), MetainfoError::Bencode(_));
    assert_error!(single(i64::MAX, 32768, 4), MetainfoError::TooLong);
    assert_error!(
        single(1 << 40, 16384, 4),
        MetainfoError::TooManyPieces { .. }
    );
    let part = changed_info("single-v1", |info| info.set("pieces", vec![7; 79]));
    assert_error!(part, MetainfoError::HashesLength { len: 79 });
    let overflow = changed_info("v1", |info| {
        for file in info.at("files").list() {
            file.set("length", i64::MAX);
        }
    });
    assert_error!(overflow, MetainfoError::TooLong);
    for piece in [8192, 16385, 49152] {
        let v2 = changed_info("v2", |info| info.set("piece length", piece));
        assert_error!(v2, MetainfoError::PieceLength { .. });
    }
}

#[test]
fn what_is_no_torrent_is_refused() {
    let without = |name: &str, key: &str| changed_info(name, |info| info.remove(key));
    for key in ["name", "piece length"] {
        assert_error!(without("v1", key), MetainfoError::Bencode(_));
    }
    assert_error!(without("v1", "pieces"), MetainfoError::NoHashes);
    assert_error!(without("v1", "files"), MetainfoError::FileOrFiles);
    assert_error!(without("v2", "file tree"), MetainfoError::Bencode(_));
    // Then it is a torrent of v1, without hashes.
    assert_error!(without("v2", "meta version"), MetainfoError::NoHashes);
    assert!(
        without("hybrid", "meta version")
            .unwrap()
            .info_hash_v2()
            .is_none()
    );
    let both = changed_info("v1", |info| info.set("length", 1));
    assert_error!(both, MetainfoError::FileOrFiles);
    for version in [0, 3, -1] {
        let later = changed_info("v2", |info| info.set("meta version", version));
        assert_error!(later, MetainfoError::Version { .. });
    }
    let no_info = changed("v1", |value| value.remove("info"));
    assert_error!(no_info, MetainfoError::Bencode(_));
    for bytes in [&b""[..], b"de", b"le", b"i1e", b"4:info", b"d4:infoi1ee"] {
        assert_error!(Metainfo::from_bytes(bytes), MetainfoError::Bencode(_));
    }
    assert_error!(Metainfo::from_bytes(b"d4:infodee"), MetainfoError::NoHashes);
    let trailing = [torrent("v1"), b"\n"].concat();
    assert_error!(Metainfo::from_bytes(&trailing), MetainfoError::Bencode(_));
    let long = vec![b'd'; MAX_METAINFO_LEN + 1];
    assert_error!(Metainfo::from_bytes(&long), MetainfoError::Bencode(_));
    assert_error!(
        Metainfo::from_info(&long[..=MAX_INFO_LEN]),
        MetainfoError::Bencode(_)
    );
}

#[test]
fn both_descriptions_of_a_hybrid_are_of_the_same_files() {
    let file = |change: fn(&mut Vec<Value>)| {
        changed_info("hybrid", |info| change(info.at("files").list()))
    };
    assert!(file(|_| ()).is_ok());
    // Padding behind the last file may be missing.
    assert!(file(|files| _ = files.pop()).is_ok());
    let changes: [fn(&mut Vec<Value>); 9] = [
        |files| files[0].set("length", 6),
        |files| files[0].set("path", strings(&["b.txt"])),
        |files| files[0].set("attr", "x"),
        |files| files[1].set("length", 1),
        |files| _ = files.remove(1),
        |files| files.swap(0, 3),
        |files| {
            files[1].set("attr", "");
            files[1].set("path", strings(&["more"]));
        },
        |files| _ = files.remove(2),
        |files| {
            let padding = files[1].clone();
            files.push(padding);
        },
    ];
    for change in changes {
        let found = file(change);
        let is_it = matches!(
            found,
            Err(MetainfoError::HybridDiffers { .. } | MetainfoError::HashCount { .. })
        );
        assert!(is_it, "{found:?}");
    }
    let root = changed_info("hybrid", |info| {
        info.at("file tree").at("c").at("").set("length", 99_999);
    });
    assert_error!(root, MetainfoError::HybridDiffers { .. });
}

#[test]
fn hashes_of_pieces_have_the_root_of_their_file() {
    let layers = |change: fn(&mut Value)| changed("v2", |value| change(value.at("piece layers")));
    assert!(layers(|_| ()).is_ok());
    assert_error!(
        layers(|layers| layers.dict().values_mut().for_each(|layer| {
            if let Value::Bytes(bytes) = layer {
                bytes[0] ^= 1;
            }
        })),
        MetainfoError::LayerWrong { .. }
    );
    assert_error!(
        layers(|layers| layers.dict().values_mut().for_each(|layer| {
            if let Value::Bytes(bytes) = layer {
                bytes.pop();
            }
        })),
        MetainfoError::LayerWrong { .. }
    );
    assert_error!(
        layers(|layers| _ = layers.dict().pop_first()),
        MetainfoError::LayerMissing { .. }
    );
    assert_error!(
        layers(|layers| _ = layers.dict().insert(vec![1; 32], vec![1; 32].into())),
        MetainfoError::LayerUnknown
    );
    assert_error!(
        layers(|layers| _ = layers.dict().insert(vec![1; 31], vec![1; 32].into())),
        MetainfoError::Bencode(_)
    );
    // Two files have one layer only if they have as many pieces.
    let shared = |length: i64| {
        changed("v2", |value| {
            let root = value
                .at("piece layers")
                .dict()
                .keys()
                .next()
                .unwrap()
                .clone();
            let file = value.at("info").at("file tree").at("zz").at("");
            file.set("length", length);
            file.set("pieces root", root);
        })
    };
    assert_error!(shared(1 << 30), MetainfoError::LayerWrong { .. });
    // Without any it is as good as a magnet link.
    let none = changed("v2", |value| value.remove("piece layers"));
    assert!(none.unwrap().piece_root(2).is_none());
    let leaf = |change: fn(&mut Value)| {
        changed_info("v2", |info| change(info.at("file tree").at("a.txt").at("")))
    };
    assert_error!(
        leaf(|leaf| leaf.remove("pieces root")),
        MetainfoError::PiecesRoot { .. }
    );
    assert_error!(
        leaf(|leaf| leaf.set("length", 0)),
        MetainfoError::PiecesRoot { .. }
    );
    assert_error!(
        leaf(|leaf| leaf.set("attr", "p")),
        MetainfoError::Padding { .. }
    );
}

#[test]
fn file_tree_is_as_deep_as_a_path_can_be() {
    let deep = |depth: usize| {
        changed_info("v2", |info| {
            let tree = info.at("file tree");
            let names = std::iter::repeat_n("z", depth).chain([""]);
            let file = names.fold(tree, |folder, name| folder.at(name));
            file.set("length", 0);
        })
    };
    assert!(deep(MAX_PATH_DEPTH).is_ok());
    assert_error!(deep(MAX_PATH_DEPTH + 1), MetainfoError::TooDeep);
}

#[test]
fn odd_entries_beside_the_info_are_kept_and_say_nothing() {
    let mut value = Value::parse(torrent("v1"));
    value.set(
        "announce-list",
        Value::List(vec![strings(&[]), strings(&[""])]),
    );
    value.set("comment", 5);
    value.set("creation date", "yesterday");
    value.set("url-list", "");
    value.set("nodes", Value::List(vec![strings(&["host"])]));
    value.set("zzz", strings(&["unknown"]));
    let torrent = Metainfo::from_bytes(&value.encode()).unwrap();
    assert_eq!(torrent.to_bytes(), value.encode());
    assert_eq!(torrent.trackers(), [["http://t.example/announce"]]);
    assert_eq!((torrent.comment(), torrent.creation_date()), (None, None));
    assert!(torrent.web_seeds().is_empty() && torrent.nodes().is_empty());
    let node = Value::List(vec!["10.0.0.1".into(), 6881.into()]);
    value.set("nodes", Value::List(vec![node]));
    let torrent = Metainfo::from_bytes(&value.encode()).unwrap();
    assert_eq!(torrent.nodes(), [("10.0.0.1".to_owned(), 6881)]);
}

#[test]
fn truncated_torrent_is_refused_at_each_length() {
    for (name, bytes) in TORRENTS {
        for len in 0..bytes.len() {
            assert!(
                Metainfo::from_bytes(&bytes[..len]).is_err(),
                "{len} of {name}"
            );
        }
        let info = Metainfo::from_bytes(bytes).unwrap().info_bytes().clone();
        for len in 0..info.len() {
            assert!(
                Metainfo::from_info(&info[..len]).is_err(),
                "{len} of {name}"
            );
        }
    }
}

#[test]
fn unsorted_keys_are_read_and_hashed_as_they_came() {
    for (name, _) in TORRENTS {
        let sorted = Metainfo::from_bytes(torrent(name)).unwrap();
        let mut value = Value::parse(torrent(name));
        let unsorted = value.encode_reversed();
        let info = value.at("info").encode_reversed();
        let read = Metainfo::from_bytes(&unsorted).unwrap();
        assert_eq!(read.info_bytes(), &info);
        let v1 = sorted.info_hash_v1().map(|_| InfoHashV1::of(&info));
        let v2 = sorted.info_hash_v2().map(|_| InfoHashV2::of(&info));
        assert_eq!((read.info_hash_v1(), read.info_hash_v2()), (v1, v2));
        assert_eq!(read.files(), sorted.files());
        assert_eq!(read.trackers(), sorted.trackers());
        for piece in 0..read.pieces() {
            assert_eq!(read.piece_hash_v1(piece), sorted.piece_hash_v1(piece));
            assert_eq!(read.piece_root(piece), sorted.piece_root(piece));
        }
        assert_eq!(Metainfo::from_bytes(&read.to_bytes()), Ok(read.clone()));
        let alone = Metainfo::from_info(&info).unwrap();
        assert_eq!(alone.files(), sorted.files());
        // Of a key that comes twice, one program takes the first value and another the last.
        let doubled = [b"d4:infode", &unsorted[1..]].concat();
        assert_error!(Metainfo::from_bytes(&doubled), MetainfoError::Bencode(_));
        let doubled = [b"d4:name1:x", &info[1..]].concat();
        assert_error!(Metainfo::from_info(&doubled), MetainfoError::Bencode(_));
    }
}
