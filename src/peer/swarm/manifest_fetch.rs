//! Getting the manifest: all of it from one link, so that whoever lies is
//! known, and from several links side by side when the first are slow.
//!
//! ```text
//!            ask              all parts             consistent
//!  waiting ───────▶ running ────────────▶ checking ────────────▶ done
//!     ▲                │ too slow             │ a lie
//!     └────────────────┘                      ▼ banned
//! ```
//! A link that says nothing costs [`HEDGE`], not the download. One that drips
//! its parts keeps its place, but the others are asked as well, one after the
//! other, until somebody's manifest is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::LinkId;
use super::link::Sender;
use crate::content::{ChunkHash, ChunkIndex, ContentId, Geometry, LengthProof, Manifest};
use crate::protocol::PeerMessage;
use crate::protocol::limits::HASHES_PER_PAGE;

/// How long a part may take, the first time that a link is asked.
const PART_TIMEOUT: Duration = Duration::from_secs(10);

/// How many parts are asked for at a time: enough to keep a link busy, few
/// enough (2 MiB) to be no burden.
const PARTS_AHEAD: u32 = 8;

/// When nothing came from anybody for so long, one more link is asked: a round
/// trip between most hosts, and some.
const HEDGE: Duration = Duration::from_millis(500);

/// How many links are asked for the length at once: it is short, and whoever
/// answers first is asked for the rest.
const AT_ONCE: usize = 4;

/// Though parts do come, one more link is asked after so long: an honest link
/// has sent most manifests by then, and a manifest is short beside the content.
const STEADY: Duration = Duration::from_secs(1);

/// How long a link that has sent the length is held in reserve.
const SPARE: Duration = Duration::from_secs(60);

/// How many links are asked at a time. Beyond, the one that has brought the
/// least gives way.
const MAX_RUNS: usize = 8;

/// Bytes of hashes that may be held, over all links: twice the longest
/// manifest. Beyond, the one that has brought the least is given up.
const MAX_HELD: usize = 64 << 20;

/// A link that was too slow so often and never sent a part is of no use.
const MAX_SLOW: u32 = 2;

/// Fetches the manifest of one content.
#[derive(Debug)]
pub(super) struct ManifestFetch {
    id: ContentId,
    runs: Vec<Run>,
    /// When the last link was asked, and when the last part came.
    started: Option<Instant>,
    came: Option<Instant>,
    /// When the last link was asked for more than the length.
    promoted: Option<Instant>,
    /// Links that said they have none.
    without: BTreeSet<LinkId>,
    /// How often a link was too slow: the others come first, and it gets
    /// longer the next time.
    slow: BTreeMap<LinkId, u32>,
    /// Who sent what is being checked; at most one claim of each link.
    checks: Vec<Arc<Sender>>,
}

/// What one link was asked for, and has sent.
#[derive(Debug)]
struct Run {
    link: LinkId,
    deadline: Instant,
    /// How long a part may take.
    patience: Duration,
    /// Known from part 0 on.
    length: Option<(Geometry, LengthProof)>,
    /// The parts with hashes, by their number less 1.
    parts: Vec<Option<Bytes>>,
    /// How many parts were asked for, and how many came, part 0 included.
    asked: u32,
    came: u32,
    /// It has sent the length, and is asked for more when others fail.
    spare: bool,
}

/// A manifest as a link has sent it, to be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestClaim {
    id: ContentId,
    length: u64,
    parts: Vec<Bytes>,
    proof: LengthProof,
}

/// What became of a part.
#[derive(Debug)]
pub(super) enum Part {
    /// Ask the same link for these parts next.
    More(std::ops::Range<u32>),
    /// That was all of it, to be checked.
    Whole(ManifestClaim),
    /// The link lied.
    Lie,
    /// Nobody asked for it.
    Unasked,
}

impl ManifestClaim {
    /// The manifest, if it is one of the content that was asked for. Takes
    /// time: O(chunks) hashes.
    pub fn check(self) -> Option<Manifest> {
        let mut hashes: Vec<ChunkHash> = Vec::with_capacity(self.chunks());
        for part in &self.parts {
            hashes.extend_from_slice(part.as_chunks().0);
        }
        Manifest::check(self.id, self.length, hashes, self.proof).ok()
    }

    /// How many chunks it has.
    pub fn chunks(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum::<usize>() / size_of::<ChunkHash>()
    }
}

impl ManifestFetch {
    pub(super) fn new(id: ContentId) -> Self {
        Self {
            id,
            runs: Vec::new(),
            started: None,
            came: None,
            promoted: None,
            without: BTreeSet::new(),
            slow: BTreeMap::new(),
            checks: Vec::new(),
        }
    }

