//! What somebody has passed when it was last checked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often the authorities had changed, and how many of them counted. Whoever has passed
/// that passes it again, until a certificate of its own is over. So very many are checked
/// again and again for little.
#[derive(Default)]
pub(super) struct Checked(Mutex<Option<(u64, usize)>>);

impl Checked {
    /// Whether it has passed just this.
    pub(super) fn has_passed(&self, version: (u64, usize)) -> bool {
        *self.last() == Some(version)
    }

    /// It has passed this.
    pub(super) fn passed(&self, version: (u64, usize)) {
        *self.last() = Some(version);
    }

    /// Ignores poison: no change under this lock is left half done.
    fn last(&self) -> MutexGuard<'_, Option<(u64, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
