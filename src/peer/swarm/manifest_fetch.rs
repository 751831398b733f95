//! Fetching the manifest. All pages come from one link, so that it is known who lied;
//! when the first links are slow, several are asked side by side.
//!
//! ```text
//!            ask              all pages             consistent
//!  waiting ───────▶ running ────────────▶ checking ────────────▶ done
//!     ▲                │ too slow             │ a lie
//!     └────────────────┘                      ▼ banned
//! ```
//! A link that says nothing costs [`HEDGE`], not the download. A link that sends its
//! pages slowly keeps its place, but the others are asked as well, one after the other,
//! until one of them has sent a whole manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::LinkId;
use super::contributor::Contributor;
use crate::content::{ChunkHash, ChunkIndex, ContentId, Geometry, LengthProof, Manifest};
use crate::protocol::PeerMessage;
use crate::protocol::limits::HASHES_PER_PAGE;

/// How long a page may take, the first time that a link is asked.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many pages are asked for at a time: enough to keep a link busy, and few enough
/// (2 MiB) to be no burden.
const PAGES_AHEAD: u32 = 8;

/// When nothing has arrived from any link for this long, one more link is asked: more
/// than a round trip between most hosts.
const HEDGE: Duration = Duration::from_millis(500);

/// How many links are asked for the length at once. The length is short, and the link
/// that answers first is asked for the rest.
const AT_ONCE: usize = 4;

/// One more link is asked after this long, even if pages do arrive. An honest link has
/// sent most manifests by then, and a manifest is short beside the content.
const STEADY: Duration = Duration::from_secs(1);

/// How long a link that has sent the length is held in reserve.
const SPARE: Duration = Duration::from_secs(60);

/// How many links are asked at a time. If there are more, the one that has sent the
/// least gives way.
const MAX_ATTEMPTS: usize = 8;

/// Bytes of hashes that may be held over all links: twice the longest manifest. If there
/// are more, what the link that has sent the least has sent is given up.
const MAX_HELD: usize = 64 << 20;

/// How many bytes of hashes are asked of several links at once, on the word of a tracker
/// that names the length. Longer ones are asked of the first link only.
const MAX_TWICE: u32 = 64 << 10;

/// What page 0 counts as, in bytes: the last leaf, and at most 14 hashes beside it.
const MAX_LENGTH_LEN: u64 = (1 << 10) + 14 * 32;

/// A link that was too slow this many times and never sent a page is useless.
const MAX_SLOW: u32 = 2;

/// Fetches the manifest of one content.
#[derive(Debug)]
pub(super) struct ManifestFetch {
    id: ContentId,
    /// How many chunks there should be, by the word of a tracker.
    expected: Option<u32>,
    attempts: Vec<Attempt>,
    /// When the last link was asked, and when the last page arrived.
    started: Option<Instant>,
    last_page: Option<Instant>,
    /// When the last link was asked for more than the length.
    promoted: Option<Instant>,
    /// Links that said that they do not have the manifest.
    without: BTreeSet<LinkId>,
    /// How often a link was too slow. The others are asked first, and it gets more time
    /// the next time.
    slow: BTreeMap<LinkId, u32>,
    /// Who sent the claims that are being checked; at most one claim per link.
    checks: Vec<Arc<Contributor>>,
    /// The download is limited: no page is asked for twice at once.
    frugal: bool,
}

/// What one link was asked for, and what it has sent.
#[derive(Debug)]
struct Attempt {
    link: LinkId,
    deadline: Instant,
    /// How long a page may take.
    patience: Duration,
    /// From page 0.
    length: Option<(Geometry, LengthProof)>,
    /// The pages with hashes, by their number minus 1. Before page 0 is here, those that
    /// were asked for on the word of a tracker.
    pages: Vec<Option<Bytes>>,
    /// How many pages were asked for, and how many arrived, page 0 included.
    asked: u32,
    received: u32,
    /// It has sent the length, and is asked for more if others fail.
    spare: bool,
}

/// A manifest that a link sent and that is not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestClaim {
    id: ContentId,
    length: u64,
    pages: Vec<Bytes>,
    proof: LengthProof,
}

