//! All receivers, and what they wait for together.

use super::super::LinkId;
use super::super::link_map::LinkMap;
use super::receiver::Receiver;

/// All receivers, with their totals.
#[derive(Debug, Default)]
pub(super) struct Receivers {
    receivers: LinkMap<Receiver>,
    /// Requests that wait.
    waiting: usize,
    /// Bytes that are being read, or queued for the network.
    under_way: u64,
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
    }

    fn subtract(&mut self, receiver: &Receiver) {
        self.waiting -= receiver.waiting();
        self.under_way -= receiver.under_way();
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
        let wanting = self.values().filter(|receiver| receiver.wants());
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

    /// Panics if a total is wrong. For tests.
    pub(super) fn check_invariants(&self) {
        let waiting: usize = self.values().map(Receiver::waiting).sum();
        assert_eq!(waiting, self.waiting);
        let under_way: u64 = self.values().map(Receiver::under_way).sum();
        assert_eq!(under_way, self.under_way);
    }
}
