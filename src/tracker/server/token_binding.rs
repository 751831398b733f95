//! Tokens over a transport that authenticates: each is worth something only to the one
//! that it was given to.
//!
//! The registry knows nothing of identities. The proof in a token is masked with a value
//! that depends on the identity of the connection, on the way out and on the way in. With
//! another identity it comes out as another proof, which is no peer's.

use crate::protocol::{Token, TrackerRequest};
use crate::transport::PeerIdentity;

const CONTEXT: &str = "bt_lite 2026 tokens bound to identities";

/// Where the proof is in a token, after what leads to the peer's place in the registry.
const PROOF: std::ops::Range<usize> = 8..16;

/// Where the token is in the reply to REGISTER: after the type.
pub(super) const TOKEN_IN_REPLY: std::ops::Range<usize> = 1..17;

/// Binds tokens to identities.
pub(super) struct TokenBinding {
    key: [u8; 32],
}

impl TokenBinding {
    /// With the secret key of a tracker.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self {
            key: blake3::derive_key(CONTEXT, key),
        }
    }

    /// Makes the registry's token of the token in a request.
    pub(super) fn open(&self, identity: &PeerIdentity, request: &mut TrackerRequest) {
        let token = match request {
            TrackerRequest::Register { token, .. } => token.as_mut(),
            TrackerRequest::RegisterAlso { token, .. }
            | TrackerRequest::Own { token, .. }
            | TrackerRequest::Need { token, .. }
            | TrackerRequest::Update { token, .. }
            | TrackerRequest::Exit { token }
            | TrackerRequest::Zone { token, .. } => Some(token),
        };
        if let Some(Token(token)) = token {
            self.mask(identity, token);
        }
    }

    /// Binds the token in an encoded reply to REGISTER.
    pub(super) fn seal(&self, identity: &PeerIdentity, registered: &mut [u8]) {
        if let Some(token) = registered.get_mut(TOKEN_IN_REPLY) {
            self.mask(identity, token);
        }
    }

    /// Twice is nothing.
    fn mask(&self, identity: &PeerIdentity, token: &mut [u8]) {
        let mask = blake3::keyed_hash(&self.key, identity.as_bytes());
        if let Some(proof) = token.get_mut(PROOF) {
            for (byte, mask) in proof.iter_mut().zip(mask.as_bytes()) {
                *byte ^= mask;
            }
        }
    }
}
