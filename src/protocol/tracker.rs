//! The messages between a peer and a tracker, and their encoding: REGISTER, OWN,
//! NEED, UPDATE, EXIT and ZONE, and the replies. On each connection, the tracker replies
//! in the order of the requests. All of a message is in the head of its frame.

use core::net::{Ipv4Addr, SocketAddr};
use std::fmt;
use std::time::Duration;

use super::addr::Addr;
use super::error::ProtocolError;
use super::frame::Frame;
use super::limits::{MAX_AMBIGUOUS, MAX_BATCH, MAX_HEARTBEAT, MAX_OWNERS};
use super::wire::{Reader, Writer, content_len, within};
use super::zone::ZoneTag;
use crate::content::{ContentId, ContentName};

const REGISTER: u8 = 0x40;
const OWN: u8 = 0x41;
const NEED: u8 = 0x42;
const UPDATE: u8 = 0x43;
const EXIT: u8 = 0x44;
const ZONE: u8 = 0x45;

const REGISTERED: u8 = 0x50;
const DONE: u8 = 0x51;
const FOUND: u8 = 0x52;
const AMBIGUOUS: u8 = 0x53;
const REFUSED: u8 = 0x54;
const PARTLY: u8 = 0x55;
const FOUND_BY_IMPORTER: u8 = 0x56;

/// What follows the address of a REGISTER: nothing, the token of a heartbeat, or the token
/// of a peer that registers over its other family of addresses as well.
const WITHOUT_TOKEN: u8 = 0;
const WITH_TOKEN: u8 = 1;
const OTHER_FAMILY: u8 = 2;

/// The least length of an entry in each list, in bytes. It bounds how much memory
/// is reserved.
const OWN_ENTRY_LEN: usize = ContentId::LEN + 1 + 8 + 2;
const UPLOAD_LEN: usize = 16;
const LISTED_OWNER_LEN: usize = 8 + 1 + 2;
const AMBIGUOUS_LEN: usize = ContentId::LEN + 8;
const REFUSED_ENTRY_LEN: usize = 2 + 1;

/// Flags of an owner in Found: it has all of the content.
const COMPLETE_FLAG: u8 = 1 << 0;
/// Its address is an IPv4 socket address in six bytes.
const V4_FLAG: u8 = 1 << 1;

/// Proves that a request comes from the peer that registered: 128 bits that nobody
/// can guess. The `Debug` output hides them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

impl Token {
    fn read(head: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        head.array().map(Self)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The number by which a tracker names an owner to other peers, for UPDATE.
/// Everybody may know it, so it proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerRef(pub u64);

/// What a content is asked for by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum ContentKey {
    /// By its id, which is always exact.
    Id(ContentId),
    /// By its name.
    Name(ContentName),
}

impl ContentKey {
    fn write(&self, head: Writer) -> Writer {
        match self {
            Self::Id(id) => head.u8(0).id(id),
            Self::Name(name) => head.u8(1).text(name.as_str()),
        }
    }

    fn read(head: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        match head.u8()? {
            0 => Ok(Self::Id(head.id()?)),
            1 => Ok(Self::Name(head.name()?)),
            found => Err(ProtocolError::Choice {
                field: "kind of key",
                found,
            }),
        }
    }
}

impl fmt::Display for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl From<ContentId> for ContentKey {
    fn from(id: ContentId) -> Self {
        Self::Id(id)
    }
}

impl From<ContentName> for ContentKey {
    fn from(name: ContentName) -> Self {
        Self::Name(name)
    }
}

/// How much of a content a peer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OwnState {
    /// All of it: a seeder.
    Complete,
    /// Some of it: a leecher.
    Partial,
    /// Nothing any more: the tracker takes the peer off the content's list.
    Gone,
}

impl OwnState {
    fn code(self) -> u8 {
        match self {
            Self::Gone => 0,
            Self::Partial => 1,
            Self::Complete => 2,
        }
    }

