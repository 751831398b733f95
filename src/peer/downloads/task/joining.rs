//! Downloads that join another one of the same content.

use std::path::Path;
use std::sync::Arc;

use super::{DownloadTask, Join};
use crate::content::{Content, ContentId};
use crate::error::DownloadError;
use crate::peer::contents::table::{DriverHandle, Settled};
use crate::peer::downloads::holders::Hold;
use crate::peer::downloads::local::{
    WantedNames, complete_here, copy_stored, find_stored, storage_error,
};
use crate::peer::downloads::running::{Lead, Running};
use crate::peer::events::topic::Topic;
use crate::peer::handles::download::DownloadOptions;
use crate::peer::handles::key::DownloadKey;
use crate::protocol::ContentKey;
use crate::storage::StorageError;

impl DownloadTask {
    /// The download that this one joins from the start. Others join this one if there is
    /// none.
    pub(super) fn other(
        &self,
        key: &ContentKey,
        options: &DownloadOptions,
    ) -> Option<(Arc<Running>, Hold)> {
        let registered = self.registered.as_ref()?;
        let lead = match key {
            // What is complete here is not waited for.
            ContentKey::Id(id) if self.shared.contents.names(id).is_some() => return None,
            ContentKey::Id(id) => Lead::Content(*id),
            ContentKey::Name(name) => Lead::Asked {
                name: name.clone(),
                stored_as: options.name.as_ref().unwrap_or(name).clone(),
                directory: options.directory.clone(),
            },
        };
        match options.is_private() {
            true => self.shared.running.leader(&lead),
            false => registered.lead(lead),
        }
    }

    /// Joins another download, which does from now on what is wanted of this one.
    pub(super) fn joins(&mut self, other: &Arc<Running>, part: Hold, options: &DownloadOptions) {
        self.ticket.leave();
        self.control.join(&other.control);
        self.handle.holders.joins(part);
        if let Some(id) = other.id() {
            self.topic.known(id);
        }
        let mut seen = other.handle.status.borrow().clone();
        if seen.outcome().is_none() {
            seen.rename(options.name.as_ref());
            self.status.set_quietly(seen);
        }
        // The other one is listed.
        self.registered = None;
        self.joined = Some(Arc::clone(other));
    }

    /// Runs as one that has joined another download from the start.
    pub(super) async fn run_joined(
        self,
        other: &Running,
        key: DownloadKey,
        options: DownloadOptions,
    ) {
        let running = other.handle.clone();
        let wanted = tokio::select! {
            biased;
            () = self.shared.tasks.stop.cancelled() => Err(DownloadError::ShutDown),
            () = self.handle.holders.cancelled().cancelled() => Err(DownloadError::Cancelled),
            wanted = async { self.wanted(&key.check()?, &options).await } => wanted,
        };
        match wanted {
            Ok(wanted) => {
                let topic = Arc::clone(&other.topic);
                self.follow(running, wanted, Some(topic)).await;
            }
            Err(DownloadError::Cancelled) => self.left(running).await,
            Err(error) => {
                self.handle.holders.parts();
                self.fail(error);
            }
        }
    }

    /// Joins a download that this one has met.
    pub(super) async fn join(mut self, join: Join) {
        let Join {
            running,
            hold,
            topic,
            wanted,
        } = join;
        if let Some(other) = &running.control {
            self.control.join(other);
        }
        self.handle.holders.joins(hold);
        if topic.is_none()
            && let Some(id) = self.registered.as_ref().and_then(|joined| joined.id())
        {
            self.topic.found(id);
        }
        // The other one is listed.
        self.registered = None;
        self.follow(running, wanted, topic).await;
    }

    /// Shows what happens to the download that this one has joined, until it ends or nobody
    /// wants this one any more. Then the content gets the name that is wanted here.
    pub(super) async fn follow(
        mut self,
        mut running: DriverHandle,
        wanted: WantedNames,
        topic: Option<Arc<Topic>>,
    ) {
        // Whoever reads has a place at the other download.
        self.readers.moved(Arc::clone(&running.readers));
        let outcome = self.watch(&mut running, &wanted, topic.as_deref()).await;
        let control = running.control.clone();
        let directory = control.as_ref().and_then(|control| control.directory());
        if self.handle.holders.cancelled().is_cancelled() {
            return self.left(running).await;
        }
        let named = async { self.joined_ended(outcome?, directory, &wanted).await };
        let outcome = tokio::select! {
            biased;
            () = self.shared.tasks.stop.cancelled() => Err(DownloadError::ShutDown),
            () = self.handle.holders.cancelled().cancelled() => Err(DownloadError::Cancelled),
            named = named => named,
        };
        self.handle.holders.parts();
        let mut last = running.status.borrow().clone();
        last.rename(wanted.stored.as_ref());
        if let (Some(Ok(_)), Err(error)) = (last.outcome(), &outcome) {
            // The other one succeeded, and this one could not get its name.
            self.topic.failed(&self.shared.events, error);
        }
        let last = last.ended(outcome);
        self.status.send_modify(|status| *status = last);
    }

