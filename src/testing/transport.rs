//! The conformance suite for [`Transport`] implementations.
//!
//! [`conformance`] checks a transport against the whole contract of
//! [`transport`](crate::transport). It only waits for events; a check that hangs
//! fails after a timeout. For a transport with real I/O, run it on a real clock. For
//! a transport in tokio time, a paused clock makes failures fast.
//!
//! ```
//! use bt_lite::{MemoryNetwork, testing};
//!
//! // In your test: #[tokio::test(start_paused = true)]
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let make = || MemoryNetwork::new(1).endpoint("a");
//! testing::transport::conformance(make, "memory:a:0").await;
//! # }
//! ```

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future, poll};
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::protocol::limits::MAX_FRAMES;
use crate::protocol::{Addr, Frame, FrameLimits};
use crate::transport::{Connection, FrameSink, FrameStream, Listener, Transport, TransportError};

/// How long one check may take, in tokio time.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// How many bytes a sink may accept that nobody reads. The limit is generous, because
/// the buffers of the operating system count too.
pub const MAX_UNREAD: usize = 64 << 20;

/// A text that is not an address of any transport.
const BAD_ADDR: &str = "?";

/// The types of heads that no message of a channel has.
const NO_MESSAGE: u8 = 0x80;

/// How often a check lets other tasks run before it concludes that nothing moves.
const PATIENCE: usize = 200;

type Outcome = Result<(), String>;

/// Checks that a transport keeps its contract.
///
/// `make` makes a transport for each check. The transport both connects and
/// listens, so it must be able to connect to itself. `addr` is a free address to
/// listen at, which must be free again once the listener is dropped. Best use port
/// 0, or whatever else lets the transport choose.
///
/// The checks cover: order, wholeness and content of frames of all sizes; many
/// frames in both directions at once; independence of the two halves; backpressure
/// of the sink; what the other side sees of a close, a drop or a frame that is too
/// large; that dropped futures lose nothing; and the results of listening and
/// connecting.
///
/// # Panics
/// If the contract is broken. The message has the name of the check and what it
/// found. Must be called in a tokio runtime with time enabled.
pub async fn conformance<T: Transport>(make: impl Fn() -> T, addr: &str) {
    let addr: Addr = match addr.parse() {
        Ok(addr) => addr,
        Err(error) => panic!("transport conformance needs an address: {error}"),
    };
    macro_rules! run {
        ($($check:ident),* $(,)?) => {$(
            let outcome = timeout(CHECK_TIMEOUT, $check(&make(), &addr)).await;
            if let Err(broken) = outcome.unwrap_or_else(|_| Err("it hangs".into())) {
                panic!("transport conformance: {}: {broken}", stringify!($check));
            }
        )*};
    }
    run! {
        frames_arrive_whole_and_in_order,
        many_frames_go_both_ways_at_once,
        halves_are_independent,
        full_sink_leaves_the_stream_alone,
        sink_pushes_back,
        close_is_a_clean_end,
        drop_is_seen,
        limits_are_kept,
        sender_refuses_frames_over_the_maximum,
        dropped_accept_loses_nothing,
        dropped_connect_leaves_nothing,
        dropped_next_loses_nothing,
        several_connections_stay_apart,
        bad_address_is_refused,
        dropped_listener_frees_its_address,
    }
}

async fn frames_arrive_whole_and_in_order<T: Transport>(transport: &T, addr: &Addr) -> Outcome {
    let (_listener, mut here, mut there) = connected(transport, addr).await?;
    let heads = [0, 1, 6, 13, 512, 513, 4096, usize::from(MAX_FRAMES.head)];
    let bodies = [0, 1, 64, 4095, 4096, 16384, MAX_FRAMES.body as usize];
    let frames: Vec<Frame> = heads
        .iter()
        .flat_map(|head| bodies.map(|body| (*head, body)))
        .enumerate()
        .map(|(i, (head, body))| patterned(i, head, body))
        .collect();
    future::try_join(
        send_all(&mut here.sink, &frames),
        expect_all(&mut there.stream, &frames),
    )
    .await?;
    Ok(())
}

