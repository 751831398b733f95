//! What a peer has and fetches, and handles of downloads that run.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::content::{ContentId, ContentName};
use crate::peer::contents::status::ContentStatus;
use crate::peer::downloads::priority::Priority;
use crate::peer::downloads::running::Running;
use crate::peer::folders::status::FolderProgress;
use crate::peer::handles::download::Download;
use crate::peer::handles::key::DownloadKey;
use crate::peer::handles::peer::Peer;
use crate::peer::swarm::Progress;

/// A content or a folder that a peer has or fetches; see [`Peer::list`].
///
/// With the feature `serde` it is saved as a JSON object with these fields, the
/// [state](ContentState) in words, and `position` beside it if it is queued, as in
/// `{"kind":"single","id":"…","name":"film","length":100000,"progress":{…},"state":"queued","position":3}`;
/// the kind of a folder is `{"folder":{"progress":{…},"path":"…"}}`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ListedContent {
    /// Whether it is a folder.
    pub kind: ContentKind,
    /// The content; `None` as long as a download by name has not found it.
    pub id: Option<ContentId>,
    /// The name that it has or gets here. As long as the manifest is not known, the name
    /// that the user wants or that it was asked for by; `None` if that was an id.
    pub name: Option<ContentName>,
    /// Bytes of the content, once the manifest is known. Those of all files of a folder
    /// that are wanted, once its index is here.
    pub length: Option<u64>,
    /// How far it is. That of a folder is what its files have together
    /// ([`FolderDownload::stats`](crate::FolderDownload::stats)).
    pub progress: Progress,
    /// Which of the downloads that wait begins first; `None` of what is complete.
    pub priority: Option<Priority>,
    /// What happens to it at this moment.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub state: ContentState,
}

/// Whether something is one content, or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum ContentKind {
    /// One content.
    Single,
    /// A folder. Its files and its index have no entries of their own.
    Folder {
        /// How many of its files are here.
        progress: FolderProgress,
        /// Where it lies; `None` as long as nothing of it is in its place.
        path: Option<PathBuf>,
    },
}

/// What happens to a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "state", rename_all = "snake_case")
)]
pub enum ContentState {
    /// Its download waits until others have ended.
    Queued {
        /// How many others begin before it.
        position: usize,
    },
    /// The content, an owner or the manifest is being looked for.
    Looking,
    /// It is being downloaded.
    Downloading,
    /// Its download is [paused](Download::pause).
    Paused,
    /// It is complete, and shared; or all is that is wanted of it.
    Seeding,
}

impl fmt::Display for ContentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Queued { position: 0 } => "queued",
            Self::Queued { position } => return write!(f, "queued behind {position}"),
            Self::Looking => "looking",
            Self::Downloading => "downloading",
            Self::Paused => "paused",
            Self::Seeding => "seeding",
        })
    }
}

impl Peer {
    /// Everything that this peer has or fetches: first the downloads that have not ended,
    /// in the order in which they were asked for (also before a restart, of those that were
    /// paused), each once however many handles it has;
    /// then what is [complete](Self::contents), by id. No id is there twice: what is complete
    /// is listed as that, also if a copy of it is on its way. Downloads that have failed are
    /// not here, and neither is what was downloaded [without being
    /// shared](crate::DownloadOptions::seed).
    ///
    /// A folder has one entry, of a [kind](ListedContent::kind) of its own. Its files have
    /// entries only if they are shared or downloaded by themselves as well. The downloads
    /// of folders come behind those of contents. O(contents and files of folders).
    pub fn list(&self) -> Vec<ListedContent> {
        let shared = self.shared();
        let running = shared.running.listed();
        // After that: what completes meanwhile is among these.
        let contents = self.contents();
        let is_here = |id: &ContentId| contents.binary_search_by_key(id, |c| c.id).is_ok();
        let mut list: Vec<ListedContent> = Vec::new();
        for running in running {
            let listed = listed(&running);
            // Of one that is complete at most a copy is on its way.
            list.extend(listed.filter(|listed| !listed.id.is_some_and(|id| is_here(&id))));
        }
        #[cfg(feature = "file-storage")]
        self.list_folders(&mut list);
        // What is the index of one of these is not a content beside it.
        let folders = list
            .iter()
            .filter(|listed| listed.kind != ContentKind::Single);
        let mut folders: HashSet<ContentId> = folders.filter_map(|listed| listed.id).collect();
        folders.retain(|id| {
            let is_known = shared.folders.get(id).is_some();
            is_known || shared.folders.is_expected(id)
        });
        list.retain(|listed| {
            let is_index = listed.id.is_some_and(|id| folders.contains(&id));
            listed.kind != ContentKind::Single || !is_index
        });
        let contents = contents.iter().filter(|c| !folders.contains(&c.id));
        list.extend(contents.map(|content| {
            let uploads = shared.contents.uploads(&content.id);
            let uploaded = uploads.bytes();
            let status = ContentStatus::shared(content.clone(), uploads);
            let mut progress = status.progress().clone();
            progress.uploaded = uploaded;
            ListedContent {
                kind: ContentKind::Single,
                id: Some(content.id),
                name: Some(content.name.clone()),
                length: Some(content.length),
                progress,
                priority: None,
                state: ContentState::Seeding,
            }
        }));
        list
    }

    /// A handle of the download of a content that has not ended, also if it waits or is
    /// paused: the same kind of handle as another call of [`download`](Self::download)
    /// gives, but nothing is started. `None` if there is no such download. A name stands for
    /// the only content here that has it or, if none has, for the first download that was
    /// asked for by it and has not found its content yet.
    ///
    /// The download goes on as long as one of its handles is there, and one that was
    /// [detached](Download::detach) goes on also when this handle is dropped.
    pub fn get(&self, key: impl Into<DownloadKey>) -> Option<Download> {
        let (shared, key) = (self.shared(), key.into());
        let running = shared.running.listed();
        let running = match (self.id_of(key.clone()), key.check().ok()?) {
            (Some(id), _) => running.into_iter().find(|other| other.id() == Some(id)),
            (None, key) => running.into_iter().find(|other| {
                let asked = other.key.get();
                other.id().is_none() && asked == Some(&key)
            }),
        }?;
        let handle = &running.handle;
        // Fails if it is cancelled already.
        let hold = handle.holders.join()?;
        Some(Download::new(
            (handle.status.clone(), running.ended.clone()),
            hold,
            handle.inbox.clone(),
            (Arc::clone(&running.control), Arc::clone(&running.topic)),
            Arc::clone(&handle.readers),
            shared.tasks.stop.clone(),
        ))
    }
}

/// A download, if it was asked for.
fn listed(running: &Running) -> Option<ListedContent> {
    running.key.get()?;
    let status = running.handle.status.borrow();
    let asked = running.name.get();
    let content = status.content();
    let position = running.control.ticket().position();
    let state = match position {
        _ if status.is_paused() => ContentState::Paused,
        _ if status.resting().is_some() => ContentState::Seeding,
        Some(position) if status.is_queued() => ContentState::Queued { position },
        _ if !status.is_open() => ContentState::Looking,
        _ => ContentState::Downloading,
    };
    Some(ListedContent {
        kind: ContentKind::Single,
        id: running.id(),
        name: content.map(|content| &content.name).or(asked).cloned(),
        length: content.map(|content| content.length),
        progress: status.progress().clone(),
        priority: Some(running.control.ticket().priority()),
        state,
    })
}
