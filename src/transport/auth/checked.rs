//! What somebody has passed when it was last checked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often the authorities had changed, and how many of them had begun and had ended.
pub(super) type Version = (u64, (usize, usize));

/// The version of the authorities that somebody has passed last. Whoever has passed
/// that passes it again, until a certificate of its own is over. So very many are checked
/// again and again for little.
#[derive(Default)]
pub(super) struct Checked(Mutex<Option<Version>>);

impl Checked {
    /// Whether it has passed just this.
    pub(super) fn has_passed(&self, version: Version) -> bool {
        *self.last() == Some(version)
    }

    /// It has passed this.
    pub(super) fn passed(&self, version: Version) {
        *self.last() = Some(version);
    }

    /// Ignores poison: no change under this lock is left half done.
    fn last(&self) -> MutexGuard<'_, Option<Version>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
