//! Keyed hashes. Strangers choose the keys of the hash maps, so every map hashes
//! with a secret key of the registry. Tokens are keyed hashes, too.

use core::net::IpAddr;
use std::hash::{BuildHasher, Hasher};

use crate::content::ContentId;
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

    /// A seed for random draws.
    pub(super) fn seed(&self) -> u64 {
        self.k0 ^ self.k1
    }

    /// The hash of a host, by which its peers are counted. An IPv6 host is its
    /// /64 network. Two hosts with the same hash would share a quota; without the
    /// key, nobody can bring that about on purpose.
    pub(super) fn host(&self, source: &Addr) -> u32 {
        let hash = match source.host() {
            Host::Ip(IpAddr::V6(ip)) => self.hash_one(&ip.octets()[..8]),
            host => self.hash_one(host),
        };
        hash as u32
    }
}

#[expect(
    deprecated,
    reason = "the only keyed hasher of std that takes its keys"
)]
impl BuildHasher for Keyed {
    type Hasher = std::hash::SipHasher;

    fn build_hasher(&self) -> Self::Hasher {
        std::hash::SipHasher::new_with_keys(self.k0, self.k1)
    }
}

/// Issues tokens. A token is the number of the peer and its generation in clear,
/// which together never repeat, then their 64 bits of SipHash-2-4 with a secret key of
/// 128 bits, which is a message authentication code. It is not stored, but computed again
/// to check a token: that is quicker than reading it from memory. A guess is right once
/// in 2^64 requests, each of which names one peer only. At millions of requests a second
/// that takes tens of thousands of years.
pub(crate) struct TokenIssuer {
    key: Keyed,
}

/// The part of a token that nobody can guess.
pub(crate) type Proof = [u32; 2];

impl TokenIssuer {
    pub(crate) fn new(key: &[u8; 32], epoch: u64) -> Self {
        let mut input = *b"token-key-000000";
        input[8..].copy_from_slice(&epoch.to_le_bytes());
        let secret = blake3::keyed_hash(key, &input);
        Self {
            key: Keyed::derive(secret.as_bytes(), "bt_lite tokens"),
        }
    }

    pub(crate) fn proof(&self, peer: u32, generation: u32) -> Proof {
        let mut hasher = self.key.build_hasher();
        hasher.write(&(u64::from(generation) << 32 | u64::from(peer)).to_le_bytes());
        let proof = hasher.finish();
        [proof as u32, (proof >> 32) as u32]
    }
}

pub(crate) fn token(peer: u32, generation: u32, [low, high]: Proof) -> Token {
    let mut token = [0; 16];
    for (bytes, word) in token.chunks_mut(4).zip([peer, generation, low, high]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Token(token)
}

/// The words of a token: peer, generation, and the two words of its proof.
pub(crate) fn words(token: &Token) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = token.0;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_le_bytes)
}

/// Hashes content ids: four words, mixed with the key and folded by wide
/// products. Without the key, nobody can make up ids with a certain hash.
#[derive(Clone)]
pub(super) struct KeyedIds {
    key: [u64; 4],
}

impl KeyedIds {
    pub(super) fn derive(key: &[u8; 32], purpose: &str) -> Self {
        let hash = blake3::keyed_hash(key, purpose.as_bytes());
        let mut words = hash.as_bytes().chunks(8).map(word);
        Self {
            key: std::array::from_fn(|_| words.next().unwrap_or_default()),
        }
    }

    pub(super) fn hash(&self, id: &ContentId) -> u64 {
        let (words, _) = id.as_bytes().as_chunks::<8>();
        let word = |at: usize| u64::from_le_bytes(words[at]) ^ self.key[at];
        let [a, b, c, d] = [word(0), word(1), word(2), word(3)];
        fold(fold(a, b) ^ self.key[2], fold(c, d) ^ self.key[3])
    }
}

/// The two halves of a wide product, combined.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
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

impl std::fmt::Debug for KeyedIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedIds(..)")
    }
}

impl std::fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenIssuer(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proof_depends_on_peer_generation_key_and_epoch() {
        let issuer = TokenIssuer::new(&[1; 32], 7);
        let proof = issuer.proof(3, 9);
        assert_eq!(words(&token(3, 9, proof)), [3, 9, proof[0], proof[1]]);
        assert_eq!(proof, issuer.proof(3, 9));
        for other in [
            issuer.proof(3, 10),
            issuer.proof(4, 9),
            TokenIssuer::new(&[1; 32], 8).proof(3, 9),
            TokenIssuer::new(&[2; 32], 7).proof(3, 9),
        ] {
            assert_ne!(other[0], proof[0]);
            assert_ne!(other[1], proof[1]);
        }
    }

    #[test]
    fn hash_of_an_id_depends_on_each_of_its_bits_and_on_the_key() {
        let keyed = KeyedIds::derive(&[1; 32], "ids");
        let id = [7; 32];
        let hash = keyed.hash(&ContentId::from_bytes(id));
        let other = KeyedIds::derive(&[2; 32], "ids");
        assert_ne!(hash, other.hash(&ContentId::from_bytes(id)));
        for bit in 0..256 {
            let mut id = id;
            id[bit / 8] ^= 1 << (bit % 8);
            let changed = hash ^ keyed.hash(&ContentId::from_bytes(id));
            assert!(changed.count_ones() > 8, "bit {bit}");
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
