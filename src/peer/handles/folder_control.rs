//! Downloads of folders as a peer starts and lists them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::content::ContentId;
use crate::peer::folders::fetch::FolderTask;
use crate::peer::folders::running::RunningFolder;
use crate::peer::folders::status::FolderProgress;
use crate::peer::handles::folder::{FolderDownload, FolderOptions};
use crate::peer::handles::key::DownloadKey;
use crate::peer::handles::list::{ContentKind, ContentState, ListedContent};
use crate::peer::handles::peer::Peer;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::Progress;

impl Peer {
    /// Starts to download a folder, by its name or its id: everything that is in it, into
    /// a directory of the storage. Returns at once: await the handle, or watch its
    /// events.
    ///
    /// The content must be a folder; nobody else can tell, so a download of it by
    /// [`download`](Self::download) gets the bytes of its index, and this fails with
    /// [`FolderError::Index`] for any other content. Everything about the folder is
    /// checked before the first file is fetched.
    ///
    /// The folder appears under its name when it is whole and durable, and not before.
    /// Nothing that is there is replaced. What was fetched when the download ends in
    /// another way, or the process does, is kept beside it in the storage, and the next
    /// download of the folder goes on from there. A file that this peer has in another
    /// place, in an earlier version of the folder for instance, is copied from there.
    ///
    /// If a part of the folder is under its name, only what is missing of what is wanted
    /// is fetched, and added there when all of it is here: file by file, each whole and
    /// durable. What else lies there stays; a file that is in the way is
    /// [`FolderError::TargetExists`], and nothing is added then.
    ///
    /// Then this peer shares the folder. Names are chosen as for a
    /// [`download`](Self::download), and the files count as downloads for
    /// [`PeerConfig::max_downloads`]. [`Storage::folders`] says whether a storage can
    /// keep folders.
    ///
    /// A folder that is being downloaded already is not downloaded twice: this handle
    /// joins that download, which fetches what both want. So does one by the same name as
    /// another that has not found its folder yet. It has one name and one
    /// directory, as a folder that is here has: another one is
    /// [`FolderError::AlreadyHere`]. One that is paused stays paused, also one that was
    /// restored after a restart: [`resume`](FolderDownload::resume) lets it go on.
    ///
    /// A folder that is here is looked at first. If somebody has deleted it, or some of its
    /// files, what is gone is no longer served, and is fetched again.
    ///
    /// The handle returns all errors. If the same folder is there under its name, the
    /// download succeeds; if something else is,
    /// [`FolderError::TargetExists`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// [`FolderError::Index`]: crate::FolderError::Index
    /// [`FolderError::TargetExists`]: crate::FolderError::TargetExists
    /// [`FolderError::AlreadyHere`]: crate::FolderError::AlreadyHere
    /// [`PeerConfig::max_downloads`]: crate::PeerConfig::max_downloads
    /// [`Storage::folders`]: crate::Storage::folders
    pub fn download_folder(&self, key: impl Into<DownloadKey>) -> FolderDownload {
        self.download_folder_with(key, FolderOptions::default())
    }

    /// [`download_folder`](Self::download_folder), with options: a part of the folder,
    /// or another name.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn download_folder_with(
        &self,
        key: impl Into<DownloadKey>,
        options: FolderOptions,
    ) -> FolderDownload {
        let (shared, key) = (self.shared(), key.into());
        let parent = &shared.tasks.span;
        let span = tracing::info_span!(parent: parent, "download", %key, folder = true);
        let (task, request, download) = FolderTask::new(shared, key, options, None);
        shared.tasks.spawn(span, task.run(request));
        download
    }

    /// A handle of the download of a folder that has not ended, also if it waits or is
    /// paused: the same kind of handle as another call of
    /// [`download_folder`](Self::download_folder) gives, but nothing is started. `None` if
    /// there is no such download. A name stands for the only folder that is fetched here and
    /// has it or, if none has, for the first download that was asked for by it and has not
    /// found its folder yet.
    ///
    /// The download goes on as long as one of its handles is there, and one that was
    /// [detached](FolderDownload::detach) goes on also when this handle is dropped.
    pub fn get_folder(&self, key: impl Into<DownloadKey>) -> Option<FolderDownload> {
        let key = key.into().check().ok()?;
        let running = self.shared().running_folders.find(&key)?;
        // Fails if it is cancelled already.
        let hold = running.holders.join()?;
        let (status, control) = (running.status.clone(), Arc::clone(&running.control));
        Some(FolderDownload::new(status, hold, control))
    }

    /// The folders that are fetched, in the order in which they were asked for, and then
    /// those that are here.
    pub(super) fn list_folders(&self, list: &mut Vec<ListedContent>) {
        let shared = self.shared();
        let running = shared.running_folders.all();
        // One that is about to join another has no entry of its own.
        let mut fetched = HashSet::new();
        for running in &running {
            if running.id().is_none_or(|id| fetched.insert(id)) {
                list.push(fetching(shared, running));
            }
        }
        let here = shared.folders.all().into_iter();
        let here = here.filter(|folder| !fetched.contains(&folder.id));
        list.extend(here.map(|folder| {
            let progress = Progress {
                length: Some(folder.length),
                verified_bytes: folder.length,
                uploaded: uploaded(shared, &folder.id),
                ..Progress::default()
            };
            let files = FolderProgress {
                files: folder.files,
                files_done: folder.files,
                length: folder.length,
                verified_bytes: folder.length,
                files_found: 0,
            };
            ListedContent {
                kind: ContentKind::Folder {
                    progress: files,
                    path: path(shared, &folder.id),
                },
                id: Some(folder.id),
                name: Some(folder.name),
                length: Some(folder.length),
                progress,
                priority: None,
                state: ContentState::Seeding,
            }
        }));
    }
}

/// Where a folder lies, if it is in its place.
fn path(shared: &PeerShared, id: &ContentId) -> Option<PathBuf> {
    let placed = shared.folders.placed(id)?;
    Some(placed.root().path())
}

/// What was sent of a folder: of its index and its files. A file that belongs to several
/// folders counts for each.
fn uploaded(shared: &PeerShared, id: &ContentId) -> u64 {
    let files = shared.folders.files(id);
    let all = files.iter().chain([id]);
    all.map(|id| shared.contents.uploads(id).bytes()).sum()
}

fn fetching(shared: &PeerShared, running: &RunningFolder) -> ListedContent {
    let status = running.status.borrow();
    let id = running.id();
    let asked = running.name.as_ref();
    let folder = status.folder.as_ref();
    let state = match folder {
        _ if status.paused => ContentState::Paused,
        None => ContentState::Looking,
        Some(_) => match running.control.board.position().filter(|_| status.queued) {
            Some(position) => ContentState::Queued { position },
            None => ContentState::Downloading,
        },
    };
    let mut progress = status.stats();
    if let Some(id) = &id {
        progress.uploaded = uploaded(shared, id);
    }
    ListedContent {
        kind: ContentKind::Folder {
            progress: status.progress,
            path: id.and_then(|id| path(shared, &id)),
        },
        id,
        name: folder.map(|folder| &folder.name).or(asked).cloned(),
        length: folder.map(|folder| folder.length),
        progress,
        priority: Some(running.control.priority()),
        state,
    }
}
