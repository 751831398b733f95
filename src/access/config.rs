//! The bounds of asking.

use std::time::Duration;

use crate::error::ConfigError;

/// How a peer or a tracker asks its [`AccessPolicy`](super::AccessPolicy). Has no effect
/// without one.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct AccessConfig {
    /// How long a question may wait for its turn and its answer. After that it counts as
    /// [`Access::Unknown`](super::Access::Unknown). Default 2 s: a directory that is asked
    /// over a network answers by then. Both sides give up a handshake after 10 s, so more
    /// than a few seconds admit nobody.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub answer_timeout: Duration,
    /// How long an answer counts at most, unless something changes. After that, what is
    /// open is asked about again. Default 10 s: long enough that a download asks once or
    /// twice, and as long as a program that cannot tell of changes may be wrong.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub cache_lifetime: Duration,
    /// For how long what was permitted goes on while the policy cannot tell
    /// ([`Access::Unknown`](super::Access::Unknown)): connections, links, registrations,
    /// and what is owned. Counts from the first question without an answer, also after a
    /// change. Zero ends all of it at once. Default 30 s: as long as a directory takes to
    /// start again, and no longer than somebody who was put off the list may stay because
    /// it cannot be asked.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub grace: Duration,
    /// How many answers are kept. The oldest is forgotten for a new one. Zero keeps none.
    /// Default 4096: about a megabyte, and more than the links of a busy peer.
    pub max_cached: usize,
    /// How many questions are asked at a time; others wait. At least 1. Default 64, as
    /// many as a small service answers side by side.
    pub max_questions: usize,
    /// How many of them may be about one host, and half as many about one identity on it.
    /// At least 1. Default 16, a quarter of all, so that one host whose questions take long
    /// does not hold up the others. Counted as connections are, IPv6 hosts by their /64
    /// network.
    pub max_questions_per_host: usize,
}

setters!(AccessConfig {
    answer_timeout: Duration,
    cache_lifetime: Duration,
    grace: Duration,
    max_cached: usize,
    max_questions: usize,
    max_questions_per_host: usize,
});

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            answer_timeout: Duration::from_secs(2),
            cache_lifetime: Duration::from_secs(10),
            grace: Duration::from_secs(30),
            max_cached: 4096,
            max_questions: 64,
            max_questions_per_host: 16,
        }
    }
}

impl AccessConfig {
    /// Refuses values with which nobody would ever be allowed.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let zeros = [
            ("access.max_questions", self.max_questions == 0),
            (
                "access.max_questions_per_host",
                self.max_questions_per_host == 0,
            ),
            ("access.answer_timeout", self.answer_timeout.is_zero()),
        ];
        match zeros.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((field, _)) => Err(ConfigError::Zero { field }),
            None => Ok(()),
        }
    }
}
