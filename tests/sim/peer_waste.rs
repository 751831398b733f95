//! How much arrives in vain when several owners have all of a content, in virtual time.

use std::time::Duration;

use tokio::time::Instant;

use crate::world::{World, content, named, soon};

const MB: u64 = 1_000_000;

/// How many round trips a download may take beyond the time that the owners need to send:
/// to begin, to end, and for the pauses of lines that carry little at a time.
const ROUND_TRIPS: u32 = 6;

/// Owners that have everything, with these upload rates in bytes per second.
struct Setting {
    len: usize,
    rates: &'static [u64],
    latency: Duration,
}

/// How many bytes arrive in vain, and how long it takes.
async fn download(setting: &Setting) -> (u64, Duration) {
    let world = World::memory(1).await;
    let bytes = content(setting.len, 1);
    let mut owners = Vec::new();
    for (index, rate) in setting.rates.iter().enumerate() {
        let name = format!("owner-{index}");
        world.network().set_latency(&name, setting.latency);
        let owner = world.node(&name).await;
        owner.share("x", &bytes).await;
        world.network().set_upload_rate(&name, Some(*rate));
        owners.push(owner);
    }
    let peer = world.node("peer").await;
    let start = Instant::now();
    let mut download = peer.peer.download(named("x"));
    soon(&mut download).await.unwrap();
    let progress = download.progress();
    assert_eq!(
        progress.downloaded,
        setting.len as u64 + progress.wasted,
        "{:?}",
        setting.rates
    );
    (progress.wasted, start.elapsed())
}

/// Owners that have all of it send next to nothing twice, however fast they are: what is
/// asked of one of them is on its way when another one has nothing left to do.
#[tokio::test(start_paused = true)]
async fn owners_of_all_of_it_send_little_twice() {
    for rates in [
        &[100 * MB, 100 * MB][..],
        &[100 * MB, 20 * MB],
        &[10 * MB, MB],
        &[50 * MB, 50 * MB, 50 * MB, 5 * MB],
    ] {
        for (len, latency) in [(8 << 20, 1), (8 << 20, 20), (1 << 20, 20)] {
            let latency = Duration::from_millis(latency);
            let setting = Setting {
                len,
                rates,
                latency,
            };
            let (wasted, took) = download(&setting).await;
            let setting = format!("{len} {rates:?} {latency:?}: {wasted} {took:?}");
            assert!(wasted <= len as u64 / 20, "{setting}");
            // Nor does it take longer for that: the slow ones do not hold up the others.
            let sum = rates.iter().sum::<u64>() as f64;
            let ideal = Duration::from_secs_f64(1.1 * len as f64 / sum);
            assert!(took <= ideal + ROUND_TRIPS * 2 * latency, "{setting}");
        }
    }
}
