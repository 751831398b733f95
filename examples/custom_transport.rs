//! A transport of your own in a few lines: Unix sockets.
//!
//! ```sh
//! cargo run --example custom_transport
//! ```
//!
//! `framed::from_io` turns any byte stream into a connection, so a transport only
//! has to connect, to listen, and to parse its addresses. TLS, QUIC streams or a
//! serial port need no more. `UnixTransport` below keeps the whole contract: the
//! crate's own tests run the conformance suite `bt_lite::testing::transport` on
//! it.

#[cfg(unix)]
pub use unix::UnixTransport;

#[cfg(unix)]
mod unix {
    use std::path::{Path, PathBuf};

    use async_trait::async_trait;
    use bt_lite::transport::{Connection, Listener, framed};
    use bt_lite::{Addr, Transport, TransportError};
    use tokio::net::{UnixListener, UnixStream};

    /// Unix sockets. Addresses are `unix:PATH`.
    #[derive(Debug, Clone, Copy)]
    pub struct UnixTransport;

    fn path(addr: &Addr) -> Result<&Path, TransportError> {
        match addr.as_str().strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Path::new(path)),
            _ => Err(TransportError::Address {
                addr: addr.clone(),
                reason: "it is not `unix:` followed by a path".into(),
            }),
        }
    }

    #[async_trait]
    impl Transport for UnixTransport {
        async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
            let stream = UnixStream::connect(path(addr)?).await?;
            Ok(framed::from_io(addr.clone(), stream))
        }

        async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
            let path = path(addr)?.to_owned();
            let listener = UnixListener::bind(&path)?;
            let addr = addr.clone();
            Ok(Box::new(Acceptor {
                listener,
                path,
                addr,
            }))
        }
    }

    struct Acceptor {
        listener: UnixListener,
        path: PathBuf,
        addr: Addr,
    }

    #[async_trait]
    impl Listener for Acceptor {
        async fn accept(&mut self) -> Result<Connection, TransportError> {
            let (stream, _) = self.listener.accept().await?;
            // A client socket has no path, so both sides use the listener's.
            Ok(framed::from_io(self.addr.clone(), stream))
        }

        fn local_addr(&self) -> &Addr {
            &self.addr
        }
    }

    impl Drop for Acceptor {
        fn drop(&mut self) {
            // The file outlives the socket, and nobody could listen there again.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use bt_lite::protocol::Frame;
    use bt_lite::{Addr, Transport};
    use futures::{SinkExt, StreamExt};

    let dir = tempfile::tempdir()?;
    let addr: Addr = format!("unix:{}", dir.path().join("socket").display()).parse()?;

    let mut listener = UnixTransport.listen(&addr).await?;
    let (mut here, mut there) = tokio::try_join!(UnixTransport.connect(&addr), listener.accept())?;

    // Both directions at once: a block one way, a greeting the other way.
    let block = Frame {
        head: "a block".into(),
        body: vec![7; 100_000].into(),
    };
    tokio::try_join!(
        here.sink.send(block),
        there.sink.send(Frame::head("welcome")),
    )?;
    let (greeting, block) = tokio::join!(here.stream.next(), there.stream.next());
    let (greeting, block) = (greeting.ok_or("no greeting")??, block.ok_or("no block")??);
    println!("the client got:   {:?}", greeting.head);
    println!(
        "the listener got: {:?} + {} bytes",
        block.head,
        block.body.len()
    );

    here.sink.close().await?;
    assert_eq!(there.stream.next().await, None);
    println!("and then the end of the stream");
    Ok(())
}

#[cfg(not(unix))]
fn main() {
    println!("This example needs Unix sockets.");
}
