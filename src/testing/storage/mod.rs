//! The conformance suite for [`Storage`] implementations.
//!
//! [`conformance`] checks the documented behaviour of [`Storage`] and
//! [`Blob`](crate::storage::Blob) from outside. It does not know how a storage
//! keeps its bytes, and cannot check what survives a power failure.

mod catalogue;
mod drafts;
mod locking;
mod names;
mod publishing;
mod records;
mod removing;
mod resuming;
mod sample;
mod transfer;

use crate::content::MIN_CHUNK_LEN;
use crate::storage::Storage;

/// Lengths at which an off-by-one error would show, in bytes: nothing, around one
/// chunk, and several chunks with a short one at the end.
const LENGTHS: [u64; 7] = [
    0,
    1,
    MIN_CHUNK_LEN - 1,
    MIN_CHUNK_LEN,
    MIN_CHUNK_LEN + 1,
    5 * MIN_CHUNK_LEN,
    5 * MIN_CHUNK_LEN + 333,
];

/// Runs every check of the suite. Must be called inside a tokio runtime; a
/// paused clock is fine.
///
/// `location` makes a new, empty location each time it is called, and returns a
/// function that opens a storage there. A content that is finished through one
/// storage must be visible through all others at the same location. If a storage
/// exists in one value only, return clones of it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use bt_lite::testing::storage::conformance;
/// use bt_lite::{FileStorage, MemoryStorage};
///
/// conformance(|| {
///     let storage = MemoryStorage::new();
///     async move || storage.clone()
/// })
/// .await;
///
/// conformance(|| {
///     let dir = tempfile::tempdir().expect("a directory for the test");
///     async move || FileStorage::open(dir.path()).expect("it was just created")
/// })
/// .await;
/// # }
/// ```
///
/// # Panics
/// When the storage breaks a promise, with a text that says which.
pub async fn conformance<S, Open>(mut location: impl FnMut() -> Open)
where
    S: Storage,
    Open: AsyncFn() -> S,
{
    for length in LENGTHS {
        transfer::round_trip(&location()().await, length).await;
    }
    transfer::writes_in_any_order(&location()().await).await;
    transfer::concurrent_writes(&location()().await).await;
    transfer::bounds(&location()().await).await;
    publishing::visibility(&location()().await).await;
    publishing::read_only_when_finished(&location()().await).await;
    publishing::name_taken_before(&location()().await).await;
    publishing::name_taken_meanwhile(&location()().await).await;
    names::check_name_agrees_with_create(&location()().await).await;
    locking::dropped_create_leaves_no_lock(&location()().await).await;
    locking::dropped_calls_leave_no_lock(&location()().await).await;
    resuming::withdrawn_chunk(&location()().await).await;

    let open = location();
    locking::one_writer(&open().await, &open().await).await;
    let open = location();
    publishing::visible_to_other_storages(&open().await, &open().await).await;
    for commits in [false, true] {
        let open = location();
        let content = resuming::interrupt(&open().await, commits).await;
        resuming::resume(&open().await, &content).await;
    }
    let open = location();
    catalogue::remember_and_forget(&open().await, &open().await).await;
    let open = location();
    removing::remove_finished(&open().await, &open().await).await;
    let open = location();
    removing::discard_partial(&open().await, &open().await).await;
    let open = location();
    removing::replace(&open().await, &open().await).await;
    let open = location();
    drafts::drafts(&open().await, &open().await).await;
    let open = location();
    records::records(&open().await, &open().await).await;
}
