//! Frames to the other side: each on the stream of its channel, or on the control stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, Sink};
use quinn::{Connection, SendStream};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::halves::WriteHalf;
use super::lane::Lane;
use super::order::Order;
use crate::content::ContentId;
use crate::protocol::{ChannelId, Frame, FramePlace};
use crate::transport::connection::check_sendable;
use crate::transport::error::TransportError;
use crate::transport::framed::{FrameWriter, MAX_QUEUED};

/// How long a side that has ended waits for the other to have everything, once for the
/// streams of channels and once for the control stream. What TCP leaves to the operating
/// system must be done here.
const LINGER: Duration = Duration::from_secs(3);

/// The sink of one connection.
pub(super) struct QuicSink {
    connection: Connection,
    order: Arc<Order>,
    /// Nothing once this side has ended.
    control: Option<FrameWriter<WriteHalf>>,
    /// Frames of the control stream behind an `Open` that must wait.
    held: VecDeque<(Option<ContentId>, Frame)>,
    lanes: BTreeMap<ChannelId, LaneWriter>,
    /// Which of them may have something to write.
    dirty: BTreeSet<ChannelId>,
    /// Streams of channels that have ended, and that the other side may not have whole.
    farewells: Vec<Farewell>,
    /// Bytes that were taken since all was written.
    queued: usize,
    closing: Option<BoxFuture<'static, ()>>,
    failed: Option<TransportError>,
}

struct LaneWriter {
    frames: FrameWriter<Lane>,
    ends: Option<End>,
}

/// Why nothing follows on a stream.
enum End {
    /// This side has refused the channel, which was about this.
    Refused(Option<ContentId>),
    /// The other side has.
    Left,
}

struct Farewell {
    content: ContentId,
    received: BoxFuture<'static, ()>,
}

impl QuicSink {
    pub(super) fn new(connection: Connection, send: WriteHalf, order: Arc<Order>) -> Self {
        Self {
            connection,
            order,
            control: Some(FrameWriter::new(send)),
            held: VecDeque::new(),
            lanes: BTreeMap::new(),
            dirty: BTreeSet::new(),
            farewells: Vec::new(),
            queued: 0,
            closing: None,
            failed: None,
        }
    }

