//! Many small contents at once: one owner and one fetching peer, each a process,
//! over TCP and into a real directory, beside a plain pipeline that does the same
//! with the same syncs: one connection; read, send, receive, write, sync, rename,
//! sync the directory, one file after the other.
//!
//! ```text
//! cargo bench --bench many -- --files 10000 --size 10KiB
//! cargo bench --bench many -- --files 1000 --size 1MiB --rounds 5
//! cargo bench --bench many -- --idle 100000
//! cargo bench --bench many -- --waiting 10000
//! cargo bench --bench many -- --files 10000 --pool 8
//! cargo bench --bench many -- --files 1000 --large 256MiB
//! ```
//! Both run in turns, `--rounds` times (default 3), and the medians are printed: wall
//! time, CPU time of both ends, the peak of memory and the most descriptors of either
//! process, which are limited to `--descriptors` (default 256). The owner's process
//! runs the tracker as well. The last line is the ratio of the CPU times. With
//! `--idle`, it measures what shared contents cost that nobody asks for, and a restart
//! with all of them; the last line is bytes per content. With `--waiting`, it measures
//! what downloads cost that wait for their turn. Linux only.
//!
//! `--pool` stands for another design than that of this crate: so many connections, each
//! with one content at a time. The fetching process has so many peers, which share the
//! storage and the files between them. With `--large`, one content of this length is
//! fetched at the same time. The wall time is that of the small files. Both leave out
//! the plain pipeline.

#[cfg(target_os = "linux")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod idle;
#[cfg(target_os = "linux")]
mod ours;
#[cfg(target_os = "linux")]
mod plain;
#[cfg(target_os = "linux")]
mod rounds;
#[cfg(target_os = "linux")]
mod usage;
#[cfg(target_os = "linux")]
mod waiting;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
use common::{Outcome, bytes::bytes, process::ROLE};

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("this benchmark reads /proc, so it runs on Linux only");
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("many: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What to measure.
#[cfg(target_os = "linux")]
struct Setting {
    files: usize,
    size: usize,
    rounds: usize,
    descriptors: u64,
    idle: Option<usize>,
    waiting: Option<usize>,
    /// How many connections carry one content at a time; with none, one carries all.
    pool: usize,
    /// The length of a content that is fetched beside the files, or 0.
    large: usize,
}

#[cfg(target_os = "linux")]
impl Setting {
    fn from_args() -> Outcome<Self> {
        let mut setting = Self {
            files: 1000,
            size: 10 << 10,
            rounds: 3,
            descriptors: 256,
            idle: None,
            waiting: None,
            pool: 0,
            large: 0,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--files" => setting.files = value()?.parse()?,
                "--size" => setting.size = bytes(&value()?)?,
                "--rounds" => setting.rounds = value()?.parse()?,
                "--descriptors" => setting.descriptors = value()?.parse()?,
                "--pool" => setting.pool = value()?.parse()?,
                "--large" => setting.large = bytes(&value()?)?,
                "--idle" => setting.idle = Some(value()?.parse()?),
                "--waiting" => setting.waiting = Some(value()?.parse()?),
                // Cargo passes these to every benchmark.
                "--bench" => {}
                "--test" => (setting.files, setting.rounds) = (100, 1),
                _ => return Err(format!("unknown option {arg}").into()),
            }
        }
        Ok(setting)
    }
}

#[cfg(target_os = "linux")]
fn run() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(ROLE) {
        return rounds::role(args);
    }
    let setting = Setting::from_args()?;
    match (setting.idle, setting.waiting) {
        (Some(contents), _) => idle::measure(contents),
        (None, Some(downloads)) => waiting::measure(downloads),
        (None, None) => rounds::compare(&setting),
    }
}
