//! What comes over the wire of the crate's own protocol: frames, and the texts in them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bt_lite::protocol::{
    Addr, Frame, FrameLimits, HostKey, PeerMessage, TrackerReply, TrackerRequest,
};
use bt_lite::transport::framed::{self, PREFIX_LEN};
use bt_lite::{ContentId, ContentName, FolderPath, TransportError};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::input::Input;
use crate::memory::Bound;

/// The shortest entry of a list has three bytes, and becomes a value of some fields; an
/// owner has an address of its own.
const TRACKER_MEMORY: Bound = Bound::new(16, 1 << 10);
/// Bodies are shared.
const PEER_MEMORY: Bound = Bound::new(4, 1 << 10);

/// A frame of the input: one byte with the length of the part that is not the long one.
fn frame(data: &[u8], head_is_long: bool) -> Frame {
    let mut input = Input::new(data);
    let short = usize::from(input.u8());
    let short = input.bytes(short).to_vec().into();
    let long = input.rest().to_vec().into();
    match head_is_long {
        true => Frame {
            head: long,
            body: short,
        },
        false => Frame {
            head: short,
            body: long,
        },
    }
}

/// Requests to trackers and their replies. What is read is written again as the same bytes:
/// no two frames mean the same.
pub fn tracker_frames(data: &[u8]) {
    let frame = frame(data, true);
    let read = || TrackerRequest::decode(frame.clone());
    if let Ok(request) = TRACKER_MEMORY.of(frame.len(), read) {
        assert_eq!(request.encode().as_ref(), Ok(&frame));
    }
    let read = || TrackerReply::decode(frame.clone());
    if let Ok(reply) = TRACKER_MEMORY.of(frame.len(), read) {
        assert_eq!(reply.encode().as_ref(), Ok(&frame));
    }
}

/// Messages between peers, in the same way.
pub fn peer_frames(data: &[u8]) {
    let frame = frame(data, false);
    let read = || PeerMessage::decode(frame.clone());
    if let Ok((channel, message)) = PEER_MEMORY.of(frame.len(), read) {
        assert_eq!(message.encode(channel), frame);
    }
}

/// Names, addresses, paths and ids. What is accepted is written as it was read, and keeps
/// what its type promises.
pub fn texts(data: &[u8]) {
    let (text, other) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &data[..0]),
    };
    let name = ContentName::try_from(text);
    let addr = Addr::try_from(text);
    let Ok(text) = std::str::from_utf8(text) else {
        assert!(name.is_err() && addr.is_err());
        return;
    };
    assert_eq!(name, text.parse());
    assert_eq!(addr, text.parse());
    if let Ok(name) = name {
        assert_eq!(name.as_str(), text);
        assert!(!text.contains(['/', '\\', '\0']) && text != "." && text != "..");
        if name.check_file_name().is_ok() {
            assert!(!text.starts_with('.') && !text.contains(':') && text.trim() == text);
        }
    }
    if let Ok(addr) = addr {
        check_addr(&addr, &Addr::try_from(other).unwrap_or(addr.clone()));
    }
    if let Ok(id) = text.parse::<ContentId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
        assert_eq!(ContentId::from_bytes(*id.as_bytes()), id);
    }
    if let Ok(path) = text.parse::<FolderPath>() {
        assert_eq!(path.as_str(), text);
        assert_eq!(path.elements().collect::<Vec<_>>().join("/"), text);
        assert!(path.elements().all(|e| e.parse::<ContentName>().is_ok()));
        assert!(path.parent().is_none_or(|parent| path.is_within(&parent)));
        assert_eq!(path.elements().next_back(), Some(path.name()));
    }
}

fn check_addr(addr: &Addr, other: &Addr) {
    let same = |addr: &Addr| addr.as_str().parse().as_ref() == Ok(addr);
    assert!(same(addr) && addr.same_host(addr));
    let bare = addr.without_scope();
    assert!(same(&bare) && bare.without_scope() == bare && bare.same_host(addr));
    for (addr, other) in [(addr, other), (other, addr)] {
        assert_eq!(addr.same_host(other), other.same_host(addr));
        assert!(!addr.same_host(other) || HostKey::of(addr) == HostKey::of(other));
        let filled = addr.filled_in_from(other);
        assert!(same(&filled) && filled.filled_in_from(other) == filled);
        let scoped = addr.scoped_as(other);
        assert!(same(&scoped) && scoped.scoped_as(other) == scoped);
        // It has no other port, and another host only if it had none.
        let (before, after) = (addr.socket_addr(), filled.socket_addr());
        assert_eq!(before.map(|a| a.port()), after.map(|a| a.port()));
        let was_any = before.is_some_and(|addr| addr.ip().is_unspecified());
        assert!(was_any || filled == *addr);
    }
}

