//! The task of one connection: bytes in, bytes out, and between them the translation.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::handshake::Shaken;
use super::known_peers::ConnectedPeer;
use super::outgoing::Outgoing;
use super::torrent::Torrent;
use crate::bittorrent::link::{BitTorrentLink, LinkEvent};
use crate::bittorrent::wire::{
    MAX_PEX_PEERS, Message, PexMessage, PexPeer, WireLimits, WireReader,
};
use crate::peer::contents::inbox::DriverInput;
use crate::peer::session::admission::ConnectionPlace;
use crate::peer::session::outlet::LinkEnd;
use crate::peer::swarm::LinkId;
use crate::protocol::PeerMessage;
use crate::protocol::limits::FRAME_TIMEOUT;
use crate::transport::framed::write_chunks;

/// How much is received with one call, in bytes: many blocks of 16 KiB.
const READ_LEN: usize = 256 << 10;

/// How many messages the driver hears of at once, at most: as many blocks as are received
/// with one call, and what is short beside them. Others have their turn then.
const MAX_BATCH: usize = 64;

/// How many bytes go to the network together, before this side waits until all are taken.
const GROUP_LEN: usize = 128 << 10;

/// The same where the network takes them quickly: as many blocks as one call of the system
/// takes.
const MAX_GROUP_LEN: usize = 512 << 10;

/// A group that was taken within this time was taken quickly.
const QUICKLY: Duration = Duration::from_millis(5);

/// How long a connection may take to send what is queued after this side has ended it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a connection looks whether there are other peers to tell of (BEP 11).
const PEX_INTERVAL: Duration = Duration::from_secs(60);

/// One connection about one torrent.
pub(super) struct ConnectionTask {
    pub(super) torrent: Arc<Torrent>,
    pub(super) link: BitTorrentLink,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) inbox: mpsc::Sender<DriverInput>,
    pub(super) id: LinkId,
    /// The other end of the connection.
    pub(super) remote: SocketAddr,
    /// Whether the handshake says that this side wants nothing.
    pub(super) said_upload_only: bool,
}

/// What reading and writing share.
struct Shared {
    link: Mutex<BitTorrentLink>,
    outgoing: Arc<Outgoing>,
    /// What was written has brought something for this side, which the reader delivers, so
    /// that all is in order.
    news: Notify,
}

impl ConnectionTask {
    /// Carries messages until either side ends the connection, or its place is given to
    /// another one. Then reports the end to the driver.
    pub(super) async fn run<S>(
        self,
        shaken: Shaken<S>,
        place: ConnectionPlace,
        connected: ConnectedPeer,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self {
            torrent,
            link,
            outgoing,
            inbox,
            id,
            remote,
            said_upload_only,
        } = self;
        let client = shaken.client;
        let chunks = torrent.geometry.chunks();
        let (read_half, write_half) = tokio::io::split(shaken.io);
        let shared = Shared {
            link: Mutex::new(link),
            outgoing,
            news: Notify::new(),
        };
        let reader = Reader {
            shared: &shared,
            torrent: &torrent,
            connected: &connected,
            inbox: &inbox,
            id,
            remote,
            wire: WireReader::new(WireLimits {
                chunks: Some(chunks),
            }),
        };
        let mut writer = Writer {
            shared: &shared,
            torrent: &torrent,
            connected: &connected,
            inbox: &inbox,
            id,
            said_complete: false,
            said_upload_only,
            resting: torrent.meeting.resting(),
            told: Told::default(),
            tell_at: Instant::now() + PEX_INTERVAL,
        };
        let ended = tokio::select! {
            biased;
            () = place.cut() => "another host needs the place".to_owned(),
            () = torrent.meeting.stopped() => "the torrent has ended".to_owned(),
            ended = writer.run(write_half) => ended,
            ended = reader.run(read_half, shaken.input) => ended,
        };
        drop(place);
        let name = client
            .client()
            .map(|client| format!("{} {}", client.name, client.version));
        tracing::debug!(%ended, ?name, "connection ended");
        // When the driver has ended, nobody needs to know.
        let _ = inbox.send(DriverInput::Down { link: id }).await;
    }
}