    /// Asks one of the links, if it is time to ask one more; returns the link
    /// to ask for part 0. `links` are those that have something.
    pub(super) fn start(
        &mut self,
        now: Instant,
        links: impl Iterator<Item = LinkId>,
    ) -> Option<LinkId> {
        if self.next_start().is_some_and(|at| at > now) {
            return None;
        }
        let free = links.filter(|&link| self.is_free(link));
        let link = free.min_by_key(|&link| (self.slowness(link), link))?;
        if self.runs.len() >= MAX_RUNS {
            self.give_up_least();
        }
        let patience = PART_TIMEOUT.saturating_mul(1 + self.slowness(link));
        self.runs.push(Run {
            link,
            deadline: now + patience,
            patience,
            length: None,
            parts: Vec::new(),
            asked: 1,
            came: 0,
            spare: false,
        });
        self.started = Some(now);
        Some(link)
    }

    /// A link that has sent the length takes over, if it is time to ask one
    /// more: the parts to ask it for. Of several, the one that claims the fewest
    /// parts, since it can be done first.
    pub(super) fn promote(&mut self, now: Instant) -> Option<(LinkId, std::ops::Range<u32>)> {
        if !self.runs.iter().any(|run| run.spare) {
            return None;
        }
        let runs = self.runs.iter().any(|run| !run.spare && run.came > 0);
        if runs && self.next_promotion().is_some_and(|at| at > now) {
            return None;
        }
        let spares = self.runs.iter_mut().filter(|run| run.spare);
        let run = spares.min_by_key(|run| run.parts.len())?;
        run.spare = false;
        self.promoted = Some(now);
        Some((run.link, run.more(now)))
    }

    fn slowness(&self, link: LinkId) -> u32 {
        self.slow.get(&link).copied().unwrap_or(0)
    }

    /// When one more link is asked; at once, if none is.
    fn next_start(&self) -> Option<Instant> {
        let nothing = self.runs.iter().all(|run| run.came == 0);
        if nothing && self.runs.len() < AT_ONCE {
            return None;
        }
        self.started.map(|started| self.pause_behind(started))
    }

    /// When one more link is asked for more than the length, if one is spare.
    fn next_promotion(&self) -> Option<Instant> {
        self.promoted.map(|promoted| self.pause_behind(promoted))
    }

    fn pause_behind(&self, asked: Instant) -> Instant {
        let last = self.came.map_or(asked, |came| came.max(asked));
        (last + HEDGE).min(asked + STEADY)
    }

    /// Whether some of the links was not asked yet, or has time to answer.
    pub(super) fn is_waiting(&self, mut links: impl Iterator<Item = LinkId>) -> bool {
        let open = |link: &LinkId| !self.without.contains(link) && !self.slow.contains_key(link);
        links.any(|link| open(&link))
    }

    /// A link is gone, or has no manifest.
    pub(super) fn passed(&mut self, link: LinkId, gone: bool) {
        if gone {
            self.without.remove(&link);
            self.slow.remove(&link);
        } else {
            self.without.insert(link);
        }
        self.runs.retain(|run| run.link != link);
    }

    /// A link has something new: it may have the manifest by now.
    pub(super) fn retry(&mut self, link: LinkId) {
        self.without.remove(&link);
    }

    /// When to look again: for a link that is too slow, to have another take
    /// over, or to ask one more of `links`, which are those that have something.
    pub(super) fn poll_timeout(&self, mut links: impl Iterator<Item = LinkId>) -> Option<Instant> {
        let deadlines = self.runs.iter().map(|run| run.deadline);
        let has_spare = self.runs.iter().any(|run| run.spare);
        let start = self
            .next_start()
            .filter(|_| links.any(|link| self.is_free(link)));
        let promotion = self.next_promotion().filter(|_| has_spare);
        deadlines.chain(start).chain(promotion).min()
    }

    fn is_free(&self, link: LinkId) -> bool {
        !self.without.contains(&link)
            && self.runs.iter().all(|run| run.link != link)
            && self.checks.iter().all(|sender| sender.link != link)
    }

    /// A claim of a link is being checked, whose sender is to be known if it
    /// proves to be a lie.
    pub(super) fn checking(&mut self, sender: Arc<Sender>) {
        self.checks.push(sender);
    }

    /// A claim was checked; who had sent it.
    pub(super) fn checked(&mut self, link: LinkId) -> Option<Arc<Sender>> {
        let at = self.checks.iter().position(|sender| sender.link == link)?;
        Some(self.checks.swap_remove(at))
    }

    /// Whether a claim is being checked.
    pub(super) fn is_checking(&self) -> bool {
        !self.checks.is_empty()
    }

