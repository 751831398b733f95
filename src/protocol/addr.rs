//! The address of a peer or a tracker: a validated text. Each transport gives it
//! its own meaning.

use core::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// The longest address, in bytes.
pub const MAX_ADDR_LEN: usize = 255;

/// An address: 1 to [`MAX_ADDR_LEN`] printable ASCII characters without
/// spaces, such as `127.0.0.1:7000`, `[::1]:0` or `memory:seed-1`.
///
/// ```
/// use bt_lite::Addr;
///
/// let addr: Addr = "127.0.0.1:7000".parse()?;
/// assert_eq!(addr.as_str(), "127.0.0.1:7000");
/// assert!("no spaces please".parse::<Addr>().is_err());
/// # Ok::<(), bt_lite::AddrError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr(Arc<str>);

/// Why a text is not an [`Addr`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddrError {
    /// The text is empty or longer than [`MAX_ADDR_LEN`] bytes.
    #[error("an address must have 1 to {MAX_ADDR_LEN} bytes, but this one has {len}")]
    Length {
        /// How many bytes the text has.
        len: usize,
    },
    /// A character is a space or not printable ASCII.
    #[error("an address must be printable ASCII without spaces, but byte {at} is not")]
    Character {
        /// The offset of the first such character, in bytes.
        at: usize,
    },
}

impl Addr {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address as IP and port, if it has that form.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.0.parse().ok()
    }

    /// The address as an IPv4 socket address, if it is written in the standard
    /// form. Then six bytes can represent it.
    pub(crate) fn plain_v4(&self) -> Option<SocketAddrV4> {
        let v4 = self.0.parse::<SocketAddrV4>().ok()?;
        let port = v4.port();
        // The parser accepts leading zeros in a port, which six bytes would lose.
        let digits = self.0.len() - self.0.rfind(':')? - 1;
        let zeros = digits != port.checked_ilog10().map_or(1, |log| log as usize + 1);
        (!zeros).then_some(v4)
    }

    /// Whether both addresses have the same host: the same IP or, for other
    /// transports, the same text before the port (`:` and digits) at the end.
    pub fn same_host(&self, other: &Self) -> bool {
        self.host() == other.host()
    }

    /// The host of this address: the address without its port. An IPv4 address
    /// that is mapped into IPv6 counts as IPv4.
    pub fn host(&self) -> Host<'_> {
        match self.socket_addr() {
            Some(addr) => Host::Ip(addr.ip().to_canonical()),
            None => match self.0.rsplit_once(':') {
                Some((host, port))
                    if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) =>
                {
                    Host::Text(host)
                }
                _ => Host::Text(&self.0),
            },
        }
    }

    /// Whether a peer that listens at this address may be reached over the family of
    /// `source`, from which it speaks. `0.0.0.0` is all of IPv4, and `[::]` is both
    /// families.
    pub fn serves_family_of(&self, source: &Self) -> bool {
        let is_any_v4 =
            matches!(self.socket_addr(), Some(SocketAddr::V4(v4)) if v4.ip().is_unspecified());
        !is_any_v4 || !matches!(source.host(), Host::Ip(IpAddr::V6(_)))
    }

    /// This address, with an unspecified IP (`0.0.0.0`, `[::]`) replaced by the IP
    /// of `source`, and with the scope of `source` if it is link-local. If either
    /// address has no IP, this address is unchanged.
    pub fn filled_in_from(&self, source: &Self) -> Self {
        match (self.socket_addr(), source.socket_addr()) {
            (Some(mut addr), Some(from)) if addr.ip().is_unspecified() => {
                addr.set_ip(from.ip().to_canonical());
                Self::from(addr).scoped_as(source)
            }
            _ => self.clone(),
        }
    }

    /// This address, with the scope of `other` if it is a link-local IPv6 address
    /// without one. A scope is the number of an interface. Others never say it, since it
    /// means nothing on their machine; an address that came over an interface is reached
    /// over the same one.
    pub fn scoped_as(&self, other: &Self) -> Self {
        // Most addresses are not link-local, and need not be parsed.
        if !self.0.starts_with("[fe") {
            return self.clone();
        }
        match (self.socket_addr(), other.socket_addr()) {
            (Some(SocketAddr::V6(mut addr)), Some(SocketAddr::V6(other)))
                if addr.ip().is_unicast_link_local() && addr.scope_id() == 0 =>
            {
                addr.set_scope_id(other.scope_id());
                SocketAddr::V6(addr).into()
            }
            _ => self.clone(),
        }
    }

    /// This address without its scope, as others may be told.
    pub fn without_scope(&self) -> Self {
        match self.socket_addr() {
            Some(SocketAddr::V6(mut addr)) if addr.scope_id() != 0 => {
                addr.set_scope_id(0);
                SocketAddr::V6(addr).into()
            }
            _ => self.clone(),
        }
    }
}

/// The host of an address; see [`Addr::host`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host<'a> {
    /// An IP address.
    Ip(IpAddr),
    /// The text before the port, for other transports.
    Text(&'a str),
}

/// A host as limits count it, as a value of its own: like [`Host`], but an IPv6
/// address counts as its /64 network, because one customer of a provider has at
/// least that much (RFC 6177).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostKey {
    /// An IPv4 address, or the first address of a /64 network.
    Ip(IpAddr),
    /// The text before the port, for other transports.
    Text(Box<str>),
}

