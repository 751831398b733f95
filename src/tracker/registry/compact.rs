//! Listening addresses, small: IPv4 inline, all others in a side table.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::protocol::Addr;

/// A listening address, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Compact {
    /// Not listening, and so never listed.
    #[default]
    None,
    V4([u8; 4], [u8; 2]),
    /// An index into [`Texts`].
    Text([u8; 4]),
}

/// An address as it goes from one part of the registry to another. Equal ones
/// are the same address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    V4([u8; 4], [u8; 2]),
    Text(Addr),
}

impl From<&Addr> for Place {
    fn from(addr: &Addr) -> Self {
        match addr.socket_addr().map(|socket| (socket.ip(), socket)) {
            Some((IpAddr::V4(ip), socket)) => Self::V4(ip.octets(), socket.port().to_be_bytes()),
            Some((IpAddr::V6(ip), socket)) => match (ip.to_canonical(), socket) {
                (IpAddr::V4(ip), _) => Self::V4(ip.octets(), socket.port().to_be_bytes()),
                // A scoped address means nothing without its scope.
                (_, SocketAddr::V6(v6)) if v6.scope_id() != 0 => Self::Text(addr.clone()),
                (ip, _) => Self::Text(SocketAddr::new(ip, socket.port()).into()),
            },
            None => Self::Text(addr.clone()),
        }
    }
}

impl Place {
    pub(super) fn addr(&self) -> Addr {
        match self {
            Self::V4(ip, port) => v4(*ip, *port),
            Self::Text(addr) => addr.clone(),
        }
    }
}

/// The address of an IPv4 socket.
pub(super) fn v4(ip: [u8; 4], port: [u8; 2]) -> Addr {
    SocketAddr::new(Ipv4Addr::from(ip).into(), u16::from_be_bytes(port)).into()
}

/// The addresses that are not of IPv4.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    texts: Vec<Option<Addr>>,
    free: Vec<u32>,
}

impl Texts {
    /// Stores an address; [`remove`](Self::remove) gives its place back.
    pub(super) fn insert(&mut self, place: Option<&Place>) -> Compact {
        match place {
            None => Compact::None,
            Some(Place::V4(ip, port)) => Compact::V4(*ip, *port),
            Some(Place::Text(addr)) => Compact::Text(self.insert_text(addr.clone())),
        }
    }

    pub(super) fn insert_text(&mut self, addr: Addr) -> [u8; 4] {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.texts.push(None);
                (self.texts.len() - 1) as u32
            }
        };
        self.texts[index as usize] = Some(addr);
        index.to_le_bytes()
    }

    pub(super) fn remove(&mut self, addr: Compact) {
        if let Compact::Text(index) = addr {
            self.remove_text(index);
        }
    }

    pub(super) fn remove_text(&mut self, index: [u8; 4]) {
        let index = u32::from_le_bytes(index);
        self.texts[index as usize] = None;
        self.free.push(index);
    }

    pub(super) fn text(&self, index: [u8; 4]) -> &Addr {
        self.texts[u32::from_le_bytes(index) as usize]
            .as_ref()
            .expect("an address stays stored as long as somebody has it")
    }

    pub(super) fn place(&self, addr: Compact) -> Option<Place> {
        match addr {
            Compact::None => None,
            Compact::V4(ip, port) => Some(Place::V4(ip, port)),
            Compact::Text(index) => Some(Place::Text(self.text(index).clone())),
        }
    }

    /// How many addresses are stored.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.texts.len() - self.free.len()
    }
}

/// The text of an IPv4 socket, and how long its IP is in it: put together in
/// registers, for this is most of what a reply consists of.
#[derive(Debug, Clone, Copy)]
pub(super) struct V4Text {
    /// Of which the first `len` bytes count.
    pub(super) text: [u8; V4Text::ROOM],
    host_len: u8,
    pub(super) len: u8,
}

