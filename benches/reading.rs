//! Reading a content at its own rate while it is being downloaded, from owners that
//! together send 1.2 times that rate, in virtual time.
//!
//! ```text
//! cargo bench --bench reading
//! cargo bench --bench reading -- --owners 4 --length 67108864
//! ```
//! Each setting prints a line: how long the reader waited for its first byte, how often
//! and how long it waited after that, the time to the end with a reader by that without,
//! and the longest time from a seek to its first byte by the bound, which is two round
//! trips and a chunk from the fastest owner alone. Then the same with three readers, which
//! begin at three places; together they want more than the owners send, so only the end is
//! compared. The last lines are the worst of all settings, as `name value`.
//!
//! Without any travel time, one owner cannot keep the bound: its line carries a block at
//! the moment of the seek. So these settings have a line of their own. The bound leaves out
//! what an owner has handed to its network and takes back no more: the block that was asked
//! for last, `PlannerConfig::slack`, and the timers. For 8 MiB from one owner, whose blocks
//! have 2 KiB, that is 13, 5 and 2 of 104 ms, so the longest seek cannot be below 1.19. What
//! is above that (1.38) is asked for too early: behind the queue of the first requests the
//! way seems 20 ms longer than it is. With a round trip of 20 ms the bound has room for what
//! cannot be taken back, and what is above 1 (1.15) is of the same kind.

// Helpers of tests and benchmarks.
#![allow(clippy::unwrap_used)]

#[path = "../tests/world/reading.rs"]
mod reading;

use std::process::ExitCode;
use std::time::Duration;

use reading::{Figures, Setting, download_only, read, read_together};

/// How many seconds of it the content has.
const SECONDS: u64 = 64;

/// What all owners send together, by that rate.
const FACTOR: f64 = 1.2;

/// How many seeks are measured in each setting.
const SEEKS: u64 = 24;

struct Args {
    /// Only contents of this length, in bytes.
    length: Option<u64>,
    /// Only settings with so many owners.
    owners: Option<usize>,
}

impl Args {
    fn parse() -> Result<Self, String> {
        let mut parsed = Self {
            length: None,
            owners: None,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number = || {
                let value = args.next().and_then(|value| value.parse().ok());
                value.ok_or(format!("{arg} needs a number"))
            };
            match arg.as_str() {
                "--length" => parsed.length = Some(number()?),
                "--owners" => parsed.owners = Some(number()? as usize),
                "--bench" => {}
                // Cargo says that it need not take long.
                "--test" => (parsed.length, parsed.owners) = (Some(6 << 20), Some(4)),
                other => return Err(format!("unknown argument {other}")),
            }
        }
        Ok(parsed)
    }
}

/// The worst of all settings.
#[derive(Default)]
struct Worst {
    stalls: u32,
    end: f64,
    end_of_three: f64,
    seek: f64,
    /// Where nothing travels, and one owner sends more than all others.
    seek_behind_a_block: f64,
}

fn main() -> ExitCode {
    let args = match Args::parse() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("reading: {error}");
            return ExitCode::FAILURE;
        }
    };
    let shares: [&[u64]; 8] = [
        &[1],
        &[1, 1],
        &[1, 1, 1],
        &[2, 1],
        &[1, 1, 1, 1],
        &[8, 4, 2, 1],
        &[1; 8],
        &[8, 8, 4, 4, 2, 2, 1, 1],
    ];
    let mut worst = Worst::default();
    for shares in shares {
        if args.owners.is_some_and(|owners| owners != shares.len()) {
            continue;
        }
        // Chunks of 16 KiB and of 64 KiB.
        for length in args
            .length
            .map_or(vec![8 << 20, 64 << 20], |length| vec![length])
        {
            for ms in [0, 20, 50, 200] {
                let setting = Setting::new(length, length / SECONDS, shares, FACTOR, ms);
                let name = format!("{} MiB {shares:?} {ms} ms", length >> 20);
                run(&name, &setting, &mut worst);
            }
        }
    }
    println!("stalls_after_first_byte {}", worst.stalls);
    println!(
        "end_of_three_readers_over_without {:.4}",
        worst.end_of_three
    );
    println!("end_with_reader_over_without {:.4}", worst.end);
    println!(
        "worst_seek_over_bound_behind_a_block {:.3}",
        worst.seek_behind_a_block
    );
    let worst_seek = worst.seek.max(worst.seek_behind_a_block);
    println!("worst_seek_over_bound {worst_seek:.3}");
    ExitCode::SUCCESS
}

fn run(name: &str, setting: &Setting, worst: &mut Worst) {
    let without = paused(download_only(setting));
    let with = paused(read(setting, &[(0, setting.length)]));
    let three = paused(read_together(setting, 3));
    let seeking = paused(read(setting, &jumps(setting.length, setting.rate)));
    let end = with.end.as_secs_f64() / without.as_secs_f64();
    let bound = setting.seek_bound();
    let longest = seeking.seeks.iter().max().copied().unwrap_or_default();
    let seek = longest.as_secs_f64() / bound.as_secs_f64();
    let Figures {
        first_byte,
        stalls,
        stalled,
        ..
    } = with;
    let end_of_three = three.as_secs_f64() / without.as_secs_f64();
    println!(
        "{name:<40} first byte {first_byte:>9.3?}  stalls {stalls:>3} of {stalled:>9.3?}  end {end:.4}  \
         seek {longest:>9.3?} of {bound:>9.3?} = {seek:.3}  stalls after seeks {} of {:.3?}, wasted {} {}  \
         three {end_of_three:.4}",
        seeking.stalls, seeking.stalled, with.wasted, seeking.wasted
    );
    worst.stalls = worst.stalls.max(stalls);
    worst.end = worst.end.max(end);
    worst.end_of_three = worst.end_of_three.max(end_of_three);
    let all: u64 = setting.owners.iter().sum();
    let leads = setting.owners.iter().any(|owner| 2 * owner > all);
    let seeks = match leads && setting.round_trip.is_zero() {
        true => &mut worst.seek_behind_a_block,
        false => &mut worst.seek,
    };
    *seeks = seeks.max(seek);
}

/// Parts of about half a second, all over the content, while it is being downloaded.
fn jumps(length: u64, rate: u64) -> Vec<(u64, u64)> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut parts = vec![(0, 3 * rate / 2)];
    for _ in 0..SEEKS {
        let len = rng.u64(rate / 4..rate);
        parts.push((rng.u64(0..length - len), len));
    }
    parts
}

fn paused<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let limit = Duration::from_secs(100_000);
    let limited = async { tokio::time::timeout(limit, run).await };
    runtime.block_on(limited).unwrap()
}
