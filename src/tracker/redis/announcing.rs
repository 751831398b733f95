//! Announces and scrapes of BitTorrent clients, in a store that several trackers share.
//!
//! A client that announces a torrent is known there and nowhere else: its lease, what it calls
//! itself, and how many its host has are in the hash slot of the torrent. So an announce is one
//! step of the store, and one round trip with its answer. What a host may announce is shared out
//! among the shards of contents, as a step sees one of them.

use redis::Value;

use super::answers::Drawn;
use super::link::Lost;
use super::registry::{RedisRegistry, lock};
use super::schema::{CONTENT_SHARDS, PeerRef, UNMEASURED, addr_text, entry_of_announcer};
use super::scripts::{Call, Script};
use super::values::{bytes, number, parts, text};
use crate::bittorrent::InfoHashV1;
use crate::bittorrent::tracker::http::HttpPeer;
use crate::bittorrent::tracker::{AnnounceEvent, ScrapeFigures};
use crate::content::ContentId;
use crate::protocol::{Addr, Refusal};
use crate::tracker::registry::{
    AddressRule, Announcer, ListenAddr, MAX_WANTED, RegistryConfig, TorrentAnnounce, TorrentAnswer,
    Vantage,
};

/// An interval is drawn from this part below the configured one up to as much above it, as by a
/// tracker that has its own memory.
const SPREAD: u32 = 10;

/// How many times as many as are wanted are drawn for one who has all: those who have all as
/// well are of no use to it.
const DRAWN_FOR_SEEDERS: usize = 2;

impl RedisRegistry {
    /// Answers an announce that came from `source` and reached the tracker at `local`.
    pub(crate) async fn announce(
        &self,
        (source, local): (&Addr, Option<&Addr>),
        announce: &TorrentAnnounce,
    ) -> Result<TorrentAnswer, Refusal> {
        lock(&self.counts).requests.announce += 1;
        let answered = self.announce_from(source, local, announce).await;
        answered.inspect_err(|refusal| lock(&self.counts).refusals.count(refusal))
    }

    async fn announce_from(
        &self,
        source: &Addr,
        local: Option<&Addr>,
        announce: &TorrentAnnounce,
    ) -> Result<TorrentAnswer, Refusal> {
        let settings = &self.rules.settings;
        let config = &settings.config;
        let id = ContentId::of_torrent_v1(announce.info_hash.as_bytes());
        let named = match config.addresses {
            AddressRule::Any => announce.ip,
            AddressRule::SourceHost => None,
        };
        let listed = settings.listed_at(source, named, announce.port)?;
        let needs_no_seeders = announce.needs_no_seeders();
        let wanted = config.places_of(announce.wanted());
        let mut calls = Vec::new();
        if let Some(listed) = &listed {
            calls.push(match announce.event {
                Some(AnnounceEvent::Stopped) => self.depart_call(&id, listed, &announce.peer_id),
                _ => self.announce_call(&id, listed, settings.host(source), announce),
            });
        }
        let seed = lock(&self.rng).u64(..);
        let more = if needs_no_seeders {
            DRAWN_FOR_SEEDERS
        } else {
            1
        };
        let others = (wanted.1 * more).min(MAX_WANTED as usize);
        calls.push(self.rules.draw_call(&id, (wanted.0 * more, others), seed));
        calls.extend(self.figures_calls(&id));
        let answers = self
            .link
            .run_all(&calls)
            .await
            .map_err(|Lost| Refusal::Busy)?;
        let [said @ .., drawn, some, owners] = answers.as_slice() else {
            return Err(Refusal::Busy);
        };
        if let [said] = said {
            self.check_said(said, announce)?;
        }
        let drawn = Drawn::parse(drawn);
        let announcer = Announcer {
            listed: listed.as_ref(),
            vantage: Vantage::of(source, local),
            needs_no_seeders,
            wanted,
        };
        let chosen = drawn.map(|drawn| self.rules.chooser.others(&drawn, &id, &announcer));
        let chosen = chosen.unwrap_or_default();
        let ids = match announce.wants_ids && !chosen.is_empty() {
            true => {
                self.ids_of(&id, chosen.iter().map(|(_, owner)| *owner))
                    .await
            }
            false => Vec::new(),
        };
        let mut ids = ids.into_iter();
        let peers = chosen.into_iter().map(|(addr, _)| HttpPeer {
            addr,
            peer_id: ids.next().flatten(),
        });
        let mean = config.announce_interval.as_secs() as u32;
        let drawn = lock(&self.rng).u32(..2 * (mean / SPREAD) + 1);
        let interval = mean - mean / SPREAD + drawn;
        Ok(TorrentAnswer {
            interval,
            min_interval: interval / 2,
            figures: figures_of(some, owners).unwrap_or_default(),
            peers: peers.collect(),
        })
    }

