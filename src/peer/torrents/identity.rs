//! What a torrent is known by.

use crate::bittorrent::{InfoHashV1, Metainfo};
use crate::content::ContentId;

/// What a torrent is known by: to its peers and trackers, and here.
pub(super) fn identity(metainfo: &Metainfo) -> (InfoHashV1, ContentId) {
    match (metainfo.info_hash_v1(), metainfo.info_hash_v2()) {
        (Some(v1), _) => (v1, ContentId::of_torrent_v1(v1.as_bytes())),
        (None, Some(v2)) => (v2.truncated(), ContentId::of_torrent_v2(v2.as_bytes())),
        (None, None) => unreachable!("a torrent has one of the two"),
    }
}
