//! What one of several contents verifies, seen by the others.

use std::fs;
use std::path::Path;

use super::super::layout::{Layout, SpannedFile};
use super::*;
use crate::content::ContentId;

const LEN: u64 = 64 << 10;
/// The owner's chunks.
const OWN: u64 = 32 << 10;

/// The first guest.
const ONLY: GuestNumber = GuestNumber(0);

fn open(root: &Path) -> (Common, Arc<SpannedTree>) {
    let file = SpannedFile {
        path: "f".parse().unwrap(),
        range: 0..LEN,
        executable: false,
    };
    let layout = Layout {
        files: vec![file],
        links: Vec::new(),
        length: LEN,
    };
    let geometry = Geometry::of_torrent(LEN, OWN).unwrap();
    let of = (ContentId::of(b""), geometry);
    let (tree, left) = SpannedTree::open(root.into(), layout, of, false, Arc::default()).unwrap();
    let (common, tree) = (Common::new(), Arc::new(tree));
    let there = (&left.present, &left.verified);
    common.open_owner(Arc::clone(&tree), geometry, there);
    // Its chunks are half as long.
    common.add_guest(0..LEN, root.join("f"));
    let (_, present) = common.open_guest(ONLY, Geometry::of(LEN).unwrap()).unwrap();
    assert_eq!(present.chunks(), 4);
    (common, tree)
}

fn write(common: &Common, tree: &SpannedTree, side: Side, range: Range<u64>, byte: u8) -> bool {
    let bytes = vec![byte; (range.end - range.start) as usize];
    // In pieces whose borders are no borders of chunks.
    let (first, second) = bytes.split_at(bytes.len() / 3);
    let pieces = [first, second].map(Bytes::copy_from_slice);
    common.write(side, tree, range.start, &pieces).is_ok()
}

fn numbers(chunks: Vec<ChunkIndex>) -> Vec<u32> {
    chunks.into_iter().map(|chunk| chunk.0).collect()
}

#[test]
fn each_hears_of_whole_chunks_that_the_other_has_verified() {
    let root = tempfile::tempdir().unwrap();
    let (common, tree) = open(root.path());
    let quarter = OWN / 2;
    assert!(write(&common, &tree, Side::Owner, 0..OWN, 1));
    assert_eq!(numbers(common.take_found(Side::Guest(ONLY))), [0, 1]);
    assert_eq!(numbers(common.take_found(Side::Guest(ONLY))), [0; 0]);
    assert!(write(
        &common,
        &tree,
        Side::Guest(ONLY),
        3 * quarter..LEN,
        1
    ));
    assert_eq!(numbers(common.take_found(Side::Owner)), [0; 0]);
    assert!(common.checked(Side::Guest(ONLY), ChunkIndex(1), true));
    assert!(write(
        &common,
        &tree,
        Side::Guest(ONLY),
        OWN..3 * quarter,
        1
    ));
    assert_eq!(numbers(common.take_found(Side::Owner)), [1]);
    let now = Instant::now();
    let later = now + std::time::Duration::from_secs(1);
    common.fetches(Side::Guest(ONLY), now, &[ChunkIndex(2)]);
    common.fetches(Side::Guest(ONLY), later, &[ChunkIndex(1), ChunkIndex(2)]);
    let elsewhere = |side, since| {
        let (chunks, first) = common.elsewhere(side, since);
        (
            chunks.iter().map(|chunk| chunk.0).collect::<Vec<_>>(),
            first,
        )
    };
    assert_eq!(elsewhere(Side::Owner, None), (vec![0, 1], Some(now)));
    assert_eq!(elsewhere(Side::Owner, Some(now)), (vec![0], Some(later)));
    assert_eq!(elsewhere(Side::Guest(ONLY), None), (Vec::new(), None));
}

