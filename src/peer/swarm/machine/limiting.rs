//! What the limits let pass. Without them nothing here has an effect.

use std::time::Instant;

use super::asking;
use super::parts::Parts;
use crate::peer::swarm::LinkId;
use crate::peer::swarm::gate::{Allowance, Direction};
use crate::protocol::HostKey;

/// Gives back what nobody uses of what the limits allowed, and notes whether they hold
/// this side up.
pub(super) fn settle_limits(parts: &mut Parts, now: Instant) {
    parts.limit.reclaim(now);
    parts.uploader.reclaim(now);
    let waits = parts.ask_queue.is_held() || parts.limit.holds_pages();
    parts.limit.note(now, waits);
    let held = parts.is_held();
    if let Some(time) = parts.limit.holds(now, held) {
        parts.effort.not_counting(now, time);
    }
}

/// Bytes that go this way are limited from now on, or not.
pub(super) fn set_limited(parts: &mut Parts, now: Instant, direction: Direction, limited: bool) {
    match direction {
        Direction::Upload => parts.uploader.set_limited(limited),
        Direction::Download => parts.limit.set(now, limited),
    }
    resume_all(parts, now);
}

/// Some may pass.
pub(super) fn allow(parts: &mut Parts, now: Instant, allowance: &Allowance) {
    let host = &allowance.host;
    match allowance.direction {
        Direction::Upload => {
            parts.uploader.allow(now, allowance);
            let links = parts
                .links
                .iter()
                .filter(|(_, link)| link.info.host == *host);
            let links: Vec<LinkId> = links.map(|(id, _)| id).collect();
            for link in links {
                parts.send_pages(link);
            }
        }
        Direction::Download => {
            parts.limit.allow(now, allowance);
            asking::ask_waiting_pages(parts, now);
            while may_ask(parts, host) && parts.ask_queue.wake_held(Some(host), &parts.links) {
                asking::ask(parts, now);
            }
        }
    }
}

/// Whether one more block of a host may be asked for.
fn may_ask(parts: &mut Parts, host: &HostKey) -> bool {
    let block_len = parts.planner().map(|planner| planner.block_len());
    let covers = |len| parts.limit.covers(host, len);
    block_len.is_some_and(covers)
}

/// Everything that the limits held up is tried again.
fn resume_all(parts: &mut Parts, now: Instant) {
    while parts.ask_queue.wake_held(None, &parts.links) {}
    asking::ask_waiting_pages(parts, now);
    let links: Vec<LinkId> = parts.links.keys().collect();
    for link in links {
        parts.send_pages(link);
    }
}
