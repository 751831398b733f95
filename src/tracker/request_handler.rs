//! Leads each request through the shards that it needs.
//!
//! The order of the locks: a thread that holds a shard of the sessions may take
//! one of the catalog, never the other way round, and a thread never holds two
//! shards of one half. So no two threads wait for each other.

use std::hint::black_box;
use std::time::Instant;

use super::registry::{
    AddressRule, Begun, Catalog, EntryPermit, Heartbeat, Holding, Job, ListenAddr, NameOutcome,
    Owned, PeerListing, Permits, RegistryConfig, ReplyWriter, Sessions, Settings, Viewpoint,
    room_for_bearer,
};
use super::shards::{Count, Shards};
use crate::content::{ContentId, ContentName, MAX_CONTENT_LEN};
use crate::protocol::limits::MAX_AMBIGUOUS;
use crate::protocol::{
    Addr, ContentKey, OwnEntry, OwnState, Refusal, RefusedEntry, Token, TrackerReply,
    TrackerRequest, Upload, ZoneTag,
};

/// How many slots and ownerships one step of expiry looks at, in one shard; and
/// how many ownerships EXIT removes at once.
const EXPIRE_BATCH: usize = 128;

/// How many entries of a peer are refreshed at once when its address or speed
/// changes. If it owns more, all of them are refreshed in steps of expiry.
const AT_ONCE: usize = 8;

/// What a NEED asks for, how many owners of it, and from where to where it came.
type Wanted<'a> = (&'a ContentKey, u16, (&'a Addr, Option<&'a Addr>));

/// The shards of a registry, and the handling of requests and of expiry.
#[derive(Debug)]
pub(super) struct RequestHandler {
    pub(super) settings: Settings,
    pub(super) sessions: Shards<Sessions>,
    pub(super) catalogs: Shards<Catalog>,
    pub(super) peers: Count,
    pub(super) contents: Count,
    pub(super) ownerships: Count,
}

impl RequestHandler {
    /// A handler with `1 << bits` empty shards of each half.
    pub(super) fn new(
        config: RegistryConfig,
        key: &[u8; 32],
        epoch: u64,
        bits: u32,
        now: Instant,
    ) -> Self {
        let settings = Settings::new(config, key, epoch, bits);
        let shards = || 0..1_u32 << bits;
        let sessions = shards().map(|shard| Sessions::new(&settings, key, shard, now));
        let catalogs = shards().map(|shard| Catalog::new(&settings, key, shard));
        Self {
            sessions: Shards::new(sessions),
            catalogs: Shards::new(catalogs),
            peers: Count::default(),
            contents: Count::default(),
            ownerships: Count::default(),
            settings,
        }
    }

    /// Answers one request, which came from `source` and reached the tracker at `local`,
    /// if the transport says where that was. Does as much of it as is permitted. A refusal
    /// is also the reply.
    pub(super) fn handle(
        &self,
        now: Instant,
        from: (&Addr, Option<&Addr>),
        request: &TrackerRequest,
        permits: Permits<'_>,
        out: &mut impl ReplyWriter,
    ) -> Result<(), Refusal> {
        let (source, local) = from;
        let (shard, outcome) = match request {
            TrackerRequest::Register { listen, token } => {
                let listen = listen.as_ref();
                let shard = match token {
                    Some(token) => self.settings.shard_of_token(token),
                    None => self.settings.shard_of_addr(source),
                };
                let outcome = self.register(now, source, listen, token.as_ref(), request, out);
                (shard, outcome)
            }
            TrackerRequest::RegisterAlso { listen, token } => (
                self.settings.shard_of_token(token),
                self.also(now, source, listen.as_ref(), token, request, out),
            ),
            TrackerRequest::Own { token, entries } => (
                self.settings.shard_of_token(token),
                self.own(now, token, (entries, permits), request, out),
            ),
            TrackerRequest::Need {
                token,
                key,
                max_owners,
            } => (self.settings.shard_of_token(token), {
                let wanted = (key, *max_owners, (source, local));
                self.need(now, token, (wanted, permits), request, out)
            }),
            TrackerRequest::Update { token, uploads } => (
                self.settings.shard_of_token(token),
                self.update(now, token, uploads, request, out),
            ),
            TrackerRequest::Exit { token } => (
                self.settings.shard_of_token(token),
                self.exit(now, token, request, out),
            ),
            TrackerRequest::Zone { token, zone } => (
                self.settings.shard_of_token(token),
                self.zone(now, token, *zone, request, out),
            ),
        };
        if let Err(refusal) = &outcome {
            self.sessions.lock(shard).count_refusal(refusal);
            out.reply(TrackerReply::Refused(refusal.clone()));
        }
        outcome
    }