    fn from_code(code: u8) -> Result<Self, ProtocolError> {
        match code {
            0 => Ok(Self::Gone),
            1 => Ok(Self::Partial),
            2 => Ok(Self::Complete),
            found => Err(ProtocolError::Choice {
                field: "owner state",
                found,
            }),
        }
    }
}

/// One content in an OWN.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnEntry {
    /// The content.
    pub id: ContentId,
    /// The name that its owner gives it.
    pub name: ContentName,
    /// Its length in bytes.
    pub length: u64,
    /// How much of it the peer has.
    pub state: OwnState,
}

impl OwnEntry {
    /// Makes an entry of its fields.
    pub fn new(id: ContentId, name: ContentName, length: u64, state: OwnState) -> Self {
        Self {
            id,
            name,
            length,
            state,
        }
    }

    fn write(&self, head: Writer) -> Result<Writer, ProtocolError> {
        Ok(head
            .id(&self.id)
            .u8(self.state.code())
            .u64(content_len(self.length)?)
            .text(self.name.as_str()))
    }

    fn read(head: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        let (id, state) = (head.id()?, OwnState::from_code(head.u8()?)?);
        let (length, name) = (head.content_len()?, head.name()?);
        Ok(Self::new(id, name, length, state))
    }
}

/// One upload in an UPDATE, as reported by the peer that received the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Upload {
    /// The owner that sent the bytes.
    pub owner: OwnerRef,
    /// How many verified bytes it has sent since the last report.
    pub bytes: u64,
}

impl Upload {
    /// Makes a report of its fields.
    pub fn new(owner: OwnerRef, bytes: u64) -> Self {
        Self { owner, bytes }
    }
}

/// A request from a peer to a tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrackerRequest {
    /// REGISTER: registers the peer, or, with a token, keeps it registered (a
    /// heartbeat).
    Register {
        /// Where the peer listens, if it does. An unspecified IP stands for the IP
        /// of the connection.
        listen: Option<Addr>,
        /// In a heartbeat, the token from the first REGISTER.
        token: Option<Token>,
    },
    /// REGISTER over the other family of IP addresses: where a registered peer listens for
    /// that family as well.
    RegisterAlso {
        /// Where the peer listens. An unspecified IP stands for the IP of the connection.
        listen: Option<Addr>,
        /// The token from the first REGISTER.
        token: Token,
    },
    /// OWN: lists contents that the peer owns.
    Own {
        /// The token of the peer.
        token: Token,
        /// At most [`MAX_BATCH`](super::limits::MAX_BATCH).
        entries: Vec<OwnEntry>,
    },
    /// NEED: asks for the owners of a content.
    Need {
        /// The token of the peer.
        token: Token,
        /// The content.
        key: ContentKey,
        /// The most owners that the peer wants. The tracker's own limit also
        /// applies.
        max_owners: u16,
    },
    /// UPDATE: reports how much owners have sent to the peer.
    Update {
        /// The token of the peer.
        token: Token,
        /// At most [`MAX_BATCH`](super::limits::MAX_BATCH).
        uploads: Vec<Upload>,
    },
    /// EXIT: the peer leaves.
    Exit {
        /// The token of the peer.
        token: Token,
    },
    /// ZONE: the peer is in this zone, and wants to hear of owners there first.
    Zone {
        /// The token of the peer.
        token: Token,
        /// Its zone.
        zone: ZoneTag,
    },
}

impl TrackerRequest {
    /// The token of the peer that it is about, if it has one.
    pub(crate) fn token(&self) -> Option<&Token> {
        match self {
            Self::Register { token, .. } => token.as_ref(),
            Self::RegisterAlso { token, .. }
            | Self::Own { token, .. }
            | Self::Need { token, .. }
            | Self::Update { token, .. }
            | Self::Exit { token }
            | Self::Zone { token, .. } => Some(token),
        }
    }

