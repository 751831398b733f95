//! What a program holds of a peer: the builder that starts it, and the handle.

use std::fmt;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::access::{AccessGate, AccessPolicy};
use crate::content::Content;
#[cfg(feature = "file-storage")]
use crate::content::{ContentName, NameError};
use crate::descriptors::{descriptor_limit, without_handshakes};
use crate::error::{ConfigError, ReaderError, ShareError, StartError, checked_addr};
use crate::io_error::IoError;
use crate::peer::config::PeerConfig;
use crate::peer::contents::losses::{Losses, LostContents};
use crate::peer::contents::reading::{FaultHandler, readers};
use crate::peer::contents::room::Room;
#[cfg(not(feature = "file-storage"))]
use crate::peer::contents::serve::unshare as unshare_any;
use crate::peer::contents::serve::{DriverWaker, serve_stored, share};
use crate::peer::contents::table::Contents;
use crate::peer::downloads::copies::Copies;
use crate::peer::downloads::queue::DownloadQueue;
use crate::peer::downloads::restored::restore_paused;
use crate::peer::downloads::task::DownloadTask;
use crate::peer::events::hub::EventHub;
#[cfg(feature = "file-storage")]
use crate::peer::folders::error::FolderError;
#[cfg(feature = "file-storage")]
use crate::peer::folders::restored::restore_paused_folders;
#[cfg(feature = "file-storage")]
use crate::peer::folders::share::{restore, share_folder, unshare_any};
#[cfg(feature = "file-storage")]
use crate::peer::folders::status::Folder;
use crate::peer::folders::table::FolderTable;
use crate::peer::handles::download::{Download, DownloadOptions};
use crate::peer::handles::key::DownloadKey;
use crate::peer::handles::reader::{ContentReader, ReaderOptions};
use crate::peer::handles::share::ShareSource;
use crate::peer::limits::Limiter;
use crate::peer::session::admission::Admission;
use crate::peer::session::guard::Guard;
use crate::peer::session::identity::Identity;
use crate::peer::session::{Dialler, accept};
use crate::peer::shared::PeerShared;
use crate::peer::stats::{ContentStats, PeerStats};
use crate::peer::swarm::SwarmConfig;
use crate::peer::tasks::{Decision, Tasks};
use crate::peer::traffic::Traffic;
use crate::protocol::{Addr, AddrError, PeerId, Zone};
use crate::storage::{Lost, Storage, StorageError};
use crate::tracker::{ClientConfig, TrackerClient, TrackerError};
use crate::transport::{Listener, Transport};

/// A peer that runs in the background: shares contents, downloads others, and
/// serves all of them to other peers.
///
/// The handle is cheap to clone. The peer stops when
/// [`shutdown`](Self::shutdown) is called, or when the last handle is dropped.
///
/// ```
/// use bt_lite::{DownloadKey, MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = MemoryNetwork::new(1);
/// let tracker = Tracker::builder(network.endpoint("tracker"))
///     .bind("memory:tracker")
///     .await?;
///
/// let owner = Peer::builder(network.endpoint("owner"), MemoryStorage::new())
///     .tracker(tracker.local_addr())
///     .listen("memory:owner")
///     .start()
///     .await?;
/// owner
///     .share(ShareSource::bytes("greeting", "hello, swarm"))
///     .await?;
///
/// let storage = MemoryStorage::new();
/// let peer = Peer::builder(network.endpoint("peer"), storage.clone())
///     .tracker(tracker.local_addr())
///     .start()
///     .await?;
/// let content = peer.download(DownloadKey::name("greeting")).await?;
/// assert_eq!(storage.bytes(&content.name).unwrap(), "hello, swarm");
///
/// peer.shutdown().await;
/// owner.shutdown().await;
/// tracker.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Peer(Arc<PeerHandle>);

/// Stops the peer when the last clone of its handle is dropped.
struct PeerHandle {
    shared: Arc<PeerShared>,
    /// Where the listener is.
    bound: Option<Addr>,
}

impl Drop for PeerHandle {
    fn drop(&mut self) {
        self.shared.tasks.stop.cancel();
    }
}

impl Peer {
    /// Builds a peer that reaches others through `transport` and keeps what it
    /// downloads in `storage`.
    pub fn builder(transport: impl Transport, storage: impl Storage) -> PeerBuilder {
        PeerBuilder {
            transport: Arc::new(transport),
            storage: Arc::new(storage),
            trackers: Vec::new(),
            trackers_optional: false,
            share_stored: false,
            listen: None,
            advertise: None,
            config: PeerConfig::default(),
            id: None,
            seed: None,
            access: None,
            wrong: None,
        }
    }

