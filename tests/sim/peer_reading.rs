//! A reader at the content's own rate, in virtual time.

use std::io::SeekFrom;
use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::{DownloadError, MemoryStorage, ReaderOptions};
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::{Instant, sleep};

use crate::world::reading::{Setting, download_only, read};
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{World, content, named, soon};

/// A content of 8 MiB in 512 chunks, at 512 KiB per second.
const LENGTH: u64 = 8 << 20;
const RATE: u64 = 512 << 10;

fn setting(shares: &[u64], ms: u64) -> Setting {
    Setting::new(LENGTH, RATE, shares, 1.2, ms)
}

#[tokio::test(start_paused = true)]
async fn reader_at_the_rate_of_the_content_never_waits_and_costs_nothing() {
    for (shares, ms) in [(&[1][..], 200), (&[1; 4], 50)] {
        let setting = setting(shares, ms);
        let without = soon(download_only(&setting)).await;
        let figures = soon(read(&setting, &[(0, LENGTH)])).await;
        assert_eq!(figures.stalls, 0, "{setting:?}: {figures:?}");
        let ratio = figures.end.as_secs_f64() / without.as_secs_f64();
        assert!(ratio < 1.03, "{setting:?}: {ratio} of {without:?}");
    }
}

/// A content for 64 seconds, of owners whose lines are slow.
fn slow_lines(shares: &[u64], ms: u64) -> Setting {
    Setting::new(LENGTH, LENGTH / 64, shares, 1.2, ms)
}