    /// Encodes the request. The frame is within
    /// [`TRACKER_FRAMES`](super::limits::TRACKER_FRAMES).
    ///
    /// # Errors
    /// [`ProtocolError::Range`] for a list with more than [`MAX_BATCH`] entries, or
    /// for a content longer than
    /// [`MAX_CONTENT_LEN`](crate::content::MAX_CONTENT_LEN).
    pub fn encode(&self) -> Result<Frame, ProtocolError> {
        let head = match self {
            Self::Register { listen, token } => {
                let head = Writer::opening(REGISTER, 32).optional_addr(listen.as_ref());
                match token {
                    Some(token) => head.u8(WITH_TOKEN).bytes(&token.0),
                    None => head.u8(WITHOUT_TOKEN),
                }
            }
            Self::RegisterAlso { listen, token } => Writer::opening(REGISTER, 32)
                .optional_addr(listen.as_ref())
                .u8(OTHER_FAMILY)
                .bytes(&token.0),
            Self::Own { token, entries } => Writer::new(OWN, 18 + 2 * OWN_ENTRY_LEN)
                .bytes(&token.0)
                .list("contents in OWN", MAX_BATCH, entries, |head, entry| {
                    entry.write(head)
                })?,
            Self::Need {
                token,
                key,
                max_owners,
            } => key.write(Writer::new(NEED, 51).bytes(&token.0).u16(*max_owners)),
            Self::Update { token, uploads } => Writer::new(UPDATE, 18 + uploads.len() * UPLOAD_LEN)
                .bytes(&token.0)
                .list("uploads in UPDATE", MAX_BATCH, uploads, |head, upload| {
                    Ok(head.u64(upload.owner.0).u64(upload.bytes))
                })?,
            Self::Exit { token } => Writer::new(EXIT, 16).bytes(&token.0),
            Self::Zone { token, zone } => Writer::new(ZONE, 20).bytes(&token.0).u32(zone.number()),
        };
        Ok(head.frame())
    }

    /// Decodes a frame.
    ///
    /// # Errors
    /// [`ProtocolError`]: the sender broke the protocol, or it speaks another
    /// version ([`Version`](ProtocolError::Version)).
    pub fn decode(frame: Frame) -> Result<Self, ProtocolError> {
        let mut head = Reader::new(&frame.head);
        let request = match head.u8()? {
            REGISTER => {
                head.opening()?;
                let listen = head.optional_addr()?;
                Self::read_register(&mut head, listen)?
            }
            OWN => Self::Own {
                token: Token::read(&mut head)?,
                entries: head.list("contents in OWN", MAX_BATCH, OWN_ENTRY_LEN, OwnEntry::read)?,
            },
            NEED => {
                let (token, max_owners) = (Token::read(&mut head)?, head.u16()?);
                Self::Need {
                    token,
                    key: ContentKey::read(&mut head)?,
                    max_owners,
                }
            }
            UPDATE => Self::Update {
                token: Token::read(&mut head)?,
                uploads: head.list("uploads in UPDATE", MAX_BATCH, UPLOAD_LEN, |head| {
                    Ok(Upload::new(OwnerRef(head.u64()?), head.u64()?))
                })?,
            },
            EXIT => Self::Exit {
                token: Token::read(&mut head)?,
            },
            ZONE => Self::Zone {
                token: Token::read(&mut head)?,
                zone: read_zone(&mut head)?,
            },
            found => return Err(ProtocolError::Type { found }),
        };
        head.end(&frame.body)?;
        Ok(request)
    }

    /// A REGISTER after its address.
    fn read_register(head: &mut Reader<'_>, listen: Option<Addr>) -> Result<Self, ProtocolError> {
        let token = match head.u8()? {
            WITHOUT_TOKEN => None,
            WITH_TOKEN => Some(Token::read(head)?),
            OTHER_FAMILY => {
                let token = Token::read(head)?;
                return Ok(Self::RegisterAlso { listen, token });
            }
            found => {
                return Err(ProtocolError::Choice {
                    field: "token flag",
                    found,
                });
            }
        };
        Ok(Self::Register { listen, token })
    }
}

fn read_zone(head: &mut Reader<'_>) -> Result<ZoneTag, ProtocolError> {
    let number = head.u32()?;
    within("zone", number.into(), 0..=ZoneTag::MAX.into())?;
    Ok(ZoneTag::from_number(number).expect("it is within the bound"))
}

