//! Which contents have a driver: one each at most.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::inbox::DriverInput;
use super::status::ContentStatus;
use crate::content::{Content, ContentId};

/// The drivers of one peer, by content.
#[derive(Default)]
pub(super) struct Drivers {
    drivers: Mutex<BTreeMap<ContentId, DriverHandle>>,
}

/// How the rest of the peer reaches a driver.
#[derive(Clone)]
pub(super) struct DriverHandle {
    pub(super) inbox: mpsc::Sender<DriverInput>,
    pub(super) status: watch::Receiver<ContentStatus>,
    /// Ends the driver.
    pub(super) stop: CancellationToken,
    /// Ends the driver unless its content is complete.
    pub(super) cancel: CancellationToken,
}

/// The state of a content that has a driver.
pub(super) enum Settled {
    /// It is complete, and shared.
    Complete(Content),
    /// It is being downloaded.
    Downloading,
    /// Its driver has ended, and gave up its claim.
    Ended,
}

impl DriverHandle {
    /// Waits while the driver is about to end, or the content is about to be
    /// shared.
    pub(super) async fn settled(mut self) -> Settled {
        loop {
            if self.inbox.is_closed() {
                return Settled::Ended;
            }
            if !self.stop.is_cancelled() {
                let status = self.status.borrow_and_update();
                match status.complete() {
                    Some(content) => return Settled::Complete(content.clone()),
                    None if status.is_announcing() || self.cancel.is_cancelled() => {}
                    None => return Settled::Downloading,
                }
            }
            tokio::select! {
                () = self.inbox.closed() => {}
                Ok(()) = self.status.changed() => {}
            }
        }
    }
}

/// The right to drive a content, given back when it is dropped.
pub(super) struct DriverClaim {
    drivers: Arc<Drivers>,
    id: ContentId,
}

impl Drop for DriverClaim {
    fn drop(&mut self) {
        self.drivers.lock().remove(&self.id);
    }
}

impl Drivers {
    pub(super) fn get(&self, id: &ContentId) -> Option<DriverHandle> {
        self.lock().get(id).cloned()
    }

    /// Registers the driver of a content, unless it has one. Waits for a
    /// driver that is about to end.
    ///
    /// Cancel safe: nothing is claimed unless a claim is returned.
    pub(super) async fn claim(
        self: &Arc<Self>,
        id: ContentId,
        handle: &DriverHandle,
    ) -> Result<DriverClaim, Settled> {
        loop {
            let taken = match self.lock().entry(id) {
                Entry::Occupied(taken) => taken.get().clone(),
                Entry::Vacant(free) => {
                    free.insert(handle.clone());
                    let drivers = Arc::clone(self);
                    return Ok(DriverClaim { drivers, id });
                }
            };
            match taken.settled().await {
                Settled::Ended => {}
                settled => return Err(settled),
            }
        }
    }

    /// The contents that are complete, and whose drivers are not ending.
    pub(super) fn contents(&self) -> Vec<Content> {
        let drivers = self.lock();
        let serving = drivers.values().filter(|d| !d.stop.is_cancelled());
        let contents = serving.filter_map(|driver| {
            let status = driver.status.borrow();
            status.complete().cloned()
        });
        contents.collect()
    }

    /// Ignores poison: no change under this lock is left half done.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContentId, DriverHandle>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
