//! Contents that all cases share, so that each is hashed only once.

use std::sync::{Arc, LazyLock};

use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{LinkId, LinkInfo};
use bt_lite::protocol::{LinkCookie, LinkProof, PeerId, PeerMessage};
use bt_lite::{Addr, ChunkIndex, Manifest};
use bytes::Bytes;

/// Random bytes and their manifest.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) content: Bytes,
    pub(crate) manifest: Arc<Manifest>,
}

/// Contents with few chunks, each of one block.
pub(crate) static SMALL: LazyLock<Vec<Sample>> = LazyLock::new(|| {
    let lengths = [0, 1, 16 << 10, (48 << 10) + 5, 96 << 10];
    lengths.into_iter().map(Sample::new).collect()
});

/// The shortest content whose chunks have four blocks, plus some bytes. Its last
/// chunk has three blocks, and the last of those is short.
pub(crate) static LARGE: LazyLock<Sample> = LazyLock::new(|| Sample::new((32 << 20) + 33_000));

impl Sample {
    pub(crate) fn new(length: usize) -> Self {
        let mut content = vec![0; length];
        fastrand::Rng::with_seed(length as u64).fill(&mut content);
        let manifest = Arc::new(Manifest::of(&content).unwrap());
        let content = content.into();
        Self { content, manifest }
    }

    pub(crate) fn chunk(&self, chunk: ChunkIndex) -> Bytes {
        let range = self.manifest.geometry().range_of(chunk);
        self.content.slice(range.start as usize..range.end as usize)
    }

    /// A separate copy of the bytes, so that their address identifies the sender.
    pub(crate) fn block(&self, block: BlockRange) -> Bytes {
        let start = block.offset as usize;
        let chunk = self.chunk(block.chunk);
        Bytes::copy_from_slice(&chunk[start..start + block.len as usize])
    }

    /// The result of verification, computed without hashing.
    pub(crate) fn is_good(&self, chunk: ChunkIndex, pieces: &[Bytes]) -> bool {
        let chunk = self.chunk(chunk);
        let mut rest = &chunk[..];
        let fits = pieces.iter().all(|piece| {
            let after = rest.strip_prefix(&piece[..]);
            rest = after.unwrap_or_default();
            after.is_some()
        });
        fits && rest.is_empty()
    }

    /// The honest answer to a request for a manifest page. `None` if there is no
    /// such page.
    pub(crate) fn page(&self, page: u32) -> Option<PeerMessage> {
        match page {
            0 => {
                let mut proof = self.manifest.proof().siblings.concat();
                proof.extend_from_slice(&self.manifest.proof().leaf);
                Some(PeerMessage::ManifestLength {
                    length: self.content.len() as u64,
                    proof: proof.into(),
                })
            }
            1 => Some(PeerMessage::ManifestHashes {
                page,
                hashes: self.manifest.hashes().concat().into(),
            }),
            _ => None,
        }
    }
}

#[test]
fn verdict_without_hashing_matches_the_hash() {
    let sample = &SMALL[3];
    for chunk in sample.manifest.geometry().indices() {
        let good = sample.chunk(chunk);
        let mut bad = good.to_vec();
        bad[0] ^= 1;
        let middle = good.len() / 2;
        let copies = [
            vec![good.slice(..middle), good.slice(middle..)],
            vec![good.slice(..middle)],
            vec![bad.into()],
            vec![],
        ];
        for pieces in copies {
            let verdict = sample
                .manifest
                .verify(chunk, pieces.iter().map(|piece| &piece[..]));
            assert_eq!(sample.is_good(chunk, &pieces), verdict);
        }
    }
}

/// A link with a peer. Without an address, the peer has a host of its own.
pub(crate) fn link_info(peer: PeerId, addr: Option<Addr>, dialled: bool) -> LinkInfo {
    let own = || format!("{peer}:1").parse().expect("a printable address");
    match (addr, dialled) {
        (addr, true) => LinkInfo::dialled(peer, addr.unwrap_or_else(own)),
        (addr, false) => LinkInfo::accepted(peer, &addr.clone().unwrap_or_else(own), addr),
    }
}

/// The secret that one end of a link sends.
pub(crate) fn cookie(link: LinkId, of_dialler: bool) -> LinkCookie {
    let seed = 2 * link.0 + u64::from(of_dialler);
    LinkCookie(fastrand::Rng::with_seed(seed).u128(..).to_be_bytes())
}

/// The same link, with the secrets of its two ends.
pub(crate) fn with_cookies(info: LinkInfo, link: LinkId) -> LinkInfo {
    let (said, heard) = (cookie(link, info.dialled), cookie(link, !info.dialled));
    info.with_cookies(said, heard)
}

/// The proof on a newer link that its sender is also an end of an older link, as
/// defined in PROTOCOL.md. For each link, the sender's cookie comes first.
pub(crate) fn proof(older: [LinkCookie; 2], newer: [LinkCookie; 2]) -> LinkProof {
    let join = |cookies: [LinkCookie; 2]| -> [u8; 32] {
        let bytes = cookies.map(|cookie| cookie.0).concat();
        bytes.try_into().expect("two cookies")
    };
    let hash = blake3::keyed_hash(&join(older), &join(newer));
    LinkProof(hash.as_bytes()[..16].try_into().expect("long enough"))
}

/// The lot of a link. Of two links of one peer, the one with the smaller lot
/// stays.
pub(crate) fn lot(info: &LinkInfo) -> u128 {
    let cookies = info.cookies.expect("it has cookies");
    let number = |cookie: LinkCookie| u128::from_be_bytes(cookie.0);
    number(cookies.said) ^ number(cookies.heard)
}
