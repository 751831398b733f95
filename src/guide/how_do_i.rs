//! How do I …?
//!
//! Each answer is a few lines. Those without a network use [`MemoryNetwork`], so they can
//! be tried as they are; with [`TcpTransport`] and addresses such as `"10.0.0.1:7000"` the
//! same lines work between machines.
//!
//! [`MemoryNetwork`]: crate::MemoryNetwork
//! [`TcpTransport`]: crate::TcpTransport
//!
//! # … share a file, and fetch it elsewhere?
//!
//! ```no_run
//! use bt_lite::{DownloadKey, FileStorage, Peer, TcpTransport};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // The machine that has it. It must listen, or nobody can ask it.
//! let owner = Peer::builder(TcpTransport::new(), FileStorage::open("/var/lib/owner")?)
//!     .tracker("tracker.example:7000")
//!     .listen("[::]:7001")
//!     .start()
//!     .await?;
//! let content = owner.share("/builds/app-1.2.tar").await?;
//! println!("its id is {}", content.id);
//!
//! // The machine that wants it.
//! let peer = Peer::builder(TcpTransport::new(), FileStorage::open("downloads")?)
//!     .tracker("tracker.example:7000")
//!     .listen("[::]:0") // to serve others as well
//!     .start()
//!     .await?;
//! peer.download(content.id).await?; // or DownloadKey::name("app-1.2.tar")
//! // Now it is complete, verified and durable in downloads/app-1.2.tar.
//! # Ok(())
//! # }
//! ```
//!
//! # … run a tracker?
//!
//! In a process of its own (`examples/tracker.rs`), or inside any program:
//!
//! ```
//! use bt_lite::{TcpTransport, Tracker};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tracker = Tracker::builder(TcpTransport::new()).bind("127.0.0.1:0").await?;
//! println!("peers may come to {}", tracker.local_addr());
//! tracker.shutdown().await; // or drop the last handle
//! # Ok(())
//! # }
//! ```
//!
//! # … show how far a download is?
//!
//! ```
//! # use bt_lite::{DownloadEvent, MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker};
//! use futures::StreamExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = MemoryNetwork::new(1);
//! # let tracker = Tracker::builder(network.endpoint("t")).bind("memory:t").await?;
//! # let owner = Peer::builder(network.endpoint("o"), MemoryStorage::new())
//! #     .tracker(tracker.local_addr()).listen("memory:o").start().await?;
//! # let shared = owner.share(ShareSource::bytes("film", vec![1; 200_000])).await?;
//! # let peer = Peer::builder(network.endpoint("p"), MemoryStorage::new())
//! #     .tracker(tracker.local_addr()).start().await?;
//! let download = peer.download(shared.id);
//! let mut events = download.events();
//! while let Some(event) = events.next().await {
//!     match event {
//!         DownloadEvent::Found(content) => println!("{} bytes", content.length),
//!         DownloadEvent::Progress(now) => println!("{} are here", now.verified_bytes),
//!         DownloadEvent::Stalled(reason) => println!("nothing arrives: {reason}"),
//!         DownloadEvent::Failed(error) => println!("failed: {error}"),
//!         _ => {}
//!     }
//! }
//! download.await?;
//! # Ok(())
//! # }
//! ```
//!
//! # … let a download run without holding its handle?
//!
//! ```no_run
//! # async fn example(peer: bt_lite::Peer, id: bt_lite::ContentId) {
//! peer.download(id).detach();
//! // A later call of the same joins it, and gives a handle again. If it is paused, it stays
//! // paused.
//! let outcome = peer.download(id).await;
//! # drop(outcome);
//! # }
//! ```
//!
//! # … go on after a restart?
//!
//! A download that was interrupted goes on where it stopped as soon as it is asked for
//! again: the parts that are durable are in the storage. What is complete is shared again
//! with one line:
//!
//! ```no_run
//! use bt_lite::{FileStorage, Peer, TcpTransport};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let peer = Peer::builder(TcpTransport::new(), FileStorage::open("downloads")?)
//!     .tracker("tracker.example:7000")
//!     .listen("[::]:7001")
//!     .share_stored()
//!     .start()
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # … play a film while it comes?
//!
//! A reader is `AsyncRead` and `AsyncSeek`. What it is about to read is fetched first, and
//! only verified bytes come out of it.
//!
//! ```
//! # use bt_lite::{MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker};
//! use std::io::SeekFrom;
//! use tokio::io::{AsyncReadExt, AsyncSeekExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = MemoryNetwork::new(1);
//! # let tracker = Tracker::builder(network.endpoint("t")).bind("memory:t").await?;
//! # let owner = Peer::builder(network.endpoint("o"), MemoryStorage::new())
//! #     .tracker(tracker.local_addr()).listen("memory:o").start().await?;
//! # let shared = owner.share(ShareSource::bytes("film", vec![1; 200_000])).await?;
//! # let peer = Peer::builder(network.endpoint("p"), MemoryStorage::new())
//! #     .tracker(tracker.local_addr()).start().await?;
//! let download = peer.download(shared.id);
//! let mut reader = download.reader();
//! reader.seek(SeekFrom::Start(150_000)).await?;
//! let mut frame = vec![0; 1000];
//! reader.read_exact(&mut frame).await?;
//! # assert_eq!(frame, vec![1; 1000]);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/gateway.rs` serves contents to browsers and players over HTTP in this way.
//!
//! # … share a folder, and fetch a part of it?
//!
//! ```no_run
//! use bt_lite::{DownloadKey, FolderOptions};
//!
//! # async fn example(owner: bt_lite::Peer, peer: bt_lite::Peer)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! owner.share_folder("/data/photos").await?;
//!
//! let all = peer.download_folder(DownloadKey::name("photos")).await?;
//! # let other = peer.clone();
//! let june = FolderOptions::new().name("photos").path("2024/june");
//! let part = other.download_folder_with(all.id, june).await?;
//! // More of it goes to the same place, and only what is missing is fetched.
//! let may = FolderOptions::new().name("photos").path("2024/may");
//! let both = other.download_folder_with(all.id, may).await?;
//! # drop((part, both));
//! # Ok(())
//! # }
//! ```
//!
//! A folder is a download like any other: [`FolderOptions`](crate::FolderOptions) sets its
//! directory, limits and priority, for all files together, and
//! [`FolderDownload`](crate::FolderDownload) pauses, resumes and discards it as a whole. A
//! second download of it joins the first, and fetches what both want. Its events tell of
//! each file when it is done ([`FolderEvent::FileDone`](crate::FolderEvent::FileDone)), and
//! [`FolderDownload::files`](crate::FolderDownload::files) says how far each is.
//! [`Peer::get_folder`](crate::Peer::get_folder) gives a handle of one that runs, or was
//! paused before a restart. [`Peer::remove`](crate::Peer::remove) deletes its files, and
//! nothing else that lies there.
//!
//! # … fetch only some files of a torrent?
//!
//! With the feature `bittorrent`, `TorrentOptions::file` names them by number and
//! `TorrentOptions::path` by path, a folder as well; a magnet link with `so=0,2-4` does so too.
//! The download is complete when these are whole and have their names, and goes on sharing what
//! is here. `TorrentSession::files` gives a handle that says how far each file is, and selects
//! more or fewer at any time:
//!
//! ```no_run
//! # #[cfg(feature = "bittorrent")]
//! # async fn example(
//! #     session: bt_lite::bittorrent::TorrentSession,
//! #     metainfo: bt_lite::bittorrent::Metainfo,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use bt_lite::bittorrent::{FileChoice, TorrentOptions};
//!
//! let options = TorrentOptions::new().path("docs/").file(7);
//! let content = session.add(&metainfo, options)?.await?;
//! if let Some(files) = session.files(&content.id) {
//!     files.select(&FileChoice::none().path("images"))?;
//!     files.complete().await;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Pieces that reach into other files are fetched as a whole. What lies in those is kept beside
//! the files and used when they are selected. Which files were wanted is not recorded: name them
//! again after a restart.
//!
//! # … share the same files as a torrent?
//!
//! With the feature `bittorrent`, nothing is copied, whichever is there first:
//!
//! - A torrent that is complete lies in its directory as any folder does:
//!   [`Peer::share_folder`](crate::Peer::share_folder) shares it from there.
//! - A folder, shared or fetched, is seeded as a torrent by `TorrentSession::add` with
//!   `TorrentOptions::directory`, the directory that the folder is in. It is verified first.
//! - While either is still coming, `TorrentOptions::also` with the id of the folder, or of the
//!   content if the torrent is a single file, fetches each part from whoever has it, and shares
//!   all in both networks (`examples/bridge.rs`).
//!
//! # … fetch from an address that I know, without a tracker?
//!
//! ```
//! # use bt_lite::{MemoryNetwork, MemoryStorage, Peer, ShareSource};
//! use bt_lite::DownloadOptions;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = MemoryNetwork::new(1);
//! # let owner = Peer::builder(network.endpoint("o"), MemoryStorage::new())
//! #     .listen("memory:o").trackers_optional().start().await?;
//! # let shared = owner.share(ShareSource::bytes("film", "bytes")).await?;
//! # let peer = Peer::builder(network.endpoint("p"), MemoryStorage::new())
//! #     .trackers_optional().start().await?;
//! let options = DownloadOptions::new().owner("memory:o"); // over TCP: "10.0.0.7:7001"
//! peer.download_with(shared.id, options).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # … be reached behind a forwarded port?
//!
//! A tracker lists a peer at the address that it sees. Where that is not the one that
//! others can use, the peer says which one is:
//!
//! ```no_run
//! # use bt_lite::{FileStorage, Peer, TcpTransport};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let peer = Peer::builder(TcpTransport::new(), FileStorage::open("downloads")?)
//!     .tracker("tracker.example:7000")
//!     .listen("[::]:7001")
//!     .advertise("[::]:9000") // this port of the address that the tracker sees
//!     // .advertise("home.example:9000") // or a host name
//!     .start()
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # … decide what to do about an error?
//!
//! The error of each call has an [`Advice`](crate::Advice). Its causes are in its chain of
//! sources, down to the `io::Error`.
//!
//! ```no_run
//! use bt_lite::Advice;
//!
//! # async fn example(peer: bt_lite::Peer, id: bt_lite::ContentId) {
//! if let Err(error) = peer.download(id).await {
//!     match error.advice() {
//!         Advice::Retry => println!("later: {error}"),
//!         Advice::AskUser => println!("somebody has to look at this: {error}"),
//!         _ => println!("in vain: {error}"),
//!     }
//! }
//! # }
//! ```
//!
//! # … keep the configuration in a file?
//!
//! With feature `serde`. What the file leaves out has its default.
//!
//! ```
//! # #[cfg(feature = "serde")] {
//! let config: bt_lite::PeerConfig = toml::from_str(
//!     r#"
//!     max_downloads = 16
//!
//!     [swarm]
//!     patience = "10m"
//!     commit_bytes = "64 MiB"
//!     "#,
//! )
//! .unwrap();
//! assert_eq!(config.max_downloads, 16);
//! # }
//! ```
//!
//! # … pause a download, or everything?
//!
//! A paused download keeps its durable bytes and its place, and holds up no other one. With
//! [`share_stored`](crate::PeerBuilder::share_stored) it is still paused after a restart, with
//! everything that it was asked for and set to. Another call of
//! [`download`](crate::Peer::download) joins it and leaves it paused, until somebody calls
//! [`resume`](crate::Download::resume).
//!
//! ```no_run
//! use bt_lite::{PauseOptions, Priority};
//!
//! # async fn example(peer: bt_lite::Peer, id: bt_lite::ContentId) {
//! let download = peer.download(id);
//! download.pause(PauseOptions::default());
//! download.resume();
//! download.set_priority(Priority::High);
//! peer.pause_all(PauseOptions::default());
//! for content in peer.list() {
//!     println!("{:?}: {:?}", content.name, content.state);
//! }
//! if let Some(download) = peer.get(&id) {
//!     download.discard(); // cancels it, and deletes what has arrived
//! }
//! # }
//! ```
//!
//! # … leave some of the line to others?
//!
//! ```
//! # use bt_lite::{MemoryNetwork, MemoryStorage, Peer};
//! use bt_lite::{DownloadOptions, RateLimits};
//! use bt_lite::peer::ContentLimits;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = MemoryNetwork::new(1);
//! let peer = Peer::builder(network.endpoint("peer"), MemoryStorage::new())
//!     .limits(RateLimits::default().upload(2_000_000)) // bytes per second
//!     .trackers_optional()
//!     .start()
//!     .await?;
//! peer.set_rate_limits(RateLimits::default().upload(500_000).download(4_000_000))?;
//! let options = DownloadOptions::new().limits(ContentLimits::default().download(1_000_000));
//! # drop(options);
//! # Ok(())
//! # }
//! ```
//!
//! # … watch everything that a peer does?
//!
//! ```no_run
//! use bt_lite::PeerEvent;
//! use futures::StreamExt;
//!
//! # async fn example(peer: bt_lite::Peer, download: bt_lite::Download) {
//! let mut events = peer.events();
//! while let Some(event) = events.next().await {
//!     match event {
//!         PeerEvent::Complete { content } => println!("{} is here", content.name),
//!         PeerEvent::Withdrawn { content, error } => println!("{}: {error}", content.name),
//!         PeerEvent::Banned { banned, .. } => println!("{banned:?}"),
//!         _ => {}
//!     }
//! }
//! for link in download.stats().await.links {
//!     println!("{link:?}");
//! }
//! # }
//! ```
//!
//! Feature `metrics` records counters and gauges for Prometheus and others
//! (`examples/metrics.rs`); feature `serde` saves events and figures as JSON.
//!
//! # … get a content into memory, or into a writer?
//!
//! ```
//! # use bt_lite::{MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = MemoryNetwork::new(1);
//! # let tracker = Tracker::builder(network.endpoint("t")).bind("memory:t").await?;
//! # let owner = Peer::builder(network.endpoint("o"), MemoryStorage::new())
//! #     .tracker(tracker.local_addr()).listen("memory:o").start().await?;
//! # let shared = owner.share(ShareSource::bytes("film", vec![1; 200_000])).await?;
//! # let peer = Peer::builder(network.endpoint("p"), MemoryStorage::new())
//! #     .tracker(tracker.local_addr()).start().await?;
//! let bytes = peer.download_bytes(shared.id, 1 << 20).await?; // at most 1 MiB
//! assert_eq!(bytes.len(), 200_000);
//! let mut writer = Vec::new();
//! peer.download_to(shared.id, &mut writer, 1 << 20).await?;
//! # assert_eq!(writer.len(), 200_000);
//! # Ok(())
//! # }
//! ```
//!
//! # … share what comes out of a reader?
//!
//! ```
//! # use bt_lite::{MemoryNetwork, MemoryStorage, Peer};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = MemoryNetwork::new(1);
//! # let peer = Peer::builder(network.endpoint("p"), MemoryStorage::new())
//! #     .listen("memory:p").trackers_optional().start().await?;
//! // Anything that is AsyncRead: the body of a request, the output of a command.
//! let content = peer.share_reader("backup.tar", &b"its bytes"[..]).await?;
//! assert_eq!(content.length, 9);
//! # Ok(())
//! # }
//! ```
//!
//! # … take over a file that is partly here already?
//!
//! What is right in it is copied, and only the rest is fetched. The file is not changed.
//!
//! ```no_run
//! # use bt_lite::DownloadOptions;
//! # async fn example(peer: bt_lite::Peer, id: bt_lite::ContentId)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let options = DownloadOptions::new().existing("/mnt/usb/half.iso");
//! peer.download_with(id, options).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # … repair my file that lies under its old name?
//!
//! [`Peer::verify`](crate::Peer::verify) says whether it is right, and shares it then. If it
//! is not, a download replaces it under the name that it has here, whatever others call the
//! content: what is right in it is copied, the rest is fetched, and the old file stays until
//! the new one is complete, verified and durable.
//!
//! ```
//! use bt_lite::{DownloadOptions, IfTaken, ShareError};
//! # use bt_lite::{FileStorage, MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = MemoryNetwork::new(1);
//! # let tracker = Tracker::builder(network.endpoint("t")).bind("memory:t").await?;
//! # let owner = Peer::builder(network.endpoint("o"), MemoryStorage::new())
//! #     .tracker(tracker.local_addr()).listen("memory:o").start().await?;
//! # let bytes = vec![1; 200_000];
//! # let id = owner.share(ShareSource::bytes("new name", bytes.clone())).await?.id;
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("old name");
//! # let mut damaged = bytes.clone();
//! # damaged[150_000] = 2;
//! # std::fs::write(&path, damaged)?;
//! # let peer = Peer::builder(network.endpoint("p"), FileStorage::open(dir.path())?)
//! #     .tracker(tracker.local_addr()).start().await?;
//! if let Err(ShareError::HashDiffers { .. } | ShareError::LengthDiffers { .. }) =
//!     peer.verify(&path, id).await
//! {
//!     let options = DownloadOptions::new()
//!         .directory(dir.path())
//!         .name("old name")
//!         .existing(&path)
//!         .if_taken(IfTaken::Overwrite);
//!     let mut download = peer.download_with(id, options);
//!     (&mut download).await?;
//! #   assert!(download.progress().downloaded < 50_000);
//! }
//! # assert_eq!(std::fs::read(&path)?, bytes);
//! # Ok(())
//! # }
//! ```
//!
//! # … choose the directory, replace a file, not share it afterwards?
//!
//! ```no_run
//! use bt_lite::{DownloadOptions, IfTaken};
//!
//! # async fn example(peer: bt_lite::Peer, id: bt_lite::ContentId)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let options = DownloadOptions::new()
//!     .directory("/srv/images")
//!     .name("latest.img")
//!     .if_taken(IfTaken::Overwrite)
//!     .seed(false);
//! peer.download_with(id, options).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # … get rid of a content?
//!
//! ```no_run
//! use bt_lite::Removal;
//!
//! # async fn example(peer: bt_lite::Peer, id: bt_lite::ContentId)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! peer.unshare(&id).await; // no longer served; its files stay
//! peer.remove(&id, Removal::DeleteFile).await?; // and what the peer has written goes
//! # Ok(())
//! # }
//! ```
//!
//! # … keep strangers out?
//!
//! With feature `tls`. Whoever does not know the secret learns nothing, and what is said is
//! encrypted. Members can be known by their keys, or by an authority of yours as well
//! (`bt_lite::transport::auth`).
//!
//! ```
//! # #[cfg(feature = "tls")] {
//! use bt_lite::transport::TlsTransport;
//! use bt_lite::transport::auth::{Authenticator, Identity, Secret, Trust};
//! use bt_lite::TcpTransport;
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let secret = Secret::from_file("swarm.secret")?; // made once, by Secret::generate
//! let auth = Authenticator::new(Identity::generate()?, Trust::Secret(secret))?;
//! let transport = TlsTransport::new(TcpTransport::new(), auth);
//! // Trackers and peers take it in place of a TcpTransport.
//! # drop(transport);
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! # … test my program without a network and without waiting?
//!
//! [`MemoryNetwork`] has rates, latency and faults, and keeps to tokio's clock. With the
//! clock paused (feature `test-util` of tokio), an hour passes in milliseconds, and a run
//! can be repeated from its seeds.
//!
//! ```
//! use bt_lite::{MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! tokio::time::pause();
//! let network = MemoryNetwork::new(7);
//! network.set_latency("peer", Duration::from_millis(40));
//! let tracker = Tracker::builder(network.endpoint("tracker")).bind("memory:tracker").await?;
//! let owner = Peer::builder(network.endpoint("owner"), MemoryStorage::new())
//!     .tracker(tracker.local_addr())
//!     .listen("memory:owner")
//!     .start()
//!     .await?;
//! let shared = owner.share(ShareSource::bytes("map", vec![0; 1 << 20])).await?;
//! let peer = Peer::builder(network.endpoint("peer"), MemoryStorage::new())
//!     .tracker(tracker.local_addr())
//!     .start()
//!     .await?;
//! let before = tokio::time::Instant::now();
//! peer.download(shared.id).await?;
//! println!("{:?} of virtual time", before.elapsed());
//! # Ok(())
//! # }
//! ```
