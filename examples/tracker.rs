//! A tracker on its own, until Ctrl-C or SIGTERM.
//!
//! ```text
//! cargo run --example tracker -- --listen 127.0.0.1:7000 --admin 127.0.0.1:7001
//! curl http://127.0.0.1:7001/readyz
//! ```
//!
//! prints `listening 127.0.0.1:7000` (for port 0, with the port that was chosen), and
//! `admin http://127.0.0.1:7001`. What is logged goes to stderr.
//!
//! With `--secret FILE` it serves only those who know the secret in that file. If there is no
//! such file, it makes one; bring it to the others by a safe way. With `--certificates DIR`
//! it serves only those with a certificate of one authority. Both are over TLS, or with
//! `--quic` over QUIC.
//!
//! With `--http ADDR` and `--udp ADDR` it serves BitTorrent clients as well, of any make. The
//! address for a torrent is `http://HOST:PORT/announce`, or `udp://HOST:PORT`.
//!
//! With `--redis URL` it shares what it knows with other trackers, in a Redis or Valkey. All of
//! them need the same secret: `--redis-secret FILE`, with random bytes. Several URLs are those
//! of a primary and its replicas, or of some nodes of a Redis Cluster.
//!
//! All of that may be in a file as well (`--config FILE`), or in the environment; `--help` says
//! how. With `--admin ADDR` it tells over HTTP how it is: `/healthz`, `/readyz` and, for
//! Prometheus, `/metrics`. When it is told to end, it first lets its clients go to other
//! trackers (`--drain`); when it is told once more, it ends at once.

#[path = "tracker/admin.rs"]
mod admin;
mod common;
#[path = "tracker/logging.rs"]
mod logging;
#[path = "tracker/settings.rs"]
mod settings;

use std::process::ExitCode;

use admin::Admin;
use bt_lite::{ContentId, Tracker};
use clap::Parser;
use common::{Outcome, print_line};
use settings::{Flags, Settings};

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    common::exit("tracker", run(flags).await)
}

async fn run(flags: Flags) -> Outcome<()> {
    let interrupted = common::interrupt()?;
    let settings = Settings::load(&flags, std::env::vars_os())?;
    logging::start(settings.log, &settings.log_filter)?;
    // Before anything is started that records, and before anything else has begun if its
    // address is taken.
    let admin = match &settings.admin {
        Some(addr) => Some(Admin::bind(addr).await?),
        None => None,
    };
    let members = settings.members()?;
    members.make_secret()?;
    let mut builder = Tracker::builder(members.transport()?).config(settings.limits);
    let mut answers_without = None;
    if let Some(file) = &settings.redis_secret {
        // Of any length.
        let key = ContentId::of(&read(file)?);
        let store = settings.store.urls(settings.redis).key(*key.as_bytes());
        answers_without = Some(store.answers_without);
        builder = builder.redis(store);
    }
    let tracker = builder.bind(&settings.listen).await?;
    print_line(format_args!("listening {}", tracker.local_addr()))?;
    for addr in &settings.http {
        let addr = tracker.serve_http(addr).await?;
        print_line(format_args!("announce http://{addr}/announce"))?;
    }
    for addr in &settings.udp {
        let addr = tracker.serve_udp(addr).await?;
        print_line(format_args!("announce udp://{addr}"))?;
    }
    let state = match admin {
        Some(admin) => {
            print_line(format_args!("admin http://{}", admin.local_addr()?))?;
            Some(admin.serve(tracker.clone(), answers_without))
        }
        None => None,
    };

    interrupted.await;
    let again = common::interrupt()?;
    if let Some(state) = &state {
        state.set_draining();
    }
    tokio::select! {
        left = tracker.drain(settings.drain.into()) => {
            tracing::info!(left, "ended");
            Ok(())
        }
        () = again => Err("ended at once, as it was told to a second time".into()),
    }
}

/// A file, or an error that names it.
fn read(path: &std::path::Path) -> Outcome<Vec<u8>> {
    let read = std::fs::read(path);
    read.map_err(|error| format!("{}: {error}", path.display()).into())
}
