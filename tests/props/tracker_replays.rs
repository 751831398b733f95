//! What somebody can do who has read the messages of others on the wire, tokens and all, and
//! sends them again, in any order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bt_lite::protocol::{
    OwnEntry, OwnState, OwnerRef, Token, TrackerReply, TrackerRequest, Upload,
};
use bt_lite::tracker::{RegistryConfig, ShardedRegistry};
use bt_lite::{Addr, ContentId};
use fastrand::Rng;

const CONTENTS: u32 = 4;

/// What an owner can be credited by one peer, in bytes per second.
const CREDIT: u64 = 1 << 20;

fn id(number: u32) -> ContentId {
    ContentId::of(&number.to_le_bytes())
}

struct Member {
    addr: Addr,
    token: Token,
}

struct World {
    registry: ShardedRegistry,
    now: Instant,
}

impl World {
    fn handle(&mut self, source: &Addr, request: &TrackerRequest) -> TrackerReply {
        self.registry.handle(self.now, source, request)
    }

    /// Who is listed for each content, with whether it is complete, as a member is told.
    fn listed(&mut self, asker: &Member) -> Vec<BTreeMap<Addr, bool>> {
        let listed = (0..CONTENTS).map(|number| {
            let found = self.found(asker, number).into_iter();
            found
                .map(|(addr, (complete, _))| (addr, complete))
                .collect()
        });
        listed.collect()
    }

    fn found(&mut self, asker: &Member, number: u32) -> BTreeMap<Addr, (bool, OwnerRef)> {
        let need = TrackerRequest::Need {
            token: asker.token,
            key: id(number).into(),
            max_owners: 50,
        };
        match self.handle(&asker.addr, &need) {
            TrackerReply::Found(found) => {
                let owners = found.owners.into_iter();
                let owners = owners.map(|owner| (owner.addr, (owner.complete, owner.owner)));
                owners.collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn own(token: Token, number: u32, state: OwnState) -> TrackerRequest {
    let name = format!("name-{number}").parse().unwrap();
    TrackerRequest::Own {
        token,
        entries: vec![OwnEntry::new(id(number), name, 1, state)],
    }
}

/// `REPLAYS=1000000 cargo test --release --test props replayed` for a million.
#[test]
fn replayed_messages_do_what_their_sender_could_and_change_nothing_of_others() {
    let count = std::env::var("REPLAYS").map_or(20_000, |count| count.parse().unwrap());
    let mut rng = Rng::with_seed(12);
    let mut config = RegistryConfig::default();
    config.max_credit_rate = CREDIT;
    let now = Instant::now();
    // In one of them the messages come again from another host, in the other one from their
    // own senders.
    let mut worlds = [0; 2].map(|_| World {
        registry: ShardedRegistry::new(config.clone(), [4; 32], 1, 1, now),
        now,
    });
    let mut members: Vec<Member> = Vec::new();
    for number in 0..24 {
        let addr: Addr = format!("10.0.0.{}:7000", number + 1).parse().unwrap();
        let register = TrackerRequest::Register {
            listen: Some(addr.clone()),
            token: None,
        };
        let tokens = worlds.each_mut().map(|world| {
            let TrackerReply::Registered(registered) = world.handle(&addr, &register) else {
                panic!("it is not registered");
            };
            let token = registered.token;
            let own = own(token, number % CONTENTS, OwnState::Complete);
            assert_eq!(world.handle(&addr, &own), TrackerReply::Done);
            token
        });
        assert_eq!(tokens[0], tokens[1]);
        let token = tokens[0];
        members.push(Member { addr, token });
    }
    let others = members.split_off(6);
    let overheard = members;
    let credited = worlds[0].found(&others[0], 0)[&others[2].addr].1;
    let log: Vec<(usize, TrackerRequest)> = (0..overheard.len())
        .flat_map(|at| {
            let Member { addr, token } = &overheard[at];
            let number = at as u32 % CONTENTS;
            [
                own(*token, number, OwnState::Partial),
                own(*token, number, OwnState::Complete),
                own(*token, number, OwnState::Gone),
                TrackerRequest::Need {
                    token: *token,
                    key: id(number).into(),
                    max_owners: 50,
                },
                TrackerRequest::Update {
                    token: *token,
                    uploads: vec![Upload::new(credited, u64::MAX)],
                },
                TrackerRequest::Register {
                    listen: Some(addr.clone()),
                    token: Some(*token),
                },
            ]
            .map(|request| (at, request))
        })
        .collect();
    let of_others = |listed: Vec<BTreeMap<Addr, bool>>| -> Vec<BTreeMap<Addr, bool>> {
        let mut listed = listed;
        for owners in &mut listed {
            owners.retain(|addr, _| others.iter().any(|other| other.addr == *addr));
        }
        listed
    };
    let before = of_others(worlds[0].listed(&others[0]));
    let attacker: Addr = "192.0.2.66:9".parse().unwrap();
    let exits = count - count / 10;
    for round in 0..count {
        let (at, request) = match round >= exits && rng.usize(..1000) == 0 {
            true => {
                let at = rng.usize(..overheard.len());
                let token = overheard[at].token;
                (at, TrackerRequest::Exit { token })
            }
            false => log[rng.usize(..log.len())].clone(),
        };
        let sources = [&attacker, &overheard[at].addr];
        for (world, source) in worlds.iter_mut().zip(sources) {
            world.now += Duration::from_millis(10);
            world.handle(source, &request);
        }
        if round % 500 == 0 || round + 1 == count {
            // All that ask are alive.
            let [replayed, own] = worlds.each_mut().map(|world| {
                for other in &others {
                    world.listed(other);
                }
                world.registry.check_invariants();
                world.listed(&others[0])
            });
            assert_eq!(replayed, own, "round {round}");
            assert_eq!(of_others(replayed), before, "round {round}");
        }
    }
    // A member that has left may come again, and nobody else in its place.
    let stats = worlds.each_ref().map(|world| world.registry.stats());
    assert!(stats[0].peers <= 24 && stats[0].peers <= stats[1].peers);
    assert_eq!(stats[0].ownerships, stats[1].ownerships);
    let most = CREDIT * overheard.len() as u64;
    for world in &worlds {
        for credit in world.registry.snapshot(world.now).credits {
            let rate = credit.bytes_per_second;
            assert!(rate <= most + most / 20, "{credit:?}");
        }
    }
}
