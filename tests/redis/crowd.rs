//! A crowd of clients over three trackers, while a tracker is killed, the store is restarted,
//! and a replica takes its place: compared with a model that knows who is alive.
//!
//! `BT_LITE_PEERS=10000 cargo test --all-features --test redis crowd` is the long run.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bt_lite::tracker::{ClientConfig, TrackerClient, TrackerError};
use tokio::time::Instant;

use super::*;

/// How many clients there are, unless the environment says otherwise.
const PEERS: usize = 200;

/// How many owners a content has at most: as many as one answer names, less those that have
/// died and are still listed.
pub(super) const OWNERS: usize = 40;

/// The heartbeat of this test: long enough that a machine which is busy with other things
/// does not make peers late.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(8);
pub(super) const GRACE: Duration = Duration::from_secs(4);

/// Over how much time the crowd is looked at after each blow: each peer has a heartbeat in
/// it, and whoever has died is over.
pub(super) const LOOK: Duration = Duration::from_secs(20);

fn crowd_registry() -> RegistryConfig {
    let config = RegistryConfig::default().heartbeat(HEARTBEAT);
    config.grace(GRACE)
}

pub(super) async fn start(network: &MemoryNetwork, number: usize, config: RedisConfig) -> Tracker {
    let builder = Tracker::builder(network.endpoint(&format!("t{number}")));
    let builder = builder.registry(crowd_registry()).redis(config);
    let builder = builder.max_connections(100_000);
    let bound = builder.bind(format!("memory:t{number}")).await;
    bound.expect("it starts")
}

/// A client of the crowd, which owns one content.
pub(super) struct Member {
    pub(super) client: TrackerClient,
}

pub(super) fn content(member: usize) -> ContentId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&((member / OWNERS) as u64).to_le_bytes());
    // So that they are spread over the shards.
    ContentId::of(&bytes)
}

pub(super) fn member(network: &MemoryNetwork, number: usize) -> Member {
    let name = format!("m{number}");
    let trackers = (0..3).map(|number| addr(&format!("memory:t{number}")));
    let config = ClientConfig::default()
        .one_store(true)
        .return_spread(Duration::from_secs(2))
        .own_retry((Duration::from_millis(500), Duration::from_secs(2)));
    let client = TrackerClient::start(
        Arc::new(network.endpoint(&name)),
        trackers.collect(),
        Some(addr(&format!("memory:{name}"))),
        config.seed(number as u64),
    );
    Member { client }
}

/// Who is alive, and what was seen of everybody.
#[derive(Default)]
pub(super) struct Model {
    /// How often somebody was looked for.
    pub(super) seen: usize,
    /// Since when each has been missing, if it is.
    pub(super) missing: HashMap<usize, Instant>,
    /// For how long any of the living was missing at most.
    pub(super) longest: Duration,
    /// When each of the dead has died.
    pub(super) died: HashMap<usize, Instant>,
    /// How long after its death any was listed at most.
    pub(super) ghost: Duration,
}

impl Model {
    fn saw(&mut self, member: usize, listed: bool) {
        let now = Instant::now();
        self.seen += 1;
        match (self.died.get(&member), listed) {
            (Some(died), true) => self.ghost = self.ghost.max(now - *died),
            (Some(_), false) => {}
            (None, true) => {
                self.missing.remove(&member);
            }
            (None, false) => {
                let since = *self.missing.entry(member).or_insert(now);
                self.longest = self.longest.max(now - since);
            }
        }
    }
}

