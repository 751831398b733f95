//! The naive books of an uploader: what each link waits for, has on its way and
//! tells of, and what each host had.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::protocol::HostKey;

use super::{BLOCK, CHUNK, LIMITS};

#[derive(Debug, Default)]
pub(super) struct Receiver {
    pub(super) waiting: VecDeque<BlockRange>,
    pub(super) under_way: VecDeque<u64>,
    pub(super) sent: u64,
    /// Bytes sent that it has not told of, and that it has.
    pub(super) untold: u64,
    told: u64,
    /// Bytes of this turn.
    pub(super) turn: u64,
    /// Since when it was to ask.
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
struct Account {
    host: HostKey,
    links: u32,
    untold: u64,
    sent: f64,
}

/// All links, and what their hosts owe.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) links: BTreeMap<u64, Receiver>,
    accounts: Vec<Account>,
    /// What one host was entitled to, in bytes.
    share: f64,
    /// How many turns were given.
    pub(super) turns: u64,
    /// Since when only hosts that had more than their share want something.
    pub(super) calm_since: Option<Instant>,
}

/// Who comes first, the least.
pub(super) type Rank = (bool, u64, u64);

impl Model {
    fn account_mut(&mut self, link: u64) -> &mut Account {
        let host = self.links[&link].host.clone();
        let account = self
            .accounts
            .iter_mut()
            .find(|a| Some(&a.host) == host.as_ref());
        account.expect("it has a link")
    }

    fn account(&self, link: u64) -> &Account {
        let host = self.links[&link].host.as_ref();
        let account = self.accounts.iter().find(|a| Some(&a.host) == host);
        account.expect("it has a link")
    }

    pub(super) fn add(&mut self, link: u64, host: &HostKey) {
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
            };
            // One that is gone and owes nothing is forgotten for it.
            let gone = self.accounts.iter_mut();
            match gone.into_iter().find(|a| a.links == 0 && a.untold == 0) {
                Some(gone) => *gone = account,
                None => self.accounts.push(account),
            }
        }
        self.account_mut(link).links += 1;
    }

    pub(super) fn remove(&mut self, link: u64) {
        if let Some(untold) = self.links.get(&link).map(|receiver| receiver.untold) {
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
        receiver.moved = Some(now);
    }

    pub(super) fn gained(&mut self, link: u64, here: bool) {
        if let Some(receiver) = self.links.get_mut(&link) {
            receiver.has += 1;
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
        let owes = receiver.untold + self.account(link).untold;
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

    /// Notes whether others want something than hosts that had their share, when
    /// some of these wait.
    pub(super) fn note_calm(&mut self, now: Instant) {
        let mut links = self.links.iter();
        let waits = links.any(|(&link, r)| r.wants() && r.choked && self.is_ahead(link));
        let mut links = self.links.iter();
        let busy = |r: &Receiver| r.wants() || r.bytes() > 0;
        let others = links.any(|(&link, r)| busy(r) && !self.is_ahead(link));
        self.calm_since = match self.calm_since {
            _ if !waits => None,
            Some(since) if !others => Some(since),
            _ => Some(now),
        };
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

    /// How much may be on its way to it: little before it has taken any.
    pub(super) fn window(&self) -> u64 {
        (2 * BLOCK).max(self.sent).min(LIMITS.window / 4)
    }
}
