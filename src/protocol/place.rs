//! How a frame stands to others, for transports that need not keep all of them in order.

use super::peer::{OPEN, REFUSE};
use super::{ChannelId, Frame};
use crate::content::ContentId;

/// Messages between peers have types below this one, those to and from trackers have others.
const PEER_TYPES: u8 = 0x40;

/// What a frame is to the order of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FramePlace {
    /// It is of no channel: in order with all others of this kind.
    Session,
    /// It opens a channel.
    Opens(ChannelId, ContentId),
    /// It is one of a channel that is open.
    Within(ChannelId),
    /// It is the last one of a channel from its sender.
    Ends(ChannelId),
}

impl FramePlace {
    /// The place of a frame. What is no message is of no channel.
    pub(crate) fn of(frame: &Frame) -> Self {
        let Some((&[kind, a, b, c, d], fields)) = frame.head.split_first_chunk() else {
            return Self::Session;
        };
        let channel = ChannelId(u32::from_be_bytes([a, b, c, d]));
        if kind >= PEER_TYPES || channel == ChannelId::SESSION {
            return Self::Session;
        }
        match kind {
            OPEN => match fields.try_into() {
                Ok(content) => Self::Opens(channel, ContentId::from_bytes(content)),
                Err(_) => Self::Session,
            },
            REFUSE => Self::Ends(channel),
            _ => Self::Within(channel),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{PeerMessage, RefuseReason};

    #[test]
    fn messages_have_the_place_of_their_kind() {
        let (channel, content) = (ChannelId(0x0102_0304), ContentId::of(b"x"));
        let place = |message: PeerMessage, channel| FramePlace::of(&message.encode(channel));
        let refuse = || PeerMessage::Refuse(RefuseReason::Busy);
        let session = ChannelId::SESSION;
        assert_eq!(place(PeerMessage::KeepAlive, session), FramePlace::Session);
        assert_eq!(place(refuse(), session), FramePlace::Session);
        assert_eq!(place(refuse(), channel), FramePlace::Ends(channel));
        assert_eq!(
            place(PeerMessage::HaveAll, channel),
            FramePlace::Within(channel)
        );
        assert_eq!(
            place(PeerMessage::Open(content), channel),
            FramePlace::Opens(channel, content)
        );
        for head in [
            &b""[..],
            b"\x07\0\0\0",
            b"\x29\0\0\0\x01short",
            b"\x40\0\0\0\x01",
        ] {
            assert_eq!(FramePlace::of(&Frame::head(head)), FramePlace::Session);
        }
    }
}