    /// REGISTER: a heartbeat, or the registration of a new peer.
    fn register(
        &self,
        now: Instant,
        source: &Addr,
        listen: Option<&Addr>,
        token: Option<&Token>,
        request: &TrackerRequest,
        out: &mut impl ReplyWriter,
    ) -> Result<(), Refusal> {
        let Settings { config, epoch, .. } = &self.settings;
        if let Some(token) = token {
            let shard = self.settings.shard_of_token(token);
            let mut sessions = self.sessions.lock(shard);
            sessions.count(now, request);
            let heartbeat = sessions.heartbeat(&self.settings, now, source, listen, token)?;
            if let Heartbeat::Known {
                index,
                listed,
                moved,
            } = heartbeat
            {
                if moved {
                    self.refresh(&mut sessions, now, index);
                }
                drop(sessions);
                out.registered(*token, *epoch, config.heartbeat, listed.as_ref());
                return Ok(());
            }
        } else {
            let home = self.settings.shard_of_addr(source);
            self.sessions.lock(home).count(now, request);
        }
        let (token, listed) = self.register_new(now, source, listen)?;
        out.registered(token, *epoch, config.heartbeat, listed.as_ref());
        Ok(())
    }

    /// REGISTER over the other family.
    fn also(
        &self,
        now: Instant,
        source: &Addr,
        listen: Option<&Addr>,
        token: &Token,
        request: &TrackerRequest,
        out: &mut impl ReplyWriter,
    ) -> Result<(), Refusal> {
        let Settings { config, epoch, .. } = &self.settings;
        let mut sessions = self.sessions.lock(self.settings.shard_of_token(token));
        sessions.count(now, request);
        let (index, listed, moved) = sessions.also(&self.settings, now, source, listen, token)?;
        if moved {
            self.refresh(&mut sessions, now, index);
        }
        drop(sessions);
        out.registered(*token, *epoch, config.heartbeat, listed.as_ref());
        Ok(())
    }

    /// ZONE.
    fn zone(
        &self,
        now: Instant,
        token: &Token,
        zone: ZoneTag,
        request: &TrackerRequest,
        out: &mut impl ReplyWriter,
    ) -> Result<(), Refusal> {
        let mut sessions = self.sessions.lock(self.settings.shard_of_token(token));
        sessions.count(now, request);
        let (index, is_news) = sessions.set_zone(now, token, zone)?;
        if is_news {
            self.refresh(&mut sessions, now, index);
        }
        drop(sessions);
        out.reply(TrackerReply::Done);
        Ok(())
    }

