//! The hashes of the pieces of v2: served with proofs, and fetched from honest peers and
//! liars.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bt_lite::bittorrent::wire::{HASHES_AT_ONCE, HashRange};
use bt_lite::bittorrent::{Metainfo, MetainfoBuilder, MetainfoFormat};
use bt_lite::testing::bittorrent::{HashTrees, LayerFetch, LayerOutput, SourceId};
use bytes::Bytes;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const PIECE_LEN: u32 = 32 << 10;
/// How many layers are below the hashes of pieces.
const BASE: u32 = 1;
const HASH_LEN: usize = 32;

/// Files with these numbers of pieces: one whose only hash is its root, and others whose
/// trees have holes, and more hashes than one request.
const PIECES: [u64; 5] = [1, 2, 5, 8, 1025];

fn torrent() -> &'static Metainfo {
    static TORRENT: OnceLock<Metainfo> = OnceLock::new();
    TORRENT.get_or_init(|| {
        let builder = MetainfoBuilder::folder("t").unwrap();
        let builder = PIECES.iter().fold(builder, |builder, pieces| {
            let path = format!("{pieces}").parse().unwrap();
            builder.add(path, (pieces - 1) * u64::from(PIECE_LEN) + 5)
        });
        let builder = builder.format(MetainfoFormat::V2).piece_length(PIECE_LEN);
        let made = builder.build(|path| {
            let pieces: u64 = path.as_str().parse().unwrap();
            let bytes =
                (0..(pieces - 1) * u64::from(PIECE_LEN) + 5).map(move |at| at / 999 + pieces);
            let bytes: Vec<u8> = bytes.map(|byte| byte as u8).collect();
            Ok(std::io::Cursor::new(bytes))
        });
        made.unwrap()
    })
}

fn layers() -> BTreeMap<[u8; 32], Bytes> {
    let roots = torrent()
        .files()
        .iter()
        .filter_map(|file| file.pieces_root());
    let layers = roots.filter_map(|root| Some((*root, torrent().piece_layer(root)?.clone())));
    layers.collect()
}

fn parent(left: &[u8], right: &[u8]) -> Vec<u8> {
    Sha256::new()
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .to_vec()
}

/// The layers of a tree from the pieces to the root, each as a whole.
fn whole_tree(layer: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut hashes: Vec<Vec<u8>> = layer.chunks(HASH_LEN).map(<[u8]>::to_vec).collect();
    let filler = parent(&[0; HASH_LEN], &[0; HASH_LEN]);
    hashes.resize(hashes.len().next_power_of_two(), filler);
    let mut tree = vec![hashes];
    while tree.last().unwrap().len() > 1 {
        let above = tree.last().unwrap().chunks(2);
        let above = above.map(|pair| parent(&pair[0], &pair[1])).collect();
        tree.push(above);
    }
    tree
}

