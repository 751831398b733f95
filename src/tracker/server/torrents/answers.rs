//! Answers announces and scrapes, whatever they came over.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use tokio::join;
use tracing::debug;

use super::super::recording::count_refusal;
use super::super::service::{Service, now};
use crate::access::{AccessAction, AccessContent, AccessGate, Verdict, Who};
use crate::bittorrent::InfoHashV1;
use crate::bittorrent::tracker::{AnnounceEvent, ScrapeFigures};
use crate::content::ContentId;
use crate::metrics::Timer;
use crate::protocol::{Addr, HostKey, Refusal};
use crate::tracker::registry::{Membership, TorrentAnnounce, TorrentAnswer};

/// Who asks, and where.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) remote: Addr,
    /// Where the request has reached the tracker, if that is known.
    pub(super) local: Option<Addr>,
}

impl Source {
    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.remote.socket_addr().map(|addr| addr.ip())
    }
}

impl Service {
    /// Whether the host has not asked too often.
    pub(super) fn is_in_pace(&self, source: &Source) -> bool {
        let allowed = self
            .torrents
            .pace
            .allows(now(), &HostKey::of(&source.remote));
        if !allowed {
            self.count_unanswered(&Refusal::Busy);
        }
        allowed
    }

    /// Answers an announce, if that is permitted.
    ///
    /// Cancel safe.
    pub(super) async fn announce(
        &self,
        source: &Source,
        announce: &TorrentAnnounce,
    ) -> Result<TorrentAnswer, Refusal> {
        let stops = announce.event == Some(AnnounceEvent::Stopped);
        let Some(gate) = self.access.as_deref().filter(|_| !stops) else {
            return self.announce_unasked(source, announce).await;
        };
        let who = who(source);
        let id = ContentId::of_torrent_v1(announce.info_hash.as_bytes());
        let mut generation = gate.generation();
        let mut permitted = permits(gate, &who, id).await;
        if gate.generation() != generation {
            // Once more is enough: what changes all the time is swept up.
            generation = gate.generation();
            permitted = permits(gate, &who, id).await;
        }
        let outcome = match permitted {
            Ok(()) => self.announce_unasked(source, announce).await,
            Err(refusal) => {
                if refusal == Refusal::Denied {
                    self.end(source, announce).await;
                }
                self.count_unanswered(&refusal);
                Err(refusal)
            }
        };
        if gate.generation() != generation {
            // It may be what was swept already.
            self.sweep.notify_one();
        }
        outcome
    }

    /// Answers an announce about which nobody is asked.
    pub(super) async fn announce_unasked(
        &self,
        source: &Source,
        announce: &TorrentAnnounce,
    ) -> Result<TorrentAnswer, Refusal> {
        let (timer, now) = (Timer::start(), now());
        let from = (&source.remote, source.local.as_ref());
        let outcome = self.registry.announce(now, from, announce).await;
        self.record(timer, "announce");
        let (answer, membership) = outcome.inspect_err(|refusal| {
            debug!(%refusal, "announce refused");
            count_refusal(refusal);
        })?;
        if self.access.is_some() {
            match membership {
                Membership::None => {}
                Membership::Left(token) => self.registrations.ended(&token),
                Membership::Listed(token) => {
                    let lease = self.torrents.lease;
                    let who = (&who(source), None);
                    self.registrations.registered_for(now, token, who, lease);
                }
            }
        }
        // Its lease may be the first one.
        self.registered.notify_one();
        Ok(answer)
    }

    /// Ends what somebody has announced.
    async fn end(&self, source: &Source, announce: &TorrentAnnounce) {
        let mut stop = announce.clone();
        stop.event = Some(AnnounceEvent::Stopped);
        // If it is gone already, that is fine.
        let _ = self.announce_unasked(source, &stop).await;
    }

    /// Answers a scrape: the figures of those torrents that have owners, and of which
    /// somebody may be told.
    ///
    /// Cancel safe.
    pub(super) async fn scrape(
        &self,
        source: &Source,
        torrents: &[InfoHashV1],
    ) -> Vec<Option<ScrapeFigures>> {
        let Some(gate) = self.access.as_deref() else {
            return self.scrape_unasked(source, torrents).await;
        };
        let who = who(source);
        let allowed = torrents.iter().map(|hash| {
            let content = AccessContent::new(ContentId::of_torrent_v1(hash.as_bytes()), None);
            gate.check(&who, AccessAction::List, Some(content))
        });
        let allowed = join_all(allowed).await;
        let figures = self.scrape_unasked(source, torrents).await;
        let figures = figures.into_iter().zip(allowed);
        figures
            .map(|(figures, verdict)| figures.filter(|_| verdict.is_allowed()))
            .collect()
    }

    /// Answers a scrape about which nobody is asked.
    pub(super) async fn scrape_unasked(
        &self,
        source: &Source,
        torrents: &[InfoHashV1],
    ) -> Vec<Option<ScrapeFigures>> {
        let timer = Timer::start();
        let figures = self.registry.scrape(now(), &source.remote, torrents).await;
        self.record(timer, "scrape");
        figures
    }

    /// Whether an announce about which nobody is asked is answered at the first poll.
    pub(super) fn answers_at_once(&self) -> bool {
        self.access.is_none() && self.registry.memory().is_some()
    }

    /// How long the tracker has run.
    pub(super) fn uptime(&self) -> Duration {
        now().saturating_duration_since(self.started)
    }
}

fn who(source: &Source) -> Who {
    Who {
        identity: None,
        remote: source.remote.clone(),
    }
}

/// Whether somebody may announce a torrent. An announce is all of it at once: to register,
/// to be listed, and to be told of others.
async fn permits(gate: &AccessGate, who: &Who, id: ContentId) -> Result<(), Refusal> {
    let content = || Some(AccessContent::new(id, None));
    let (register, own, list) = join!(
        gate.check(who, AccessAction::Register, None),
        gate.check(who, AccessAction::Own, content()),
        gate.check(who, AccessAction::List, content()),
    );
    let verdicts = [register, own, list];
    if verdicts.contains(&Verdict::Denied) {
        return Err(Refusal::Denied);
    }
    match verdicts.contains(&Verdict::Unknown) {
        true => Err(Refusal::Busy),
        false => Ok(()),
    }
}
