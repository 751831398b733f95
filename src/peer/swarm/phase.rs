//! How far a content is.

use std::sync::Arc;

use super::Progress;
use super::manifest_fetch::ManifestFetch;
use super::planner::Planner;
use super::remote_chunks::RemoteChunks;
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

    /// Whether the manifest is known.
    pub(super) fn is_known(&self) -> bool {
        self.manifest().is_some()
    }

    /// Whether no block can be stored yet.
    pub(super) fn is_beginning(&self) -> bool {
        matches!(self, Self::Manifest(_) | Self::Opening(_))
    }

    pub(super) fn is_seeding(&self) -> bool {
        matches!(self, Self::Seeding(_))
    }

    /// Whether not all is wanted, and all that is wanted is here.
    pub(super) fn rests(&self) -> bool {
        matches!(self, Self::Transfer(transfer) if transfer.rests())
    }

    /// Whether nobody is needed.
    pub(super) fn is_content(&self) -> bool {
        self.is_seeding() || self.rests()
    }

    /// How many of the chunks that are here another peer lacks. O(chunks).
    pub(super) fn lacked_by(&self, remote: &RemoteChunks) -> u32 {
        match (self, remote) {
            // A peer that has not said what it has wants nothing yet.
            (_, RemoteChunks::All | RemoteChunks::Unknown) => 0,
            (Self::Seeding(manifest), remote) => {
                manifest.geometry().chunks().saturating_sub(remote.count())
            }
            (Self::Transfer(transfer), RemoteChunks::Some(has)) => {
                let stored = transfer.stored();
                stored.count() - stored.iter_common(has, 0).count() as u32
            }
            (Self::Transfer(transfer), _) => transfer.stored().count(),
            _ => 0,
        }
    }

    /// The same of the chunks from `first` on.
    pub(super) fn lacked_by_of(&self, first: ChunkIndex, remote: &RemoteChunks) -> u32 {
        match (self, remote) {
            (_, RemoteChunks::All | RemoteChunks::Unknown) => 0,
            (Self::Transfer(transfer), remote) => {
                let held = transfer.stored().iter_from(first.0);
                held.filter(|chunk| !remote.has(*chunk)).count() as u32
            }
            _ => 0,
        }
    }

    /// Fills in what follows from the phase.
    pub(super) fn fill_in(&self, progress: &mut Progress) {
        let geometry = self.manifest().map(|manifest| manifest.geometry());
        progress.length = geometry.map(|geometry| geometry.length());
        progress.chunks = geometry.map(|geometry| geometry.chunks());
        match self {
            Self::Transfer(transfer) => {
                progress.verified_chunks = transfer.stored().count();
                progress.verified_bytes = transfer.stored_bytes();
                progress.owners = transfer.planner.busy_links() as u32;
                if let Some((wanted, stored)) = transfer.wanted() {
                    let geometry = transfer.manifest().geometry();
                    progress.length = Some(geometry.bytes_of(wanted));
                    progress.chunks = Some(wanted.count());
                    let all = progress.verified_bytes;
                    progress.verified_chunks = stored.count();
                    progress.verified_bytes = geometry.bytes_of(stored);
                    progress.unwanted_bytes = all - progress.verified_bytes;
                }
                if transfer.rests() {
                    progress.rate = 0.0;
                }
            }
            Self::Seeding(manifest) => {
                progress.verified_chunks = manifest.geometry().chunks();
                progress.verified_bytes = manifest.geometry().length();
                progress.rate = 0.0;
            }
            Self::Manifest(_) | Self::Opening(_) => {}
        }
    }
}
