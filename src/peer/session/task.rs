//! The task of one session: frames in, frames out, nothing decided.
//!
//! A session on which something waits to be sent must make progress, or it ends:
//! the other side takes each frame within [`FRAME_TIMEOUT`], or as many short
//! ones as make [`GROUP_LEN`] (more where it has just been quick), whatever it sends meanwhile. This is the slowest
//! that a reader may be.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::channels::{Channels, Opening, Receiver, Route};
use super::guard::{MayOpen, Subject};
use super::handshake::{HandshakeError, check_peer, hear};
use super::openings::{Decided, Openings};
use crate::content::ContentId;
use crate::peer::contents::inbox::{DriverInput, NewLink};
use crate::peer::contents::table::Contents;
use crate::peer::session::admission::ConnectionPlace;
use crate::peer::swarm::{LinkCookies, LinkInfo};
use crate::protocol::limits::{FRAME_TIMEOUT, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE};
use crate::protocol::{Addr, ChannelId, Hello, LinkCookie, PeerMessage, RefuseReason};
use crate::transport::framed::{MAX_QUEUED, PREFIX_LEN};
use crate::transport::{
    Connection, FrameSink, FrameStream, LimitHandle, PeerIdentity, TransportError,
};

/// How long a session may take to send what is queued after this side has ended
/// it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a session without a channel is kept for the next content.
const IDLE_SESSION: Duration = Duration::from_secs(10);

/// How many bytes of messages go to the network together, before this side waits
/// until all are taken. Longer ones go one by one, so that each has its own
/// timeout.
const GROUP_LEN: usize = 64 << 10;

/// The same where the network takes them quickly: as many as a sink accepts at once. So a
/// call of the system carries several blocks, and the driver hears of them together.
const MAX_GROUP_LEN: usize = MAX_QUEUED;

/// A group that was taken within this time was taken quickly: a new message waits no longer
/// behind it.
const QUICKLY: Duration = Duration::from_millis(5);

/// One session, from the handshake to its end.
pub(super) struct SessionTask {
    pub(super) contents: Arc<Contents>,
    pub(super) channels: Arc<Channels>,
    /// What a link of this session that the other side opens says of it.
    pub(super) info: LinkInfo,
    pub(super) remote: Addr,
    /// The cookie that this side has sent, if the answer to its Hello is still to
    /// come.
    pub(super) awaits: Option<LinkCookie>,
    /// The peer stops.
    pub(super) stop: CancellationToken,
}

impl SessionTask {
    /// Carries messages until either side ends the session, or its place is given
    /// to another connection. Then reports the end to every driver.
    pub(super) async fn run(self, connection: Connection, place: ConnectionPlace) {
        let Connection {
            mut sink,
            mut stream,
            limits,
            identity,
            ..
        } = connection;
        let read = async {
            if let Some(said) = self.awaits {
                self.meet(said, (&mut stream, &limits, identity)).await?;
            }
            Err(self.read(&mut stream).await)
        };
        let denied = self.denied();
        let overdue = async {
            self.channels.ending().await;
            sleep(FAREWELL_TIMEOUT).await;
        };
        let ended = tokio::select! {
            biased;
            () = place.cut() => None,
            () = denied => Some("it is not allowed any more".into()),
            ended = self.write(&mut sink) => Some(ended),
            Err::<Infallible, _>(ended) = read => Some(ended),
            () = overdue => Some("the other side did not read the farewell".into()),
        };
        let drivers = self.channels.close();
        let ended = ended.unwrap_or_else(|| {
            let busy = PeerMessage::Refuse(RefuseReason::Busy);
            // Only if that takes no waiting: the place is taken already.
            let _ = sink.send(busy.encode(ChannelId::SESSION)).now_or_never();
            "another host needs the place".into()
        });
        drop((sink, place));
        tracing::debug!(%ended, "session ended");
        for Receiver { inbox, link } in drivers {
            // When the driver has ended, nobody needs to know.
            let _ = inbox.send(DriverInput::Down { link }).await;
        }
    }

