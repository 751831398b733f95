//! What the links have, as the planner counts it.

use std::time::Instant;

use super::super::LinkId;
use super::super::source::{Has, Source};
use super::{MAX_SUGGESTED, Planner, Released, State};
use crate::content::{Bitfield, ChunkIndex};

impl Planner {
    /// A link is a source from now on; it has nothing yet.
    pub fn link_added(&mut self, link: LinkId) {
        if self.sources.insert(link, Source::new()).is_none() {
            self.unproven += 1;
        }
    }

    /// A link may send nothing: it is asked as one that was silent before.
    pub fn suspect(&mut self, link: LinkId) {
        self.with_source(link, |source| source.snubs = source.snubs.max(1));
    }

    /// A link is gone: what was asked of it is free again.
    pub fn link_removed(&mut self, link: LinkId) -> Released {
        self.set_has(link, Has::Nothing);
        let Some(source) = self.sources.remove(link) else {
            return Released::default();
        };
        self.hungry.take(link);
        self.live -= source.live_bytes;
        if !source.is_proven() {
            self.unproven -= 1;
            self.doubtful -= source.live_bytes;
        }
        self.snubbed -= usize::from(source.snubs > 0);
        self.turn_takers -= usize::from(source.takes_turns());
        let led = self.led_by(link);
        let mut released = self.release(link, source.live_asks().map(|ask| ask.block), led);
        self.forget_unobtainable(&mut released);
        released
    }

    /// A link's chunks, said all at once. O(chunks) for a partial owner, O(1)
    /// for a seeder.
    pub fn link_has(&mut self, link: LinkId, has: Has) {
        let has = match has {
            Has::Some(chunks) if chunks.is_complete() => Has::All,
            Has::Some(chunks) if chunks.is_empty() => Has::Nothing,
            has => has,
        };
        if let Some(source) = self.sources.get_mut(link) {
            source.said = true;
        }
        self.set_has(link, has);
    }

    /// The other side would like to be asked for a chunk: it is, if no other
    /// is rarer. Only the latest few suggestions count.
    pub fn suggested(&mut self, link: LinkId, chunk: ChunkIndex) {
        if self.grid.geometry().contains(chunk)
            && let Some(source) = self.sources.get_mut(link)
        {
            if source.suggested.len() == MAX_SUGGESTED {
                source.suggested.pop_front();
            }
            source.suggested.push_back(chunk);
        }
    }

    /// Whether a link has something to be asked for now; if not, it is hungry.
    pub fn has_free(&mut self, now: Instant, link: LinkId) -> bool {
        let free = !self.passes_over(now, link) && self.offers(link);
        if !free && self.sources.contains(link) {
            self.hungry.add(link);
        }
        free
    }

    fn offers(&self, link: LinkId) -> bool {
        let source = self.sources.get(link).filter(|_| self.may_open());
        let waits = source.is_some_and(|s| match &s.has {
            Has::Nothing => false,
            Has::Some(_) => s.candidates > 0,
            Has::All => !self.picker.is_empty(),
        });
        waits
            || self
                .joinable(link, false)
                .or(self.joinable(link, true))
                .is_some()
    }

    /// A link has one more chunk. O(1).
    pub fn link_gained(&mut self, link: LinkId, chunk: ChunkIndex) {
        let Some(source) = self.sources.get_mut(link) else {
            return;
        };
        match &mut source.has {
            Has::All => {}
            Has::Nothing => {
                let mut chunks = Bitfield::none(self.grid.geometry().chunks());
                chunks.insert(chunk);
                self.link_has(link, Has::Some(chunks));
            }
            Has::Some(chunks) => {
                if !chunks.insert(chunk) {
                    return;
                }
                source.wanted += u32::from(self.states[chunk.as_usize()] != State::Stored);
                if chunks.is_complete() && !source.unreliable {
                    let chunks = chunks.clone();
                    self.set_partial_copies(&chunks, false, Some(chunk));
                    if let Some(source) = self.sources.get_mut(link) {
                        source.has = Has::All;
                    }
                    self.partial -= 1;
                    self.homes_valid = false;
                } else {
                    source.candidates += u32::from(self.picker.is_waiting(chunk));
                    self.picker.gained(chunk);
                }
            }
        }
    }

