//! The torrents of a peer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::announcer::announce;
use super::error::TorrentError;
use super::handshake::accepted;
use super::links::{TorrentOutside, accept_link};
use super::options::{TorrentOptions, TorrentSessionConfig};
use super::shared::{SessionShared, rng};
use super::torrent::{Driven, Torrent};
use super::tracker::TrackerClients;
use crate::bittorrent::wire::ClientId;
use crate::bittorrent::{InfoHashV1, Metainfo};
use crate::content::{Content, ContentId, ContentName, Geometry, Manifest, PieceDigests};
use crate::peer::contents::driver::TargetOptions;
use crate::peer::contents::listing::Listing;
use crate::peer::contents::role::Role;
use crate::peer::downloads::task::DownloadTask;
use crate::peer::downloads::task::outside::OutsidePart;
use crate::peer::handles::download::Download;
use crate::peer::handles::peer::Peer;
use crate::protocol::Addr;
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::storage::{SpannedFile, SpannedStorage};
use crate::transport::{StreamListener, StreamTransport, TcpAcceptor, TcpTransport};

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Torrents beside the contents of a peer: a BitTorrent client that shares with it the
/// limits, the queue of downloads and the places of connections.
///
/// It speaks BitTorrent over TCP (BEP 3, 6, 9, 10, 11), with v1, v2 and hybrid torrents, and
/// finds peers by trackers over HTTP (not HTTPS) and UDP, by peers that tell of others, and
/// by address ([`TorrentOptions::peer`]). The connections are in the clear: whoever listens
/// sees which torrent it is and its bytes. [Access policies](crate::access) are not asked;
/// who can connect can fetch.
///
/// When it is dropped it accepts nobody any more. Torrents go on as long as their
/// [`Download`]s or the peer want them.
///
/// ```no_run
/// use bt_lite::bittorrent::{Metainfo, TorrentOptions, TorrentSession, TorrentSessionConfig};
/// use bt_lite::{FileStorage, Peer, TcpTransport};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let storage = FileStorage::open("downloads")?;
/// let peer = Peer::builder(TcpTransport::new(), storage).start().await?;
/// let config = TorrentSessionConfig::new().listen("0.0.0.0:6881".parse()?);
/// let session = TorrentSession::start(&peer, config).await?;
/// let metainfo = Metainfo::from_bytes(&std::fs::read("image.torrent")?)?;
/// let content = session.add(&metainfo, TorrentOptions::new())?.await?;
/// println!("{} has {} bytes", content.name, content.length);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TorrentSession {
    shared: Arc<SessionShared>,
    torrents: Arc<TorrentTable>,
    bound: Option<Addr>,
    _stop: DropGuard,
}

/// The torrents of a session, by all hashes that others know them by.
type TorrentTable = Mutex<HashMap<InfoHashV1, Weak<Torrent>>>;

impl TorrentSession {
    /// Starts a session beside this peer: listens, if the configuration says so.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`TorrentError::Listen`].
    pub async fn start(peer: &Peer, config: TorrentSessionConfig) -> Result<Self, TorrentError> {
        let transport = TcpTransport::new();
        let listener = match config.listen.map(Addr::from) {
            None => None,
            Some(addr) => {
                let listening = transport.listen_for_streams(&addr).await;
                let failed = |source| TorrentError::Listen { addr, source };
                Some(listening.map_err(failed)?)
            }
        };
        let bound = listener
            .as_ref()
            .map(|listener| listener.local_addr().clone());
        let port = bound
            .as_ref()
            .and_then(Addr::socket_addr)
            .map(|addr| addr.port());
        let mut random = [0; 12];
        let mut rng = rng(peer.shared());
        random.fill_with(|| rng.alphanumeric() as u8);
        let shared = Arc::new(SessionShared {
            shared: Arc::clone(peer.shared()),
            transport,
            client: ClientId::of_this_crate(random),
            port: config.announce_port.or(port),
            trackers: TrackerClients::new(config.tracker_timeout),
            config,
        });
        let torrents = Arc::new(TorrentTable::default());
        let tasks = &shared.shared.tasks;
        let stop = tasks.stop.child_token();
        if let Some(listener) = listener {
            let owned = (Arc::clone(&shared), Arc::clone(&torrents));
            let accept = accept(owned, listener, stop.clone());
            tasks.spawn(tasks.span.clone(), accept);
        }
        Ok(Self {
            shared,
            torrents,
            bound,
            _stop: stop.drop_guard(),
        })
    }

