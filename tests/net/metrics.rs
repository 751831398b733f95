//! What peers and trackers record.

use std::collections::BTreeMap;
use std::time::Duration;

use bt_lite::protocol::{OwnEntry, OwnState, PeerMessage, TrackerReply, TrackerRequest};
use bt_lite::tracker::{RegistryConfig, Tracker};
use bt_lite::{ContentId, MemoryNetwork, PeerConfig, Transport, Zone};
use futures::{SinkExt, StreamExt};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::world::{World, content, named, soon, wire};

const CHUNK: usize = 16 << 10;

/// The value of each series, by its name with its labels.
fn values(metrics: &PrometheusHandle) -> BTreeMap<String, f64> {
    let text = metrics.render();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let values = lines.filter_map(|line| line.rsplit_once(' '));
    let values = values.map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
    values.collect()
}

#[tokio::test(start_paused = true)]
async fn bytes_between_zones_are_recorded_in_both_directions_and_no_others() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let world = World::memory(1).await;
    let zone = |name: &str| PeerConfig::default().zone(name.parse::<Zone>().unwrap());
    let owner = world.node_with("owner", zone("there")).await;
    let bytes = content(20 * CHUNK, 1);
    let shared = owner.share("x", &bytes).await;
    let far = |direction: &str| {
        let name = format!("bt_lite_peer_far_bytes_total{{direction=\"{direction}\"}}");
        values(&metrics).get(&name).copied().unwrap_or(0.0)
    };
    // Who is in the same zone or in none is near.
    for (name, config, crossed) in [
        ("near", zone("there"), 0),
        ("none", PeerConfig::default(), 0),
        ("far", zone("here"), bytes.len()),
    ] {
        let before = (far("down"), far("up"));
        let node = world.node_with(name, config).await;
        soon(node.peer.download(&shared)).await.unwrap();
        let (down, up) = (far("down") - before.0, far("up") - before.1);
        assert_eq!((down, up), (crossed as f64, crossed as f64), "{name}");
        // The next one finds the owner alone.
        node.peer.shutdown().await;
    }
    assert_eq!(owner.peer.stats().far.uploaded, bytes.len() as u64);
}

/// A connection to the tracker that says something it does not understand.
async fn nonsense(network: &MemoryNetwork) {
    let tracker = "memory:tracker".parse().unwrap();
    let connection = network.endpoint("nonsense").connect(&tracker).await;
    let mut connection = connection.unwrap();
    let frame = wire::frame(PeerMessage::KeepAlive);
    connection.sink.send(frame).await.unwrap();
    while connection.stream.next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn downloads_and_requests_are_recorded_and_labels_name_nobody() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    // All tasks of this test run on this thread.
    let _guard = metrics::set_default_local_recorder(&recorder);
    bt_lite::metrics::describe();

    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    let bytes = content(20 * CHUNK, 1);
    let shared = owner.share("x", &bytes).await;
    let leecher = world.node("leecher").await;
    let mut slow = leecher.peer.download(&shared);
    soon(&mut slow).await.unwrap();
    leecher.peer.download(named("nothing")).await.unwrap_err();
    nonsense(world.network()).await;

    let seen = values(&metrics);
    let value = |name: &str| {
        *seen
            .get(name)
            .unwrap_or_else(|| panic!("{name}: {seen:#?}"))
    };
    let len = bytes.len() as f64;
    assert_eq!(value("bt_lite_peer_downloaded_bytes_total"), len);
    assert_eq!(value("bt_lite_peer_uploaded_bytes_total"), len);
    assert_eq!(value("bt_lite_peer_chunks_total{result=\"good\"}"), 20.0);
    let downloads = |outcome| format!("bt_lite_peer_downloads_total{{outcome=\"{outcome}\"}}");
    assert_eq!(value(&downloads("complete")), 1.0);
    assert_eq!(value(&downloads("not_found")), 1.0);
    assert_eq!(value("bt_lite_peer_dial_seconds_count{result=\"ok\"}"), 1.0);
    assert_eq!(value("bt_lite_peer_store_seconds_count"), 20.0);
    assert_eq!(value("bt_lite_peer_connections"), 2.0, "one at each end");
    assert_eq!(value("bt_lite_peer_active_downloads"), 0.0);
    let requests = |kind| format!("bt_lite_tracker_requests_total{{kind=\"{kind}\"}}");
    let counts = world.tracker.stats().registry;
    assert_eq!(
        value(&requests("register")),
        counts.requests.register as f64
    );
    assert_eq!(value(&requests("need")), counts.requests.need as f64);
    assert_eq!(value(&requests("own")), counts.requests.own as f64);
    assert_eq!(value(&requests("malformed")), 1.0);
    let refusals = |reason| format!("bt_lite_tracker_refusals_total{{reason=\"{reason}\"}}");
    assert_eq!(value(&refusals("unknown_content")), 1.0);
    assert_eq!(value(&refusals("malformed")), 1.0);
    let replies = |kind| format!("bt_lite_tracker_replies_total{{kind=\"{kind}\"}}");
    assert_eq!(
        value(&replies("registered")),
        counts.requests.register as f64
    );
    assert_eq!(value(&replies("found")), (counts.requests.need - 1) as f64);
    // What nobody has, and what nobody understands.
    assert_eq!(value(&replies("refused")), 2.0);
    let done = counts.requests.own + counts.requests.update;
    assert_eq!(value(&replies("done")), done as f64);
    let answered = value("bt_lite_tracker_batch_requests_sum");
    let asked = counts.requests.need + counts.requests.register;
    assert_eq!(answered, asked as f64 + done as f64);
    assert!(value("bt_lite_tracker_batch_requests_count") <= answered);
    assert_eq!(value("bt_lite_tracker_peers"), 2.0);
    assert_eq!(value("bt_lite_tracker_contents"), 1.0);
    assert_eq!(value("bt_lite_tracker_ownerships"), 2.0);
    assert_eq!(value("bt_lite_tracker_connections"), 2.0);
    for name in seen.keys() {
        assert!(name.starts_with("bt_lite_"), "{name}");
        let label = name.split_once('{').map_or("", |(_, labels)| labels);
        let names = ["memory", "owner", "leecher", "x\"", &shared.id.to_string()];
        assert!(!names.iter().any(|name| label.contains(name)), "{name}");
    }

    // What was counted while it was there is given back.
    leecher.peer.shutdown().await;
    owner.peer.shutdown().await;
    world.tracker.shutdown().await;
    let seen = values(&metrics);
    for gauge in [
        "peer_links",
        "peer_connections",
        "peer_awake_contents",
        "tracker_connections",
    ] {
        assert_eq!(seen[&format!("bt_lite_{gauge}")], 0.0, "{gauge}");
    }
}

