//! Downloads of what belongs to a folder.

use std::sync::Arc;

use tokio::time::Instant;

use super::{DownloadTask, Fetch, Start, is_short};
use crate::error::DownloadError;
use crate::peer::contents::driver::TargetOptions;
use crate::peer::contents::folder_source::FolderSource;
use crate::peer::contents::inbox::DriverInput;
use crate::peer::contents::listing::Listing;
use crate::peer::contents::table::Settled;
use crate::peer::downloads::queue::CommonTurn;
use crate::peer::swarm::Swarm;
use crate::protocol::Addr;

/// Something of a folder, to be downloaded from the owners of the folder.
pub(in crate::peer) struct FolderPart {
    /// It goes to the storage of the folder, under its id.
    pub(in crate::peer) listing: Listing,
    /// Its owners, and whether they should have all of it.
    pub(in crate::peer) owners: Vec<(Addr, bool)>,
    pub(in crate::peer) source: Arc<FolderSource>,
    /// Where it goes, if that is not the storage of the folder.
    pub(in crate::peer) target: Option<TargetOptions>,
    /// With what it is one of the active downloads.
    pub(in crate::peer) turn: Option<CommonTurn>,
}

impl DownloadTask {
    /// Runs as [`run`](Self::run) does, for something of a folder. No tracker is
    /// asked.
    pub(in crate::peer) async fn run_part(mut self, part: FolderPart) {
        self.handle.role = part.listing.its_role();
        let started = tokio::select! {
            biased;
            () = self.shared.tasks.stop.cancelled() => Err(DownloadError::ShutDown),
            () = self.handle.holders.cancelled().cancelled() => Err(DownloadError::Cancelled),
            started = self.start_part(part) => started,
        };
        self.drive(started).await;
    }

    /// Claims something of a folder.
    pub(super) async fn start_part(&self, part: FolderPart) -> Result<Start, DownloadError> {
        let shared = &self.shared;
        let FolderPart {
            listing,
            owners,
            source,
            target,
            turn,
        } = part;
        if let Some(turn) = &turn {
            self.ticket.set_common(turn);
        }
        let (id, length) = (listing.content.id, listing.content.length);
        self.topic.asked(&id.into());
        let (claim, place) = loop {
            let place = self.while_running(|| self.place()).await?;
            match shared.contents.claim(id, &self.handle).await {
                Ok(claim) => break (claim, place),
                Err(Settled::Complete) => return Ok(Start::Complete(listing.content.into())),
                Err(Settled::Downloading(running)) => {
                    // Whoever is waited for may need it.
                    drop(place);
                    // It goes elsewhere, and is copied from there.
                    let more = owners.iter().map(|(addr, _)| addr.clone()).collect();
                    // Fails if the download has ended.
                    let _ = running.inbox.send(DriverInput::Owners(more)).await;
                    running.ended().await;
                }
                Err(Settled::Ended) => {}
            }
        };
        if owners.is_empty() {
            return Err(DownloadError::NoOwners { id });
        }
        let now = Instant::now().into_std();
        let swarm = Swarm::leecher(now, shared.swarm_config(), shared.identity.id, id);
        let swarm = swarm.in_zone(shared.zone());
        let storage = target.as_ref().map_or(&source.storage, |to| &to.storage);
        let is_here = !is_short(length) && storage.has_partial(&id).await;
        Ok(Start::Fetch(Box::new(Fetch {
            claim,
            swarm: match is_here {
                true => swarm,
                false => swarm.expecting(length),
            },
            listing,
            fallback: None,
            owners,
            place,
            source: Some(source),
            outside: None,
            target,
        })))
    }
}
