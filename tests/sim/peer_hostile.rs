//! Peers that break the protocol: what they can use up is bounded, they are told
//! the reason where the protocol says so, and others are served.

use std::time::Duration;

use bt_lite::content::BlockRange;
use bt_lite::peer::PeerConfig;
use bt_lite::protocol::limits::{FRAME_TIMEOUT, HANDSHAKE_TIMEOUT};
use bt_lite::protocol::{ChannelId, Frame, Hello, LinkCookie, PeerId, PeerMessage, RefuseReason};
use bt_lite::transport::{Connection, Listener};
use bt_lite::{Addr, ChunkIndex, Content, ContentId, DownloadError, StallReason, Transport};
use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::time::{Instant, sleep};

use crate::world::{Node, World, alive_tasks, content, named, soon, tasks_settle, wire};

const LEN: usize = 60 * (16 << 10);

/// One end of a link that a test drives by hand.
pub(crate) struct Raw(pub(crate) Connection);

impl Raw {
    pub(crate) async fn connect(world: &World, name: &str, addr: &Addr) -> Self {
        let connection = world.network().endpoint(name).connect(addr).await;
        Self(connection.expect("it listens"))
    }

    /// A link that has shaken hands, and has read what the other side has.
    pub(crate) async fn link(
        world: &World,
        name: &str,
        owner: &Node,
        id: ContentId,
        peer: u8,
    ) -> Self {
        let mut raw = Self::connect(world, name, &owner.addr()).await;
        raw.greet(id, peer).await;
        assert!(matches!(raw.hear().await, Some(PeerMessage::Hello(_))));
        assert_eq!(raw.hear().await, Some(PeerMessage::HaveAll));
        raw
    }

    pub(crate) async fn say(&mut self, message: PeerMessage) {
        let frame = wire::frame(message);
        self.0.sink.send(frame).await.expect("it is sent");
    }

    /// Says Hello, and opens a link.
    pub(crate) async fn greet(&mut self, content: ContentId, peer: u8) {
        self.say(hello(peer)).await;
        self.say(PeerMessage::Open(content)).await;
    }

    /// The next message, or `None` at the end, however the link ended.
    pub(crate) async fn hear(&mut self) -> Option<PeerMessage> {
        let frame = soon(self.0.stream.next()).await?.ok()?;
        Some(wire::message(frame))
    }

    /// Reads to the end of the link, and returns the last message.
    pub(crate) async fn last_words(&mut self) -> Option<PeerMessage> {
        let mut last = None;
        while let Some(message) = self.hear().await {
            last = Some(message);
        }
        last
    }
}

pub(crate) fn hello(peer: u8) -> PeerMessage {
    let cookie = LinkCookie([0; 16]);
    PeerMessage::Hello(Hello::new(PeerId([peer; 16]), None, cookie))
}

pub(crate) fn request(chunk: u32, offset: u32, len: u32) -> PeerMessage {
    PeerMessage::Request(BlockRange {
        chunk: ChunkIndex(chunk),
        offset,
        len,
    })
}

pub(crate) async fn world_with_owner(config: PeerConfig) -> (World, Node, Content, Bytes) {
    let world = World::memory(1).await;
    let owner = world.node_with("owner", config).await;
    let bytes = content(LEN, 1);
    let content = owner.share("x", &bytes).await;
    (world, owner, content, bytes)
}

