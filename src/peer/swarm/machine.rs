//! The machine itself: it takes every input, asks its parts what follows, and puts the
//! outputs in order. See the [module docs](super).
//!
//! At the bottom are its parts, and between both, topic by topic, what they do together:
//!
//! ```text
//!               messages
//!   waiting ─ joining   announced   receiving   serving   pausing
//!         owners      manifest_pages   storing    limiting   timing
//!                    choosing    asking    leaving
//!                             parts: effort, limit, …
//! ```

mod announced;
mod asking;
mod choosing;
mod effort;
mod figures;
#[cfg(any(test, feature = "testing"))]
mod invariants;
mod joining;
mod keeping;
mod leaving;
mod limit;
mod limiting;
mod manifest_pages;
mod messages;
mod owners;
mod parts;
mod pausing;
mod receiving;
mod serving;
mod storing;
mod timing;
mod waiting;
mod withdrawing;
mod zones;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::content::{Bitfield, BlockRange, ChunkIndex, ContentId, Geometry, Manifest};
use crate::peer::swarm::block_layout::BlockLayout;
use crate::peer::swarm::early::Early;
use crate::peer::swarm::gate::{Allowance, Direction};
use crate::peer::swarm::manifest_fetch::ManifestFetch;
use crate::peer::swarm::passage::Passage;
use crate::peer::swarm::phase::Phase;
use crate::peer::swarm::piece_map::PieceMap;
use crate::peer::swarm::{
    ChunkBytes, DownloadStats, FarBytes, LinkCookies, LinkId, LinkInfo, Output, Progress,
    ReadWindow, Strategy, SwarmConfig, Waste,
};
use crate::protocol::{Addr, OwnState, PeerId, PeerMessage, ZoneTag};
use effort::Serving;
use keeping::Keeping;
use parts::Parts;

/// For how long a BitTorrent client is asked at least, at its rate. It gathers short blocks
/// until an acknowledgement comes, which may be 40 ms late, so that what little is asked of it
/// comes slowly, and then less is asked of it. libtorrent asks others for three seconds.
const TORRENT_SLACK: Duration = Duration::from_millis(500);

/// The machine of one content. See the [module docs](super).
#[derive(Debug)]
pub struct Swarm {
    parts: Parts,
}

impl Swarm {
    /// The machine of a content that has to be downloaded.
    pub fn leecher(now: Instant, config: SwarmConfig, me: PeerId, id: ContentId) -> Self {
        let fetch = Phase::Manifest(Box::new(ManifestFetch::new(id)));
        let mut parts = Parts::new(now, config, me, id, fetch);
        // It announces itself at once, with nothing to offer yet. Leechers that know each
        // other early pass the first chunks on without asking a tracker again.
        let announce = Output::Announce(OwnState::Partial);
        parts.outbox.push(announce);
        Self { parts }
    }

    /// The machine of a content that has to be downloaded, and whose manifest is known
    /// already: nobody is asked for it, and the storage is opened at once. So it is with
    /// a torrent; the links of one are with BitTorrent clients.
    pub fn with_manifest(
        now: Instant,
        config: SwarmConfig,
        me: PeerId,
        manifest: Arc<Manifest>,
    ) -> Self {
        let mut config = config;
        if manifest.is_torrent() {
            config.planner.slack = config.planner.slack.max(TORRENT_SLACK);
        }
        let (id, phase) = (manifest.id(), Phase::Opening(Arc::clone(&manifest)));
        let mut parts = Parts::new(now, config, me, id, phase);
        parts.outbox.push(Output::Open(manifest));
        parts.outbox.push(Output::Announce(OwnState::Partial));
        Self { parts }
    }

