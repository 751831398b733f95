//! Manifests that links withhold, drip or lie about.

use std::time::Duration;

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use bt_lite::content::ChunkHash;
use bt_lite::peer::swarm::{DropReason, LinkId, Output, SwarmConfig};
use bt_lite::protocol::limits::HASHES_PER_PAGE;
use bt_lite::protocol::{PeerId, PeerMessage, RefuseReason};
use bt_lite::{ContentId, Geometry};
use bytes::Bytes;

use super::{Single, asked_pages, drops};

/// A content with many chunks, which no link has. Its last chunk is one byte.
struct Long {
    id: ContentId,
    pages: Vec<PeerMessage>,
}

impl Long {
    fn new(chunks: u32) -> Self {
        let chunk_len = Geometry::of(u64::from(chunks - 1) << 24)
            .unwrap()
            .chunk_len();
        let length = u64::from(chunks - 1) * chunk_len + 1;
        assert_eq!(Geometry::of(length).unwrap().chunks(), chunks);
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(length - 1).update(b"x");
        let mut hashes: Vec<ChunkHash> = (0..chunks - 1)
            .map(|chunk| *blake3::hash(&chunk.to_be_bytes()).as_bytes())
            .collect();
        hashes.push(hasher.finalize_non_root());
        let pages = hashes.chunks(HASHES_PER_PAGE as usize).enumerate();
        let pages = pages.map(|(at, hashes)| PeerMessage::ManifestHashes {
            page: at as u32 + 1,
            hashes: hashes.concat().into(),
        });
        let first = PeerMessage::ManifestLength {
            length,
            proof: Bytes::from_static(b"x"),
        };
        let pages = std::iter::once(first).chain(pages).collect();
        let mut level = hashes;
        while level.len() > 2 {
            let pairs = level.chunks(2);
            let merged = pairs.map(|pair| match pair {
                [left, right] => merge_subtrees_non_root(left, right, Mode::Hash),
                _ => pair[0],
            });
            level = merged.collect();
        }
        let root = merge_subtrees_root(&level[0], &level[1], Mode::Hash);
        let id = ContentId::from_bytes(*root.as_bytes());
        Self { id, pages }
    }
}

#[test]
fn long_manifest_in_any_order_from_the_second_link_is_checked_outside_the_machine() {
    let long = Long::new(20_000);
    let mut single = Single::new(long.id, SwarmConfig::default());
    let slow = single.accepted(PeerId([2; 16]), "slow:1", None);
    let liar = single.accepted(PeerId([3; 16]), "liar:1", None);
    let good = single.accepted(PeerId([4; 16]), "good:1", None);
    for link in [slow, liar, good] {
        single.hears(link, PeerMessage::HaveAll);
    }
    let end = single.start + Duration::from_millis(1100);
    let asked = asked_pages(&single.until(end));
    assert_eq!(asked, [(0, slow, 0), (0, liar, 0), (0, good, 0)]);
    for link in [liar, good] {
        single.hears(link, long.pages[0].clone());
        let now = single.now;
        let asked = asked_pages(&single.until(now));
        let pages: Vec<_> = (1..4).map(|page| (1100, link, page)).collect();
        assert_eq!(asked, pages);
        for at in [3, 1, 2] {
            let mut page = long.pages[at].clone();
            if let PeerMessage::ManifestHashes { hashes, page: 1 } = &mut page
                && link == liar
            {
                let mut bytes = hashes.to_vec();
                bytes[0] ^= 1;
                *hashes = bytes.into();
            }
            single.hears(link, page);
        }
        let claim = single
            .outputs()
            .into_iter()
            .find_map(|output| match output {
                Output::CheckManifest { link: of, claim } if of == link => Some(claim),
                _ => None,
            });
        let manifest = claim
            .expect("a manifest this long is checked outside the machine")
            .check();
        assert_eq!(manifest.is_some(), link == good);
        single.swarm.manifest_checked(single.now, link, manifest);
        let outputs = single.outputs();
        let opens = outputs
            .iter()
            .any(|output| matches!(output, Output::Open(_)));
        assert_eq!(opens, link == good);
        let banned = DropReason::Refused(RefuseReason::Banned);
        let expected = (link == liar).then_some((liar, banned));
        assert_eq!(drops(&outputs), Vec::from_iter(expected));
    }
}

