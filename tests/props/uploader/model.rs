//! A naive model of an uploader: what each link waits for, has on its way and
//! tells of, what each host had, and the rules of turns. It looks at everything
//! each time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::LinkId;
use bt_lite::protocol::HostKey;
use bt_lite::testing::machine::Turn;

use super::script::{BLOCK, CHUNK, LIMITS, SEED};
use super::trials::{FIRST_TRIALS, TRIAL, Trial, Trials};

/// How long an invited link is waited for.
const ANSWER: Duration = Duration::from_millis(100);

/// How long the other links must have wanted nothing before those that come
/// last are served, if no rate is known.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Receiver {
    pub(super) waiting: VecDeque<BlockRange>,
    pub(super) under_way: VecDeque<u64>,
    pub(super) sent: u64,
    /// Bytes sent that it has not told of, and that it has told of.
    pub(super) untold: u64,
    told: u64,
    /// Since when it has not told of a whole chunk; and since when it is here, if
    /// its host owed one before.
    pub(super) mute: Option<Instant>,
    debt: Option<Instant>,
    /// It counts as one that never tells.
    pub(super) old: bool,
    pub(super) trial: Trial,
    /// Bytes of this turn.
    pub(super) turn: u64,
    /// It was given its turn, and does not only ask because every new link may.
    pub(super) given: bool,
    /// Since when its first request is waited for.
    pub(super) invited: Option<Instant>,
    pub(super) has: u32,
    pub(super) lacks: u32,
    pub(super) declined: bool,
    pub(super) choked: bool,
    pub(super) moved: Option<Instant>,
    host: Option<HostKey>,
}

/// What a host was sent, and has not told of.
#[derive(Debug)]
pub(super) struct Account {
    host: HostKey,
    links: u32,
    untold: u64,
    sent: f64,
    /// A link let its turn pass, and no link of the host has asked since.
    pub(super) passed: bool,
}

/// All links, and what their hosts owe.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) links: BTreeMap<u64, Receiver>,
    accounts: Vec<Account>,
    /// What one host was entitled to, in bytes.
    share: f64,
    trials: Trials,
    /// Since when only links that come last want anything.
    calm_since: Option<Instant>,
    /// What the last look found.
    mood: Mood,
}

/// What decides which links may have a turn at present.
#[derive(Debug, Default, Clone, Copy)]
struct Mood {
    calm: bool,
    may_try: bool,
}

/// The order in which links are served, the least first.
type Rank = (bool, u64, u64);

impl Model {
    pub(super) fn account_mut(&mut self, link: u64) -> &mut Account {
        let host = self.links[&link].host.clone();
        let account = self
            .accounts
            .iter_mut()
            .find(|a| Some(&a.host) == host.as_ref());
        account.expect("it has a link")
    }

    pub(super) fn account(&self, link: u64) -> &Account {
        let host = self.links[&link].host.as_ref();
        let account = self.accounts.iter().find(|a| Some(&a.host) == host);
        account.expect("it has a link")
    }

    pub(super) fn add(&mut self, now: Instant, link: u64, host: &HostKey) {
        let receiver = Receiver {
            host: Some(host.clone()),
            ..Receiver::default()
        };
        self.links.insert(link, receiver);
        if !self.accounts.iter().any(|a| a.host == *host) {
            let account = Account {
                host: host.clone(),
                links: 0,
                untold: 0,
                sent: self.share,
                passed: false,
            };
            // It replaces a host that is gone, owes nothing and had no more than its
            // share.
            let share = self.share;
            let gone = self.accounts.iter_mut();
            let mut gone = gone.filter(|a| a.links == 0 && a.untold == 0 && a.sent <= share);
            match gone.next() {
                Some(gone) => *gone = account,
                None => self.accounts.push(account),
            }
        }
        let account = self.account_mut(link);
        account.links += 1;
        // Several links of a host are not blamed for each other.
        let owes = account.links == 1 && account.untold >= CHUNK;
        let receiver = self.links.get_mut(&link).expect("it is there");
        receiver.debt = owes.then_some(now);
    }

    pub(super) fn has(&mut self, link: u64, has: u32, lacks: u32) {
        let Some(receiver) = self.links.get_mut(&link) else {
            return;
        };
        let pays = receiver.has == 0 && receiver.sent == 0 && has > 0;
        if has > 0 && std::mem::take(&mut receiver.trial) != Trial::None {
            self.trials.told();
        }
        (receiver.has, receiver.lacks) = (has, lacks);
        if pays {
            // It got that on an earlier link of its host.
            receiver.debt = None;
            let account = self.account_mut(link);
            account.untold = account.untold.saturating_sub(CHUNK * u64::from(has));
        }
    }

