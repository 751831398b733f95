//! The tasks of one peer.

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
        match self.stop.run_until_cancelled(work).await {
            Some(Err(_)) if self.stop.is_cancelled() => Err(shut_down),
            Some(outcome) => outcome,
            None => Err(shut_down),
        }
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
