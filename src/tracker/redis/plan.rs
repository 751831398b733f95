//! How each request is carried out: which scripts are called for it, and what follows from
//! their answers. It knows no connection: calls go out, values come in, until there is a
//! reply. The requests of a batch take their steps together, so that all their calls travel
//! together.
//!
//! | request | round trips | calls of scripts, each one step of the store |
//! |---|---|---|
//! | REGISTER with a token | 1 | `heard` |
//! | REGISTER without one | 1 | `register` |
//! | OWN of n contents | 2, and one more if some are refused | `own`, n times `content_own` |
//! | NEED by id | 1, or 2 behind an OWN | `heard`, `need` |
//! | NEED by name | 2 | `heard`, a look into each shard of contents, `need` |
//! | UPDATE of n owners | 2 | `report`, n times `credit` |
//! | EXIT | 2 | `exit`, one `content_disown` for each content |
//!
//! In a cluster a round trip is one to each node that has keys of the calls, all at once.
//!
//! The commands in a script are a fixed number, whatever the number of owners: 3 in
//! `heard`, 16 in `content_own` at most, 8 in `need` where all owners are equally fast, and
//! three more for each further level of speed.

use std::time::{Duration, Instant};

use redis::Value;

use super::answers::{Chooser, Drawn, LEVELS, Question, SPARE};
use super::schema::{
    CONTENT_SHARDS, Keys, PEER_SHARDS, PeerRef, UNMEASURED, addr_text, entry_of_peer, listen_addr,
};
use super::scripts::{Call, Script};
use super::values::{bytes, number, parts, text};
use crate::content::{ContentId, ContentName, MAX_CONTENT_LEN};
use crate::protocol::limits::MAX_AMBIGUOUS;
use crate::protocol::{
    ContentKey, OwnEntry, OwnState, OwnerRef, Refusal, RefusedEntry, Token, TrackerReply,
    TrackerRequest, Upload,
};
use crate::tracker::batch::Asked;
use crate::tracker::registry::{
    AddressRule, Asker, EntryPermit, ListenAddr, Permits, RegistryConfig, ReplyWriter, Settings,
    TokenIssuer, token, words,
};

/// How long after the first half of an OWN the second one counts: longer than a tracker waits
/// for the store. No longer than a lease, as nothing may be listed of who is forgotten.
pub(super) const OWN_VALID: Duration = Duration::from_secs(12);

/// How long after an EXIT a peer is forgotten: nothing of it can arrive after that.
pub(super) const FAREWELL: Duration = Duration::from_secs(15);

/// For how long it is known that a report was counted: as long as one may be repeated.
const ONCE_KEPT: Duration = Duration::from_secs(600);

/// How often a reference is drawn. That it is taken happens once in a million draws.
const DRAWS: u32 = 4;

/// How many contents a peer ends at once when it leaves. The rest is due with its end.
pub(super) const AT_ONCE: u64 = 128;

/// What all plans use.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) keys: Keys,
    pub(super) settings: Settings,
    pub(super) issuer: TokenIssuer,
    pub(super) chooser: Chooser,
}

/// What is true of the store by now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Present {
    /// What trackers tell as their epoch.
    pub(super) epoch: u64,
    /// When it was founded, in ms.
    pub(super) founded: u64,
    /// How many peers, contents and ownerships there were lately.
    pub(super) totals: [u64; 3],
}

/// What follows from a request beside its reply.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Peers whose contents list them as they were before.
    pub(super) moved: Vec<PeerRef>,
    /// What was drawn of contents.
    pub(super) drawn: Vec<(ContentId, Option<ContentName>, Drawn)>,
}

/// What a plan waits for.
#[derive(Debug)]
enum Step {
    Begin,
    Register {
        peer: PeerRef,
        listed: Option<ListenAddr>,
        draws: u32,
    },
    Heartbeat {
        peer: PeerRef,
        listed: Option<ListenAddr>,
    },
    Also(PeerRef),
    Own(PeerRef),
    OwnContents {
        peer: PeerRef,
        /// The entries that were asked about, with their letters; a denied one has none.
        asked: Vec<(u16, Option<u8>)>,
    },
    OwnDropped,
    /// The asker was heard of, and with the rest there may be the answer.
    Need(PeerRef),
    /// The asker is known, and its content is drawn.
    NeedDrawn(PeerRef, Box<Asker>, ContentId),
    NeedNamed(PeerRef, Box<Asker>),
    NeedLengths(Vec<ContentId>),
    Report(PeerRef),
    Credits(Vec<OwnerRef>),
    Exit(PeerRef),
    ExitContents,
    Done,
}

