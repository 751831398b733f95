//! The query of an announce.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use super::{MAX_QUERY_LEN, MAX_TEXT_LEN};
use crate::bittorrent::InfoHashV1;
use crate::bittorrent::percent::{decode, encode, pairs};
use crate::bittorrent::tracker::AnnounceEvent;

/// The maximum number of parameters of an announce. Clients have about a dozen.
const MAX_PARAMETERS: usize = 64;

/// Why a query is not that of an announce or a scrape.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// It is too long.
    #[error("a query can have at most {MAX_QUERY_LEN} bytes, not {len}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A parameter is not there.
    #[error("{key} is missing")]
    Missing {
        /// Its name.
        key: &'static str,
    },
    /// A parameter is wrong.
    #[error("{key} is invalid")]
    Invalid {
        /// Its name.
        key: &'static str,
    },
}

/// In which form peers are answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeersForm {
    /// Six bytes each (BEP 23), or 18 for IPv6 (BEP 7).
    #[default]
    Compact,
    /// Dictionaries (BEP 3).
    Full,
    /// Dictionaries without the ids of the peers (BEP 3).
    FullWithoutIds,
}

/// An announce over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnnounceQuery {
    /// The torrent.
    pub info_hash: InfoHashV1,
    /// The peer.
    pub peer_id: [u8; 20],
    /// The port that it listens at.
    pub port: u16,
    /// How many bytes it has sent.
    pub uploaded: u64,
    /// How many bytes it has received.
    pub downloaded: u64,
    /// How many bytes it lacks.
    pub left: u64,
    /// What for.
    pub event: Option<AnnounceEvent>,
    /// How many peers it wants; `None` for as many as the tracker thinks.
    pub num_want: Option<u32>,
    /// What the peer is known by when its address changes.
    pub key: Option<String>,
    /// What the tracker wanted to be told.
    pub tracker_id: Option<Vec<u8>>,
    /// In which form to answer.
    pub form: PeersForm,
    /// Where the peer says to be. Trackers should ignore it.
    pub ip: Option<IpAddr>,
    /// The other address of a peer that announces over IPv6 (BEP 7).
    pub ipv4: Option<SocketAddr>,
    /// The other address of a peer that announces over IPv4 (BEP 7).
    pub ipv6: Option<SocketAddr>,
}

impl AnnounceQuery {
    /// An announce with nothing to say but this.
    pub fn new(info_hash: InfoHashV1, peer_id: [u8; 20], port: u16) -> Self {
        Self {
            info_hash,
            peer_id,
            port,
            uploaded: 0,
            downloaded: 0,
            left: 0,
            event: None,
            num_want: None,
            key: None,
            tracker_id: None,
            form: PeersForm::default(),
            ip: None,
            ipv4: None,
            ipv6: None,
        }
    }

    /// The query, without `?`.
    pub fn to_query(&self) -> String {
        let mut query = format!(
            "info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}",
            encode(self.info_hash.as_bytes()),
            encode(&self.peer_id),
            self.port,
            self.uploaded,
            self.downloaded,
            self.left,
        );
        let mut put = |key: &str, value: &str| query.extend(["&", key, "=", value]);
        match self.form {
            PeersForm::Compact => put("compact", "1"),
            PeersForm::Full => put("compact", "0"),
            PeersForm::FullWithoutIds => {
                put("compact", "0");
                put("no_peer_id", "1");
            }
        }
        if let Some(event) = self.event {
            put("event", name_of(event));
        }
        if let Some(num_want) = self.num_want {
            put("numwant", &num_want.to_string());
        }
        if let Some(key) = &self.key {
            put("key", &encode(key.as_bytes()));
        }
        if let Some(id) = &self.tracker_id {
            put("trackerid", &encode(id));
        }
        if let Some(ip) = self.ip {
            put("ip", &encode(ip.to_string().as_bytes()));
        }
        for (key, addr) in [("ipv4", self.ipv4), ("ipv6", self.ipv6)] {
            if let Some(addr) = addr {
                // Without a port it is that of the peer.
                let text = match addr.port() == self.port {
                    true => addr.ip().to_string(),
                    false => addr.to_string(),
                };
                put(key, &encode(text.as_bytes()));
            }
        }
        query
    }

