//! The gate before a limit: bytes pass only out of what the driver has allowed, host by
//! host.
//!
//! ```text
//!           want             poll_wish            allow           spend
//!  nothing ──────▶ wished for ────────▶ asked for ─────▶ credit ────────▶ passed
//!                                                          │ nobody uses it
//!                                                          ▼ poll_returned
//! ```
//! For each host, one wish at a time is under way. Where nothing is limited, there is no
//! gate.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::protocol::HostKey;

/// For how long an invited link is waited for, before what was allowed for it is given to
/// others: longer than most round trips.
const KEPT: Duration = Duration::from_secs(1);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From this peer to others.
    Upload,
    /// From others to this peer.
    Download,
}

/// Bytes that may pass, or are wished for, from or to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Which way.
    pub direction: Direction,
    /// From or to whom.
    pub host: HostKey,
    /// How many.
    pub bytes: u64,
}

/// What may pass, host by host.
#[derive(Debug)]
pub(super) struct Gate {
    direction: Direction,
    accounts: BTreeMap<HostKey, Account>,
    wishes: VecDeque<Allowance>,
    returned: VecDeque<Allowance>,
}

#[derive(Debug)]
struct Account {
    /// Bytes that may pass.
    credit: u64,
    /// More was wished for, and is not allowed yet.
    is_pending: bool,
    /// When something was last allowed.
    since: Option<Instant>,
}

impl Gate {
    pub(super) fn new(direction: Direction) -> Self {
        Self {
            direction,
            accounts: BTreeMap::new(),
            wishes: VecDeque::new(),
            returned: VecDeque::new(),
        }
    }

    /// Whether so many bytes may pass. If not, they are wished for.
    pub(super) fn admits(&mut self, host: &HostKey, bytes: u64) -> bool {
        let covered = self.covers(host, bytes);
        if !covered {
            self.want(host, bytes);
        }
        covered
    }

    /// Whether so many bytes may pass.
    pub(super) fn covers(&self, host: &HostKey, bytes: u64) -> bool {
        let credit = self.accounts.get(host).map_or(0, |account| account.credit);
        credit >= bytes
    }

    /// Wishes for what so many bytes lack, unless something is wished for already.
    pub(super) fn want(&mut self, host: &HostKey, bytes: u64) {
        let account = self.account(host);
        let lacks = bytes.saturating_sub(account.credit);
        if account.is_pending || lacks == 0 {
            return;
        }
        account.is_pending = true;
        let wish = self.allowance(host, lacks);
        self.wishes.push_back(wish);
    }

    fn account(&mut self, host: &HostKey) -> &mut Account {
        let account = Account {
            credit: 0,
            is_pending: false,
            since: None,
        };
        self.accounts.entry(host.clone()).or_insert(account)
    }

    fn allowance(&self, host: &HostKey, bytes: u64) -> Allowance {
        Allowance {
            direction: self.direction,
            host: host.clone(),
            bytes,
        }
    }

    /// Bytes pass, of those that may.
    pub(super) fn spend(&mut self, host: &HostKey, bytes: u64) {
        if let Some(account) = self.accounts.get_mut(host) {
            account.credit = account.credit.saturating_sub(bytes);
        }
    }

    /// What was wished for may pass.
    pub(super) fn allow(&mut self, now: Instant, host: &HostKey, bytes: u64) {
        let account = self.account(host);
        account.credit += bytes;
        account.is_pending = false;
        account.since = Some(now);
    }

    /// Bytes that have passed, as it seemed, have not.
    pub(super) fn give_back(&mut self, host: &HostKey, bytes: u64) {
        if bytes > 0 {
            let returned = self.allowance(host, bytes);
            self.returned.push_back(returned);
        }
    }

    /// Gives back what nobody uses. Hosts that are `expected` to ask have some time.
    pub(super) fn reclaim(&mut self, now: Instant, expected: impl Fn(&HostKey) -> bool) {
        let (direction, returned) = (self.direction, &mut self.returned);
        self.accounts.retain(|host, account| {
            if account.is_pending || account.credit > 0 && account.is_kept(now) && expected(host) {
                return true;
            }
            if account.credit > 0 {
                returned.push_back(Allowance {
                    direction,
                    host: host.clone(),
                    bytes: account.credit,
                });
            }
            false
        });
    }

    /// When to call [`reclaim`](Self::reclaim) at the latest.
    pub(super) fn reclaim_due(&self) -> Option<Instant> {
        let kept = self.accounts.values();
        let kept = kept.filter(|account| account.credit > 0 && !account.is_pending);
        kept.filter_map(|account| account.since?.checked_add(KEPT))
            .min()
    }

    /// Whether something waits until it may pass.
    pub(super) fn is_waiting(&self) -> bool {
        self.accounts.values().any(|account| account.is_pending)
    }

    pub(super) fn poll_wish(&mut self) -> Option<Allowance> {
        self.wishes.pop_front()
    }

    pub(super) fn poll_returned(&mut self) -> Option<Allowance> {
        self.returned.pop_front()
    }
}

impl Account {
    fn is_kept(&self, now: Instant) -> bool {
        let is_new = |since| now.saturating_duration_since(since) < KEPT;
        self.since.is_some_and(is_new)
    }
}