#[test]
fn ranges_are_answered_as_bep_52_has_it_and_others_are_not() {
    let mut trees = HashTrees::new(torrent());
    for (root, layer) in layers() {
        let tree = whole_tree(&layer);
        let height = tree.len() as u32 - 1;
        assert_eq!(tree[height as usize][0], root);
        for base in 0..=height {
            let width = tree[base as usize].len() as u32;
            for shift in 0..=10 {
                let length = 1 << shift;
                for index in [0, length, width.saturating_sub(length), 3] {
                    for proof_layers in 0..=height {
                        let range = HashRange {
                            root,
                            base_layer: BASE + base,
                            index,
                            length,
                            proof_layers,
                        };
                        let is_right = base < height
                            && index % length == 0
                            && index + length <= width
                            && length <= HASHES_AT_ONCE
                            && proof_layers < height - base;
                        let expected = is_right.then(|| {
                            let (from, to) = (index as usize, (index + length) as usize);
                            let mut hashes = tree[base as usize][from..to].to_vec();
                            for up in shift..=proof_layers {
                                let sibling = (index >> up) ^ 1;
                                hashes.push(tree[(base + up) as usize][sibling as usize].clone());
                            }
                            Bytes::from(hashes.concat())
                        });
                        assert_eq!(trees.answer(&range), expected, "{range:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_there_is_not_is_not_answered() {
    let mut trees = HashTrees::new(torrent());
    let root = *layers().keys().next().unwrap();
    let range = |root, base_layer, index, length, proof_layers| HashRange {
        root,
        base_layer,
        index,
        length,
        proof_layers,
    };
    let single = torrent().files()[0].pieces_root();
    for range in [
        range([7; 32], BASE, 0, 2, 0),
        range(*single.unwrap(), BASE, 0, 1, 0),
        // Hashes of blocks.
        range(root, 0, 0, 2, 0),
        range(root, u32::MAX, 0, 2, 0),
        range(root, BASE, 0, 0, 0),
        range(root, BASE, u32::MAX - 1, 2, 0),
        range(root, BASE, 0, 1 << 31, 0),
        range(root, BASE, 1 << 31, 1 << 31, u32::MAX),
        range(root, BASE, 0, 2, u32::MAX),
    ] {
        assert_eq!(trees.answer(&range), None, "{range:?}");
    }
    let bare = Metainfo::from_info(torrent().info_bytes()).unwrap();
    assert_eq!(
        HashTrees::new(&bare).answer(&range(root, BASE, 0, 2, 0)),
        None
    );
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Honest,
    /// Changes one byte of each answer, anywhere.
    Liar(usize),
    /// Leaves out the end of each answer.
    Short,
    Rejects,
    Silent,
}

/// Runs a fetch with these peers; returns what came, and who was found to lie.
fn run(natures: &[Nature]) -> (Option<BTreeMap<[u8; 32], Bytes>>, Vec<SourceId>) {
    let mut trees = HashTrees::new(torrent());
    let bare = Metainfo::from_info(torrent().info_bytes()).unwrap();
    let mut fetch = LayerFetch::new(&bare);
    let begun = Instant::now();
    let mut now = begun;
    let sources: BTreeMap<SourceId, Nature> =
        (0..).map(SourceId).zip(natures.iter().copied()).collect();
    for id in sources.keys() {
        assert!(fetch.source_up(now, *id));
    }
    let mut liars = Vec::new();
    loop {
        let Some(output) = fetch.poll_output() else {
            let due = fetch.poll_timeout();
            let Some(due) = due.filter(|due| *due < begun + Duration::from_secs(600)) else {
                return (None, liars);
            };
            now = now.max(due);
            fetch.handle_timeout(now);
            continue;
        };
        match output {
            LayerOutput::Done(layers) => {
                assert_eq!(fetch.poll_timeout(), None);
                return (Some(layers), liars);
            }
            LayerOutput::Liar(id) => {
                assert!(!fetch.source_up(now, id));
                liars.push(id);
            }
            LayerOutput::Ask { source, range } => {
                let answer = trees.answer(&range).expect("a range that there is");
                let mut answer = answer.to_vec();
                match sources[&source] {
                    Nature::Silent => {}
                    Nature::Rejects => fetch.hashes_rejected(now, source, range),
                    Nature::Honest => fetch.hashes_came(now, source, range, &answer),
                    Nature::Short => {
                        answer.pop();
                        fetch.hashes_came(now, source, range, &answer);
                    }
                    Nature::Liar(at) => {
                        let at = at % answer.len();
                        answer[at] ^= 1;
                        fetch.hashes_came(now, source, range, &answer);
                    }
                }
                if sources[&source] != Nature::Silent {
                    // It was answered already.
                    fetch.hashes_came(now, source, range, &[]);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn hashes_come_if_one_peer_is_honest_and_only_liars_are_blamed(
        natures in prop::collection::vec(
            prop_oneof![
                Just(Nature::Honest),
                any::<usize>().prop_map(Nature::Liar),
                Just(Nature::Short),
                Just(Nature::Rejects),
                Just(Nature::Silent),
            ],
            0..6,
        ),
    ) {
        let (came, liars) = run(&natures);
        prop_assert_eq!(came.is_some(), natures.contains(&Nature::Honest));
        if let Some(came) = came {
            prop_assert_eq!(came, layers());
        }
        for liar in liars {
            let nature = natures[liar.0 as usize];
            prop_assert!(matches!(nature, Nature::Liar(_) | Nature::Short), "{:?}", nature);
        }
    }
}

#[test]
fn peer_that_leaves_is_replaced_and_nothing_is_asked_twice_at_a_time() {
    let bare = Metainfo::from_info(torrent().info_bytes()).unwrap();
    let (mut fetch, now) = (LayerFetch::new(&bare), Instant::now());
    let mut asked = BTreeMap::new();
    let mut take = |fetch: &mut LayerFetch| {
        while let Some(output) = fetch.poll_output() {
            let LayerOutput::Ask { source, range } = output else {
                panic!("{output:?}");
            };
            let key = (range.root, range.index);
            assert_eq!(asked.insert(key, source), None, "{range:?}");
        }
        std::mem::take(&mut asked)
    };
    fetch.source_up(now, SourceId(0));
    let first = take(&mut fetch);
    assert!(!first.is_empty());
    fetch.source_down(now, SourceId(0));
    assert_eq!(take(&mut fetch).len(), 0);
    for source in 1..20 {
        fetch.source_up(now, SourceId(source));
    }
    let all = take(&mut fetch);
    // Three files have one range each, and one has three.
    assert_eq!(all.len(), 6);
    assert!(first.keys().all(|range| all.contains_key(range)));
}
