//! What machines ask for, and how a simulation does it.

use std::time::Duration;

use super::places::Place;
use super::script::Script;
use super::{Member, Simulation, What};
use crate::content::Bitfield;
use crate::peer::swarm::Output;
use crate::protocol::Addr;

/// How long a dial waits where nobody is, in chunk times of who had such
/// addresses listed.
const UNANSWERED: u32 = 20;

impl Simulation {
    /// Does what a machine asks for, and sets its timer.
    pub(super) fn settle(&mut self, member: Member) {
        if std::mem::replace(&mut self.members[member.0].busy, true) {
            return;
        }
        while let Some(output) = self.members[member.0].machine.poll_output() {
            self.act(member, output);
        }
        let state = &mut self.members[member.0];
        state.busy = false;
        let due = state.machine.poll_timeout();
        let due = due.map(|due| due.saturating_duration_since(self.epoch).max(self.now));
        // A timer that is early looks again when it fires.
        if let Some(due) = due
            && state.timer.is_none_or(|timer| due < timer)
        {
            state.timer = Some(due);
            self.schedule(due, What::Timer(member));
        }
    }

    fn act(&mut self, member: Member, output: Output) {
        let now = self.epoch + self.now;
        let state = &mut self.members[member.0];
        match output {
            Output::Send { link, message } => self.send(member, link, message),
            Output::Dial { addr } => self.dialled(member, addr),
            Output::Drop { link, .. } => {
                if let Some(wire) = state.links.remove(link) {
                    let what = What::Down {
                        of: wire.to,
                        link: wire.link,
                    };
                    self.schedule(self.now + self.latency, what);
                }
            }
            Output::FindOwners => {
                self.schedule(self.now + 2 * self.latency, What::Owners(member));
            }
            Output::Read { link, block } => {
                let data = self.zeros.slice(..block.len as usize);
                state.machine.block_read(now, link, block, data);
            }
            Output::Announce(_) => self.list(member),
            output => self.store(member, output),
        }
    }

    /// Does at once what a download asks its storage for.
    fn store(&mut self, member: Member, output: Output) {
        let now = self.epoch + self.now;
        let state = &mut self.members[member.0];
        let Some(swarm) = state.machine.honest() else {
            return;
        };
        match output {
            Output::CheckManifest { link, claim } => {
                swarm.manifest_checked(now, link, claim.check());
            }
            Output::Open(manifest) => {
                let none = Bitfield::none(manifest.geometry().chunks());
                swarm.opened(now, &none, &none);
            }
            Output::Verify { chunk, .. } => swarm.chunk_verified(now, chunk, true),
            Output::Store { chunk, .. } => swarm.chunk_stored(now, chunk),
            Output::Commit { .. } => swarm.committed(now),
            Output::Finish => {
                swarm.finished(now);
                state.finished = Some(self.now);
                self.leeching -= 1;
            }
            _ => {}
        }
    }

    fn dialled(&mut self, from: Member, addr: Addr) {
        let to = Place::at(&addr);
        if to.port == 0 {
            let to = to.member;
            return self.schedule(self.now + 2 * self.latency, What::Dial { from, to });
        }
        let squatter = self.members[to.member.0].machine.script();
        let chunk_time = squatter.map_or(Duration::ZERO, Script::chunk_time);
        let at = self.now + UNANSWERED * chunk_time;
        self.schedule(at, What::Unanswered { from, addr });
    }
}
