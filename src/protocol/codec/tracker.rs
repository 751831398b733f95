//! The messages to and from a tracker: all in the head.

use core::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::ProtocolError;
use super::wire::{Reader, Writer, content_len, within};
use crate::content::ContentId;
use crate::protocol::limits::{MAX_AMBIGUOUS, MAX_BATCH, MAX_HEARTBEAT, MAX_OWNERS};
use crate::protocol::{
    Addr, ContentKey, Found, Frame, ListedOwner, OwnEntry, OwnState, OwnerRef, Refusal,
    RefusedEntry, Registered, TrackerReply, TrackerRequest, Upload,
};

const REGISTER: u8 = 0x40;
const OWN: u8 = 0x41;
const NEED: u8 = 0x42;
const UPDATE: u8 = 0x43;
const EXIT: u8 = 0x44;

const REGISTERED: u8 = 0x50;
const DONE: u8 = 0x51;
const FOUND: u8 = 0x52;
const AMBIGUOUS: u8 = 0x53;
const REFUSED: u8 = 0x54;
const PARTLY: u8 = 0x55;

/// The least bytes of an entry in each list, which bound what is reserved.
const OWN_ENTRY_LEN: usize = ContentId::LEN + 1 + 8 + 2;
const UPLOAD_LEN: usize = 16;
const LISTED_OWNER_LEN: usize = 8 + 1 + 2;
const REFUSED_ENTRY_LEN: usize = 2 + 1;

/// Marks of an owner in Found: it has all of the content, and its address is an
/// IPv4 socket in six bytes.
const COMPLETE_MARK: u8 = 1 << 0;
const V4_MARK: u8 = 1 << 1;

const AMBIGUOUS_LEN: usize = ContentId::LEN + 8;

impl TrackerRequest {
    /// The request as a frame, which fits
    /// [`TRACKER_FRAMES`](crate::protocol::limits::TRACKER_FRAMES).
    ///
    /// # Errors
    /// [`ProtocolError::Range`] for a list with more entries than
    /// [`MAX_BATCH`], or a content length past
    /// [`MAX_CONTENT_LEN`](crate::content::MAX_CONTENT_LEN).
    pub fn encode(&self) -> Result<Frame, ProtocolError> {
        Ok(match self {
            Self::Register { listen, token } => {
                let head = Writer::opening(REGISTER, 32).optional_addr(listen.as_ref());
                match token {
                    Some(token) => head.u8(1).bytes(&token.0),
                    None => head.u8(0),
                }
            }
            Self::Own { token, entries } => Writer::new(OWN, 18 + 2 * OWN_ENTRY_LEN)
                .bytes(&token.0)
                .list("contents in OWN", MAX_BATCH, entries, |head, entry| {
                    Ok(head
                        .id(&entry.id)
                        .u8(state_code(entry.state))
                        .u64(content_len(entry.length)?)
                        .text(entry.name.as_str()))
                })?,
            Self::Need {
                token,
                key,
                max_owners,
            } => {
                let head = Writer::new(NEED, 51).bytes(&token.0).u16(*max_owners);
                match key {
                    ContentKey::Id(id) => head.u8(0).id(id),
                    ContentKey::Name(name) => head.u8(1).text(name.as_str()),
                }
            }
            Self::Update { token, uploads } => Writer::new(UPDATE, 18 + uploads.len() * UPLOAD_LEN)
                .bytes(&token.0)
                .list("uploads in UPDATE", MAX_BATCH, uploads, |head, upload| {
                    Ok(head.u64(upload.owner.0).u64(upload.bytes))
                })?,
            Self::Exit { token } => Writer::new(EXIT, 16).bytes(&token.0),
        }
        .frame())
    }

    /// The request in a frame.
    ///
    /// # Errors
    /// [`ProtocolError`]; whoever sent the frame does not keep to the
    /// protocol, or speaks another version of it
    /// ([`Version`](ProtocolError::Version)).
    pub fn decode(frame: Frame) -> Result<Self, ProtocolError> {
        let mut head = Reader::new(&frame.head);
        let request = match head.u8()? {
            REGISTER => {
                head.opening()?;
                Self::Register {
                    listen: head.optional_addr()?,
                    token: match head.flag("mark of a token")? {
                        true => Some(head.token()?),
                        false => None,
                    },
                }
            }
            OWN => Self::Own {
                token: head.token()?,
                entries: head.list("contents in OWN", MAX_BATCH, OWN_ENTRY_LEN, |head| {
                    let (id, state, length) = (head.id()?, state(head.u8()?)?, head.content_len()?);
                    let name = head.name()?;
                    Ok(OwnEntry {
                        id,
                        name,
                        length,
                        state,
                    })
                })?,
            },
            NEED => {
                let (token, max_owners) = (head.token()?, head.u16()?);
                let key = match head.u8()? {
                    0 => ContentKey::Id(head.id()?),
                    1 => ContentKey::Name(head.name()?),
                    found => {
                        let field = "kind of key";
                        return Err(ProtocolError::Choice { field, found });
                    }
                };
                Self::Need {
                    token,
                    key,
                    max_owners,
                }
            }
            UPDATE => Self::Update {
                token: head.token()?,
                uploads: head.list("uploads in UPDATE", MAX_BATCH, UPLOAD_LEN, |head| {
                    Ok(Upload {
                        owner: OwnerRef(head.u64()?),
                        bytes: head.u64()?,
                    })
                })?,
            },
            EXIT => Self::Exit {
                token: head.token()?,
            },
            found => return Err(ProtocolError::Type { found }),
        };
        head.end(&frame.body)?;
        Ok(request)
    }
}