    /// Registers a new peer, if there is room. Returns its token, and the address
    /// under which it is listed.
    fn register_new(
        &self,
        now: Instant,
        source: &Addr,
        listen: Option<&Addr>,
    ) -> Result<(Token, Option<ListenAddr>), Refusal> {
        let config = &self.settings.config;
        let host = self.settings.host(source);
        let home = self.settings.shard_of_host(host);
        let listed = self.settings.listed(source, listen)?;
        let score = listed.as_ref().and_then(|listed| {
            let remembered_in = match listed {
                ListenAddr::Text(addr) => self.settings.shard_of_addr(addr),
                // It is of the source's host: no hash is needed.
                ListenAddr::V4(..)
                    if config.addresses == AddressRule::SourceHost
                        && listed.addr().same_host(source) =>
                {
                    home
                }
                ListenAddr::V4(..) => self.settings.shard_of_addr(&listed.addr()),
            };
            self.sessions.lock(remembered_in).recall(now, listed)
        });
        let full = Refusal::Peers {
            max: config.max_peers,
        };
        let mut sessions = self.sessions.lock(home);
        if self.peers.get() >= config.max_peers {
            return Err(full);
        }
        sessions.check_host(host, config)?;
        // Other shards may have taken the last place since the first look.
        if !self.peers.add(config.max_peers) {
            return Err(full);
        }
        let token = sessions.register(now, host, score, listed.as_ref());
        Ok((token, listed))
    }

