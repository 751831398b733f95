//! The torrents of a peer.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::adding::{Adding, directory, driven};
use super::begun::{Begun, TcpIo};
use super::beside::also;
use super::choosing::Choosing;
#[cfg(feature = "bittorrent-dht")]
use super::discovery::dht_node::DhtNode;
use super::discovery::local_socket::LocalSocket;
use super::discovery::neighbours;
use super::error::TorrentError;
use super::file_list::FileList;
use super::files::TorrentFiles;
use super::handshake::{Oneself, Shaken, accepted};
use super::identity::identity;
use super::links::accept_link;
use super::magnet_download::MagnetDownload;
use super::options::{TorrentOptions, TorrentSessionConfig};
use super::rendezvous::Rendezvous;
use super::seeker::Seeker;
use super::shared::{SessionShared, rng};
use super::sought::{self, Sought};
use super::sought_talk::accept_sought;
use super::table::{Found, TorrentTable, hashes};
use super::tracker::TrackerClients;
use crate::bittorrent::wire::ClientId;
use crate::bittorrent::{InfoHashV1, Magnet, Metainfo};
use crate::content::{ContentId, ContentName, Geometry};
use crate::peer::downloads::task::DownloadTask;
use crate::peer::handles::download::Download;
use crate::peer::handles::peer::Peer;
use crate::protocol::Addr;
use crate::protocol::limits::HANDSHAKE_TIMEOUT;
use crate::transport::{StreamListener, StreamTransport, TcpAcceptor, TcpTransport};

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Torrents beside the contents of a peer: a BitTorrent client that shares with it the
/// limits, the queue of downloads and the places of connections.
///
/// It speaks BitTorrent over TCP (BEP 3, 6, 9, 10, 11, 52), with v1, v2 and hybrid torrents
/// from [torrent files](Self::add) and [magnet links](Self::add_magnet), and finds peers by
/// trackers over HTTP and UDP, by peers that tell of others, and by address
/// ([`TorrentOptions::peer`]). Trackers over HTTPS need the feature `bittorrent-tls`, or
/// `bittorrent-tls-aws-lc-rs`; those are trusted that the operating system trusts. The
/// connections are in the clear: whoever listens
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
pub struct TorrentSession {
    shared: Arc<SessionShared>,
    torrents: Arc<TorrentTable>,
    bound: Option<Addr>,
    _stop: DropGuard,
}

impl fmt::Debug for TorrentSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TorrentSession")
            .field("shared", &self.shared)
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

