//! How far a content is.

use std::sync::Arc;

use super::Planner;
use super::manifest_fetch::ManifestFetch;
use super::transfer::Transfer;
use crate::content::{ChunkIndex, Manifest};

/// How far a content is. See the [module docs](super).
#[derive(Debug)]
pub(super) enum Phase {
    Manifest(Box<ManifestFetch>),
    Opening(Arc<Manifest>),
    Transfer(Box<Transfer>),
    Seeding(Arc<Manifest>),
}

impl Phase {
    /// Whether a chunk is here and verified, so that it can be served.
    pub(super) fn has(&self, chunk: ChunkIndex) -> bool {
        match self {
            Self::Manifest(_) | Self::Opening(_) => false,
            Self::Transfer(transfer) => transfer.stored().contains(chunk),
            Self::Seeding(manifest) => manifest.geometry().contains(chunk),
        }
    }

    pub(super) fn manifest(&self) -> Option<&Arc<Manifest>> {
        match self {
            Self::Manifest(_) => None,
            Self::Opening(manifest) | Self::Seeding(manifest) => Some(manifest),
            Self::Transfer(transfer) => Some(transfer.manifest()),
        }
    }

    /// The planner, while blocks are transferred.
    pub(super) fn planner(&self) -> Option<&Planner> {
        match self {
            Self::Transfer(transfer) => Some(&transfer.planner),
            _ => None,
        }
    }

    pub(super) fn is_seeding(&self) -> bool {
        matches!(self, Self::Seeding(_))
    }
}
