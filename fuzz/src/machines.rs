//! The two machines as scripts of inputs: the models are those of `tests/props`.

use std::sync::LazyLock;

use bt_lite::protocol::OwnState;
use proptest::arbitrary::any;
use proptest::sample::Index;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::input::Input;
use crate::memory::Bound;
use crate::props::registry::{self, Entry, Op as Request, Proof};
use crate::props::sample::SMALL;
use crate::props::swarm_script::ops::{ADDRS, Answer, Forgery, Op, PEERS, Says, Unbidden};
use crate::props::{registry_model, swarm_script};

/// The model remembers what happened, so it grows with the script.
const SWARM_MEMORY: Bound = Bound::new(4 << 10, 4 << 20);
const REGISTRY_MEMORY: Bound = Bound::new(1 << 10, 1 << 20);

/// The longest scripts, in steps: what follows is in most cases more of the same.
const MAX_STEPS: usize = 300;

/// Whether a machine checks its own parts after the step of this number; it does so at the end in
/// any case. To look at all of them takes most of the time of a step, and what is wrong once is
/// mostly still wrong later.
fn is_checked(step: usize) -> bool {
    step.is_power_of_two()
}

/// Numbers that a model takes as one of what is there at the time, from the first to the
/// last. There is no other way to make one.
static INDICES: LazyLock<Vec<Index>> = LazyLock::new(|| {
    let index = |number: u8| {
        let rng = TestRng::from_seed(RngAlgorithm::PassThrough, &[number; 8]);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let tree = any::<Index>().new_tree(&mut runner);
        tree.expect("any will do").current()
    };
    (0..=u8::MAX).map(index).collect()
});

fn index(input: &mut Input<'_>) -> Index {
    INDICES[usize::from(input.u8())]
}

/// The whole swarm machine. It keeps its promises for any inputs in any order, and in the end
/// a single honest seeder among silent links is enough to finish.
pub fn swarm(data: &[u8]) {
    let mut input = Input::new(data);
    let sample = &SMALL[usize::from(input.u8()) % SMALL.len()];
    let (seeding, seed) = (input.below(8) == 0, u64::from(input.u8()));
    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < MAX_STEPS {
        steps.push(step(&mut input));
    }
    SWARM_MEMORY.of(data.len(), || {
        swarm_script::run(sample, seeding, seed, steps, is_checked)
    });
}

fn step(input: &mut Input<'_>) -> Op {
    match input.below(64) {
        0..6 => {
            let (peer, flags) = (input.below(PEERS), input.u8());
            let addr = (flags & 2 == 0).then(|| input.below(ADDRS));
            let has = match flags >> 2 & 3 {
                0 => None,
                1 => Some(Says::All),
                _ => Some(Says::Some(bits(input))),
            };
            Op::Up(peer, addr, flags & 1 == 1, has)
        }
        6 => Op::Down(index(input)),
        7..18 => Op::Says(index(input), says(input)),
        18 => Op::Repeats(index(input), says(input), usize::from(input.below(40))),
        19..37 => {
            let answer = input.one_of(&[
                Answer::Truth,
                Answer::Truth,
                Answer::Lie,
                Answer::Truth,
                Answer::Refusal,
            ]);
            Op::Answers(index(input), index(input), answer)
        }
        37..49 => Op::Does(index(input), input.below(4) != 3),
        49..52 => Op::DoesAll,
        52 => {
            let count = input.below(4);
            Op::Owners(
                (0..count)
                    .map(|_| (input.below(ADDRS), input.flag()))
                    .collect(),
            )
        }
        53 | 54 => Op::Unbidden(unbidden(input)),
        55..58 => Op::Wait(u64::from(input.u8())),
        58 => Op::Wait(u64::from(input.u16())),
        59 | 60 => Op::Timeout,
        61 => Op::Order(input.flag()),
        62 => Op::Pause(input.flag()),
        _ => Op::Resume,
    }
}

fn bits(input: &mut Input<'_>) -> Vec<bool> {
    let bits = input.u8();
    (0..8).map(|at| bits >> at & 1 == 1).collect()
}

/// Most are inside the content.
fn block(input: &mut Input<'_>) -> (u32, u32, u32) {
    match input.u8() {
        u8::MAX => (input.u32(), input.u32(), input.u32()),
        near => {
            let (chunk, at, len) = (near & 7, near >> 3 & 3, near >> 5 & 3);
            (chunk.into(), u32::from(at) * 4096, u32::from(len) * 4097)
        }
    }
}

