//! Files of folders that are downloaded or shared by themselves as well, and files of
//! folders that are gone.

use std::fs;

use bt_lite::peer::DownloadOptions;
use bt_lite::{ContentId, DownloadError, DownloadKey};

use crate::on_all_networks;
use crate::world::trees::{Dirs, many, names, on_files, sharing_again, tree, write};
use crate::world::{World, content, named, soon};

on_all_networks! {
    async fn file_of_a_folder_is_left_under_the_name_that_is_wanted(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 3);
        let bytes = content(70_000, 7);
        write(&dirs.folder(), "a/file", &bytes);
        let id = ContentId::of(&bytes);
        let owner = world.node("owner").await.peer;
        let folder = owner.share_folder(dirs.folder()).await.unwrap();
        let leecher = sharing_again(&world, "leecher", dirs.to.path()).await;
        leecher.download_folder(folder.id).await.unwrap();
        owner.shutdown().await;

        let at = |name: &str| dirs.to.path().join(name);
        let options = DownloadOptions::new().name(named("copy"));
        let copy = leecher.download_with(id, options).await.unwrap();
        assert_eq!((copy.id, &copy.name, copy.length), (id, &named("copy"), 70_000));
        assert_eq!(fs::read(at("copy")).unwrap(), bytes);
        // It is in the storage now, so no further copy is made.
        assert_eq!(leecher.download(id).await.unwrap().name, named("copy"));
        assert!(!at(&id.to_string()).exists());
        // And is shared as any content, beside the folder.
        let ids = |peer: &bt_lite::Peer| -> Vec<ContentId> {
            peer.contents().iter().map(|content| content.id).collect()
        };
        assert!(ids(&leecher).contains(&id));
        world.listed(&copy, 1).await;

        // The same after a restart.
        leecher.shutdown().await;
        let leecher = sharing_again(&world, "leecher-2", dirs.to.path()).await;
        leecher.announced().await.unwrap();
        assert!(ids(&leecher).contains(&id));
        assert_eq!(leecher.content_stats(&id).unwrap().names, [named("copy")]);
        let last = tempfile::tempdir().unwrap();
        let peer = on_files(&world, "last", last.path()).await;
        peer.download(id).await.unwrap();
        peer.shutdown().await;

        // The folder keeps its file when the content goes, and loses none with it.
        assert!(leecher.unshare(&id).await);
        assert!(!leecher.unshare(&id).await);
        assert_eq!(ids(&leecher), [folder.id]);
        let other = tempfile::tempdir().unwrap();
        let found = on_files(&world, "other", other.path()).await.download(id).await;
        assert!(matches!(found, Err(DownloadError::NotFound { .. })), "{found:?}");
        let third = tempfile::tempdir().unwrap();
        let peer = on_files(&world, "third", third.path()).await;
        peer.download_folder(folder.id).await.unwrap();
        assert_eq!(tree(&third.path().join("folder")), tree(&dirs.folder()));
    }

    async fn name_of_a_file_outlives_its_folder(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 3);
        let bytes = content(70_000, 7);
        write(&dirs.folder(), "file", &bytes);
        let owner = world.node("owner").await.peer;
        let folder = owner.share_folder(dirs.folder()).await.unwrap();
        let alone = owner.share(dirs.folder().join("file")).await.unwrap();
        assert_eq!(owner.contents().len(), 2);
        assert!(owner.unshare(&folder.id).await);
        assert_eq!(owner.stats().contents, 1);
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        leecher.download(DownloadKey::name("file")).await.unwrap();
        assert_eq!(fs::read(dirs.to.path().join("file")).unwrap(), bytes);
        assert!(owner.unshare(&alone.id).await);
        assert_eq!(owner.stats().contents, 0);
        leecher.shutdown().await;
        let again = tempfile::tempdir().unwrap();
        let again = on_files(&world, "again", again.path()).await;
        let found = again.download(alone.id).await;
        assert!(matches!(found, Err(DownloadError::NotFound { .. })), "{found:?}");
    }

    async fn download_waits_for_the_folder_that_fetches_its_content(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 3);
        let bytes = content(70_000, 7);
        write(&dirs.folder(), "gone", &bytes);
        let owner = world.node("owner").await.peer;
        let folder = owner.share_folder(dirs.folder()).await.unwrap();
        fs::remove_file(dirs.folder().join("gone")).unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let whole = leecher.download_folder(folder.id);
        while whole.progress().files_done < 3 {
            tokio::task::yield_now().await;
        }
        // Owners of the content by itself help the folder as well.
        let other = world.node("other").await;
        let alone = other.share("alone", &bytes).await;
        let options = DownloadOptions::new().name(named("copy"));
        let (copy, by_id) = (leecher.download_with(alone.id, options), leecher.download(alone.id));
        let (whole, copy, by_id) = futures::join!(whole, copy, by_id);
        whole.unwrap();
        assert_eq!(copy.unwrap().name, named("copy"));
        let at = |name: &str| fs::read(dirs.to.path().join(name)).unwrap();
        assert_eq!(at("copy"), bytes);
        assert_eq!(at(by_id.unwrap().name.as_str()), bytes);
        assert_eq!(at("folder/gone"), bytes);
    }

    async fn download_goes_on_by_itself_when_the_folder_is_cancelled(world: World) {
        let dirs = Dirs::new();
        write(&dirs.folder(), "gone", "x");
        let owner = world.node("owner").await.peer;
        let folder = owner.share_folder(dirs.folder()).await.unwrap();
        fs::remove_file(dirs.folder().join("gone")).unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let whole = leecher.download_folder(folder.id);
        while leecher.stats().active_downloads == 0 || whole.progress().files == 0 {
            tokio::task::yield_now().await;
        }
        let alone = leecher.download(ContentId::of(b"x"));
        let mut alone = std::pin::pin!(alone);
        while futures::poll!(alone.as_mut()).is_pending() && leecher.stats().awake == 0 {
            tokio::task::yield_now().await;
        }
        whole.cancel();
        let _ = whole.await;
        let error = alone.await.unwrap_err();
        assert!(matches!(error, DownloadError::NotFound { .. }), "{error}");
    }

    async fn file_that_is_gone_is_fetched_again_for_another_folder(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 10);
        let owner = world.node("owner").await.peer;
        let first = owner.share_folder(dirs.folder()).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        leecher.download_folder(first.id).await.unwrap();
        fs::remove_file(dirs.to.path().join("folder/dir-2/file-2")).unwrap();

        write(&dirs.folder(), "new", "new");
        let second = owner.share_folder_as(dirs.folder(), named("second")).await.unwrap();
        let mut download = leecher.download_folder(second.id);
        (&mut download).await.unwrap();
        assert_eq!(download.progress().files_found, 9);
        assert_eq!(tree(&dirs.to.path().join("second")), tree(&dirs.folder()));
        assert_eq!(names(dirs.to.path()), ["folder", "second"]);

        // All of it is served from where it is now.
        owner.shutdown().await;
        let last = tempfile::tempdir().unwrap();
        let peer = on_files(&world, "last", last.path()).await;
        peer.download_folder(second.id).await.unwrap();
        assert_eq!(tree(&last.path().join("second")), tree(&dirs.folder()));
    }
}
