//! A network inside the process: fast enough to run a swarm over it, and a
//! simulator where time or faults matter. It is made for tests, yours included.
//!
//! A [`MemoryNetwork`] is a value. Its endpoints are hosts with names. The frames
//! themselves travel between them, so that bodies are never copied. Links are
//! bounded: a sink accepts no more frames while [`LINK_BYTES`] are on their way
//! or unread, or as many as [`set_link_bytes`](MemoryNetwork::set_link_bytes) says.
//!
//! # Time
//! As long as nothing is set, a frame arrives at the moment it is sent, without
//! any timer. Once an endpoint has a rate, a latency or a fault, all frames follow
//! this model, in tokio time:
//!
//! - An endpoint has an uplink and a downlink. A frame occupies the sender's
//!   uplink for `length / upload rate`, travels for the latency, and occupies the
//!   receiver's downlink for `length / download rate`. A line without a rate takes
//!   no time.
//! - A line carries one frame at a time. The links that wait for it take turns
//!   (round robin), one frame each, so that links with equal frames get equal
//!   shares.
//! - `length` is the length of the frame on a byte stream: head, body, and a
//!   prefix of 6 bytes.
//! - The latency of a pair is the one that was set for it, or the sum of both
//!   endpoints' latencies. The jitter of each frame is drawn from the network's
//!   seed. Frames of one link never overtake each other.
//! - Credit takes no time: a sink may continue as soon as the other side has read.
//!   A closed reader and the effects of a fault are also seen at once.
//! - What is queued for a reader that was closed or dropped leaves the lines at once, as
//!   with a connection that is reset, and so does what a fault resets. The rest of a frame
//!   that a line is carrying is not carried.
//! - An endpoint that connects to itself uses its own two lines.
//!
//! tokio's timers fire at whole milliseconds. Lines are exact, so rates are kept,
//! but a frame may be noticed up to a millisecond late.
//!
//! Under a paused clock (`#[tokio::test(start_paused = true)]`), time passes when
//! all tasks wait, and the same seed with the same calls gives the same run, event
//! for event: [`record`](MemoryNetwork::record) the runs and compare them.
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
//! assert_eq!(begun.elapsed().as_millis(), 521); // 50,011 bytes, and the latency
//!
//! network.kill("seed");
//! assert!(matches!(here.stream.next().await, Some(Err(_))));
//! # Ok(())
//! # }
//! ```

mod addr;
mod byte_io;
mod endpoint;
mod halves;
mod latency;
mod lock;
mod network;
mod pipe;
mod schedule;
mod shared;
mod state;
mod trace;

pub use addr::MAX_ENDPOINT_NAME;
pub use byte_io::MemoryStream;
pub use endpoint::{BACKLOG, MemoryListener, MemoryTransport};
pub use latency::Latency;
pub use network::MemoryNetwork;
pub use pipe::LINK_BYTES;
pub use trace::{Trace, TraceEvent, TraceKind};
