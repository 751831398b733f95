//! What contents cost that nobody asks for.

use std::fs;
use std::path::Path;
use std::time::Instant;

use bt_lite::peer::PeerBuilder;
use bt_lite::{FileStorage, Peer, TcpTransport, Tracker};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::runtime::Handle;

use super::common::Outcome;
use super::rounds::name;
use super::usage::{allocated, descriptors};

/// How many files are hashed at a time.
const SHARES: usize = 256;

/// Shares so many files, and measures what is left when all is quiet: what is given
/// back when the peer is gone. Then a restart. The tracker is in the same process;
/// it keeps its memory, so it is not counted.
pub(crate) fn measure(contents: usize) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(contents))
}

async fn run(contents: usize) -> Outcome<()> {
    let root = tempfile::tempdir()?;
    let (files, storage) = (root.path().join("files"), root.path().join("storage"));
    fs::create_dir(&files)?;
    for number in 0..contents {
        fs::write(files.join(name(number)), format!("{number:010}"))?;
    }
    let tracker = Tracker::builder(TcpTransport::new())
        .bind("127.0.0.1:0")
        .await?;
    let builder = || -> Outcome<PeerBuilder> {
        let storage = FileStorage::open(&storage)?;
        Ok(Peer::builder(TcpTransport::new(), storage)
            .tracker(tracker.local_addr())
            .listen("127.0.0.1:0")
            .share_stored())
    };
    // What the tracker keeps of the contents is there before and after.
    let first = builder()?.start().await?;
    share_all(&first, &files, contents).await?;

    let alive = || Handle::current().metrics().num_alive_tasks();
    let (bytes, tasks) = (allocated(), alive());
    let open = descriptors();
    first.shutdown().await;
    drop(first);
    let tasks = tasks.saturating_sub(alive());
    let freed = bytes - allocated();

    let begun = Instant::now();
    let again = builder()?.start().await?;
    let restart = begun.elapsed();
    if again.contents().len() != contents {
        return Err("not all contents are back".into());
    }
    again.shutdown().await;
    tracker.shutdown().await;
    println!("{contents} contents of 10 bytes");
    println!("tasks_per_idle_content {}", tasks / contents.max(1));
    println!("tasks {tasks}");
    println!("descriptors {open}");
    println!("restart_100k_ms {:.0}", restart.as_secs_f64() * 1e3);
    println!(
        "bytes_per_idle_content {}",
        freed / contents.max(1) as isize
    );
    Ok(())
}

async fn share_all(peer: &Peer, files: &Path, contents: usize) -> Outcome<()> {
    let shares = (0..contents).map(|number| peer.share(files.join(name(number))));
    let shares = stream::iter(shares).buffer_unordered(SHARES);
    Ok(shares.try_for_each(async |_| Ok(())).await?)
}
