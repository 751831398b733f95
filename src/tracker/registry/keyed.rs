//! Keys of hash maps are chosen by strangers, so that every map hashes with a
//! key of the registry; and the tokens, which are hashes with such a key too.

use core::net::IpAddr;
use std::hash::BuildHasher;

use crate::protocol::{Addr, Host, Token};

/// Builds keyed hashers. The same key gives the same hashes.
#[derive(Clone)]
pub(super) struct Keyed {
    k0: u64,
    k1: u64,
}

impl Keyed {
    pub(super) fn derive(key: &[u8; 32], purpose: &str) -> Self {
        let hash = blake3::keyed_hash(key, purpose.as_bytes());
        let (k0, k1) = (word(&hash.as_bytes()[..8]), word(&hash.as_bytes()[8..16]));
        Self { k0, k1 }
    }

    /// The seed of what is drawn at random.
    pub(super) fn seed(&self) -> u64 {
        self.k0 ^ self.k1
    }

    /// By what peers of one host are counted: the host's hash, where an IPv6
    /// host is its /64 network. Two hosts with one hash would share a quota,
    /// which nobody without the key can bring about.
    pub(super) fn host(&self, source: &Addr) -> u32 {
        let hash = match source.host() {
            Host::Ip(IpAddr::V6(ip)) => self.hash_one(&ip.octets()[..8]),
            host => self.hash_one(host),
        };
        hash as u32
    }
}

#[expect(deprecated, reason = "the one keyed hasher that std lets one build")]
impl BuildHasher for Keyed {
    type Hasher = std::hash::SipHasher;

    fn build_hasher(&self) -> Self::Hasher {
        std::hash::SipHasher::new_with_keys(self.k0, self.k1)
    }
}

/// Issues and checks tokens: the slot of the peer in clear, then 96 bits of a
/// keyed hash of slot and generation, which together are a counter that never
/// repeats. Nothing is kept for a token, and checking one is constant work.
pub(super) struct Mint {
    key: [u8; 32],
}

impl Mint {
    pub(super) fn new(key: &[u8; 32], epoch: u64) -> Self {
        let mut input = *b"token-key-000000";
        input[8..].copy_from_slice(&epoch.to_le_bytes());
        Self {
            key: *blake3::keyed_hash(key, &input).as_bytes(),
        }
    }

    pub(super) fn token(&self, slot: u32, generation: u32) -> Token {
        let mut counter = [0; 8];
        counter[..4].copy_from_slice(&slot.to_le_bytes());
        counter[4..].copy_from_slice(&generation.to_le_bytes());
        let mac = blake3::keyed_hash(&self.key, &counter);
        let mut token = [0; 16];
        token[..4].copy_from_slice(&counter[..4]);
        token[4..].copy_from_slice(&mac.as_bytes()[..12]);
        Token(token)
    }

    /// Which slot a token claims; [`matches`](Self::matches) tells whether
    /// rightly.
    pub(super) fn slot(token: &Token) -> u32 {
        let [a, b, c, d, ..] = token.0;
        u32::from_le_bytes([a, b, c, d])
    }

    /// Whether the token is this slot's, taking the same time wherever it
    /// differs.
    pub(super) fn matches(&self, token: &Token, slot: u32, generation: u32) -> bool {
        let real = self.token(slot, generation);
        let differing = real.0.iter().zip(&token.0).fold(0, |d, (a, b)| d | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u64::from(byte))
}

impl std::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyed(..)")
    }
}

impl std::fmt::Debug for Mint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mint(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_of_another_slot_generation_key_or_epoch_does_not_match() {
        let mint = Mint::new(&[1; 32], 7);
        let token = mint.token(3, 9);
        assert_eq!(Mint::slot(&token), 3);
        assert!(mint.matches(&token, 3, 9));
        assert!(!mint.matches(&token, 3, 10));
        assert!(!mint.matches(&token, 4, 9));
        assert!(!Mint::new(&[1; 32], 8).matches(&token, 3, 9));
        assert!(!Mint::new(&[2; 32], 7).matches(&token, 3, 9));
        for bit in 0..128 {
            let mut forged = token;
            forged.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!mint.matches(&forged, 3, 9), "bit {bit}");
        }
    }

    #[test]
    fn hosts_count_without_port_and_ipv6_by_network() {
        let keyed = Keyed::derive(&[1; 32], "hosts");
        let host = |text: &str| keyed.host(&text.parse().unwrap());
        assert_eq!(host("1.2.3.4:5"), host("[::ffff:1.2.3.4]:6"));
        assert_ne!(host("1.2.3.4:5"), host("1.2.3.5:5"));
        assert_eq!(host("[2001:db8::1]:5"), host("[2001:db8::2]:5"));
        assert_ne!(host("[2001:db8::1]:5"), host("[2001:db8:0:1::1]:5"));
        assert_eq!(host("memory:a:1"), host("memory:a"));
        assert_ne!(host("memory:a"), host("memory:b"));
    }
}