    /// The content should have this length in bytes, by the word of a tracker. Owners that
    /// are named as complete are asked for blocks before the manifest is here. If the
    /// length turns out to be another one, these requests were in vain. Not for a content
    /// of which the storage has a part already.
    #[must_use]
    pub fn expecting(mut self, length: u64) -> Self {
        // Nobody knows the length of a content of 0 bytes from one that was not named.
        let geometry = Geometry::of(length).ok().filter(|_| length > 0);
        if let (Phase::Manifest(fetch), Some(geometry)) = (&mut self.parts.phase, geometry) {
            fetch.expect(geometry.chunks());
            self.parts.early = Some(Box::new(Early::new(
                BlockLayout::of(geometry),
                &self.parts.config,
            )));
        }
        self
    }

    /// The content only passes through here: at most `window` bytes behind the position of
    /// its first reader are asked for, or two chunks if that is more, and what the reader
    /// has passed does not stay. What is here is offered to links, and taken back when it is
    /// passed; trackers do not hear of it. Nothing of it may be here at the start, and
    /// nothing may be
    /// [expected](Self::expecting).
    #[must_use]
    pub fn passing(mut self, window: u64) -> Self {
        self.parts.passage = Some(Passage::new(window));
        // Nobody is to find it here.
        self.parts.outbox.keep_from_trackers();
        self
    }

    /// This peer is in a zone, and tells its links so. It fetches from links of the same zone, and
    /// not from those that say that they are in another one, unless it [imports](Self::import) or
    /// gets nothing at all. Links that say nothing count as near.
    #[must_use]
    pub fn in_zone(mut self, zone: impl Into<Option<ZoneTag>>) -> Self {
        self.parts.zone = zone.into();
        self
    }

    /// This peer is one of the few that fetch from other zones what its own lacks. They share that
    /// out among themselves, as far as they are linked.
    pub fn import(&mut self, now: Instant, others: impl IntoIterator<Item = Addr>) {
        zones::named(&mut self.parts, others);
        zones::import(&mut self.parts);
        self.settle(now);
    }

    /// The machine of a content that is complete in the storage.
    pub fn seeder(now: Instant, config: SwarmConfig, me: PeerId, manifest: Arc<Manifest>) -> Self {
        let (id, phase) = (manifest.id(), Phase::Seeding(manifest));
        Self {
            parts: Parts::new(now, config, me, id, phase),
        }
    }

    /// The content's identity.
    pub fn id(&self) -> ContentId {
        self.parts.id
    }

    /// The id by which other peers know this one.
    pub fn me(&self) -> PeerId {
        self.parts.me
    }

    /// The manifest, once it is known.
    pub fn manifest(&self) -> Option<&Arc<Manifest>> {
        self.parts.manifest()
    }

    /// Whether the content is complete and published.
    pub fn is_seeding(&self) -> bool {
        self.parts.is_seeding()
    }

    /// The blocks that a link has asked for and that wait for their turn to be sent, in
    /// this order. They may be read ahead.
    pub fn asked_next(&self, link: LinkId) -> impl Iterator<Item = BlockRange> + Clone {
        self.parts.uploader.waiting(link)
    }

    /// Whether every whole chunk that has arrived is durable.
    pub fn is_saved(&self) -> bool {
        match &self.parts.phase {
            Phase::Transfer(transfer) => transfer.is_saved(),
            _ => true,
        }
    }

    /// How far the content is.
    pub fn progress(&self, now: Instant) -> Progress {
        figures::progress(&self.parts, now)
    }

    /// What is done for the content at this moment, with all links. O(links).
    pub fn stats(&self, now: Instant) -> DownloadStats {
        figures::stats(&self.parts, now)
    }

    /// The state of every chunk, and how many links have it; nothing until the content can
    /// be stored. O(chunks) while it is downloaded, otherwise O(links * chunks).
    pub fn piece_map(&self) -> Option<PieceMap> {
        figures::piece_map(&self.parts)
    }

