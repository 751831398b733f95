//! Configurations with extreme values: each is refused by name, or works.

use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::peer::swarm::{PlannerConfig, SwarmConfig};
use bt_lite::protocol::MAX_ZONE_LEN;
use bt_lite::tracker::ClientConfig;
use bt_lite::{
    ConfigError, ContentId, DownloadError, DownloadOptions, MemoryStorage, ShareSource, StartError,
};

use crate::world::{World, content, named, soon};

/// The shortest patience that is accepted.
const PATIENCE: Duration = Duration::from_millis(10);

/// How often a test yields to other tasks: enough for hundreds of requests while
/// no time passes.
const YIELDS: usize = 5_000;

/// Sets one field to its `n`th extreme; `false` if it has fewer.
type Set = fn(&mut PeerConfig, usize) -> bool;

/// Sets a field to an extreme of its type.
trait Extreme: Sized + 'static {
    const EXTREMES: &[Self];
}

impl Extreme for u16 {
    const EXTREMES: &[Self] = &[0, 1, Self::MAX];
}

impl Extreme for usize {
    const EXTREMES: &[Self] = &[0, 1, Self::MAX];
}

impl Extreme for u64 {
    const EXTREMES: &[Self] = &[0, 1, Self::MAX];
}

impl Extreme for Duration {
    const EXTREMES: &[Self] = &[
        Self::ZERO,
        Self::from_nanos(1),
        PATIENCE,
        // The longest that fits clocks with signed seconds, and a quarter of the
        // longest.
        Self::from_secs(i64::MAX as u64),
        Self::from_secs(u64::MAX / 4),
        Self::MAX,
    ];
}

impl Extreme for Option<Duration> {
    const EXTREMES: &[Self] = &[
        Some(Duration::ZERO),
        Some(Duration::from_nanos(1)),
        Some(PATIENCE),
        Some(Duration::MAX),
        None,
    ];
}

/// A slow rate, with which the content is here before a test gives up.
const SLOW: u64 = 8 << 10;

impl Extreme for Option<u64> {
    const EXTREMES: &[Self] = &[Some(0), Some(SLOW), Some(u64::MAX), None];
}

fn set<T: Extreme + Clone>(field: &mut T, nth: usize) -> bool {
    let extreme = T::EXTREMES.get(nth);
    extreme.is_some_and(|extreme| {
        *field = extreme.clone();
        true
    })
}

/// A value that does not contradict the longest one, and is not too short either.
fn at_most(value: Duration, longest: Duration) -> Duration {
    value.min(longest.max(PATIENCE))
}

