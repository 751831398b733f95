//! The end of a driver: what has arrived is kept, and all hear of it.

use std::pin::pin;
use std::sync::Arc;

use futures::future::OptionFuture;
use tokio::time::timeout;

use super::download_turn::DownloadTurn;
use super::jobs::JobResult;
use super::{Driver, Publication, now};
use crate::content::Content;
use crate::error::DownloadError;
use crate::peer::contents::asleep::Asleep;
use crate::peer::contents::lost;
use crate::peer::contents::readers::ReaderDesk;
use crate::peer::contents::status::StatusSender;
use crate::peer::downloads::discard::discard_partial;
use crate::peer::session::outlet::LinkEnd;
use crate::peer::swarm::Output;
use crate::protocol::RefuseReason;
use crate::storage::StorageError;

impl Driver {
    /// A complete content that ends because its bytes cannot be read where they were, as
    /// it would sleep, and the error that says so.
    pub(super) fn lost(&self, reason: &DownloadError) -> Option<(Asleep, StorageError)> {
        let error = storage_error(reason).filter(|error| error.is_loss())?;
        let open = self.open.as_ref().filter(|_| self.swarm.is_seeding())?;
        Some((self.asleep(open), error.clone()))
    }

    /// Closes everything, and tells how it ended.
    pub(super) async fn end(mut self, reason: DownloadError) {
        // What still arrives would wait in vain, and everything behind it.
        self.links.mute();
        self.await_part().await;
        // What is wanted from now on comes too late.
        let rests = self.is_resting();
        let published = self.finish_writing(&reason).await;
        self.count_received();
        let reason = self.discard(reason).await;
        self.record_end(published).await;
        let lost = self.lost(&reason);
        let Self {
            shared,
            claim,
            swarm,
            listing,
            open,
            inbox,
            links,
            jobs,
            status,
            readers,
            watchers,
            ..
        } = self;
        // First the jobs: nothing may be written once somebody else can start
        // the same download.
        drop(jobs);
        drop(open);
        let elsewhere = async {
            let (asleep, error) = lost?;
            lost::elsewhere(&shared, &asleep, &error).await
        };
        if let Some(Some(asleep)) = shared.tasks.stop.run_until_cancelled(elsewhere).await {
            claim.sleep_again(Arc::new(asleep));
            links.end_all(LinkEnd::Refused(RefuseReason::Busy));
            return;
        }
        let stopping = shared.tasks.stop.is_cancelled();
        let seeding = swarm.is_seeding();
        let reason = match stopping {
            true => DownloadError::ShutDown,
            false => reason,
        };
        tracing::debug!(%reason, "content ended");
        let mut rest = None;
        if let Some(error) = storage_error(&reason).filter(|_| seeding) {
            let (content, role) = (&listing.content, listing.its_role());
            rest = lost::report(&shared, content, role, error.clone()).await;
        }
        // Noted before anybody can share the content again. A tracker that
        // does not hear of it learns from the owner's refusals.
        let gone = listing.withdraw().filter(|_| !stopping);
        let mut gone = pin!(OptionFuture::from(
            gone.map(|gone| shared.trackers.own(gone))
        ));
        let told = futures::poll!(gone.as_mut());
        drop(claim);
        if let Some(rest) = rest {
            shared.contents.add_stored(rest);
        }
        // What was wanted is here, and those who wanted it know.
        let has_it = seeding || rests;
        links.end_all(LinkEnd::Refused(farewell(&reason, stopping, has_it)));
        watchers.ended(&listing, &reason, (has_it, published));
        let outcome = match has_it || published {
            true => Ok(listing.content),
            false => Err(reason),
        };
        tell(&readers, &status, outcome);
        drop(inbox);
        if told.is_pending() {
            shared.tasks.stop.run_until_cancelled(gone).await;
        }
    }

    /// Brings to an end what is being stored. Returns whether the content was
    /// published by that.
    pub(super) async fn finish_writing(&mut self, reason: &DownloadError) -> bool {
        match self.publication {
            Publication::UnderWay => return self.await_publication().await,
            Publication::Published => return true,
            Publication::Hidden | Publication::Found => {}
        }
        if storage_error(reason).is_none() && !self.discards(reason) {
            self.save().await;
        }
        false
    }

