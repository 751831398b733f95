//! The sending half of a session: what is written is copied once, into records, and sealed
//! there. Many records go out at once.
//!
//! While nothing waits to be sent, it holds no memory.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::{AlertDescription, ContentType, Error, HandshakeType};
use tokio::io::AsyncWrite;

use super::keys::{KeySchedule, RecordKey, TAG};
use super::record::{HEADER, MAX_CARRIED, OVERHEAD, header};
use crate::buffers::Buffer;

/// How many bytes are sealed before they are written, at most: as many as a socket takes at
/// once, and few enough that they are still in the cache of the processor.
const SENT_AT_ONCE: usize = 256 << 10;

/// What is left free beside records of the program, in bytes: an update of the key and an
/// alert.
const BESIDE: usize = 2 * (OVERHEAD + 8);

/// The records to the other side.
pub(super) struct Outgoing {
    key: RecordKey,
    /// How many records one key may seal.
    most: u64,
    /// Whether the other side has asked for the next key.
    is_asked: bool,
    /// Records that are not wholly written.
    bytes: Option<Buffer>,
    written: usize,
}

impl Outgoing {
    pub(super) fn new(key: RecordKey) -> Self {
        Self {
            most: key.most(),
            key,
            is_asked: false,
            bytes: None,
            written: 0,
        }
    }

    /// The next key is to be used before anything else is said.
    pub(super) fn ask_for_next_key(&mut self) {
        self.is_asked = true;
    }

    /// Seals some of these bytes, when nothing waits to be sent. Returns how many.
    pub(super) fn seal(
        &mut self,
        slices: &[IoSlice<'_>],
        schedule: &mut KeySchedule,
    ) -> Result<usize, Error> {
        let all = slices.iter().map(|slice| slice.len()).sum::<usize>();
        let all = all.min(SENT_AT_ONCE);
        let records = all.div_ceil(MAX_CARRIED);
        let room = all + records * OVERHEAD + BESIDE;
        self.bytes.get_or_insert_with(|| Buffer::with_room(room));
        let (mut slices, mut left) = (Slices::new(slices), all);
        while left > 0 {
            self.update_key(schedule)?;
            let len = left.min(MAX_CARRIED);
            self.record(ContentType::ApplicationData, |to| slices.copy(len, to))?;
            left -= len;
        }
        Ok(all)
    }

    /// Takes the next key into use, if it is time, and tells so.
    fn update_key(&mut self, schedule: &mut KeySchedule) -> Result<(), Error> {
        // The last record that this key may seal tells of the next one.
        if !self.is_asked && self.key.used() + 1 < self.most {
            return Ok(());
        }
        self.is_asked = false;
        // It is not asked to do the same: it counts its records itself.
        let update = [HandshakeType::KeyUpdate.into(), 0, 0, 1, 0];
        self.record(ContentType::Handshake, |to| to.extend_from_slice(&update))?;
        self.key = schedule.next_sealing()?;
        Ok(())
    }

    /// Says why this side ends the session.
    pub(super) fn alert(&mut self, alert: AlertDescription) -> Result<(), Error> {
        let is_fatal = alert != AlertDescription::CloseNotify;
        let level = 1 + u8::from(is_fatal);
        let alert = [level, alert.into()];
        self.record(ContentType::Alert, |to| to.extend_from_slice(&alert))
    }

    /// Makes one record.
    pub(super) fn record(
        &mut self,
        kind: ContentType,
        carry: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Error> {
        let bytes = self.bytes.get_or_insert_with(|| Buffer::with_room(BESIDE));
        let begin = bytes.len();
        bytes.extend_from_slice(&[0; HEADER]);
        carry(bytes);
        bytes.push(kind.into());
        let header = header(bytes.len() - begin - HEADER + TAG);
        let (place, carried) = bytes[begin..].split_at_mut(HEADER);
        place.copy_from_slice(&header);
        let tag = self.key.seal(&header, carried)?;
        bytes.extend_from_slice(&tag);
        Ok(())
    }

    /// Sets how many records one key may seal.
    #[cfg(test)]
    pub(super) fn set_most(&mut self, most: u64) {
        self.most = most;
    }

    /// How many records the key has sealed.
    #[cfg(test)]
    pub(super) fn used(&self) -> u64 {
        self.key.used()
    }

    /// Whether the other side has asked for the next key.
    #[cfg(test)]
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// Whether it holds memory for what it sends.
    #[cfg(test)]
    pub(super) fn holds_memory(&self) -> bool {
        self.bytes.is_some()
    }

    /// Writes all that is sealed.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while let Some(bytes) = &self.bytes {
            let left = &bytes[self.written..];
            if left.is_empty() {
                (self.bytes, self.written) = (None, 0);
                break;
            }
            match ready!(Pin::new(&mut *io).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The bytes of several slices, one after the other.
struct Slices<'a> {
    rest: &'a [IoSlice<'a>],
    /// How much of the first one is copied already.
    copied: usize,
}

impl<'a> Slices<'a> {
    fn new(rest: &'a [IoSlice<'a>]) -> Self {
        Self { rest, copied: 0 }
    }

    /// Copies the next bytes, of which there must be so many.
    fn copy(&mut self, mut len: usize, to: &mut Vec<u8>) {
        while len > 0
            && let Some((first, behind)) = self.rest.split_first()
        {
            let left = &first[self.copied..];
            let now = len.min(left.len());
            to.extend_from_slice(&left[..now]);
            len -= now;
            self.copied += now;
            if self.copied == first.len() {
                (self.rest, self.copied) = (behind, 0);
            }
        }
    }
}