    /// Whether an announce was carried out.
    fn check_said(&self, said: &Value, announce: &TorrentAnnounce) -> Result<(), Refusal> {
        let config = &self.rules.settings.config;
        if announce.event == Some(AnnounceEvent::Stopped) {
            return Ok(());
        }
        Err(match text(said) {
            Some("ok") => return Ok(()),
            Some("host") => {
                let max = config.max_announcers_per_host;
                Refusal::PeersPerHost { max }
            }
            Some("owners") => {
                let max = config.max_owners_per_content;
                Refusal::OwnersPerContent { max }
            }
            Some("peers") => {
                let max = config.max_peers;
                Refusal::Peers { max }
            }
            Some("new") => {
                let max = config.max_contents;
                Refusal::Contents { max }
            }
            _ => Refusal::Busy,
        })
    }

    /// The same for the same torrent and address at every tracker, and known to nobody else.
    fn announcer(&self, id: &ContentId, listed: &ListenAddr) -> PeerRef {
        let (addr, _) = addr_text(Some(listed));
        let mut hasher = blake3::Hasher::new_keyed(&self.announcers);
        hasher.update(id.as_bytes()).update(addr.as_bytes());
        let mut random = [0; 8];
        hasher.finalize_xof().fill(&mut random);
        PeerRef::of_announcer(u64::from_le_bytes(random))
    }

    fn announce_call(
        &self,
        id: &ContentId,
        listed: &ListenAddr,
        host: u32,
        announce: &TorrentAnnounce,
    ) -> Call {
        let config = &self.rules.settings.config;
        let present = self.link.present();
        let digit = |is_so| if is_so { "1" } else { "0" };
        let (addr, _) = addr_text(Some(listed));
        let call = Call::new(Script::Announce, &self.rules.keys.of_announcer(id));
        let call = call
            .arg(self.announcer(id, listed).text())
            .arg(id.to_string());
        let call = call.arg(announce.peer_id).number(host.into());
        let call = call.number(config.announce_lease().as_millis() as u64);
        let call = call.arg(digit(announce.left == 0));
        let just_got = announce.event == Some(AnnounceEvent::Completed);
        let call = call.arg(digit(just_got)).arg(entry_of_announcer(&addr));
        let call = call.arg(UNMEASURED.to_string());
        let call = call.number(announcers_per_shard(config).into());
        let call = call.number(config.max_owners_per_content.into());
        let [peers, contents, _] = present.totals;
        let call = call.arg(digit(peers < config.max_peers.into()));
        call.arg(digit(contents < config.max_contents.into()))
    }

    fn depart_call(&self, id: &ContentId, listed: &ListenAddr, peer_id: &[u8; 20]) -> Call {
        let call = Call::new(Script::Depart, &self.rules.keys.of_departing(id));
        let call = call.arg(self.announcer(id, listed).text());
        call.arg(id.to_string()).arg(peer_id)
    }

    /// What is asked for the figures of a torrent.
    fn figures_calls(&self, id: &ContentId) -> [Call; 2] {
        let keys = &self.rules.keys;
        let some = Call::command("HMGET", &keys.content(id, ""));
        [
            some.arg("complete").arg("downloaded"),
            Call::command("HLEN", &keys.content(id, ":own")),
        ]
    }

    /// What these call themselves, if they announce as BitTorrent clients do.
    async fn ids_of(
        &self,
        id: &ContentId,
        owners: impl Iterator<Item = PeerRef>,
    ) -> Vec<Option<[u8; 20]>> {
        let call = Call::command("HMGET", &self.rules.keys.content(id, ":ids"));
        let call = owners.fold(call, |call, owner| call.arg(owner.text()));
        let answers = self.link.run_all(&[call]).await.unwrap_or_default();
        let ids = answers.first().map_or(&[][..], parts).iter();
        ids.map(|known| bytes(known)?.first_chunk().copied())
            .collect()
    }

    /// Answers a scrape: the figures of those torrents that have owners.
    pub(crate) async fn scrape(&self, torrents: &[InfoHashV1]) -> Vec<Option<ScrapeFigures>> {
        lock(&self.counts).requests.scrape += 1;
        let ids = torrents.iter();
        let ids = ids.map(|hash| ContentId::of_torrent_v1(hash.as_bytes()));
        let calls: Vec<Call> = ids.flat_map(|id| self.figures_calls(&id)).collect();
        let answers = self.link.run(&calls).await;
        let figures = answers.chunks(2).map(|answers| match answers {
            [Ok(some), Ok(owners)] => figures_of(some, owners),
            _ => None,
        });
        figures.collect()
    }
}

/// The figures of a torrent, if it has owners.
fn figures_of(some: &Value, owners: &Value) -> Option<ScrapeFigures> {
    let owners = number(owners).filter(|owners| *owners > 0)?;
    let [complete, downloaded] = parts(some) else {
        return None;
    };
    let figure = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let complete = number(complete).unwrap_or(0);
    Some(ScrapeFigures {
        complete: figure(complete),
        downloaded: figure(number(downloaded).unwrap_or(0)),
        incomplete: figure(owners.saturating_sub(complete)),
    })
}

/// How many torrents the clients of one host may announce in a shard of contents. Ids are
/// spread over the shards by chance, so twice an even share.
fn announcers_per_shard(config: &RegistryConfig) -> u32 {
    let twice = config.max_announcers_per_host.saturating_mul(2);
    twice.div_ceil(CONTENT_SHARDS)
}