fn read_found(head: &mut Reader<'_>) -> Result<Found, ProtocolError> {
    Ok(Found {
        id: head.id()?,
        length: head.content_len()?,
        name: head.name()?,
        owners: head.list(
            "owners",
            MAX_OWNERS.into(),
            LISTED_OWNER_LEN,
            ListedOwner::read,
        )?,
        importers: None,
    })
}

/// The reply to REGISTER.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registered {
    /// Proves the sender of every later request.
    pub token: Token,
    /// Changes with each start of the tracker.
    pub epoch: u64,
    /// How often to REGISTER again.
    pub heartbeat: Duration,
    /// The address under which the tracker lists the peer, if it listens.
    pub listed: Option<Addr>,
}

impl Registered {
    /// Makes a reply of its fields.
    pub fn new(token: Token, epoch: u64, heartbeat: Duration, listed: Option<Addr>) -> Self {
        Self {
            token,
            epoch,
            heartbeat,
            listed,
        }
    }
}

/// One owner in the reply to NEED.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedOwner {
    /// Its number, for UPDATE.
    pub owner: OwnerRef,
    /// Its address.
    pub addr: Addr,
    /// Whether it has all of the content.
    pub complete: bool,
}

impl ListedOwner {
    /// Makes an owner of its fields.
    pub fn new(owner: OwnerRef, addr: Addr, complete: bool) -> Self {
        Self {
            owner,
            addr,
            complete,
        }
    }

    fn write(&self, head: Writer) -> Writer {
        let complete = u8::from(self.complete) * COMPLETE_FLAG;
        let head = head.u64(self.owner.0);
        match self.addr.plain_v4() {
            Some(v4) => head
                .u8(complete | V4_FLAG)
                .bytes(&v4.ip().octets())
                .u16(v4.port()),
            None => head.u8(complete).text(self.addr.as_str()),
        }
    }

    fn read(head: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        let (owner, flags) = (OwnerRef(head.u64()?), head.u8()?);
        let addr = Self::read_addr(head, flags)?;
        Ok(Self::new(owner, addr, flags & COMPLETE_FLAG != 0))
    }

    /// The address after the flags. An address that fits into six bytes must not
    /// be sent as a text, so that each message has exactly one encoding.
    fn read_addr(head: &mut Reader<'_>, flags: u8) -> Result<Addr, ProtocolError> {
        let invalid = Err(ProtocolError::Choice {
            field: "owner flags",
            found: flags,
        });
        if flags & !(COMPLETE_FLAG | V4_FLAG) != 0 {
            return invalid;
        }
        if flags & V4_FLAG == 0 {
            let addr = head.addr()?;
            return match addr.plain_v4() {
                Some(_) => invalid,
                None => Ok(addr),
            };
        }
        let (ip, port) = (Ipv4Addr::from(head.array::<4>()?), head.u16()?);
        Ok(SocketAddr::from((ip, port)).into())
    }
}

/// The reply to NEED.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The content.
    pub id: ContentId,
    /// Its name: the one that was asked for, or one that an owner gave it.
    pub name: ContentName,
    /// Its length in bytes, as claimed by an owner. Only the manifest proves it.
    pub length: u64,
    /// Some of its owners, mostly the best ones, and never the peer that asked.
    pub owners: Vec<ListedOwner>,
    /// Whether the peer that asked is one of the few that fetch the content from other zones for
    /// their own; and how many of the owners, the first ones, do the same. Only those that have
    /// said in which [zone](TrackerRequest::Zone) they are are told.
    pub importers: Option<u16>,
}

impl Found {
    /// Makes a reply of its fields.
    pub fn new(id: ContentId, name: ContentName, length: u64, owners: Vec<ListedOwner>) -> Self {
        Self {
            id,
            name,
            length,
            owners,
            importers: None,
        }
    }
}

