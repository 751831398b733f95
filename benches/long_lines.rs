//! The time of a download over long lines, from the call to its outcome, divided by
//! what the lines allow: three round trips and the time that all owners together need
//! for the content.
//!
//! ```text
//! cargo bench --bench long_lines
//! cargo bench --bench long_lines -- --quick
//! ```
//! The three round trips are the question to the tracker, the connection to the owners,
//! and the requests with their answers. Whole peers and a tracker run over a network in
//! this process, in virtual time: so the figures are the same on every machine. That
//! network has no slow start, and neither has the bound. Virtual time has a grain of a
//! millisecond, which the bound includes. `--quick` leaves out the long contents. The
//! last line is the worst of the ratios.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use bt_lite::{MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker};
use bytes::Bytes;
use tokio::time::Instant;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// The length of the shortest chunk, in bytes.
const CHUNK: usize = 16 * KIB;
/// A million bits per second, in bytes per second.
const MBIT: u64 = 125_000;
/// How many bytes a link holds: as much as the longest fast line carries in a round trip.
const LINK_BYTES: usize = 16 << 20;
/// The timers of the clock fire at whole milliseconds.
const GRAIN: Duration = Duration::from_millis(1);

const LENGTHS: [usize; 5] = [16 * KIB, MIB, 4 * MIB, 64 * MIB, 256 * MIB];
const ROUND_TRIPS: [u64; 3] = [0, 50, 200];
const OWNERS: [usize; 2] = [1, 4];
const RATES: [u64; 2] = [100, 400];

/// One download.
#[derive(Clone, Copy)]
struct Line {
    length: usize,
    round_trip: Duration,
    owners: usize,
    /// The upload rate of each owner, in bytes per second.
    rate: u64,
}

impl Line {
    /// The time below which no download can end. A content with a single chunk comes
    /// from one owner.
    fn bound(&self) -> Duration {
        let owners = self.owners.min(self.length.div_ceil(CHUNK));
        let rate = self.rate as f64 * owners as f64;
        3 * self.round_trip + Duration::from_secs_f64(self.length as f64 / rate) + GRAIN
    }

    /// How long the download takes.
    async fn measure(&self, content: &Bytes) -> Result<Duration, Box<dyn Error>> {
        let network = MemoryNetwork::new(1);
        network.set_link_bytes(LINK_BYTES);
        let tracker = Tracker::builder(network.endpoint("tracker"))
            .bind("memory:tracker")
            .await?;
        let start = async |name: &str| {
            Peer::builder(network.endpoint(name), MemoryStorage::new())
                .tracker(tracker.local_addr())
                .listen(format!("memory:{name}"))
                .start()
                .await
        };
        let mut owners = Vec::new();
        let mut shared = None;
        for number in 0..self.owners {
            let name = format!("owner-{number}");
            network.set_upload_rate(&name, Some(self.rate));
            let owner = start(&name).await?;
            let source = ShareSource::bytes("content", content.clone());
            shared = Some(owner.share(source).await?.id);
            owners.push(owner);
        }
        let id = shared.ok_or("no owner")?;
        let leecher = start("leecher").await?;
        // Half of the round trip each way, to the tracker and to all owners.
        network.set_latency("leecher", self.round_trip / 2);
        let begun = Instant::now();
        let got = leecher.download(id).await?;
        let took = begun.elapsed();
        assert_eq!(got.length, content.len() as u64);
        leecher.shutdown().await;
        for owner in owners {
            owner.shutdown().await;
        }
        tracker.shutdown().await;
        Ok(took)
    }
}

/// All downloads, those of the same content one after the other.
fn lines(lengths: &[usize]) -> Vec<Line> {
    let mut lines = Vec::new();
    for &length in lengths {
        for round_trip in ROUND_TRIPS.map(Duration::from_millis) {
            for owners in OWNERS {
                lines.extend(RATES.map(|rate| Line {
                    length,
                    round_trip,
                    owners,
                    rate: rate * MBIT,
                }));
            }
        }
    }
    lines
}

/// The bytes of a content.
fn content(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(length as u64).fill(&mut bytes);
    bytes.into()
}

fn run(lengths: &[usize]) -> Result<f64, Box<dyn Error>> {
    println!(
        "{:>11}{:>12}{:>8}{:>8}{:>12}{:>12}{:>9}",
        "KiB", "round trip", "owners", "Mbit/s", "bound", "time", "ratio"
    );
    let mut worst: f64 = 0.0;
    let mut bytes = Bytes::new();
    for line in lines(lengths) {
        if bytes.len() != line.length {
            bytes = content(line.length);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let took = runtime.block_on(line.measure(&bytes))?;
        let ratio = took.as_secs_f64() / line.bound().as_secs_f64();
        worst = worst.max(ratio);
        println!(
            "{:>11}{:>9} ms{:>8}{:>8}{:>10.3} s{:>10.3} s{ratio:>9.3}",
            line.length / KIB,
            line.round_trip.as_millis(),
            line.owners,
            line.rate / MBIT,
            line.bound().as_secs_f64(),
            took.as_secs_f64(),
        );
    }
    Ok(worst)
}

fn main() -> ExitCode {
    // `cargo test` does not pass `--bench`.
    let has = |flag| std::env::args().any(|arg| arg == flag);
    let quick = has("--quick") || has("--test") || !has("--bench");
    let lengths = if quick { &LENGTHS[..3] } else { &LENGTHS[..] };
    match run(lengths) {
        Ok(worst) => {
            println!("ratio {worst:.3}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("long_lines: {error}");
            ExitCode::FAILURE
        }
    }
}
