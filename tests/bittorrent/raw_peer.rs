//! A peer that speaks on the wire what a test tells it to.

use std::net::SocketAddr;

use bt_lite::bittorrent::wire::{
    ClientId, ExtendedHandshake, Handshake, HandshakeHead, Message, MetadataMessage,
    OWN_EXTENSIONS, Reserved, WireLimits, WireReader,
};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One connection, after the handshakes.
pub(crate) struct RawPeer {
    stream: TcpStream,
    input: BytesMut,
    /// What the other side has said in its handshake.
    pub(crate) head: HandshakeHead,
}

pub(crate) fn handshake(info_hash: [u8; 20], reserved: Reserved, id: u8) -> Bytes {
    let head = HandshakeHead {
        reserved: reserved.with(Reserved::EXTENDED).with(Reserved::FAST),
        info_hash,
    };
    let peer_id = ClientId([id; 20]);
    Handshake { head, peer_id }.encode()
}

impl RawPeer {
    /// Connects and shakes hands.
    pub(crate) async fn connect(addr: SocketAddr, own: Bytes) -> Self {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(&own).await.unwrap();
        Self::shaken(stream).await
    }

    /// Is connected to, and shakes hands with what `own` makes of the other hash.
    pub(crate) async fn accept(
        listener: &TcpListener,
        own: impl FnOnce(HandshakeHead) -> Bytes,
    ) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Self::shaken(stream).await;
        let own = own(peer.head);
        peer.stream.write_all(&own).await.unwrap();
        peer
    }

    async fn shaken(mut stream: TcpStream) -> Self {
        let mut input = BytesMut::new();
        let head = loop {
            if let Some(head) = HandshakeHead::take(&mut input).unwrap() {
                break head;
            }
            assert!(stream.read_buf(&mut input).await.unwrap() > 0, "closed");
        };
        while ClientId::take(&mut input).is_none() {
            assert!(stream.read_buf(&mut input).await.unwrap() > 0, "closed");
        }
        Self {
            stream,
            input,
            head,
        }
    }

    pub(crate) async fn say(&mut self, message: Message) {
        let frame = message.encode();
        self.stream.write_all(&frame.head).await.unwrap();
        self.stream.write_all(&frame.body).await.unwrap();
    }

    pub(crate) async fn say_about(&mut self, metadata_size: Option<usize>) {
        let mut about = ExtendedHandshake::default();
        about.extensions = OWN_EXTENSIONS;
        about.metadata_size = metadata_size.map(|size| size as u32);
        let payload = about.encode();
        self.say(Message::Extended { id: 0, payload }).await;
    }

    pub(crate) async fn say_metadata(&mut self, message: MetadataMessage) {
        let id = OWN_EXTENSIONS.ut_metadata.unwrap();
        let payload = message.encode();
        self.say(Message::Extended { id, payload }).await;
    }

    /// The next message; nothing when the other side has closed.
    pub(crate) async fn hear(&mut self) -> Option<Message> {
        let wire = WireReader::new(WireLimits { chunks: None });
        loop {
            if let Some(message) = wire.next(&mut self.input).unwrap() {
                return Some(message);
            }
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// What comes up to a message of which this is true, with it.
    pub(crate) async fn hear_until(&mut self, is_last: impl Fn(&Message) -> bool) -> Vec<Message> {
        let mut heard = Vec::new();
        while let Some(message) = self.hear().await {
            let is_last = is_last(&message);
            heard.push(message);
            if is_last {
                return heard;
            }
        }
        panic!("closed after {heard:?}");
    }

    /// The next request for a piece of the info dictionary.
    pub(crate) async fn metadata_request(&mut self) -> Option<u32> {
        loop {
            if let Message::Extended { id, payload } = self.hear().await?
                && Some(id) == OWN_EXTENSIONS.ut_metadata
                && let MetadataMessage::Request { piece } =
                    MetadataMessage::decode(&payload).unwrap()
            {
                return Some(piece);
            }
        }
    }

    /// Sends the pieces of an info dictionary as they are asked for.
    pub(crate) async fn serve_info(&mut self, info: &[u8]) {
        self.say_about(Some(info.len())).await;
        let pieces = info.chunks(16 << 10).enumerate();
        for _ in pieces.clone() {
            let piece = self.metadata_request().await.unwrap();
            let (_, data) = pieces.clone().nth(piece as usize).unwrap();
            let answer = MetadataMessage::Data {
                piece,
                total_size: Some(info.len() as u32),
                data: Bytes::copy_from_slice(data),
            };
            self.say_metadata(answer).await;
        }
    }
}
