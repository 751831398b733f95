//! The frames of sessions that tests drive by hand.

use bt_lite::protocol::{ChannelId, Frame, PeerMessage};

/// The channel that the side that connected opens first.
pub(crate) const LINK: ChannelId = ChannelId(1);

/// A message on the first channel, or on that of the session if it belongs there.
pub(crate) fn frame(message: PeerMessage) -> Frame {
    let channel = match message {
        PeerMessage::Hello(_) | PeerMessage::KeepAlive => ChannelId::SESSION,
        _ => LINK,
    };
    message.encode(channel)
}

/// The message in a frame of a peer.
pub(crate) fn message(frame: Frame) -> PeerMessage {
    let (_, message) = PeerMessage::decode(frame).expect("the peer keeps to the protocol");
    message
}
