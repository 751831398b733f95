//! Frames over byte streams that deliver in pieces, slowly, or not at all.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bt_lite::protocol::limits::{FRAME_TIMEOUT, MAX_FRAMES, TRACKER_FRAMES};
use bt_lite::protocol::{Frame, FrameLimits};
use bt_lite::transport::framed::{self, MAX_QUEUED, PREFIX_LEN};
use bt_lite::transport::{Connection, TransportError};
use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, poll};
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};
use tokio::time::{Instant, advance};

fn frame(head: &[u8], body: &[u8]) -> Frame {
    Frame {
        head: Bytes::copy_from_slice(head),
        body: Bytes::copy_from_slice(body),
    }
}

/// The bytes of frames on the wire, written from the description and not with the
/// code under test.
fn wire(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend((frame.head.len() as u16).to_be_bytes());
        bytes.extend((frame.body.len() as u32).to_be_bytes());
        bytes.extend(&frame.head);
        bytes.extend(&frame.body);
    }
    bytes
}

fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Connection {
    framed::from_io("pipe:x".parse().unwrap(), io)
}

/// A byte stream that gives these pieces, one per read, and then ends. Before each
/// piece, one poll is pending.
struct Pieces {
    pieces: Vec<Vec<u8>>,
    /// How many bytes of the first piece were read.
    at: usize,
    ready: bool,
}

impl Pieces {
    fn of(pieces: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self {
            pieces: pieces.into_iter().filter(|p| !p.is_empty()).collect(),
            at: 0,
            ready: false,
        }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.ready, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(piece) = self.pieces.first() {
            let len = buf.remaining().min(piece.len() - self.at);
            buf.put_slice(&piece[self.at..self.at + len]);
            self.at += len;
            if self.at == self.pieces[0].len() {
                self.pieces.remove(0);
                self.at = 0;
                self.ready = false;
            }
        }
        Poll::Ready(Ok(()))
    }
}

async fn received(pieces: Pieces) -> Vec<Result<Frame, TransportError>> {
    let connection = framed::from_halves("pipe:x".parse().unwrap(), pieces, tokio::io::sink());
    let mut stream = connection.stream;
    let mut items = Vec::new();
    while let Some(item) = stream.next().await {
        items.push(item);
    }
    assert_eq!(stream.next().await, None, "the stream stays at its end");
    items
}

fn samples() -> Vec<Frame> {
    vec![
        frame(b"", b""),
        frame(b"head", b""),
        frame(b"", b"body"),
        frame(b"both", &[7; 90]),
        frame(&[8; 40], &[9; 70]),
        frame(b"", b""),
        frame(b"last", b""),
    ]
}

#[tokio::test]
async fn record_of_tls_is_known_at_the_start_and_later_is_a_frame_that_is_too_long() {
    let record = vec![0x16, 3, 1, 2, 0, 1];
    let items = received(Pieces::of([record.clone()])).await;
    assert_eq!(items, [Err(TransportError::SpeaksTls)]);
    let first = frame(b"head", b"");
    let items = received(Pieces::of([wire(std::slice::from_ref(&first)), record])).await;
    assert_eq!(items[0], Ok(first));
    assert!(
        matches!(items[1], Err(TransportError::FrameTooLarge { .. })),
        "{items:?}"
    );
}

#[tokio::test]
async fn frames_that_wait_with_tiny_bodies_are_few() {
    let (io, _other) = duplex(1);
    let mut sink = over(io).sink;
    let mut taken = 0;
    while let Some(fed) = sink.feed(frame(b"", b"x")).now_or_never() {
        fed.unwrap();
        taken += 1;
        assert!(taken < 1000, "each costs more memory than its bytes");
    }
    assert!(taken > 100);
}

#[tokio::test]
async fn frames_come_a_byte_at_a_time() {
    let bytes = wire(&samples());
    let items = received(Pieces::of(bytes.iter().map(|&b| vec![b]))).await;
    assert_eq!(items, samples().into_iter().map(Ok).collect::<Vec<_>>());
}

#[tokio::test]
async fn frames_split_at_every_offset_arrive() {
    let bytes = wire(&samples());
    for at in 0..=bytes.len() {
        let (one, two) = bytes.split_at(at);
        let items = received(Pieces::of([one.to_vec(), two.to_vec()])).await;
        assert_eq!(
            items,
            samples().into_iter().map(Ok).collect::<Vec<_>>(),
            "split at {at}"
        );
    }
}

