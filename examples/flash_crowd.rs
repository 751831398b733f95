//! One seeder and a crowd of leechers that all join at once, in virtual time, with
//! the shipped state machine.
//!
//! ```text
//! cargo run --release --example flash_crowd -- --leechers 1000 --chunks 1000 --seed 1
//! ```
//! More options:
//! - `--latency 0.1`: the round trip, in chunk times.
//! - `--churn 0.1`: this share of the leechers leaves at random times, and as many
//!   join in the first tenth of the time.
//! - `--free-riders 0.3`: this share of the leechers accepts requests and never
//!   sends.
//! - `--deaf 1.0`: this share of the leechers does not listen, so they cannot help each
//!   other. The bound is then at least what the uplinks of the others need to serve them.
//! - `--zones 4`: everybody is in one of so many zones, the seeder in the first one. Also
//!   prints how many contents came into each zone from others.
//! - `--zone-rate 2`: how fast the line from each zone to each other one is, in upload rates
//!   of a member; the default is no bound. The bound is then at least what the lines into a
//!   zone need to bring the content once.
//! - `--hide-zones`: nobody says in which zone it is.
//! - `--chunk-time 0.05`: how long a chunk takes on an uplink, in seconds; the default is
//!   0.1.
//! - `--adversaries taker=0.2`: this share of the leechers are adversaries of that
//!   kind instead (see `bt_lite::testing::simulation::Adversary`). Give the option
//!   once for each kind.
//! - `--give-up 3`: gives up after this multiple of the bound; the default is 20.
//! - `--trace`: prints a fingerprint of all events. Two runs with the same
//!   fingerprint are the same run.
//! - `--svg FILE`: draws the completion curve and the bound.
//!
//! The last line is the time of the last finisher, divided by the lower bound of
//! Mundinger, Weber and Weiss ("Optimal scheduling of peer-to-peer file
//! dissemination", Journal of Scheduling 11, 2008): with equal upload rates u, a
//! content of F bytes in M chunks, and N leechers, no plan is faster than
//! (F/u)(1 + floor(log2 N)/M). With adversaries, only the honest members count:
//! the bound is what their own uplinks and the seeder's could do for them alone.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bt_lite::Zone;
use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::testing::simulation::{Adversary, Member, Simulation};

/// The length of a chunk, in bytes.
const CHUNK: u64 = 16 << 10;
/// A leecher counts as one that gives up after this long without anything.
const PATIENCE: Duration = Duration::from_secs(60);

