//! Whole swarms in one thread. They finish with the right bytes, and only liars
//! are banned.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{DropReason, LinkId, Output, Swarm, SwarmConfig};
use bt_lite::protocol::{PeerId, PeerMessage, RefuseReason};
use bt_lite::{Bitfield, ChunkIndex, Manifest};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::sample::{LARGE, Sample, link_info};
use crate::swarm_world::{Counts, Faults, Kind, World};

/// A further node of any kind. The flag says whether it is a leecher. If not, it
/// has the whole content.
fn kind() -> impl Strategy<Value = (Kind, bool)> {
    prop_oneof![
        4 => Just((Kind::Honest, true)),
        2 => Just((Kind::Honest, false)),
        2 => any::<(bool, bool)>().prop_map(|(always, leecher)| (Kind::Liar(always), leecher)),
        1 => Just((Kind::Silent, false)),
        1 => Just((Kind::Rejecting, false)),
        1 => (0u64..500, any::<bool>()).prop_map(|(ms, leecher)| (Kind::Dies(ms), leecher)),
        1 => (0u64..500, 0u64..9000, any::<bool>())
            .prop_map(|(ms, pause, leecher)| (Kind::Returns(ms, pause), leecher)),
    ]
}

fn faults() -> impl Strategy<Value = Faults> {
    let rarely = |range| prop::option::weighted(0.3, range);
    let latency = prop_oneof![3 => Just(0u64), 1 => 1u64..300];
    let lag = prop_oneof![2 => Just(0u64), 1 => 1u64..500];
    (
        (latency, lag),
        rarely(200u64..5000),
        prop::option::weighted(0.3, (200u64..5000, 1u64..20_000)),
        prop::option::weighted(0.2, 3u32..50),
        prop::option::weighted(0.5, 2usize..5),
    )
        .prop_map(
            |((latency, lag), cuts, stalls, bad_reads, max_open)| Faults {
                latency,
                lag,
                // There is time for a chunk to arrive between two cuts, and for
                // a node to run between two stalls. Otherwise the swarm might
                // never finish.
                cuts: cuts.map(|often| often + 8 * (latency.max(30) + lag)),
                stalls: stalls.map(|(often, longest)| (often + longest, longest)),
                bad_reads,
                max_open,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: (ProptestConfig::default().cases / 4).max(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn swarm_with_one_honest_seeder_finishes_and_bans_only_liars(
        seed: u64,
        length in prop_oneof![Just(0), 1usize..200_000],
        others in vec(kind(), 0..6),
        faults in faults(),
    ) {
        let mut kinds = vec![(Kind::Honest, false), (Kind::Honest, true)];
        kinds.extend(others);
        let sample = Sample::new(length);
        let chunks = sample.manifest.geometry().chunks();
        let nodes = kinds.into_iter().map(|(kind, leecher)| match leecher {
            true => (kind, Bitfield::none(chunks)),
            false => (kind, Bitfield::all(chunks)),
        });
        let nodes: Vec<_> = nodes.collect();
        World::new(seed, &sample, &nodes, faults).run();
    }
}

/// The only chunks of the long content that some nodes lack. The last chunk has
/// fewer blocks than the others.
fn missing() -> Vec<ChunkIndex> {
    let last = LARGE.manifest.geometry().last();
    (0..7).map(ChunkIndex).chain([last]).collect()
}

/// Honest peers that together have every missing chunk at least once, and other
/// peers of all kinds. If none of them is a seeder, all are leechers that serve
/// each other.
fn owners() -> impl Strategy<Value = Vec<(Kind, Bitfield)>> {
    let stays = prop_oneof![
        4 => Just(Kind::Honest),
        1 => (0u64..2000, 0u64..9000).prop_map(|(ms, pause)| Kind::Returns(ms, pause)),
    ];
    let honest = vec((stays, any::<u8>()), 1..5);
    let others = vec((kind(), any::<u8>()), 0..5);
    let with = |mask: u8| {
        let mut has = Bitfield::all(LARGE.manifest.geometry().chunks());
        for (at, chunk) in missing().into_iter().enumerate() {
            if mask & (1 << at) == 0 {
                has.remove(chunk);
            }
        }
        has
    };
    (honest, others, vec(any::<prop::sample::Index>(), 8)).prop_map(
        move |(mut honest, others, holders)| {
            for (chunk, holder) in holders.into_iter().enumerate() {
                let holder = holder.index(honest.len());
                honest[holder].1 |= 1 << chunk;
            }
            let honest = honest.into_iter().map(|(kind, mask)| (kind, with(mask)));
            let others = others.into_iter().map(|((kind, leecher), mask)| {
                let mask = if leecher { mask } else { u8::MAX };
                (kind, with(mask))
            });
            let fresh = [(Kind::Honest, with(0))];
            honest.chain(fresh).chain(others).collect()
        },
    )
}

#[test]
fn swarm_of_many_blocks_per_chunk_finds_the_liars_among_co_senders() {
    let mut config = ProptestConfig::with_source_file(file!());
    config.cases = (config.cases / 4).max(1);
    let all = config.cases;
    let total = RefCell::new(Counts::default());
    let strategy = (any::<u64>(), owners(), faults());
    let outcome = TestRunner::new(config).run(&strategy, |(seed, owners, faults)| {
        let mut world = World::new(seed, &LARGE, &owners, faults);
        world.run();
        let (mut total, counts) = (total.borrow_mut(), &world.counts);
        total.co_sent += counts.co_sent;
        total.exclusive += counts.exclusive;
        total.convicted += counts.convicted;
        total.bans += counts.bans;
        total.cuts += counts.cuts;
        total.merged += counts.merged;
        total.returns += counts.returns;
        total.cancels += counts.cancels;
        total.shared += counts.shared;
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let total = total.into_inner();
    let rarest = total.co_sent.min(total.exclusive).min(total.convicted);
    let rarest = rarest.min(total.bans).min(total.cuts).min(total.returns);
    let rarest = rarest.min(total.cancels).min(total.shared);
    let rarest = rarest.min(total.merged);
    assert!(
        all < 32 || rarest > 0,
        "a case that should occur never did: {total:?}"
    );
}

/// All outputs that a machine has ready.
fn outputs(swarm: &mut Swarm) -> Vec<Output> {
    swarm.check_invariants();
    std::iter::from_fn(|| swarm.poll_output()).collect()
}

#[test]
fn liar_among_several_senders_is_banned_and_the_honest_one_is_not() {
    // The shortest content with two blocks per chunk. One chunk is missing.
    let content: Vec<u8> = (0..(16 << 20) + 1).map(|i| i as u8).collect();
    let manifest = Manifest::of(&content).unwrap();
    let now = Instant::now();
    let (liar, honest) = (LinkId(1), LinkId(2));
    let mut swarm = Swarm::leecher(now, SwarmConfig::default(), PeerId([9; 16]), manifest.id());
    for link in [liar, honest] {
        let peer = PeerId([link.0 as u8; 16]);
        swarm.link_up(now, link, link_info(peer, None, false));
        swarm.handle_message(now, link, PeerMessage::HaveAll);
    }
    let mut proof = manifest.proof().siblings.concat();
    proof.extend_from_slice(&manifest.proof().leaf);
    let length = content.len() as u64;
    swarm.handle_message(
        now,
        liar,
        PeerMessage::ManifestLength {
            length,
            proof: proof.into(),
        },
    );
    let hashes = manifest.hashes().concat().into();
    swarm.handle_message(now, liar, PeerMessage::ManifestHashes { page: 1, hashes });
    outputs(&mut swarm);
    let mut present = Bitfield::all(manifest.geometry().chunks());
    present.remove(ChunkIndex(0));
    swarm.opened(now, &present, &present);

    let unstored = BlockRange {
        chunk: ChunkIndex(0),
        offset: 0,
        len: 1,
    };
    swarm.handle_message(now, honest, PeerMessage::Request(unstored));
    let (mut at, mut banned, mut rejected, mut copies) = (now, Vec::new(), false, 0);
    let mut first = std::collections::BTreeSet::new();
    for _ in 0..100 {
        at += Duration::from_millis(10);
        for output in outputs(&mut swarm) {
            match output {
                Output::Read { block, .. } => {
                    assert_ne!(block, unstored, "serves a block that it lacks")
                }
                Output::Send {
                    link,
                    message: PeerMessage::Reject(block),
                } => {
                    rejected |= (link, block) == (honest, unstored);
                }
                Output::Send {
                    link,
                    message: PeerMessage::Request(block),
                } => {
                    // Each of the two sends some blocks of the first copy.
                    let link_of_first = if block.offset == 0 { liar } else { honest };
                    if copies == 0 && link != link_of_first {
                        let message = PeerMessage::Choke;
                        swarm.handle_message(at, link, message);
                        swarm.handle_message(at, link, PeerMessage::Reject(block));
                        swarm.handle_message(at, link, PeerMessage::Unchoke);
                        continue;
                    }
                    first.extend((copies == 0).then_some(link));
                    let start = block.offset as usize;
                    let mut data = content[start..start + block.len as usize].to_vec();
                    data[0] ^= u8::from(link == liar);
                    let (chunk, offset, data) = (block.chunk, block.offset, Bytes::from(data));
                    swarm.handle_message(
                        at,
                        link,
                        PeerMessage::Block {
                            chunk,
                            offset,
                            data,
                        },
                    );
                }
                Output::Verify { chunk, pieces, .. } => {
                    copies += 1;
                    swarm.chunk_stored(at, chunk);
                    assert_eq!(swarm.progress(at).verified_chunks, present.count());
                    let good = manifest.verify(chunk, pieces.iter().map(|p| &p[..]));
                    swarm.chunk_verified(at, chunk, good);
                }
                Output::Store { chunk, .. } => swarm.chunk_stored(at, chunk),
                Output::Finish => swarm.finished(at),
                Output::Drop {
                    link,
                    reason: DropReason::Refused(RefuseReason::Banned),
                } => {
                    banned.push(link);
                }
                _ => {}
            }
        }
        swarm.handle_timeout(at);
    }
    assert!(swarm.is_seeding() && rejected);
    assert_eq!(first.len(), 2, "both must send blocks of the first copy");
    assert_eq!(banned, [liar]);
}

#[test]
fn link_that_neither_side_needs_gives_way_to_a_new_one() {
    let manifest = Manifest::of(&[7; 50_000]).unwrap();
    let now = Instant::now();
    let mut config = SwarmConfig::default();
    config.max_links = 2;
    let mut swarm = Swarm::leecher(now, config, PeerId([9; 16]), manifest.id());
    let up = |swarm: &mut Swarm, link: u64| {
        let info = link_info(PeerId([link as u8; 16]), None, false);
        swarm.link_up(now, LinkId(link), info);
    };
    let (seeder, same) = (LinkId(1), LinkId(2));
    up(&mut swarm, 1);
    swarm.handle_message(now, seeder, PeerMessage::HaveAll);
    tell_manifest(&mut swarm, now, seeder, &manifest);
    outputs(&mut swarm);
    let mut present = Bitfield::all(manifest.geometry().chunks());
    present.remove(ChunkIndex(0));
    swarm.opened(now, &present, &present);
    up(&mut swarm, 2);
    swarm.handle_message(now, same, PeerMessage::Bitfield(present.to_bytes()));
    outputs(&mut swarm);

    let dropped = |swarm: &mut Swarm| {
        let drops = outputs(swarm)
            .into_iter()
            .filter_map(|output| match output {
                Output::Drop { link, reason } => Some((link, reason)),
                _ => None,
            });
        drops.collect::<Vec<_>>()
    };
    up(&mut swarm, 3);
    let busy = DropReason::Refused(RefuseReason::Busy);
    assert_eq!(dropped(&mut swarm), [(same, busy)]);
    // The seeder is useful. The newest link has not said yet what it has, so it
    // does not give way to another link of the same host.
    let from = format!("{}:2", PeerId([3; 16])).parse().ok();
    swarm.link_up(now, LinkId(4), link_info(PeerId([4; 16]), from, false));
    assert_eq!(dropped(&mut swarm), [(LinkId(4), busy)]);
}

#[test]
fn silent_link_is_asked_again_only_if_nothing_else_arrives() {
    let manifest = Manifest::of(&[7; 400_000]).unwrap();
    let (start, silent, good) = (Instant::now(), LinkId(1), LinkId(2));
    for alone in [true, false] {
        let config = SwarmConfig::default();
        let mut swarm = Swarm::leecher(start, config, PeerId([9; 16]), manifest.id());
        for link in [silent, good].into_iter().take(2 - usize::from(alone)) {
            let info = link_info(PeerId([link.0 as u8; 16]), None, false);
            swarm.link_up(start, link, info);
            swarm.handle_message(start, link, PeerMessage::HaveAll);
        }
        tell_manifest(&mut swarm, start, silent, &manifest);
        let none = Bitfield::none(manifest.geometry().chunks());
        swarm.opened(start, &none, &none);
        // The good link answers its requests, the silent one does not. After this time the
        // good one is silent as well, as its last block does not come.
        let most = Duration::from_millis(if alone { 4400 } else { 4000 });
        let (mut now, mut asked) = (start, 0);
        while now < start + most {
            for output in outputs(&mut swarm) {
                match output {
                    Output::Send {
                        link,
                        message: PeerMessage::Request(block),
                    } if link == good => {
                        now += Duration::from_millis(1);
                        let message = PeerMessage::Block {
                            chunk: block.chunk,
                            offset: block.offset,
                            data: vec![7; block.len as usize].into(),
                        };
                        // The last block is still in flight when the other falls silent.
                        if !swarm.is_seeding() && block.chunk != ChunkIndex(0) {
                            swarm.handle_message(now, good, message);
                        }
                    }
                    Output::Send {
                        link,
                        message: PeerMessage::Request(_),
                    } => {
                        asked += usize::from(link == silent && now > start);
                    }
                    _ => {}
                }
            }
            now = swarm.poll_timeout().unwrap().max(now);
            swarm.handle_timeout(now);
        }
        assert_eq!(asked, usize::from(alone), "alone: {alone}");
    }
}

#[test]
fn untouched_chunks_are_waited_for_only_after_one_turns_out_bad() {
    let manifest = Manifest::of(&[7; 90_000]).unwrap();
    let chunks = manifest.geometry().chunks();
    let (all, none) = (Bitfield::all(chunks), Bitfield::none(chunks));
    let (now, seeder) = (Instant::now(), LinkId(1));
    for bad in [false, true] {
        let config = SwarmConfig::default();
        let mut swarm = Swarm::leecher(now, config, PeerId([9; 16]), manifest.id());
        let info = link_info(PeerId([1; 16]), None, false);
        swarm.link_up(now, seeder, info);
        swarm.handle_message(now, seeder, PeerMessage::HaveAll);
        tell_manifest(&mut swarm, now, seeder, &manifest);
        outputs(&mut swarm);
        swarm.opened(now, &all, &none);
        swarm.left_untouched(now);

        let rechecked = |swarm: &mut Swarm| {
            let (mut looked_at, mut finish, mut asked) = (Vec::new(), false, Vec::new());
            for output in outputs(swarm) {
                match output {
                    Output::Recheck { chunk } => looked_at.push(chunk),
                    Output::Finish => finish = true,
                    Output::Send {
                        message: PeerMessage::Request(block),
                        ..
                    } => asked.push(block.chunk),
                    _ => {}
                }
            }
            swarm.check_invariants();
            (looked_at, finish, asked)
        };
        // Chunks whose recheck has begun are waited for in any case.
        let (begun, finish, _) = rechecked(&mut swarm);
        assert_eq!((begun.len(), finish), (2, false));
        swarm.chunk_rechecked(now, begun[0], true);
        let (looked_at, finish, _) = rechecked(&mut swarm);
        assert_eq!((looked_at, finish), (vec![], false));
        swarm.chunk_rechecked(now, begun[1], !bad);
        let (looked_at, finish, asked) = rechecked(&mut swarm);
        if !bad {
            assert_eq!((looked_at, finish, asked), (vec![], true, vec![]));
            swarm.finished(now);
            assert!(swarm.is_seeding());
            continue;
        }
        assert!(!finish);
        assert!(!looked_at.is_empty());
        assert_eq!(asked, [begun[1]]);
        assert_eq!(swarm.progress(now).verified_chunks, 1);
    }
}

/// A link sends the whole manifest.
fn tell_manifest(swarm: &mut Swarm, now: Instant, link: LinkId, manifest: &Manifest) {
    let mut proof = manifest.proof().siblings.concat();
    proof.extend_from_slice(&manifest.proof().leaf);
    let length = PeerMessage::ManifestLength {
        length: manifest.geometry().length(),
        proof: proof.into(),
    };
    swarm.handle_message(now, link, length);
    let hashes = manifest.hashes().concat().into();
    swarm.handle_message(now, link, PeerMessage::ManifestHashes { page: 1, hashes });
}