const FIELDS: &[(&str, Set)] = &[
    ("owners_wanted", |c, n| set(&mut c.owners_wanted, n)),
    ("max_downloads", |c, n| set(&mut c.max_downloads, n)),
    ("max_connections", |c, n| set(&mut c.max_connections, n)),
    ("max_connections_per_host", |c, n| {
        set(&mut c.max_connections_per_host, n)
    }),
    ("max_handshakes", |c, n| set(&mut c.max_handshakes, n)),
    ("max_handshakes_per_host", |c, n| {
        set(&mut c.max_handshakes_per_host, n)
    }),
    ("shutdown_timeout", |c, n| set(&mut c.shutdown_timeout, n)),
    ("limits.upload", |c, n| set(&mut c.limits.upload, n)),
    ("limits.download", |c, n| set(&mut c.limits.download, n)),
    ("limits.upload_per_host", |c, n| {
        set(&mut c.limits.upload_per_host, n)
    }),
    ("limits.download_per_host", |c, n| {
        set(&mut c.limits.download_per_host, n)
    }),
    ("access.answer_timeout", |c, n| {
        set(&mut c.access.answer_timeout, n)
    }),
    ("access.cache_lifetime", |c, n| {
        set(&mut c.access.cache_lifetime, n)
    }),
    ("access.grace", |c, n| set(&mut c.access.grace, n)),
    ("access.max_cached", |c, n| set(&mut c.access.max_cached, n)),
    ("access.max_questions", |c, n| {
        set(&mut c.access.max_questions, n)
    }),
    ("access.max_questions_per_host", |c, n| {
        set(&mut c.access.max_questions_per_host, n)
    }),
    ("max_stored", |c, n| {
        // With less than the content it cannot be downloaded.
        let extremes = [Some(0), Some(u64::MAX), None];
        let extreme = extremes.get(n);
        c.max_stored = extreme.copied().unwrap_or(c.max_stored);
        extreme.is_some()
    }),
    ("zone", |c, n| {
        let longest = "z".repeat(MAX_ZONE_LEN);
        let zone = ["z", &longest].get(n).map(|zone| zone.parse().unwrap());
        let is_set = zone.is_some();
        c.zone = zone.or(c.zone.take());
        is_set
    }),
    ("swarm.sources", |c, n| set(&mut c.swarm.sources, n)),
    ("swarm.max_links", |c, n| set(&mut c.swarm.max_links, n)),
    ("swarm.max_waiting", |c, n| set(&mut c.swarm.max_waiting, n)),
    ("swarm.max_unverified", |c, n| {
        set(&mut c.swarm.max_unverified, n)
    }),
    ("swarm.send_window", |c, n| set(&mut c.swarm.send_window, n)),
    ("swarm.upload_slots", |c, n| {
        set(&mut c.swarm.upload_slots, n)
    }),
    ("swarm.stranger_slots", |c, n| {
        set(&mut c.swarm.stranger_slots, n)
    }),
    ("swarm.optimistic_slots", |c, n| {
        set(&mut c.swarm.optimistic_slots, n)
    }),
    ("swarm.commit_bytes", |c, n| {
        set(&mut c.swarm.commit_bytes, n)
    }),
    ("swarm.commit_interval", |c, n| {
        set(&mut c.swarm.commit_interval, n)
    }),
    ("swarm.find_retry", |c, n| {
        let is_set = set(&mut c.swarm.find_retry, n);
        c.swarm.find_interval = c.swarm.find_interval.max(c.swarm.find_retry);
        is_set
    }),
    ("swarm.find_interval", |c, n| {
        let is_set = set(&mut c.swarm.find_interval, n);
        c.swarm.find_retry = at_most(c.swarm.find_retry, c.swarm.find_interval);
        is_set
    }),
    ("swarm.patience", |c, n| set(&mut c.swarm.patience, n)),
    ("swarm.planner.max_open", |c, n| {
        set(&mut c.swarm.planner.max_open, n)
    }),
    ("swarm.planner.max_requests", |c, n| {
        set(&mut c.swarm.planner.max_requests, n)
    }),
    ("swarm.planner.max_window", |c, n| {
        set(&mut c.swarm.planner.max_window, n)
    }),
    ("swarm.planner.first_window", |c, n| {
        set(&mut c.swarm.planner.first_window, n)
    }),
    ("swarm.planner.slack", |c, n| {
        set(&mut c.swarm.planner.slack, n)
    }),
    ("swarm.planner.silence", |c, n| {
        let is_set = set(&mut c.swarm.planner.silence, n);
        c.swarm.planner.max_silence = c.swarm.planner.max_silence.max(c.swarm.planner.silence);
        is_set
    }),
    ("swarm.planner.max_silence", |c, n| {
        let is_set = set(&mut c.swarm.planner.max_silence, n);
        c.swarm.planner.silence = at_most(c.swarm.planner.silence, c.swarm.planner.max_silence);
        is_set
    }),
    ("swarm.planner.seed", |c, n| {
        set(&mut c.swarm.planner.seed, n)
    }),
];

