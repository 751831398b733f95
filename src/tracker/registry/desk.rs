//! What each request does to the two halves, whatever they are split into.

use std::time::Instant;

use super::catalog::{Card, Catalog, Claim, Named};
use super::chores::Chore;
use super::compact::Place;
use super::config::{AddressRule, RegistryConfig};
use super::half::Half;
use super::keyed::{self, Keyed, KeyedIds};
use super::names;
use super::peers::{Holding, State};
use super::reply::Out;
use super::sessions::Sessions;
use crate::content::{ContentId, ContentName};
use crate::protocol::limits::MAX_AMBIGUOUS;
use crate::protocol::{
    Addr, ContentKey, OwnEntry, OwnState, Refusal, RefusedEntry, Token, TrackerReply,
    TrackerRequest, Upload,
};

/// How many slots and ownerships one step of expiry looks at, in one shard; and
/// how many ownerships EXIT takes away at once.
const EXPIRE_BATCH: usize = 128;

/// How many entries of a peer are changed at once when its address or its speed
/// is another. All of a peer that owns more are changed in steps of expiry.
const AT_ONCE: usize = 8;

/// What does not change, for all shards.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(super) config: RegistryConfig,
    pub(super) epoch: u64,
    hosts: Keyed,
    ids: KeyedIds,
}

impl Terms {
    pub(crate) fn new(config: RegistryConfig, key: &[u8; 32], epoch: u64) -> Self {
        Self {
            config: config.put_right(),
            epoch,
            hosts: Keyed::derive(key, "bt_lite hosts"),
            ids: KeyedIds::derive(key, "bt_lite ids"),
        }
    }

    /// The hash of an id, and the shard of that content.
    fn catalog_home(&self, id: &ContentId, mask: u32) -> (u64, u32) {
        let hash = self.ids.hash(id);
        (hash, (hash >> 32) as u32 & mask)
    }

    /// The sessions of one shard, of `1 << bits`.
    pub(crate) fn sessions(
        &self,
        key: &[u8; 32],
        shard: (u32, u32),
        base: Option<Instant>,
    ) -> Sessions {
        Sessions::new(&self.config, key, self.epoch, shard, base)
    }
}

/// Handles requests. Whoever is at it has both halves.
pub(crate) struct Desk<'a, S, C> {
    pub(crate) terms: &'a Terms,
    pub(crate) sessions: S,
    pub(crate) catalogs: C,
}

