//! A reader of a content that is being downloaded, in virtual time: when its bytes come,
//! and what that costs the download. For tests and benchmarks.

use std::io::SeekFrom;
use std::time::Duration;

use bt_lite::{
    ContentReader, DownloadKey, MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker,
};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::{Instant, sleep_until};

/// How much is read at a time: 16 ms of a content of 1 MiB per second.
const UNIT: u64 = 16 << 10;

/// What is not a wait: tokio's timers fire at whole milliseconds, and an exchange over the
/// network takes some of them.
const TICKS: Duration = Duration::from_millis(3);

/// One reader and its owners.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// The length of the content in bytes, and how many of them are for a second.
    pub(crate) length: u64,
    pub(crate) rate: u64,
    /// How many bytes per second each owner sends.
    pub(crate) owners: Vec<u64>,
    pub(crate) round_trip: Duration,
}

impl Setting {
    /// Owners with these shares, which together send `factor` times the content's rate.
    pub(crate) fn new(length: u64, rate: u64, shares: &[u64], factor: f64, ms: u64) -> Self {
        let all: u64 = shares.iter().sum();
        let of = |share: &u64| (rate as f64 * factor * *share as f64 / all as f64) as u64;
        Self {
            length,
            rate,
            owners: shares.iter().map(of).collect(),
            round_trip: Duration::from_millis(ms),
        }
    }

    /// Two round trips, and a chunk from the fastest owner alone.
    pub(crate) fn seek_bound(&self) -> Duration {
        let geometry = bt_lite::Geometry::of(self.length).unwrap();
        let fastest = self.owners.iter().max().unwrap();
        let chunk = geometry.chunk_len() as f64 / *fastest as f64;
        self.round_trip * 2 + Duration::from_secs_f64(chunk)
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// From the start of the download to its end.
    pub(crate) end: Duration,
    /// From the start of the download to the first byte.
    pub(crate) first_byte: Duration,
    /// How often the reader waited for bytes that were due, after its first byte or the
    /// first one after a seek, and for how long altogether.
    pub(crate) stalls: u32,
    pub(crate) stalled: Duration,
    /// From each seek to its first byte.
    pub(crate) seeks: Vec<Duration>,
    /// Bytes that came twice.
    pub(crate) wasted: u64,
}

struct Scene {
    tracker: Tracker,
    owners: Vec<Peer>,
    peer: Peer,
    bytes: Bytes,
}

impl Scene {
    async fn new(setting: &Setting) -> Self {
        let network = MemoryNetwork::new(1);
        let tracker = Tracker::builder(network.endpoint("tracker"))
            .bind("memory:tracker")
            .await
            .unwrap();
        let peer = |name: &str, seed| {
            Peer::builder(network.endpoint(name), MemoryStorage::new())
                .tracker(tracker.local_addr())
                .listen(format!("memory:{name}").as_str())
                .seed(seed)
                .start()
        };
        let mut bytes = vec![0; setting.length as usize];
        fastrand::Rng::with_seed(setting.length).fill(&mut bytes);
        let bytes = Bytes::from(bytes);
        let mut owners = Vec::new();
        for (number, rate) in setting.owners.iter().enumerate() {
            let name = format!("owner-{number}");
            let owner = peer(&name, number as u64 + 10).await.unwrap();
            let source = ShareSource::bytes("film", bytes.clone());
            owner.share(source).await.unwrap();
            network.set_upload_rate(&name, Some(*rate));
            network.set_latency(&name, setting.round_trip / 2);
            owners.push(owner);
        }
        let peer = peer("reader", 1).await.unwrap();
        Self {
            tracker,
            owners,
            peer,
            bytes,
        }
    }

    async fn close(self) {
        self.peer.shutdown().await;
        for owner in self.owners {
            owner.shutdown().await;
        }
        self.tracker.shutdown().await;
    }
}

/// Downloads without a reader, and returns how long it takes.
pub(crate) async fn download_only(setting: &Setting) -> Duration {
    let scene = Scene::new(setting).await;
    let begun = Instant::now();
    scene
        .peer
        .download(DownloadKey::name("film"))
        .await
        .unwrap();
    let end = begun.elapsed();
    scene.close().await;
    end
}

/// Downloads, and reads at the content's rate from the start: each of the `parts`, a
/// position and a length, one after the other.
pub(crate) async fn read(setting: &Setting, parts: &[(u64, u64)]) -> Figures {
    let scene = Scene::new(setting).await;
    let mut download = scene.peer.download(DownloadKey::name("film"));
    let reader = download.reader();
    let begun = Instant::now();
    let ended = async {
        (&mut download).await.unwrap();
        begun.elapsed()
    };
    let (mut figures, end) = tokio::join!(play(setting, reader, &scene.bytes, parts), ended);
    figures.end = end;
    figures.wasted = download.progress().wasted;
    drop(download);
    scene.close().await;
    figures
}

/// Downloads with so many readers, which begin at as many places and read on to the end,
/// and returns how long the download takes.
#[allow(dead_code)] // Each user of this file has its own needs.
pub(crate) async fn read_together(setting: &Setting, readers: u64) -> Duration {
    let scene = Scene::new(setting).await;
    let mut download = scene.peer.download(DownloadKey::name("film"));
    let begun = Instant::now();
    let plays = (0..readers).map(|number| {
        let from = setting.length / readers * number;
        let parts = [(from, setting.length - from)];
        let (reader, bytes) = (download.reader(), &scene.bytes);
        async move { play(setting, reader, bytes, &parts).await }
    });
    let plays: Vec<_> = plays.collect();
    let ended = async {
        (&mut download).await.unwrap();
        begun.elapsed()
    };
    let (end, _) = tokio::join!(ended, futures::future::join_all(plays));
    drop(download);
    scene.close().await;
    end
}

async fn play(
    setting: &Setting,
    mut reader: ContentReader,
    bytes: &[u8],
    parts: &[(u64, u64)],
) -> Figures {
    let mut figures = Figures::default();
    let mut buffer = vec![0; UNIT as usize];
    for (at, &(from, len)) in parts.iter().enumerate() {
        let sought = Instant::now();
        reader.seek(SeekFrom::Start(from)).await.unwrap();
        reader.read_exact(&mut buffer[..1]).await.unwrap();
        assert_eq!(buffer[0], bytes[from as usize]);
        match at {
            0 => figures.first_byte = sought.elapsed(),
            _ => figures.seeks.push(sought.elapsed()),
        }
        let mut begun = Instant::now();
        let (mut next, end) = (from + 1, from + len);
        while next < end {
            let part = &mut buffer[..UNIT.min(end - next) as usize];
            let taken = next + part.len() as u64 - from;
            let due = begun + Duration::from_secs_f64(taken as f64 / setting.rate as f64);
            sleep_until(due).await;
            reader.read_exact(part).await.unwrap();
            assert!(*part == bytes[next as usize..][..part.len()], "wrong bytes");
            next += part.len() as u64;
            let late = due.elapsed();
            if late > TICKS {
                figures.stalls += 1;
                figures.stalled += late;
                begun += late;
            }
        }
    }
    figures
}
