//! A network, as its users hold it: its rates, its latencies, and its faults.

use std::sync::Arc;

use super::addr;
use super::endpoint::MemoryTransport;
use super::latency::Latency;
use super::schedule::{EndpointId, Way};
use super::shared::SharedNetwork;
use super::trace::Trace;

/// A network inside the process. A clone is a handle to the same network. Each
/// [`new`](Self::new) makes a network of its own; endpoints of different networks
/// cannot reach each other.
///
/// See the [module documentation](super) for its model of time.
///
/// # Panics
/// All methods that take the name of an endpoint panic if the name is invalid;
/// see [`endpoint`](Self::endpoint).
#[derive(Debug, Clone)]
pub struct MemoryNetwork {
    shared: Arc<SharedNetwork>,
}

impl MemoryNetwork {
    /// Makes a network without endpoints. All random decisions on it come from
    /// the seed.
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Arc::new(SharedNetwork::new(seed)),
        }
    }

    /// The endpoint of this name; the same name always gives the same endpoint. A
    /// name has 1 to [`MAX_ENDPOINT_NAME`](super::MAX_ENDPOINT_NAME) printable
    /// ASCII characters except `:`.
    ///
    /// # Panics
    /// If the name is invalid.
    pub fn endpoint(&self, name: &str) -> MemoryTransport {
        MemoryTransport::new(self.shared.clone(), self.id(name), name)
    }

    /// Sets how many bytes an endpoint sends per second over all its links
    /// together, for frames that start from now on. `None` means no limit. 0
    /// counts as 1; use [`stall`](Self::stall) to send nothing at all.
    pub fn set_upload_rate(&self, endpoint: &str, bytes_per_second: Option<u64>) {
        self.set_rate(endpoint, Way::Up, bytes_per_second);
    }

    /// Sets how many bytes an endpoint receives per second, otherwise like
    /// [`set_upload_rate`](Self::set_upload_rate).
    pub fn set_download_rate(&self, endpoint: &str, bytes_per_second: Option<u64>) {
        self.set_rate(endpoint, Way::Down, bytes_per_second);
    }

    fn set_rate(&self, endpoint: &str, way: Way, rate: Option<u64>) {
        self.shared.shape();
        let id = self.id(endpoint);
        self.shared
            .update(|network, now| network.schedule.set_rate(now, (id, way), rate));
    }

    /// Sets how far an endpoint is from the middle of the network: the latency
    /// that it adds to every frame from it and to it.
    pub fn set_latency(&self, endpoint: &str, latency: impl Into<Latency>) {
        self.shared.shape();
        let (id, latency) = (self.id(endpoint), latency.into());
        self.shared
            .update(|network, _| network.endpoint(id).latency = latency);
    }

    /// Sets the latency between two endpoints, in both directions. It replaces
    /// the sum of their own latencies.
    pub fn set_latency_between(&self, one: &str, other: &str, latency: impl Into<Latency>) {
        self.shared.shape();
        let (a, b, latency) = (self.id(one), self.id(other), latency.into());
        self.shared
            .update(|network, _| network.set_latency_between(a, b, latency));
    }

    /// Sets how many bytes a link holds in one direction before its sink accepts no
    /// more, for links that are opened from now on. A link carries at most that much
    /// per latency, so a long fast line needs more than the default of [`LINK_BYTES`](super::LINK_BYTES).
    pub fn set_link_bytes(&self, bytes: usize) {
        self.shared.update(|network, _| network.link_bytes = bytes);
    }

    /// Starts a new log of at most `capacity` events.
    pub fn record(&self, capacity: usize) {
        self.shared.shape();
        self.shared.update(|network, _| network.start_log(capacity));
    }

    /// The events that were recorded so far.
    pub fn trace(&self) -> Trace {
        self.shared.update(|network, _| network.trace())
    }

    /// Resets all connections between two endpoints: both sides get
    /// [`ConnectionReset`](std::io::ErrorKind::ConnectionReset) at once, and
    /// frames that were not read yet are lost. The endpoints may connect again.
    pub fn cut(&self, one: &str, other: &str) {
        let (a, b) = (self.id(one), self.id(other));
        self.shared.update(|network, now| {
            network.reset(now, |from, to| (from, to) == (a, b) || (from, to) == (b, a));
        });
    }

    /// Lets nothing pass between any endpoint of one group and any endpoint of
    /// the other, until [`heal`](Self::heal): frames and ends wait where they are,
    /// links fill up, connecting waits. Nothing is lost.
    pub fn partition(&self, group: &[&str], others: &[&str]) {
        self.shared.shape();
        for one in group.iter().map(|name| self.id(name)) {
            for other in others.iter().map(|name| self.id(name)) {
                self.shared
                    .update(|network, now| network.schedule.part(now, one, other));
            }
        }
    }

    /// Ends all partitions. Frames that waited continue on their way.
    pub fn heal(&self) {
        self.shared
            .update(|network, now| network.schedule.heal(now));
        self.shared.notify_opened();
    }

    /// Holds an endpoint, as if its host were asleep, until
    /// [`resume`](Self::resume): nothing leaves it and nothing reaches it, except
    /// frames that a line is already carrying. Connecting from it or to it waits.
    pub fn stall(&self, endpoint: &str) {
        self.shared.shape();
        let id = self.id(endpoint);
        self.shared
            .update(|network, now| network.schedule.hold(now, id, true));
    }

    /// Lets a stalled endpoint continue.
    pub fn resume(&self, endpoint: &str) {
        let id = self.id(endpoint);
        self.shared
            .update(|network, now| network.schedule.hold(now, id, false));
        self.shared.notify_opened();
    }

    /// Flips one bit in each body that an endpoint sends, with this probability;
    /// 0 turns it off. Receivers get a copy; the sender's bytes are not changed.
    /// Heads and empty bodies are never changed.
    pub fn corrupt(&self, endpoint: &str, probability: f64) {
        self.shared.shape();
        let id = self.id(endpoint);
        self.shared
            .update(|network, _| network.endpoint(id).corrupt = probability);
    }

    /// Flips one bit in each of the next `frames` bodies that an endpoint sends.
    /// Frames without a body do not count.
    pub fn corrupt_next(&self, endpoint: &str, frames: u64) {
        self.shared.shape();
        let id = self.id(endpoint);
        self.shared
            .update(|network, _| network.endpoint(id).corrupt_next = frames);
    }

    /// Sets whether an endpoint refuses all new connections. Its listeners and
    /// its existing connections stay.
    pub fn refuse(&self, endpoint: &str, refuses: bool) {
        let id = self.id(endpoint);
        self.shared
            .update(|network, _| network.endpoint(id).refuses = refuses);
    }

    /// Kills an endpoint, as if its process had ended: its listeners are gone
    /// (accepting fails with [`Closed`](crate::TransportError::Closed)), and its
    /// connections are reset as by [`cut`](Self::cut). To restart it, listen and
    /// connect again.
    pub fn kill(&self, endpoint: &str) {
        let id = self.id(endpoint);
        let listeners = self.shared.update(|network, now| {
            network.reset(now, |from, to| from == id || to == id);
            network.endpoint(id).take_listeners()
        });
        // Dropped outside of the lock: the connections that wait in the backlogs
        // take it when they are dropped.
        drop(listeners);
    }

    fn id(&self, name: &str) -> EndpointId {
        assert!(addr::is_name(name), "invalid endpoint name {name:?}");
        self.shared.update(|network, _| network.find_or_add(name))
    }
}
