//! What goes wrong on a network, when a test says so.

use super::MemoryNetwork;

impl MemoryNetwork {
    /// Tears all connections between two endpoints: both sides get
    /// [`ConnectionReset`](std::io::ErrorKind::ConnectionReset) at once, and
    /// what was not read yet is lost. They may connect again.
    ///
    /// # Panics
    /// Like [`endpoint`](Self::endpoint), for a name that none can have.
    pub fn cut(&self, one: &str, other: &str) {
        let (a, b) = (self.id(one), self.id(other));
        self.shared.with(|core, now| {
            core.reset(now, |from, to| (from, to) == (a, b) || (from, to) == (b, a));
        });
    }

    /// Lets nothing pass between any endpoint of one group and any of the
    /// other, until [`heal`](Self::heal): frames and ends wait where they are,
    /// links fill up, connecting waits. Nothing is lost.
    ///
    /// # Panics
    /// Like [`endpoint`](Self::endpoint), for a name that none can have.
    pub fn partition(&self, group: &[&str], others: &[&str]) {
        self.shared.shape();
        for one in group.iter().map(|name| self.id(name)) {
            for other in others.iter().map(|name| self.id(name)) {
                self.shared
                    .with(|core, now| core.schedule.part(now, one, other));
            }
        }
    }

    /// Ends all partitions; what waited goes on its way.
    pub fn heal(&self) {
        self.shared.with(|core, now| core.schedule.heal(now));
        self.shared.notify_opened();
    }

    /// Holds an endpoint, as if its host were asleep, until
    /// [`resume`](Self::resume): nothing leaves it and nothing reaches it, but
    /// for frames that a line is carrying already. Connecting from it and to
    /// it waits.
    ///
    /// # Panics
    /// Like [`endpoint`](Self::endpoint), for a name that none can have.
    pub fn stall(&self, endpoint: &str) {
        self.shared.shape();
        let id = self.id(endpoint);
        self.shared
            .with(|core, now| core.schedule.hold(now, id, true));
    }

    /// Lets a stalled endpoint go on.
    ///
    /// # Panics
    /// Like [`endpoint`](Self::endpoint), for a name that none can have.
    pub fn resume(&self, endpoint: &str) {
        let id = self.id(endpoint);
        self.shared
            .with(|core, now| core.schedule.hold(now, id, false));
        self.shared.notify_opened();
    }

    /// Flips one bit in each body that an endpoint sends, with this
    /// probability (0 ends it). The receivers get a copy; the sender's bytes
    /// stay as they are. Heads and empty bodies stay intact.
    ///
    /// # Panics
    /// Like [`endpoint`](Self::endpoint), for a name that none can have.
    pub fn corrupt(&self, endpoint: &str, probability: f64) {
        self.shared.shape();
        let id = self.id(endpoint);
        self.shared
            .with(|core, _| core.endpoint(id).corrupt = probability);
    }

    /// Flips one bit in each of the next `frames` bodies that an endpoint
    /// sends. Frames without a body do not count.
    ///
    /// # Panics
    /// Like [`endpoint`](Self::endpoint), for a name that none can have.
    pub fn corrupt_next(&self, endpoint: &str, frames: u64) {
        self.shared.shape();
        let id = self.id(endpoint);
        self.shared
            .with(|core, _| core.endpoint(id).corrupt_next = frames);
    }

    /// Refuses all connections to an endpoint, or ends that. Its listeners and
    /// the connections that it has stay.
    ///
    /// # Panics
    /// Like [`endpoint`](Self::endpoint), for a name that none can have.
    pub fn refuse(&self, endpoint: &str, refuses: bool) {
        let id = self.id(endpoint);
        self.shared
            .with(|core, _| core.endpoint(id).refuses = refuses);
    }

    /// Kills an endpoint, as if its process had ended: its listeners are gone
    /// (accepting fails with [`Closed`](crate::TransportError::Closed)) and
    /// its connections are torn as by [`cut`](Self::cut). It may listen and
    /// dial again: that is its restart.
    ///
    /// # Panics
    /// Like [`endpoint`](Self::endpoint), for a name that none can have.
    pub fn kill(&self, endpoint: &str) {
        let id = self.id(endpoint);
        let listeners = self.shared.with(|core, now| {
            core.reset(now, |from, to| from == id || to == id);
            std::mem::take(&mut core.endpoint(id).listeners)
        });
        // Behind the lock: with a listener go the connections that waited.
        drop(listeners);
    }
}
