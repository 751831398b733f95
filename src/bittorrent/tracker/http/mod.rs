//! Trackers over HTTP: the query of a request, and the body of an answer.
//!
//! What is read from trackers that are in use is read as their other clients read it:
//!
//! - Keys may be out of order (chihaya sends them so) or occur twice, and something may
//!   follow the answer, such as a line break.
//! - Peers are read in every form, whichever was asked for. What is left at the end of a
//!   compact list is ignored, and so are peers of port 0, those with a host name, and more
//!   than [`MAX_ANSWER_PEERS`].
//! - Without an interval it is [`DEFAULT_INTERVAL`]. Numbers out of range, such as -1, and
//!   other entries of the wrong type count as missing.
//! - In a query, unknown parameters and events are ignored, and of equal ones the first
//!   counts.

mod announce;
mod answer;
mod scrape;

pub use announce::{AnnounceQuery, PeersForm, QueryError, with_query};
pub use answer::{AnnounceAnswer, AnswerError, HttpPeer, Refusal, RetryIn};
pub use scrape::{ScrapeAnswer, ScrapeQuery, scrape_url};

/// The maximum length of an answer in bytes: room for thousands of peers in full.
pub const MAX_ANSWER_LEN: usize = 1 << 20;

/// How many peers are taken from an answer. More than a client asks for.
pub const MAX_ANSWER_PEERS: usize = 4096;

/// The maximum length of a query in bytes: room for [`MAX_SCRAPE`] info hashes.
pub const MAX_QUERY_LEN: usize = 16 << 10;

/// How many torrents can be asked about in one query.
pub const MAX_SCRAPE: usize = 128;

/// After how many seconds to announce again if the tracker does not say.
pub const DEFAULT_INTERVAL: u32 = 1800;

/// The maximum length of a text from the other side that is kept, in bytes: a reason for
/// people, or what a tracker wants to be told again. Longer ones count as missing.
pub const MAX_TEXT_LEN: usize = 2048;
