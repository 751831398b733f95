//! Trackers over UDP (BEP 15): every packet, both ways.
//!
//! Numbers are in network byte order. What follows a packet is ignored, as packets may be
//! extended; after an announce it is options (BEP 41).

use core::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use super::{AnnounceEvent, ScrapeFigures};
use crate::bittorrent::InfoHashV1;
use crate::bittorrent::compact::{COMPACT_V4_LEN, COMPACT_V6_LEN, read_compact, write_compact};
use crate::bittorrent::text::{cut, lossy};

/// The connection id of the first packet: what makes it one of this protocol.
pub const PROTOCOL_ID: u64 = 0x0417_2710_1980;

/// How many torrents can be asked about in one packet (BEP 15).
pub const MAX_SCRAPE: usize = 74;

/// The maximum length of a packet in bytes: what IPv6 carries everywhere, without the
/// headers. An answer with more peers is cut by [`UdpResponse::encode`].
pub const MAX_PACKET_LEN: usize = 1232;

/// The maximum length of an error, in bytes. The rest is cut.
pub const MAX_ERROR_LEN: usize = 512;

/// The maximum length of the path and query that an announce brings, in bytes (BEP 41).
pub const MAX_URL_DATA_LEN: usize = 1024;

/// After how many retransmissions a client gives up (BEP 15).
pub const MAX_RETRANSMISSIONS: u32 = 8;

/// The first wait for an answer (BEP 15).
const FIRST_TIMEOUT: Duration = Duration::from_secs(15);

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_URL_DATA: u8 = 2;

/// How long to wait for an answer after so many retransmissions: 15 seconds, and twice as
/// long each time. `None` when it is time to give up.
///
/// ```
/// use std::time::Duration;
///
/// use bt_lite::bittorrent::tracker::udp::timeout;
///
/// assert_eq!(timeout(0), Some(Duration::from_secs(15)));
/// assert_eq!(timeout(8), Some(Duration::from_secs(3840)));
/// assert_eq!(timeout(9), None);
/// ```
pub fn timeout(retransmissions: u32) -> Option<Duration> {
    let factor = (retransmissions <= MAX_RETRANSMISSIONS).then(|| 1 << retransmissions);
    factor.map(|factor: u32| FIRST_TIMEOUT * factor)
}

/// Why bytes are not a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UdpPacketError {
    /// There are fewer bytes than the packet has.
    #[error("the packet ends early")]
    TooShort,
    /// The action is unknown, or one that only the other side takes.
    #[error("the action {found} is unknown")]
    Action {
        /// The number of the action.
        found: u32,
    },
    /// A packet to connect does not have [`PROTOCOL_ID`].
    #[error("it is not a packet for a tracker")]
    Protocol,
    /// The event is unknown.
    #[error("the event {found} is unknown")]
    Event {
        /// The number of the event.
        found: u32,
    },
    /// It is about no torrent at all.
    #[error("no torrent is asked about")]
    NoTorrent,
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UdpRequest {
    /// Asks for a connection id.
    Connect {
        /// What the answer repeats.
        transaction_id: u32,
    },
    /// Announces a peer, and asks for others.
    Announce {
        /// From the answer to [`Connect`](Self::Connect).
        connection_id: u64,
        /// What the answer repeats.
        transaction_id: u32,
        /// What it is about.
        announce: UdpAnnounce,
    },
    /// Asks for figures.
    Scrape {
        /// From the answer to [`Connect`](Self::Connect).
        connection_id: u64,
        /// What the answer repeats.
        transaction_id: u32,
        /// Of which torrents: at most [`MAX_SCRAPE`].
        info_hashes: Vec<InfoHashV1>,
    },
}

/// An announce over UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpAnnounce {
    /// The torrent.
    pub info_hash: InfoHashV1,
    /// The peer.
    pub peer_id: [u8; 20],
    /// How many bytes it has received.
    pub downloaded: u64,
    /// How many bytes it lacks.
    pub left: u64,
    /// How many bytes it has sent.
    pub uploaded: u64,
    /// What for.
    pub event: Option<AnnounceEvent>,
    /// The IPv4 address of the peer; 0 for that of the packet. Trackers should ignore
    /// others.
    pub ip: u32,
    /// What the peer is known by when its address changes.
    pub key: u32,
    /// How many peers it wants; `None` for as many as the tracker thinks.
    pub num_want: Option<u32>,
    /// The port that it listens at.
    pub port: u16,
    /// The path and query of the tracker's address (BEP 41), such as `/announce?pass=1`.
    pub url_data: Vec<u8>,
}

