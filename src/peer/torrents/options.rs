//! How a torrent session works, and how a torrent is fetched and shared.

use std::fmt;
#[cfg(feature = "bittorrent-dht")]
use std::net::SocketAddrV4;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::file_choice::FileChoice;
use crate::content::{ContentId, FolderPath, FolderPathError};
use crate::peer::downloads::priority::Priority;
use crate::peer::limits::ContentLimits;

/// How a [`TorrentSession`](super::TorrentSession) works.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct TorrentSessionConfig {
    /// Where BitTorrent clients can connect to, as `IP:PORT`; port 0 lets the system choose.
    /// Without it this side only dials. Default: none, as few programs may open ports
    /// unasked.
    pub listen: Option<SocketAddr>,
    /// The port that trackers are told, where it is another one than that of `listen`, such
    /// as behind a gateway. Default: that of `listen`, as few are behind a gateway that changes it.
    pub announce_port: Option<u16>,
    /// How long one answer of a tracker may take. Default: 30 seconds; busy trackers take
    /// several.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::duration"))]
    pub tracker_timeout: Duration,
    /// How many peers a tracker is asked for. Default: 80, as in other clients.
    pub peers_wanted: u32,
    /// The IPv4 address of the interface at which peers in the local network are looked for
    /// and told of this one (BEP 14); with `0.0.0.0` the system chooses the interface. Private
    /// torrents are left out. Default: none, as everybody in that network hears which torrents
    /// there are.
    pub local_discovery: Option<Ipv4Addr>,
    /// How it takes part in the distributed hash table (BEP 5); private torrents are left out.
    /// Default: not at all, as it tells strangers which torrents are wanted here.
    #[cfg(feature = "bittorrent-dht")]
    pub dht: Option<DhtConfig>,
}

/// How a session takes part in the distributed hash table of BitTorrent (BEP 5; feature
/// `bittorrent-dht`): torrents are looked up there, and announced if the session listens. It
/// speaks IPv4. It answers others as well once it has found out that it can be reached.
#[cfg(feature = "bittorrent-dht")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct DhtConfig {
    /// Nodes by which it finds others, as `HOST:PORT`. Those whose names cannot be looked up are
    /// left out. Default: none given, and then a few public ones that the crate `mainline`
    /// knows, as most want the table that all have.
    pub bootstrap: Vec<String>,
    /// Where its node listens, over UDP. Default: port 6881 of all interfaces, which many have
    /// open, or another one if that is taken.
    pub listen: SocketAddrV4,
}

#[cfg(feature = "bittorrent-dht")]
impl Default for DhtConfig {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            listen: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
        }
    }
}

#[cfg(feature = "bittorrent-dht")]
impl DhtConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }
}

#[cfg(feature = "bittorrent-dht")]
setters!(DhtConfig {
    bootstrap: Vec<String>,
    listen: SocketAddrV4,
});

impl Default for TorrentSessionConfig {
    fn default() -> Self {
        Self {
            listen: None,
            announce_port: None,
            tracker_timeout: Duration::from_secs(30),
            peers_wanted: 80,
            local_discovery: None,
            #[cfg(feature = "bittorrent-dht")]
            dht: None,
        }
    }
}

impl TorrentSessionConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }
}

setters!(TorrentSessionConfig {
    listen: SocketAddr,
    announce_port: u16,
    tracker_timeout: Duration,
    peers_wanted: u32,
    local_discovery: Ipv4Addr,
    #[cfg(feature = "bittorrent-dht")]
    dht: DhtConfig,
});

/// How one torrent is fetched and shared.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TorrentOptions {
    pub(super) directory: Option<PathBuf>,
    pub(super) overwrite: bool,
    pub(super) seed: bool,
    pub(super) peers: Vec<SocketAddr>,
    pub(super) trackers: bool,
    pub(super) priority: Priority,
    pub(super) limits: Option<ContentLimits>,
    pub(super) upload_slots: Option<usize>,
    pub(super) also: Option<ContentId>,
    pub(super) files: Option<FileChoice>,
}

impl Default for TorrentOptions {
    fn default() -> Self {
        Self {
            directory: None,
            overwrite: false,
            seed: true,
            peers: Vec::new(),
            trackers: true,
            priority: Priority::default(),
            limits: None,
            upload_slots: None,
            also: None,
            files: None,
        }
    }
}

impl TorrentOptions {
    /// The defaults: into the directory of the peer's storage, over nothing that is there
    /// and different, and shared when it is complete.
    pub fn new() -> Self {
        Self::default()
    }

