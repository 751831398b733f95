//! The bounds of a swarm machine.

use std::time::Duration;

use super::PlannerConfig;

/// How one content is downloaded and served.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct SwarmConfig {
    /// How many links a download looks for. Each is a source, and in a crowd every peer
    /// reaches every other over a few of them. Default 30, the degree with which crowds
    /// are served near the lower bound.
    pub sources: usize,
    /// How many links there may be, dialled or accepted, that have a place: links that wait
    /// for one do not count. Default 50: the default `sources`, and places for others that
    /// look for this peer.
    pub max_links: usize,
    /// How many links may wait for a place, beyond `max_links`, where the content is
    /// complete. With 0, none does: they are refused, and dial again. Default 1000: each
    /// costs a connection, and a place is held for ten seconds or more, so the last of
    /// them waits for minutes already.
    pub max_waiting: usize,
    /// Bytes that have arrived and are not stored yet. Two chunks are always allowed,
    /// and one more while somebody reads the content.
    /// Default 64 MiB: four chunks of the longest kind, so that one can be verified and
    /// another written while two arrive.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::bytes"))]
    pub max_unverified: u64,
    /// Bytes of blocks on their way to the network, over all links. Default
    /// 4 MiB: what a line of 1 Gbit/s sends in 34 ms, so that it does not wait for the
    /// disk.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::bytes"))]
    pub send_window: u64,
    /// How many links are served without taking turns. If more links want something,
    /// they take turns of one chunk each, so that each soon gets a whole chunk and can
    /// pass it on. Default 3: few, so that each is served at a good rate, and enough to
    /// keep the line busy while one of them does not ask.
    pub upload_slots: usize,
    /// How many links with clients of other makers are served at a time: BitTorrent
    /// clients, which may give nothing back. Most of these slots go to those that give most,
    /// and are given anew every ten seconds. Default 8, as in libtorrent and Transmission:
    /// with more of them each gets so little that one that gives does not notice, and with
    /// fewer slow ones leave a fast line idle. With 0, none is served.
    pub stranger_slots: usize,
    /// How many of these slots go to others in turns, whatever they give: so newcomers get
    /// something that they can give, and better ones are found. Those that give nothing get
    /// no more than this part of what is sent, as long as others want it. Default 1, as in BEP 3: whoever gives is worth more.
    pub optimistic_slots: usize,
    /// Bytes that may be written and not durable yet. They are fetched again if the
    /// process is killed. A commit begins at half of it, and nothing is written beyond
    /// it; a single chunk is always allowed. Default 32 MiB: what a line of 100 Mbit/s
    /// brings in three seconds, so that a kill costs little, and syncs are few.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::bytes"))]
    pub commit_bytes: u64,
    /// How long a stored chunk waits at most until a commit begins.
    /// Default 1 s: a slow download loses no more than that, and does not sync more often.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub commit_interval: Duration,
    /// The first pause before the trackers are asked for more owners, while there are
    /// fewer than `sources`. It doubles up to `find_interval`, and is no
    /// longer than that. At least 10 ms. Default 1 s: owners of a new content show up
    /// within seconds.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub find_retry: Duration,
    /// The longest such pause. At least 10 ms. Default 30 s: peers come and go within
    /// minutes, and a tracker hardly notices two questions a minute.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub find_interval: Duration,
    /// A download is given up if nothing arrives for this long, and no turn is waited for,
    /// neither in the line of a busy owner nor on a link of one that serves others first.
    /// A turn that comes no nearer is waited for 30 times as long, and any 1440 times as
    /// long. The time that the storage takes does not count. A download that begins while
    /// no tracker answers ends after that time as well. At least 10 ms. Default
    /// `None`: it goes on for as long as its handle is held, and says when it
    /// [stalls](crate::DownloadEvent::Stalled).
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub patience: Option<Duration>,
    /// How requests are planned.
    pub planner: PlannerConfig,
}

setters!(SwarmConfig {
    sources: usize,
    max_links: usize,
    max_waiting: usize,
    max_unverified: u64,
    send_window: u64,
    upload_slots: usize,
    stranger_slots: usize,
    optimistic_slots: usize,
    commit_bytes: u64,
    commit_interval: Duration,
    find_retry: Duration,
    find_interval: Duration,
    patience: impl Into<Option<Duration>>,
    planner: PlannerConfig,
});

impl Default for SwarmConfig {
    fn default() -> Self {
        Self {
            sources: 30,
            max_links: 50,
            max_waiting: 1000,
            max_unverified: 64 << 20,
            send_window: 4 << 20,
            upload_slots: 3,
            stranger_slots: 8,
            optimistic_slots: 1,
            commit_bytes: 32 << 20,
            commit_interval: Duration::from_secs(1),
            find_retry: Duration::from_secs(1),
            find_interval: Duration::from_secs(30),
            patience: None,
            planner: PlannerConfig::default(),
        }
    }
}
