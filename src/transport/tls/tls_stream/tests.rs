//! Sessions with the library at the other end, which moves its records itself.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, ContentType, HandshakeType, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::super::handshake::{Shaken, accept, connect};
use super::super::record::MAX_CARRIED;
use super::*;

/// A pipe that does not hold what a server says last, in bytes.
const SHORT: usize = 1000;

const LABEL: &[u8] = b"EXPORTER-test";

/// The configurations of both sides, of which the client knows the server.
fn configs() -> (ClientConfig, ServerConfig) {
    let made = rcgen::generate_simple_self_signed(["0.0.0.0".to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (client, server)
}

/// The same for a pipe of this length.
fn configs_for(pipe: usize) -> (ClientConfig, ServerConfig) {
    let (client, mut server) = configs();
    if pipe < SHORT {
        // Nobody reads tickets as long as the handshake goes on.
        server.send_tls13_tickets = 0;
    }
    (client, server)
}

type Ours = TlsStream<DuplexStream>;

/// This crate as the client, and the library as the server, which sends tickets.
async fn with_server(pipe: usize) -> (Shaken<DuplexStream>, server::TlsStream<DuplexStream>) {
    let (client, server) = configs_for(pipe);
    let (here, there) = duplex(pipe);
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let (ours, library) = tokio::join!(connect(&client, here, LABEL), acceptor.accept(there));
    (ours.unwrap(), library.unwrap())
}

/// This crate as the server, and the library as the client.
async fn with_client(pipe: usize) -> (Shaken<DuplexStream>, client::TlsStream<DuplexStream>) {
    let (client, server) = configs_for(pipe);
    let (here, there) = duplex(pipe);
    let connector = TlsConnector::from(Arc::new(client));
    let name = std::net::IpAddr::from([0; 4]).into();
    let (ours, library) =
        tokio::join!(accept(&server, here, LABEL), connector.connect(name, there));
    (ours.unwrap(), library.unwrap())
}

/// This crate on both sides.
async fn both_ours() -> (Ours, Ours) {
    let (client, server) = configs();
    let (here, there) = duplex(1 << 20);
    let (client, server) =
        tokio::join!(connect(&client, here, LABEL), accept(&server, there, LABEL));
    (client.unwrap().io, server.unwrap().io)
}

fn some_bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// Sends bytes in pieces, and closes.
async fn send(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    for piece in bytes.chunks(100_000) {
        io.write_all(piece).await.unwrap();
    }
    io.shutdown().await.unwrap();
}

async fn receive(io: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    io.read_to_end(&mut all).await.unwrap();
    all
}

/// Sends in both directions at once.
async fn exchange(
    one: impl AsyncRead + AsyncWrite + Unpin,
    other: impl AsyncRead + AsyncWrite + Unpin,
) {
    let bytes = some_bytes(1_000_001);
    let (mut read, mut write) = tokio::io::split(one);
    let (mut other_read, mut other_write) = tokio::io::split(other);
    let ((), (), received, other_received) = tokio::join!(
        send(&mut write, &bytes),
        send(&mut other_write, &bytes),
        receive(&mut read),
        receive(&mut other_read),
    );
    assert!(received == bytes && other_received == bytes);
}

/// The error of a session that has failed.
fn library_error(error: &io::Error) -> Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    Error::clone(inner.unwrap_or_else(|| panic!("{error:?}")))
}

async fn read_error(io: &mut (impl AsyncRead + Unpin)) -> io::Error {
    io.read_to_end(&mut Vec::new()).await.unwrap_err()
}

#[tokio::test]
async fn bytes_pass_in_both_directions_however_they_are_cut() {
    for pipe in [61, 5_000, 1 << 20] {
        let (ours, library) = with_server(pipe).await;
        exchange(ours.io, library).await;
        let (ours, library) = with_client(pipe).await;
        exchange(ours.io, library).await;
    }
}

#[tokio::test]
async fn exporter_is_that_of_the_library() {
    let (ours, library) = with_server(4096).await;
    let (_, session) = library.get_ref();
    let theirs = session.export_keying_material([0; 32], LABEL, None);
    assert_eq!(Ok(ours.exporter), theirs);
    let (ours, library) = with_client(4096).await;
    let (_, session) = library.get_ref();
    let theirs = session.export_keying_material([0; 32], LABEL, None);
    assert_eq!(Ok(ours.exporter), theirs);
}

#[tokio::test]
async fn what_comes_with_the_end_of_the_handshake_is_read() {
    let (client, server) = configs();
    let (here, there) = duplex(1 << 20);
    let client = async {
        let mut client = connect(&client, here, LABEL).await.unwrap().io;
        client.write_all(&some_bytes(50_000)).await.unwrap();
        client
    };
    // The server begins when everything is there that the client can say without an answer.
    let server = async { accept(&server, there, LABEL).await.unwrap().io };
    let (_client, mut server) = tokio::join!(client, server);
    let mut received = vec![0; 50_000];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(received, some_bytes(50_000));
}

#[tokio::test]
async fn keys_that_the_other_side_renews_are_followed() {
    let (mut ours, mut library) = with_server(1 << 20).await;
    let mut word = [0; 4];
    for round in 0..100 {
        library.get_mut().1.refresh_traffic_keys().unwrap();
        library.write_all(b"ping").await.unwrap();
        library.flush().await.unwrap();
        ours.io.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"ping", "{round}");
        // It has asked for the next key of this side.
        assert!(ours.io.outgoing.is_asked(), "{round}");
        ours.io.write_all(b"pong").await.unwrap();
        ours.io.flush().await.unwrap();
        assert!(!ours.io.outgoing.is_asked(), "{round}");
        library.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"pong", "{round}");
    }
}

