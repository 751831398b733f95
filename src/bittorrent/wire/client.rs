//! Who a BitTorrent peer is: its 20 bytes, and the program that they name.

use std::fmt;

use bytes::{Buf, BytesMut};

use crate::protocol::PeerId;

/// The two letters of this crate in the peer ids that it makes. None of the lists of
/// libtorrent, Transmission and WebTorrent has them, in this case of letters; `BT` and
/// `BL`, which would be nearer, are others.
pub const CLIENT_CODE: [u8; 2] = *b"bl";

/// How many bytes of a peer id are random.
const RANDOM_LEN: usize = 12;

/// What BitTorrent calls a peer id: 20 bytes that a client draws, most of which begin with
/// the name of the program. Everybody may say everything there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub [u8; 20]);

/// A program, as its peer id names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client {
    /// The name, or the letters where the name is unknown.
    pub name: String,
    /// The version as it is written there: `3.0.0.0`. Empty if there is none.
    pub version: String,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.version.is_empty() {
            true => Ok(()),
            false => write!(f, " {}", self.version),
        }
    }
}

/// The letters of programs that are met often.
const NAMES: &[(&[u8; 2], &str)] = &[
    (b"AZ", "Vuze"),
    (b"BC", "BitComet"),
    (b"BI", "BiglyBT"),
    (b"BT", "BitTorrent"),
    (b"DE", "Deluge"),
    (b"FD", "Free Download Manager"),
    (b"KT", "KTorrent"),
    (b"LT", "libtorrent"),
    (b"MO", "MonoTorrent"),
    (b"PI", "PicoTorrent"),
    (b"TR", "Transmission"),
    (b"UM", "µTorrent Mac"),
    (b"UT", "µTorrent"),
    (b"UW", "µTorrent Web"),
    (b"WD", "WebTorrent Desktop"),
    (b"WW", "WebTorrent"),
    (b"XL", "Xunlei"),
    (b"bl", "bt_lite"),
    (b"lt", "rTorrent"),
    (b"qB", "qBittorrent"),
    (b"rQ", "rqbit"),
];

impl ClientId {
    /// The length in bytes.
    pub const LEN: usize = 20;

    /// A peer id of this crate, with random bytes of the caller.
    pub fn of_this_crate(random: [u8; RANDOM_LEN]) -> Self {
        let mut bytes = *b"-..0100-............";
        bytes[1..3].copy_from_slice(&CLIENT_CODE);
        bytes[8..].copy_from_slice(&random);
        Self(bytes)
    }

    /// Takes it from what has arrived; `None` if that is not enough yet.
    pub fn take(input: &mut BytesMut) -> Option<Self> {
        if input.len() < Self::LEN {
            return None;
        }
        let mut id = Self([0; Self::LEN]);
        input.copy_to_slice(&mut id.0);
        Some(id)
    }

    /// The two letters in the style of Azureus, if it has that style: `-TR3000-`.
    pub fn code(&self) -> Option<[u8; 2]> {
        let [b'-', a, b, version @ .., b'-'] = &self.0[..8] else {
            return None;
        };
        let is_code = a.is_ascii_graphic() && b.is_ascii_graphic();
        let is_version = version.iter().all(u8::is_ascii_graphic);
        (is_code && is_version).then_some([*a, *b])
    }

    /// Whether aria2 made it, which has a style of its own: `A2-1-36-0-`.
    pub fn is_aria2(&self) -> bool {
        self.0.starts_with(b"A2-")
    }

    /// The program that it names; `None` if it names none.
    pub fn client(&self) -> Option<Client> {
        if self.is_aria2() {
            let mut parts = self.0[3..].split(|byte| *byte == b'-');
            let parts = parts.by_ref().take(3);
            let is_number = |part: &&[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
            let version: Vec<String> = parts.take_while(is_number).map(ascii).collect();
            return Some(Client {
                name: "aria2".into(),
                version: version.join("."),
            });
        }
        let code = self.code()?;
        let name = NAMES.iter().find(|(known, _)| **known == code);
        let version: Vec<String> = self.0[3..7].iter().map(|byte| ascii(&[*byte])).collect();
        Some(Client {
            name: name.map_or_else(|| ascii(&code), |(_, name)| (*name).to_owned()),
            version: version.join("."),
        })
    }

    /// The id by which the rest of the crate knows this peer: a hash of all 20 bytes.
    pub fn to_peer_id(&self) -> PeerId {
        let mut id = [0; 16];
        let hash = blake3::derive_key("bt_lite peer id of BitTorrent v1", &self.0);
        id.copy_from_slice(&hash[..16]);
        PeerId(id)
    }
}

fn ascii(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({self})")
    }
}