    /// How other peers tell this one apart.
    pub fn id(&self) -> PeerId {
        self.shared().identity.id
    }

    /// Where this peer listens, if it does.
    pub fn local_addr(&self) -> Option<&Addr> {
        self.0.bound.as_ref()
    }

    /// The contents that are complete here, and served, each once, under the first of
    /// its names ([`content_stats`](Self::content_stats)). A folder is one of them: its
    /// index. Its files are not listed, unless they are shared or downloaded by
    /// themselves as well.
    pub fn contents(&self) -> Vec<Content> {
        let shared = self.shared();
        let mut contents = shared.contents.complete();
        // Of a folder that is fetched only the index is complete.
        contents.retain(|content| !shared.folders.is_coming(&content.id));
        for folder in shared.folders.all() {
            let index = contents.binary_search_by_key(&folder.id, |content| content.id);
            if let Ok(at) = index {
                contents[at].name = folder.name;
            }
        }
        contents
    }

    /// The folders that are here, or parts of them, and served.
    #[cfg(feature = "file-storage")]
    pub fn folders(&self) -> Vec<Folder> {
        self.shared().folders.all()
    }

    /// The contents that this peer shared and can no longer read, with the reason: a read
    /// failed, or the file had changed, or at the [start](PeerBuilder::share_stored) it
    /// was not there. The oldest first. One that is shared again is not in the list. A
    /// file of a folder has its id as its name, and its folder counts fewer
    /// [files](Folder::files).
    ///
    /// What the storage still has a record of ([`Lost::recorded`]), such as a file on a
    /// volume that is not mounted, is shared again from the next start on at which it is
    /// there. [`unshare`](Self::unshare) drops the record. Of more than 256 others, and
    /// files of folders, the oldest are left out.
    pub fn lost(&self) -> Vec<Lost> {
        self.shared().losses.all()
    }

    /// The same as a stream: first those of [`lost`](Self::lost), then each one as
    /// soon as this peer stops sharing it. It ends with the peer. Whoever falls behind by
    /// more than 256 that have no record misses the oldest, and
    /// [`LostContents::missed`](crate::peer::LostContents::missed) counts them.
    pub fn lost_contents(&self) -> LostContents {
        self.shared().losses.stream()
    }

    /// The names of a complete content, and how much of it was sent; nothing if it is
    /// not complete here. What is only a file of a folder has no names. A name stands for
    /// the only content here that has it.
    pub fn content_stats(&self, key: impl Into<DownloadKey>) -> Option<ContentStats> {
        let contents = &self.shared().contents;
        let id = self.id_of(key.into())?;
        let (content, names) = contents.names(&id)?;
        Some(ContentStats {
            id: content.id,
            length: content.length,
            names,
            uploaded: contents.uploads(&id).bytes(),
        })
    }

    /// What this peer has and does at this moment. O(contents).
    pub fn stats(&self) -> PeerStats {
        let shared = self.shared();
        let (contents, awake) = shared.contents.counts();
        let (active_downloads, queued_downloads) = shared.downloads.counts();
        let (connections, max_connections) = shared.admission.counts();
        let traffic = shared
            .traffic
            .totals(tokio::time::Instant::now().into_std());
        PeerStats {
            contents,
            awake,
            active_downloads,
            queued_downloads,
            connections,
            max_connections,
            files: shared.storage.open_files(),
            download_rate: traffic.download_rate,
            upload_rate: traffic.upload_rate,
            downloaded: traffic.downloaded,
            uploaded: traffic.uploaded,
            waste: traffic.waste,
            far: traffic.far,
        }
    }

