//! The task of a download of a folder: the index first, then the files, several at a
//! time, then all of it at once to its final name.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::error::FolderError;
use super::move_blob::MoveBlob;
use super::obtain::{Obtain, Obtained};
use super::share::{hash_folder, in_memory, is_long, release_files, serve_file};
use super::status::{Folder, FolderProgress, FolderStatus};
use super::target::FolderTarget;
use crate::content::{
    Content, ContentId, ContentName, FolderEntry, FolderIndex, FolderIndexError, FolderItem,
    FolderPath, MAX_INDEX_LEN,
};
use crate::error::DownloadError;
use crate::peer::contents::asleep::Asleep;
use crate::peer::contents::folder_source::FolderSource;
use crate::peer::contents::hashing::off_thread;
use crate::peer::contents::role::Role;
use crate::peer::contents::serve::unshare;
use crate::peer::downloads::search::{Missed, Search};
use crate::peer::downloads::task::check_owners;
use crate::peer::handles::key::DownloadKey;
use crate::peer::shared::PeerShared;
use crate::peer::swarm::StallReason;
use crate::protocol::{Addr, ContentKey, Found, OwnEntry, OwnState};
use crate::storage::{Blob, FolderHome, Folders, PlacedFiles, StorageError, is_taken};

/// How often the progress is published.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// How often it is looked whether anything arrives. A download finds out for itself only
/// after seconds.
const STALL_INTERVAL: Duration = Duration::from_secs(1);

/// What a download of a folder is asked for.
#[derive(Debug, Clone)]
pub(in crate::peer) struct FolderRequest {
    pub(in crate::peer) key: DownloadKey,
    pub(in crate::peer) name: Option<ContentName>,
    /// Nothing but these paths; all, if there are none.
    pub(in crate::peer) paths: Vec<FolderPath>,
    pub(in crate::peer) owners: Vec<Addr>,
    /// What is wrong with the request.
    pub(in crate::peer) wrong: Option<FolderError>,
}

/// A download of a folder that is about to start.
pub(in crate::peer) struct FolderTask {
    pub(in crate::peer) shared: Arc<PeerShared>,
    pub(in crate::peer) status: watch::Sender<FolderStatus>,
    pub(in crate::peer) cancel: CancellationToken,
}

/// The names of a folder.
struct Names {
    /// Those to store it under, if they are free. There is a second one if the user has
    /// not asked for the first.
    stored: Vec<ContentName>,
    /// The one at trackers.
    listed: ContentName,
}

/// A file that is wanted: where it is first in the folder.
struct Wanted {
    id: ContentId,
    length: u64,
    entry: FolderEntry,
}