#[tokio::test]
async fn key_is_renewed_before_it_has_sealed_too_much() {
    let (mut ours, mut library) = with_client(1 << 20).await;
    ours.io.outgoing.set_most(5);
    let bytes = some_bytes(40 * MAX_CARRIED);
    let (received, ()) = tokio::join!(receive(&mut library), send(&mut ours.io, &bytes));
    assert!(received == bytes);
    // Each key has sealed four records of bytes, and told of the next one.
    assert!(ours.io.outgoing.used() < 5);
}

#[tokio::test]
async fn end_of_the_stream_is_an_error_unless_it_was_told() {
    let (mut ours, mut library) = with_server(1 << 20).await;
    library.write_all(b"word").await.unwrap();
    library.shutdown().await.unwrap();
    assert_eq!(receive(&mut ours.io).await, b"word");
    // This side may go on.
    ours.io.write_all(b"word").await.unwrap();
    let mut word = [0; 4];
    library.read_exact(&mut word).await.unwrap();

    let (mut ours, mut library) = with_server(1 << 20).await;
    library.write_all(b"word").await.unwrap();
    library.flush().await.unwrap();
    drop(library);
    ours.io.read_exact(&mut word).await.unwrap();
    let error = read_error(&mut ours.io).await;
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn nothing_is_sent_after_the_end_was_told() {
    let (mut ours, mut library) = with_client(1 << 20).await;
    ours.io.shutdown().await.unwrap();
    ours.io.shutdown().await.unwrap();
    let error = ours.io.write_all(b"word").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert!(receive(&mut library).await.is_empty());
}

#[tokio::test]
async fn altered_record_ends_the_session_and_both_are_told() {
    let (ours, library) = with_server(1 << 20).await;
    let (mut here, mut there) = (ours.io, library);
    // A record of nobody who has the key.
    let forged = [23, 3, 3, 0, 20].into_iter().chain([7; 20]);
    let forged: Vec<u8> = forged.collect();
    there.get_mut().0.write_all(&forged).await.unwrap();
    let error = read_error(&mut here).await;
    assert_eq!(library_error(&error), Error::DecryptError);
    // It stays so.
    assert_eq!(
        library_error(&read_error(&mut here).await),
        Error::DecryptError
    );
    let told = library_error(&read_error(&mut there).await);
    assert_eq!(told, Error::AlertReceived(AlertDescription::BadRecordMac));
    assert!(here.write_all(b"more").await.is_err());
}

#[tokio::test]
async fn record_that_is_not_sealed_or_too_long_ends_the_session() {
    let cases: [(&[u8], AlertDescription); 4] = [
        (&[20, 3, 3, 0, 1, 1], AlertDescription::UnexpectedMessage),
        (&[21, 3, 3, 0, 2, 1, 0], AlertDescription::UnexpectedMessage),
        (&[23, 3, 3, 0x41, 1], AlertDescription::RecordOverflow),
        (&[23, 3, 3, 0, 16], AlertDescription::BadRecordMac),
    ];
    for (record, alert) in cases {
        let (mut ours, mut library) = with_client(1 << 20).await;
        library.get_mut().0.write_all(record).await.unwrap();
        assert!(ours.io.read_u8().await.is_err());
        let told = library_error(&read_error(&mut library).await);
        assert_eq!(told, Error::AlertReceived(alert), "{record:?}");
    }
}

#[tokio::test]
async fn alert_of_the_other_side_is_told_as_it_is() {
    let (mut here, mut there) = both_ours().await;
    there
        .outgoing
        .alert(AlertDescription::CertificateUnknown)
        .unwrap();
    there.flush().await.unwrap();
    let error = library_error(&read_error(&mut here).await);
    let alert = AlertDescription::CertificateUnknown;
    assert_eq!(error, Error::AlertReceived(alert));
}

/// Has the server say this behind the handshake, cut into these records, and then a word.
async fn client_hears(records: &[(ContentType, &[u8])]) -> Result<(), Error> {
    let (mut client, mut server) = both_ours().await;
    for (kind, carried) in records {
        let carry = |to: &mut Vec<u8>| to.extend_from_slice(carried);
        server.outgoing.record(*kind, carry).unwrap();
    }
    server
        .outgoing
        .record(ContentType::ApplicationData, |to| to.push(7))
        .unwrap();
    server.flush().await.unwrap();
    match client.read_u8().await {
        Ok(word) => {
            assert_eq!(word, 7);
            Ok(())
        }
        Err(error) => Err(library_error(&error)),
    }
}

#[tokio::test]
async fn tickets_and_empty_records_are_passed_over() {
    const HANDSHAKE: ContentType = ContentType::Handshake;
    let ticket = [HandshakeType::NewSessionTicket.into(), 0, 0, 3, 1, 2, 3];
    let two = [ticket, ticket].concat();
    let whole: Vec<(ContentType, &[u8])> = vec![(HANDSHAKE, &two)];
    let cut: Vec<(ContentType, &[u8])> = two.chunks(3).map(|part| (HANDSHAKE, part)).collect();
    let empty: Vec<(ContentType, &[u8])> = vec![(ContentType::ApplicationData, &[]); 20];
    let canceled: Vec<(ContentType, &[u8])> = vec![(ContentType::Alert, &[1, 90])];
    for records in [whole, cut, empty, canceled] {
        assert_eq!(client_hears(&records).await, Ok(()), "{records:?}");
    }
}

#[tokio::test]
async fn what_nobody_may_say_after_the_handshake_ends_the_session() {
    use ContentType::{Alert, ApplicationData, ChangeCipherSpec, Handshake};
    const UPDATE: u8 = 24;
    const NOTHING: &[u8] = &[];
    let long = [4, 0, 0x40, 1];
    let cases: [&[(ContentType, &[u8])]; 11] = [
        // An empty message, and one of the handshake itself.
        &[(Handshake, &[])],
        &[(Handshake, &[11, 0, 0, 1, 0])],
        // Bytes of the program between the parts of a message.
        &[(Handshake, &[4, 0, 0, 9]), (ApplicationData, &[1])],
        &[(Handshake, &long)],
        // Updates of no known kind, or with something behind them.
        &[(Handshake, &[UPDATE, 0, 0, 1, 2])],
        &[(Handshake, &[UPDATE, 0, 0, 0])],
        &[(Handshake, &[UPDATE, 0, 0, 1, 0, 4])],
        &[(ChangeCipherSpec, &[1])],
        &[(Alert, &[1])],
        &[(Alert, &[2, 0, 0])],
        &[(ApplicationData, NOTHING); 33],
    ];
    for records in cases {
        let error = client_hears(records).await.expect_err("it was heard");
        assert!(alert_of(&error).is_some(), "{error}");
        assert_ne!(alert_of(&error), Some(AlertDescription::InternalError));
    }
}

#[tokio::test]
async fn ticket_for_a_server_ends_the_session() {
    let (mut client, mut server) = both_ours().await;
    let ticket = [HandshakeType::NewSessionTicket.into(), 0, 0, 1, 1];
    let carry = |to: &mut Vec<u8>| to.extend_from_slice(&ticket);
    client
        .outgoing
        .record(ContentType::Handshake, carry)
        .unwrap();
    client.flush().await.unwrap();
    let error = library_error(&read_error(&mut server).await);
    assert!(matches!(error, Error::InappropriateHandshakeMessage { .. }));
}

#[tokio::test]
async fn padding_is_passed_over_and_a_record_of_nothing_else_is_none() {
    let padded = [&b"word"[..], &[23], &[0; 300]].concat();
    assert_eq!(
        super::super::record::carried(&padded),
        Ok((ContentType::ApplicationData, 4))
    );
    assert!(super::super::record::carried(&[0; 300]).is_err());
    let full = [vec![1; MAX_CARRIED + 1], vec![23]].concat();
    assert_eq!(
        super::super::record::carried(&full),
        Err(Error::PeerSentOversizedRecord)
    );
}

#[tokio::test]
async fn session_that_waits_holds_no_memory() {
    let (mut ours, mut library) = with_server(1 << 20).await;
    library.write_all(b"word").await.unwrap();
    library.flush().await.unwrap();
    let mut word = [0; 4];
    ours.io.read_exact(&mut word).await.unwrap();
    assert!(futures::poll!(std::pin::pin!(ours.io.read_u8())).is_pending());
    assert!(!ours.io.incoming.holds_memory());
    ours.io.write_all(&some_bytes(1000)).await.unwrap();
    ours.io.flush().await.unwrap();
    assert!(!ours.io.outgoing.holds_memory());
}
