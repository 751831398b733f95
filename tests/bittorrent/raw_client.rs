//! A client that speaks to a session byte by byte, over TCP.

use std::net::SocketAddr;

use bt_lite::bittorrent::Metainfo;
use bt_lite::bittorrent::wire::{
    ClientId, HANDSHAKE_LEN, Handshake, HandshakeHead, Message, Reserved, WireLimits, WireReader,
};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct RawClient {
    stream: TcpStream,
    input: BytesMut,
    wire: WireReader,
}

impl RawClient {
    /// Connects, shakes hands, and speaks the Fast extension and that of extensions.
    pub(crate) async fn connect(to: SocketAddr, metainfo: &Metainfo, name: u8) -> Self {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let handshake = Handshake {
            head: HandshakeHead {
                reserved: Reserved::FAST.with(Reserved::EXTENDED),
                info_hash: *metainfo.info_hash_v1().unwrap().as_bytes(),
            },
            peer_id: ClientId([name; 20]),
        };
        stream.write_all(&handshake.encode()).await.unwrap();
        let mut answer = [0; HANDSHAKE_LEN];
        stream.read_exact(&mut answer).await.unwrap();
        let chunks = Some(metainfo.pieces());
        Self {
            stream,
            input: BytesMut::new(),
            wire: WireReader::new(WireLimits { chunks }),
        }
    }

    pub(crate) async fn says(&mut self, message: Message) {
        let frame = message.encode();
        let bytes = [&frame.head[..], &frame.body[..]].concat();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next message; `None` when the other side has closed.
    pub(crate) async fn hears(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.wire.next(&mut self.input).unwrap() {
                return Some(message);
            }
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// What comes up to a message of which this is true, with it.
    pub(crate) async fn hears_until(&mut self, is_last: impl Fn(&Message) -> bool) -> Vec<Message> {
        let mut heard = Vec::new();
        while let Some(message) = self.hears().await {
            let is_last = is_last(&message);
            heard.push(message);
            if is_last {
                return heard;
            }
        }
        panic!("closed after {heard:?}");
    }
}