impl FolderTask {
    /// Runs until the folder is here, or the download fails.
    pub(in crate::peer) async fn run(self, request: FolderRequest) {
        let stop = self.shared.tasks.stop.clone();
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => Err(DownloadError::ShutDown.into()),
            () = self.cancel.cancelled() => Err(DownloadError::Cancelled.into()),
            outcome = self.fetch(request) => outcome,
        };
        self.status.send_modify(|status| {
            status.stall = None;
            status.outcome = Some(outcome);
        });
    }

    async fn fetch(&self, request: FolderRequest) -> Result<Folder, FolderError> {
        let shared = &self.shared;
        if let Some(wrong) = request.wrong {
            return Err(wrong);
        }
        let folders = shared.storage.folders().ok_or(FolderError::Unsupported)?;
        let key = request.key.clone().check()?;
        let asked = match &key {
            ContentKey::Name(name) => Some(name.clone()),
            ContentKey::Id(_) => None,
        };
        check_owners(shared, &request.owners)?;
        if let ContentKey::Id(id) = &key
            && let Some((folder, true)) = shared.folders.get(id)
        {
            return Ok(folder);
        }
        let found = self.find(key, &request.owners).await?;
        let id = found.id;
        if let Some((folder, true)) = shared.folders.get(&id) {
            // It has one name here, and is not copied to another.
            return match request.name.is_none_or(|name| name == folder.name) {
                true => Ok(folder),
                false => Err(FolderError::AlreadyHere { id }),
            };
        }
        if found.length > MAX_INDEX_LEN {
            let len = found.length;
            return Err(FolderIndexError::TooLong { len }.into());
        }
        let names = names(shared, request.name.clone(), asked, &found)?;
        if !shared.folders.begin(id, shared.contents.is_alone(&id)) {
            return Err(FolderError::AlreadyHere { id });
        }
        // Whatever ends this, also that the future is dropped.
        let mut undo = Undo {
            shared: Some(shared),
            id,
        };
        let obtain = self.begin(&folders, &found, request.owners).await?;
        let fetched = self.fetch_into(&folders, &obtain, names, &request.paths, found.length);
        let fetched = tokio::select! {
            biased;
            fetched = Box::pin(fetched) => fetched,
            never = self.follow_stalls(&obtain.board) => match never {},
        };
        match fetched {
            Ok((folder, listed_as)) => {
                undo.shared = None;
                self.announce(&obtain, &folder, listed_as);
                if !shared.share_stored {
                    log_failed(obtain.home.remove().await);
                }
                Ok(folder)
            }
            Err(error) => {
                undo.shared = None;
                if release_files(shared, &id) {
                    unshare(shared, &id).await;
                }
                if !obtain.home.had_any() && !self.has_some() {
                    log_failed(obtain.home.remove().await);
                }
                Err(error)
            }
        }
    }

    /// Finds the folder, and says so when no tracker answers.
    async fn find(&self, key: ContentKey, owners: &[Addr]) -> Result<Found, FolderError> {
        let mut search = Search::new(&self.shared, key, owners);
        loop {
            match search.ask().await {
                Ok(found) => {
                    self.show_stall(None);
                    return Ok(found);
                }
                Err(Missed::Finally(error)) => return Err(error.into()),
                Err(Missed::Yet(reason)) => self.show_stall(Some(reason)),
            }
            search.wait().await?;
        }
    }

    /// Shows why nothing arrives for any of the files, when that is so.
    async fn follow_stalls(&self, board: &Board) -> Infallible {
        let mut ticks = tokio::time::interval(STALL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.show_stall(board.stall());
        }
    }

    fn show_stall(&self, stall: Option<StallReason>) {
        self.status.send_if_modified(|status| {
            let changed = status.stall != stall;
            status.stall = stall;
            changed
        });
    }

    /// Whether a file has arrived.
    fn has_some(&self) -> bool {
        let progress = self.status.borrow().progress;
        progress.files_done > 0 || progress.verified_bytes > 0
    }

    async fn begin(
        &self,
        folders: &Folders,
        found: &Found,
        named: Vec<Addr>,
    ) -> Result<Obtain, FolderError> {
        let home = FolderHome::open(folders, found.id).await?;
        let target = FolderTarget::new(home.files().clone());
        let owners = found.owners.iter();
        let owners = owners.map(|owner| (owner.addr.clone(), owner.complete));
        let owners = Some(owners.collect::<Vec<_>>());
        let source = FolderSource::new(found.id, target.clone(), named, owners);
        Ok(Obtain {
            shared: Arc::clone(&self.shared),
            home,
            target,
            source: Arc::new(source),
            board: Board::default(),
        })
    }

    /// Fetches the folder. Returns its name at trackers as well.
    async fn fetch_into(
        &self,
        folders: &Folders,
        obtain: &Obtain,
        names: Names,
        paths: &[FolderPath],
        length: u64,
    ) -> Result<(Folder, ContentName), FolderError> {
        let (whole, bytes) = index(obtain, &names.listed, length).await?;
        let part = match paths {
            [] => whole.clone(),
            paths => whole
                .select(paths)
                .map_err(|path| FolderError::NoSuchPath { path })?,
        };
        let id = obtain.source.index();
        let (files, length) = part.size();
        let mut folder = Folder {
            id,
            name: names.stored[0].clone(),
            files,
            length,
        };
        self.status.send_modify(|status| {
            status.folder = Some(folder.clone());
            status.progress.files = files;
            status.progress.length = length;
        });
        let existing = self.existing(folders, id, &names.stored, &part).await?;
        let (name, placed) = match existing {
            Some(existing) => existing,
            None => {
                check_room(obtain, &part).await?;
                let blobs = self.files(obtain, id, &part).await?;
                publish(obtain, &names.stored, &part, &blobs).await?
            }
        };
        folder.name = name;
        let is_whole = part == whole;
        self.settle(
            folders,
            obtain,
            &folder,
            &names.listed,
            (&whole, &part),
            placed,
        )
        .await;
        if !self.shared.share_stored
            && let Some(index) = obtain.target.opened(&id)
        {
            // Nothing of the home is needed any more.
            index.move_to(in_memory(id, bytes).await?);
        }
        self.shared.folders.complete(folder.clone(), is_whole);
        Ok((folder, names.listed))
    }

    /// The folder, if it is under one of its names already. An error if something else
    /// is under all of them.
    async fn existing(
        &self,
        folders: &Folders,
        id: ContentId,
        names: &[ContentName],
        part: &FolderIndex,
    ) -> Result<Option<(ContentName, PlacedFiles)>, FolderError> {
        let mut taken = None;
        for name in names {
            let root = folders.root(name);
            if !is_taken(&root).await? {
                return Ok(None);
            }
            match hash_folder(&root, folders.pool()).await {
                Ok(found) if found.is_same(part) => {
                    let placed = PlacedFiles::of(root, part, &found.blobs());
                    for (entry, blob) in found.into_files() {
                        serve_file(&self.shared, id, MoveBlob::new(blob), entry, None);
                    }
                    self.status.send_modify(|status| {
                        let progress = &mut status.progress;
                        progress.files_done = progress.files;
                        progress.files_found = progress.files;
                        progress.verified_bytes = progress.length;
                    });
                    return Ok(Some((name.clone(), placed)));
                }
                _ => {
                    let (name, path) = (name.clone(), root.path());
                    taken = Some(FolderError::TargetExists { name, path, id });
                }
            }
        }
        taken.map_or(Ok(None), Err)
    }

    /// Gets all files, several at a time.
    async fn files(
        &self,
        obtain: &Obtain,
        folder: ContentId,
        part: &FolderIndex,
    ) -> Result<HashMap<ContentId, Arc<dyn Blob>>, FolderError> {
        // As many as may be active, so that each that ends makes room for the next.
        let at_a_time = self.shared.config.max_downloads;
        let wanted = wanted(&self.shared, part);
        let expected = wanted.iter().map(|file| file.id);
        self.shared.folders.expect(&folder, expected);
        let repeated = repeats(part);
        let obtained = stream::iter(wanted).map(|file| async move {
            let id = (file.id, Role::File);
            let obtained = obtain.get(id, &file.id.into(), Some(file.length)).await;
            (file, obtained)
        });
        let mut obtained = std::pin::pin!(obtained.buffer_unordered(at_a_time));
        let mut blobs: HashMap<ContentId, Arc<dyn Blob>> = HashMap::new();
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut done = FolderProgress::default();
        loop {
            tokio::select! {
                biased;
                next = obtained.next() => {
                    let Some((file, result)) = next else { break };
                    let Obtained { blob, found } = result.map_err(|error| match error {
                        FolderError::Download(source) => FolderError::File {
                            path: file.entry.path.clone(),
                            source,
                        },
                        error => error,
                    })?;
                    let times = repeated[&file.id];
                    done.files_done += times;
                    done.verified_bytes += file.length * times as u64;
                    done.files_found += if found.is_some() { times } else { 0 };
                    blobs.insert(file.id, blob.now());
                    let found = found.filter(|_| is_long(file.length));
                    serve_file(&self.shared, folder, blob, file.entry, found);
                }
                _ = ticks.tick() => {}
            }
            self.show(done, obtain.board.verified_bytes());
        }
        Ok(blobs)
    }

    fn show(&self, done: FolderProgress, running: u64) {
        self.status.send_if_modified(|status| {
            let next = FolderProgress {
                files: status.progress.files,
                length: status.progress.length,
                verified_bytes: (done.verified_bytes + running).min(status.progress.length),
                ..done
            };
            let changed = status.progress != next;
            status.progress = next;
            changed
        });
    }

    /// The folder is in its place: its files are served from there, and the storage
    /// remembers it.
    async fn settle(
        &self,
        folders: &Folders,
        obtain: &Obtain,
        folder: &Folder,
        listed_as: &ContentName,
        (whole, part): (&FolderIndex, &FolderIndex),
        placed: PlacedFiles,
    ) {
        let shared = &self.shared;
        let places: Vec<_> = placed.blobs(part, folders).collect();
        for (id, place) in &places {
            if let Some(fetched) = obtain.target.opened(id) {
                fetched.move_to(Arc::clone(place));
            }
        }
        shared.folders.moved(&folder.id, places.into_iter());
        if !shared.share_stored {
            return;
        }
        let placed = placed.within(part, whole);
        let manifest = |id: &ContentId| shared.contents.kept_manifest(id);
        let names = (&folder.name, listed_as);
        let recorded = obtain.home.record(names, whole, &placed, manifest).await;
        if let Err(error) = recorded {
            tracing::warn!(folder = %folder.id, %error, "not shared after a restart");
        }
        log_failed(obtain.home.clear().await);
        if let Some(index) = obtain.target.opened(&folder.id)
            && let Ok(blob) = obtain.home.index().await
        {
            // The home is not held open for it.
            index.move_to(blob);
        }
    }

    /// Tells the trackers that all of it is here. Nobody waits for that.
    fn announce(&self, obtain: &Obtain, folder: &Folder, listed_as: ContentName) {
        let is_whole = self.shared.folders.is_whole(&folder.id);
        let Some(blob) = obtain.target.opened(&folder.id).filter(|_| is_whole) else {
            return;
        };
        let entry = OwnEntry::new(folder.id, listed_as, blob.length(), OwnState::Complete);
        let shared = Arc::clone(&self.shared);
        let told = async move {
            let told = shared.trackers.own(entry);
            if let Some(Err(error)) = shared.tasks.stop.run_until_cancelled(told).await {
                tracing::warn!(%error, "announcing the folder failed");
            }
        };
        let span = self.shared.tasks.span.clone();
        self.shared.tasks.spawn(span, told);
    }
}

