//! The runs of a list of owners, beside the list's own address in memory: whoever
//! is to find the fastest needs no further line of it.

use std::ops::{Deref, DerefMut};

/// How many levels of speed are told apart, counted from the fastest one. All
/// that are slower by more doublings share the last run.
pub(super) const LEVELS: usize = 15;

/// Owners of one level: those before `end`, from the end of the run before on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) level: i32,
    pub(super) end: u32,
}

/// Up to [`LEVELS`] runs, and one more for a moment.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: [Run; LEVELS + 1],
    len: u32,
}

impl Runs {
    pub(super) fn insert(&mut self, at: usize, run: Run) {
        let len = self.len as usize;
        self.runs.copy_within(at..len, at + 1);
        self.runs[at] = run;
        self.len += 1;
    }

    /// Takes the last one off, if there are any.
    pub(super) fn pop(&mut self) -> Option<Run> {
        self.len = self.len.checked_sub(1)?;
        Some(self.runs[self.len as usize])
    }

    pub(super) fn drop_empty(&mut self) {
        let (mut before, mut kept) = (0, 0);
        for at in 0..self.len as usize {
            let run = self.runs[at];
            if run.end != before {
                self.runs[kept] = run;
                kept += 1;
            }
            before = run.end;
        }
        self.len = kept as u32;
    }
}

impl Deref for Runs {
    type Target = [Run];

    fn deref(&self) -> &[Run] {
        &self.runs[..self.len as usize]
    }
}

impl DerefMut for Runs {
    fn deref_mut(&mut self) -> &mut [Run] {
        &mut self.runs[..self.len as usize]
    }
}
