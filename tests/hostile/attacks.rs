//! What a hostile peer sends, as bytes on a socket. The benchmark sends the same.

// The tests and the benchmark each use only some of these items.
#![allow(dead_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bt_lite::content::BlockRange;
use bt_lite::protocol::{ChannelId, Frame, Hello, LinkCookie, PeerId, PeerMessage, RefuseReason};
use bt_lite::{ChunkIndex, ContentId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A frame as it is on a byte stream (PROTOCOL.md 2).
pub(crate) fn bytes_of(frame: &Frame) -> Vec<u8> {
    let (head, body) = (frame.head.len() as u16, frame.body.len() as u32);
    let prefix = [&head.to_be_bytes()[..], &body.to_be_bytes()[..]].concat();
    [&prefix[..], &frame.head[..], &frame.body[..]].concat()
}

fn on(channel: u32, message: PeerMessage) -> Vec<u8> {
    bytes_of(&message.encode(ChannelId(channel)))
}

/// What a peer says first.
pub(crate) fn hello(peer: u8) -> Vec<u8> {
    let hello = Hello::new(PeerId([peer; 16]), None, LinkCookie([0; 16]));
    on(0, PeerMessage::Hello(hello))
}

/// Opens a link about a content, and has nothing of it.
pub(crate) fn greeting(content: ContentId) -> Vec<u8> {
    let open = on(1, PeerMessage::Open(content));
    [open, on(1, PeerMessage::HaveNone)].concat()
}

/// What a peer says over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// That it has a chunk.
    Have,
    /// That it is interested, and that it is not.
    Interest,
    /// That it may not be asked, and that it may.
    Choke,
    /// What it might be asked for.
    Suggest,
    /// A request that it takes back.
    RequestAndCancel,
    /// A request for what is not there.
    RequestBeyond,
    /// A request for the first page of the manifest.
    Page,
    /// A request for a page that the manifest lacks.
    PageBeyond,
    /// That it is still there.
    KeepAlive,
    /// A channel about a content that is not here.
    Unknown,
    /// A channel about the same content as the first one.
    Again,
    /// A channel about the content that it leaves at once, and then another one.
    OpenAndLeave,
}

impl Flood {
    pub(crate) const ALL: [Self; 12] = [
        Self::Have,
        Self::Interest,
        Self::Choke,
        Self::Suggest,
        Self::RequestAndCancel,
        Self::RequestBeyond,
        Self::Page,
        Self::PageBeyond,
        Self::KeepAlive,
        Self::Unknown,
        Self::Again,
        Self::OpenAndLeave,
    ];

    /// The messages with these numbers, to the owner of a content.
    pub(crate) fn messages(self, content: ContentId, numbers: std::ops::Range<u32>) -> Vec<u8> {
        numbers
            .flat_map(|number| self.message(content, number))
            .collect()
    }

    fn message(self, content: ContentId, number: u32) -> Vec<u8> {
        let is_even = number.is_multiple_of(2);
        let chunk = ChunkIndex(0);
        let block = |chunk| BlockRange {
            chunk: ChunkIndex(chunk),
            offset: 0,
            len: 16 << 10,
        };
        // Those of the side that has connected are odd, and the first one is taken.
        let channel = 2 * number + 3;
        match self {
            Self::Have => on(1, PeerMessage::Have(chunk)),
            Self::Interest if is_even => on(1, PeerMessage::NotInterested),
            Self::Interest => on(1, PeerMessage::Interested),
            Self::Choke if is_even => on(1, PeerMessage::Choke),
            Self::Choke => on(1, PeerMessage::Unchoke),
            Self::Suggest => on(1, PeerMessage::Suggest(chunk)),
            Self::RequestAndCancel if is_even => on(1, PeerMessage::Request(block(0))),
            Self::RequestAndCancel => on(1, PeerMessage::Cancel(block(0))),
            Self::RequestBeyond => on(1, PeerMessage::Request(block(1 << 19))),
            Self::Page => on(1, PeerMessage::ManifestRequest { page: 0 }),
            Self::PageBeyond => on(1, PeerMessage::ManifestRequest { page: 100 }),
            Self::KeepAlive => on(0, PeerMessage::KeepAlive),
            Self::Unknown => {
                let unknown = ContentId::of(&number.to_be_bytes());
                on(channel, PeerMessage::Open(unknown))
            }
            Self::Again => on(channel, PeerMessage::Open(content)),
            // The first one is left, and then each that was opened.
            Self::OpenAndLeave if is_even => {
                let left = PeerMessage::Refuse(RefuseReason::NotNeeded);
                on((number + 1) | 1, left)
            }
            Self::OpenAndLeave => on((number + 1) | 1, PeerMessage::Open(content)),
        }
    }
}

/// A connection from one of several addresses of this machine.
pub(crate) async fn connect_from(host: u8, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 1, host));
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

/// Reads whatever comes, to the end. Returns how much it was.
pub(crate) async fn drain(mut from: impl tokio::io::AsyncRead + Unpin) -> u64 {
    let (mut buffer, mut read) = (vec![0; 64 << 10], 0);
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return read,
            Ok(len) => read += len as u64,
        }
    }
}

/// Greets an owner, sends so many messages of a flood while it reads the answers, and closes.
/// Returns how many bytes it has sent, and whether the owner let it send all.
pub(crate) async fn flood(
    kind: Flood,
    to: SocketAddr,
    content: ContentId,
    messages: u32,
) -> io::Result<(u64, bool)> {
    /// As many messages as are made at a time.
    const GROUP: u32 = 1000;
    let stream = connect_from(2, to).await?;
    let (read, mut write) = stream.into_split();
    let reader = tokio::spawn(drain(read));
    let greeting = [hello(2), greeting(content)].concat();
    write.write_all(&greeting).await?;
    let (mut sent, mut number) = (greeting.len() as u64, 0);
    while number < messages {
        let end = messages.min(number + GROUP);
        let bytes = kind.messages(content, number..end);
        if write.write_all(&bytes).await.is_err() {
            reader.abort();
            return Ok((sent, false));
        }
        sent += bytes.len() as u64;
        number = end;
    }
    // All was heard when the other side has closed as well.
    write.shutdown().await?;
    let _ = reader.await;
    Ok((sent, true))
}