impl Shared {
    /// Ignores poison: no change under this lock is left half done.
    fn link(&self) -> MutexGuard<'_, BitTorrentLink> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands on what arrives.
struct Reader<'a> {
    shared: &'a Shared,
    torrent: &'a Arc<Torrent>,
    connected: &'a ConnectedPeer,
    inbox: &'a mpsc::Sender<DriverInput>,
    id: LinkId,
    remote: SocketAddr,
    wire: WireReader,
}

impl Reader<'_> {
    /// Reads until the connection ends, and returns why it did.
    async fn run<S: AsyncRead>(&self, mut io: ReadHalf<S>, mut input: BytesMut) -> String {
        loop {
            let read = self.hear(&mut input);
            if let Ok(true) = read {
                // There may be an answer to what was read.
                self.shared.outgoing.wake();
            }
            let delivered = self.deliver().await;
            if let Err(ended) = delivered.and(read.map(drop)) {
                return ended;
            }
            input.reserve(READ_LEN);
            let read = tokio::select! {
                biased;
                read = io.read_buf(&mut input) => read,
                () = self.shared.news.notified() => continue,
            };
            match read {
                Ok(0) => return "closed by the other side".into(),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Hears all messages that are whole. Returns whether there was one.
    fn hear(&self, input: &mut BytesMut) -> Result<bool, String> {
        let (mut link, mut any) = (self.shared.link(), false);
        while let Some(message) = self.wire.next(input).map_err(|error| error.to_string())? {
            link.handle_message(now(), message);
            any = true;
        }
        Ok(any)
    }

    /// Delivers what the last input has brought: what the machine is to hear in batches,
    /// before anything else that came behind it.
    async fn deliver(&self) -> Result<(), String> {
        loop {
            let Batch {
                messages,
                event,
                is_last,
            } = self.events();
            let link = self.id;
            if !messages.is_empty() && !self.shared.outgoing.is_muted() {
                // A driver that has ended has ended its links as well.
                let _ = self
                    .inbox
                    .send(DriverInput::Messages { link, messages })
                    .await;
            }
            match event {
                None if is_last => return Ok(()),
                // What is for the machine is among the messages.
                None | Some(LinkEvent::Machine(_)) => {}
                Some(LinkEvent::About(about)) => {
                    if let Some(port) = about.port {
                        let listens = SocketAddr::new(self.remote.ip(), port);
                        self.connected.listens_at(listens);
                    }
                }
                Some(LinkEvent::Peers(peers)) => {
                    let found = peers.added.into_iter().map(|peer| peer.addr);
                    self.torrent.meeting.found(found.collect()).await;
                }
                Some(LinkEvent::HashesWanted(range)) => {
                    let hashes = self.torrent.hashes(range).await;
                    self.shared.link().answer_hashes(range, hashes);
                    self.shared.outgoing.wake();
                }
                // Nothing of these is asked for here.
                Some(LinkEvent::Metadata(_) | LinkEvent::Hashes { .. }) => {}
                Some(LinkEvent::HashesRejected(_)) => {}
                Some(LinkEvent::End(end)) => return Err(end.to_string()),
            }
        }
    }

    /// What there is for the machine, up to the first event that is not, or a full batch.
    fn events(&self) -> Batch {
        let mut link = self.shared.link();
        let mut batch = Batch::default();
        while batch.messages.len() < MAX_BATCH {
            match link.poll_event() {
                Some(LinkEvent::Machine(message)) => batch.messages.push(message),
                event => {
                    batch.is_last = event.is_none();
                    batch.event = event;
                    break;
                }
            }
        }
        batch
    }
}

/// What a connection has for this side.
#[derive(Default)]
struct Batch {
    /// For the machine.
    messages: Vec<PeerMessage>,
    /// What comes behind them.
    event: Option<LinkEvent>,
    /// There is nothing more.
    is_last: bool,
}

/// Sends what is to be sent.
struct Writer<'a> {
    shared: &'a Shared,
    torrent: &'a Arc<Torrent>,
    connected: &'a ConnectedPeer,
    inbox: &'a mpsc::Sender<DriverInput>,
    id: LinkId,
    /// The connection knows that this side has everything.
    said_complete: bool,
    /// What the other side was told last of whether this side wants anything.
    said_upload_only: bool,
    resting: watch::Receiver<bool>,
    told: Told,
    tell_at: Instant,
}

/// Those that the other side was told of (BEP 11).
#[derive(Default)]
struct Told(BTreeSet<SocketAddr>);

impl Told {
    /// Tells what is new among these, if anything is, and if it can be told.
    fn tell(&mut self, mut known: BTreeSet<SocketAddr>, tell: impl FnOnce(&PexMessage) -> bool) {
        while known.len() > MAX_PEX_PEERS {
            known.pop_last();
        }
        let peer = |addr| PexPeer {
            addr,
            flags: PexPeer::REACHABLE,
        };
        let news = PexMessage {
            added: known.difference(&self.0).copied().map(peer).collect(),
            dropped: self.0.difference(&known).copied().collect(),
        };
        let any = !news.added.is_empty() || !news.dropped.is_empty();
        if any && tell(&news) {
            self.0 = known;
        }
    }
}

impl Writer<'_> {
    /// Writes until the connection ends, and returns why it did.
    async fn run<S: AsyncWrite>(&mut self, mut io: WriteHalf<S>) -> String {
        let mut group_len = GROUP_LEN;
        loop {
            self.follow_machine();
            let end = self.shared.outgoing.end();
            let patience = match end {
                Some(_) => FAREWELL_TIMEOUT,
                None => FRAME_TIMEOUT,
            };
            let group = self.group(group_len);
            let (messages, bytes) = (group.of_machine, group.block_bytes);
            if !group.bytes.is_empty() {
                let begun = Instant::now();
                match timeout(patience, write_chunks(&mut io, group.bytes)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) => return "the other side does not read".into(),
                }
                group_len = match begun.elapsed() <= QUICKLY {
                    true if group.has_more => (2 * group_len).min(MAX_GROUP_LEN),
                    true => group_len,
                    false => GROUP_LEN,
                };
            }
            if messages > 0 {
                let link = self.id;
                let sent = DriverInput::Sent {
                    link,
                    messages,
                    bytes,
                };
                let _ = self.inbox.send(sent).await;
            }
            if group.has_more {
                continue;
            }
            if let Some(end) = end {
                let _ = timeout(patience, io.shutdown()).await;
                return match end {
                    LinkEnd::Refused(reason) => format!("not wanted: {reason}"),
                    LinkEnd::Violation => "the other side broke the protocol".into(),
                    LinkEnd::Left => "left".into(),
                };
            }
            let due = self.shared.link().poll_timeout().map(Instant::from_std);
            let due = due.map_or(self.tell_at, |due| due.min(self.tell_at));
            tokio::select! {
                biased;
                () = self.shared.outgoing.changed() => {}
                Ok(()) = self.resting.changed() => {}
                () = sleep_until(due) => self.timeout(),
            }
        }
    }

    /// Time has passed.
    fn timeout(&mut self) {
        let mut link = self.shared.link();
        link.handle_timeout(now());
        self.shared.news.notify_one();
        if Instant::now() < self.tell_at {
            return;
        }
        self.tell_at = Instant::now() + PEX_INTERVAL;
        self.told
            .tell(self.connected.others(), |news| link.tell_peers(now(), news));
    }

    /// Gives the connection what the machine has to say.
    fn follow_machine(&mut self) {
        let waiting = self.shared.outgoing.take();
        let completes = self.torrent.meeting.is_complete() && !self.said_complete;
        let wants_nothing = self.torrent.meeting.is_upload_only();
        let turns = wants_nothing != self.said_upload_only && !self.torrent.meeting.is_complete();
        if waiting.is_empty() && !completes && !turns {
            // Nothing follows, and the reader is not woken, which would wake this again.
            return;
        }
        let mut link = self.shared.link();
        for message in waiting {
            link.handle_peer_message(message);
        }
        if turns {
            self.said_upload_only = wants_nothing;
            link.handle_upload_only(wants_nothing);
        }
        if completes {
            self.said_complete = true;
            link.handle_complete();
        }
        drop(link);
        self.shared.news.notify_one();
    }

    /// What goes to the network next.
    fn group(&self, most: usize) -> Group {
        let mut link = self.shared.link();
        let mut group = Group {
            of_machine: link.take_settled(),
            ..Group::default()
        };
        while group.len < most {
            let Some(next) = link.poll_message(now()) else {
                return group;
            };
            group.of_machine += next.of_machine;
            if let Message::Block { data, .. } = &next.message {
                group.block_bytes += data.len() as u64;
            }
            let frame = next.message.encode();
            group.len += frame.len();
            group.bytes.push_back(frame.head);
            if !frame.body.is_empty() {
                group.bytes.push_back(frame.body);
            }
        }
        group.has_more = true;
        group
    }
}

