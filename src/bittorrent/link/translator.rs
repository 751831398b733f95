//! The translation, message by message.
//!
//! What it promises to the machine, as the machine's own protocol does:
//! - it hears once what the other side has, and before anything that depends on it;
//! - each of its requests is answered exactly once, by the block or by a rejection;
//! - it hears a Choke at the start, since BitTorrent begins so, and each change once.
//!
//! What it promises to the other side: nothing of an extension that was not agreed on, no
//! request that is too long or one too many, and an answer to each request that the Fast
//! extension promises one for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::asks::{Answer, Asked, Asks};
use super::error::{LinkEnd, Violation};
use super::event::LinkEvent;
use super::facts::LinkFacts;
use super::hash_service::HashService;
use super::metadata_service::MetadataService;
use super::pulse::Pulse;
use super::remote::Remote;
use super::serves::{OWN_REQQ, Requested, Say, Serves, Words};
use crate::bittorrent::wire::{
    ExtendedHandshake, ExtensionIds, HANDSHAKE_EXTENSION, HashRange, Message, MetadataMessage,
    OWN_EXTENSIONS, PexMessage, Reserved, read_chunk_index, write_chunk_index,
};
use crate::content::{BlockRange, ChunkIndex};
use crate::protocol::{DONT_HAVE_MARK, PeerMessage, RefuseReason};

/// After this time a peer that has not said what it has counts as one that has nothing. By
/// BEP 3 it says so first, if at all.
const GREETING: Duration = Duration::from_secs(10);

/// How often the machine hears again that a choked peer is interested. A BitTorrent peer
/// says it once and waits, for as long as most clients take to choose whom to unchoke. The
/// machine expects one that let its turn pass to speak again.
const INTEREST: Duration = Duration::from_secs(10);

/// How often peers are told of others, and at most listened to about others (BEP 11).
const PEX: Duration = Duration::from_secs(60);

/// How many answers to what was not asked for are passed over. A choke or a cancel that
/// crosses a block is remembered elsewhere and does not count.
const MAX_UNASKED: u32 = 64;

/// How many messages of unknown types are passed over. libtorrent, aria2 and rqbit close at
/// the first; but a peer with one extension too many is still a good source of blocks.
const MAX_UNKNOWN: u32 = 64;

/// How many messages may wait to be sent: twice what the machine lets wait on a link.
const MAX_UNSENT: usize = 8192;

/// A message that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The message.
    pub message: Message,
    /// How many messages of the machine are sent with it: 0 or 1.
    pub of_machine: usize,
    /// A piece of the info dictionary.
    is_metadata: bool,
}

/// What was passed over on a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkFigures {
    /// Bytes of blocks that came for nothing.
    pub late_bytes: u64,
    /// Answers to what was not asked for.
    pub unasked: u32,
    /// Messages of unknown types.
    pub unknown: u32,
    /// Chunks of which blocks may be asked for while choked. They need not be.
    pub allowed_fast: u32,
}

/// One connection. After each input, take what [`poll_event`](Self::poll_event) has until
/// there is nothing, and what [`poll_message`](Self::poll_message) has as far as the network
/// takes it.
#[derive(Debug)]
pub struct BitTorrentLink {
    facts: LinkFacts,
    asks: Asks,
    serves: Serves,
    remote: Remote,
    metadata: MetadataService,
    hashes: HashService,
    events: VecDeque<LinkEvent>,
    messages: VecDeque<Outgoing>,
    /// Messages of the machine that need nothing to be sent any more.
    settled: usize,
    /// The end was announced, or waits among the events.
    has_ended: bool,

    /// The ids under which the other side takes extensions.
    ids: ExtensionIds,
    /// Whether the other side chokes this one.
    is_choked: bool,
    /// What the other side said last of its interest.
    interest: Option<bool>,
    /// An Unchoke that is said as soon as the other side is interested. WebTorrent (1.9)
    /// does not notice one that comes with the handshake, and waits for another for ever.
    unchoke_waits: bool,
    /// Whether this side said that it is interested, and whether the machine is.
    said_interest: bool,
    has_interest: bool,
    /// The machine has said what it has.
    has_greeted: bool,
    /// This side has everything.
    is_complete: bool,
    /// The machine was told that the other side takes chunks back.
    is_marked: bool,
    /// The other side wants nothing (BEP 21).
    upload_only: bool,
    figures: LinkFigures,