    /// Passes links that are too slow; returns those that are of no use.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<LinkId> {
        let (late, rest) = self.runs.drain(..).partition(|run| run.deadline <= now);
        self.runs = rest;
        let late: Vec<Run> = late;
        let slow = late.iter().filter(|run| {
            let times = self.slow.entry(run.link).or_default();
            *times = times.saturating_add(1);
            *times >= MAX_SLOW && run.came == 0
        });
        slow.map(|run| run.link).collect()
    }

    /// Another takes the place of the link that has brought the least.
    fn give_up_least(&mut self) {
        let least = self.runs.iter().enumerate();
        let least = least.min_by_key(|(_, run)| (run.came, run.deadline));
        if let Some((at, _)) = least {
            let run = self.runs.remove(at);
            *self.slow.entry(run.link).or_default() += 1;
        }
    }

    pub(super) fn length_came(
        &mut self,
        now: Instant,
        link: LinkId,
        length: u64,
        proof: &Bytes,
    ) -> Part {
        let run = self.runs.iter_mut().find(|run| run.link == link);
        let Some(run) = run.filter(|run| run.length.is_none()) else {
            return Part::Unasked;
        };
        let Ok(geometry) = Geometry::of(length) else {
            return Part::Lie;
        };
        let (siblings, leaf) = LengthProof::shape(&geometry);
        if proof.len() != siblings * size_of::<ChunkHash>() + leaf {
            return Part::Lie;
        }
        let split = siblings * size_of::<ChunkHash>();
        let (siblings, _) = proof[..split].as_chunks();
        let parts = geometry.chunks().div_ceil(HASHES_PER_PAGE);
        run.length = Some((
            geometry,
            LengthProof {
                leaf: Bytes::copy_from_slice(&proof[split..]),
                siblings: siblings.to_vec(),
            },
        ));
        run.parts = vec![None; parts as usize];
        run.came = 1;
        self.came = Some(now);
        let first = !self.runs.iter().any(|run| run.link != link && run.came > 0);
        let run = self.runs.iter_mut().find(|run| run.link == link);
        let Some(run) = run.filter(|_| first) else {
            // Another sends already.
            if let Some(run) = self.runs.iter_mut().find(|run| run.link == link) {
                run.spare = true;
                run.deadline = now + SPARE;
            }
            return Part::More(0..0);
        };
        self.promoted = Some(now);
        Part::More(run.more(now))
    }

    pub(super) fn hashes_came(
        &mut self,
        now: Instant,
        link: LinkId,
        part: u32,
        hashes: &Bytes,
    ) -> Part {
        let Some(at) = self.runs.iter().position(|run| run.link == link) else {
            return Part::Unasked;
        };
        let run = &mut self.runs[at];
        let asked = part > 0 && part < run.asked;
        let slot = run.parts.get_mut(part.wrapping_sub(1) as usize);
        let (Some((geometry, _)), Some(slot @ None)) = (&run.length, slot.filter(|_| asked)) else {
            return Part::Unasked;
        };
        let before = (part - 1) * HASHES_PER_PAGE;
        let expected = (geometry.chunks() - before).min(HASHES_PER_PAGE);
        if hashes.len() != expected as usize * size_of::<ChunkHash>() {
            return Part::Lie;
        }
        *slot = Some(hashes.clone());
        run.came += 1;
        self.came = Some(now);
        if run.parts.iter().any(Option::is_none) {
            let more = run.more(now);
            self.bound_held(link);
            return Part::More(more);
        }
        let run = self.runs.remove(at);
        let Some((geometry, proof)) = run.length else {
            return Part::Unasked;
        };
        Part::Whole(ManifestClaim {
            id: self.id,
            length: geometry.length(),
            parts: run.parts.into_iter().flatten().collect(),
            proof,
        })
    }

    /// Gives up what others have sent, the least first, when all together hold
    /// too much.
    fn bound_held(&mut self, link: LinkId) {
        let held = |run: &Run| run.parts.iter().flatten().map(Bytes::len).sum::<usize>();
        while self.runs.len() > 1 && self.runs.iter().map(held).sum::<usize>() > MAX_HELD {
            let others = self.runs.iter().enumerate();
            let others = others.filter(|(_, run)| run.link != link && run.came > 0);
            let Some((at, _)) = others.min_by_key(|(_, run)| run.came) else {
                return;
            };
            let run = self.runs.remove(at);
            *self.slow.entry(run.link).or_default() += 1;
        }
    }
}

impl Run {
    fn more(&mut self, now: Instant) -> std::ops::Range<u32> {
        self.deadline = now + self.patience;
        let parts = 1 + self.parts.len() as u32;
        let until = parts.min(self.came + PARTS_AHEAD).max(self.asked);
        let from = std::mem::replace(&mut self.asked, until);
        from..until
    }
}

/// The answer to a request for a part.
pub(crate) fn serve(manifest: &Manifest, part: u32) -> PeerMessage {
    let Some(first) = part.checked_sub(1) else {
        let proof = manifest.proof();
        let mut bytes = proof.siblings.concat();
        bytes.extend_from_slice(&proof.leaf);
        return PeerMessage::ManifestLength {
            length: manifest.geometry().length(),
            proof: bytes.into(),
        };
    };
    let chunk = |part: u32| ChunkIndex(part.saturating_mul(HASHES_PER_PAGE));
    let hashes = manifest.hash_bytes(chunk(first)..chunk(part));
    if hashes.is_empty() {
        return PeerMessage::ManifestReject { page: part };
    }
    PeerMessage::ManifestHashes { page: part, hashes }
}
