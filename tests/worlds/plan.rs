//! What happens in a world: drawn from a seed, and made of parts that can be left out one by
//! one.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

const CHUNK: usize = 16 << 10;

/// Everything is drawn from the seed once; whatever is left of it runs the same way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Whether the storages keep files. They take more time, so few worlds have them.
    pub(crate) in_files: bool,
    pub(crate) trackers: usize,
    /// The length of each content, in bytes.
    pub(crate) contents: Vec<usize>,
    /// The first one owns everything, and is always honest.
    pub(crate) nodes: Vec<NodePlan>,
    /// In the order of their times.
    pub(crate) events: Vec<Event>,
    /// A mistake that must be noticed.
    pub(crate) mistake: Option<Mistake>,
}

/// What is made wrong on purpose, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Somebody who should be honest sends other bytes.
    Lies,
    /// A disk forgets what it has recorded.
    ForgetsCommits,
    /// A disk finishes contents and leaves bytes out.
    LosesBytes,
    /// Nobody asks for what is wanted.
    NeverAsks,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodePlan {
    pub(crate) role: Role,
    /// Bytes per second.
    pub(crate) upload: u64,
    pub(crate) latency: Duration,
    pub(crate) owns: Vec<usize>,
    pub(crate) wants: Vec<usize>,
    /// Whether it asks by name, and not by id.
    pub(crate) by_name: bool,
    pub(crate) seed: bool,
    /// In which zone it is, if in any.
    pub(crate) zone: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Honest,
    /// Sends other bytes than it was asked for.
    Liar,
    /// Downloads, and sends nothing.
    FreeRider,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
}

/// What may go wrong, or be done by a user. Nodes are named by their numbers, and times are
/// how long it lasts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// All connections between two nodes are reset.
    Cut(usize, usize),
    /// Nothing passes between these nodes and all others, trackers included.
    Partition(Vec<usize>, Duration),
    /// A host is asleep.
    Asleep(usize, Duration),
    /// A node refuses new connections.
    Refuses(usize, Duration),
    /// A process ends without a word, and the writes that were not durable are lost.
    Crash(usize, Duration),
    /// A peer says farewell, and begins anew.
    Restart(usize, Duration),
    /// Calls of a storage fail.
    BadDisk(usize, Call, Duration),
    /// A storage has no room for anything more.
    FullDisk(usize, Duration),
    /// One bit of the next frames of a node is flipped on their way.
    Noise(usize, u64),
    /// A tracker is not there, and knows nothing when it is back.
    NoTracker(usize, Duration),
    /// A long time passes in one moment, as when a machine was suspended.
    ClockJump(Duration),
    /// A user pauses everything, and lets it go on.
    Pause(usize, Duration),
    /// A user limits both rates of a peer, in bytes per second.
    Limit(usize, u64, Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
    Commit,
}

/// The names of all faults, for the table.
pub(crate) const FAULTS: [&str; 13] = [
    "cut",
    "partition",
    "asleep",
    "refuses",
    "crash",
    "restart",
    "bad disk",
    "full disk",
    "noise",
    "no tracker",
    "clock jump",
    "pause",
    "limit",
];