    pulse: Pulse,
    began_at: Instant,
    /// When the machine last heard of the interest of the other side.
    interest_at: Instant,
    peers_heard_at: Option<Instant>,
    peers_told_at: Option<Instant>,
}

impl BitTorrentLink {
    /// A connection on which both handshakes are behind. It has the extended handshake to
    /// send, if that was agreed on.
    pub fn new(now: Instant, facts: LinkFacts) -> Self {
        let geometry = facts.geometry;
        let most = facts.presumed_reqq() as usize;
        let mut link = Self {
            asks: Asks::new(geometry, facts.padding.clone(), most),
            serves: Serves::new(geometry, facts.is_fast()),
            remote: Remote::new(geometry.chunks()),
            metadata: MetadataService::new(facts.info.clone()),
            hashes: HashService::new(facts.hash_requests),
            events: VecDeque::from([LinkEvent::Machine(PeerMessage::Choke)]),
            messages: VecDeque::new(),
            settled: 0,
            has_ended: false,
            ids: ExtensionIds::default(),
            is_choked: true,
            interest: None,
            unchoke_waits: false,
            said_interest: false,
            has_interest: true,
            has_greeted: false,
            is_complete: false,
            is_marked: false,
            upload_only: false,
            figures: LinkFigures::default(),
            pulse: Pulse::new(now),
            began_at: now,
            interest_at: now,
            peers_heard_at: None,
            peers_told_at: None,
            facts,
        };
        if link.facts.is_extended() {
            let about = link.about();
            link.say_extended(Some(HANDSHAKE_EXTENSION), about.encode());
        }
        link
    }

    /// What this side says of itself.
    fn about(&self) -> ExtendedHandshake {
        let mut about = self.facts.about.clone();
        about.extensions = OWN_EXTENSIONS;
        if self.facts.private {
            about.extensions.ut_pex = None;
        }
        about.reqq = Some(OWN_REQQ);
        about.metadata_size = self.metadata.size();
        about
    }

    // What the other side says.

    /// A message of the other side has arrived.
    pub fn handle_message(&mut self, now: Instant, message: Message) {
        if self.has_ended {
            return;
        }
        self.pulse.heard(now);
        if let Err(violation) = self.hear(now, message) {
            self.end(LinkEnd::Violation(violation));
        }
        self.send_requests();
    }

    /// Bytes of the other side cannot be read, as the reader says.
    pub fn handle_unreadable(&mut self, error: crate::bittorrent::wire::WireError) {
        self.end(LinkEnd::Violation(error.into()));
    }