impl TorrentSession {
    /// Starts a session beside this peer: listens, if the configuration says so.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`TorrentError::Listen`], [`TorrentError::LocalDiscovery`], and `TorrentError::Dht`.
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
        let cookie: String = std::iter::repeat_with(|| rng.alphanumeric())
            .take(16)
            .collect();
        let join = |interface| LocalSocket::join(interface, cookie);
        let failed = |error: io::Error| TorrentError::LocalDiscovery {
            source: error.into(),
        };
        let local = config.local_discovery.map(join).transpose();
        let local = local.map_err(failed)?;
        #[cfg(feature = "bittorrent-dht")]
        let dht = match config.dht.clone() {
            None => None,
            Some(dht) => {
                let failed = |error: io::Error| TorrentError::Dht {
                    source: error.into(),
                };
                Some(DhtNode::start(dht).await.map_err(failed)?)
            }
        };
        let shared = Arc::new(SessionShared {
            shared: Arc::clone(peer.shared()),
            transport,
            client: ClientId::of_this_crate(random),
            port: config.announce_port.or(port),
            trackers: TrackerClients::new(config.tracker_timeout),
            local,
            #[cfg(feature = "bittorrent-dht")]
            dht,
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
        if shared.local.is_some() {
            let (shared, torrents) = (Arc::clone(&shared), Arc::clone(&torrents));
            let (span, stop) = (tasks.span.clone(), stop.clone());
            shared.shared.tasks.clone().spawn(span, async move {
                if let Some(local) = &shared.local {
                    neighbours::hear(local, &torrents, &stop).await;
                }
            });
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
    /// call joins that: its [peers](TorrentOptions::peer) are asked as well, and where it lies
    /// stays as it is.
    ///
    /// The [id](crate::Content::id) of the content is
    /// [derived](ContentId::of_torrent_v1) from its info hash. Which torrents there were is
    /// not recorded: after a restart, add each again, with the same directory. It goes on with
    /// what it had, and files that have not changed since are not verified again: a file
    /// beside them, `.ID.bt_lite-state`, has their stamps, and says which pieces are right.
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
        if let Some(files) = &options.files {
            let piece_len = u64::from(metainfo.piece_length());
            let geometry = Geometry::of_torrent(metainfo.total_length(), piece_len)?;
            files.of(&FileList::new(metainfo, geometry))?;
        }
        let found = hashes(metainfo).find_map(|hash| self.torrents.find(&hash));
        if let Some(found) = &found {
            let (files, also) = (options.files.as_ref(), options.also.as_slice());
            found.asked_again(files, also, options.peers.clone())?;
        }
        if let Some(Found::Sought(sought)) = &found
            && sought.supply(metainfo)
        {
            // It is listed by the id that it was sought by.
            let (sought, name) = (Arc::clone(sought), metainfo.name().parse().ok());
            let id = sought.id;
            return self.seek(sought, (id, name), options);
        }
        let meeting = self.meeting(info_hash, metainfo.trackers().to_vec(), &options);
        // Those of v2 alone cannot be verified without them.
        let is_whole = metainfo.info_hash_v1().is_some() || metainfo.missing_layers().is_empty();
        if !is_whole {
            let sought = Arc::new(Sought::of_metainfo(meeting, metainfo.clone()));
            if found.is_none() {
                self.torrents.insert_sought(hashes(metainfo), &sought);
            }
            let name = metainfo.name().parse().ok();
            return self.seek(sought, (id, name), options);
        }
        let adding = Adding::new(meeting, metainfo.clone(), &options)?;
        let choosing = &adding.torrent.meeting.choosing;
        let (mut task, download) = self.task(id, &options, choosing);
        let driven = driven(&task, adding.content.length);
        if found.is_none() {
            self.torrents.insert(&adding.torrent);
        }
        let (name, also_id) = (Some(&adding.content.name), options.also);
        let joins = task.asked_outside(id, name, options.priority);
        let part = adding.part(&self.torrents, None, driven);
        let tasks = &self.shared.shared.tasks;
        let span = tracing::info_span!(parent: &tasks.span, "download", key = %id);
        let Some(status) = task.joined_status().filter(|_| joins) else {
            tasks.spawn(span, task.run_outside(part));
            return Ok(download);
        };
        if let (Some(Found::Known(torrent)), Some(id)) = (found, also_id) {
            let common = Arc::clone(&torrent.common);
            tasks.spawn(span.clone(), also(common, id, options, status));
        }
        tasks.spawn(span, task.run_joined_outside());
        Ok(download)
    }

    /// Fetches and shares the torrent of a magnet link. What is in it is asked of peers
    /// first: those that the link names, those that its trackers know, and those that these
    /// know. From then on it is a torrent as any other, and has kept its connections. It can
    /// be listed, paused, limited and cancelled from the start; if nothing arrives for the
    /// [patience](crate::peer::swarm::SwarmConfig::patience) of the peer, it is given up.
    /// A link to a torrent that is here already, or is being fetched, joins that.
    ///
    /// If the link selects files (BEP 53) and the options name none, these are fetched alone. One
    /// that the torrent does not have is told of by the handle.
    ///
    /// ```no_run
    /// # use bt_lite::bittorrent::{TorrentOptions, TorrentSession};
    /// # async fn example(session: TorrentSession) -> Result<(), Box<dyn std::error::Error>> {
    /// let link = "magnet:?xt=urn:btih:a9993e364706816aba3e25717850c26c9cd0d89d&x.pe=192.0.2.1:6881";
    /// let mut download = session.add_magnet(&link.parse()?, TorrentOptions::new())?;
    /// if let Some(metainfo) = download.known().await {
    ///     std::fs::write("saved.torrent", metainfo.to_bytes())?;
    /// }
    /// println!("{} is here", download.await?.name);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TorrentError::NoInfoHash`], and [`TorrentError::NoDirectory`]. What is wrong with the
    /// torrent is told by the handle ([`DownloadError::Torrent`](crate::DownloadError::Torrent)).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn add_magnet(
        &self,
        magnet: &Magnet,
        mut options: TorrentOptions,
    ) -> Result<MagnetDownload, TorrentError> {
        let info_hash = magnet.info_hash().ok_or(TorrentError::NoInfoHash)?;
        let named = magnet.peers.iter().filter_map(Addr::socket_addr);
        options.peers.extend(named);
        options.files = options.files.or_else(|| magnet.choice());
        let v2 = magnet.v2.map(|v2| v2.truncated());
        let hashes = [Some(info_hash), v2].into_iter().flatten();
        let found = hashes.clone().find_map(|hash| self.torrents.find(&hash));
        if let Some(Found::Known(torrent)) = &found {
            let metainfo = watch::Sender::new(Some(torrent.metainfo().clone()));
            let download = self.add(torrent.metainfo(), options)?;
            // It may have ended, and been added anew.
            let now = self.torrents.of_content(&torrent.id);
            let files = TorrentFiles::new(&now.as_ref().unwrap_or(torrent).meeting);
            return Ok(MagnetDownload::new(download, metainfo.subscribe(), files));
        }
        let trackers = sought::tiers(magnet);
        let id = match (magnet.v1, magnet.v2) {
            (None, Some(v2)) => ContentId::of_torrent_v2(v2.as_bytes()),
            _ => ContentId::of_torrent_v1(info_hash.as_bytes()),
        };
        if let Some(found) = &found {
            let (files, also) = (options.files.as_ref(), options.also.as_slice());
            found.asked_again(files, also, options.peers.clone())?;
        }
        let sought = match found {
            Some(Found::Sought(sought)) => sought,
            _ => {
                let meeting = self.meeting(info_hash, trackers, &options);
                let sought = Arc::new(Sought::of_magnet(meeting, id, magnet));
                self.torrents.insert_sought(hashes, &sought);
                sought
            }
        };
        let names = magnet
            .peers
            .iter()
            .filter(|peer| peer.socket_addr().is_none());
        look_up(&sought.meeting, names.cloned().collect());
        let name = magnet.name.as_deref().and_then(|name| name.parse().ok());
        let metainfo = sought.metainfo();
        let files = TorrentFiles::new(&sought.meeting);
        let download = self.seek(sought, (id, name), options)?;
        Ok(MagnetDownload::new(download, metainfo, files))
    }

    /// The files of a torrent of this session that is being fetched or shared, by the id of its
    /// content: which of them are wanted, and how far each of them is. `None` as long as it is
    /// not known what is in the torrent; [`MagnetDownload::files`] has them before.
    pub fn files(&self, id: &ContentId) -> Option<TorrentFiles> {
        let torrent = self.torrents.of_content(id)?;
        Some(TorrentFiles::new(&torrent.meeting))
    }

    /// A torrent of this session that is being fetched or shared, by the id of its content. A
    /// hybrid that was fetched without its hashes of v2 has them soon after it is complete, as
    /// they are made of its bytes then. Save it after that: whoever adds it again with them
    /// serves clients that know v2 only.
    pub fn metainfo(&self, id: &ContentId) -> Option<Metainfo> {
        let torrent = self.torrents.of_content(id)?;
        Some(torrent.metainfo().clone())
    }

    fn meeting(
        &self,
        info_hash: InfoHashV1,
        trackers: Vec<Vec<String>>,
        options: &TorrentOptions,
    ) -> Arc<Rendezvous> {
        let trackers = match options.trackers {
            true => trackers,
            false => Vec::new(),
        };
        let choosing = Choosing::new(options.files.clone(), options.also.is_some());
        let meeting = Rendezvous::new(Arc::clone(&self.shared), info_hash, trackers, choosing);
        meeting.peers.found(options.peers.iter().copied());
        Arc::new(meeting)
    }

    fn task(
        &self,
        id: ContentId,
        options: &TorrentOptions,
        choosing: &Choosing,
    ) -> (DownloadTask, Download) {
        let (task, download) = DownloadTask::new(Arc::clone(&self.shared.shared));
        task.set_outside(id, options.seed, options.limits);
        task.set_choice(&choosing.choice);
        (task, download)
    }

    /// Finds out what a torrent is, and fetches it.
    fn seek(
        &self,
        sought: Arc<Sought>,
        (id, name): (ContentId, Option<ContentName>),
        options: TorrentOptions,
    ) -> Result<Download, TorrentError> {
        let shared = &self.shared.shared;
        directory(shared, &options, &id.into())?;
        let (mut task, download) = self.task(id, &options, &sought.meeting.choosing);
        let joins = task.asked_outside(id, name.as_ref(), options.priority);
        let tasks = &shared.tasks;
        let span = tracing::info_span!(parent: &tasks.span, "download", key = %id);
        if joins {
            tasks.spawn(span, task.run_joined_outside());
            return Ok(download);
        }
        let seeker = Seeker {
            sought,
            table: Arc::clone(&self.torrents),
            id,
            options,
            driven: driven(&task, 0),
        };
        tasks.spawn(span, task.run_sought(Box::new(seeker)));
        Ok(download)
    }
}

/// Looks up the addresses of hosts that a magnet link names.
fn look_up(meeting: &Arc<Rendezvous>, names: Vec<Addr>) {
    if names.is_empty() {
        return;
    }
    let (tasks, meeting) = (&meeting.session.shared.tasks, Arc::clone(meeting));
    tasks.spawn(tasks.span.clone(), async move {
        let looked_up = async {
            for name in names {
                match lookup_host(name.as_str()).await {
                    Ok(found) => meeting.found(found.collect()).await,
                    Err(error) => tracing::debug!(%name, %error, "no address"),
                }
            }
        };
        tokio::select! {
            biased;
            () = meeting.stopped() => {}
            () = looked_up => {}
        }
    });
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
            let shake = accepted_stream(own.oneself(), &torrents, stream.io);
            let shaken = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = place.cut() => return,
                shaken = timeout(HANDSHAKE_TIMEOUT, shake) => shaken,
            };
            drop(place);
            let (Ok(Some((shaken, found))), Some(place)) =
                (shaken, admission.accept(&stream.remote))
            else {
                return;
            };
            match found {
                Found::Known(torrent) => {
                    if let Some(begun) = Begun::accepted(&torrent.meeting, shaken, remote, place) {
                        accept_link(torrent, begun).await;
                    }
                }
                Found::Sought(sought) => {
                    if let Some(begun) = Begun::accepted(&sought.meeting, shaken, remote, place) {
                        accept_sought(sought, begun).await;
                    }
                }
            }
        });
    }
}

async fn accepted_stream(
    me: Oneself,
    torrents: &TorrentTable,
    io: TcpIo,
) -> Option<(Shaken<TcpIo>, Found)> {
    let find = |info_hash| {
        let found = torrents.find(&info_hash)?;
        let v2 = match &found {
            Found::Known(torrent) => torrent.v2(),
            Found::Sought(sought) => sought.v2(),
        };
        Some((found, v2))
    };
    let shaken = accepted(io, me, find).await;
    shaken
        .inspect_err(|error| tracing::debug!(%error, "no handshake"))
        .ok()
}