#[test]
fn links_that_drip_the_manifest_do_not_keep_others_from_being_asked() {
    let long = Long::new(200_000);
    let mut single = Single::new(long.id, SwarmConfig::default());
    let mut links = Vec::new();
    for n in 0..10 {
        let link = single.accepted(PeerId([n + 20; 16]), &format!("drip{n}:1"), None);
        single.hears(link, PeerMessage::HaveAll);
        links.push(link);
    }
    let mut outputs = Vec::new();
    let mut sent = vec![0; links.len()];
    for _ in 0..200 {
        let end = single.now + Duration::from_millis(400);
        outputs.extend(single.until(end));
        // The first link that has more to send sends one page.
        let asked = asked_pages(&outputs);
        let next = |at: &usize| {
            asked
                .iter()
                .any(|(_, l, p)| (*l, *p) == (links[*at], sent[*at]))
        };
        if let Some(at) = (0..links.len()).find(next).filter(|at| sent[*at] < 20) {
            single.hears(links[at], long.pages[sent[at] as usize].clone());
            sent[at] += 1;
        }
    }
    // Four links are asked at once, and one more every second even though pages
    // keep arriving.
    let firsts = asked_pages(&outputs)
        .into_iter()
        .filter(|asked| asked.2 == 0);
    let firsts: Vec<(u64, LinkId)> = firsts.map(|(at, link, _)| (at, link)).collect();
    let at_once = links[..4].iter().map(|link| (0, *link));
    assert_eq!(firsts[..4], Vec::from_iter(at_once));
    assert_eq!(firsts[4], (1000, links[4]));
    let asked: std::collections::BTreeSet<LinkId> = firsts.iter().map(|(_, link)| *link).collect();
    assert_eq!(
        asked.len(),
        links.len(),
        "all links are asked, though only 8 at a time"
    );
}

#[test]
fn link_that_was_too_slow_twice_is_dropped_and_a_late_link_is_asked_before_giving_up() {
    let long = Long::new(20_000);
    let mut config = SwarmConfig::default();
    config.patience = Some(Duration::from_secs(60));
    let mut single = Single::new(long.id, config);
    let silent = single.accepted(PeerId([2; 16]), "silent:1", None);
    single.hears(silent, PeerMessage::HaveAll);
    let end = single.start + Duration::from_secs(59);
    let outputs = single.until(end);
    let dropped = outputs.iter().find_map(|(at, output)| match output {
        Output::Drop { link, reason } => Some((at.as_secs(), *link, *reason)),
        _ => None,
    });
    // Ten seconds for the first attempt, and twenty for the second.
    assert_eq!(dropped, Some((30, silent, DropReason::Silent)));
    // A link that comes up late is asked before the machine gives up.
    let late = single.accepted(PeerId([3; 16]), "late:1", None);
    single.hears(late, PeerMessage::HaveAll);
    let end = single.now + Duration::from_secs(9);
    let gives_up = |outputs: &[(Duration, Output)]| {
        let gives_up = |output: &Output| matches!(output, Output::GaveUp(_));
        outputs.iter().any(|(_, output)| gives_up(output))
    };
    let outputs = single.until(end);
    assert_eq!(asked_pages(&outputs), [(59_000, late, 0)]);
    assert!(!gives_up(&outputs));
    let end = single.now + Duration::from_secs(2);
    assert!(gives_up(&single.until(end)));
}

#[test]
fn link_that_sent_the_length_takes_over_when_the_first_falls_silent_or_fails() {
    let long = Long::new(200_000);
    for fails in [false, true] {
        let mut single = Single::new(long.id, SwarmConfig::default());
        let mut links = Vec::new();
        for n in 0..3 {
            let link = single.accepted(PeerId([n + 20; 16]), &format!("host{n}:1"), None);
            single.hears(link, PeerMessage::HaveAll);
            links.push(link);
        }
        let now = single.now;
        let firsts = links.iter().map(|link| (0, *link, 0));
        assert_eq!(asked_pages(&single.until(now)), Vec::from_iter(firsts));
        // Only the first link is asked for the rest.
        for &link in &links {
            single.hears(link, long.pages[0].clone());
        }
        let asked = asked_pages(&single.until(now));
        let rest = |at, link| (1..9).map(move |page| (at, link, page));
        assert_eq!(asked, Vec::from_iter(rest(0, links[0])));
        if fails {
            single.hears(links[0], PeerMessage::ManifestReject { page: 1 });
        }
        let end = single.start + Duration::from_millis(400);
        let at_once = fails.then(|| rest(0, links[1]));
        let at_once = Vec::from_iter(at_once.into_iter().flatten());
        assert_eq!(asked_pages(&single.until(end)), at_once);
        // One more link is asked after each half second in which nothing arrived.
        let end = single.start + Duration::from_millis(1100);
        let silent = if fails { &links[2..] } else { &links[1..] };
        let after = silent.iter().zip([500, 1000]);
        let expected = after.flat_map(|(link, at)| rest(at, *link));
        assert_eq!(asked_pages(&single.until(end)), Vec::from_iter(expected));
    }
}