async fn many_frames_go_both_ways_at_once<T: Transport>(transport: &T, addr: &Addr) -> Outcome {
    let (_listener, mut here, mut there) = connected(transport, addr).await?;
    let forth: Vec<Frame> = (0..3000).map(|i| patterned(i, 4 + i % 20, 0)).collect();
    let back: Vec<Frame> = (0..300)
        .map(|i| patterned(i, 13, i * 997 % 65536))
        .collect();
    future::try_join4(
        send_all(&mut here.sink, &forth),
        send_all(&mut there.sink, &back),
        expect_all(&mut here.stream, &back),
        expect_all(&mut there.stream, &forth),
    )
    .await?;
    Ok(())
}

async fn halves_are_independent<T: Transport>(transport: &T, addr: &Addr) -> Outcome {
    let (_listener, mut here, there) = connected(transport, addr).await?;
    let (mut sink, mut stream) = (there.sink, there.stream);
    let frames: Vec<Frame> = (0..10).map(|i| patterned(i, 10, 100)).collect();
    // The stream waits in another task while the sink works.
    let expected = frames.clone();
    let reader = tokio::spawn(async move {
        expect_all(&mut stream, &expected).await?;
        expect_end(&mut stream).await
    });
    yield_now().await;
    future::try_join(
        send_all(&mut sink, &frames),
        expect_all(&mut here.stream, &frames),
    )
    .await?;
    send_all(&mut here.sink, &frames).await?;
    here.sink.close().await.map_err(said("closing"))?;
    reader.await.map_err(|error| error.to_string())??;
    // One direction is closed, the other still works.
    future::try_join(
        send_all(&mut sink, &frames),
        expect_all(&mut here.stream, &frames),
    )
    .await?;
    sink.close().await.map_err(said("closing"))?;
    expect_end(&mut here.stream).await
}

async fn full_sink_leaves_the_stream_alone<T: Transport>(transport: &T, addr: &Addr) -> Outcome {
    let (_listener, mut here, mut there) = connected(transport, addr).await?;
    fill(&mut here.sink).await?;
    let frames: Vec<Frame> = (0..10).map(|i| patterned(i, 10, 100)).collect();
    future::try_join(
        send_all(&mut there.sink, &frames),
        expect_all(&mut here.stream, &frames),
    )
    .await?;
    Ok(())
}

async fn sink_pushes_back<T: Transport>(transport: &T, addr: &Addr) -> Outcome {
    let (_listener, mut here, mut there) = connected(transport, addr).await?;
    let frames = fill(&mut here.sink).await?;
    // Once the other side reads, all accepted frames arrive, and the sink accepts
    // more.
    let more = [patterned(frames.len(), 3, 3)];
    future::try_join(send_all(&mut here.sink, &more), async {
        expect_all(&mut there.stream, &frames).await?;
        expect_all(&mut there.stream, &more).await
    })
    .await?;
    Ok(())
}

async fn close_is_a_clean_end<T: Transport>(transport: &T, addr: &Addr) -> Outcome {
    let (_listener, mut here, mut there) = connected(transport, addr).await?;
    let frames: Vec<Frame> = (0..20).map(|i| patterned(i, 10, i * 3000)).collect();
    // The frames are fed and not flushed, because closing must flush.
    let sending = async {
        for frame in &frames {
            here.sink
                .feed(frame.clone())
                .await
                .map_err(said("feeding"))?;
        }
        here.sink.close().await.map_err(said("closing"))
    };
    future::try_join(sending, expect_all(&mut there.stream, &frames)).await?;
    expect_end(&mut there.stream).await?;
    match here.sink.send(Frame::head("late")).await {
        Err(_) => Ok(()),
        Ok(()) => Err("a closed sink accepted another frame".into()),
    }
}

