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
//!
//! A link that was choked needs a round trip to ask. So it is invited a little before bytes
//! may be sent to it, which is a wish of its own: an invitation.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::protocol::HostKey;

/// For how long an invitation holds that was allowed.
const INVITATION: Duration = Duration::from_millis(250);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From this peer to others.
    Upload,
    /// From others to this peer.
    Download,
}

/// What is allowed, or wished for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AllowanceKind {
    /// The bytes pass, as soon as they may.
    Bytes,
    /// They will soon be wished for. Allow it when they could pass by the time that a
    /// round trip takes; nothing passes by that.
    Invitation,
}

/// Bytes that may pass, or are wished for, from or to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Whether they are for now.
    pub kind: AllowanceKind,
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
    invitation: Invitation,
}

/// Whether a link of a host may be invited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Invitation {
    None,
    WishedFor,
    AllowedAt(Instant),
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
        let wish = self.allowance(AllowanceKind::Bytes, host, lacks);
        self.wishes.push_back(wish);
    }

    /// Whether a link of a host may be invited to ask for a block.
    pub(super) fn may_invite(&self, host: &HostKey) -> bool {
        let account = self.accounts.get(host);
        account.is_some_and(|account| matches!(account.invitation, Invitation::AllowedAt(_)))
    }

    /// Wishes that one may be.
    pub(super) fn want_invitation(&mut self, host: &HostKey, bytes: u64) {
        let account = self.account(host);
        if account.invitation == Invitation::None {
            account.invitation = Invitation::WishedFor;
            let wish = self.allowance(AllowanceKind::Invitation, host, bytes);
            self.wishes.push_back(wish);
        }
    }

    /// One is invited.
    pub(super) fn invited(&mut self, host: &HostKey) {
        if let Some(account) = self.accounts.get_mut(host) {
            account.invitation = Invitation::None;
        }
    }

    fn account(&mut self, host: &HostKey) -> &mut Account {
        let account = Account {
            credit: 0,
            is_pending: false,
            invitation: Invitation::None,
        };
        self.accounts.entry(host.clone()).or_insert(account)
    }

    fn allowance(&self, kind: AllowanceKind, host: &HostKey, bytes: u64) -> Allowance {
        Allowance {
            kind,
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
    pub(super) fn allow(&mut self, now: Instant, allowance: &Allowance) {
        let account = self.account(&allowance.host);
        match allowance.kind {
            AllowanceKind::Bytes => {
                account.credit += allowance.bytes;
                account.is_pending = false;
            }
            AllowanceKind::Invitation => account.invitation = Invitation::AllowedAt(now),
        }
    }

    /// Bytes that have passed, as it seemed, have not.
    pub(super) fn give_back(&mut self, host: &HostKey, bytes: u64) {
        if bytes > 0 {
            let returned = self.allowance(AllowanceKind::Bytes, host, bytes);
            self.returned.push_back(returned);
        }
    }

    /// Gives back what nobody uses.
    pub(super) fn reclaim(&mut self, now: Instant) {
        let (direction, returned) = (self.direction, &mut self.returned);
        self.accounts.retain(|host, account| {
            if let Invitation::AllowedAt(at) = account.invitation
                && now.saturating_duration_since(at) >= INVITATION
            {
                account.invitation = Invitation::None;
            }
            if account.credit > 0 && !account.is_pending {
                returned.push_back(Allowance {
                    kind: AllowanceKind::Bytes,
                    direction,
                    host: host.clone(),
                    bytes: std::mem::take(&mut account.credit),
                });
            }
            account.is_pending || account.invitation != Invitation::None
        });
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
