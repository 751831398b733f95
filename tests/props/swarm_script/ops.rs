//! The steps of an arbitrary script for one machine.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// With so few peers and addresses, duplicates and bans are frequent.
pub(crate) const PEERS: u8 = 6;
pub(crate) const ADDRS: u8 = 5;

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Up(u8, Option<u8>, bool, Option<Says>),
    Down(Index),
    Says(Index, Says),
    /// The same message several times.
    Repeats(Index, Says, usize),
    /// A link answers a request of the machine.
    Answers(Index, Index, Answer),
    /// The driver does one of its jobs, which works or fails.
    Does(Index, bool),
    DoesAll,
    Owners(Vec<(u8, bool)>),
    Unbidden(Unbidden),
    Wait(u64),
    Timeout,
    Order(bool),
    /// The user pauses the download; whether others are still served.
    Pause(bool),
    Resume,
}

#[derive(Debug, Clone)]
pub(crate) enum Says {
    All,
    None,
    Some(Vec<bool>),
    Bits(Vec<u8>),
    Have(u32),
    Suggest(u32),
    Request(u32, u32, u32),
    Cancel(Index),
    CancelAny(u32),
    Choke(bool),
    Part(u32),
    Length(u64, Vec<u8>),
    Hashes(u32, Vec<u8>),
    NoPart(u32),
    Block(u32, u32, usize),
    Reject(u32, u32, u32),
    Hello,
    Interested(bool),
    /// A claim that another link belongs to the same peer.
    Proof(Index, Forgery),
    Refuse,
    KeepAlive,
}

/// How a proof that two links belong to one peer is forged, if it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Forgery {
    None,
    /// The machine's own proof, sent back.
    SentBack,
    /// With the two ends of the older link swapped.
    Turned,
    /// A proof for the same two links, replayed on the wrong one.
    Replayed,
    Guessed,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Truth,
    Lie,
    Refusal,
}

/// A report of the driver that the machine did not ask for.
#[derive(Debug, Clone)]
pub(crate) enum Unbidden {
    DialFailed(u8),
    Opened,
    Verified(u32, bool),
    Stored(u32),
    Committed,
    Finished,
    /// For a link that is gone.
    Read(u64),
    Sent(Index, usize, u64),
    Down(u64),
}

fn proof() -> impl Strategy<Value = Says> {
    let forgery = prop_oneof![
        4 => Just(Forgery::None),
        1 => Just(Forgery::SentBack),
        1 => Just(Forgery::Turned),
        1 => Just(Forgery::Replayed),
        1 => Just(Forgery::Guessed),
    ];
    (any::<Index>(), forgery).prop_map(|(at, forgery)| Says::Proof(at, forgery))
}

fn says() -> impl Strategy<Value = Says> {
    let bytes = || vec(any::<u8>(), 0..70);
    // Most requests stay inside the content.
    let near = (0u32..8, 0u32..4, 0u32..4);
    let near = near.prop_map(|(chunk, at, len)| (chunk, at * 4096, len * 4097));
    let block = prop_oneof![20 => near, 1 => any::<(u32, u32, u32)>()];
    prop_oneof![
        3 => Just(Says::All),
        1 => Just(Says::None),
        3 => vec(any::<bool>(), 8).prop_map(Says::Some),
        1 => bytes().prop_map(Says::Bits),
        12 => (0u32..6).prop_map(Says::Have),
        1 => any::<u32>().prop_map(Says::Have),
        1 => any::<u32>().prop_map(Says::Suggest),
        30 => block.clone().prop_map(|(c, o, n)| Says::Request(c, o, n)),
        6 => any::<Index>().prop_map(Says::Cancel),
        1 => any::<u32>().prop_map(Says::CancelAny),
        8 => any::<bool>().prop_map(Says::Choke),
        4 => (0u32..3).prop_map(Says::Part),
        1 => any::<u32>().prop_map(Says::Part),
        1 => (any::<u64>(), bytes()).prop_map(|(n, b)| Says::Length(n, b)),
        1 => (0u32..3, bytes()).prop_map(|(p, b)| Says::Hashes(p, b)),
        1 => any::<u32>().prop_map(Says::NoPart),
        1 => (any::<u32>(), any::<u32>(), 0usize..99).prop_map(|(c, o, n)| Says::Block(c, o, n)),
        1 => block.prop_map(|(c, o, n)| Says::Reject(c, o, n)),
        1 => Just(Says::Hello),
        3 => any::<bool>().prop_map(Says::Interested),
        4 => proof(),
        1 => Just(Says::Refuse),
        2 => Just(Says::KeepAlive),
    ]
}

pub(crate) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let index = any::<Index>;
    let addr = prop::option::of(0..ADDRS);
    let has = prop_oneof![
        4 => Just(Some(Says::All)),
        4 => vec(any::<bool>(), 8).prop_map(|has| Some(Says::Some(has))),
        1 => Just(None),
    ];
    let answer = prop_oneof![
        8 => Just(Answer::Truth),
        2 => Just(Answer::Lie),
        1 => Just(Answer::Refusal),
    ];
    let unbidden = prop_oneof![
        (0..ADDRS).prop_map(Unbidden::DialFailed),
        Just(Unbidden::Opened),
        any::<(u32, bool)>().prop_map(|(chunk, good)| Unbidden::Verified(chunk, good)),
        any::<u32>().prop_map(Unbidden::Stored),
        Just(Unbidden::Committed),
        Just(Unbidden::Finished),
        (1u64..30).prop_map(Unbidden::Read),
        (index(), 0usize..9, 0u64..99_999).prop_map(|(l, n, b)| Unbidden::Sent(l, n, b)),
        (1u64..60).prop_map(Unbidden::Down),
    ];
    let up = (0..PEERS, addr, any::<bool>(), has);
    let op = prop_oneof![
        12 => up.prop_map(|(peer, addr, dialled, has)| Op::Up(peer, addr, dialled, has)),
        2 => index().prop_map(Op::Down),
        20 => (index(), says()).prop_map(|(link, says)| Op::Says(link, says)),
        1 => (index(), says(), 2usize..9).prop_map(|(link, s, n)| Op::Repeats(link, s, n)),
        1 => (index(), 0u32..3, 30usize..40)
            .prop_map(|(link, page, n)| Op::Repeats(link, Says::Part(page), n)),
        1 => (index(), proof(), 4usize..6).prop_map(|(link, s, n)| Op::Repeats(link, s, n)),
        50 => (index(), index(), answer).prop_map(|(link, at, a)| Op::Answers(link, at, a)),
        30 => (index(), any::<bool>()).prop_map(|(at, works)| Op::Does(at, works)),
        6 => Just(Op::DoesAll),
        3 => vec((0..ADDRS, any::<bool>()), 0..4).prop_map(Op::Owners),
        4 => unbidden.prop_map(Op::Unbidden),
        8 => prop_oneof![0u64..50, 0u64..20_000].prop_map(Op::Wait),
        5 => Just(Op::Timeout),
        1 => any::<bool>().prop_map(Op::Order),
        1 => any::<bool>().prop_map(Op::Pause),
        2 => Just(Op::Resume),
    ];
    vec(op, 0..300)
}
