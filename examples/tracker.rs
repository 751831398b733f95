//! A tracker on its own, until Ctrl-C or SIGTERM.
//!
//! ```text
//! cargo run --example tracker -- --listen 127.0.0.1:7000
//! ```
//!
//! prints `listening 127.0.0.1:7000` (for port 0, with the port that was chosen).

mod common;

use std::process::ExitCode;

use bt_lite::{TcpTransport, Tracker};
use common::{Args, Outcome};

const USAGE: &str = "tracker [--listen ADDR]";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit("tracker", run().await)
}

async fn run() -> Outcome<()> {
    let args = Args::read(USAGE, &["--listen"], &[])?;
    let listen = args.option("--listen").unwrap_or("127.0.0.1:7000");

    let interrupted = common::interrupt()?;
    let tracker = Tracker::builder(TcpTransport::new()).bind(listen).await?;
    println!("listening {}", tracker.local_addr());

    interrupted.await;
    tracker.shutdown().await;
    Ok(())
}