fn says(input: &mut Input<'_>) -> Says {
    match input.below(40) {
        0 => Says::All,
        1 => Says::None,
        2 => Says::Some(bits(input)),
        3 => {
            let len = usize::from(input.below(70));
            Says::Bits(input.bytes(len).to_vec())
        }
        4..10 => Says::Have(input.mostly_below(6)),
        10 => Says::Suggest(input.mostly_below(8)),
        11..21 => {
            let (chunk, offset, len) = block(input);
            Says::Request(chunk, offset, len)
        }
        21..24 => Says::Cancel(index(input)),
        24 => Says::CancelAny(input.mostly_below(8)),
        25..28 => Says::Choke(input.flag()),
        28 | 29 => Says::Part(input.mostly_below(3)),
        30 => {
            let (length, len) = (input.u64(), usize::from(input.below(70)));
            Says::Length(length, input.bytes(len).to_vec())
        }
        31 => {
            let (page, len) = (input.below(3).into(), usize::from(input.below(70)));
            Says::Hashes(page, input.bytes(len).to_vec())
        }
        32 => Says::NoPart(input.mostly_below(3)),
        33 => {
            let (chunk, offset, _) = block(input);
            Says::Block(chunk, offset, input.below(99).into())
        }
        34 => {
            let (chunk, offset, len) = block(input);
            Says::Reject(chunk, offset, len)
        }
        35 => Says::Hello,
        36 => Says::Interested(input.flag()),
        37 => {
            let forgery = input.one_of(&[
                Forgery::None,
                Forgery::SentBack,
                Forgery::Turned,
                Forgery::Replayed,
                Forgery::Guessed,
            ]);
            Says::Proof(index(input), forgery)
        }
        38 => Says::Refuse,
        _ => Says::KeepAlive,
    }
}

fn unbidden(input: &mut Input<'_>) -> Unbidden {
    match input.below(9) {
        0 => Unbidden::DialFailed(input.below(ADDRS)),
        1 => Unbidden::Opened,
        2 => Unbidden::Verified(input.u8().into(), input.flag()),
        3 => Unbidden::Stored(input.u8().into()),
        4 => Unbidden::Committed,
        5 => Unbidden::Finished,
        6 => Unbidden::Read(input.below(30).into()),
        7 => Unbidden::Sent(index(input), input.below(9).into(), input.u16().into()),
        _ => Unbidden::Down(input.below(60).into()),
    }
}

/// The whole registry of a tracker: each request has the outcome that lists and scans say,
/// and when all peers have been silent nothing is left.
pub fn registry(data: &[u8]) {
    let mut input = Input::new(data);
    let shards = u32::from(input.below(8)) + 1;
    let mut requests = Vec::new();
    while !input.is_empty() && requests.len() < MAX_STEPS {
        requests.push(request(&mut input));
    }
    REGISTRY_MEMORY.of(data.len(), || registry::run(shards, &requests, is_checked));
}

fn request(input: &mut Input<'_>) -> Request {
    match input.below(25) {
        0..5 => {
            let source = usize::from(input.u8()) % registry_model::SOURCES.len();
            let listen = usize::from(input.u8()) % registry::LISTENS.len();
            let proof = match input.below(5) {
                0 | 1 => Proof::None,
                _ => proof(input),
            };
            Request::Register(source, listen, proof)
        }
        5..13 => {
            let proof = proof(input);
            let count = input.below(4);
            Request::Own(proof, (0..count).map(|_| entry(input)).collect())
        }
        13..17 => Request::NeedId(proof(input), input.below(7), input.below(7).into()),
        17..20 => Request::NeedName(proof(input), input.below(4), input.below(7).into()),
        20 | 21 => {
            let proof = proof(input);
            let count = input.below(4);
            Request::Update(proof, (0..count).map(|_| index(input)).collect())
        }
        22 => Request::Exit(proof(input)),
        _ => Request::Wait(u64::from(input.below(13)) + 1),
    }
}

fn proof(input: &mut Input<'_>) -> Proof {
    match input.u8() {
        254 => Proof::Forged(index(input), input.below(128)),
        255 => Proof::Random(input.array()),
        issued => Proof::Issued(INDICES[usize::from(issued)]),
    }
}

fn entry(input: &mut Input<'_>) -> Entry {
    let what = input.u8();
    Entry {
        content: (what & 15) % 7,
        name: what >> 4 & 3,
        length: u64::from(what >> 6) % 3,
        state: input.one_of(&[OwnState::Complete, OwnState::Partial, OwnState::Gone]),
    }
}