    /// Reads the query of a client, without `?`.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn from_query(query: &str) -> Result<Self, QueryError> {
        let len = query.len();
        if len > MAX_QUERY_LEN {
            return Err(QueryError::TooLong { len });
        }
        let find = |key: &str| {
            let mut pairs = pairs(query, MAX_PARAMETERS);
            pairs
                .find(|(name, _)| *name == key)
                .map(|(_, value)| decode(value))
        };
        let need = |key| find(key).ok_or(QueryError::Missing { key });
        let bytes = |key| {
            let value = need(key)?;
            <[u8; 20]>::try_from(&*value).map_err(|_| QueryError::Invalid { key })
        };
        let number = |key: &'static str| find(key).map(|value| number(&value, key)).transpose();
        let port = need("port")?;
        let port = self::number(&port, "port")?;
        let port = u16::try_from(port).map_err(|_| QueryError::Invalid { key: "port" })?;
        // Some say -1 for as many as you like.
        let num_want = find("numwant").and_then(|value| self::number(&value, "numwant").ok());
        let short = |key| find(key).filter(|value| (1..=MAX_TEXT_LEN).contains(&value.len()));
        let is_compact = find("compact").is_none_or(|value| *value != *b"0");
        let has_ids = find("no_peer_id").is_none_or(|value| *value != *b"1");
        let addr = |key, is_v6| find(key).and_then(|value| other_addr(&value, is_v6, port));
        Ok(Self {
            info_hash: InfoHashV1::from_bytes(bytes("info_hash")?),
            peer_id: bytes("peer_id")?,
            port,
            uploaded: number("uploaded")?.unwrap_or(0),
            downloaded: number("downloaded")?.unwrap_or(0),
            left: number("left")?.ok_or(QueryError::Missing { key: "left" })?,
            event: find("event").and_then(|value| event_of(&value)),
            num_want: num_want.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            key: short("key")
                .map(|key| String::from_utf8_lossy(&key).into_owned())
                // What is no UTF-8 has become longer.
                .filter(|key| key.len() <= MAX_TEXT_LEN),
            tracker_id: short("trackerid").map(|id| id.into_owned()),
            form: match (is_compact, has_ids) {
                (true, _) => PeersForm::Compact,
                (false, true) => PeersForm::Full,
                (false, false) => PeersForm::FullWithoutIds,
            },
            ip: find("ip").and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok()),
            ipv4: addr("ipv4", false),
            ipv6: addr("ipv6", true),
        })
    }
}

/// The address of a tracker with this query behind it. It may have one already, such as the
/// key of a user; what follows a `#` is for nobody.
///
/// ```
/// use bt_lite::bittorrent::tracker::http::with_query;
///
/// assert_eq!(with_query("http://t.example/announce", "a=1"), "http://t.example/announce?a=1");
/// assert_eq!(with_query("http://t.example/?user=7", "a=1"), "http://t.example/?user=7&a=1");
/// ```
pub fn with_query(url: &str, query: &str) -> String {
    let url = url.split('#').next().unwrap_or(url);
    match url.contains('?') {
        true if url.ends_with(['?', '&']) => format!("{url}{query}"),
        true => format!("{url}&{query}"),
        false => format!("{url}?{query}"),
    }
}

fn number(value: &[u8], key: &'static str) -> Result<u64, QueryError> {
    let is_digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_digits);
    text.and_then(|text| text.parse().ok())
        .ok_or(QueryError::Invalid { key })
}

/// An address with a port, or without and then with that of the peer (BEP 7).
fn other_addr(value: &[u8], is_v6: bool, port: u16) -> Option<SocketAddr> {
    let text = std::str::from_utf8(value).ok()?;
    let with_port = text.parse::<SocketAddr>().ok();
    let addr = with_port.or_else(|| {
        let ip = match is_v6 {
            true => IpAddr::from(text.parse::<Ipv6Addr>().ok()?),
            false => IpAddr::from(text.parse::<Ipv4Addr>().ok()?),
        };
        Some(SocketAddr::new(ip, port))
    });
    // Without the scope, which means nothing on another host.
    let addr = addr.map(|addr| SocketAddr::new(addr.ip(), addr.port()));
    addr.filter(|addr| addr.is_ipv6() == is_v6)
}

fn name_of(event: AnnounceEvent) -> &'static str {
    match event {
        AnnounceEvent::Started => "started",
        AnnounceEvent::Stopped => "stopped",
        AnnounceEvent::Completed => "completed",
        AnnounceEvent::Paused => "paused",
    }
}

fn event_of(name: &[u8]) -> Option<AnnounceEvent> {
    let all = [
        AnnounceEvent::Started,
        AnnounceEvent::Stopped,
        AnnounceEvent::Completed,
        AnnounceEvent::Paused,
    ];
    all.into_iter()
        .find(|&event| name_of(event).as_bytes() == name)
}
