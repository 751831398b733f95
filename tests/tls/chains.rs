//! Chains of certificates: those that a cluster has, and those that only cost.

use bt_lite::transport::auth::{Authenticator, Ca, Identity, Secret, Trust};
use bt_lite::transport::{AuthError, StreamListener, StreamTransport, TlsTransport};
use bt_lite::{Addr, MemoryNetwork, Transport, TransportError};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use tokio::io::AsyncReadExt;

use crate::authority::{Authority, Validity};
use crate::outsider::{self, Papers};

/// What a member says of an outsider that accepts with these papers.
async fn refusal(papers: Papers) -> AuthError {
    let network = MemoryNetwork::new(1);
    let outsider = network.endpoint("outsider");
    let addr: Addr = "memory:outsider".parse().unwrap();
    let mut listener = outsider.listen_for_streams(&addr).await.unwrap();
    tokio::spawn(async move {
        let stream = listener.accept_stream().await.unwrap();
        if let Ok(mut session) = outsider::accept_with(stream.io, papers).await {
            let _ = session.read_u8().await;
        }
    });
    let trust = Trust::Secret(Secret::generate().unwrap());
    let auth = Authenticator::new(Identity::generate().unwrap(), trust).unwrap();
    let member = TlsTransport::new(network.endpoint("member"), auth);
    match member.connect(&addr).await {
        Err(TransportError::Auth(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is let in"),
    }
}

#[tokio::test(start_paused = true)]
async fn chain_of_many_certificates_is_refused_by_its_size() {
    let mut papers = Papers::own();
    papers.chain = vec![papers.chain[0].clone(); 7];
    let error = refusal(papers).await;
    let bytes = match error {
        AuthError::ChainTooLarge {
            certificates: 7,
            bytes,
        } => bytes,
        other => panic!("{other}"),
    };
    assert!(bytes < 16 << 10);
}

#[tokio::test(start_paused = true)]
async fn chain_of_large_certificates_is_refused_by_its_size() {
    let mut papers = Papers::own();
    papers.chain.push(CertificateDer::from(vec![0x30; 20_000]));
    let error = refusal(papers).await;
    assert!(
        matches!(error, AuthError::ChainTooLarge { certificates: 2, bytes } if bytes > 20_000),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn member_with_authorities_between_is_let_in() {
    let root = Authority::new("root");
    let middle = root.below("middle");
    let low = middle.below("low");
    let key = KeyPair::generate().unwrap();
    let leaf = low.sign(&key, 5, Validity::Now);
    // With the root, which is not needed.
    let chain = leaf + &low.pem() + &middle.pem() + &root.pem();
    let identity = Identity::from_pem(&chain, &key.serialize_pem()).unwrap();
    let auth = Authenticator::new(identity, Trust::Ca(root.ca())).unwrap();
    let network = MemoryNetwork::new(1);
    let member = TlsTransport::new(network.endpoint("member"), auth);
    let addr: Addr = "memory:to".parse().unwrap();
    let other = Authenticator::new(root.member(1, Validity::Now), Trust::Ca(root.ca())).unwrap();
    let to = TlsTransport::new(network.endpoint("to"), other);
    let mut listener = to.listen(&addr).await.unwrap();
    let (there, here) = tokio::join!(member.connect(&addr), listener.accept());
    there.unwrap();
    here.unwrap();
}

#[test]
fn own_chain_that_others_would_refuse_by_its_size_is_an_error() {
    let authority = Authority::new("the cluster");
    let key = KeyPair::generate().unwrap();
    let leaf = authority.sign(&key, 5, Validity::Now);
    let chain = leaf.repeat(7);
    let error = Identity::from_pem(&chain, &key.serialize_pem()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("7 certificates"), "{text}");
    // A file of authorities is no chain: it may have as many as there are.
    let ca = Ca::from_pem(&authority.pem().repeat(7));
    Authenticator::new(authority.member(1, Validity::Now), Trust::Ca(ca)).unwrap();
}
