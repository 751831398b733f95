//! Downloads of contents that another network finds and links.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval_at, sleep_until};

use super::{DownloadTask, Fetch, Join, Start};
use crate::content::{ContentId, ContentName, Manifest};
use crate::error::DownloadError;
use crate::peer::contents::choice::Choice;
use crate::peer::contents::driver::TargetOptions;
use crate::peer::contents::inbox::DriverInput;
use crate::peer::contents::listing::Listing;
use crate::peer::contents::outside::Outside;
use crate::peer::contents::role::Role;
use crate::peer::contents::status::ContentStatus;
use crate::peer::contents::table::Settled;
use crate::peer::downloads::local::WantedNames;
use crate::peer::downloads::priority::Priority;
use crate::peer::downloads::queue::{ActivePlace, CommonTurn};
use crate::peer::downloads::running::Lead;
use crate::peer::handles::download::DownloadOptions;
use crate::peer::limits::ContentLimits;
use crate::peer::swarm::{StallReason, Swarm};
use crate::protocol::ContentKey;

/// A content that another network finds and links.
pub(in crate::peer) struct OutsidePart {
    pub(in crate::peer) listing: Listing,
    pub(in crate::peer) manifest: Arc<Manifest>,
    pub(in crate::peer) outside: Arc<dyn Outside>,
    pub(in crate::peer) target: TargetOptions,
    /// What fetches and shares the same bytes by other ids, beside it.
    pub(in crate::peer) beside: Vec<BoxFuture<'static, ()>>,
    /// With what that is one of the active downloads.
    pub(in crate::peer) turn: CommonTurn,
    /// How many clients of other makers are served at a time, if not as many as others.
    pub(in crate::peer) slots: Option<usize>,
}

/// Finds out what a content of another network is, of which only an id is known.
#[async_trait]
pub(in crate::peer) trait Seek: Send + Sync {
    /// Goes on until that is known.
    ///
    /// Cancel safe, and goes on where it was.
    async fn seek(&self) -> Result<(), DownloadError>;

    /// The id.
    fn id(&self) -> ContentId;

    /// How many parts have arrived of what has to be known.
    fn news(&self) -> watch::Receiver<u64>;

    /// Why nothing arrives.
    fn stall(&self) -> StallReason;

    /// What the content is, once that is known.
    fn found(&self) -> Result<OutsidePart, DownloadError>;

    /// The content is asked for by another id as well, and what was asked for here is asked of
    /// that download, which has this status.
    fn joined(&self, status: watch::Receiver<ContentStatus>);
}

/// How often it is looked whether something arrives of what has to be known. A download that
/// could not begin for so long lets others begin.
const LOOK: Duration = Duration::from_secs(10);

impl DownloadTask {
    /// What the driver of the download reads.
    pub(in crate::peer) fn inbox(&self) -> mpsc::Sender<DriverInput> {
        self.inbox.sender()
    }

    /// Sets whether the content is served when it is complete, and how fast it may be.
    pub(in crate::peer) fn set_outside(
        &self,
        id: ContentId,
        seed: bool,
        limits: Option<ContentLimits>,
    ) {
        self.control.set_seeds(seed);
        if let Some(limits) = limits {
            self.control
                .change(|settings| settings.limits = Some(limits));
            self.shared.limit_content(id, limits);
        }
    }

    /// What is wanted of the content.
    pub(in crate::peer) fn set_choice(&self, choice: &Arc<Choice>) {
        let choice = Arc::clone(choice);
        self.status.send_modify(|status| status.set_choice(choice));
    }

    /// The user asks for a content that another network finds and links. The peer lists it
    /// from now on, unless it is listed: then this download joins that one, which is returned.
    pub(in crate::peer) fn asked_outside(
        &mut self,
        id: ContentId,
        name: Option<&ContentName>,
        priority: Priority,
    ) -> bool {
        self.handle.role = Role::Torrent;
        let key = ContentKey::Id(id);
        self.topic.asked(&key);
        if let Some(name) = name {
            self.topic.named(name);
        }
        self.ticket.set_priority(priority);
        let Some(registered) = &self.registered else {
            return false;
        };
        // Nobody else sets them.
        let _ = registered.key.set(key);
        if let Some(name) = name {
            let _ = registered.name.set(name.clone());
        }
        match registered.lead(Lead::Content(id)) {
            Some((other, part)) => {
                self.joins(&other, part, &DownloadOptions::default());
                true
            }
            None => false,
        }
    }

    /// What is known of the download that this one has joined, if it has.
    pub(in crate::peer) fn joined_status(&self) -> Option<watch::Receiver<ContentStatus>> {
        let joined = self.joined.as_ref()?;
        Some(joined.handle.status.clone())
    }

    /// Runs as [`run`](Self::run) does, for such a content.
    pub(in crate::peer) async fn run_outside(self, part: OutsidePart) {
        let claimed = async {
            let place = self.while_running(|| self.place()).await?;
            self.start_outside(part, place).await
        };
        let started = self.unless_cancelled(claimed).await;
        self.drive(started).await;
    }

    /// The same for one of which only the id is known.
    pub(in crate::peer) async fn run_sought(self, seek: Box<dyn Seek>) {
        let started = self.unless_cancelled(self.start_sought(&*seek)).await;
        drop(seek);
        self.drive(started).await;
    }

