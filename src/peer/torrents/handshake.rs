//! The handshake of BitTorrent, from both sides.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::bittorrent::InfoHashV1;
use crate::bittorrent::wire::{ClientId, Handshake, HandshakeHead, Reserved, WireError};

/// How many bytes are asked of the network at a time.
const READ_LEN: usize = 64 << 10;

/// What this side understands in any case.
pub(super) const RESERVED: [Reserved; 2] = [Reserved::EXTENDED, Reserved::FAST];

/// What handshakes about one torrent say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WireHashes {
    /// What this side asks for.
    asked: InfoHashV1,
    /// The hash of v2, if it is known and the torrent has one: those who know it as well may
    /// go over to it (BEP 52).
    v2: Option<InfoHashV1>,
}

impl WireHashes {
    pub(super) fn new(asked: InfoHashV1, v2: Option<InfoHashV1>) -> Self {
        Self { asked, v2 }
    }

    /// What this side says that it understands.
    fn reserved(self, me: Oneself) -> Reserved {
        match self.v2 {
            Some(_) => me.understands.with(Reserved::V2),
            None => me.understands,
        }
    }
}

/// What handshakes say of this side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Oneself {
    client: ClientId,
    understands: Reserved,
}

impl Oneself {
    /// With this id, and with a node of the distributed hash table or without.
    pub(super) fn new(client: ClientId, has_dht: bool) -> Self {
        let none = match has_dht {
            true => Reserved::DHT,
            false => Reserved::default(),
        };
        Self {
            client,
            understands: RESERVED.into_iter().fold(none, Reserved::with),
        }
    }

    /// What both sides understand.
    fn agreed(self, theirs: Reserved) -> Reserved {
        Reserved(std::array::from_fn(|at| {
            self.understands.0[at] & theirs.0[at]
        }))
    }
}

/// A connection after both handshakes.
pub(super) struct Shaken<S> {
    pub(super) io: S,
    /// What has arrived behind the handshake.
    pub(super) input: BytesMut,
    /// What both sides understand.
    pub(super) agreed: Reserved,
    pub(super) client: ClientId,
    /// Whether both sides speak of the torrent as one of v2.
    pub(super) is_v2: bool,
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

fn own(info_hash: InfoHashV1, reserved: Reserved, me: Oneself) -> bytes::Bytes {
    let handshake = Handshake {
        head: HandshakeHead {
            reserved,
            info_hash: *info_hash.as_bytes(),
        },
        peer_id: me.client,
    };
    handshake.encode()
}

/// Shakes hands about a torrent on a connection that this side has opened.
pub(super) async fn dialled<S: AsyncRead + AsyncWrite + Unpin>(
    mut io: S,
    hashes: WireHashes,
    me: Oneself,
) -> Result<Shaken<S>, NotShaken> {
    let own = own(hashes.asked, hashes.reserved(me), me);
    io.write_all(&own).await?;
    let mut input = BytesMut::with_capacity(READ_LEN);
    let head = read_head(&mut io, &mut input).await?;
    let answered = InfoHashV1::from_bytes(head.info_hash);
    let is_v2 = hashes.v2 == Some(answered);
    if answered != hashes.asked && !is_v2 {
        return Err(NotShaken::OtherTorrent);
    }
    let client = read_client(&mut io, &mut input, me.client).await?;
    Ok(Shaken {
        io,
        input,
        agreed: me.agreed(head.reserved),
        client,
        is_v2,
    })
}

/// Shakes hands on a connection that the other side has opened. `find` returns what belongs
/// to the torrent that it names, and its hash of v2.
pub(super) async fn accepted<S: AsyncRead + AsyncWrite + Unpin, T>(
    mut io: S,
    me: Oneself,
    find: impl FnOnce(InfoHashV1) -> Option<(T, Option<InfoHashV1>)>,
) -> Result<(Shaken<S>, T), NotShaken> {
    let mut input = BytesMut::with_capacity(READ_LEN);
    let head = read_head(&mut io, &mut input).await?;
    let info_hash = InfoHashV1::from_bytes(head.info_hash);
    let (found, v2) = find(info_hash).ok_or(NotShaken::Unknown(info_hash))?;
    // Who can speak of it as one of v2 is answered so.
    let upgrade = v2.filter(|_| head.reserved.has(Reserved::V2));
    let answer = upgrade.unwrap_or(info_hash);
    let reserved = WireHashes::new(answer, v2).reserved(me);
    // Before the id of the other side: some send it only then.
    io.write_all(&own(answer, reserved, me)).await?;
    let client = read_client(&mut io, &mut input, me.client).await?;
    let shaken = Shaken {
        io,
        input,
        agreed: me.agreed(head.reserved),
        client,
        is_v2: v2 == Some(answer),
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
