//! What happens to an uploader, at random, and the sizes of all tests of it.

use bt_lite::ChunkIndex;
use bt_lite::content::BlockRange;
use bt_lite::protocol::HostKey;
use bt_lite::testing::machine::UploadLimits;
use proptest::collection::vec;
use proptest::prelude::*;

pub(super) const SEED: u64 = 1;
pub(super) const LIMITS: UploadLimits = UploadLimits::new(1200, 4, 2);
pub(super) const BLOCK: u64 = 100;
pub(super) const CHUNK: u64 = 400;
pub(super) const LINKS: u64 = 6;
/// Half of the links come from one host, and each of the others from its own.
const CROWD: u64 = LINKS / 2;

/// An event, mostly with the link that it concerns.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Add(u64),
    /// How many chunks the link has and lacks.
    Has(u64, u32, u32),
    Gained(u64, bool),
    Lacks(u64),
    Declined(u64, bool),
    /// A request for a block of that length.
    Request(u64, u32),
    Cancel(u64, u32),
    Next,
    Turns,
    Sent(u64),
    Failed(u64),
    /// The network claims more bytes than were on their way.
    Misreported(u64, u64),
    Remove(u64),
    /// The link counts as one that never tells.
    Old(u64),
    /// Milliseconds pass.
    Wait(u64),
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let link = || 0..LINKS;
    let op = prop_oneof![
        4 => link().prop_map(Op::Add),
        4 => (link(), 0u32..9, 0u32..5).prop_map(|(l, has, lacks)| Op::Has(l, has, lacks)),
        1 => (link(), any::<bool>()).prop_map(|(l, here)| Op::Gained(l, here)),
        1 => link().prop_map(Op::Lacks),
        1 => (link(), any::<bool>()).prop_map(|(l, d)| Op::Declined(l, d)),
        9 => (link(), 1u32..=BLOCK as u32).prop_map(|(l, n)| Op::Request(l, n)),
        2 => (link(), 1u32..=BLOCK as u32).prop_map(|(l, n)| Op::Cancel(l, n)),
        9 => Just(Op::Next),
        5 => Just(Op::Turns),
        5 => link().prop_map(Op::Sent),
        1 => link().prop_map(Op::Failed),
        1 => (link(), any::<u64>()).prop_map(|(l, n)| Op::Misreported(l, n)),
        1 => link().prop_map(Op::Remove),
        1 => link().prop_map(Op::Old),
        3 => (1u64..1500).prop_map(Op::Wait),
    ];
    vec(op, 0..250)
}

/// The host of a link with that number.
pub(super) fn host_of(link: u64) -> HostKey {
    host(&format!("host{}", link.saturating_sub(CROWD - 1)))
}

pub(super) fn host(name: &str) -> HostKey {
    HostKey::of(&format!("{name}:1").parse().unwrap())
}

pub(super) fn block(len: u32) -> BlockRange {
    BlockRange {
        chunk: ChunkIndex(0),
        offset: 0,
        len,
    }
}
