//! The naive books of an uploader: what each link waits for, has on its way and
//! tells of, and what each host had.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::protocol::HostKey;

use super::rules::{FIRST_TRIALS, MAX_PAUSE, MOST_TRIALS, PAUSE};
use super::{BLOCK, CHUNK, LIMITS};

#[derive(Debug, Default)]
pub(super) struct Receiver {
    pub(super) waiting: VecDeque<BlockRange>,
    pub(super) under_way: VecDeque<u64>,
    pub(super) sent: u64,
    /// Bytes sent that it has not told of, and that it has.
    pub(super) untold: u64,
    told: u64,
    /// Since when it has not told of a whole chunk, or is there though its host
    /// owed one before.
    pub(super) mute: Option<Instant>,
    debt: Option<Instant>,
    /// It counts as one that never tells.
    pub(super) old: bool,
    pub(super) trial: Trial,
    /// Bytes of this turn.
    pub(super) turn: u64,
    /// It was given its turn, rather than that it could ask from the start.
    pub(super) given: bool,
    /// Since when it was to ask.
    pub(super) invited: Option<Instant>,
    pub(super) has: u32,
    pub(super) lacks: u32,
    pub(super) declined: bool,
    pub(super) choked: bool,
    pub(super) moved: Option<Instant>,
    host: Option<HostKey>,
}

/// Whether a link that had told of nothing was sent something, since when, or
/// that it did not tell in time.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trial {
    #[default]
    None,
    Began(Instant),
    Lapsed,
}

/// How many trials may be under way, and when the next may begin.
#[derive(Debug)]
pub(super) struct Trials {
    pub(super) window: usize,
    /// Chunks' time.
    pause: u32,
    pub(super) next: Option<Instant>,
    cut: Option<Instant>,
}

impl Default for Trials {
    fn default() -> Self {
        Self {
            window: FIRST_TRIALS,
            pause: 0,
            next: None,
            cut: None,
        }
    }
}

impl Trials {
    fn told(&mut self) {
        self.window = MOST_TRIALS.min(self.window + 1);
        (self.pause, self.next) = (0, None);
    }

    /// What began before the room was made smaller has no further effect.
    pub(super) fn lapsed(&mut self, now: Instant, began: Instant) {
        if self.cut.is_some_and(|cut| began < cut) {
            return;
        }
        self.cut = Some(now);
        match self.window {
            1 => {
                self.pause = (2 * self.pause).clamp(8, 64);
                self.next = Some(now + (PAUSE * self.pause).min(MAX_PAUSE));
            }
            window => self.window = window / 2,
        }
    }
}

/// What a host was sent, and has not told of.
#[derive(Debug)]
pub(super) struct Account {
    host: HostKey,
    links: u32,
    untold: u64,
    sent: f64,
    /// A link let its turn pass, and none has asked since.
    pub(super) passed: bool,
}

/// All links, and what their hosts owe.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) links: BTreeMap<u64, Receiver>,
    accounts: Vec<Account>,
    /// What one host was entitled to, in bytes.
    share: f64,
    pub(super) trials: Trials,
    /// Since when nobody wants anything but those that come last.
    pub(super) calm_since: Option<Instant>,
}

/// Who comes first, the least.
pub(super) type Rank = (bool, u64, u64);

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
            // One that is gone and owes nothing is forgotten for it.
            let gone = self.accounts.iter_mut();
            match gone.into_iter().find(|a| a.links == 0 && a.untold == 0) {
                Some(gone) => *gone = account,
                None => self.accounts.push(account),
            }
        }
        let account = self.account_mut(link);
        account.links += 1;
        // Several links are not blamed for each other.
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
            // What an earlier link of its host was sent.
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
        let hosts = self.accounts.iter().filter(|a| a.links > 0).count();
        self.share += bytes as f64 / hosts as f64;
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
            // First what this link owes, then what earlier ones did.
            let of_link = receiver.untold.min(CHUNK);
            receiver.untold -= of_link;
            receiver.told += of_link;
            let account = self.account_mut(link);
            account.untold = account.untold.saturating_sub(CHUNK - of_link);
        }
    }

    /// Whether a link owes a chunk more than what it told of.
    pub(super) fn is_silent(&self, link: u64) -> bool {
        let receiver = &self.links[&link];
        let account = self.account(link);
        let earlier = if account.links > 1 { 0 } else { account.untold };
        let owes = receiver.untold + earlier;
        owes >= CHUNK + receiver.told
    }

    /// Whether its host had two chunks more than its share, by several links.
    pub(super) fn is_ahead(&self, link: u64) -> bool {
        let account = self.account(link);
        account.links > 1 && account.sent - self.share > (2 * CHUNK) as f64
    }

    pub(super) fn rank(&self, link: u64) -> Rank {
        let receiver = &self.links[&link];
        let given = receiver.sent + receiver.bytes();
        let has = u64::from(receiver.has).max(given / CHUNK);
        (self.is_silent(link) || self.is_ahead(link), has, given)
    }

    /// Whether a link that tells of what it gets lacks something: then those
    /// that do not get no turn.
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

    /// Bytes before links that do not read, and the longest pause among them.
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

    /// For how long it has not told, and whether it should have.
    pub(super) fn mute_for(&self, now: Instant) -> (Duration, bool) {
        let since = self.mute.or(self.debt);
        let mute = since.map_or(Duration::ZERO, |since| now - since);
        let owes = self.has == 0 && self.debt.is_some();
        (mute, owes || mute >= Duration::from_secs(2))
    }

    /// How much may be on its way to it: little before it has taken any.
    pub(super) fn window(&self) -> u64 {
        (2 * BLOCK).max(self.sent).min(LIMITS.window / 4)
    }
}