impl HostKey {
    /// The host of an address.
    pub fn of(addr: &Addr) -> Self {
        match addr.host() {
            Host::Ip(IpAddr::V6(ip)) => {
                let network = ip.to_bits() & !u128::from(u64::MAX);
                Self::Ip(Ipv6Addr::from_bits(network).into())
            }
            Host::Ip(ip) => Self::Ip(ip),
            Host::Text(text) => Self::Text(text.into()),
        }
    }
}

impl FromStr for Addr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        if text.is_empty() || text.len() > MAX_ADDR_LEN {
            return Err(AddrError::Length { len: text.len() });
        }
        match text.bytes().position(|b| !b.is_ascii_graphic()) {
            Some(at) => Err(AddrError::Character { at }),
            None => Ok(Self(text.into())),
        }
    }
}

impl TryFrom<&str> for Addr {
    type Error = AddrError;

    fn try_from(text: &str) -> Result<Self, AddrError> {
        text.parse()
    }
}

impl TryFrom<String> for Addr {
    type Error = AddrError;

    fn try_from(text: String) -> Result<Self, AddrError> {
        text.parse()
    }
}

impl TryFrom<&String> for Addr {
    type Error = AddrError;

    fn try_from(text: &String) -> Result<Self, AddrError> {
        text.parse()
    }
}

impl TryFrom<&[u8]> for Addr {
    type Error = AddrError;

    fn try_from(bytes: &[u8]) -> Result<Self, AddrError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => text.parse(),
            Err(e) => Err(AddrError::Character {
                at: e.valid_up_to(),
            }),
        }
    }
}

impl TryFrom<&Addr> for Addr {
    type Error = AddrError;

    fn try_from(addr: &Addr) -> Result<Self, AddrError> {
        Ok(addr.clone())
    }
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Self {
        Self(addr.to_string().into())
    }
}

/// Lets a function take an [`Addr`] as it takes text.
impl From<Infallible> for AddrError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl AsRef<str> for Addr {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Addr {
        text.parse().unwrap()
    }

    #[test]
    fn plain_v4_is_only_the_standard_form() {
        for text in ["1.2.3.4:5", "0.0.0.0:0", "255.10.9.8:65535", "1.2.3.4:10"] {
            let v4 = addr(text).plain_v4().expect("the standard form");
            assert_eq!(v4.to_string(), text);
        }
        for text in [
            "1.2.3.4:05",
            "1.2.3.4:00",
            "1.2.3.4",
            "01.2.3.4:5",
            "1.2.3.4:65536",
            "1.2.3.4:+5",
            "1.2.3.4:",
            "[::ffff:1.2.3.4]:5",
            "memory:a",
        ] {
            assert_eq!(addr(text).plain_v4(), None, "{text}");
        }
    }

    #[test]
    fn addr_at_each_bound_is_accepted_or_refused() {
        assert!("x".repeat(MAX_ADDR_LEN).parse::<Addr>().is_ok());
        for len in [0, MAX_ADDR_LEN + 1] {
            assert_eq!(
                "x".repeat(len).parse::<Addr>(),
                Err(AddrError::Length { len })
            );
        }
        for bad in ["a b", "a\0", "a\n", "é"] {
            assert!(matches!(
                bad.parse::<Addr>(),
                Err(AddrError::Character { .. })
            ));
        }
    }

    #[test]
    fn hosts_are_compared_without_their_ports() {
        assert!(addr("1.2.3.4:5").same_host(&addr("1.2.3.4:6")));
        assert!(addr("[::ffff:1.2.3.4]:5").same_host(&addr("1.2.3.4:6")));
        assert!(!addr("1.2.3.4:5").same_host(&addr("1.2.3.5:5")));
        assert!(addr("memory:seed-1:17").same_host(&addr("memory:seed-1")));
        assert!(!addr("memory:seed-1").same_host(&addr("memory:seed-2")));
    }

    #[test]
    fn scope_is_that_of_the_source_and_is_not_told() {
        let source = addr("[fe80::7%3]:999");
        let filled = addr("[::]:70").filled_in_from(&source);
        assert_eq!(filled, addr("[fe80::7%3]:70"));
        assert_eq!(filled.without_scope(), addr("[fe80::7]:70"));
        assert_eq!(
            addr("[fe80::8]:5").scoped_as(&source),
            addr("[fe80::8%3]:5")
        );
        for other in [
            "[fe80::8%4]:5",
            "[fec0::8]:5",
            "[2001:db8::8]:5",
            "1.2.3.4:5",
        ] {
            assert_eq!(addr(other).scoped_as(&source), addr(other));
        }
    }

    #[test]
    fn unspecified_ip_is_filled_in_from_the_source() {
        let source = addr("10.0.0.7:999");
        assert_eq!(
            addr("0.0.0.0:70").filled_in_from(&source),
            addr("10.0.0.7:70")
        );
        assert_eq!(addr("[::]:70").filled_in_from(&source), addr("10.0.0.7:70"));
        assert_eq!(
            addr("8.8.8.8:70").filled_in_from(&source),
            addr("8.8.8.8:70")
        );
        assert_eq!(addr("memory:a").filled_in_from(&source), addr("memory:a"));
    }
}
