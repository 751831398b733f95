//! Checks of the records of paused downloads.

use bytes::Bytes;

use super::sample::must;
use crate::storage::{PausedDownload, PausedId, Storage};

fn record(id: u8, bytes: &'static [u8]) -> PausedDownload {
    PausedDownload::new(PausedId([id; 32]), Bytes::from_static(bytes))
}

/// Keeps, replaces and drops records, and reads them after the storage was opened again.
pub(super) async fn records(storage: &dyn Storage, again: &dyn Storage) {
    let (first, second, other) = (record(1, b"first"), record(1, b""), record(2, b"\0other"));
    must(
        storage.forget_paused(&first.id).await,
        "dropping a record that is not there",
    );
    must(storage.remember_paused(&first).await, "keeping a record");
    if must(storage.paused().await, "reading the records").is_empty() {
        // A storage need not keep any.
        return;
    }
    must(
        storage.remember_paused(&other).await,
        "keeping another record",
    );
    must(storage.remember_paused(&second).await, "replacing a record");
    check(again, &[&second, &other], "when one was replaced").await;
    must(storage.forget_paused(&second.id).await, "dropping a record");
    check(again, &[&other], "when one was dropped").await;
    must(
        storage.forget_paused(&other.id).await,
        "dropping the last record",
    );
    check(again, &[], "when all were dropped").await;
}

async fn check(storage: &dyn Storage, expected: &[&PausedDownload], when: &str) {
    let mut found = must(storage.paused().await, "reading the records");
    found.sort_by_key(|record| record.id);
    assert!(
        found.iter().eq(expected.iter().copied()),
        "{when}, the records are {found:?}"
    );
}
