//! What a storage says of names.

use super::{LENGTH, Sample};
use crate::storage::Storage;

/// Names that some storages refuse, and one that none does.
const NAMES: [&str; 6] = [
    "plain.txt",
    ".hidden",
    "C:drive",
    "nul",
    "trailing.",
    "\u{202e}gpj.exe",
];

/// Creating says of a name what was said when it was asked for before.
pub(super) async fn judged_alike(storage: &dyn Storage) {
    for (seed, name) in (40..).zip(NAMES) {
        let content = Sample::new(name, LENGTH, seed);
        let judged = storage.check_name(&content.name);
        match (judged, content.create(storage).await) {
            (Ok(()), Ok(_)) => {}
            (Err(judged), Err(created)) if judged == created => {}
            (judged, created) => panic!(
                "creating {name:?} must say what checking the name says, {judged:?}, not {:?}",
                created.err()
            ),
        }
    }
}