/// What follows from a page.
#[derive(Debug)]
pub(super) enum PageOutcome {
    /// Ask the same link for these pages next.
    More(std::ops::Range<u32>),
    /// The manifest is whole, and has to be checked.
    Whole(ManifestClaim),
    /// The link lied.
    Lie,
    /// The page was not asked for.
    Unasked,
}

impl ManifestClaim {
    /// The manifest, if it belongs to the content. This takes O(chunks) hashes.
    pub fn check(self) -> Option<Manifest> {
        let mut hashes: Vec<ChunkHash> = Vec::with_capacity(self.chunks());
        for page in &self.pages {
            hashes.extend_from_slice(page.as_chunks().0);
        }
        Manifest::check(self.id, self.length, hashes, self.proof).ok()
    }

    /// How many chunks the content would have.
    pub fn chunks(&self) -> usize {
        self.pages.iter().map(Bytes::len).sum::<usize>() / size_of::<ChunkHash>()
    }
}

impl ManifestFetch {
    pub(super) fn new(id: ContentId) -> Self {
        Self {
            id,
            expected: None,
            attempts: Vec::new(),
            started: None,
            last_page: None,
            promoted: None,
            without: BTreeSet::new(),
            slow: BTreeMap::new(),
            checks: Vec::new(),
            frugal: false,
        }
    }

    /// Whether the download is limited.
    pub(super) fn set_frugal(&mut self, frugal: bool) {
        self.frugal = frugal;
    }

    /// The content should have so many chunks.
    pub(super) fn expect(&mut self, chunks: u32) {
        self.expected = Some(chunks);
    }

    /// If it is time to ask one more link, returns the one to ask, and for which pages:
    /// page 0, and the first ones with hashes if their number should be known. `links` are
    /// the ones that have something.
    pub(super) fn start(
        &mut self,
        now: Instant,
        links: impl Iterator<Item = LinkId>,
    ) -> Option<(LinkId, std::ops::Range<u32>)> {
        if self.next_start().is_some_and(|at| at > now) {
            return None;
        }
        let free = links.filter(|&link| self.is_free(link));
        let link = free.min_by_key(|&link| (self.slowness(link), link))?;
        if self.attempts.len() >= MAX_ATTEMPTS {
            self.give_up_least();
        }
        let patience = PAGE_TIMEOUT.saturating_mul(1 + self.slowness(link));
        let early = self.early_pages();
        self.attempts.push(Attempt {
            link,
            deadline: now + patience,
            patience,
            length: None,
            pages: vec![None; early as usize],
            asked: 1 + early,
            received: 0,
            spare: false,
        });
        self.started = Some(now);
        Some((link, 0..1 + early))
    }

    /// How many pages with hashes are asked for before page 0 is here.
    fn early_pages(&self) -> u32 {
        let Some(chunks) = self.expected.filter(|&chunks| chunks > 1) else {
            return 0;
        };
        let hashes = chunks.saturating_mul(size_of::<ChunkHash>() as u32);
        if (hashes > MAX_TWICE || self.frugal) && !self.attempts.is_empty() {
            return 0;
        }
        chunks.div_ceil(HASHES_PER_PAGE).min(PAGES_AHEAD)
    }

    /// If it is time to ask one more link for everything, returns one that has sent the
    /// length already, and the pages to ask it for. Of several, the one that claims the
    /// fewest pages, since it can be done first.
    pub(super) fn promote(&mut self, now: Instant) -> Option<(LinkId, std::ops::Range<u32>)> {
        if !self.attempts.iter().any(|attempt| attempt.spare) {
            return None;
        }
        let fetching = |attempt: &Attempt| !attempt.spare && attempt.received > 0;
        let is_fetching = self.attempts.iter().any(fetching);
        if is_fetching && self.next_promotion().is_some_and(|at| at > now) {
            return None;
        }
        let spares = self.attempts.iter_mut().filter(|attempt| attempt.spare);
        let attempt = spares.min_by_key(|attempt| attempt.pages.len())?;
        attempt.spare = false;
        self.promoted = Some(now);
        Some((attempt.link, attempt.more(now)))
    }

