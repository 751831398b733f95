//! Announces and scrapes of BitTorrent clients, led through the shards of the registry as
//! all other requests are.
//!
//! A torrent is a content, whose id follows from the 20 bytes by which trackers know it
//! ([`ContentId::of_torrent_v1`]). Who announces is a peer that owns this one content: it
//! has a lease, counts for its host, and is listed among those who own the same id by the
//! protocol of this crate.

use std::time::Instant;

use super::registry::{
    AddressRule, Announcer, Begun, ListenAddr, Membership, Sessions, TorrentAnnounce,
    TorrentAnswer, Vantage,
};
use super::request_handler::RequestHandler;
use crate::bittorrent::InfoHashV1;
use crate::bittorrent::tracker::http::HttpPeer;
use crate::bittorrent::tracker::{AnnounceEvent, ScrapeFigures};
use crate::content::ContentId;
use crate::protocol::{Addr, Refusal, Token};

/// An interval is drawn from this part below the configured one up to as much above it, so
/// that those who came together do not come together again.
const SPREAD: u32 = 10;

/// The content that an announce is about.
struct Torrent {
    id: ContentId,
    /// The hash of the id, and the shard of the content.
    hash: u64,
    home: u32,
}

impl RequestHandler {
    fn torrent(&self, info_hash: &InfoHashV1) -> Torrent {
        let id = ContentId::of_torrent_v1(info_hash.as_bytes());
        let (hash, home) = self.settings.locate(&id);
        Torrent { id, hash, home }
    }

    /// Answers an announce that came from `source` and reached the tracker at `local`.
    /// Returns what has become of the peer as well.
    pub(super) fn announce(
        &self,
        now: Instant,
        (source, local): (&Addr, Option<&Addr>),
        announce: &TorrentAnnounce,
    ) -> Result<(TorrentAnswer, Membership), Refusal> {
        let host = self.settings.host(source);
        let home = self.settings.shard_of_host(host);
        let torrent = self.torrent(&announce.info_hash);
        let mut sessions = self.sessions.lock(home);
        sessions.count_announce(now);
        let listed = self.listed_as(source, announce);
        let listed = listed.and_then(|listed| {
            let Some(listed) = listed else {
                return Ok((None, Membership::None));
            };
            let member = match announce.event {
                Some(AnnounceEvent::Stopped) => {
                    self.stop(&mut sessions, &torrent, (&listed, &announce.peer_id))
                }
                _ => {
                    let (sessions, said) = (&mut sessions, (&listed, announce));
                    Membership::Listed(self.keep(sessions, now, host, &torrent, said)?)
                }
            };
            Ok((Some(listed), member))
        });
        let (listed, member) = listed.inspect_err(|refusal| sessions.count_refusal(refusal))?;
        drop(sessions);
        let vantage = Vantage::of(source, local);
        let answer = self.answer_announce(&torrent, (listed.as_ref(), vantage), announce);
        Ok((answer, member))
    }

    /// Where the peer is listed. An IP that it names counts where everybody is trusted.
    fn listed_as(
        &self,
        source: &Addr,
        announce: &TorrentAnnounce,
    ) -> Result<Option<ListenAddr>, Refusal> {
        let named = match self.settings.config.addresses {
            AddressRule::Any => announce.ip,
            AddressRule::SourceHost => None,
        };
        self.settings.listed_at(source, named, announce.port)
    }

    /// Ends what this peer has announced. One that has come to the same address since, and
    /// calls itself otherwise, stays.
    fn stop(
        &self,
        sessions: &mut Sessions,
        torrent: &Torrent,
        (listed, peer_id): (&ListenAddr, &[u8; 20]),
    ) -> Membership {
        let mut catalog = self.catalogs.lock(torrent.home);
        let Some(content) = catalog.by_id(torrent.hash, &torrent.id) else {
            return Membership::None;
        };
        let index = sessions.announcer(torrent.hash, content, listed);
        let Some(index) = index.filter(|index| sessions.announced_id(*index) == Some(*peer_id))
        else {
            return Membership::None;
        };
        let token = sessions.token(index);
        if let Some(held) = sessions.holding(index, content) {
            self.disown(sessions, &mut catalog, index, held);
        }
        sessions.release(index);
        self.peers.sub();
        Membership::Left(token)
    }

