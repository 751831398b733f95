//! The receiving half of a session: records are opened where they were received, and what
//! they carry is copied once, to whoever reads.
//!
//! While it waits for a record, it holds no memory.

use std::io;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use rustls::{AlertDescription, ContentType, Error, HandshakeType, InvalidMessage, PeerMisbehaved};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::keys::RecordKey;
use super::record::{HEADER, MAX_CARRIED, OVERHEAD, carried, sealed_len};
use crate::buffers::Buffer;

/// How much is received at once, in bytes: four full records, so that what flows freely ends
/// with one, and all of it is still in the cache of the processor when it is opened.
const PIECE: usize = 4 * (MAX_CARRIED + OVERHEAD);

/// How many records may come one after the other that carry no bytes for this program. Each
/// costs some computing.
const MAX_IDLE: u8 = 32;

/// How long a message of the handshake may be that comes after it, in bytes: all that are
/// known are shorter.
const MAX_MESSAGE: usize = 1 << 14;

/// What the other side says in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// Some bytes, which can be taken, or nothing that matters.
    Bytes,
    /// It seals with its next key from here on. It may ask this side to do so too.
    NextKey { asks: bool },
    /// Nothing more.
    End,
}

/// The records of the other side.
pub(super) struct Incoming {
    key: RecordKey,
    /// Whether this side has connected. Only that one is told of tickets.
    is_client: bool,
    bytes: Option<Buffer>,
    /// Where in them is what was opened and not taken yet.
    opened: Range<usize>,
    /// Where in them the first record begins that is not opened.
    next: usize,
    /// The beginning of a message of the handshake, the rest of which is in other records.
    message: Vec<u8>,
    /// How many records have carried nothing since the last one that did.
    idle: u8,
}

impl Incoming {
    /// Some records may have come together with the end of the handshake.
    pub(super) fn new(key: RecordKey, is_client: bool, received: &[u8]) -> Self {
        let bytes = (!received.is_empty()).then(|| {
            let mut bytes = Buffer::with_room(received.len().max(PIECE));
            bytes.extend_from_slice(received);
            bytes
        });
        Self {
            key,
            is_client,
            bytes,
            opened: 0..0,
            next: 0,
            message: Vec::new(),
            idle: 0,
        }
    }

    /// Opens with another key from the next record on.
    pub(super) fn set_key(&mut self, key: RecordKey) {
        self.key = key;
    }

    /// Gives as much of what is opened as there is room for.
    pub(super) fn take(&mut self, room: &mut ReadBuf<'_>) {
        if let Some(bytes) = &self.bytes {
            let len = room.remaining().min(self.opened.len());
            room.put_slice(&bytes[self.opened.start..][..len]);
            self.opened.start += len;
        }
    }

    /// Opens the next record, once what was opened before is taken. Nothing if not all of it
    /// is there.
    pub(super) fn open(&mut self) -> Result<Option<Said>, Error> {
        debug_assert!(self.opened.is_empty());
        let Some(bytes) = &mut self.bytes else {
            return Ok(None);
        };
        let Some((header, behind)) = bytes[self.next..].split_first_chunk_mut::<HEADER>() else {
            return Ok(None);
        };
        let len = sealed_len(header)?;
        let Some(sealed) = behind.get_mut(..len) else {
            return Ok(None);
        };
        let opened = self.key.open(header, sealed)?;
        let (kind, carried) = carried(&sealed[..opened])?;
        if !self.message.is_empty() && kind != ContentType::Handshake {
            return Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into());
        }
        let at = self.next + HEADER;
        self.next = at + len;
        match kind {
            ContentType::ApplicationData if carried > 0 => {
                self.opened = at..at + carried;
                self.idle = 0;
                return Ok(Some(Said::Bytes));
            }
            _ if self.idle == MAX_IDLE => {
                return Err(PeerMisbehaved::TooManyEmptyFragments.into());
            }
            _ => self.idle += 1,
        }
        let carried = &bytes[at..at + carried];
        let said = match kind {
            ContentType::ApplicationData => Said::Bytes,
            ContentType::Alert => alert(carried)?,
            ContentType::Handshake => {
                self.message.extend_from_slice(carried);
                self.messages()?
            }
            kind => {
                return Err(Error::InappropriateMessage {
                    expect_types: vec![ContentType::ApplicationData],
                    got_type: kind,
                });
            }
        };
        Ok(Some(said))
    }

    /// What the messages of the handshake say of which all is there.
    fn messages(&mut self) -> Result<Said, Error> {
        if self.message.is_empty() {
            return Err(InvalidMessage::InvalidEmptyPayload.into());
        }
        let (mut said, mut read) = (Said::Bytes, 0);
        while let Some(([kind, high, middle, low], behind)) =
            self.message[read..].split_first_chunk()
        {
            let len = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            if len > MAX_MESSAGE {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some((message, behind)) = behind.split_at_checked(len) else {
                break;
            };
            match HandshakeType::from(*kind) {
                // Each session has a handshake of its own.
                HandshakeType::NewSessionTicket if self.is_client => {}
                HandshakeType::KeyUpdate => {
                    let asks = match message {
                        [0] => false,
                        [1] => true,
                        _ => return Err(InvalidMessage::InvalidKeyUpdate.into()),
                    };
                    if !behind.is_empty() {
                        return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
                    }
                    said = Said::NextKey { asks };
                }
                kind => {
                    return Err(Error::InappropriateHandshakeMessage {
                        expect_types: vec![HandshakeType::KeyUpdate],
                        got_type: kind,
                    });
                }
            }
            read = self.message.len() - behind.len();
        }
        self.message.drain(..read);
        if self.message.is_empty() {
            self.message = Vec::new();
        }
        Ok(said)
    }

    /// Whether it holds memory for what it receives.
    #[cfg(test)]
    pub(super) fn holds_memory(&self) -> bool {
        self.bytes.is_some()
    }

    /// Receives more, when no whole record is left. Returns 0 at the end of the stream.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        let bytes = self.bytes.get_or_insert_with(|| Buffer::with_room(PIECE));
        // A part of a record, which has room behind it then for all of it.
        bytes.drain(..self.next);
        (self.opened, self.next) = (0..0, 0);
        let room = PIECE.saturating_sub(bytes.len());
        let mut room = (&mut **bytes).limit(room);
        let read = pin!(io.read_buf(&mut room)).poll(cx);
        if bytes.is_empty() {
            self.bytes = None;
        }
        read
    }
}

/// What an alert says, if it is not that all is over.
fn alert(carried: &[u8]) -> Result<Said, Error> {
    let [_level, alert] = carried else {
        return Err(InvalidMessage::MessageTooShort.into());
    };
    match AlertDescription::from(*alert) {
        AlertDescription::CloseNotify => Ok(Said::End),
        // Another alert follows.
        AlertDescription::UserCanceled => Ok(Said::Bytes),
        alert => Err(Error::AlertReceived(alert)),
    }
}