async fn drop_is_seen<T: Transport>(transport: &T, addr: &Addr) -> Outcome {
    let (_listener, mut here, mut there) = connected(transport, addr).await?;
    let frames = [patterned(0, 10, 10)];
    future::try_join(
        send_all(&mut here.sink, &frames),
        expect_all(&mut there.stream, &frames),
    )
    .await?;
    drop(here);
    match there.stream.next().await {
        None => {}
        Some(Err(_)) => expect_end(&mut there.stream).await?,
        Some(Ok(frame)) => return Err(format!("{} that nobody sent", shown(&frame))),
    }
    let body = Bytes::from(vec![0; 64 << 10]);
    for _ in 0..MAX_UNREAD / body.len() {
        let head = Bytes::new();
        let body = body.clone();
        if there.sink.send(Frame { head, body }).await.is_err() {
            return Ok(());
        }
        yield_now().await;
    }
    Err(format!(
        "the sink accepted {MAX_UNREAD} bytes after the reader was gone"
    ))
}

async fn limits_are_kept<T: Transport>(transport: &T, addr: &Addr) -> Outcome {
    let limits = FrameLimits {
        head: 100,
        body: 1000,
    };
    let fitting = [patterned(0, 100, 1000)];
    for (head, body, len, max) in [(101, 0, 101, 100), (100, 1001, 1001, 1000)] {
        let (listener, mut here, mut there) = connected(transport, addr).await?;
        there.limits.set(limits);
        future::try_join(
            send_all(&mut here.sink, &fitting),
            expect_all(&mut there.stream, &fitting),
        )
        .await?;
        // The sender may or may not see an error.
        let _ = here.sink.send(patterned(1, head, body)).await;
        let expected = TransportError::FrameTooLarge { len, max };
        match there.stream.next().await {
            Some(Err(error)) if error == expected => {}
            Some(Ok(frame)) => {
                return Err(format!("{} passed the limits {limits:?}", shown(&frame)));
            }
            other => return Err(format!("{other:?} instead of {expected:?}")),
        }
        expect_end(&mut there.stream).await?;
        drop(listener);
    }
    Ok(())
}

async fn sender_refuses_frames_over_the_maximum<T: Transport>(
    transport: &T,
    addr: &Addr,
) -> Outcome {
    let (_listener, mut here, mut there) = connected(transport, addr).await?;
    let (head, body) = (usize::from(MAX_FRAMES.head), MAX_FRAMES.body as usize);
    for (frame, len, max) in [
        (patterned(0, head + 1, 0), head + 1, head),
        (patterned(0, 0, body + 1), body + 1, body),
    ] {
        let expected = Err(TransportError::FrameTooLarge { len, max });
        let answer = here.sink.send(frame).await;
        if answer != expected {
            return Err(format!("{answer:?} instead of {expected:?}"));
        }
    }
    let frames = [patterned(1, 10, 10)];
    future::try_join(
        send_all(&mut here.sink, &frames),
        expect_all(&mut there.stream, &frames),
    )
    .await?;
    Ok(())
}

async fn dropped_accept_loses_nothing<T: Transport>(transport: &T, addr: &Addr) -> Outcome {
    let mut listener = listening(transport, addr).await?;
    let local = listener.local_addr().clone();
    let accepting = async {
        for _ in 0..PATIENCE {
            if let Poll::Ready(accepted) = poll!(listener.accept()) {
                return accepted.map_err(said("accepting"));
            }
            yield_now().await;
        }
        loop {
            // If the transport has latency, accepting takes longer.
            if let Ok(accepted) = timeout(Duration::from_millis(1), listener.accept()).await {
                return accepted.map_err(said("accepting"));
            }
        }
    };
    let connecting = async { transport.connect(&local).await.map_err(said("connecting")) };
    let (mut there, mut here) = future::try_join(accepting, connecting).await?;
    let frames = [patterned(0, 10, 10)];
    future::try_join(
        send_all(&mut here.sink, &frames),
        expect_all(&mut there.stream, &frames),
    )
    .await?;
    Ok(())
}

