//! Listening addresses in little memory: IPv4 inline, all others in a side
//! table.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::protocol::Addr;

/// A listening address, or none, as a slot stores it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum PackedAddr {
    /// The peer does not listen, and so is never listed.
    #[default]
    None,
    V4([u8; 4], [u8; 2]),
    /// An index into [`TextAddrs`].
    Text([u8; 4]),
}

/// A listening address outside of a slot. Two values are equal if they are the
/// same address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListenAddr {
    V4([u8; 4], [u8; 2]),
    Text(Addr),
}

impl From<&Addr> for ListenAddr {
    fn from(addr: &Addr) -> Self {
        match addr.socket_addr().map(|socket| (socket.ip(), socket)) {
            Some((IpAddr::V4(ip), socket)) => Self::V4(ip.octets(), socket.port().to_be_bytes()),
            Some((IpAddr::V6(ip), socket)) => match ip.to_canonical() {
                IpAddr::V4(ip) => Self::V4(ip.octets(), socket.port().to_be_bytes()),
                // Without a scope, which has a meaning on this machine only.
                ip => Self::Text(SocketAddr::new(ip, socket.port()).into()),
            },
            None => Self::Text(addr.clone()),
        }
    }
}

/// A family of IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// The family of an address, if it is of IP.
    pub(super) fn of(addr: &Addr) -> Option<Self> {
        let ip = addr.socket_addr()?.ip().to_canonical();
        Some(Self::of_ip(ip))
    }

    fn of_ip(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl ListenAddr {
    /// The family of IP addresses from which it can be reached, if it is one.
    pub(super) fn family(&self) -> Option<Family> {
        match self {
            Self::V4(..) => Some(Family::V4),
            Self::Text(addr) => Family::of(addr),
        }
    }

    pub(crate) fn addr(&self) -> Addr {
        match self {
            Self::V4(ip, port) => v4(*ip, *port),
            Self::Text(addr) => addr.clone(),
        }
    }
}

/// The place that a peer speaks to the tracker from, as far as it decides which
/// addresses the peer can use.
///
/// A peer that registers over loopback is on the tracker's own machine. If it listens at
/// all addresses, its entry has no IP: others reach it at the address at which they reach
/// the tracker. An IPv4 entry of that kind (`0.0.0.0`) stands for IPv4 alone, and an IPv6
/// one (`[::]`) for both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Vantage {
    /// The address of the tracker's machine, as this peer reaches it.
    here: Option<IpAddr>,
    loopback: bool,
    /// The family that it speaks to the tracker over.
    family: Option<Family>,
}

impl Vantage {
    /// The peer speaks from `source`, and reached the tracker at `local`, if the
    /// transport says where that was.
    pub(crate) fn of(source: &Addr, local: Option<&Addr>) -> Self {
        let source = ip_of(source);
        let family = source.map(Family::of_ip);
        if let Some(source) = source.filter(IpAddr::is_loopback) {
            return Self {
                here: Some(source),
                loopback: true,
                family,
            };
        }
        Self {
            here: local.and_then(told_ip),
            loopback: false,
            family,
        }
    }

    /// The family over which the peer speaks to the tracker, if it is IP.
    pub(super) fn family(self) -> Option<Family> {
        self.family
    }

    /// Whether the peer is on the tracker's own machine.
    pub(super) fn is_loopback(self) -> bool {
        self.loopback
    }

    /// The IP at which the peer reaches an owner that is listed with this IP, if it
    /// can.
    pub(super) fn sees(self, ip: IpAddr) -> Option<IpAddr> {
        match ip {
            IpAddr::V4(v4) if v4.is_unspecified() => self.here.filter(IpAddr::is_ipv4),
            IpAddr::V6(v6) if v6.is_unspecified() => self.here,
            ip if ip.is_loopback() => Some(ip).filter(|_| self.loopback),
            ip => Some(ip),
        }
    }

    /// The same for the text of an address that is not of IPv4; other texts than IP
    /// addresses are seen by everybody.
    pub(super) fn sees_text(self, addr: &Addr) -> Option<SeenText> {
        // The only ones that not everybody sees begin so.
        if !addr.as_str().starts_with("[::") {
            return Some(SeenText::AsListed);
        }
        let Some(socket) = addr.socket_addr() else {
            return Some(SeenText::AsListed);
        };
        match self.sees(socket.ip())? {
            ip if ip == socket.ip() => Some(SeenText::AsListed),
            ip => Some(SeenText::At(ip, socket.port().to_be_bytes())),
        }
    }
}

/// From where somebody asks. The [`Vantage`] there is found out when it matters, which for
/// most answers it does not.
#[derive(Debug)]
pub(crate) struct Viewpoint<'a> {
    from: Option<(&'a Addr, Option<&'a Addr>)>,
    vantage: Option<Vantage>,
}

