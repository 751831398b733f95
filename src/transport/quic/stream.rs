//! Frames from the other side, of all streams.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, SelectAll};
use futures::{FutureExt, Stream, StreamExt};
use quinn::{Connection, ConnectionError, RecvStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use super::halves::ReadHalf;
use super::lane::channel_of;
use super::order::Order;
use super::settings::MAX_PARTIAL;
use crate::content::ContentId;
use crate::protocol::{ChannelId, Frame, FramePlace};
use crate::transport::auth::Ended;
use crate::transport::connection::LimitHandle;
use crate::transport::error::TransportError;
use crate::transport::framed::FrameReader;

type Frames = FrameReader<ReadHalf>;
type Item = Result<Frame, TransportError>;

/// The stream of one connection.
pub(super) struct QuicStream {
    connection: Connection,
    order: Arc<Order>,
    limits: LimitHandle,
    /// Tells when the other side is let in no more.
    member: Ended,
    /// Nothing once the other side has ended it.
    control: Option<Frames>,
    /// Nothing once the connection is lost.
    accepting: Option<BoxFuture<'static, Result<RecvStream, ConnectionError>>>,
    /// Streams of which it is not known yet whose they are.
    nameless: FuturesUnordered<BoxFuture<'static, std::io::Result<(ChannelId, RecvStream)>>>,
    /// Streams of channels that nobody has opened yet.
    early: Vec<(ChannelId, LaneFrames)>,
    lanes: SelectAll<LaneFrames>,
    /// Places for frames of channels of which a part is there.
    partial: PollSemaphore,
    /// An `Open` that the end of another channel may have to come before.
    doubtful: Option<(ChannelId, ContentId, Frame)>,
    /// Whose turn it is.
    control_is_next: bool,
    is_ended: bool,
}

/// The frames of one channel. It reads only while it has one of the places for that.
struct LaneFrames {
    frames: Frames,
    places: PollSemaphore,
    place: Option<OwnedSemaphorePermit>,
}

impl Stream for LaneFrames {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        if self.place.is_none() {
            self.place = ready!(self.places.poll_acquire(cx));
        }
        let item = self.frames.poll_next_unpin(cx);
        if item.is_ready() || !self.frames.is_inside_a_frame() {
            self.place = None;
        }
        item
    }
}

async fn accept(connection: Connection) -> Result<RecvStream, ConnectionError> {
    connection.accept_uni().await
}

impl QuicStream {
    pub(super) fn new(
        connection: Connection,
        recv: ReadHalf,
        order: Arc<Order>,
        limits: LimitHandle,
        member: Ended,
    ) -> Self {
        Self {
            accepting: Some(accept(connection.clone()).boxed()),
            connection,
            order,
            member,
            control: Some(FrameReader::new(recv, limits.clone())),
            limits,
            nameless: FuturesUnordered::new(),
            early: Vec::new(),
            lanes: SelectAll::new(),
            partial: PollSemaphore::new(Arc::new(Semaphore::new(MAX_PARTIAL))),
            doubtful: None,
            control_is_next: true,
            is_ended: false,
        }
    }

    /// Takes the streams that the other side has opened. As many are taken as it may open.
    fn take_streams(&mut self, cx: &mut Context<'_>) -> Result<(), TransportError> {
        while let Some(accepting) = &mut self.accepting
            && let Poll::Ready(accepted) = accepting.poll_unpin(cx)
        {
            // That the connection is lost is seen by who reads.
            self.accepting = accepted.ok().map(|recv| {
                self.nameless.push(channel_of(recv).boxed());
                accept(self.connection.clone()).boxed()
            });
        }
        while let Poll::Ready(Some(named)) = self.nameless.poll_next_unpin(cx) {
            let (channel, recv) = named?;
            let lane = LaneFrames {
                frames: FrameReader::new(ReadHalf(recv), self.limits.clone()),
                places: self.partial.clone(),
                place: None,
            };
            self.early.push((channel, lane));
        }
        let order = &self.order;
        for (_, frames) in self
            .early
            .extract_if(.., |(channel, _)| order.is_known(*channel))
        {
            self.lanes.push(frames);
        }
        Ok(())
    }

    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        let Some(control) = &mut self.control else {
            return Poll::Pending;
        };
        match control.poll_next_unpin(cx) {
            Poll::Ready(Some(item)) => {
                self.order.greeted();
                Poll::Ready(item)
            }
            Poll::Ready(None) => {
                self.control = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_lanes(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        match self.lanes.poll_next_unpin(cx) {
            Poll::Ready(Some(item)) => Poll::Ready(item),
            // Each is polled again when there is one.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// The next frame, of the control stream and of channels in turns.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        if let Some(error) = self.member.poll(cx) {
            return Poll::Ready(Some(Err(error.into())));
        }
        self.take_streams(cx)?;
        if let Some((channel, content, frame)) = self.doubtful.take() {
            // That end was received before this was sent, so it is there.
            if self.order.has_other(channel, content)
                && let Poll::Ready(item) = self.poll_lanes(cx)
            {
                self.doubtful = Some((channel, content, frame));
                self.note(&item);
                return Poll::Ready(Some(item));
            }
            let item = Ok(frame);
            self.note(&item);
            return Poll::Ready(Some(item));
        }
        let had_control = self.control.is_some();
        let first = self.control_is_next;
        for is_control in [first, !first] {
            let item = match is_control {
                true => self.poll_control(cx),
                false => self.poll_lanes(cx),
            };
            if let Poll::Ready(item) = item {
                self.control_is_next = !is_control;
                if let Some(opens) = self.doubts(&item) {
                    self.doubtful = Some(opens);
                    return self.poll_frame(cx);
                }
                self.note(&item);
                return Poll::Ready(Some(item));
            }
        }
        if had_control && self.control.is_none() {
            // This side has all other streams by now, some of them since a moment ago.
            return self.poll_frame(cx);
        }
        let is_over = self.control.is_none() && self.lanes.is_empty() && self.nameless.is_empty();
        match is_over {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    }

    /// What an `Open` opens, if there is another channel about that.
    fn doubts(&self, item: &Item) -> Option<(ChannelId, ContentId, Frame)> {
        let frame = item.as_ref().ok()?;
        let FramePlace::Opens(channel, content) = FramePlace::of(frame) else {
            return None;
        };
        let doubtful = self.order.has_other(channel, content);
        doubtful.then(|| (channel, content, frame.clone()))
    }

    fn note(&self, item: &Item) {
        let Ok(frame) = item else {
            return;
        };
        match FramePlace::of(frame) {
            FramePlace::Opens(channel, content) => self.order.heard_open(channel, content),
            FramePlace::Ends(channel) => self.order.heard_end(channel),
            FramePlace::Session | FramePlace::Within(_) => {}
        }
    }
}

impl Stream for QuicStream {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        let item = self.poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = &item {
            self.is_ended = true;
        }
        item
    }
}
