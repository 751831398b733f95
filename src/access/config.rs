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
    /// How long a question may wait for its turn and its answer. Who is not allowed by
    /// then is denied. Default 500 ms, so that whoever is denied by a silent policy is
    /// gone a second after a change.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub answer_timeout: Duration,
    /// How long an answer counts at most, unless something changes. After that, what is
    /// open is asked about again. Default 10 s: long enough that a download asks once or
    /// twice, and as long as a program that cannot tell of changes may be wrong.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub cache_lifetime: Duration,
    /// How many answers are kept. The oldest is forgotten for a new one. Zero keeps none.
    /// Default 4096: about a megabyte, and more than the links of a busy peer.
    pub max_cached: usize,
    /// How many questions are asked at a time; others wait. At least 1. Default 64, as
    /// many as a small service answers side by side.
    pub max_questions: usize,
}

setters!(AccessConfig {
    answer_timeout: Duration,
    cache_lifetime: Duration,
    max_cached: usize,
    max_questions: usize,
});

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            answer_timeout: Duration::from_millis(500),
            cache_lifetime: Duration::from_secs(10),
            max_cached: 4096,
            max_questions: 64,
        }
    }
}

impl AccessConfig {
    /// Refuses values with which nobody would ever be allowed.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.max_questions == 0 {
            return Err(ConfigError::Zero {
                field: "access.max_questions",
            });
        }
        if self.answer_timeout.is_zero() {
            return Err(ConfigError::Zero {
                field: "access.answer_timeout",
            });
        }
        Ok(())
    }
}