    /// Notes that this peer is there, for the first time or again.
    fn keep(
        &self,
        sessions: &mut Sessions,
        now: Instant,
        host: u32,
        torrent: &Torrent,
        (listed, announce): (&ListenAddr, &TorrentAnnounce),
    ) -> Result<Token, Refusal> {
        let config = &self.settings.config;
        let complete = announce.left == 0;
        let just_got = announce.event == Some(AnnounceEvent::Completed);
        let mut catalog = self.catalogs.lock(torrent.home);
        let known = catalog.by_id(torrent.hash, &torrent.id);
        let found = known.and_then(|content| {
            let index = sessions.announcer(torrent.hash, content, listed)?;
            Some((index, sessions.holding(index, content)?))
        });
        if let Some((index, held)) = found {
            sessions.step();
            catalog.announced(held, complete, just_got);
            sessions.announced(now, index, announce.peer_id, config);
            return Ok(sessions.token(index));
        }
        sessions.check_announcers(host, config)?;
        let max = config.max_peers;
        if !self.peers.add(max) {
            return Err(Refusal::Peers { max });
        }
        let index = sessions.add_announcer(torrent.hash, host, listed);
        sessions.announced(now, index, announce.peer_id, config);
        let begun = Begun {
            id: torrent.id,
            // Nobody says how long a torrent is.
            length: 0,
            complete,
        };
        let listing = sessions.listing(index);
        match self.begin(&mut catalog, (torrent.hash, known), begun, &listing) {
            Ok(held) => {
                if complete && just_got {
                    catalog.count_download(held);
                }
                sessions.step();
                sessions.hold(index, held);
                Ok(sessions.token(index))
            }
            Err(refusal) => {
                sessions.release(index);
                self.peers.sub();
                Err(refusal)
            }
        }
    }

    fn answer_announce(
        &self,
        torrent: &Torrent,
        (listed, vantage): (Option<&ListenAddr>, Vantage),
        announce: &TorrentAnnounce,
    ) -> TorrentAnswer {
        let config = &self.settings.config;
        let announcer = Announcer {
            listed,
            vantage,
            needs_no_seeders: announce.needs_no_seeders(),
            wanted: config.places_of(announce.wanted()),
        };
        let mean = config.announce_interval.as_secs() as u32;
        let mut catalog = self.catalogs.lock(torrent.home);
        let interval = mean - mean / SPREAD + catalog.draw(2 * (mean / SPREAD) + 1);
        let figures = catalog.figures(torrent.hash, &torrent.id);
        let others = catalog.others(torrent.hash, &torrent.id, &announcer);
        drop(catalog);
        let peers = others.into_iter().map(|(addr, owner)| {
            let id_of = || {
                let sessions = self.sessions.lock(self.settings.shard_of_owner(owner));
                sessions.announced_id(sessions.by_ref(owner)?)
            };
            let peer_id = announce.wants_ids.then(id_of).flatten();
            HttpPeer { addr, peer_id }
        });
        TorrentAnswer {
            interval,
            min_interval: interval / 2,
            figures: figures.unwrap_or_default(),
            peers: peers.collect(),
        }
    }

    /// Answers a scrape that came from `source`: the figures of those torrents that have
    /// owners.
    pub(super) fn scrape(
        &self,
        now: Instant,
        source: &Addr,
        torrents: &[InfoHashV1],
    ) -> Vec<Option<ScrapeFigures>> {
        let home = self.settings.shard_of_addr(source);
        self.sessions.lock(home).count_scrape(now);
        let torrents = torrents.iter().map(|info_hash| {
            let torrent = self.torrent(info_hash);
            let catalog = self.catalogs.lock(torrent.home);
            catalog.figures(torrent.hash, &torrent.id)
        });
        torrents.collect()
    }
}
