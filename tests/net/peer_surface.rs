//! What every public type of the handles promises by its traits, and what the
//! builder and the keys of downloads take.

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bt_lite::content::{BitfieldError, ManifestError, ParseIdError, ReadError, UnsafeName};
use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::peer::{
    Download, DownloadEvent, DownloadEvents, DownloadKey, DownloadOptions, Peer, PeerBuilder,
    PeerConfig,
};
use bt_lite::protocol::{ContentKey, ProtocolError};
use bt_lite::storage::{
    Catalogue, FilePool, FilePoolStats, FileStamp, FileStorageBuilder, Lost, Partial, Remembered,
    Stored,
};
use bt_lite::tracker::{
    ClientConfig, OwnEvent, OwnEvents, RefusedOwn, TrackerBuilder, TrackerStats,
};
use bt_lite::transport::{Connection, LimitHandle};
use bt_lite::{
    Addr, AddrError, BindError, ConfigError, Content, ContentId, ContentName, DownloadError,
    FileStorage, IoError, MemoryNetwork, MemoryStorage, MemoryTransport, NameError, Progress,
    ShareError, ShareSource, StartError, Storage, StorageError, TcpTransport, TooLong, Tracker,
    TrackerClient, TrackerConfig, TrackerError, Transport, TransportError,
};

use crate::world::{World, named};

#[test]
fn handles_move_between_threads_and_can_be_logged() {
    fn shared<T: Debug + Send + Sync + 'static>() {}
    shared::<Peer>();
    shared::<PeerBuilder>();
    shared::<PeerConfig>();
    shared::<Download>();
    shared::<DownloadEvents>();
    shared::<DownloadEvent>();
    shared::<DownloadKey>();
    shared::<DownloadOptions>();
    shared::<ShareSource>();
    shared::<Progress>();
    shared::<Content>();
    shared::<Tracker>();
    shared::<TrackerBuilder>();
    shared::<TrackerConfig>();
    shared::<TrackerStats>();
    shared::<TrackerClient>();
    shared::<ClientConfig>();
    shared::<OwnEvents>();
    shared::<OwnEvent>();
    shared::<RefusedOwn>();
    shared::<FileStorage>();
    shared::<FileStorageBuilder>();
    shared::<FileStamp>();
    shared::<FilePool>();
    shared::<FilePoolStats>();
    shared::<Catalogue>();
    shared::<Lost>();
    shared::<Remembered>();
    shared::<MemoryStorage>();
    shared::<Partial>();
    shared::<Stored>();
    shared::<TcpTransport>();
    shared::<MemoryNetwork>();
    shared::<MemoryTransport>();
    shared::<LimitHandle>();
    // Each half of a connection has one user.
    fn moved<T: Debug + Send + 'static>() {}
    moved::<Connection>();
}

#[test]
fn errors_are_plain_values() {
    fn plain<T: Clone + PartialEq + Eq + Error + Send + Sync + 'static>() {}
    plain::<ConfigError>();
    plain::<StartError>();
    plain::<ShareError>();
    plain::<DownloadError>();
    plain::<BindError>();
    plain::<TrackerError>();
    plain::<StorageError>();
    plain::<TransportError>();
    plain::<ProtocolError>();
    plain::<AddrError>();
    plain::<NameError>();
    plain::<UnsafeName>();
    plain::<ParseIdError>();
    plain::<TooLong>();
    plain::<IoError>();
    plain::<ManifestError>();
    plain::<BitfieldError>();
    // It has the operating system's error inside, which is none.
    fn error<T: Error + Send + Sync + 'static>() {}
    error::<ReadError>();
}

/// The first cause of this type behind an error.
fn cause<T: Error + Clone + 'static>(error: &dyn Error) -> Option<T> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(cause) = error.downcast_ref::<T>() {
            return Some(cause.clone());
        }
        next = error.source();
    }
    None
}

