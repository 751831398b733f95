//! What downloads cost that wait for their turn.

use std::time::Duration;

use bt_lite::peer::DownloadOptions;
use bt_lite::{ContentId, DownloadKey, MemoryStorage, Peer, TcpTransport};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::common::Outcome;
use super::rounds::name;
use super::usage::allocated;

/// How long the first download needs to begin: much longer than a call.
const BEGINS: Duration = Duration::from_millis(500);

/// Starts so many downloads behind one that goes on, and measures what they hold.
pub(crate) fn measure(downloads: usize) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(downloads))
}

async fn run(downloads: usize) -> Outcome<()> {
    // An owner that never answers, so that the first one goes on.
    let owner = TcpListener::bind("127.0.0.1:0").await?;
    let peer = Peer::builder(TcpTransport::new(), MemoryStorage::new())
        .max_downloads(1)
        .start()
        .await?;
    let start = |number| peer.download(DownloadKey::name(name(number).as_str()));
    let options = DownloadOptions::new().owner(owner.local_addr()?.to_string());
    let first = peer.download_with(ContentId::of(b"nobody has it"), options);
    sleep(BEGINS).await;
    let (before, tasks) = (allocated(), Handle::current().metrics().num_alive_tasks());
    let waiting: Vec<_> = (0..downloads).map(start).collect();
    sleep(BEGINS).await;
    let held = allocated() - before;
    let tasks = Handle::current().metrics().num_alive_tasks() - tasks;
    println!("{downloads} downloads behind another one");
    println!("tasks {tasks}");
    println!(
        "bytes_per_waiting_download {}",
        held / downloads.max(1) as isize
    );
    drop((first, waiting));
    peer.shutdown().await;
    Ok(())
}
