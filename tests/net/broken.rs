//! The conformance suite finds faults: each transport here has one fault, and the
//! suite must panic in the check for it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bt_lite::protocol::Frame;
use bt_lite::testing::transport::conformance;
use bt_lite::transport::{Connection, FrameSink, FrameStream, LimitHandle, Listener};
use bt_lite::{Addr, MemoryNetwork, MemoryTransport, Transport, TransportError};
use futures::{Sink, SinkExt, StreamExt, future, stream};

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    DropsAFrame,
    Reorders,
    FlipsABit,
    IgnoresLimits,
    SwallowsTheEnd,
    NeverPushesBack,
    ErrorsAtTheEnd,
    LosesAccepted,
    TakesAnyAddress,
    KeepsListening,
    RefusesQuietly,
}

/// A correct transport with one fault added.
struct Broken(MemoryTransport, Fault);

impl Broken {
    fn spoil(&self, connection: Connection) -> Connection {
        let Connection {
            remote,
            sink,
            stream,
            limits,
            ..
        } = connection;
        let stream: FrameStream = match self.1 {
            Fault::DropsAFrame => {
                let mut seen = 0;
                Box::new(stream.filter(move |_| {
                    seen += 1;
                    future::ready(seen != 3)
                }))
            }
            Fault::Reorders => Box::new(
                stream
                    .ready_chunks(2)
                    .flat_map(|pair| stream::iter(pair.into_iter().rev())),
            ),
            Fault::FlipsABit => Box::new(stream.map(|frame| {
                frame.map(|frame| {
                    let mut body = frame.body.to_vec();
                    if let Some(last) = body.last_mut() {
                        *last ^= 1;
                    }
                    let body = body.into();
                    Frame { body, ..frame }
                })
            })),
            Fault::IgnoresLimits => {
                // The holder sets limits that the stream does not see.
                return Connection::new(remote, sink, stream, LimitHandle::default());
            }
            Fault::SwallowsTheEnd => Box::new(stream.chain(stream::pending())),
            Fault::ErrorsAtTheEnd => {
                Box::new(stream.chain(stream::once(future::ready(Err(TransportError::Truncated)))))
            }
            _ => stream,
        };
        let sink = Hoarding {
            sink,
            hoards: self.1 == Fault::NeverPushesBack,
            quiet: self.1 == Fault::RefusesQuietly,
            hoard: VecDeque::new(),
        };
        Connection::new(remote, sink, stream, limits)
    }
}

/// If `hoards`, accepts every frame at once and sends it when flushed. If `quiet`,
/// ignores that a frame is too large.
struct Hoarding {
    sink: FrameSink,
    hoards: bool,
    quiet: bool,
    hoard: VecDeque<Frame>,
}

impl Hoarding {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        while !self.hoard.is_empty() {
            ready!(self.sink.poll_ready_unpin(cx))?;
            if let Some(frame) = self.hoard.pop_front() {
                self.sink.start_send_unpin(frame)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Sink<Frame> for Hoarding {
    type Error = TransportError;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        match self.hoards {
            true => Poll::Ready(Ok(())),
            false => self.sink.poll_ready_unpin(cx),
        }
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> Result<(), TransportError> {
        if self.hoards {
            self.hoard.push_back(frame);
            return Ok(());
        }
        match self.sink.start_send_unpin(frame) {
            Err(TransportError::FrameTooLarge { .. }) if self.quiet => Ok(()),
            sent => sent,
        }
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        ready!(self.poll_drain(cx))?;
        self.sink.poll_flush_unpin(cx)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        ready!(self.poll_drain(cx))?;
        self.sink.poll_close_unpin(cx)
    }
}

struct BrokenListener(Option<Box<dyn Listener>>, Broken);

impl BrokenListener {
    fn inner(&self) -> &dyn Listener {
        self.0.as_deref().expect("gone only when dropped")
    }
}

#[async_trait]
impl Transport for Broken {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        match self.0.connect(addr).await {
            Err(TransportError::Address { .. }) if self.1 == Fault::TakesAnyAddress => {
                Err(TransportError::Closed)
            }
            connected => connected.map(|connection| self.spoil(connection)),
        }
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        let listener = self.0.listen(addr).await?;
        let broken = Broken(self.0.clone(), self.1);
        Ok(Box::new(BrokenListener(Some(listener), broken)))
    }
}

#[async_trait]
impl Listener for BrokenListener {
    async fn accept(&mut self) -> Result<Connection, TransportError> {
        let connection = self.0.as_mut().unwrap().accept().await?;
        if self.1.1 == Fault::LosesAccepted {
            // A second await, which can lose the connection if it is dropped.
            tokio::task::yield_now().await;
        }
        Ok(self.1.spoil(connection))
    }

    fn local_addr(&self) -> &Addr {
        self.inner().local_addr()
    }
}

impl Drop for BrokenListener {
    fn drop(&mut self) {
        if self.1.1 == Fault::KeepsListening {
            std::mem::forget(self.0.take());
        }
    }
}

async fn run(fault: Fault) {
    let make = || Broken(MemoryNetwork::new(1).endpoint("a"), fault);
    conformance(make, "memory:a:0").await;
}

#[tokio::test(start_paused = true)]
async fn transport_without_a_fault_passes_in_the_same_wrapper() {
    run(Fault::None).await;
}

macro_rules! caught {
    ($($name:ident: $fault:ident in $check:literal),* $(,)?) => {$(
        #[tokio::test(start_paused = true)]
        #[should_panic(expected = $check)]
        async fn $name() {
            run(Fault::$fault).await;
        }
    )*};
}

caught! {
    dropped_frame_is_caught: DropsAFrame in "frames_arrive_whole_and_in_order",
    reordered_frames_are_caught: Reorders in "frames_arrive_whole_and_in_order",
    flipped_bit_is_caught: FlipsABit in "frames_arrive_whole_and_in_order",
    ignored_limits_are_caught: IgnoresLimits in "limits_are_kept",
    swallowed_end_is_caught: SwallowsTheEnd in "halves_are_independent: it hangs",
    error_at_the_end_is_caught: ErrorsAtTheEnd in "halves_are_independent",
    endless_sink_is_caught: NeverPushesBack in "full_sink_leaves_the_stream_alone: the sink accepted",
    lost_connection_is_caught: LosesAccepted in "dropped_accept_loses_nothing",
    unread_address_is_caught: TakesAnyAddress in "bad_address_is_refused",
    address_that_stays_taken_is_caught: KeepsListening in "dropped_listener_frees_its_address",
    unrefused_frame_is_caught: RefusesQuietly in "sender_refuses_frames_over_the_maximum",
}
