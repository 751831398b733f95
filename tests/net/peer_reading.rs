//! Reading a content while it is being downloaded, and afterwards.

use std::io::{ErrorKind, SeekFrom};

use bt_lite::{ContentReader, DownloadError, ReaderError};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::on_all_networks;
use crate::world::{World, content, named, soon};

async fn read_all(reader: &mut ContentReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn read_at(reader: &mut ContentReader, from: u64, len: usize) -> Vec<u8> {
    assert_eq!(reader.seek(SeekFrom::Start(from)).await.unwrap(), from);
    let mut bytes = vec![0; len];
    reader.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// The error of the download that a read fails with.
fn download_error(error: &std::io::Error) -> &DownloadError {
    let inner = error.get_ref().expect("an error of the download");
    inner.downcast_ref().expect("an error of the download")
}

on_all_networks! {
    async fn content_is_read_while_it_is_downloaded(world: World) {
        let bytes = content(3_000_001, 1);
        let _owners = world.owners(3, "film", &bytes).await;
        let node = world.node("reader").await;
        let mut download = node.peer.download(named("film"));
        let mut reader = download.reader();
        assert!(read_all(&mut reader).await == bytes);
        assert_eq!(reader.length(), Some(3_000_001));
        (&mut download).await.unwrap();
        // The same reader reads on when the content is complete.
        assert!(read_at(&mut reader, 1_234_567, 500_000).await == bytes[1_234_567..1_734_567]);
    }

    async fn readers_at_opposite_ends_get_their_bytes(world: World) {
        let bytes = content(2_000_000, 2);
        let _owners = world.owners(2, "film", &bytes).await;
        let node = world.node("reader").await;
        let download = node.peer.download(named("film"));
        let (mut first, mut last) = (download.reader(), download.reader());
        let first = read_all(&mut first);
        let last = async {
            assert_eq!(last.seek(SeekFrom::End(-700_000)).await.unwrap(), 1_300_000);
            read_all(&mut last).await
        };
        let (first, last) = tokio::join!(first, last);
        assert!(first == bytes && last == bytes[1_300_000..]);
        download.await.unwrap();
    }

    async fn reader_of_a_shared_content_needs_no_download(world: World) {
        let bytes = content(500_000, 3);
        let owner = world.node("owner").await;
        let shared = owner.share("film", &bytes).await;
        let mut reader = owner.peer.reader(&shared.id).await.unwrap();
        assert_eq!(reader.wait_length().await.unwrap(), 500_000);
        assert!(read_all(&mut reader).await == bytes);
        assert!(read_at(&mut reader, 100_000, 70_000).await == bytes[100_000..170_000]);
        // It is read on when it is not shared any more.
        assert!(owner.peer.unshare(&shared.id).await);
        assert!(read_at(&mut reader, 200_000, 70_000).await == bytes[200_000..270_000]);
        let error = owner.peer.reader(&shared.id).await.unwrap_err();
        assert_eq!(error, ReaderError::NotHere { id: shared.id });
    }

    async fn contents_of_no_byte_and_of_one_chunk_are_read(world: World) {
        let owner = world.node("owner").await;
        let node = world.node("reader").await;
        for len in [0, 1, 16_384] {
            let bytes = content(len, 4);
            let name = format!("of {len}");
            owner.share(&name, &bytes).await;
            let download = node.peer.download(named(name.as_str()));
            let mut reader = download.reader();
            assert_eq!(reader.seek(SeekFrom::End(0)).await.unwrap(), len as u64);
            assert_eq!(read_all(&mut reader).await, b"");
            reader.rewind().await.unwrap();
            assert!(read_all(&mut reader).await == bytes);
            download.await.unwrap();
            reader.rewind().await.unwrap();
            assert!(read_all(&mut reader).await == bytes);
        }
    }

    async fn seek_past_the_end_reads_nothing(world: World) {
        let bytes = content(300_000, 5);
        let _owners = world.owners(1, "film", &bytes).await;
        let node = world.node("reader").await;
        let download = node.peer.download(named("film"));
        let mut reader = download.reader();
        let far = u64::MAX - 5;
        assert_eq!(reader.seek(SeekFrom::Start(far)).await.unwrap(), far);
        assert_eq!(read_all(&mut reader).await, b"");
        let error = reader.seek(SeekFrom::Current(6)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = reader.seek(SeekFrom::End(-300_001)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        // A seek that fails changes nothing.
        assert_eq!(reader.stream_position().await.unwrap(), far);
        assert_eq!(reader.seek(SeekFrom::End(5)).await.unwrap(), 300_005);
        assert_eq!(reader.read_u8().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert!(read_at(&mut reader, 0, 300_000).await == bytes);
    }

    async fn reader_of_a_download_that_fails_hears_why(world: World) {
        let node = world.node("reader").await;
        let mut download = node.peer.download(named("nothing"));
        let mut reader = download.reader();
        let error = reader.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let outcome = (&mut download).await.unwrap_err();
        assert_eq!(download_error(&error), &outcome);
        // It says so again, also to others, and for the length.
        let error = download.reader().seek(SeekFrom::End(0)).await.unwrap_err();
        assert_eq!(download_error(&error), &outcome);
        let error = reader.read_u8().await.unwrap_err();
        assert_eq!(download_error(&error), &outcome);
    }
}

/// Readers and their download on different threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_on_many_threads_get_their_bytes() {
    soon(async {
        for world in World::on_loopback().await {
            let bytes = content(4_000_000, 6);
            let _owners = world.owners(3, "film", &bytes).await;
            let node = world.node("reader").await;
            let download = node.peer.download(named("film"));
            let readers: Vec<_> = (0..8u64)
                .map(|number| {
                    let (mut reader, bytes) = (download.reader(), bytes.clone());
                    tokio::spawn(async move {
                        let from = number * 450_000;
                        let part = read_at(&mut reader, from, 400_000).await;
                        assert!(part == bytes[from as usize..][..400_000]);
                        let from = (7 - number) * 450_000;
                        let part = read_at(&mut reader, from, 400_000).await;
                        assert!(part == bytes[from as usize..][..400_000]);
                    })
                })
                .collect();
            for reader in readers {
                reader.await.unwrap();
            }
            download.await.unwrap();
        }
    })
    .await;
}