    fn check_open(&self) -> Result<(), TransportError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.control.is_none() => Err(TransportError::Closed),
            None => Ok(()),
        }
    }

    /// Puts a frame on the control stream, if nothing there waits.
    fn push_control(
        &mut self,
        opens: Option<ContentId>,
        frame: Frame,
    ) -> Result<(), TransportError> {
        let waits = opens.is_some_and(|content| self.is_parting(content));
        match &mut self.control {
            Some(control) if self.held.is_empty() && !waits => Pin::new(control).start_send(frame),
            _ => {
                self.held.push_back((opens, frame));
                Ok(())
            }
        }
    }

    /// Whether the other side may not know of the end of a channel about this.
    fn is_parting(&self, content: ContentId) -> bool {
        let refused = |lane: &LaneWriter| matches!(lane.ends, Some(End::Refused(Some(about))) if about == content);
        self.farewells
            .iter()
            .any(|farewell| farewell.content == content)
            || self.lanes.values().any(refused)
    }

    fn push_lane(
        &mut self,
        channel: ChannelId,
        end: Option<End>,
        frame: Frame,
    ) -> Result<(), TransportError> {
        let connection = &self.connection;
        let lane = self.lanes.entry(channel).or_insert_with(|| LaneWriter {
            frames: FrameWriter::new(Lane::new(connection, channel)),
            ends: None,
        });
        if end.is_some() {
            lane.ends = end;
        }
        self.dirty.insert(channel);
        Pin::new(&mut lane.frames).start_send(frame)
    }

    fn push(&mut self, frame: Frame) -> Result<(), TransportError> {
        match FramePlace::of(&frame) {
            FramePlace::Session => self.push_control(None, frame),
            FramePlace::Opens(channel, content) => {
                self.order.opened(channel, content);
                self.push_control(Some(content), frame)
            }
            FramePlace::Within(channel) => {
                // What is late for a channel is not worth a stream that stays.
                let late = (!self.order.is_open(channel)).then_some(End::Left);
                self.push_lane(channel, late, frame)
            }
            FramePlace::Ends(channel) => {
                let content = self.order.ended(channel);
                match self.lanes.contains_key(&channel) {
                    true => self.push_lane(channel, Some(End::Refused(content)), frame),
                    false => self.push_control(None, frame),
                }
            }
        }
    }

    /// Ends the streams of channels that the other side has ended.
    fn leave(&mut self) {
        for channel in self.order.left() {
            if let Some(lane) = self.lanes.get_mut(&channel) {
                lane.ends.get_or_insert(End::Left);
                self.dirty.insert(channel);
            }
        }
    }

    /// Writes what waits for channels. Pending if something is left.
    fn poll_lanes(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let mut left = BTreeSet::new();
        for channel in std::mem::take(&mut self.dirty) {
            let Some(lane) = self.lanes.get_mut(&channel) else {
                continue;
            };
            match Pin::new(&mut lane.frames).poll_flush(cx) {
                Poll::Ready(written) => written?,
                Poll::Pending => {
                    left.insert(channel);
                    continue;
                }
            }
            if lane.ends.is_some()
                && let Some(lane) = self.lanes.remove(&channel)
            {
                self.finish(lane);
            }
        }
        self.dirty = left;
        match self.dirty.is_empty() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    /// Ends a stream on which all is written.
    fn finish(&mut self, lane: LaneWriter) {
        let Lane::Open(WriteHalf(mut send)) = lane.frames.into_io() else {
            return;
        };
        // It fails only if the other side has stopped it.
        let _ = send.finish();
        if let Some(End::Refused(Some(content))) = lane.ends {
            let received = send.stopped().map(drop).boxed();
            self.farewells.push(Farewell { content, received });
        }
    }

    /// Sends what was held back, as far as it may go. Pending if something is left.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.farewells
            .retain_mut(|farewell| farewell.received.as_mut().poll(cx).is_pending());
        while let Some((opens, frame)) = self.held.pop_front() {
            if opens.is_some_and(|content| self.is_parting(content)) {
                self.held.push_front((opens, frame));
                return Poll::Pending;
            }
            if let Some(control) = &mut self.control {
                Pin::new(control).start_send(frame)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.leave();
        let lanes = self.poll_lanes(cx)?;
        let held = self.poll_held(cx)?;
        if let Some(control) = &mut self.control {
            ready!(Pin::new(control).poll_flush(cx))?;
        }
        ready!(lanes);
        ready!(held);
        self.queued = 0;
        Poll::Ready(Ok(()))
    }

    /// Begins to end this side: first the streams of channels, and when the other side has
    /// all of them, the control stream. What is not written is dropped.
    fn depart(&mut self) -> Option<BoxFuture<'static, ()>> {
        let WriteHalf(mut control) = self.control.take()?.into_io();
        let lanes = std::mem::take(&mut self.lanes).into_values();
        let lanes: Vec<SendStream> = lanes
            .filter_map(|lane| match lane.frames.into_io() {
                Lane::Open(WriteHalf(mut send)) => {
                    let _ = send.finish();
                    Some(send)
                }
                Lane::Opening(_) => None,
            })
            .collect();
        let parting = std::mem::take(&mut self.farewells);
        let parting = parting.into_iter().map(|farewell| farewell.received);
        let received = lanes.iter().map(|send| send.stopped().map(drop).boxed());
        let received: Vec<_> = received.chain(parting).collect();
        // It lives as long as this.
        let connection = self.connection.clone();
        Some(Box::pin(async move {
            let _ = timeout(LINGER, join_all(received)).await;
            let _ = control.finish();
            let _ = timeout(LINGER, control.stopped()).await;
            drop((lanes, connection));
        }))
    }
}

impl Sink<Frame> for QuicSink {
    type Error = TransportError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.check_open()?;
        match self.queued >= MAX_QUEUED {
            true => self.poll_flush(cx),
            false => Poll::Ready(Ok(())),
        }
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> Result<(), TransportError> {
        self.check_open()?;
        check_sendable(&frame)?;
        self.queued += frame.len();
        self.push(frame)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        if let Some(error) = &self.failed {
            return Poll::Ready(Err(error.clone()));
        }
        let flushed = ready!(self.poll_all(cx));
        if let Err(error) = &flushed {
            self.failed = Some(error.clone());
        }
        Poll::Ready(flushed)
    }

    /// Waits until the other side has everything.
    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        if self.control.is_some() {
            ready!(self.as_mut().poll_flush(cx))?;
            self.closing = self.depart();
        }
        if let Some(closing) = &mut self.closing {
            ready!(closing.as_mut().poll(cx));
            self.closing = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for QuicSink {
    /// What was written still arrives, as over TCP.
    fn drop(&mut self) {
        let departing = self.depart().or_else(|| self.closing.take());
        if self.connection.close_reason().is_none()
            && let (Some(departing), Ok(runtime)) = (departing, Handle::try_current())
        {
            runtime.spawn(departing);
        }
    }
}