    fn hear(&mut self, now: Instant, message: Message) -> Result<(), Violation> {
        let is_fast = self.facts.is_fast();
        match message {
            Message::HaveAll
            | Message::HaveNone
            | Message::Suggest(_)
            | Message::Reject(_)
            | Message::AllowedFast(_)
                if !is_fast =>
            {
                return Err(Violation::NotFast);
            }
            // None of these says anything of what it has.
            Message::KeepAlive
            | Message::Extended { .. }
            | Message::Port(_)
            | Message::Unknown { .. } => {}
            Message::Bitfield(_) | Message::HaveAll | Message::HaveNone => {}
            _ => self.presume_nothing(),
        }
        match message {
            Message::KeepAlive => {}
            Message::Choke => self.heard_choke(),
            Message::Unchoke => {
                if std::mem::take(&mut self.is_choked) {
                    self.tell(PeerMessage::Unchoke);
                }
            }
            Message::Interested => self.heard_interest(now, true),
            Message::NotInterested => self.heard_interest(now, false),
            Message::Have(chunk) => {
                if self.remote.gained(chunk)? {
                    self.tell(PeerMessage::Have(chunk));
                    self.close_if_both_are_complete();
                }
            }
            Message::Bitfield(bytes) => {
                let greeting = self.remote.states_bytes(&bytes)?;
                self.heard_statement(greeting);
            }
            Message::HaveAll | Message::HaveNone => {
                let greeting = self.remote.states_all(message == Message::HaveAll);
                self.heard_statement(greeting);
            }
            Message::Request(block) => self.heard_request(now, block)?,
            Message::Cancel(block) => {
                if self.serves.is_open(block) {
                    self.tell(PeerMessage::Cancel(block));
                }
            }
            Message::Block {
                chunk,
                offset,
                data,
            } => self.heard_block(chunk, offset, data)?,
            Message::Reject(part) => match self.asks.rejected(part) {
                Answer::Wanted((lost, cancels)) => {
                    self.lose(lost);
                    self.cancel_on_wire(cancels);
                }
                Answer::Late => {}
                Answer::Unasked => self.count_unasked()?,
            },
            Message::Suggest(chunk) => {
                if self.facts.geometry.contains(chunk) {
                    self.tell(PeerMessage::Suggest(chunk));
                }
            }
            // It may be used and need not be: the machine asks nobody who chokes it.
            Message::AllowedFast(_) => {
                let count = &mut self.figures.allowed_fast;
                *count = count.saturating_add(1);
            }
            // Nodes are found by others.
            Message::Port(_) => {}
            Message::Extended { id, payload } => self.heard_extended(now, id, &payload)?,
            Message::HashRequest(range) => {
                if self.hashes.requested() {
                    self.events.push_back(LinkEvent::HashesWanted(range));
                } else {
                    self.say(Message::HashReject(range));
                }
            }
            // Hashes were fetched before this connection became what it is.
            Message::Hashes { .. } | Message::HashReject(_) => self.count_unasked()?,
            Message::Unknown { .. } => self.count_unknown()?,
        }
        Ok(())
    }

    /// The other side says something else first: it has nothing, as far as is known.
    fn presume_nothing(&mut self) {
        if self.remote.is_silent()
            && let Some(greeting) = self.remote.states_all(false)
        {
            self.tell(greeting);
        }
    }

    fn heard_statement(&mut self, greeting: Option<PeerMessage>) {
        if let Some(greeting) = greeting {
            self.tell(greeting);
        }
        self.close_if_both_are_complete();
    }

    fn heard_choke(&mut self) {
        if std::mem::replace(&mut self.is_choked, true) {
            return;
        }
        self.tell(PeerMessage::Choke);
        let (lost, cancels) = self.asks.choked(self.facts.is_fast());
        self.lose(lost);
        self.cancel_on_wire(cancels);
    }

    fn heard_interest(&mut self, now: Instant, interested: bool) {
        if interested && std::mem::take(&mut self.unchoke_waits) {
            self.say(Message::Unchoke);
        }
        self.interest_at = now;
        if self.interest.replace(interested) != Some(interested) {
            self.tell(match interested {
                true => PeerMessage::Interested,
                false => PeerMessage::NotInterested,
            });
        }
    }

    fn heard_request(&mut self, now: Instant, block: BlockRange) -> Result<(), Violation> {
        match self.serves.requested(block) {
            Requested::Passed => {
                // Who asks is interested, whatever it said.
                if self.interest == Some(false) {
                    self.heard_interest(now, true);
                }
                self.tell(PeerMessage::Request(block));
            }
            Requested::Refused => self.refuse(block),
            Requested::Ignored => {}
            Requested::Violation(what) => return Err(Violation::Request { what }),
        }
        Ok(())
    }

    fn heard_block(
        &mut self,
        chunk: ChunkIndex,
        offset: u32,
        data: Bytes,
    ) -> Result<(), Violation> {
        let len = data.len() as u32;
        let part = BlockRange { chunk, offset, len };
        match self.asks.arrived(part, &data) {
            Answer::Wanted(blocks) => {
                for (block, data) in blocks {
                    self.tell_block(block, data);
                }
            }
            Answer::Late => self.figures.late_bytes += u64::from(len),
            Answer::Unasked => {
                self.figures.late_bytes += u64::from(len);
                self.count_unasked()?;
            }
        }
        Ok(())
    }