/// What a tracker answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UdpResponse {
    /// A connection id.
    Connect {
        /// That of the request.
        transaction_id: u32,
        /// With which to announce and to scrape.
        connection_id: u64,
    },
    /// Other peers.
    Announce {
        /// That of the request.
        transaction_id: u32,
        /// After how many seconds to announce again.
        interval: u32,
        /// How many peers do not have all of it.
        leechers: u32,
        /// How many peers have all of it.
        seeders: u32,
        /// Some of them, all of the family of the packet.
        peers: Vec<SocketAddr>,
    },
    /// Figures, in the order of the request.
    Scrape {
        /// That of the request.
        transaction_id: u32,
        /// Of each torrent.
        figures: Vec<ScrapeFigures>,
    },
    /// The request is refused.
    Error {
        /// That of the request.
        transaction_id: u32,
        /// For people.
        message: String,
    },
}

impl UdpRequest {
    /// The packet. [`UdpAnnounce::url_data`] beyond [`MAX_URL_DATA_LEN`], and torrents
    /// beyond [`MAX_SCRAPE`], are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Connect { transaction_id } => {
                put_head(&mut out, PROTOCOL_ID, CONNECT, *transaction_id);
            }
            Self::Announce {
                connection_id,
                transaction_id,
                announce,
            } => {
                put_head(&mut out, *connection_id, ANNOUNCE, *transaction_id);
                announce.encode(&mut out);
            }
            Self::Scrape {
                connection_id,
                transaction_id,
                info_hashes,
            } => {
                put_head(&mut out, *connection_id, SCRAPE, *transaction_id);
                let hashes = info_hashes.iter().take(MAX_SCRAPE);
                hashes.for_each(|hash| out.extend(hash.as_bytes()));
            }
        }
        out
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// [`UdpPacketError`].
    pub fn decode(packet: &[u8]) -> Result<Self, UdpPacketError> {
        let mut reader = Reader(packet);
        let connection_id = reader.u64()?;
        let action = reader.u32()?;
        let transaction_id = reader.u32()?;
        match action {
            CONNECT if connection_id != PROTOCOL_ID => Err(UdpPacketError::Protocol),
            CONNECT => Ok(Self::Connect { transaction_id }),
            ANNOUNCE => Ok(Self::Announce {
                connection_id,
                transaction_id,
                announce: UdpAnnounce::decode(&mut reader)?,
            }),
            SCRAPE => {
                let (hashes, _) = reader.0.as_chunks();
                let hashes = hashes.iter().take(MAX_SCRAPE);
                let info_hashes: Vec<_> = hashes.copied().map(InfoHashV1::from_bytes).collect();
                match info_hashes.is_empty() {
                    true => Err(UdpPacketError::NoTorrent),
                    false => Ok(Self::Scrape {
                        connection_id,
                        transaction_id,
                        info_hashes,
                    }),
                }
            }
            found => Err(UdpPacketError::Action { found }),
        }
    }
}

impl UdpAnnounce {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.info_hash.as_bytes());
        out.extend(self.peer_id);
        for number in [self.downloaded, self.left, self.uploaded] {
            out.extend(number.to_be_bytes());
        }
        let event: u32 = match self.event {
            // There is no number for the latter.
            None | Some(AnnounceEvent::Paused) => 0,
            Some(AnnounceEvent::Completed) => 1,
            Some(AnnounceEvent::Started) => 2,
            Some(AnnounceEvent::Stopped) => 3,
        };
        // -1 is what says that there is no number.
        let num_want = self
            .num_want
            .map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
        for number in [event, self.ip, self.key, num_want as u32] {
            out.extend(number.to_be_bytes());
        }
        out.extend(self.port.to_be_bytes());
        let data = &self.url_data[..self.url_data.len().min(MAX_URL_DATA_LEN)];
        for part in data.chunks(usize::from(u8::MAX)) {
            out.extend([OPTION_URL_DATA, part.len() as u8]);
            out.extend(part);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, UdpPacketError> {
        let info_hash = InfoHashV1::from_bytes(reader.take()?);
        let peer_id = reader.take()?;
        let (downloaded, left, uploaded) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let event = match reader.u32()? {
            0 => None,
            1 => Some(AnnounceEvent::Completed),
            2 => Some(AnnounceEvent::Started),
            3 => Some(AnnounceEvent::Stopped),
            found => return Err(UdpPacketError::Event { found }),
        };
        let (ip, key) = (reader.u32()?, reader.u32()?);
        let num_want = u32::try_from(reader.u32()? as i32).ok();
        let port = u16::from_be_bytes(reader.take()?);
        Ok(Self {
            info_hash,
            peer_id,
            downloaded,
            left,
            uploaded,
            event,
            ip,
            key,
            num_want,
            port,
            url_data: url_data(reader.0),
        })
    }
}

