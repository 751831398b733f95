//! The handshake of BitTorrent, from both sides.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::bittorrent::InfoHashV1;
use crate::bittorrent::wire::{ClientId, Handshake, HandshakeHead, Reserved, WireError};

/// How many bytes are asked of the network at a time.
const READ_LEN: usize = 64 << 10;

/// What this side understands.
pub(super) const RESERVED: [Reserved; 2] = [Reserved::EXTENDED, Reserved::FAST];

/// A connection after both handshakes.
pub(super) struct Shaken<S> {
    pub(super) io: S,
    /// What has arrived behind the handshake.
    pub(super) input: BytesMut,
    /// What both sides understand.
    pub(super) agreed: Reserved,
    pub(super) client: ClientId,
}

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NotShaken {
    #[error("the connection failed: {0}")]
    Io(io::ErrorKind),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the other side has another torrent")]
    OtherTorrent,
    #[error("there is no torrent {0}")]
    Unknown(InfoHashV1),
    #[error("the other side is this one")]
    Oneself,
}

impl From<io::Error> for NotShaken {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

fn reserved() -> Reserved {
    let none = Reserved::default();
    RESERVED.into_iter().fold(none, Reserved::with)
}

fn agreed(theirs: Reserved) -> Reserved {
    let both = RESERVED.into_iter().filter(|bits| theirs.has(*bits));
    both.fold(Reserved::default(), Reserved::with)
}

fn own(info_hash: InfoHashV1, me: ClientId) -> bytes::Bytes {
    let handshake = Handshake {
        head: HandshakeHead {
            reserved: reserved(),
            info_hash: *info_hash.as_bytes(),
        },
        peer_id: me,
    };
    handshake.encode()
}

/// Shakes hands about a torrent on a connection that this side has opened.
pub(super) async fn dialled<S: AsyncRead + AsyncWrite + Unpin>(
    mut io: S,
    info_hash: InfoHashV1,
    me: ClientId,
) -> Result<Shaken<S>, NotShaken> {
    io.write_all(&own(info_hash, me)).await?;
    let mut input = BytesMut::with_capacity(READ_LEN);
    let head = read_head(&mut io, &mut input).await?;
    if head.info_hash != *info_hash.as_bytes() {
        return Err(NotShaken::OtherTorrent);
    }
    let client = read_client(&mut io, &mut input, me).await?;
    Ok(Shaken {
        io,
        input,
        agreed: agreed(head.reserved),
        client,
    })
}

/// Shakes hands on a connection that the other side has opened. `find` returns what belongs
/// to the torrent that it names.
pub(super) async fn accepted<S: AsyncRead + AsyncWrite + Unpin, T>(
    mut io: S,
    me: ClientId,
    find: impl FnOnce(InfoHashV1) -> Option<T>,
) -> Result<(Shaken<S>, T), NotShaken> {
    let mut input = BytesMut::with_capacity(READ_LEN);
    let head = read_head(&mut io, &mut input).await?;
    let info_hash = InfoHashV1::from_bytes(head.info_hash);
    let found = find(info_hash).ok_or(NotShaken::Unknown(info_hash))?;
    // Before the id of the other side: some send it only then.
    io.write_all(&own(info_hash, me)).await?;
    let client = read_client(&mut io, &mut input, me).await?;
    let shaken = Shaken {
        io,
        input,
        agreed: agreed(head.reserved),
        client,
    };
    Ok((shaken, found))
}

async fn read_head(
    io: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
) -> Result<HandshakeHead, NotShaken> {
    loop {
        if let Some(head) = HandshakeHead::take(input)? {
            return Ok(head);
        }
        more(io, input).await?;
    }
}

async fn read_client(
    io: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    me: ClientId,
) -> Result<ClientId, NotShaken> {
    loop {
        match ClientId::take(input) {
            Some(client) if client == me => return Err(NotShaken::Oneself),
            Some(client) => return Ok(client),
            None => more(io, input).await?,
        }
    }
}

async fn more(io: &mut (impl AsyncRead + Unpin), input: &mut BytesMut) -> Result<(), NotShaken> {
    match io.read_buf(input).await? {
        0 => Err(NotShaken::Io(io::ErrorKind::UnexpectedEof)),
        _ => Ok(()),
    }
}
