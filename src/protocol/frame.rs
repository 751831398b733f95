//! The frame: the unit that transports carry.

use bytes::Bytes;

/// One encoded message: a small head, and a body that no transport of this crate
/// copies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// The type and the fields of the message.
    pub head: Bytes,
    /// The bytes of a block, or other long data. Often empty.
    pub body: Bytes,
}

impl Frame {
    /// A frame without a body.
    pub fn head(head: impl Into<Bytes>) -> Self {
        Self {
            head: head.into(),
            body: Bytes::new(),
        }
    }

    /// The length of head and body together, in bytes.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether head and body are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The longest head and body that a receiver accepts, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// The longest head.
    pub head: u16,
    /// The longest body.
    pub body: u32,
}
