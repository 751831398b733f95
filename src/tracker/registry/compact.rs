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
pub(super) struct Texts {
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

/// The text of an IPv4 socket, and how long its IP is in it, without an
/// allocation: this is most of what a reply consists of.
pub(super) struct V4Text {
    text: [u8; V4Text::MAX],
    ip_len: u8,
    len: u8,
}

impl V4Text {
    /// Three digits and a separator for each of four bytes, and a port.
    const MAX: usize = 21;

    pub(super) fn new(ip: [u8; 4], port: [u8; 2]) -> Self {
        let mut text = [0; Self::MAX];
        let mut at = 0;
        for octet in ip {
            at = digits(&mut text, at, octet.into());
            text[at] = b'.';
            at += 1;
        }
        let ip_len = at - 1;
        text[ip_len] = b':';
        let len = digits(&mut text, at, u16::from_be_bytes(port));
        Self {
            text,
            ip_len: ip_len as u8,
            len: len as u8,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    /// The IP and the colon behind it.
    pub(super) fn host(&self) -> &[u8] {
        &self.text[..=usize::from(self.ip_len)]
    }
}

/// Writes a number, and returns where it ends.
fn digits(text: &mut [u8; V4Text::MAX], at: usize, number: u16) -> usize {
    let len = 1
        + usize::from(number > 9)
        + usize::from(number > 99)
        + usize::from(number > 999)
        + usize::from(number > 9999);
    let mut left = number;
    for place in (at..at + len).rev() {
        text[place] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    at + len
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
