//! Which links are asked for the manifest, and when.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bt_lite::peer::swarm::LinkId;

use super::outputs::ARRIVES;
use super::{Observer, Run, Seen};

/// The earliest time after which one more link is asked for the manifest.
const HEDGE: Duration = Duration::from_millis(500);

/// The time after which one more link is asked even if pages arrive.
const STEADY: Duration = Duration::from_secs(1);

/// How many links are asked for the length at once.
const AT_ONCE: usize = 4;

/// How long a manifest page may take on the first attempt.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

impl Observer {
    /// Time has passed. Links that were too slow with the manifest lose their
    /// attempt. Links that were too slow at least twice and sent nothing must go. Of a pause,
    /// what may still come has come by then.
    pub(crate) fn timeout(&mut self) {
        self.has_arrived = self.now >= self.paused_at + ARRIVES;
        if self.opened || self.opening {
            return;
        }
        for (link, seen) in &mut self.links {
            let late = |run: &mut Run| run.deadline <= self.now;
            if let Some(run) = seen.run.take_if(late) {
                seen.slow += 1;
                if seen.slow >= 2 && run.came.is_empty() {
                    self.must_go.insert(*link);
                }
            }
        }
    }

    /// The earliest time at which one more link is asked for the manifest. `None`
    /// means at once.
    pub(super) fn next_run(&self) -> Option<Instant> {
        let runs = self.links.values().filter_map(|seen| seen.run.as_ref());
        let nothing = runs.clone().all(|run| run.came.is_empty());
        if nothing && runs.count() < AT_ONCE {
            return None;
        }
        self.started.map(|started| self.pause_behind(started))
    }

    /// The earliest time at which one more link that has sent the length is asked
    /// for the rest. `None` means at once.
    fn next_promotion(&self) -> Option<Instant> {
        self.promoted.map(|promoted| self.pause_behind(promoted))
    }

    fn pause_behind(&self, asked: Instant) -> Instant {
        let last = self.came.map_or(asked, |came| came.max(asked));
        (last + HEDGE).min(asked + STEADY)
    }

    /// When the next link must be asked for more of the manifest, or becomes too
    /// slow.
    pub(crate) fn manifest_due(&self) -> Option<Instant> {
        if self.opened || self.opening || self.paused.is_some() {
            return None;
        }
        let runs = self.links.values().filter_map(|seen| seen.run.as_ref());
        let has_spare = runs.clone().any(|run| run.spare);
        let is_free = self.links.values().any(Seen::is_free);
        let next = is_free.then(|| self.next_run().unwrap_or(self.now));
        let promotion = has_spare.then(|| self.next_promotion().unwrap_or(self.now));
        let deadlines = runs.map(|run| run.deadline);
        deadlines.chain(next).chain(promotion).min()
    }

    /// A link is asked for a manifest page. A few links are asked for the first
    /// page at once, and a further link only after a while. The link that was too
    /// slow least often comes first. Among links that have sent the length, the
    /// one that claims the shortest comes first.
    pub(super) fn run(&mut self, link: LinkId, page: u32) {
        let due = self.next_run().is_none_or(|at| at <= self.now);
        let runs = || self.links.values().filter_map(|seen| seen.run.as_ref());
        if page == 0 {
            assert!(due, "asks another link too soon");
            let perhaps = |seen: &Seen| seen.perhaps_presumed && !seen.said && seen.run.is_none();
            let is_free = |(id, seen): &(&LinkId, &Seen)| {
                seen.is_free() || **id == link && perhaps(seen) && !seen.without
            };
            let free = self.links.iter().filter(is_free);
            let first = free.map(|(link, seen)| (seen.slow, *link)).min();
            assert_eq!(
                first.map(|(_, link)| link),
                Some(link),
                "another link comes first"
            );
            let seen = self.links.get_mut(&link).expect("it is up");
            let patience = PAGE_TIMEOUT * (1 + seen.slow);
            seen.run = Some(Run {
                deadline: self.now + patience,
                patience,
                asked: BTreeSet::new(),
                came: BTreeSet::new(),
                pages: 0,
                spare: false,
            });
            self.started = Some(self.now);
        } else {
            let runs = runs().any(|run| !run.spare && !run.came.is_empty());
            let due = self.next_promotion().is_none_or(|at| at <= self.now);
            let promotes = !runs || due;
            let spares = self.links.values().filter_map(|seen| seen.run.as_ref());
            let spares = spares.filter(|run| run.spare);
            let shortest = spares.map(|run| run.pages).min();
            let seen = self.links.get_mut(&link).expect("it is up");
            let run = seen.run.as_mut().expect("it sent the length");
            assert!(run.came.contains(&0), "it has not sent the length");
            if std::mem::take(&mut run.spare) {
                assert!(promotes, "asks a spare link too soon");
                assert_eq!(
                    Some(run.pages),
                    shortest,
                    "another spare link claims fewer pages"
                );
                run.deadline = self.now + run.patience;
                self.promoted = Some(self.now);
            }
        }
        let seen = self.links.get_mut(&link).expect("it is up");
        let run = seen.run.as_mut().expect("it is asked");
        assert!(run.asked.insert(page), "asks for a page twice");
    }
}