/// Messages that go to the network together.
#[derive(Default)]
struct Group {
    bytes: VecDeque<Bytes>,
    len: usize,
    /// How many messages of the machine are done with it.
    of_machine: usize,
    /// How many bytes of blocks are in it.
    block_bytes: u64,
    /// There may be more to send.
    has_more: bool,
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::bittorrent::link::LinkFacts;
    use crate::bittorrent::wire::{ClientId, Reserved};
    use crate::bittorrent::{MetainfoBuilder, MetainfoFormat};
    use crate::peer::Peer;
    use crate::peer::session::outlet::Outlet;
    use crate::peer::torrents::adding::Adding;
    use crate::peer::torrents::choosing::Choosing;
    use crate::peer::torrents::handshake::RESERVED;
    use crate::peer::torrents::options::{TorrentOptions, TorrentSessionConfig};
    use crate::peer::torrents::outgoing::OutgoingHandle;
    use crate::peer::torrents::rendezvous::Rendezvous;
    use crate::peer::torrents::shared::SessionShared;
    use crate::peer::torrents::tracker::TrackerClients;
    use crate::storage::MemoryStorage;
    use crate::transport::{MemoryNetwork, TcpTransport};

    const LENGTH: usize = 100_000;

    /// A connection that has shaken hands.
    struct Scene {
        peer: Peer,
        task: ConnectionTask,
        shaken: Shaken<DuplexStream>,
        place: ConnectionPlace,
        connected: ConnectedPeer,
        /// What its driver holds.
        handle: OutgoingHandle,
    }

