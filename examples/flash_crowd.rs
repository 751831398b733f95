//! One seeder, a crowd of leechers that all come at once, and the shipped swarm
//! machine in virtual time.
//!
//! ```text
//! cargo run --release --example flash_crowd -- --leechers 1000 --chunks 1000 --seed 1
//! ```
//! Also `--latency 0.1` (round trip, in chunk times), `--churn 0.1` (a share of
//! the leechers leaves at random times, and as many come, in the first tenth of
//! the time), `--free-riders 0.3` (a share of the leechers takes requests and
//! never sends), `--adversaries taker=0.2` (a share of the leechers are
//! adversaries of that kind instead; once for each kind, and the kinds are those
//! of `bt_lite::testing::simulation::Adversary`), `--give-up 3` (after which
//! multiple of the bound the run is given up, 20 if not said), `--trace` (prints a
//! fingerprint of all events: two runs with the same one are the same run) and
//! `--svg FILE` (the completion curve beside the bound).
//!
//! The last line is the time of the last finisher over
//! the bound of Mundinger, Weber and Weiss ("Optimal scheduling of peer-to-peer
//! file dissemination", Journal of Scheduling 11, 2008): with equal upload rates
//! u, a content of F bytes in M chunks and N leechers, nobody can do better than
//! (F/u)(1 + floor(log2 N)/M). With adversaries, both are of the honest ones:
//! what their own uplinks and the seeder's would do for them alone.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::testing::simulation::{Adversary, Member, Simulation};

/// The length of a chunk, in bytes.
const CHUNK: u64 = 16 << 10;
/// The time of a chunk on an uplink, in seconds.
const CHUNK_TIME: f64 = 0.1;
/// Upload rate of everybody, in bytes per second.
const UPLOAD: f64 = CHUNK as f64 / CHUNK_TIME;

struct Setting {
    leechers: usize,
    chunks: u64,
    seed: u64,
    latency: f64,
    churn: f64,
    free_riders: f64,
    /// Kinds of adversaries, and which share of the leechers is of each.
    adversaries: Vec<(Adversary, f64)>,
    /// The multiple of the bound after which the run is given up.
    give_up: f64,
    svg: Option<String>,
    /// Whether the fingerprint of all events is printed.
    trace: bool,
}

impl Setting {
    fn from_args() -> Result<Self, String> {
        let mut setting = Self {
            leechers: 1000,
            chunks: 1000,
            seed: 1,
            latency: 0.0,
            churn: 0.0,
            free_riders: 0.0,
            adversaries: Vec::new(),
            give_up: 20.0,
            svg: None,
            trace: false,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            if arg == "--trace" {
                setting.trace = true;
                continue;
            }
            let value = args.next().ok_or(format!("{arg} needs a value"))?;
            let bad = |_| format!("{value} is no value for {arg}");
            let share_of = |text: &str| match text.parse::<f64>() {
                Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
                _ => Err(format!("{value} is no value for {arg}")),
            };
            let share = || share_of(&value);
            match arg.as_str() {
                "--leechers" => setting.leechers = value.parse().map_err(bad)?,
                "--chunks" => setting.chunks = value.parse().map_err(bad)?,
                "--seed" => setting.seed = value.parse().map_err(bad)?,
                "--latency" => setting.latency = share()?,
                "--churn" => setting.churn = share()?,
                "--free-riders" => setting.free_riders = share()?,
                "--adversaries" => {
                    let (kind, share) = value
                        .split_once('=')
                        .ok_or(format!("{arg} needs a kind and a share, as in taker=0.2"))?;
                    let kind = kind.parse().map_err(|error| format!("{error}"))?;
                    setting.adversaries.push((kind, share_of(share)?));
                }
                "--give-up" => match value.parse() {
                    Ok(multiple) if (1.0..=1000.0).contains(&multiple) => {
                        setting.give_up = multiple;
                    }
                    _ => return Err(format!("{value} is no value for {arg}")),
                },
                "--svg" => setting.svg = Some(value),
                _ => return Err(format!("unknown argument {arg}")),
            }
        }
        if setting.leechers == 0 || setting.chunks == 0 || setting.chunks > 1024 {
            return Err("there is at least one leecher, and 1 to 1024 chunks".into());
        }
        let adversaries = setting.adversaries.iter();
        let others: usize = adversaries.map(|&(_, share)| setting.count(share)).sum();
        if others + setting.count(setting.free_riders) >= setting.leechers {
            return Err("at least one leecher is honest and sends".into());
        }
        Ok(setting)
    }

