//! A network inside the process: fast enough to run a swarm over, and a
//! simulator when time or trouble matters. Made for tests, yours too.
//!
//! A [`MemoryNetwork`] is a value. Its endpoints are hosts with names; what
//! travels between them is the frame itself, so that bodies are never copied.
//! Links are bounded: a sink takes no more frames while [`LINK_BYTES`] are
//! under way and unread.
//!
//! # Time
//! As long as nothing is set, a frame arrives the moment it is sent, and no
//! timer is involved. Once an endpoint has a rate, a latency or a fault, all
//! frames follow this model, in tokio time:
//!
//! - An endpoint has an up line and a down line. A frame takes the sender's up
//!   line for `length / upload rate`, travels for the latency, and takes the
//!   receiver's down line for `length / download rate`. A line without a rate
//!   takes no time.
//! - A line carries one frame at a time. The links that wait for it get their
//!   turns round robin, one frame each, so that links with equal frames get
//!   equal shares.
//! - `length` is what the frame would be on a byte stream: head, body, and a
//!   prefix of 6 bytes.
//! - The latency of a pair is the one set for it, or else the sum of both
//!   endpoints' latencies; jitter is drawn per frame from the network's seed.
//!   Frames of one link never overtake each other.
//! - Credit travels in no time: a sink may go on as soon as the other side has
//!   read. So does the news that nobody reads any more, and what a fault does.
//! - An endpoint that connects to itself uses its own two lines.
//!
//! tokio's timers fire at whole milliseconds. Lines are exact, so rates are
//! kept; but a frame is noticed up to a millisecond late.
//!
//! Under a paused clock (`#[tokio::test(start_paused = true)]`) time passes
//! when all tasks wait, and the same seed with the same calls gives the same
//! run, event for event: [`record`](MemoryNetwork::record) and compare.
//!
//! ```
//! use std::time::Duration;
//!
//! use bt_lite::protocol::Frame;
//! use bt_lite::{MemoryNetwork, Transport};
//! use futures::{SinkExt, StreamExt};
//!
//! // In a test of yours: #[tokio::test(start_paused = true)]
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let network = MemoryNetwork::new(7);
//! network.set_upload_rate("seed", Some(100_000)); // bytes per second
//! network.set_latency("seed", Duration::from_millis(20));
//!
//! let addr = "memory:seed".parse()?;
//! let mut listener = network.endpoint("seed").listen(&addr).await?;
//! let leech = network.endpoint("leech");
//! let (mut there, mut here) = tokio::try_join!(listener.accept(), leech.connect(&addr))?;
//!
//! let begun = tokio::time::Instant::now();
//! there.sink.send(Frame { head: "block".into(), body: vec![0; 50_000].into() }).await?;
//! here.stream.next().await.expect("one frame")?;
//! assert_eq!(begun.elapsed().as_millis(), 521); // 50,011 bytes, and the way
//!
//! network.kill("seed");
//! assert!(matches!(here.stream.next().await, Some(Err(_))));
//! # Ok(())
//! # }
//! ```

mod addr;
mod endpoint;
mod faults;
mod link;
mod network;
mod rates;
mod shared;
mod trace;

use std::sync::Arc;
use std::time::Duration;

pub use addr::MAX_ENDPOINT_NAME;
pub use endpoint::{BACKLOG, MemoryTransport};
pub use link::LINK_BYTES;
pub use trace::{Trace, TraceEvent, TraceKind};

use rates::{EndpointId, Way};
use shared::Shared;
use trace::Log;

/// A network inside the process. Clones are handles to the same network;
/// another `new` is another network, and neither can reach the other.
///
/// See [the module](self) for its model of time.
#[derive(Debug, Clone)]
pub struct MemoryNetwork {
    shared: Arc<Shared>,
}

/// How long frames travel, one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// What every frame takes.
    pub base: Duration,
    /// The most that chance adds to it, evenly spread.
    pub jitter: Duration,
}

impl From<Duration> for Latency {
    fn from(base: Duration) -> Self {
        Self {
            base,
            jitter: Duration::ZERO,
        }
    }
}

impl MemoryNetwork {
    /// A network without endpoints. All that chance decides on it comes from
    /// the seed.
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Arc::new(Shared::new(seed)),
        }
    }

    /// The endpoint of this name; asked again, the same one. Names have 1 to
    /// [`MAX_ENDPOINT_NAME`] printable ASCII characters, and no `:`.
    ///
    /// # Panics
    /// When no endpoint can have this name.
    pub fn endpoint(&self, name: &str) -> MemoryTransport {
        MemoryTransport::new(self.clone(), name)
    }

    /// Sets how many bytes an endpoint sends per second over all its links
    /// together, for frames that begin from now on. `None` is without limit,
    /// and 0 counts as 1; see [`stall`](Self::stall) for nothing at all.
    ///
    /// # Panics
    /// Like [`endpoint`](Self::endpoint), for a name that none can have.
    pub fn set_upload_rate(&self, endpoint: &str, bytes_per_second: Option<u64>) {
        self.set_rate(endpoint, Way::Up, bytes_per_second);
    }

    /// Sets how many bytes an endpoint receives per second; otherwise as
    /// [`set_upload_rate`](Self::set_upload_rate).
    ///
    /// # Panics
    /// Like [`endpoint`](Self::endpoint), for a name that none can have.
    pub fn set_download_rate(&self, endpoint: &str, bytes_per_second: Option<u64>) {
        self.set_rate(endpoint, Way::Down, bytes_per_second);
    }

    fn set_rate(&self, endpoint: &str, way: Way, rate: Option<u64>) {
        self.shared.shape();
        let id = self.id(endpoint);
        self.shared
            .with(|core, now| core.schedule.set_rate(now, (id, way), rate));
    }

    /// Sets how far an endpoint is from the middle of the network: what it
    /// adds to the way of every frame from it and to it.
    ///
    /// # Panics
    /// Like [`endpoint`](Self::endpoint), for a name that none can have.
    pub fn set_latency(&self, endpoint: &str, latency: impl Into<Latency>) {
        self.shared.shape();
        let (id, latency) = (self.id(endpoint), latency.into());
        self.shared
            .with(|core, _| core.endpoint(id).latency = latency);
    }

    /// Sets the way between two endpoints, in both directions, whatever their
    /// own latencies are.
    ///
    /// # Panics
    /// Like [`endpoint`](Self::endpoint), for a name that none can have.
    pub fn set_latency_between(&self, one: &str, other: &str, latency: impl Into<Latency>) {
        self.shared.shape();
        let (a, b, latency) = (self.id(one), self.id(other), latency.into());
        self.shared
            .with(|core, _| core.pairs.extend([((a, b), latency), ((b, a), latency)]));
    }

    /// Begins a new log of at most `capacity` events.
    pub fn record(&self, capacity: usize) {
        self.shared.shape();
        self.shared
            .with(|core, _| core.log = Some(Log::new(capacity)));
    }

    /// What was recorded so far.
    pub fn trace(&self) -> Trace {
        self.shared
            .with(|core, _| core.log.as_ref().map(Log::trace))
            .unwrap_or_default()
    }

    fn id(&self, name: &str) -> EndpointId {
        assert!(addr::is_name(name), "no endpoint can be called {name:?}");
        self.shared.with(|core, _| core.find_or_add(name))
    }
}