/// One request on its way.
pub(super) struct Plan<'a> {
    rules: &'a Rules,
    asked: Asked<'a>,
    permits: Permits<'a>,
    /// A random number of its own.
    number: u64,
    /// Whether an OWN before it must be carried out first.
    follows_own: bool,
    step: Step,
    refused: Vec<RefusedEntry>,
    reply: Vec<u8>,
    outcome: Result<(), Refusal>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        rules: &'a Rules,
        asked: Asked<'a>,
        permits: Permits<'a>,
        (number, follows_own): (u64, bool),
    ) -> Self {
        Self {
            rules,
            asked,
            permits,
            number,
            follows_own,
            step: Step::Begin,
            refused: Vec::new(),
            reply: Vec::new(),
            outcome: Ok(()),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    pub(super) fn request(&self) -> &'a TrackerRequest {
        self.asked.request
    }

    pub(super) fn asked(&self) -> Asked<'a> {
        self.asked
    }

    pub(super) fn permits(&self) -> Permits<'a> {
        self.permits
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// How it has ended, and the reply.
    pub(super) fn into_reply(self) -> (Result<(), Refusal>, Vec<u8>) {
        (self.outcome, self.reply)
    }

    /// Ends it with a refusal.
    pub(super) fn refuse(&mut self, refusal: Refusal) -> Vec<Call> {
        self.reply.clear();
        self.end(TrackerReply::Refused(refusal.clone()));
        self.outcome = Err(refusal);
        Vec::new()
    }

    /// Ends it with a reply.
    pub(super) fn end(&mut self, reply: TrackerReply) -> Vec<Call> {
        self.reply.reply(reply);
        self.step = Step::Done;
        Vec::new()
    }

    /// Ends a REGISTER.
    pub(super) fn end_registered(
        &mut self,
        peer: PeerRef,
        epoch: u64,
        listed: Option<&ListenAddr>,
    ) -> Vec<Call> {
        let heartbeat = self.config().heartbeat;
        let token = self.rules.token(peer);
        self.reply.registered(token, epoch, heartbeat, listed);
        self.step = Step::Done;
        Vec::new()
    }

    /// Ends a NEED with owners. Leaves out the asker.
    pub(super) fn end_found(
        &mut self,
        now: Instant,
        (peer, asker): (PeerRef, &Asker),
        (id, drawn): (&ContentId, &Drawn),
        is_left_out: impl Fn(PeerRef) -> bool,
    ) -> Vec<Call> {
        let TrackerRequest::Need {
            key, max_owners, ..
        } = self.asked.request
        else {
            return self.refuse(Refusal::Malformed);
        };
        let question = Question {
            id,
            name: match key {
                ContentKey::Name(name) => Some(name),
                ContentKey::Id(_) => None,
            },
            asker,
            from: (self.asked.source, self.asked.local),
            wanted: self.config().places(*max_owners),
            seed: self.number,
        };
        let left_out = |other| other == peer || is_left_out(other);
        let chooser = &self.rules.chooser;
        match chooser.answer(now, drawn, &question, left_out, &mut self.reply) {
            Ok(()) => {
                self.step = Step::Done;
                Vec::new()
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn config(&self) -> &'a RegistryConfig {
        &self.rules.settings.config
    }

    fn lease(&self) -> u64 {
        millis(self.config().lease())
    }

    /// Takes the answers to the calls of the step before, and makes those of the next. Without
    /// any it is done.
    pub(super) fn step(
        &mut self,
        now: Instant,
        present: &Present,
        answers: &[Value],
        effects: &mut Effects,
    ) -> Vec<Call> {
        match std::mem::replace(&mut self.step, Step::Done) {
            Step::Begin => self.begin(present),
            Step::Register {
                peer,
                listed,
                draws,
            } => self.registered(present, (peer, listed, draws), answers),
            Step::Heartbeat { peer, listed } => match parts(first(answers)) {
                [_, _, moved] => {
                    if number(moved) == Some(1) {
                        effects.moved.push(peer);
                    }
                    self.end_registered(peer, present.epoch, listed.as_ref())
                }
                _ => self.register(present, 0),
            },
            Step::Also(peer) => match parts(first(answers)) {
                [also, moved] => {
                    if number(moved) == Some(1) {
                        effects.moved.push(peer);
                    }
                    let listed = bytes(also).and_then(listen_addr);
                    self.end_registered(peer, present.epoch, listed.as_ref())
                }
                _ => self.refuse(Refusal::UnknownToken),
            },
            Step::Own(peer) => self.owned(peer, present, first(answers)),
            Step::OwnContents { peer, asked } => self.owned_contents(peer, &asked, answers),
            Step::OwnDropped => self.end_own(),
            Step::Need(peer) => self.heard(now, peer, answers, effects),
            Step::NeedDrawn(peer, asker, id) => {
                self.drawn(now, (peer, &asker), id, first(answers), effects)
            }
            Step::NeedNamed(peer, asker) => self.named(peer, asker, answers),
            Step::NeedLengths(ids) => {
                let lengths = ids.iter().zip(answers);
                let bearing = lengths.filter_map(|(id, length)| Some((*id, number(length)?)));
                let bearing: Vec<_> = bearing.take(MAX_AMBIGUOUS).collect();
                match bearing.is_empty() {
                    true => self.refuse(Refusal::UnknownContent),
                    false => self.end(TrackerReply::Ambiguous(bearing)),
                }
            }
            Step::Report(peer) => self.reported(peer, present, first(answers)),
            Step::Credits(owners) => {
                let moved = owners.iter().zip(answers);
                let moved = moved.filter(|(_, answer)| number(answer) == Some(1));
                effects
                    .moved
                    .extend(moved.map(|(owner, _)| PeerRef(owner.0)));
                self.end(TrackerReply::Done)
            }
            Step::Exit(peer) => self.left(peer, answers),
            Step::ExitContents => self.end(TrackerReply::Done),
            Step::Done => Vec::new(),
        }
    }

    fn begin(&mut self, present: &Present) -> Vec<Call> {
        let TrackerRequest::Register { listen, token } = self.asked.request else {
            let token = self.asked.request.token();
            return match token.and_then(|token| self.rules.peer_of(token)) {
                Some(peer) => self.begin_known(peer, present),
                None => self.refuse(Refusal::UnknownToken),
            };
        };
        let Some(peer) = token.as_ref().and_then(|token| self.rules.peer_of(token)) else {
            return self.register(present, 0);
        };
        let (settings, source) = (&self.rules.settings, self.asked.source);
        let listed = match settings.listed(source, listen.as_ref()) {
            Ok(listed) => listed,
            Err(refusal) => return self.refuse(refusal),
        };
        // With a token of another host it counts as a new one.
        let host = match settings.config.addresses {
            AddressRule::SourceHost => settings.host(source).to_string(),
            AddressRule::Any => String::new(),
        };
        let (addr, family) = addr_text(listed.as_ref());
        let call = self.heard_call(peer).arg(host).arg(addr).arg(family);
        self.step = Step::Heartbeat { peer, listed };
        vec![call]
    }

    /// Begins a request with a good token, which is no REGISTER.
    fn begin_known(&mut self, peer: PeerRef, present: &Present) -> Vec<Call> {
        match self.asked.request {
            // What is shared knows no zones, and says so as a tracker of before.
            TrackerRequest::Register { .. } | TrackerRequest::Zone { .. } => {
                self.refuse(Refusal::Malformed)
            }
            TrackerRequest::RegisterAlso { listen, .. } => {
                let settings = &self.rules.settings;
                let listed = match settings.listed(self.asked.source, listen.as_ref()) {
                    Ok(listed) => listed,
                    Err(refusal) => return self.refuse(refusal),
                };
                let (addr, family) = addr_text(listed.as_ref());
                self.step = Step::Also(peer);
                let call = Call::new(Script::Also, &[self.rules.keys.peer(peer)]);
                vec![call.arg(addr).arg(family).number(self.lease())]
            }
            TrackerRequest::Own { entries, .. } => self.begin_own(peer, entries, present),
            TrackerRequest::Need { key, .. } => {
                let mut calls = vec![self.heard_call(peer)];
                if !self.follows_own {
                    calls.extend(self.calls_of_need(key));
                }
                self.step = Step::Need(peer);
                calls
            }
            TrackerRequest::Update { uploads, .. } => {
                let keys = &self.rules.keys;
                let others = uploads.iter().filter(|upload| is_of_other(upload, peer));
                let sum = others.fold(0, |sum: u64, upload| sum.saturating_add(upload.bytes));
                let report = [
                    keys.peer(peer),
                    keys.of_peers(peer.shard(), "due"),
                    keys.of_peers(peer.shard(), "hosts"),
                    keys.of_peers(peer.shard(), "spent"),
                    keys.once(peer, self.number),
                ];
                let call = Call::new(Script::Report, &report).arg(peer.text());
                let call = call.number(self.lease()).number(sum);
                let call = call.number(self.config().max_credit_rate);
                self.step = Step::Report(peer);
                vec![call.number(millis(ONCE_KEPT))]
            }
            TrackerRequest::Exit { .. } => {
                let keys = &self.rules.keys;
                let exit = [
                    keys.peer(peer),
                    keys.of_peers(peer.shard(), "due"),
                    keys.of_peers(peer.shard(), "hosts"),
                ];
                let call = Call::new(Script::Exit, &exit).arg(peer.text());
                let some = Call::command("SRANDMEMBER", &keys.own(peer));
                self.step = Step::Exit(peer);
                vec![call.number(millis(FAREWELL)), some.number(AT_ONCE)]
            }
        }
    }

    fn heard_call(&self, peer: PeerRef) -> Call {
        let keys = &self.rules.keys;
        let keys = [keys.peer(peer), keys.of_peers(peer.shard(), "due")];
        let call = Call::new(Script::Heard, &keys).arg(peer.text());
        call.number(self.lease())
    }

    /// Draws a reference for a new peer, if there is room.
    fn register(&mut self, present: &Present, draws: u32) -> Vec<Call> {
        let TrackerRequest::Register { listen, .. } = self.asked.request else {
            return self.refuse(Refusal::UnknownToken);
        };
        let (settings, source) = (&self.rules.settings, self.asked.source);
        let listed = match settings.listed(source, listen.as_ref()) {
            Ok(listed) => listed,
            Err(refusal) => return self.refuse(refusal),
        };
        let config = self.config();
        let max = config.max_peers;
        if present.totals[0] >= max.into() {
            return self.refuse(Refusal::Peers { max });
        }
        if draws == DRAWS {
            return self.refuse(Refusal::Busy);
        }
        let host = settings.host(source);
        let random = fastrand::Rng::with_seed(self.number.wrapping_add(draws.into())).u64(..);
        let peer = PeerRef::of(random, settings.shard_of_host(host));
        let keys = &self.rules.keys;
        let keys = [
            keys.peer(peer),
            keys.of_peers(peer.shard(), "due"),
            keys.of_peers(peer.shard(), "hosts"),
        ];
        let (addr, family) = addr_text(listed.as_ref());
        let call = Call::new(Script::Register, &keys).arg(peer.text());
        let call = call.number(self.lease()).number(host.into());
        let call = call.arg(addr).arg(family);
        self.step = Step::Register {
            peer,
            listed,
            draws: draws + 1,
        };
        vec![call.number(config.max_peers_per_host.into())]
    }

    fn registered(
        &mut self,
        present: &Present,
        (peer, listed, draws): (PeerRef, Option<ListenAddr>, u32),
        answers: &[Value],
    ) -> Vec<Call> {
        match text(first(answers)) {
            Some("ok") => self.end_registered(peer, present.epoch, listed.as_ref()),
            Some("taken") => self.register(present, draws),
            _ => {
                let max = self.config().max_peers_per_host;
                self.refuse(Refusal::PeersPerHost { max })
            }
        }
    }

    fn begin_own(&mut self, peer: PeerRef, entries: &[OwnEntry], present: &Present) -> Vec<Call> {
        self.step = Step::Own(peer);
        let (keys, config) = (&self.rules.keys, self.config());
        let keys = [
            keys.peer(peer),
            keys.own(peer),
            keys.of_peers(peer.shard(), "due"),
            keys.of_peers(peer.shard(), "extra"),
            keys.of_peers(peer.shard(), "sum"),
        ];
        let call = Call::new(Script::Own, &keys).arg(peer.text());
        let call = call.number(self.lease());
        let call = call.number(config.max_contents_per_peer.into());
        let call = call.number(config.max_ownerships_per_host.into());
        let mut call = call.number(config.max_contents_per_host.into());
        let has_room = present.totals[2] < config.max_ownerships.into();
        call = call.arg(if has_room { "1" } else { "0" });
        for (at, entry) in (0..).zip(entries) {
            if let Ok(sign) = self.sign_of(at, entry) {
                call = call.arg(sign).arg(entry.id.as_bytes());
            }
        }
        vec![call]
    }

    /// Whether the peer's side is to be told that it owns a content, or that it does not; or
    /// why it is told nothing.
    fn sign_of(&self, at: u16, entry: &OwnEntry) -> Result<&'static str, Refusal> {
        match self.permits.entry(at) {
            EntryPermit::Denied => Err(Refusal::Denied),
            EntryPermit::Unsure => Err(Refusal::Busy),
            EntryPermit::Given if entry.state == OwnState::Gone => Ok("-"),
            EntryPermit::Given if entry.length > MAX_CONTENT_LEN => Err(Refusal::Malformed),
            EntryPermit::Given => Ok("+"),
        }
    }

    fn owned(&mut self, peer: PeerRef, present: &Present, answer: &Value) -> Vec<Call> {
        let TrackerRequest::Own { entries, .. } = self.asked.request else {
            return self.refuse(Refusal::Malformed);
        };
        let [addr, also, score, revision, now, letters] = parts(answer) else {
            return self.refuse(Refusal::UnknownToken);
        };
        let (Some(addr), Some(also), Some(letters)) = (bytes(addr), bytes(also), bytes(letters))
        else {
            return self.refuse(Refusal::Busy);
        };
        let of_peer = entry_of_peer(number(revision).unwrap_or(0), addr, also);
        let score = match (addr, text(score)) {
            ([], _) => String::new(),
            (_, None | Some("")) => UNMEASURED.to_string(),
            (_, Some(score)) => score.to_owned(),
        };
        let until = number(now).unwrap_or(0) + millis(OWN_VALID).min(self.lease());
        let (config, reference) = (self.config(), peer.text());
        let mut letters = letters.iter();
        let (mut asked, mut calls) = (Vec::new(), Vec::new());
        for (at, entry) in (0..).zip(entries) {
            let keys = self.rules.keys.all_of_content(&entry.id);
            let end = |id: &ContentId| {
                let call = Call::new(Script::ContentDisown, &keys).arg(&reference);
                call.arg(id.to_string())
            };
            let letter = match self.sign_of(at, entry) {
                Ok(_) => letters.next().copied().unwrap_or(b't'),
                Err(refusal) => {
                    if refusal == Refusal::Denied {
                        let is_kept = (0..).zip(entries).any(|(at, other): (u16, _)| {
                            other.id == entry.id && self.permits.entry(at) == EntryPermit::Given
                        });
                        let kept = if is_kept { "1" } else { "0" };
                        asked.push((at, None));
                        calls.push(end(&entry.id).arg(entry.name.as_str()).arg(kept));
                    }
                    self.refused.push(RefusedEntry { at, refusal });
                    continue;
                }
            };
            let refusal = match letter {
                b'-' => {
                    asked.push((at, Some(letter)));
                    calls.push(end(&entry.id));
                    continue;
                }
                b'p' => Refusal::ContentsPerPeer {
                    max: config.max_contents_per_peer,
                },
                b'h' => Refusal::OwnershipsPerHost {
                    max: config.max_ownerships_per_host,
                },
                b't' => Refusal::Ownerships {
                    max: config.max_ownerships,
                },
                _ => {
                    let has_room = present.totals[1] < config.max_contents.into();
                    let may_be_new = letter != b'o' && has_room;
                    let complete = entry.state == OwnState::Complete;
                    let call = Call::new(Script::ContentOwn, &keys).arg(&reference);
                    let call = call.number(until).arg(if complete { "1" } else { "0" });
                    let call = call.arg(&of_peer).arg(&score).number(entry.length);
                    let call = call.arg(entry.name.as_str()).arg(entry.id.to_string());
                    let call = call.number(config.max_owners_per_content.into());
                    let call = call.number(config.max_names_per_content.into());
                    let call = call.number(config.names_of_owner().into());
                    let call = call.number(bearers_per_shard(config).into());
                    asked.push((at, Some(letter)));
                    calls.push(call.arg(if may_be_new { "1" } else { "0" }));
                    continue;
                }
            };
            self.refused.push(RefusedEntry { at, refusal });
        }
        self.step = Step::OwnContents { peer, asked };
        match calls.is_empty() {
            true => self.end_own(),
            false => calls,
        }
    }

    fn owned_contents(
        &mut self,
        peer: PeerRef,
        asked: &[(u16, Option<u8>)],
        answers: &[Value],
    ) -> Vec<Call> {
        let TrackerRequest::Own { entries, .. } = self.asked.request else {
            return self.refuse(Refusal::Malformed);
        };
        let config = self.config();
        let mut dropped = Vec::new();
        for (&(at, letter), answer) in asked.iter().zip(answers) {
            let id = entries[usize::from(at)].id;
            let Some(letter) = letter else {
                if number(answer) == Some(1) {
                    dropped.push(id);
                }
                continue;
            };
            if letter == b'-' {
                continue;
            }
            let (refusal, is_owned) = match text(answer) {
                Some("ok") => continue,
                Some("names") => {
                    let max = config.names_of_owner();
                    (Refusal::NamesPerContent { max }, true)
                }
                Some("bearers") => {
                    let max = config.max_contents_per_name;
                    (Refusal::ContentsPerName { max }, true)
                }
                Some("owners") => {
                    let max = config.max_owners_per_content;
                    (Refusal::OwnersPerContent { max }, false)
                }
                Some("new") if letter == b'o' => {
                    let max = config.max_contents_per_host;
                    (Refusal::ContentsPerHost { max }, false)
                }
                Some("new") => {
                    let max = config.max_contents;
                    (Refusal::Contents { max }, false)
                }
                // Too late, or not understood: it comes again.
                _ => (Refusal::Busy, letter == b'='),
            };
            if !is_owned {
                dropped.push(id);
            }
            self.refused.push(RefusedEntry { at, refusal });
        }
        if dropped.is_empty() {
            return self.end_own();
        }
        self.step = Step::OwnDropped;
        vec![self.rules.drop_call(peer, &dropped)]
    }

    fn end_own(&mut self) -> Vec<Call> {
        let mut refused = std::mem::take(&mut self.refused);
        if refused.is_empty() {
            return self.end(TrackerReply::Done);
        }
        refused.sort_by_key(|refused| refused.at);
        self.refused.clone_from(&refused);
        self.end(TrackerReply::Partly(refused))
    }

    /// The refusals of its entries, for those who count them.
    pub(super) fn refused_entries(&self) -> &[RefusedEntry] {
        &self.refused
    }

    fn calls_of_need(&self, key: &ContentKey) -> Vec<Call> {
        match key {
            ContentKey::Id(id) => vec![self.draw_call(id)],
            ContentKey::Name(name) => self.rules.calls_by_name(name),
        }
    }

    fn draw_call(&self, id: &ContentId) -> Call {
        let TrackerRequest::Need { max_owners, .. } = self.asked.request else {
            return self.rules.draw_call(id, (0, 0), 0);
        };
        let wanted = self.config().places(*max_owners);
        self.rules.draw_call(id, wanted, self.number)
    }

    fn heard(
        &mut self,
        now: Instant,
        peer: PeerRef,
        answers: &[Value],
        effects: &mut Effects,
    ) -> Vec<Call> {
        let TrackerRequest::Need { key, .. } = self.asked.request else {
            return self.refuse(Refusal::Malformed);
        };
        let [addr, also, _] = parts(first(answers)) else {
            return self.refuse(Refusal::UnknownToken);
        };
        let asker = Asker {
            listens: bytes(addr).and_then(listen_addr),
            has_both: bytes(also).is_some_and(|also| !also.is_empty()),
            zone: None,
        };
        let rest = answers.get(1..).unwrap_or_default();
        match key {
            ContentKey::Id(id) if rest.is_empty() => {
                self.step = Step::NeedDrawn(peer, Box::new(asker), *id);
                vec![self.draw_call(id)]
            }
            ContentKey::Id(id) => self.drawn(now, (peer, &asker), *id, first(rest), effects),
            ContentKey::Name(_) if rest.is_empty() => {
                self.step = Step::NeedNamed(peer, Box::new(asker));
                self.calls_of_need(key)
            }
            ContentKey::Name(_) => self.named(peer, Box::new(asker), rest),
        }
    }

    /// The contents of a name.
    fn named(&mut self, peer: PeerRef, asker: Box<Asker>, answers: &[Value]) -> Vec<Call> {
        let mut ids = ids_of_name(answers);
        ids.retain(|id| self.permits.content(id));
        match ids.as_slice() {
            [] => self.refuse(Refusal::UnknownContent),
            [id] => {
                self.step = Step::NeedDrawn(peer, asker, *id);
                vec![self.draw_call(id)]
            }
            _ => {
                ids.truncate(MAX_AMBIGUOUS);
                let keys = &self.rules.keys;
                let length = |id| Call::command("HGET", &keys.content(id, "")).arg("length");
                let calls = ids.iter().map(length).collect();
                self.step = Step::NeedLengths(ids);
                calls
            }
        }
    }

    fn drawn(
        &mut self,
        now: Instant,
        asker: (PeerRef, &Asker),
        id: ContentId,
        answer: &Value,
        effects: &mut Effects,
    ) -> Vec<Call> {
        let drawn = Drawn::parse(answer).filter(|_| self.permits.content(&id));
        let Some(drawn) = drawn else {
            return self.refuse(Refusal::UnknownContent);
        };
        let calls = self.end_found(now, asker, (&id, &drawn), |_| false);
        let name = match self.asked.request {
            TrackerRequest::Need {
                key: ContentKey::Name(name),
                ..
            } => Some(name.clone()),
            _ => None,
        };
        effects.drawn.push((id, name, drawn));
        calls
    }

    fn reported(&mut self, peer: PeerRef, present: &Present, answer: &Value) -> Vec<Call> {
        let TrackerRequest::Update { uploads, .. } = self.asked.request else {
            return self.refuse(Refusal::Malformed);
        };
        let Some(mut left) = number(answer) else {
            return self.refuse(Refusal::UnknownToken);
        };
        let (mut owners, mut calls) = (Vec::new(), Vec::new());
        let others = (1..)
            .zip(uploads)
            .filter(|(_, upload)| is_of_other(upload, peer));
        for (at, upload) in others {
            let counted = upload.bytes.min(left);
            left -= counted;
            let owner = PeerRef(upload.owner.0);
            if counted == 0 || PeerRef::parse(owner.text().as_bytes()).is_none() {
                continue;
            }
            let keys = &self.rules.keys;
            let once = keys.once(owner, self.number.wrapping_add(at));
            let call = Call::new(Script::Credit, &[keys.peer(owner), once]).number(counted);
            let half_life = self.config().half_life.as_secs_f64().max(0.001);
            let call = call.arg(half_life.to_string()).number(present.founded);
            calls.push(call.number(millis(ONCE_KEPT)));
            owners.push(upload.owner);
        }
        self.step = Step::Credits(owners);
        match calls.is_empty() {
            true => self.end(TrackerReply::Done),
            false => calls,
        }
    }

    fn left(&mut self, peer: PeerRef, answers: &[Value]) -> Vec<Call> {
        let [known, some] = answers else {
            return self.refuse(Refusal::Busy);
        };
        if number(known) != Some(1) {
            return self.refuse(Refusal::UnknownToken);
        }
        let ids = parts(some).iter().filter_map(id_of);
        let calls: Vec<Call> = ids.map(|id| self.rules.disown_call(peer, &id)).collect();
        self.step = Step::ExitContents;
        match calls.is_empty() {
            true => self.end(TrackerReply::Done),
            false => calls,
        }
    }
}