    /// How many a share of the leechers is.
    fn count(&self, share: f64) -> usize {
        // A product such as 0.29 * 100 is a little less than it should be.
        (self.leechers as f64 * share + 1e-9) as usize
    }

    /// How many leechers are no adversaries.
    fn honest(&self) -> usize {
        let adversaries = self.adversaries.iter();
        let adversaries: usize = adversaries.map(|&(_, share)| self.count(share)).sum();
        self.leechers - adversaries
    }

    /// Seconds in which no honest one can do better.
    fn bound(&self) -> f64 {
        let honest = self.honest();
        let content = self.chunks as f64 * CHUNK_TIME;
        let spread = f64::from(honest.ilog2()) / self.chunks as f64;
        // Free riders receive and do not send: everybody else's uplink, the
        // seeder's included, carries them as well.
        let uplinks = honest - self.count(self.free_riders) + 1;
        let capacity = (honest as f64 / uplinks as f64).max(1.0);
        content * (capacity + spread)
    }
}

fn main() -> ExitCode {
    let setting = match Setting::from_args() {
        Ok(setting) => setting,
        Err(error) => {
            eprintln!("flash_crowd: {error}");
            return ExitCode::FAILURE;
        }
    };
    let started = Instant::now();
    let mut swarm = Simulation::new(setting.chunks * CHUNK, SwarmConfig::default(), setting.seed);
    if setting.trace {
        swarm.record_trace();
    }
    swarm.set_latency(Duration::from_secs_f64(setting.latency * CHUNK_TIME / 2.0));
    let bound = setting.bound();
    swarm.seeder(UPLOAD, 2.0 * UPLOAD);
    let mut adversaries = Vec::new();
    for &(kind, share) in &setting.adversaries {
        let join = |_| swarm.adversary(kind, UPLOAD, 2.0 * UPLOAD);
        adversaries.extend((0..setting.count(share)).map(join));
    }
    let riders = setting.count(setting.free_riders);
    let leechers: Vec<Member> = (0..setting.honest())
        .map(|i| swarm.leecher(if i < riders { 0.0 } else { UPLOAD }, 2.0 * UPLOAD))
        .collect();
    let mut rng = fastrand::Rng::with_seed(setting.seed);
    let churned = (leechers.len() as f64 * setting.churn) as usize;
    for &member in leechers.iter().take(churned) {
        let at = |share: f64| Duration::from_secs_f64(bound * share);
        swarm.leave_at(at(rng.f64()), member);
        // Who comes needs the whole content as well: it comes early enough.
        swarm.leecher_at(at(rng.f64() * 0.1), UPLOAD, 2.0 * UPLOAD);
    }
    let complete = swarm.run(Duration::from_secs_f64(setting.give_up * bound));
    let members = (0..swarm.members()).map(Member);
    let counted = members.filter(|member| member.0 > adversaries.len() + riders);
    let mut times: Vec<f64> = counted
        .filter_map(|member| Some(swarm.finished(member)?.as_secs_f64()))
        .collect();
    times.sort_by(f64::total_cmp);
    print_setting(&setting);
    print_bytes(&setting, &swarm, &adversaries);
    println!(
        "{} events in {:.1} s",
        swarm.steps(),
        started.elapsed().as_secs_f64()
    );
    if let Some(trace) = swarm.trace() {
        println!("trace {trace}");
    }
    let Some(&last) = times.last().filter(|_| complete) else {
        eprintln!(
            "flash_crowd: {} of {} honest leechers did not complete in {:.1} chunk times, {:.1} times the bound",
            swarm.leeching(),
            leechers.len(),
            swarm.now().as_secs_f64() / CHUNK_TIME,
            swarm.now().as_secs_f64() / bound
        );
        return ExitCode::FAILURE;
    };
    println!("{:<28}{:>12}{:>9}", "", "chunk times", "ratio");
    let row = |what: &str, time: f64| {
        println!("{what:<28}{:>12.1}{:>9.3}", time / CHUNK_TIME, time / bound);
    };
    row("lower bound", bound);
    row("first finisher", times[0]);
    row("median", times[times.len() / 2]);
    row("last finisher", last);
    if let Some(file) = &setting.svg {
        if let Err(error) = std::fs::write(file, svg(&setting, &times, bound)) {
            eprintln!("flash_crowd: {file}: {error}");
            return ExitCode::FAILURE;
        }
        println!("drawn in {file}");
    }
    println!("ratio {:.4}", last / bound);
    ExitCode::SUCCESS
}