    /// How many bytes a page has that a link is asked for, as far as that is known, or at
    /// most.
    pub(super) fn page_bytes(&self, link: LinkId, page: u32) -> u64 {
        if page == 0 {
            return MAX_LENGTH_LEN;
        }
        let attempt = self.attempts.iter().find(|attempt| attempt.link == link);
        let length = attempt.and_then(|attempt| attempt.length.as_ref());
        let chunks = length.map(|(geometry, _)| geometry.chunks());
        let chunks = chunks.or(self.expected).unwrap_or(u32::MAX);
        hashes_of(chunks, page) as u64
    }

    /// A page is asked for only now that the limits allow it: the link has all of its time.
    pub(super) fn page_passed(&mut self, now: Instant, link: LinkId) {
        if let Some(attempt) = self.attempts.iter_mut().find(|a| a.link == link) {
            attempt.deadline = now + attempt.patience;
        }
        self.started = self.started.map(|_| now);
        self.promoted = self.promoted.map(|_| now);
    }

    fn slowness(&self, link: LinkId) -> u32 {
        self.slow.get(&link).copied().unwrap_or(0)
    }

    /// When one more link is asked; `None` means at once.
    fn next_start(&self) -> Option<Instant> {
        let nothing = self.attempts.iter().all(|attempt| attempt.received == 0);
        if nothing && self.attempts.len() < AT_ONCE {
            return None;
        }
        self.started.map(|started| self.pause_behind(started))
    }

    /// When one more link is asked for more than the length.
    fn next_promotion(&self) -> Option<Instant> {
        self.promoted.map(|promoted| self.pause_behind(promoted))
    }

    fn pause_behind(&self, asked: Instant) -> Instant {
        let last = self.last_page.map_or(asked, |page| page.max(asked));
        (last + HEDGE).min(asked + STEADY)
    }

    /// Whether one of the links was not asked yet, or still has time to answer.
    pub(super) fn is_waiting(&self, mut links: impl Iterator<Item = LinkId>) -> bool {
        let open = |link: &LinkId| !self.without.contains(link) && !self.slow.contains_key(link);
        links.any(|link| open(&link))
    }

    /// A link has no such page. Returns whether it has no manifest at all. If the tracker's
    /// word was wrong, pages were asked for that there are not.
    pub(super) fn page_rejected(&mut self, link: LinkId, page: u32) {
        let attempt = self.attempts.iter().find(|attempt| attempt.link == link);
        let past_the_end = attempt
            .is_some_and(|attempt| attempt.length.is_some() && page as usize > attempt.pages.len());
        if !past_the_end {
            self.passed(link, false);
        }
    }

    /// A link is gone, or does not have the manifest.
    pub(super) fn passed(&mut self, link: LinkId, gone: bool) {
        if gone {
            self.without.remove(&link);
            self.slow.remove(&link);
        } else {
            self.without.insert(link);
        }
        self.attempts.retain(|attempt| attempt.link != link);
    }

    /// Nobody is asked for a while. What still arrives was not asked for.
    pub(super) fn pause(&mut self) {
        self.attempts.clear();
        (self.started, self.promoted) = (None, None);
    }

    /// A link has something new: it may have the manifest by now.
    pub(super) fn retry(&mut self, link: LinkId) {
        self.without.remove(&link);
    }

    /// When to look again: for a link that is too slow, for one that takes over, or to
    /// ask one more of `links`, which are the ones that have something.
    pub(super) fn poll_timeout(&self, mut links: impl Iterator<Item = LinkId>) -> Option<Instant> {
        let deadlines = self.attempts.iter().map(|attempt| attempt.deadline);
        let has_spare = self.attempts.iter().any(|attempt| attempt.spare);
        let start = self
            .next_start()
            .filter(|_| links.any(|link| self.is_free(link)));
        let promotion = self.next_promotion().filter(|_| has_spare);
        deadlines.chain(start).chain(promotion).min()
    }

    fn is_free(&self, link: LinkId) -> bool {
        !self.without.contains(&link)
            && self.attempts.iter().all(|attempt| attempt.link != link)
            && self.checks.iter().all(|sender| sender.link != link)
    }

    /// A claim is being checked. Its sender is remembered, in case that it lied.
    pub(super) fn checking(&mut self, sender: Arc<Contributor>) {
        self.checks.push(sender);
    }

