//! Folders that lose files: their owner's program and the tracker hear of it.

use std::fs;

use bt_lite::storage::{Lost, StorageError};
use bt_lite::tracker::{ClientConfig, TrackerClient};
use bt_lite::{ContentId, DownloadKey, DownloadOptions, Folder, Peer, StallReason};
use futures::StreamExt;

use crate::on_all_networks;
use crate::world::trees::{Dirs, many, on_files, sharing_again, tree, write};
use crate::world::{World, content, soon};

/// Waits until the tracker lists this peer as one that has all of the folder, or a part.
async fn listed(world: &World, folder: &Folder, peer: &Peer, complete: bool) {
    let transport = world.transport("asker").into();
    let trackers = vec![world.tracker.local_addr().clone()];
    let client = TrackerClient::start(transport, trackers, None, ClientConfig::default());
    loop {
        let found = client.need(folder.id.into(), 50).await.ok();
        let mut owners = found.map_or(Vec::new(), |found| found.owners).into_iter();
        let peer = owners.find(|owner| Some(&owner.addr) == peer.local_addr());
        if peer.is_some_and(|peer| peer.complete == complete) {
            return client.shutdown().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// What is missing, without the reason.
fn missing(peer: &Peer) -> Vec<(ContentId, bool)> {
    let lost = peer.lost();
    lost.iter().map(|lost| (lost.id, lost.recorded)).collect()
}

on_all_networks! {
    async fn file_that_is_gone_when_it_is_asked_for_makes_the_folder_a_part(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 3);
        let bytes = content(70_000, 7);
        write(&dirs.folder(), "a/file", &bytes);
        let id = ContentId::of(&bytes);
        let owner = world.node("owner").await.peer;
        let folder = owner.share_folder(dirs.folder()).await.unwrap();
        listed(&world, &folder, &owner, true).await;
        let mut losses = owner.lost_contents();
        let path = dirs.folder().join("a/file");
        fs::remove_file(&path).unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let download = leecher.download_folder(folder.id);
        let lost = soon(losses.next()).await.unwrap();
        let error = StorageError::Changed { path };
        assert_eq!(lost, Lost::new(id, id.into(), error));
        assert_eq!(owner.lost(), [lost]);
        listed(&world, &folder, &owner, false).await;
        let rest = &owner.folders()[0];
        assert_eq!((rest.files, rest.length), (folder.files - 1, folder.length - 70_000));
        // The other files are still served, and the one who wants all says why it waits.
        let mut events = download.events();
        while download.stall().is_none() {
            soon(events.next()).await.unwrap();
        }
        let reason = download.stall().unwrap();
        assert!(!matches!(reason, StallReason::NoTracker { .. }), "{reason}");
        assert_eq!(download.progress().files_done, folder.files - 1);
    }

    async fn folder_whose_files_are_back_is_shared_again_as_a_whole(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 3);
        write(&dirs.folder(), "a/file", content(70_000, 7));
        let owner = world.node("owner").await.peer;
        let folder = owner.share_folder(dirs.folder()).await.unwrap();
        let mut losses = owner.lost_contents();
        let (path, away) = (dirs.folder().join("a"), dirs.from.path().join("away"));
        fs::rename(&path, &away).unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let download = leecher.download_folder(folder.id);
        soon(losses.next()).await.unwrap();
        listed(&world, &folder, &owner, false).await;
        drop(download);
        fs::rename(&away, &path).unwrap();
        assert_eq!(owner.share_folder(dirs.folder()).await.as_ref(), Ok(&folder));
        assert_eq!((owner.folders(), owner.lost()), (vec![folder.clone()], Vec::new()));
        listed(&world, &folder, &owner, true).await;
        let more = Dirs::new();
        let other = on_files(&world, "other", more.to.path()).await;
        assert_eq!(soon(other.download_folder(folder.id)).await, Ok(folder));
        assert_eq!(tree(&more.to.path().join("folder")), tree(&dirs.folder()));
    }

    async fn file_that_another_folder_has_is_served_from_there(world: World) {
        let (dirs, more) = (Dirs::new(), Dirs::new());
        let bytes = content(70_000, 7);
        for (dirs, name) in [(&dirs, "one"), (&more, "two")] {
            write(&dirs.folder(), "file", &bytes);
            write(&dirs.folder(), name, name);
        }
        let id = ContentId::of(&bytes);
        let owner = world.node("owner").await.peer;
        let first = owner.share_folder(dirs.folder()).await.unwrap();
        let second = owner.share_folder(more.folder()).await.unwrap();
        fs::remove_file(dirs.folder().join("file")).unwrap();
        let leecher = on_files(&world, "leecher", more.to.path()).await;
        leecher.download_folder(second.id).await.unwrap();
        assert_eq!(tree(&more.to.path().join("folder")), tree(&more.folder()));
        listed(&world, &first, &owner, false).await;
        assert_eq!(missing(&owner), [(id, false)]);
        let files: Vec<_> = owner.folders().iter().map(|folder| (folder.id, folder.files)).collect();
        assert!(files.contains(&(first.id, 1)) && files.contains(&(second.id, 2)), "{files:?}");
        assert!(owner.unshare(&first.id).await);
        assert_eq!(missing(&owner), []);
    }

    async fn files_that_are_gone_after_a_restart_are_reported(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 3);
        let bytes = content(70_000, 7);
        write(&dirs.folder(), "a/file", &bytes);
        let id = ContentId::of(&bytes);
        let owner = world.node("owner").await.peer;
        let folder = owner.share_folder(dirs.folder()).await.unwrap();
        let keeps = sharing_again(&world, "keeps", dirs.to.path()).await;
        keeps.download_folder(DownloadKey::name("folder")).await.unwrap();
        owner.shutdown().await;
        keeps.shutdown().await;
        let here = dirs.to.path().join("folder");
        fs::remove_file(here.join("a/file")).unwrap();

        let keeps = sharing_again(&world, "again", dirs.to.path()).await;
        let error = StorageError::NotFound { name: id.into() };
        let lost = Lost::new(id, id.into(), error).recorded(true);
        assert_eq!(keeps.lost(), [lost]);
        assert_eq!(keeps.folders()[0].files, folder.files - 1);
        listed(&world, &folder, &keeps, false).await;
        keeps.shutdown().await;

        // What is lost of it is not missed when the folder is not shared any more.
        let keeps = sharing_again(&world, "once-more", dirs.to.path()).await;
        assert!(!keeps.unshare(&id).await);
        assert_eq!(missing(&keeps), [(id, true)]);
        keeps.shutdown().await;

        // All of it is away, and then back.
        let away = dirs.to.path().join("away");
        fs::rename(&here, &away).unwrap();
        let keeps = sharing_again(&world, "without", dirs.to.path()).await;
        assert_eq!(missing(&keeps), [(folder.id, true)]);
        assert_eq!(keeps.lost()[0].name, folder.name);
        assert_eq!(keeps.folders(), []);
        keeps.shutdown().await;
        fs::rename(&away, &here).unwrap();
        write(&here, "a/file", &bytes);
        let keeps = sharing_again(&world, "with", dirs.to.path()).await;
        // What is written anew is another file, so it is not taken for the old one.
        assert_eq!(missing(&keeps), [(id, true)]);
        keeps.shutdown().await;

        // Nobody wants it any more.
        fs::rename(&here, &away).unwrap();
        let keeps = sharing_again(&world, "without-2", dirs.to.path()).await;
        assert!(keeps.unshare(&folder.id).await);
        assert_eq!(keeps.lost(), []);
        assert!(!keeps.unshare(&folder.id).await);
        keeps.shutdown().await;
        let keeps = sharing_again(&world, "last", dirs.to.path()).await;
        assert_eq!(keeps.lost(), []);
    }

    async fn content_whose_bytes_a_download_misses_is_lost(world: World) {
        let dirs = Dirs::new();
        let bytes = content(70_000, 7);
        let path = dirs.to.path().join("film");
        fs::write(&path, &bytes).unwrap();
        let peer = on_files(&world, "peer", dirs.to.path()).await;
        let shared = peer.share(&*path).await.unwrap();
        let other = world.node("other").await;
        other.share("film", &bytes).await;
        let mut losses = peer.lost_contents();
        fs::remove_file(&path).unwrap();
        // It looks for a copy here, and there is none.
        let options = DownloadOptions::new().name("copy");
        let download = peer.download_with(shared.id, options);
        let (lost, done) = futures::join!(losses.next(), download);
        done.unwrap();
        let lost = lost.unwrap();
        assert_eq!((lost.id, lost.name), (shared.id, shared.name));
        // It is here again.
        assert_eq!(peer.lost(), []);
    }
}