async fn dropped_connect_leaves_nothing<T: Transport>(transport: &T, addr: &Addr) -> Outcome {
    let mut listener = listening(transport, addr).await?;
    let local = listener.local_addr().clone();
    drop(poll!(transport.connect(&local)));
    let connecting = async {
        let mut here = transport
            .connect(&local)
            .await
            .map_err(said("connecting"))?;
        send_all(&mut here.sink, &[Frame::head("real")]).await?;
        Ok(here)
    };
    let accepting = async {
        loop {
            // The dropped connection may be accepted, but must carry no frame.
            let mut there = listener.accept().await.map_err(said("accepting"))?;
            match there.stream.next().await {
                Some(Ok(frame)) if frame == Frame::head("real") => return Ok(()),
                Some(Ok(frame)) => return Err(format!("{} that nobody sent", shown(&frame))),
                Some(Err(_)) | None => {}
            }
        }
    };
    future::try_join(connecting, accepting).await?;
    Ok(())
}

async fn dropped_next_loses_nothing<T: Transport>(transport: &T, addr: &Addr) -> Outcome {
    let (_listener, mut here, mut there) = connected(transport, addr).await?;
    let frames: Vec<Frame> = (0..50).map(|i| patterned(i, 10, i * 2000)).collect();
    let receiving = async {
        for frame in &frames {
            // Polled with a waker that wakes nobody, and then polled again.
            let mut gone = Context::from_waker(Waker::noop());
            let got = match there.stream.poll_next_unpin(&mut gone) {
                Poll::Ready(got) => got,
                Poll::Pending => there.stream.next().await,
            };
            same(got, frame)?;
        }
        Ok(())
    };
    future::try_join(send_all(&mut here.sink, &frames), receiving).await?;
    Ok(())
}

async fn several_connections_stay_apart<T: Transport>(transport: &T, addr: &Addr) -> Outcome {
    let mut listener = listening(transport, addr).await?;
    let local = listener.local_addr().clone();
    let mut ends = Vec::new();
    for _ in 0..3 {
        ends.push(join(transport, &local, &mut *listener).await?);
    }
    for (i, (here, _)) in ends.iter_mut().enumerate() {
        send_all(&mut here.sink, &[patterned(i, 10, 10)]).await?;
    }
    for (i, (_, there)) in ends.iter_mut().enumerate() {
        expect_all(&mut there.stream, &[patterned(i, 10, 10)]).await?;
    }
    Ok(())
}

async fn bad_address_is_refused<T: Transport>(transport: &T, _: &Addr) -> Outcome {
    let bad: Addr = BAD_ADDR.parse().map_err(|error| format!("{error}"))?;
    let expected = |answer: Option<TransportError>, what: &str| match answer {
        Some(TransportError::Address { addr, .. }) if addr == bad => Ok(()),
        other => Err(format!(
            "{what} {bad}: {other:?} instead of an address error"
        )),
    };
    expected(transport.connect(&bad).await.err(), "connecting to")?;
    expected(transport.listen(&bad).await.err(), "listening at")
}

async fn dropped_listener_frees_its_address<T: Transport>(transport: &T, addr: &Addr) -> Outcome {
    let (listener, mut here, mut there) = connected(transport, addr).await?;
    let local = listener.local_addr().clone();
    drop(listener);
    if transport.connect(&local).await.is_ok() {
        return Err(format!(
            "connecting to {local} succeeds, but nobody listens there"
        ));
    }
    // Connections outlive the listener that accepted them.
    let frames = [patterned(0, 10, 10)];
    future::try_join(
        send_all(&mut here.sink, &frames),
        expect_all(&mut there.stream, &frames),
    )
    .await?;
    drop((here, there));
    let mut again = listening(transport, &local).await?;
    if *again.local_addr() != local {
        return Err(format!(
            "the listener at {local} has the address {}",
            again.local_addr()
        ));
    }
    join(transport, &local, &mut *again).await?;
    Ok(())
}

async fn listening<T: Transport>(transport: &T, addr: &Addr) -> Result<Box<dyn Listener>, String> {
    transport.listen(addr).await.map_err(said("listening"))
}

/// A listener, and the two ends of a connection through it, the dialling end
/// first.
async fn connected<T: Transport>(
    transport: &T,
    addr: &Addr,
) -> Result<(Box<dyn Listener>, Connection, Connection), String> {
    let mut listener = listening(transport, addr).await?;
    let local = listener.local_addr().clone();
    let (here, there) = join(transport, &local, &mut *listener).await?;
    Ok((listener, here, there))
}