impl TrackerReply {
    /// The reply as a frame, which fits
    /// [`TRACKER_FRAMES`](crate::protocol::limits::TRACKER_FRAMES). A
    /// heartbeat travels in whole milliseconds.
    ///
    /// # Errors
    /// [`ProtocolError::Range`] for more owners than [`MAX_OWNERS`], more ids
    /// than [`MAX_AMBIGUOUS`], refused entries that are none, more than
    /// [`MAX_BATCH`], or not in their order, a content length past
    /// [`MAX_CONTENT_LEN`](crate::content::MAX_CONTENT_LEN), or a heartbeat
    /// below a millisecond or past [`MAX_HEARTBEAT`].
    pub fn encode(&self) -> Result<Frame, ProtocolError> {
        Ok(match self {
            Self::Registered(registered) => Writer::new(REGISTERED, 60)
                .bytes(&registered.token.0)
                .u64(registered.epoch)
                .u32(heartbeat_ms(registered.heartbeat)?)
                .optional_addr(registered.listed.as_ref()),
            Self::Done => Writer::new(DONE, 0),
            Self::Found(found) => Writer::new(FOUND, 128 + found.owners.len() * 32)
                .id(&found.id)
                .u64(content_len(found.length)?)
                .text(found.name.as_str())
                .list("owners", MAX_OWNERS.into(), &found.owners, |head, owner| {
                    let complete = u8::from(owner.complete) * COMPLETE_MARK;
                    let head = head.u64(owner.owner.0);
                    Ok(match owner.addr.plain_v4() {
                        Some(v4) => head
                            .u8(complete | V4_MARK)
                            .bytes(&v4.ip().octets())
                            .u16(v4.port()),
                        None => head.u8(complete).text(owner.addr.as_str()),
                    })
                })?,
            Self::Ambiguous(contents) => Writer::new(AMBIGUOUS, 2 + contents.len() * AMBIGUOUS_LEN)
                .list(
                    "contents of one name",
                    MAX_AMBIGUOUS,
                    contents,
                    |head, (id, length)| Ok(head.id(id).u64(content_len(*length)?)),
                )?,
            Self::Refused(refusal) => write_refusal(Writer::new(REFUSED, 32), refusal),
            Self::Partly(entries) => {
                in_order(entries)?;
                Writer::new(PARTLY, 2 + entries.len() * 7).list(
                    "refused entries",
                    MAX_BATCH,
                    entries,
                    |head, entry| Ok(write_refusal(head.u16(entry.at), &entry.refusal)),
                )?
            }
        }
        .frame())
    }

    /// The reply in a frame.
    ///
    /// # Errors
    /// [`ProtocolError`]; whoever sent the frame does not keep to the
    /// protocol.
    pub fn decode(frame: Frame) -> Result<Self, ProtocolError> {
        let mut head = Reader::new(&frame.head);
        let reply = match head.u8()? {
            REGISTERED => Self::Registered(Registered {
                token: head.token()?,
                epoch: head.u64()?,
                heartbeat: heartbeat(head.u32()?)?,
                listed: head.optional_addr()?,
            }),
            DONE => Self::Done,
            FOUND => Self::Found(Found {
                id: head.id()?,
                length: head.content_len()?,
                name: head.name()?,
                owners: head.list("owners", MAX_OWNERS.into(), LISTED_OWNER_LEN, |head| {
                    let (owner, marks) = (OwnerRef(head.u64()?), head.u8()?);
                    Ok(ListedOwner {
                        owner,
                        complete: marks & COMPLETE_MARK != 0,
                        addr: owner_addr(head, marks)?,
                    })
                })?,
            }),
            AMBIGUOUS => Self::Ambiguous(head.list(
                "contents of one name",
                MAX_AMBIGUOUS,
                AMBIGUOUS_LEN,
                |head| Ok((head.id()?, head.content_len()?)),
            )?),
            REFUSED => Self::Refused(read_refusal(&mut head)?),
            PARTLY => {
                let read = |head: &mut Reader<'_>| {
                    Ok(RefusedEntry {
                        at: head.u16()?,
                        refusal: read_refusal(head)?,
                    })
                };
                let entries = head.list("refused entries", MAX_BATCH, REFUSED_ENTRY_LEN, read)?;
                in_order(&entries)?;
                Self::Partly(entries)
            }
            found => return Err(ProtocolError::Type { found }),
        };
        head.end(&frame.body)?;
        Ok(reply)
    }
}