    fn heard_extended(&mut self, now: Instant, id: u8, payload: &Bytes) -> Result<(), Violation> {
        let is = |own: Option<u8>| own == Some(id);
        if !self.facts.is_extended() {
            self.count_unknown()?;
        } else if id == HANDSHAKE_EXTENSION {
            self.heard_about(now, ExtendedHandshake::decode(payload)?);
        } else if is(OWN_EXTENSIONS.ut_metadata) {
            match MetadataMessage::decode(payload)? {
                MetadataMessage::Request { piece } => {
                    self.serve_metadata(piece);
                }
                MetadataMessage::Unknown => self.count_unknown()?,
                answer => self.events.push_back(LinkEvent::Metadata(answer)),
            }
        } else if is(OWN_EXTENSIONS.ut_pex) && !self.facts.private {
            let is_due = |at: &Instant| now.saturating_duration_since(*at) >= PEX / 2;
            if self.peers_heard_at.as_ref().is_none_or(is_due) {
                self.peers_heard_at = Some(now);
                let peers = PexMessage::decode(payload)?;
                self.events.push_back(LinkEvent::Peers(peers));
            }
        } else if is(OWN_EXTENSIONS.lt_donthave) {
            let chunk = read_chunk_index(payload)?;
            if self.remote.lost(chunk)? {
                self.tell_lost(chunk);
            }
        } else if is(OWN_EXTENSIONS.upload_only) {
            let says = payload.first().is_some_and(|byte| *byte != 0);
            self.heard_upload_only(now, says);
        } else {
            self.count_unknown()?;
        }
        Ok(())
    }

    fn serve_metadata(&mut self, piece: u32) {
        let Some(id) = self.ids.ut_metadata.filter(|id| *id != 0) else {
            return;
        };
        let answer = self.metadata.requested(piece);
        let is_piece = matches!(answer, MetadataMessage::Data { .. });
        let payload = answer.encode();
        self.push(Message::Extended { id, payload }, 0);
        if let Some(last) = self.messages.back_mut() {
            last.is_metadata = is_piece;
        }
    }

    /// The extended handshake, or an update of it.
    fn heard_about(&mut self, now: Instant, about: ExtendedHandshake) {
        self.ids.update(about.extensions);
        if let Some(reqq) = about.reqq {
            self.asks.set_most(reqq as usize);
        }
        if self.takes_back() {
            self.mark();
        }
        let upload_only = about.upload_only;
        self.events.push_back(LinkEvent::About(Box::new(about)));
        if let Some(says) = upload_only {
            self.heard_upload_only(now, says);
        }
    }

    fn heard_upload_only(&mut self, now: Instant, says: bool) {
        self.upload_only = says;
        if says {
            self.heard_interest(now, false);
        }
        self.close_if_both_are_complete();
    }

    /// Whether the other side understands that a chunk is taken back.
    fn takes_back(&self) -> bool {
        self.ids.lt_donthave.is_some_and(|id| id != 0)
    }

    /// The machine takes no chunk back, and believes nobody who does, before it has heard
    /// that the other side knows of such things.
    fn mark(&mut self) {
        if !std::mem::replace(&mut self.is_marked, true) {
            self.tell(PeerMessage::Cancel(DONT_HAVE_MARK));
        }
    }

    fn tell_lost(&mut self, chunk: ChunkIndex) {
        self.mark();
        self.tell(PeerMessage::DontHave(chunk));
    }

    /// As rqbit does: two that want nothing of each other part.
    fn close_if_both_are_complete(&mut self) {
        if self.is_complete && (self.upload_only || self.remote.is_complete()) {
            self.tell(PeerMessage::Refuse(RefuseReason::NotNeeded));
            self.end(LinkEnd::NotNeeded);
        }
    }

    fn count_unasked(&mut self) -> Result<(), Violation> {
        self.figures.unasked += 1;
        match self.figures.unasked > MAX_UNASKED {
            true => Err(Violation::Unasked),
            false => Ok(()),
        }
    }

    fn count_unknown(&mut self) -> Result<(), Violation> {
        self.figures.unknown += 1;
        match self.figures.unknown > MAX_UNKNOWN {
            true => Err(Violation::Unknown),
            false => Ok(()),
        }
    }

    // What the machine says.

