//! Metrics of peers and trackers, through the [`metrics`](https://docs.rs/metrics) facade.
//!
//! With the feature `metrics`, peers and trackers record into whatever recorder the program
//! has installed, before it starts them; `examples/metrics.rs` exposes them to Prometheus.
//! Without the feature nothing is recorded, and nothing is paid for. [`describe`] tells the
//! recorder units and descriptions.
//!
//! No label names a content, a peer or an address: each has few values, so the number of
//! series is bounded. All peers of a process count together, as do its trackers.
//!
//! | name | kind | unit | what |
//! |---|---|---|---|
//! | `bt_lite_peer_downloaded_bytes_total` | counter | bytes | blocks that arrived, used or not |
//! | `bt_lite_peer_uploaded_bytes_total` | counter | bytes | blocks that were sent |
//! | `bt_lite_peer_far_bytes_total` | counter | bytes | blocks that went from one zone to another, used or not; `direction`: `down`, `up` |
//! | `bt_lite_peer_wasted_bytes_total` | counter | bytes | blocks that arrived in vain; `why`: `late`, `bad`, `dropped` |
//! | `bt_lite_peer_chunks_total` | counter | chunks | chunks that were hashed; `result`: `good`, `bad` |
//! | `bt_lite_peer_downloads_total` | counter | downloads | downloads that ended; `outcome`: `complete`, or the kind of the error |
//! | `bt_lite_peer_stalls_total` | counter | | how often a download began to get nothing |
//! | `bt_lite_peer_banned_total` | counter | peers | peers that were banned; `why`: `bad_chunk`, `bad_manifest` |
//! | `bt_lite_peer_withdrawn_total` | counter | contents | contents that can no longer be read |
//! | `bt_lite_peer_awake_contents` | gauge | contents | contents that have a task |
//! | `bt_lite_peer_active_downloads` | gauge | downloads | downloads that are active |
//! | `bt_lite_peer_links` | gauge | links | links that are up |
//! | `bt_lite_peer_connections` | gauge | connections | connections to other peers, with those that shake hands |
//! | `bt_lite_peer_dial_seconds` | histogram | seconds | until a link is open that this side dials; `result`: `ok`, `failed` |
//! | `bt_lite_peer_store_seconds` | histogram | seconds | until the storage has written a chunk |
//! | `bt_lite_peer_commit_seconds` | histogram | seconds | until the storage has made durable what it has |
//! | `bt_lite_tracker_requests_total` | counter | requests | requests; `kind`: `register`, `own`, `need`, `update`, `exit`, `announce`, `scrape`, `malformed` |
//! | `bt_lite_tracker_replies_total` | counter | replies | replies to peers; `kind`: `registered`, `done`, `found`, `ambiguous`, `refused`, `partly` |
//! | `bt_lite_tracker_refusals_total` | counter | requests | requests that were refused as a whole; `reason`: as in [`RefusalCounts`](crate::tracker::RefusalCounts) |
//! | `bt_lite_tracker_refused_entries_total` | counter | entries | entries of OWN that were refused; `reason` likewise |
//! | `bt_lite_tracker_request_seconds` | histogram | seconds | until a request is answered; `kind` as above |
//! | `bt_lite_tracker_batch_requests` | histogram | requests | how many requests were answered together, where no policy is asked |
//! | `bt_lite_tracker_expiry_seconds` | histogram | seconds | one step of forgetting peers, for which requests wait at most |
//! | `bt_lite_tracker_connections_total` | counter | connections | connections that came; `result`: `served`, `refused` |
//! | `bt_lite_tracker_connection_errors_total` | counter | connections | connections that ended by an error; `kind`: that of the [`TransportError`](crate::TransportError) ([`ErrorKind`](crate::ErrorKind)) |
//! | `bt_lite_tracker_connections` | gauge | connections | connections that are open |
//! | `bt_lite_tracker_peers` | gauge | peers | peers that are registered, at the tracker that answered last |
//! | `bt_lite_tracker_contents` | gauge | contents | contents that have an owner, at the same |
//! | `bt_lite_tracker_ownerships` | gauge | | pairs of a peer and a content, at the same |
//! | `bt_lite_tracker_store_up` | gauge | | 1 if the shared store is there, 0 if it is away, at the tracker that found out last |
//! | `bt_lite_tracker_store_seconds` | histogram | seconds | one round trip to the shared store |
//! | `bt_lite_tracker_store_calls_total` | counter | calls | calls that were made in these round trips |
//! | `bt_lite_tracker_store_losses_total` | counter | | how often the shared store was lost |
//! | `bt_lite_tracker_store_without_total` | counter | requests | requests that were answered without the shared store |
//! | `bt_lite_tracker_store_deferred` | gauge | requests | reports and farewells that wait until the shared store is back |

