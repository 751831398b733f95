//! What one process, or both sides of a transfer, have used.

use std::fmt;
use std::fs;
use std::str::FromStr;
use std::time::Instant;

use super::common::Outcome;
use super::common::usage::{cpu_seconds, peak_mib};

/// How many figures a process reports.
const FIGURES: usize = 8;

/// What one process reports.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Seconds that have passed.
    pub(crate) wall: f64,
    /// Seconds of CPU, in programs and in the system.
    pub(crate) cpu: f64,
    /// Those in programs, and those in the system, in ticks of the system.
    pub(crate) user: f64,
    pub(crate) system: f64,
    /// The peak of resident memory.
    pub(crate) peak_mib: f64,
    /// Context switches of threads that wait, and of those that were held up.
    pub(crate) waits: f64,
    pub(crate) preempted: f64,
    pub(crate) faults: f64,
}

impl Usage {
    fn figures(&self) -> [f64; FIGURES] {
        [
            self.wall,
            self.cpu,
            self.user,
            self.system,
            self.peak_mib,
            self.waits,
            self.preempted,
            self.faults,
        ]
    }

    fn of(figures: [f64; FIGURES]) -> Self {
        let [wall, cpu, user, system, peak_mib, waits, preempted, faults] = figures;
        Self {
            wall,
            cpu,
            user,
            system,
            peak_mib,
            waits,
            preempted,
            faults,
        }
    }

    /// This process and another one that ran at the same time, or, with its wall time
    /// added, one after the other. The peak is that of this one.
    pub(crate) fn with(&self, other: &Self) -> Self {
        let (own, theirs) = (self.figures(), other.figures());
        let mut sum = Self::of(std::array::from_fn(|at| own[at] + theirs[at]));
        (sum.wall, sum.peak_mib) = (self.wall, self.peak_mib);
        sum
    }

    /// The median of each figure.
    pub(crate) fn median(rounds: &[Self]) -> Self {
        Self::of(std::array::from_fn(|at| {
            median(rounds.iter().map(|round| round.figures()[at]))
        }))
    }
}

/// The median; of an even number, the higher of the two.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = self.figures().map(|figure| figure.to_string());
        f.write_str(&figures.join(" "))
    }
}

impl FromStr for Usage {
    type Err = Box<dyn std::error::Error>;

    fn from_str(text: &str) -> Outcome<Self> {
        let figures: Result<Vec<f64>, _> = text.split(' ').map(str::parse).collect();
        let figures: Result<[f64; FIGURES], _> = figures?.try_into();
        let figures = figures.map_err(|_| format!("not a report: {text}"))?;
        Ok(Self::of(figures))
    }
}

/// What this process uses from now on.
pub(crate) struct Meter {
    begun: Instant,
    before: Usage,
}

impl Meter {
    /// Begins to count, and forgets the peak of memory until now.
    pub(crate) fn start() -> Self {
        // Where that is not allowed, the peak of the whole life counts.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Self {
            begun: Instant::now(),
            before: now(),
        }
    }

    pub(crate) fn read(&self) -> Usage {
        let (now, before) = (now().figures(), self.before.figures());
        let mut used = Usage::of(std::array::from_fn(|at| now[at] - before[at]));
        used.wall = self.begun.elapsed().as_secs_f64();
        used.peak_mib = peak_mib();
        used
    }
}

/// `USER_HZ`, which is 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// All that is counted from the start of the process.
fn now() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").expect("proc is mounted");
    // The name of the program may contain anything, and ends at the last bracket.
    let fields = &stat[stat.rfind(')').map_or(0, |at| at + 2)..];
    let fields: Vec<f64> = fields
        .split(' ')
        .map(|field| field.trim().parse().unwrap_or(0.0))
        .collect();
    let (waits, preempted) = switches();
    Usage {
        cpu: cpu_seconds(),
        user: fields[11] / TICKS_PER_SECOND,
        system: fields[12] / TICKS_PER_SECOND,
        waits,
        preempted,
        faults: fields[7] + fields[9],
        ..Usage::default()
    }
}

/// The context switches of the threads that are there. No thread ends while it counts:
/// the runtimes here keep theirs.
fn switches() -> (f64, f64) {
    let (mut waits, mut preempted) = (0.0, 0.0);
    for task in fs::read_dir("/proc/self/task").expect("proc is mounted") {
        let status = task.and_then(|task| fs::read_to_string(task.path().join("status")));
        for line in status.unwrap_or_default().lines() {
            let counted = |name| line.strip_prefix(name)?.trim().parse::<f64>().ok();
            waits += counted("voluntary_ctxt_switches:").unwrap_or(0.0);
            preempted += counted("nonvoluntary_ctxt_switches:").unwrap_or(0.0);
        }
    }
    (waits, preempted)
}