struct Setting {
    leechers: usize,
    chunks: u64,
    seed: u64,
    latency: f64,
    churn: f64,
    free_riders: f64,
    deaf: f64,
    /// The time that a chunk takes on an uplink, in seconds.
    chunk_time: f64,
    /// Kinds of adversaries, and the share of the leechers that each has.
    adversaries: Vec<(Adversary, f64)>,
    /// Gives up after this multiple of the bound.
    give_up: f64,
    /// How many zones there are; 0 if nobody is in a zone.
    zones: usize,
    /// How fast the lines between them are, in upload rates of a member.
    zone_rate: Option<f64>,
    /// Nobody says in which zone it is.
    hides_zones: bool,
    svg: Option<String>,
    /// Whether to print the fingerprint of all events.
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
            deaf: 0.0,
            chunk_time: 0.1,
            adversaries: Vec::new(),
            give_up: 20.0,
            zones: 0,
            zone_rate: None,
            hides_zones: false,
            svg: None,
            trace: false,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            if arg == "--trace" {
                setting.trace = true;
                continue;
            }
            if arg == "--hide-zones" {
                setting.hides_zones = true;
                continue;
            }
            let value = args.next().ok_or(format!("{arg} needs a value"))?;
            let bad = |_| format!("invalid value {value} for {arg}");
            let share_of = |text: &str| match text.parse::<f64>() {
                Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
                _ => Err(format!("invalid value {value} for {arg}")),
            };
            let share = || share_of(&value);
            match arg.as_str() {
                "--leechers" => setting.leechers = value.parse().map_err(bad)?,
                "--chunks" => setting.chunks = value.parse().map_err(bad)?,
                "--seed" => setting.seed = value.parse().map_err(bad)?,
                "--latency" => setting.latency = share()?,
                "--churn" => setting.churn = share()?,
                "--free-riders" => setting.free_riders = share()?,
                "--deaf" => match value.parse() {
                    Ok(share) if (0.0..=1.0).contains(&share) => setting.deaf = share,
                    _ => return Err(format!("invalid value {value} for {arg}")),
                },
                "--chunk-time" => match value.parse() {
                    Ok(time) if (0.001..=1000.0).contains(&time) => setting.chunk_time = time,
                    _ => return Err(format!("invalid value {value} for {arg}")),
                },
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
                    _ => return Err(format!("invalid value {value} for {arg}")),
                },
                "--zones" => match value.parse() {
                    Ok(zones @ 1..=100) => setting.zones = zones,
                    _ => return Err(format!("invalid value {value} for {arg}")),
                },
                "--zone-rate" => match value.parse() {
                    Ok(rate) if (0.01..=1000.0).contains(&rate) => setting.zone_rate = Some(rate),
                    _ => return Err(format!("invalid value {value} for {arg}")),
                },
                "--svg" => setting.svg = Some(value),
                _ => return Err(format!("unknown argument {arg}")),
            }
        }
        if setting.leechers == 0 || setting.chunks == 0 || setting.chunks > 1024 {
            return Err("there must be at least one leecher, and 1 to 1024 chunks".into());
        }
        let adversaries = setting.adversaries.iter();
        let others: usize = adversaries.map(|&(_, share)| setting.count(share)).sum();
        if others + setting.count(setting.free_riders) >= setting.leechers {
            return Err("at least one leecher must be honest and send".into());
        }
        Ok(setting)
    }

    /// How many leechers a share of them is.
    fn count(&self, share: f64) -> usize {
        // Rounding makes a product such as 0.29 * 100 a little too small.
        (self.leechers as f64 * share + 1e-9) as usize
    }

    /// How many leechers are not adversaries.
    fn honest(&self) -> usize {
        let adversaries = self.adversaries.iter();
        let adversaries: usize = adversaries.map(|&(_, share)| self.count(share)).sum();
        self.leechers - adversaries
    }

    /// The upload rate of every member, in bytes per second.
    fn upload(&self) -> f64 {
        CHUNK as f64 / self.chunk_time
    }

    /// The lower bound for the last honest leecher, in seconds.
    fn bound(&self) -> f64 {
        let honest = self.honest();
        let content = self.chunks as f64 * self.chunk_time;
        let spread = f64::from(honest.ilog2()) / self.chunks as f64;
        // Free riders receive and do not send, so the other uplinks, including the
        // seeder's, must carry their share too.
        let uplinks = honest - self.count(self.free_riders) + 1;
        let capacity = (honest as f64 / uplinks as f64).max(1.0);
        // Those who do not listen get everything from those who do.
        let deaf = self.count(self.deaf).min(honest);
        let load = deaf as f64 / (honest - deaf + 1) as f64;
        let bound = match deaf == honest {
            true => content * load,
            false => content * load.max(capacity + spread),
        };
        bound.max(content * self.line_load())
    }

    /// How long the lines into a zone need to bring the content once, in times that an uplink
    /// needs for it.
    fn line_load(&self) -> f64 {
        match self.zone_rate {
            Some(rate) if self.zones > 1 => 1.0 / (rate * (self.zones - 1) as f64),
            _ => 0.0,
        }
    }

    /// The zone of a member: they join the zones in turns.
    fn zone(&self, number: usize) -> Option<Zone> {
        let zone = number.checked_rem(self.zones)?;
        Some(format!("zone-{zone}").parse().expect("a name of a zone"))
    }
}

/// A crowd that has joined, and the members that are counted apart.
struct Crowd {
    swarm: Simulation,
    adversaries: Vec<Member>,
    /// How many leechers take and never send; they joined right after the
    /// adversaries.
    free_riders: usize,
    /// How many honest leechers joined at the start.
    leechers: usize,
}

impl Crowd {
    fn start(setting: &Setting) -> Self {
        let length = setting.chunks * CHUNK;
        let mut config = SwarmConfig::default();
        config.patience = Some(PATIENCE);
        let mut swarm = Simulation::new(length, config, setting.seed);
        if setting.trace {
            swarm.record_trace();
        }
        let round_trip = setting.latency * setting.chunk_time;
        swarm.set_latency(Duration::from_secs_f64(round_trip / 2.0));
        let upload = setting.upload();
        if let Some(rate) = setting.zone_rate {
            swarm.set_zone_lines(rate * upload);
        }
        if setting.hides_zones {
            swarm.hide_zones();
        }
        swarm.enter_zone(setting.zone(0));
        swarm.seeder(upload, 2.0 * upload);
        let mut adversaries = Vec::new();
        for &(kind, share) in &setting.adversaries {
            let join = |_| swarm.adversary(kind, upload, 2.0 * upload);
            adversaries.extend((0..setting.count(share)).map(join));
        }
        let free_riders = setting.count(setting.free_riders);
        let deaf = setting.count(setting.deaf);
        let join = |i: usize| {
            let rate = if i < free_riders { 0.0 } else { upload };
            swarm.enter_zone(setting.zone(i));
            // The deaf ones come last.
            match i + deaf < setting.honest() {
                true => swarm.leecher(rate, 2.0 * upload),
                false => swarm.deaf_leecher(rate, 2.0 * upload),
            }
        };
        let leechers: Vec<Member> = (0..setting.honest()).map(join).collect();
        let mut rng = fastrand::Rng::with_seed(setting.seed);
        let churned = (leechers.len() as f64 * setting.churn) as usize;
        for &member in leechers.iter().take(churned) {
            let at = |share: f64| Duration::from_secs_f64(setting.bound() * share);
            swarm.leave_at(at(rng.f64()), member);
            swarm.enter_zone(setting.zone(member.0));
            // A newcomer needs the whole content as well, so it comes early.
            swarm.leecher_at(at(rng.f64() * 0.1), upload, 2.0 * upload);
        }
        Self {
            swarm,
            adversaries,
            free_riders,
            leechers: leechers.len(),
        }
    }