#[test]
fn what_one_has_verified_is_never_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let (common, tree) = open(root.path());
    assert!(write(&common, &tree, Side::Owner, 0..OWN, 1));
    // The same bytes, and more.
    assert!(write(
        &common,
        &tree,
        Side::Guest(ONLY),
        OWN / 2..2 * OWN,
        1
    ));
    assert_eq!(common.eviction(Side::Guest(ONLY)), None);
    // Others.
    assert!(!write(&common, &tree, Side::Guest(ONLY), 0..OWN / 2, 2));
    let path = root.path().join("f");
    assert_eq!(
        common.eviction(Side::Guest(ONLY)),
        Some(StorageError::Mismatch { path })
    );
    assert_eq!(tree.read(0, 4).unwrap(), [1; 4][..]);
    assert!(common.read(Side::Guest(ONLY), &tree, 0, 4).is_err());
    assert!(common.read(Side::Owner, &tree, 0, 4).is_ok());
    assert!(!write(&common, &tree, Side::Guest(ONLY), OWN..LEN, 2));
}

#[test]
fn guest_is_evicted_before_the_owner_writes_over_it() {
    let root = tempfile::tempdir().unwrap();
    let (common, tree) = open(root.path());
    assert!(write(&common, &tree, Side::Guest(ONLY), 0..OWN / 2, 2));
    assert!(write(&common, &tree, Side::Owner, 0..OWN, 1));
    assert!(common.eviction(Side::Guest(ONLY)).is_some());
    assert_eq!(tree.read(0, OWN as usize).unwrap(), vec![1; OWN as usize]);
    assert!(write(&common, &tree, Side::Owner, OWN..LEN, 1));
    common.finish_owner(&tree).unwrap();
    assert_eq!(
        fs::read(root.path().join("f")).unwrap(),
        vec![1; LEN as usize]
    );
    assert!(common.finish_guest(ONLY, &tree).is_err());
}

#[test]
fn chunk_that_is_wrong_for_one_and_right_for_the_other_ends_the_pair() {
    let root = tempfile::tempdir().unwrap();
    let (common, tree) = open(root.path());
    assert!(write(&common, &tree, Side::Guest(ONLY), 0..OWN / 2, 2));
    // The guest has only a half of it.
    assert!(!common.checked(Side::Owner, ChunkIndex(0), false));
    assert_eq!(common.eviction(Side::Guest(ONLY)), None);
    assert!(write(&common, &tree, Side::Guest(ONLY), OWN / 2..OWN, 2));
    assert!(!common.checked(Side::Owner, ChunkIndex(0), false));
    assert!(common.eviction(Side::Guest(ONLY)).is_some());
}

#[test]
fn what_was_there_and_was_written_over_is_not_taken_for_verified() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("f.bt_lite-part"), vec![1; LEN as usize]).unwrap();
    let (common, tree) = open(root.path());
    // While the owner reads and hashes it.
    assert!(write(&common, &tree, Side::Guest(ONLY), 0..OWN / 2, 2));
    assert!(!common.checked(Side::Owner, ChunkIndex(0), true));
    assert!(common.checked(Side::Owner, ChunkIndex(1), true));
    assert_eq!(numbers(common.take_found(Side::Guest(ONLY))), [2, 3]);
    // It is read again when all of it is there.
    assert_eq!(numbers(common.take_found(Side::Owner)), [0; 0]);
    assert!(write(&common, &tree, Side::Guest(ONLY), OWN / 2..OWN, 2));
    assert_eq!(numbers(common.take_found(Side::Owner)), [0]);
    assert!(!common.checked(Side::Owner, ChunkIndex(0), true));
    assert_eq!(numbers(common.take_found(Side::Owner)), [0]);
    assert!(common.checked(Side::Owner, ChunkIndex(0), true));
}

#[test]
fn what_was_read_before_another_has_written_over_it_does_not_end_the_pair() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("f.bt_lite-part"), vec![1; LEN as usize]).unwrap();
    let (common, tree) = open(root.path());
    let guest = Side::Guest(ONLY);
    // While the guest hashes what was there before.
    assert!(write(&common, &tree, Side::Owner, 0..OWN, 2));
    assert_eq!(numbers(common.take_found(guest)), [0, 1]);
    assert!(!common.checked(guest, ChunkIndex(0), false));
    assert_eq!(common.eviction(guest), None);
    assert_eq!(numbers(common.take_found(guest)), [0]);
    assert!(common.checked(guest, ChunkIndex(0), true));
    // The other chunk was read again, and is what the owner has written.
    assert!(!common.checked(guest, ChunkIndex(1), false));
    assert_eq!(numbers(common.take_found(guest)), [1]);
    assert!(!common.checked(guest, ChunkIndex(1), false));
    assert!(common.eviction(guest).is_some());
}