/// The names of a folder that was found. The one that it is stored under must be one
/// that the storage accepts.
fn names(
    shared: &PeerShared,
    own: Option<ContentName>,
    asked: Option<ContentName>,
    found: &Found,
) -> Result<Names, FolderError> {
    let listed = asked.clone().unwrap_or_else(|| found.name.clone());
    let stored = match own.or(asked) {
        Some(wanted) => {
            shared.storage.check_name(&wanted)?;
            vec![wanted]
        }
        None => {
            let is_id = found.name.as_str().parse::<ContentId>().is_ok();
            let is_usable = !is_id && shared.storage.check_name(&found.name).is_ok();
            let first = is_usable.then(|| found.name.clone());
            first.into_iter().chain([found.id.into()]).collect()
        }
    };
    Ok(Names { stored, listed })
}

/// Gets the index, and reads it.
async fn index(
    obtain: &Obtain,
    listed_as: &ContentName,
    length: u64,
) -> Result<(FolderIndex, Bytes), FolderError> {
    let id = obtain.source.index();
    let known = Some(length).filter(|length| *length > 0);
    let Obtained { blob, found } = obtain.get((id, Role::Index), listed_as, known).await?;
    if found.is_some() {
        let content = Content::new(id, listed_as.clone(), blob.length());
        let asleep = Asleep::of_folder(content, Role::Index, blob.clone(), found);
        obtain.shared.contents.add_stored(asleep);
    }
    let len = blob.length();
    if len > MAX_INDEX_LEN {
        return Err(FolderIndexError::TooLong { len }.into());
    }
    let bytes = blob.read_at(0, len as usize).await?;
    let read = bytes.clone();
    let read = off_thread(move || (ContentId::of(&read) == id, FolderIndex::decode(&read)));
    match read.await {
        (true, index) => Ok((index?, bytes)),
        (false, _) => {
            let path = blob.file().map(|file| file.path().to_path_buf());
            let path = path.unwrap_or_else(|| id.to_string().into());
            Err(StorageError::Changed { path }.into())
        }
    }
}

