//! Which identity must be at which address.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::protocol::Addr;
use crate::transport::auth_error::AuthError;
use crate::transport::identity::PeerIdentity;

/// Identities by address. How an address is spelt makes no difference: host names are the same
/// in upper and lower case and with a dot at their end (RFC 1035), and so are two texts of one
/// IP address.
#[derive(Debug, Clone, Default)]
pub(in crate::transport) struct Pins(HashMap<Place, PeerIdentity>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    Ip(SocketAddr),
    Name(String),
}

impl Place {
    fn of(addr: &Addr) -> Self {
        if let Some(socket) = addr.socket_addr() {
            return Self::Ip(SocketAddr::new(socket.ip().to_canonical(), socket.port()));
        }
        let name = addr.as_str().to_ascii_lowercase();
        Self::Name(match name.rsplit_once(':') {
            Some((host, port)) => {
                // `07` is the port 7 as well.
                let port = port
                    .parse::<u16>()
                    .map_or(port.to_owned(), |port| port.to_string());
                format!("{}:{port}", host.strip_suffix('.').unwrap_or(host))
            }
            None => name,
        })
    }
}

impl Pins {
    /// This identity, and no other, is at this address.
    pub(in crate::transport) fn insert(&mut self, addr: &Addr, identity: PeerIdentity) {
        self.0.insert(Place::of(addr), identity);
    }

    /// Checks who was found at an address.
    ///
    /// # Errors
    /// [`AuthError::UnknownKey`]: another one must be there.
    pub(in crate::transport) fn check(
        &self,
        addr: &Addr,
        found: Option<PeerIdentity>,
    ) -> Result<(), AuthError> {
        match (self.0.get(&Place::of(addr)), found) {
            (Some(pinned), Some(found)) if *pinned != found => Err(AuthError::UnknownKey(found)),
            (Some(_), None) => Err(AuthError::Missing),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_holds_however_the_address_is_spelt() {
        let [right, wrong] = [b"right", b"wrong"].map(|key| PeerIdentity::of_public_key(key));
        for (pinned, others) in [
            (
                "Tracker.Example:7000",
                &["tracker.example:7000", "TRACKER.EXAMPLE.:07000"][..],
            ),
            (
                "[2001:db8::1]:7",
                &["[2001:0db8:0:0::1]:7", "[2001:DB8::1]:7"],
            ),
            ("192.0.2.1:7", &["[::ffff:192.0.2.1]:7"]),
        ] {
            let mut pins = Pins::default();
            pins.insert(&pinned.parse().unwrap(), right);
            for other in others.iter().chain([&pinned]) {
                let addr = other.parse().unwrap();
                assert_eq!(pins.check(&addr, Some(right)), Ok(()), "{other}");
                let refused = AuthError::UnknownKey(wrong);
                assert_eq!(pins.check(&addr, Some(wrong)), Err(refused), "{other}");
                assert_eq!(pins.check(&addr, None), Err(AuthError::Missing), "{other}");
            }
            for other in [
                "tracker.example:7001",
                "other.example:7000",
                "[2001:db8::1]:8",
            ] {
                let addr = other.parse().unwrap();
                assert_eq!(pins.check(&addr, Some(wrong)), Ok(()), "{other}");
            }
        }
    }
}