#[test]
fn record_tells_what_only_the_guest_has_verified() {
    let root = tempfile::tempdir().unwrap();
    let (common, tree) = open(root.path());
    assert!(write(&common, &tree, Side::Owner, 0..OWN, 1));
    assert!(write(&common, &tree, Side::Guest(ONLY), OWN..LEN, 1));
    common.commit(Side::Guest(ONLY), &tree, None).unwrap();
    common.leave(Side::Owner);
    common.leave(Side::Guest(ONLY));
    drop((common, tree));
    let (common, tree) = open(root.path());
    assert_eq!(numbers(common.take_found(Side::Guest(ONLY))), [0; 0]);
    let there = common
        .open_guest(ONLY, Geometry::of(LEN).unwrap())
        .unwrap()
        .1;
    assert!(there.is_complete());
    // The owner is gone: the guest publishes, and says nothing of the owner's chunks.
    assert!(common.checked(Side::Owner, ChunkIndex(0), true));
    common.leave(Side::Owner);
    common.finish_guest(ONLY, &tree).unwrap();
    common.leave(Side::Guest(ONLY));
    drop((common, tree));
    let (common, _) = open(root.path());
    assert!(common.known().0.contains(ChunkIndex(0)));
    assert!(!common.known().0.contains(ChunkIndex(1)));
}

/// Two files with padding between them, each with a guest, and a piece over both.
#[test]
fn guests_in_different_files_do_not_harm_each_other() {
    let root = tempfile::tempdir().unwrap();
    let file = |path: &str, range| SpannedFile {
        path: path.parse().unwrap(),
        range,
        executable: false,
    };
    let half = OWN / 2;
    let layout = Layout {
        files: vec![file("a", 0..half), file("b", OWN..LEN)],
        links: Vec::new(),
        length: LEN,
    };
    let geometry = Geometry::of_torrent(LEN, OWN).unwrap();
    let of = (ContentId::of(b""), geometry);
    let (tree, left) =
        SpannedTree::open(root.path().into(), layout, of, false, Arc::default()).unwrap();
    let (common, tree) = (Common::new(), Arc::new(tree));
    common.open_owner(Arc::clone(&tree), geometry, (&left.present, &left.verified));
    assert!(common.is_alone());
    let [a, b] = [(0..half, "a"), (OWN..LEN, "b")]
        .map(|(range, path)| common.add_guest(range, root.path().join(path)));
    common.open_guest(a, Geometry::of(half).unwrap()).unwrap();
    common.open_guest(b, Geometry::of(OWN).unwrap()).unwrap();
    // A file that ends with padding is all that the owner needs of its piece.
    assert!(write(&common, &tree, Side::Guest(a), 0..half, 1));
    assert_eq!(numbers(common.take_found(Side::Owner)), [0]);
    assert!(common.checked(Side::Owner, ChunkIndex(0), true));
    assert_eq!(numbers(common.take_found(Side::Guest(a))), [0]);
    assert_eq!(numbers(common.take_found(Side::Guest(b))), [0; 0]);
    // The chunks of a guest begin where its file does.
    assert!(write(&common, &tree, Side::Owner, OWN..LEN, 1));
    assert_eq!(numbers(common.take_found(Side::Guest(b))), [0, 1]);
    assert!(common.checked(Side::Guest(b), ChunkIndex(1), true));
    assert!(!write(&common, &tree, Side::Guest(b), OWN..LEN, 2));
    assert!(common.eviction(Side::Guest(b)).is_some());
    assert_eq!(common.eviction(Side::Guest(a)), None);
    let third = common.add_guest(0..half, root.path().join("a"));
    let geometry = Geometry::of(half).unwrap();
    assert!(common.open_guest(third, geometry).is_err());
    common.leave(Side::Guest(a));
    assert!(common.open_guest(third, geometry).is_ok());
    common.remove_guest(a);
    common.remove_guest(b);
    common.remove_guest(third);
    assert!(common.is_alone());
}