impl Fault {
    pub(crate) fn name(&self) -> &'static str {
        let number = match self {
            Self::Cut(..) => 0,
            Self::Partition(..) => 1,
            Self::Asleep(..) => 2,
            Self::Refuses(..) => 3,
            Self::Crash(..) => 4,
            Self::Restart(..) => 5,
            Self::BadDisk(..) => 6,
            Self::FullDisk(..) => 7,
            Self::Noise(..) => 8,
            Self::NoTracker(..) => 9,
            Self::ClockJump(..) => 10,
            Self::Pause(..) => 11,
            Self::Limit(..) => 12,
        };
        FAULTS[number]
    }
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let contents: Vec<_> = (0..rng.usize(1..4))
            .map(|number| length(&mut rng, number))
            .collect();
        let all: Vec<_> = (0..contents.len()).collect();
        let count = rng.usize(3..8);
        let mut nodes = vec![NodePlan {
            role: Role::Honest,
            owns: all.clone(),
            wants: Vec::new(),
            ..NodePlan::drawn(&mut rng)
        }];
        for _ in 1..count {
            let mut node = NodePlan::drawn(&mut rng);
            for &content in &all {
                match (node.role, rng.u8(0..4)) {
                    (Role::Liar, _) | (Role::Honest, 0) => node.owns.push(content),
                    (_, 1..=2) => node.wants.push(content),
                    _ => {}
                }
            }
            nodes.push(node);
        }
        let trackers = rng.usize(1..3);
        let count_of_events = rng.usize(0..12);
        let mut events = Vec::new();
        for _ in 0..count_of_events {
            // Most downloads are under way then.
            let latest = 1 << rng.u32(8..16);
            let at = Duration::from_millis(rng.u64(0..latest));
            let fault = fault(&mut rng, count, trackers);
            events.push(Event { at, fault });
        }
        events.sort_by_key(|event| event.at);
        // Half of the worlds have one to three zones, and nodes that are in none.
        let zones = rng.u8(0..6);
        if let 1..=3 = zones {
            for node in &mut nodes {
                node.zone = rng.u8(0..=zones).checked_sub(1);
            }
        }
        Self {
            seed,
            in_files: rng.u8(0..16) == 0,
            trackers,
            contents,
            nodes,
            events,
            mistake: None,
        }
    }

    /// What can be left out of it, or made simpler, in one step: the large steps first.
    pub(crate) fn simpler(&self) -> Vec<Self> {
        let mut plans = Vec::new();
        let mut with = |change: &dyn Fn(&mut Self)| {
            let mut plan = self.clone();
            change(&mut plan);
            if plan != *self {
                plans.push(plan);
            }
        };
        let half = self.events.len() / 2;
        with(&|plan| plan.events.truncate(half));
        with(&|plan| drop(plan.events.drain(..half)));
        for at in 0..self.events.len() {
            with(&|plan| drop(plan.events.remove(at)));
        }
        for node in 1..self.nodes.len() {
            with(&|plan| {
                plan.nodes[node].owns.clear();
                plan.nodes[node].wants.clear();
            });
            for at in 0..self.nodes[node].wants.len() {
                with(&|plan| _ = plan.nodes[node].wants.remove(at));
            }
            for at in 0..self.nodes[node].owns.len() {
                with(&|plan| _ = plan.nodes[node].owns.remove(at));
            }
        }
        for at in 0..self.contents.len() {
            with(&|plan| plan.contents[at] = (plan.contents[at] / 2).max(1));
        }
        with(&|plan| plan.in_files = false);
        with(&|plan| {
            plan.nodes
                .iter_mut()
                .for_each(|node| node.latency = Duration::ZERO)
        });
        with(&|plan| plan.nodes.iter_mut().for_each(|node| node.zone = None));
        plans
    }
}

impl NodePlan {
    fn drawn(rng: &mut Rng) -> Self {
        Self {
            role: match rng.u8(0..8) {
                0 => Role::Liar,
                1 => Role::FreeRider,
                _ => Role::Honest,
            },
            upload: rng.u64(10..400) * 1000,
            latency: Duration::from_millis(rng.u64(0..80)),
            owns: Vec::new(),
            wants: Vec::new(),
            by_name: rng.bool(),
            seed: rng.u8(0..4) > 0,
            zone: None,
        }
    }
}

/// Few bytes and many, whole chunks and parts of them. No two are the same content.
fn length(rng: &mut Rng, number: usize) -> usize {
    match rng.u8(0..8) {
        0 => 10 * number + rng.usize(0..3),
        1 => CHUNK * rng.usize(1..4),
        _ => rng.usize(1..60 * CHUNK),
    }
}

fn fault(rng: &mut Rng, nodes: usize, trackers: usize) -> Fault {
    let node = rng.usize(0..nodes);
    let time = Duration::from_millis(rng.u64(100..30_000));
    match rng.usize(0..FAULTS.len()) {
        0 => Fault::Cut(node, (node + rng.usize(1..nodes)) % nodes),
        1 => {
            let group = (0..nodes).filter(|_| rng.bool()).collect();
            Fault::Partition(group, time)
        }
        2 => Fault::Asleep(node, time),
        3 => Fault::Refuses(node, time),
        4 => Fault::Crash(node, time),
        5 => Fault::Restart(node, time),
        6 => {
            let call = [Call::Read, Call::Write, Call::Commit][rng.usize(0..3)];
            Fault::BadDisk(node, call, time)
        }
        7 => Fault::FullDisk(node, time),
        8 => Fault::Noise(node, rng.u64(1..5)),
        9 => Fault::NoTracker(rng.usize(0..trackers), time),
        10 => Fault::ClockJump(Duration::from_secs(rng.u64(1..1000))),
        11 => Fault::Pause(node, time),
        _ => Fault::Limit(node, rng.u64(5..200) * 1000, time),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "world {}: {} trackers, {}, contents of {:?} bytes",
            self.seed,
            self.trackers,
            if self.in_files { "files" } else { "memory" },
            self.contents
        )?;
        for (number, node) in self.nodes.iter().enumerate() {
            if !node.owns.is_empty() || !node.wants.is_empty() {
                writeln!(f, "  node {number}: {node:?}")?;
            }
        }
        for event in &self.events {
            writeln!(f, "  {:?}: {:?}", event.at, event.fault)?;
        }
        Ok(())
    }
}
