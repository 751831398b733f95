//! A tracker, an owner and a peer that downloads, in one process, with their metrics for
//! Prometheus.
//!
//! ```text
//! cargo run --features metrics --example metrics
//! cargo run --features metrics --example metrics -- --listen 127.0.0.1:9000
//! ```
//! The first prints the metrics of one download. The second serves them at
//! `http://127.0.0.1:9000/metrics`, and downloads again every few seconds until Ctrl-C.

mod common;

use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bt_lite::{Content, MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker, Zone};
use clap::Parser;
use common::{Outcome, print_line};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio::time::sleep;

/// The length of the content, in bytes.
const LENGTH: usize = 1 << 20;

/// The pause between two downloads.
const PAUSE: Duration = Duration::from_secs(5);

/// Shows the metrics of a tracker, an owner and a download.
#[derive(Parser)]
struct Args {
    /// The address at which to serve the metrics until Ctrl-C.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    common::exit("metrics", run(args).await)
}

async fn run(args: Args) -> Outcome<()> {
    // Before anything is started that records.
    let metrics = PrometheusBuilder::new().install_recorder()?;
    bt_lite::metrics::describe();

    let network = MemoryNetwork::new(1);
    let tracker = Tracker::builder(network.endpoint("tracker"))
        .bind("memory:tracker")
        .await?;
    let owner = Peer::builder(network.endpoint("owner"), MemoryStorage::new())
        .tracker(tracker.local_addr())
        .listen("memory:owner")
        .zone("site-1".parse::<Zone>()?)
        .start()
        .await?;
    let source = ShareSource::bytes("numbers", vec![7; LENGTH]);
    let content = owner.share(source).await?;

    download(&network, &tracker, &content).await?;
    match args.listen {
        None => print_line(metrics.render())?,
        Some(addr) => {
            let interrupted = common::interrupt()?;
            let listener = TcpListener::bind(addr).await?;
            print_line(format_args!(
                "serving http://{}/metrics",
                listener.local_addr()?
            ))?;
            let render = get(async move || metrics.render());
            let router = Router::new().route("/metrics", render);
            let server = axum::serve(listener, router);
            let again = async {
                loop {
                    sleep(PAUSE).await;
                    download(&network, &tracker, &content).await?;
                }
            };
            tokio::select! {
                () = interrupted => {}
                served = server => served?,
                failed = again => return failed,
            }
        }
    }
    owner.shutdown().await;
    tracker.shutdown().await;
    Ok(())
}

/// Downloads the content with a new peer.
async fn download(network: &MemoryNetwork, tracker: &Tracker, content: &Content) -> Outcome<()> {
    let peer = Peer::builder(network.endpoint("peer"), MemoryStorage::new())
        .tracker(tracker.local_addr())
        .zone("site-2".parse::<Zone>()?)
        .start()
        .await?;
    peer.download(content).await?;
    peer.shutdown().await;
    Ok(())
}
