//! Where a content has its bytes together with another one.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::content::{ContentName, FolderPath};
use crate::peer::downloads::queue::CommonTurn;
use crate::storage::Storage;
use crate::storage::sibling::Sibling;

/// A place that a content has together with another one.
#[derive(Clone)]
#[cfg_attr(not(feature = "bittorrent"), allow(dead_code))]
pub(in crate::peer) struct CommonPlace {
    pub(in crate::peer) storage: Arc<dyn Storage>,
    pub(in crate::peer) sibling: Arc<dyn Sibling>,
    /// The two are one of the downloads that may be active.
    pub(in crate::peer) turn: CommonTurn,
}

/// The files of another content, of which some are those of a folder.
#[async_trait]
#[cfg_attr(not(feature = "bittorrent"), allow(dead_code))]
pub(in crate::peer) trait CommonTree: Send + Sync {
    /// The name of the folder that they lie in.
    fn name(&self) -> &ContentName;

    /// Whether the other content is being fetched. Otherwise it is complete.
    fn is_under_way(&self) -> bool;

    /// With what all downloads of the folder are one of the active ones.
    fn turn(&self) -> &CommonTurn;

    /// The length of the file at this path in the folder, in bytes, if it is one of them.
    fn length_of(&self, path: &FolderPath) -> Option<u64>;

    /// The place of the file at this path, if it is one of them and they are being fetched.
    fn place(&self, path: &FolderPath) -> Option<CommonPlace>;

    /// Waits until the other content is complete, or has ended. Returns whether it is complete:
    /// then all of its files have their names.
    ///
    /// Cancel safe.
    async fn is_done(&self) -> bool;
}

/// The files of another content, which a folder lies over.
#[derive(Clone)]
#[cfg_attr(not(feature = "bittorrent"), allow(dead_code))]
pub(in crate::peer) struct CommonFolder(pub(in crate::peer) Arc<dyn CommonTree>);

impl fmt::Debug for CommonFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommonFolder").finish_non_exhaustive()
    }
}

impl fmt::Debug for CommonPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommonPlace").finish_non_exhaustive()
    }
}
