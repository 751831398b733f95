//! A tracker on its own, until Ctrl-C or SIGTERM.
//!
//! ```text
//! cargo run --example tracker -- --listen 127.0.0.1:7000
//! ```
//!
//! prints `listening 127.0.0.1:7000` (for port 0, with the port that was chosen).
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
//! of a primary and its replicas.

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use bt_lite::tracker::RedisConfig;
use bt_lite::{ContentId, Tracker};
use clap::Parser;
use common::members::Members;
use common::{Outcome, print_line};

/// A tracker on its own, until Ctrl-C or SIGTERM.
#[derive(Parser)]
struct Args {
    /// The address at which to listen; with port 0, at any free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7000")]
    listen: String,
    /// Where to serve BitTorrent clients over HTTP.
    #[arg(long, value_name = "ADDR")]
    http: Vec<String>,
    /// Where to serve BitTorrent clients over UDP.
    #[arg(long, value_name = "ADDR")]
    udp: Vec<String>,
    /// A store that several trackers share, and its replicas.
    #[arg(long, value_name = "URL", requires = "redis_secret")]
    redis: Vec<String>,
    /// A file with random bytes that all trackers of the store have.
    #[arg(long, value_name = "FILE", requires = "redis")]
    redis_secret: Option<PathBuf>,
    #[command(flatten)]
    members: Members,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    common::exit("tracker", run(args).await)
}

async fn run(args: Args) -> Outcome<()> {
    let interrupted = common::interrupt()?;
    args.members.make_secret()?;
    let transport = args.members.transport()?;
    let mut builder = Tracker::builder(transport);
    if let Some(file) = &args.redis_secret {
        // Of any length.
        let key = ContentId::of(&std::fs::read(file)?);
        builder = builder.redis(RedisConfig::new(args.redis, *key.as_bytes()));
    }
    let tracker = builder.bind(&args.listen).await?;
    print_line(format_args!("listening {}", tracker.local_addr()))?;
    for addr in &args.http {
        let addr = tracker.serve_http(addr).await?;
        print_line(format_args!("announce http://{addr}/announce"))?;
    }
    for addr in &args.udp {
        let addr = tracker.serve_udp(addr).await?;
        print_line(format_args!("announce udp://{addr}"))?;
    }

    interrupted.await;
    tracker.shutdown().await;
    Ok(())
}