#[tokio::test(start_paused = true)]
async fn bad_chunks_waste_and_bans_are_recorded_by_their_reason() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let world = World::memory(1).await;
    let liar = world.node("liar").await;
    let leecher = world.node("leecher").await;
    let mut events = leecher.peer.events();
    // More than is on its way at a time.
    let shared = liar.share("x", &content(200 * CHUNK, 1)).await;
    world.network().set_upload_rate("liar", Some(100_000));
    let download = leecher.peer.download(&shared);
    while download.progress().verified_chunks < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.network().corrupt_next("liar", 1);
    while !matches!(
        soon(events.next()).await,
        Some(bt_lite::PeerEvent::Banned { .. })
    ) {}
    let seen = values(&metrics);
    let value = |name: &str| {
        *seen
            .get(name)
            .unwrap_or_else(|| panic!("{name}: {seen:#?}"))
    };
    assert_eq!(value("bt_lite_peer_chunks_total{result=\"bad\"}"), 1.0);
    assert_eq!(
        value("bt_lite_peer_wasted_bytes_total{why=\"bad\"}"),
        CHUNK as f64
    );
    assert_eq!(value("bt_lite_peer_banned_total{why=\"bad_chunk\"}"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn refused_entries_broken_connections_and_expiry_are_recorded() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let network = MemoryNetwork::new(1);
    let few = RegistryConfig::default().max_contents_per_peer(1);
    let builder = Tracker::builder(network.endpoint("tracker")).registry(few);
    let tracker = builder.bind("memory:tracker").await.unwrap();
    let addr = tracker.local_addr().clone();
    let connection = network.endpoint("owner").connect(&addr).await;
    let mut connection = connection.unwrap();
    let mut ask = async |request: TrackerRequest| {
        let frame = request.encode().unwrap();
        connection.sink.send(frame).await.unwrap();
        let reply = connection.stream.next().await.unwrap().unwrap();
        TrackerReply::decode(reply).unwrap()
    };
    let register = TrackerRequest::Register {
        listen: None,
        token: None,
    };
    let TrackerReply::Registered(registered) = ask(register).await else {
        panic!("it is registered");
    };
    let entries = (1..=3).map(|number| {
        let id = ContentId::from_bytes([number; 32]);
        OwnEntry::new(id, "name".parse().unwrap(), 1, OwnState::Complete)
    });
    let own = TrackerRequest::Own {
        token: registered.token,
        entries: entries.collect(),
    };
    assert!(matches!(ask(own).await, TrackerReply::Partly(refused) if refused.len() == 2));
    // It is forgotten with its lease, and cut off in the middle of what it says.
    tokio::time::sleep(Duration::from_secs(30)).await;
    network.kill("owner");
    while tracker.stats().connections > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seen = values(&metrics);
    let value = |name: &str| {
        *seen
            .get(name)
            .unwrap_or_else(|| panic!("{name}: {seen:#?}"))
    };
    assert_eq!(value("bt_lite_tracker_replies_total{kind=\"partly\"}"), 1.0);
    let entries = "bt_lite_tracker_refused_entries_total{reason=\"contents_per_peer\"}";
    assert_eq!(value(entries), 2.0);
    assert!(value("bt_lite_tracker_expiry_seconds_count") > 0.0);
    assert_eq!(value("bt_lite_tracker_peers"), 0.0);
    let errors = "bt_lite_tracker_connection_errors_total{kind=";
    let errors = seen.iter().filter(|(name, _)| name.starts_with(errors));
    assert_eq!(errors.map(|(_, count)| count).sum::<f64>(), 1.0);
}

/// The table in the documentation of the module has every name, and each name in it is
/// recorded somewhere.
#[test]
fn table_of_metrics_has_every_name() {
    let source = include_str!("../../src/metrics.rs");
    let quoted = source.split('"').skip(1).step_by(2);
    let mut names: Vec<&str> = quoted.filter(|text| text.starts_with("bt_lite_")).collect();
    names.sort_unstable();
    let rows = source
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `bt_lite_"));
    let rows = rows.map(|row| format!("bt_lite_{}", row.split('`').next().unwrap()));
    let mut table: Vec<String> = rows.collect();
    table.sort_unstable();
    assert_eq!(names, table);
}
