//! Magnet links (BEP 9, BEP 53).

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

use super::metainfo::{MAX_FILES, Metainfo};
use super::percent::{decode, encode, pairs};
use super::{InfoHashV1, InfoHashV2, ParseInfoHashError};
use crate::protocol::Addr;

/// The maximum length of a magnet link in bytes: room for some hundred trackers.
pub const MAX_MAGNET_LEN: usize = 32 << 10;

/// The maximum number of parameters of a magnet link.
const MAX_PARAMETERS: usize = 1024;

/// How the multihash of a SHA-256 begins: its function, and its length.
const MULTIHASH_SHA256: &str = "1220";

/// A magnet link: a torrent by its info hash, and where to ask for it.
///
/// ```
/// use bt_lite::bittorrent::Magnet;
///
/// let text = "magnet:?xt=urn:btih:a9993e364706816aba3e25717850c26c9cd0d89d&dn=abc&so=0,2-3";
/// let magnet: Magnet = text.parse()?;
/// assert_eq!(magnet.name.as_deref(), Some("abc"));
/// assert_eq!(magnet.selected, Some(vec![0..=0, 2..=3]));
/// assert_eq!(magnet.to_string(), text);
/// # Ok::<(), bt_lite::bittorrent::MagnetError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Magnet {
    /// The info hash of v1 (`urn:btih`), if it names one.
    pub v1: Option<InfoHashV1>,
    /// The info hash of v2 (`urn:btmh`), if it names one. A hybrid torrent has both.
    pub v2: Option<InfoHashV2>,
    /// What to call it until its own name is known. It may be anything: it is no safe file
    /// name.
    pub name: Option<String>,
    /// Addresses of trackers.
    pub trackers: Vec<String>,
    /// Web servers with its files (BEP 19).
    pub web_seeds: Vec<String>,
    /// Peers to be asked first: a host and a port.
    pub peers: Vec<Addr>,
    /// Which files to fetch (BEP 53), by their numbers from 0. All if it is `None`.
    pub selected: Option<Vec<RangeInclusive<u32>>>,
}

/// Why a text is not a [`Magnet`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MagnetError {
    /// It is too long.
    #[error("a magnet link can have at most {MAX_MAGNET_LEN} bytes, not {len}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It does not begin with `magnet:?`.
    #[error("it is not a magnet link")]
    NotAMagnet,
    /// It names no torrent: it has neither `urn:btih` nor `urn:btmh`.
    #[error("the magnet link names no torrent")]
    NoInfoHash,
    /// It names two torrents.
    #[error("the magnet link names two torrents")]
    TwoInfoHashes,
    /// An info hash is wrong.
    #[error(transparent)]
    InfoHash(#[from] ParseInfoHashError),
    /// The hash of v2 is not a SHA-256.
    #[error("the hash in the magnet link is not a SHA-256")]
    Multihash,
    /// The selection of files is wrong.
    #[error("{text:?} is not a selection of files")]
    Selection {
        /// The first part of it that is wrong.
        text: String,
    },
}

impl Magnet {
    /// A link to this torrent, with its trackers and web servers.
    ///
    /// ```
    /// use bt_lite::bittorrent::{Magnet, MetainfoBuilder};
    ///
    /// let made = MetainfoBuilder::file("a", 5)?.build(|_| Ok(&b"hello"[..]))?;
    /// let magnet = Magnet::of(&made);
    /// assert_eq!((magnet.v1, magnet.name.as_deref()), (made.info_hash_v1(), Some("a")));
    /// assert_eq!(magnet.to_string().parse(), Ok(magnet));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(metainfo: &Metainfo) -> Self {
        Self {
            v1: metainfo.info_hash_v1(),
            v2: metainfo.info_hash_v2(),
            name: Some(metainfo.name().to_owned()),
            trackers: metainfo.trackers().concat(),
            web_seeds: metainfo.web_seeds().to_vec(),
            ..Self::default()
        }
    }

    /// The info hash that handshakes and trackers know the torrent by: of v1 if it has one.
    pub fn info_hash(&self) -> Option<InfoHashV1> {
        self.v1.or(self.v2.as_ref().map(InfoHashV2::truncated))
    }

    /// Whether a file is selected, by its number from 0.
    pub fn selects(&self, file: u32) -> bool {
        let selected = self.selected.as_ref();
        selected.is_none_or(|ranges| ranges.iter().any(|range| range.contains(&file)))
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), MagnetError> {
        // Several of one kind may be numbered: `tr.1`, `tr.2`.
        let kind = match key.split_once('.') {
            Some((kind, number)) if number.bytes().all(|b| b.is_ascii_digit()) => kind,
            _ => key,
        };
        let bytes = decode(value);
        // What is not UTF-8 is of no use.
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Ok(());
        };
        let some_text = || Some(text.to_owned()).filter(|text| !text.is_empty());
        match kind {
            "xt" => self.take_topic(text)?,
            // Forms in web pages write spaces as `+`, which trackers may have in them.
            "dn" => {
                let spaced = value.replace('+', " ");
                let name = String::from_utf8_lossy(&decode(&spaced)).into_owned();
                self.name = Some(name).filter(|name| !name.is_empty());
            }
            "tr" => self.trackers.extend(some_text()),
            "ws" => self.web_seeds.extend(some_text()),
            "x.pe" => self.peers.extend(peer(text)),
            "so" => self.selected = Some(selection(text)?),
            _ => {}
        }
        Ok(())
    }

    fn take_topic(&mut self, topic: &str) -> Result<(), MagnetError> {
        let lower = topic.to_ascii_lowercase();
        if lower.starts_with("urn:btih:") {
            let hash = topic[9..].parse()?;
            put(&mut self.v1, hash)
        } else if lower.starts_with("urn:btmh:") {
            let hash = topic[9..].strip_prefix(MULTIHASH_SHA256);
            let hash = hash.ok_or(MagnetError::Multihash)?.parse()?;
            put(&mut self.v2, hash)
        } else {
            // Other networks have their own names for it.
            Ok(())
        }
    }
}