/// The files to get, each once. Not in the order of the index: peers that fetch a
/// folder at the same time begin with different files, and have something for each
/// other.
fn wanted(shared: &PeerShared, part: &FolderIndex) -> Vec<Wanted> {
    let mut seen = HashSet::new();
    let files = part.entries().iter().filter_map(|entry| match entry.item {
        FolderItem::File { id, length, .. } => seen.insert(id).then(|| Wanted {
            id,
            length,
            entry: entry.clone(),
        }),
        _ => None,
    });
    let mut wanted: Vec<Wanted> = files.collect();
    let seed = shared.swarm_config().planner.seed;
    fastrand::Rng::with_seed(seed).shuffle(&mut wanted);
    wanted
}

/// How often each file occurs.
fn repeats(part: &FolderIndex) -> HashMap<ContentId, usize> {
    let mut repeats = HashMap::new();
    for entry in part.entries() {
        if let FolderItem::File { id, .. } = entry.item {
            *repeats.entry(id).or_default() += 1;
        }
    }
    repeats
}

/// Fails at once if what is not here yet does not fit. A file that is here may take no
/// space for a second time, and one that occurs twice does.
async fn check_room(obtain: &Obtain, part: &FolderIndex) -> Result<(), FolderError> {
    let mut seen = HashSet::new();
    let needed = part.entries().iter().map(|entry| match entry.item {
        FolderItem::File { id, length, .. } => {
            let is_here = obtain.home.had(&id) || obtain.shared.folders.has_file(&id);
            match seen.insert(id) && is_here {
                true => 0,
                false => length,
            }
        }
        _ => 0,
    });
    let needed = needed.sum();
    match obtain.home.available().await {
        Some(available) if available < needed => {
            let what = format!("the folder {}", obtain.source.index());
            Err(StorageError::full(what, needed, Some(available)).into())
        }
        _ => Ok(()),
    }
}