    /// Whether what has arrived is to be deleted.
    pub(super) fn discards(&self, reason: &DownloadError) -> bool {
        let cancelled = matches!(reason, DownloadError::Cancelled);
        cancelled && self.turn.as_ref().is_some_and(DownloadTurn::discards)
    }

    /// Deletes what has arrived, if nobody wants it. Returns why the download ends.
    pub(super) async fn discard(&mut self, reason: DownloadError) -> DownloadError {
        if !self.discards(&reason) {
            return reason;
        }
        // First the jobs, as they write.
        self.jobs.stop();
        self.open = None;
        let storage = self.jobs.storage();
        let failed = discard_partial(&*storage, self.swarm.id()).await.err();
        failed.unwrap_or(reason)
    }

    /// Waits until the content is published, so that the outcome is certain.
    /// Returns whether it is.
    pub(super) async fn await_publication(&mut self) -> bool {
        let published = async {
            while let Some(result) = self.jobs.next().await {
                if let JobResult::Published(result) = result {
                    return result.is_ok();
                }
            }
            false
        };
        let patience = self.shared.config.shutdown_timeout;
        let published = timeout(patience, published).await.unwrap_or(false);
        if published {
            self.complete_readers();
        }
        published
    }

    /// Waits until no part of the content is being published: nothing of it may get its name
    /// when it is deleted, or after somebody else has begun with it.
    async fn await_part(&mut self) {
        let patience = self.shared.config.shutdown_timeout;
        let published = async {
            while self.publishes_part() {
                match self.jobs.next().await {
                    Some(result) => self.job_ended(result),
                    None => return,
                }
            }
        };
        if timeout(patience, published).await.is_err() {
            tracing::warn!("a part of the content was not published in time");
        }
    }

    /// Makes durable what has arrived, so that nothing is fetched twice. Takes
    /// at most half of the time that a peer has to stop, so that the farewells
    /// have the rest.
    pub(super) async fn save(&mut self) {
        let patience = self.shared.config.shutdown_timeout / 2;
        self.swarm.stop(now());
        let saved = async {
            self.save_all().await;
            let verified = self.save_verified();
            verified.await;
        };
        if timeout(patience, saved).await.is_err() {
            tracing::warn!("not everything that arrived could be made durable in time");
        }
    }

    /// Has the storage know of what was verified and not written: it was here already. For
    /// other contents than torrents, a storage knows what is here without that.
    fn save_verified(&self) -> impl Future<Output = ()> + Send + use<> {
        let open = self.open.clone().filter(|_| self.jobs.is_outside());
        let verified = self.swarm.verified_chunks();
        async move {
            if let (Some(open), Some(verified)) = (open, verified) {
                // What fails is verified again.
                let _ = open.commit(&verified).await;
            }
        }
    }

    pub(super) async fn save_all(&mut self) {
        loop {
            while let Some(output) = self.swarm.poll_output() {
                if let Output::Verify { .. } | Output::Store { .. } | Output::Commit { .. } = output
                {
                    self.perform(output);
                }
            }
            if self.swarm.is_saved() || self.failure.is_some() {
                return;
            }
            match self.jobs.next().await {
                Some(
                    result @ (JobResult::Checked(_)
                    | JobResult::Stored { .. }
                    | JobResult::Committed(_)),
                ) => self.job_ended(result),
                Some(_) => {}
                None => return,
            }
        }
    }
}

/// Tells those who read and those who watch how it ended.
fn tell(readers: &ReaderDesk, status: &StatusSender, outcome: Result<Content, DownloadError>) {
    if let Err(error) = &outcome {
        readers.end(error.clone());
    }
    status.send_modify(|status| status.end(outcome));
}

/// What the other peers are told at the end.
fn farewell(reason: &DownloadError, stopping: bool, seeding: bool) -> RefuseReason {
    match reason {
        _ if stopping => RefuseReason::ShuttingDown,
        // The user no longer shares it.
        DownloadError::ShutDown => RefuseReason::UnknownContent,
        _ if seeding => RefuseReason::UnknownContent,
        _ => RefuseReason::NotNeeded,
    }
}

/// The error of the storage that ended a content, if it was one.
fn storage_error(reason: &DownloadError) -> Option<&StorageError> {
    match reason {
        DownloadError::Storage { source, .. } => Some(source),
        _ => None,
    }
}