/// A byte stream that gives and takes as many bytes at a time as its cuts say, over and over;
/// 0 is once nothing at all.
struct Cut {
    bytes: Vec<u8>,
    at: usize,
    cuts: Vec<u8>,
    next: usize,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Cut {
    fn new(bytes: &[u8], cuts: &[u8], written: &Arc<Mutex<Vec<u8>>>) -> Self {
        // Without one that is not 0 it would not end.
        let cuts = cuts.iter().copied().chain([u8::MAX]).collect();
        Self {
            bytes: bytes.to_vec(),
            at: 0,
            cuts,
            next: 0,
            written: Arc::clone(written),
        }
    }

    fn cut(&mut self, cx: &Context<'_>) -> Poll<usize> {
        let cut = self.cuts[self.next % self.cuts.len()];
        self.next += 1;
        match cut {
            0 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            // Most are short, and a few as long as all the rest.
            u8::MAX => Poll::Ready(usize::MAX),
            short => Poll::Ready(short.into()),
        }
    }
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Poll::Ready(len) = self.cut(cx) else {
            return Poll::Pending;
        };
        let left = &self.bytes[self.at..];
        let len = len.min(left.len()).min(buf.remaining());
        buf.put_slice(&left[..len]);
        self.at += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(len) = self.cut(cx) else {
            return Poll::Pending;
        };
        let len = len.min(buf.len());
        let mut written = self.written.lock().expect("nobody has panicked");
        written.extend_from_slice(&buf[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write(cx, &slices.concat_slices())
    }

    fn is_write_vectored(&self) -> bool {
        self.cuts.len().is_multiple_of(2)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

trait ConcatSlices {
    fn concat_slices(&self) -> Vec<u8>;
}

impl ConcatSlices for [io::IoSlice<'_>] {
    fn concat_slices(&self) -> Vec<u8> {
        self.iter()
            .flat_map(|slice| slice.iter().copied())
            .collect()
    }
}

/// How a stream of frames ends.
#[derive(Debug, PartialEq)]
enum End {
    Clean,
    Truncated,
    TooLarge,
    SpeaksTls,
}

/// The frames in these bytes, read in one go.
fn read_at_once(mut bytes: &[u8], limits: FrameLimits) -> (Vec<Frame>, End) {
    let mut frames = Vec::new();
    loop {
        let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_LEN>() else {
            let end = if bytes.is_empty() {
                End::Clean
            } else {
                End::Truncated
            };
            return (frames, end);
        };
        let [a, b, c, d, e, f] = *prefix;
        let head = usize::from(u16::from_be_bytes([a, b]));
        let body = u32::from_be_bytes([c, d, e, f]) as usize;
        if head > limits.head.into() || body > limits.body as usize {
            let is_tls = matches!([a, b], [0x15 | 0x16, 3]) && c <= 4;
            let end = match frames.is_empty() && is_tls {
                true => End::SpeaksTls,
                false => End::TooLarge,
            };
            return (frames, end);
        }
        if rest.len() < head + body {
            return (frames, End::Truncated);
        }
        frames.push(Frame {
            head: rest[..head].to_vec().into(),
            body: rest[head..head + body].to_vec().into(),
        });
        bytes = &rest[head + body..];
    }
}

/// Frames over a byte stream that comes in any pieces. They are those that are in the bytes,
/// however these are cut; and they are written as the same bytes, however few are taken.
pub fn framed_streams(data: &[u8]) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O");
    }
    let mut input = Input::new(data);
    let limits = FrameLimits {
        head: input.u16(),
        body: input.u32() % (1 << 18),
    };
    let cuts = usize::from(input.below(32));
    let cuts = input.bytes(cuts);
    let bytes = input.rest();
    let (frames, end) = read_at_once(bytes, limits);
    // A frame that was announced, one more that is read ahead, and what is not parsed yet. The
    // shortest has six bytes, and is kept here in a list that doubles as it grows.
    let announced = usize::from(limits.head) + limits.body as usize;
    let memory = Bound::new(40, 2 * announced + (32 << 10));
    let written = Arc::default();
    let remote: Addr = "pipe:there".parse().expect("a valid address");
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (read_half, write_half) = (
                Cut::new(bytes, cuts, &written),
                Cut::new(&[], cuts, &written),
            );
            let mut connection = framed::from_halves(remote, read_half, write_half);
            connection.limits.set(limits);
            let mut found = Vec::new();
            let mut last = None;
            let all = async {
                while let Some(item) = connection.stream.next().await {
                    match item {
                        Ok(frame) => found.push(frame),
                        Err(error) => last = Some(error),
                    }
                }
            };
            let mut all = std::pin::pin!(all);
            poll_fn(|cx| memory.of(bytes.len(), || all.as_mut().poll(cx))).await;
            assert_eq!(found, frames);
            let found_end = match last {
                None => End::Clean,
                Some(TransportError::Truncated) => End::Truncated,
                Some(TransportError::FrameTooLarge { .. }) => End::TooLarge,
                Some(TransportError::SpeaksTls) => End::SpeaksTls,
                Some(other) => panic!("{other:?}"),
            };
            assert_eq!(found_end, end);
            for frame in &found {
                connection.sink.feed(frame.clone()).await.expect("it fits");
            }
            connection.sink.close().await.expect("nothing fails");
        });
    });
    let len: usize = frames.iter().map(|frame| PREFIX_LEN + frame.len()).sum();
    assert_eq!(*written.lock().expect("nobody has panicked"), bytes[..len]);
}