/// A reply from a tracker to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrackerReply {
    /// The reply to REGISTER.
    Registered(Registered),
    /// The reply to OWN, UPDATE and EXIT: all of the request was done.
    Done,
    /// The reply to OWN if some entries were refused: at least one, each at most
    /// once, and in their order in the request. The other entries were done.
    Partly(Vec<RefusedEntry>),
    /// The reply to NEED.
    Found(Found),
    /// The reply to NEED if several contents have the name: their ids and lengths,
    /// at most [`MAX_AMBIGUOUS`](super::limits::MAX_AMBIGUOUS).
    Ambiguous(Vec<(ContentId, u64)>),
    /// The reply to any request that is refused.
    Refused(Refusal),
}

impl TrackerReply {
    /// The name of the reply that has this head, in metrics.
    pub(crate) fn kind_of_head(head: &[u8]) -> Option<&'static str> {
        Some(match *head.first()? {
            REGISTERED => "registered",
            DONE => "done",
            FOUND | FOUND_BY_IMPORTER => "found",
            AMBIGUOUS => "ambiguous",
            REFUSED => "refused",
            PARTLY => "partly",
            _ => return None,
        })
    }

    /// Encodes the reply. The frame is within
    /// [`TRACKER_FRAMES`](super::limits::TRACKER_FRAMES). The heartbeat is encoded
    /// in whole milliseconds.
    ///
    /// # Errors
    /// [`ProtocolError::Range`] for more than [`MAX_OWNERS`] owners, more than
    /// [`MAX_AMBIGUOUS`] ids, for refused entries that are empty, more than
    /// [`MAX_BATCH`] or not in their order, for a content longer than
    /// [`MAX_CONTENT_LEN`](crate::content::MAX_CONTENT_LEN), or for a heartbeat
    /// below a millisecond or above [`MAX_HEARTBEAT`].
    pub fn encode(&self) -> Result<Frame, ProtocolError> {
        let head = match self {
            Self::Registered(registered) => Writer::new(REGISTERED, 60)
                .bytes(&registered.token.0)
                .u64(registered.epoch)
                .u32(heartbeat_ms(registered.heartbeat)?)
                .optional_addr(registered.listed.as_ref()),
            Self::Done => Writer::new(DONE, 0),
            Self::Found(found) => {
                let capacity = 128 + found.owners.len() * 32;
                let head = match found.importers {
                    None => Writer::new(FOUND, capacity),
                    Some(importers) => {
                        let most = found.owners.len() as u64;
                        within("importers", importers.into(), 0..=most)?;
                        Writer::new(FOUND_BY_IMPORTER, capacity).u16(importers)
                    }
                };
                head.id(&found.id)
                    .u64(content_len(found.length)?)
                    .text(found.name.as_str())
                    .list("owners", MAX_OWNERS.into(), &found.owners, |head, owner| {
                        Ok(owner.write(head))
                    })?
            }
            Self::Ambiguous(contents) => Writer::new(AMBIGUOUS, 2 + contents.len() * AMBIGUOUS_LEN)
                .list(
                    "contents of one name",
                    MAX_AMBIGUOUS,
                    contents,
                    |head, (id, length)| Ok(head.id(id).u64(content_len(*length)?)),
                )?,
            Self::Refused(refusal) => refusal.write(Writer::new(REFUSED, 32)),
            Self::Partly(entries) => {
                check_order(entries)?;
                Writer::new(PARTLY, 2 + entries.len() * 7).list(
                    "refused entries",
                    MAX_BATCH,
                    entries,
                    |head, entry| Ok(entry.refusal.write(head.u16(entry.at))),
                )?
            }
        };
        Ok(head.frame())
    }

    /// Decodes a frame.
    ///
    /// # Errors
    /// [`ProtocolError`]: the sender broke the protocol.
    pub fn decode(frame: Frame) -> Result<Self, ProtocolError> {
        let mut head = Reader::new(&frame.head);
        let reply = match head.u8()? {
            REGISTERED => Self::Registered(Registered {
                token: Token::read(&mut head)?,
                epoch: head.u64()?,
                heartbeat: heartbeat(head.u32()?)?,
                listed: head.optional_addr()?,
            }),
            DONE => Self::Done,
            FOUND => Self::Found(read_found(&mut head)?),
            FOUND_BY_IMPORTER => {
                let importers = head.u16()?;
                let found = read_found(&mut head)?;
                within("importers", importers.into(), 0..=found.owners.len() as u64)?;
                Self::Found(Found {
                    importers: Some(importers),
                    ..found
                })
            }
            AMBIGUOUS => Self::Ambiguous(head.list(
                "contents of one name",
                MAX_AMBIGUOUS,
                AMBIGUOUS_LEN,
                |head| Ok((head.id()?, head.content_len()?)),
            )?),
            REFUSED => Self::Refused(Refusal::read(&mut head)?),
            PARTLY => {
                let entries =
                    head.list("refused entries", MAX_BATCH, REFUSED_ENTRY_LEN, |head| {
                        Ok(RefusedEntry::new(head.u16()?, Refusal::read(head)?))
                    })?;
                check_order(&entries)?;
                Self::Partly(entries)
            }
            found => return Err(ProtocolError::Type { found }),
        };
        head.end(&frame.body)?;
        Ok(reply)
    }
}

