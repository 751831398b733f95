//! A connection about a torrent of which only the hash is known, as from a magnet link.
//!
//! Its info dictionary is asked for here, and nothing else. What the other side says
//! meanwhile is kept within bounds, for the [`BitTorrentLink`](super::BitTorrentLink) that
//! the connection becomes when the torrent is known.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::error::{LinkEnd, Violation};
use super::event::LinkEvent;
use super::pulse::Pulse;
use crate::bittorrent::wire::{
    ExtendedHandshake, ExtensionIds, HANDSHAKE_EXTENSION, HashRange, Message, MetadataMessage,
    OWN_EXTENSIONS, PexMessage, Reserved, WireError, read_chunk_index,
};
use crate::content::ChunkIndex;

/// How many chunks are kept of those that the other side tells of one by one. One that is
/// forgotten is one that this peer will not be asked for.
const MAX_HAVES: usize = 4096;

/// How many messages are passed over that make no sense as long as the torrent is unknown:
/// blocks, unknown types, suggestions.
const MAX_IDLE_TALK: u32 = 256;

/// How many messages may wait to be sent: requests for pieces, and rejections.
const MAX_UNSENT: usize = 1024;

/// A connection about a torrent that is not known yet.
#[derive(Debug)]
pub struct MagnetLink {
    agreed: Reserved,
    ids: ExtensionIds,
    pulse: Pulse,
    /// What it said last of all its chunks, and the chunks that it named since then.
    statement: Option<Message>,
    haves: BTreeSet<ChunkIndex>,
    is_choked: bool,
    interest: Option<bool>,
    /// Its last extended handshake, which may be an update; and those before it together.
    abouts: Vec<Bytes>,
    idle_talk: u32,
    /// How many pieces of the info dictionary, and ranges of hashes, were asked for and are
    /// not answered.
    metadata_asked: u32,
    hashes_asked: u32,
    events: VecDeque<LinkEvent>,
    messages: VecDeque<Message>,
    has_ended: bool,
}

/// How many extended handshakes are kept: the first, and updates of it.
const MAX_ABOUTS: usize = 4;

impl MagnetLink {
    /// A connection on which both handshakes are behind. `agreed` is what both have, and
    /// `about` what this side says of itself; the ids are filled in.
    pub fn new(now: Instant, agreed: Reserved, mut about: ExtendedHandshake) -> Self {
        let mut messages = VecDeque::new();
        if agreed.has(Reserved::EXTENDED) {
            about.extensions = OWN_EXTENSIONS;
            about.metadata_size = None;
            messages.push_back(Message::Extended {
                id: HANDSHAKE_EXTENSION,
                payload: about.encode(),
            });
        }
        if agreed.has(Reserved::FAST) {
            // Something has to be said of that first (BEP 6).
            messages.push_back(Message::HaveNone);
        }
        Self {
            agreed,
            ids: ExtensionIds::default(),
            pulse: Pulse::new(now),
            statement: None,
            haves: BTreeSet::new(),
            is_choked: true,
            interest: None,
            abouts: Vec::new(),
            idle_talk: 0,
            metadata_asked: 0,
            hashes_asked: 0,
            events: VecDeque::new(),
            messages,
            has_ended: false,
        }
    }

    /// A message of the other side has arrived.
    pub fn handle_message(&mut self, now: Instant, message: Message) {
        if self.has_ended {
            return;
        }
        self.pulse.heard(now);
        if let Err(violation) = self.hear(message) {
            self.end(LinkEnd::Violation(violation));
        }
    }

    /// Bytes of the other side cannot be read, as the reader says.
    pub fn handle_unreadable(&mut self, error: WireError) {
        self.end(LinkEnd::Violation(error.into()));
    }

    fn hear(&mut self, message: Message) -> Result<(), Violation> {
        let is_fast = self.agreed.has(Reserved::FAST);
        match message {
            Message::HaveAll | Message::HaveNone if !is_fast => return Err(Violation::NotFast),
            Message::Bitfield(_) | Message::HaveAll | Message::HaveNone => {
                self.haves.clear();
                self.statement = Some(message);
            }
            Message::Have(chunk) => {
                if self.haves.len() < MAX_HAVES {
                    self.haves.insert(chunk);
                }
            }
            Message::Choke => self.is_choked = true,
            Message::Unchoke => self.is_choked = false,
            Message::Interested => self.interest = Some(true),
            Message::NotInterested => self.interest = Some(false),
            Message::Request(block) if is_fast => self.say(Message::Reject(block)),
            Message::HashRequest(range) => self.say(Message::HashReject(range)),
            Message::Extended { id, payload } => self.hear_extended(id, payload)?,
            Message::Hashes { .. } | Message::HashReject(_) if self.hashes_asked == 0 => {
                self.count_idle_talk()?;
            }
            Message::Hashes { range, hashes } => {
                self.hashes_asked -= 1;
                self.events.push_back(LinkEvent::Hashes { range, hashes });
            }
            Message::HashReject(range) => {
                self.hashes_asked -= 1;
                self.events.push_back(LinkEvent::HashesRejected(range));
            }
            Message::KeepAlive | Message::Cancel(_) | Message::Port(_) => {}
            _ => self.count_idle_talk()?,
        }
        Ok(())
    }

