//! How much arrives in vain when several owners have all of a content, in virtual time.

use std::time::Duration;

use tokio::time::Instant;

use crate::world::reading::{Setting, download_only};
use crate::world::{World, content, named, soon};

const MB: u64 = 1_000_000;

/// How many round trips a download may take beyond the time that the owners need to send:
/// to begin, to end, and for the pauses of lines that carry little at a time.
const ROUND_TRIPS: u32 = 6;

/// Owners that have everything, with these upload rates in bytes per second.
#[derive(Debug)]
struct Owners {
    len: usize,
    rates: &'static [u64],
    latency: Duration,
    seed: u64,
}

/// How many bytes arrive in vain, and how long it takes.
async fn download(setting: &Owners) -> (u64, Duration) {
    let world = World::memory(setting.seed).await;
    let bytes = content(setting.len, setting.seed);
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
    let expected = setting.len as u64 + progress.wasted;
    assert_eq!(progress.downloaded, expected, "{setting:?}");
    (progress.wasted, start.elapsed())
}

/// Downloads, and checks that next to nothing comes twice, and that nobody is waited for.
async fn downloads_once(setting: Owners) {
    let (wasted, took) = download(&setting).await;
    let figures = format!("{setting:?}: {wasted} {took:?}");
    assert!(wasted <= setting.len as u64 / 20, "{figures}");
    // Nor does it take longer for that: the slow ones do not hold up the others.
    let sum = setting.rates.iter().sum::<u64>() as f64;
    let ideal = Duration::from_secs_f64(1.1 * setting.len as f64 / sum);
    assert!(
        took <= ideal + ROUND_TRIPS * 2 * setting.latency,
        "{figures}"
    );
}

#[tokio::test(start_paused = true)]
async fn equal_owners_over_fast_lines_send_little_twice() {
    for seed in 1..=5 {
        for (rates, ms) in [
            (&[100 * MB; 2], 0),
            (&[100 * MB; 2], 1),
            (&[200 * MB; 2], 1),
            (&[100 * MB; 2], 20),
        ] {
            downloads_once(Owners {
                len: 8 << 20,
                rates,
                latency: Duration::from_millis(ms),
                seed,
            })
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn owners_of_different_rates_send_little_twice() {
    for rates in [
        &[100 * MB, 20 * MB][..],
        &[10 * MB, MB],
        &[50 * MB, 50 * MB, 50 * MB, 5 * MB],
    ] {
        for (len, latency) in [(8 << 20, 1), (8 << 20, 20), (1 << 20, 20)] {
            downloads_once(Owners {
                len,
                rates,
                latency: Duration::from_millis(latency),
                seed: 1,
            })
            .await;
        }
    }
}

/// What slow owners were asked for before it was known how slow they are is taken over
/// from them, though their lines may be full of it.
#[tokio::test(start_paused = true)]
async fn owners_over_slow_lines_hold_up_nobody() {
    let length = 8 << 20;
    for shares in [&[8, 8, 4, 4, 2, 2, 1, 1][..], &[8, 4, 2, 1], &[1; 8]] {
        for ms in [0, 20, 200] {
            let setting = Setting::new(length, length / 64, shares, 1.2, ms);
            let took = soon(download_only(&setting)).await;
            let sum = setting.owners.iter().sum::<u64>() as f64;
            let ratio = took.as_secs_f64() / (length as f64 / sum);
            // The slowest owner needs 3 seconds for a block.
            assert!(ratio < 1.15, "{setting:?}: {ratio}");
        }
    }
}

/// Of a short content, a slow owner was asked for half before anything came. The wait for its
/// second block tells how slow it is, so the other one takes all of that over in time.
#[tokio::test(start_paused = true)]
async fn slow_owner_holds_up_a_short_content_by_little() {
    for rates in [&[10 * MB, MB / 10], &[10 * MB, MB / 5]] {
        for seed in 1..=2 {
            let with = |rates| Owners {
                len: 60 * (64 << 10),
                rates,
                latency: Duration::from_millis(50),
                seed,
            };
            let (_, alone) = download(&with(&rates[..1])).await;
            let (wasted, took) = download(&with(rates)).await;
            let figures = format!("{rates:?} {seed}: {wasted} {took:?}, {alone:?} without");
            assert!(took <= alone.mul_f64(1.1), "{figures}");
            assert!(wasted <= 4 * (16 << 10), "{figures}");
        }
    }
}