    /// The same for one that has joined another.
    pub(in crate::peer) async fn run_joined_outside(mut self) {
        if let Some(other) = self.joined.take() {
            let (running, topic) = (other.handle.clone(), Arc::clone(&other.topic));
            let wanted = self.wanted_outside();
            self.follow(running, wanted, Some(topic)).await;
        }
    }

    /// Such a content is where it is, and nowhere else.
    fn wanted_outside(&self) -> WantedNames {
        let mut target = TargetOptions::to(Arc::clone(&self.shared.storage));
        target.is_private = true;
        WantedNames {
            target,
            is_elsewhere: false,
            stored: None,
            asked: None,
        }
    }

    async fn unless_cancelled(
        &self,
        started: impl Future<Output = Result<Start, DownloadError>>,
    ) -> Result<Start, DownloadError> {
        tokio::select! {
            biased;
            () = self.shared.tasks.stop.cancelled() => Err(DownloadError::ShutDown),
            () = self.handle.holders.cancelled().cancelled() => Err(DownloadError::Cancelled),
            started = started => started,
        }
    }

    /// Finds out what the content is, and claims it.
    async fn start_sought(&self, seek: &dyn Seek) -> Result<Start, DownloadError> {
        let sought = async || Box::pin(self.sought(seek)).await;
        let place = self.while_running(sought).await?;
        self.show_stall(None);
        let part = seek.found()?;
        let id = part.listing.content.id;
        let registered = self.registered.as_ref();
        if let Some(registered) = registered.filter(|asked| asked.id() != Some(id)) {
            // It is known by another id as well.
            let _ = registered.found.set(id);
            if let Some((other, hold)) = registered.lead(Lead::Content(id)) {
                seek.joined(other.handle.status.clone());
                return Ok(Start::Join(Join {
                    running: other.handle.clone(),
                    hold,
                    topic: Some(Arc::clone(&other.topic)),
                    wanted: self.wanted_outside(),
                }));
            }
        }
        self.start_outside(part, place).await
    }

    /// Waits until it is known what the content is, and for the place of the download. As
    /// long as nobody tells, it lets others begin.
    ///
    /// Cancel safe: what is known stays known.
    async fn sought(&self, seek: &dyn Seek) -> Result<ActivePlace, DownloadError> {
        let mut place = Some(self.place().await?);
        let mut aside = None;
        let (mut news, mut settings) = (seek.news(), self.control.settings());
        let begun = Instant::now();
        let mut last = begun;
        let mut look = interval_at(begun + LOOK, LOOK);
        let mut seeking = pin!(seek.seek());
        loop {
            let patience = settings.borrow_and_update().patience;
            let patience = patience.unwrap_or(self.shared.swarm_config().patience);
            let given_up = patience.and_then(|patience| last.checked_add(patience));
            tokio::select! {
                biased;
                found = &mut seeking => break found?,
                Ok(()) = news.changed() => {
                    last = Instant::now();
                    self.show_stall(None);
                }
                _ = look.tick() => {
                    if last.elapsed() >= LOOK {
                        self.show_stall(Some(seek.stall()));
                    }
                    if place.take().is_some() {
                        aside = Some(self.ticket.step_aside());
                    }
                }
                () = at(given_up) => {
                    return Err(DownloadError::GaveUp {
                        id: seek.id(),
                        missing: None,
                        reason: seek.stall(),
                    });
                }
                // There may be another patience.
                Ok(()) = settings.changed() => {}
            }
        }
        match (place, aside) {
            (Some(place), _) => Ok(place),
            (None, aside) => {
                if let Some(aside) = aside {
                    aside.return_to_line();
                }
                self.place().await
            }
        }
    }

    /// Claims a content that another network finds and links.
    async fn start_outside(
        &self,
        part: OutsidePart,
        place: ActivePlace,
    ) -> Result<Start, DownloadError> {
        let shared = &self.shared;
        let OutsidePart {
            listing,
            manifest,
            outside,
            target,
            beside,
            turn,
            slots,
        } = part;
        self.ticket.set_common(&turn);
        turn.offer(&place);
        let id = listing.content.id;
        for beside in beside {
            let span = tracing::info_span!(parent: &shared.tasks.span, "beside", torrent = %id);
            shared.tasks.spawn(span, beside);
        }
        let claim = loop {
            match shared.contents.claim(id, &self.handle).await {
                Ok(claim) => break claim,
                Err(Settled::Complete) => return Ok(Start::Complete(listing.content.into())),
                Err(Settled::Downloading(running)) => running.ended().await,
                Err(Settled::Ended) => {}
            }
        };
        let owners = outside.claimed();
        let now = Instant::now().into_std();
        let (mut config, settings) = (shared.swarm_config(), self.settings());
        config.planner.strategy = settings.strategy.unwrap_or(config.planner.strategy);
        config.stranger_slots = slots.unwrap_or(config.stranger_slots);
        config.patience = settings.patience.unwrap_or(config.patience);
        Ok(Start::Fetch(Box::new(Fetch {
            claim,
            swarm: Swarm::with_manifest(now, config, shared.identity.id, manifest),
            listing,
            fallback: None,
            owners,
            place,
            source: None,
            outside: Some(outside),
            target: Some(target),
        })))
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
