//! A transfer with quinn and nothing else: one stream, from file to file.

use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use quinn::{ClientConfig, Endpoint, ServerConfig, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::common::Outcome;

/// As much as a connection here may have under way, in bytes.
const WINDOW: u32 = 10 << 20;

/// What the certificate is for.
const NAME: &str = "sender";

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW));
    Arc::new(config)
}

/// Sends a file to the first that connects, in pieces. Puts its certificate at a path, and
/// calls `ready` with the address as soon as it listens.
pub(crate) async fn send(
    file: &Path,
    piece: usize,
    certificate: &Path,
    ready: impl FnOnce(String),
) -> Outcome<()> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    fs::write(certificate, made.cert.der())?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let mut config = ServerConfig::with_single_cert(vec![made.cert.der().clone()], key)?;
    config.transport_config(transport());
    let endpoint = Endpoint::server(config, "127.0.0.1:0".parse()?)?;
    ready(endpoint.local_addr()?.to_string());
    let incoming = endpoint.accept().await.ok_or("the endpoint has ended")?;
    let mut stream = incoming.await?.open_uni().await?;
    let mut file = File::open(file)?;
    let mut buffer = vec![0; piece];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
    stream.finish()?;
    stream.stopped().await?;
    Ok(())
}

/// Writes what arrives to a file.
pub(crate) async fn receive(
    file: &Path,
    piece: usize,
    certificate: &Path,
    addr: &str,
) -> Outcome<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(fs::read(certificate)?))?;
    let mut config = ClientConfig::with_root_certificates(Arc::new(roots))?;
    config.transport_config(transport());
    let endpoint = Endpoint::client("127.0.0.1:0".parse()?)?;
    let addr: SocketAddr = addr.parse()?;
    let connection = endpoint.connect_with(config, addr, NAME)?.await?;
    let mut stream = connection.accept_uni().await?;
    let file = File::create(file)?;
    let mut buffer = vec![0; piece];
    let mut at = 0;
    while let Some(read) = stream.read(&mut buffer).await? {
        file.write_all_at(&buffer[..read], at)?;
        at += read as u64;
    }
    Ok(())
}
