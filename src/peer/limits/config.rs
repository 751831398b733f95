//! How fast a peer, and each of its contents, may send and receive.

use crate::error::ConfigError;

/// How fast a peer may send and receive, in bytes per second. `None`, the default, is no
/// limit; zero is an error.
///
/// What counts are the payload bytes of blocks, and the hashes in the pages of manifests.
/// Frames, other messages, trackers and the overhead of the transport do not: together they
/// are about one percent of it.
///
/// Over any second, a limit lets pass at most 5 % more than it says and one block; with
/// enough to do, it lets pass at least 95 % of it. At once, at most 64 KiB pass, or one block
/// if that is longer (up to 256 KiB), or what a limit above 32 MiB/s allows in 2 ms. A
/// download is limited by what it asks for: bytes that another peer holds back and sends
/// later at once may exceed a limit for that moment.
///
/// All contents, links and connections together keep to the limits. Those that share one
/// have turns, by content and host, of about as many bytes. Any limit is kept to: if it is
/// below a block per second, the next block waits for as long as it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct RateLimits {
    /// How fast this peer sends to all others together.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::rate"))]
    pub upload: Option<u64>,
    /// How fast this peer receives from all others together.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::rate"))]
    pub download: Option<u64>,
    /// How fast this peer sends to one host: an IPv4 address, or an IPv6 /64 network.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::rate"))]
    pub upload_per_host: Option<u64>,
    /// How fast this peer receives from one host.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::rate"))]
    pub download_per_host: Option<u64>,
}

setters!(RateLimits {
    upload: impl Into<Option<u64>>,
    download: impl Into<Option<u64>>,
    upload_per_host: impl Into<Option<u64>>,
    download_per_host: impl Into<Option<u64>>,
});

/// How fast one content may be sent and received, in bytes per second, beside the
/// [`RateLimits`] of the peer, which say what counts and how exact it is. `None`, the
/// default, is no limit of its own; zero is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct ContentLimits {
    /// How fast this peer sends the content.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::rate"))]
    pub upload: Option<u64>,
    /// How fast this peer receives the content.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::rate"))]
    pub download: Option<u64>,
}

setters!(ContentLimits {
    upload: impl Into<Option<u64>>,
    download: impl Into<Option<u64>>,
});

impl RateLimits {
    pub(in crate::peer) fn check(&self) -> Result<(), ConfigError> {
        refuse_zero([
            ("limits.upload", self.upload),
            ("limits.download", self.download),
            ("limits.upload_per_host", self.upload_per_host),
            ("limits.download_per_host", self.download_per_host),
        ])
    }
}

impl ContentLimits {
    pub(in crate::peer) fn check(&self) -> Result<(), ConfigError> {
        refuse_zero([
            ("limits.upload", self.upload),
            ("limits.download", self.download),
        ])
    }
}

/// A limit of zero would be a stop, which nothing would ever end.
fn refuse_zero<const N: usize>(
    limits: [(&'static str, Option<u64>); N],
) -> Result<(), ConfigError> {
    match limits.into_iter().find(|(_, rate)| *rate == Some(0)) {
        Some((field, _)) => Err(ConfigError::Zero { field }),
        None => Ok(()),
    }
}
