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
mod node;
mod panics;
mod plan;
mod run;
mod shrink;
mod violation;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use plan::{FAULTS, Mistake, Plan};
use run::{Report, run};

/// How many worlds there are, unless the environment says so.
const WORLDS: u64 = 500;

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
            "bytes: {} downloaded, {} in vain",
            self.downloaded, self.wasted
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
fn show(plan: &Plan) -> String {
    let (smallest, violation) = shrink::shrink(plan, 300, run);
    format!("{violation}\n{smallest}to see it: WORLD={}", plan.seed)
}

#[test]
fn all_promises_are_kept_in_every_world() {
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
                        Err(_) => *broken.lock().unwrap() = Some(plan),
                    }
                }
            });
        }
    });
    let table = table.into_inner().unwrap();
    table.print();
    if let Some(plan) = broken.into_inner().unwrap() {
        panic!("{}", show(&plan));
    }
    if worlds >= WORLDS {
        for fault in FAULTS {
            assert!(
                table.fired.get(fault).is_some_and(|&times| times > 0),
                "{fault}"
            );
        }
    }
}

/// The one that the environment names, as it is.
#[test]
fn one_world() {
    let plan = Plan::new(number("WORLD").unwrap_or_default());
    println!("{plan}");
    match run(&plan) {
        Ok(report) => println!("{report:#?}"),
        Err(_) => panic!("{}", show(&plan)),
    }
}

/// Whatever is not as it was promised is noticed, and the world made small.
#[test]
fn mistakes_are_noticed() {
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
        let is_noticed = |plan: &Plan| run(plan).is_err_and(|is| is.promise == promise);
        let plan = (0..100).map(planted).find(is_noticed);
        let plan = plan.unwrap_or_else(|| panic!("{mistake:?} is not noticed"));
        let (smallest, violation) = shrink::shrink(&plan, 12, run);
        assert_eq!(violation.promise, promise);
        assert!(
            smallest.simpler().len() < plan.simpler().len(),
            "{smallest}"
        );
    }
}