#[test]
fn errors_have_their_causes_as_sources() {
    let addr: Addr = "memory:a".parse().unwrap();
    let bad_addr = "a b".parse::<Addr>().unwrap_err();
    let wrong = ConfigError::Addr {
        text: "a b".into(),
        source: bad_addr,
    };
    assert_eq!(cause(&wrong), Some(bad_addr));
    assert_eq!(cause(&StartError::Config(wrong)), Some(bad_addr));

    let closed = TransportError::Closed;
    let listen = StartError::Listen {
        addr: addr.clone(),
        source: closed.clone(),
    };
    assert_eq!(cause(&listen), Some(closed.clone()));
    let unreachable = || TrackerError::Unreachable {
        tracker: addr.clone(),
        source: closed.clone(),
    };
    let start = StartError::Tracker(unreachable());
    let share = ShareError::Tracker(unreachable());
    let download = DownloadError::Tracker(unreachable());
    for error in [&start as &dyn Error, &share, &download] {
        assert_eq!(cause(error), Some(closed.clone()), "{error}");
    }

    let read_only = StorageError::ReadOnly;
    let start = StartError::Storage(read_only.clone());
    let download = DownloadError::Storage {
        id: ContentId::of(b"x"),
        chunk: None,
        source: read_only.clone(),
    };
    for error in [&start as &dyn Error, &download] {
        assert_eq!(cause(error), Some(read_only.clone()), "{error}");
    }

    let no_bytes = IoError::from(std::io::Error::from_raw_os_error(5));
    let entropy = StartError::Entropy {
        source: no_bytes.clone(),
    };
    let found = cause::<IoError>(&entropy).unwrap();
    assert_eq!(found, no_bytes);
    assert_eq!(found.raw_os_error(), Some(5));

    let (name, source) = ("..".to_string(), NameError::Dots);
    let share = ShareError::Name {
        name: name.clone(),
        source,
    };
    let download = DownloadError::Name { name, source };
    for error in [&share as &dyn Error, &download] {
        assert_eq!(cause(error), Some(NameError::Dots), "{error}");
        assert!(error.to_string().contains("\"..\""), "{error}");
    }
}

#[test]
fn key_of_a_download_is_made_from_whatever_names_a_content() {
    let (id, name) = (ContentId::of(b"x"), named("film"));
    let (by_id, by_name) = (ContentKey::Id(id), ContentKey::Name(name.clone()));
    let content = Content::new(id, name.clone(), 1);
    let check = |key: DownloadKey| key.check().unwrap();
    let (text, film) = (id.to_string(), "film".to_string());
    for key in [
        id.into(),
        (&id).into(),
        (&content).into(),
        DownloadKey::id(&text),
        DownloadKey::id(text.to_uppercase()),
        by_id.clone().into(),
    ] {
        assert_eq!(check(key), by_id);
    }
    for key in [
        name.clone().into(),
        (&name).into(),
        DownloadKey::name("film"),
        DownloadKey::name(&film),
        DownloadKey::name(film),
        by_name.clone().into(),
    ] {
        assert_eq!(check(key), by_name);
    }
    // What looks like an id can be a name.
    let digits = ContentKey::Name(named(&text));
    assert_eq!(check(DownloadKey::name(&text)), digits);
    assert_eq!(DownloadKey::name("film").to_string(), "film");
}

#[test]
fn text_that_is_no_key_is_kept_until_it_is_checked() {
    let bad = DownloadKey::name("a/b");
    assert_eq!(bad.to_string(), "a/b");
    let source = "a/b".parse::<ContentName>().unwrap_err();
    let name = "a/b".to_string();
    assert_eq!(bad.check(), Err(DownloadError::Name { name, source }));
    // A name is never taken for an id.
    let source = "film".parse::<ContentId>().unwrap_err();
    let text = "film".to_string();
    let wrong = DownloadKey::id("film");
    assert_eq!(wrong.to_string(), "film");
    assert_eq!(wrong.check(), Err(DownloadError::Id { text, source }));
}