    /// Where BitTorrent clients can connect to; `None` without a listener.
    pub fn local_addr(&self) -> Option<&Addr> {
        self.bound.as_ref()
    }

    /// Fetches and shares a torrent. What lies in its directory is verified first; if that
    /// is all, it is shared at once. The handle is like that of any other
    /// [download](Peer::download): it shows the progress, pauses, limits and reads, and the
    /// peer [lists](Peer::list) it. While a torrent is fetched by this peer already, another
    /// call waits for that.
    ///
    /// The [id](Content::id) of the content is
    /// [derived](ContentId::of_torrent_v1) from its info hash. Nothing of a torrent is
    /// recorded: after a restart, add it again.
    ///
    /// # Errors
    /// [`TorrentError`]: what is wrong with the torrent, for this peer. What fails later is
    /// told by the handle.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn add(
        &self,
        metainfo: &Metainfo,
        options: TorrentOptions,
    ) -> Result<Download, TorrentError> {
        let (info_hash, id) = identity(metainfo);
        let shared = &self.shared.shared;
        let manifest = manifest(metainfo, id)?;
        let geometry = manifest.geometry();
        let name = metainfo.name().parse::<ContentName>();
        let name = name.unwrap_or_else(|_| id.into());
        let directory = match options.directory {
            Some(directory) => directory,
            None => {
                let path = shared.storage.path(&name);
                let parent = path.as_deref().and_then(|path| path.parent());
                parent.ok_or(TorrentError::NoDirectory)?.to_path_buf()
            }
        };
        let files = files(metainfo)?;
        let storage = SpannedStorage::new(&directory, files, geometry.length(), options.overwrite);
        let peers = options.peers;
        let torrent = Arc::new(Torrent::new(
            Arc::clone(&self.shared),
            metainfo.clone(),
            info_hash,
            (id, geometry),
            peers,
        ));
        let content = Content::new(id, name.clone(), geometry.length());
        let span = tracing::info_span!(parent: &shared.tasks.span, "download", key = %id);
        let (mut task, download) = DownloadTask::new(Arc::clone(shared));
        task.asked_outside(&content, options.priority);
        task.set_outside(id, options.seed, options.limits);
        let driven = Driven {
            status: task.status(),
            inbox: task.inbox(),
        };
        insert(&self.torrents, &torrent);
        torrent.driven_by(driven);
        if options.trackers {
            announce(&torrent);
        } else {
            torrent.wishes.has_no_tracker();
        }
        let part = OutsidePart {
            listing: Listing::new(content, name).role(Role::Torrent),
            manifest: Arc::new(manifest),
            owners: torrent.owners(),
            outside: Arc::new(TorrentOutside(torrent)),
            // It knows by itself what it may change.
            target: TargetOptions::to(Arc::new(storage)),
            slots: options.upload_slots,
        };
        shared.tasks.spawn(span, task.run_outside(part));
        Ok(download)
    }
}

/// Those who name the torrent get a connection with it from now on.
fn insert(torrents: &TorrentTable, torrent: &Arc<Torrent>) {
    let v2 = torrent.metainfo.info_hash_v2().map(|hash| hash.truncated());
    let mut torrents = lock(torrents);
    torrents.retain(|_, torrent| torrent.strong_count() > 0);
    for hash in torrent.metainfo.info_hash_v1().into_iter().chain(v2) {
        torrents.insert(hash, Arc::downgrade(torrent));
    }
}

/// Ignores poison: no change under this lock is left half done.
fn lock(torrents: &TorrentTable) -> MutexGuard<'_, HashMap<InfoHashV1, Weak<Torrent>>> {
    torrents.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts connections until the session ends.