    /// Nobody wants this download any more. The one that it had joined goes on for others,
    /// or ends as well, and has deleted what has arrived if that is wanted.
    pub(super) async fn left(&self, running: DriverHandle) {
        let holders = &self.handle.holders;
        let mut outcome = Err(DownloadError::Cancelled);
        if holders.discards() && !holders.leaves_others() {
            let status = running.status.clone();
            running.ended().await;
            if let Some(ended) = status.borrow().outcome() {
                outcome = ended.clone();
            }
        }
        self.status.send_modify(|status| status.end(outcome));
    }

    /// The download that this one had joined has got the content, in this directory. Then the
    /// content gets the place and the name that are wanted here, and is shared if only this
    /// download wants that.
    pub(super) async fn joined_ended(
        &self,
        content: Content,
        directory: Option<&Path>,
        wanted: &WantedNames,
    ) -> Result<Content, DownloadError> {
        let (shared, id) = (&self.shared, content.id);
        let has_name = wanted
            .stored
            .as_ref()
            .is_none_or(|name| *name == content.name);
        let has_place = has_name && directory == self.control.directory();
        // What is for one caller is read where it is.
        let is_there = wanted.target.is_private || has_place;
        let name = wanted.stored.as_ref().unwrap_or(&content.name);
        if !matches!(shared.contents.settled(id).await, Settled::Ended) {
            if is_there {
                return Ok(content);
            }
            let named = complete_here(shared, id, wanted).await?;
            let gone = StorageError::NotFound { name: name.clone() };
            return named.ok_or_else(|| storage_error(id, gone));
        }
        let content = match is_there {
            false => {
                let failed = |source| storage_error(id, source);
                let from = self.storage_in(directory).await.map_err(failed)?;
                let copied = copy_stored(shared, &*from, &content, name, wanted);
                copied.await?.content
            }
            true => content,
        };
        // What another network finds and links is shared by that alone.
        if self.control.seeds()
            && self.handle.role.has_sessions()
            && let Ok(claim) = shared.contents.claim(id, &self.handle).await
        {
            let listed_as = wanted.asked.clone().unwrap_or_else(|| id.into());
            let names = [content.name.clone()];
            // If it is gone already, there is nothing to share.
            let (storage, listed) = (&*wanted.target.storage, (&listed_as, None));
            let _ = find_stored(shared, storage, claim, id, &names, listed, true).await?;
        }
        Ok(content)
    }

    /// Shows what happens to another download until it ends, and passes commands on.
    pub(super) async fn watch(
        &mut self,
        running: &mut DriverHandle,
        wanted: &WantedNames,
        topic: Option<&Topic>,
    ) -> Result<Content, DownloadError> {
        let (ours, name) = (self.topic.watchers(), &wanted.stored);
        let watchers = running.watchers.as_ref();
        let _following =
            watchers.map(|watchers| watchers.followed_by(ours, name.clone(), &running.status));
        loop {
            let mut seen = running.status.borrow_and_update().clone();
            if let Some(outcome) = seen.outcome() {
                return outcome.clone();
            }
            if let Some(found) = topic.and_then(Topic::found_id) {
                self.topic.found(found);
            }
            seen.rename(name.as_ref());
            // Those who watch hear of each change already.
            self.status.set_quietly(seen);
            tokio::select! {
                biased;
                () = self.handle.holders.cancelled().cancelled() => {
                    return Err(DownloadError::Cancelled);
                }
                changed = running.status.changed() => if changed.is_err() {
                    let last = running.status.borrow().outcome().cloned();
                    return last.unwrap_or(Err(DownloadError::ShutDown));
                },
                Some(command) = self.inbox.recv() => {
                    // Fails if the download has ended.
                    let _ = running.inbox.send(command).await;
                }
            }
        }
    }

    /// Another download of the content that was found, which others join, also if it waits
    /// or is paused. Otherwise this one is joined from now on, if it `leads`.
    pub(super) fn leader(
        &self,
        id: ContentId,
        wanted: &WantedNames,
        leads: bool,
    ) -> Result<Option<Join>, DownloadError> {
        let lead = Lead::Content(id);
        let leader = match &self.registered {
            // What is complete here is not waited for.
            _ if self.shared.contents.names(&id).is_some() => None,
            Some(registered) if leads && !wanted.target.is_private => registered.lead(lead),
            Some(registered) => self.shared.running.leader(&lead).filter(|(other, _)| {
                // It may lead itself.
                !std::ptr::eq(&**other, &**registered)
            }),
            None => None,
        };
        let Some((other, hold)) = leader else {
            return Ok(None);
        };
        if let Some(name) = &wanted.stored {
            let valid = wanted.target.storage.check_name(name);
            valid.map_err(|source| storage_error(id, source))?;
        }
        self.topic.known(id);
        Ok(Some(Join {
            running: other.handle.clone(),
            hold,
            topic: Some(Arc::clone(&other.topic)),
            wanted: wanted.clone(),
        }))
    }
}