/// Checks that there are refused entries, and that each position is after the one
/// before.
fn check_order(entries: &[RefusedEntry]) -> Result<(), ProtocolError> {
    within(
        "refused entries",
        entries.len() as u64,
        1..=MAX_BATCH as u64,
    )?;
    let mut next = 0;
    for entry in entries {
        let positions = next..=MAX_BATCH as u64 - 1;
        within("position of a refused entry", entry.at.into(), positions)?;
        next = u64::from(entry.at) + 1;
    }
    Ok(())
}

fn heartbeat_ms(heartbeat: Duration) -> Result<u32, ProtocolError> {
    let ms = u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX);
    within("heartbeat", ms, 1..=MAX_HEARTBEAT.as_millis() as u64)?;
    Ok(ms as u32)
}

fn heartbeat(ms: u32) -> Result<Duration, ProtocolError> {
    let heartbeat = Duration::from_millis(ms.into());
    heartbeat_ms(heartbeat)?;
    Ok(heartbeat)
}

/// One entry of OWN that was refused, or listed without its name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedEntry {
    /// The position of the entry in the request, from 0 on.
    pub at: u16,
    /// The reason. [`Refusal::is_of_name`] tells whether only the name was refused.
    pub refusal: Refusal,
}

impl RefusedEntry {
    /// Makes an entry of its fields.
    pub fn new(at: u16, refusal: Refusal) -> Self {
        Self { at, refusal }
    }
}