impl<'a> Viewpoint<'a> {
    /// That of a request which came from `source` and reached the tracker at `local`.
    pub(crate) fn new(source: &'a Addr, local: Option<&'a Addr>) -> Self {
        Self {
            from: Some((source, local)),
            vantage: None,
        }
    }

    pub(super) fn vantage(&mut self) -> Vantage {
        let found = || self.from.map(|(source, local)| Vantage::of(source, local));
        *self
            .vantage
            .get_or_insert_with(|| found().unwrap_or_default())
    }
}

impl From<Vantage> for Viewpoint<'_> {
    fn from(vantage: Vantage) -> Self {
        Self {
            from: None,
            vantage: Some(vantage),
        }
    }
}

fn ip_of(addr: &Addr) -> Option<IpAddr> {
    addr.socket_addr().map(|addr| addr.ip().to_canonical())
}

/// The IP at which a tracker is reached, if others can be told of it.
fn told_ip(local: &Addr) -> Option<IpAddr> {
    let told = |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified();
    ip_of(local).filter(told)
}

/// How a peer sees the text of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeenText {
    AsListed,
    /// At this IP and port.
    At(IpAddr, [u8; 2]),
}

/// The address of an IPv4 socket.
pub(super) fn v4(ip: [u8; 4], port: [u8; 2]) -> Addr {
    SocketAddr::new(Ipv4Addr::from(ip).into(), u16::from_be_bytes(port)).into()
}

/// The addresses that are not IPv4.
#[derive(Debug, Default)]
pub(crate) struct TextAddrs {
    addrs: Vec<Option<Addr>>,
    free: Vec<u32>,
}

impl TextAddrs {
    /// Stores an address until [`remove`](Self::remove).
    pub(super) fn insert(&mut self, addr: Option<&ListenAddr>) -> PackedAddr {
        match addr {
            None => PackedAddr::None,
            Some(ListenAddr::V4(ip, port)) => PackedAddr::V4(*ip, *port),
            Some(ListenAddr::Text(addr)) => PackedAddr::Text(self.insert_text(addr.clone())),
        }
    }

    pub(super) fn insert_text(&mut self, addr: Addr) -> [u8; 4] {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.addrs.push(None);
                (self.addrs.len() - 1) as u32
            }
        };
        self.addrs[index as usize] = Some(addr);
        index.to_le_bytes()
    }

    pub(super) fn remove(&mut self, addr: PackedAddr) {
        if let PackedAddr::Text(index) = addr {
            self.remove_text(index);
        }
    }

    pub(super) fn remove_text(&mut self, index: [u8; 4]) {
        let index = u32::from_le_bytes(index);
        self.addrs[index as usize] = None;
        self.free.push(index);
    }

    pub(super) fn get(&self, index: [u8; 4]) -> &Addr {
        self.addrs[u32::from_le_bytes(index) as usize]
            .as_ref()
            .expect("an address stays stored as long as a slot refers to it")
    }

    pub(super) fn load(&self, addr: PackedAddr) -> Option<ListenAddr> {
        match addr {
            PackedAddr::None => None,
            PackedAddr::V4(ip, port) => Some(ListenAddr::V4(ip, port)),
            PackedAddr::Text(index) => Some(ListenAddr::Text(self.get(index).clone())),
        }
    }

    /// How many addresses are stored.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.addrs.len() - self.free.len()
    }
}

/// The text of an IPv4 socket, and the length of the IP in it. It is put
/// together in registers, because a reply consists mostly of such texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct V4Text {
    /// The first `len` bytes of it are the text.
    pub(super) text: [u8; V4Text::ROOM],
    host_len: u8,
    pub(super) len: u8,
}

/// Each byte in decimal and then a dot. The first digit is the lowest byte.
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

/// Each number of two digits. The first digit is the lowest byte.
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

    /// The IP and the colon after it.
    pub(super) fn host(&self) -> &[u8] {
        &self.text[..usize::from(self.host_len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_comes_back_as_it_was_stored() {
        let mut texts = TextAddrs::default();
        for (text, stored) in [
            ("1.2.3.4:5", 0),
            ("[::ffff:1.2.3.4]:5", 0),
            ("[2001:db8::1]:65535", 1),
            ("memory:a", 1),
            ("[fe80::1]:7", 1),
        ] {
            let addr = ListenAddr::from(&text.parse().unwrap());
            let packed = texts.insert(Some(&addr));
            assert_eq!(texts.load(packed), Some(addr.clone()));
            assert_eq!(texts.len(), stored);
            if !text.contains("ffff") {
                assert_eq!(addr.addr().as_str(), text);
            }
            texts.remove(packed);
        }
        let scoped = ListenAddr::from(&"[fe80::1%3]:7".parse().unwrap());
        assert_eq!(scoped.addr().as_str(), "[fe80::1]:7");
        assert_eq!(texts.len(), 0);
        assert_eq!(std::mem::size_of::<PackedAddr>(), 7);
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
