//! A torrent of which only the hash is known, as from a magnet link: who is connected, and
//! what they have sent of its info dictionary, and of the hashes that belong to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::begun::Begun;
use super::error::TorrentError;
use super::handshake::WireHashes;
use super::identity::identity;
use super::rendezvous::Rendezvous;
use super::sought_link::SoughtLink;
use super::torrent::{ReadyAsk, Torrent};
use crate::bittorrent::link::{
    FetchOutput, LayerFetch, LayerOutput, LinkEvent, MetadataFetch, MetadataHash, SourceId,
};
use crate::bittorrent::wire::MetadataMessage;
use crate::bittorrent::{InfoHashV1, Magnet, Metainfo};
use crate::content::ContentId;
use crate::peer::contents::hashing::off_thread;
use crate::peer::swarm::StallReason;

/// How many peers are dialled, and connected by that, at a time. The info dictionary is short, and a few peers
/// that have it are enough; but many that are named may be gone.
const MAX_LINKS: usize = 30;

/// How many of these may be opened by others: the rest is for peers that were named, whom a
/// crowd of strangers must not keep out.
const MAX_ACCEPTED: usize = MAX_LINKS / 2;

/// How long a peer that was dialled is not dialled again.
const REDIAL: Duration = Duration::from_secs(60);

/// How often peers are asked again that could not send anything: they may be fetching it
/// as well.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// How long a hybrid torrent waits for its hashes of v2, as its pieces can be verified
/// without them.
const LAYER_PATIENCE: Duration = Duration::from_secs(10);

/// How long it waits for somebody to be connected that may have them: peers that know
/// version 1 only have not.
const LAYER_GRACE: Duration = Duration::from_secs(2);

/// A torrent that is not known yet.
pub(super) struct Sought {
    pub(super) meeting: Arc<Rendezvous>,
    /// What the peer lists it by until it is known.
    pub(super) id: ContentId,
    hash: MetadataHash,
    /// What a magnet link says of it, and its info dictionary does not.
    trackers: Vec<Vec<String>>,
    web_seeds: Vec<String>,
    /// Its hash of v2 on the wire, if that is known.
    v2: Option<InfoHashV1>,
    state: Mutex<State>,
    /// There is something to do for the one who seeks.
    changed: Notify,
    /// How many parts have arrived.
    news: watch::Sender<u64>,
    metainfo: watch::Sender<Option<Metainfo>>,
    /// What its connections are links of from now on.
    torrent: watch::Sender<Option<Arc<Torrent>>>,
}

struct State {
    stage: Stage,
    /// Cancelled when its connections are to end, and set as long as there may be some.
    open: Option<CancellationToken>,
    links: BTreeMap<SourceId, Entered>,
    next: u64,
    /// Those that are dialled, or were, and are connected.
    dialled: BTreeMap<SocketAddr, Dialled>,
    ask_again_at: Instant,
    wrong: u32,
}

/// How much is known.
enum Stage {
    /// The hash.
    Hash(Box<MetadataFetch>),
    /// The info dictionary, which was not read yet.
    Info(Bytes),
    /// All but the hashes of v2.
    Layers {
        metainfo: Box<Metainfo>,
        fetch: Box<LayerFetch>,
        since: Instant,
    },
    /// These hashes have come, and were not put in their place yet.
    WithLayers(Box<Metainfo>, BTreeMap<[u8; 32], Bytes>),
    Known(Box<Metainfo>),
}

/// A connection.
struct Entered {
    link: Arc<SoughtLink>,
    is_v2: bool,
    is_dialled: bool,
    /// The length of the info dictionary, as it says last.
    size: Option<u32>,
    /// Where it was dialled, and where it hears who takes it.
    ready: Option<(SocketAddr, ReadyAsk)>,
    end: CancellationToken,
}

#[derive(Clone, Copy)]
struct Dialled {
    at: Instant,
    is_under_way: bool,
}

/// The seat of a connection among those of a torrent, given back when it is dropped.
pub(super) struct Seat {
    sought: Arc<Sought>,
    id: SourceId,
    /// Cancelled when the connection is to end.
    pub(super) end: CancellationToken,
    /// Who takes it when the torrent is known, if it was dialled.
    pub(super) asked: Option<oneshot::Receiver<oneshot::Sender<Begun>>>,
}

/// Connections are made and accepted until it is dropped, or the torrent is known.
pub(super) struct Open<'a>(&'a Sought);