    /// The directory in which the file or the folder of the torrent is, or is to be. What is
    /// there of it is verified, and only the rest is fetched.
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Fetches these files and no others; by default all. The download is complete when they
    /// are whole and verified and have their names, and goes on sharing them. Pieces that reach
    /// into other files are fetched as a whole; what lies in those is kept beside the files, in
    /// `.ID.bt_lite-apart`, and used when they are wanted later.
    ///
    /// [`TorrentSession::files`](super::TorrentSession::files) changes what is wanted. Another
    /// call for the same torrent adds its files to those that are wanted, or has all wanted.
    /// Which files were wanted is not recorded: after a restart, say it again.
    ///
    /// ```
    /// use bt_lite::bittorrent::{FileChoice, TorrentOptions};
    ///
    /// let options = TorrentOptions::new().files(FileChoice::none().files(0..=2));
    /// let options = TorrentOptions::new().path("docs/").file(7);
    /// ```
    #[must_use]
    pub fn files(mut self, files: FileChoice) -> Self {
        self.files.get_or_insert_default().add(files);
        self
    }

    /// Adds the file of this number to those that are wanted; see [`files`](Self::files).
    #[must_use]
    pub fn file(self, number: usize) -> Self {
        self.files(FileChoice::none().file(number))
    }

    /// Adds a file or folder of the torrent to what is wanted: a [`FolderPath`], or text, in
    /// which a slash may follow; see [`files`](Self::files). Without any, everything is. If it
    /// is not a path, the torrent is refused with
    /// [`TorrentError::Path`](super::TorrentError::Path).
    #[must_use]
    pub fn path<P>(self, path: P) -> Self
    where
        P: TryInto<FolderPath> + fmt::Display,
        P::Error: Into<FolderPathError>,
    {
        self.files(FileChoice::none().path(path))
    }

    /// Whether files that have the names of the torrent's and other bytes are changed.
    /// Otherwise the download fails with
    /// [`TargetExists`](crate::DownloadError::TargetExists), and they stay as they are.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Whether the torrent is shared when it is complete.
    #[must_use]
    pub fn seed(mut self, seed: bool) -> Self {
        self.seed = seed;
        self
    }

    /// A peer that may have it.
    #[must_use]
    pub fn peer(mut self, peer: SocketAddr) -> Self {
        self.peers.push(peer);
        self
    }

    /// Whether the torrent's trackers are asked and told of this peer.
    #[must_use]
    pub fn trackers(mut self, trackers: bool) -> Self {
        self.trackers = trackers;
        self
    }

    /// Which of the downloads that wait begins first.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// How fast it may be sent and received.
    #[must_use]
    pub fn limits(mut self, limits: ContentLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// How many clients are served at a time. Most of these slots go to those that give most,
    /// and the rest to others in turns. With 0, nobody is served. Default: as many as
    /// [`SwarmConfig::stranger_slots`](crate::peer::swarm::SwarmConfig::stranger_slots)
    /// of the peer says.
    #[must_use]
    pub fn upload_slots(mut self, slots: usize) -> Self {
        self.upload_slots = Some(slots);
        self
    }

    /// The torrent is known by this id in the peer's own network as well: it is fetched from
    /// both and shared in both, from the same files. So the peers of a fleet have it from each
    /// other, and each fetches a part of it from BitTorrent clients. The id is that of a content
    /// if the torrent is a single file, and that of a [folder](crate::Peer::share_folder) if it
    /// has a folder.
    ///
    /// The second one is a download of its own, which the peer [lists](crate::Peer::list);
    /// [`Peer::get`](crate::Peer::get) and [`Peer::get_folder`](crate::Peer::get_folder) have
    /// handles of it. It begins when the torrent does. Both together take one of the
    /// [places](crate::PeerConfig::max_downloads) of active downloads. Pausing one of the two
    /// pauses its network alone. When the torrent is cancelled, the other one is, unless
    /// somebody else wants it. When the torrent is complete, the other one is shared from its
    /// files, as by [`Peer::share`](crate::Peer::share) and
    /// [`Peer::share_folder`](crate::Peer::share_folder), and stays shared after a restart if
    /// others do; add the torrent again with the same options.
    ///
    /// Nobody proves that the two are the same, so each is verified by its own hashes. If they
    /// are not, the torrent goes on, and the other download fails with
    /// [`StorageError::Mismatch`](crate::StorageError::Mismatch).
    ///
    /// As long as nobody in the peer's network has the other one, it cannot be verified there:
    /// then it is shared when the torrent is complete. If the peer has it already, the torrent
    /// takes its bytes from there, and it stays where it is. A torrent that is fetched already,
    /// or is complete, may be added again with this.
    ///
    /// *Folders.* Each file that both have at the same path is one file. A folder may have more
    /// files: they are put beside those of the torrent when that is complete. What only the
    /// torrent has is no part of the folder. Where both have a file of different bytes, or
    /// something else has the path of a file, the folder fails, and the torrent goes on. The
    /// files of a torrent get their names when all are complete, and the folder appears at the
    /// same moment: it does not wait for a place of its own.
    ///
    /// All of the torrent is fetched then: with [`files`](Self::files) it is refused
    /// ([`TorrentError::PartIsNoOther`](super::TorrentError::PartIsNoOther)).
    #[must_use]
    pub fn also(mut self, id: ContentId) -> Self {
        self.also = Some(id);
        self
    }
}