#[tokio::test(start_paused = true)]
async fn reader_never_waits_for_what_a_slow_owner_was_asked_for_first() {
    for ms in [0, 20, 200] {
        let setting = slow_lines(&[2, 1], ms);
        let without = soon(download_only(&setting)).await;
        let figures = soon(read(&setting, &[(0, LENGTH)])).await;
        assert_eq!(figures.stalls, 0, "{setting:?}: {figures:?}");
        let ratio = figures.end.as_secs_f64() / without.as_secs_f64();
        assert!(ratio < 1.03, "{setting:?}: {ratio} of {without:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn seek_takes_two_round_trips_and_a_chunk_at_most() {
    // What is far away is within the readahead as well.
    let places = [0, 6, 2, 7, 1, 5].map(|mib| (mib << 20, 64_000));
    // The manifest comes first on these lines, and does not count as a long way.
    let settings = [
        setting(&[1; 4], 200),
        slow_lines(&[1, 1], 0),
        slow_lines(&[2, 1], 20),
        slow_lines(&[2, 1], 200),
    ];
    for setting in settings {
        let figures = soon(read(&setting, &places)).await;
        let longest = figures.seeks.iter().max().copied().unwrap();
        let bound = setting.seek_bound();
        assert!(longest <= bound, "{longest:?} of {bound:?}: {figures:?}");
    }
}

/// Owners that send 200,000 bytes per second each, and a download that has begun.
async fn slow_world(owners: usize) -> (World, Vec<crate::world::Node>, bytes::Bytes) {
    let world = World::memory(1).await;
    let bytes = content(2_000_000, 1);
    let nodes = world.owners(owners, "film", &bytes).await;
    for number in 0..owners {
        let name = format!("owner-{number}");
        world.network().set_upload_rate(&name, Some(200_000));
        world
            .network()
            .set_latency(&name, Duration::from_millis(20));
    }
    (world, nodes, bytes)
}

#[tokio::test(start_paused = true)]
async fn reader_at_the_end_gets_its_bytes_long_before_the_download_ends() {
    soon(async {
        let (world, _owners, bytes) = slow_world(1).await;
        let node = world.node("reader").await;
        let mut download = node.peer.download(named("film"));
        let mut reader = download.reader();
        let begun = Instant::now();
        reader.seek(SeekFrom::End(-5000)).await.unwrap();
        let mut end = Vec::new();
        reader.read_to_end(&mut end).await.unwrap();
        assert!(end == bytes[bytes.len() - 5000..]);
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        // A reader that does not read ahead only waits.
        let options = ReaderOptions::new().readahead(0).buffer(2);
        let mut patient = download.reader_with(options);
        patient.seek(SeekFrom::Start(1_900_000)).await.unwrap();
        assert_eq!(patient.read_u8().await.unwrap(), bytes[1_900_000]);
        assert!(
            begun.elapsed() > Duration::from_secs(8),
            "{:?}",
            begun.elapsed()
        );
        (&mut download).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dropped_reader_withdraws_what_it_wanted() {
    soon(async {
        let (world, _owners, _) = slow_world(1).await;
        let node = world.node("reader").await;
        let mut download = node.peer.download(named("film"));
        let mut reader = download.reader_with(ReaderOptions::new().readahead(400_000));
        let length = reader.wait_length().await.unwrap();
        reader.seek(SeekFrom::Start(length / 2)).await.unwrap();
        assert!(reader.read_u8().now_or_never().is_none());
        drop(reader);
        sleep(Duration::from_secs(2)).await;
        let chunks = download.verified_chunks().await.unwrap();
        // The usual order begins at the front.
        assert!(chunks.contains(bt_lite::ChunkIndex(5)));
        assert!(!chunks.contains(bt_lite::ChunkIndex(chunks.chunks() / 2 + 20)));
        (&mut download).await.unwrap();
        assert!(download.verified_chunks().await.unwrap().is_complete());
    })
    .await;
}

/// The error of the download that a read fails with.
fn download_error(error: &std::io::Error) -> &DownloadError {
    let inner = error.get_ref().expect("an error of the download");
    inner.downcast_ref().expect("an error of the download")
}

#[tokio::test(start_paused = true)]
async fn reader_hears_that_its_download_is_cancelled_or_the_peer_stops() {
    soon(async {
        let (world, _owners, bytes) = slow_world(1).await;
        let node = world.node("reader").await;
        let download = node.peer.download(named("film"));
        let mut reader = download.reader();
        assert_eq!(reader.read_u8().await.unwrap(), bytes[0]);
        let waits = async {
            reader.seek(SeekFrom::Start(1_500_000)).await.unwrap();
            reader.read_u8().await.unwrap_err()
        };
        let (error, ()) = tokio::join!(waits, async { download.cancel() });
        assert_eq!(download_error(&error), &DownloadError::Cancelled);
        // Nothing keeps the content from being downloaded again.
        let id = download.content().unwrap().id;
        drop(download);
        let again = node.peer.download(id);
        let mut reader = again.reader();
        assert_eq!(reader.wait_length().await.unwrap(), 2_000_000);
        let mut beside = node.peer.reader(&id).await.unwrap();
        let both = async {
            let one = reader.seek(SeekFrom::Start(1_999_999));
            one.await.unwrap();
            let one = reader.read_u8().await.unwrap_err();
            (one, beside.read_to_end(&mut Vec::new()).await.unwrap_err())
        };
        let stop = async {
            tokio::task::yield_now().await;
            node.peer.shutdown().await;
        };
        let ((one, other), ()) = tokio::join!(both, stop);
        assert_eq!(download_error(&one), &DownloadError::ShutDown);
        assert_eq!(download_error(&other), &DownloadError::ShutDown);
        let refused = node.peer.reader(&id).await.unwrap_err();
        assert_eq!(refused, bt_lite::ReaderError::ShutDown);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn reader_of_a_storage_that_fails_gets_its_error() {
    soon(async {
        let (world, _owners, bytes) = slow_world(2).await;
        // A write fails: the download fails, and its readers with it.
        let storage = Troubled::new(Call::Write, 5, Trouble::Fails);
        let peer = world.builder("writer", storage).start().await.unwrap();
        let mut download = peer.download(named("film"));
        let mut reader = download.reader();
        let error = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
        let outcome = (&mut download).await.unwrap_err();
        assert!(matches!(outcome, DownloadError::Storage { .. }));
        assert_eq!(download_error(&error), &outcome);
        // A read fails: only this reader hears of it, and may try again.
        let storage = Troubled::new(Call::Read, 0, Trouble::Fails);
        let builder = world.builder("reader", storage.clone());
        let peer = builder.start().await.unwrap();
        let mut download = peer.download(named("film"));
        (&mut download).await.unwrap();
        let mut reader = download.reader();
        let error = reader.read_u8().await.unwrap_err();
        let source = Troubled::error();
        assert!(matches!(download_error(&error), DownloadError::Storage { source: s, .. } if *s == source));
        storage.mend();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        assert!(all == bytes);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn content_that_falls_asleep_is_read_on() {
    soon(async {
        let (world, owners, bytes) = slow_world(1).await;
        let node = world.node("reader").await;
        let download = node.peer.download(named("film"));
        let mut reader = download.reader();
        assert_eq!(reader.read_u8().await.unwrap(), bytes[0]);
        let content = download.await.unwrap();
        for owner in owners {
            owner.peer.shutdown().await;
        }
        while node.peer.stats().awake > 0 {
            sleep(Duration::from_secs(1)).await;
        }
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert!(rest == bytes[1..]);
        let mut asleep = node.peer.reader(&content.id).await.unwrap();
        asleep.seek(SeekFrom::End(-1)).await.unwrap();
        assert_eq!(asleep.read_u8().await.unwrap(), bytes[1_999_999]);
        assert_eq!(node.peer.stats().awake, 0, "reading wakes nobody");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn chunks_of_an_interrupted_download_are_verified_before_they_are_read() {
    soon(async {
        let (world, _owners, bytes) = slow_world(1).await;
        let storage = MemoryStorage::new();
        let mut swarm = SwarmConfig::default();
        swarm.commit_interval = Duration::from_millis(100);
        let mut config = PeerConfig::default();
        config.swarm = swarm;
        let start = || {
            world
                .builder("reader", storage.clone())
                .config(config.clone())
                .start()
        };
        let peer = start().await.unwrap();
        let download = peer.download(named("film"));
        sleep(Duration::from_secs(5)).await;
        let before = download.verified_chunks().await.unwrap();
        assert!(before.count() > 20 && !before.is_complete());
        drop(download);
        peer.shutdown().await;
        let peer = start().await.unwrap();
        let mut download = peer.download(named("film"));
        let mut reader = download.reader();
        let begun = Instant::now();
        let mut front = vec![0; 20 * (16 << 10)];
        reader.read_exact(&mut front).await.unwrap();
        assert!(front == bytes[..front.len()]);
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "it was here already"
        );
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert!(rest == bytes[front.len()..]);
        (&mut download).await.unwrap();
    })
    .await;
}
