//! Which contents are being written, in one file storage and its clones.
//!
//! When a blob is dropped while one of its operations still runs on a blocking
//! thread, the file stays locked until that operation ends. Opening the content
//! again in this storage must wait for that moment, and not fail because of the
//! lock. So there are two guards: the [`WriteClaim`], which is released with
//! the blob, and the [`FilePermit`], which is released with the last operation.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::content::ContentId;

/// The contents that are being written. An entry lives as long as its claim or
/// its permit is held.
#[derive(Debug, Default)]
pub(super) struct Writers(Mutex<HashMap<ContentId, Weak<Writer>>>);

#[derive(Debug)]
struct Writer {
    claimed: AtomicBool,
    /// Has one permit: that of the file.
    file: Arc<Semaphore>,
}

/// The right to write one content. Released when it is dropped.
#[derive(Debug)]
pub(super) struct WriteClaim(Arc<Writer>);

/// The right to use the file of a content. At most one exists at a time.
#[derive(Debug)]
pub(super) struct FilePermit {
    _permit: OwnedSemaphorePermit,
    _writer: Arc<Writer>,
}

impl Writers {
    /// Claims a content; nothing if it is claimed already.
    pub(super) fn claim(&self, id: ContentId) -> Option<WriteClaim> {
        let mut writers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writers.retain(|_, writer| writer.strong_count() > 0);
        let writer = writers.get(&id).and_then(Weak::upgrade);
        let writer = writer.unwrap_or_else(|| {
            let writer = Arc::new(Writer {
                claimed: AtomicBool::new(false),
                file: Arc::new(Semaphore::new(1)),
            });
            writers.insert(id, Arc::downgrade(&writer));
            writer
        });
        (!writer.claimed.swap(true, Ordering::AcqRel)).then(|| WriteClaim(writer))
    }
}

impl WriteClaim {
    /// Waits until the operations of an earlier claim have ended.
    pub(super) async fn file_permit(&self) -> FilePermit {
        let permit = self.0.file.clone().acquire_owned().await;
        FilePermit {
            _permit: permit.expect("the semaphore is never closed"),
            _writer: self.0.clone(),
        }
    }
}

impl Drop for WriteClaim {
    fn drop(&mut self) {
        self.0.claimed.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn claim_is_released_at_once_and_its_permit_after_the_last_operation() {
        let writers = Writers::default();
        let id = ContentId::of(b"a");
        let first = writers.claim(id).unwrap();
        assert!(writers.claim(id).is_none());
        assert!(writers.claim(ContentId::of(b"b")).is_some());
        let running = first.file_permit().now_or_never().unwrap();

        drop(first);
        let second = writers.claim(id).unwrap();
        assert!(second.file_permit().now_or_never().is_none());
        drop(running);
        let permit = second.file_permit().now_or_never().unwrap();

        drop((second, permit));
        let third = writers.claim(ContentId::of(b"c")).unwrap();
        assert_eq!(writers.0.lock().unwrap().len(), 1);
        drop(third);
    }
}
