//! What a BitTorrent client tells the registry, over HTTP or UDP, and what it is told.

use core::net::{IpAddr, Ipv4Addr};

use super::addrs::{ListenAddr, Vantage};
use crate::bittorrent::InfoHashV1;
use crate::bittorrent::tracker::http::{AnnounceAnswer, AnnounceQuery, HttpPeer, PeersForm};
use crate::bittorrent::tracker::udp::UdpAnnounce;
use crate::bittorrent::tracker::{AnnounceEvent, ScrapeFigures};
use crate::protocol::Token;

/// How many peers are named to one who does not say how many it wants. As other trackers.
pub const DEFAULT_WANTED: u32 = 50;

/// How many peers are named at most: what fits into a packet of UDP over IPv4.
pub const MAX_WANTED: u32 = 200;

/// An announce of a BitTorrent client, over HTTP or UDP.
///
/// ```
/// use bt_lite::bittorrent::tracker::udp::UdpAnnounce;
/// use bt_lite::tracker::TorrentAnnounce;
///
/// fn of(announce: &UdpAnnounce) -> TorrentAnnounce {
///     announce.into()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TorrentAnnounce {
    /// The torrent.
    pub info_hash: InfoHashV1,
    /// What the peer calls itself. A later one from the same address replaces it.
    pub peer_id: [u8; 20],
    /// Where it listens; 0 if nobody can connect to it. Then it is told of others and not
    /// remembered.
    pub port: u16,
    /// The IP at which it wants to be listed. It counts with
    /// [`AddressRule::Any`](crate::tracker::AddressRule::Any) only.
    pub ip: Option<IpAddr>,
    /// How many bytes it lacks. None for one that shares.
    pub left: u64,
    /// What for.
    pub event: Option<AnnounceEvent>,
    /// How many peers it wants: [`DEFAULT_WANTED`] if it does not say, and [`MAX_WANTED`] at
    /// most.
    pub num_want: Option<u32>,
    /// Whether it is to be told what the peers call themselves. That costs a step for each.
    pub wants_ids: bool,
}

/// What the registry answers to an announce.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TorrentAnswer {
    /// After how many seconds to announce again. Drawn anew for each answer, so that those
    /// who came together do not come together again.
    pub interval: u32,
    /// The least number of seconds between two announces.
    pub min_interval: u32,
    /// Who has it, the announcer included, if it is listed.
    pub figures: ScrapeFigures,
    /// Some of the others, of the family of addresses that the announce came over.
    pub peers: Vec<HttpPeer>,
}

/// What has become of one who has announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Membership {
    /// It is not listed, and was not.
    None,
    /// It is listed, and would have this token if it had registered.
    Listed(Token),
    /// It was, and is no more.
    Left(Token),
}

/// Who announces, and how many others it wants to hear of.
pub(crate) struct Announcer<'a> {
    /// Where it is listed, if it is.
    pub(crate) listed: Option<&'a ListenAddr>,
    pub(crate) vantage: Vantage,
    /// Whether it has all, and needs nobody who has.
    pub(crate) needs_no_seeders: bool,
    /// How many of the fastest owners it wants, and how many others.
    pub(crate) wanted: (usize, usize),
}

impl TorrentAnnounce {
    /// An announce with nothing to say but this, of a peer that has all.
    pub fn new(info_hash: InfoHashV1, peer_id: [u8; 20], port: u16) -> Self {
        Self {
            info_hash,
            peer_id,
            port,
            ip: None,
            left: 0,
            event: None,
            num_want: None,
            wants_ids: false,
        }
    }

    /// Whether it has all, and needs nobody who has. One that has just begun may have nothing:
    /// with a magnet link, aria2 1.36 lacks 0 bytes until it knows the torrent.
    pub(crate) fn needs_no_seeders(&self) -> bool {
        self.left == 0 && self.event != Some(AnnounceEvent::Started)
    }

    /// How many peers it is told of at most.
    pub(crate) fn wanted(&self) -> usize {
        match self.event {
            Some(AnnounceEvent::Stopped) => 0,
            _ => self.num_want.unwrap_or(DEFAULT_WANTED).min(MAX_WANTED) as usize,
        }
    }
}

impl From<&AnnounceQuery> for TorrentAnnounce {
    fn from(query: &AnnounceQuery) -> Self {
        Self {
            info_hash: query.info_hash,
            peer_id: query.peer_id,
            port: query.port,
            ip: query.ip,
            left: query.left,
            event: query.event,
            num_want: query.num_want,
            wants_ids: query.form == PeersForm::Full,
        }
    }
}

impl From<&UdpAnnounce> for TorrentAnnounce {
    fn from(announce: &UdpAnnounce) -> Self {
        let ip = Some(announce.ip).filter(|ip| *ip != 0);
        Self {
            info_hash: announce.info_hash,
            peer_id: announce.peer_id,
            port: announce.port,
            ip: ip.map(|ip| Ipv4Addr::from_bits(ip).into()),
            left: announce.left,
            event: announce.event,
            num_want: announce.num_want,
            wants_ids: false,
        }
    }
}

impl TorrentAnswer {
    /// The answer over HTTP to one whose announce came from this address.
    pub fn to_http(&self, source: IpAddr) -> AnnounceAnswer {
        AnnounceAnswer {
            interval: self.interval,
            min_interval: Some(self.min_interval),
            complete: Some(self.figures.complete),
            incomplete: Some(self.figures.incomplete),
            downloaded: Some(self.figures.downloaded),
            external_ip: Some(source),
            peers: self.peers.clone(),
            ..AnnounceAnswer::default()
        }
    }
}