    /// Shares a content: hashes it, tells the trackers, and serves it until
    /// [`unshare`](Self::unshare). If this peer shares the same content already, it has
    /// this name as well from then on, up to eight. Others find it by each of its names.
    ///
    /// A file is read where it lies, and must not change while it is shared. As
    /// soon as a read, for another peer or for somebody here, shows that it has changed or
    /// is gone, or fails for good, the content is read at another place that it was shared
    /// from, or else no longer shared, and is among the [lost](Self::lost). With
    /// [`PeerBuilder::share_stored`] it is shared again after a restart.
    ///
    /// Any content name is allowed, also one that is not safe as a file name
    /// ([`ContentName::check_file_name`]), such as that of a dotfile. Peers that
    /// download it by that name into files have to choose another one
    /// ([`DownloadOptions::name`]); peers that download it by id get it under
    /// the id. [`ShareSource::named`] shares it under a better name.
    ///
    /// Returns once a tracker lists the content. With
    /// [`PeerBuilder::trackers_optional`] it is served all the same if none does, and
    /// trackers that do not answer are not waited for longer than two seconds.
    ///
    /// If the peer is [shut down](Self::shutdown) meanwhile, the outcome says what is so
    /// after a restart: a content that is being recorded by then is, and this returns it.
    /// (A storage that takes longer for that than [`PeerConfig::shutdown_timeout`] may have
    /// recorded it all the same.)
    ///
    /// Cancel safe: if the future is dropped, the content is shared or it is
    /// not.
    ///
    /// # Errors
    /// [`ShareError`]. The content is not shared then; the call may be repeated.
    ///
    /// [`ContentName::check_file_name`]: crate::ContentName::check_file_name
    pub async fn share(&self, source: impl Into<ShareSource>) -> Result<Content, ShareError> {
        let shared = self.shared();
        let decided = Decision::default();
        let share = share(shared, source.into(), &decided);
        let shut_down = ShareError::ShutDown;
        shared.tasks.until_decided(&decided, share, shut_down).await
    }

    /// Shares a folder as one thing: reads and hashes all files in it, tells the
    /// trackers of the folder, and serves the files where they lie until
    /// [`unshare`](Self::unshare) of the folder's id. Its name is that of the directory
    /// ([`share_folder_as`](Self::share_folder_as) shares it under another one). Nothing
    /// changes if this peer shares the same folder already, also if that lies elsewhere or
    /// has another name; unless it is gone from there. A folder that lies within another one
    /// is a folder of its own, and so is what a folder has become since it was shared: each
    /// is shared until it is unshared, with the files that are still there.
    ///
    /// What is in the folder must not change while it is shared. A file that changes is
    /// no longer served. With [`PeerBuilder::share_stored`] and a storage that can keep
    /// folders ([`Storage::folders`]), the folder is shared again after a restart,
    /// without being hashed.
    ///
    /// Symbolic links are shared as links, and never followed. Files, symbolic links,
    /// empty folders, and whether the owner of a file may run it are all that is shared:
    /// no times, no other permissions.
    ///
    /// Trackers are waited for as [`share`](Self::share) does.
    ///
    /// Cancel safe: if the future is dropped, the folder is shared, and recorded, or neither.
    /// The same holds when the peer stops meanwhile: after [`ShareError::ShutDown`] nothing
    /// is recorded.
    ///
    /// # Errors
    /// [`FolderError`]. [`FolderError::AlreadyHere`] if the folder, or a part of it, is being
    /// shared or downloaded at this moment, or a part of it was downloaded. One that was
    /// shared, and of which files were [gone](Self::lost) that are back, is shared as a whole
    /// again.
    /// [`FolderError::Name`], [`FolderError::Index`] and
    /// [`StorageError::NotAFile`](crate::StorageError::NotAFile) tell of something in the
    /// folder that not every system could have;
    /// [`StorageError::Changed`](crate::StorageError::Changed) of a file that changed
    /// while it was read. Nothing of the folder is shared then; the call may be
    /// repeated.
    #[cfg(feature = "file-storage")]
    pub async fn share_folder(
        &self,
        path: impl AsRef<std::path::Path>,
    ) -> Result<Folder, FolderError> {
        self.share_folder_named(path.as_ref(), None).await
    }

    /// [`share_folder`](Self::share_folder) under another name than that of the directory:
    /// a [`ContentName`], or text.
    ///
    /// Cancel safe, as `share_folder` is.
    ///
    /// # Errors
    /// [`FolderError`], with [`ShareError::Name`] if the text is not a content name.
    #[cfg(feature = "file-storage")]
    pub async fn share_folder_as<N>(
        &self,
        path: impl AsRef<std::path::Path>,
        name: N,
    ) -> Result<Folder, FolderError>
    where
        N: TryInto<ContentName> + fmt::Display,
        N::Error: Into<NameError>,
    {
        let text = name.to_string();
        let name = name.try_into().map_err(|source| ShareError::Name {
            name: text,
            source: source.into(),
        })?;
        self.share_folder_named(path.as_ref(), Some(name)).await
    }

    #[cfg(feature = "file-storage")]
    async fn share_folder_named(
        &self,
        path: &std::path::Path,
        name: Option<ContentName>,
    ) -> Result<Folder, FolderError> {
        share_folder(self.shared(), path, name).await
    }