    pub(super) fn remove(&mut self, now: Instant, link: u64) {
        if let Some(receiver) = self.links.get(&link) {
            let untold = receiver.untold;
            if let Trial::Began(began) = receiver.trial {
                self.trials.lapsed(now, began);
            }
            let account = self.account_mut(link);
            account.links -= 1;
            account.untold += untold;
            self.links.remove(&link);
        }
    }

    pub(super) fn sent(&mut self, now: Instant, link: u64, bytes: u64) {
        let wanting = self.links.values().filter(|r| r.wants());
        let hosts: BTreeSet<_> = wanting.map(|r| r.host.clone()).collect();
        self.share += bytes as f64 / hosts.len().max(1) as f64;
        let share = self.share;
        let account = self.account_mut(link);
        account.sent = (account.sent + bytes as f64).max(share);
        let receiver = self.links.get_mut(&link).expect("it is there");
        receiver.sent += bytes;
        receiver.untold += bytes;
        if receiver.untold >= CHUNK {
            receiver.mute.get_or_insert(now);
        }
        receiver.moved = Some(now);
    }

    pub(super) fn gained(&mut self, link: u64, here: bool) {
        if let Some(receiver) = self.links.get_mut(&link) {
            receiver.has += 1;
            if std::mem::take(&mut receiver.trial) != Trial::None {
                self.trials.told();
            }
            (receiver.mute, receiver.debt) = (None, None);
            receiver.lacks = receiver.lacks.saturating_sub(here.into());
            // First what this link owes, then what earlier links owe.
            let of_link = receiver.untold.min(CHUNK);
            receiver.untold -= of_link;
            receiver.told += of_link;
            let account = self.account_mut(link);
            account.untold = account.untold.saturating_sub(CHUNK - of_link);
        }
    }

    /// Whether a link owes one chunk more than it told of.
    pub(super) fn is_silent(&self, link: u64) -> bool {
        let receiver = &self.links[&link];
        let account = self.account(link);
        let earlier = if account.links > 1 { 0 } else { account.untold };
        let owes = receiver.untold + earlier;
        owes >= CHUNK + receiver.told
    }

    /// Whether a link's host had two chunks more than its share, by several links.
    pub(super) fn is_ahead(&self, link: u64) -> bool {
        let account = self.account(link);
        account.links > 1 && account.sent - self.share > (2 * CHUNK) as f64
    }

    pub(super) fn rank(&self, link: u64) -> Rank {
        let receiver = &self.links[&link];
        let given = receiver.sent + receiver.bytes();
        let has = u64::from(receiver.has).max(given / CHUNK);
        // Beyond its share and two chunks, half as often as there are hosts.
        let ahead = (self.account(link).sent - self.share) / CHUNK as f64 - 2.0;
        let hosts = self.accounts.iter().filter(|a| a.links > 0).count();
        let has = has.max((ahead * hosts as f64 * 0.5) as u64);
        (self.is_silent(link) || self.is_ahead(link), has, given)
    }

    /// Whether a link that tells of what it gets lacks something. As long as one
    /// does, the others have no turn.
    pub(super) fn others_lack(&self) -> bool {
        let mut lacking = self.links.iter().filter(|(_, r)| r.lacks > 0);
        lacking.any(|(&link, _)| !self.is_silent(link))
    }

    /// Links that want something and may have a turn.
    pub(super) fn wanting(&self) -> impl Iterator<Item = (u64, &Receiver)> {
        let others_lack = self.others_lack();
        let wanting = self.links.iter().filter(|(_, r)| r.wants());
        let wanting = wanting.map(|(&link, receiver)| (link, receiver));
        wanting.filter(move |(link, _)| !(others_lack && self.is_silent(*link)))
    }

    pub(super) fn under_way(&self) -> u64 {
        self.links.values().map(Receiver::bytes).sum()
    }

    /// Bytes before links that do not read, and when the first of them stopped.
    pub(super) fn stalled(&self, now: Instant) -> (u64, Option<Instant>) {
        let stalled = self.links.values().filter(|r| r.is_stalled(now));
        let bytes = stalled.clone().map(Receiver::bytes).sum();
        (bytes, stalled.filter_map(|r| r.moved).min())
    }

    /// Whether links that do not read hold up others.
    pub(super) fn is_held_up(&self, now: Instant) -> bool {
        let waits = self.links.values().any(|r| !r.waiting.is_empty());
        let stalled = self.stalled(now).0;
        waits && self.under_way() >= LIMITS.window && 2 * stalled >= LIMITS.window
    }

