//! Reads of contents by those who are here, and what follows when one fails: the same as
//! when a read for another peer fails. The next place of the content is tried; without
//! one, the content is no longer shared.

use std::sync::{Arc, Weak};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::content::ContentId;
use crate::error::ReaderError;
use crate::peer::contents::asleep::Asleep;
use crate::peer::contents::complete_bytes::{CompleteBytes, ReadFaults};
use crate::peer::contents::lost;
use crate::peer::contents::readers::ReaderBoard;
use crate::peer::contents::serve::{lose, manifest};
use crate::peer::contents::table::{Evicting, Readable, Settled};
use crate::peer::shared::PeerShared;
use crate::protocol::RefuseReason;
use crate::storage::{Blob, StorageError};

/// Where the readers of a content are.
pub(in crate::peer) async fn readers(
    shared: &Arc<PeerShared>,
    id: &ContentId,
) -> Result<Arc<ReaderBoard>, ReaderError> {
    loop {
        if shared.tasks.stop.is_cancelled() {
            return Err(ReaderError::ShutDown);
        }
        let asleep = match shared.contents.readable(id) {
            None => return Err(ReaderError::NotHere { id: *id }),
            Some(Readable::Awake(board)) => return Ok(board),
            Some(Readable::Passing) => return Err(ReaderError::Passing { id: *id }),
            Some(Readable::Asleep(asleep)) => asleep,
        };
        let source = match bytes_of(shared, &asleep).await {
            Ok(bytes) => {
                let board = Arc::new(ReaderBoard::complete(bytes));
                shared.contents.reads(&asleep, &board);
                return Ok(board);
            }
            Err(error) => error,
        };
        let faults = &shared.read_faults;
        let blob = Arc::clone(&asleep.blob);
        drop(asleep);
        if !source.is_loss() || faults.unreadable(*id, blob, source.clone()).await.is_none() {
            return Err(ReaderError::Storage { id: *id, source });
        }
    }
}

/// The bytes of a content that is asleep, to be read here.
async fn bytes_of(shared: &PeerShared, asleep: &Asleep) -> Result<CompleteBytes, StorageError> {
    let bytes = CompleteBytes::new(asleep.content.id, Arc::clone(&asleep.blob));
    let bytes = bytes.shared(&shared.read_faults);
    Ok(match asleep.unchecked() {
        Some(unchecked) => {
            let manifest = manifest(shared, asleep).await?;
            bytes.unverified(unchecked.clone(), manifest)
        }
        None => bytes,
    })
}

/// Sees to contents that could not be read here.
pub(in crate::peer) struct FaultHandler(pub(in crate::peer) Weak<PeerShared>);

impl ReadFaults for FaultHandler {
    fn unreadable(
        &self,
        id: ContentId,
        blob: Arc<dyn Blob>,
        error: StorageError,
    ) -> BoxFuture<'static, Option<CompleteBytes>> {
        let shared = self.0.upgrade();
        let next = async move {
            let shared = shared?;
            let (tell, told) = oneshot::channel();
            let (tasks, stop) = (Arc::clone(&shared.tasks), shared.tasks.stop.clone());
            // It goes on if the one who reads is gone.
            tasks.spawn(tasks.span.clone(), async move {
                let next = unreadable(&shared, id, blob, error);
                if let Some(next) = stop.run_until_cancelled(next).await {
                    // The one who reads may be gone.
                    let _ = tell.send(next);
                }
            });
            told.await.ok()?
        };
        next.boxed()
    }
}

/// Has a content that is complete here read from its next place, or no longer shared,
/// unless it is read from another blob by now.
async fn unreadable(
    shared: &Arc<PeerShared>,
    id: ContentId,
    mut blob: Arc<dyn Blob>,
    mut error: StorageError,
) -> Option<CompleteBytes> {
    // Each time with one place less, or when a driver has ended.
    loop {
        let Settled::Complete = shared.contents.settled(id).await else {
            return None;
        };
        let (asleep, others) = shared.contents.places(&id).await?;
        if !asleep.place().is_at(&blob) {
            for place in others.iter().filter(|place| place.is_at(&blob)) {
                shared.contents.remove_place(&id, place);
            }
            match bytes_of(shared, &asleep).await {
                Ok(bytes) => return Some(bytes),
                Err(other) if other.is_loss() => {
                    (blob, error) = (Arc::clone(&asleep.blob), other);
                }
                Err(_) => return None,
            }
        }
        let Some(taken) = shared.contents.take_asleep(&asleep) else {
            let blob = &asleep.blob;
            shared.contents.unreadable(&id, blob, error.clone()).await;
            continue;
        };
        let Evicting {
            asleep,
            claim,
            mut inbox,
            ..
        } = taken;
        match lost::elsewhere(shared, &asleep, &error).await {
            Some(next) => {
                claim.sleep_again(Arc::new(next));
                inbox.refuse_links(RefuseReason::Busy);
            }
            None => {
                lose(shared, asleep, claim, error.clone()).await;
                inbox.refuse_links(RefuseReason::UnknownContent);
            }
        }
    }
}
