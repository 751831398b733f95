//! Peers whose tracker is away, who they are, and which addresses they may name.

use std::time::Duration;

use async_trait::async_trait;
use bt_lite::protocol::PeerId;
use bt_lite::transport::{Connection, Listener};
use bt_lite::{
    Addr, ConfigError, ContentId, DownloadError, DownloadOptions, MemoryStorage, MemoryTransport,
    Peer, ShareSource, StartError, TrackerError, Transport, TransportError,
};
use tokio::time::{Instant, sleep};

use crate::world::{World, content, named, soon};

const LEN: usize = 20 * (16 << 10);

#[tokio::test(start_paused = true)]
async fn content_is_shared_at_once_though_the_tracker_is_away_and_told_to_it_later() {
    for silent in [false, true] {
        let world = World::memory(1).await;
        match silent {
            true => world.network().stall("tracker"),
            false => world.network().refuse("tracker", true),
        }
        let builder = world.builder("owner", MemoryStorage::new());
        let owner = builder.trackers_optional().start().await.unwrap();
        let bytes = content(LEN, 1);
        let begun = Instant::now();
        let source = ShareSource::bytes(named("x"), bytes.clone());
        let shared = soon(owner.share(source)).await.unwrap();
        assert!(begun.elapsed() <= Duration::from_secs(2), "{silent}");
        assert_eq!(owner.contents(), std::slice::from_ref(&shared));

        // Who knows the owner gets it at once.
        let storage = MemoryStorage::new();
        let builder = world.builder("leecher", storage.clone());
        let leecher = builder.trackers_optional().start().await.unwrap();
        let options = DownloadOptions::new().owner("memory:owner");
        let begun = Instant::now();
        soon(leecher.download_with(shared.id, options))
            .await
            .unwrap();
        assert!(begun.elapsed() < Duration::from_secs(3), "{silent}");

        match silent {
            true => world.network().resume("tracker"),
            false => world.network().refuse("tracker", false),
        }
        soon(world.listed(&shared, 2)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_no_tracker_will_ever_take_is_not_shared() {
    let world = World::memory(1).await;
    let mut config = bt_lite::PeerConfig::default();
    config.tracker.max_contents = 1;
    let builder = world.builder("owner", MemoryStorage::new()).config(config);
    let owner = builder.trackers_optional().start().await.unwrap();
    let source = |name| ShareSource::bytes(named(name), content(10, name.len() as u64));
    owner.share(source("x")).await.unwrap();
    let error = owner.share(source("second")).await.unwrap_err();
    let expected = TrackerError::TooManyContents { max: 1 };
    assert_eq!(error, bt_lite::ShareError::Tracker(expected));
    assert_eq!(owner.contents().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn peers_with_the_same_seed_are_different_peers() {
    let world = World::memory(1).await;
    let peer = |name: &str| {
        let peer = Peer::builder(world.transport(name), MemoryStorage::new());
        peer.tracker(world.tracker.local_addr())
            .listen(world.at(name))
            .seed(7)
    };
    let owner = peer("owner").start().await.unwrap();
    let source = ShareSource::bytes(named("x"), content(LEN, 1));
    owner.share(source).await.unwrap();
    let leecher = peer("leecher").start().await.unwrap();
    assert_ne!(owner.id(), leecher.id());
    soon(leecher.download(named("x"))).await.unwrap();
    let named = PeerId([5; 16]);
    assert_eq!(peer("third").id(named).start().await.unwrap().id(), named);
}

#[tokio::test(start_paused = true)]
async fn address_that_the_transport_cannot_use_is_an_error_at_once() {
    let world = World::memory(1).await;
    let unusable: Addr = "127.0.0.1".parse().unwrap();
    let begun = Instant::now();
    let leecher = world.node("leecher").await;
    let options = DownloadOptions::new()
        .owner(world.at("leecher"))
        .owner(unusable.clone());
    let id = ContentId::of(b"x");
    let error = soon(leecher.peer.download_with(id, options)).await;
    let error = error.unwrap_err();
    let DownloadError::Owner {
        addr,
        source: TransportError::Address { .. },
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(addr, unusable);

    let builder = || {
        world
            .builder("other", MemoryStorage::new())
            .trackers_optional()
    };
    let error = builder().tracker(unusable.clone()).start().await;
    let error = error.unwrap_err();
    let StartError::Tracker(TrackerError::Unreachable { tracker, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!(*tracker, unusable);
    let error = builder().advertise(unusable).start().await.unwrap_err();
    let advertise = matches!(&error, StartError::Config(ConfigError::Advertise { .. }));
    assert!(advertise, "{error}");
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// A transport in which `memory:alias` is a name of `memory:owner`.
struct Named(MemoryTransport);

#[async_trait]
impl Transport for Named {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        self.0.connect(addr).await
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        self.0.listen(addr).await
    }

    async fn resolve(&self, addr: &Addr) -> Result<Vec<Addr>, TransportError> {
        // As a resolver takes some time.
        sleep(Duration::from_millis(20)).await;
        match addr.as_str() {
            "memory:alias" => Ok(vec!["memory:owner".parse().unwrap()]),
            _ => Ok(vec![addr.clone()]),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn advertised_name_is_looked_up_and_a_tracker_that_asks_for_the_source_lists_it() {
    let world = World::memory(1).await;
    let transport = Named(world.network().endpoint("owner"));
    let owner = Peer::builder(transport, MemoryStorage::new())
        .tracker(world.tracker.local_addr())
        .listen("memory:owner")
        .advertise("memory:alias")
        .start()
        .await
        .unwrap();
    let source = ShareSource::bytes(named("x"), content(LEN, 1));
    let shared = owner.share(source).await.unwrap();
    soon(world.listed(&shared, 1)).await;
    let leecher = world.node("leecher").await;
    soon(leecher.peer.download(named("x"))).await.unwrap();
}
