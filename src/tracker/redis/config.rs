//! The figures of a shared store, and what can be wrong with it.

use std::time::Duration;

use thiserror::Error;

use crate::advice::Advice;
use crate::error::ConfigError;

/// The longest that a wait for the store may be set to: as long as a client waits for a
/// tracker, by default. Whoever waits longer is not answered.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A store in Redis or Valkey that several trackers share
/// ([`TrackerBuilder::redis`](crate::TrackerBuilder::redis)): a primary with its replicas, or a
/// cluster. Version 6.2 or later, without eviction: keys that the store drops by itself are
/// peers that are lost. The clocks of the nodes of a cluster must agree to within three seconds.
///
/// ```
/// use bt_lite::tracker::RedisConfig;
///
/// let config = RedisConfig::new(["redis://10.0.0.5/", "redis://10.0.0.6/"], [7; 32]);
/// assert_eq!(config.prefix, "bt_lite");
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where the store and its replicas are: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or
    /// `rediss://` where the program enables TLS in the crate `redis`. The first that says
    /// that it is the primary is used, and another one when it is no more. Of a cluster some
    /// of the nodes are enough: the first that answers tells of the others, which are reached
    /// with the same user and password. Default: none, as nobody else can know.
    pub urls: Vec<String>,
    /// The secret with which tokens are made: the same for all trackers of a store, and
    /// random. Default: all zeros, with which no tracker starts, as it is no secret.
    pub key: [u8; 32],
    /// What all keys begin with, so that several fleets can share a store. Default
    /// `bt_lite`: a store has one, most often.
    pub prefix: String,
    /// How long a request waits for the store, and a connection to it for its answer. Default
    /// 2 s: a store that needs longer is overrun, and clients wait for 10 s. At most 10 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub patience: Duration,
    /// For how long a tracker that has lost the store answers from what it last knew. Then
    /// it refuses as busy, so that peers go to another one. Default 5 min: longer than a
    /// failover and most restarts, and most owners are still there.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub answers_without: Duration,
}

setters!(RedisConfig {
    urls: Vec<String>,
    key: [u8; 32],
    prefix: String,
    patience: Duration,
    answers_without: Duration,
});

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            key: [0; 32],
            prefix: "bt_lite".into(),
            patience: Duration::from_secs(2),
            answers_without: Duration::from_secs(5 * 60),
        }
    }
}

/// Shows neither the key nor passwords.
impl std::fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisConfig")
            .field("prefix", &self.prefix)
            .field("patience", &self.patience)
            .field("answers_without", &self.answers_without)
            .finish_non_exhaustive()
    }
}

impl RedisConfig {
    /// A store at one of these URLs, with a secret that its trackers share.
    pub fn new<U: Into<String>>(urls: impl IntoIterator<Item = U>, key: [u8; 32]) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            key,
            ..Self::default()
        }
    }

    /// Refuses values that cannot work.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.urls.is_empty() {
            return Err(ConfigError::Zero {
                field: "redis.urls",
            });
        }
        let out_of_range = |field, found: String, allowed: &str| {
            Err(ConfigError::OutOfRange {
                field,
                found,
                allowed: allowed.into(),
            })
        };
        if self.key == [0; 32] {
            let allowed = "random and secret";
            return out_of_range("redis.key", "all zeros".into(), allowed);
        }
        // Braces decide which keys are together in a cluster.
        if self.prefix.is_empty() || self.prefix.contains(['{', '}']) {
            let allowed = "a text without braces";
            return out_of_range("redis.prefix", format!("{:?}", self.prefix), allowed);
        }
        if self.patience.is_zero() || self.patience > LONGEST_WAIT {
            let allowed = format!("more than zero and at most {LONGEST_WAIT:?}");
            return out_of_range("redis.patience", format!("{:?}", self.patience), &allowed);
        }
        Ok(())
    }
}

/// Why a tracker cannot use a shared store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// None of the URLs leads to a store that answers as it should.
    #[error("the store is out of reach: {message}")]
    Unreachable {
        /// What the last one of them has said. Without secrets.
        message: String,
    },
    /// Those that answer are replicas, or do not accept changes.
    #[error("the store accepts no changes: {message}")]
    ReadOnly {
        /// What it has said.
        message: String,
    },
    /// The store has no memory left for what must be written.
    #[error("the store is full: {message}")]
    Full {
        /// What it has said.
        message: String,
    },
    /// What is in the store was written by another version of this crate.
    #[error("the store has schema {found}, and this tracker writes schema {expected}")]
    Schema {
        /// That of the store.
        found: String,
        /// That of this crate.
        expected: &'static str,
    },
    /// Other trackers use the store with another key, so no token would be good for both.
    #[error("the trackers of this store have another key")]
    Key,
}

impl StoreError {
    /// What to do about it.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Unreachable { .. } | Self::ReadOnly { .. } => Advice::Retry,
            Self::Full { .. } | Self::Schema { .. } | Self::Key => Advice::AskUser,
        }
    }
}

is_transient!(StoreError);

/// How a tracker stands with its shared store, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct StoreStats {
    /// For how long the store has been away, or one of the nodes of a cluster. `None`: all of
    /// it is there.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub away: Option<Duration>,
    /// How often it was lost, or a node of it.
    pub losses: u64,
    /// How many requests were answered without it, refusals included.
    pub answered_without: u64,
    /// How many reports and farewells wait until it is back.
    pub deferred: u64,
    /// How many of them were dropped, because too many waited.
    pub dropped: u64,
    /// How many pipelines were sent to it: one for most batches of requests, to each node that
    /// they concern.
    pub round_trips: u64,
    /// How many calls of scripts were in them.
    pub calls: u64,
}