/// Each byte in decimal with a dot behind it, the first digit lowest.
const OCTETS: [u32; 256] = {
    let mut octets = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        let (a, b, c) = (octet / 100, octet / 10 % 10, octet % 10);
        let digits = match octet {
            0..10 => [b'0' + c as u8, b'.', 0, 0],
            10..100 => [b'0' + b as u8, b'0' + c as u8, b'.', 0],
            _ => [b'0' + a as u8, b'0' + b as u8, b'0' + c as u8, b'.'],
        };
        octets[octet] = u32::from_le_bytes(digits);
        octet += 1;
    }
    octets
};

/// Each number of two digits, the first digit lowest.
const PAIRS: [u16; 100] = {
    let mut pairs = [0; 100];
    let mut pair = 0;
    while pair < 100 {
        pairs[pair] = u16::from_le_bytes([b'0' + (pair / 10) as u8, b'0' + (pair % 10) as u8]);
        pair += 1;
    }
    pairs
};

impl V4Text {
    /// Room for three digits and a separator for each of four bytes, and for a
    /// port of five digits, written as a word.
    pub(super) const ROOM: usize = 24;

    pub(super) fn new(ip: [u8; 4], port: [u8; 2]) -> Self {
        let (mut host, mut bits) = (0_u128, 0);
        for octet in ip {
            let word = OCTETS[usize::from(octet)];
            host |= u128::from(word) << bits;
            // The bytes of the word that are used.
            bits += 32 - (word.leading_zeros() & 0b11000);
        }
        host ^= u128::from(b'.' ^ b':') << (bits - 8);
        let port = usize::from(u16::from_be_bytes(port));
        let rest = port % 10_000;
        let digits = u64::from(b'0' + (port / 10_000) as u8)
            | u64::from(PAIRS[rest / 100]) << 8
            | u64::from(PAIRS[rest % 100]) << 24;
        let zeros = usize::from(port < 10)
            + usize::from(port < 100)
            + usize::from(port < 1000)
            + usize::from(port < 10_000);
        let host_len = (bits / 8) as usize;
        let mut text = [0; Self::ROOM];
        text[..16].copy_from_slice(&host.to_le_bytes());
        let digits = digits >> (8 * zeros);
        text[host_len..host_len + 8].copy_from_slice(&digits.to_le_bytes());
        Self {
            text,
            host_len: host_len as u8,
            len: (host_len + 5 - zeros) as u8,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    /// The IP and the colon behind it.
    pub(super) fn host(&self) -> &[u8] {
        &self.text[..usize::from(self.host_len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_comes_back_as_it_was_stored() {
        let mut texts = Texts::default();
        for (text, stored) in [
            ("1.2.3.4:5", 0),
            ("[::ffff:1.2.3.4]:5", 0),
            ("[2001:db8::1]:65535", 1),
            ("memory:a", 1),
            ("[fe80::1%3]:7", 1),
        ] {
            let place = Place::from(&text.parse().unwrap());
            let compact = texts.insert(Some(&place));
            assert_eq!(texts.place(compact), Some(place.clone()));
            assert_eq!(texts.len(), stored);
            if !text.contains("ffff") {
                assert_eq!(place.addr().as_str(), text);
            }
            texts.remove(compact);
        }
        assert_eq!(texts.len(), 0);
        assert_eq!(std::mem::size_of::<Compact>(), 7);
    }

    #[test]
    fn text_of_an_ipv4_address_is_what_the_standard_library_writes() {
        let mut rng = fastrand::Rng::with_seed(1);
        let edges = [0, 1, 9, 10, 99, 100, 255];
        for _ in 0..20_000 {
            let ip = std::array::from_fn(|_| match rng.choice(edges) {
                Some(edge) if rng.bool() => edge,
                _ => rng.u8(..),
            });
            let port = rng.u16(..) >> rng.u32(..16);
            let text = V4Text::new(ip, port.to_be_bytes());
            let expected = v4(ip, port.to_be_bytes());
            assert_eq!(text.as_bytes(), expected.as_str().as_bytes());
            assert!(text.as_bytes().starts_with(text.host()));
            assert!(text.host().ends_with(b":"));
        }
    }
}
