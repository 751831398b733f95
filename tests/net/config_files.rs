//! Configurations in a TOML file.

use std::fmt::Debug;
use std::time::Duration;

use bt_lite::peer::swarm::{PlannerConfig, SwarmConfig};
use bt_lite::tracker::{AddressRule, ClientConfig, RegistryConfig};
use bt_lite::{PeerConfig, ReaderOptions, Strategy, TrackerConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn load<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

fn defaults_round_trip<T>()
where
    T: Debug + Default + PartialEq + Serialize + DeserializeOwned,
{
    let text = toml::to_string(&T::default()).unwrap();
    assert_eq!(load::<T>(&text), Ok(T::default()), "{text}");
    // What a file leaves out has its default.
    assert_eq!(load::<T>(""), Ok(T::default()));
    let unknown = load::<T>("sorces = 1").unwrap_err();
    assert!(unknown.contains("unknown field `sorces`"), "{unknown}");
}

#[test]
fn defaults_round_trip_and_unknown_fields_are_refused() {
    defaults_round_trip::<PeerConfig>();
    defaults_round_trip::<ReaderOptions>();
    defaults_round_trip::<SwarmConfig>();
    defaults_round_trip::<PlannerConfig>();
    defaults_round_trip::<TrackerConfig>();
    defaults_round_trip::<RegistryConfig>();
    defaults_round_trip::<ClientConfig>();
}

#[test]
fn file_is_read_as_people_write_it() {
    let peer = load::<PeerConfig>(
        r#"
        max_connections = 200
        shutdown_timeout = "1m 30s"

        [swarm]
        max_unverified = "128 MiB"
        commit_bytes = 1048576
        patience = "5m"

        [swarm.planner]
        first_window = "1.5 MB"
        slack = "7ms"
        strategy = "sequential"

        [tracker]
        backoff = ["250ms", "20s"]
        seed = 7
        "#,
    );
    let planner = PlannerConfig::default()
        .first_window(1_500_000)
        .slack(Duration::from_millis(7))
        .strategy(Strategy::Sequential);
    let swarm = SwarmConfig::default()
        .max_unverified(128 << 20)
        .commit_bytes(1 << 20)
        .patience(Duration::from_secs(300))
        .planner(planner);
    let client = ClientConfig::default()
        .backoff((Duration::from_millis(250), Duration::from_secs(20)))
        .seed(7);
    let expected = PeerConfig::default()
        .max_connections(200)
        .shutdown_timeout(Duration::from_secs(90))
        .swarm(swarm)
        .tracker(client);
    assert_eq!(peer, Ok(expected.clone()));
    let text = toml::to_string(&expected).unwrap();
    assert!(text.contains("shutdown_timeout = \"1m 30s\""), "{text}");
    assert!(text.contains("patience = \"5m\""), "{text}");
    assert_eq!(load(&text), Ok(expected));

    let tracker = load::<TrackerConfig>(
        "shards = 8\nregistry = { heartbeat = \"30s\", addresses = \"any\" }",
    );
    let registry = RegistryConfig::default()
        .heartbeat(Duration::from_secs(30))
        .addresses(AddressRule::Any);
    let expected = TrackerConfig::default().shards(8).registry(registry);
    assert_eq!(tracker, Ok(expected));
}

#[test]
fn wrong_value_is_refused_with_its_field_and_what_is_expected() {
    for (text, field, reason) in [
        ("patience = \"5 parsecs\"", "patience", "unknown time unit"),
        ("patience = 5", "patience", "a duration with its unit"),
        (
            "send_window = \"much\"",
            "send_window",
            "invalid number of bytes",
        ),
        (
            "send_window = -1",
            "send_window",
            "invalid number of bytes -1",
        ),
        (
            "send_window = \"20000000 TiB\"",
            "send_window",
            "does not fit 64 bits",
        ),
        ("send_window = true", "send_window", "a number of bytes"),
        ("sources = \"many\"", "sources", "expected usize"),
        (
            "[planner]\nstrategy = \"fast\"",
            "strategy",
            "`rarest-first`",
        ),
        ("[planner]\nsead = 1", "sead", "unknown field"),
    ] {
        let error = load::<SwarmConfig>(text).unwrap_err();
        assert!(error.contains(field), "{error}");
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn reader_is_configured_in_bytes_as_people_write_them() {
    let options = load::<ReaderOptions>("readahead = \"2 MiB\"\nbuffer = \"64 KiB\"");
    let expected = ReaderOptions::new().readahead(2 << 20).buffer(64 << 10);
    assert_eq!(options, Ok(expected));
}

/// The extremes of a duration are saved and loaded as they are.
#[test]
fn every_duration_round_trips() {
    for duration in [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_secs(u64::MAX / 4),
        Duration::MAX,
    ] {
        let config = ClientConfig::default().request_timeout(duration);
        let text = toml::to_string(&config).unwrap();
        assert_eq!(load(&text), Ok(config), "{text}");
    }
}
