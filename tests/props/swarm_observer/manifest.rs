//! Which links are asked for the manifest, and when.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bt_lite::peer::swarm::LinkId;

use super::{Observer, Run, Seen};

/// One more link is asked for the manifest after so long at the earliest.
const HEDGE: Duration = Duration::from_millis(500);

/// And after so long though parts come.
const STEADY: Duration = Duration::from_secs(5);

/// How many links are asked for the length at once.
const AT_ONCE: usize = 4;

/// How long a part of the manifest may take at first.
const PART_TIMEOUT: Duration = Duration::from_secs(10);

impl Observer {
    /// Time has passed: links that were too slow with the manifest are passed
    /// over, and those that were so twice and sent nothing go.
    pub(crate) fn timeout(&mut self) {
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

    /// When one more link is asked for the manifest at the earliest; none if it
    /// is at once.
    pub(super) fn next_run(&self) -> Option<Instant> {
        let runs = self.links.values().filter_map(|seen| seen.run.as_ref());
        let nothing = runs.clone().all(|run| run.came.is_empty());
        if nothing && runs.count() < AT_ONCE {
            return None;
        }
        let started = self.started?;
        let last = self.came.map_or(started, |came| came.max(started));
        Some((last + HEDGE).min(started + STEADY))
    }

    /// When a link must be asked for more of the manifest, or is too slow.
    pub(crate) fn manifest_due(&self) -> Option<Instant> {
        if self.opened || self.opening {
            return None;
        }
        let runs = self.links.values().filter_map(|seen| seen.run.as_ref());
        let has_spare = runs.clone().any(|run| run.spare);
        let more = has_spare || self.links.values().any(Seen::is_free);
        let next = more.then(|| self.next_run().unwrap_or(self.now));
        runs.map(|run| run.deadline).chain(next).min()
    }

    /// A link is asked for a part of the manifest: a few for the first at once,
    /// and a further one only after a while. Who was asked least in vain comes
    /// first; who has sent the length comes before all others.
    pub(super) fn run(&mut self, link: LinkId, part: u32) {
        let due = self.next_run().is_none_or(|at| at <= self.now);
        let runs = || self.links.values().filter_map(|seen| seen.run.as_ref());
        if part == 0 {
            assert!(due, "asks another too soon");
            let free = self.links.iter().filter(|(_, seen)| seen.is_free());
            let first = free.map(|(link, seen)| (seen.slow, *link)).min();
            assert_eq!(first.map(|(_, link)| link), Some(link), "others come first");
            let seen = self.links.get_mut(&link).expect("it is up");
            let patience = PART_TIMEOUT * (1 + seen.slow);
            seen.run = Some(Run {
                deadline: self.now + patience,
                patience,
                asked: BTreeSet::new(),
                came: BTreeSet::new(),
                spare: false,
            });
            self.started = Some(self.now);
        } else {
            let runs = runs().any(|run| !run.spare && !run.came.is_empty());
            let promotes = !runs || due;
            let seen = self.links.get_mut(&link).expect("it is up");
            let run = seen.run.as_mut().expect("it sent the length");
            assert!(run.came.contains(&0), "it has not sent the length");
            if std::mem::take(&mut run.spare) {
                assert!(promotes, "asks a spare too soon");
                run.deadline = self.now + run.patience;
                self.started = Some(self.now);
            }
        }
        let seen = self.links.get_mut(&link).expect("it is up");
        let run = seen.run.as_mut().expect("it is asked");
        assert!(run.asked.insert(part), "asks for a part twice");
    }
}
