//! The bytes of a session after its handshake.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::{AlertDescription, Error, InvalidMessage};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::incoming::{Incoming, Said};
use super::keys::KeySchedule;
use super::outgoing::Outgoing;

/// A session over a byte stream. The end of that is an error, unless the other side has said
/// before that it says no more.
pub(super) struct TlsStream<S> {
    io: S,
    incoming: Incoming,
    outgoing: Outgoing,
    schedule: KeySchedule,
    /// The other side has said that it says no more.
    is_ended: bool,
    /// This side has said so, or why it does not go on.
    is_closed: bool,
    /// What was received is no session any more.
    failed: Option<Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    pub(super) fn new(
        io: S,
        (incoming, outgoing): (Incoming, Outgoing),
        schedule: KeySchedule,
    ) -> Self {
        Self {
            io,
            incoming,
            outgoing,
            schedule,
            is_ended: false,
            is_closed: false,
            failed: None,
        }
    }

    /// Does what the next record says. Returns whether there was one.
    fn next_record(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.is_ended {
            return Ok(false);
        }
        if let Some(error) = &self.failed {
            return Err(failed(error.clone()));
        }
        let said = self.incoming.open().and_then(|said| {
            if let Some(Said::NextKey { asks }) = said {
                self.incoming.set_key(self.schedule.next_opening()?);
                if asks {
                    self.outgoing.ask_for_next_key();
                }
            }
            Ok(said)
        });
        match said {
            Ok(said) => {
                self.is_ended = said == Some(Said::End);
                Ok(said.is_some())
            }
            Err(error) => {
                self.tell(cx, &error);
                self.failed = Some(error.clone());
                Err(failed(error))
            }
        }
    }

    /// Tells the other side why the session ends, if it takes that at once.
    fn tell(&mut self, cx: &mut Context<'_>, error: &Error) {
        if let Some(alert) = alert_of(error)
            && !self.is_closed
        {
            self.is_closed = true;
            let sealed = self.outgoing.alert(alert);
            if sealed.is_ok() {
                // What has failed is told in any case.
                let _ = self.outgoing.poll_drain(cx, &mut self.io);
            }
        }
    }
}

/// What a side says when this has happened to it (RFC 8446, 6.2).
fn alert_of(error: &Error) -> Option<AlertDescription> {
    Some(match error {
        Error::AlertReceived(_) => return None,
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => {
            AlertDescription::IllegalParameter
        }
        Error::InvalidMessage(_) => AlertDescription::DecodeError,
        Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => AlertDescription::UnexpectedMessage,
        _ => AlertDescription::InternalError,
    })
}

fn failed(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            this.incoming.take(buf);
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let has_some = buf.filled().len() > before;
            match this.next_record(cx) {
                Ok(true) => continue,
                Err(error) if !has_some => return Poll::Ready(Err(error)),
                // An error is told the next time.
                _ if has_some || this.is_ended => return Poll::Ready(Ok(())),
                _ => {}
            }
            if ready!(this.incoming.poll_fill(cx, &mut this.io))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.outgoing.poll_drain(cx, &mut this.io))?;
        let sealed = this.outgoing.seal(bufs, &mut this.schedule);
        let sealed = sealed.map_err(failed)?;
        match this.outgoing.poll_drain(cx, &mut this.io) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // The rest goes out with the next call.
            _ => Poll::Ready(Ok(sealed)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.outgoing.poll_drain(cx, &mut this.io))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_closed {
            this.is_closed = true;
            let sealed = this.outgoing.alert(AlertDescription::CloseNotify);
            sealed.map_err(failed)?;
        }
        ready!(this.outgoing.poll_drain(cx, &mut this.io))?;
        match ready!(Pin::new(&mut this.io).poll_shutdown(cx)) {
            // The other side was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            shut => Poll::Ready(shut),
        }
    }
}

#[cfg(test)]
mod tests;