    /// A claim was checked. Returns who sent it.
    pub(super) fn checked(&mut self, link: LinkId) -> Option<Arc<Contributor>> {
        let at = self.checks.iter().position(|sender| sender.link == link)?;
        Some(self.checks.swap_remove(at))
    }

    /// Whether a claim is being checked.
    pub(super) fn is_checking(&self) -> bool {
        !self.checks.is_empty()
    }

    /// Gives up the links that are too slow. Returns those that are useless.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<LinkId> {
        let (late, rest) = self
            .attempts
            .drain(..)
            .partition(|attempt| attempt.deadline <= now);
        self.attempts = rest;
        let late: Vec<Attempt> = late;
        let slow = late.iter().filter(|attempt| {
            let times = self.slow.entry(attempt.link).or_default();
            *times = times.saturating_add(1);
            *times >= MAX_SLOW && attempt.received == 0
        });
        slow.map(|attempt| attempt.link).collect()
    }

    /// Gives up the link that has sent the least, so that another takes its place.
    fn give_up_least(&mut self) {
        let least = self.attempts.iter().enumerate();
        let least = least.min_by_key(|(_, attempt)| (attempt.received, attempt.deadline));
        if let Some((at, _)) = least {
            let attempt = self.attempts.remove(at);
            *self.slow.entry(attempt.link).or_default() += 1;
        }
    }

    pub(super) fn length_arrived(
        &mut self,
        now: Instant,
        link: LinkId,
        length: u64,
        proof: &Bytes,
    ) -> PageOutcome {
        let attempt = self
            .attempts
            .iter_mut()
            .find(|attempt| attempt.link == link);
        let Some(attempt) = attempt.filter(|attempt| attempt.length.is_none()) else {
            return PageOutcome::Unasked;
        };
        let Ok(geometry) = Geometry::of(length) else {
            return PageOutcome::Lie;
        };
        let (siblings, leaf) = LengthProof::shape(&geometry);
        if proof.len() != siblings * size_of::<ChunkHash>() + leaf {
            return PageOutcome::Lie;
        }
        let split = siblings * size_of::<ChunkHash>();
        let (siblings, _) = proof[..split].as_chunks();
        let pages = geometry.chunks().div_ceil(HASHES_PER_PAGE);
        attempt.length = Some((
            geometry,
            LengthProof {
                leaf: Bytes::copy_from_slice(&proof[split..]),
                siblings: siblings.to_vec(),
            },
        ));
        attempt.pages.resize(pages as usize, None);
        attempt.asked = attempt.asked.min(1 + pages);
        attempt.received += 1;
        let lens_fit = (1..).zip(&attempt.pages).all(|(page, hashes)| {
            let hashes = hashes.as_ref();
            hashes.is_none_or(|hashes| hashes.len() == page_len(&geometry, page))
        });
        if !lens_fit {
            return PageOutcome::Lie;
        }
        self.last_page = Some(now);
        let others = self.attempts.iter().filter(|attempt| attempt.link != link);
        let is_first = others.clone().all(|attempt| attempt.received == 0);
        let Some(attempt) = self.attempts.iter_mut().find(|a| a.link == link) else {
            return PageOutcome::Unasked;
        };
        if attempt.pages.iter().all(Option::is_some) {
            return self.whole(link);
        }
        if !is_first && attempt.asked <= pages {
            // Another link is sending the pages already.
            attempt.spare = true;
            attempt.deadline = now + SPARE;
            return PageOutcome::More(0..0);
        }
        self.promoted = Some(now);
        PageOutcome::More(attempt.more(now))
    }

    pub(super) fn hashes_arrived(
        &mut self,
        now: Instant,
        link: LinkId,
        page: u32,
        hashes: &Bytes,
    ) -> PageOutcome {
        let Some(attempt) = self.attempts.iter_mut().find(|a| a.link == link) else {
            return PageOutcome::Unasked;
        };
        let asked = page > 0 && page < attempt.asked;
        let slot = attempt.pages.get_mut(page.wrapping_sub(1) as usize);
        let Some(slot @ None) = slot.filter(|_| asked) else {
            return PageOutcome::Unasked;
        };
        let geometry = attempt.length.as_ref().map(|(geometry, _)| geometry);
        if geometry.is_some_and(|geometry| hashes.len() != page_len(geometry, page)) {
            return PageOutcome::Lie;
        }
        *slot = Some(hashes.clone());
        attempt.received += 1;
        self.last_page = Some(now);
        if attempt.length.is_none() {
            attempt.deadline = now + attempt.patience;
            return PageOutcome::More(0..0);
        }
        if attempt.pages.iter().any(Option::is_none) {
            let more = match attempt.spare {
                true => 0..0,
                false => attempt.more(now),
            };
            self.bound_held(link);
            return PageOutcome::More(more);
        }
        self.whole(link)
    }

    /// All pages of a link are here.
    fn whole(&mut self, link: LinkId) -> PageOutcome {
        let at = self.attempts.iter().position(|a| a.link == link);
        let Some(attempt) = at.map(|at| self.attempts.remove(at)) else {
            return PageOutcome::Unasked;
        };
        let Some((geometry, proof)) = attempt.length else {
            return PageOutcome::Unasked;
        };
        PageOutcome::Whole(ManifestClaim {
            id: self.id,
            length: geometry.length(),
            pages: attempt.pages.into_iter().flatten().collect(),
            proof,
        })
    }

    /// Gives up what other links have sent, the least first, when all links together hold
    /// too much.
    fn bound_held(&mut self, link: LinkId) {
        let held = |attempt: &Attempt| {
            attempt
                .pages
                .iter()
                .flatten()
                .map(Bytes::len)
                .sum::<usize>()
        };
        while self.attempts.len() > 1 && self.attempts.iter().map(held).sum::<usize>() > MAX_HELD {
            let others = self.attempts.iter().enumerate();
            let others = others.filter(|(_, attempt)| attempt.link != link && attempt.received > 0);
            let Some((at, _)) = others.min_by_key(|(_, attempt)| attempt.received) else {
                return;
            };
            let attempt = self.attempts.remove(at);
            *self.slow.entry(attempt.link).or_default() += 1;
        }
    }
}