    /// The machine says something to the other side.
    pub fn handle_peer_message(&mut self, message: PeerMessage) {
        if self.has_ended {
            self.settled += 1;
            return;
        }
        match message {
            PeerMessage::Bitfield(_) | PeerMessage::HaveAll | PeerMessage::HaveNone => {
                self.greet(message);
            }
            PeerMessage::Have(chunk) => self.say_for_machine(Message::Have(chunk)),
            PeerMessage::DontHave(chunk) if self.takes_back() => {
                let payload = write_chunk_index(chunk);
                let id = self.ids.lt_donthave.unwrap_or_default();
                self.say_for_machine(Message::Extended { id, payload });
            }
            PeerMessage::Suggest(chunk) if self.facts.is_fast() => {
                self.say_for_machine(Message::Suggest(chunk));
            }
            PeerMessage::Interested | PeerMessage::NotInterested => {
                self.settled += 1;
                self.has_interest = message == PeerMessage::Interested;
                self.say_interest();
            }
            PeerMessage::Request(block) => {
                self.settled += 1;
                self.ask(block);
            }
            PeerMessage::Cancel(block) => {
                self.settled += 1;
                if let Some(cancels) = self.asks.cancelled(block) {
                    self.lose([block]);
                    self.cancel_on_wire(cancels);
                }
            }
            PeerMessage::Reject(block) => {
                self.settled += 1;
                if self.serves.answered(block) {
                    self.refuse(block);
                }
                let words = self.serves.settled();
                self.say_words(words);
            }
            PeerMessage::Block {
                chunk,
                offset,
                data,
            } => {
                let len = data.len() as u32;
                let block = BlockRange { chunk, offset, len };
                match self.serves.answered(block) {
                    true => self.say_for_machine(Message::Block {
                        chunk,
                        offset,
                        data,
                    }),
                    false => self.settled += 1,
                }
                let words = self.serves.settled();
                self.say_words(words);
            }
            PeerMessage::Choke | PeerMessage::Unchoke => {
                self.settled += 1;
                let words = self.serves.choked(message == PeerMessage::Choke);
                self.say_words(words);
            }
            PeerMessage::Refuse(reason) => {
                self.settled += 1;
                self.end(LinkEnd::Refused(reason));
            }
            // BitTorrent knows no line in front of a peer that is full.
            PeerMessage::Queued { .. } => {
                self.settled += 1;
                self.end(LinkEnd::Refused(RefuseReason::Busy));
            }
            // The manifest came with the torrent.
            PeerMessage::ManifestRequest { page } => {
                self.settled += 1;
                self.tell(PeerMessage::ManifestReject { page });
            }
            // Nothing of these is known here.
            PeerMessage::DontHave(_)
            | PeerMessage::Coming(_)
            | PeerMessage::Importing
            | PeerMessage::Suggest(_)
            | PeerMessage::KeepAlive
            | PeerMessage::SamePeer(_)
            | PeerMessage::Hello(_)
            | PeerMessage::Open(_)
            | PeerMessage::ManifestLength { .. }
            | PeerMessage::ManifestHashes { .. }
            | PeerMessage::ManifestReject { .. } => self.settled += 1,
        }
        self.send_requests();
    }

    /// The first message of the machine: what this side has.
    fn greet(&mut self, greeting: PeerMessage) {
        let is_fast = self.facts.is_fast();
        let chunks = self.facts.geometry.chunks();
        self.is_complete = greeting == PeerMessage::HaveAll;
        match greeting {
            // It was said before the torrent was known.
            PeerMessage::HaveNone if self.facts.said_none => self.settled += 1,
            PeerMessage::Bitfield(bits) => self.say_for_machine(Message::Bitfield(bits)),
            PeerMessage::HaveAll if is_fast && !self.facts.said_none => {
                self.say_for_machine(Message::HaveAll)
            }
            PeerMessage::HaveAll => {
                let all = crate::content::Bitfield::all(chunks).to_bytes();
                self.say_for_machine(Message::Bitfield(all));
            }
            _ if is_fast => self.say_for_machine(Message::HaveNone),
            // By BEP 3, who has nothing need not say so.
            _ => self.settled += 1,
        }
        self.has_greeted = true;
        // Not before that: by BEP 3 a bitfield comes first.
        if self.facts.agreed.has(Reserved::DHT)
            && let Some(port) = self.facts.dht_port
        {
            self.say(Message::Port(port));
        }
        let words = self.serves.greeted();
        self.say_words(words);
        self.say_interest();
        self.close_if_both_are_complete();
    }

