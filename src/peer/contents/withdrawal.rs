//! Tells trackers that a complete content is no longer here.

use crate::peer::contents::asleep::Asleep;
use crate::peer::contents::listing::Listing;
use crate::peer::shared::PeerShared;
use crate::protocol::OwnState;

/// Tells the trackers that a content is no longer here, under none of its names. They are
/// not asked about one that they were not told of.
pub(in crate::peer) async fn tell_gone(shared: &PeerShared, asleep: &Asleep) {
    let told = shared
        .trackers
        .own(listing(asleep).announce(OwnState::Gone));
    if let Err(error) = told.await {
        tracing::debug!(content = %asleep.content.id, %error, "withdrawing failed");
    }
}

/// A content as trackers list it.
pub(in crate::peer) fn listing(asleep: &Asleep) -> Listing {
    let content = asleep.content.clone();
    let listed_as = asleep.listed_as().clone();
    Listing::new(content, listed_as).role(asleep.role)
}