    /// Waits until one tracker knows of all contents that are shared here, which takes a
    /// while after a start with very many ([`PeerBuilder::share_stored`]). At once
    /// without trackers.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The first tracker's error if none could be told by now, or
    /// [`TrackerError::TimedOut`] if it takes longer than twice
    /// [`ClientConfig::request_timeout`]. They are told later in any case.
    pub async fn announced(&self) -> Result<(), TrackerError> {
        self.shared().trackers.announced().await
    }

    /// Stops serving a complete content, under all its names, now and after a restart,
    /// and tells the trackers. Its files stay. Returns `false` if there is no such
    /// complete content, and no [record](Self::lost) of one, or if it is only a
    /// file of a folder.
    ///
    /// The id of a folder stands for all of it: those of its files that nothing else
    /// needs, another folder or a share of the file by itself, are no longer served. A
    /// file that a folder needs is still served as a part of that. A name stands for the only
    /// content here that has it.
    ///
    /// Cancel safe: once polled, the content is no longer served, even if the
    /// future is dropped.
    pub async fn unshare(&self, key: impl Into<DownloadKey>) -> bool {
        match self.id_of(key.into()) {
            Some(id) => unshare_any(self.shared(), &id).await,
            None => false,
        }
    }

    /// Starts to download a content, by its name or its id. Returns at once:
    /// await the handle, or watch its events.
    ///
    /// A [`ContentId`](crate::ContentId), a [`ContentName`] and a [`Content`] are keys (a content counts as
    /// its id); [`DownloadKey::id`] and [`DownloadKey::name`] take text. Chunks are served
    /// to others as soon as they are verified. When the download has ended, the content is
    /// in the storage under its name, verified and durable, and this peer shares it.
    ///
    /// It is stored under [`DownloadOptions::name`] or, without that, under the
    /// name that it was asked for by. That holds also if this peer has the content
    /// already, under another name or from another place: then it gets a copy in the
    /// storage, which shares its space with the other one if the file system can do
    /// that. If the bytes are not where they were, they are fetched again. If the storage
    /// does not accept that name ([`Storage::check_name`]), the download fails with
    /// [`DownloadError::Storage`] before anything is fetched. A content that is
    /// asked for by id gets a name that a tracker has for it. As anybody may
    /// have chosen that name, the content is stored under the 64 digits of its
    /// id if the storage does not accept the name, or has something else under
    /// it.
    ///
    /// A content that is being downloaded already is not downloaded twice: this handle
    /// joins that download, which then goes on as long as one of the handles wants it. If
    /// another name is wanted here, the content gets that as well when it is complete. A
    /// download that is [paused](Download::pause), in this run of the peer or since an
    /// [earlier one](PeerBuilder::share_stored), stays paused: [`Download::is_paused`] says
    /// so at once, and [`Download::resume`] of any handle has it go on.
    /// [`DownloadOptions`] says what counts of the options of the one that joins.
    ///
    /// Downloads of one id are one, and so are those of one name that go to the same file;
    /// others when they have found the same content. [`list`](Self::list) has one entry for
    /// all of them. Each has the outcome of the download that it joined.
    ///
    /// Trackers are told only the name that the content was asked for by or
    /// found under, or the id if there is none.
    ///
    /// [`PeerConfig::max_downloads`] downloads are active at a time. Others wait
    /// until one of these has ended or is [paused](Download::pause), those of a higher
    /// [priority](DownloadOptions::priority) first, and then in the order in which they
    /// were started ([`Download::position`]); the time does not count as one in which
    /// nothing arrives.
    ///
    /// The handle returns all errors. If the storage already has this content
    /// under its name, the download succeeds, also if no other peer has it. For a content
    /// that is asked for by name, and that no tracker knows, this takes that the storage
    /// remembers it ([`PeerBuilder::share_stored`]): a name alone does not tell which
    /// bytes are meant. If the storage has something else under the name, the download
    /// fails with [`DownloadError::TargetExists`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// [`ContentName`]: crate::ContentName
    /// [`DownloadError::Storage`]: crate::DownloadError::Storage
    /// [`DownloadError::TargetExists`]: crate::DownloadError::TargetExists
    pub fn download(&self, key: impl Into<DownloadKey>) -> Download {
        self.download_with(key, DownloadOptions::default())
    }