impl Rules {
    /// The token of a peer.
    pub(super) fn token(&self, peer: PeerRef) -> Token {
        let proof = self.issuer.proof(peer.number(), peer.generation());
        token(peer.number(), peer.generation(), proof)
    }

    /// The peer of a token that was made with the key of the store.
    pub(super) fn peer_of(&self, token: &Token) -> Option<PeerRef> {
        let [number, generation, low, high] = words(token);
        let proof = self.issuer.proof(number, generation);
        // This takes the same time wherever the proof differs.
        let is_proven = (low ^ proof[0]) | (high ^ proof[1]) == 0;
        let peer = PeerRef::of_parts(number, generation);
        peer.filter(|peer| is_proven && peer.shard() < PEER_SHARDS)
    }

    /// Ends what a peer owns of a content.
    pub(super) fn disown_call(&self, peer: PeerRef, id: &ContentId) -> Call {
        let call = Call::new(Script::ContentDisown, &self.keys.all_of_content(id));
        call.arg(peer.text()).arg(id.to_string())
    }

    /// Has the peer's side know that a content lists it.
    pub(super) fn adopt_call(&self, peer: PeerRef, id: &ContentId) -> Call {
        let keys = [
            self.keys.peer(peer),
            self.keys.own(peer),
            self.keys.of_peers(peer.shard(), "extra"),
            self.keys.of_peers(peer.shard(), "sum"),
        ];
        Call::new(Script::Adopt, &keys).arg(id.as_bytes())
    }