/// Refused entries are some, and each one's place lies behind the one before.
fn in_order(entries: &[RefusedEntry]) -> Result<(), ProtocolError> {
    within(
        "refused entries",
        entries.len() as u64,
        1..=MAX_BATCH as u64,
    )?;
    let mut next = 0;
    for entry in entries {
        let places = next..=MAX_BATCH as u64 - 1;
        within("place of a refused entry", entry.at.into(), places)?;
        next = u64::from(entry.at) + 1;
    }
    Ok(())
}

/// The address of an owner with these marks, in the one form that it has.
fn owner_addr(head: &mut Reader<'_>, marks: u8) -> Result<Addr, ProtocolError> {
    let wrong = Err(ProtocolError::Choice {
        field: "mark of an owner",
        found: marks,
    });
    if marks & !(COMPLETE_MARK | V4_MARK) != 0 {
        return wrong;
    }
    if marks & V4_MARK == 0 {
        let addr = head.addr()?;
        return match addr.plain_v4() {
            Some(_) => wrong,
            None => Ok(addr),
        };
    }
    let (ip, port) = (Ipv4Addr::from(head.array::<4>()?), head.u16()?);
    Ok(SocketAddr::from((ip, port)).into())
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

fn state_code(state: OwnState) -> u8 {
    match state {
        OwnState::Gone => 0,
        OwnState::Partial => 1,
        OwnState::Complete => 2,
    }
}

fn state(code: u8) -> Result<OwnState, ProtocolError> {
    match code {
        0 => Ok(OwnState::Gone),
        1 => Ok(OwnState::Partial),
        2 => Ok(OwnState::Complete),
        found => Err(ProtocolError::Choice {
            field: "state of an owner",
            found,
        }),
    }
}

fn write_refusal(head: Writer, refusal: &Refusal) -> Writer {
    match refusal {
        Refusal::UnknownToken => head.u8(1),
        Refusal::UnknownContent => head.u8(2),
        Refusal::ForeignAddress { addr } => head.u8(3).text(addr.as_str()),
        Refusal::PeersPerHost { max } => head.u8(4).u32(*max),
        Refusal::Peers { max } => head.u8(5).u32(*max),
        Refusal::ContentsPerPeer { max } => head.u8(6).u32(*max),
        Refusal::OwnersPerContent { max } => head.u8(7).u32(*max),
        Refusal::Contents { max } => head.u8(8).u32(*max),
        Refusal::Malformed => head.u8(9),
        Refusal::Busy => head.u8(10),
        Refusal::ShuttingDown => head.u8(11),
        Refusal::NamesPerContent { max } => head.u8(12).u32(*max),
        Refusal::ContentsPerName { max } => head.u8(13).u32(*max),
        Refusal::ContentsPerHost { max } => head.u8(14).u32(*max),
        Refusal::OwnershipsPerHost { max } => head.u8(15).u32(*max),
        Refusal::Ownerships { max } => head.u8(16).u32(*max),
    }
}

fn read_refusal(head: &mut Reader<'_>) -> Result<Refusal, ProtocolError> {
    Ok(match head.u8()? {
        1 => Refusal::UnknownToken,
        2 => Refusal::UnknownContent,
        3 => Refusal::ForeignAddress { addr: head.addr()? },
        4 => Refusal::PeersPerHost { max: head.u32()? },
        5 => Refusal::Peers { max: head.u32()? },
        6 => Refusal::ContentsPerPeer { max: head.u32()? },
        7 => Refusal::OwnersPerContent { max: head.u32()? },
        8 => Refusal::Contents { max: head.u32()? },
        9 => Refusal::Malformed,
        10 => Refusal::Busy,
        11 => Refusal::ShuttingDown,
        12 => Refusal::NamesPerContent { max: head.u32()? },
        13 => Refusal::ContentsPerName { max: head.u32()? },
        14 => Refusal::ContentsPerHost { max: head.u32()? },
        15 => Refusal::OwnershipsPerHost { max: head.u32()? },
        16 => Refusal::Ownerships { max: head.u32()? },
        found => {
            return Err(ProtocolError::Choice {
                field: "refusal",
                found,
            });
        }
    })
}
