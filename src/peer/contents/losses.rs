//! The contents that were shared, or were to be shared again, and can no longer be read:
//! one list for the user.
//!
//! | who finds out | when |
//! |---|---|
//! | the storage, from its records | at the start |
//! | the content that wakes up, or its driver | when somebody asks for it |
//! | a reader here, or a download that copies it | when it has tried every place |
//! | a download that has replaced its file | when it is published |

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::watch;
use tokio_util::sync::ReusableBoxFuture;

use crate::content::{ContentId, ContentName};
use crate::storage::Lost;

/// How many lost contents are kept, besides those of which the storage has a record.
const MAX_LOST: usize = 256;

/// The lost contents of a peer.
#[derive(Debug)]
pub(in crate::peer) struct Losses(watch::Sender<LossLog>);

/// What was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::peer) enum LostThing {
    Content,
    /// A folder of which nothing is left.
    Folder,
    /// A file of this folder, whose record has it as well.
    FolderFile(ContentId),
}

/// The lost contents that are kept, each with its number. Numbers grow.
#[derive(Debug, Default)]
struct LossLog {
    kept: BTreeMap<u64, Kept>,
    /// The numbers of each content: one for each name.
    of: HashMap<ContentId, Vec<u64>>,
    /// The numbers of those that are not kept for their record.
    bounded: BTreeSet<u64>,
    /// The numbers of the last ones that had to go, in order: as many as are kept.
    dropped: VecDeque<u64>,
    next: u64,
}

#[derive(Debug)]
struct Kept {
    lost: Lost,
    thing: LostThing,
    /// It is shared from elsewhere, and only its record is known to be without a file.
    is_back: bool,
}

impl LossLog {
    fn insert(&mut self, lost: Lost, thing: LostThing) {
        self.remove(&lost.id, |other| other.lost.name == lost.name);
        let number = self.next;
        self.next += 1;
        if !lost.recorded || matches!(thing, LostThing::FolderFile(_)) {
            if self.bounded.len() >= MAX_LOST
                && let Some(oldest) = self.bounded.first().copied()
                && let Some(id) = self.kept.get(&oldest).map(|kept| kept.lost.id)
            {
                self.remove_numbers(&id, &[oldest]);
                self.note_dropped(oldest);
            }
            self.bounded.insert(number);
        }
        self.of.entry(lost.id).or_default().push(number);
        let is_back = false;
        let kept = Kept {
            lost,
            thing,
            is_back,
        };
        self.kept.insert(number, kept);
    }

    /// This one had to go, and is the highest number so far.
    fn note_dropped(&mut self, number: u64) {
        if self.dropped.len() == MAX_LOST {
            self.dropped.pop_front();
        }
        self.dropped.push_back(number);
    }

    /// How many of the last ones that had to go are in this range.
    fn dropped_in(&self, range: Range<u64>) -> u64 {
        let dropped = self
            .dropped
            .iter()
            .filter(|dropped| range.contains(dropped));
        dropped.count() as u64
    }

    /// Removes what was lost of a content, as far as this says so.
    fn remove(&mut self, id: &ContentId, is_meant: impl Fn(&Kept) -> bool) {
        let numbers: Vec<u64> = self
            .numbers(id)
            .filter(|n| is_meant(&self.kept[n]))
            .collect();
        self.remove_numbers(id, &numbers);
    }

    fn remove_numbers(&mut self, id: &ContentId, numbers: &[u64]) {
        for number in numbers {
            self.kept.remove(number);
            self.bounded.remove(number);
        }
        if let Some(of) = self.of.get_mut(id) {
            of.retain(|number| !numbers.contains(number));
            if of.is_empty() {
                self.of.remove(id);
            }
        }
    }

    fn numbers(&self, id: &ContentId) -> impl Iterator<Item = u64> {
        self.of.get(id).into_iter().flatten().copied()
    }

    /// What is lost, from this number on.
    fn since(&self, number: u64) -> impl Iterator<Item = (u64, &Lost)> {
        let kept = self.kept.range(number..);
        let away = kept.filter(|(_, kept)| !kept.is_back);
        away.map(|(number, kept)| (*number, &kept.lost))
    }
}