impl Entered {
    /// Whether it may have hashes of v2. libtorrent closes a connection on which it is asked
    /// for them before it knows the torrent.
    fn has_hashes(&self) -> bool {
        self.is_v2 && self.size.is_some()
    }
}

/// A peer that is dialled, until it is dropped.
pub(super) struct Dialling {
    sought: Arc<Sought>,
    addr: SocketAddr,
}

impl Sought {
    /// The torrent of a magnet link.
    pub(super) fn of_magnet(meeting: Arc<Rendezvous>, id: ContentId, magnet: &Magnet) -> Self {
        let v1 = magnet.v1.map(|v1| MetadataHash::Sha1(*v1.as_bytes()));
        let v2 = magnet.v2.map(|v2| MetadataHash::Sha256(*v2.as_bytes()));
        // The stronger one, if there are both.
        let hash = v2
            .or(v1)
            .expect("a magnet link that was read names a torrent");
        let stage = Stage::Hash(Box::new(MetadataFetch::new(hash)));
        let truncated = magnet.v2.map(|v2| v2.truncated());
        Self {
            trackers: tiers(magnet),
            web_seeds: magnet.web_seeds.clone(),
            ..Self::new((meeting, id), hash, truncated, stage)
        }
    }

    /// A torrent that lacks nothing but hashes of v2.
    pub(super) fn of_metainfo(meeting: Arc<Rendezvous>, metainfo: Metainfo) -> Self {
        let (_, id) = identity(&metainfo);
        let v2 = metainfo.info_hash_v2();
        let hash = MetadataHash::Sha256(v2.map(|v2| *v2.as_bytes()).unwrap_or_default());
        let truncated = v2.map(|v2| v2.truncated());
        Self::new((meeting, id), hash, truncated, Stage::layers(metainfo))
    }

    fn new(
        (meeting, id): (Arc<Rendezvous>, ContentId),
        hash: MetadataHash,
        v2: Option<InfoHashV1>,
        stage: Stage,
    ) -> Self {
        Self {
            meeting,
            id,
            hash,
            trackers: Vec::new(),
            web_seeds: Vec::new(),
            v2,
            state: Mutex::new(State {
                stage,
                open: None,
                links: BTreeMap::new(),
                next: 0,
                dialled: BTreeMap::new(),
                ask_again_at: Instant::now() + ASK_AGAIN,
                wrong: 0,
            }),
            changed: Notify::new(),
            news: watch::Sender::new(0),
            metainfo: watch::Sender::new(None),
            torrent: watch::Sender::new(None),
        }
    }

    /// What is in the torrent, with the hashes of v2 that were made of its bytes.
    pub(super) fn is_whole(&self, metainfo: Metainfo) {
        self.metainfo.send_replace(Some(metainfo));
    }

    /// What its handshakes say.
    pub(super) fn wire_hashes(&self) -> WireHashes {
        WireHashes::new(self.meeting.info_hash, self.v2)
    }

    /// Its hash of v2 on the wire, if that is known.
    pub(super) fn v2(&self) -> Option<InfoHashV1> {
        self.v2
    }

    /// How many parts have arrived, and whoever hears of changes.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// The torrent, once it is known.
    pub(super) fn metainfo(&self) -> watch::Receiver<Option<Metainfo>> {
        self.metainfo.subscribe()
    }

    /// What its connections become links of, once that is known.
    pub(super) fn torrent(&self) -> watch::Receiver<Option<Arc<Torrent>>> {
        self.torrent.subscribe()
    }

    /// Makes the next step that is done here, or waits until there is one: what it is.
    pub(super) async fn step(&self) -> Result<SoughtStep, TorrentError> {
        match self.next_step() {
            Step::Done => {
                self.metainfo.send_replace(self.known());
                return Ok(SoughtStep::Known);
            }
            Step::Read(info) => {
                let mut read = off_thread(move || Metainfo::from_info(&info)).await?;
                if self.hash_differs(&read) {
                    return Err(TorrentError::OtherHash);
                }
                if !self.trackers.is_empty() {
                    read.set_trackers(self.trackers.clone());
                }
                if !self.web_seeds.is_empty() {
                    read.set_web_seeds(self.web_seeds.clone());
                }
                let stage = off_thread(move || Stage::layers(read)).await;
                self.set_stage(stage);
            }
            Step::Put(metainfo, layers) => {
                let put = off_thread(move || metainfo.with_layers(layers)).await?;
                self.set_stage(Stage::Known(Box::new(put)));
            }
            Step::Wait(due) => tokio::select! {
                () = self.changed.notified() => {}
                () = self.meeting.news.notified() => {}
                () = sleep_until(due) => self.timeout(),
            },
        }
        Ok(SoughtStep::Next)
    }

