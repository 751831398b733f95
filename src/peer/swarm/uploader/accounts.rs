//! What each host was sent, and has not told of.
//!
//! Peers are served by what they say to have, and nothing proves what a peer
//! says to lack. So two things are counted that a peer cannot choose. A peer
//! that is sent chunk after chunk and never says `Have` comes after those that
//! do. And a host that was sent more than its share comes after those that were
//! not, whatever it says to lack; all links of one host have one share together.
//!
//! A host is remembered beyond its links as long as it owes something or is
//! ahead of its share, or had a slot on trust. So a peer does not become new by dialling
//! again.

use std::time::Instant;

use super::receiver::Receiver;
use crate::protocol::HostKey;

/// How many chunks the links of one host may have had beyond their share, before
/// that counts.
const MAX_AHEAD: u64 = 2;

/// From which part of the hosts here a host may have had as much and hide it. With a
/// larger part, honest hosts that were served by chance more than others wait too
/// long; with a smaller one, hiders gain. Chosen by simulation.
const HIDING: f64 = 0.5;

/// How many hosts without a link are remembered.
const MAX_REMEMBERED: usize = 256;

/// The order in which links are served, the least first: those that tell of
/// what they get and had no more than their share; of those the ones with the
/// fewest chunks, then the ones that were sent least. See [`Accounts::rank`].
pub(super) type Rank = (bool, u64, u64);

/// The accounts of all hosts.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    accounts: Vec<Account>,
    chunk_len: u64,
    /// Hosts that have links.
    hosts: usize,
    /// What one host was entitled to since the beginning, in bytes: the virtual
    /// time of fair queueing (Demers, Keshav and Shenker, "Analysis and
    /// Simulation of a Fair Queueing Algorithm", SIGCOMM 1989).
    share: f64,
}

#[derive(Debug)]
struct Account {
    host: HostKey,
    links: usize,
    /// Bytes that earlier links were sent and did not tell of.
    untold: u64,
    /// What it was sent, in terms of `share`.
    sent: f64,
    /// A link of it let a turn pass, and none has asked since.
    passed: bool,
    /// When a stranger of it last got or gave back a slot on trust.
    trusted_at: Option<Instant>,
}

impl Accounts {
    /// The length of a chunk in bytes, once it is known.
    pub(super) fn set_chunk_len(&mut self, chunk_len: u64) {
        self.chunk_len = chunk_len;
    }

    /// A host has one more link. Returns the number of its account. O(hosts).
    pub(super) fn open(&mut self, host: &HostKey) -> usize {
        let known = self
            .accounts
            .iter()
            .position(|account| account.host == *host);
        let at = known.unwrap_or_else(|| self.add(host));
        let account = &mut self.accounts[at];
        self.hosts += usize::from(account.links == 0);
        account.links += 1;
        at
    }

    fn add(&mut self, host: &HostKey) -> usize {
        let account = Account {
            host: host.clone(),
            links: 0,
            untold: 0,
            sent: self.share,
            passed: false,
            trusted_at: None,
        };
        let unused = self.accounts.iter().enumerate();
        let unused = unused.filter(|(_, account)| account.links == 0);
        let is_ahead = |account: &Account| account.sent > self.share;
        let least = unused
            .min_by_key(|(_, account)| (account.untold, is_ahead(account), account.trusted_at));
        let is_spare = |account: &Account| {
            account.untold == 0 && !is_ahead(account) && account.trusted_at.is_none()
        };
        let full = self.accounts.len() - self.hosts >= MAX_REMEMBERED;
        match least.filter(|(_, least)| full || is_spare(least)) {
            Some((at, _)) => {
                self.accounts[at] = account;
                at
            }
            None => {
                self.accounts.push(account);
                self.accounts.len() - 1
            }
        }
    }

    /// When a stranger of a host last got or gave back a slot on trust.
    pub(super) fn trusted_at(&self, host: usize) -> Option<Instant> {
        self.accounts[host].trusted_at
    }

    /// A stranger of a host gets or gives back a slot on trust.
    pub(super) fn trust(&mut self, host: usize, now: Instant) {
        self.accounts[host].trusted_at = Some(now);
    }

    /// Whose account has this number.
    pub(super) fn host(&self, host: usize) -> &HostKey {
        &self.accounts[host].host
    }