    /// The machine wants a block.
    fn ask(&mut self, block: BlockRange) {
        if self.is_choked {
            // It has been told so, or is about to be.
            return self.lose([block]);
        }
        match self.asks.ask(block) {
            Asked::Taken => {
                // libtorrent answers nobody who has not said that it is interested.
                self.has_interest = true;
                self.say_interest();
            }
            Asked::Padding(zeros) => self.tell_block(block, zeros),
            Asked::Refused => self.lose([block]),
        }
    }

    /// Sends the requests that the other side lets wait.
    fn send_requests(&mut self) {
        if self.is_choked || self.has_ended {
            return;
        }
        while let Some(part) = self.asks.next_to_send() {
            self.say(Message::Request(part));
        }
    }

    /// These blocks will not come.
    fn lose(&mut self, blocks: impl IntoIterator<Item = BlockRange>) {
        for block in blocks {
            self.tell(PeerMessage::Reject(block));
        }
    }

    fn cancel_on_wire(&mut self, parts: Vec<BlockRange>) {
        for part in parts {
            self.say(Message::Cancel(part));
        }
    }

    /// A request of the other side will not be answered.
    fn refuse(&mut self, block: BlockRange) {
        if self.facts.is_fast() {
            self.say(Message::Reject(block));
        }
    }

    /// Who has everything wants nothing.
    fn say_interest(&mut self) {
        let interest = self.has_interest && !self.is_complete;
        if self.has_greeted && std::mem::replace(&mut self.said_interest, interest) != interest {
            self.say(match interest {
                true => Message::Interested,
                false => Message::NotInterested,
            });
        }
    }

    // What others say: those who own the connection.

    /// This side has everything from now on.
    pub fn handle_complete(&mut self) {
        if self.has_ended || std::mem::replace(&mut self.is_complete, true) {
            return;
        }
        self.say_extended(self.ids.upload_only, Bytes::from_static(&[1]));
        self.say_interest();
        self.close_if_both_are_complete();
    }

    /// This side wants nothing from now on, though it has not everything (BEP 21); or it does
    /// again.
    pub fn handle_upload_only(&mut self, says: bool) {
        if !self.has_ended {
            self.say_extended(self.ids.upload_only, Bytes::copy_from_slice(&[says.into()]));
        }
    }

    /// Tells of peers that this side has got and lost since the last time. Returns `false`
    /// if it is too early, the other side does not listen, or the torrent is private.
    pub fn tell_peers(&mut self, now: Instant, peers: &PexMessage) -> bool {
        let is_early = |at: Instant| now.saturating_duration_since(at) < PEX;
        let listens = self.ids.ut_pex.is_some_and(|id| id != 0) && !self.facts.private;
        if self.has_ended || !listens || self.peers_told_at.is_some_and(is_early) {
            return false;
        }
        self.peers_told_at = Some(now);
        self.say_extended(self.ids.ut_pex, peers.encode());
        true
    }

    /// Answers a request for hashes; with nothing if there are none.
    pub fn answer_hashes(&mut self, range: HashRange, hashes: Option<Bytes>) {
        match hashes {
            Some(hashes) => self.say(Message::Hashes { range, hashes }),
            None => {
                self.hashes.done();
                self.say(Message::HashReject(range));
            }
        }
    }

    /// Asks for a piece of the info dictionary. Returns `false` if the other side does not
    /// know of such things.
    pub fn ask_metadata(&mut self, piece: u32) -> bool {
        let knows = self.ids.ut_metadata.is_some_and(|id| id != 0) && !self.has_ended;
        if knows {
            let request = MetadataMessage::Request { piece };
            self.say_extended(self.ids.ut_metadata, request.encode());
        }
        knows
    }