    fn hash_differs(&self, read: &Metainfo) -> bool {
        let (v1, v2) = (read.info_hash_v1(), read.info_hash_v2());
        let own = self.meeting.info_hash;
        match self.hash {
            MetadataHash::Sha1(hash) => v1.map(|v1| *v1.as_bytes()) != Some(hash),
            // The hash of v1 that a magnet link names beside it may be another torrent's.
            MetadataHash::Sha256(hash) => {
                let is_own = v1 == Some(own) || v2.map(|v2| v2.truncated()) == Some(own);
                v2.map(|v2| *v2.as_bytes()) != Some(hash) || !is_own
            }
        }
    }

    /// The user has a torrent of a hash of this one. Returns whether it is this one.
    pub(super) fn supply(&self, metainfo: &Metainfo) -> bool {
        if self.hash_differs(metainfo) {
            return false;
        }
        if metainfo.missing_layers().is_empty() {
            self.set_stage(Stage::Known(Box::new(metainfo.clone())));
        }
        true
    }

    /// It is driven by another hash, with the hashes that are known there.
    pub(super) fn is_known_elsewhere(&self, metainfo: &Metainfo) {
        if !self.hash_differs(metainfo) {
            self.set_stage(Stage::Known(Box::new(metainfo.clone())));
        }
    }

    /// The torrent, if it is known.
    pub(super) fn known(&self) -> Option<Metainfo> {
        match &self.state().stage {
            Stage::Known(metainfo) => Some((**metainfo).clone()),
            _ => None,
        }
    }

    /// The torrent is driven from now on: its connections become links.
    pub(super) fn becomes(&self, torrent: &Arc<Torrent>) {
        let mut state = self.state();
        let links = state.links.values_mut();
        torrent.have_ready(links.filter_map(|link| link.ready.take()));
        drop(state);
        self.torrent.send_replace(Some(Arc::clone(torrent)));
    }

    /// Whether it is driven.
    pub(super) fn is_driven(&self) -> bool {
        self.torrent.borrow().is_some()
    }

    /// Why nothing arrives.
    pub(super) fn stall(&self) -> StallReason {
        let state = self.state();
        let owners = self.meeting.peers.named().len() as u32;
        match state.links.len() as u32 {
            0 if owners == 0 => StallReason::NoOwners,
            0 => StallReason::Unreachable { owners },
            links => StallReason::NoManifest {
                links,
                wrong: state.wrong,
            },
        }
    }

