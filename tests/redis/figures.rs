//! What a tracker records of its store.

use std::collections::BTreeMap;

use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;

#[tokio::test]
async fn round_trips_losses_and_what_waits_are_recorded() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // All tasks of this test run on this thread.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let figures = || {
        let text = handle.render();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.parse::<f64>().unwrap()));
        pairs.collect::<BTreeMap<_, _>>()
    };
    let mut server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network, 0, config(&[&server])).await;
    let mut raw = Raw::connect(&network, "peer", 0).await;
    let token = raw.register("memory:peer", None).await.token;
    let seen = figures();
    let store = tracker.stats().store.expect("a store");
    assert_eq!(seen["bt_lite_tracker_store_up"], 1.0);
    let trips = seen["bt_lite_tracker_store_seconds_count"];
    assert!(trips > 0.0 && trips <= store.round_trips as f64, "{seen:?}");
    assert!(seen["bt_lite_tracker_store_calls_total"] > trips);

    server.kill();
    until("the store is lost", async || {
        tracker.stats().store.expect("a store").losses == 1
    })
    .await;
    raw.register("memory:peer", Some(token)).await;
    assert_eq!(raw.exit(token).await, TrackerReply::Done);
    let seen = figures();
    assert_eq!(seen["bt_lite_tracker_store_up"], 0.0);
    assert_eq!(seen["bt_lite_tracker_store_losses_total"], 1.0);
    assert_eq!(seen["bt_lite_tracker_store_without_total"], 2.0);
    assert_eq!(seen["bt_lite_tracker_store_deferred"], 1.0);
    server.run().await;
    until("nothing waits any more", async || {
        let seen = figures();
        seen["bt_lite_tracker_store_deferred"] == 0.0 && seen["bt_lite_tracker_store_up"] == 1.0
    })
    .await;
    tracker.shutdown().await;
}
