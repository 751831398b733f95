//! Whole transfers over lines that lose, repeat and reorder datagrams: each arrives.

use std::sync::atomic::Ordering;

use bt_lite::{DownloadOptions, MemoryStorage, Peer, ShareSource};

use crate::lossy::{Line, Weather};
use crate::members::{Members, soon};

/// The length of the content in bytes: some hundreds of datagrams.
const LENGTH: usize = 512 << 10;

/// Fetches a content over a line, of either side of which this is the weather.
async fn expect_every_byte(weather: Weather, seed: u64) -> Line {
    let members = Members::by_secret();
    let owner = Peer::builder(members.quic(), MemoryStorage::new())
        .listen("127.0.0.1:0")
        .start()
        .await
        .unwrap();
    let mut bytes = vec![0; LENGTH];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    let source = ShareSource::bytes("film", bytes.clone());
    let content = owner.share(source).await.unwrap();

    let to = owner.local_addr().unwrap().socket_addr().unwrap();
    let line = Line::to(to, weather, seed).await;
    let storage = MemoryStorage::new();
    let leecher = Peer::builder(members.quic(), storage.clone());
    let leecher = leecher.start().await.unwrap();
    let options = DownloadOptions::new().owner(line.addr);
    let fetched = soon(leecher.download_with(content.id, options))
        .await
        .unwrap();
    assert_eq!(fetched.id, content.id);
    assert!(storage.bytes(&fetched.name).unwrap() == bytes);
    // All of it came over the line.
    assert!(line.counts.bytes.load(Ordering::Relaxed) > LENGTH as u64);
    leecher.shutdown().await;
    owner.shutdown().await;
    line
}

async fn expect_every_byte_with_loss(loss: f64) {
    let weather = Weather {
        loss,
        ..Weather::default()
    };
    let line = expect_every_byte(weather, 1).await;
    assert!(line.counts.lost.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn every_byte_arrives_with_a_loss_of_1_percent() {
    expect_every_byte_with_loss(0.01).await;
}

#[tokio::test]
async fn every_byte_arrives_with_a_loss_of_5_percent() {
    expect_every_byte_with_loss(0.05).await;
}

#[tokio::test]
async fn every_byte_arrives_with_a_loss_of_20_percent() {
    expect_every_byte_with_loss(0.2).await;
}

#[tokio::test]
async fn every_byte_arrives_once_although_datagrams_overtake_each_other() {
    let weather = Weather {
        reorder: 0.2,
        ..Weather::default()
    };
    let line = expect_every_byte(weather, 2).await;
    assert!(line.counts.reordered.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn every_byte_arrives_once_although_datagrams_arrive_twice() {
    let weather = Weather {
        repeat: 0.5,
        ..Weather::default()
    };
    let line = expect_every_byte(weather, 3).await;
    assert!(line.counts.repeated.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn every_byte_arrives_in_all_weathers_at_once() {
    let weather = Weather {
        loss: 0.05,
        reorder: 0.1,
        repeat: 0.1,
        ..Weather::default()
    };
    expect_every_byte(weather, 4).await;
}