pub(crate) async fn serves_others(world: &World, bytes: &Bytes) {
    let leecher = world.node("leecher").await;
    soon(leecher.peer.download(named("x"))).await.unwrap();
    assert_eq!(leecher.bytes("x").unwrap(), *bytes);
    leecher.peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn garbage_instead_of_a_hello_ends_the_connection() {
    let (world, owner, _, bytes) = world_with_owner(PeerConfig::default()).await;
    let before = alive_tasks();
    let frames = [
        Frame::head("GET / HTTP/1.1"),
        Frame::default(),
        Frame::head(vec![0xff; 1000]),
        Frame {
            head: Bytes::new(),
            body: vec![0; 1000].into(),
        },
        wire::frame(PeerMessage::KeepAlive),
        wire::frame(request(0, 0, 1)),
        PeerMessage::Refuse(RefuseReason::Busy).encode(ChannelId::SESSION),
    ];
    for frame in frames {
        let mut raw = Raw::connect(&world, "bad", &owner.addr()).await;
        raw.0.sink.send(frame).await.unwrap();
        assert_eq!(raw.hear().await, None);
        // Later messages have no effect.
        let _ = raw.0.sink.send(wire::frame(hello(1))).await;
    }
    tasks_settle(before).await;
    serves_others(&world, &bytes).await;
}

#[tokio::test(start_paused = true)]
async fn connection_without_a_hello_is_closed_in_time() {
    let (world, owner, _, bytes) = world_with_owner(PeerConfig::default()).await;
    let mut raw = Raw::connect(&world, "bad", &owner.addr()).await;
    let begun = Instant::now();
    assert_eq!(raw.hear().await, None);
    let late = begun.elapsed().saturating_sub(HANDSHAKE_TIMEOUT);
    assert!(late < Duration::from_millis(10), "{late:?}");
    assert!(begun.elapsed() >= HANDSHAKE_TIMEOUT);
    serves_others(&world, &bytes).await;
}

#[tokio::test(start_paused = true)]
async fn refusals_give_the_reason() {
    let (world, owner, _, _) = world_with_owner(PeerConfig::default()).await;
    let mut other_version = wire::frame(hello(1));
    let mut head = other_version.head.to_vec();
    // Behind the type, the channel and the mark of the protocol.
    head[12] += 1;
    other_version.head = head.into();
    let cookie = LinkCookie([0; 16]);
    let itself = PeerMessage::Hello(Hello::new(owner.peer.id(), None, cookie));
    for (frame, reason) in [
        (other_version, RefuseReason::Version),
        (wire::frame(itself), RefuseReason::SelfConnection),
    ] {
        let mut raw = Raw::connect(&world, "bad", &owner.addr()).await;
        raw.0.sink.send(frame).await.unwrap();
        assert_eq!(raw.hear().await, Some(PeerMessage::Refuse(reason)));
        assert_eq!(raw.hear().await, None);
    }
    let mut raw = Raw::connect(&world, "bad", &owner.addr()).await;
    raw.greet(ContentId::of(b"other"), 1).await;
    assert!(matches!(raw.hear().await, Some(PeerMessage::Hello(_))));
    let unknown = PeerMessage::Refuse(RefuseReason::UnknownContent);
    assert_eq!(raw.hear().await, Some(unknown));
    assert_eq!(raw.hear().await, None);
}

#[tokio::test(start_paused = true)]
async fn breach_on_a_link_ends_only_that_link() {
    let (world, owner, content, bytes) = world_with_owner(PeerConfig::default()).await;
    let before = alive_tasks();
    let id = content.id;
    let breaches = [
        hello(1),
        PeerMessage::Open(id),
        request(u32::MAX, u32::MAX, 1),
        PeerMessage::Have(ChunkIndex(60)),
        PeerMessage::Bitfield(vec![0xff; 9].into()),
        PeerMessage::Block {
            chunk: ChunkIndex(0),
            offset: 0,
            data: vec![1].into(),
        },
        PeerMessage::Reject(BlockRange {
            chunk: ChunkIndex(0),
            offset: 0,
            len: 1,
        }),
    ];
    for breach in breaches {
        let mut good = Raw::link(&world, "good", &owner, id, 1).await;
        let mut bad = Raw::link(&world, "bad", &owner, id, 2).await;
        bad.say(breach.clone()).await;
        assert!(bad.last_words().await.is_none(), "{breach:?}");
        good.say(request(3, 0, 5)).await;
        let block = PeerMessage::Block {
            chunk: ChunkIndex(3),
            offset: 0,
            data: bytes.slice(3 * (16 << 10)..3 * (16 << 10) + 5),
        };
        assert_eq!(good.hear().await, Some(block));
    }
    sleep(Duration::from_secs(2)).await;
    tasks_settle(before).await;
    serves_others(&world, &bytes).await;
}

#[tokio::test(start_paused = true)]
async fn requests_past_the_end_are_rejected_and_the_link_stays() {
    let (world, owner, content, bytes) = world_with_owner(PeerConfig::default()).await;
    let mut raw = Raw::link(&world, "early", &owner, content.id, 1).await;
    for (chunk, offset, len) in [(60, 0, 1), (0, 1, 16 << 10), (1 << 19, 0, 16 << 10)] {
        raw.say(request(chunk, offset, len)).await;
        let block = BlockRange {
            chunk: ChunkIndex(chunk),
            offset,
            len,
        };
        assert_eq!(raw.hear().await, Some(PeerMessage::Reject(block)));
    }
    raw.say(request(3, 0, 5)).await;
    let block = PeerMessage::Block {
        chunk: ChunkIndex(3),
        offset: 0,
        data: bytes.slice(3 * (16 << 10)..3 * (16 << 10) + 5),
    };
    assert_eq!(raw.hear().await, Some(block));
}

#[tokio::test(start_paused = true)]
async fn garbage_on_a_link_ends_it() {
    let (world, owner, content, bytes) = world_with_owner(PeerConfig::default()).await;
    let mut raw = Raw::link(&world, "bad", &owner, content.id, 1).await;
    raw.0.sink.send(Frame::head("nonsense")).await.unwrap();
    assert_eq!(raw.hear().await, None);
    serves_others(&world, &bytes).await;
}

#[tokio::test(start_paused = true)]
async fn requests_without_reading_are_bounded() {
    let (world, owner, content, bytes) = world_with_owner(PeerConfig::default()).await;
    let before = alive_tasks();
    let mut greedy = Vec::new();
    for number in 0..5 {
        let name = format!("greedy-{number}");
        greedy.push(Raw::link(&world, &name, &owner, content.id, number + 1).await);
    }
    for raw in &mut greedy {
        for count in 0..10_000u32 {
            let frame = wire::frame(request(count % 60, 0, 16 << 10));
            if raw
                .0
                .sink
                .send(frame)
                .now_or_never()
                .is_none_or(|sent| sent.is_err())
            {
                // Either back pressure or the end of the link is a bound.
                tokio::task::yield_now().await;
            }
        }
    }
    serves_others(&world, &bytes).await;
    // A link that reads nothing is dropped in the end.
    sleep(Duration::from_secs(300)).await;
    for raw in &mut greedy {
        let sent = raw.0.sink.send(wire::frame(PeerMessage::KeepAlive)).await;
        assert!(sent.is_err());
    }
    drop(greedy);
    tasks_settle(before).await;
}

#[tokio::test(start_paused = true)]
async fn link_whose_other_side_does_not_read_is_closed_in_time() {
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    let before = alive_tasks();
    let id = owner.share("x", &content(LEN, 1)).await.id;
    let mut raw = Raw::link(&world, "greedy", &owner, id, 1).await;
    for chunk in 0..60 {
        raw.say(request(chunk, 0, 16 << 10)).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert!(owner.peer.unshare(&id).await);
    sleep(FRAME_TIMEOUT + Duration::from_secs(2)).await;
    tasks_settle(before).await;
    drop(raw);
}

#[tokio::test(start_paused = true)]
async fn manifest_requests_without_reading_are_bounded() {
    let (world, owner, content, bytes) = world_with_owner(PeerConfig::default()).await;
    let before = alive_tasks();
    let mut raw = Raw::link(&world, "greedy", &owner, content.id, 1).await;
    for _ in 0..20_000 {
        let frame = wire::frame(PeerMessage::ManifestRequest { page: 1 });
        if raw
            .0
            .sink
            .send(frame)
            .now_or_never()
            .is_none_or(|sent| sent.is_err())
        {
            tokio::task::yield_now().await;
        }
    }
    serves_others(&world, &bytes).await;
    sleep(Duration::from_secs(300)).await;
    assert!(
        raw.0
            .sink
            .send(wire::frame(PeerMessage::KeepAlive))
            .await
            .is_err()
    );
    tasks_settle(before).await;
}

#[tokio::test(start_paused = true)]
async fn links_of_one_host_are_bounded_and_refused_as_busy() {
    let mut config = PeerConfig::default();
    config.max_connections_per_host = 5;
    let (world, owner, content, bytes) = world_with_owner(config).await;
    let before = alive_tasks();
    let mut taken = Vec::new();
    for peer in 1..=5 {
        taken.push(Raw::link(&world, "bad", &owner, content.id, peer).await);
    }
    let mut raw = Raw::connect(&world, "bad", &owner.addr()).await;
    raw.greet(content.id, 6).await;
    assert_eq!(
        raw.hear().await,
        Some(PeerMessage::Refuse(RefuseReason::Busy))
    );
    assert_eq!(raw.hear().await, None);
    serves_others(&world, &bytes).await;
    // A place is free again when its link has ended.
    taken.pop();
    sleep(Duration::from_secs(2)).await;
    let _link = Raw::link(&world, "bad", &owner, content.id, 1).await;
    drop((taken, _link));
    sleep(Duration::from_secs(2)).await;
    tasks_settle(before).await;
}

#[tokio::test(start_paused = true)]
async fn connections_over_all_hosts_are_bounded() {
    let mut config = PeerConfig::default();
    config.max_handshakes = 20;
    let (world, owner, _, bytes) = world_with_owner(config).await;
    let before = alive_tasks();
    let mut taken = Vec::new();
    for number in 0..200 {
        taken.push(Raw::connect(&world, &format!("bad-{number}"), &owner.addr()).await);
    }
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(alive_tasks(), before + 20);
    serves_others(&world, &bytes).await;
    for raw in &mut taken {
        match raw.hear().await {
            Some(PeerMessage::Refuse(RefuseReason::Busy)) | None => {}
            other => panic!("{other:?}"),
        }
    }
    // All are closed in time.
    tasks_settle(before).await;
}

#[tokio::test(start_paused = true)]
async fn links_of_one_content_are_bounded_and_wait_or_are_refused_as_busy() {
    let mut config = PeerConfig::default();
    config.swarm.max_links = 4;
    config.swarm.max_waiting = 1;
    let (world, owner, content, bytes) = world_with_owner(config).await;
    let mut links = Vec::new();
    for peer in 0..4 {
        links.push(
            Raw::link(
                &world,
                &format!("peer-{peer}"),
                &owner,
                content.id,
                peer + 1,
            )
            .await,
        );
    }
    // A link of which nothing is known might give way.
    for raw in &mut links {
        raw.say(request(3, 0, 5)).await;
        let mut heard = raw.hear().await;
        while !matches!(heard, Some(PeerMessage::Block { .. })) {
            if heard == Some(PeerMessage::Unchoke) {
                raw.say(request(3, 0, 5)).await;
            }
            assert!(heard.is_some(), "the link is open");
            heard = raw.hear().await;
        }
    }
    let mut waiting = Raw::connect(&world, "one-too-many", &owner.addr()).await;
    waiting.greet(content.id, 9).await;
    waiting.say(PeerMessage::HaveNone).await;
    assert!(matches!(waiting.hear().await, Some(PeerMessage::Hello(_))));
    let queued = PeerMessage::Queued { position: 1 };
    assert_eq!(waiting.hear().await, Some(queued));
    let mut raw = Raw::connect(&world, "two-too-many", &owner.addr()).await;
    raw.greet(content.id, 10).await;
    assert!(matches!(raw.hear().await, Some(PeerMessage::Hello(_))));
    assert_eq!(
        raw.hear().await,
        Some(PeerMessage::Refuse(RefuseReason::Busy))
    );
    assert_eq!(raw.hear().await, None);
    links.pop();
    assert_eq!(waiting.hear().await, Some(PeerMessage::HaveAll));
    drop(waiting);
    serves_others(&world, &bytes).await;
}

/// Reads until a link has sent a block of a chunk that it is asked for.
async fn fetch(raw: &mut Raw, chunk: u32) {
    raw.say(request(chunk, 0, 5)).await;
    loop {
        match raw.hear().await.expect("the link is open") {
            PeerMessage::Block { .. } => return,
            PeerMessage::Unchoke => raw.say(request(chunk, 0, 5)).await,
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_before_they_know_that_they_wait_are_served_later_and_not_blamed() {
    let mut config = PeerConfig::default();
    config.swarm.max_links = 1;
    let (world, owner, content, bytes) = world_with_owner(config).await;
    let mut first = Raw::link(&world, "first", &owner, content.id, 1).await;
    fetch(&mut first, 3).await;

    let mut raw = Raw::connect(&world, "raw", &owner.addr()).await;
    raw.greet(content.id, 2).await;
    raw.say(PeerMessage::HaveNone).await;
    raw.say(PeerMessage::ManifestRequest { page: 0 }).await;
    raw.say(request(7, 0, 5)).await;
    assert!(matches!(raw.hear().await, Some(PeerMessage::Hello(_))));
    let PeerMessage::Request(block) = request(7, 0, 5) else {
        unreachable!()
    };
    let queued = PeerMessage::Queued { position: 1 };
    assert_eq!(raw.hear().await, Some(queued));

    // The tracker names the length and an owner that has everything.
    let leecher = world.node("late").await;
    let download = leecher.peer.download(named("x"));
    while download.progress().place_in_line != Some(2) {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(download.progress().links, 0);
    drop(first);
    let mut heard = raw.hear().await;
    while matches!(heard, Some(PeerMessage::Queued { .. })) {
        heard = raw.hear().await;
    }
    assert_eq!(heard, Some(PeerMessage::ManifestReject { page: 0 }));
    assert_eq!(raw.hear().await, Some(PeerMessage::Reject(block)));
    assert_eq!(raw.hear().await, Some(PeerMessage::HaveAll));
    fetch(&mut raw, 7).await;
    drop(raw);
    soon(download).await.unwrap();
    assert_eq!(leecher.bytes("x").unwrap(), bytes);
    leecher.peer.shutdown().await;
    // Nobody is banned.
    serves_others(&world, &bytes).await;
    let mut raw = Raw::link(&world, "raw", &owner, content.id, 2).await;
    fetch(&mut raw, 9).await;
}

#[tokio::test(start_paused = true)]
async fn farewells_give_the_reason() {
    let (world, owner, content, _) = world_with_owner(PeerConfig::default()).await;
    let mut raw = Raw::link(&world, "one", &owner, content.id, 1).await;
    assert!(owner.peer.unshare(&content.id).await);
    let unknown = PeerMessage::Refuse(RefuseReason::UnknownContent);
    assert_eq!(raw.last_words().await, Some(unknown));

    owner.share("x", &crate::world::content(LEN, 1)).await;
    let mut raw = Raw::link(&world, "one", &owner, content.id, 1).await;
    // More is asked for than the link holds, and nothing is read.
    for chunk in 0..60 {
        raw.say(request(chunk, 0, 16 << 10)).await;
    }
    sleep(Duration::from_millis(1)).await;
    owner.peer.shutdown().now_or_never();
    for _ in 0..50 {
        let _ = raw
            .0
            .sink
            .send(wire::frame(PeerMessage::KeepAlive))
            .now_or_never();
        tokio::task::yield_now().await;
    }
    let stops = PeerMessage::Refuse(RefuseReason::ShuttingDown);
    assert_eq!(raw.last_words().await, Some(stops));
}

/// What a hostile listener does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reception {
    Silence,
    Close,
    Garbage,
    OtherChannel,
    Refusal,
    NothingAfterHello,
    Echo,
}

async fn receive(mut listener: Box<dyn Listener>, reception: Reception) {
    let mut kept = Vec::new();
    loop {
        let mut raw = Raw(listener.accept().await.unwrap());
        let say = match reception {
            Reception::Silence => None,
            Reception::Close => continue,
            Reception::Garbage => Some(Frame::head("garbage")),
            Reception::OtherChannel => {
                let _ = raw.0.sink.send(wire::frame(hello(77))).await;
                Some(PeerMessage::HaveAll.encode(ChannelId(3)))
            }
            Reception::Refusal => {
                Some(PeerMessage::Refuse(RefuseReason::Busy).encode(ChannelId::SESSION))
            }
            Reception::NothingAfterHello => Some(wire::frame(hello(78))),
            Reception::Echo => soon(raw.0.stream.next()).await.and_then(Result::ok),
        };
        if let Some(frame) = say {
            let _ = raw.0.sink.send(frame).await;
        }
        kept.push(raw);
    }
}

#[tokio::test(start_paused = true)]
async fn hostile_owners_do_not_keep_a_download_from_the_good_one() {
    for reception in [
        Reception::Silence,
        Reception::Close,
        Reception::Garbage,
        Reception::OtherChannel,
        Reception::Refusal,
        Reception::NothingAfterHello,
        Reception::Echo,
    ] {
        let (world, _owner, content, bytes) = world_with_owner(PeerConfig::default()).await;
        let mut options = bt_lite::DownloadOptions::new();
        let mut tasks = Vec::new();
        // More of them than a download has sources.
        for number in 0..20 {
            let name = format!("bad-{number}");
            let addr: Addr = format!("memory:{name}").parse().unwrap();
            let listener = world.network().endpoint(&name).listen(&addr).await.unwrap();
            tasks.push(tokio::spawn(receive(listener, reception)));
            options = options.owner(addr);
        }
        let leecher = world.node("leecher").await;
        let download = leecher.peer.download_with(content.id, options);
        soon(download)
            .await
            .unwrap_or_else(|error| panic!("{reception:?}: {error}"));
        assert_eq!(leecher.bytes("x").unwrap(), bytes, "{reception:?}");
        soon(leecher.peer.shutdown()).await;
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[tokio::test(start_paused = true)]
async fn owners_that_only_chatter_are_given_up() {
    let world = World::memory(1).await;
    let id = ContentId::of(b"never");
    let addr: Addr = "memory:bad".parse().unwrap();
    let mut listener = world.network().endpoint("bad").listen(&addr).await.unwrap();
    let chatter = tokio::spawn(async move {
        let mut raw = Raw(listener.accept().await.unwrap());
        raw.say(hello(1)).await;
        while !matches!(raw.hear().await, Some(PeerMessage::Open(_))) {}
        raw.say(PeerMessage::HaveAll).await;
        loop {
            if raw
                .0
                .sink
                .send(wire::frame(PeerMessage::KeepAlive))
                .await
                .is_err()
            {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
    });
    let mut config = PeerConfig::default();
    config.swarm.patience = Some(Duration::from_secs(60));
    let leecher = world.node_with("leecher", config).await;
    let options = bt_lite::DownloadOptions::new().owner(addr);
    let begun = Instant::now();
    let error = soon(leecher.peer.download_with(id, options))
        .await
        .unwrap_err();
    let expected = DownloadError::GaveUp {
        id,
        missing: None,
        // It accepts no second connection.
        reason: StallReason::Unreachable { owners: 1 },
    };
    assert_eq!(error, expected);
    assert!(
        begun.elapsed() < Duration::from_secs(62),
        "{:?}",
        begun.elapsed()
    );
    chatter.abort();
}
