//! The processes of a comparison, and their rounds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::common::Outcome;
use super::common::process::{Process, say, until_end};
use super::common::usage::{cpu_seconds, peak_mib};
use super::usage::{DescriptorWatch, Usage};
use super::{Setting, ours, plain};

/// The name of a file.
pub(crate) fn name(number: usize) -> String {
    format!("file-{number:06}")
}

/// Compares both, round by round.
pub(crate) fn compare(setting: &Setting) -> Outcome<()> {
    let root = tempfile::tempdir()?;
    let from = root.path().join("from");
    write_files(&from, setting)?;
    println!(
        "{} files of {} bytes, at most {} descriptors a process",
        setting.files, setting.size, setting.descriptors
    );
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for round in 0..setting.rounds {
        for (kind, rounds) in [("plain", &mut plain), ("ours", &mut ours)] {
            if kind == "plain" && (setting.pool, setting.large) != (0, 0) {
                continue;
            }
            let to = root.path().join(format!("{kind}-{round}"));
            fs::create_dir(&to)?;
            let used = measure(kind, &from, &to, setting)?;
            // All files stay until the end: ext4 is slow to give out inodes while many
            // were deleted in the last seconds, and the next round would pay for it.
            check(&from, &to, setting)?;
            rounds.push(used);
        }
    }
    let ours = medians(&ours);
    let plain = (!plain.is_empty()).then(|| medians(&plain));
    for (kind, used) in [("bt_lite", Some(ours)), ("plain", plain)] {
        let Some(used) = used else {
            return Ok(());
        };
        println!(
            "{kind}: wall {:.3} s ({:.1} µs a file), CPU {:.2} s, peak {:.0} MiB, {} descriptors",
            used.wall,
            used.wall / setting.files as f64 * 1e6,
            used.cpu,
            used.peak_mib,
            used.descriptors
        );
    }
    if let Some(plain) = plain {
        println!("wall {:.3}", ours.wall / plain.wall);
        println!("ratio {:.3}", ours.cpu / plain.cpu);
    }
    Ok(())
}

/// Files that no compression and no deduplication makes shorter.
fn write_files(dir: &Path, setting: &Setting) -> Outcome<()> {
    fs::create_dir(dir)?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut bytes = vec![0; setting.size];
    for number in 0..setting.files {
        random.fill(&mut bytes);
        fs::write(dir.join(name(number)), &bytes)?;
    }
    if setting.large > 0 {
        bytes.resize(setting.large, 0);
        random.fill(&mut bytes);
        fs::write(dir.join(ours::LARGE), &bytes)?;
    }
    Ok(())
}

/// Whether the files have arrived.
fn check(from: &Path, to: &Path, setting: &Setting) -> Outcome<()> {
    for number in 0..setting.files {
        let name = name(number);
        if fs::read(from.join(&name))? != fs::read(to.join(&name))? {
            return Err(format!("{name} is not what it was").into());
        }
    }
    Ok(())
}

/// Runs both processes once. The CPU time is that of both, the rest the higher one.
fn measure(kind: &str, from: &Path, to: &Path, setting: &Setting) -> Outcome<Usage> {
    let mut owner = start(&[kind, "owner"], from, "-", setting)?;
    let addr = owner.line()?;
    let mut fetcher = start(&[kind, "fetch"], to, &addr, setting)?;
    let fetched: Usage = fetcher.line()?.parse()?;
    let owned: Usage = owner.stop()?.parse()?;
    fetcher.stop()?;
    Ok(Usage {
        wall: fetched.wall,
        cpu: fetched.cpu + owned.cpu,
        peak_mib: fetched.peak_mib.max(owned.peak_mib),
        descriptors: fetched.descriptors.max(owned.descriptors),
    })
}

/// The median of each figure.
fn medians(rounds: &[Usage]) -> Usage {
    let median = |figure: fn(&Usage) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Usage {
        wall: median(|used| used.wall),
        cpu: median(|used| used.cpu),
        peak_mib: median(|used| used.peak_mib),
        descriptors: median(|used| used.descriptors),
    }
}

/// Starts a process in this role.
fn start(role: &[&str; 2], dir: &Path, addr: &str, setting: &Setting) -> Outcome<Process> {
    let dir = dir.to_str().ok_or("a path that is no text")?;
    let numbers = [setting.files, setting.pool, setting.large].map(|number| number.to_string());
    let [files, pool, large] = &numbers;
    let descriptors = setting.descriptors.to_string();
    let [kind, role] = *role;
    Process::start([kind, role, dir, addr, files, &descriptors, pool, large])
}

/// One process: `KIND owner|fetch DIR ADDR FILES DESCRIPTORS POOL LARGE`.
pub(crate) fn role(args: impl Iterator<Item = String>) -> Outcome<()> {
    let args: Vec<String> = args.collect();
    let [kind, role, dir, addr, files, descriptors, pool, large] = &args[..] else {
        return Err("a role has eight arguments".into());
    };
    let (dir, files, limit) = (PathBuf::from(dir), files.parse()?, descriptors.parse()?);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        },
    )?;
    match (kind.as_str(), role.as_str()) {
        ("plain", "owner") => {
            let mut meter = None;
            plain::serve(&dir, files, |addr| {
                say(addr);
                meter = Some(Meter::start());
            })?;
            let meter = meter.ok_or("it did not listen")?;
            until_end();
            say(meter.read());
        }
        ("plain", "fetch") => {
            let meter = Meter::start();
            plain::fetch(&dir, files, addr)?;
            say(meter.read());
            until_end();
            say("done");
        }
        (_, "owner") => runtime()?.block_on(async {
            let owner = ours::Owner::start(&dir, files).await?;
            let meter = Meter::start();
            say(owner.addr());
            tokio::task::spawn_blocking(until_end).await?;
            say(meter.read());
            owner.stop().await;
            Outcome::Ok(())
        })?,
        _ => runtime()?.block_on(async {
            let meter = Meter::start();
            let what = (files, pool.parse()?, large.parse()?);
            let peers = ours::fetch(&dir, what, addr).await?;
            say(meter.read());
            tokio::task::spawn_blocking(until_end).await?;
            futures::future::join_all(peers.iter().map(bt_lite::Peer::shutdown)).await;
            say("done");
            Outcome::Ok(())
        })?,
    }
    Ok(())
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

/// What this process uses from now on.
struct Meter {
    begun: Instant,
    cpu: f64,
    descriptors: DescriptorWatch,
}

impl Meter {
    fn start() -> Self {
        Self {
            begun: Instant::now(),
            cpu: cpu_seconds(),
            descriptors: DescriptorWatch::start(),
        }
    }

    fn read(&self) -> Usage {
        Usage {
            wall: self.begun.elapsed().as_secs_f64(),
            cpu: cpu_seconds() - self.cpu,
            peak_mib: peak_mib(),
            descriptors: self.descriptors.most() as f64,
        }
    }
}