    /// Ends what a peer owns at the peer's side, of several contents.
    pub(super) fn drop_call(&self, peer: PeerRef, ids: &[ContentId]) -> Call {
        let (keys, shard) = (&self.keys, peer.shard());
        let keys = [
            keys.peer(peer),
            keys.own(peer),
            keys.of_peers(shard, "due"),
            keys.of_peers(shard, "hosts"),
            keys.of_peers(shard, "extra"),
            keys.of_peers(shard, "spent"),
            keys.of_peers(shard, "sum"),
        ];
        let call = Call::new(Script::Drop, &keys).arg(peer.text());
        ids.iter().fold(call, |call, id| call.arg(id.as_bytes()))
    }

    /// Draws owners of a content.
    pub(super) fn draw_call(&self, id: &ContentId, wanted: (usize, usize), seed: u64) -> Call {
        let keys = &self.keys;
        let keys = [
            keys.content(id, ""),
            keys.content(id, ":rate"),
            keys.content(id, ":own"),
            keys.content(id, ":names"),
        ];
        let call = Call::new(Script::Need, &keys);
        let fast = match wanted.0 {
            0 => 0,
            fast => fast + SPARE,
        };
        let call = call.number(fast as u64).number(wanted.1 as u64);
        // A number that Lua can count with.
        call.number(seed >> u32::BITS).number(LEVELS)
    }