async fn join<T: Transport>(
    transport: &T,
    local: &Addr,
    listener: &mut dyn Listener,
) -> Result<(Connection, Connection), String> {
    let connecting = async { transport.connect(local).await.map_err(said("connecting")) };
    let accepting = async { listener.accept().await.map_err(said("accepting")) };
    future::try_join(connecting, accepting).await
}

/// A unique frame: its bytes depend on `i` and on their position. It is none of a channel,
/// so that it must keep its place among all others.
fn patterned(i: usize, head: usize, body: usize) -> Frame {
    let bytes = |salt: usize, len: usize| -> Bytes {
        let at = |k: usize| (i * 31 + k * 7 + (k >> 8) * 13 + salt) as u8;
        (0..len).map(at).collect()
    };
    let mut head = bytes(1, head).to_vec();
    if let Some(kind) = head.first_mut() {
        *kind |= NO_MESSAGE;
    }
    Frame {
        head: head.into(),
        body: bytes(2, body),
    }
}

async fn send_all(sink: &mut FrameSink, frames: &[Frame]) -> Outcome {
    for frame in frames {
        sink.feed(frame.clone()).await.map_err(said("sending"))?;
    }
    sink.flush().await.map_err(said("flushing"))
}

async fn expect_all(stream: &mut FrameStream, frames: &[Frame]) -> Outcome {
    for (i, frame) in frames.iter().enumerate() {
        same(stream.next().await, frame).map_err(|broken| format!("frame {i}: {broken}"))?;
    }
    Ok(())
}

async fn expect_end(stream: &mut FrameStream) -> Outcome {
    match stream.next().await {
        None => Ok(()),
        Some(Ok(frame)) => Err(format!("{} instead of the end", shown(&frame))),
        Some(Err(error)) => Err(format!("{error:?} instead of the end")),
    }
}

fn same(got: Option<Result<Frame, TransportError>>, expected: &Frame) -> Outcome {
    match got {
        Some(Ok(frame)) if frame == *expected => Ok(()),
        Some(Ok(frame)) => Err(format!("{} instead of {}", shown(&frame), shown(expected))),
        other => Err(format!("{other:?} instead of {}", shown(expected))),
    }
}

/// Feeds a sink whose other side does not read, until it accepts no more. Returns
/// the frames that it accepted.
async fn fill(sink: &mut FrameSink) -> Result<Vec<Frame>, String> {
    let frame = patterned(0, 13, MAX_FRAMES.body as usize);
    let mut taken: Vec<Frame> = Vec::new();
    let mut refused = 0;
    while refused < PATIENCE {
        if taken.len() * frame.len() >= MAX_UNREAD {
            return Err(format!(
                "the sink accepted {MAX_UNREAD} bytes that nobody read"
            ));
        }
        match poll!(pin!(future::poll_fn(|cx| sink.poll_ready_unpin(cx)))) {
            Poll::Ready(ready) => {
                ready.map_err(said("filling"))?;
                let head = Bytes::from(taken.len().to_string());
                let frame = Frame {
                    head,
                    body: frame.body.clone(),
                };
                sink.start_send_unpin(frame.clone())
                    .map_err(said("filling"))?;
                taken.push(frame);
                refused = 0;
            }
            Poll::Pending => {
                refused += 1;
                yield_now().await;
            }
        }
        if let Poll::Ready(Err(error)) = poll!(sink.flush()) {
            return Err(said("filling")(error));
        }
    }
    Ok(taken)
}

/// A short description of a frame, for messages.
fn shown(frame: &Frame) -> String {
    let start = |bytes: &Bytes| bytes[..bytes.len().min(8)].to_vec();
    format!(
        "a frame of {} + {} bytes ({:?}.. {:?}..)",
        frame.head.len(),
        frame.body.len(),
        start(&frame.head),
        start(&frame.body),
    )
}

fn said(doing: &'static str) -> impl Fn(TransportError) -> String {
    move |error| format!("{doing}: {error:?}")
}
