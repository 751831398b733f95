//! The index of a folder: it survives its encoding, and nothing that could reach
//! out of the folder is ever one.

use bt_lite::content::{
    FolderIndexError, FolderPathError, LinkTargetError, MAX_CONTENT_LEN, MAX_FOLDER_ENTRIES,
    MAX_INDEX_LEN, MAX_PATH_DEPTH, MAX_PATH_LEN, UnsafeName,
};
use bt_lite::{ContentId, FolderEntry, FolderIndex, FolderItem, FolderPath};
use proptest::prelude::*;

fn path(text: &str) -> FolderPath {
    text.parse().unwrap()
}

fn file(text: &str) -> FolderEntry {
    FolderEntry::file(path(text), ContentId::of(text.as_bytes()), 7)
}

fn link(text: &str, target: &str) -> FolderEntry {
    FolderEntry::symlink(path(text), target)
}

fn checked(entries: impl Into<Vec<FolderEntry>>) -> Result<FolderIndex, FolderIndexError> {
    FolderIndex::new(entries.into())
}

/// An index written without any check, with `count` entries announced.
fn written(count: u32, entries: &[(u8, &str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"btl.fldr\0\0\0\x01".to_vec();
    bytes.extend(count.to_be_bytes());
    for (kind, path, rest) in entries {
        bytes.push(*kind);
        bytes.extend((path.len() as u16).to_be_bytes());
        bytes.extend(path.as_bytes());
        bytes.extend(*rest);
    }
    bytes
}

/// A path of few and awkward elements, so that they meet often.
fn element() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "A", "b", ".b", "c.d", "é", "ß", "ss", "x y"])
}

fn any_path() -> impl Strategy<Value = FolderPath> {
    prop::collection::vec(element(), 1..4).prop_map(|elements| path(&elements.join("/")))
}

fn any_target() -> impl Strategy<Value = String> {
    let part = prop_oneof![element(), Just(".."), Just("."), Just(""), Just("C:")];
    prop::collection::vec(part, 1..6).prop_map(|parts| parts.join("/"))
}

fn any_entry() -> impl Strategy<Value = FolderEntry> {
    let id = (0u8..4).prop_map(|n| ContentId::of(&[n]));
    prop_oneof![
        3 => (any_path(), id, 0u64..3, any::<bool>()).prop_map(|(path, id, length, runs)| {
            match runs {
                true => FolderEntry::executable(path, id, length),
                false => FolderEntry::file(path, id, length),
            }
        }),
        2 => (any_path(), any_target()).prop_map(|(path, to)| FolderEntry::symlink(path, to)),
        1 => any_path().prop_map(FolderEntry::empty_folder),
    ]
}

/// The entries that can be added one after the other.
fn fitting(entries: Vec<FolderEntry>) -> FolderIndex {
    let mut index = checked([]).unwrap();
    for entry in entries {
        let more = [index.entries(), &[entry]].concat();
        index = checked(more).unwrap_or(index);
    }
    index
}

/// Whether a link, followed as a file system follows it, stays in the folder.
fn stays_inside(index: &FolderIndex, from: &FolderPath, target: &str, hops: u32) -> bool {
    let target_of = |path: &str| {
        let same = |entry: &&FolderEntry| entry.path.as_str().to_lowercase() == path.to_lowercase();
        let entry = index.entries().iter().find(same)?;
        match &entry.item {
            FolderItem::Symlink { target } => Some((entry.path.clone(), target.clone())),
            _ => None,
        }
    };
    let mut at: Vec<String> = from.elements().map(str::to_owned).collect();
    at.pop();
    for part in target.split('/') {
        match part {
            "" => return false,
            "." => {}
            ".." if at.pop().is_none() => return false,
            ".." => {}
            name => at.push(name.to_owned()),
        }
        if let Some((link, target)) = target_of(&at.join("/")) {
            // A loop leads nowhere.
            return hops == 0 || stays_inside(index, &link, &target, hops - 1);
        }
    }
    true
}

/// What has to hold for whatever was accepted.
fn check_safe(index: &FolderIndex) {
    for entry in index.entries() {
        let text = entry.path.as_str();
        assert!(!text.starts_with('/') && !text.contains('\\') && !text.contains(':'));
        assert!(
            entry.path.elements().all(|e| !["", ".", ".."].contains(&e)),
            "{text}"
        );
        if let FolderItem::Symlink { target } = &entry.item {
            assert!(
                stays_inside(index, &entry.path, target, 8),
                "{text} -> {target}"
            );
        }
        let within = |other: &FolderEntry| {
            let (a, b) = (other.path.as_str().to_lowercase(), text.to_lowercase());
            a == b || b.starts_with(&format!("{a}/"))
        };
        assert_eq!(
            index.entries().iter().filter(|other| within(other)).count(),
            1
        );
    }
}

