//! How long the first hash of a file takes that a peer shares, beside `b3sum` with as many
//! threads.
//!
//! ```text
//! cargo bench --bench hashing -- --size 1GiB --threads 2 --rounds 5
//! ```
//! Both hash the same file in turns, `--rounds` times (default 5), and each is the first one
//! in every other round. The file is in memory, if `/dev/shm` is there, and full of bytes
//! that are not alike. `--threads` is how many threads both may use (default: one for each
//! core): those of the runtime, and those of `b3sum`. Sharing is measured from the call until
//! the content is there to be served, in a process that is running already. `b3sum` is
//! measured from the start of its process to its end. The ids are compared.
//!
//! The last line is the median of the time of `b3sum` over that of sharing. Without `b3sum`
//! in the path it says so, and only sharing is measured.

#[path = "common/mod.rs"]
#[allow(dead_code, reason = "there is one process here")]
mod common;

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use bt_lite::{ContentId, MemoryNetwork, MemoryStorage, Peer};
use tokio::runtime::{Builder, Runtime};

use common::Outcome;
use common::bytes::bytes;
use common::usage::cpu_seconds;

/// How much is written at once when the file is made.
const PIECE: usize = 1 << 20;

struct Setting {
    size: usize,
    threads: usize,
    rounds: usize,
}

impl Setting {
    fn from_args() -> Outcome<Self> {
        let mut setting = Self {
            size: 1 << 30,
            threads: std::thread::available_parallelism()?.get(),
            rounds: 5,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--size" => setting.size = bytes(&value()?)?,
                "--threads" => setting.threads = value()?.parse()?,
                "--rounds" => setting.rounds = value()?.parse()?,
                // Cargo passes these to every benchmark.
                "--bench" => {}
                "--test" => (setting.size, setting.rounds) = (1 << 20, 1),
                _ => return Err(format!("unknown option {arg}").into()),
            }
        }
        match [setting.size, setting.threads, setting.rounds].contains(&0) {
            true => Err("no number may be 0".into()),
            false => Ok(setting),
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hashing: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let setting = Setting::from_args()?;
    let memory = Path::new("/dev/shm");
    let dir = match memory.is_dir() {
        true => tempfile::tempdir_in(memory)?,
        false => tempfile::tempdir()?,
    };
    let file = dir.path().join("file");
    fill(&file, setting.size)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(setting.threads)
        .enable_all()
        .build()?;
    let has_b3sum = b3sum(&file, setting.threads)?.is_some();
    let (mut shared, mut summed, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..setting.rounds {
        let mut theirs = None;
        if has_b3sum && round % 2 == 1 {
            theirs = b3sum(&file, setting.threads)?;
        }
        let (wall, cpu, id) = share(&runtime, &file)?;
        if has_b3sum && theirs.is_none() {
            theirs = b3sum(&file, setting.threads)?;
        }
        println!("share  wall {wall:.3} s, CPU {cpu:.3} s");
        shared.push(wall);
        if let Some((other, of_theirs)) = theirs {
            if of_theirs != id {
                return Err(format!("b3sum says {of_theirs}, and this crate {id}").into());
            }
            println!("b3sum  wall {other:.3} s");
            summed.push(other);
            ratios.push(other / wall);
        }
    }
    println!("medians of {} rounds", setting.rounds);
    println!("share {:.3} s", median(&mut shared));
    match has_b3sum {
        true => {
            println!("b3sum {:.3} s", median(&mut summed));
            println!("ratio {:.3}", median(&mut ratios));
        }
        false => println!("b3sum is not installed: cargo install b3sum"),
    }
    Ok(())
}

/// A file of this many bytes that are not alike.
fn fill(file: &Path, size: usize) -> Outcome<()> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut file = std::fs::File::create(file)?;
    let mut piece = vec![0; PIECE];
    let mut left = size;
    while left > 0 {
        let len = left.min(PIECE);
        rng.fill(&mut piece[..len]);
        file.write_all(&piece[..len])?;
        left -= len;
    }
    Ok(())
}

/// Shares the file once, by a new peer that knows nothing of it. Seconds that have passed,
/// and those of CPU.
fn share(runtime: &Runtime, file: &Path) -> Outcome<(f64, f64, ContentId)> {
    runtime.block_on(async {
        let network = MemoryNetwork::new(1);
        let peer = Peer::builder(network.endpoint("owner"), MemoryStorage::new())
            .start()
            .await?;
        let (begun, before) = (Instant::now(), cpu_seconds());
        let content = peer.share(file).await?;
        let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - before);
        peer.shutdown().await;
        Ok((wall, cpu, content.id))
    })
}

/// Seconds that `b3sum` takes, and what it says. Nothing if it is not installed.
fn b3sum(file: &Path, threads: usize) -> Outcome<Option<(f64, ContentId)>> {
    let begun = Instant::now();
    let output = Command::new("b3sum")
        .args(["--no-names", "--num-threads", &threads.to_string()])
        .arg(file)
        .output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        output => output?,
    };
    let wall = begun.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let id = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(Some((wall, id)))
}

/// The median; of an even number, the higher of the two.
fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
