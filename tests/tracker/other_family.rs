//! A tracker that is reached over the other family of addresses is told a token only if it
//! is the same one there.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bt_lite::protocol::{Registered, Token, TrackerReply, TrackerRequest};
use bt_lite::tracker::{ClientConfig, TrackerClient};
use bt_lite::transport::{Connection, Listener, PeerIdentity};
use bt_lite::{Addr, MemoryNetwork, MemoryTransport, Transport, TransportError};
use futures::StreamExt;
use tokio::time::timeout;

use crate::identities::identity;
use crate::{Raw, addr};

/// The addresses of the tracker, and the endpoints that answer there.
const AT: [(&str, &str); 2] = [
    ("192.0.2.1:7", "memory:first:7"),
    ("[2001:db8::1]:7", "memory:other:7"),
];

/// The addresses of the client.
const LISTENS: [&str; 2] = ["192.0.2.9:9", "[2001:db8::9]:9"];

/// Reaches the first endpoint over IPv4 and the other one over IPv6, which prove to be
/// these.
struct TwoFamilies {
    inner: MemoryTransport,
    proven: [PeerIdentity; 2],
}

#[async_trait]
impl Transport for TwoFamilies {
    async fn connect(&self, to: &Addr) -> Result<Connection, TransportError> {
        let at = usize::from(to.as_str() == AT[1].0);
        let mut connection = self.inner.connect(&addr(AT[at].1)).await?;
        connection.remote = addr(AT[at].0);
        Ok(connection.with_identity(self.proven[at]))
    }

    async fn listen(&self, _: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        unreachable!("a client does not listen")
    }

    async fn resolve(&self, name: &Addr) -> Result<Vec<Addr>, TransportError> {
        Ok(match name.as_str() {
            "tracker.test:7" => AT.map(|(at, _)| addr(at)).to_vec(),
            "owner.test:9" => LISTENS.map(addr).to_vec(),
            _ => vec![name.clone()],
        })
    }

    fn identity(&self) -> Option<PeerIdentity> {
        Some(identity("client"))
    }
}

/// What is asked first over the other family, if anything is.
async fn asked_over_the_other(other: &str) -> Option<TrackerRequest> {
    let network = MemoryNetwork::new(1);
    let listen = |at: usize| {
        let endpoint = AT[at].1.split(':').nth(1).expect("a name");
        let endpoint = network.endpoint(endpoint);
        async move { endpoint.listen(&addr(AT[at].1)).await.expect("it is free") }
    };
    let (mut first, mut second) = (listen(0).await, listen(1).await);
    let transport = TwoFamilies {
        inner: network.endpoint("client"),
        proven: [identity("tracker"), identity(other)],
    };
    let client = TrackerClient::start(
        Arc::new(transport),
        vec![addr("tracker.test:7")],
        Some(addr("[::]:9")),
        ClientConfig::default(),
    );
    let mut raw = Raw(first.accept().await.expect("the client"));
    let frame = raw.0.stream.next().await.expect("REGISTER").expect("whole");
    let request = TrackerRequest::decode(frame).expect("a request");
    assert!(
        matches!(request, TrackerRequest::Register { .. }),
        "{request:?}"
    );
    let registered = Registered::new(Token([3; 16]), 1, Duration::from_secs(60), None);
    let reply = TrackerReply::Registered(registered)
        .encode()
        .expect("it fits");
    futures::SinkExt::send(&mut raw.0.sink, reply)
        .await
        .expect("it is sent");
    let mut other = second.accept().await.expect("the client");
    let asked = timeout(Duration::from_secs(50), other.stream.next()).await;
    drop((client, raw));
    let frame = asked.expect("it closes or asks")?.ok()?;
    Some(TrackerRequest::decode(frame).expect("a request"))
}

#[tokio::test(start_paused = true)]
async fn token_is_told_only_to_the_tracker_that_has_given_it() {
    let asked = asked_over_the_other("tracker").await;
    let Some(TrackerRequest::RegisterAlso { token, .. }) = asked else {
        panic!("{asked:?}");
    };
    assert_eq!(token, Token([3; 16]));
    assert_eq!(asked_over_the_other("another member").await, None);
}

#[tokio::test(start_paused = true)]
async fn name_is_told_as_the_address_of_the_family_that_the_tracker_is_reached_over() {
    for at in [0, 1] {
        let network = MemoryNetwork::new(1);
        let (remote, endpoint) = AT[at];
        let name = endpoint.split(':').nth(1).expect("a name");
        let listener = network.endpoint(name).listen(&addr(endpoint)).await;
        let transport = TwoFamilies {
            inner: network.endpoint("client"),
            proven: [identity("tracker"); 2],
        };
        let _client = TrackerClient::start(
            Arc::new(transport),
            vec![addr(remote)],
            Some(addr("owner.test:9")),
            ClientConfig::default(),
        );
        let mut accepted = listener
            .expect("it is free")
            .accept()
            .await
            .expect("it comes");
        let frame = accepted
            .stream
            .next()
            .await
            .expect("REGISTER")
            .expect("whole");
        let asked = TrackerRequest::decode(frame).expect("a request");
        let TrackerRequest::Register { listen, .. } = asked else {
            panic!("{asked:?}");
        };
        assert_eq!(listen, Some(addr(LISTENS[at])));
    }
}
