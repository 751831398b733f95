//! Checks of names that a storage may refuse.

use super::sample::{LENGTH, Sample};
use crate::storage::Storage;

/// Names that some storages refuse, and one that every storage accepts.
const NAMES: [&str; 6] = [
    "plain.txt",
    ".hidden",
    "C:drive",
    "nul",
    "trailing.",
    "\u{202e}gpj.exe",
];

/// Checks that `create` and `check_name` agree about every name.
pub(super) async fn check_name_agrees_with_create(storage: &dyn Storage) {
    for (seed, name) in (40..).zip(NAMES) {
        let content = Sample::new(name, LENGTH, seed);
        let judged = storage.check_name(&content.name);
        match (judged, content.create(storage).await) {
            (Ok(()), Ok(_)) => {}
            (Err(judged), Err(created)) if judged == created => {}
            (judged, created) => panic!(
                "creating {name:?} must agree with checking the name, {judged:?}, but returned {:?}",
                created.err()
            ),
        }
    }
}
