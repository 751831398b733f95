//! Promises of the memory storage that the suite does not check.

use bt_lite::storage::{Partial, check_range};
use bt_lite::{Bitfield, ChunkIndex, ContentName, Manifest, MemoryStorage, Storage, StorageError};
use bytes::Bytes;

const CHUNK: usize = 16 << 10;

#[tokio::test]
async fn only_committed_chunks_outlive_the_blob() {
    let bytes = Bytes::from(vec![3; 4 * CHUNK]);
    let manifest = Manifest::of(&bytes).unwrap();
    let name = "a".parse().unwrap();
    let storage = MemoryStorage::new();
    let blob = storage.create(&name, &manifest).await.unwrap().blob;
    blob.write_at(0, vec![bytes.slice(..3 * CHUNK)])
        .await
        .unwrap();
    // The second chunk is written but not verified, the last is not written.
    let mut verified = Bitfield::none(4);
    for chunk in [0, 2, 3] {
        verified.insert(ChunkIndex(chunk));
    }
    blob.commit(&verified).await.unwrap();
    drop(blob);

    let again = storage.clone().create(&name, &manifest).await.unwrap();
    let Partial { blob, present, .. } = again;
    verified.remove(ChunkIndex(3));
    assert_eq!(present, verified);
    for (chunk, fill) in [(0, 3), (1, 0), (2, 3), (3, 0)] {
        let read = blob.read_at((chunk * CHUNK) as u64, CHUNK).await.unwrap();
        assert_eq!(read, vec![fill; CHUNK], "chunk {chunk}");
    }
}

#[tokio::test]
async fn capacity_is_reserved_at_the_start_and_released_if_nothing_was_committed() {
    let storage = MemoryStorage::with_capacity(100);
    let name = |text: &str| text.parse().unwrap();
    let full = |what: &str, needed, available| StorageError::full(what, needed, Some(available));
    storage.insert(name("a"), vec![1; 40]).unwrap();
    let refused = storage.insert(name("b"), vec![2; 61]);
    assert_eq!(refused, Err(full("b", 61, 60)));

    let manifest = Manifest::of(&[3; 60]).unwrap();
    for _ in 0..3 {
        let blob = storage.create(&name("c"), &manifest).await.unwrap().blob;
        let refused = storage.insert(name("d"), vec![4; 1]);
        assert_eq!(refused, Err(full("d", 1, 0)));
        drop(blob);
    }
    let blob = storage.create(&name("c"), &manifest).await.unwrap().blob;
    blob.write_at(0, vec![vec![3; 60].into()]).await.unwrap();
    blob.finish().await.unwrap();
    drop(blob);
    let refused = storage.insert(name("d"), vec![4; 1]);
    assert_eq!(refused, Err(full("d", 1, 0)));
    assert_eq!(storage.bytes(name("c")).unwrap(), vec![3; 60]);
    assert_eq!(storage.bytes(name("d")), None);
    storage.insert(name("empty"), Bytes::new()).unwrap();
    assert_eq!(storage.bytes(name("empty")), Some(Bytes::new()));
}

#[tokio::test]
async fn blocks_are_read_without_a_copy() {
    let bytes = Bytes::from(vec![5; 3 * CHUNK]);
    let manifest = Manifest::of(&bytes).unwrap();
    let storage = MemoryStorage::new();
    let name = "a".parse().unwrap();
    let blob = storage.create(&name, &manifest).await.unwrap().blob;
    let pieces = vec![bytes.slice(..CHUNK), bytes.slice(CHUNK..)];
    blob.write_at(0, pieces).await.unwrap();
    blob.finish().await.unwrap();
    let opened = storage.open(&name).await.unwrap();
    for blob in [blob, opened] {
        for offset in [100, CHUNK, 2 * CHUNK] {
            let read = blob.read_at(offset as u64, CHUNK - 100).await.unwrap();
            assert_eq!(read.as_ptr(), bytes[offset..].as_ptr());
        }
    }
    let inserted = Bytes::from_static(b"whole");
    storage
        .insert("b".parse().unwrap(), inserted.clone())
        .unwrap();
    let read = storage.bytes("b").unwrap();
    assert_eq!(read.as_ptr(), inserted.as_ptr());
}

#[test]
fn range_that_overflows_is_out_of_bounds() {
    assert_eq!(check_range(3, 2, 5), Ok(()));
    for (offset, len) in [(3, 3), (6, 0), (u64::MAX, u64::MAX)] {
        assert_eq!(
            check_range(offset, len, 5),
            Err(StorageError::OutOfBounds {
                offset,
                len,
                length: 5
            })
        );
    }
}

#[tokio::test]
async fn what_is_replaced_takes_no_room_any_more() {
    let storage = MemoryStorage::with_capacity(120);
    let name: ContentName = "a".parse().unwrap();
    storage.insert(name.clone(), vec![1; 60]).unwrap();
    for fill in 2..5 {
        let manifest = Manifest::of(&[fill; 60]).unwrap();
        let blob = storage
            .create_replacing(&name, &manifest)
            .await
            .unwrap()
            .blob;
        blob.write_at(0, vec![vec![fill; 60].into()]).await.unwrap();
        blob.finish().await.unwrap();
    }
    assert_eq!(storage.bytes(&name).unwrap(), vec![4; 60]);
}

#[tokio::test]
async fn blob_that_is_finished_commits_nothing_of_the_next_one() {
    let storage = MemoryStorage::new();
    let manifest = Manifest::of(&[3; 60]).unwrap();
    let name = |text: &str| text.parse::<ContentName>().unwrap();
    let blob = storage.create(&name("a"), &manifest).await.unwrap().blob;
    blob.write_at(0, vec![vec![3; 60].into()]).await.unwrap();
    blob.finish().await.unwrap();
    let next = storage.create(&name("b"), &manifest).await.unwrap();
    next.blob
        .write_at(0, vec![vec![9; 60].into()])
        .await
        .unwrap();
    blob.commit(&Bitfield::all(1)).await.unwrap();
    drop(next);
    assert!(!storage.has_partial(&manifest.id()).await);
}