    // Time.

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, if nothing happens
    /// before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.has_ended {
            return None;
        }
        let greeting = self.remote.is_silent().then_some((self.began_at, GREETING));
        let waits = self
            .waits_for_turn()
            .then_some((self.interest_at, INTEREST));
        let own = greeting.into_iter().chain(waits);
        let own = own.filter_map(|(at, after)| at.checked_add(after));
        own.chain(self.pulse.poll_timeout()).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.has_ended {
            return;
        }
        let is_due = |at: Instant, after| now.saturating_duration_since(at) >= after;
        if self.pulse.is_lost(now) {
            return self.end(LinkEnd::Silent);
        }
        if self.remote.is_silent() && is_due(self.began_at, GREETING) {
            self.presume_nothing();
        }
        if self.waits_for_turn() && is_due(self.interest_at, INTEREST) {
            self.interest_at = now;
            self.tell(PeerMessage::Interested);
        }
        if self.pulse.beats(now) {
            self.say(Message::KeepAlive);
        }
    }

    /// Whether the other side is interested and may not ask.
    fn waits_for_turn(&self) -> bool {
        self.interest == Some(true) && self.serves.is_choking()
    }

    // What follows.

    /// What there is for this side.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if self.has_ended {
            return None;
        }
        match self.remote.poll_change()? {
            PeerMessage::DontHave(chunk) => {
                self.tell_lost(chunk);
                self.events.pop_front()
            }
            change => Some(LinkEvent::Machine(change)),
        }
    }

    /// The next message to send, which counts as sent now.
    pub fn poll_message(&mut self, now: Instant) -> Option<Outgoing> {
        let outgoing = self.messages.pop_front()?;
        self.pulse.sent(now);
        if outgoing.is_metadata {
            self.metadata.sent();
        }
        if let Message::Hashes { .. } = outgoing.message {
            self.hashes.done();
        }
        Some(outgoing)
    }

    /// How many messages of the machine have been settled since the last time without
    /// anything that is to be sent for them.
    pub fn take_settled(&mut self) -> usize {
        std::mem::take(&mut self.settled)
    }

    /// What was passed over so far.
    pub fn figures(&self) -> LinkFigures {
        self.figures
    }

    fn tell(&mut self, message: PeerMessage) {
        if !self.has_ended {
            self.events.push_back(LinkEvent::Machine(message));
        }
    }

    fn tell_block(&mut self, block: BlockRange, data: Bytes) {
        self.tell(PeerMessage::Block {
            chunk: block.chunk,
            offset: block.offset,
            data,
        });
    }

    fn say(&mut self, message: Message) {
        self.push(message, 0);
    }

    fn say_for_machine(&mut self, message: Message) {
        self.push(message, 1);
    }

    fn say_words(&mut self, words: Words) {
        for word in words {
            match word {
                // The other side does not know that it could have asked.
                Say::Choke if std::mem::take(&mut self.unchoke_waits) => {}
                Say::Choke => self.say(Message::Choke),
                Say::Unchoke if self.interest.is_none() => self.unchoke_waits = true,
                Say::Unchoke => self.say(Message::Unchoke),
            }
        }
    }

    /// Says something in an extension, if the other side takes it.
    fn say_extended(&mut self, id: Option<u8>, payload: Bytes) {
        let is_handshake = payload.first() == Some(&b'd') && id == Some(HANDSHAKE_EXTENSION);
        if let Some(id) = id.filter(|id| *id != 0 || is_handshake) {
            self.say(Message::Extended { id, payload });
        }
    }

    fn push(&mut self, message: Message, of_machine: usize) {
        if self.has_ended {
            self.settled += of_machine;
            return;
        }
        self.messages.push_back(Outgoing {
            message,
            of_machine,
            is_metadata: false,
        });
        if self.messages.len() > MAX_UNSENT {
            self.end(LinkEnd::Violation(Violation::DoesNotRead));
        }
    }

    fn end(&mut self, why: LinkEnd) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.events.push_back(LinkEvent::End(why));
        }
    }

    /// Panics if the parts contradict each other. For tests.
    pub fn check_invariants(&self) {
        self.asks.check_invariants();
        self.serves.check_invariants();
        self.remote.check_invariants();
        assert!(self.messages.len() <= MAX_UNSENT + 1);
        assert!(self.figures.unasked <= MAX_UNASKED + 1 && self.figures.unknown <= MAX_UNKNOWN + 1);
    }
}
