//! Where replies go: into values, or as bytes into a buffer that is used again,
//! which makes nothing on the way.

use std::time::Duration;

use super::compact::{Place, Texts, V4Text, v4};
use super::owners::Owner;
use super::peers::SHOWN_GENERATION;
use crate::content::{ContentId, ContentName};
use crate::protocol::limits::MAX_HEARTBEAT;
use crate::protocol::{Addr, Found, ListedOwner, OwnerRef, Registered, Token, TrackerReply};

/// Marks of an [`Owner`], above the bits of its generation.
const COMPLETE: u16 = 1 << 14;
const TEXT: u16 = 1 << 15;

/// Takes one reply.
pub(crate) trait Out {
    /// To REGISTER.
    fn registered(&mut self, token: Token, epoch: u64, heartbeat: Duration, listed: Option<&Place>);

    /// To NEED: which content it is. [`owners`](Self::owners) must follow.
    fn found(&mut self, id: ContentId, length: u64, name: &ContentName);

    /// The owners of the content that was found.
    fn owners(&mut self, owners: &[Owner], texts: &Texts);

    /// Any other.
    fn reply(&mut self, reply: TrackerReply);
}

/// A reply as a value.
#[derive(Debug, Default)]
pub(crate) struct Built(Option<TrackerReply>);

impl Built {
    pub(crate) fn reply(self) -> TrackerReply {
        self.0.expect("each request is answered")
    }
}

impl Owner {
    /// The entry of a peer. The place of a text is set by whoever stores it.
    pub(super) fn new(ownership: u32, peer: u32, generation: u32, complete: bool) -> Self {
        let mut owner = Self {
            ownership,
            peer,
            word: [0; 4],
            port: [0; 2],
            marks: (generation & SHOWN_GENERATION) as u16,
        };
        owner.set_complete(complete);
        owner
    }

    pub(super) fn set_complete(&mut self, complete: bool) {
        self.marks = self.marks & !COMPLETE | (u16::from(complete) * COMPLETE);
    }

    pub(super) fn set_v4(&mut self, ip: [u8; 4], port: [u8; 2]) {
        (self.word, self.port) = (ip, port);
        self.marks &= !TEXT;
    }

    pub(super) fn set_text(&mut self, index: [u8; 4]) {
        (self.word, self.port) = (index, [0; 2]);
        self.marks |= TEXT;
    }

    pub(super) fn complete(&self) -> bool {
        self.marks & COMPLETE != 0
    }

    pub(super) fn text(&self) -> Option<[u8; 4]> {
        (self.marks & TEXT != 0).then_some(self.word)
    }

    pub(super) fn owner_ref(&self) -> OwnerRef {
        let generation = u32::from(self.marks) & SHOWN_GENERATION;
        OwnerRef(u64::from(generation) << 32 | u64::from(self.peer))
    }

    pub(super) fn addr(&self, texts: &Texts) -> Addr {
        match self.text() {
            Some(index) => texts.text(index).clone(),
            None => v4(self.word, self.port),
        }
    }
}

impl Out for Built {
    fn registered(
        &mut self,
        token: Token,
        epoch: u64,
        heartbeat: Duration,
        listed: Option<&Place>,
    ) {
        self.0 = Some(TrackerReply::Registered(Registered {
            token,
            epoch,
            heartbeat,
            listed: listed.map(Place::addr),
        }));
    }

    fn found(&mut self, id: ContentId, length: u64, name: &ContentName) {
        self.0 = Some(TrackerReply::Found(Found {
            id,
            name: name.clone(),
            length,
            owners: Vec::new(),
        }));
    }

    fn owners(&mut self, owners: &[Owner], texts: &Texts) {
        let listed = owners.iter().map(|owner| ListedOwner {
            owner: owner.owner_ref(),
            addr: owner.addr(texts),
            complete: owner.complete(),
        });
        if let Some(TrackerReply::Found(found)) = &mut self.0 {
            found.owners = listed.collect();
        }
    }

    fn reply(&mut self, reply: TrackerReply) {
        self.0 = Some(reply);
    }
}

/// What the codec writes first for these replies. A test compares all of what
/// is written here with it.
const REGISTERED: u8 = 0x50;
const DONE: u8 = 0x51;
const FOUND: u8 = 0x52;

/// The marks of an owner in the reply.
const COMPLETE_MARK: u8 = 1 << 0;
const V4_MARK: u8 = 1 << 1;

/// The bytes of one owner with an IPv4 address: reference, marks, IP and port.
const V4_ENTRY: usize = 8 + 1 + 4 + 2;

impl Owner {
    /// What the reply says of an owner with an IPv4 address, and a byte more,
    /// so that it is written as a whole.
    fn v4_entry(&self) -> [u8; V4_ENTRY + 1] {
        let ip = u64::from(u32::from_le_bytes(self.word));
        let port = u64::from(u16::from_le_bytes(self.port));
        let marks = u64::from((u8::from(self.complete()) * COMPLETE_MARK) | V4_MARK);
        let owner = self.owner_ref().0.swap_bytes();
        let rest = marks | ip << 8 | port << 40;
        (u128::from(owner) | u128::from(rest) << 64).to_le_bytes()
    }
}

impl Out for Vec<u8> {
    fn registered(
        &mut self,
        token: Token,
        epoch: u64,
        heartbeat: Duration,
        listed: Option<&Place>,
    ) {
        let heartbeat = heartbeat.clamp(Duration::from_millis(1), MAX_HEARTBEAT);
        self.push(REGISTERED);
        self.extend_from_slice(&token.0);
        self.extend_from_slice(&epoch.to_be_bytes());
        self.extend_from_slice(&(heartbeat.as_millis() as u32).to_be_bytes());
        match listed {
            None => self.push(0),
            Some(Place::V4(ip, port)) => text(self, V4Text::new(*ip, *port).as_bytes()),
            Some(Place::Text(addr)) => text(self, addr.as_str().as_bytes()),
        }
    }

    fn found(&mut self, id: ContentId, length: u64, name: &ContentName) {
        self.push(FOUND);
        self.extend_from_slice(id.as_bytes());
        self.extend_from_slice(&length.to_be_bytes());
        text(self, name.as_str().as_bytes());
    }

    fn owners(&mut self, owners: &[Owner], texts: &Texts) {
        self.extend_from_slice(&(owners.len() as u16).to_be_bytes());
        // The byte too many of each entry is the first of the next one.
        let mut at = self.len();
        self.resize(at + owners.len() * V4_ENTRY + 1, 0);
        for owner in owners {
            if let Some(index) = owner.text() {
                let addr = texts.text(index).as_str().as_bytes();
                let mut entry = Vec::with_capacity(8 + 1 + 1 + addr.len());
                entry.extend_from_slice(&owner.owner_ref().0.to_be_bytes());
                entry.push(u8::from(owner.complete()) * COMPLETE_MARK);
                text(&mut entry, addr);
                let len = entry.len();
                self.splice(at..at + V4_ENTRY, entry);
                at += len;
            } else {
                self[at..=at + V4_ENTRY].copy_from_slice(&owner.v4_entry());
                at += V4_ENTRY;
            }
        }
        self.truncate(at);
    }

    fn reply(&mut self, reply: TrackerReply) {
        match reply {
            TrackerReply::Done => self.push(DONE),
            other => {
                let frame = other.encode();
                let frame = frame.expect("what the registry says keeps to the limits");
                self.extend_from_slice(&frame.head);
            }
        }
    }
}

/// A text behind its length, which is a byte for names and addresses.
fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}