/// Gives the folder the first of these names that is free.
async fn publish(
    obtain: &Obtain,
    names: &[ContentName],
    part: &FolderIndex,
    blobs: &HashMap<ContentId, Arc<dyn Blob>>,
) -> Result<(ContentName, PlacedFiles), FolderError> {
    let id = obtain.source.index();
    let mut taken = FolderError::AlreadyHere { id };
    for name in names {
        match obtain.home.publish(name, part, blobs).await {
            Ok(placed) => return Ok((name.clone(), placed)),
            Err(StorageError::Exists {
                name,
                path: Some(path),
            }) => taken = FolderError::TargetExists { name, path, id },
            Err(error) => return Err(error.into()),
        }
    }
    Err(taken)
}

fn log_failed(done: Result<(), StorageError>) {
    if let Err(error) = done {
        tracing::warn!(%error, "the storage did not remove what it no longer needs");
    }
}

/// Removes a folder that is not here after all.
struct Undo<'a> {
    /// `None` if it is here.
    shared: Option<&'a Arc<PeerShared>>,
    id: ContentId,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            if !release_files(shared, &self.id) {
                return;
            }
            let (shared, index) = (Arc::clone(shared), self.id);
            let (span, tasks) = (shared.tasks.span.clone(), Arc::clone(&shared.tasks));
            tasks.spawn(span, async move {
                unshare(&shared, &index).await;
            });
        }
    }
}
