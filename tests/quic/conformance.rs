//! QUIC keeps the contract of a transport, whatever the trust is.

use bt_lite::testing::transport::conformance;
use bt_lite::transport::QuicTransport;
use bt_lite::{Addr, Transport};

use crate::members::Members;

#[tokio::test]
async fn quic_conforms() {
    for members in Members::of_each_shape() {
        let auth = members.auth();
        conformance(|| QuicTransport::new(auth.clone()), "127.0.0.1:0").await;
    }
}

#[tokio::test]
async fn quic_over_ipv6_conforms() {
    let loopback = "[::1]:0";
    if std::net::UdpSocket::bind(loopback).is_err() {
        eprintln!("this machine has no IPv6");
        return;
    }
    let auth = Members::by_secret().auth();
    conformance(|| QuicTransport::new(auth.clone()), loopback).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_on_several_threads_conforms() {
    let auth = Members::by_secret().auth();
    conformance(|| QuicTransport::new(auth.clone()), "localhost:0").await;
}

#[tokio::test]
async fn listener_at_any_address_serves_both_families_and_dials_from_its_own() {
    let members = Members::by_secret();
    let (here, there) = (members.quic(), members.quic());
    let any: Addr = "[::]:0".parse().unwrap();
    let mut at_here = here.listen(&any).await.unwrap();
    let mut at_there = there.listen(&any).await.unwrap();
    let port = |addr: &Addr| addr.socket_addr().unwrap().port();
    let to = format!("127.0.0.1:{}", port(at_there.local_addr()));
    let to: Addr = to.parse().unwrap();
    let (dialled, accepted) = tokio::join!(here.connect(&to), at_there.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!(dialled.remote, to);
    assert_eq!(accepted.local, Some(to));
    // The other side could dial it where it was dialled from.
    let seen = accepted.remote.socket_addr().unwrap();
    assert!(seen.is_ipv4());
    assert_eq!(seen.port(), port(at_here.local_addr()));
    let (back, accepted) = tokio::join!(there.connect(&accepted.remote), at_here.accept());
    assert_eq!(back.unwrap().identity, Some(here.auth().identity()));
    assert_eq!(accepted.unwrap().identity, Some(there.auth().identity()));
}
