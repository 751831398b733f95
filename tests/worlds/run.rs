//! Runs a world in virtual time, and holds it against what is promised.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bt_lite::{ContentId, MemoryNetwork, Tracker};
use bytes::Bytes;
use futures::future::{join_all, select_all, try_join_all};
use futures::{FutureExt, pin_mut};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::memory;
use crate::node::{Figures, Node, Wanted, id_of, name_of};
use crate::panics;
use crate::plan::{Fault, NodePlan, Plan, Role};
use crate::violation::Violation;

/// Everybody has everything this long after the last fault is over.
const PATIENCE: Duration = Duration::from_secs(1800);

/// When all have left, nothing of them is there any more after so long.
const REST: Duration = Duration::from_secs(120);

/// What happened in a world.
#[derive(Debug, Default, Clone)]
pub(crate) struct Report {
    /// How often each fault fired, by its name: that of a disk when a call met it, that of a
    /// node when it ran, and others when they began.
    pub(crate) fired: BTreeMap<&'static str, u64>,
    pub(crate) figures: Figures,
    /// How many events the network had: frames that were sent, frames that arrived,
    /// connections and their ends.
    pub(crate) network_events: u64,
    /// Nodes times seconds.
    pub(crate) node_seconds: u64,
    /// How long it took until all had everything, after the faults were over.
    pub(crate) waited: Duration,
    /// The most bytes of memory that this process had at once, as seen each second.
    pub(crate) peak: usize,
}

/// Runs it to its end, or to the first promise that is not kept.
pub(crate) fn run(plan: &Plan) -> Result<Report, Violation> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    match panics::watched(|| runtime.block_on(world(plan))) {
        Ok(ended) => ended,
        Err(panics) => Err(Violation::new("a panic", panics)),
    }
}

struct World<'a> {
    plan: &'a Plan,
    network: MemoryNetwork,
    nodes: Vec<Node>,
    trackers: Vec<RefCell<Option<Tracker>>>,
    fired: RefCell<BTreeMap<&'static str, u64>>,
    begun: Instant,
}

async fn world(plan: &Plan) -> Result<Report, Violation> {
    let network = MemoryNetwork::new(plan.seed);
    network.record(0);
    let node = |(number, node): (usize, &NodePlan)| {
        network.set_upload_rate(&name_of(number), Some(node.upload));
        network.set_latency(&name_of(number), node.latency);
        Node::new(number, node.clone(), &network, plan)
    };
    let world = World {
        plan,
        nodes: plan.nodes.iter().enumerate().map(node).collect(),
        trackers: (0..plan.trackers).map(|_| RefCell::default()).collect(),
        network: network.clone(),
        fired: RefCell::default(),
        begun: Instant::now(),
    };
    let report = world.run().await?;
    drop(world);
    drop(network);
    sleep(REST).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    match tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
    {
        0 => Ok(report),
        tasks => Err(Violation::new("tasks are left", format!("{tasks} tasks"))),
    }
}