/// Runs an owner and two leechers with this configuration. Returns the error if
/// it is refused.
async fn small_swarm(config: &PeerConfig) -> Option<ConfigError> {
    let world = World::memory(1).await;
    let bytes = content(40 * (16 << 10) + 5, 1);
    let id = ContentId::of(&bytes);
    // One leecher is far away, and messages to the other take no time.
    let latency = Duration::from_micros(200);
    world.network().set_latency("far", latency);
    let builder = world.builder("owner", MemoryStorage::new());
    let owner = match builder.config(config.clone()).start().await {
        Ok(peer) => peer,
        Err(StartError::Config(error)) => return Some(error),
        Err(error) => panic!("{error}"),
    };
    let near = world.node_with("near", config.clone()).await;
    let far = world.node_with("far", config.clone()).await;
    // Nobody has it yet: one looks for owners, but not without pauses.
    let nobody = DownloadOptions::new().owner(world.nowhere());
    let early = near.peer.download_with(id, nobody.name(named("x")));
    for _ in 0..YIELDS {
        tokio::task::yield_now().await;
    }
    let asked = world.tracker.stats().registry.requests.need;
    assert!(asked < 10, "{asked} requests in no time");
    let source = ShareSource::bytes(named("x"), bytes.clone());
    owner.share(source).await.unwrap();
    let (one, other) = futures::join!(early, far.peer.download(named("x")));
    other.unwrap();
    match one {
        // The shortest patience ends before there is an owner.
        Err(DownloadError::GaveUp { .. })
            if config
                .swarm
                .patience
                .is_some_and(|patience| patience <= PATIENCE) => {}
        one => {
            one.unwrap();
            assert_eq!(near.bytes("x").unwrap(), bytes);
        }
    }
    assert_eq!(far.bytes("x").unwrap(), bytes);
    for peer in [near.peer, far.peer, owner] {
        peer.shutdown().await;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn extreme_of_every_field_is_refused_by_its_name_or_works() {
    for (name, set) in FIELDS {
        for nth in 0.. {
            let mut config = PeerConfig::default();
            if !set(&mut config, nth) {
                break;
            }
            let refused = soon(small_swarm(&config)).await;
            match &refused {
                None => {}
                Some(ConfigError::Zero { field } | ConfigError::OutOfRange { field, .. }) => {
                    assert_eq!(field, name);
                    assert!(nth < 2, "{name} is refused at its extreme {nth}");
                }
                Some(error) => panic!("{name}: {error}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fields_that_contradict_each_other_are_refused_by_their_names() {
    let seconds = Duration::from_secs;
    let swarm = SwarmConfig::default();
    let planner = PlannerConfig::default();
    let client = ClientConfig::default();
    let backoff = (seconds(20), seconds(15));
    let own_retry = (seconds(61), seconds(60));
    let config = PeerConfig::default();
    for (config, field, longest, found) in [
        (
            config.clone().swarm(
                swarm
                    .clone()
                    .find_interval(seconds(5))
                    .find_retry(seconds(6)),
            ),
            "swarm.find_retry",
            "swarm.find_interval",
            "6s",
        ),
        (
            config
                .clone()
                .swarm(swarm.planner(planner.max_silence(seconds(3)))),
            "swarm.planner.silence",
            "swarm.planner.max_silence",
            "4s",
        ),
        (
            config.clone().tracker(client.clone().backoff(backoff)),
            "tracker.backoff",
            "15s",
            "20s",
        ),
        (
            config.tracker(client.own_retry(own_retry)),
            "tracker.own_retry",
            "60s",
            "61s",
        ),
    ] {
        let refused = soon(small_swarm(&config)).await.unwrap();
        let text = refused.to_string();
        assert!(text.contains(longest) && text.contains(found), "{text}");
        assert!(
            matches!(refused, ConfigError::OutOfRange { field: named, .. } if named == field),
            "{text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn all_fields_at_their_maximum_work_together() {
    let mut config = PeerConfig::default();
    for (name, set) in FIELDS {
        let mut tried = config.clone();
        let extremes = (0..).take_while(|&nth| set(&mut tried, nth)).count();
        assert!(extremes > 0 && set(&mut config, extremes - 1), "{name}");
    }
    assert_eq!(config.swarm.planner.silence, Duration::MAX);
    assert_eq!(soon(small_swarm(&config)).await, None);
}

#[test]
fn every_field_is_tried() {
    // The fields of trackers have their own tests, and the strategy has no
    // extreme.
    let mut config = format!("{:#?}", PeerConfig::default());
    let tracker = config.find("tracker: ").unwrap();
    config.truncate(tracker);
    let field = |line: &str| Some(line.split_once(": ")?.0.trim().to_string());
    let mut found: Vec<String> = config.lines().filter_map(field).collect();
    let last = |(name, _): &(&'static str, Set)| name.rsplit('.').next().unwrap().to_string();
    let mut tried: Vec<String> = FIELDS.iter().map(last).collect();
    tried.extend(["strategy", "swarm", "planner", "limits", "access"].map(String::from));
    found.sort();
    tried.sort();
    assert_eq!(found, tried);
}