#[tokio::test]
async fn frames_cut_off_at_every_offset_are_truncated() {
    let bytes = wire(&samples());
    let mut ends = vec![0];
    for i in 0..samples().len() {
        ends.push(wire(&samples()[..=i]).len());
    }
    for at in 0..=bytes.len() {
        let mut items = received(Pieces::of([bytes[..at].to_vec()])).await;
        let whole = ends.iter().filter(|&&end| end <= at).count() - 1;
        if !ends.contains(&at) {
            assert_eq!(items.pop(), Some(Err(TransportError::Truncated)), "{at}");
        }
        assert_eq!(
            items,
            samples().drain(..whole).map(Ok).collect::<Vec<_>>(),
            "cut off at {at}"
        );
    }
}

#[tokio::test]
async fn announced_lengths_are_checked_before_anything_else_comes() {
    for (limits, head, body, len, max) in [
        (MAX_FRAMES, 0, MAX_FRAMES.body + 1, 262_145, 262_144),
        (MAX_FRAMES, 0, u32::MAX, u32::MAX as usize, 262_144),
        (TRACKER_FRAMES, 64_001, 0, 64_001, 64_000),
        (TRACKER_FRAMES, 0, 1, 1, 0),
        (FrameLimits { head: 0, body: 0 }, 1, 0, 1, 0),
    ] {
        let (mut far, near) = duplex(64);
        let mut near = over(near);
        near.limits.set(limits);
        far.write_u16(head).await.unwrap();
        far.write_u32(body).await.unwrap();
        // Neither a byte of the frame nor the end of the stream comes: the prefix is
        // enough.
        assert_eq!(
            near.stream.next().now_or_never().unwrap(),
            Some(Err(TransportError::FrameTooLarge { len, max }))
        );
        assert_eq!(near.stream.next().await, None);
    }
}

#[tokio::test]
async fn limits_apply_from_the_next_frame_on() {
    let (mut far, near) = duplex(1 << 10);
    let mut near = over(near);
    far.write_all(&wire(&[frame(b"long", b""), frame(b"long", b"")]))
        .await
        .unwrap();
    assert!(matches!(near.stream.next().await, Some(Ok(_))));
    // The second frame was read along with the first, but is checked only now.
    near.limits.set(FrameLimits { head: 3, body: 0 });
    assert_eq!(
        near.stream.next().await,
        Some(Err(TransportError::FrameTooLarge { len: 4, max: 3 }))
    );
}

