//! What outlives a tracker: upload rates by address, because sessions end with
//! the tracker, and the contents with their names. A tracker that starts again
//! remembers them for a while, until the peers have registered again.

use crate::content::{ContentId, ContentName};
use crate::protocol::Addr;

/// The knowledge of a tracker that is worth saving. With the feature `serde` it
/// can be saved and loaded in any format. As JSON it looks like this:
///
/// ```json
/// {
///   "credits": [
///     { "addr": "10.0.0.1:7000", "bytes_per_second": 1250000 }
///   ],
///   "contents": [
///     { "id": "af13...", "length": 1024, "names": ["ubuntu.iso"] }
///   ]
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct Snapshot {
    /// Upload rates, in the order of the addresses.
    pub credits: Vec<Credit>,
    /// The contents that had owners, in the order of their ids.
    pub contents: Vec<KnownContent>,
}

/// How fast a peer has been uploading.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Credit {
    /// Where the peer listens.
    pub addr: Addr,
    /// Its decayed upload rate.
    pub bytes_per_second: u64,
}

/// A content that had an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct KnownContent {
    /// Its id.
    pub id: ContentId,
    /// Its length in bytes, as an owner announced it.
    pub length: u64,
    /// Its names. Most owners use the first one.
    pub names: Vec<ContentName>,
}

impl Snapshot {
    /// A snapshot of these upload rates and contents.
    pub fn new(credits: Vec<Credit>, contents: Vec<KnownContent>) -> Self {
        Self { credits, contents }
    }
}

impl Credit {
    /// The upload rate of the peer that listens at `addr`.
    pub fn new(addr: Addr, bytes_per_second: u64) -> Self {
        Self {
            addr,
            bytes_per_second,
        }
    }
}

impl KnownContent {
    /// A content with the names that its owners use, the most common one first.
    pub fn new(id: ContentId, length: u64, names: Vec<ContentName>) -> Self {
        Self { id, length, names }
    }
}