    /// [`download`](Self::download), with options.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn download_with(&self, key: impl Into<DownloadKey>, options: DownloadOptions) -> Download {
        let (shared, key) = (self.shared(), key.into());
        let span = tracing::info_span!(parent: &shared.tasks.span, "download", %key);
        let (mut task, download) = DownloadTask::new(Arc::clone(shared));
        task.asked_for(&key, &options);
        shared.tasks.spawn(span, task.run(key, options));
        download
    }

    /// Reads a content that is complete here, or is being downloaded: one that was
    /// found and is active. See [`Download::reader`] for others. A name stands for the only
    /// content here that has it. What [passes through](Self::stream) cannot be read by
    /// anybody else: [`ReaderError::Passing`].
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`ReaderError`].
    pub async fn reader(&self, key: impl Into<DownloadKey>) -> Result<ContentReader, ReaderError> {
        self.reader_with(key, ReaderOptions::default()).await
    }

    /// [`reader`](Self::reader), with options.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`ReaderError`].
    pub async fn reader_with(
        &self,
        key: impl Into<DownloadKey>,
        options: ReaderOptions,
    ) -> Result<ContentReader, ReaderError> {
        let (shared, key) = (self.shared(), key.into());
        let unknown = key.to_string();
        if shared.tasks.stop.is_cancelled() {
            return Err(ReaderError::ShutDown);
        }
        let Some(id) = self.id_of(key) else {
            return Err(ReaderError::Unknown { key: unknown });
        };
        let board = readers(shared, &id).await?;
        let stop = shared.tasks.stop.clone();
        Ok(ContentReader::new(board, stop, options))
    }

    /// Stops the peer: tells the trackers (EXIT) and the other peers, ends every
    /// download, and returns when every task of this peer has ended. It takes
    /// at most [`PeerConfig::shutdown_timeout`] after the trackers were told,
    /// which is bounded too ([`TrackerClient::shutdown`]); tasks that still run
    /// then are ended at once. May be called again, also on clones.
    ///
    /// Cancel safe: once polled, the peer stops even if the future is dropped.
    pub async fn shutdown(&self) {
        let shared = self.shared();
        shared.tasks.stop.cancel();
        shared.trackers.shutdown().await;
        shared.tasks.end(shared.config.shutdown_timeout).await;
        shared.events.close();
    }

    pub(in crate::peer) fn shared(&self) -> &Arc<PeerShared> {
        &self.0.shared
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("id", &self.id())
            .field("addr", &self.local_addr())
            .finish_non_exhaustive()
    }
}

/// Sets up a [`Peer`].
#[must_use = "a builder does nothing until it is started"]
pub struct PeerBuilder {
    transport: Arc<dyn Transport>,
    storage: Arc<dyn Storage>,
    trackers: Vec<Addr>,
    trackers_optional: bool,
    share_stored: bool,
    listen: Option<Addr>,
    advertise: Option<Addr>,
    config: PeerConfig,
    id: Option<PeerId>,
    seed: Option<u64>,
    /// The first address that was invalid; [`start`](Self::start) returns it.
    pub(super) access: Option<Box<dyn AccessPolicy>>,
    wrong: Option<ConfigError>,
}

