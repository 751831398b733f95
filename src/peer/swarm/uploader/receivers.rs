//! All receivers, and what they wait for together.

use super::super::LinkId;
use super::super::link_map::LinkMap;
use super::receiver::Receiver;
use super::standing::Standing;

/// All receivers, with their totals.
#[derive(Debug, Default)]
pub(super) struct Receivers {
    receivers: LinkMap<Receiver>,
    /// Requests that wait.
    waiting: usize,
    /// Bytes that are being read, or queued for the network.
    under_way: u64,
    /// How many are strangers.
    strangers: usize,
}

impl Receivers {
    pub(super) fn insert(&mut self, link: LinkId, receiver: Receiver) {
        self.add(&receiver);
        if let Some(before) = self.receivers.insert(link, receiver) {
            self.subtract(&before);
        }
    }

    pub(super) fn remove(&mut self, link: LinkId) -> Option<Receiver> {
        let receiver = self.receivers.remove(link)?;
        self.subtract(&receiver);
        Some(receiver)
    }

    #[inline]
    pub(super) fn get(&self, link: LinkId) -> Option<&Receiver> {
        self.receivers.get(link)
    }

    /// Changes a receiver, and the totals with it.
    #[inline]
    pub(super) fn update<R>(
        &mut self,
        link: LinkId,
        change: impl FnOnce(&mut Receiver) -> R,
    ) -> Option<R> {
        let receiver = self.receivers.get_mut(link)?;
        self.waiting -= receiver.waiting();
        self.under_way -= receiver.under_way();
        let result = change(receiver);
        self.waiting += receiver.waiting();
        self.under_way += receiver.under_way();
        Some(result)
    }

    fn add(&mut self, receiver: &Receiver) {
        self.waiting += receiver.waiting();
        self.under_way += receiver.under_way();
        self.strangers += usize::from(receiver.is_stranger());
    }

    fn subtract(&mut self, receiver: &Receiver) {
        self.waiting -= receiver.waiting();
        self.under_way -= receiver.under_way();
        self.strangers -= usize::from(receiver.is_stranger());
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes that are being read, or queued for the network.
    pub(super) fn under_way(&self) -> u64 {
        self.under_way
    }

    /// How many hosts want something. O(links × log links).
    pub(super) fn wanting_hosts(&self) -> usize {
        let wanting = self.own().filter(|receiver| receiver.wants());
        let mut hosts: Vec<usize> = wanting.map(Receiver::host).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LinkId, &Receiver)> {
        self.receivers.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Receiver> {
        self.receivers.values()
    }

    /// All receivers, for changes that leave requests and bytes alone.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (LinkId, &mut Receiver)> {
        self.receivers.iter_mut()
    }

    /// Those that are not strangers.
    pub(super) fn own(&self) -> impl Iterator<Item = &Receiver> {
        self.values().filter(|receiver| !receiver.is_stranger())
    }

    /// The same, for changes that leave requests and bytes alone.
    pub(super) fn own_mut(&mut self) -> impl Iterator<Item = (LinkId, &mut Receiver)> {
        let all = self.receivers.iter_mut();
        all.filter(|(_, receiver)| !receiver.is_stranger())
    }

    /// Those that are, and how they stand.
    pub(super) fn strangers(&self) -> impl Iterator<Item = (LinkId, &Receiver, &Standing)> {
        let all = self.receivers.iter();
        all.filter_map(|(link, receiver)| Some((link, receiver, receiver.standing()?)))
    }

    /// How the strangers stand, to be changed.
    pub(super) fn standings_mut(&mut self) -> impl Iterator<Item = (LinkId, &mut Standing)> {
        let all = self.receivers.iter_mut();
        all.filter_map(|(link, receiver)| Some((link, receiver.standing_mut()?)))
    }

    /// Whether there are some, and all are strangers.
    pub(super) fn are_strangers(&self) -> bool {
        self.strangers > 0 && self.strangers == self.receivers.len()
    }

    /// Whether there is a stranger.
    pub(super) fn has_strangers(&self) -> bool {
        self.strangers > 0
    }

    /// Panics if a total is wrong. For tests.
    pub(super) fn check_invariants(&self) {
        let waiting: usize = self.values().map(Receiver::waiting).sum();
        assert_eq!(waiting, self.waiting);
        let under_way: u64 = self.values().map(Receiver::under_way).sum();
        assert_eq!(under_way, self.under_way);
        assert_eq!(self.strangers().count(), self.strangers);
    }
}