fn put<T: PartialEq>(place: &mut Option<T>, hash: T) -> Result<(), MagnetError> {
    match place.replace(hash) {
        before if before.is_none() || before == *place => Ok(()),
        _ => Err(MagnetError::TwoInfoHashes),
    }
}

/// A host and a port that may be dialled. Others are left out.
fn peer(text: &str) -> Option<Addr> {
    let (host, port) = text.rsplit_once(':')?;
    let is_ipv6 = host.starts_with('[');
    let is_host = !host.is_empty() && (is_ipv6 || !host.contains(':'));
    let has_port = port.parse().is_ok_and(|port: u16| port > 0);
    let addr: Addr = text.parse().ok()?;
    let is_valid = is_host && has_port && (!is_ipv6 || addr.socket_addr().is_some());
    is_valid.then_some(addr)
}

/// Numbers and ranges with commas between them (BEP 53).
pub(crate) fn selection(text: &str) -> Result<Vec<RangeInclusive<u32>>, MagnetError> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    let ranges = parts.map(|part| {
        let number = |text: &str| {
            // A sign is no digit.
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number: u32 = text.parse().ok().filter(|_| digits)?;
            ((number as usize) < MAX_FILES).then_some(number)
        };
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = number(first).zip(number(last));
        let range = range.filter(|(first, last)| first <= last);
        range
            .map(|(first, last)| first..=last)
            .ok_or_else(|| MagnetError::Selection {
                text: part.to_owned(),
            })
    });
    ranges.collect()
}

impl FromStr for Magnet {
    type Err = MagnetError;

    /// Reads a magnet link. Parameters that are unknown, or not UTF-8, are ignored, and so
    /// are peers that are no host with a port.
    fn from_str(text: &str) -> Result<Self, MagnetError> {
        if text.len() > MAX_MAGNET_LEN {
            return Err(MagnetError::TooLong { len: text.len() });
        }
        const SCHEME: &str = "magnet:?";
        let (scheme, query) = text
            .split_at_checked(SCHEME.len())
            .ok_or(MagnetError::NotAMagnet)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(MagnetError::NotAMagnet);
        }
        let mut magnet = Self::default();
        for (key, value) in pairs(query, MAX_PARAMETERS) {
            magnet.take(key, value)?;
        }
        match magnet.info_hash() {
            Some(_) => Ok(magnet),
            None => Err(MagnetError::NoInfoHash),
        }
    }
}

impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v1 = self.v1.map(|hash| format!("xt=urn:btih:{hash}"));
        let v2 = self
            .v2
            .map(|hash| format!("xt=urn:btmh:{MULTIHASH_SHA256}{hash}"));
        let mut parts: Vec<String> = v1.into_iter().chain(v2).collect();
        let mut texts = |key: &str, texts: &[String]| {
            let texts = texts.iter().map(|text| encode(text.as_bytes()));
            parts.extend(texts.map(|text| format!("{key}={text}")));
        };
        texts("dn", self.name.as_slice());
        texts("tr", &self.trackers);
        texts("ws", &self.web_seeds);
        // Colons and brackets are plain in a query, and programs look for them.
        parts.extend(self.peers.iter().map(|peer| {
            let text = encode(peer.as_str().as_bytes());
            let plain = [("%3A", ":"), ("%5B", "["), ("%5D", "]")];
            let text = plain
                .iter()
                .fold(text, |text, (of, to)| text.replace(of, to));
            format!("x.pe={text}")
        }));
        if let Some(selected) = &self.selected {
            let ranges = selected.iter().map(|range| {
                let (first, last) = (range.start(), range.end());
                match first == last {
                    true => first.to_string(),
                    false => format!("{first}-{last}"),
                }
            });
            parts.push(format!("so={}", ranges.collect::<Vec<_>>().join(",")));
        }
        write!(f, "magnet:?{}", parts.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "a9993e364706816aba3e25717850c26c9cd0d89d";
    const V2: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn magnet(rest: &str) -> Result<Magnet, MagnetError> {
        format!("magnet:?{rest}").parse()
    }

    #[test]
    fn every_parameter_is_read_and_written() {
        let text = format!(
            "magnet:?xt=urn:btih:{V1}&xt=urn:btmh:1220{V2}&dn=a%20b%26c\
             &tr=udp%3A%2F%2Ft.example%3A80%2Fannounce&tr=http%3A%2F%2Fu.example%2F%3Fa%3D1%2B1\
             &ws=http%3A%2F%2Fw.example%2F&x.pe=10.0.0.1:6881&x.pe=[2001:db8::1]:1&x.pe=h.example:9\
             &so=0,2,4-6"
        );
        let magnet: Magnet = text.parse().unwrap();
        assert_eq!(magnet.name.as_deref(), Some("a b&c"));
        assert_eq!(magnet.trackers[1], "http://u.example/?a=1+1");
        assert_eq!(magnet.peers.len(), 3);
        assert_eq!(magnet.info_hash(), V1.parse().ok());
        let selected = (0..8).filter(|&file| magnet.selects(file));
        assert_eq!(selected.collect::<Vec<_>>(), [0, 2, 4, 5, 6]);
        assert_eq!(magnet.to_string(), text);
    }

    #[test]
    fn old_and_careless_forms_are_read() {
        let base32 = magnet("xt=urn:btih:VGMT4NSHA2AWVOR6EVYXQUGCNSONBWE5").unwrap();
        assert_eq!(base32.v1, V1.parse().ok());
        let upper = format!("MAGNET:?xt.1=URN:BTIH:{}&dn=a+b%2B", V1.to_uppercase());
        let upper: Magnet = upper.parse().unwrap();
        assert_eq!(
            (upper.v1, upper.name.as_deref()),
            (V1.parse().ok(), Some("a b+"))
        );
        let v2 = magnet(&format!(
            "&&x&xt=urn%3Abtmh%3A1220{V2}&xt=urn:sha1:abc&unknown=%ff"
        ));
        assert_eq!(v2.unwrap().info_hash().unwrap().to_string(), V2[..40]);
        let v1 = format!("xt=urn:btih:{V1}");
        let odd = magnet(&format!(
            "{v1}&{v1}&dn=&tr=&tr.2=udp%3A%2F%2Fx&x.pe=a&x.pe=:1&x.pe=h:0&x.pe=::1:5&x.pe=[x]:5"
        ));
        let odd = odd.unwrap();
        assert_eq!((odd.name, odd.peers), (None, vec![]));
        assert_eq!(odd.trackers, ["udp://x"]);
    }

    #[test]
    fn what_names_no_torrent_is_refused() {
        assert_eq!("".parse::<Magnet>(), Err(MagnetError::NotAMagnet));
        assert_eq!("magnet:éé".parse::<Magnet>(), Err(MagnetError::NotAMagnet));
        assert_eq!(
            "http://a/?xt=b".parse::<Magnet>(),
            Err(MagnetError::NotAMagnet)
        );
        assert_eq!(magnet("dn=a"), Err(MagnetError::NoInfoHash));
        assert!(matches!(
            magnet("xt=urn:btih:abc"),
            Err(MagnetError::InfoHash(_))
        ));
        let sha1 = magnet(&format!("xt=urn:btmh:1114{V1}"));
        assert_eq!(sha1, Err(MagnetError::Multihash));
        let two = magnet(&format!("xt=urn:btih:{V1}&xt=urn:btih:{}", "0".repeat(40)));
        assert_eq!(two, Err(MagnetError::TwoInfoHashes));
        for so in [
            "x",
            "1-",
            "-1",
            "3-2",
            "1--2",
            "99999999999",
            "262144",
            "+1",
            "1-2-3",
        ] {
            let found = magnet(&format!("xt=urn:btih:{V1}&so={so}"));
            assert!(matches!(found, Err(MagnetError::Selection { .. })), "{so}");
        }
        let long = magnet(&"a".repeat(MAX_MAGNET_LEN));
        assert!(matches!(long, Err(MagnetError::TooLong { .. })));
    }
}
