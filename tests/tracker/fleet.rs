//! A client of several trackers that share a store. What they say is made up here: a fleet
//! that knows one token, and notes what it is told.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bt_lite::protocol::{ContentKey, ListedOwner, OwnerRef, Refusal, Registered, Upload};
use bt_lite::tracker::TrackerError;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::*;

/// The token of the one client.
const GOOD: Token = Token([3; 16]);

/// The store of the fleet, and what each of its trackers was asked.
#[derive(Default)]
struct Store {
    epoch: u64,
    /// The requests, by the number of the tracker.
    asked: BTreeMap<usize, Vec<TrackerRequest>>,
    /// Those that reached a tracker after its farewell.
    missed: Vec<TrackerRequest>,
    /// Who asks for this content loses the connection.
    poison: Option<ContentId>,
}

impl Store {
    /// The contents that were announced, in order.
    fn owned(&self) -> Vec<ContentId> {
        let asked = self.asked.values().flatten();
        let entries = asked.filter_map(|request| match request {
            TrackerRequest::Own { entries, .. } => Some(entries),
            _ => None,
        });
        let mut ids: Vec<ContentId> = entries.flatten().map(|entry| entry.id).collect();
        ids.sort();
        ids
    }

    /// Which trackers were asked anything.
    fn used(&self) -> Vec<usize> {
        self.asked.keys().copied().collect()
    }

    /// All uploads that were reported.
    fn reported(&self) -> Vec<Upload> {
        let asked = self.asked.values().flatten();
        let uploads = asked.filter_map(|request| match request {
            TrackerRequest::Update { uploads, .. } => Some(uploads),
            _ => None,
        });
        uploads.flatten().copied().collect()
    }
}

/// What a tracker answers.
fn reply_to(request: TrackerRequest, epoch: u64) -> TrackerReply {
    match request {
        TrackerRequest::Register { listen, .. } => {
            let heartbeat = Duration::from_secs(20);
            TrackerReply::Registered(Registered::new(GOOD, epoch, heartbeat, listen))
        }
        TrackerRequest::Need { key, .. } if key == id(1).into() => {
            let owner = ListedOwner::new(OwnerRef(7), addr("memory:owner"), true);
            let name = "name-1".parse().expect("a name");
            TrackerReply::Found(Found::new(id(1), name, 1000, vec![owner]))
        }
        TrackerRequest::Need { .. } => TrackerReply::Refused(Refusal::UnknownContent),
        _ => TrackerReply::Done,
    }
}

/// A tracker of the fleet. Silent ones take connections and never answer. One that drains says
/// farewell and carries out nothing more.
async fn serve(
    (network, number): (MemoryNetwork, usize),
    store: Arc<Mutex<Store>>,
    silent: bool,
    drains: CancellationToken,
) {
    let at = addr(&format!("memory:f{number}"));
    let endpoint = network.endpoint(&format!("f{number}"));
    let mut listener = endpoint.listen(&at).await.expect("it listens");
    let mut connections = Vec::new();
    while let Ok(mut connection) = listener.accept().await {
        if silent {
            connections.push(connection);
            continue;
        }
        loop {
            let frame = tokio::select! {
                () = drains.cancelled() => break,
                frame = connection.stream.next() => frame,
            };
            let Some(Ok(frame)) = frame else {
                break;
            };
            let request = TrackerRequest::decode(frame).expect("a request");
            let reply = {
                let mut store = store.lock().expect("no panic");
                store.asked.entry(number).or_default().push(request.clone());
                let poison = store.poison.map(ContentKey::from);
                if matches!(&request, TrackerRequest::Need { key, .. } if Some(key) == poison.as_ref())
                {
                    break;
                }
                reply_to(request, store.epoch)
            };
            let frame = reply.encode().expect("it fits");
            if connection.sink.send(frame).await.is_err() {
                break;
            }
        }
        if drains.is_cancelled() {
            drop(listener);
            let farewell = TrackerReply::Refused(Refusal::ShuttingDown);
            let farewell = farewell.encode().expect("it fits");
            connection.sink.send(farewell).await.expect("it is there");
            connection.sink.close().await.expect("it is there");
            while let Some(Ok(frame)) = connection.stream.next().await {
                let request = TrackerRequest::decode(frame).expect("a request");
                store.lock().expect("no panic").missed.push(request);
            }
            return;
        }
    }
}

