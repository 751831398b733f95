//! Who may have the content: trackers are asked, and addresses are dialled.

use std::time::Instant;

use super::parts::Parts;
use super::zones;
use crate::peer::swarm::Output;
use crate::peer::swarm::link::Link;
use crate::protocol::Addr;

/// Something has answered after a time in which nothing did. Returns whether everybody is
/// tried again.
pub(super) fn reachable_again(parts: &mut Parts, now: Instant) -> bool {
    let starves = !parts.is_paused() && parts.supply().is_starving(now);
    if !starves || !parts.effort.may_retry(now) {
        return false;
    }
    parts.book.retry(now);
    parts.owner_search.restart(now);
    true
}

/// Dials as many owners as are wanted.
pub(super) fn dial(parts: &mut Parts, now: Instant) {
    while parts.supply().wants_links() || parts.supply().wants_place(now) {
        // The manifest comes first, and leechers that have just joined have none.
        let seeder_first = parts.book.dialling() == 0 && !parts.supply().is_supplied();
        let starving = parts.book.has_last_resort() && parts.supply().is_starving(now);
        let Some(addr) = parts.book.dial(now, seeder_first, starving) else {
            break;
        };
        let leads_there = |link: &Link| link.is_proven && link.info.addr.as_ref() == Some(&addr);
        let mut links = parts.links.values().chain(parts.standby.values());
        if links.any(leads_there) {
            // The address had been forgotten, and was named again since.
            parts.book.is_linked(&addr);
            continue;
        }
        parts.outbox.push(Output::Dial { addr });
    }
}

/// Asks the trackers, when it is time to.
pub(super) fn search_owners(parts: &mut Parts, now: Instant) {
    let due = parts.owner_search.next().is_some_and(|next| next <= now);
    let wants_role = zones::wants_role(parts);
    if due && (wants_role || parts.supply().wants_owners()) {
        parts.role_asked |= wants_role;
        parts.owner_search.began();
        parts.outbox.push(Output::FindOwners);
    }
}

/// Owners were named, each with whether it is complete.
pub(super) fn owners_found(
    parts: &mut Parts,
    now: Instant,
    owners: impl IntoIterator<Item = (Addr, bool)>,
) {
    let mut named = false;
    for (addr, complete) in owners {
        parts.book.named(now, addr, complete);
        named = true;
    }
    let is_supplied = parts.supply().is_supplied();
    parts.owner_search.ended(now, is_supplied, &parts.config);
    if named && parts.effort.is_stalled() {
        parts.book.retry(now);
    }
}

/// An owner could not be reached.
pub(super) fn dial_failed(parts: &mut Parts, now: Instant, addr: &Addr) {
    parts.book.dial_failed(now, addr);
}