    // The rules of turns.

    /// A link's place among those that want something. Its lot, which no other
    /// link has, decides last.
    fn place(&self, link: u64) -> (bool, Rank, u64) {
        let receiver = &self.links[&link];
        let blank = receiver.has == 0;
        let lot = (link ^ SEED).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (blank && receiver.old, self.rank(link), lot)
    }

    /// Whether a link comes after all others, however long it waits.
    fn is_last(&self, link: u64, has_room: bool) -> bool {
        self.is_ahead(link) || self.links[&link].has == 0 && !has_room
    }

    /// Whether only links that come last want something, and have for long
    /// enough.
    fn note_calm(&mut self, now: Instant, has_room: bool) -> bool {
        let mut links = self.links.iter();
        let waits = links.any(|(&link, r)| r.wants() && self.is_last(link, has_room));
        let mut links = self.links.iter();
        let busy = |r: &Receiver| r.wants() || r.bytes() > 0;
        let others = links.any(|(&link, r)| busy(r) && !self.is_last(link, has_room));
        self.calm_since = match self.calm_since {
            _ if !waits => None,
            Some(since) if !others => Some(since),
            _ => Some(now),
        };
        self.calm_since.is_some_and(|since| since + PAUSE <= now)
    }

    /// Until when each link on trial keeps others like it waiting. Those that were
    /// waited for long enough lapse.
    fn trials(&mut self, now: Instant) -> Vec<Instant> {
        let mut ends = Vec::new();
        for receiver in self.links.values_mut() {
            let Trial::Began(began) = receiver.trial else {
                continue;
            };
            let end = receiver.mute.or(receiver.moved).unwrap_or(began) + TRIAL;
            if end > now {
                ends.push(end);
            } else {
                receiver.trial = Trial::Lapsed;
                self.trials.lapsed(now, began);
            }
        }
        ends
    }

    fn look(&mut self, now: Instant) -> Mood {
        let under_way = self.trials(now).len();
        let has_room = self.trials.has_room(now, under_way);
        let calm = self.note_calm(now, has_room);
        Mood {
            calm,
            may_try: has_room || calm && under_way < FIRST_TRIALS,
        }
    }

    fn waits(&self, link: u64, mood: Mood) -> bool {
        let blank = self.links[&link].has == 0;
        self.is_ahead(link) && !mood.calm || blank && !mood.may_try
    }

    /// Whether a link's turn ends at once: others lack something, and it does not
    /// tell of what it gets, or is new and has to wait.
    fn is_turned_away(&self, link: u64, mood: Mood) -> bool {
        let receiver = &self.links[&link];
        let unused = receiver.turn == 0 && receiver.bytes() == 0;
        let waits = unused && !receiver.given && self.waits(link, mood);
        receiver.wants() && self.others_lack() && (waits || self.is_silent(link))
    }

    /// Invited links that did not answer let their turn pass. Returns the links
    /// that are waited for: those of hosts that used their last turn.
    fn lapse(&mut self, now: Instant, mood: Mood) -> Vec<u64> {
        let mut expected = Vec::new();
        let links: Vec<u64> = self.links.keys().copied().collect();
        let turned_away = links.iter().map(|&link| self.is_turned_away(link, mood));
        let turned_away: Vec<bool> = turned_away.collect();
        for (link, turned_away) in links.into_iter().zip(turned_away) {
            let receiver = self.links.get_mut(&link).expect("it is there");
            if !receiver.wants() {
                receiver.invited = None;
            } else if !turned_away && receiver.is_invited() {
                let since = *receiver.invited.get_or_insert(now);
                if since + ANSWER <= now {
                    (receiver.invited, receiver.declined) = (None, true);
                    self.account_mut(link).passed = true;
                } else if !self.account(link).passed {
                    expected.push(link);
                }
            }
        }
        expected
    }

    fn choke(&mut self, link: u64) -> Turn {
        let receiver = self.links.get_mut(&link).expect("it is there");
        (receiver.choked, receiver.invited) = (true, None);
        let rejected = receiver.waiting.drain(..).collect();
        let link = LinkId(link);
        Turn::Choke { link, rejected }
    }

    fn begin_turn(&mut self, link: u64) {
        let receiver = self.links.get_mut(&link).expect("it is there");
        (receiver.choked, receiver.turn, receiver.given) = (false, 0, true);
    }

