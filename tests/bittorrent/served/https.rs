//! Trackers over HTTPS, as sessions ask them: here behind a proxy that ends TLS.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use bt_lite::bittorrent::{MetainfoFormat, TorrentOptions};
use rcgen::CertifiedKey;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::builder;
use super::sessions::find_each_other;
use crate::sessions::{peer, session, torrent, write_files};

/// Where the certificates are that the system trusts, instead of its own.
const TRUSTED: &str = "SSL_CERT_FILE";

/// Says to this program that it runs for this test alone.
const CHILD: &str = "BT_LITE_TEST_HTTPS";

/// A certificate and its key, as DER.
type Certified = (Vec<u8>, Vec<u8>);

fn certified() -> CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap()
}

fn as_der(certified: &CertifiedKey<rcgen::KeyPair>) -> Certified {
    let key = certified.signing_key.serialize_der();
    (certified.cert.der().to_vec(), key)
}

/// A proxy with this certificate. Tells whether each handshake has succeeded.
async fn proxy((cert, key): Certified, to: String) -> (String, mpsc::Receiver<bool>) {
    let key = PrivateKeyDer::try_from(key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.into()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/announce", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel(100);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, tell, to) = (acceptor.clone(), tell.clone(), to.clone());
            tokio::spawn(async move {
                // With TLS 1.3 the client's refusal comes after the handshake of this side.
                let accepted = acceptor.accept(stream).await;
                let Ok(mut stream) = accepted else {
                    return tell.send(false).await.unwrap();
                };
                let mut plain = TcpStream::connect(to).await.unwrap();
                let copied = copy_bidirectional(&mut stream, &mut plain).await;
                let asked = copied.is_ok_and(|(asked, _)| asked > 0);
                let _ = tell.send(asked).await;
            });
        }
    });
    (url, told)
}

/// What is trusted is set for the whole process, so it is one of its own.
#[tokio::test(flavor = "multi_thread")]
async fn trackers_over_https_are_asked_that_the_system_trusts() {
    let Some(dir) = std::env::var_os(CHILD) else {
        let dir = tempfile::tempdir().unwrap();
        let trusted = certified();
        let file = dir.path().join("trusted.pem");
        fs::write(&file, trusted.cert.pem()).unwrap();
        let (cert, key) = as_der(&trusted);
        fs::write(dir.path().join("cert"), cert).unwrap();
        fs::write(dir.path().join("key"), key).unwrap();
        let test = "served::https::trackers_over_https_are_asked_that_the_system_trusts";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, dir.path())
            .env(TRUSTED, &file)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("1 passed"), "{text}");
        return;
    };
    let dir = PathBuf::from(dir);
    let [cert, key] = ["cert", "key"].map(|name| fs::read(dir.join(name)).unwrap());
    let tracker = builder().bind("memory:tracker").await.unwrap();
    let http = tracker.serve_http("127.0.0.1:0").await.unwrap();
    let (url, _told) = proxy((cert, key), http.to_string()).await;
    find_each_other(&tracker, url, MetainfoFormat::V1).await;

    let (url, mut told) = proxy(as_der(&certified()), http.to_string()).await;
    let here = tempfile::tempdir().unwrap();
    write_files(here.path());
    let mut metainfo = torrent(here.path(), MetainfoFormat::V1);
    metainfo.set_trackers(vec![vec![url]]);
    let owner = peer().await;
    let seeds = session(&owner).await;
    let options = TorrentOptions::new().directory(here.path());
    seeds.add(&metainfo, options).unwrap().await.unwrap();
    assert_eq!(told.recv().await, Some(false));
    assert_eq!(tracker.stats().registry.peers, 0);
    owner.shutdown().await;
}