    fn own(
        &self,
        now: Instant,
        token: &Token,
        (entries, permits): (&[OwnEntry], Permits<'_>),
        request: &TrackerRequest,
        out: &mut impl ReplyWriter,
    ) -> Result<(), Refusal> {
        let mut sessions = self.sessions.lock(self.settings.shard_of_token(token));
        sessions.count(now, request);
        let index = sessions.heard(now, token)?;
        let listing = sessions.listing(index);
        let mut refused = Vec::new();
        for (at, entry) in (0..).zip(entries) {
            let owned = match permits.entry(at) {
                EntryPermit::Given => self.own_entry(&mut sessions, index, &listing, entry),
                EntryPermit::Denied => {
                    // Under another name the content may be owned, also if that has no place.
                    let is_given = |(at, other): (u16, &OwnEntry)| {
                        other.id == entry.id && permits.entry(at) == EntryPermit::Given
                    };
                    let keeps = (0..).zip(entries).any(is_given);
                    let name = Some(&entry.name);
                    self.disown_name(&mut sessions, index, (&entry.id, name), keeps);
                    Err(Refusal::Denied)
                }
                EntryPermit::Unsure => Err(Refusal::Busy),
            };
            if let Err(refusal) = owned {
                sessions.count_refusal(&refusal);
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

    /// Applies one entry of OWN. A refused entry changes nothing, unless only its
    /// name is refused.
    fn own_entry(
        &self,
        sessions: &mut Sessions,
        index: u32,
        listing: &PeerListing,
        entry: &OwnEntry,
    ) -> Result<(), Refusal> {
        let config = &self.settings.config;
        let (hash, home) = self.settings.locate(&entry.id);
        let mut catalog = self.catalogs.lock(home);
        let known = catalog.by_id(hash, &entry.id);
        let held = known.and_then(|content| sessions.holding(index, content));
        if entry.state == OwnState::Gone {
            if let Some(held) = held {
                self.disown(sessions, &mut catalog, index, held);
            }
            return Ok(());
        }
        sessions.step();
        if entry.length > MAX_CONTENT_LEN {
            return Err(Refusal::Malformed);
        }
        let holding = match held {
            Some(held) => held,
            None => {
                sessions.check_quota(index, known.is_none(), config)?;
                let begun = Begun {
                    id: entry.id,
                    length: entry.length,
                    complete: entry.state == OwnState::Complete,
                };
                self.begin(&mut catalog, (hash, known), begun, listing)?
            }
        };
        let name = catalog.apply(holding, entry, listing, config);
        drop(catalog);
        if held.is_none() {
            sessions.hold(index, holding);
        }
        match name {
            NameOutcome::Done => Ok(()),
            NameOutcome::New => self.bring_name(holding, &entry.name, listing),
            NameOutcome::Refused(refusal) => Err(refusal),
        }
    }

    /// Has a peer own a content under this name no more. If it has no other name for it, or
    /// this is of no name, the ownership ends, unless it is kept by what else is known.
    fn disown_name(
        &self,
        sessions: &mut Sessions,
        index: u32,
        (id, name): (&ContentId, Option<&ContentName>),
        keeps: bool,
    ) {
        let (hash, home) = self.settings.locate(id);
        let mut catalog = self.catalogs.lock(home);
        let known = catalog.by_id(hash, id);
        let Some(held) = known.and_then(|content| sessions.holding(index, content)) else {
            return;
        };
        let host = sessions.host(index);
        let has_others = name.is_some_and(|name| catalog.drop_name(held, name, host));
        if !has_others && !keeps {
            self.disown(sessions, &mut catalog, index, held);
        }
    }

    /// Ends what a peer owns of these contents under these names. Does not extend its lease.
    pub(super) fn disown_all(&self, now: Instant, token: &Token, owned: &[Owned]) {
        let mut sessions = self.sessions.lock(self.settings.shard_of_token(token));
        if let Ok(index) = sessions.authenticate(now, token) {
            for (id, name) in owned {
                self.disown_name(&mut sessions, index, (id, name.as_ref()), false);
            }
            // Who has announced one torrent is here for nothing else.
            #[cfg(feature = "bittorrent")]
            if sessions.is_announcer(index) && sessions.owned_len(index) == 0 {
                sessions.release(index);
                self.peers.sub();
            }
        }
    }

    /// The contents that a NEED is about, each with a name that it has. An id is one of
    /// them also if nobody knows it.
    pub(super) fn asked_for(
        &self,
        now: Instant,
        key: &ContentKey,
    ) -> Vec<(ContentId, Option<ContentName>)> {
        match key {
            ContentKey::Id(id) => {
                let (hash, home) = self.settings.locate(id);
                let name = self.catalogs.lock(home).common_name(now, hash, id);
                vec![(*id, name)]
            }
            ContentKey::Name(name) => {
                let bearing = self.named(now, name).into_iter();
                bearing.map(|(id, _)| (id, Some(name.clone()))).collect()
            }
        }
    }

    /// Some of what a peer owns, from the content of this number on, each under each of its
    /// names; and the number to go on with, if there are more. Nothing if the token is
    /// unknown.
    pub(super) fn owned(
        &self,
        now: Instant,
        token: &Token,
        from: u32,
    ) -> (Vec<Owned>, Option<u32>) {
        let mut sessions = self.sessions.lock(self.settings.shard_of_token(token));
        let Ok(index) = sessions.authenticate(now, token) else {
            return (Vec::new(), None);
        };
        let mut owned = Vec::new();
        for (looked_at, held) in sessions.owned_from(index, from).enumerate() {
            if looked_at == EXPIRE_BATCH {
                return (owned, Some(held.content));
            }
            let home = self.settings.shard_of_content(held.content);
            self.catalogs.lock(home).owned(held, &mut owned);
        }
        (owned, None)
    }

    /// Begins an ownership of a known content or of a new one, if there is room.
    pub(super) fn begin(
        &self,
        catalog: &mut Catalog,
        (hash, known): (u64, Option<u32>),
        begun: Begun,
        listing: &PeerListing,
    ) -> Result<Holding, Refusal> {
        let config = &self.settings.config;
        if let Some(content) = known {
            catalog.check_owners(content, config)?;
        }
        let max = config.max_ownerships;
        if !self.ownerships.add(max) {
            return Err(Refusal::Ownerships { max });
        }
        let max = config.max_contents;
        if known.is_none() && !self.contents.add(max) {
            self.ownerships.sub();
            return Err(Refusal::Contents { max });
        }
        Ok(catalog.begin((hash, known), begun, listing))
    }

    /// Gives an owner a name that no other owner of the content uses, if there is
    /// a place for one more content of that name, or another content gives way.
    /// Looks at all contents of the name, of which there are few, shard by shard.
    fn bring_name(
        &self,
        held: Holding,
        name: &ContentName,
        listing: &PeerListing,
    ) -> Result<(), Refusal> {
        let config = &self.settings.config;
        let mut bearers = Vec::new();
        for catalog in self.catalogs.each() {
            bearers.extend(catalog.bearers(name));
        }
        let victim = room_for_bearer(&mut bearers, listing.host, config.max_contents_per_name)?;
        if let Some(id) = victim {
            let (hash, home) = self.settings.locate(&id);
            self.catalogs.lock(home).lapse_name(hash, &id, name);
        }
        let home = self.settings.shard_of_content(held.content);
        let mut catalog = self.catalogs.lock(home);
        catalog.bring_name(held, name, listing, config)
    }

    fn need(
        &self,
        now: Instant,
        token: &Token,
        (wanted, permits): (Wanted<'_>, Permits<'_>),
        request: &TrackerRequest,
        out: &mut impl ReplyWriter,
    ) -> Result<(), Refusal> {
        let (key, max_owners, (source, local)) = wanted;
        let places = self.settings.config.places(max_owners);
        let mut sessions = self.sessions.lock(self.settings.shard_of_token(token));
        sessions.count(now, request);
        let mut viewpoint = Viewpoint::new(source, local);
        match key {
            ContentKey::Id(id) => {
                // The search comes before the look at the token, so that the
                // memory fetches the peer and the owners at the same time.
                let (hash, home) = self.settings.locate(id);
                let mut catalog = self.catalogs.lock(home);
                let seed = catalog.seed(false);
                let search = catalog.search(hash, id, places, seed);
                black_box(search.as_ref().map(|search| search.read));
                let index = sessions.heard(now, token)?;
                let asker = sessions.asker(index);
                drop(sessions);
                match permits.content(id) {
                    true => {
                        let asker = (&asker, &mut viewpoint);
                        catalog.answer(now, id, search, asker, None, out)
                    }
                    false => Err(Refusal::UnknownContent),
                }
            }
            ContentKey::Name(name) => {
                let index = sessions.heard(now, token)?;
                let asker = sessions.asker(index);
                drop(sessions);
                let mut bearing = self.named(now, name);
                bearing.retain(|(id, _)| permits.content(id));
                let id = match bearing.as_slice() {
                    [] => return Err(Refusal::UnknownContent),
                    [(id, _)] => id,
                    _ => {
                        out.reply(TrackerReply::Ambiguous(bearing));
                        return Ok(());
                    }
                };
                let (hash, home) = self.settings.locate(id);
                let mut catalog = self.catalogs.lock(home);
                let seed = catalog.seed(true);
                let search = catalog.search(hash, id, places, seed);
                let asker = (&asker, &mut viewpoint);
                catalog.answer(now, id, search, asker, Some(name), out)
            }
        }
    }

    /// The contents of a name, up to as many as an answer can list.
    fn named(&self, now: Instant, name: &ContentName) -> Vec<(ContentId, u64)> {
        let mut bearing = Vec::new();
        for mut catalog in self.catalogs.each() {
            let named = catalog.named(now, name);
            bearing.extend(named.take(MAX_AMBIGUOUS - bearing.len()));
        }
        bearing
    }

    fn update(
        &self,
        now: Instant,
        token: &Token,
        uploads: &[Upload],
        request: &TrackerRequest,
        out: &mut impl ReplyWriter,
    ) -> Result<(), Refusal> {
        let mut sessions = self.sessions.lock(self.settings.shard_of_token(token));
        sessions.count(now, request);
        let report = sessions.report(now, token, uploads, &self.settings.config)?;
        drop(sessions);
        let mut left = report.plausible;
        for upload in uploads.iter().filter(|upload| report.is_of_other(upload)) {
            let home = self.settings.shard_of_owner(upload.owner);
            let mut sessions = self.sessions.lock(home);
            let Some(index) = sessions.by_ref(upload.owner) else {
                continue;
            };
            let bytes = upload.bytes.min(left);
            left -= bytes;
            if sessions.credit(now, index, bytes, report.host) {
                self.refresh(&mut sessions, now, index);
            }
        }
        out.reply(TrackerReply::Done);
        Ok(())
    }

    fn exit(
        &self,
        now: Instant,
        token: &Token,
        request: &TrackerRequest,
        out: &mut impl ReplyWriter,
    ) -> Result<(), Refusal> {
        let mut sessions = self.sessions.lock(self.settings.shard_of_token(token));
        sessions.count(now, request);
        let index = sessions.authenticate(now, token)?;
        self.disown_some(&mut sessions, index, EXPIRE_BATCH);
        if sessions.owned_len(index) > 0 {
            sessions.leave(now, index);
        } else {
            sessions.release(index);
            self.peers.sub();
        }
        drop(sessions);
        out.reply(TrackerReply::Done);
        Ok(())
    }

    /// The entries of a peer are out of date. If it owns little, they are
    /// refreshed at once, otherwise in steps of expiry.
    fn refresh(&self, sessions: &mut Sessions, now: Instant, index: u32) {
        if sessions.owned_len(index) > AT_ONCE {
            sessions.refresh_later(now, index);
        } else {
            self.refresh_some(sessions, index, 0, AT_ONCE);
        }
    }

    /// Refreshes at most `most` entries of a peer, from this content on. Returns
    /// how many, and the content to go on with, if there are more.
    fn refresh_some(
        &self,
        sessions: &mut Sessions,
        index: u32,
        from: u32,
        most: usize,
    ) -> (usize, Option<u32>) {
        let listing = sessions.listing(index);
        let mut done = 0;
        let mut next = None;
        for held in sessions.owned_from(index, from) {
            if done == most {
                next = Some(held.content);
                break;
            }
            let home = self.settings.shard_of_content(held.content);
            self.catalogs.lock(home).refresh(held, &listing);
            done += 1;
        }
        (0..done).for_each(|_| sessions.step());
        (done, next)
    }

    /// Ends an ownership, whose shard is locked.
    pub(super) fn disown(
        &self,
        sessions: &mut Sessions,
        catalog: &mut Catalog,
        index: u32,
        held: Holding,
    ) {
        let content_ended = catalog.disown(held, sessions.host(index));
        self.ownerships.sub();
        if content_ended {
            self.contents.sub();
        }
        sessions.drop_holding(index, held.content);
        sessions.step();
    }

    /// Ends at most `most` ownerships of a peer. Returns how many.
    fn disown_some(&self, sessions: &mut Sessions, index: u32, most: usize) -> usize {
        let mut ended = 0;
        while ended < most
            && let Some(held) = sessions.any_owned(index)
        {
            let home = self.settings.shard_of_content(held.content);
            let mut catalog = self.catalogs.lock(home);
            self.disown(sessions, &mut catalog, index, held);
            ended += 1;
        }
        ended
    }

    /// One step of expiry in one shard: a bounded number of slots and ownerships,
    /// first those of the backlog. If a peer owns more, the rest has its turn in
    /// the next step; its token is invalid already.
    pub(super) fn expire(&self, now: Instant, shard: u32) {
        let mut sessions = self.sessions.lock(shard);
        let mut budget = EXPIRE_BATCH;
        while budget > 0
            && let Some((index, job)) = sessions.due_job(now)
        {
            let done = match job {
                Job::Refresh { from } => {
                    let (done, next) = self.refresh_some(&mut sessions, index, from, budget);
                    sessions.refreshed(index, next);
                    done
                }
                Job::Leave => {
                    let done = self.disown_some(&mut sessions, index, budget);
                    if sessions.owned_len(index) == 0 {
                        sessions.release(index);
                        self.peers.sub();
                    }
                    done
                }
            };
            budget = budget.saturating_sub(done.max(1));
        }
        while let Some(index) = sessions.pop_expired(now, &mut budget) {
            let ended = self.disown_some(&mut sessions, index, budget.max(1));
            budget = budget.saturating_sub(ended);
            if sessions.owned_len(index) > 0 {
                sessions.expire_again(index);
            } else {
                sessions.release_expired(index);
                self.peers.sub();
            }
        }
    }
}