struct Fleet {
    network: MemoryNetwork,
    store: Arc<Mutex<Store>>,
    trackers: Vec<JoinHandle<()>>,
    drains: Vec<CancellationToken>,
}

impl Fleet {
    async fn start(silent: &[bool]) -> Self {
        let network = MemoryNetwork::new(1);
        let store = Arc::new(Mutex::new(Store::default()));
        let drains: Vec<_> = silent.iter().map(|_| CancellationToken::new()).collect();
        let trackers = (0..).zip(silent).zip(&drains);
        let trackers = trackers.map(|((number, silent), drains)| {
            let at = (network.clone(), number);
            tokio::spawn(serve(at, store.clone(), *silent, drains.clone()))
        });
        let trackers = trackers.collect();
        tokio::task::yield_now().await;
        Self {
            network,
            store,
            trackers,
            drains,
        }
    }

    /// Has one drain, and start again at once.
    fn replace(&mut self, number: usize) {
        self.drains[number].cancel();
        self.drains[number] = CancellationToken::new();
        let at = (self.network.clone(), number);
        let drains = self.drains[number].clone();
        let store = self.store.clone();
        self.trackers[number] = tokio::spawn(async move {
            // Until the one before has let its address go.
            sleep(Duration::from_millis(500)).await;
            serve(at, store, false, drains).await;
        });
    }

    /// The tracker that was asked last.
    fn last_used(&self, before: &BTreeMap<usize, usize>) -> Option<usize> {
        let now = self.counts();
        let mut now = now.into_iter();
        now.find_map(|(at, count)| (count > before.get(&at).copied().unwrap_or(0)).then_some(at))
    }

    /// How much each was asked.
    fn counts(&self) -> BTreeMap<usize, usize> {
        let store = self.store();
        let asked = store.asked.iter();
        asked.map(|(at, asked)| (*at, asked.len())).collect()
    }

    fn client(&self, seed: u64) -> TrackerClient {
        let mut config = ClientConfig::default().one_store(true);
        config.seed = Some(seed);
        let trackers = (0..self.trackers.len()).map(|number| addr(&format!("memory:f{number}")));
        let endpoint = self.network.endpoint("client");
        let listen = Some(addr("memory:client"));
        TrackerClient::start(Arc::new(endpoint), trackers.collect(), listen, config)
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.store.lock().expect("no panic")
    }
}