/// Looks at all contents again and again for a while.
pub(super) async fn look(asker: &TrackerClient, model: &mut Model, members: usize, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        for first in (0..members).step_by(OWNERS) {
            let found = asker.need(content(first).into(), 50).await;
            let listed: Vec<String> = match &found {
                Ok(found) => found
                    .owners
                    .iter()
                    .map(|owner| owner.addr.to_string())
                    .collect(),
                // As long as nobody can tell, nobody is missing.
                Err(TrackerError::NotFound) => Vec::new(),
                Err(_) => continue,
            };
            for member in first..(first + OWNERS).min(members) {
                let at = format!("memory:m{member}");
                model.saw(member, listed.contains(&at));
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowd_outlives_trackers_and_stores() {
    let members = std::env::var("BT_LITE_PEERS").ok();
    let members = members.map_or(PEERS, |members| members.parse().expect("a number"));
    let mut primary = Server::start().await;
    let replica = Server::replica_of(&primary).await;
    let network = MemoryNetwork::new(1);
    let both = || config(&[&primary, &replica]);
    let mut trackers = Vec::new();
    for number in 0..3 {
        trackers.push(Some(start(&network, number, both()).await));
    }
    let (mut crowd, asker) = gather(&network, members).await;
    let mut model = Model::default();

    let stop = Arc::new(AtomicBool::new(false));
    let reporting = tokio::spawn(report(network.clone(), members, stop.clone()));

    // A tracker is gone, without a farewell.
    trackers[0] = None;
    kill(&mut crowd, &mut model, 1);
    look(&asker.client, &mut model, members, LOOK).await;
    trackers[0] = Some(start(&network, 0, both()).await);

    // The store starts again, with all that it was told.
    primary.kill();
    kill(&mut crowd, &mut model, 2);
    look(&asker.client, &mut model, members, Duration::from_secs(1)).await;
    primary.run().await;
    let outage = Duration::from_secs(1) + HEARTBEAT + GRACE;
    look(&asker.client, &mut model, members, LOOK).await;
    assert_eq!(model.missing.len(), 0, "{:?}", model.missing.keys());

    // What was reported counts once, whatever has happened meanwhile.
    stop.store(true, Ordering::Relaxed);
    let total: u64 = reporting.await.expect("it ends").into_values().sum();
    assert!(total > 0);
    until("all credits have counted", async || {
        let each = credited(&primary).await;
        let counted: u64 = each.iter().map(|(_, bytes)| bytes).sum();
        println!("{counted} of {total} bytes have counted: {each:?}");
        counted == total
    })
    .await;

    // A replica takes its place.
    let written = primary.written().await;
    until("the replica has heard of all", async || {
        replica.has_heard(written).await
    })
    .await;
    primary.kill();
    replica.tell(&["REPLICAOF", "NO", "ONE"]).await;
    trackers[1] = None;
    kill(&mut crowd, &mut model, 3);
    look(&asker.client, &mut model, members, LOOK).await;

    println!(
        "missing for {:?} at most, listed for {:?} after death",
        model.longest, model.ghost
    );
    assert_eq!(model.missing.len(), 0, "{:?}", model.missing.keys());
    assert!(
        model.longest <= HEARTBEAT,
        "missing for {:?}",
        model.longest
    );
    let lease = HEARTBEAT + GRACE;
    assert!(
        model.ghost <= lease + outage,
        "listed for {:?}",
        model.ghost
    );
    drop((crowd, trackers));
}

/// So many clients, each of which is announced and found, and one more that asks.
pub(super) async fn gather(
    network: &MemoryNetwork,
    members: usize,
) -> (Vec<Option<Member>>, Member) {
    let crowd: Vec<Member> = (0..members).map(|number| member(network, number)).collect();
    let announced = crowd.iter().enumerate().map(|(number, member)| {
        let name = format!("content-{}", number / OWNERS)
            .parse()
            .expect("a name");
        let entry = OwnEntry::new(content(number), name, 1000, OwnState::Complete);
        // If the store is too busy, it is said again.
        async move { drop(member.client.own(entry).await) }
    });
    futures::future::join_all(announced).await;
    let asker = member(network, members);
    asker.client.registered().await.expect("it is registered");
    until("all are there", async || {
        let mut first = Model::default();
        look(&asker.client, &mut first, members, Duration::from_millis(1)).await;
        first.missing.is_empty() && first.seen >= members
    })
    .await;
    (crowd.into_iter().map(Some).collect(), asker)
}

/// A twentieth of the crowd dies.
pub(super) fn kill(crowd: &mut [Option<Member>], model: &mut Model, turn: usize) {
    for number in (turn..crowd.len()).step_by(20) {
        if let Some(member) = crowd[number].take() {
            drop(member);
            model.missing.remove(&number);
            model.died.insert(number, Instant::now());
        }
    }
}

/// Reports uploads of owners that live on, through two trackers in turn, until it is to stop.
/// Returns how many bytes of each they have accepted, by its address.
pub(super) async fn report(
    network: MemoryNetwork,
    members: usize,
    stop: Arc<AtomicBool>,
) -> HashMap<String, u64> {
    let mut both = [
        Raw::connect(&network, "reporter", 1).await,
        Raw::connect(&network, "reporter", 2).await,
    ];
    let token = both[0].register("memory:reporter", None).await.token;
    let mut owners = Vec::new();
    for first in (0..members).step_by(OWNERS) {
        let request = TrackerRequest::Need {
            token,
            key: content(first).into(),
            max_owners: 50,
        };
        let TrackerReply::Found(found) = both[0].ask(&request).await else {
            panic!("content {first} is known");
        };
        let lives_on = (first..members)
            .step_by(20)
            .map(|number| format!("memory:m{number}"));
        let lives_on: Vec<String> = lives_on.take(2).collect();
        let found = found.owners.into_iter();
        owners.extend(found.filter(|owner| lives_on.contains(&owner.addr.to_string())));
    }
    let mut total = HashMap::new();
    for turn in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let uploads = owners
            .iter()
            .take(100)
            .map(|owner| Upload::new(owner.owner, 1000));
        let uploads: Vec<Upload> = uploads.collect();
        let updated = both[turn % 2].update(token, uploads).await;
        assert_eq!(updated, TrackerReply::Done);
        for owner in owners.iter().take(100) {
            *total.entry(owner.addr.to_string()).or_insert(0) += 1000;
        }
        sleep(Duration::from_millis(50)).await;
    }
    total
}