    /// Whether a link answers requests. One that does not leads no chunk but
    /// those of which something is on its way, for nothing would tell when to
    /// stop waiting for it; see [`leads_no_more`](Self::leads_no_more).
    pub fn link_choked(&mut self, link: LinkId, choked: bool) -> Released {
        let Some(source) = self.sources.get_mut(link) else {
            return Released::default();
        };
        self.turn_takers += usize::from(choked && !source.takes_turns());
        source.choked(choked);
        if !choked {
            return Released::default();
        }
        self.leads_no_more(link)
    }

    /// Leaves the chunks of which nothing is on its way from a link to others:
    /// for a choked one, when something has come.
    pub fn leads_no_more(&mut self, link: LinkId) -> Released {
        let mut led = self.led_by(link);
        if let Some(source) = self.sources.get_mut(link) {
            let comes = |chunk| source.live_asks().any(|ask| ask.block.chunk == chunk);
            led.retain(|&chunk| !comes(chunk));
            source.lead = source.lead.filter(|lead| !led.contains(lead));
        }
        self.release(link, [], led)
    }

    /// Whether a link has a chunk that is not stored yet.
    pub fn is_useful(&self, link: LinkId) -> bool {
        self.sources
            .get(link)
            .is_some_and(|source| match &source.has {
                Has::Nothing => false,
                Has::All => !self.is_done(),
                Has::Some(_) => source.wanted > 0,
            })
    }

    /// A link lacks a chunk after all. A seeder becomes a partial owner for
    /// good, so that going back and forth is not paid for by the content's
    /// length.
    pub(super) fn lost(&mut self, link: LinkId, chunk: ChunkIndex) {
        let Some(source) = self.sources.get_mut(link) else {
            return;
        };
        if source.has == Has::All {
            source.unreliable = true;
            let mut has = Bitfield::all(self.grid.geometry().chunks());
            has.remove(chunk);
            self.set_has(link, Has::Some(has));
        } else if let Has::Some(has) = &mut source.has
            && has.remove(chunk)
        {
            source.candidates -= u32::from(self.picker.is_waiting(chunk));
            source.wanted -= u32::from(self.states[chunk.as_usize()] != State::Stored);
            self.picker.lost(chunk);
        }
    }

    pub(super) fn set_has(&mut self, link: LinkId, has: Has) {
        let Some(source) = self.sources.get_mut(link) else {
            return;
        };
        let before = std::mem::replace(&mut source.has, has.clone());
        (source.candidates, source.wanted) = match &has {
            Has::Some(has) => {
                let wanted = |chunk: &ChunkIndex| self.states[chunk.as_usize()] != State::Stored;
                (
                    self.picker.waiting().iter_common(has, 0).count() as u32,
                    has.iter().filter(wanted).count() as u32,
                )
            }
            _ => (0, 0),
        };
        source.home = 0..0;
        self.homes_valid = false;
        for (has, gained) in [(before, false), (has, true)] {
            if let Has::Some(chunks) = has {
                self.set_partial_copies(&chunks, gained, None);
                if gained {
                    self.partial += 1;
                } else {
                    self.partial -= 1;
                }
            }
        }
    }

    pub(super) fn set_partial_copies(
        &mut self,
        chunks: &Bitfield,
        gained: bool,
        except: Option<ChunkIndex>,
    ) {
        for chunk in chunks.iter().filter(|&chunk| Some(chunk) != except) {
            if gained {
                self.picker.gained(chunk);
            } else {
                self.picker.lost(chunk);
            }
        }
    }
}