async fn accept(
    (session, torrents): (Arc<SessionShared>, Arc<TorrentTable>),
    mut listener: TcpAcceptor,
    stop: CancellationToken,
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept_stream()).await {
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting failed");
                // Most likely too many files are open.
                session.shared.admission.make_room();
                stop.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
                continue;
            }
        };
        let Some(remote) = stream.remote.socket_addr() else {
            continue;
        };
        let tasks = Arc::clone(&session.shared.tasks);
        let span = tracing::info_span!(parent: &tasks.span, "session", %remote);
        let (own, stop) = (Arc::clone(&session), tasks.stop.clone());
        let torrents = Arc::clone(&torrents);
        tasks.spawn(span, async move {
            let admission = Arc::clone(&own.shared.admission);
            let place = admission.handshake(&stream.remote);
            let shake = accepted_stream(own.client, &torrents, stream.io);
            let shaken = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = place.cut() => return,
                shaken = timeout(HANDSHAKE_TIMEOUT, shake) => shaken,
            };
            drop(place);
            let (Ok(Some((shaken, torrent))), Some(place)) =
                (shaken, admission.accept(&stream.remote))
            else {
                return;
            };
            accept_link(torrent, shaken, remote, place).await;
        });
    }
}

async fn accepted_stream<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    client: ClientId,
    torrents: &TorrentTable,
    io: S,
) -> Option<(super::handshake::Shaken<S>, Arc<Torrent>)> {
    let find = |info_hash| lock(torrents).get(&info_hash)?.upgrade();
    let shaken = accepted(io, client, find).await;
    shaken
        .inspect_err(|error| tracing::debug!(%error, "no handshake"))
        .ok()
}

/// What a torrent is known by: to its peers and trackers, and here.
fn identity(metainfo: &Metainfo) -> (InfoHashV1, ContentId) {
    match (metainfo.info_hash_v1(), metainfo.info_hash_v2()) {
        (Some(v1), _) => (v1, ContentId::of_torrent_v1(v1.as_bytes())),
        (None, Some(v2)) => (v2.truncated(), ContentId::of_torrent_v2(v2.as_bytes())),
        (None, None) => unreachable!("a torrent has one of the two"),
    }
}

/// What its pieces must be.
fn manifest(metainfo: &Metainfo, id: ContentId) -> Result<Manifest, TorrentError> {
    let piece_len = u64::from(metainfo.piece_length());
    let geometry = Geometry::of_torrent(metainfo.total_length(), piece_len)?;
    let pieces = 0..metainfo.pieces();
    let v1 = metainfo.info_hash_v1().map(|_| {
        let hashes = pieces
            .clone()
            .filter_map(|piece| metainfo.piece_hash_v1(piece));
        hashes.collect::<Vec<_>>()
    });
    let v2 = metainfo.info_hash_v2().map(|_| {
        let roots = pieces.filter_map(|piece| metainfo.piece_root(piece));
        roots.collect::<Vec<_>>()
    });
    let digests = match (v1, v2) {
        (Some(v1), Some(v2)) => PieceDigests::hybrid(v1, v2),
        (Some(v1), None) => PieceDigests::v1(v1),
        (None, v2) => PieceDigests::v2(v2.unwrap_or_default()),
    };
    Ok(Manifest::torrent(id, geometry, digests)?)
}

/// Which of its bytes lie where, in the directory that it goes to.
fn files(metainfo: &Metainfo) -> Result<Vec<SpannedFile>, TorrentError> {
    let stored = metainfo.files().iter();
    let stored = stored.filter(|file| !file.is_padding() && file.symlink_target().is_none());
    let spanned = stored.map(|file| {
        let path = match metainfo.is_single_file() {
            true => file.path().clone(),
            false => format!("{}/{}", metainfo.name(), file.path()).parse()?,
        };
        Ok(SpannedFile {
            path,
            range: file.offset()..file.offset() + file.length(),
            executable: file.is_executable(),
        })
    });
    spanned.collect()
}
