//! Checks the machine's outputs, and what must hold after every step.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{LinkId, Output, SwarmEvent};
use bt_lite::protocol::limits::HANDSHAKE_TIMEOUT;
use bt_lite::protocol::{Addr, OwnState};
use bt_lite::testing::machine::BlockLayout;

use super::{Observer, Seen};

/// What was asked for before a pause may come for this long.
const ARRIVES: Duration = Duration::from_secs(2);

/// A link with this many queued messages is told of chunks later.
const MAX_QUEUED_HAVES: usize = 256;

impl Observer {
    pub(crate) fn output(&mut self, output: &Output) {
        match output {
            Output::Send { link, message } => self.said(*link, message),
            Output::Dial { addr } => {
                assert!(!self.seeding, "a seeder dials");
                assert_eq!(self.paused, None, "a paused download dials");
                let named = self.named.contains(addr);
                assert!(
                    named || self.proved.contains(addr),
                    "dials an address that nobody named"
                );
                assert!(!self.banned_addrs.contains(addr), "dials a banned address");
                let at = |seen: &&Seen| seen.info.addr.as_ref() == Some(addr);
                let linked = self.links.values().filter(at);
                for seen in linked {
                    // An address that a link only claims is dialled anyway, if
                    // the tracker named it and nothing arrives.
                    let starving = self.is_starving();
                    assert!(!seen.solid, "dials a linked address");
                    assert!(
                        !seen.claims || named && starving,
                        "dials an address that a link claims"
                    );
                }
                self.untried.remove(addr);
                for seen in self.links.values_mut() {
                    seen.claims &= seen.info.addr.as_ref() != Some(addr);
                }
                assert!(self.dialling.insert(addr.clone()), "dials an address twice");
                // A dial to an address that was banned meanwhile yields no link.
                let banned = |addr: &&Addr| self.banned_addrs.contains(*addr);
                let dialling = self.dialling.len() - self.dialling.iter().filter(banned).count();
                // If nothing arrives, one more dial may replace an accepted link.
                let accepted = self.links.values().any(|seen| !seen.info.dialled);
                let one_more = self.links.len() == self.max_links
                    && dialling == 1
                    && accepted
                    && self.is_starving();
                // A dialled link may also replace an old blank link.
                let old = self.old_lately();
                let places = self.max_links + old.min(self.links.len());
                assert!(one_more || self.links.len() + dialling <= places);
            }
            Output::Drop { link, reason } => self.dropped(*link, *reason),
            Output::FindOwners => {
                assert!(!self.seeding && !self.finding, "looks for owners twice");
                assert_eq!(self.paused, None, "a paused download looks for owners");
                self.finding = true;
            }
            Output::Open(manifest) => {
                assert_eq!(manifest.id(), self.sample.manifest.id());
                assert!(!self.opening && !self.opened, "opens twice");
                self.opening = true;
                self.last_gain = self.now;
            }
            Output::Verify { chunk, pieces, .. } => {
                assert!(!self.stored.contains(chunk) && !self.storing.contains_key(chunk));
                let suspect = self.suspects.contains_key(chunk);
                let senders = self.senders(pieces).len();
                assert!(
                    !suspect || senders == 1,
                    "a second copy has several senders"
                );
                assert!(senders >= 1 || pieces.iter().all(|piece| piece.is_empty()));
                let before = self.verifying.insert(*chunk, pieces.clone());
                assert_eq!(before, None, "verifies a chunk twice at a time");
            }
            Output::Recheck { chunk } => {
                assert_eq!(self.held.insert(*chunk, true), Some(false));
            }
            Output::Store { chunk, pieces } => {
                assert_eq!(
                    self.storing.get(chunk),
                    Some(pieces),
                    "stores unverified bytes"
                );
            }
            Output::Read { link, block } => {
                assert!(
                    self.stored.contains(&block.chunk),
                    "reads a chunk that is not stored"
                );
                let before: u64 = self.links.values().map(|seen| seen.under_way).sum();
                let block_len = BlockLayout::of(self.sample.manifest.geometry()).block_len();
                assert!(
                    before < self.send_window.max(block_len),
                    "reads though the send window is full"
                );
                let seen = self
                    .links
                    .get_mut(link)
                    .expect("reads for a link that is not up");
                seen.reading.push(*block);
                if seen.under_way == 0 {
                    seen.moved = Some(self.now);
                }
                seen.under_way += u64::from(block.len);
                for block in &seen.reading {
                    let times = |list: &[BlockRange]| list.iter().filter(|b| *b == block).count();
                    assert!(
                        times(&seen.reading) <= times(&seen.theirs),
                        "reads a block that was not requested"
                    );
                }
            }
            Output::Commit { verified } => {
                assert!(!self.committing && !self.finishing && !self.seeding);
                let kept: BTreeSet<_> = self.stored.iter().chain(self.held.keys()).collect();
                assert!(verified.iter().eq(kept.into_iter().copied()));
                self.committing = true;
            }
            Output::Finish => {
                assert!(!self.finishing && !self.committing && !self.seeding);
                assert_eq!(self.stored.len(), self.chunks() as usize);
                self.finishing = true;
            }
            Output::Announce(OwnState::Partial) => {
                assert!(!self.partial && !self.complete);
                assert_ne!(self.paused, Some(false), "offers what it does not serve");
                self.partial = true;
            }
            Output::Announce(OwnState::Gone) => {
                assert!(self.partial && self.paused == Some(false));
                self.partial = false;
            }
            Output::Announce(OwnState::Complete) => {
                assert!(self.seeding && !self.complete);
                self.complete = true;
            }
            Output::Credit { bytes: 0, .. } => {}
            Output::Credit { owner, bytes } => {
                assert_eq!(self.credits.remove(owner), Some(*bytes));
            }
            Output::Stalled(reason) => {
                assert!(!self.seeding, "a seeder stalls");
                assert_eq!(self.paused, None, "a paused download stalls");
                let before = self.stalled.replace(*reason);
                assert_ne!(before, Some(*reason), "says twice that it stalls");
                let quiet = self.now.duration_since(self.last_gain);
                assert!(quiet >= Duration::from_secs(2), "stalls after {quiet:?}");
            }
            Output::Resumed => {
                assert!(self.stalled.take().is_some(), "resumes what goes on");
            }
            Output::GaveUp(_) => {
                assert!(!self.seeding && !self.gave_up, "gives up twice");
                assert_eq!(self.paused, None, "a paused download gives up");
                if !self.opened && !self.opening {
                    let tried = !self.links.values().any(Seen::may_have_manifest);
                    assert!(tried, "gives up while a link may still send the manifest");
                    let room = self.links.len() < self.max_links;
                    let untried = self.untried.iter().any(|addr| !self.is_claimed(addr));
                    assert!(!(room && untried), "gives up before every owner was tried");
                }
                self.gave_up = true;
            }
            Output::Event(event) => self.happened(event),
            other => panic!("unexpected output: {other:?}"),
        }
    }

