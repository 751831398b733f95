//! A cluster on one machine: Redis, three trackers over it, an owner and some peers. One of the
//! trackers is killed in the middle, another one is drained, and the transfer goes on.
//!
//! ```text
//! cargo run --release --features redis --example cluster
//! ```
//!
//! It needs `redis-server` on the PATH, and the example `tracker` beside it, which it has cargo
//! build if cargo has started it. It prints what happens, and stops everything at the end.

mod common;
#[path = "cluster/programs.rs"]
mod programs;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bt_lite::tracker::ClientConfig;
use bt_lite::{Addr, Download, MemoryStorage, Peer, PeerConfig, RateLimits, ShareSource};
use bt_lite::{ContentId, TcpTransport};
use common::{Outcome, print_line};
use programs::{Redis, TrackerProgram, Workspace};
use tokio::time::sleep;

/// How many trackers there are.
const TRACKERS: usize = 3;

/// How many peers download from the beginning. One more comes when a tracker is gone.
const PEERS: usize = 4;

/// The length of the content, in bytes.
const LENGTH: usize = 12 << 20;

/// How fast the owner sends, in bytes per second, so that there is a middle.
const UPLOAD: u64 = 4 << 20;

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() -> ExitCode {
    common::exit("cluster", run().await)
}

async fn run() -> Outcome<()> {
    let interrupted = common::interrupt()?;
    // What is started stops when this is dropped, whatever has happened.
    let workspace = Workspace::new()?;
    tokio::select! {
        shown = show(&workspace) => shown,
        () = interrupted => Err("interrupted".into()),
    }
}

async fn show(workspace: &Workspace) -> Outcome<()> {
    let redis = Redis::start(workspace)?;
    print_line(format_args!("redis at {}", redis.url()))?;
    let mut trackers = Vec::new();
    for number in 0..TRACKERS {
        let tracker = TrackerProgram::start(workspace, &redis)?;
        print_line(format_args!(
            "tracker {number} at {}, its figures at {}/metrics",
            tracker.addr, tracker.admin
        ))?;
        trackers.push(tracker);
    }
    let addrs: Vec<Addr> = trackers
        .iter()
        .map(|tracker| tracker.addr.clone())
        .collect();

    let owner = peer(&addrs, RateLimits::default().upload(UPLOAD)).await?;
    let mut bytes = vec![0; LENGTH];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    let content = owner.share(ShareSource::bytes("film", bytes)).await?;
    print_line(format_args!("the owner shares {}", content.id))?;
    let begun = Instant::now();
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        let peer = peer(&addrs, RateLimits::default()).await?;
        let download = peer.download(&content);
        peers.push((peer, download));
    }

    until_at(&peers, 0.25).await?;
    let (clients, at) = busiest(&trackers).await?;
    let mut killed = trackers.remove(at);
    killed.kill()?;
    print_line(format_args!(
        "{:.1} s: a quarter is here, and the tracker at {} is killed, which had {clients} clients",
        begun.elapsed().as_secs_f64(),
        killed.addr,
    ))?;

    until_at(&peers, 0.5).await?;
    let (clients, at) = busiest(&trackers).await?;
    let mut drained = trackers.remove(at);
    drained.terminate()?;
    print_line(format_args!(
        "{:.1} s: half is here, and the tracker at {}, which has {clients} clients, is told to end",
        begun.elapsed().as_secs_f64(),
        drained.addr,
    ))?;
    drained.ended().await?;
    print_line("it has let its clients go, and has ended")?;

    let late = peer(&addrs, RateLimits::default()).await?;
    let download = late.download(content.id);
    peers.push((late, download));
    print_line("one more peer asks the last tracker")?;
    for (number, (peer, download)) in peers.iter_mut().enumerate() {
        let got = download.await?;
        // The id is the hash of all bytes, and each of them was checked by it.
        check(got.id, content.id)?;
        let served = peer.contents().len();
        print_line(format_args!(
            "{:.1} s: peer {number} has everything, verified, and offers {served} content",
            begun.elapsed().as_secs_f64(),
        ))?;
    }
    for (peer, _) in peers {
        peer.shutdown().await;
    }
    owner.shutdown().await;
    for mut tracker in trackers {
        tracker.terminate()?;
        tracker.ended().await?;
    }
    drop(redis);
    print_line("everything has stopped")
}

/// A peer that uses one of the trackers, and another one when that is gone.
async fn peer(trackers: &[Addr], limits: RateLimits) -> Outcome<Peer> {
    let config = PeerConfig::default().tracker(ClientConfig::default().one_store(true));
    let mut builder = Peer::builder(TcpTransport::new(), MemoryStorage::new())
        .config(config)
        .limits(limits)
        .listen("127.0.0.1:0");
    for tracker in trackers {
        builder = builder.tracker(tracker);
    }
    Ok(builder.start().await?)
}

/// Waits until all downloads together are so far.
async fn until_at(peers: &[(Peer, Download)], share: f64) -> Outcome<()> {
    let wanted = share * (LENGTH * peers.len()) as f64;
    loop {
        let progress = peers.iter().map(|(_, download)| download.progress());
        let verified: u64 = progress.map(|progress| progress.verified_bytes).sum();
        if verified as f64 >= wanted {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

/// Which of the trackers has most clients, and how many.
async fn busiest(trackers: &[TrackerProgram]) -> Outcome<(u64, usize)> {
    let mut most = (0, 0);
    for (at, tracker) in trackers.iter().enumerate() {
        most = most.max((tracker.clients().await?, at));
    }
    Ok(most)
}

fn check(got: ContentId, wanted: ContentId) -> Outcome<()> {
    match got == wanted {
        true => Ok(()),
        false => Err(format!("{got} arrived instead of {wanted}").into()),
    }
}
