//! The info dictionary, fetched from honest peers and liars.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bt_lite::bittorrent::wire::{MAX_METADATA_LEN, MetadataMessage};
use bt_lite::testing::bittorrent::{FetchOutput, MetadataFetch, MetadataHash, SourceId};
use bytes::Bytes;
use proptest::prelude::*;
use sha1::{Digest, Sha1};

const PIECE: usize = 16_384;

fn info(len: usize) -> Bytes {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn fetch(info: &Bytes) -> MetadataFetch {
    MetadataFetch::new(MetadataHash::Sha1(Sha1::digest(info).into()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Honest,
    /// Sends wrong bytes for this piece.
    Liar(u32),
    Rejects,
    Silent,
    /// Says another length, and sends as many bytes.
    WrongLength,
}

/// Runs a fetch with these peers; returns what came, and who was found to lie.
fn run(info: &Bytes, natures: &[Nature]) -> (Option<Bytes>, Vec<SourceId>) {
    let mut fetch = fetch(info);
    let mut now = Instant::now();
    let sources: BTreeMap<SourceId, Nature> =
        (0..).map(SourceId).zip(natures.iter().copied()).collect();
    let longer = [&info[..], &[1]].concat();
    for (id, nature) in &sources {
        let len = info.len() + usize::from(*nature == Nature::WrongLength);
        fetch.source_up(now, *id, len as u32);
    }
    let mut liars = Vec::new();
    for _ in 0..20_000 {
        let Some(output) = fetch.poll_output() else {
            let Some(due) = fetch.poll_timeout() else {
                return (None, liars);
            };
            now = now.max(due);
            fetch.handle_timeout(now);
            continue;
        };
        match output {
            FetchOutput::Done(bytes) => {
                assert_eq!(fetch.poll_timeout(), None);
                return (Some(bytes), liars);
            }
            FetchOutput::Liar(id) => {
                assert!(
                    !fetch.source_up(now, id, info.len() as u32),
                    "a liar is back"
                );
                liars.push(id);
            }
            FetchOutput::Ask { source, piece } => {
                let nature = sources[&source];
                let from = match nature {
                    Nature::WrongLength => &longer[..],
                    _ => &info[..],
                };
                let start = piece as usize * PIECE;
                let mut data = from[start..from.len().min(start + PIECE)].to_vec();
                match nature {
                    Nature::Liar(at) if at == piece => data[0] ^= 1,
                    Nature::Rejects => {
                        let answer = MetadataMessage::Reject { piece };
                        fetch.handle_message(now, source, answer);
                        continue;
                    }
                    Nature::Silent => continue,
                    _ => {}
                }
                let answer = MetadataMessage::Data {
                    piece,
                    total_size: None,
                    data: data.into(),
                };
                fetch.handle_message(now, source, answer);
            }
        }
    }
    panic!("the fetch does not end");
}

#[test]
fn pieces_come_from_several_peers() {
    let info = info(5 * PIECE + 100);
    let mut fetch = fetch(&info);
    let now = Instant::now();
    let asked = |fetch: &mut MetadataFetch| {
        let outputs = std::iter::from_fn(|| fetch.poll_output());
        outputs
            .map(|output| match output {
                FetchOutput::Ask { source, piece } => (source.0, piece),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    assert!(fetch.source_up(now, SourceId(1), info.len() as u32));
    assert_eq!(asked(&mut fetch), [(1, 0), (1, 1)]);
    assert!(fetch.source_up(now, SourceId(2), info.len() as u32));
    assert_eq!(asked(&mut fetch), [(2, 2), (2, 3)]);
    // What was asked of one that is gone is asked of another.
    fetch.source_down(now, SourceId(1));
    assert_eq!(asked(&mut fetch), []);
    fetch.handle_message(now, SourceId(2), MetadataMessage::Reject { piece: 3 });
    assert_eq!(asked(&mut fetch), [(2, 0)]);
}

#[test]
fn whole_is_checked_by_either_hash() {
    let info = info(100);
    for hash in [
        MetadataHash::Sha1(Sha1::digest(&info).into()),
        MetadataHash::Sha256(sha2::Sha256::digest(&info).into()),
    ] {
        let mut fetch = MetadataFetch::new(hash);
        let now = Instant::now();
        fetch.source_up(now, SourceId(0), 100);
        fetch.poll_output();
        let data = info.clone();
        let answer = MetadataMessage::Data {
            piece: 0,
            total_size: Some(100),
            data,
        };
        fetch.handle_message(now, SourceId(0), answer);
        assert_eq!(fetch.poll_output(), Some(FetchOutput::Done(info.clone())));
    }
}

#[test]
fn impossible_lengths_are_not_asked_for() {
    let mut fetch = fetch(&info(1));
    let now = Instant::now();
    assert!(!fetch.source_up(now, SourceId(0), 0));
    assert!(!fetch.source_up(now, SourceId(0), MAX_METADATA_LEN + 1));
    assert!(fetch.source_up(now, SourceId(0), MAX_METADATA_LEN));
}

#[test]
fn single_liar_is_dropped_and_another_one_asked() {
    let info = info(3 * PIECE);
    let mut fetch = fetch(&info);
    let now = Instant::now();
    fetch.source_up(now, SourceId(0), info.len() as u32);
    for piece in 0..3 {
        let data = Bytes::from(vec![0; PIECE]);
        let answer = MetadataMessage::Data {
            piece,
            total_size: None,
            data,
        };
        fetch.handle_message(now, SourceId(0), answer);
    }
    let last = std::iter::from_fn(|| fetch.poll_output()).last();
    assert_eq!(last, Some(FetchOutput::Liar(SourceId(0))));
    assert!(fetch.source_up(now, SourceId(1), info.len() as u32));
    let next = fetch.poll_output();
    assert!(matches!(
        next,
        Some(FetchOutput::Ask {
            source: SourceId(1),
            piece: 0
        })
    ));
    // Another one may have its number by now.
    assert!(!fetch.source_up(now, SourceId(0), info.len() as u32));
    fetch.source_down(now, SourceId(0));
    assert!(fetch.source_up(now, SourceId(0), info.len() as u32));
}

#[test]
fn liar_among_several_is_found() {
    let info = info(4 * PIECE);
    let natures = [Nature::Honest, Nature::Liar(2), Nature::Honest];
    let (came, liars) = run(&info, &natures);
    assert_eq!(came, Some(info));
    assert!(liars.iter().all(|liar| *liar == SourceId(1)));
}

#[test]
fn majority_that_lies_about_the_length_is_no_obstacle() {
    let info = info(2 * PIECE);
    let natures = [
        Nature::WrongLength,
        Nature::WrongLength,
        Nature::WrongLength,
        Nature::Honest,
    ];
    assert_eq!(run(&info, &natures).0, Some(info));
}

#[test]
fn silent_peer_is_given_up_after_a_while() {
    let info = info(PIECE);
    let mut fetch = fetch(&info);
    let now = Instant::now();
    fetch.source_up(now, SourceId(0), info.len() as u32);
    assert!(fetch.poll_timeout().unwrap() <= now + Duration::from_secs(60));
    assert_eq!(run(&info, &[Nature::Silent]).0, None);
    assert_eq!(
        run(&info, &[Nature::Silent, Nature::Rejects, Nature::Honest]).0,
        Some(info)
    );
}

/// The pieces that are asked for, and of whom.
fn asks(fetch: &mut MetadataFetch) -> Vec<(u64, u32)> {
    let outputs = std::iter::from_fn(|| fetch.poll_output());
    let asks = outputs.map(|output| match output {
        FetchOutput::Ask { source, piece } => (source.0, piece),
        other => panic!("{other:?}"),
    });
    asks.collect()
}

#[test]
fn piece_that_was_refused_is_asked_of_another_only() {
    let info = info(2 * PIECE);
    let (now, mut fetch) = (Instant::now(), fetch(&info));
    fetch.source_up(now, SourceId(1), info.len() as u32);
    assert_eq!(asks(&mut fetch), [(1, 0), (1, 1)]);
    fetch.handle_message(now, SourceId(1), MetadataMessage::Reject { piece: 0 });
    assert_eq!(asks(&mut fetch), []);
    fetch.source_up(now, SourceId(2), info.len() as u32);
    assert_eq!(asks(&mut fetch), [(2, 0)]);
}

#[test]
fn piece_of_another_length_counts_as_refused() {
    let info = info(2 * PIECE);
    for len in [0, PIECE - 1, PIECE + 1] {
        let (now, mut fetch) = (Instant::now(), fetch(&info));
        fetch.source_up(now, SourceId(1), info.len() as u32);
        assert_eq!(asks(&mut fetch), [(1, 0), (1, 1)]);
        let data = MetadataMessage::Data {
            piece: 0,
            total_size: None,
            data: vec![0; len].into(),
        };
        fetch.handle_message(now, SourceId(1), data);
        fetch.source_up(now, SourceId(2), info.len() as u32);
        assert_eq!(asks(&mut fetch), [(2, 0)], "{len}");
    }
}

#[test]
fn nothing_is_asked_for_any_more_when_all_is_here() {
    let info = info(PIECE);
    let (now, mut fetch) = (Instant::now(), fetch(&info));
    for id in [1, 2] {
        fetch.source_up(now, SourceId(id), info.len() as u32);
    }
    // What was to be asked has not even been taken.
    let data = MetadataMessage::Data {
        piece: 0,
        total_size: None,
        data: info.clone(),
    };
    fetch.handle_message(now, SourceId(1), data);
    assert_eq!(fetch.poll_output(), Some(FetchOutput::Done(info)));
    assert_eq!(fetch.poll_output(), None);
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        2 => (0..4_u32).prop_map(Nature::Liar),
        1 => Just(Nature::Rejects),
        1 => Just(Nature::Silent),
        1 => Just(Nature::WrongLength),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn one_honest_peer_is_enough_and_is_never_called_a_liar(
        others in proptest::collection::vec(nature(), 0..8),
        place in 0..8_usize,
        len in 1..4 * PIECE,
    ) {
        let info = info(len);
        let mut natures = others;
        let place = place.min(natures.len());
        natures.insert(place, Nature::Honest);
        let (came, liars) = run(&info, &natures);
        prop_assert_eq!(came, Some(info));
        prop_assert!(!liars.contains(&SourceId(place as u64)));
    }
}
