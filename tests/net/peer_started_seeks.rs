//! A seek that was started takes effect or fails, whoever waits for it; and handles are
//! for several threads.

use std::future::poll_fn;
use std::io::{ErrorKind, SeekFrom};
use std::pin::Pin;

use bt_lite::DownloadError;
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt};

use crate::on_both_networks;
use crate::world::{World, content, named, soon};

fn start_seek(reader: &mut bt_lite::ContentReader, to: SeekFrom) -> std::io::Result<()> {
    Pin::new(reader).start_seek(to)
}

on_both_networks! {
    async fn read_waits_for_a_seek_that_was_started(world: World) {
        let bytes = content(1_000_000, 1);
        let node = world.node("reader").await;
        let download = node.peer.download(named("film"));
        // Nobody has it yet, so no length is known.
        let mut reader = download.reader();
        start_seek(&mut reader, SeekFrom::End(-1000)).unwrap();
        assert!(reader.read_u8().now_or_never().is_none());
        drop(download);

        let _owners = world.owners(1, "film", &bytes).await;
        let download = node.peer.download(named("film"));
        for (offset, then, from) in [
            (-1000, None, 999_000),
            (-1000, Some(SeekFrom::Current(400)), 999_400),
            (-1000, Some(SeekFrom::Current(-400)), 998_600),
            (-1000, Some(SeekFrom::Start(3)), 3),
            (-1000, Some(SeekFrom::End(-7)), 999_993),
            (-1_000_000, None, 0),
        ] {
            let mut reader = download.reader();
            start_seek(&mut reader, SeekFrom::End(offset)).unwrap();
            // One who waits for it, and gives up.
            let _ = reader.stream_position().now_or_never();
            if let Some(then) = then {
                let ended = download.reader();
                drop(ended);
                start_seek(&mut reader, SeekFrom::End(offset)).unwrap();
                start_seek(&mut reader, then).unwrap();
            }
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).await.unwrap();
            assert!(rest == bytes[from..], "{offset} {then:?}");
            assert_eq!(reader.position(), 1_000_000);
        }
        // What is at hand is not given either.
        let mut reader = download.reader();
        reader.read_u8().await.unwrap();
        start_seek(&mut reader, SeekFrom::End(0)).unwrap();
        assert_eq!(reader.read(&mut [0; 10]).await.unwrap(), 0);
        download.await.unwrap();
    }

    async fn seek_that_fails_is_told_by_the_read_and_changes_nothing(world: World) {
        let bytes = content(100_000, 2);
        let _owners = world.owners(1, "film", &bytes).await;
        let node = world.node("reader").await;
        let download = node.peer.download(named("film"));
        let mut reader = download.reader();
        assert_eq!(reader.read_u8().await.unwrap(), bytes[0]);
        start_seek(&mut reader, SeekFrom::End(-100_001)).unwrap();
        let error = reader.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(reader.read_u8().await.unwrap(), bytes[1]);
        start_seek(&mut reader, SeekFrom::End(i64::MAX)).unwrap();
        let error = start_seek(&mut reader, SeekFrom::Current(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        reader.rewind().await.unwrap();
        assert_eq!(reader.read_u8().await.unwrap(), bytes[0]);
        // The download ends before the length is known.
        let mut download = node.peer.download(named("nothing"));
        let mut reader = download.reader();
        start_seek(&mut reader, SeekFrom::End(-1)).unwrap();
        let mut buffer = [0; 8];
        let mut buffer = tokio::io::ReadBuf::new(&mut buffer);
        let read = poll_fn(|cx| Pin::new(&mut reader).poll_read(cx, &mut buffer)).await;
        let error = read.unwrap_err().downcast::<DownloadError>().unwrap();
        assert_eq!((&mut download).await.unwrap_err(), error);
    }
}

/// Everything that a program holds can be shared between threads.
#[test]
fn handles_are_send_and_sync() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<bt_lite::ContentReader>();
    shared::<bt_lite::ContentStream>();
    shared::<bt_lite::Download>();
    shared::<bt_lite::DownloadEvents>();
    shared::<bt_lite::FolderDownload>();
    shared::<bt_lite::FolderEvents>();
    shared::<bt_lite::Peer>();
    shared::<bt_lite::PeerBuilder>();
    shared::<bt_lite::PeerEvents>();
    shared::<bt_lite::peer::LostContents>();
    shared::<bt_lite::DownloadKey>();
    shared::<bt_lite::ShareSource>();
    shared::<bt_lite::DownloadOptions>();
    shared::<bt_lite::FolderOptions>();
    shared::<bt_lite::StreamOptions>();
    shared::<bt_lite::ReaderOptions>();
    shared::<bt_lite::peer::ExpectedContent>();
    shared::<bt_lite::Tracker>();
    shared::<bt_lite::TrackerBuilder>();
    shared::<bt_lite::TrackerClient>();
    shared::<bt_lite::tracker::OwnEvents>();
    shared::<bt_lite::MemoryNetwork>();
    shared::<bt_lite::MemoryTransport>();
    shared::<bt_lite::TcpTransport>();
    shared::<bt_lite::transport::QuicTransport>();
    shared::<bt_lite::transport::TlsTransport<bt_lite::TcpTransport>>();
    shared::<bt_lite::FileStorage>();
    shared::<bt_lite::MemoryStorage>();
}