#[tokio::test(start_paused = true)]
async fn client_registers_with_one_tracker_and_clients_spread_over_all() {
    let mut used = [0; 3];
    for seed in 0..30 {
        let fleet = Fleet::start(&[false; 3]).await;
        let client = fleet.client(seed);
        client
            .own(entry(1, OwnState::Complete))
            .await
            .expect("it is announced");
        assert_eq!(client.trackers().len(), 3);
        let of_it = fleet.store().used();
        assert_eq!(of_it.len(), 1, "one is used");
        used[of_it[0]] += 1;
    }
    assert!(used.iter().all(|used| *used > 3), "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn client_moves_on_with_its_token_and_announces_nothing_again() {
    let fleet = Fleet::start(&[false; 3]).await;
    let client = fleet.client(1);
    for number in 0..5 {
        let entry = entry(number, OwnState::Complete);
        client.own(entry).await.expect("it is announced");
    }
    let first = fleet.store().used()[0];
    fleet.trackers[first].abort();
    // What is asked right then is answered by another one.
    let begun = Instant::now();
    let asked = client.need(id(9).into(), 10).await;
    assert_eq!(asked, Err(TrackerError::NotFound));
    assert!(begun.elapsed() < ClientConfig::default().request_timeout);
    let store = fleet.store();
    let second = *store
        .used()
        .iter()
        .find(|used| **used != first)
        .expect("another");
    let TrackerRequest::Register { token, .. } = &store.asked[&second][0] else {
        panic!("it registers first");
    };
    assert_eq!(*token, Some(GOOD));
    assert_eq!(
        store.owned(),
        (0..5).map(id).collect::<Vec<_>>(),
        "each once"
    );
}

#[tokio::test(start_paused = true)]
async fn heartbeat_is_not_late_when_a_tracker_is_lost() {
    for seed in 0..20 {
        let fleet = Fleet::start(&[false; 3]).await;
        let client = fleet.client(seed);
        client.registered().await.expect("it is registered");
        let first = fleet.store().used()[0];
        sleep(Duration::from_secs(17)).await;
        fleet.trackers[first].abort();
        sleep(Duration::from_secs(4)).await;
        let used = fleet.store().used();
        assert_eq!(
            used.len(),
            2,
            "another one has heard of it within the lease: {used:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn tracker_that_is_silent_is_left_within_the_time_of_a_request() {
    for seed in 0..10 {
        let fleet = Fleet::start(&[true, false]).await;
        let client = fleet.client(seed);
        let begun = Instant::now();
        let asked = client.need(id(9).into(), 10).await;
        assert_eq!(asked, Err(TrackerError::NotFound), "seed {seed}");
        let timeout = ClientConfig::default().request_timeout;
        assert!(
            begun.elapsed() <= timeout + Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_failover_of_the_store_only_the_last_moments_are_told_again() {
    let fleet = Fleet::start(&[false; 2]).await;
    let client = fleet.client(1);
    client
        .own(entry(1, OwnState::Complete))
        .await
        .expect("it is announced");
    sleep(Duration::from_secs(45)).await;
    client
        .own(entry(2, OwnState::Complete))
        .await
        .expect("it is announced");
    client
        .own(entry(3, OwnState::Complete))
        .await
        .expect("it is announced");
    client
        .own(entry(3, OwnState::Gone))
        .await
        .expect("it is withdrawn");
    fleet.store().asked.clear();
    fleet.store().epoch = 1;
    sleep(Duration::from_secs(25)).await;
    assert_eq!(fleet.store().owned(), [id(2), id(3)]);
    // And then nothing more.
    fleet.store().asked.clear();
    sleep(Duration::from_secs(60)).await;
    assert!(fleet.store().owned().is_empty());
}

#[tokio::test(start_paused = true)]
async fn trackers_come_and_go_while_one_is_used() {
    let fleet = Fleet::start(&[false; 3]).await;
    let client = fleet.client(1);
    client.registered().await.expect("it is registered");
    let first = fleet.store().used()[0];
    let others = (0..3).filter(|number| *number != first);
    for other in others {
        assert!(client.remove_tracker(&addr(&format!("memory:f{other}"))));
    }
    assert_eq!(client.trackers().len(), 1);
    let back = (first + 1) % 3;
    assert!(
        client
            .add_tracker(addr(&format!("memory:f{back}")))
            .expect("it is open")
    );
    fleet.trackers[first].abort();
    let asked = client.need(id(9).into(), 10).await;
    assert_eq!(asked, Err(TrackerError::NotFound));
    assert_eq!(fleet.store().used().len(), 2);
}

/// The farewell of a tracker and what a client says travel past each other.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_done_twice_when_a_tracker_drains() {
    const LATENCY: Duration = Duration::from_millis(50);
    for seed in 0..10 {
        let fleet = Fleet::start(&[false; 3]).await;
        fleet.network.set_latency("client", LATENCY);
        let client = fleet.client(seed);
        for number in 2..5 {
            let entry = entry(number, OwnState::Complete);
            client.own(entry).await.expect("it is announced");
        }
        client.need(id(1).into(), 10).await.expect("it is found");
        let first = fleet.store().used()[0];
        // Reports are due every few seconds. One is sent while the farewell is on its way.
        client.credit(&addr("memory:owner"), 500);
        let due = ClientConfig::default().report_interval;
        let since = Instant::now();
        while fleet.store().reported().is_empty() {
            sleep(Duration::from_millis(1)).await;
            assert!(since.elapsed() <= 2 * due);
        }
        // When that report is answered.
        sleep(2 * LATENCY).await;
        client.credit(&addr("memory:owner"), 700);
        // Either the next report is on its way, or what is asked then.
        let is_report = seed % 2 == 0;
        match is_report {
            true => sleep(due - 3 * LATENCY + LATENCY / 4).await,
            false => sleep(due / 2).await,
        }
        fleet.drains[first].cancel();
        if is_report {
            sleep(LATENCY).await;
        }
        let asked = async {
            let found = client.need(id(1).into(), 10).await;
            assert_eq!(found.expect("it is found").owners.len(), 1);
            client.need(id(9).into(), 10).await
        };
        let begun = Instant::now();
        let (asked, owned) = tokio::join!(asked, client.own(entry(5, OwnState::Complete)));
        assert_eq!(asked, Err(TrackerError::NotFound));
        owned.expect("it is announced");
        // A few round trips, and no pause.
        assert!(begun.elapsed() < 20 * LATENCY, "{:?}", begun.elapsed());
        sleep(Duration::from_secs(60)).await;
        let store = fleet.store();
        let missed = |request: &TrackerRequest| matches!(request, TrackerRequest::Update { .. });
        assert!(!store.missed.is_empty(), "something was on its way");
        assert_eq!(store.missed.iter().any(missed), is_report);
        assert_eq!(store.used().len(), 2, "the next one is used");
        let owned: Vec<ContentId> = (2..6).map(id).collect();
        assert_eq!(store.owned(), owned, "each once");
        let reported = store.reported();
        let mut reported: Vec<u64> = reported.iter().map(|upload| upload.bytes).collect();
        // By tracker, and not by time.
        reported.sort_unstable();
        assert_eq!(reported, [500, 700], "seed {seed}: {:?}", store.missed);
    }
}

/// All trackers of a store are replaced, faster than a session counts as one that has lasted,
/// and each farewell travels past what is asked.
#[tokio::test(start_paused = true)]
async fn trackers_that_drain_one_after_the_other_cost_no_request() {
    const LATENCY: Duration = Duration::from_millis(50);
    for (trackers, seed) in [(2, 0), (2, 1), (3, 0), (3, 1)] {
        let mut fleet = Fleet::start(&vec![false; trackers]).await;
        fleet.network.set_latency("client", LATENCY);
        let client = fleet.client(seed);
        client.registered().await.expect("it is registered");
        for turn in 0..8 {
            let before = fleet.counts();
            client.need(id(1).into(), 10).await.expect("it is found");
            let used = fleet.last_used(&before).expect("one was asked");
            fleet.replace(used);
            let begun = Instant::now();
            let entry = entry(turn + 2, OwnState::Complete);
            let (found, owned) = tokio::join!(client.need(id(1).into(), 10), client.own(entry));
            let at = format!("{trackers} trackers, seed {seed}, turn {turn}");
            found.unwrap_or_else(|error| panic!("{at}: {error}"));
            owned.unwrap_or_else(|error| panic!("{at}: {error}"));
            let timeout = ClientConfig::default().request_timeout;
            assert!(begun.elapsed() < timeout, "{at}: {:?}", begun.elapsed());
            // Less than a session must last to begin a new series of failures.
            sleep(Duration::from_secs(2)).await;
        }
        let owned: Vec<ContentId> = (2..10).map(id).collect();
        assert_eq!(fleet.store().owned(), owned, "each once");
    }
}

/// A request that no tracker of a store answers is not asked for ever.
#[tokio::test(start_paused = true)]
async fn request_that_every_tracker_ends_the_connection_at_is_given_up() {
    let fleet = Fleet::start(&[false; 3]).await;
    let client = fleet.client(1);
    client.registered().await.expect("it is registered");
    fleet.store().poison = Some(id(66));
    let begun = Instant::now();
    let asked = client.need(id(66).into(), 10).await;
    let error = asked.expect_err("nobody answers it");
    assert!(
        matches!(error, TrackerError::Unreachable { .. }),
        "{error:?}"
    );
    let patience = 2 * ClientConfig::default().request_timeout;
    assert!(begun.elapsed() < patience, "{:?}", begun.elapsed());
    let store = fleet.store();
    let needs = store.asked.values().flatten();
    let needs = needs.filter(|request| matches!(request, TrackerRequest::Need { .. }));
    let needs = needs.count();
    assert!(
        (3..=6).contains(&needs),
        "each was asked, and few twice: {needs}"
    );
    assert_eq!(store.used().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn clients_that_wait_for_nothing_leave_one_by_one() {
    let mut after = Vec::new();
    for seed in 0..20 {
        let fleet = Fleet::start(&[false; 2]).await;
        let client = fleet.client(seed);
        client.registered().await.expect("it is registered");
        let first = fleet.store().used()[0];
        let begun = Instant::now();
        fleet.drains[first].cancel();
        while fleet.store().used().len() < 2 {
            sleep(Duration::from_millis(10)).await;
        }
        after.push(begun.elapsed());
    }
    after.sort();
    let spread = ClientConfig::default().return_spread;
    assert!(after[19] <= spread + Duration::from_secs(1), "{after:?}");
    assert!(after[10] - after[3] > spread / 8, "{after:?}");
}
