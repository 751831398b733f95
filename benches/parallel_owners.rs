//! One leecher and several seeders with different rates: the time to the last
//! chunk, divided by the time that all seeders together need for the content.
//!
//! ```text
//! cargo bench --bench parallel_owners -- --rates 1,1,1,0.1 --chunks 1000
//! cargo bench --bench parallel_owners -- --rates 1,1,1,1 --drop 2@0.5=0.01
//! ```
//! Rates are in units of 10 MiB/s. `--drop 2@0.5=0.01` reduces owner 2 (counted from
//! 0) to 0.01 of its rate after half of the ideal time. This runs the shipped state
//! machine in virtual time. The last line is the ratio.

use std::process::ExitCode;
use std::time::Duration;

use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::testing::simulation::Simulation;

/// One unit of rate, in bytes per second.
const UNIT: f64 = 10.0 * 1024.0 * 1024.0;
/// The length of a chunk, in bytes. A chunk has four blocks.
const CHUNK: u64 = 64 << 10;

struct Setting {
    rates: Vec<f64>,
    chunks: u64,
    drop: Option<Drop>,
    latency: Duration,
    seed: u64,
}

/// After a share `at` of the ideal time, the rate of an owner drops to the share
/// `to` of itself.
#[derive(Clone, Copy)]
struct Drop {
    owner: usize,
    at: f64,
    to: f64,
}

impl Setting {
    fn from_args() -> Result<Self, String> {
        let mut setting = Self {
            rates: vec![1.0, 1.0, 1.0, 0.1],
            chunks: 1000,
            drop: None,
            latency: Duration::ZERO,
            seed: 1,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--rates" => {
                    setting.rates = value()?.split(',').map(number).collect::<Result<_, _>>()?
                }
                "--chunks" => setting.chunks = number(&value()?)? as u64,
                "--drop" => setting.drop = Some(Drop::parse(&value()?)?),
                "--latency" => setting.latency = Duration::from_secs_f64(number(&value()?)?),
                "--seed" => setting.seed = number(&value()?)? as u64,
                // Cargo passes these to every benchmark.
                "--bench" | "--test" => {}
                other => return Err(format!("unknown argument {other}")),
            }
        }
        let owner_exists = setting
            .drop
            .is_none_or(|drop| drop.owner < setting.rates.len());
        if setting.rates.iter().any(|rate| *rate <= 0.0) || !owner_exists || setting.chunks == 0 {
            return Err(
                "rates and chunks must be positive, and --drop must name one of the owners".into(),
            );
        }
        Ok(setting)
    }

    fn length(&self) -> f64 {
        (self.chunks * CHUNK) as f64
    }

    fn sum(&self) -> f64 {
        self.rates.iter().sum::<f64>() * UNIT
    }

    /// The time that all owners together need, and the time of the drop, in seconds.
    fn ideal(&self) -> (f64, f64) {
        let steady = self.length() / self.sum();
        let Some(drop) = self.drop else {
            return (steady, 0.0);
        };
        let at = steady * drop.at;
        let left = self.length() - at * self.sum();
        let after = self.sum() - self.rates[drop.owner] * UNIT * (1.0 - drop.to);
        (at + left / after, at)
    }

    /// The time of the plain split, in seconds: each of N owners sends 1/N of the
    /// content and no more.
    fn plain(&self) -> f64 {
        let share = self.length() / self.rates.len() as f64;
        let each = self.rates.iter().enumerate().map(|(owner, rate)| {
            let rate = rate * UNIT;
            match self.drop.filter(|drop| drop.owner == owner) {
                Some(drop) => {
                    let at = self.ideal().1;
                    let left = (share - at * rate).max(0.0);
                    at.min(share / rate) + left / (rate * drop.to)
                }
                None => share / rate,
            }
        });
        each.fold(0.0, f64::max)
    }
}

impl Drop {
    fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('@').and_then(|(owner, rest)| {
            let (at, to) = rest.split_once('=')?;
            Some((owner, at, to))
        });
        let (owner, at, to) = parts.ok_or(format!("{text} is not OWNER@SHARE=RATE"))?;
        Ok(Self {
            owner: number(owner)? as usize,
            at: number(at)?,
            to: number(to)?,
        })
    }
}

fn number(text: &str) -> Result<f64, String> {
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|n| n.is_finite() && *n >= 0.0);
    number.ok_or(format!("{text} is not a number"))
}

fn main() -> ExitCode {
    let setting = match Setting::from_args() {
        Ok(setting) => setting,
        Err(error) => {
            eprintln!("parallel_owners: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut swarm = Simulation::new(setting.chunks * CHUNK, SwarmConfig::default(), setting.seed);
    swarm.set_latency(setting.latency);
    let rates = setting.rates.iter();
    let owners: Vec<_> = rates
        .map(|rate| swarm.seeder(rate * UNIT, f64::MAX))
        .collect();
    let leecher = swarm.leecher(UNIT, f64::MAX);
    let (ideal, drop_at) = setting.ideal();
    if let Some(drop) = setting.drop {
        let rate = setting.rates[drop.owner] * UNIT * drop.to;
        swarm.set_upload_at(Duration::from_secs_f64(drop_at), owners[drop.owner], rate);
    }
    if !swarm.run(Duration::from_secs_f64(1000.0 * ideal)) {
        eprintln!("parallel_owners: the download did not complete");
        return ExitCode::FAILURE;
    }
    let progress = swarm.progress(leecher);
    let time = swarm
        .finished(leecher)
        .map_or(f64::NAN, |time| time.as_secs_f64());
    let chunks = swarm.manifest().geometry().chunks();
    println!(
        "rates {:?}, {chunks} chunks of {CHUNK} bytes, latency {:?}",
        setting.rates, setting.latency
    );
    if let Some(Drop { owner, to, .. }) = setting.drop {
        println!("owner {owner} drops to {to} of its rate at {drop_at:.3} s");
    }
    println!("{:<22}{:>10}{:>9}", "", "seconds", "ratio");
    println!("{:<22}{:>10.3}{:>9.3}", "all owners together", ideal, 1.0);
    println!(
        "{:<22}{:>10.3}{:>9.3}",
        "plain 1/N split",
        setting.plain(),
        setting.plain() / ideal
    );
    println!("{:<22}{:>10.3}{:>9.3}", "this machine", time, time / ideal);
    let wasted = progress.wasted as f64 / progress.downloaded as f64;
    println!("bytes received twice: {:.3} %", 100.0 * wasted);
    println!("ratio {:.4}", time / ideal);
    ExitCode::SUCCESS
}
