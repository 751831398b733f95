//! Downloads of contents that another network finds and links.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{DownloadTask, Fetch, Start};
use crate::content::{Content, ContentId, Manifest};
use crate::error::DownloadError;
use crate::peer::contents::driver::TargetOptions;
use crate::peer::contents::inbox::DriverInput;
use crate::peer::contents::listing::Listing;
use crate::peer::contents::outside::Outside;
use crate::peer::contents::role::Role;
use crate::peer::contents::table::Settled;
use crate::peer::downloads::priority::Priority;
use crate::peer::limits::ContentLimits;
use crate::peer::swarm::Swarm;
use crate::protocol::{Addr, ContentKey};

/// A content that another network finds and links.
pub(in crate::peer) struct OutsidePart {
    pub(in crate::peer) listing: Listing,
    pub(in crate::peer) manifest: Arc<Manifest>,
    pub(in crate::peer) outside: Arc<dyn Outside>,
    /// Those who may have it, as far as is known at the start.
    pub(in crate::peer) owners: Vec<(Addr, bool)>,
    pub(in crate::peer) target: TargetOptions,
    /// How many clients of other makers are served at a time, if not as many as others.
    pub(in crate::peer) slots: Option<usize>,
}

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

    /// The user asks for a content that another network finds and links. The peer lists it
    /// from now on.
    pub(in crate::peer) fn asked_outside(&mut self, content: &Content, priority: Priority) {
        self.handle.role = Role::Torrent;
        let key = ContentKey::Id(content.id);
        self.topic.asked(&key);
        self.topic.named(&content.name);
        self.ticket.set_priority(priority);
        if let Some(registered) = &self.registered {
            // Nobody else sets them.
            let _ = registered.key.set(key);
            let _ = registered.name.set(content.name.clone());
        }
    }

    /// Runs as [`run`](Self::run) does, for such a content.
    pub(in crate::peer) async fn run_outside(self, part: OutsidePart) {
        let started = tokio::select! {
            biased;
            () = self.shared.tasks.stop.cancelled() => Err(DownloadError::ShutDown),
            () = self.handle.holders.cancelled().cancelled() => Err(DownloadError::Cancelled),
            started = self.start_outside(part) => started,
        };
        self.drive(started).await;
    }

    /// Claims a content that another network finds and links.
    pub(super) async fn start_outside(&self, part: OutsidePart) -> Result<Start, DownloadError> {
        let shared = &self.shared;
        let OutsidePart {
            listing,
            manifest,
            outside,
            owners,
            target,
            slots,
        } = part;
        let id = listing.content.id;
        let place = self.while_running(|| self.place()).await?;
        let claim = loop {
            match shared.contents.claim(id, &self.handle).await {
                Ok(claim) => break claim,
                Err(Settled::Complete) => return Ok(Start::Complete(listing.content)),
                Err(Settled::Downloading(running)) => running.ended().await,
                Err(Settled::Ended) => {}
            }
        };
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
