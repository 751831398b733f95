//! Where the entries of the log are, and how much of each segment still counts. This
//! module does no I/O.
//!
//! An entry is about a content under a name or, in version 1, about a name. Entries
//! about the one do not touch those about the other.

use std::collections::{BTreeMap, HashMap};

use super::log_entry::{Change, Head, Lengths, Place};
use crate::content::{ContentId, ContentName};

/// When segments are rewritten.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogLimits {
    /// A segment with fewer bytes is a small one. This many bytes may be useless in
    /// any segment.
    pub(super) small: u64,
    /// How many small segments there may be.
    pub(super) max_small: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            small: 1 << 20,
            max_small: 8,
        }
    }
}

/// The newest entry of each subject, and the segments.
#[derive(Debug, Default)]
pub(super) struct LogIndex {
    slots: HashMap<Subject, Slot>,
    /// The contents that entries of version 1 remember, by the subjects of these.
    of_names: HashMap<Subject, Subject>,
    segments: BTreeMap<u64, Usage>,
    last_sequence: u64,
}

/// What an entry is about, as the first half of a BLAKE3 hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Subject([u8; 16]);

#[derive(Debug)]
struct Slot {
    sequence: u64,
    place: Place,
    /// The length of the entry, if it holds a record, and otherwise 0. No entry has more
    /// than four gigabytes, and there may be very many slots.
    live: u32,
    /// How many entries about the same there are in all segments.
    entries: u32,
}

impl Slot {
    fn remembered(&self) -> bool {
        self.live > 0
    }
}

/// The bytes of one segment.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    total: u64,
    /// Those of entries that hold a record.
    live: u64,
    /// Everything before this offset is durable. What follows may be in memory only:
    /// a sync may have failed, or is still to come.
    durable: u64,
}

impl Usage {
    fn is_wasteful(self, limits: LogLimits) -> bool {
        self.total - self.live > self.live + limits.small
    }
}

impl Subject {
    fn of(change: &Change) -> Self {
        match change {
            Change::Remembered(record) => Self::content(&record.name, &record.id),
            Change::Forgotten(name, id) => Self::content(name, id),
            Change::NameRemembered(record) => Self::name(&record.name),
            Change::NameForgotten(name) => Self::name(name),
        }
    }

    /// A name, for entries of version 1.
    fn name(name: &ContentName) -> Self {
        Self::hash(&[name.as_str().as_bytes()])
    }

    /// A content under a name. No name contains a NUL.
    fn content(name: &ContentName, id: &ContentId) -> Self {
        Self::hash(&[name.as_str().as_bytes(), b"\0", id.as_bytes()])
    }

    fn hash(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        let hash = hasher.finalize();
        let (half, _) = hash.as_bytes().split_first_chunk().expect("it is longer");
        Self(*half)
    }
}

impl LogIndex {
    /// Adds an empty segment.
    pub(super) fn add_segment(&mut self, number: u64) {
        self.segments.entry(number).or_default();
    }

    /// Adds an entry, which counts if it is the newest about its subject.
    pub(super) fn add(&mut self, place: Place, lengths: Lengths, head: &Head) {
        let len = lengths.total();
        let remembered = head.change.record().is_some();
        self.last_sequence = self.last_sequence.max(head.sequence);
        let usage = self.segments.entry(place.segment).or_default();
        usage.total += len;
        usage.durable = usage.durable.max(head.durable);
        let key = Subject::of(&head.change);
        let entries = match self.slots.get(&key) {
            // Of two copies of one entry the later one counts.
            Some(old) if (old.sequence, old.place) > (head.sequence, place) => {
                let entries = old.entries + 1;
                self.slots
                    .entry(key)
                    .and_modify(|slot| slot.entries = entries);
                return;
            }
            Some(old) => old.entries,
            None => 0,
        };
        let slot = Slot {
            sequence: head.sequence,
            place,
            live: if remembered { len as u32 } else { 0 },
            entries: entries + 1,
        };
        if remembered {
            self.segments.entry(place.segment).or_default().live += len;
        }
        if let Change::NameRemembered(record) = &head.change {
            let content = Subject::content(&record.name, &record.id);
            self.of_names.insert(key, content);
        }
        if let Some(old) = self.slots.insert(key, slot)
            && old.remembered()
        {
            self.segments.entry(old.place.segment).or_default().live -= u64::from(old.live);
        }
    }

    /// Removes an entry of a segment that is about to go.
    pub(super) fn remove(&mut self, place: Place, head: &Head) {
        let key = Subject::of(&head.change);
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.entries = slot.entries.saturating_sub(1);
            if slot.place == place {
                self.slots.remove(&key);
                self.of_names.remove(&key);
            }
        }
    }

    pub(super) fn remove_segment(&mut self, number: u64) {
        self.segments.remove(&number);
    }

    /// Where the record of a content under a name is.
    pub(super) fn find(&self, name: &ContentName, id: &ContentId) -> Option<Place> {
        let slot = match self.slots.get(&Subject::content(name, id)) {
            Some(slot) => slot,
            None => {
                let slot = self.slots.get(&Subject::name(name))?;
                self.name_may_have(name, id).then_some(slot)?
            }
        };
        slot.remembered().then_some(slot.place)
    }

    /// Where the newest entry is that a change would replace, and whether it holds a
    /// record.
    pub(super) fn newest(&self, change: &Change) -> Option<(Place, bool)> {
        let slot = self.slots.get(&Subject::of(change))?;
        Some((slot.place, slot.remembered()))
    }

    /// Whether the newest entry of version 1 about a name says nothing of another
    /// content.
    pub(super) fn name_may_have(&self, name: &ContentName, id: &ContentId) -> bool {
        let name_key = Subject::name(name);
        match self.slots.get(&name_key) {
            Some(slot) if slot.remembered() => {
                self.of_names.get(&name_key) == Some(&Subject::content(name, id))
            }
            _ => true,
        }
    }

    /// Whether an entry must be copied into the segment `own` before its own segment
    /// is removed: it holds a record, or hides an older one, or is hidden only by an
    /// entry that may not be durable.
    pub(super) fn is_needed(&self, place: Place, head: &Head, own: u64) -> bool {
        let Some(slot) = self.slots.get(&Subject::of(&head.change)) else {
            return false;
        };
        if slot.place == place {
            return slot.remembered() || slot.entries > 1;
        }
        let Place { segment, offset } = slot.place;
        let usage = self.segments.get(&segment).copied().unwrap_or_default();
        // The segment `own` is synced before anything is removed.
        segment != own && offset >= usage.durable
    }

    /// A number for a new segment, unless another process has taken it meanwhile.
    pub(super) fn next_segment(&self) -> u64 {
        self.segments
            .last_key_value()
            .map_or(0, |(&last, _)| last + 1)
    }

    pub(super) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    pub(super) fn is_wasteful(&self, segment: u64, limits: LogLimits) -> bool {
        let usage = self.segments.get(&segment);
        usage.is_some_and(|usage| usage.is_wasteful(limits))
    }

    /// The segments to rewrite before the one that is being written. A copy of an
    /// entry counts if it is in a later segment.
    pub(super) fn to_merge(&self, own: u64, limits: LogLimits) -> Vec<u64> {
        let others = || self.segments.range(..own);
        let is_small = |usage: &Usage| usage.total < limits.small;
        let small = others().filter(|(_, usage)| is_small(usage)).count();
        let merged = others().filter(|(_, usage)| {
            usage.is_wasteful(limits) || (small > limits.max_small && is_small(usage))
        });
        merged.map(|(&number, _)| number).collect()
    }
}
