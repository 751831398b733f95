//! Listening addresses, small: IP addresses inline, others in a side table.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::protocol::Addr;

/// A listening address, or none. Equal IP addresses are equal here; the others
/// are equal when their texts in [`Texts`] are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Compact {
    /// Not listening, and so never listed.
    #[default]
    None,
    V4([u8; 4], [u8; 2]),
    V6([u8; 16], [u8; 2]),
    /// An index into [`Texts`].
    Text([u8; 4]),
}

/// The addresses that are no IP addresses.
#[derive(Debug, Default)]
pub(super) struct Texts {
    texts: Vec<Option<Addr>>,
    free: Vec<u32>,
}

impl Texts {
    /// Stores an address; [`remove`](Self::remove) gives its place back.
    pub(super) fn insert(&mut self, addr: &Addr) -> Compact {
        match addr.socket_addr() {
            // A scoped address means nothing without its scope: kept as text.
            Some(SocketAddr::V6(v6)) if v6.scope_id() != 0 => self.insert_text(addr),
            Some(socket) => {
                let port = socket.port().to_be_bytes();
                match socket.ip().to_canonical() {
                    IpAddr::V4(ip) => Compact::V4(ip.octets(), port),
                    IpAddr::V6(ip) => Compact::V6(ip.octets(), port),
                }
            }
            None => self.insert_text(addr),
        }
    }

    fn insert_text(&mut self, addr: &Addr) -> Compact {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.texts.push(None);
                (self.texts.len() - 1) as u32
            }
        };
        self.texts[index as usize] = Some(addr.clone());
        Compact::Text(index.to_le_bytes())
    }

    pub(super) fn remove(&mut self, addr: Compact) {
        if let Compact::Text(index) = addr {
            let index = u32::from_le_bytes(index);
            self.texts[index as usize] = None;
            self.free.push(index);
        }
    }

    pub(super) fn addr(&self, addr: Compact) -> Option<Addr> {
        match addr {
            Compact::None => None,
            Compact::V4(ip, port) => Some(socket(Ipv4Addr::from(ip).into(), port)),
            Compact::V6(ip, port) => Some(socket(Ipv6Addr::from(ip).into(), port)),
            Compact::Text(index) => self.texts[u32::from_le_bytes(index) as usize].clone(),
        }
    }

    pub(super) fn same(&self, a: Compact, b: Compact) -> bool {
        match (a, b) {
            (Compact::Text(_), Compact::Text(_)) => self.addr(a) == self.addr(b),
            _ => a == b,
        }
    }

    /// How many addresses are stored as text.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.texts.len() - self.free.len()
    }
}

fn socket(ip: IpAddr, port: [u8; 2]) -> Addr {
    SocketAddr::new(ip, u16::from_be_bytes(port)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_comes_back_as_it_was_stored() {
        let mut texts = Texts::default();
        for text in [
            "1.2.3.4:5",
            "[2001:db8::1]:65535",
            "memory:a",
            "[fe80::1%3]:7",
        ] {
            let addr: Addr = text.parse().unwrap();
            let compact = texts.insert(&addr);
            assert_eq!(texts.addr(compact), Some(addr.clone()));
            assert!(texts.same(
                compact,
                texts.addr(compact).map_or(Compact::None, |_| compact)
            ));
            let again = texts.insert(&addr);
            assert!(texts.same(compact, again), "{text}");
            texts.remove(again);
            texts.remove(compact);
        }
        assert_eq!(texts.len(), 0);
        assert!(std::mem::size_of::<Compact>() <= 19);
    }
}
