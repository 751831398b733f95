//! The bounds of a swarm machine.

use std::time::Duration;

use super::PlannerConfig;

/// How one content is downloaded and served.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SwarmConfig {
    /// How many links a download looks for: each is a source, and in a crowd
    /// everybody reaches everybody over a few of them. Default 30, the degree
    /// with which crowds are served near the lower bound.
    pub sources: usize,
    /// How many links there may be, dialled or accepted. Default 50.
    pub max_links: usize,
    /// Bytes that came and are not stored yet, in bytes; at least two chunks
    /// are always allowed. Default 64 MiB.
    pub max_unverified: u64,
    /// Bytes of blocks on their way to the network, over all links. Default
    /// 4 MiB.
    pub send_window: u64,
    /// How many links may be sent to at a time. When more than these want
    /// something, they take turns of one chunk each, so that each gets a whole
    /// chunk soon and can pass it on. Default 3.
    pub upload_slots: usize,
    /// Bytes that may be written and not be durable yet: what is fetched twice
    /// if the process is killed. A commit begins at half of it, and nothing is
    /// written beyond it; a single chunk always may be. Default 32 MiB.
    pub commit_bytes: u64,
    /// How long a stored chunk waits at the most until a commit begins.
    /// Default 1 s.
    pub commit_interval: Duration,
    /// The first pause before more owners are looked for, while there are
    /// fewer than `sources`. Default 1 s, 10 ms at the least; doubles up to
    /// `find_interval`.
    pub find_retry: Duration,
    /// The longest pause. Default 30 s, 10 ms at the least.
    pub find_interval: Duration,
    /// A download to which nothing comes for so long is given up. Default 60 s,
    /// 10 ms at the least.
    pub patience: Duration,
    /// How requests are planned.
    pub planner: PlannerConfig,
}

impl Default for SwarmConfig {
    fn default() -> Self {
        Self {
            sources: 30,
            max_links: 50,
            max_unverified: 64 << 20,
            send_window: 4 << 20,
            upload_slots: 3,
            commit_bytes: 32 << 20,
            commit_interval: Duration::from_secs(1),
            find_retry: Duration::from_secs(1),
            find_interval: Duration::from_secs(30),
            patience: Duration::from_secs(60),
            planner: PlannerConfig::default(),
        }
    }
}
