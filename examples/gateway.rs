//! Serves contents over HTTP while they are being downloaded: ranges, a page with their
//! progress, and a player.
//!
//! ```text
//! cargo run --release --example gateway -- --tracker 127.0.0.1:7000 --dir downloads
//! curl http://127.0.0.1:8080/NAME_OR_ID
//! ```
//! prints `serving http://ADDR`. `GET /NAME_OR_ID` starts the download, and answers as the
//! bytes come: one range or several (`206`), `HEAD`, `ETag` (the id), `If-Range`,
//! `If-None-Match`, `If-Match`. `GET /` is a page that shows all contents. Anybody who reaches the
//! address can start downloads, so it should be a local one.
//!
//! With `--secret FILE` or `--certificates DIR` it takes part in a private swarm, over TLS or,
//! with `--quic`, over QUIC. What it serves over HTTP is in the clear.

#[path = "gateway/bytes.rs"]
mod bytes;
mod common;
#[path = "gateway/contents.rs"]
mod contents;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use bt_lite::{FileStorage, Peer, Zone};
use clap::Parser;
use common::members::Members;
use common::{Outcome, print_line};
use contents::Contents;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// How long responses may take to end when the program is to.
const GRACE: Duration = Duration::from_secs(2);

/// Serves contents over HTTP while they are being downloaded.
#[derive(Parser)]
struct Args {
    /// The address of the tracker.
    #[arg(long, value_name = "ADDR")]
    tracker: String,
    #[command(flatten)]
    members: Members,
    /// The zone that this peer is in: a site, a data center, a rack.
    #[arg(long, value_name = "NAME")]
    zone: Option<Zone>,
    /// The directory for the contents, which is made if it does not exist.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The address at which to listen for HTTP.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: String,
    /// The address at which to listen for other peers.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0")]
    listen_peers: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    common::exit("gateway", run(args).await)
}

async fn run(args: Args) -> Outcome<()> {
    let interrupted = common::interrupt()?;
    let storage = FileStorage::open(&args.dir)?;
    let peer = Peer::builder(args.members.transport()?, storage)
        .tracker(args.tracker.as_str())
        .listen(args.listen_peers.as_str())
        .zone(args.zone.clone())
        .share_stored()
        .start()
        .await?;
    let contents = Arc::new(Contents::new(peer.clone()));
    let router = Router::new()
        .route("/", get(page))
        .route("/contents.json", get(list))
        .route("/{key}", get(content))
        .with_state(contents);
    let listener = TcpListener::bind(args.listen.as_str()).await?;
    print_line(format_args!("serving http://{}", listener.local_addr()?))?;
    let (stopping, stopped) = oneshot::channel();
    let served = axum::serve(listener, router).with_graceful_shutdown(async move {
        interrupted.await;
        // Responses that wait for bytes end with it.
        peer.shutdown().await;
        // Nobody hears of it if the server has failed.
        let _ = stopping.send(());
    });
    // One that waits for a client to read could wait forever.
    let too_long = async {
        let _ = stopped.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = served.into_future() => Ok(served?),
        () = too_long => Ok(()),
    }
}

async fn page() -> Response {
    // The names of contents are text in it, and nothing else is loaded or run.
    let policy = "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'";
    let html = Html(include_str!("gateway/page.html"));
    ([(header::CONTENT_SECURITY_POLICY, policy)], html).into_response()
}

async fn list(State(contents): State<Arc<Contents>>) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, contents.list().await.to_string()).into_response()
}

async fn content(
    State(contents): State<Arc<Contents>>,
    Path(key): Path<String>,
    method: Method,
    request: HeaderMap,
) -> Response {
    let answered = async {
        let (content, reader) = contents.open(&key).await?;
        bytes::respond(&content, reader, &method, &request).await
    };
    match answered.await {
        Ok(mut response) => {
            // Somebody else has made the content: it is never a page of this server.
            let headers = response.headers_mut();
            let sandbox = HeaderValue::from_static("sandbox");
            headers.insert(header::CONTENT_SECURITY_POLICY, sandbox);
            let nosniff = HeaderValue::from_static("nosniff");
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
            response
        }
        Err(error) => {
            let status = match error.kind() {
                std::io::ErrorKind::NotFound => StatusCode::NOT_FOUND,
                std::io::ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
                std::io::ErrorKind::QuotaExceeded => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_GATEWAY,
            };
            (status, format!("{error}\n")).into_response()
        }
    }
}