impl Attempt {
    fn more(&mut self, now: Instant) -> std::ops::Range<u32> {
        self.deadline = now + self.patience;
        let pages = 1 + self.pages.len() as u32;
        let until = pages.min(self.received + PAGES_AHEAD).max(self.asked);
        let from = std::mem::replace(&mut self.asked, until);
        from..until
    }
}

/// How many bytes of hashes a page has that the content has.
fn page_len(geometry: &Geometry, page: u32) -> usize {
    hashes_of(geometry.chunks(), page)
}

/// The same for a number of chunks.
fn hashes_of(chunks: u32, page: u32) -> usize {
    let before = (page - 1).saturating_mul(HASHES_PER_PAGE);
    let hashes = chunks.saturating_sub(before).min(HASHES_PER_PAGE);
    hashes as usize * size_of::<ChunkHash>()
}

/// How many bytes the answer to a request for a page has.
pub(super) fn served_bytes(manifest: Option<&Manifest>, page: u32) -> u64 {
    match (manifest, page) {
        (None, _) => 0,
        (Some(manifest), _) if manifest.is_torrent() => 0,
        (Some(_), 0) => MAX_LENGTH_LEN,
        (Some(manifest), _) => page_len(&manifest.geometry(), page) as u64,
    }
}

/// The answer to a request for a page. There are none of the manifest of a torrent.
pub(crate) fn serve(manifest: &Manifest, page: u32) -> PeerMessage {
    if manifest.is_torrent() {
        return PeerMessage::ManifestReject { page };
    }
    let Some(first) = page.checked_sub(1) else {
        let proof = manifest.proof();
        let mut bytes = proof.siblings.concat();
        bytes.extend_from_slice(&proof.leaf);
        return PeerMessage::ManifestLength {
            length: manifest.geometry().length(),
            proof: bytes.into(),
        };
    };
    let chunk = |page: u32| ChunkIndex(page.saturating_mul(HASHES_PER_PAGE));
    let hashes = manifest.hash_bytes(chunk(first)..chunk(page));
    if hashes.is_empty() {
        return PeerMessage::ManifestReject { page };
    }
    PeerMessage::ManifestHashes { page, hashes }
}
