//! Where a content has its bytes together with another one.

use std::fmt;
use std::sync::Arc;

use crate::storage::Storage;
use crate::storage::sibling::Sibling;

/// A place that a content has together with another one.
#[derive(Clone)]
#[cfg_attr(not(feature = "bittorrent"), allow(dead_code))]
pub(in crate::peer) struct CommonPlace {
    pub(in crate::peer) storage: Arc<dyn Storage>,
    pub(in crate::peer) sibling: Arc<dyn Sibling>,
}

impl fmt::Debug for CommonPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommonPlace").finish_non_exhaustive()
    }
}
