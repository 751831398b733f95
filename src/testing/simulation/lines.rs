//! The lines of a simulated network: uplinks, downlinks, and the order of what
//! travels on them.

use std::time::Duration;

use super::{Member, Outgoing, Simulation, What};
use crate::peer::swarm::LinkId;
use crate::protocol::PeerMessage;

impl Simulation {
    pub(super) fn send(&mut self, from: Member, link: LinkId, message: PeerMessage) {
        let now = self.epoch + self.now;
        let state = &mut self.members[from.0];
        let Some(wire) = state.links.get_mut(link) else {
            return;
        };
        let bytes = match &message {
            PeerMessage::Block { data, .. } => data.len() as u64,
            _ => 0,
        };
        if bytes == 0 && (wire.queued == 0 || state.rides) {
            let at = (self.now + self.latency).max(wire.last_delivery);
            wire.last_delivery = at;
            let (to, link_there) = (wire.to, wire.link);
            state.machine.messages_sent(now, link, 1, 0);
            let deliver = What::Deliver {
                to,
                link: link_there,
                message,
            };
            return self.schedule(at, deliver);
        }
        wire.queued += 1;
        state.uplink.push_back(Outgoing {
            link,
            message,
            bytes,
        });
        if state.uplink.len() == 1 {
            state.remaining = bytes as f64;
            state.since = self.now;
            self.plan_uplink(from);
        }
    }

    /// The uplink's first is out: it arrives, and the next one starts.
    pub(super) fn sent(&mut self, from: Member) {
        let now = self.epoch + self.now;
        let state = &mut self.members[from.0];
        let Some(Outgoing {
            link,
            message,
            bytes,
        }) = state.uplink.pop_front()
        else {
            return;
        };
        state.remaining = state.uplink.front().map_or(0.0, |next| next.bytes as f64);
        state.since = self.now;
        if let Some(wire) = state.links.get_mut(link) {
            wire.queued -= 1;
            let (to, link_there, last) = (wire.to, wire.link, wire.last_delivery);
            let receiver = &mut self.members[to.0];
            let drained =
                receiver.downlink_free + Duration::from_secs_f64(bytes as f64 / receiver.download);
            let at = (self.now + self.latency).max(drained).max(last);
            if bytes > 0 {
                receiver.downlink_free = at;
            }
            let state = &mut self.members[from.0];
            if let Some(wire) = state.links.get_mut(link) {
                wire.last_delivery = at;
            }
            state.machine.messages_sent(now, link, 1, bytes);
            let deliver = What::Deliver {
                to,
                link: link_there,
                message,
            };
            self.schedule(at, deliver);
        }
        self.plan_uplink(from);
        self.settle(from);
    }

    /// Books what the uplink has sent of its first since it was last looked at.
    pub(super) fn progress_uplink(&mut self, member: Member) {
        let state = &mut self.members[member.0];
        let time = (self.now - state.since).as_secs_f64();
        state.remaining = (state.remaining - time * state.upload).max(0.0);
        state.since = self.now;
    }

    pub(super) fn plan_uplink(&mut self, member: Member) {
        let state = &mut self.members[member.0];
        state.plan += 1;
        if state.uplink.is_empty() || state.upload <= 0.0 {
            return;
        }
        let plan = state.plan;
        let at = self.now + Duration::from_secs_f64(state.remaining / state.upload);
        self.schedule(at, What::Sent { from: member, plan });
    }
}