impl<S: Half<Sessions>, C: Half<Catalog>> Desk<'_, S, C> {
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        source: &Addr,
        request: &TrackerRequest,
        out: &mut impl Out,
    ) -> Result<(), Refusal> {
        let (shard, outcome) = match request {
            TrackerRequest::Register { listen, token } => {
                let listen = listen.as_ref();
                let (shard, known) = match token {
                    Some(token) => (
                        self.shard(token),
                        self.heartbeat(now, source, listen, token, request, out),
                    ),
                    None => {
                        let home = self.session_home(source);
                        self.sessions.at(home).0.count(now, request);
                        (home, Ok(false))
                    }
                };
                let outcome = match known {
                    Ok(true) => Ok(()),
                    Ok(false) => self.register(now, source, listen, out),
                    Err(refusal) => Err(refusal),
                };
                (shard, outcome)
            }
            TrackerRequest::Own { token, entries } => (
                self.shard(token),
                self.own(now, token, entries, request, out),
            ),
            TrackerRequest::Need {
                token,
                key,
                max_owners,
            } => {
                let outcome = self.need(now, token, key, (*max_owners).into(), request, out);
                (self.shard(token), outcome)
            }
            TrackerRequest::Update { token, uploads } => (
                self.shard(token),
                self.update(now, token, uploads, request, out),
            ),
            TrackerRequest::Exit { token } => {
                (self.shard(token), self.exit(now, token, request, out))
            }
        };
        if let Err(refusal) = &outcome {
            self.sessions.at(shard).0.refusals.count(refusal);
            out.reply(TrackerReply::Refused(refusal.clone()));
        }
        outcome
    }

    fn shard(&self, token: &Token) -> u32 {
        keyed::words(token)[0] & self.sessions.mask()
    }

    /// The shard of the peers of a host.
    pub(super) fn session_home(&self, addr: &Addr) -> u32 {
        self.terms.hosts.host(addr) >> 16 & self.sessions.mask()
    }

    /// The hash of an id, and the shard of that content.
    pub(super) fn catalog_home(&self, id: &ContentId) -> (u64, u32) {
        self.terms.catalog_home(id, self.catalogs.mask())
    }

    /// Where a peer is listed that says to listen here.
    fn listed(&self, source: &Addr, listen: Option<&Addr>) -> Result<Option<Place>, Refusal> {
        let Some(listen) = listen else {
            return Ok(None);
        };
        if listen.socket_addr().is_some_and(|addr| addr.port() == 0) {
            return Ok(None);
        }
        let addr = listen.filled_in_from(source);
        if self.terms.config.addresses == AddressRule::SourceHost && !addr.same_host(source) {
            return Err(Refusal::ForeignAddress { addr });
        }
        Ok(Some(Place::from(&addr)))
    }

    /// Extends the lease of a known peer. Returns whether the token was one.
    fn heartbeat(
        &mut self,
        now: Instant,
        source: &Addr,
        listen: Option<&Addr>,
        token: &Token,
        request: &TrackerRequest,
        out: &mut impl Out,
    ) -> Result<bool, Refusal> {
        let shard = self.shard(token);
        let place = {
            let (mut sessions, _) = self.sessions.at(shard);
            sessions.count(now, request);
            let Ok(index) = sessions.authenticate(now, token) else {
                return Ok(false);
            };
            // Of another host: it counts as none, so that whoever has a token
            // cannot move the peer to where it does not speak from.
            if self.terms.config.addresses == AddressRule::SourceHost
                && !sessions.is_at(index, source)
                && self.terms.hosts.host(source) != sessions.peers[index].host
            {
                return Ok(false);
            }
            if sessions.is_as_before(index, source, listen) {
                sessions.extend(now, index);
                let standing = sessions.standing(index);
                drop(sessions);
                let Terms { config, epoch, .. } = self.terms;
                out.registered(*token, *epoch, config.heartbeat, standing.listed.as_ref());
                return Ok(true);
            }
            drop(sessions);
            self.listed(source, listen)?
        };
        let (mut sessions, _) = self.sessions.at(shard);
        let Ok(index) = sessions.authenticate(now, token) else {
            return Ok(false);
        };
        sessions.extend(now, index);
        if sessions.listen_at(index, place.as_ref()) {
            Self::refresh(&mut sessions, &mut self.catalogs, now, index);
        }
        let Terms { config, epoch, .. } = self.terms;
        out.registered(*token, *epoch, config.heartbeat, place.as_ref());
        Ok(true)
    }

    fn register(
        &mut self,
        now: Instant,
        source: &Addr,
        listen: Option<&Addr>,
        out: &mut impl Out,
    ) -> Result<(), Refusal> {
        let host = self.terms.hosts.host(source);
        let home = host >> 16 & self.sessions.mask();
        let place = self.listed(source, listen)?;
        let Terms { config, epoch, .. } = self.terms;
        let score = place.as_ref().and_then(|place| {
            let home = match place {
                Place::Text(addr) => self.session_home(addr),
                Place::V4(..) if config.addresses == AddressRule::SourceHost => home,
                Place::V4(..) => self.session_home(&place.addr()),
            };
            self.sessions.at(home).0.recall(now, place)
        });
        let (mut sessions, mut total) = self.sessions.at(home);
        let index = sessions.admit(now, host, config, &mut total)?;
        if let Some(score) = score {
            sessions.peers[index].score = score;
        }
        sessions.extend(now, index);
        sessions.listen_at(index, place.as_ref());
        let standing = sessions.standing(index);
        drop(sessions);
        let listed = standing.listed.as_ref();
        out.registered(standing.token, *epoch, config.heartbeat, listed);
        Ok(())
    }

    fn own(
        &mut self,
        now: Instant,
        token: &Token,
        entries: &[OwnEntry],
        request: &TrackerRequest,
        out: &mut impl Out,
    ) -> Result<(), Refusal> {
        let shard = self.shard(token);
        let (mut sessions, _) = self.sessions.at(shard);
        sessions.count(now, request);
        let index = sessions.heard(now, token)?;
        let card = sessions.card(index);
        let mut refused = Vec::new();
        for (at, entry) in (0..).zip(entries) {
            let (hash, home) = self.terms.catalog_home(&entry.id, self.catalogs.mask());
            let (mut catalog, mut total) = self.catalogs.at(home);
            let content = catalog.by_id(hash, &entry.id);
            let held = content.and_then(|content| sessions.peers.ownership(index, content));
            if entry.state == OwnState::Gone {
                if let (Some(content), Some(ownership)) = (content, held) {
                    catalog.disown(Holding { content, ownership }, card.host, &mut total);
                    sessions.drop_holding(index, content);
                    sessions.step();
                }
                continue;
            }
            let config = &self.terms.config;
            let (full, full_of_new) = match held {
                None => sessions.full(index, config),
                Some(_) => (None, None),
            };
            let claim = Claim {
                hash,
                entry,
                full,
                full_of_new,
            };
            let owned = catalog.own(&claim, held, &card, config, &mut total);
            drop((catalog, total));
            sessions.step();
            let (terms, catalogs) = (self.terms, &mut self.catalogs);
            let named = owned.and_then(|owned| {
                if owned.anew {
                    sessions.hold(index, owned.holding);
                }
                match owned.named {
                    Named::Done => Ok(()),
                    Named::New => Self::name(terms, catalogs, owned.holding, &entry.name, &card),
                    Named::Refused(refusal) => Err(refusal),
                }
            });
            if let Err(refusal) = named {
                sessions.refusals.count(&refusal);
                refused.push(RefusedEntry { at, refusal });
            }
        }
        drop(sessions);
        out.reply(match refused.is_empty() {
            true => TrackerReply::Done,
            false => TrackerReply::Partly(refused),
        });
        Ok(())
    }

    /// Gives an owner a name that no other owner of the content uses, if there
    /// is a place for one more content of that name, or one gives way. Looks at
    /// all that have a place, of which there are few, shard by shard.
    fn name(
        terms: &Terms,
        catalogs: &mut C,
        held: Holding,
        name: &ContentName,
        card: &Card,
    ) -> Result<(), Refusal> {
        let config = &terms.config;
        let max = config.max_contents_per_name;
        let mut bearers = Vec::new();
        for shard in 0..catalogs.shards() {
            bearers.extend(catalogs.at(shard).0.bearers(name));
        }
        // In an order that everybody can tell.
        bearers.sort_unstable_by_key(|bearer| bearer.id);
        let of_host = bearers.iter().filter(|b| b.worth.host == card.host);
        let share = names::share(max);
        if of_host.count() >= share as usize {
            return Err(Refusal::ContentsPerName { max: share });
        }
        if bearers.len() >= max as usize {
            let worths: Vec<_> = bearers.iter().map(|bearer| bearer.worth).collect();
            let Some(victim) = names::gives_way(&worths, card.host) else {
                return Err(Refusal::ContentsPerName { max });
            };
            let id = &bearers[victim].id;
            let (hash, home) = terms.catalog_home(id, catalogs.mask());
            catalogs.at(home).0.lapse(hash, id, name);
        }
        let home = held.content & catalogs.mask();
        catalogs.at(home).0.name(held, name, card, config)
    }

    fn need(
        &mut self,
        now: Instant,
        token: &Token,
        key: &ContentKey,
        max_owners: usize,
        request: &TrackerRequest,
        out: &mut impl Out,
    ) -> Result<(), Refusal> {
        let config = &self.terms.config;
        match key {
            ContentKey::Id(id) => {
                let (hash, home) = self.catalog_home(id);
                let (mut sessions, _) = self.sessions.at(self.shard(token));
                sessions.count(now, request);
                // Before the token is looked at, so that the memory has the
                // peer and the owners on their way at once.
                let (mut catalog, _) = self.catalogs.at(home);
                let search = catalog.search(hash, id, max_owners, config);
                let index = sessions.heard(now, token)?;
                let asker = sessions.place(index);
                drop(sessions);
                catalog.answer(now, id, search, (asker.as_ref(), None), out)
            }
            ContentKey::Name(name) => {
                let (mut sessions, _) = self.sessions.at(self.shard(token));
                sessions.count(now, request);
                let index = sessions.heard(now, token)?;
                let asker = sessions.place(index);
                drop(sessions);
                let bearing = self.named(now, name);
                let id = match bearing.as_slice() {
                    [] => return Err(Refusal::UnknownContent),
                    [(id, _)] => id,
                    _ => {
                        out.reply(TrackerReply::Ambiguous(bearing));
                        return Ok(());
                    }
                };
                let (hash, home) = self.catalog_home(id);
                let (mut catalog, _) = self.catalogs.at(home);
                let search = catalog.search(hash, id, max_owners, config);
                catalog.answer(now, id, search, (asker.as_ref(), Some(name)), out)
            }
        }
    }

    /// Some of the contents of a name, as many as an answer can list.
    fn named(&mut self, now: Instant, name: &ContentName) -> Vec<(ContentId, u64)> {
        let mut bearing = Vec::new();
        for shard in 0..self.catalogs.shards() {
            let (mut catalog, _) = self.catalogs.at(shard);
            catalog.recalled.tick(now);
            let named = catalog.named(name);
            bearing.extend(named.take(MAX_AMBIGUOUS - bearing.len()));
        }
        bearing
    }

    fn update(
        &mut self,
        now: Instant,
        token: &Token,
        uploads: &[Upload],
        request: &TrackerRequest,
        out: &mut impl Out,
    ) -> Result<(), Refusal> {
        let shard = self.shard(token);
        let (mut sessions, _) = self.sessions.at(shard);
        sessions.count(now, request);
        let reporter = sessions.heard(now, token)?;
        let [number, ..] = keyed::words(token);
        let others = uploads
            .iter()
            .filter(|upload| upload.owner.0 as u32 != number);
        let bytes = others
            .clone()
            .fold(0, |sum: u64, upload| sum.saturating_add(upload.bytes));
        let mut left = sessions.plausible(now, reporter, bytes, &self.terms.config);
        let host = sessions.peers[reporter].host;
        drop(sessions);
        for upload in others {
            let home = upload.owner.0 as u32 & self.sessions.mask();
            let (mut sessions, _) = self.sessions.at(home);
            let Some(index) = sessions.by_ref(upload.owner) else {
                continue;
            };
            let bytes = upload.bytes.min(left);
            left -= bytes;
            if sessions.credit(now, index, bytes, host) {
                Self::refresh(&mut sessions, &mut self.catalogs, now, index);
            }
        }
        out.reply(TrackerReply::Done);
        Ok(())
    }

    /// Something about a peer has changed that its entries say: those of a peer
    /// that owns little are changed at once, all others in steps.
    fn refresh(sessions: &mut Sessions, catalogs: &mut C, now: Instant, index: u32) {
        if sessions.peers.owned_len(index) > AT_ONCE {
            let tick = sessions.wheel.tick_at(now);
            sessions.chores.refresh(index, tick);
        } else {
            Self::refresh_some(sessions, catalogs, index, 0, AT_ONCE);
        }
    }

    /// Brings some of a peer's entries up to date, from this content on. Returns
    /// how many, and where to go on, if there are more.
    fn refresh_some(
        sessions: &mut Sessions,
        catalogs: &mut C,
        index: u32,
        from: u32,
        most: usize,
    ) -> (usize, Option<u32>) {
        let (mask, card) = (catalogs.mask(), sessions.card(index));
        let mut done = 0;
        let mut next = None;
        for held in sessions.peers.owned_from(index, from) {
            if done == most {
                next = Some(held.content);
                break;
            }
            catalogs.at(held.content & mask).0.refresh(held, &card);
            done += 1;
        }
        (0..done).for_each(|_| sessions.step());
        (done, next)
    }

    fn exit(
        &mut self,
        now: Instant,
        token: &Token,
        request: &TrackerRequest,
        out: &mut impl Out,
    ) -> Result<(), Refusal> {
        let shard = self.shard(token);
        let (mut sessions, mut total) = self.sessions.at(shard);
        sessions.count(now, request);
        let index = sessions.authenticate(now, token)?;
        Self::disown_some(&mut sessions, &mut self.catalogs, index, EXPIRE_BATCH);
        if sessions.peers.owned_len(index) > 0 {
            sessions.leave(now, index);
        } else {
            sessions.release(index, State::Left, &mut total);
        }
        drop(sessions);
        out.reply(TrackerReply::Done);
        Ok(())
    }

    /// Takes away what a peer owns, at most so much. Returns how much that was.
    fn disown_some(sessions: &mut Sessions, catalogs: &mut C, index: u32, most: usize) -> usize {
        let (mask, host) = (catalogs.mask(), sessions.peers[index].host);
        let mut taken = 0;
        while taken < most
            && let Some(held) = sessions.peers.any_owned(index)
        {
            let (mut catalog, mut total) = catalogs.at(held.content & mask);
            catalog.disown(held, host, &mut total);
            sessions.drop_holding(index, held.content);
            sessions.step();
            taken += 1;
        }
        taken
    }

    /// One step of expiry in one shard: a bounded number of slots and
    /// ownerships, those of [chores](super::chores) first. What is left of a
    /// peer that owns more has its turn in the next step; its token is worth
    /// nothing already.
    pub(crate) fn expire(&mut self, now: Instant, shard: u32) {
        let (mut sessions, mut total) = self.sessions.at(shard);
        let mut budget = EXPIRE_BATCH;
        let (tick, pace) = (sessions.wheel.tick_at(now), sessions.wheel.lease_ticks());
        while budget > 0
            && let Some((index, chore)) = sessions.chores.due(tick)
        {
            let (sessions, catalogs) = (&mut *sessions, &mut self.catalogs);
            let done = match chore {
                Chore::Refresh(from) => {
                    let (done, next) = Self::refresh_some(sessions, catalogs, index, from, budget);
                    match next {
                        Some(next) => sessions.chores.go_on(index, next),
                        None => sessions.chores.round_over(index, pace),
                    }
                    done
                }
                Chore::Leave => {
                    let done = Self::disown_some(sessions, catalogs, index, budget);
                    if sessions.peers.owned_len(index) == 0 {
                        sessions.release(index, State::Left, &mut total);
                    }
                    done
                }
            };
            budget = budget.saturating_sub(done.max(1));
        }
        while let Some(index) = sessions.pop_expired(now, &mut budget) {
            let most = budget.max(1);
            let taken = Self::disown_some(&mut sessions, &mut self.catalogs, index, most);
            budget = budget.saturating_sub(taken);
            if sessions.peers.owned_len(index) > 0 {
                let deadline = sessions.peers[index].deadline;
                sessions.enter(index, deadline);
            } else {
                sessions.expired += u64::from(!sessions.chores.is_leaving(index));
                sessions.release(index, State::Free, &mut total);
            }
        }
    }
}