use std::time::Duration;

use tokio::time::Instant;

pub(crate) const DOWNLOADED: &str = "bt_lite_peer_downloaded_bytes_total";
pub(crate) const UPLOADED: &str = "bt_lite_peer_uploaded_bytes_total";
pub(crate) const FAR: &str = "bt_lite_peer_far_bytes_total";
pub(crate) const WASTED: &str = "bt_lite_peer_wasted_bytes_total";
pub(crate) const CHUNKS: &str = "bt_lite_peer_chunks_total";
pub(crate) const DOWNLOADS: &str = "bt_lite_peer_downloads_total";
pub(crate) const STALLS: &str = "bt_lite_peer_stalls_total";
pub(crate) const BANNED: &str = "bt_lite_peer_banned_total";
pub(crate) const WITHDRAWN: &str = "bt_lite_peer_withdrawn_total";
pub(crate) const AWAKE: &str = "bt_lite_peer_awake_contents";
pub(crate) const ACTIVE: &str = "bt_lite_peer_active_downloads";
pub(crate) const LINKS: &str = "bt_lite_peer_links";
pub(crate) const CONNECTIONS: &str = "bt_lite_peer_connections";
pub(crate) const DIAL: &str = "bt_lite_peer_dial_seconds";
pub(crate) const STORE: &str = "bt_lite_peer_store_seconds";
pub(crate) const COMMIT: &str = "bt_lite_peer_commit_seconds";
pub(crate) const TRACKER_REQUESTS: &str = "bt_lite_tracker_requests_total";
pub(crate) const TRACKER_REPLIES: &str = "bt_lite_tracker_replies_total";
pub(crate) const TRACKER_REFUSED_ENTRIES: &str = "bt_lite_tracker_refused_entries_total";
pub(crate) const TRACKER_BATCH: &str = "bt_lite_tracker_batch_requests";
pub(crate) const TRACKER_EXPIRY: &str = "bt_lite_tracker_expiry_seconds";
pub(crate) const TRACKER_CONNECTION_ERRORS: &str = "bt_lite_tracker_connection_errors_total";
pub(crate) const TRACKER_REFUSALS: &str = "bt_lite_tracker_refusals_total";
pub(crate) const TRACKER_ANSWER: &str = "bt_lite_tracker_request_seconds";
pub(crate) const TRACKER_ACCEPTED: &str = "bt_lite_tracker_connections_total";
pub(crate) const TRACKER_CONNECTIONS: &str = "bt_lite_tracker_connections";
pub(crate) const TRACKER_PEERS: &str = "bt_lite_tracker_peers";
pub(crate) const TRACKER_CONTENTS: &str = "bt_lite_tracker_contents";
pub(crate) const TRACKER_OWNERSHIPS: &str = "bt_lite_tracker_ownerships";

/// The names about a shared store.
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
pub(crate) mod store {
    pub(crate) const UP: &str = "bt_lite_tracker_store_up";
    pub(crate) const ROUND_TRIP: &str = "bt_lite_tracker_store_seconds";
    pub(crate) const CALLS: &str = "bt_lite_tracker_store_calls_total";
    pub(crate) const LOSSES: &str = "bt_lite_tracker_store_losses_total";
    pub(crate) const WITHOUT: &str = "bt_lite_tracker_store_without_total";
    pub(crate) const DEFERRED: &str = "bt_lite_tracker_store_deferred";
}