impl Default for Losses {
    fn default() -> Self {
        Self(watch::Sender::new(LossLog::default()))
    }
}

impl Losses {
    /// This can no longer be read.
    pub(in crate::peer) fn insert(&self, lost: Lost, thing: LostThing) {
        self.0.send_modify(|log| log.insert(lost, thing));
    }

    /// A content is shared again. Records of it whose file is missing are still known.
    pub(in crate::peer) fn found(&self, id: &ContentId) {
        self.change(|log| {
            log.remove(id, |kept| {
                !kept.lost.recorded || kept.thing != LostThing::Content
            });
            let numbers: Vec<u64> = log.numbers(id).collect();
            for number in numbers {
                if let Some(kept) = log.kept.get_mut(&number) {
                    kept.is_back = true;
                }
            }
        });
    }

    /// The record of a content under this name is of a file that is there.
    pub(in crate::peer) fn recorded(&self, id: &ContentId, name: &ContentName) {
        self.change(|log| log.remove(id, |kept| kept.lost.name == *name));
    }

    /// Nobody wants to hear of a content or a folder any more, which is not a file of
    /// another folder. Returns the names under which the storage may have a record of it.
    pub(in crate::peer) fn forget(&self, id: &ContentId) -> Vec<ContentName> {
        let mut names = Vec::new();
        self.change(|log| {
            let by_itself = |kept: &Kept| !matches!(kept.thing, LostThing::FolderFile(_));
            let kept = log.numbers(id).map(|number| &log.kept[&number]);
            let recorded = kept.filter(|kept| kept.lost.recorded && by_itself(kept));
            names = recorded.map(|kept| kept.lost.name.clone()).collect();
            log.remove(id, by_itself);
        });
        names
    }

    /// A folder is here no more, and nobody misses its files. O(what is lost).
    pub(in crate::peer) fn forget_files(&self, folder: &ContentId) {
        self.change(|log| {
            let of_it = |kept: &&Kept| kept.thing == LostThing::FolderFile(*folder);
            let files = log.kept.values().filter(of_it);
            let files: Vec<ContentId> = files.map(|kept| kept.lost.id).collect();
            for id in files {
                log.remove(&id, |kept| of_it(&kept));
            }
        });
    }

    /// Whether this is a folder of which nothing is left.
    pub(in crate::peer) fn is_folder(&self, id: &ContentId) -> bool {
        let log = self.0.borrow();
        let mut numbers = log.numbers(id);
        numbers.any(|number| log.kept[&number].thing == LostThing::Folder)
    }

    pub(in crate::peer) fn all(&self) -> Vec<Lost> {
        let log = self.0.borrow();
        log.since(0).map(|(_, lost)| lost.clone()).collect()
    }

    pub(in crate::peer) fn stream(&self) -> LostContents {
        let log = self.0.subscribe();
        let next = {
            let log = log.borrow();
            log.since(0).next().map_or(log.next, |(number, _)| number)
        };
        LostContents {
            changed: ReusableBoxFuture::new(changed(log.clone())),
            next,
            missed: 0,
            log,
        }
    }

    /// Changes what nobody waits for.
    fn change(&self, change: impl FnOnce(&mut LossLog)) {
        self.0.send_if_modified(|log| {
            change(log);
            false
        });
    }
}

/// Waits until the log has changed. Returns whether it may change again.
async fn changed(mut log: watch::Receiver<LossLog>) -> bool {
    log.changed().await.is_ok()
}

/// The stream of [`Peer::lost_contents`](crate::Peer::lost_contents).
pub struct LostContents {
    log: watch::Receiver<LossLog>,
    changed: ReusableBoxFuture<'static, bool>,
    /// The lowest number that was not returned yet.
    next: u64,
    missed: u64,
}

