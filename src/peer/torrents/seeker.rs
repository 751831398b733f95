//! Finds out what a torrent is of which only the hash is known, and makes a download of it.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::adding::Adding;
use super::announcer::announce;
use super::beside::also;
use super::error::TorrentError;
use super::options::TorrentOptions;
use super::rendezvous::Driven;
use super::sought::{Sought, SoughtStep};
use super::sought_talk::dial;
use super::table::{Found, TorrentTable, hashes};
use crate::content::ContentId;
use crate::error::DownloadError;
use crate::peer::contents::status::ContentStatus;
use crate::peer::downloads::task::outside::{OutsidePart, Seek};
use crate::peer::swarm::StallReason;

/// What a download needs whose torrent is sought. When it is dropped before the torrent is
/// driven, nobody wants that any more.
pub(super) struct Seeker {
    pub(super) sought: Arc<Sought>,
    pub(super) table: Arc<TorrentTable>,
    pub(super) id: ContentId,
    pub(super) options: TorrentOptions,
    /// The driver, as far as it is known.
    pub(super) driven: Driven,
}

impl Seeker {
    fn failed(&self, source: TorrentError) -> DownloadError {
        DownloadError::Torrent {
            id: self.id,
            source,
        }
    }
}

#[async_trait]
impl Seek for Seeker {
    async fn seek(&self) -> Result<(), DownloadError> {
        announce(&self.sought.meeting);
        let _open = self.sought.open();
        loop {
            dial(&self.sought);
            match self.sought.step().await {
                Ok(SoughtStep::Next) => {}
                Ok(SoughtStep::Known) => return Ok(()),
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn id(&self) -> ContentId {
        self.id
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.sought.news()
    }

    fn stall(&self) -> StallReason {
        self.sought.stall()
    }

    fn found(&self) -> Result<OutsidePart, DownloadError> {
        let sought = &self.sought;
        let Some(metainfo) = sought.known() else {
            return Err(DownloadError::NoOwners { id: self.id });
        };
        let length = metainfo.total_length();
        let adding = Adding::new(Arc::clone(&sought.meeting), metainfo, &self.options);
        let adding = adding.map_err(|error| self.failed(error))?;
        let driven = Driven {
            length,
            ..self.driven.clone()
        };
        Ok(adding.part(&self.table, Some(Arc::clone(sought)), driven))
    }

    fn joined(&self, status: watch::Receiver<ContentStatus>) {
        let own = &self.sought.meeting;
        let Some(metainfo) = self.sought.known() else {
            return;
        };
        let mut found = hashes(&metainfo).filter_map(|hash| self.table.find(&hash));
        let Some(other) = found.find(|found| !Arc::ptr_eq(found.meeting(), own)) else {
            return;
        };
        let mut ids = own.also();
        ids.extend(self.options.also);
        let files = self.options.files.as_ref();
        if let Err(error) = other.asked_again(files, &ids, own.peers.named()) {
            tracing::warn!(id = %self.id, %error, "what was asked for is not what is fetched");
            return;
        }
        match other {
            // It has not got so far.
            Found::Sought(sought) => _ = sought.supply(&metainfo),
            Found::Known(torrent) => {
                let tasks = &own.session.shared.tasks;
                for id in ids {
                    let (common, options) = (Arc::clone(&torrent.common), self.options.clone());
                    let also = also(common, id, options, status.clone());
                    tasks.spawn(tasks.span.clone(), also);
                }
            }
        }
    }
}

impl Drop for Seeker {
    fn drop(&mut self) {
        if !self.sought.is_driven() {
            self.sought.meeting.stop();
        }
    }
}
