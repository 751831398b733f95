//! What a line that loses, repeats and reorders datagrams leaves of a transfer over QUIC.
//!
//! ```text
//! cargo bench --bench quic_loss
//! cargo bench --bench quic_loss -- --rtt-ms 100 --rate-mib 2 --mib 16 --rounds 3
//! ```
//! An owner and a member, and between them a proxy on loopback that is a line of
//! `--rate-mib` MiB a second (default 4) with a round trip of `--rtt-ms` (default 20) and a
//! queue of 100 ms in each direction. The member fetches `--mib` MiB (default 8), with its
//! handshake. Each row is the median of `--rounds` (default 3), and its last column the ratio
//! to the row without losses.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bt_lite::transport::QuicTransport;
use bt_lite::transport::auth::{Authenticator, Identity, Secret, Trust};
use bt_lite::{DownloadOptions, MemoryStorage, Peer, ShareSource};

#[allow(dead_code, clippy::unwrap_used)]
#[path = "../tests/quic/lossy.rs"]
mod lossy;

use lossy::{Line, Weather};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// How long a datagram may wait for the line.
const QUEUE: Duration = Duration::from_millis(100);

struct Setting {
    rtt: Duration,
    rate: f64,
    mib: f64,
    rounds: usize,
    /// Whether each row is tried, and no figure is worth anything.
    is_test: bool,
}

impl Setting {
    fn from_args() -> Outcome<Self> {
        let mut setting = Self {
            rtt: Duration::from_millis(20),
            rate: 4.0,
            mib: 8.0,
            rounds: 3,
            is_test: false,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--rtt-ms" => setting.rtt = Duration::from_millis(value()?.parse()?),
                "--rate-mib" => setting.rate = value()?.parse()?,
                "--mib" => setting.mib = value()?.parse()?,
                "--rounds" => setting.rounds = value()?.parse::<usize>()?.max(1),
                // Cargo passes these to every benchmark.
                "--bench" => {}
                "--test" => {
                    (setting.mib, setting.rounds, setting.is_test) = (0.1, 1, true);
                }
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        Ok(setting)
    }
}

/// The rows: what they are called, and the shares that are lost, reordered and repeated.
const ROWS: [(&str, f64, f64, f64); 8] = [
    ("nothing", 0.0, 0.0, 0.0),
    ("0.1 % lost", 0.001, 0.0, 0.0),
    ("1 % lost", 0.01, 0.0, 0.0),
    ("5 % lost", 0.05, 0.0, 0.0),
    ("20 % lost", 0.2, 0.0, 0.0),
    ("2 % reordered", 0.0, 0.02, 0.0),
    ("20 % reordered", 0.0, 0.2, 0.0),
    ("20 % repeated", 0.0, 0.0, 0.2),
];

/// MiB a second over a line, and the datagrams that were lost on it.
async fn measure(setting: &Setting, weather: Weather, seed: u64) -> Outcome<(f64, u64)> {
    let secret = Secret::generate()?;
    let quic = || -> Outcome<_> {
        let trust = Trust::Secret(secret.clone());
        let auth = Authenticator::new(Identity::generate()?, trust)?;
        Ok(QuicTransport::new(auth))
    };
    let owner = Peer::builder(quic()?, MemoryStorage::new()).listen("127.0.0.1:0");
    let owner = owner.start().await?;
    let mut bytes = vec![0; (setting.mib * (1 << 20) as f64) as usize];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    let content = owner.share(ShareSource::bytes("film", bytes)).await?;
    let to = owner.local_addr().and_then(|addr| addr.socket_addr());
    let line = Line::to(to.ok_or("no address of a socket")?, weather, seed).await;
    let member = Peer::builder(quic()?, MemoryStorage::new()).start().await?;
    let begun = Instant::now();
    let options = DownloadOptions::new().owner(line.addr);
    member.download_with(content.id, options).await?;
    let rate = setting.mib / begun.elapsed().as_secs_f64();
    member.shutdown().await;
    owner.shutdown().await;
    Ok((rate, line.counts.lost.load(Ordering::Relaxed)))
}

async fn run() -> Outcome<()> {
    let setting = Setting::from_args()?;
    println!(
        "setting: {} MiB over {} MiB/s and {:?}, {} rounds",
        setting.mib, setting.rate, setting.rtt, setting.rounds
    );
    println!("| weather | MiB/s | datagrams lost | ratio |\n|---|---|---|---|");
    let mut best = None;
    for (name, loss, reorder, repeat) in ROWS {
        let weather = Weather {
            loss,
            reorder,
            repeat,
            delay: setting.rtt / 2,
            line: Some((setting.rate * (1 << 20) as f64, QUEUE)),
            recorded: false,
        };
        let mut rounds = Vec::new();
        for seed in 0..setting.rounds as u64 {
            rounds.push(measure(&setting, weather, seed).await?);
        }
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (rate, lost) = rounds[rounds.len() / 2];
        let best = *best.get_or_insert(rate);
        println!("| {name} | {rate:.2} | {lost} | {:.2} |", rate / best);
        if setting.is_test {
            // The handshake may take seconds on the worse ones.
            return Ok(());
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let Ok(runtime) = builder.worker_threads(2).enable_all().build() else {
        return ExitCode::FAILURE;
    };
    match runtime.block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quic_loss: {error}");
            ExitCode::FAILURE
        }
    }
}
