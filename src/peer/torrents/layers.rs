//! The hashes of v2 of a hybrid torrent that was fetched without them: when all of its bytes are
//! here, they are made of these.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::torrent::Torrent;
use crate::bittorrent::{Metainfo, TorrentFile};
use crate::content::merkle::{Hash, TORRENT_LEAF_LEN, leaf, leaves_of_piece, root};
use crate::peer::contents::hashing::off_thread;
use crate::storage::StorageError;

/// Whether a torrent has a hash of v2, and lacks those of the pieces.
pub(super) fn are_missing(torrent: &Torrent) -> bool {
    let metainfo = torrent.metainfo();
    metainfo.info_hash_v2().is_some() && !metainfo.missing_layers().is_empty()
}

/// Makes the hashes of a torrent that is complete. From now on they are served. Nothing if it
/// ends meanwhile, or its hash of v2 is not that of its bytes.
pub(super) async fn make(torrent: &Torrent) -> Option<Metainfo> {
    let mut missing = torrent.metainfo().missing_layers();
    let mut layers = BTreeMap::new();
    for file in torrent.metainfo().files() {
        // Equal files have one root.
        let Some(root) = file
            .pieces_root()
            .filter(|root| missing.remove(*root).is_some())
        else {
            continue;
        };
        match layer(torrent, file).await {
            Ok(layer) => layers.insert(*root, layer),
            Err(error) => {
                tracing::debug!(id = %torrent.id, %error, "no hashes of version 2");
                return None;
            }
        };
    }
    let metainfo = torrent.metainfo().clone();
    let whole = off_thread(move || metainfo.with_layers(layers)).await;
    match whole {
        Ok(whole) => {
            torrent.is_whole(whole.clone());
            Some(whole)
        }
        Err(error) => {
            tracing::warn!(id = %torrent.id, %error, "the hash of version 2 is of other bytes");
            None
        }
    }
}

/// The hashes of the pieces of a file.
async fn layer(torrent: &Torrent, file: &TorrentFile) -> Result<Bytes, StorageError> {
    let piece_length = torrent.metainfo().piece_length();
    let width = leaves_of_piece(piece_length);
    let (mut at, end) = (file.offset(), file.offset() + file.length());
    let mut layer = Vec::new();
    while at < end {
        let len = u64::from(piece_length).min(end - at) as usize;
        let bytes = torrent.common.files.read(at, len).await?;
        let hash = off_thread(move || {
            let blocks = bytes.chunks(TORRENT_LEAF_LEN as usize);
            root(blocks.map(leaf).collect::<Vec<Hash>>(), width, [0; 32])
        });
        layer.extend(hash.await);
        at += len as u64;
    }
    Ok(layer.into())
}