    /// When the leechers that send have completed, in seconds, in order.
    fn times(&self) -> Vec<f64> {
        let members = (0..self.swarm.members()).map(Member);
        let counted = members.filter(|member| member.0 > self.adversaries.len() + self.free_riders);
        let mut times: Vec<f64> = counted
            .filter_map(|member| Some(self.swarm.finished(member)?.as_secs_f64()))
            .collect();
        times.sort_by(f64::total_cmp);
        times
    }
}

fn main() -> ExitCode {
    match Setting::from_args().and_then(|setting| run(&setting)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flash_crowd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(setting: &Setting) -> Result<(), String> {
    let started = Instant::now();
    let bound = setting.bound();
    let mut crowd = Crowd::start(setting);
    let limit = Duration::from_secs_f64(setting.give_up * bound);
    let complete = crowd.swarm.run(limit);
    let swarm = &crowd.swarm;
    print_setting(setting);
    print_bytes(setting, swarm, &crowd.adversaries);
    println!(
        "{} events in {:.1} s",
        swarm.steps(),
        started.elapsed().as_secs_f64()
    );
    let gave_up = (0..swarm.members()).filter(|member| swarm.gave_up(Member(*member)));
    println!(
        "{} leechers had nothing to expect at some time",
        gave_up.count()
    );
    if let Some(trace) = swarm.trace() {
        println!("trace {trace}");
    }
    print_zones(setting, swarm);
    let times = crowd.times();
    let Some(&last) = times.last().filter(|_| complete) else {
        return Err(format!(
            "{} of {} honest leechers did not complete in {:.1} chunk times, {:.1} times the bound",
            swarm.leeching(),
            crowd.leechers,
            swarm.now().as_secs_f64() / setting.chunk_time,
            swarm.now().as_secs_f64() / bound
        ));
    };
    print_times(setting, &times, bound);
    if let Some(file) = &setting.svg {
        std::fs::write(file, svg(setting, &times, bound))
            .map_err(|error| format!("{file}: {error}"))?;
        println!("curve written to {file}");
    }
    println!("ratio {:.4}", last / bound);
    Ok(())
}

fn print_times(setting: &Setting, times: &[f64], bound: f64) {
    println!("{:<28}{:>12}{:>9}", "", "chunk times", "ratio");
    let row = |what: &str, time: f64| {
        let chunk_times = time / setting.chunk_time;
        println!("{what:<28}{chunk_times:>12.1}{:>9.3}", time / bound);
    };
    row("lower bound", bound);
    row("first finisher", times[0]);
    row("median", times[times.len() / 2]);
    row("last finisher", times[times.len() - 1]);
}

fn print_setting(setting: &Setting) {
    println!(
        "1 seeder, {} leechers, {} chunks, round trip {} chunk times, churn {}, free riders {}, deaf {}, seed {}",
        setting.leechers,
        setting.chunks,
        setting.latency,
        setting.churn,
        setting.free_riders,
        setting.deaf,
        setting.seed
    );
    for &(kind, share) in &setting.adversaries {
        println!(
            "of the leechers {} are adversaries: {kind}",
            setting.count(share)
        );
    }
}

/// How much the honest members wasted, and how much the adversaries downloaded.
fn print_bytes(setting: &Setting, swarm: &Simulation, adversaries: &[Member]) {
    let members = (0..swarm.members()).map(Member);
    let honest = members.filter(|member| !adversaries.contains(member));
    let (down, wasted) = honest.fold((0, 0), |(down, wasted), member| {
        let progress = swarm.progress(member);
        (down + progress.downloaded, wasted + progress.wasted)
    });
    println!(
        "bytes received twice: {:.3} %",
        100.0 * wasted as f64 / f64::max(down as f64, 1.0)
    );
    let content = (setting.chunks * CHUNK) as f64;
    let taken = |&member: &Member| swarm.progress(member).downloaded as f64 / content;
    let taken: Vec<f64> = adversaries.iter().map(taken).collect();
    if !taken.is_empty() {
        println!(
            "adversaries downloaded {:.3} contents each on average, at most {:.3}",
            taken.iter().sum::<f64>() / taken.len() as f64,
            taken.iter().copied().fold(0.0, f64::max)
        );
    }
}

/// How many contents came into each zone from others.
fn print_zones(setting: &Setting, swarm: &Simulation) {
    let content = (setting.chunks * CHUNK) as f64;
    for zone in (0..setting.zones).filter_map(|number| setting.zone(number)) {
        let copies = swarm.imported(&zone) as f64 / content;
        println!("{zone}: {copies:.3} contents came from other zones");
    }
}

/// Draws the share of complete leechers over time, and the bound.
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
        chunk_times = end / setting.chunk_time,
        leechers = setting.leechers,
        chunks = setting.chunks,
    )
}