impl LostContents {
    /// How many contents this stream has left out so far because its reader was too far
    /// behind; [`Peer::lost`](crate::Peer::lost) does not have them either. At least: of
    /// those that were left out since the last one was returned, 256 are counted.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

impl Stream for LostContents {
    type Item = Lost;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Lost>> {
        loop {
            let next = self.next;
            let found = {
                let log = self.log.borrow_and_update();
                let found = log.since(next).next();
                found.map(|(number, lost)| (number, lost.clone(), log.dropped_in(next..number)))
            };
            if let Some((number, lost, missed)) = found {
                self.next = number + 1;
                self.missed += missed;
                return Poll::Ready(Some(lost));
            }
            match self.changed.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(false) => return Poll::Ready(None),
                Poll::Ready(true) => {
                    let log = self.log.clone();
                    self.changed.set(changed(log));
                }
            }
        }
    }
}

impl fmt::Debug for LostContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LostContents").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;
    use crate::storage::StorageError;

    fn lost(n: usize) -> Lost {
        let name = format!("content-{n}");
        let id = ContentId::of(name.as_bytes());
        Lost::new(id, name.parse().unwrap(), StorageError::ReadOnly)
    }

    #[test]
    fn losses_are_kept_up_to_a_bound_until_they_are_found_again() {
        let losses = Losses::default();
        let insert = |n| losses.insert(lost(n), LostThing::Content);
        let mut stream = losses.stream();
        assert!(stream.next().now_or_never().is_none());
        for n in 0..MAX_LOST + 2 {
            insert(n);
        }
        // The last state of a content counts.
        insert(3);
        losses.found(&lost(4).id);
        let expected: Vec<_> = (2..MAX_LOST + 2).filter(|n| ![3, 4].contains(n)).collect();
        let expected: Vec<_> = expected.into_iter().chain([3]).map(lost).collect();
        assert_eq!(losses.all(), expected);
        let mut seen = Vec::new();
        while let Some(Some(lost)) = stream.next().now_or_never() {
            seen.push(lost);
        }
        assert_eq!(seen, expected);
        // The first two had to go.
        assert_eq!(stream.missed(), 2);
        insert(4);
        assert_eq!(stream.next().now_or_never(), Some(Some(lost(4))));
        assert!(stream.next().now_or_never().is_none());
        assert_eq!(stream.missed(), 2);
        // What went before it began is not missed.
        assert_eq!(
            losses.stream().next().now_or_never(),
            Some(losses.all().into_iter().next())
        );
        drop(losses);
        assert_eq!(stream.next().now_or_never(), Some(None));
    }

    #[test]
    fn record_without_a_file_is_known_until_it_is_dropped_and_shown_until_it_is_shared() {
        let losses = Losses::default();
        let recorded = |n| lost(n).recorded(true);
        let folder = ContentId::of(b"folder");
        for n in 0..2 * MAX_LOST {
            losses.insert(recorded(n), LostThing::Content);
            losses.insert(lost(10_000 + n), LostThing::Content);
            losses.insert(recorded(20_000 + n), LostThing::FolderFile(folder));
        }
        // None of those that are recorded is left out, except what is of a folder.
        assert_eq!(losses.all().len(), 3 * MAX_LOST);
        // A content may have several.
        let name: ContentName = "other".parse().unwrap();
        let other = Lost {
            name: name.clone(),
            ..recorded(5)
        };
        losses.insert(other, LostThing::Content);
        losses.found(&lost(5).id);
        assert_eq!(losses.all().len(), 3 * MAX_LOST - 1);
        losses.recorded(&lost(5).id, &name);
        assert_eq!(losses.forget(&lost(5).id), [recorded(5).name]);
        assert_eq!(losses.forget(&lost(5).id), []);
        losses.insert(recorded(5), LostThing::Folder);
        assert!(losses.is_folder(&lost(5).id) && !losses.is_folder(&lost(6).id));
        losses.found(&lost(5).id);
        assert!(!losses.is_folder(&lost(5).id));
        // The record of a file is that of its folder.
        let file = losses.all().pop().unwrap();
        assert_eq!(
            (losses.forget(&file.id), losses.all().pop()),
            (vec![], Some(file))
        );
        let others = losses.all().len();
        losses.forget_files(&ContentId::of(b"another"));
        assert_eq!(losses.all().len(), others);
        losses.forget_files(&folder);
        assert!(losses.all().len() < others);
        let log = losses.0.borrow();
        assert_eq!(log.of.values().map(Vec::len).sum::<usize>(), log.kept.len());
    }
}