    /// Ends the links that the other side may not have any more. Returns when it may not
    /// have the session either.
    async fn denied(&self) {
        let Some(guard) = &self.channels.guard else {
            return std::future::pending().await;
        };
        let mut watch = guard.watch();
        // A driver that takes its time holds up no other end.
        let mut telling = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                ended = watch.next(|| self.channels.contents()) => {
                    let Subject::Links(content) = ended else {
                        return;
                    };
                    for Receiver { inbox, link } in self.channels.deny(&content) {
                        // When the driver has ended, nobody needs to know.
                        telling.push(async move { inbox.send(DriverInput::Down { link }).await });
                    }
                }
                Some(_) = telling.next(), if !telling.is_empty() => {}
            }
        }
    }

    /// Reads the answer to the Hello of this side, and tells the links that were
    /// opened before who answered.
    async fn meet(
        &self,
        said: LinkCookie,
        (stream, limits, identity): (&mut FrameStream, &LimitHandle, Option<PeerIdentity>),
    ) -> Result<(), String> {
        let heard = timeout(HANDSHAKE_TIMEOUT, hear(stream, limits)).await;
        let heard = heard.unwrap_or(Err(HandshakeError::TimedOut));
        let checked = heard.and_then(|hello| check_peer(&hello, identity).map(|()| hello));
        match checked {
            Ok(Hello { peer, cookie, .. }) => {
                let heard = cookie;
                let cookies = LinkCookies { said, heard };
                for Receiver { inbox, link } in self.channels.met(peer, cookies) {
                    let met = DriverInput::Met {
                        link,
                        peer,
                        cookies,
                    };
                    let _ = inbox.send(met).await;
                }
                Ok(())
            }
            Err(error @ (HandshakeError::Refused(_) | HandshakeError::WrongPeer)) => {
                let reason = match error {
                    HandshakeError::Refused(reason) => reason,
                    // To the links it is as if the other side had refused them.
                    _ => RefuseReason::Identity,
                };
                for Receiver { inbox, link } in self.channels.receivers() {
                    let message = PeerMessage::Refuse(reason);
                    let refused = DriverInput::Message { link, message };
                    let _ = inbox.send(refused).await;
                }
                Err(error.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Reads until the session ends, and returns why it did.
    async fn read(&self, stream: &mut FrameStream) -> String {
        let mut openings = Openings::default();
        loop {
            if self.stop.is_cancelled() {
                for channel in openings.give_up() {
                    let reason = RefuseReason::ShuttingDown;
                    self.channels.refuse(channel, reason);
                }
            }
            let (is_asking, has_room) = (!openings.is_empty(), openings.has_room());
            let decided = async {
                match &self.channels.guard {
                    Some(guard) => openings.next(guard).await,
                    None => std::future::pending().await,
                }
            };
            let frame = tokio::select! {
                biased;
                decided = decided => {
                    if let Err(ended) = self.decided(decided).await {
                        return ended;
                    }
                    continue;
                }
                () = self.stop.cancelled(), if is_asking => continue,
                frame = timeout(IDLE_TIMEOUT, stream.next()), if has_room => frame,
            };
            let frame = match frame {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return error.to_string(),
                Ok(None) => return "closed by the other side".into(),
                Err(_) => return "silent for too long".into(),
            };
            let (channel, message) = match PeerMessage::decode(frame) {
                Ok(decoded) => decoded,
                Err(error) => return error.to_string(),
            };
            if self.channels.is_ending() {
                // The writer still has to send the farewells, and ends the session.
                continue;
            }
            if let Err(ended) = self.heard(channel, message, &mut openings).await {
                return ended;
            }
        }
    }

    async fn heard<'a>(
        &'a self,
        channel: ChannelId,
        message: PeerMessage,
        openings: &mut Openings<'a>,
    ) -> Result<(), String> {
        match (channel, message) {
            (ChannelId::SESSION, PeerMessage::KeepAlive) => Ok(()),
            (ChannelId::SESSION, PeerMessage::Refuse(reason)) => {
                Err(format!("refused by the other side: {reason}"))
            }
            (ChannelId::SESSION, _) => Err("a message without a channel".into()),
            (_, PeerMessage::Hello(_) | PeerMessage::KeepAlive) => {
                Err("a message of the session on a channel".into())
            }
            (_, PeerMessage::Open(content)) => match self.channels.opening(channel, content) {
                Opening::Free => match &self.channels.guard {
                    Some(guard) => {
                        openings.ask(guard, channel, content);
                        Ok(())
                    }
                    None => {
                        self.open(channel, content).await;
                        Ok(())
                    }
                },
                Opening::Refused => {
                    self.let_refusals_go().await;
                    Ok(())
                }
                Opening::Violation => Err("a channel that cannot be opened".into()),
            },
            (_, PeerMessage::Refuse(_)) if openings.has(channel) => {
                openings.drop_channel(channel);
                self.channels.left(channel);
                Ok(())
            }
            (_, message) if openings.has(channel) => {
                openings.keep(channel, message);
                Ok(())
            }
            (_, message) => self.deliver(channel, message).await,
        }
    }

    /// Reading goes on as long as there is something to read. Whoever reads the refusals of
    /// what it opens is to get them before there are too many.
    async fn let_refusals_go(&self) {
        if self.channels.has_many_refusals() {
            tokio::task::yield_now().await;
        }
    }

    async fn deliver(&self, channel: ChannelId, message: PeerMessage) -> Result<(), String> {
        let Receiver { inbox, link } = match self.channels.route(channel) {
            Route::Driver(receiver) => receiver,
            Route::Ended => return Ok(()),
            Route::Unknown => return Err("a message on a channel that is not open".into()),
        };
        if matches!(message, PeerMessage::Refuse(_)) {
            self.channels.left(channel);
        }
        // A driver that has ended has ended its links as well.
        let _ = inbox.send(DriverInput::Message { link, message }).await;
        Ok(())
    }

    /// It is decided whether the other side may open a channel.
    async fn decided(&self, decided: Decided) -> Result<(), String> {
        let Decided {
            channel, content, ..
        } = decided;
        let reason = match decided.may_open {
            MayOpen::Yes => {
                if !self.channels.allowed(channel, content) {
                    return Ok(());
                }
                self.open(channel, content).await;
                for message in decided.messages {
                    self.deliver(channel, message).await?;
                }
                return Ok(());
            }
            // Whoever may not fetch it is not told whether it is here.
            MayOpen::No => RefuseReason::UnknownContent,
            // It may come again soon.
            MayOpen::Unknown => RefuseReason::Busy,
        };
        self.channels.refuse(channel, reason);
        Ok(())
    }

    /// The other side opens a channel about a content.
    async fn open(&self, channel: ChannelId, content: ContentId) {
        let opened = self.contents.link(content, |inbox, id| {
            let receiver = Receiver { inbox, link: id };
            let outlet = self.channels.accept(channel, content, receiver);
            NewLink {
                id,
                info: self.channels.info(&self.info),
                remote: self.remote.clone(),
                outlet: Box::new(outlet),
            }
        });
        if !opened.await {
            let reason = RefuseReason::UnknownContent;
            self.channels.refuse(channel, reason);
            self.let_refusals_go().await;
        } else if let Some(guard) = &self.channels.guard {
            guard.opened();
        }
    }

    /// Sends what is queued until the session ends, and returns why it did.
    async fn write(&self, sink: &mut FrameSink) -> String {
        let mut group_len = GROUP_LEN;
        loop {
            let begun = Instant::now();
            let (sent, len) = match self.send_group(sink, group_len).await {
                Ok(sent) => sent,
                Err(error) => return error.to_string(),
            };
            group_len = match begun.elapsed() <= QUICKLY {
                true if len >= group_len => (2 * group_len).min(MAX_GROUP_LEN),
                true => group_len,
                false => GROUP_LEN,
            };
            if !sent.is_empty() {
                for (Receiver { inbox, link }, messages, bytes) in sent {
                    let sent = DriverInput::Sent {
                        link,
                        messages,
                        bytes,
                    };
                    // When the driver has ended, what it queued is still to be sent.
                    let _ = inbox.send(sent).await;
                }
                continue;
            }
            if self.channels.is_ending() {
                return match sink.close().await {
                    Ok(()) => "closed by this side".into(),
                    Err(error) => error.to_string(),
                };
            }
            let idle = self.channels.is_idle();
            let stopping = self.stop.is_cancelled();
            if idle && stopping {
                // Every driver has said its farewell.
                self.channels.end();
                continue;
            }
            let wait = if idle { IDLE_SESSION } else { KEEP_ALIVE };
            tokio::select! {
                biased;
                () = self.channels.work() => {}
                () = self.stop.cancelled(), if !stopping => {}
                () = sleep(wait) => {
                    if idle && self.channels.end_if_idle() {
                        self.channels.end();
                    } else if let Err(error) = self.keep_alive(sink).await {
                        return error.to_string();
                    }
                }
            }
        }
    }

    async fn keep_alive(&self, sink: &mut FrameSink) -> Result<(), SendError> {
        let frame = PeerMessage::KeepAlive.encode(ChannelId::SESSION);
        timeout(FRAME_TIMEOUT, sink.send(frame)).await??;
        Ok(())
    }

    /// Sends what waits, up to a length. Returns who is told of how many messages, and of
    /// how many bytes of blocks, and how long all messages were.
    async fn send_group(
        &self,
        sink: &mut FrameSink,
        most: usize,
    ) -> Result<(Vec<(Receiver, usize, u64)>, usize), SendError> {
        let (mut sent, mut group) = (Vec::new(), 0);
        while group < most
            && let Some(batch) = self.channels.next_batch()
        {
            let (messages, mut bytes) = (batch.messages.len(), 0);
            for message in batch.messages {
                if let PeerMessage::Block { data, .. } = &message {
                    bytes += data.len() as u64;
                }
                let frame = message.encode(batch.channel);
                group += PREFIX_LEN + frame.len();
                timeout(FRAME_TIMEOUT, sink.feed(frame)).await??;
            }
            sent.extend(batch.receiver.map(|receiver| (receiver, messages, bytes)));
        }
        if group > 0 {
            timeout(FRAME_TIMEOUT, sink.flush()).await??;
        }
        Ok((sent, group))
    }
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the other side does not read")]
    Slow(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    Transport(#[from] TransportError),
}