    /// Where the bytes of a chunk are.
    pub(crate) fn chunk_bytes(&self, chunk: ChunkIndex) -> ChunkBytes<'_> {
        match &self.parts.phase {
            Phase::Transfer(transfer) => transfer.bytes_of(chunk),
            Phase::Seeding(_) => ChunkBytes::Stored,
            Phase::Manifest(_) | Phase::Opening(_) => ChunkBytes::Missing,
        }
    }

    /// The chunks that are verified and stored, once the content can be stored.
    pub fn verified_chunks(&self) -> Option<Bitfield> {
        match &self.parts.phase {
            Phase::Manifest(_) | Phase::Opening(_) => None,
            Phase::Transfer(transfer) => Some(transfer.stored().clone()),
            Phase::Seeding(manifest) => Some(Bitfield::all(manifest.geometry().chunks())),
        }
    }

    /// What the readers of the content want next.
    pub fn set_read_windows(&mut self, now: Instant, windows: &[ReadWindow]) {
        asking::set_read_windows(&mut self.parts, now, windows);
        self.settle(now);
    }

    /// Only these chunks are wanted from now on; all, without any. What others were asked for
    /// of other chunks is cancelled. When all of a set is stored, the machine
    /// [rests](Self::is_resting), also if that is the whole content. May be called again at any
    /// time, and has the part published again.
    ///
    /// # Panics
    /// If they belong to another content.
    pub fn set_wanted(&mut self, now: Instant, wanted: Option<Bitfield>) {
        if let (Some(wanted), Some(manifest)) = (&wanted, self.parts.manifest()) {
            assert_eq!(wanted.chunks(), manifest.geometry().chunks());
        }
        choosing::set_wanted(&mut self.parts, now, wanted);
        self.settle(now);
    }

    /// Whether there is a set of [wanted](Self::set_wanted) chunks, and all of these are
    /// stored. Then nobody is asked for anything or dialled, patience does not count, and
    /// others get what is here.
    pub fn is_resting(&self) -> bool {
        self.parts.phase.rests()
    }

    /// The storage has published the part that was wanted. If something else is wanted by now,
    /// [`Output::FinishPart`] comes again when that is here.
    pub fn part_finished(&mut self, now: Instant) {
        choosing::part_finished(&mut self.parts, now);
        self.settle(now);
    }

    /// Whether a chunk is wanted; all are, without a [set](Self::set_wanted).
    pub fn wants(&self, chunk: ChunkIndex) -> bool {
        match &self.parts.phase {
            Phase::Transfer(transfer) => transfer.wants(chunk),
            _ => true,
        }
    }

    /// Asks for the missing chunks in another order from now on.
    pub fn set_strategy(&mut self, strategy: Strategy) {
        self.parts.config.planner.strategy = strategy;
        if let Some(planner) = self.parts.planner() {
            planner.set_strategy(strategy);
        }
    }

    /// What to do next, in order; `None` when there is nothing to do for now.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.parts.outbox.pop()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing else happens
    /// before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        timing::poll_timeout(&self.parts)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        timing::handle_timeout(&mut self.parts, now);
        self.settle(now);
    }

    /// Something has answered after a time in which nothing did: a tracker, or a peer
    /// about another content. If nothing arrives here, everybody is tried again at once.
    pub fn reachable_again(&mut self, now: Instant) {
        if owners::reachable_again(&mut self.parts, now) {
            self.settle(now);
        }
    }

    /// Whether bytes that go this way are limited from now on: the payload of blocks, and
    /// the pages of the manifest. Then they pass only as far as
    /// [`allow`](Self::allow) says. What was asked for before is not held up.
    pub fn set_limited(&mut self, now: Instant, direction: Direction, limited: bool) {
        limiting::set_limited(&mut self.parts, now, direction, limited);
        self.settle(now);
    }

    /// What this side would send, or ask for, if it were allowed. For each host one wish at
    /// a time, until it is [allowed](Self::allow).
    pub fn poll_wish(&mut self) -> Option<Allowance> {
        let download = self.parts.limit.poll_wish();
        download.or_else(|| self.parts.uploader.gate_mut()?.poll_wish())
    }

    /// What was allowed and is not used: nobody wants it any more, or the request that it
    /// was used for was rejected.
    pub fn poll_returned(&mut self) -> Option<Allowance> {
        let download = self.parts.limit.poll_returned();
        download.or_else(|| self.parts.uploader.gate_mut()?.poll_returned())
    }

    /// A [wish](Self::poll_wish) comes true. It is used at once, or soon returned.
    pub fn allow(&mut self, now: Instant, allowance: &Allowance) {
        limiting::allow(&mut self.parts, now, allowance);
        self.settle(now);
    }

    /// Asks nobody for anything until [`resume`](Self::resume), and dials nobody. What
    /// others were asked for is cancelled, what has arrived is stored and committed, and
    /// patience does not count. What is on its way still arrives, for two seconds at most;
    /// then the links close that are of no use. What is here of chunks that are not whole
    /// stays in memory. `serve` says whether others go on getting what is here;
    /// without that, all links are closed, and none is accepted. No effect on a content
    /// that is complete, or for which nothing is missing any more: that is published. May
    /// be called again with another `serve`.
    pub fn pause(&mut self, now: Instant, serve: bool) {
        if pausing::pause(&mut self.parts, now, serve) {
            self.settle(now);
        }
    }

    /// Goes on after [`pause`](Self::pause): everybody is tried again at once. No effect on
    /// a download that is not paused.
    pub fn resume(&mut self, now: Instant) {
        if pausing::resume(&mut self.parts, now) {
            self.settle(now);
        }
    }

    /// Whether nobody is asked for anything.
    pub fn is_paused(&self) -> bool {
        self.parts.is_paused()
    }

    /// Gives up after this long without anything; never with `None`. It counts from when
    /// something last arrived.
    pub fn set_patience(&mut self, now: Instant, patience: Option<Duration>) {
        self.parts.config.patience = patience;
        self.settle(now);
    }

    /// A link is up: the handshake is done, or this side dialled and has said Hello. In
    /// that case [`link_met`](Self::link_met) tells later who answered. The machine may
    /// drop the link at once, if it is banned, or if there is no place for it; or have it
    /// wait for a place.
    pub fn link_up(&mut self, now: Instant, id: LinkId, info: LinkInfo) {
        if joining::link_up(&mut self.parts, now, id, info) {
            self.settle(now);
        }
    }

    /// The other side of a link that this side dialled has said who it is. Call it before
    /// any message of that link. If it refuses instead, that is a message; if it does not
    /// answer, the link is [down](Self::link_down).
    pub fn link_met(
        &mut self,
        now: Instant,
        id: LinkId,
        peer: PeerId,
        cookies: Option<LinkCookies>,
    ) {
        if joining::link_met(&mut self.parts, now, id, peer, cookies) {
            self.settle(now);
        }
    }

    /// A link went down. Unknown links are ignored, so a link that the machine dropped
    /// may be reported as well.
    pub fn link_down(&mut self, now: Instant, link: LinkId) {
        joining::link_down(&mut self.parts, now, link);
        self.settle(now);
    }

    /// The tracker, or the user, named owners: their addresses, and whether each of them
    /// is complete. An empty list says that there are none, or that nobody answered.
    pub fn owners_found(&mut self, now: Instant, owners: impl IntoIterator<Item = (Addr, bool)>) {
        owners::owners_found(&mut self.parts, now, owners);
        self.settle(now);
    }

    /// A dial failed, or its handshake did.
    pub fn dial_failed(&mut self, now: Instant, addr: &Addr) {
        owners::dial_failed(&mut self.parts, now, addr);
        self.settle(now);
    }

    /// A message arrived on a link. Messages of unknown links are ignored.
    pub fn handle_message(&mut self, now: Instant, link: LinkId, message: PeerMessage) {
        if messages::heard(&mut self.parts, now, link, message) {
            self.settle(now);
        }
    }

    /// Messages were handed to the network, with `bytes` bytes of blocks among them.
    pub fn messages_sent(&mut self, now: Instant, link: LinkId, messages: usize, bytes: u64) {
        if serving::messages_sent(&mut self.parts, now, link, messages, bytes) {
            self.settle(now);
        }
    }

    /// How many bytes of blocks were sent.
    pub fn uploaded(&self) -> u64 {
        self.parts.counters.totals().1
    }

    /// How many bytes of blocks arrived, and how many of them in vain.
    pub(crate) fn downloaded(&self) -> (u64, Waste) {
        (self.parts.counters.totals().0, self.parts.counters.waste)
    }

    /// How many bytes of blocks went from one zone to another.
    pub(crate) fn far_bytes(&self) -> FarBytes {
        self.parts.counters.far
    }

    /// The manifest that a link sent was checked. `None` says that the link lied.
    pub fn manifest_checked(&mut self, now: Instant, link: LinkId, manifest: Option<Manifest>) {
        manifest_pages::claim_checked(&mut self.parts, now, link, manifest);
        self.settle(now);
    }

    /// The storage is open and has the chunks in `present`. Those in `verified` are
    /// offered at once. The others are not asked for, but are offered only when
    /// [`chunk_rechecked`](Self::chunk_rechecked) has called them good. Ignored unless
    /// [`Output::Open`] asked for it.
    ///
    /// # Panics
    /// If `present` or `verified` belongs to another content.
    pub fn opened(&mut self, now: Instant, present: &Bitfield, verified: &Bitfield) {
        if manifest_pages::opened(&mut self.parts, now, present, verified) {
            self.settle(now);
        }
    }

    /// A chunk was hashed. A bad one is blamed on the peers that sent it.
    pub fn chunk_verified(&mut self, now: Instant, chunk: ChunkIndex, good: bool) {
        if storing::chunk_verified(&mut self.parts, now, chunk, good) {
            self.settle(now);
        }
    }

    /// A chunk was hashed, is good, and is in the storage already, as
    /// [`Output::Verify`](super::Output::Verify) had said that it may be: from now on it is
    /// offered to others.
    pub fn chunk_written(&mut self, now: Instant, chunk: ChunkIndex) {
        if storing::chunk_written(&mut self.parts, now, chunk) {
            self.settle(now);
        }
    }

    /// A verified chunk is in the storage: from now on it is offered to others.
    pub fn chunk_stored(&mut self, now: Instant, chunk: ChunkIndex) {
        if storing::chunk_stored(&mut self.parts, now, chunk) {
            self.settle(now);
        }
    }

    /// A chunk that an earlier download left behind was read and hashed. A good one is
    /// offered from now on. A bad one is missing, and nobody is blamed for it.
    pub fn chunk_rechecked(&mut self, now: Instant, chunk: ChunkIndex, good: bool) {
        if storing::chunk_rechecked(&mut self.parts, now, chunk, good) {
            self.settle(now);
        }
    }

    /// Somebody else may have put these chunks into the storage since it was
    /// [opened](Self::opened). Those that are missing are not asked for any more, what was
    /// asked for of them is cancelled, and they are verified as those are that an earlier
    /// download left behind: see [`chunk_rechecked`](Self::chunk_rechecked).
    pub fn chunks_found(&mut self, now: Instant, chunks: &[ChunkIndex]) {
        if !self.parts.effort.is_stopping() && storing::chunks_found(&mut self.parts, chunks) {
            self.settle(now);
        }
    }

    /// These chunks come to the storage in another way, as it seems, and no others: those of
    /// which nothing was asked for yet are asked for only if a reader waits for them.
    pub fn set_elsewhere(&mut self, now: Instant, chunks: Option<Bitfield>) {
        if let Phase::Transfer(transfer) = &mut self.parts.phase
            && transfer.planner.set_elsewhere(chunks)
        {
            self.parts.ask_queue.wake_idle();
            self.settle(now);
        }
    }

    /// The chunks that are on their way here, or to the storage, in no order.
    pub fn under_way(&self) -> Vec<ChunkIndex> {
        match &self.parts.phase {
            Phase::Transfer(transfer) => transfer.under_way(),
            _ => Vec::new(),
        }
    }

    /// As far as the storage can tell, nobody has changed what an earlier download left
    /// behind. So when the rest has arrived, the content is published without reading
    /// every chunk of it first. A chunk for which
    /// [`chunk_rechecked`](Self::chunk_rechecked) was not called has to be verified when
    /// it is read to be served.
    pub fn left_untouched(&mut self, now: Instant) {
        if let Phase::Transfer(transfer) = &mut self.parts.phase {
            transfer.left_untouched();
        }
        self.settle(now);
    }

    /// Everything that was stored before the commit began is durable.
    pub fn committed(&mut self, now: Instant) {
        if let Phase::Transfer(transfer) = &mut self.parts.phase {
            transfer.committed();
        }
        self.settle(now);
    }

    /// The download stops here. From now on the only outputs are those that store what
    /// has arrived, until [`is_saved`](Self::is_saved).
    pub fn stop(&mut self, now: Instant) {
        self.parts.effort.stops();
        self.parts.keeping = Keeping::default();
        self.settle(now);
    }

    /// The storage has published the content: it is complete, and seeded from now on.
    pub fn finished(&mut self, now: Instant) {
        if storing::finished(&mut self.parts, now) {
            self.settle(now);
        }
    }

    /// A block was read for a link. Without its bytes (the storage failed, or returned
    /// another number of bytes), the request is rejected.
    pub fn block_read(
        &mut self,
        now: Instant,
        link: LinkId,
        block: BlockRange,
        data: Option<Bytes>,
    ) {
        serving::block_read(&mut self.parts, now, link, block, data);
        self.settle(now);
    }
}