    fn hear_extended(&mut self, id: u8, payload: Bytes) -> Result<(), Violation> {
        let is = |own: Option<u8>| own == Some(id);
        if !self.agreed.has(Reserved::EXTENDED) {
            self.count_idle_talk()?;
        } else if id == HANDSHAKE_EXTENSION {
            let about = ExtendedHandshake::decode(&payload)?;
            self.ids.update(about.extensions);
            if self.abouts.len() >= MAX_ABOUTS {
                self.count_idle_talk()?;
                // The last says what is true now, and the first most.
                self.abouts.truncate(MAX_ABOUTS - 1);
            }
            self.abouts.push(payload);
            self.events.push_back(LinkEvent::About(Box::new(about)));
        } else if is(OWN_EXTENSIONS.ut_metadata) {
            match MetadataMessage::decode(&payload)? {
                MetadataMessage::Request { piece } => {
                    self.count_idle_talk()?;
                    self.say_metadata(&MetadataMessage::Reject { piece });
                }
                MetadataMessage::Unknown => self.count_idle_talk()?,
                _ if self.metadata_asked == 0 => self.count_idle_talk()?,
                answer => {
                    self.metadata_asked -= 1;
                    self.events.push_back(LinkEvent::Metadata(answer));
                }
            }
        } else if is(OWN_EXTENSIONS.ut_pex) {
            self.count_idle_talk()?;
            let peers = PexMessage::decode(&payload)?;
            self.events.push_back(LinkEvent::Peers(peers));
        } else if is(OWN_EXTENSIONS.lt_donthave) {
            self.haves.remove(&read_chunk_index(&payload)?);
        } else {
            self.count_idle_talk()?;
        }
        Ok(())
    }

    fn count_idle_talk(&mut self) -> Result<(), Violation> {
        self.idle_talk += 1;
        match self.idle_talk > MAX_IDLE_TALK {
            true => Err(Violation::Unknown),
            false => Ok(()),
        }
    }

    /// Asks for a piece of the info dictionary. Returns `false` if the other side does not
    /// know of such things.
    pub fn ask_metadata(&mut self, piece: u32) -> bool {
        let knows = self.ids.ut_metadata.is_some_and(|id| id != 0) && !self.has_ended;
        if knows {
            self.metadata_asked += 1;
            self.say_metadata(&MetadataMessage::Request { piece });
        }
        knows
    }

    /// Asks for hashes. The other side must have agreed to speak of the torrent as one of v2:
    /// otherwise it may close.
    pub fn ask_hashes(&mut self, range: HashRange) {
        self.hashes_asked += 1;
        self.say(Message::HashRequest(range));
    }

    fn say_metadata(&mut self, message: &MetadataMessage) {
        if let Some(id) = self.ids.ut_metadata.filter(|id| *id != 0) {
            let payload = message.encode();
            self.say(Message::Extended { id, payload });
        }
    }

    fn say(&mut self, message: Message) {
        if self.has_ended {
            return;
        }
        if self.messages.len() >= MAX_UNSENT {
            return self.end(LinkEnd::Violation(Violation::DoesNotRead));
        }
        self.messages.push_back(message);
    }

    fn end(&mut self, why: LinkEnd) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.events.push_back(LinkEvent::End(why));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, if nothing happens
    /// before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pulse.poll_timeout().filter(|_| !self.has_ended)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.pulse.is_lost(now) {
            return self.end(LinkEnd::Silent);
        }
        if self.pulse.beats(now) {
            self.say(Message::KeepAlive);
        }
    }

    /// What there is for this side. Nothing of it is for the machine.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// The next message to send, which counts as sent now.
    pub fn poll_message(&mut self, now: Instant) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.pulse.sent(now);
        Some(message)
    }

    /// What the other side has said, for the link that follows this one: it is to hear these
    /// messages as if they came now. All messages have to be sent before.
    pub fn into_heard(self) -> Vec<Message> {
        let id = HANDSHAKE_EXTENSION;
        let abouts = self.abouts.into_iter();
        let abouts = abouts.map(|payload| Message::Extended { id, payload });
        let haves = self.haves.into_iter().map(Message::Have);
        let interest = self.interest.map(|interested| match interested {
            true => Message::Interested,
            false => Message::NotInterested,
        });
        let unchoke = (!self.is_choked).then_some(Message::Unchoke);
        let said = abouts.chain(self.statement).chain(haves);
        said.chain(unchoke).chain(interest).collect()
    }
}
