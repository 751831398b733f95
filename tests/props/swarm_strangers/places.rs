//! Which links a machine accepts when places are scarce.

use std::time::Duration;

use bt_lite::peer::swarm::{DropReason, LinkId, SwarmConfig};
use bt_lite::protocol::{PeerId, PeerMessage, RefuseReason};
use bt_lite::{Bitfield, ChunkIndex};

use super::{OWNER, Single, block, drops, requests};
use crate::sample::{SMALL, Sample};

const BUSY: DropReason = DropReason::Refused(RefuseReason::Busy);

/// A download from a dialled owner, with room for eight links.
fn started(sample: &Sample) -> (Single, LinkId) {
    let mut config = SwarmConfig::default();
    config.max_links = 8;
    // The owner leaves something for the others.
    config.planner.first_window = 0;
    let mut single = Single::new(sample.manifest.id(), config);
    let owner = single.dialled(OWNER, "owner:1");
    single.hears(owner, PeerMessage::HaveAll);
    single.learns(owner, sample);
    (single, owner)
}

/// A leecher connects from a host. Returns its link if it may stay.
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
fn host_whose_link_left_without_exchanging_data_is_refused_when_half_the_places_are_taken() {
    let (mut single, _) = started(&SMALL[4]);
    let link = comes(&mut single, "suspect").unwrap();
    single.swarm.link_down(single.now, link);
    // It may come back while there are few links.
    let link = comes(&mut single, "suspect").unwrap();
    single.swarm.link_down(single.now, link);
    for n in 0..3 {
        comes(&mut single, &format!("host{n}")).unwrap();
    }
    assert_eq!(comes(&mut single, "suspect"), None);
    assert!(comes(&mut single, "other").is_some());
    // A dialled link is accepted, and stays though it is not asked at first.
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
fn link_that_was_asked_and_sent_nothing_gives_way_to_a_newcomer() {
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
    // No link is blamed before its time is up.
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
    // From then on, its host is suspected.
    assert_eq!(comes(&mut single, "silent"), None);
}

#[test]
fn host_may_have_twice_its_share_of_the_places() {
    let (mut single, _) = started(&SMALL[4]);
    for n in 0..3 {
        comes(&mut single, &format!("host{n}")).unwrap();
    }
    // Four hosts share eight places, and a fifth host joins them.
    let mut links = 0;
    while comes(&mut single, "crowd").is_some() {
        links += 1;
    }
    assert_eq!(links, 4);
    // Another host still gets a place, though the crowd has to give it up.
    assert!(comes(&mut single, "other").is_some());
}

/// A machine with this many places, all taken by blank links from different
/// hosts.
fn crowded(places: usize) -> (Single, Vec<LinkId>) {
    let mut config = SwarmConfig::default();
    config.max_links = places;
    let mut single = Single::new(SMALL[4].manifest.id(), config);
    let mut links = Vec::new();
    for n in 0..places {
        let name = PeerId([n as u8 + 20; 16]);
        links.push(single.accepted(name, &format!("stranger{n}:1"), None));
    }
    assert_eq!(drops(&single.outputs()), []);
    (single, links)
}

#[test]
fn same_blank_hosts_keep_the_places_however_often_the_others_retry() {
    let (mut single, links) = crowded(8);
    // Newcomers take the places of hosts with worse lots, until no newcomer has a
    // better lot than the hosts that stay.
    let mut up: Vec<(LinkId, String)> = Vec::new();
    for (n, link) in links.into_iter().enumerate() {
        up.push((link, format!("stranger{n}")));
    }
    let knock = |single: &mut Single, up: &mut Vec<(LinkId, String)>, from: String| {
        let name = PeerId([single.links as u8 + 20; 16]);
        let link = single.accepted(name, &format!("{from}:1"), None);
        up.push((link, from));
        let dropped = drops(&single.outputs());
        assert_eq!(dropped.len(), 1);
        assert_eq!(dropped[0].1, BUSY);
        up.retain(|(link, _)| *link != dropped[0].0);
        dropped[0].0 != link
    };
    let mut refused = Vec::new();
    for n in 8..60 {
        let from = format!("stranger{n}");
        if !knock(&mut single, &mut up, from.clone()) {
            refused.push(from);
        }
    }
    assert!(refused.len() > 20);
    for from in refused {
        assert!(!knock(&mut single, &mut up, from));
    }
}

#[test]
fn tenth_of_the_places_stays_free_while_strangers_take_the_rest() {
    let (mut single, links) = crowded(20);
    for link in &links {
        single.hears(*link, PeerMessage::HaveNone);
    }
    let dropped = drops(&single.outputs());
    assert_eq!(dropped.len(), 2);
    assert!(dropped.iter().all(|(_, reason)| *reason == BUSY));
    // A newcomer that has something stays, and a stranger gives way to it.
    let new = single.accepted(PeerId([7; 16]), "new:1", None);
    assert_eq!(drops(&single.outputs()), []);
    single.hears(new, PeerMessage::HaveAll);
    let dropped = drops(&single.outputs());
    assert_eq!(dropped.len(), 1);
    assert_ne!(dropped[0], (new, BUSY));
}

#[test]
fn link_that_says_what_it_has_before_the_length_is_known_is_not_a_stranger() {
    let (mut single, links) = crowded(20);
    let has = SMALL[4].manifest.geometry().chunks();
    let mut has = Bitfield::none(has);
    has.insert(ChunkIndex(0));
    for link in &links {
        single.hears(*link, PeerMessage::Bitfield(has.to_bytes()));
    }
    assert_eq!(drops(&single.outputs()), []);
}

#[test]
fn dialled_newcomer_takes_the_place_of_a_stranger() {
    let (mut single, links) = crowded(8);
    for _ in 0..4 {
        let owner = single.dialled(OWNER, "owner:1");
        let dropped = drops(&single.outputs());
        assert!(dropped.len() == 1 && dropped[0].0 != owner);
        assert!(links.contains(&dropped[0].0));
    }
}
