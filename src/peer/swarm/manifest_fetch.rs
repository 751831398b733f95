//! Getting the manifest: all of it from one link, so that whoever lies is
//! known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::LinkId;
use crate::content::{ChunkHash, ContentId, Geometry, LengthProof, Manifest};
use crate::protocol::PeerMessage;
use crate::protocol::limits::HASHES_PER_PART;

/// How long a part may take, the first time that a link is asked.
const PART_TIMEOUT: Duration = Duration::from_secs(10);

/// How many parts are asked for at a time: enough to keep a link busy, few
/// enough (2 MiB) to be no burden.
const PARTS_AHEAD: u32 = 8;

/// Fetches and checks the manifest of one content.
#[derive(Debug)]
pub(super) struct ManifestFetch {
    id: ContentId,
    running: Option<Running>,
    /// Links that said they have none.
    without: BTreeSet<LinkId>,
    /// How often a link was too slow: the others come first, and it gets
    /// longer the next time.
    slow: BTreeMap<LinkId, u32>,
}

#[derive(Debug)]
struct Running {
    link: LinkId,
    deadline: Instant,
    /// How long a part may take.
    patience: Duration,
    /// Known from part 0 on.
    length: Option<(Geometry, LengthProof)>,
    hashes: Vec<ChunkHash>,
    /// Parts asked for, and parts that came.
    asked: u32,
    came: u32,
}

/// What became of a part.
#[derive(Debug)]
pub(super) enum Part {
    /// Ask the same link for these parts next.
    More(std::ops::Range<u32>),
    /// That was all, and it is consistent.
    Done(Arc<Manifest>),
    /// The link lied.
    Lie,
    /// Nobody asked for it.
    Unasked,
}

impl ManifestFetch {
    pub(super) fn new(id: ContentId) -> Self {
        Self {
            id,
            running: None,
            without: BTreeSet::new(),
            slow: BTreeMap::new(),
        }
    }

    /// Starts with one of the links, unless it is under way; returns the link
    /// to ask for part 0.
    pub(super) fn start(
        &mut self,
        now: Instant,
        links: impl Iterator<Item = LinkId>,
    ) -> Option<LinkId> {
        if self.running.is_some() {
            return None;
        }
        let slow = |link: LinkId| self.slow.get(&link).copied().unwrap_or(0);
        let link = links
            .filter(|link| !self.without.contains(link))
            .min_by_key(|&link| (slow(link), link))?;
        let patience = PART_TIMEOUT.saturating_mul(1 + slow(link));
        self.running = Some(Running {
            link,
            deadline: now + patience,
            patience,
            length: None,
            hashes: Vec::new(),
            asked: 1,
            came: 0,
        });
        Some(link)
    }

    /// A link is gone, or has no manifest.
    pub(super) fn passed(&mut self, link: LinkId, gone: bool) {
        if gone {
            self.without.remove(&link);
            self.slow.remove(&link);
        } else {
            self.without.insert(link);
        }
        self.running.take_if(|running| running.link == link);
    }

    /// A link has something new: it may have the manifest by now.
    pub(super) fn retry(&mut self, link: LinkId) {
        self.without.remove(&link);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.running.as_ref().map(|running| running.deadline)
    }

    /// Passes a link that is too slow; returns it.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<LinkId> {
        let running = self.running.take_if(|running| running.deadline <= now)?;
        let times = self.slow.entry(running.link).or_default();
        *times = times.saturating_add(1);
        Some(running.link)
    }

    pub(super) fn length_came(
        &mut self,
        now: Instant,
        link: LinkId,
        length: u64,
        proof: &Bytes,
    ) -> Part {
        let Some(running) = self.running.as_mut().filter(|r| r.link == link) else {
            return Part::Unasked;
        };
        if running.length.is_some() {
            return Part::Unasked;
        }
        let Ok(geometry) = Geometry::of(length) else {
            return Part::Lie;
        };
        let (siblings, leaf) = LengthProof::shape(&geometry);
        if proof.len() != siblings * size_of::<ChunkHash>() + leaf {
            return Part::Lie;
        }
        let split = siblings * size_of::<ChunkHash>();
        let (siblings, _) = proof[..split].as_chunks();
        running.length = Some((
            geometry,
            LengthProof {
                leaf: Bytes::copy_from_slice(&proof[split..]),
                siblings: siblings.to_vec(),
            },
        ));
        running.came = 1;
        running.more(now)
    }

    pub(super) fn hashes_came(
        &mut self,
        now: Instant,
        link: LinkId,
        part: u32,
        hashes: &Bytes,
    ) -> Part {
        let Some(running) = self.running.as_mut().filter(|r| r.link == link) else {
            return Part::Unasked;
        };
        let Some((geometry, _)) = running.length.as_ref().filter(|_| part == running.came) else {
            return Part::Unasked;
        };
        let missing = geometry.chunks() - running.hashes.len() as u32;
        let (hashes, rest) = hashes.as_chunks();
        if !rest.is_empty() || hashes.len() as u32 != missing.min(HASHES_PER_PART) {
            return Part::Lie;
        }
        running.hashes.extend_from_slice(hashes);
        running.came += 1;
        if hashes.len() as u32 != missing {
            return running.more(now);
        }
        let Some(Running {
            length: Some((geometry, proof)),
            hashes,
            ..
        }) = self.running.take()
        else {
            return Part::Unasked;
        };
        match Manifest::check(self.id, geometry.length(), hashes, proof) {
            Ok(manifest) => Part::Done(Arc::new(manifest)),
            Err(_) => Part::Lie,
        }
    }
}

impl Running {
    fn more(&mut self, now: Instant) -> Part {
        self.deadline = now + self.patience;
        let chunks = self.length.as_ref().map_or(0, |(g, _)| g.chunks());
        let parts = 1 + chunks.div_ceil(HASHES_PER_PART);
        let until = parts.min(self.came + PARTS_AHEAD);
        let from = std::mem::replace(&mut self.asked, until);
        Part::More(from..until)
    }
}

/// The answer to a request for a part.
pub(super) fn serve(manifest: &Manifest, part: u32) -> PeerMessage {
    let Some(first) = part.checked_sub(1) else {
        let proof = manifest.proof();
        let mut bytes = proof.siblings.concat();
        bytes.extend_from_slice(&proof.leaf);
        return PeerMessage::ManifestLength {
            length: manifest.geometry().length(),
            proof: bytes.into(),
        };
    };
    let per_part = HASHES_PER_PART as usize;
    match manifest.hashes().chunks(per_part).nth(first as usize) {
        Some(hashes) => PeerMessage::ManifestHashes {
            part,
            hashes: hashes.concat().into(),
        },
        None => PeerMessage::ManifestReject { part },
    }
}
