//! Contents that come out of a reader, and contents that go into memory or a writer.

use std::fs;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bt_lite::{
    Content, ContentId, DownloadError, DownloadKey, FileStorage, MemoryStorage, Peer, ShareError,
    StorageError,
};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::on_all_networks;
use crate::world::{World, content, named, soon};

const CHUNK: usize = 16 << 10;

/// Gives its bytes a few at a time, and fails in the end.
struct Failing(Bytes);

impl AsyncRead for Failing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let len = buf.remaining().min(self.0.len()).min(1000);
        buf.put_slice(&self.0.split_to(len));
        Poll::Ready(Ok(()))
    }
}

/// The names in a directory.
fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.ends_with(".catalogue")).collect();
    names.sort();
    names
}

on_all_networks! {
    async fn what_comes_out_of_a_reader_is_stored_and_shared(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let open = || FileStorage::open(dir.path()).unwrap();
        let peer = world.builder("peer", open()).share_stored().start().await.unwrap();
        let mut all = Vec::new();
        for len in [0, 1, CHUNK, 300_000, 3 << 20] {
            let bytes = content(len, len as u64);
            let name = named(&format!("of {len}"));
            let shared = peer.share_reader(name.clone(), &bytes[..]).await.unwrap();
            assert_eq!(shared, Content::new(ContentId::of(&bytes), name.clone(), len as u64));
            assert_eq!(fs::read(dir.path().join(name.as_str())).unwrap(), bytes);
            all.push((shared, bytes));
        }
        peer.shutdown().await;
        let peer = world.builder("peer-again", open()).share_stored().start().await.unwrap();
        let leecher = world.node("leecher").await;
        for (shared, bytes) in all {
            leecher.peer.download(shared.id).await.unwrap();
            assert_eq!(leecher.bytes(shared.name.as_str()).unwrap(), bytes);
        }
        peer.shutdown().await;
    }

    async fn reader_that_fails_or_is_dropped_leaves_nothing_behind(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(dir.path()).unwrap();
        let peer = world.builder("peer", storage).start().await.unwrap();
        let bytes = content(40 * CHUNK, 1);
        let failed = peer.share_reader(named("x"), Failing(bytes.clone())).await;
        let Err(ShareError::Reader { name, source }) = failed else {
            panic!("{failed:?}");
        };
        assert_eq!((name, source.kind()), (named("x"), io::ErrorKind::ConnectionReset));
        assert_eq!(names(dir.path()), [""; 0]);
        // One that never ends.
        let (_writer, never) = tokio::io::duplex(CHUNK);
        let endless = (&bytes[..]).chain(never);
        let mut share = Box::pin(peer.share_reader(named("x"), endless));
        let written = async {
            while names(dir.path()).is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            shared = &mut share => panic!("{shared:?}"),
            () = written => {}
        }
        drop(share);
        while !names(dir.path()).is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(peer.contents(), []);
        // Something else has the name: nothing is read.
        fs::write(dir.path().join("x"), "mine").unwrap();
        let taken = peer.share_reader(named("x"), &bytes[..]).await;
        let Err(ShareError::Storage(StorageError::Exists { .. })) = taken else {
            panic!("{taken:?}");
        };
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"mine");
        // And in memory.
        let storage = MemoryStorage::with_capacity(bytes.len() as u64 - 1);
        let in_memory = world.builder("memory", storage.clone()).start().await.unwrap();
        let full = in_memory.share_reader(named("x"), &bytes[..]).await;
        let Err(ShareError::Storage(StorageError::Full { .. })) = full else {
            panic!("{full:?}");
        };
        let less = bytes.slice(1..);
        in_memory.share_reader(named("x"), &less[..]).await.unwrap();
        assert_eq!(storage.bytes("x").unwrap(), less);
        peer.shutdown().await;
    }

    async fn download_into_memory_leaves_nothing_here(world: World) {
        let bytes = content(50 * CHUNK + 3, 2);
        let owner = world.node("owner").await;
        let shared = owner.share("x", &bytes).await;
        let node = world.node("peer").await;
        let len = bytes.len() as u64;
        let got = node.peer.download_bytes(DownloadKey::name("x"), len).await.unwrap();
        assert_eq!(got, bytes);
        assert_eq!(node.peer.contents(), []);
        assert_eq!(node.bytes("x"), None);
        world.listed(&shared, 1).await;
        let too_large = node.peer.download_bytes(shared.id, len - 1).await;
        let (id, max) = (shared.id, len - 1);
        assert_eq!(too_large, Err(DownloadError::TooLarge { id, length: len, max }));
        let sent = owner.peer.content_stats(&id).unwrap().uploaded;
        assert!(sent < 2 * len, "{sent}");
        let mut written = Vec::new();
        let content = node.peer.download_to(shared.id, &mut written, len).await.unwrap();
        assert_eq!((content.id, written), (id, bytes.to_vec()));
        assert_eq!(node.peer.contents(), []);
        let nothing = node.peer.download_bytes(ContentId::of(b"nobody"), len).await;
        assert!(matches!(nothing, Err(DownloadError::NotFound { .. })), "{nothing:?}");
        // What is here is read from here, and stays.
        node.peer.download(shared.id).await.unwrap();
        owner.peer.shutdown().await;
        let got = node.peer.download_bytes(shared.id, len).await.unwrap();
        assert_eq!(got, bytes);
        let too_large = node.peer.download_bytes(shared.id, len - 1).await;
        assert!(matches!(too_large, Err(DownloadError::TooLarge { .. })), "{too_large:?}");
        assert_eq!(node.peer.contents().len(), 1);
        node.peer.shutdown().await;
    }

    async fn download_beside_one_into_memory_gets_the_content_into_the_storage(world: World) {
        let bytes = content(30 * CHUNK, 3);
        let owner = world.node("owner").await;
        let shared = owner.share("x", &bytes).await;
        let node = world.node("peer").await;
        let (got, stored) = tokio::join!(
            node.peer.download_bytes(shared.id, 1 << 20),
            node.peer.download(shared.id)
        );
        assert_eq!(got.unwrap(), bytes);
        stored.unwrap();
        assert_eq!(node.bytes("x").unwrap(), bytes);
        // What ends without staying takes back nothing that others share.
        assert_eq!(node.peer.contents(), [shared]);
        node.peer.shutdown().await;
    }

    async fn writer_that_fails_ends_the_download(world: World) {
        let bytes = content(30 * CHUNK, 4);
        let owner = world.node("owner").await;
        let shared = owner.share("x", &bytes).await;
        let node = world.node("peer").await;
        let (mut writer, reader) = tokio::io::duplex(1000);
        drop(reader);
        let failed = node.peer.download_to(shared.id, &mut writer, 1 << 20).await;
        assert!(matches!(failed, Err(DownloadError::Writer { .. })), "{failed:?}");
        world.listed(&shared, 1).await;
        assert_eq!(node.peer.contents(), []);
        node.peer.shutdown().await;
    }
}

#[allow(dead_code)]
fn futures_are_send(peer: &Peer) {
    fn is_send(_: impl Send) {}
    is_send(peer.share_reader(named("x"), &b"x"[..]));
    is_send(peer.download_bytes(DownloadKey::name("x"), 1));
}
