//! The limit of a download: what it lets pass, what waits for it, and since when it holds
//! the download up. The uploads have their own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::peer::swarm::LinkId;
use crate::peer::swarm::gate::{Allowance, Direction, Gate};
use crate::peer::swarm::page_asks::PageAsks;
use crate::peer::swarm::throughput::Throughput;
use crate::protocol::HostKey;

/// A limit bounds a download that it held up for this part of the last seconds, in
/// microseconds of each second.
const BOUNDS: u64 = 500_000;

/// The limit of a download, if there is one.
#[derive(Debug, Default)]
pub(super) struct DownloadLimit {
    gate: Option<Box<Gate>>,
    pages: PageAsks,
    /// Since when nothing more is asked for because of the limit.
    held_since: Option<Instant>,
    holding: Option<Holding>,
}

/// How much of the time requests wait for the limit.
#[derive(Debug, Clone)]
struct Holding {
    /// Since when some wait.
    since: Option<Instant>,
    /// The microseconds in which some did.
    of_late: Throughput,
}

impl DownloadLimit {
    /// Sets whether there is a limit.
    pub(super) fn set(&mut self, now: Instant, limited: bool) {
        if !limited {
            self.gate = None;
            self.holding = None;
        } else if self.gate.is_none() {
            self.gate = Some(Box::new(Gate::new(Direction::Download)));
            self.holding = Some(Holding {
                since: None,
                of_late: Throughput::new(now),
            });
        }
    }

    /// Whether there is a limit.
    pub(super) fn is_set(&self) -> bool {
        self.gate.is_some()
    }

    /// What requests for blocks have to pass.
    pub(super) fn gate(&mut self) -> Option<&mut Gate> {
        self.gate.as_deref_mut()
    }

    /// Whether so many bytes of a host may be asked for.
    pub(super) fn covers(&self, host: &HostKey, bytes: u64) -> bool {
        let gate = self.gate.as_ref();
        gate.is_none_or(|gate| gate.covers(host, bytes))
    }

    // The pages of the manifest.

    /// A page is to be asked for, as soon as that is allowed.
    pub(super) fn page_waits(&mut self, link: LinkId, page: u32) {
        self.pages.push(link, page);
    }

    /// Whether some pages wait.
    pub(super) fn holds_pages(&self) -> bool {
        self.pages.is_waiting()
    }

    /// Takes all pages that wait.
    pub(super) fn take_pages(&mut self) -> VecDeque<(LinkId, u32)> {
        self.pages.take_waiting()
    }

    /// Whether a page of so many bytes may be asked for now. If so, it counts. If not, it
    /// waits.
    pub(super) fn page_passes(
        &mut self,
        (link, page): (LinkId, u32),
        host: &HostKey,
        bytes: u64,
    ) -> bool {
        let Some(gate) = &mut self.gate else {
            return true;
        };
        let passes = gate.admits(host, bytes);
        if passes {
            gate.spend(host, bytes);
            self.pages.counted(link, page, bytes);
        } else {
            self.pages.push(link, page);
        }
        passes
    }

    /// A page was answered.
    pub(super) fn page_answered(&mut self, link: LinkId, page: u32) {
        self.pages.answered(link, page);
    }

    /// A page will not come.
    pub(super) fn page_rejected(&mut self, link: LinkId, page: u32, host: Option<&HostKey>) {
        let counted = self.pages.answered(link, page);
        self.give_back(host, counted);
    }

    /// A link is gone, and so many bytes of blocks that it was asked for will not come.
    pub(super) fn link_removed(&mut self, link: LinkId, host: Option<&HostKey>, bytes: u64) {
        let pages = self.pages.link_removed(link);
        self.give_back(host, bytes + pages);
    }

    // What is allowed.

    /// Bytes that a host was asked for will not come.
    pub(super) fn give_back(&mut self, host: Option<&HostKey>, bytes: u64) {
        if let (Some(gate), Some(host)) = (&mut self.gate, host) {
            gate.give_back(host, bytes);
        }
    }

    /// A wish comes true.
    pub(super) fn allow(&mut self, now: Instant, allowance: &Allowance) {
        if let Some(gate) = &mut self.gate {
            gate.allow(now, allowance);
        }
    }

    pub(super) fn poll_wish(&mut self) -> Option<Allowance> {
        self.gate.as_mut()?.poll_wish()
    }

    pub(super) fn poll_returned(&mut self) -> Option<Allowance> {
        self.gate.as_mut()?.poll_returned()
    }

    /// Gives back what nobody uses.
    pub(super) fn reclaim(&mut self, now: Instant) {
        if let Some(gate) = &mut self.gate {
            gate.reclaim(now);
        }
    }

    /// Notes whether requests wait for it.
    pub(super) fn note(&mut self, now: Instant, waits: bool) {
        if let Some(holding) = &mut self.holding {
            holding.count(now);
            holding.since = waits.then_some(now);
        }
    }

    /// Whether it bounds the download: whether requests waited for it most of the time of
    /// late.
    pub(super) fn bounds(&self, now: Instant) -> bool {
        let Some(mut holding) = self.holding.clone() else {
            return false;
        };
        holding.count(now);
        holding.of_late.rate(now) >= BOUNDS
    }

    /// Notes whether the limit holds the download up. Returns for how long it did, if it
    /// does no more.
    pub(super) fn holds(&mut self, now: Instant, held: bool) -> Option<Duration> {
        match (held, self.held_since) {
            (true, None) => self.held_since = Some(now),
            (false, Some(since)) => {
                self.held_since = None;
                return Some(now.saturating_duration_since(since));
            }
            _ => {}
        }
        None
    }
}

impl Holding {
    /// Counts the time until now.
    fn count(&mut self, now: Instant) {
        if let Some(since) = self.since.replace(now) {
            let time = now.saturating_duration_since(since).as_micros();
            self.of_late
                .add(now, u64::try_from(time).unwrap_or(u64::MAX));
        } else {
            self.since = None;
        }
    }
}
