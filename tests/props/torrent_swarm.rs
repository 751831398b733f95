//! Whole swarms of torrents, and what a machine asks of a BitTorrent client.

use std::time::Instant;

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{DropReason, LinkId, Output, ReadWindow, Swarm, SwarmConfig};
use bt_lite::protocol::{OwnState, PeerId, PeerMessage, RefuseReason};
use bt_lite::{Bitfield, ChunkIndex};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::sample::{Sample, link_info};
use crate::swarm_world::{Faults, Kind, World};

/// Torrents of each kind: of few bytes, of pieces of one or many blocks, and of pieces
/// that no block ends with.
fn torrent() -> impl Strategy<Value = Sample> {
    let piece_len = prop_oneof![Just(16 << 10), Just(100_000), Just(1 << 20), Just(7000)];
    let v1 = (1usize..2_000_000, piece_len)
        .prop_filter("too many steps", |(length, piece_len)| {
            length / 80 < *piece_len as usize
        })
        .prop_map(|(length, piece_len)| Sample::torrent_v1(length, piece_len));
    let files = vec(
        prop_oneof![1usize..40_000, Just(16 << 10), 1usize..600_000],
        1..5,
    );
    let v2 = (
        files,
        prop_oneof![Just(16u64 << 10), Just(64 << 10), Just(1 << 20)],
        any::<bool>(),
    )
        .prop_filter("too many steps", |(files, piece_len, _)| {
            files.iter().sum::<usize>() / 80 < *piece_len as usize
        })
        .prop_map(|(files, piece_len, is_hybrid)| Sample::torrent_v2(&files, piece_len, is_hybrid));
    prop_oneof![v1, v2]
}

