//! The process that is attacked. It does what it is told, line by line, and says what came of it.

use std::io::{BufRead, Write};
use std::time::Instant;

use bt_lite::{Content, ContentId, DownloadOptions, RateLimits};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};

use crate::Outcome;
use crate::setting::Setting;
use crate::world::strangers::{Answers, ClaimedManifest, FalseOwners};
use crate::world::{Node, World, content, named};

/// What the honest owner among liars sends, in bytes per second, and the length of the content.
const RATE: u64 = 16 << 20;
const LENGTH: usize = 32 << 20;
const LIARS: u64 = 63;

/// CPU seconds of all threads of this process.
fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

fn say(line: &str) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}

pub(crate) fn run(setting: &Setting) -> Outcome<()> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (world, owner, shared) = runtime.block_on(async {
        let world = World::tcp().await;
        let owner = world.node("owner").await;
        let shared = owner.share("x", &content(setting.mib << 20, 1)).await;
        (world, owner, shared)
    });
    say(&format!("{} {} {}", owner.addr(), shared.id, shared.length));
    for line in std::io::stdin().lock().lines() {
        match line?.as_str() {
            "cpu" => say(&cpu_seconds().to_string()),
            "fetch" => say(&fetch(&runtime, &world, &owner, &shared).to_string()),
            "liars" => say(&among_liars(&runtime, LIARS).to_string()),
            "no liars" => say(&among_liars(&runtime, 0).to_string()),
            other => return Err(format!("what is {other}?").into()),
        }
    }
    Ok(())
}

/// Fetches everything from the owner. Returns CPU seconds.
fn fetch(runtime: &Runtime, world: &World, owner: &Node, shared: &Content) -> f64 {
    runtime.block_on(async {
        let before = cpu_seconds();
        let leecher = world.node("leecher").await;
        let options = DownloadOptions::new().owner(owner.addr());
        let download = leecher.peer.download_with(shared.id, options);
        download.await.unwrap();
        let took = cpu_seconds() - before;
        leecher.peer.shutdown().await;
        took
    })
}

/// Fetches from an honest owner and so many liars. Returns seconds.
fn among_liars(runtime: &Runtime, liars: u64) -> f64 {
    runtime.block_on(async {
        let (world, bytes) = (World::tcp().await, content(LENGTH, 2));
        let owner = world.node("owner").await;
        let limits = RateLimits::default().upload(RATE);
        owner.peer.set_rate_limits(limits).unwrap();
        owner.share("x", &bytes).await;
        let shared = Content::new(ContentId::of(&bytes), named("x"), LENGTH as u64);
        let lies = Answers::Lies(ClaimedManifest::of(&bytes), bytes.clone(), |_| true);
        let liars = FalseOwners::list(&world, liars, &shared, lies).await;
        let leecher = world.node("leecher").await;
        let options = DownloadOptions::new().owner(owner.addr());
        let options = liars
            .addrs
            .iter()
            .fold(options, |options, addr| options.owner(addr));
        let begun = Instant::now();
        let download = leecher.peer.download_with(shared.id, options);
        download.await.unwrap();
        let took = begun.elapsed().as_secs_f64();
        leecher.peer.shutdown().await;
        owner.peer.shutdown().await;
        took
    })
}
