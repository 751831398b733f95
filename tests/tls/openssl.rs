//! What a client of OpenSSL sees at the port of a peer: TLS 1.3, and nothing else.

use std::process::Stdio;

use bt_lite::transport::TlsTransport;
use bt_lite::transport::auth::{Authenticator, Identity, Secret, Trust};
use bt_lite::{MemoryStorage, Peer, ShareSource, TcpTransport};
use tokio::io::AsyncReadExt;

/// What `openssl s_client` prints, if this machine has it.
async fn s_client(addr: &str, version: &str) -> Option<String> {
    let mut child = std::process::Command::new("openssl")
        .args(["s_client", "-connect", addr, version])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut text = Vec::new();
    let stdout = child.stdout.take().unwrap();
    let stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout.into());
    stdout.unwrap().read_to_end(&mut text).await.unwrap();
    child.wait().unwrap();
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test]
async fn openssl_sees_tls_1_3_and_nothing_readable() {
    let trust = Trust::Secret(Secret::generate().unwrap());
    let auth = Authenticator::new(Identity::generate().unwrap(), trust).unwrap();
    let tls = TlsTransport::new(TcpTransport::new(), auth);
    let peer = Peer::builder(tls.clone(), MemoryStorage::new())
        .listen("127.0.0.1:0")
        .start()
        .await
        .unwrap();
    let source = ShareSource::bytes("engine.pdf", vec![7; 1000]);
    let content = peer.share(source).await.unwrap();
    let addr = peer.local_addr().unwrap().as_str();
    let Some(seen) = s_client(addr, "-tls1_3").await else {
        eprintln!("this machine has no openssl");
        return;
    };
    assert!(seen.contains("TLSv1.3"), "{seen}");
    assert!(
        seen.contains("No client certificate CA names sent"),
        "{seen}"
    );
    for secret in ["engine", "bt_lite", &content.id.to_string()] {
        assert!(!seen.contains(secret), "{seen}");
    }
    let seen = s_client(addr, "-tls1_2").await.unwrap();
    assert!(seen.contains("Cipher is (NONE)"), "{seen}");
    assert_eq!(tls.stats().accepted, 0);
    peer.shutdown().await;
}
