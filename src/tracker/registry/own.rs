//! Who owns what: where an ownership begins, is listed, and ends.

use std::time::Instant;

use super::Registry;
use super::compact::Compact;
use super::owners::Owner;
use super::peers::{Ownership, UNLISTED};
use crate::protocol::{OwnEntry, OwnState, Refusal, Token, TrackerReply};

impl Registry {
    /// Puts an unlisted ownership onto its content's list.
    pub(super) fn list(&mut self, slot: u32, place: u32) {
        let ownership = self.peers[slot].owned.as_slice()[place as usize];
        let content = &mut self.contents[ownership.content];
        content.unlisted -= 1;
        let owner = Owner { peer: slot, place };
        content.owners.insert(owner, &mut self.peers);
    }

    /// The opposite of [`list`](Self::list).
    pub(super) fn unlist(&mut self, slot: u32, place: u32) {
        let ownership = self.peers[slot].owned.as_slice()[place as usize];
        let content = &mut self.contents[ownership.content];
        content.unlisted += 1;
        content.owners.remove(ownership.pos, &mut self.peers);
        // Last, for the removal moves it first.
        self.peers[slot].owned.as_mut_slice()[place as usize].pos = UNLISTED;
    }

    pub(super) fn own(
        &mut self,
        now: Instant,
        token: &Token,
        entries: &[OwnEntry],
    ) -> Result<TrackerReply, Refusal> {
        let peer = self.authenticate(now, token)?;
        let mut outcome = Ok(TrackerReply::Done);
        for entry in entries {
            let applied = match entry.state {
                OwnState::Complete => self.own_one(peer, entry, true),
                OwnState::Partial => self.own_one(peer, entry, false),
                OwnState::Gone => {
                    self.disown_id(peer, entry);
                    Ok(())
                }
            };
            if let (Err(refusal), true) = (applied, outcome.is_ok()) {
                outcome = Err(refusal);
            }
        }
        outcome
    }

    fn own_one(&mut self, slot: u32, entry: &OwnEntry, complete: bool) -> Result<(), Refusal> {
        let content = self.contents.by_id(&entry.id);
        let owned = &self.peers[slot].owned;
        let place = content.and_then(|content| owned.place(content));
        if place.is_none() {
            self.check_quotas(content, owned.as_slice().len())?;
        }
        self.contents
            .check_name(content, &entry.name, &self.config)?;
        let content = content.unwrap_or_else(|| self.contents.insert(entry.id, entry.length));
        let name = self.contents.use_name(content, &entry.name);
        if complete {
            self.contents[content].length = entry.length;
        }
        match place {
            Some(place) => {
                let ownership = &mut self.peers[slot].owned.as_mut_slice()[place as usize];
                let old = std::mem::replace(&mut ownership.name, name);
                ownership.complete = complete;
                self.contents.release_name(content, old);
            }
            None => {
                self.ownerships += 1;
                self.contents[content].unlisted += 1;
                let peer = &mut self.peers[slot];
                let place = peer.owned.push(Ownership {
                    content,
                    pos: UNLISTED,
                    name,
                    complete,
                });
                if peer.addr != Compact::None {
                    self.list(slot, place);
                }
            }
        }
        Ok(())
    }

    fn check_quotas(&self, content: Option<u32>, owned: usize) -> Result<(), Refusal> {
        let max = self.config.max_contents_per_peer;
        if owned >= max as usize {
            return Err(Refusal::ContentsPerPeer { max });
        }
        if let Some(content) = content {
            let max = self.config.max_owners_per_content;
            if self.contents[content].owner_count() >= max as usize {
                return Err(Refusal::OwnersPerContent { max });
            }
        } else {
            let max = self.config.max_contents;
            if self.contents.len() >= max as usize {
                return Err(Refusal::Contents { max });
            }
        }
        Ok(())
    }

    fn disown_id(&mut self, slot: u32, entry: &OwnEntry) {
        let content = self.contents.by_id(&entry.id);
        if let Some(place) = content.and_then(|content| self.peers[slot].owned.place(content)) {
            self.disown(slot, place);
        }
    }

    /// The one place where an ownership ends.
    pub(super) fn disown(&mut self, slot: u32, place: u32) {
        if self.peers[slot].owned.as_slice()[place as usize].pos != UNLISTED {
            self.unlist(slot, place);
        }
        let owned = &mut self.peers[slot].owned;
        let gone = owned.swap_remove(place);
        if let Some(moved) = owned.as_slice().get(place as usize)
            && moved.pos != UNLISTED
        {
            let owners = &mut self.contents[moved.content].owners;
            owners.set_place(moved.pos, place);
        }
        self.ownerships -= 1;
        self.contents[gone.content].unlisted -= 1;
        self.contents.release_name(gone.content, gone.name);
        self.contents.remove_if_unowned(gone.content);
    }
}
