//! Where what belongs to a folder is fetched from, and where to.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::content::ContentId;
use crate::protocol::Addr;
use crate::storage::Storage;
use crate::tracker::{TrackerClient, TrackerError};

/// For how long an answer of the trackers serves all files of a folder.
const OWNERS_AGE: Duration = Duration::from_secs(5);

/// What the downloads of one folder share.
pub(in crate::peer) struct FolderSource {
    index: ContentId,
    /// Where its files go.
    pub(in crate::peer) storage: Arc<dyn Storage>,
    /// Owners that the user has named.
    named: Vec<Addr>,
    /// Owners that trackers have named.
    found: Mutex<Option<FoundOwners>>,
}

/// An answer of the trackers.
struct FoundOwners {
    at: Instant,
    /// The owners, and whether they have all of it.
    owners: Vec<(Addr, bool)>,
    /// If this peer fetches for its zone: how many of the owners, the first ones, do so too.
    importers: Option<u16>,
}

impl FolderSource {
    /// The folder with this index. `found` are the owners that trackers have just
    /// named, and whether they are complete.
    pub(in crate::peer) fn new(
        index: ContentId,
        storage: Arc<dyn Storage>,
        named: Vec<Addr>,
        found: Option<Vec<(Addr, bool)>>,
    ) -> Self {
        Self {
            index,
            storage,
            named,
            found: Mutex::new(found.map(|owners| FoundOwners {
                at: Instant::now(),
                owners,
                importers: None,
            })),
        }
    }

    /// The index of the folder.
    pub(in crate::peer) fn index(&self) -> ContentId {
        self.index
    }

    /// The owners of the folder. The trackers are asked for the index, for all files
    /// at once, and not again within [`OWNERS_AGE`]. Those that they have named before
    /// stay as long as they name no others: a tracker may be away, or have started again
    /// and not know them yet.
    ///
    /// Cancel safe.
    pub(in crate::peer) async fn owners(
        &self,
        trackers: &TrackerClient,
        wanted: u16,
    ) -> (Vec<(Addr, bool)>, Option<u16>) {
        let mut found = self.found.lock().await;
        let is_fresh = |found: &FoundOwners| found.at.elapsed() < OWNERS_AGE;
        if !found.as_ref().is_some_and(is_fresh) {
            let asked = trackers.need(self.index.into(), wanted).await;
            let (named, importers) = match asked {
                Ok(found) => (found.owners, found.importers),
                Err(error) => {
                    if error != TrackerError::NoTracker {
                        tracing::warn!(%error, "finding owners of the folder failed");
                    }
                    (Vec::new(), None)
                }
            };
            let named = named.into_iter().map(|owner| (owner.addr, owner.complete));
            let named: Vec<_> = named.collect();
            let before = found.take().map(|found| found.owners);
            *found = Some(FoundOwners {
                at: Instant::now(),
                owners: match named.is_empty() {
                    true => before.unwrap_or_default(),
                    false => named,
                },
                importers,
            });
        }
        let importers = found.as_ref().and_then(|found| found.importers);
        let found = found.iter().flat_map(|found| found.owners.iter().cloned());
        let named = self.named.iter().map(|addr| (addr.clone(), false));
        (found.chain(named).collect(), importers)
    }
}