#[tokio::test(start_paused = true)]
async fn frame_that_arrives_too_slowly_times_out_at_its_deadline() {
    let (mut far, near) = duplex(1 << 10);
    let mut near = over(near);
    // Silence between two frames does not count.
    assert!(poll!(near.stream.next()).is_pending());
    advance(FRAME_TIMEOUT * 10).await;
    assert!(poll!(near.stream.next()).is_pending());

    let begun = Instant::now();
    let trickle = async {
        for byte in wire(&[frame(&[1; 200], &[])]) {
            if far.write_u8(byte).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (item, ()) = tokio::join!(
        async {
            let item = near.stream.next().await;
            let elapsed = begun.elapsed();
            assert!(
                (FRAME_TIMEOUT..FRAME_TIMEOUT + Duration::from_secs(1)).contains(&elapsed),
                "{elapsed:?}"
            );
            item
        },
        trickle
    );
    assert_eq!(item, Some(Err(TransportError::FrameTimeout)));
    assert_eq!(near.stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn each_frame_has_its_own_deadline() {
    let (mut far, near) = duplex(1 << 10);
    let mut near = over(near);
    let bytes = wire(&[frame(&[1; 20], &[2; 30])]);
    let sending = async {
        for _ in 0..5 {
            far.write_all(&bytes[..30]).await.unwrap();
            tokio::time::sleep(FRAME_TIMEOUT - Duration::from_secs(1)).await;
            far.write_all(&bytes[30..]).await.unwrap();
        }
    };
    let receiving = async {
        for _ in 0..5 {
            assert!(matches!(near.stream.next().await, Some(Ok(_))));
        }
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn frames_are_written_as_described() {
    let (near, mut far) = duplex(1 << 20);
    let mut near = over(near);
    // Heads around the length up to which heads are copied, with and without
    // bodies.
    let mut frames = samples();
    for len in [511, 512, 513, 65535] {
        frames.push(frame(&vec![3; len], b""));
        frames.push(frame(&vec![4; len], &vec![5; len]));
    }
    for frame in &frames {
        near.sink.feed(frame.clone()).await.unwrap();
    }
    near.sink.close().await.unwrap();
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, wire(&frames));
}

#[tokio::test]
async fn long_bodies_are_not_copied_on_the_way_out() {
    /// Records the address and the length of each slice that is written. The flag
    /// tells whether it supports vectored writes.
    struct Spy(Vec<(usize, usize)>, bool);

    impl AsyncWrite for Spy {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push((buf.as_ptr() as usize, buf.len()));
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            for buf in bufs {
                self.0.push((buf.as_ptr() as usize, buf.len()));
            }
            Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
        }

        fn is_write_vectored(&self) -> bool {
            self.1
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            // Everything was written by now: both bodies come from the same memory.
            let bodies: Vec<_> = self.0.iter().filter(|(_, len)| *len == 100_000).collect();
            assert_eq!(bodies.len(), 2);
            assert_eq!(bodies[0], bodies[1], "the body was not copied");
            assert_eq!(self.0.len(), 4, "twice: prefix and head, then the body");
            Poll::Ready(Ok(()))
        }
    }

    for vectored in [false, true] {
        let body = Bytes::from(vec![1; 100_000]);
        let addr = "pipe:x".parse().unwrap();
        let spy = Spy(Vec::new(), vectored);
        let mut near = framed::from_halves(addr, tokio::io::empty(), spy);
        for _ in 0..2 {
            let (head, body) = (Bytes::from_static(b"block"), body.clone());
            near.sink.feed(Frame { head, body }).await.unwrap();
        }
        near.sink.close().await.unwrap();
    }
}

#[tokio::test]
async fn queue_is_bounded_in_bytes_and_in_chunks() {
    for body in [0, 1, 100_000] {
        let (near, far) = duplex(1);
        let mut near = over(near);
        let frame = frame(b"h", &vec![0; body]);
        let mut taken = 0;
        while let Some(sent) = near.sink.feed(frame.clone()).now_or_never() {
            sent.unwrap();
            taken += PREFIX_LEN + frame.len();
            assert!(taken <= MAX_QUEUED + PREFIX_LEN + frame.len() + 1);
        }
        assert!(taken > 0);
        drop(far);
    }
}

#[tokio::test]
async fn failed_write_is_final() {
    let (near, far) = duplex(16);
    let mut near = over(near);
    drop(far);
    let first = near.sink.send(Frame::head("x")).await.unwrap_err();
    assert!(matches!(
        first,
        TransportError::Io {
            kind: io::ErrorKind::BrokenPipe,
            ..
        }
    ));
    assert_eq!(near.sink.send(Frame::head("y")).await, Err(first.clone()));
    assert_eq!(near.sink.close().await, Err(first));
}

fn any_frames() -> impl Strategy<Value = Vec<Frame>> {
    let bytes = |most: usize| {
        prop_oneof![Just(0), 0..100usize, 0..most].prop_flat_map(|len| {
            any::<u8>().prop_map(move |seed| {
                (0..len)
                    .map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed))
                    .collect::<Vec<u8>>()
            })
        })
    };
    prop::collection::vec(
        (bytes(9000), bytes(20_000)).prop_map(|(head, body)| frame(&head, &body)),
        0..12,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_frames_pass_through_a_pipe_of_any_size(
        frames in any_frames(),
        pipe in 1..9000usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let got = runtime.block_on(async {
            let (near, far) = duplex(pipe);
            let (mut near, far) = (over(near), over(far));
            let sending = async {
                for frame in &frames {
                    near.sink.feed(frame.clone()).await.unwrap();
                }
                near.sink.close().await.unwrap();
            };
            tokio::join!(sending, far.stream.collect::<Vec<_>>()).1
        });
        prop_assert_eq!(got, frames.into_iter().map(Ok).collect::<Vec<_>>());
    }
}
