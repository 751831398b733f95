//! The conformance suite on the storages of the crate.

use bt_lite::testing::storage::conformance;
use bt_lite::{FileStorage, MemoryStorage};

#[tokio::test(start_paused = true)]
async fn memory_storage_conforms() {
    conformance(|| {
        let storage = MemoryStorage::new();
        async move || storage.clone()
    })
    .await;
}

#[tokio::test]
async fn file_storage_conforms_on_one_thread() {
    files_conform().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_storage_conforms_on_several_threads() {
    files_conform().await;
}

async fn files_conform() {
    conformance(|| {
        let dir = tempfile::tempdir().unwrap();
        async move || FileStorage::open(dir.path()).unwrap()
    })
    .await;
}
