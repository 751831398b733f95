//! Whole worlds of the real code, in virtual time, each drawn from a seed: peers, trackers and
//! storages, and everything that goes wrong with them. Whatever happens, nothing is served that
//! was not verified, nothing is lost that was durable, nobody honest is banned, and all get what
//! they want when it can be had.
//!
//! ```text
//! cargo test --test worlds                                # 500 worlds
//! WORLDS=100000 cargo test --release --test worlds -- --nocapture
//! WORLD=1234 cargo test --test worlds one_world -- --nocapture
//! ```
//! A world that breaks a promise is made as small as it goes before it is shown.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod disk;
mod gate;
mod memory;
mod node;
mod panics;
mod plan;
mod run;
mod shrink;
mod soak;
mod violation;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use plan::{FAULTS, Mistake, Plan};
use run::{Report, run};
use violation::Violation;

/// The tests of this program run one after the other, as they count all memory.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many worlds there are, unless the environment says so.
const WORLDS: u64 = 500;

/// Frames that are sent or arrive, connections and their ends, for each block that was
/// downloaded and for each second of a node.
const MOST_EVENTS: f64 = 40.0;

/// What a peer needs beside its contents, in bytes.
const MEMORY_OF_A_NODE: usize = 4 << 20;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// What happened in many worlds.
#[derive(Debug, Default)]
struct Table {
    worlds: u64,
    fired: BTreeMap<&'static str, u64>,
    downloaded: u64,
    wasted: u64,
    far: u64,
    completed: u64,
    failed: u64,
    /// The most of any world.
    events_per_block: f64,
    waited: std::time::Duration,
    slowest: u64,
}

impl Table {
    fn add(&mut self, plan: &Plan, report: Report) {
        self.worlds += 1;
        for (fault, times) in report.fired {
            *self.fired.entry(fault).or_default() += times;
        }
        self.downloaded += report.figures.downloaded;
        self.wasted += report.figures.wasted;
        self.far += report.figures.far;
        self.completed += report.figures.completed;
        self.failed += report.figures.failed;
        if report.waited > self.waited {
            self.waited = report.waited;
            self.slowest = plan.seed;
        }
        let work = report.figures.downloaded as f64 / 16384.0 + report.node_seconds as f64 + 100.0;
        self.events_per_block = self
            .events_per_block
            .max(report.network_events as f64 / work);
    }

    fn print(&self) {
        println!("worlds {}", self.worlds);
        for fault in FAULTS {
            let times = self.fired.get(fault).copied().unwrap_or_default();
            println!("fired: {fault} {times}");
        }
        println!(
            "downloads: {} complete, {} failed and tried again",
            self.completed, self.failed
        );
        println!(
            "bytes: {} downloaded, {} in vain, {} from other zones",
            self.downloaded, self.wasted, self.far
        );
        println!(
            "events per block and second, at most: {:.2}",
            self.events_per_block
        );
        println!(
            "longest wait after the faults: {:?}, world {}",
            self.waited, self.slowest
        );
    }
}

/// The first world that breaks a promise, as small as it goes.
fn show(plan: &Plan, violation: Violation) -> String {
    let first = violation.to_string();
    let (smallest, violation) = shrink::shrink(plan, violation, 300, run);
    let seed = plan.seed;
    format!("{first}\nat its smallest: {violation}\n{smallest}to see it: WORLD={seed}")
}

#[test]
fn all_promises_are_kept_in_every_world() {
    let _alone = alone();
    let worlds = number("WORLDS").unwrap_or(WORLDS);
    let next = AtomicU64::new(0);
    let broken = Mutex::new(None);
    let table = Mutex::new(Table::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while broken.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= worlds {
                        break;
                    }
                    let plan = Plan::new(seed);
                    match run(&plan) {
                        Ok(report) => table.lock().unwrap().add(&plan, report),
                        Err(violation) => *broken.lock().unwrap() = Some((plan, violation)),
                    }
                }
            });
        }
    });
    let table = table.into_inner().unwrap();
    table.print();
    if let Some((plan, violation)) = broken.into_inner().unwrap() {
        panic!("{}", show(&plan, violation));
    }
    if worlds >= WORLDS {
        for fault in FAULTS {
            let times = table.fired.get(fault).copied().unwrap_or_default();
            assert!(times > 0, "{fault}");
        }
        assert!(table.wasted < table.downloaded / 10, "{table:?}");
        assert!(table.far > 0, "{table:?}");
    }
    assert!(table.events_per_block < MOST_EVENTS, "{table:?}");
}

/// Nothing grows from world to world, and none takes more than it needs.
#[test]
fn worlds_leave_no_memory_behind() {
    let _alone = alone();
    let all = || {
        for plan in (0..10).map(Plan::new) {
            let before = memory::held();
            let report = run(&plan);
            let report = report.unwrap_or_else(|is| panic!("{}", show(&plan, is)));
            let took = report.peak.saturating_sub(before);
            // Each node may have each content, and a copy of it is under way.
            let bytes = plan.contents.iter().sum::<usize>() * plan.nodes.len() * 2;
            let most = bytes + plan.nodes.len() * MEMORY_OF_A_NODE;
            assert!(took < most, "{took} of {most} bytes\n{plan}");
        }
        memory::held()
    };
    // What the process keeps is there after the first time.
    all();
    let (before, after) = (all(), all());
    assert!(after < before + 1000, "{before} and then {after} bytes");
}

/// The one that the environment names, as it is.
#[test]
fn one_world() {
    let _alone = alone();
    let plan = Plan::new(number("WORLD").unwrap_or_default());
    println!("{plan}");
    match run(&plan) {
        Ok(report) => println!("{report:#?}"),
        Err(violation) => panic!("{}", show(&plan, violation)),
    }
}

/// Whatever is not as it was promised is noticed, and the world made small.
#[test]
fn mistakes_are_noticed() {
    let _alone = alone();
    for (mistake, promise) in [
        (Mistake::Lies, "an honest peer was banned"),
        (Mistake::ForgetsCommits, "durable bytes were fetched again"),
        (Mistake::LosesBytes, "a content is not what it should be"),
        (Mistake::NeverAsks, "a download hangs"),
    ] {
        let planted = |seed| {
            let mistake = Some(mistake);
            let plan = Plan::new(seed);
            Plan { mistake, ..plan }
        };
        let noticed = |plan: Plan| Some((run(&plan).err()?, plan));
        let noticed = (0..100).map(planted).filter_map(noticed);
        let found = { noticed }.find(|(violation, _)| violation.promise == promise);
        let (violation, plan) = found.unwrap_or_else(|| panic!("{mistake:?} is not noticed"));
        let (smallest, violation) = shrink::shrink(&plan, violation, 12, run);
        assert_eq!(violation.promise, promise);
        assert!(
            smallest.simpler().len() < plan.simpler().len(),
            "{smallest}"
        );
    }
}
