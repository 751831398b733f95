//! Who is at the other end of a connection, as the transport has proven it.

use std::fmt;
use std::str::FromStr;

use crate::protocol::PeerId;

/// Tells these hashes apart from all others.
const CONTEXT: &str = "bt_lite 2026 public key of a peer";

/// The identity of a program: the hash of its public key. Who has it has proven, on this
/// connection, to hold the private key.
///
/// As text it has 64 hexadecimal digits, which is how a list of allowed keys names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIdentity([u8; 32]);

impl PeerIdentity {
    /// The identity of a public key, given as the DER bytes of its
    /// `SubjectPublicKeyInfo`.
    pub fn of_public_key(spki: &[u8]) -> Self {
        Self(blake3::derive_key(CONTEXT, spki))
    }

    /// The id that a peer with this key has, and no other peer can have: the first 16
    /// bytes.
    pub fn peer_id(&self) -> PeerId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0[..16]);
        PeerId(id)
    }

    /// The hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerIdentity({self})")
    }
}

/// The text is not an identity: it has 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an identity has 64 hexadecimal digits")]
pub struct ParseIdentityError;

impl FromStr for PeerIdentity {
    type Err = ParseIdentityError;

    fn from_str(text: &str) -> Result<Self, ParseIdentityError> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| ParseIdentityError)?;
        Ok(Self(*hash.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_the_text_that_it_prints() {
        let identity = PeerIdentity::of_public_key(b"a key");
        assert_eq!(identity.to_string().parse(), Ok(identity));
        assert_ne!(PeerIdentity::of_public_key(b"b key"), identity);
        assert_eq!(identity.peer_id().0, identity.as_bytes()[..16]);
        for bad in ["", "ab", &"g".repeat(64), &"0".repeat(65)] {
            assert_eq!(bad.parse::<PeerIdentity>(), Err(ParseIdentityError));
        }
    }
}