impl World<'_> {
    async fn run(&self) -> Result<Report, Violation> {
        for tracker in 0..self.trackers.len() {
            self.start_tracker(tracker, 1).await;
        }
        join_all(self.nodes.iter().map(Node::start)).await;
        let contents = self.contents();
        join_all(self.nodes.iter().map(|node| node.share_all(&contents))).await;

        let calm = self.plan.events.is_empty() && !self.has(Role::Liar);
        let fetches = self.nodes.iter().flat_map(|node| {
            let wants = node.plan.wants.iter();
            wants.map(|&wanted| node.fetch(&contents[wanted], calm))
        });
        let fetches = try_join_all(fetches.collect::<Vec<_>>());
        let healed = Rc::new(RefCell::new(None));
        let faults = async {
            join_all(self.plan.events.iter().map(|event| async {
                sleep_until(self.begun + event.at).await;
                self.happens(&event.fault).await;
            }))
            .await;
            self.heal().await;
            healed.replace(Some(Instant::now()));
        };
        let all = async {
            let (fetched, ()) = tokio::join!(
                async {
                    fetches.await?;
                    Ok(Instant::now())
                },
                faults
            );
            fetched
        };
        let may_ban = |peer| {
            let node = self.nodes.iter().find(|node| id_of(node.number) == peer);
            node.is_none_or(|node| node.noisy.get() || node.plan.role == Role::Liar)
        };
        let watching = self
            .nodes
            .iter()
            .map(|node| node.watch(may_ban).boxed_local());
        let watching = select_all(watching);
        let last = self.plan.events.iter().map(|event| event.at).max();
        // No fault lasts longer than half a minute; clocks jump.
        let jumps = self.plan.events.iter().map(|event| match event.fault {
            Fault::ClockJump(time) => time,
            _ => Duration::ZERO,
        });
        let limit = last.unwrap_or_default() + jumps.sum::<Duration>() + PATIENCE;
        pin_mut!(all);
        let peak = Cell::new(0);
        let fetched = tokio::select! {
            fetched = timeout(limit, all) => fetched,
            (violation, _, _) = watching => return Err(violation),
            never = memory::watch(&peak) => match never {},
        };
        let waited = match fetched {
            Ok(fetched) => {
                let healed = healed.take().expect("it was healed");
                fetched?.saturating_duration_since(healed)
            }
            // Who sends noise may be taken for a liar, and then nobody may be left.
            Err(_) if self.nodes[0].noisy.get() => PATIENCE,
            Err(_) => return Err(Violation::new("a download hangs", self.states())),
        };
        self.check_all(&contents).await?;
        let report = self.report(waited, peak.get());
        for node in &self.nodes {
            node.stop(false);
            node.gone().await;
        }
        for tracker in &self.trackers {
            let tracker = tracker.take();
            if let Some(tracker) = tracker {
                tracker.shutdown().await;
            }
        }
        Ok(report)
    }

    fn contents(&self) -> Vec<Wanted> {
        let content = |(number, &len): (usize, &usize)| {
            let mut bytes = vec![0; len];
            fastrand::Rng::with_seed(self.plan.seed ^ number as u64).fill(&mut bytes);
            let bytes = Bytes::from(bytes);
            Wanted {
                name: format!("content-{number}").parse().expect("a name"),
                id: ContentId::of(&bytes),
                bytes,
            }
        };
        self.plan.contents.iter().enumerate().map(content).collect()
    }

    fn has(&self, role: Role) -> bool {
        self.plan.nodes.iter().any(|node| node.role == role)
    }

    async fn start_tracker(&self, number: usize, epoch: u64) {
        let name = format!("tracker-{number}");
        let tracker = Tracker::builder(self.network.endpoint(&name))
            .key_and_epoch([number as u8; 32], epoch)
            .bind(format!("memory:{name}").as_str())
            .await;
        let tracker = tracker.expect("its address is free");
        self.trackers[number].replace(Some(tracker));
    }

    async fn happens(&self, fault: &Fault) {
        let network = &self.network;
        let node = |number: &usize| &self.nodes[*number];
        let names = |numbers: &[usize]| numbers.iter().map(|&n| name_of(n)).collect::<Vec<_>>();
        let mut fires = true;
        match fault {
            Fault::Cut(one, other) => network.cut(&name_of(*one), &name_of(*other)),
            Fault::Partition(group, time) => {
                let rest: Vec<_> = (0..self.nodes.len())
                    .filter(|n| !group.contains(n))
                    .collect();
                let (group, mut rest) = (names(group), names(&rest));
                rest.extend((0..self.trackers.len()).map(|n| format!("tracker-{n}")));
                let group: Vec<_> = group.iter().map(String::as_str).collect();
                let rest: Vec<_> = rest.iter().map(String::as_str).collect();
                network.partition(&group, &rest);
                sleep(*time).await;
                network.heal();
            }
            Fault::Asleep(number, time) => {
                network.stall(&name_of(*number));
                sleep(*time).await;
                network.resume(&name_of(*number));
            }
            Fault::Refuses(number, time) => {
                network.refuse(&name_of(*number), true);
                sleep(*time).await;
                network.refuse(&name_of(*number), false);
            }
            Fault::Crash(number, time) | Fault::Restart(number, time) => {
                fires = node(number).stop(matches!(fault, Fault::Crash(..)));
                if fires {
                    sleep(*time).await;
                    node(number).start().await;
                }
            }
            Fault::BadDisk(number, call, time) => {
                let node = node(number);
                let failed = || node.disk.borrow().failed();
                let before = failed();
                node.troubled.set(true);
                node.disk.borrow().fail(Some(*call));
                sleep(*time).await;
                node.disk.borrow().fail(None);
                fires = failed() > before;
            }
            Fault::FullDisk(number, time) => {
                let node = node(number);
                let failed = || node.disk.borrow().failed();
                let before = failed();
                node.troubled.set(true);
                node.disk.borrow().fill(true);
                sleep(*time).await;
                node.disk.borrow().fill(false);
                fires = failed() > before;
            }
            Fault::Noise(number, frames) => {
                node(number).noisy.set(true);
                network.corrupt_next(&name_of(*number), *frames);
            }
            Fault::NoTracker(number, time) => {
                let tracker = self.trackers[*number].take();
                fires = tracker.is_some();
                if let Some(tracker) = tracker {
                    tracker.shutdown().await;
                    drop(tracker);
                    sleep(*time).await;
                    let epoch = 2 + self.begun.elapsed().as_millis() as u64;
                    self.start_tracker(*number, epoch).await;
                }
            }
            Fault::ClockJump(time) => tokio::time::advance(*time).await,
            Fault::Pause(number, time) => {
                let peer = node(number).peer.borrow().clone();
                fires = peer.is_some();
                if let Some(peer) = peer {
                    peer.pause_all(bt_lite::PauseOptions::new());
                    drop(peer);
                    sleep(*time).await;
                    let peer = node(number).peer.borrow().clone();
                    if let Some(peer) = peer {
                        peer.resume_all();
                    }
                }
            }
            Fault::Limit(number, rate, time) => {
                let limit = |rate| {
                    let peer = node(number).peer.borrow().clone();
                    if let Some(peer) = peer {
                        node(number).limit(&peer, rate);
                    }
                };
                limit(Some(*rate));
                sleep(*time).await;
                limit(None);
            }
        }
        *self.fired.borrow_mut().entry(fault.name()).or_default() += u64::from(fires);
    }

    /// The last fault is over: everybody is there, and whoever lost something to a disk
    /// begins anew.
    async fn heal(&self) {
        self.network.heal();
        for node in &self.nodes {
            self.network.resume(&node.name());
            self.network.refuse(&node.name(), false);
            if node.disk.borrow().failed() > 0 && node.stop(false) {
                node.gone().await;
            }
            if !node.is_up() {
                node.start().await;
            }
            let peer = node.peer.borrow().clone().expect("it has just started");
            peer.resume_all();
        }
    }

    /// Whatever has a name is whole, at everybody.
    async fn check_all(&self, contents: &[Wanted]) -> Result<(), Violation> {
        for node in self
            .nodes
            .iter()
            .filter(|node| node.plan.role != Role::Liar)
        {
            let disk = node.disk.borrow().clone();
            for wanted in contents {
                let bytes = disk.bytes(&wanted.name).await;
                let here = bytes.is_some();
                let has = node.plan.owns.iter().chain(&node.plan.wants);
                let has = has.clone().any(|&number| contents[number].id == wanted.id);
                let whole = bytes.is_none_or(|bytes| bytes == wanted.bytes);
                let lost = has && !here && !self.nodes[0].noisy.get();
                if !whole || lost {
                    let what = format!("node {}: {}", node.number, wanted.name);
                    return Err(Violation::new("a content was lost or is not whole", what));
                }
            }
        }
        Ok(())
    }

    fn states(&self) -> String {
        let state = |node: &Node| {
            let list = node.peer.borrow().as_ref().map(bt_lite::Peer::list);
            let list = list.unwrap_or_default().into_iter();
            let list = list.map(|is| (is.name, is.state, is.progress.verified_chunks));
            let error = node.last_error.borrow();
            format!(
                "node {}: {:?} {error}\n",
                node.number,
                list.collect::<Vec<_>>()
            )
        };
        self.nodes.iter().map(state).collect()
    }

    fn report(&self, waited: Duration, peak: usize) -> Report {
        let mut figures = Figures::default();
        for node in &self.nodes {
            let of = node.figures.borrow();
            figures.downloaded += of.downloaded;
            figures.wasted += of.wasted;
            figures.far += of.far;
            figures.completed += of.completed;
            figures.failed += of.failed;
        }
        let trace = self.network.trace();
        Report {
            fired: self.fired.take(),
            figures,
            network_events: trace.missed,
            node_seconds: self.nodes.len() as u64 * self.begun.elapsed().as_secs(),
            waited,
            peak,
        }
    }
}
