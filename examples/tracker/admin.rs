//! How the tracker is, over HTTP, for those who look after it. It tells what only they should
//! know, so it is to be at an address that others do not reach.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bt_lite::Tracker;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

use super::common::Outcome;

/// The type of what Prometheus reads.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";

/// The buckets of times, in seconds: a request from memory takes some microseconds, and one that
/// waits for a store in trouble takes seconds.
const SECONDS: [f64; 12] = [
    0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0,
];

/// The buckets of numbers of requests that were answered together.
const REQUESTS: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];

/// Listens, and records. It does not answer before there is a tracker.
pub(crate) struct Admin {
    listener: TcpListener,
    metrics: PrometheusHandle,
}

/// What is known of the tracker.
pub(crate) struct Known {
    tracker: Tracker,
    /// For how long it answers without its store, if it has one.
    answers_without: Option<Duration>,
    draining: AtomicBool,
    metrics: PrometheusHandle,
}

impl Admin {
    pub(crate) async fn bind(addr: &str) -> Outcome<Self> {
        let listener = TcpListener::bind(addr).await;
        let listener = listener.map_err(|error| format!("cannot listen at {addr}: {error}"))?;
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
            .set_buckets_for_metric(Matcher::Suffix("_requests".into()), &REQUESTS)?;
        let metrics = builder.install_recorder()?;
        bt_lite::metrics::describe();
        Ok(Self { listener, metrics })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the program ends.
    pub(crate) fn serve(self, tracker: Tracker, answers_without: Option<Duration>) -> Arc<Known> {
        let known = Arc::new(Known {
            tracker,
            answers_without,
            draining: AtomicBool::new(false),
            metrics: self.metrics,
        });
        let router = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(known.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(self.listener, router).await {
                tracing::error!(%error, "nobody is told any more how the tracker is");
            }
        });
        known
    }
}

impl Known {
    /// From now on nobody is to be sent here.
    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why nobody should be sent here, if there is a reason.
    fn reason(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("the tracker drains".into());
        }
        let away = self.tracker.stats().store?.away?;
        let too_long = away > self.answers_without?;
        too_long.then(|| format!("the store has been away for {} s", away.as_secs()))
    }
}

async fn readyz(State(known): State<Arc<Known>>) -> (StatusCode, String) {
    match known.reason() {
        None => (StatusCode::OK, "ready\n".into()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(State(known): State<Arc<Known>>) -> impl IntoResponse {
    known.metrics.run_upkeep();
    (
        [(header::CONTENT_TYPE, METRICS_TYPE)],
        known.metrics.render(),
    )
}