    /// Who watches is told of each owner that joins and leaves once, and of each liar
    /// once.
    fn happened(&mut self, event: &SwarmEvent) {
        match event {
            SwarmEvent::OwnerJoined(owner) => {
                self.owners.push(owner.clone());
                assert!(
                    self.owners.len() <= self.links.len(),
                    "an owner without a link"
                );
            }
            SwarmEvent::OwnerLeft { owner, .. } => {
                let at = self.owners.iter().position(|other| other == owner);
                self.owners.swap_remove(at.expect("it joined before"));
            }
            SwarmEvent::Banned(banned) => {
                assert!(!self.seeding, "a seeder bans nobody");
                assert!(!self.banned.contains(&banned.peer), "it was told before");
                self.banned.push(banned.peer.clone());
            }
            other => panic!("unexpected event: {other:?}"),
        }
    }

    /// The deadlines of the links that have not said yet what they have.
    pub(crate) fn unsaid(&self) -> impl Iterator<Item = Instant> {
        let unsaid = self.links.values().filter(|seen| !seen.said);
        unsaid.map(|seen| seen.since + HANDSHAKE_TIMEOUT)
    }

    /// Checks what must hold after all outputs of a step.
    pub(crate) fn settled(&mut self) {
        let up = |link: &LinkId| self.links.contains_key(link);
        assert!(!self.caught.iter().any(up), "a link that lied is still up");
        assert!(
            !self.duplicate.iter().any(up),
            "a duplicate link is still up"
        );
        let refused = self.fresh.filter(|_| self.must_refuse);
        assert!(!refused.iter().any(up), "a link that must be refused is up");
        let mut must_go = std::mem::take(&mut self.must_go).into_iter();
        assert!(!must_go.any(|link| up(&link)), "a useless link is still up");
        for seen in self.links.values() {
            assert!(
                seen.to_prove.is_empty(),
                "owes a proof that two links are of one peer"
            );
            assert_ne!(seen.info.peer, Some(self.me));
        }
        for (link, chunk) in std::mem::take(&mut self.owed_haves) {
            let seen = self
                .links
                .get(&link)
                .filter(|s| s.queued.len() < MAX_QUEUED_HAVES);
            assert!(
                seen.is_none_or(|seen| seen.told.contains(&chunk)),
                "a chunk is not announced to its sender"
            );
        }
        (self.fresh, self.duplicate) = (None, None);
        self.parts = false;
        if self.paused.is_some() {
            let counts = |seen: &Seen| seen.asked.iter().any(|(_, cancelled)| !cancelled);
            assert!(
                !self.links.values().any(counts),
                "a paused download waits for a block"
            );
            let mut links = self.links.values();
            let comes = |seen: &Seen| self.arriving && !seen.asked.is_empty();
            assert!(self.paused == Some(true) || links.all(comes));
            let over = self.now >= self.paused_at + ARRIVES;
            self.arriving &= !over && !self.links.values().all(|seen| seen.asked.is_empty());
            let wants = |seen: &Seen| seen.asked.is_empty() && !seen.declined;
            assert!(
                !self.links.values().any(wants),
                "a paused download wants something"
            );
        }
        (self.came_before, self.promoted_before) = (self.came, self.promoted);
        self.old_lately();
        assert!(self.links.len() <= self.max_links);
        assert!(self.credits.is_empty(), "a sender is not credited");
        assert!(
            !self.links.values().any(|seen| seen.must_go),
            "a link that broke the protocol is still up"
        );
        let rests = self.paused == Some(false);
        assert!(self.stored.is_empty() || self.partial || self.seeding || rests);
    }

    /// Checks what must hold when all reads and sends are done.
    pub(crate) fn drained(&self) {
        assert!(self.links.values().all(|seen| seen.theirs.is_empty()));
        assert!(self.links.values().all(|seen| seen.greeted));
        assert!(self.links.values().all(|seen| seen.pages_asked.is_empty()));
        let needs = |seen: &Seen| seen.has.len() < self.chunks() as usize;
        for seen in self.links.values().filter(|seen| needs(seen)) {
            assert_eq!(seen.told, self.stored, "not every chunk is announced");
        }
        let mut links = self.links.values();
        let first = |seen: &Seen| self.first.is_none_or(|first| seen.told.contains(&first));
        assert!(
            links.all(first),
            "the first chunk is not announced to every link"
        );
    }
}
