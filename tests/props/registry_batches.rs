//! A batch has the outcome of its requests one after the other: the same replies, and the
//! same registry after it. (That single requests do the right thing is checked against a
//! model elsewhere.)

use std::time::{Duration, Instant};

use bt_lite::protocol::{
    ContentKey, Frame, OwnEntry, OwnState, OwnerRef, Token, TrackerReply, TrackerRequest, Upload,
    ZoneTag,
};
use bt_lite::tracker::{Asked, Replies, ShardedRegistry};
use bt_lite::{Addr, ContentId};
use fastrand::Rng;
use proptest::prelude::*;

use crate::registry_model::{SOURCES, config};

/// How many contents and names the requests are about.
const CONTENTS: u8 = 9;

/// More than is read ahead at once.
const LONGEST: usize = 300;

/// Makes requests of what the replies so far have told.
struct Script {
    rng: Rng,
    tokens: Vec<Token>,
    refs: Vec<OwnerRef>,
}

impl Script {
    fn token(&mut self) -> Token {
        // Some were never issued, and others are of peers that are gone.
        match self.tokens.len() {
            0 => Token([7; 16]),
            _ if self.rng.u8(..12) == 0 => Token([self.rng.u8(..); 16]),
            _ if self.rng.bool() => *self.tokens.last().expect("there is one"),
            len => self.tokens[self.rng.usize(..len)],
        }
    }

    fn id(&mut self) -> ContentId {
        ContentId::from_bytes([self.rng.u8(..CONTENTS); 32])
    }

    fn entry(&mut self) -> OwnEntry {
        let name = format!("name-{}", self.rng.u8(..CONTENTS));
        let state = match self.rng.u8(..4) {
            0 => OwnState::Gone,
            1 => OwnState::Partial,
            _ => OwnState::Complete,
        };
        OwnEntry::new(self.id(), name.parse().unwrap(), 1, state)
    }

    fn request(&mut self) -> TrackerRequest {
        let token = self.token();
        match self.rng.u8(..18) {
            0..3 => TrackerRequest::Register {
                listen: format!("0.0.0.0:{}", self.rng.u16(..4)).parse().ok(),
                token: self.rng.bool().then_some(token),
            },
            3 => TrackerRequest::RegisterAlso {
                listen: "[::]:5".parse().ok(),
                token,
            },
            4..7 => TrackerRequest::Own {
                token,
                entries: (0..self.rng.usize(1..4)).map(|_| self.entry()).collect(),
            },
            7..9 => TrackerRequest::Update {
                token,
                uploads: match self.refs.len() {
                    0 => Vec::new(),
                    len => vec![Upload::new(self.refs[self.rng.usize(..len)], 1 << 20)],
                },
            },
            9 => TrackerRequest::Exit { token },
            16..18 => TrackerRequest::Zone {
                token,
                zone: ZoneTag::from_number(self.rng.u32(..2)).unwrap(),
            },
            10 => TrackerRequest::Need {
                token,
                key: ContentKey::Name(format!("name-{}", self.rng.u8(..CONTENTS)).parse().unwrap()),
                max_owners: self.rng.u16(..9),
            },
            _ => TrackerRequest::Need {
                token,
                key: self.id().into(),
                max_owners: self.rng.u16(..9),
            },
        }
    }

    fn learn(&mut self, reply: &[u8]) {
        match TrackerReply::decode(Frame::head(reply.to_vec())).expect("a reply") {
            TrackerReply::Registered(registered) => self.tokens.push(registered.token),
            TrackerReply::Found(found) => {
                self.refs
                    .extend(found.owners.iter().map(|owner| owner.owner));
            }
            _ => {}
        }
    }
}

fn expire(registry: &ShardedRegistry, now: Instant) {
    while registry.poll_timeout().is_some_and(|at| at <= now) {
        registry.handle_timeout(now);
    }
}

/// Plays a script to two registries. Returns how many requests were refused, and how many
/// were not.
fn play(seed: u64, shards: u32, roomy: bool) -> Result<[usize; 2], TestCaseError> {
    let start = Instant::now();
    let mut config = config();
    if roomy {
        // So many that owners are drawn at random.
        (config.max_peers, config.max_peers_per_host) = (500, 500);
        (config.max_ownerships, config.max_owners_per_content) = (500, 500);
    }
    let new = || ShardedRegistry::new(config.clone(), [3; 32], 1, shards, start);
    let (single, batched) = (new(), new());
    let rng = Rng::with_seed(seed);
    let (tokens, refs) = (Vec::new(), Vec::new());
    let mut script = Script { rng, tokens, refs };
    let sources: Vec<Addr> = SOURCES.iter().map(|text| text.parse().unwrap()).collect();
    let mut replies = Replies::new();
    let (mut now, mut counts) = (start, [0; 2]);
    for _ in 0..12 {
        // Some leases end, and nobody has looked for them yet.
        now += Duration::from_secs(script.rng.u64(..9));
        if script.rng.bool() {
            expire(&single, now);
            expire(&batched, now);
        }
        let longest = if roomy { LONGEST } else { 40 };
        let len = script.rng.usize(..longest);
        let requests = (0..len).map(|_| (script.rng.usize(..sources.len()), script.request()));
        let requests: Vec<_> = requests.collect();
        let asked = requests.iter().map(|(source, request)| Asked {
            source: &sources[*source],
            local: None,
            request,
        });
        let asked: Vec<Asked<'_>> = asked.collect();
        batched.handle_batch(now, &asked, &mut replies);
        prop_assert_eq!(replies.iter().count(), len);
        for (asked, (outcome, reply)) in asked.iter().zip(replies.iter()) {
            let mut bytes = Vec::new();
            let alone = single.handle_into(now, asked.source, asked.request, &mut bytes);
            prop_assert_eq!(alone.as_ref().copied(), outcome);
            prop_assert_eq!(&bytes[..], reply);
            counts[usize::from(outcome.is_ok())] += 1;
            script.learn(reply);
        }
        batched.check_invariants();
        prop_assert_eq!(single.stats(), batched.stats());
        prop_assert_eq!(single.snapshot(now), batched.snapshot(now));
        prop_assert_eq!(single.poll_timeout(), batched.poll_timeout());
    }
    Ok(counts)
}

proptest! {
    #[test]
    fn batch_has_the_outcome_of_its_requests_one_after_the_other(
        seed: u64,
        shards in prop_oneof![Just(1), 2u32..9],
        roomy: bool,
    ) {
        play(seed, shards, roomy)?;
    }
}

#[test]
fn batches_of_the_test_are_refused_and_answered() {
    let counts = (0..20).map(|seed| play(seed, 4, seed % 2 == 0).unwrap());
    let [refused, done] = counts.fold([0; 2], |[a, b], [c, d]| [a + c, b + d]);
    assert!(refused > 1000 && done > 1000, "{refused} {done}");
}