/// Why a tracker refuses a request. A refusal affects only the peer that asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The tracker does not know the token, or no longer. Send REGISTER again, then
    /// OWN.
    #[error("the peer is not, or no longer, registered with this tracker")]
    UnknownToken,
    /// No registered peer owns this content.
    #[error("this tracker does not know the content")]
    UnknownContent,
    /// The listening address has another host than the connection.
    #[error("the listening address {addr} does not belong to the host that registers it")]
    ForeignAddress {
        /// The refused address.
        addr: Addr,
    },
    /// This host already has as many registered peers as one host may have.
    #[error("this host already has {max} registered peers, the maximum")]
    PeersPerHost {
        /// The limit.
        max: u32,
    },
    /// The tracker already has as many registered peers as it accepts.
    #[error("this tracker already has {max} peers, the maximum")]
    Peers {
        /// The limit.
        max: u32,
    },
    /// The peer already owns as many contents as one peer may.
    #[error("this peer already owns {max} contents, the maximum")]
    ContentsPerPeer {
        /// The limit.
        max: u32,
    },
    /// The content already has as many owners as this tracker lists.
    #[error("this content already has {max} owners, the maximum")]
    OwnersPerContent {
        /// The limit.
        max: u32,
    },
    /// The tracker already lists as many contents as it accepts.
    #[error("this tracker already lists {max} contents, the maximum")]
    Contents {
        /// The limit.
        max: u32,
    },
    /// The content already has as many names as one content may have, or as one
    /// host may give it. It is listed by its id.
    #[error("no room for one more name of this content (the limit is {max})")]
    NamesPerContent {
        /// The limit.
        max: u32,
    },
    /// The name already belongs to as many contents as one name may, or as one host
    /// may give it to. The content is listed by its id.
    #[error("no room for one more content with this name (the limit is {max})")]
    ContentsPerName {
        /// The limit.
        max: u32,
    },
    /// The peers of this host own so many contents that the host may not add a new
    /// one.
    #[error("this host has already added {max} contents, the maximum")]
    ContentsPerHost {
        /// The limit.
        max: u32,
    },
    /// The peers of this host already own as many contents as those of one host
    /// may.
    #[error("the peers of this host already own {max} contents, the maximum")]
    OwnershipsPerHost {
        /// The limit.
        max: u32,
    },
    /// The tracker already lists as many ownerships as it accepts.
    #[error("this tracker already lists {max} ownerships, the maximum")]
    Ownerships {
        /// The limit.
        max: u32,
    },
    /// The tracker cannot read the request.
    #[error("the request is malformed or has another protocol version")]
    Malformed,
    /// The tracker accepts no more connections at present.
    #[error("the tracker is busy")]
    Busy,
    /// The tracker is shutting down.
    #[error("the tracker is shutting down")]
    ShuttingDown,
    /// The tracker does not allow this peer to do that.
    #[error("the tracker does not allow that")]
    Denied,
}

impl Refusal {
    /// Whether only the name of an OWN entry was refused, and the content is listed
    /// by its id.
    pub fn is_of_name(&self) -> bool {
        matches!(
            self,
            Self::NamesPerContent { .. } | Self::ContentsPerName { .. }
        )
    }

    fn write(&self, head: Writer) -> Writer {
        match self {
            Self::UnknownToken => head.u8(1),
            Self::UnknownContent => head.u8(2),
            Self::ForeignAddress { addr } => head.u8(3).text(addr.as_str()),
            Self::PeersPerHost { max } => head.u8(4).u32(*max),
            Self::Peers { max } => head.u8(5).u32(*max),
            Self::ContentsPerPeer { max } => head.u8(6).u32(*max),
            Self::OwnersPerContent { max } => head.u8(7).u32(*max),
            Self::Contents { max } => head.u8(8).u32(*max),
            Self::Malformed => head.u8(9),
            Self::Busy => head.u8(10),
            Self::ShuttingDown => head.u8(11),
            Self::NamesPerContent { max } => head.u8(12).u32(*max),
            Self::ContentsPerName { max } => head.u8(13).u32(*max),
            Self::ContentsPerHost { max } => head.u8(14).u32(*max),
            Self::OwnershipsPerHost { max } => head.u8(15).u32(*max),
            Self::Ownerships { max } => head.u8(16).u32(*max),
            Self::Denied => head.u8(17),
        }
    }

    fn read(head: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        Ok(match head.u8()? {
            1 => Self::UnknownToken,
            2 => Self::UnknownContent,
            3 => Self::ForeignAddress { addr: head.addr()? },
            4 => Self::PeersPerHost { max: head.u32()? },
            5 => Self::Peers { max: head.u32()? },
            6 => Self::ContentsPerPeer { max: head.u32()? },
            7 => Self::OwnersPerContent { max: head.u32()? },
            8 => Self::Contents { max: head.u32()? },
            9 => Self::Malformed,
            10 => Self::Busy,
            11 => Self::ShuttingDown,
            12 => Self::NamesPerContent { max: head.u32()? },
            13 => Self::ContentsPerName { max: head.u32()? },
            14 => Self::ContentsPerHost { max: head.u32()? },
            15 => Self::OwnershipsPerHost { max: head.u32()? },
            16 => Self::Ownerships { max: head.u32()? },
            17 => Self::Denied,
            found => {
                return Err(ProtocolError::Choice {
                    field: "refusal code",
                    found,
                });
            }
        })
    }
}
