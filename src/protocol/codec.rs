//! Between messages and frames.

use thiserror::Error;

/// Why a frame is no message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {}
