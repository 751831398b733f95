//! The contents that were shared until they could no longer be read, for the user.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::watch;
use tokio_util::sync::ReusableBoxFuture;

use crate::content::{Content, ContentId};
use crate::storage::{Lost, StorageError};

/// How many lost contents are kept.
const MAX_LOST: usize = 256;

/// The lost contents of a peer.
#[derive(Debug)]
pub(in crate::peer) struct Losses(watch::Sender<LossLog>);

/// The lost contents that are kept, each with its number. Numbers grow.
#[derive(Debug, Default)]
struct LossLog {
    kept: VecDeque<(u64, Lost)>,
    next: u64,
}

impl Default for Losses {
    fn default() -> Self {
        Self(watch::Sender::new(LossLog::default()))
    }
}

impl Losses {
    /// A content can no longer be read, for this reason.
    pub(in crate::peer) fn add(&self, content: &Content, error: StorageError) {
        self.insert(Lost::new(content.id, content.name.clone(), error));
    }

    /// The same for one that the storage reports.
    pub(in crate::peer) fn insert(&self, lost: Lost) {
        self.0.send_modify(|log| {
            log.kept.retain(|(_, other)| other.id != lost.id);
            if log.kept.len() >= MAX_LOST {
                log.kept.pop_front();
            }
            log.kept.push_back((log.next, lost));
            log.next += 1;
        });
    }

    /// A content is shared again.
    pub(in crate::peer) fn found(&self, id: &ContentId) {
        self.0.send_if_modified(|log| {
            log.kept.retain(|(_, lost)| lost.id != *id);
            // Nobody waits for that.
            false
        });
    }

    pub(in crate::peer) fn all(&self) -> Vec<Lost> {
        let log = self.0.borrow();
        log.kept.iter().map(|(_, lost)| lost.clone()).collect()
    }

    pub(in crate::peer) fn stream(&self) -> LostContents {
        let log = self.0.subscribe();
        LostContents {
            changed: ReusableBoxFuture::new(changed(log.clone())),
            log,
            next: 0,
        }
    }
}

/// Waits until the log has changed. Returns whether it may change again.
async fn changed(mut log: watch::Receiver<LossLog>) -> bool {
    log.changed().await.is_ok()
}

/// The stream of [`Peer::lost_contents`](crate::Peer::lost_contents).
pub struct LostContents {
    log: watch::Receiver<LossLog>,
    changed: ReusableBoxFuture<'static, bool>,
    /// The lowest number that was not returned yet.
    next: u64,
}

impl Stream for LostContents {
    type Item = Lost;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Lost>> {
        loop {
            let next = self.next;
            let found = {
                let log = self.log.borrow_and_update();
                let new = log.kept.iter().find(|(number, _)| *number >= next);
                new.cloned()
            };
            if let Some((number, lost)) = found {
                self.next = number + 1;
                return Poll::Ready(Some(lost));
            }
            match self.changed.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(false) => return Poll::Ready(None),
                Poll::Ready(true) => {
                    let log = self.log.clone();
                    self.changed.set(changed(log));
                }
            }
        }
    }
}

impl fmt::Debug for LostContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LostContents").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn lost(n: usize) -> Lost {
        let name = format!("content-{n}");
        let id = ContentId::of(name.as_bytes());
        Lost::new(id, name.parse().unwrap(), StorageError::ReadOnly)
    }

    #[test]
    fn losses_are_kept_up_to_a_bound_until_they_are_found_again() {
        let losses = Losses::default();
        let mut stream = losses.stream();
        assert!(stream.next().now_or_never().is_none());
        for n in 0..MAX_LOST + 2 {
            losses.insert(lost(n));
        }
        // The last state of a content counts.
        losses.insert(lost(3));
        losses.found(&lost(4).id);
        let expected: Vec<_> = (2..MAX_LOST + 2).filter(|n| ![3, 4].contains(n)).collect();
        let expected: Vec<_> = expected.into_iter().chain([3]).map(lost).collect();
        assert_eq!(losses.all(), expected);
        let mut seen = Vec::new();
        while let Some(Some(lost)) = stream.next().now_or_never() {
            seen.push(lost);
        }
        assert_eq!(seen, expected);
        losses.insert(lost(4));
        assert_eq!(stream.next().now_or_never(), Some(Some(lost(4))));
        assert!(stream.next().now_or_never().is_none());
        drop(losses);
        assert_eq!(stream.next().now_or_never(), Some(None));
    }
}
