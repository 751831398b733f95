//! Where replies go: into a value, or as bytes into a buffer that is reused,
//! without a value in between.

use std::time::Duration;

use super::addrs::{ListenAddr, TextAddrs, V4Text};
use super::owner::Owner;
use crate::content::{ContentId, ContentName};
use crate::protocol::limits::MAX_HEARTBEAT;
use crate::protocol::{Found, ListedOwner, Registered, Token, TrackerReply};

/// Receives one reply.
pub(crate) trait ReplyWriter {
    /// The reply to REGISTER.
    fn registered(
        &mut self,
        token: Token,
        epoch: u64,
        heartbeat: Duration,
        listed: Option<&ListenAddr>,
    );

    /// The first part of the reply to NEED: the content.
    /// [`owners`](Self::owners) must follow.
    fn found(&mut self, id: ContentId, length: u64, name: &ContentName) {
        self.found_as(None, id, length, name.as_str().as_bytes());
    }

    /// The same, with the text of a [`ContentName`]; and, if the asker fetches for its zone, how
    /// many of the owners, the first ones, are others that do.
    fn found_as(&mut self, importers: Option<u16>, id: ContentId, length: u64, name: &[u8]);

    /// The second part: the owners of the content.
    fn owners(&mut self, owners: &[Owner], texts: &TextAddrs);

    /// Any other reply.
    fn reply(&mut self, reply: TrackerReply);
}

/// A reply as a value.
#[derive(Debug, Default)]
pub(crate) struct ReplyValue(Option<TrackerReply>);

impl ReplyValue {
    pub(crate) fn into_reply(self) -> TrackerReply {
        self.0.expect("each request has a reply")
    }
}

impl ReplyWriter for ReplyValue {
    fn registered(
        &mut self,
        token: Token,
        epoch: u64,
        heartbeat: Duration,
        listed: Option<&ListenAddr>,
    ) {
        self.0 = Some(TrackerReply::Registered(Registered {
            token,
            epoch,
            heartbeat,
            listed: listed.map(ListenAddr::addr),
        }));
    }

    fn found_as(&mut self, importers: Option<u16>, id: ContentId, length: u64, name: &[u8]) {
        let name = str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        self.0 = Some(TrackerReply::Found(Found {
            id,
            name: name.expect("it is the text of a name"),
            length,
            owners: Vec::new(),
            importers,
        }));
    }

    fn owners(&mut self, owners: &[Owner], texts: &TextAddrs) {
        let listed = owners.iter().map(|owner| ListedOwner {
            owner: owner.owner_ref(),
            addr: owner.addr(texts),
            complete: owner.is_complete(),
        });
        if let Some(TrackerReply::Found(found)) = &mut self.0 {
            found.owners = listed.collect();
        }
    }

    fn reply(&mut self, reply: TrackerReply) {
        self.0 = Some(reply);
    }
}

/// The first byte that the codec writes for these replies. A test compares
/// everything that is written here with what the codec writes.
const REGISTERED: u8 = 0x50;
const DONE: u8 = 0x51;
const FOUND: u8 = 0x52;
const FOUND_BY_IMPORTER: u8 = 0x56;

/// The marks of an owner in a reply.
const COMPLETE_MARK: u8 = 1 << 0;
const V4_MARK: u8 = 1 << 1;

/// The length of an owner with an IPv4 address: reference, marks, IP and port.
pub(super) const V4_ENTRY: usize = 8 + 1 + 4 + 2;

/// The usual length of a reply to NEED without its owners: the kind, the id, the length of
/// the content, a name of average length, and the number of owners.
pub(super) const USUAL_HEAD: usize = 1 + 32 + 8 + 32 + 2;

/// What the reply says of an owner with an IPv4 address, and one byte more, so
/// that it is written as one number.
fn v4_entry(owner: &Owner) -> [u8; V4_ENTRY + 1] {
    let ip = u64::from(u32::from_le_bytes(owner.word));
    let port = u64::from(u16::from_le_bytes(owner.port));
    let marks = u64::from((u8::from(owner.is_complete()) * COMPLETE_MARK) | V4_MARK);
    let reference = owner.owner_ref().0.swap_bytes();
    let rest = marks | ip << 8 | port << 40;
    (u128::from(reference) | u128::from(rest) << 64).to_le_bytes()
}

impl ReplyWriter for Vec<u8> {
    fn registered(
        &mut self,
        token: Token,
        epoch: u64,
        heartbeat: Duration,
        listed: Option<&ListenAddr>,
    ) {
        let heartbeat = heartbeat.clamp(Duration::from_millis(1), MAX_HEARTBEAT);
        self.push(REGISTERED);
        self.extend_from_slice(&token.0);
        self.extend_from_slice(&epoch.to_be_bytes());
        self.extend_from_slice(&(heartbeat.as_millis() as u32).to_be_bytes());
        match listed {
            None => self.push(0),
            Some(ListenAddr::V4(ip, port)) => text(self, V4Text::new(*ip, *port).as_bytes()),
            Some(ListenAddr::Text(addr)) => text(self, addr.as_str().as_bytes()),
        }
    }

    fn found_as(&mut self, importers: Option<u16>, id: ContentId, length: u64, name: &[u8]) {
        let mut head = [FOUND; 1 + 32 + 8];
        head[1..33].copy_from_slice(id.as_bytes());
        head[33..].copy_from_slice(&length.to_be_bytes());
        match importers {
            None => self.extend_from_slice(&head),
            Some(importers) => {
                self.push(FOUND_BY_IMPORTER);
                self.extend_from_slice(&importers.to_be_bytes());
                self.extend_from_slice(&head[1..]);
            }
        }
        text(self, name);
    }

    fn owners(&mut self, owners: &[Owner], texts: &TextAddrs) {
        self.extend_from_slice(&(owners.len() as u16).to_be_bytes());
        // Each entry is written with one byte too many, which the next entry
        // overwrites.
        let mut at = self.len();
        self.resize(at + owners.len() * V4_ENTRY + 1, 0);
        for owner in owners {
            if let Some(index) = owner.text() {
                let addr = texts.get(index).as_str().as_bytes();
                let mut entry = Vec::with_capacity(8 + 1 + 1 + addr.len());
                entry.extend_from_slice(&owner.owner_ref().0.to_be_bytes());
                entry.push(u8::from(owner.is_complete()) * COMPLETE_MARK);
                text(&mut entry, addr);
                let len = entry.len();
                self.splice(at..at + V4_ENTRY, entry);
                at += len;
            } else {
                self[at..=at + V4_ENTRY].copy_from_slice(&v4_entry(owner));
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
                let frame = frame.expect("replies of the registry keep to the limits");
                self.extend_from_slice(&frame.head);
            }
        }
    }
}

/// A text after its length, which takes one byte for names and addresses.
fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}
