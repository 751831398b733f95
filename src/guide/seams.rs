//! How to write a transport or a storage.
//!
//! Both can live in any crate. Each has a conformance suite in `bt_lite::testing` (feature
//! `testing`), which finds what a careful reader of the traits still gets wrong: run it in
//! a test of your own.
//!
//! # A transport
//!
//! A [`Transport`] connects and listens; what it hands over are [`Connection`]s that carry
//! frames. Over anything that is `AsyncRead + AsyncWrite`, [`framed::from_io`] makes the
//! connection, so this is all there is to write. The example carries frames through pipes
//! of this process:
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::{Arc, Mutex};
//!
//! use async_trait::async_trait;
//! use bt_lite::transport::{Connection, Listener, framed};
//! use bt_lite::{Addr, Transport, TransportError};
//! use tokio::io::{DuplexStream, duplex};
//! use tokio::sync::mpsc;
//!
//! /// Pipes between those who share this value. Addresses are any text.
//! #[derive(Clone, Default)]
//! struct Pipes(Arc<Mutex<HashMap<Addr, mpsc::Sender<DuplexStream>>>>);
//!
//! fn nobody() -> TransportError {
//!     std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()
//! }
//!
//! #[async_trait]
//! impl Transport for Pipes {
//!     async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
//!         let listener = self.0.lock().unwrap().get(addr).cloned().ok_or_else(nobody)?;
//!         let (here, there) = duplex(64 << 10);
//!         listener.send(there).await.map_err(|_| nobody())?;
//!         Ok(framed::from_io(addr.clone(), here))
//!     }
//!
//!     async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
//!         let (sender, streams) = mpsc::channel(16);
//!         self.0.lock().unwrap().insert(addr.clone(), sender);
//!         Ok(Box::new(Accept { addr: addr.clone(), streams }))
//!     }
//! }
//!
//! struct Accept {
//!     addr: Addr,
//!     streams: mpsc::Receiver<DuplexStream>,
//! }
//!
//! #[async_trait]
//! impl Listener for Accept {
//!     async fn accept(&mut self) -> Result<Connection, TransportError> {
//!         let stream = self.streams.recv().await.ok_or_else(nobody)?;
//!         Ok(framed::from_io("pipe".parse().unwrap(), stream))
//!     }
//!
//!     fn local_addr(&self) -> &Addr {
//!         &self.addr
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bt_lite::{DownloadOptions, MemoryStorage, Peer, ShareSource};
//!
//! let pipes = Pipes::default();
//! let owner = Peer::builder(pipes.clone(), MemoryStorage::new())
//!     .listen("owner")
//!     .trackers_optional()
//!     .start()
//!     .await?;
//! let shared = owner.share(ShareSource::bytes("greeting", "hello")).await?;
//! let peer = Peer::builder(pipes, MemoryStorage::new()).trackers_optional().start().await?;
//! let options = DownloadOptions::new().owner("owner");
//! assert_eq!(peer.download_with(shared.id, options).await?.length, 5);
//! # Ok(())
//! # }
//! ```
//!
//! What a transport owes its users:
//!
//! - Frames arrive whole, once and in order, or the stream ends with an error.
//! - A frame is checked against [`LimitHandle`] before memory is allocated for it
//!   ([`framed`] does that).
//! - Dropping a future of `connect` or `accept` leaves no connection behind and loses none.
//! - After a listener is dropped, its address refuses connections.
//! - Both directions go on by themselves: a side that does not read must not keep the other
//!   one from reading.
//! - [`Connection::remote`] is the address that limits by host go by.
//!
//! # A storage
//!
//! A [`Storage`] keeps contents by name, and a [`Blob`] is one of them, open for reading or
//! writing. `examples/custom_storage.rs` is a whole one in 200 lines. Only four methods of
//! the storage and five of the blob have no default. What it owes its users:
//!
//! - Nothing is visible under its name before [`Blob::finish`], and nothing that has the
//!   name already is ever replaced.
//! - [`Blob::finish`] returns when content and name are durable, if the storage has such a
//!   thing. What [`Blob::commit`] named as verified is there after a crash, or is not
//!   reported as present.
//! - One writer for each content at a time; dropping the blob lets the next one in.
//! - No method blocks the thread that polls it: files belong on `spawn_blocking`.
//! - A storage verifies nothing. It is told what is verified, and says in [`Partial`] what
//!   it can vouch for.
//! - What it cannot do is a [`StorageError`]; those of one content end one download.
//!
//! [`Blob`]: crate::Blob
//! [`Blob::commit`]: crate::Blob::commit
//! [`Blob::finish`]: crate::Blob::finish
//! [`Connection`]: crate::transport::Connection
//! [`Connection::remote`]: field@crate::transport::Connection::remote
//! [`framed`]: crate::transport::framed
//! [`framed::from_io`]: crate::transport::framed::from_io
//! [`LimitHandle`]: crate::transport::LimitHandle
//! [`Partial`]: crate::storage::Partial
//! [`Storage`]: crate::Storage
//! [`StorageError`]: crate::StorageError
//! [`Transport`]: crate::Transport