    impl Scene {
        /// With a driver that listens here, and the other end of its bytes. Of them so many
        /// may be under way in either direction.
        async fn new(inbox: mpsc::Sender<DriverInput>, room: usize) -> (Self, DuplexStream) {
            let network = MemoryNetwork::new(1);
            let builder = Peer::builder(network.endpoint("peer"), MemoryStorage::new());
            let peer = builder.start().await.unwrap();
            let session = Arc::new(SessionShared {
                shared: Arc::clone(peer.shared()),
                transport: TcpTransport::new(),
                client: ClientId([1; 20]),
                port: None,
                config: TorrentSessionConfig::new(),
                trackers: TrackerClients::new(FRAME_TIMEOUT),
                local: None,
                #[cfg(feature = "bittorrent-dht")]
                dht: None,
            });
            let builder = MetainfoBuilder::file("x", LENGTH as u64).unwrap();
            let builder = builder.format(MetainfoFormat::V1);
            let metainfo = builder.build(|_| Ok(Cursor::new(vec![7; LENGTH]))).unwrap();
            let info_hash = metainfo.info_hash_v1().unwrap();
            let choosing = Choosing::new(None, false);
            let meeting = Arc::new(Rendezvous::new(session, info_hash, Vec::new(), choosing));
            let dir = tempfile::tempdir().unwrap();
            let options = TorrentOptions::new().directory(dir.path());
            let torrent = Adding::new(meeting, metainfo, &options).unwrap().torrent;
            let (client, remote) = (ClientId([2; 20]), SocketAddr::from(([192, 0, 2, 1], 7)));
            let agreed = RESERVED
                .into_iter()
                .fold(Reserved::default(), Reserved::with);
            let outgoing = Arc::new(Outgoing::default());
            let (io, other) = duplex(room);
            let scene = Self {
                place: peer.shared().admission.dial().unwrap(),
                connected: {
                    let peers = &torrent.meeting.peers;
                    peers.connect((client, remote.ip()), None).unwrap()
                },
                shaken: Shaken {
                    io,
                    input: BytesMut::new(),
                    agreed,
                    client,
                    is_v2: false,
                },
                handle: OutgoingHandle(Arc::clone(&outgoing)),
                task: ConnectionTask {
                    link: BitTorrentLink::new(
                        now(),
                        LinkFacts::new(torrent.geometry, agreed, client),
                    ),
                    torrent,
                    outgoing,
                    inbox,
                    id: LinkId(1),
                    remote,
                    said_upload_only: false,
                },
                peer,
            };
            (scene, other)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn side_that_does_not_read_has_less_time_when_the_link_has_ended() {
        for (has_ended, patience) in [(true, FAREWELL_TIMEOUT), (false, FRAME_TIMEOUT)] {
            let (inbox, mut driver) = mpsc::channel(8);
            let (scene, _other) = Scene::new(inbox, 8).await;
            if has_ended {
                scene.handle.end(LinkEnd::Left);
            }
            let begun = Instant::now();
            let run = scene.task.run(scene.shaken, scene.place, scene.connected);
            run.await;
            assert_eq!(begun.elapsed(), patience);
            let mut told = None;
            while let Some(input) = driver.recv().await {
                told = Some(input);
            }
            assert!(matches!(told, Some(DriverInput::Down { .. })));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn muted_link_gives_its_place_back_although_the_driver_does_not_listen() {
        let (inbox, _driver) = mpsc::channel(1);
        let full = inbox.try_send(DriverInput::Down { link: LinkId(9) });
        assert!(full.is_ok());
        let (scene, mut other) = Scene::new(inbox, READ_LEN).await;
        scene.handle.mute();
        for message in [Message::HaveAll, Message::Interested] {
            other.write_all(&message.encode().head).await.unwrap();
        }
        other.shutdown().await.unwrap();
        let admission = Arc::clone(&scene.peer.shared().admission);
        assert_eq!(admission.counts().0, 1);
        let run = scene.task.run(scene.shaken, scene.place, scene.connected);
        // It is kept for longer than it is waited for.
        tokio::pin!(run);
        let told = timeout(FAREWELL_TIMEOUT, &mut run).await;
        assert!(told.is_err(), "the driver has no room to hear of it");
        assert_eq!(admission.counts().0, 0);
    }

    fn addrs(ports: std::ops::Range<u16>) -> BTreeSet<SocketAddr> {
        ports.map(|port| ([10, 0, 0, 1], port).into()).collect()
    }

    /// What is told of these, added and dropped.
    fn told(told: &mut Told, known: BTreeSet<SocketAddr>, hears: bool) -> Option<(usize, usize)> {
        let mut heard = None;
        told.tell(known, |news| {
            heard = Some((news.added.len(), news.dropped.len()));
            hears
        });
        heard
    }

    #[test]
    fn other_side_is_told_of_each_peer_once_and_of_few_at_a_time() {
        let mut to = Told::default();
        assert_eq!(told(&mut to, addrs(0..0), true), None);
        assert_eq!(told(&mut to, addrs(1..4), false), Some((3, 0)));
        assert_eq!(told(&mut to, addrs(1..4), true), Some((3, 0)));
        assert_eq!(told(&mut to, addrs(1..4), true), None);
        assert_eq!(told(&mut to, addrs(3..6), true), Some((2, 2)));
        let crowd = addrs(1..1000);
        assert_eq!(
            told(&mut to, crowd.clone(), true),
            Some((MAX_PEX_PEERS - 3, 0))
        );
        assert_eq!(told(&mut to, crowd, true), None);
    }
}
