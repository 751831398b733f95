//! Who is named in the answer to NEED.

use std::time::Instant;

use super::Registry;
use super::compact::Compact;
use crate::protocol::limits::{MAX_AMBIGUOUS, MAX_OWNERS};
use crate::protocol::{ContentKey, Found, ListedOwner, TrackerReply};

impl Registry {
    /// The answer about a content that is there: its owners, the fastest
    /// first.
    pub(super) fn found(
        &mut self,
        now: Instant,
        asker: u32,
        content: u32,
        key: &ContentKey,
        max_owners: usize,
    ) -> Found {
        let bound = self.config.max_owners.min(MAX_OWNERS);
        let k = max_owners.min(bound.into());
        let fast = self.config.fast_places(k);
        let tick = self.wheel.tick_at(now);
        let Self {
            contents,
            peers,
            texts,
            rng,
            ..
        } = self;
        let content_slot = &contents[content];
        let own_addr = peers[asker].addr;
        let mut taken: Vec<Compact> = Vec::with_capacity(k);
        let mut owners = Vec::with_capacity(k.min(content_slot.owners.len()));
        let offer = |owner: super::Owner| {
            let peer = &peers[owner.peer];
            let addr = peer.addr;
            // Whoever is listed has an address: the asker is recognized by its.
            let fit = peer.deadline > tick
                && !texts.same(addr, own_addr)
                && !taken.iter().any(|&other| texts.same(addr, other));
            if fit && let Some(listed) = texts.addr(addr) {
                taken.push(addr);
                let complete = peer.owned.as_slice()[owner.place as usize].complete;
                owners.push(ListedOwner {
                    owner: peers.owner_ref(owner.peer),
                    addr: listed,
                    complete,
                });
                return true;
            }
            false
        };
        let list = &content_slot.owners;
        if k > 0 {
            list.choose(rng, fast, k - fast, &*peers, offer);
        }
        let name = match key {
            ContentKey::Name(name) => name.clone(),
            ContentKey::Id(_) => contents
                .any_name(content)
                .expect("each of a content's owners has a name for it")
                .clone(),
        };
        Found {
            id: content_slot.id,
            name,
            length: content_slot.length,
            owners,
        }
    }

    /// The answer about a name of several contents.
    pub(super) fn ambiguous(&self, contents: &[u32]) -> TrackerReply {
        let listed = contents.iter().take(MAX_AMBIGUOUS);
        let listed = listed.map(|&content| &self.contents[content]);
        TrackerReply::Ambiguous(listed.map(|content| (content.id, content.length)).collect())
    }
}