    /// A link of a host is gone, and has not told of `untold` bytes.
    pub(super) fn close(&mut self, host: usize, untold: u64) {
        let account = &mut self.accounts[host];
        account.links -= 1;
        account.untold = account.untold.saturating_add(untold);
        self.hosts -= usize::from(account.links == 0);
    }

    /// A host was sent something, while so many hosts wanted something. What they
    /// all wanted is divided among them alone.
    pub(super) fn sent(&mut self, host: usize, bytes: u64, wanting: usize) {
        self.share += bytes as f64 / wanting.max(1) as f64;
        let account = &mut self.accounts[host];
        // A host has no claim later to what it did not take.
        account.sent = (account.sent + bytes as f64).max(self.share);
    }

    /// A host told of `bytes` more than its link was sent. Returns whether
    /// earlier links of it owed any.
    pub(super) fn told(&mut self, host: usize, bytes: u64) -> bool {
        let account = &mut self.accounts[host];
        let before = account.untold;
        account.untold = before.saturating_sub(bytes);
        account.untold < before
    }

    /// Whether earlier links of a host did not tell of a chunk.
    pub(super) fn owes(&self, host: usize) -> bool {
        self.chunk_len > 0 && self.owed(host) >= self.chunk_len
    }

    /// A link of a host let its turn pass.
    pub(super) fn passed(&mut self, host: usize) {
        self.accounts[host].passed = true;
    }

    /// A link of a host asked for something.
    pub(super) fn asked(&mut self, host: usize) {
        self.accounts[host].passed = false;
    }

    /// Whether others wait for a link when it is its turn. They do not if its
    /// host let the last turn pass: many links that never ask would hold up
    /// everybody, one after the other.
    pub(super) fn is_expected(&self, receiver: &Receiver) -> bool {
        !self.accounts[receiver.host()].passed
    }

    /// What earlier links of a host owe. Several links of one host already have
    /// one share together, so they are not blamed for each other as well.
    fn owed(&self, host: usize) -> u64 {
        let account = &self.accounts[host];
        if account.links > 1 { 0 } else { account.untold }
    }

    /// Whether a link was sent more than it tells of. A new one may owe one
    /// chunk, and one more for each that it told of.
    pub(super) fn is_silent(&self, receiver: &Receiver) -> bool {
        let untold = receiver.untold() + self.owed(receiver.host());
        untold >= self.chunk_len.saturating_add(receiver.told()) && untold > 0
    }

    /// Whether a host, by several links, had more than its share.
    pub(super) fn is_ahead(&self, receiver: &Receiver) -> bool {
        let account = &self.accounts[receiver.host()];
        account.links > 1 && account.sent - self.share > (MAX_AHEAD * self.chunk_len) as f64
    }

    /// How many chunks a host may have and tell nobody of. A peer that tells of
    /// each chunk only the one that sent it seems to have little to everybody, and
    /// is sent more than its share by all. So what it had here beyond its share
    /// and [`MAX_AHEAD`], it may have had from others as well, [`HIDING`] of the hosts
    /// that are here.
    fn hidden(&self, receiver: &Receiver) -> u64 {
        let ahead = self.accounts[receiver.host()].sent - self.share;
        let chunks = ahead / self.chunk_len.max(1) as f64 - MAX_AHEAD as f64;
        // Below zero it is zero.
        (chunks * self.hosts as f64 * HIDING) as u64
    }

    /// How deprived a link is. It counts as having what it says to have, what it
    /// was sent here, or what it may hide, whichever is most.
    pub(super) fn rank(&self, receiver: &Receiver) -> Rank {
        let behind = self.is_silent(receiver) || self.is_ahead(receiver);
        let given = receiver.given();
        let has = given.checked_div(self.chunk_len).unwrap_or(0);
        let has = has.max(receiver.has().into()).max(self.hidden(receiver));
        (behind, has, given)
    }

    /// Panics if the counts contradict each other. For tests.
    pub(super) fn check_invariants(&self, links: impl Iterator<Item = usize>) {
        let mut counted = vec![0; self.accounts.len()];
        for host in links {
            counted[host] += 1;
        }
        let stored: Vec<usize> = self.accounts.iter().map(|account| account.links).collect();
        assert_eq!(counted, stored);
        let hosts = stored.iter().filter(|&&links| links > 0).count();
        assert_eq!(hosts, self.hosts);
        assert!(self.accounts.len() - hosts <= MAX_REMEMBERED.max(1));
    }
}