/// The path and query in the options of BEP 41. Options are read as far as they are whole:
/// other programs put other things there.
fn url_data(mut options: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let [option, rest @ ..] = options {
        options = match (*option, rest) {
            (OPTION_END, _) => break,
            (OPTION_NOP, rest) => rest,
            (option, [len, rest @ ..]) => {
                let Some((part, rest)) = rest.split_at_checked((*len).into()) else {
                    break;
                };
                let fits = data.len() + part.len() <= MAX_URL_DATA_LEN;
                if option == OPTION_URL_DATA && fits {
                    data.extend(part);
                }
                rest
            }
            _ => break,
        };
    }
    data
}

impl UdpResponse {
    /// The packet. Peers beyond [`MAX_PACKET_LEN`], or of another family than the first,
    /// are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |numbers: &[u32]| {
            let bytes = numbers.iter().flat_map(|number| number.to_be_bytes());
            out.extend(bytes);
        };
        match self {
            Self::Connect {
                transaction_id,
                connection_id,
            } => {
                put(&[CONNECT, *transaction_id]);
                out.extend(connection_id.to_be_bytes());
            }
            Self::Announce {
                transaction_id,
                interval,
                leechers,
                seeders,
                peers,
            } => {
                put(&[ANNOUNCE, *transaction_id, *interval, *leechers, *seeders]);
                let is_v6 = peers.first().is_some_and(SocketAddr::is_ipv6);
                let len = if is_v6 {
                    COMPACT_V6_LEN
                } else {
                    COMPACT_V4_LEN
                };
                let room = (MAX_PACKET_LEN - out.len()) / len;
                let peers = peers.iter().filter(|peer| peer.is_ipv6() == is_v6);
                peers
                    .take(room)
                    .for_each(|peer| write_compact(&mut out, *peer));
            }
            Self::Scrape {
                transaction_id,
                figures,
            } => {
                put(&[SCRAPE, *transaction_id]);
                for of in figures.iter().take(MAX_SCRAPE) {
                    put(&[of.complete, of.downloaded, of.incomplete]);
                }
            }
            Self::Error {
                transaction_id,
                message,
            } => {
                put(&[ERROR, *transaction_id]);
                out.extend(cut(message, MAX_ERROR_LEN).as_bytes());
            }
        }
        out
    }

    /// Reads a packet. `is_v6` says whether it came over IPv6, which decides about the
    /// length of an address in it.
    ///
    /// # Errors
    /// [`UdpPacketError`].
    pub fn decode(packet: &[u8], is_v6: bool) -> Result<Self, UdpPacketError> {
        let mut reader = Reader(packet);
        let action = reader.u32()?;
        let transaction_id = reader.u32()?;
        Ok(match action {
            CONNECT => Self::Connect {
                transaction_id,
                connection_id: reader.u64()?,
            },
            ANNOUNCE => Self::Announce {
                transaction_id,
                interval: reader.u32()?,
                leechers: reader.u32()?,
                seeders: reader.u32()?,
                // A packet bounds their number by itself.
                peers: read_compact(reader.0, is_v6, usize::MAX),
            },
            SCRAPE => {
                let (figures, _) = reader.0.as_chunks::<12>();
                let figures = figures.iter().take(MAX_SCRAPE).map(|of| {
                    let number = |at: usize| {
                        let mut bytes = [0; 4];
                        bytes.copy_from_slice(&of[at..at + 4]);
                        u32::from_be_bytes(bytes)
                    };
                    ScrapeFigures {
                        complete: number(0),
                        downloaded: number(4),
                        incomplete: number(8),
                    }
                });
                Self::Scrape {
                    transaction_id,
                    figures: figures.collect(),
                }
            }
            ERROR => {
                let message = lossy(reader.0, MAX_ERROR_LEN);
                Self::Error {
                    transaction_id,
                    message: message.trim_end_matches('\0').to_owned(),
                }
            }
            found => return Err(UdpPacketError::Action { found }),
        })
    }

    /// The transaction that it answers.
    pub fn transaction_id(&self) -> u32 {
        match self {
            Self::Connect { transaction_id, .. }
            | Self::Announce { transaction_id, .. }
            | Self::Scrape { transaction_id, .. }
            | Self::Error { transaction_id, .. } => *transaction_id,
        }
    }
}

fn put_head(out: &mut Vec<u8>, connection_id: u64, action: u32, transaction_id: u32) {
    out.extend(connection_id.to_be_bytes());
    out.extend(action.to_be_bytes());
    out.extend(transaction_id.to_be_bytes());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], UdpPacketError> {
        let (first, rest) = self.0.split_first_chunk().ok_or(UdpPacketError::TooShort)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u32(&mut self) -> Result<u32, UdpPacketError> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, UdpPacketError> {
        self.take().map(u64::from_be_bytes)
    }
}
