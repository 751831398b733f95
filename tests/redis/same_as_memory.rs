//! The same requests have the same answers from a shared store as from the memory of one
//! tracker, but for tokens, references and the order of owners.

use std::collections::HashMap;

use bt_lite::protocol::Refusal;

use super::*;
use crate::nodes::Cluster;

const PEERS: usize = 8;
const CONTENTS: u8 = 6;
const REQUESTS: usize = 600;

/// What is compared of a reply.
#[derive(Debug, PartialEq)]
enum Said {
    Registered(Option<String>),
    Done,
    Partly(Vec<(u16, Refusal)>),
    Found(ContentId, u64, Vec<(String, bool)>),
    Ambiguous(Vec<ContentId>),
    Refused(Refusal),
    Other(String),
}

impl Said {
    fn of(reply: &TrackerReply) -> Self {
        match reply {
            TrackerReply::Registered(registered) => {
                Self::Registered(registered.listed.as_ref().map(ToString::to_string))
            }
            TrackerReply::Done => Self::Done,
            TrackerReply::Partly(refused) => {
                let refused = refused.iter();
                Self::Partly(refused.map(|one| (one.at, one.refusal.clone())).collect())
            }
            TrackerReply::Found(found) => {
                let owners = found.owners.iter();
                let owners = owners.map(|owner| (owner.addr.to_string(), owner.complete));
                let mut owners: Vec<_> = owners.collect();
                owners.sort();
                Self::Found(found.id, found.length, owners)
            }
            TrackerReply::Ambiguous(candidates) => {
                let mut ids: Vec<_> = candidates.iter().map(|(id, _)| *id).collect();
                ids.sort();
                Self::Ambiguous(ids)
            }
            TrackerReply::Refused(refusal) => Self::Refused(refusal.clone()),
            other => Self::Other(format!("{other:?}")),
        }
    }
}

/// One side of the comparison: a connection of each peer, and their tokens.
struct Side {
    peers: Vec<(Raw, Token)>,
    owners: HashMap<String, bt_lite::protocol::OwnerRef>,
}

impl Side {
    async fn new(network: &MemoryNetwork, trackers: &[usize]) -> Self {
        let mut peers = Vec::new();
        for number in 0..PEERS {
            let at = trackers[number % trackers.len()];
            let raw = Raw::connect(network, &format!("p{number}"), at).await;
            peers.push((raw, Token([0; 16])));
        }
        Self {
            peers,
            owners: HashMap::new(),
        }
    }

    async fn ask(&mut self, peer: usize, step: &Step) -> Said {
        let (raw, token) = &mut self.peers[peer];
        let request = step.request(peer, *token, &self.owners);
        let reply = raw.ask(&request).await;
        match &reply {
            TrackerReply::Registered(registered) => *token = registered.token,
            TrackerReply::Found(found) => {
                let owners = found.owners.iter();
                self.owners
                    .extend(owners.map(|owner| (owner.addr.to_string(), owner.owner)));
            }
            _ => {}
        }
        Said::of(&reply)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Register { listens: bool },
    Own(Vec<OwnEntry>),
    Need(u8),
    Named(u8),
    Update(usize),
    Exit,
}

impl Step {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        match rng.u8(..16) {
            0..3 => Self::Register {
                listens: rng.u8(..4) > 0,
            },
            3..8 => {
                let states = [OwnState::Complete, OwnState::Partial, OwnState::Gone];
                let entries = (0..rng.usize(1..4)).map(|_| {
                    let number = rng.u8(..CONTENTS);
                    // Some share a name.
                    let name = format!("name-{}", number / 2).parse().expect("a name");
                    let state = *rng.choice(&states).expect("one");
                    OwnEntry::new(id(number), name, 1000 + u64::from(number), state)
                });
                Self::Own(entries.collect())
            }
            8..12 => Self::Need(rng.u8(..CONTENTS + 1)),
            12 | 13 => Self::Named(rng.u8(..CONTENTS / 2 + 1)),
            14 => Self::Update(rng.usize(..PEERS)),
            _ => Self::Exit,
        }
    }

    fn request(
        &self,
        peer: usize,
        token: Token,
        owners: &HashMap<String, bt_lite::protocol::OwnerRef>,
    ) -> TrackerRequest {
        match self {
            Self::Register { listens } => TrackerRequest::Register {
                listen: listens.then(|| addr(&format!("memory:p{peer}"))),
                token: (token.0 != [0; 16]).then_some(token),
            },
            Self::Own(entries) => TrackerRequest::Own {
                token,
                entries: entries.clone(),
            },
            // All, so that no draw decides who is named.
            Self::Need(number) => TrackerRequest::Need {
                token,
                key: id(*number).into(),
                max_owners: 50,
            },
            Self::Named(number) => {
                let name: bt_lite::ContentName = format!("name-{number}").parse().expect("a name");
                TrackerRequest::Need {
                    token,
                    key: name.into(),
                    max_owners: 50,
                }
            }
            Self::Update(owner) => {
                let owner = owners.get(&format!("memory:p{owner}")).copied();
                let owner = owner.unwrap_or(bt_lite::protocol::OwnerRef(1));
                TrackerRequest::Update {
                    token,
                    uploads: vec![Upload::new(owner, 10)],
                }
            }
            Self::Exit => TrackerRequest::Exit { token },
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_store_answers_as_one_tracker_does() {
    let server = Server::start().await;
    compare(config(&[&server])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_answers_as_one_tracker_does() {
    let cluster = Cluster::start().await;
    // One of the nodes is enough to find the others.
    compare(RedisConfig::new(cluster.urls([4]), KEY)).await;
    for master in cluster.masters().await {
        let redis::Value::Int(keys) = cluster.nodes[master].tell(&["DBSIZE"]).await else {
            panic!("a number");
        };
        assert!(keys > 0, "each has a part");
    }
}

/// Asks three trackers over a store, and one that has its own memory, the same.
async fn compare(store: RedisConfig) {
    let network = MemoryNetwork::new(1);
    // Nobody is forgotten meanwhile.
    let registry = || registry().grace(Duration::from_secs(600));
    let mut trackers = Vec::new();
    for number in 0..4 {
        let builder = Tracker::builder(network.endpoint(&format!("t{number}")));
        let builder = builder.registry(registry());
        let builder = match number {
            3 => builder,
            _ => builder.redis(store.clone()),
        };
        let bound = builder.bind(format!("memory:t{number}")).await;
        trackers.push(bound.expect("it starts"));
    }
    let seed = 1;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut shared = Side::new(&network, &[0, 1, 2]).await;
    let mut alone = Side::new(&network, &[3]).await;
    for at in 0..REQUESTS {
        let (peer, step) = (rng.usize(..PEERS), Step::draw(&mut rng));
        let expected = alone.ask(peer, &step).await;
        let found = shared.ask(peer, &step).await;
        if found != expected {
            // A peer that has moved is listed as before for a moment, on either side.
            sleep(Duration::from_millis(200)).await;
            let expected = alone.ask(peer, &step).await;
            let found = shared.ask(peer, &step).await;
            assert_eq!(
                found, expected,
                "seed {seed}, request {at}: peer {peer}, {step:?}"
            );
        }
    }
}
