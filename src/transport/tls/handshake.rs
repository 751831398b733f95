//! The handshake, done by the library. The records that follow are not its business: it gets
//! one at a time, so that nothing behind the handshake comes to it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use futures::FutureExt;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ExtractedSecrets, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::exporter::ExporterSecret;
use super::incoming::Incoming;
use super::keys::KeySchedule;
use super::outgoing::Outgoing;
use super::record::HEADER;
use super::tls_stream::TlsStream;

/// How much is read at once, in bytes: most flights are shorter.
const PIECE: usize = 4 << 10;

/// How many bytes may be there that the library has not done with: a flight of the longest
/// certificates that anybody looks at is a fourth of that.
const MAX_RECEIVED: usize = 80 << 10;

/// A session whose handshake is done.
pub(super) struct Shaken<S> {
    pub(super) io: TlsStream<S>,
    /// The certificates of the other side.
    pub(super) chain: Option<Vec<CertificateDer<'static>>>,
    /// The value for the label that was asked for.
    pub(super) exporter: [u8; 32],
}

/// The handshake of the side that has connected. No name is sent, and none is checked: the
/// address tells nothing of who is there. `label` is that of the exporter.
pub(super) async fn connect<S>(config: &ClientConfig, io: S, label: &[u8]) -> io::Result<Shaken<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let secret = Arc::<ExporterSecret>::default();
    let mut config = config.clone();
    config.key_log = Arc::clone(&secret) as _;
    config.enable_secret_extraction = true;
    let nobody = std::net::Ipv4Addr::UNSPECIFIED;
    let nobody = ServerName::IpAddress(std::net::IpAddr::V4(nobody).into());
    let library = UnbufferedClientConnection::new(Arc::new(config), nobody);
    shake(library.map_err(failed)?, io, (&secret, label)).await
}

/// The handshake of the side that has accepted.
pub(super) async fn accept<S>(config: &ServerConfig, io: S, label: &[u8]) -> io::Result<Shaken<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let secret = Arc::<ExporterSecret>::default();
    let mut config = config.clone();
    config.key_log = Arc::clone(&secret) as _;
    config.enable_secret_extraction = true;
    let library = UnbufferedServerConnection::new(Arc::new(config));
    shake(library.map_err(failed)?, io, (&secret, label)).await
}

/// One side of a handshake in the library.
trait Library: Sized {
    type Data: Send + Sync + 'static;
    const IS_CLIENT: bool;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn state(&self) -> &CommonState;

    fn into_parts(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error>;
}

impl Library for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const IS_CLIENT: bool = true;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn state(&self) -> &CommonState {
        self
    }

    fn into_parts(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error> {
        self.dangerous_into_kernel_connection()
    }
}

impl Library for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const IS_CLIENT: bool = false;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn state(&self) -> &CommonState {
        self
    }

    fn into_parts(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error> {
        self.dangerous_into_kernel_connection()
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The library is asked again.
    Again,
    /// What it has said is sent.
    Send,
    /// It needs to hear more.
    Hear,
}

async fn shake<L: Library, S>(
    mut library: L,
    mut io: S,
    (secret, label): (&ExporterSecret, &[u8]),
) -> io::Result<Shaken<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut heard, mut said) = (Heard::default(), Vec::new());
    loop {
        match heard.process(&mut library, &mut said) {
            Ok(Step::Again) => {}
            Ok(Step::Send) => {
                io.write_all(&said).await?;
                io.flush().await?;
                said.clear();
            }
            Ok(Step::Hear) if !library.state().is_handshaking() => break,
            Ok(Step::Hear) if heard.next_record() => {}
            Ok(Step::Hear) => heard.more(&mut io).await?,
            Err(error) => {
                // Why is told, if the other side takes that at once.
                while library.state().wants_write()
                    && heard.process(&mut library, &mut said).is_ok()
                {}
                let tell = async {
                    io.write_all(&said).await?;
                    io.flush().await
                };
                let _: Option<io::Result<()>> = tell.now_or_never();
                return Err(failed(error));
            }
        }
    }
    let chain = library.state().peer_certificates();
    let chain = chain.map(<[_]>::to_vec);
    let suite = library.state().negotiated_cipher_suite();
    let suite = suite.and_then(|suite| suite.tls13());
    let suite = suite.ok_or_else(|| failed(Error::HandshakeNotComplete))?;
    let exporter = secret.export(suite, label);
    let exporter = exporter.ok_or_else(|| failed(Error::HandshakeNotComplete))?;
    let (secrets, library) = library.into_parts().map_err(failed)?;
    let schedule = KeySchedule::new(suite, library);
    let key = |secrets| schedule.key(secrets).map_err(failed);
    let incoming = Incoming::new(key(secrets.rx)?, L::IS_CLIENT, heard.behind());
    let outgoing = Outgoing::new(key(secrets.tx)?);
    Ok(Shaken {
        io: TlsStream::new(io, (incoming, outgoing), schedule),
        chain,
        exporter,
    })
}

fn failed(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What the other side has said so far.
#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    /// Where in them the record ends that the library has come to.
    end: usize,
}

impl Heard {
    /// Has the library do one step with what it has come to.
    fn process<L: Library>(&mut self, library: &mut L, said: &mut Vec<u8>) -> Result<Step, Error> {
        let given = self.bytes.len().min(self.end);
        let UnbufferedStatus { discard, state } = library.process(&mut self.bytes[..given]);
        let step = state.and_then(|state| step(state, said));
        self.bytes.drain(..discard);
        self.end -= discard;
        step
    }

    /// Goes on to the next record, if the library has all of this one and the header of the
    /// next is there.
    fn next_record(&mut self) -> bool {
        let behind = self.bytes.get(self.end..);
        let header = behind.and_then(|behind| behind.first_chunk::<HEADER>());
        match header {
            Some([.., high, low]) => {
                self.end += HEADER + usize::from(u16::from_be_bytes([*high, *low]));
                true
            }
            None => false,
        }
    }

    /// Hears more.
    async fn more(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        if self.bytes.len() > MAX_RECEIVED {
            let error = rustls::InvalidMessage::HandshakePayloadTooLarge;
            return Err(failed(error.into()));
        }
        // Who says nothing takes no memory.
        let read = std::future::poll_fn(|cx| {
            let mut piece = [0; PIECE];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut piece))?;
            self.bytes.extend_from_slice(piece.filled());
            Poll::Ready(io::Result::Ok(piece.filled().len()))
        });
        match read.await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// What is behind the last record of the handshake.
    fn behind(&self) -> &[u8] {
        self.bytes.get(self.end..).unwrap_or_default()
    }
}

/// Does what the library asks for.
fn step<Data>(state: ConnectionState<'_, '_, Data>, said: &mut Vec<u8>) -> Result<Step, Error> {
    match state {
        ConnectionState::EncodeTlsData(mut record) => {
            let begin = said.len();
            let mut encoded = record.encode(&mut said[begin..]);
            if let Err(EncodeError::InsufficientSize(size)) = &encoded {
                said.resize(begin + size.required_size, 0);
                encoded = record.encode(&mut said[begin..]);
            }
            match encoded {
                Ok(_) => Ok(Step::Again),
                Err(error) => Err(Error::General(error.to_string())),
            }
        }
        ConnectionState::TransmitTlsData(said) => {
            said.done();
            Ok(Step::Send)
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Ok(Step::Hear),
        // Nothing else is in the records of a handshake.
        _ => Err(Error::HandshakeNotComplete),
    }
}
