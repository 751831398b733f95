//! Whom a machine takes in when places are scarce.

use std::time::Duration;

use bt_lite::peer::swarm::{DropReason, LinkId, SwarmConfig};
use bt_lite::protocol::{PeerId, PeerMessage, RefuseReason};

use super::{OWNER, Single, block, drops, requests};
use crate::sample::{SMALL, Sample};

const BUSY: DropReason = DropReason::Refused(RefuseReason::Busy);

/// A download from an owner that is dialled, with room for eight links.
fn started(sample: &Sample) -> (Single, LinkId) {
    let mut config = SwarmConfig::default();
    config.max_links = 8;
    let mut single = Single::new(sample.manifest.id(), config);
    let owner = single.dialled(OWNER, "owner:1");
    single.hears(owner, PeerMessage::HaveAll);
    single.learns(owner, sample);
    (single, owner)
}

/// A leecher comes from a host. Whether it may stay.
fn comes(single: &mut Single, from: &str) -> Option<LinkId> {
    let name = PeerId([single.links as u8 + 20; 16]);
    let link = single.accepted(name, &format!("{from}:1"), None);
    let dropped = drops(&single.outputs());
    if dropped.contains(&(link, BUSY)) {
        return None;
    }
    single.hears(link, PeerMessage::HaveNone);
    single.outputs();
    Some(link)
}

#[test]
fn host_whose_link_came_and_left_for_nothing_is_refused_once_half_the_places_are_taken() {
    let (mut single, _) = started(&SMALL[4]);
    let link = comes(&mut single, "suspect").unwrap();
    single.swarm.link_down(single.now, link);
    // As long as few are there, it may come back.
    let link = comes(&mut single, "suspect").unwrap();
    single.swarm.link_down(single.now, link);
    for n in 0..3 {
        comes(&mut single, &format!("host{n}")).unwrap();
    }
    assert_eq!(comes(&mut single, "suspect"), None);
    assert!(comes(&mut single, "other").is_some());
    // A dialled link is taken, and stays though it is not asked at first.
    let again = single.dialled(PeerId([7; 16]), "suspect:1");
    single.hears(again, PeerMessage::HaveAll);
    assert_eq!(requests(&single.outputs(), again), []);
    single.accepted(PeerId([8; 16]), "newcomer:1", None);
    assert_eq!(drops(&single.outputs()), []);
    single.swarm.link_down(single.now, again);
    // The suspicion ends.
    let end = single.now + Duration::from_secs(61);
    single.until(end);
    for n in 4..8 {
        comes(&mut single, &format!("host{n}"));
    }
    assert!(comes(&mut single, "suspect").is_some());
}

#[test]
fn link_that_was_asked_and_sent_nothing_makes_way_for_a_newcomer() {
    let sample = &SMALL[4];
    let (mut single, owner) = started(sample);
    let asked = requests(&single.outputs(), owner);
    let silent = single.accepted(PeerId([2; 16]), "silent:1", None);
    single.hears(silent, PeerMessage::HaveAll);
    assert!(!requests(&single.outputs(), silent).is_empty());
    single.hears(owner, block(sample, asked[0], true));
    for n in 0..2 {
        comes(&mut single, &format!("host{n}")).unwrap();
    }
    // Before its time is over, nobody is blamed.
    assert!(comes(&mut single, "early").is_some());
    let end = single.now + Duration::from_secs(4);
    let mut dropped = single.until(end);
    let newcomer = single.accepted(PeerId([3; 16]), "newcomer:1", None);
    let now = single.now;
    dropped.extend(single.until(now));
    let dropped: Vec<_> = dropped.into_iter().map(|(_, output)| output).collect();
    let dropped = drops(&dropped);
    assert!(dropped.contains(&(silent, DropReason::Silent)));
    assert!(
        !dropped
            .iter()
            .any(|(link, _)| [owner, newcomer].contains(link))
    );
    // Its host is suspected from then on.
    assert_eq!(comes(&mut single, "silent"), None);
}

#[test]
fn host_may_have_twice_its_share_of_the_places() {
    let (mut single, _) = started(&SMALL[4]);
    for n in 0..3 {
        comes(&mut single, &format!("host{n}")).unwrap();
    }
    // Four hosts share eight places, and the fifth comes in with them.
    let mut links = 0;
    while comes(&mut single, "crowd").is_some() {
        links += 1;
    }
    assert_eq!(links, 4);
    // Others still find a place, though it is the crowd's.
    assert!(comes(&mut single, "other").is_some());
}