/// What follows from an input.
impl Swarm {
    /// Does what the last input made possible.
    fn settle(&mut self, now: Instant) {
        if self.parts.effort.is_stopping() {
            storing::write(&mut self.parts);
            return storing::commit_or_publish(&mut self.parts, now);
        }
        if let Some(serving) = self.parts.effort.pause() {
            return self.settle_paused(now, serving);
        }
        if self.parts.effort.is_stalled() && !self.parts.phase.is_content() {
            // The reason may be another one by now.
            timing::stalled(&mut self.parts, now);
        }
        timing::take_census(&mut self.parts, now);
        waiting::serve_line(&mut self.parts, now);
        owners::dial(&mut self.parts, now);
        owners::search_owners(&mut self.parts, now);
        // The pages come first, as nothing can be verified without them; but a content
        // with a single chunk needs none.
        if asking::is_short(&self.parts) {
            asking::ask(&mut self.parts, now);
        }
        asking::fetch_manifest(&mut self.parts, now);
        asking::ask(&mut self.parts, now);
        storing::write(&mut self.parts);
        storing::commit_or_publish(&mut self.parts, now);
        serving::upload(&mut self.parts, now);
        storing::recheck(&mut self.parts);
        limiting::settle_limits(&mut self.parts, now);
    }

    /// The same while nobody is asked for anything.
    fn settle_paused(&mut self, now: Instant, serving: Serving) {
        timing::take_census(&mut self.parts, now);
        pausing::settle(&mut self.parts, now, serving);
        storing::write(&mut self.parts);
        storing::commit_or_publish(&mut self.parts, now);
        serving::upload(&mut self.parts, now);
        if serving == Serving::Goes || storing::has_found(&self.parts) {
            storing::recheck(&mut self.parts);
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl Swarm {
    /// Panics where the machine contradicts itself. For tests.
    pub fn check_invariants(&self) {
        invariants::check(&self.parts);
    }
}
