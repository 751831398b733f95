//! Whole swarms in one thread: they finish with the right bytes, and nobody
//! but liars is banned.

use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{DropReason, LinkId, LinkInfo, Output, Swarm, SwarmConfig};
use bt_lite::protocol::{PeerId, PeerMessage, RefuseReason};
use bt_lite::{Bitfield, ChunkIndex, Manifest};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::swarm_world::{Kind, World};

fn kind() -> impl Strategy<Value = (Kind, bool)> {
    prop_oneof![
        4 => Just((Kind::Honest, true)),
        2 => Just((Kind::Honest, false)),
        2 => any::<bool>().prop_map(|always| (Kind::Liar(always), false)),
        1 => Just((Kind::Silent, false)),
        1 => Just((Kind::Rejecting, false)),
        1 => (0u64..500, any::<bool>()).prop_map(|(ms, leecher)| (Kind::Dies(ms), leecher)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: (ProptestConfig::default().cases / 4).max(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn swarm_with_one_honest_seeder_finishes_and_bans_liars_only(
        seed: u64,
        length in prop_oneof![Just(0), 1usize..200_000],
        others in vec(kind(), 0..6),
    ) {
        let mut kinds = vec![(Kind::Honest, false), (Kind::Honest, true)];
        kinds.extend(others);
        World::new(seed, length, &kinds).run();
    }
}

/// All that a machine wants done.
fn outputs(swarm: &mut Swarm) -> Vec<Output> {
    swarm.check_invariants();
    std::iter::from_fn(|| swarm.poll_output()).collect()
}

#[test]
fn liar_among_several_senders_is_banned_and_the_honest_one_is_not() {
    // The shortest content with two blocks a chunk; one chunk is missing.
    let content: Vec<u8> = (0..(16 << 20) + 1).map(|i| i as u8).collect();
    let manifest = Manifest::of(&content).unwrap();
    let now = Instant::now();
    let (liar, honest) = (LinkId(1), LinkId(2));
    let mut swarm = Swarm::leecher(now, SwarmConfig::default(), PeerId([9; 16]), manifest.id());
    for link in [liar, honest] {
        let peer = PeerId([link.0 as u8; 16]);
        swarm.link_up(
            now,
            link,
            LinkInfo {
                peer,
                addr: None,
                dialled: false,
            },
        );
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
    swarm.handle_message(now, liar, PeerMessage::ManifestHashes { part: 1, hashes });
    outputs(&mut swarm);
    let mut present = Bitfield::all(manifest.geometry().chunks());
    present.remove(ChunkIndex(0));
    swarm.opened(now, &present);

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
                Output::Read { block, .. } => assert_ne!(block, unstored, "serves what it lacks"),
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
                    // Both have their part in the first copy.
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
                Output::Verify { chunk, pieces } => {
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
    assert_eq!(first.len(), 2, "both sent a part of the first copy");
    assert_eq!(banned, [liar]);
}