fn kind() -> impl Strategy<Value = (Kind, bool)> {
    prop_oneof![
        4 => Just((Kind::Honest, true)),
        2 => Just((Kind::Honest, false)),
        2 => any::<(bool, bool)>().prop_map(|(always, leecher)| (Kind::Liar(always), leecher)),
        1 => (0u64..500, 0u64..9000, any::<bool>())
            .prop_map(|(ms, pause, leecher)| (Kind::Returns(ms, pause), leecher)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: (ProptestConfig::default().cases / 8).max(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn swarm_of_a_torrent_finishes_with_requests_that_every_client_answers(
        seed: u64,
        sample in torrent(),
        others in vec(kind(), 0..5),
    ) {
        let mut kinds = vec![(Kind::Honest, false), (Kind::Honest, true)];
        kinds.extend(others);
        let chunks = sample.manifest.geometry().chunks();
        let nodes = kinds.into_iter().map(|(kind, leecher)| match leecher {
            true => (kind, Bitfield::none(chunks)),
            false => (kind, Bitfield::all(chunks)),
        });
        let nodes: Vec<_> = nodes.collect();
        World::new(seed, &sample, &nodes, Faults::default()).run();
    }
}

/// All outputs that a machine has ready.
fn outputs(swarm: &mut Swarm) -> Vec<Output> {
    swarm.check_invariants();
    std::iter::from_fn(|| swarm.poll_output()).collect()
}

fn requests(outputs: &[Output]) -> Vec<BlockRange> {
    let request = |output: &Output| match output {
        Output::Send {
            message: PeerMessage::Request(block),
            ..
        } => Some(*block),
        _ => None,
    };
    outputs.iter().filter_map(request).collect()
}

/// A machine of this torrent that is open, with nothing in its storage.
fn open(now: Instant, sample: &Sample) -> Swarm {
    let manifest = sample.manifest.clone();
    let (config, me) = (SwarmConfig::default(), PeerId([9; 16]));
    let mut swarm = Swarm::with_manifest(now, config, me, manifest.clone());
    let first = outputs(&mut swarm);
    let [Output::Open(opened), Output::Announce(OwnState::Partial)] = &first[..] else {
        panic!("not opened and announced at once: {first:?}");
    };
    assert_eq!(*opened, manifest);
    let none = Bitfield::none(manifest.geometry().chunks());
    swarm.opened(now, &none, &none);
    swarm
}

const CLIENT: LinkId = LinkId(1);

/// A client that has everything and lets this side ask.
fn join(now: Instant, swarm: &mut Swarm) {
    swarm.link_up(now, CLIENT, link_info(PeerId([1; 16]), None, true));
    swarm.handle_message(now, CLIENT, PeerMessage::Choke);
    swarm.handle_message(now, CLIENT, PeerMessage::HaveAll);
    assert!(
        requests(&outputs(swarm)).is_empty(),
        "asks while it is choked"
    );
    swarm.handle_message(now, CLIENT, PeerMessage::Unchoke);
}

#[test]
fn torrent_that_is_read_is_asked_for_in_the_same_blocks() {
    let now = Instant::now();
    for piece_len in [16 << 10, 100_000, 1 << 20] {
        let sample = Sample::torrent_v1(3 << 20, piece_len);
        let mut swarm = open(now, &sample);
        let window = ReadWindow::new(2 * piece_len + 5, 1 << 20, Some(1e6));
        swarm.set_read_windows(now, &[window]);
        join(now, &mut swarm);
        let asked = requests(&outputs(&mut swarm));
        assert_eq!(asked[0].chunk, ChunkIndex(2));
        for block in asked {
            let rest = sample.manifest.geometry().len_of(block.chunk) as u32 - block.offset;
            assert_eq!(
                (block.offset % (16 << 10), block.len),
                (0, rest.min(16 << 10))
            );
        }
    }
}

#[test]
fn torrent_that_passes_through_is_opened_and_not_announced() {
    let (now, sample) = (Instant::now(), Sample::torrent_v1(300_000, 100_000));
    let (config, me) = (SwarmConfig::default(), PeerId([9; 16]));
    let swarm = Swarm::with_manifest(now, config, me, sample.manifest.clone());
    let first = outputs(&mut swarm.passing(1 << 20));
    assert!(matches!(&first[..], [Output::Open(_)]), "{first:?}");
}

#[test]
fn client_that_comes_before_the_storage_is_open_is_asked_when_it_has_said_what_it_has() {
    let (now, sample) = (Instant::now(), Sample::torrent_v1(300_000, 100_000));
    let (config, me) = (SwarmConfig::default(), PeerId([9; 16]));
    let mut swarm = Swarm::with_manifest(now, config, me, sample.manifest.clone());
    let info = link_info(PeerId([1; 16]), None, true);
    // It was complete on an earlier connection.
    swarm.owners_found(now, [(info.addr.clone().unwrap(), true)]);
    swarm.link_up(now, CLIENT, info);
    let none = Bitfield::none(3);
    swarm.opened(now, &none, &none);
    assert!(requests(&outputs(&mut swarm)).is_empty());
    swarm.handle_message(now, CLIENT, PeerMessage::HaveAll);
    assert!(!requests(&outputs(&mut swarm)).is_empty());
}

#[test]
fn pages_of_the_manifest_of_a_torrent_are_refused() {
    let now = Instant::now();
    for sample in [
        Sample::torrent_v1(300_000, 100_000),
        Sample::torrent_v2(&[5, 90_000], 16 << 10, true),
    ] {
        let seeder = Swarm::seeder(
            now,
            SwarmConfig::default(),
            PeerId([9; 16]),
            sample.manifest.clone(),
        );
        for mut swarm in [seeder, open(now, &sample)] {
            swarm.link_up(now, CLIENT, link_info(PeerId([1; 16]), None, false));
            for page in [0, 1, 9] {
                swarm.handle_message(now, CLIENT, PeerMessage::ManifestRequest { page });
                let message = PeerMessage::ManifestReject { page };
                let refused = Output::Send {
                    link: CLIENT,
                    message,
                };
                let answers = outputs(&mut swarm);
                assert!(answers.contains(&refused), "{answers:?}");
            }
        }
    }
}

#[test]
fn client_that_finds_no_place_is_refused_and_not_told_to_wait() {
    let (now, sample) = (Instant::now(), Sample::torrent_v1(300_000, 100_000));
    let mut config = SwarmConfig::default();
    config.max_links = 1;
    assert!(config.max_waiting > 0);
    let mut swarm = Swarm::seeder(now, config, PeerId([9; 16]), sample.manifest.clone());
    swarm.link_up(now, CLIENT, link_info(PeerId([1; 16]), None, false));
    let requested = BlockRange {
        chunk: ChunkIndex(0),
        offset: 0,
        len: 1,
    };
    swarm.handle_message(now, CLIENT, PeerMessage::HaveNone);
    swarm.handle_message(now, CLIENT, PeerMessage::Request(requested));
    outputs(&mut swarm);
    let late = LinkId(2);
    swarm.link_up(now, late, link_info(PeerId([2; 16]), None, false));
    let refused = Output::Drop {
        link: late,
        reason: DropReason::Refused(RefuseReason::Busy),
    };
    assert_eq!(outputs(&mut swarm), [refused]);
}

#[test]
fn seeder_serves_ranges_that_are_not_its_own_blocks() {
    let (now, sample) = (Instant::now(), Sample::torrent_v1(300_000, 100_000));
    let (config, me) = (SwarmConfig::default(), PeerId([9; 16]));
    let mut swarm = Swarm::seeder(now, config, me, sample.manifest.clone());
    swarm.link_up(now, CLIENT, link_info(PeerId([1; 16]), None, false));
    swarm.handle_message(now, CLIENT, PeerMessage::HaveNone);
    outputs(&mut swarm);
    for (offset, len) in [
        (0, 65_536),
        (1, 16_384),
        (99_999, 1),
        (16_000, 700),
        (0, 100_000),
    ] {
        let chunk = ChunkIndex(2);
        let block = BlockRange { chunk, offset, len };
        swarm.handle_message(now, CLIENT, PeerMessage::Request(block));
        let read = Output::Read {
            link: CLIENT,
            block,
        };
        assert!(outputs(&mut swarm).contains(&read));
        swarm.block_read(now, CLIENT, block, Some(sample.block(block)));
        let sent = outputs(&mut swarm);
        let is_block = |output: &Output| {
            matches!(output, Output::Send { message: PeerMessage::Block { data, .. }, .. }
                if data.len() == len as usize)
        };
        assert!(sent.iter().any(is_block), "{sent:?}");
        swarm.messages_sent(now, CLIENT, 1, len.into());
    }
    // Beyond the end of a piece there is nothing.
    let chunk = ChunkIndex(2);
    for (offset, len) in [(90_000, 10_001), (100_000, 1), (5, 0)] {
        let block = BlockRange { chunk, offset, len };
        swarm.handle_message(now, CLIENT, PeerMessage::Request(block));
        let message = PeerMessage::Reject(block);
        let refused = Output::Send {
            link: CLIENT,
            message,
        };
        assert!(outputs(&mut swarm).contains(&refused));
    }
}

/// Somebody else has put a piece into the storage.
#[test]
fn chunk_that_is_found_is_verified_and_not_asked_for() {
    let now = Instant::now();
    let sample = Sample::torrent_v1(12 * (32 << 10), 32 << 10);
    let mut swarm = open(now, &sample);
    join(now, &mut swarm);
    let asked = requests(&outputs(&mut swarm));
    let first = asked[0].chunk;
    let of_first = asked.iter().filter(|block| block.chunk == first).count();
    let not_asked = swarm.manifest().unwrap().geometry().indices();
    let not_asked = not_asked
        .rev()
        .find(|chunk| asked.iter().all(|block| block.chunk != *chunk));
    let found: Vec<ChunkIndex> = [Some(first), not_asked].into_iter().flatten().collect();
    swarm.chunks_found(now, &found);
    let now_done = outputs(&mut swarm);
    let cancels = |output: &&Output| {
        matches!(output, Output::Send { message: PeerMessage::Cancel(block), .. }
            if block.chunk == first)
    };
    assert_eq!(now_done.iter().filter(cancels).count(), of_first);
    let looked_at = now_done.iter().filter_map(|output| match output {
        Output::Recheck { chunk } => Some(*chunk),
        _ => None,
    });
    let mut looked_at: Vec<ChunkIndex> = looked_at.collect();
    looked_at.sort_unstable();
    let mut all = found.clone();
    all.sort_unstable();
    assert_eq!(looked_at, all);
    assert!(
        requests(&now_done)
            .iter()
            .all(|block| !found.contains(&block.chunk))
    );
    // What comes of it all the same is not wanted, and nobody is blamed.
    swarm.chunks_found(now, &found);
    assert!(outputs(&mut swarm).is_empty(), "found twice");
    swarm.chunk_rechecked(now, first, true);
    assert_eq!(swarm.verified_chunks().unwrap().count(), 1);
    if let Some(bad) = not_asked {
        swarm.chunk_rechecked(now, bad, false);
        let again = requests(&outputs(&mut swarm));
        let others = swarm.under_way();
        assert!(again.iter().any(|block| block.chunk == bad) || !others.contains(&bad));
        assert_eq!(swarm.verified_chunks().unwrap().count(), 1);
    }
}

/// What somebody else fetches is left to that one, as long as it does.
#[test]
fn chunks_that_come_elsewhere_are_not_asked_for() {
    let now = Instant::now();
    let sample = Sample::torrent_v1(8 * (16 << 10), 16 << 10);
    let chunks = sample.manifest.geometry().chunks();
    let mut half = Bitfield::none(chunks);
    (0..chunks / 2).for_each(|chunk| _ = half.insert(ChunkIndex(chunk)));
    for elsewhere in [half, Bitfield::all(chunks)] {
        let mut swarm = open(now, &sample);
        swarm.set_elsewhere(now, Some(elsewhere.clone()));
        join(now, &mut swarm);
        let asked = requests(&outputs(&mut swarm));
        assert_eq!(asked.is_empty(), elsewhere.is_complete());
        let is_elsewhere = |block: &BlockRange| elsewhere.contains(block.chunk);
        assert!(!asked.iter().any(is_elsewhere), "{asked:?}");
        let asked: Vec<ChunkIndex> = asked.iter().map(|block| block.chunk).collect();
        assert_eq!(swarm.under_way(), asked);
        // It has given up.
        swarm.set_elsewhere(now, None);
        let last = requests(&outputs(&mut swarm));
        assert_eq!(last.iter().any(is_elsewhere), elsewhere.is_complete());
    }
}

/// The storage of torrents trusts what is committed without a look.
#[test]
fn commit_of_a_torrent_names_only_what_was_verified() {
    let (now, sample) = (Instant::now(), Sample::torrent_v1(3 * (16 << 10), 16 << 10));
    let (config, me) = (SwarmConfig::default(), PeerId([9; 16]));
    let mut swarm = Swarm::with_manifest(now, config, me, sample.manifest.clone());
    outputs(&mut swarm);
    let (mut left, none) = (Bitfield::none(3), Bitfield::none(3));
    left.insert(ChunkIndex(0));
    swarm.opened(now, &left, &none);
    join(now, &mut swarm);
    let block = requests(&outputs(&mut swarm))[0];
    let answer = PeerMessage::Block {
        chunk: block.chunk,
        offset: block.offset,
        data: sample.block(block),
    };
    swarm.handle_message(now, CLIENT, answer);
    swarm.chunk_written(now, block.chunk);
    swarm.stop(now);
    let commits = outputs(&mut swarm);
    let committed = commits.iter().find_map(|output| match output {
        Output::Commit { verified } => Some(verified.iter().collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(committed, Some(vec![block.chunk]));
}

/// Answers all that is asked for, and stores it. Returns all outputs.
fn serve_all(now: Instant, sample: &Sample, swarm: &mut Swarm) -> Vec<Output> {
    let mut all = Vec::new();
    loop {
        let new = outputs(swarm);
        if new.is_empty() {
            return all;
        }
        for block in requests(&new) {
            let BlockRange { chunk, offset, .. } = block;
            let data = sample.block(block);
            let message = PeerMessage::Block {
                chunk,
                offset,
                data,
            };
            swarm.handle_message(now, CLIENT, message);
        }
        for output in &new {
            match output {
                Output::Verify { chunk, .. } => swarm.chunk_verified(now, *chunk, true),
                Output::Store { chunk, .. } => swarm.chunk_stored(now, *chunk),
                Output::Commit { .. } => swarm.committed(now),
                _ => {}
            }
        }
        all.extend(new);
    }
}

#[test]
fn machine_asks_for_what_is_wanted_and_rests_until_more_is() {
    let (now, sample) = (Instant::now(), Sample::torrent_v1(500_000, 100_000));
    let chunks = |numbers: &[u32]| {
        let mut chunks = Bitfield::none(5);
        for number in numbers {
            chunks.insert(ChunkIndex(*number));
        }
        chunks
    };
    let mut swarm = open(now, &sample);
    swarm.set_wanted(now, Some(chunks(&[1, 3])));
    join(now, &mut swarm);
    // The trackers were asked, and know nobody else.
    swarm.owners_found(now, []);
    let all = serve_all(now, &sample, &mut swarm);
    let asked = requests(&all).into_iter().map(|block| block.chunk.0);
    assert!(asked.clone().all(|chunk| chunk == 1 || chunk == 3));
    let verified = chunks(&[1, 3]);
    assert!(all.contains(&Output::FinishPart { verified }), "{all:?}");
    assert!(swarm.is_resting() && !swarm.is_seeding());
    let progress = swarm.progress(now);
    assert_eq!(
        (progress.verified_bytes, progress.length),
        (200_000, Some(200_000))
    );
    swarm.part_finished(now);
    assert!(swarm.wants(ChunkIndex(3)) && !swarm.wants(ChunkIndex(4)));
    // A seeder is of no use now.
    let reason = DropReason::Refused(RefuseReason::NotNeeded);
    let dropped = Output::Drop {
        link: CLIENT,
        reason,
    };
    assert!(outputs(&mut swarm).contains(&dropped));
    // Nobody is missed, however long that lasts.
    let later = now + std::time::Duration::from_secs(24 * 60 * 60);
    swarm.handle_timeout(later);
    assert_eq!(outputs(&mut swarm), []);
    assert_eq!(swarm.poll_timeout(), None);

    // The same chunks may be another choice, which has to be published.
    swarm.set_wanted(later, Some(chunks(&[1, 3])));
    let verified = chunks(&[1, 3]);
    let publishes = [Output::FinishPart { verified }];
    assert_eq!(outputs(&mut swarm), publishes);
    // All is wanted before that is done, and then the same again: that is published by itself.
    swarm.set_wanted(later, None);
    swarm.set_wanted(later, Some(chunks(&[1, 3])));
    let meanwhile = outputs(&mut swarm);
    assert!(meanwhile.contains(&Output::FindOwners), "{meanwhile:?}");
    assert!(!meanwhile.contains(&publishes[0]), "{meanwhile:?}");
    swarm.owners_found(later, []);
    swarm.part_finished(later);
    assert_eq!(outputs(&mut swarm), publishes);
    // More is wanted before that is done.
    swarm.set_wanted(later, None);
    assert!(!swarm.is_resting() && swarm.wants(ChunkIndex(4)));
    swarm.part_finished(later);
    let more = outputs(&mut swarm);
    assert!(more.contains(&Output::FindOwners), "{more:?}");
    assert!(
        !more
            .iter()
            .any(|output| matches!(output, Output::GaveUp(_)))
    );
    join(later, &mut swarm);
    let rest = serve_all(later, &sample, &mut swarm);
    assert!(rest.contains(&Output::Finish), "{rest:?}");
    swarm.finished(later);
    assert!(swarm.is_seeding());
}

#[test]
fn chunk_that_is_not_wanted_any_more_is_cancelled() {
    let (now, sample) = (Instant::now(), Sample::torrent_v1(500_000, 100_000));
    let mut swarm = open(now, &sample);
    join(now, &mut swarm);
    let asked = requests(&outputs(&mut swarm));
    assert!(!asked.is_empty());
    swarm.set_wanted(now, Some(Bitfield::none(5)));
    let cancelled: Vec<_> = outputs(&mut swarm).into_iter().collect();
    for block in asked {
        let message = PeerMessage::Cancel(block);
        let cancel = Output::Send {
            link: CLIENT,
            message,
        };
        assert!(cancelled.contains(&cancel), "{block:?}: {cancelled:?}");
    }
    assert!(swarm.is_resting());
}