    /// Looks for the contents of a name in each shard.
    pub(super) fn calls_by_name(&self, name: &ContentName) -> Vec<Call> {
        let look = |shard| {
            let mut from = format!("[{name}/").into_bytes();
            let call = Call::command("ZRANGEBYLEX", &self.keys.of_contents(shard, "names"));
            let call = call.arg(&from);
            from.push(u8::MAX);
            let call = call.arg(&from).arg("LIMIT").number(0);
            call.number(MAX_AMBIGUOUS as u64)
        };
        (0..CONTENT_SHARDS).map(look).collect()
    }
}

/// The contents that were found by a name.
pub(super) fn ids_of_name(answers: &[Value]) -> Vec<ContentId> {
    let members = answers.iter().flat_map(parts);
    let ids = members.filter_map(|member| text(member)?.rsplit_once('/')?.1.parse().ok());
    ids.collect()
}

/// An id, as the peers' side has it.
pub(super) fn id_of(value: &Value) -> Option<ContentId> {
    let id: [u8; 32] = bytes(value)?.try_into().ok()?;
    Some(ContentId::from_bytes(id))
}

fn is_of_other(upload: &Upload, peer: PeerRef) -> bool {
    upload.owner.0 != peer.0
}

/// How many contents of one name a shard takes. Ids are spread over the shards by chance, so
/// twice an even share.
fn bearers_per_shard(config: &RegistryConfig) -> u32 {
    (2 * config.max_contents_per_name).div_ceil(CONTENT_SHARDS)
}

fn first(answers: &[Value]) -> &Value {
    answers.first().unwrap_or(&Value::Nil)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