impl PeerBuilder {
    /// Adds a tracker to register with.
    pub fn tracker<A>(mut self, addr: A) -> Self
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        if let Some(addr) = self.addr(addr) {
            self.trackers.push(addr);
        }
        self
    }

    /// Starts even if no tracker answers, and shares contents and downloads from owners
    /// that are known without one. The trackers are tried again in the background, and
    /// are told everything as soon as they answer.
    pub fn trackers_optional(mut self) -> Self {
        self.trackers_optional = true;
        self
    }

    /// Shares after a restart what was complete before. Contents that were
    /// shared or downloaded, and not [unshared](Peer::unshare), are recorded by
    /// the storage ([`Storage::remember`]), and served from
    /// [`start`](Self::start) on without being hashed again. The trackers are told in
    /// the background; [`Peer::announced`] waits for that. Contents that have
    /// changed since are left out, as far as the storage can tell: a
    /// [`FileStorage`](crate::FileStorage#changed-files) compares length and
    /// modification time. A storage that records nothing, such as
    /// [`MemoryStorage`](crate::MemoryStorage), has nothing to share then.
    ///
    /// A download that was [paused](Download::pause) when this peer was last stopped, or its
    /// process was killed, is [listed](Peer::list) as paused again: with its name and length,
    /// as far as they were known, what was verified, its priority and its place. One that
    /// went on after a pause and had not ended goes on again. Neither needs a handle:
    /// [`Peer::get`] gives one, and so does another [`Peer::download`] of it, which joins it
    /// and leaves it paused; [`Download::resume`] and [`Peer::resume_all`] have it go on. It
    /// has its options, its limits and other settings, and the owners that were known, and
    /// goes on to where it went, under the same name. What is durable is not fetched again.
    ///
    /// The same holds for folders. Those of them that have not found their folder are listed
    /// with the name that they were asked for by. A paused folder stays paused when it is
    /// downloaded again: `FolderDownload::resume` lets it go on.
    ///
    /// Downloads [into memory](Peer::download_bytes), [into a writer](Peer::download_to) and
    /// [streams](Peer::stream) are not recorded: what they have got was in the memory of this
    /// process, and the writer or reader that it was for is gone with it. A download that was
    /// never paused is not recorded either; ask for it again, and it goes on with what is
    /// durable. Of several downloads of one content that have joined, one is recorded.
    ///
    /// Without this, the peer starts with nothing to share, and the storage
    /// records nothing.
    pub fn share_stored(mut self) -> Self {
        self.share_stored = true;
        self
    }

    /// Sets the address to listen at (port 0: any port). Over TCP, `[::]:0` listens at
    /// all addresses of both families, and `0.0.0.0:0` at those of IPv4: trackers that are
    /// reached over IPv6 do not list such a peer. Without a listener, the peer
    /// serves over the links that it dialled, and trackers do not list it as an
    /// owner.
    pub fn listen<A>(mut self, addr: A) -> Self
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        self.listen = self.addr(addr);
        self
    }

    /// Sets the address that others are told instead of that of the listener,
    /// for a peer behind a forwarded port. Has no effect without a listener.
    ///
    /// A tracker accepts only an address of the host that it sees this peer speak from
    /// ([`AddressRule`](crate::tracker::AddressRule)); from its own machine it accepts
    /// any. `[::]:7000` stands for port 7000 of whatever address the tracker sees, which
    /// is right behind a router that forwards this port. A host name, such as one that
    /// follows a changing address, is looked up by this peer whenever it connects to a
    /// tracker, and the tracker is told the IP.
    pub fn advertise<A>(mut self, addr: A) -> Self
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        self.advertise = self.addr(addr);
        self
    }

    /// Sets the whole configuration at once.
    pub fn config(mut self, config: PeerConfig) -> Self {
        self.config = config;
        self
    }

    pub(super) fn map_config(mut self, change: impl FnOnce(PeerConfig) -> PeerConfig) -> Self {
        self.config = change(self.config);
        self
    }

    /// Sets how many owners a tracker is asked for at a time
    /// ([`PeerConfig::owners_wanted`]).
    pub fn owners_wanted(mut self, owners: u16) -> Self {
        self.config.owners_wanted = owners;
        self
    }

    /// Sets how many downloads may be active ([`PeerConfig::max_downloads`]).
    pub fn max_downloads(mut self, max: usize) -> Self {
        self.config.max_downloads = max;
        self
    }

    /// Sets how many connections there may be to other peers
    /// ([`PeerConfig::max_connections`]).
    pub fn max_connections(mut self, max: usize) -> Self {
        self.config.max_connections = max;
        self
    }

    /// Sets how many connections one host may open
    /// ([`PeerConfig::max_connections_per_host`]).
    pub fn max_connections_per_host(mut self, max: usize) -> Self {
        self.config.max_connections_per_host = max;
        self
    }

    /// Sets how many accepted connections may be shaking hands
    /// ([`PeerConfig::max_handshakes`]).
    pub fn max_handshakes(mut self, max: usize) -> Self {
        self.config.max_handshakes = max;
        self
    }

    /// Sets how many connections of one host may be shaking hands
    /// ([`PeerConfig::max_handshakes_per_host`]).
    pub fn max_handshakes_per_host(mut self, max: usize) -> Self {
        self.config.max_handshakes_per_host = max;
        self
    }

    /// Sets how long a shutdown waits for tasks before it ends them
    /// ([`PeerConfig::shutdown_timeout`]).
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.config.shutdown_timeout = timeout;
        self
    }

    /// Sets the zone of the peer ([`PeerConfig::zone`]).
    ///
    /// ```
    /// # use bt_lite::{MemoryNetwork, MemoryStorage, Peer, Zone};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let network = MemoryNetwork::new(1);
    /// let zone: Zone = "eu-west-3".parse()?;
    /// let peer = Peer::builder(network.endpoint("peer"), MemoryStorage::new());
    /// let peer = peer.zone(zone).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn zone(mut self, zone: impl Into<Option<Zone>>) -> Self {
        self.config.zone = zone.into();
        self
    }

    /// Sets how each content is downloaded and served
    /// ([`PeerConfig::swarm`]).
    pub fn swarm(mut self, swarm: SwarmConfig) -> Self {
        self.config.swarm = swarm;
        self
    }

    /// Sets how trackers are talked to ([`PeerConfig::tracker`]).
    pub fn tracker_client(mut self, client: ClientConfig) -> Self {
        self.config.tracker = client;
        self
    }

    /// Sets the id by which others tell this peer apart. Each peer needs its own: two
    /// with the same id take each other for themselves, and do not talk. Without one, the
    /// operating system's randomness is used. Over a transport that authenticates
    /// ([`Transport::identity`]), the id is that of the peer's key, and no other can be
    /// set. A simulation that is to be repeated needs
    /// an id as well as a [`seed`](Self::seed).
    pub fn id(mut self, id: PeerId) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the seed of every random choice, so that a simulation can be repeated. It
    /// does not set the [`id`](Self::id): peers may have the same seed. Without a seed,
    /// the operating system's randomness is used.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the peer: listens, and registers with the trackers. Returns when
    /// one tracker has registered it, unless
    /// [trackers are optional](Self::trackers_optional).
    ///
    /// Cancel safe: if the future is dropped, the peer stops.
    ///
    /// # Errors
    /// [`StartError`]: a configuration that cannot work, an address that cannot
    /// be listened at, no tracker that registers this peer, a storage that
    /// cannot list what it has, or no random bytes.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(self) -> Result<Peer, StartError> {
        if let Some(wrong) = self.wrong {
            return Err(wrong.into());
        }
        self.config.check()?;
        self.check_addrs()?;
        let id = self.identity()?;
        let secret = self.secret(id)?;
        let listener = self.listener().await?;
        let (optional, share_stored) = (self.trackers_optional, self.share_stored);
        let bound = listener
            .as_ref()
            .map(|listener| listener.local_addr().clone());
        let shared = self.shared((id, secret), bound.as_ref());
        // If this future is dropped from here on, the handle stops the peer.
        let peer = Peer(Arc::new(PeerHandle {
            shared: Arc::clone(&shared),
            bound,
        }));
        if share_stored && let Err(error) = serve_remembered(&shared).await {
            peer.shutdown().await;
            return Err(error.into());
        }
        shared.dialler.follow_access();
        if let Some(listener) = listener {
            let accept = accept(Arc::clone(&shared), listener);
            shared.tasks.spawn(shared.tasks.span.clone(), accept);
        }
        if !optional && let Err(error) = shared.trackers.registered().await {
            peer.shutdown().await;
            return Err(error.into());
        }
        Ok(peer)
    }

    /// The shared state of the peer, and with it the client of its trackers.
    fn shared(self, (id, secret): (PeerId, [u8; 32]), bound: Option<&Addr>) -> Arc<PeerShared> {
        // Nobody reaches a peer without a listener.
        let addr = bound.map(|bound| self.advertise.as_ref().unwrap_or(bound).without_scope());
        let mut rng = fastrand::Rng::with_seed(self.seed.unwrap_or_else(random_seed));
        let span = tracing::info_span!(parent: None, "peer", %id);
        let mut config = self.config;
        let tracker_seed = rng.u64(..);
        config.tracker.seed.get_or_insert(tracker_seed);
        if config.zone.is_some() {
            config.tracker.zone.clone_from(&config.zone);
        }
        let trackers = span.in_scope(|| {
            TrackerClient::start(
                Arc::clone(&self.transport),
                self.trackers,
                addr.clone(),
                config.tracker.clone(),
            )
        });
        let seed = rng.u64(..);
        let max_downloads = config.max_downloads;
        let tasks = Arc::new(Tasks::new(span));
        let identity = Arc::new(Identity::new(id, addr, secret));
        let descriptors = descriptors(&*self.transport);
        let admission = Arc::new(Admission::new(&config, descriptors));
        let limiter = Arc::new(Limiter::new(config.limits, Arc::clone(&tasks)));
        let gate = self.access;
        let gate = gate.map(|policy| AccessGate::new(policy, config.access.clone()));
        Arc::new_cyclic(|shared| {
            let waker = DriverWaker(Weak::clone(shared));
            let evicts = config.max_stored.is_some();
            let contents = Contents::new(Box::new(waker), tasks.stop.clone(), evicts);
            let contents = Arc::new(contents);
            let folders = Arc::new(FolderTable::default());
            let guard = Guard::new(gate, Arc::clone(&contents), Arc::clone(&folders));
            let dialler = Dialler::new(
                Arc::clone(&self.transport),
                Arc::clone(&identity),
                Arc::clone(&admission),
                (Arc::clone(&contents), Arc::clone(&guard)),
                Arc::clone(&tasks),
            );
            PeerShared {
                room: Arc::new(Room::new(config.max_stored)),
                identity,
                config,
                storage: self.storage,
                trackers,
                trackers_optional: self.trackers_optional,
                transport: self.transport,
                admission,
                contents,
                losses: Losses::default(),
                read_faults: Arc::new(FaultHandler(Weak::clone(shared))),
                events: EventHub::default(),
                traffic: Traffic::new(tokio::time::Instant::now().into_std()),
                downloads: Arc::new(DownloadQueue::new(max_downloads)),
                running: Arc::default(),
                folders,
                #[cfg(feature = "file-storage")]
                running_folders: Arc::default(),
                #[cfg(feature = "file-storage")]
                folder_places: Default::default(),
                guard,
                dialler: Arc::new(dialler),
                tasks,
                share_stored: self.share_stored,
                next_seed: AtomicU64::new(seed),
                copies: Copies::default(),
                limiter,
            }
        })
    }

    async fn listener(&self) -> Result<Option<Box<dyn Listener>>, StartError> {
        let Some(addr) = &self.listen else {
            return Ok(None);
        };
        match self.transport.listen(addr).await {
            Ok(listener) => Ok(Some(listener)),
            Err(source) => {
                let addr = addr.clone();
                Err(StartError::Listen { addr, source })
            }
        }
    }

    /// Refuses addresses that the transport can never use.
    fn check_addrs(&self) -> Result<(), StartError> {
        for tracker in &self.trackers {
            let checked = self.transport.check(tracker);
            checked.map_err(|source| TrackerError::Unreachable {
                tracker: tracker.clone(),
                source,
            })?;
        }
        if let Some(advertise) = &self.advertise {
            let checked = self.transport.check(advertise);
            checked.map_err(|source| ConfigError::Advertise {
                addr: advertise.clone(),
                source,
            })?;
        }
        Ok(())
    }

    fn identity(&self) -> Result<PeerId, StartError> {
        let fixed = self.transport.identity();
        match (fixed.map(|identity| identity.peer_id()), self.id) {
            (Some(fixed), Some(set)) if fixed != set => Err(ConfigError::Id { fixed, set }.into()),
            (Some(id), _) | (None, Some(id)) => Ok(id),
            (None, None) => random().map(PeerId),
        }
    }

    /// The key of the link cookies. No two peers have the same.
    fn secret(&self, id: PeerId) -> Result<[u8; 32], StartError> {
        let Some(seed) = self.seed else {
            return random();
        };
        let mut key = id.0.to_vec();
        key.extend_from_slice(&seed.to_le_bytes());
        Ok(blake3::derive_key("bt_lite link cookies", &key))
    }

    fn addr<A>(&mut self, addr: A) -> Option<Addr>
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        match checked_addr(addr) {
            Ok(addr) => Some(addr),
            Err(wrong) => {
                self.wrong.get_or_insert(wrong);
                None
            }
        }
    }
}

impl fmt::Debug for PeerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerBuilder")
            .field("trackers", &self.trackers)
            .field("listen", &self.listen)
            .field("advertise", &self.advertise)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Adds all contents and folders that the storage remembers, and the downloads that were
/// paused.
async fn serve_remembered(shared: &Arc<PeerShared>) -> Result<(), StorageError> {
    serve_stored(shared).await?;
    #[cfg(feature = "file-storage")]
    restore(shared).await?;
    #[cfg(feature = "file-storage")]
    restore_paused_folders(shared).await?;
    restore_paused(shared).await
}

/// How many descriptors the process may have open beside those of handshakes.
fn descriptors(transport: &dyn Transport) -> Option<u64> {
    match transport.identity() {
        Some(_) => descriptor_limit().map(without_handshakes),
        None => descriptor_limit(),
    }
}

/// Random bytes of the operating system.
fn random<const LEN: usize>() -> Result<[u8; LEN], StartError> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Entropy {
        source: IoError::random(error),
    })?;
    Ok(bytes)
}

/// A seed of the operating system, or a fixed one if that has no randomness:
/// nothing that depends on it has to be secret.
fn random_seed() -> u64 {
    getrandom::u64().unwrap_or(0)
}