/// Tells the recorder that is installed the units and descriptions of all metrics.
#[cfg(feature = "metrics")]
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

    let bytes = [
        (DOWNLOADED, "Bytes of blocks that arrived, used or not."),
        (UPLOADED, "Bytes of blocks that were sent."),
        (FAR, "Bytes of blocks that went from one zone to another."),
        (WASTED, "Bytes of blocks that arrived in vain."),
    ];
    for (name, text) in bytes {
        describe_counter!(name, Unit::Bytes, text);
    }
    let counts = [
        (CHUNKS, "Chunks that were hashed."),
        (DOWNLOADS, "Downloads that ended."),
        (STALLS, "How often a download began to get nothing."),
        (BANNED, "Peers that were banned."),
        (WITHDRAWN, "Contents that can no longer be read."),
        (TRACKER_REQUESTS, "Requests to the tracker."),
        (TRACKER_REPLIES, "Replies of the tracker to peers."),
        (TRACKER_REFUSALS, "Requests that the tracker refused."),
        (TRACKER_REFUSED_ENTRIES, "Entries that the tracker refused."),
        (
            TRACKER_CONNECTION_ERRORS,
            "Connections of the tracker that ended by an error.",
        ),
        (store::CALLS, "Calls of the shared store."),
        (store::LOSSES, "How often the shared store was lost."),
        (
            store::WITHOUT,
            "Requests answered without the shared store.",
        ),
        (TRACKER_ACCEPTED, "Connections that came to the tracker."),
    ];
    for (name, text) in counts {
        describe_counter!(name, Unit::Count, text);
    }
    let gauges = [
        (AWAKE, "Contents that have a task."),
        (ACTIVE, "Downloads that are active."),
        (LINKS, "Links that are up."),
        (CONNECTIONS, "Connections to other peers."),
        (TRACKER_CONNECTIONS, "Connections of the tracker."),
        (TRACKER_PEERS, "Peers that are registered."),
        (TRACKER_CONTENTS, "Contents that have an owner."),
        (TRACKER_OWNERSHIPS, "Pairs of a peer and a content."),
        (store::UP, "Whether the shared store is there."),
        (store::DEFERRED, "Requests that wait for the shared store."),
    ];
    for (name, text) in gauges {
        describe_gauge!(name, Unit::Count, text);
    }
    let times = [
        (DIAL, "Until a link is open that this side dials."),
        (STORE, "Until the storage has written a chunk."),
        (COMMIT, "Until the storage has made durable what it has."),
        (TRACKER_ANSWER, "Until the tracker has answered a request."),
        (TRACKER_EXPIRY, "One step of forgetting peers."),
        (store::ROUND_TRIP, "One round trip to the shared store."),
    ];
    for (name, text) in times {
        describe_histogram!(name, Unit::Seconds, text);
    }
    let text = "Requests that the tracker answered together.";
    describe_histogram!(TRACKER_BATCH, Unit::Count, text);
}

/// Adds to a counter.
pub(crate) fn count(name: &'static str, by: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!(name).increment(by);
    #[cfg(not(feature = "metrics"))]
    let _ = (name, by);
}

/// Adds to a counter with a label.
pub(crate) fn count_as(name: &'static str, (label, value): (&'static str, &'static str), by: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!(name, label => value).increment(by);
    #[cfg(not(feature = "metrics"))]
    let _ = (name, label, value, by);
}

/// Sets a gauge.
pub(crate) fn set(name: &'static str, value: u64) {
    #[cfg(feature = "metrics")]
    metrics::gauge!(name).set(value as f64);
    #[cfg(not(feature = "metrics"))]
    let _ = (name, value);
}

/// Adds a number to a histogram of numbers.
pub(crate) fn observe(name: &'static str, value: usize) {
    #[cfg(feature = "metrics")]
    metrics::histogram!(name).record(value as f64);
    #[cfg(not(feature = "metrics"))]
    let _ = (name, value);
}

/// Counts one in a gauge for as long as it lives.
#[derive(Debug)]
pub(crate) struct Held(&'static str);

impl Held {
    pub(crate) fn new(name: &'static str) -> Self {
        #[cfg(feature = "metrics")]
        metrics::gauge!(name).increment(1.0);
        Self(name)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        #[cfg(feature = "metrics")]
        metrics::gauge!(self.0).decrement(1.0);
        #[cfg(not(feature = "metrics"))]
        let _ = self.0;
    }
}

/// Measures how long something takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timer(Option<Instant>);

impl Timer {
    pub(crate) fn start() -> Self {
        Self(cfg!(feature = "metrics").then(Instant::now))
    }

    fn elapsed(self) -> Duration {
        self.0.map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// It is done.
    pub(crate) fn record(self, name: &'static str) {
        let elapsed = self.elapsed();
        #[cfg(feature = "metrics")]
        metrics::histogram!(name).record(elapsed);
        #[cfg(not(feature = "metrics"))]
        let _ = (name, elapsed);
    }

    /// It is done, with this label.
    pub(crate) fn record_as(
        self,
        name: &'static str,
        (label, value): (&'static str, &'static str),
    ) {
        let elapsed = self.elapsed();
        #[cfg(feature = "metrics")]
        metrics::histogram!(name, label => value).record(elapsed);
        #[cfg(not(feature = "metrics"))]
        let _ = (name, label, value, elapsed);
    }
}