fn print_setting(setting: &Setting) {
    println!(
        "1 seeder, {} leechers, {} chunks, round trip {} chunk times, churn {}, free riders {}, seed {}",
        setting.leechers,
        setting.chunks,
        setting.latency,
        setting.churn,
        setting.free_riders,
        setting.seed
    );
    for &(kind, share) in &setting.adversaries {
        println!(
            "of the leechers {} are adversaries: {kind}",
            setting.count(share)
        );
    }
}

/// How much the honest wasted, and the adversaries took.
fn print_bytes(setting: &Setting, swarm: &Simulation, adversaries: &[Member]) {
    let members = (0..swarm.members()).map(Member);
    let honest = members.filter(|member| !adversaries.contains(member));
    let (down, wasted) = honest.fold((0, 0), |(down, wasted), member| {
        let progress = swarm.progress(member);
        (down + progress.downloaded, wasted + progress.wasted)
    });
    println!(
        "bytes that came twice: {:.3} %",
        100.0 * wasted as f64 / f64::max(down as f64, 1.0)
    );
    let content = (setting.chunks * CHUNK) as f64;
    let taken = |&member: &Member| swarm.progress(member).downloaded as f64 / content;
    let taken: Vec<f64> = adversaries.iter().map(taken).collect();
    if !taken.is_empty() {
        println!(
            "adversaries took {:.3} contents each, and the greediest {:.3}",
            taken.iter().sum::<f64>() / taken.len() as f64,
            taken.iter().copied().fold(0.0, f64::max)
        );
    }
}

/// The share of leechers that are done over time, and the bound.
fn svg(setting: &Setting, times: &[f64], bound: f64) -> String {
    let (width, height, margin) = (720.0, 360.0, 48.0);
    let end = times.last().copied().unwrap_or(bound).max(bound) * 1.05;
    let x = |time: f64| margin + time / end * (width - 2.0 * margin);
    let y = |share: f64| height - margin - share * (height - 2.0 * margin);
    let mut curve = format!("M{:.1},{:.1}", x(0.0), y(0.0));
    for (i, time) in times.iter().enumerate() {
        let (before, after) = (
            i as f64 / times.len() as f64,
            (i + 1) as f64 / times.len() as f64,
        );
        let _ = write!(
            curve,
            " L{0:.2},{1:.2} L{0:.2},{2:.2}",
            x(*time),
            y(before),
            y(after)
        );
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">
<rect width="{width}" height="{height}" fill="white"/>
<path d="M{left:.1},{top:.1} V{bottom:.1} H{right:.1}" fill="none" stroke="#444"/>
<path d="M{bound_x:.1},{top:.1} V{bottom:.1}" stroke="#c33" stroke-dasharray="5 4"/>
<text x="{bound_x:.1}" y="{label:.1}" fill="#c33" text-anchor="middle">lower bound</text>
<path d="{curve}" fill="none" stroke="#26c" stroke-width="2"/>
<text x="{left:.1}" y="{foot:.1}">0</text>
<text x="{right:.1}" y="{foot:.1}" text-anchor="end">{chunk_times:.0} chunk times</text>
<text x="{left:.1}" y="20">{leechers} leechers, {chunks} chunks, one seeder: share of leechers that are complete</text>
</svg>
"##,
        left = margin,
        right = width - margin,
        top = margin,
        bottom = height - margin,
        bound_x = x(bound),
        label = margin - 6.0,
        foot = height - margin + 18.0,
        chunk_times = end / CHUNK_TIME,
        leechers = setting.leechers,
        chunks = setting.chunks,
    )
}
