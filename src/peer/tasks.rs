//! The tasks of one peer.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

/// Starts the tasks of one peer, and ends them.
pub(super) struct Tasks {
    tracker: TaskTracker,
    /// Ends every task in order.
    pub(super) stop: CancellationToken,
    /// Ends every task at once.
    kill: CancellationToken,
    /// The span of all that this peer logs.
    pub(super) span: Span,
}

/// Whether what is done for a caller has come to the step after which it is done, such as
/// to record it. From then on its outcome counts, also when the peer is shut down.
#[derive(Default)]
pub(super) struct Decision(AtomicBool);

impl Tasks {
    pub(super) fn new(span: Span) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            span,
        }
    }

    /// Does something for a caller until the peer is shut down. What fails then fails with
    /// the error `shut_down`, whatever it met with on its way out.
    pub(super) async fn until_stopped<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>>,
        shut_down: E,
    ) -> Result<T, E> {
        self.until_decided(&Decision::default(), work, shut_down)
            .await
    }

    /// The same, but once the work is `decided`, its outcome is waited for.
    pub(super) async fn until_decided<T, E>(
        &self,
        decided: &Decision,
        work: impl Future<Output = Result<T, E>>,
        shut_down: E,
    ) -> Result<T, E> {
        let mut work = std::pin::pin!(work);
        let outcome = match self.stop.run_until_cancelled(&mut work).await {
            Some(outcome) => outcome,
            None if decided.0.load(Ordering::Relaxed) => work.await,
            None => return Err(shut_down),
        };
        match outcome {
            Err(_) if self.stop.is_cancelled() => Err(shut_down),
            outcome => outcome,
        }
    }

    /// Does what decides: in a task, so that it goes on if the caller is gone, and when the
    /// peer is shut down, which waits for it. Nothing is done after that.
    pub(super) async fn decide<T: Send + 'static, E: Send + 'static>(
        &self,
        decided: &Decision,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
        shut_down: E,
    ) -> Result<T, E> {
        // A shutdown that is not seen here waits for this.
        let token = self.tracker.token();
        if self.stop.is_cancelled() {
            return Err(shut_down);
        }
        decided.0.store(true, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        self.spawn(self.span.clone(), async move {
            // The caller may be gone.
            let _ = tell.send(work.await);
        });
        drop(token);
        // It is ended at once if it takes longer than a shutdown may.
        told.await.unwrap_or(Err(shut_down))
    }

    /// Starts a task that ends with the peer at the latest, and logs in `span`.
    pub(super) fn spawn(&self, span: Span, task: impl Future<Output = ()> + Send + 'static) {
        let kill = self.kill.clone();
        // In a box: it is moved several times on its way, and some are large.
        let mut task = Box::pin(task);
        let task = async move {
            tokio::select! {
                biased;
                () = kill.cancelled() => {}
                () = task.as_mut() => {}
            }
        };
        self.tracker.spawn(task.instrument(span));
    }

    /// Ends every task in order. Those that are left after `patience` end at once.
    pub(super) async fn end(&self, patience: std::time::Duration) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(patience, self.tracker.wait())
            .await
            .is_err()
        {
            self.kill.cancel();
            self.tracker.wait().await;
        }
    }
}
