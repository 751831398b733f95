//! The fields of a message on the wire: one type writes them, one reads them.
//!
//! A message is one byte for its type, then its fields, big-endian. Long data is
//! the body of the frame. PROTOCOL.md describes the bytes.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::addr::{Addr, MAX_ADDR_LEN};
use super::error::ProtocolError;
use super::frame::Frame;
use super::limits::{MAGIC, VERSION};
use crate::content::{ContentId, ContentName, MAX_CONTENT_LEN, MAX_NAME_LEN};

// The length of a text is one byte on the wire.
const _: () = assert!(MAX_NAME_LEN <= u8::MAX as usize && MAX_ADDR_LEN <= u8::MAX as usize);

/// Checks a value against its bounds.
pub(super) fn within(
    field: &'static str,
    found: u64,
    bounds: RangeInclusive<u64>,
) -> Result<(), ProtocolError> {
    let (min, max) = bounds.into_inner();
    if (min..=max).contains(&found) {
        Ok(())
    } else {
        Err(ProtocolError::Range {
            field,
            found,
            min,
            max,
        })
    }
}

/// Checks the length of a content against [`MAX_CONTENT_LEN`].
pub(super) fn content_len(length: u64) -> Result<u64, ProtocolError> {
    within("content length", length, 0..=MAX_CONTENT_LEN)?;
    Ok(length)
}

/// Writes the head of one message.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// Starts a message. `len` is the expected length of its fields in bytes, so
    /// that the head is allocated once.
    pub(super) fn new(kind: u8, len: usize) -> Self {
        let mut head = Vec::with_capacity(1 + len);
        head.push(kind);
        Self(head)
    }

    /// Starts a message on a channel of a session.
    pub(super) fn on(channel: u32, kind: u8, len: usize) -> Self {
        let mut head = Vec::with_capacity(1 + 4 + len);
        head.push(kind);
        Self(head).u32(channel)
    }

    /// Starts a message whose first fields are the protocol's magic bytes and
    /// version.
    pub(super) fn opening(kind: u8, len: usize) -> Self {
        Self::new(kind, MAGIC.len() + 1 + len).version()
    }

    /// The protocol's magic bytes and its version.
    pub(super) fn version(self) -> Self {
        self.bytes(&MAGIC).u8(VERSION)
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn id(self, id: &ContentId) -> Self {
        self.bytes(id.as_bytes())
    }

    /// A name or an address, after its length.
    pub(super) fn text(self, text: &str) -> Self {
        let len = u8::try_from(text.len()).expect("names and addresses are validated");
        self.u8(len).bytes(text.as_bytes())
    }

    /// An address, or a text without bytes for `None`.
    pub(super) fn optional_addr(self, addr: Option<&Addr>) -> Self {
        self.text(addr.map_or("", Addr::as_str))
    }

    /// A list, after the number of its entries.
    pub(super) fn list<T>(
        self,
        field: &'static str,
        max: usize,
        entries: &[T],
        write: impl FnMut(Self, &T) -> Result<Self, ProtocolError>,
    ) -> Result<Self, ProtocolError> {
        within(field, entries.len() as u64, 0..=max as u64)?;
        let counted = self.u16(entries.len() as u16);
        entries.iter().try_fold(counted, write)
    }

    pub(super) fn frame(self) -> Frame {
        self.frame_with(Bytes::new())
    }

    pub(super) fn frame_with(self, body: Bytes) -> Frame {
        Frame {
            head: self.0.into(),
            body,
        }
    }
}

/// Reads the fields of one message's head, from the front.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(head: &'a [u8]) -> Self {
        Self(head)
    }

    /// The magic bytes and the version of an opening message.
    pub(super) fn opening(&mut self) -> Result<(), ProtocolError> {
        if self.array()? != MAGIC {
            return Err(ProtocolError::Magic);
        }
        match self.u8()? {
            VERSION => Ok(()),
            found => Err(ProtocolError::Version { found }),
        }
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], ProtocolError> {
        self.need(len)?;
        let (field, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(field)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ProtocolError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ProtocolError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ProtocolError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn id(&mut self) -> Result<ContentId, ProtocolError> {
        self.array().map(ContentId::from_bytes)
    }

    pub(super) fn content_len(&mut self) -> Result<u64, ProtocolError> {
        content_len(self.u64()?)
    }

    pub(super) fn name(&mut self) -> Result<ContentName, ProtocolError> {
        Ok(self.text()?.try_into()?)
    }

    pub(super) fn addr(&mut self) -> Result<Addr, ProtocolError> {
        Ok(self.text()?.try_into()?)
    }

    pub(super) fn optional_addr(&mut self) -> Result<Option<Addr>, ProtocolError> {
        match self.text()? {
            [] => Ok(None),
            text => Ok(Some(text.try_into()?)),
        }
    }

    /// A list of at most `max` entries of at least `least` bytes each. Memory is
    /// reserved only for entries for which the head has bytes.
    pub(super) fn list<T>(
        &mut self,
        field: &'static str,
        max: usize,
        least: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, ProtocolError>,
    ) -> Result<Vec<T>, ProtocolError> {
        let count = self.u16()?;
        within(field, count.into(), 0..=max as u64)?;
        self.need(usize::from(count) * least)?;
        let mut entries = Vec::with_capacity(count.into());
        for _ in 0..count {
            entries.push(read(self)?);
        }
        Ok(entries)
    }

    /// The end of the message. Nothing may be left in the head, nor in `body`,
    /// the part of the frame's body that the message did not take.
    pub(super) fn end(self, body: &[u8]) -> Result<(), ProtocolError> {
        match self.0.len() + body.len() {
            0 => Ok(()),
            extra => Err(ProtocolError::Trailing { extra }),
        }
    }

    fn text(&mut self) -> Result<&'a [u8], ProtocolError> {
        let len = self.u8()?;
        self.bytes(len.into())
    }

    fn need(&self, needed: usize) -> Result<(), ProtocolError> {
        let left = self.0.len();
        if needed > left {
            return Err(ProtocolError::Truncated { needed, left });
        }
        Ok(())
    }
}