    /// Connections are made and accepted until what is returned is dropped.
    pub(super) fn open(&self) -> Open<'_> {
        let mut state = self.state();
        if state.open.is_none() {
            state.open = Some(self.meeting.child_token());
        }
        Open(self)
    }

    fn next_step(&self) -> Step {
        let state = self.state();
        let mut due = state.ask_again_at;
        match &state.stage {
            Stage::Known(_) => return Step::Done,
            Stage::Info(info) => return Step::Read(info.clone()),
            Stage::WithLayers(metainfo, layers) => {
                return Step::Put(metainfo.clone(), layers.clone());
            }
            Stage::Hash(fetch) => {
                if let Some(at) = fetch.poll_timeout() {
                    due = due.min(at.into());
                }
            }
            Stage::Layers {
                metainfo,
                fetch,
                since,
            } => {
                if let Some(at) = fetch.poll_timeout() {
                    due = due.min(at.into());
                }
                if metainfo.info_hash_v1().is_some() {
                    due = due.min(*since + patience(&state.links));
                }
            }
        }
        // Peers that were dialled in vain are dialled again.
        let again = state.dialled.values().filter(|peer| !peer.is_under_way);
        let again = again.map(|peer| peer.at + REDIAL);
        Step::Wait(again.chain([due]).min().unwrap_or(due))
    }

    fn timeout(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state
            .dialled
            .retain(|_, peer| peer.is_under_way || now < peer.at + REDIAL);
        let again = now >= state.ask_again_at;
        if again {
            state.ask_again_at = now + ASK_AGAIN;
        }
        let State { stage, links, .. } = &mut *state;
        match stage {
            Stage::Hash(fetch) => {
                fetch.handle_timeout(now.into_std());
                for (id, link) in links.iter().filter(|_| again) {
                    if let Some(size) = link.size {
                        fetch.source_up(now.into_std(), *id, size);
                    }
                }
            }
            Stage::Layers {
                metainfo,
                fetch,
                since,
            } => {
                fetch.handle_timeout(now.into_std());
                let is_hybrid = metainfo.info_hash_v1().is_some();
                if is_hybrid && now >= *since + patience(links) {
                    tracing::info!("the torrent is verified by its hashes of version 1 alone");
                    *stage = Stage::Known(metainfo.clone());
                }
            }
            Stage::Info(_) | Stage::WithLayers(..) | Stage::Known(_) => {}
        }
        if again && state.links.is_empty() {
            self.meeting.wishes.wants_peers();
        }
        if again && state.links.len() >= MAX_LINKS && matches!(state.stage, Stage::Hash(_)) {
            // Those that have nothing to tell give way.
            let idle = state.links.values().filter(|link| link.size.is_none());
            idle.for_each(|link| link.end.cancel());
        }
        self.settle(&mut state);
    }

    fn set_stage(&self, stage: Stage) {
        let mut state = self.state();
        // What the user has given is not taken back.
        if let Stage::Known(_) = state.stage {
            return;
        }
        state.stage = stage;
        let now = Instant::now().into_std();
        let State { stage, links, .. } = &mut *state;
        if let Stage::Layers { fetch, .. } = stage {
            for (id, _) in links.iter().filter(|(_, link)| link.has_hashes()) {
                fetch.source_up(now, *id);
            }
        }
        self.settle(&mut state);
        self.changed.notify_one();
    }

    /// A connection is there. Nothing if there may be no more.
    pub(super) fn enter(
        self: &Arc<Self>,
        link: &Arc<SoughtLink>,
        is_v2: bool,
        dialled: Option<SocketAddr>,
    ) -> Option<Seat> {
        let mut state = self.state();
        let end = state.open.as_ref()?.child_token();
        let accepted = state.links.values().filter(|link| !link.is_dialled);
        let is_full = match dialled {
            None => accepted.count() >= MAX_ACCEPTED,
            Some(_) => state.links.len() >= MAX_LINKS + MAX_ACCEPTED,
        };
        if is_full || end.is_cancelled() {
            return None;
        }
        let id = SourceId(state.next);
        state.next += 1;
        let (ready, asked) = match dialled {
            None => (None, None),
            Some(addr) => {
                let (ask, asked) = oneshot::channel();
                (Some((addr, ask)), Some(asked))
            }
        };
        let entered = Entered {
            link: Arc::clone(link),
            is_v2,
            is_dialled: dialled.is_some(),
            size: None,
            ready,
            end: end.clone(),
        };
        state.links.insert(id, entered);
        drop(state);
        Some(Seat {
            sought: Arc::clone(self),
            id,
            end,
            asked,
        })
    }

    fn heard(&self, id: SourceId, event: LinkEvent) {
        let now = Instant::now().into_std();
        let mut state = self.state();
        let mut has_hashes = false;
        if let LinkEvent::About(about) = &event
            && let Some(link) = state.links.get_mut(&id)
        {
            link.size = about.metadata_size.or(link.size);
            has_hashes = link.has_hashes();
        }
        let is_part = matches!(
            event,
            LinkEvent::Metadata(MetadataMessage::Data { .. }) | LinkEvent::Hashes { .. }
        );
        match (&mut state.stage, event) {
            (Stage::Hash(fetch), LinkEvent::About(about)) => {
                if let Some(size) = about.metadata_size {
                    fetch.source_up(now, id, size);
                }
            }
            (Stage::Hash(fetch), LinkEvent::Metadata(message)) => {
                fetch.handle_message(now, id, message);
            }
            (Stage::Layers { fetch, .. }, LinkEvent::About(_)) if has_hashes => {
                fetch.source_up(now, id);
            }
            (Stage::Layers { fetch, .. }, LinkEvent::Hashes { range, hashes }) => {
                fetch.hashes_came(now, id, range, &hashes);
            }
            (Stage::Layers { fetch, .. }, LinkEvent::HashesRejected(range)) => {
                fetch.hashes_rejected(now, id, range);
            }
            _ => {}
        }
        self.settle(&mut state);
        drop(state);
        if is_part {
            self.news.send_modify(|parts| *parts += 1);
        }
        // There may be another time to wake at.
        self.changed.notify_one();
    }

    /// Does what the fetch wants done.
    fn settle(&self, state: &mut State) {
        loop {
            let State {
                stage,
                links,
                wrong,
                ..
            } = &mut *state;
            let mut end = |id: SourceId| {
                *wrong = wrong.saturating_add(1);
                if let Some(link) = links.get(&id) {
                    link.end.cancel();
                }
            };
            let next = match stage {
                Stage::Hash(fetch) => match fetch.poll_output() {
                    None => return,
                    Some(FetchOutput::Liar(id)) => {
                        end(id);
                        continue;
                    }
                    Some(FetchOutput::Ask { source, piece }) => {
                        if let Some(link) = links.get(&source) {
                            link.link.ask_metadata(piece);
                        }
                        continue;
                    }
                    Some(FetchOutput::Done(info)) => Stage::Info(info),
                },
                Stage::Layers {
                    fetch, metainfo, ..
                } => match fetch.poll_output() {
                    None => return,
                    Some(LayerOutput::Liar(id)) => {
                        end(id);
                        continue;
                    }
                    Some(LayerOutput::Ask { source, range }) => {
                        if let Some(link) = links.get(&source) {
                            link.link.ask_hashes(range);
                        }
                        continue;
                    }
                    Some(LayerOutput::Done(layers)) => Stage::WithLayers(metainfo.clone(), layers),
                },
                Stage::Info(_) | Stage::WithLayers(..) | Stage::Known(_) => return,
            };
            *stage = next;
            self.changed.notify_one();
        }
    }

    /// The peers to be dialled now.
    pub(super) fn to_dial(self: &Arc<Self>) -> Vec<(Dialling, CancellationToken)> {
        let named = self.meeting.peers.named();
        let mut state = self.state();
        let Some(open) = state.open.clone() else {
            return Vec::new();
        };
        let under_way = state.dialled.values().filter(|peer| peer.is_under_way);
        let room = MAX_LINKS.saturating_sub(under_way.count());
        let new: Vec<_> = named
            .into_iter()
            .filter(|addr| !state.dialled.contains_key(addr))
            .take(room)
            .collect();
        for addr in &new {
            let dialled = Dialled {
                at: Instant::now(),
                is_under_way: true,
            };
            state.dialled.insert(*addr, dialled);
        }
        let dialling = new.into_iter().map(|addr| {
            let sought = Arc::clone(self);
            (Dialling { sought, addr }, open.child_token())
        });
        dialling.collect()
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a step of the one who seeks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SoughtStep {
    /// There may be somebody to dial, and a next step.
    Next,
    /// The torrent is known.
    Known,
}

enum Step {
    Done,
    Read(Bytes),
    Put(Box<Metainfo>, BTreeMap<[u8; 32], Bytes>),
    /// Nothing, until then.
    Wait(Instant),
}

/// How long hashes of v2 are waited for that can be done without.
fn patience(links: &BTreeMap<SourceId, Entered>) -> Duration {
    match links.values().any(Entered::has_hashes) {
        true => LAYER_PATIENCE,
        false => LAYER_GRACE,
    }
}

/// The trackers of a magnet link, in the order in which they are asked.
pub(super) fn tiers(magnet: &Magnet) -> Vec<Vec<String>> {
    let trackers = magnet.trackers.iter();
    trackers.map(|tracker| vec![tracker.clone()]).collect()
}

impl Stage {
    /// The info dictionary is known.
    fn layers(metainfo: Metainfo) -> Self {
        if metainfo.missing_layers().is_empty() {
            return Self::Known(Box::new(metainfo));
        }
        Self::Layers {
            fetch: Box::new(LayerFetch::new(&metainfo)),
            metainfo: Box::new(metainfo),
            since: Instant::now(),
        }
    }
}

impl Seat {
    /// The connection has this for the torrent.
    pub(super) fn heard(&self, event: LinkEvent) {
        self.sought.heard(self.id, event);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = Instant::now().into_std();
        let mut state = self.sought.state();
        state.links.remove(&self.id);
        match &mut state.stage {
            Stage::Hash(fetch) => fetch.source_down(now, self.id),
            Stage::Layers { fetch, .. } => fetch.source_down(now, self.id),
            Stage::Info(_) | Stage::WithLayers(..) | Stage::Known(_) => {}
        }
        self.sought.settle(&mut state);
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if matches!(state.stage, Stage::Known(_)) {
            // The connections become links.
            return;
        }
        if let Some(open) = state.open.take() {
            open.cancel();
        }
        state.dialled.clear();
    }
}

impl Dialling {
    pub(super) fn sought(&self) -> &Arc<Sought> {
        &self.sought
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        if let Some(peer) = self.sought.state().dialled.get_mut(&self.addr) {
            peer.is_under_way = false;
            peer.at = Instant::now();
        }
        self.sought.changed.notify_one();
    }
}