    /// Whose turn begins or ends next.
    pub(super) fn next_turn(&mut self, now: Instant) -> Option<Turn> {
        loop {
            let mood = self.look(now);
            self.mood = mood;
            let expected = self.lapse(now, mood);
            let mut unchoked = self.links.iter().filter(|(_, r)| !r.choked);
            let silent = unchoked.rfind(|(link, _)| self.is_turned_away(**link, mood));
            if let Some((&silent, _)) = silent {
                return Some(self.choke(silent));
            }
            let wanting: Vec<u64> = self.wanting().map(|(link, _)| link).collect();
            let crowded = wanting.len() > LIMITS.slots;
            let (choked, asking): (Vec<u64>, Vec<u64>) =
                wanting.iter().partition(|link| self.links[link].choked);
            let choked = choked.into_iter();
            let next = choked.filter(|&link| !self.waits(link, mood));
            let next = next.min_by_key(|&link| self.place(link));
            let (spent, open): (Vec<u64>, Vec<u64>) = asking
                .iter()
                .partition(|link| self.links[link].turn >= CHUNK);
            let spent = spent.into_iter().max_by_key(|&link| self.place(link));
            let open: Vec<u64> = open
                .into_iter()
                .filter(|link| self.links[link].bytes() < self.links[link].window())
                .collect();
            let waits = |link: &u64| -> u64 {
                let waiting = self.links[link].waiting.iter();
                waiting.map(|block| u64::from(block.len)).sum()
            };
            let ready: u64 = open.iter().map(waits).sum();
            let invited = |link: &u64| self.links[link].is_invited();
            let starved = ready < BLOCK && expected.is_empty();
            if let Some(spent) = spent {
                // Between equals it goes on to the other, whatever their lots.
                let rank = |link: u64| {
                    let (is_last, rank, _lot) = self.place(link);
                    (is_last, rank)
                };
                if crowded && next.is_some_and(|next| rank(next) <= rank(spent)) {
                    return Some(self.choke(spent));
                }
                if starved || !crowded {
                    self.begin_turn(spent);
                    continue;
                }
            }
            if let Some(next) = next.filter(|_| starved || !crowded) {
                self.begin_turn(next);
                return Some(Turn::Unchoke { link: LinkId(next) });
            }
            let unused = open.iter().copied().filter(|link| {
                let receiver = &self.links[link];
                crowded && receiver.turn == 0 && receiver.bytes() == 0
            });
            let unused = unused.max_by_key(|&link| self.place(link))?;
            let others_wait = ready - waits(&unused) >= BLOCK;
            let others_answer = invited(&unused) && expected.len() > 1;
            return (others_wait || others_answer).then(|| self.choke(unused));
        }
    }

    /// When turns may change, if nothing happens before.
    pub(super) fn looks_again(&mut self, now: Instant) -> Option<Instant> {
        // A question is no look: an invited link may have let its turn pass in the last one.
        let may_try = self.mood.may_try;
        let trials = self.trials(now).into_iter();
        let invited = self.wanting().filter(|(_, r)| r.is_invited());
        let lapses = invited.filter_map(|(_, r)| Some(r.invited? + ANSWER));
        let calm = self.calm_since.map(|since| since + PAUSE);
        let pause = self.trials.pause_ends(now);
        let trial = trials.chain(pause).min().filter(|_| !may_try);
        let calm = calm.filter(|calm| *calm > now);
        lapses.chain(calm).chain(trial).min()
    }
}

impl Receiver {
    pub(super) fn bytes(&self) -> u64 {
        self.under_way.iter().sum()
    }

    pub(super) fn wants(&self) -> bool {
        self.lacks > 0 && !self.declined
    }

    /// Whether it is its turn, and it has not asked yet.
    pub(super) fn is_invited(&self) -> bool {
        !self.choked && self.turn == 0 && self.waiting.is_empty() && self.under_way.is_empty()
    }

    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let moved = self.moved.filter(|_| self.bytes() > 0);
        moved.is_some_and(|moved| now - moved >= Duration::from_secs(1))
    }

    pub(super) fn may_be_sent(&self, now: Instant) -> bool {
        !self.waiting.is_empty() && self.bytes() < self.window() && !self.is_stalled(now)
    }

    /// For how long it has not told, and whether that is too long.
    pub(super) fn mute_for(&self, now: Instant) -> (Duration, bool) {
        let since = self.mute.or(self.debt);
        let mute = since.map_or(Duration::ZERO, |since| now - since);
        let owes = self.has == 0 && self.debt.is_some();
        (mute, owes || mute >= Duration::from_secs(2))
    }

    /// How many bytes may be on their way to it: few before it has taken any.
    pub(super) fn window(&self) -> u64 {
        (2 * BLOCK).max(self.sent).min(LIMITS.window / 4)
    }
}
