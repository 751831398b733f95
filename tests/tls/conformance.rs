//! TLS over any transport of byte streams keeps the contract of a transport, whatever the
//! trust is.

use bt_lite::testing::transport::conformance;
use bt_lite::transport::auth::{AllowedKeys, Authenticator, Identity, Secret, Trust};
use bt_lite::transport::{TcpTransport, TlsTransport};
use bt_lite::{MemoryNetwork, Transport};

use crate::authority::{Authority, Validity};

fn by_secret() -> Authenticator {
    let trust = Trust::Secret(Secret::generate().unwrap());
    Authenticator::new(Identity::generate().unwrap(), trust).unwrap()
}

fn by_key() -> Authenticator {
    let identity = Identity::generate().unwrap();
    let keys = AllowedKeys::from_iter([identity.identity()]);
    Authenticator::new(identity, Trust::Keys(keys)).unwrap()
}

fn by_authority() -> Authenticator {
    let authority = Authority::new("the cluster");
    let identity = authority.member(1, Validity::Now);
    Authenticator::new(identity, Trust::Ca(authority.ca())).unwrap()
}

#[tokio::test]
async fn tls_over_tcp_conforms() {
    for auth in [by_secret(), by_key(), by_authority()] {
        let make = || TlsTransport::new(TcpTransport::new(), auth.clone());
        conformance(make, "127.0.0.1:0").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_over_tcp_on_several_threads_conforms() {
    let auth = by_secret();
    conformance(
        || TlsTransport::new(TcpTransport::new(), auth.clone()),
        "localhost:0",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn tls_over_memory_conforms() {
    for auth in [by_secret(), by_key(), by_authority()] {
        let make = || {
            let network = MemoryNetwork::new(1);
            network.set_latency("a", std::time::Duration::from_millis(3));
            TlsTransport::new(network.endpoint("a"), auth.clone())
        };
        conformance(make, "memory:a:0").await;
        conformance(make, "memory:a").await;
    }
}

#[tokio::test(start_paused = true)]
async fn tls_behind_a_pointer_conforms() {
    let auth = by_secret();
    let make = || -> Box<dyn Transport> {
        let endpoint = MemoryNetwork::new(1).endpoint("a");
        Box::new(TlsTransport::new(endpoint, auth.clone()))
    };
    conformance(make, "memory:a:0").await;
}
