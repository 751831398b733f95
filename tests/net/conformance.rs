//! Every transport of the crate keeps the contract, and so does the one in the
//! example.

use std::sync::Arc;

use bt_lite::testing::transport::conformance;
use bt_lite::transport::TransportError;
use bt_lite::{Addr, MemoryNetwork, TcpTransport, Transport};
use futures::{SinkExt, StreamExt};

#[cfg(unix)]
#[path = "../../examples/custom_transport.rs"]
#[allow(dead_code, unreachable_pub)]
mod custom_transport;

#[tokio::test]
async fn tcp_over_ipv4_conforms() {
    conformance(TcpTransport::new, "127.0.0.1:0").await;
}

#[tokio::test]
async fn tcp_over_ipv6_conforms() {
    let loopback = "[::1]:0";
    if std::net::TcpListener::bind(loopback).is_err() {
        eprintln!("this machine has no IPv6");
        return;
    }
    conformance(TcpTransport::new, loopback).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_on_several_threads_conforms() {
    conformance(TcpTransport::new, "localhost:0").await;
}

#[tokio::test(start_paused = true)]
async fn memory_conforms() {
    let make = || MemoryNetwork::new(1).endpoint("a");
    conformance(make, "memory:a:0").await;
    conformance(make, "memory:a:7").await;
    conformance(make, "memory:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_on_several_threads_conforms() {
    conformance(|| MemoryNetwork::new(1).endpoint("a"), "memory:a:0").await;
}

#[tokio::test(start_paused = true)]
async fn memory_with_rates_and_latency_conforms() {
    let make = || {
        let network = MemoryNetwork::new(1);
        network.set_upload_rate("a", Some(50_000_000));
        network.set_download_rate("a", Some(80_000_000));
        network.set_latency("a", std::time::Duration::from_millis(3));
        network.endpoint("a")
    };
    conformance(make, "memory:a:0").await;
}

#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_from_the_example_conform() {
    let dir = tempfile::tempdir().unwrap();
    let addr = format!("unix:{}", dir.path().join("s").display());
    conformance(|| custom_transport::UnixTransport, &addr).await;
}

#[tokio::test(start_paused = true)]
async fn shared_and_boxed_transports_conform() {
    let make = || -> Box<dyn Transport> { Box::new(MemoryNetwork::new(1).endpoint("a")) };
    conformance(|| Arc::new(make()), "memory:a:0").await;
}

#[tokio::test]
async fn tcp_shows_mapped_addresses_as_ipv4() {
    let any: Addr = "[::]:0".parse().unwrap();
    let Ok(mut listener) = TcpTransport::new().listen(&any).await else {
        eprintln!("this machine has no IPv6");
        return;
    };
    let port = listener.local_addr().socket_addr().unwrap().port();
    let addr: Addr = format!("127.0.0.1:{port}").parse().unwrap();
    let transport = TcpTransport::new();
    // Not every system serves IPv4 and IPv6 with one socket.
    let Ok(here) = transport.connect(&addr).await else {
        return;
    };
    let there = listener.accept().await.unwrap();
    assert_eq!(here.remote, addr);
    assert!(there.remote.socket_addr().unwrap().is_ipv4());
    assert!(there.remote.same_host(&addr));
}

#[tokio::test]
async fn tcp_address_in_use_is_an_io_error() {
    let transport = TcpTransport::new();
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = transport.listen(&any).await.unwrap();
    let again = transport.listen(listener.local_addr()).await;
    let kind = std::io::ErrorKind::AddrInUse;
    let Some(TransportError::Io {
        kind: found,
        source,
    }) = again.err()
    else {
        panic!("not an I/O error");
    };
    assert_eq!(found, kind);
    assert_eq!(source.kind(), kind);
    assert!(source.raw_os_error().is_some());
}

#[tokio::test]
async fn tcp_host_name_is_looked_up() {
    let transport = TcpTransport::new();
    let mut listener = transport
        .listen(&"127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let port = listener.local_addr().socket_addr().unwrap().port();
    // `localhost` may resolve to ::1 first, where nobody listens.
    let name: Addr = format!("localhost:{port}").parse().unwrap();
    let (here, there) = tokio::join!(transport.connect(&name), listener.accept());
    let (mut here, mut there) = (here.unwrap(), there.unwrap());
    here.sink.close().await.unwrap();
    assert_eq!(there.stream.next().await, None);
}
