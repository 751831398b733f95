//! The settings of a planner.

use std::fmt;
use std::time::Duration;

use crate::protocol::limits::MAX_REQUESTS;

/// The settings of a planner.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct PlannerConfig {
    /// The most chunks that are open at a time: some of their blocks were
    /// requested, or they are being verified or written. This bounds the work
    /// of searching many small chunks; `SwarmConfig::max_unverified` bounds the
    /// memory. Default 1024: many more than links, so that each leads chunks of its own.
    pub max_open: usize,
    /// The most outstanding requests on a link. Values above [`MAX_REQUESTS`]
    /// count as [`MAX_REQUESTS`], which is the default: fewer might leave a long fast
    /// line idle.
    pub max_requests: usize,
    /// The most outstanding bytes on a link; two blocks are always allowed. Default
    /// 16 MiB: what a line of 1 Gbit/s carries in 130 ms.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::bytes"))]
    pub max_window: u64,
    /// How many bytes a link is asked for before it is known how fast it is, if this peer
    /// is the only leecher as far as it knows: about what a long fast line carries in a
    /// round trip. It is less if all owners together would be asked for more than is
    /// missing, or than fits into memory, and no more than `max_window`. Default 8 MiB:
    /// what a line of 1 Gbit/s carries in a round trip of 67 ms.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::bytes"))]
    pub first_window: u64,
    /// How long, beyond two round trips, requests may wait at the other side.
    /// Default 5 ms: it covers the pauses of both programs, and is little to wait behind.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub slack: Duration,
    /// The shortest time after which a link that owes a block counts as silent.
    /// A slow link has four times the time that a block should take. At least
    /// 10 ms, and at most `max_silence`. Default 4 s: TCP repeats a lost packet a few
    /// times within that.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub silence: Duration,
    /// The longest time after which a link that owes a block counts as silent.
    /// At least 10 ms. Default 60 s: whoever needs longer for a block is of no use, and
    /// others can send it.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub max_silence: Duration,
    /// Which chunk comes next. Default: rarest first, so that no chunk is lost when an
    /// owner leaves.
    pub strategy: Strategy,
    /// The seed of the random numbers that break ties. Default 0, so that a machine that
    /// is driven by itself does the same every time.
    pub seed: u64,
}

setters!(PlannerConfig {
    max_open: usize,
    max_requests: usize,
    max_window: u64,
    first_window: u64,
    slack: Duration,
    silence: Duration,
    max_silence: Duration,
    strategy: Strategy,
    seed: u64,
});

impl Default for PlannerConfig {
    fn default() -> Self {
        Self {
            max_open: 1024,
            max_requests: MAX_REQUESTS,
            max_window: 16 << 20,
            first_window: 8 << 20,
            slack: Duration::from_millis(5),
            silence: Duration::from_secs(4),
            max_silence: Duration::from_secs(60),
            strategy: Strategy::RarestFirst,
            seed: 0,
        }
    }
}

/// Which chunk a download asks for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Strategy {
    /// The chunk that the fewest links have. Among seeders only, each gets its
    /// own contiguous share of the content.
    #[default]
    RarestFirst,
    /// The first missing chunk. What a [reader](crate::ContentReader) wants next comes
    /// first with either strategy.
    Sequential,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RarestFirst => "rarest-first",
            Self::Sequential => "sequential",
        })
    }
}