/// Each call with an owned and a borrowed text, and with the value itself.
#[tokio::test(start_paused = true)]
async fn every_call_takes_text_and_values() {
    let world = World::memory(1).await;
    let tracker = world.tracker.local_addr();
    let storage = MemoryStorage::new();
    storage.insert(named("stored"), "stored").unwrap();
    let (text, tracker_text) = ("memory:owner".to_string(), tracker.to_string());
    let owner = Peer::builder(world.transport("owner"), storage)
        .tracker(&tracker_text)
        .tracker(tracker.as_str())
        .tracker(tracker)
        .listen(&text)
        .advertise(&text)
        .start()
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "file").unwrap();
    let path_text = path.to_str().unwrap().to_string();
    let file = owner.share(&path).await.unwrap();
    for source in [
        ShareSource::from(&path_text),
        path_text.as_str().into(),
        path_text.clone().into(),
        path.as_path().into(),
        path.clone().into(),
    ] {
        assert_eq!(owner.share(source).await.unwrap(), file);
    }
    let name = "bytes".to_string();
    let bytes = owner.share(ShareSource::bytes(&name, "bytes")).await;
    let bytes = bytes.unwrap();
    for source in [
        ShareSource::bytes("bytes", "bytes"),
        ShareSource::bytes(name, "bytes"),
        ShareSource::bytes(named("bytes"), "bytes"),
        ShareSource::bytes(named("bytes"), "bytes"),
        ShareSource::bytes("x", "bytes").named("bytes"),
    ] {
        assert_eq!(owner.share(source).await.unwrap(), bytes);
    }
    let stored = owner.share(&named("stored")).await.unwrap();
    let again = owner.share(ShareSource::stored("stored")).await.unwrap();
    assert_eq!(again, stored);

    let peer = Peer::builder(world.transport("peer"), MemoryStorage::new());
    let peer = peer.tracker(tracker).start().await.unwrap();
    let options = DownloadOptions::new()
        .owner(&text)
        .owner(text.as_str())
        .owner(owner.local_addr().unwrap());
    let own_name = options.clone().name("own name");
    let got = peer.download_with(&file, own_name).await.unwrap();
    assert_eq!(got.name, named("own name"));
    let another = "another".to_string();
    let options = options.name(&another);
    peer.download_with(bytes.id, options).await.unwrap();
    peer.download(&stored.name).await.unwrap();
    peer.shutdown().await;
    owner.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn wrong_text_is_reported_by_the_call_that_would_use_it() {
    let world = World::memory(1).await;
    let builder = world.builder("peer", MemoryStorage::new());
    let peer = builder.start().await.unwrap();
    let source = "a/b".parse::<ContentName>().unwrap_err();
    let name = "a/b".to_string();
    let wrong = ShareError::Name { name, source };
    for share in [
        ShareSource::bytes("a/b", "x"),
        ShareSource::stored("a/b"),
        ShareSource::bytes("x", "x").named("a/b"),
    ] {
        assert_eq!(peer.share(share).await, Err(wrong.clone()));
    }
    let id = ContentId::of(b"x");
    let name = "a/b".to_string();
    let wrong = DownloadError::Name { name, source };
    let options = DownloadOptions::new().name("a/b").name("good");
    assert_eq!(peer.download_with(id, options).await, Err(wrong));
    let source = "a b".parse::<Addr>().unwrap_err();
    let text = "a b".to_string();
    let wrong = ConfigError::Addr { text, source };
    let options = DownloadOptions::new().owner("a b").owner("memory:good");
    let refused = peer.download_with(id, options).await;
    assert_eq!(refused, Err(wrong.clone().into()));
    let builder = world.builder("other", MemoryStorage::new());
    let refused = builder.tracker("a b".to_string()).start().await;
    assert_eq!(refused.unwrap_err(), StartError::Config(wrong));
    assert_eq!(peer.contents(), []);
    peer.shutdown().await;
}

/// A program may choose its transport and its storage while it runs.
#[tokio::test(start_paused = true)]
async fn builder_takes_transports_and_storages_behind_pointers() {
    let world = World::memory(1).await;
    let transports: [Box<dyn Transport>; 2] = [
        Box::new(world.transport("a")),
        Box::new(Arc::new(world.transport("b")) as Arc<dyn Transport>),
    ];
    for (at, transport) in transports.into_iter().enumerate() {
        let memory = MemoryStorage::new();
        let storage: Arc<dyn Storage> = Arc::new(memory.clone());
        let storage: Box<dyn Storage> = Box::new(storage);
        let peer = Peer::builder(transport, storage);
        let peer = peer.tracker(world.tracker.local_addr());
        let listen = format!("memory:{}", ["a", "b"][at]);
        let peer = peer.listen(listen).start().await.unwrap();
        peer.share(ShareSource::bytes("x", "x")).await.unwrap();
        let shared = world.node(&format!("node-{at}")).await;
        shared.peer.download(named("x")).await.unwrap();
        peer.shutdown().await;
        shared.peer.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn builder_sets_each_field_of_the_configuration() {
    let world = World::memory(1).await;
    let builder = || Peer::builder(world.transport("peer"), MemoryStorage::new());
    let mut swarm = SwarmConfig::default();
    swarm.sources = 7;
    let mut client = ClientConfig::default();
    client.max_contents = 8;
    let one_by_one = builder()
        .owners_wanted(1)
        .max_connections(2)
        .max_connections_per_host(3)
        .max_handshakes(4)
        .max_handshakes_per_host(5)
        .shutdown_timeout(Duration::from_secs(6))
        .swarm(swarm.clone())
        .tracker_client(client.clone());
    let mut config = PeerConfig::default();
    config.owners_wanted = 1;
    config.max_connections = 2;
    config.max_connections_per_host = 3;
    config.max_handshakes = 4;
    config.max_handshakes_per_host = 5;
    config.shutdown_timeout = Duration::from_secs(6);
    config.swarm = swarm;
    config.tracker = client;
    let at_once = builder().config(config);
    assert_eq!(format!("{one_by_one:?}"), format!("{at_once:?}"));
}