proptest! {
    #[test]
    fn index_survives_its_encoding(entries in prop::collection::vec(any_entry(), 0..12)) {
        let index = fitting(entries);
        let bytes = index.encode();
        prop_assert_eq!(FolderIndex::decode(&bytes), Ok(index.clone()));
        prop_assert_eq!(index.id(), ContentId::of(&bytes));
        check_safe(&index);
    }

    #[test]
    fn bytes_that_are_accepted_are_safe_and_the_only_ones(
        entries in prop::collection::vec(any_entry(), 1..8),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = fitting(entries).encode().to_vec();
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        let whole = FolderIndex::decode(&bytes);
        if let Ok(index) = &whole {
            check_safe(index);
            prop_assert_eq!(&index.encode()[..], &bytes[..]);
        }
        let cut = cut.index(bytes.len());
        prop_assert!(FolderIndex::decode(&bytes[..cut]).is_err());
        bytes.push(0);
        prop_assert!(whole.is_err() || FolderIndex::decode(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = FolderIndex::decode(&rest);
        let mut bytes = written(1, &[]);
        bytes.extend(rest);
        if let Ok(index) = FolderIndex::decode(&bytes) {
            check_safe(&index);
        }
    }

    #[test]
    fn selection_is_what_a_naive_search_finds(
        entries in prop::collection::vec(any_entry(), 0..12),
        wanted in prop::collection::vec(any_path(), 0..3),
    ) {
        let index = fitting(entries);
        let is_at = |entry: &FolderEntry, path: &FolderPath| {
            let (entry, path) = (entry.path.as_str(), path.as_str());
            entry == path || entry.starts_with(&format!("{path}/"))
        };
        let missing = wanted.iter().find(|p| !index.entries().iter().any(|e| is_at(e, p)));
        match index.select(&wanted) {
            Err(path) => prop_assert_eq!(Some(&path), missing),
            Ok(chosen) => {
                prop_assert_eq!(missing, None);
                let entries = index.entries().iter();
                let naive = entries.filter(|entry| wanted.iter().any(|p| is_at(entry, p)));
                prop_assert_eq!(chosen.entries(), &naive.cloned().collect::<Vec<_>>()[..]);
            }
        }
    }
}

#[test]
fn unsafe_paths_are_refused_with_the_reason() {
    let refused = |text: &str| text.parse::<FolderPath>().unwrap_err();
    for text in [
        "", "/a", "a//b", "a/", "..", "a/../b", "./a", "a\\b", "a\0", "a/\n",
    ] {
        let error = refused(text);
        assert!(
            matches!(error, FolderPathError::Name { .. }),
            "{text:?}: {error}"
        );
    }
    for text in [
        "C:/x",
        "a/NUL",
        "com1.txt/a",
        "a ",
        "a./b",
        "a\u{200b}",
        "x/a?",
    ] {
        let error = refused(text);
        assert!(
            matches!(error, FolderPathError::Unsafe { .. }),
            "{text:?}: {error}"
        );
    }
    let device = FolderPathError::Unsafe {
        element: "aux".into(),
        source: UnsafeName::Device,
    };
    assert_eq!(refused("x/aux"), device);
    for text in [".gitignore", "a/.b/c", "...a", "é/ü"] {
        assert_eq!(path(text).as_str(), text);
    }
    let deep = vec!["a"; MAX_PATH_DEPTH].join("/");
    assert_eq!(path(&deep).elements().count(), MAX_PATH_DEPTH);
    let depth = MAX_PATH_DEPTH + 1;
    assert_eq!(
        refused(&format!("{deep}/a")),
        FolderPathError::TooDeep { depth }
    );
    let long = ["a".repeat(255), "b".repeat(255), "c".repeat(256 - 2)].join("/");
    assert_eq!(
        path(&long[..MAX_PATH_LEN - 2]).as_str().len(),
        MAX_PATH_LEN - 2
    );
    let len = MAX_PATH_LEN + 1;
    let longer = format!("{long}/{}", "d".repeat(len - long.len() - 1));
    assert_eq!(refused(&longer), FolderPathError::TooLong { len });
}

#[test]
fn entries_that_cannot_be_one_folder_everywhere_are_refused() {
    for (a, b) in [
        ("A", "a"),
        ("A/x", "a/y"),
        ("a/B/c", "a/b/d"),
        ("straße", "STRASSE"),
    ] {
        let error = checked([file(a), file(b)]).unwrap_err();
        assert!(
            matches!(error, FolderIndexError::Case { .. }),
            "{a} {b}: {error}"
        );
    }
    for within in [
        file("a"),
        link("a", "b"),
        FolderEntry::empty_folder(path("a")),
    ] {
        let error = checked([within, file("a.b"), file("a/x")]).unwrap_err();
        let expected = FolderIndexError::Within {
            path: path("a/x"),
            within: path("a"),
        };
        assert_eq!(error, expected);
    }
    let twice = checked([file("a"), file("a")]).unwrap_err();
    assert!(matches!(twice, FolderIndexError::Order { .. }), "{twice}");
    let id = ContentId::of(b"");
    let lengths = [("a", 1), ("b", 2)].map(|(at, len)| FolderEntry::file(path(at), id, len));
    let path_b = path("b");
    assert_eq!(
        checked(lengths),
        Err(FolderIndexError::Lengths { path: path_b, id })
    );
    let long = FolderEntry::file(path("a"), id, MAX_CONTENT_LEN + 1);
    let error = checked([long]).unwrap_err();
    assert!(
        matches!(error, FolderIndexError::FileTooLong { .. }),
        "{error}"
    );
}

#[test]
fn links_that_may_leave_the_folder_are_refused() {
    let target = |at: &str, target: &str| {
        let others = [file("dir/x"), file("dir/sub/y"), link("dir/up", "..")];
        match checked([&others[..], &[link(at, target)]].concat()) {
            Ok(_) => Ok(()),
            Err(FolderIndexError::Symlink { source, .. }) => Err(source),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(target("l", "/etc/passwd"), Err(LinkTargetError::Absolute));
    for (at, to) in [
        ("l", ".."),
        ("l", "dir/../.."),
        ("dir/l", "../../x"),
        ("l", "../l"),
    ] {
        assert_eq!(
            target(at, to),
            Err(LinkTargetError::Outside),
            "{at} -> {to}"
        );
    }
    // `dir/up/..` lies outside, whatever the text looks like; and so it does where
    // `UP` is the same.
    for to in [
        "dir/up/..",
        "dir/up/x",
        "dir/UP/../..",
        "dir/x/y",
        "l/x",
        "missing/é/x",
    ] {
        let error = target("l", to).unwrap_err();
        assert!(
            matches!(error, LinkTargetError::Through { .. }),
            "{to}: {error}"
        );
    }
    for to in ["", "dir//x", "C:/x", "dir/NUL/x", "a\\b", "dir/"] {
        let error = target("l", to).unwrap_err();
        assert!(
            matches!(error, LinkTargetError::Element(_)),
            "{to}: {error}"
        );
    }
    let len = MAX_PATH_LEN + 1;
    assert_eq!(
        target("l", &"a".repeat(len)),
        Err(LinkTargetError::TooLong { len })
    );
    for (at, to) in [
        ("l", "dir"),
        ("l", "dir/up"),
        ("l", "."),
        ("l", "./dir/../dir/x"),
        ("dir/l", ".."),
        ("dir/sub/l", "../../missing"),
        ("l", "missing/x"),
        ("l", "é"),
        ("l", "l"),
    ] {
        assert_eq!(target(at, to), Ok(()), "{at} -> {to}");
    }
    let libraries = [
        link("libfoo.so", "libfoo.so.1"),
        link("libfoo.so.1", "libfoo.so.1.2"),
        file("libfoo.so.1.2"),
    ];
    assert_eq!(checked(libraries).unwrap().entries().len(), 3);
}

#[test]
fn hostile_bytes_are_refused_with_the_reason() {
    let decode = |bytes: &[u8]| FolderIndex::decode(bytes).unwrap_err();
    assert_eq!(decode(b""), FolderIndexError::NotAFolder);
    assert_eq!(decode(b"hello, I am a file"), FolderIndexError::NotAFolder);
    let mut later = written(0, &[]);
    later[11] = 2;
    assert_eq!(decode(&later), FolderIndexError::Version { found: 2 });
    let many = MAX_FOLDER_ENTRIES as u32 + 1;
    let found = many.into();
    assert_eq!(
        decode(&written(many, &[])),
        FolderIndexError::TooManyEntries { found }
    );
    // Nothing is allocated for entries that cannot be there.
    let fewer = decode(&written(many - 1, &[]));
    assert!(
        matches!(fewer, FolderIndexError::Damaged { at: 16, .. }),
        "{fewer}"
    );
    let kind = decode(&written(1, &[(4, "a", &[])]));
    assert!(
        matches!(kind, FolderIndexError::Damaged { at: 16, .. }),
        "{kind}"
    );
    for text in ["../a", "/a", "a/../../b"] {
        let error = decode(&written(1, &[(3, text, &[])]));
        assert!(matches!(error, FolderIndexError::Path { .. }), "{error}");
    }
    let unsorted = decode(&written(2, &[(3, "b", &[]), (3, "a", &[])]));
    assert!(
        matches!(unsorted, FolderIndexError::Order { .. }),
        "{unsorted}"
    );
    let out = decode(&written(1, &[(2, "a", b"\0\x04../b")]));
    assert!(matches!(out, FolderIndexError::Symlink { .. }), "{out}");
    let len = MAX_INDEX_LEN + 1;
    assert_eq!(
        decode(&vec![0; len as usize]),
        FolderIndexError::TooLong { len }
    );
}
