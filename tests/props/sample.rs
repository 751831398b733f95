//! Contents that all cases share, so that each is hashed only once.

use std::sync::{Arc, LazyLock};

use bt_lite::content::{BlockRange, PieceDigests, PieceRoot, TORRENT_LEAF_LEN};
use bt_lite::peer::swarm::{LinkId, LinkInfo};
use bt_lite::protocol::{LinkCookie, LinkProof, PeerId, PeerMessage};
use bt_lite::{Addr, ChunkIndex, ContentId, Geometry, Manifest};
use bytes::Bytes;
use sha1::Sha1;
use sha2::{Digest, Sha256};

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

    /// The same bytes as a torrent, in pieces of this length, with SHA-1 hashes.
    pub(crate) fn torrent_v1(length: usize, piece_len: u64) -> Self {
        let Self { content, manifest } = Self::new(length);
        let id = ContentId::of_torrent_v1(&manifest.id().as_bytes()[..20].try_into().unwrap());
        let geometry = Geometry::of_torrent(length as u64, piece_len).unwrap();
        let hashes = content.chunks(piece_len as usize);
        let hashes = hashes.map(|piece| Sha1::digest(piece).into()).collect();
        let manifest = Manifest::torrent(id, geometry, PieceDigests::v1(hashes)).unwrap();
        Self {
            content,
            manifest: Arc::new(manifest),
        }
    }

    /// Files of these lengths as a torrent of version 2, or as a hybrid one, with zeros
    /// behind the data of each file but the last.
    pub(crate) fn torrent_v2(files: &[usize], piece_len: u64, is_hybrid: bool) -> Self {
        let (mut content, mut pieces) = (Vec::new(), Vec::new());
        let full = (piece_len / TORRENT_LEAF_LEN) as u32;
        for (at, &length) in files.iter().enumerate() {
            content.resize(content.len().next_multiple_of(piece_len as usize), 0);
            let mut file = vec![0; length];
            fastrand::Rng::with_seed((length + at) as u64).fill(&mut file);
            for data in file.chunks(piece_len as usize) {
                let leaves = match length > piece_len as usize {
                    true => full,
                    false => length
                        .div_ceil(TORRENT_LEAF_LEN as usize)
                        .next_power_of_two() as u32,
                };
                pieces.push(PieceRoot {
                    root: merkle_root(data, leaves),
                    data_len: data.len() as u32,
                    leaves,
                });
            }
            content.extend(file);
        }
        let hashes = content.chunks(piece_len as usize);
        let hashes = hashes.map(|piece| Sha1::digest(piece).into()).collect();
        let digests = match is_hybrid {
            true => PieceDigests::hybrid(hashes, pieces),
            false => PieceDigests::v2(pieces),
        };
        let id = ContentId::of_torrent_v2(ContentId::of(&content).as_bytes());
        let geometry = Geometry::of_torrent(content.len() as u64, piece_len).unwrap();
        let manifest = Manifest::torrent(id, geometry, digests).unwrap();
        Self {
            content: content.into(),
            manifest: Arc::new(manifest),
        }
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

/// The root of the tree over these bytes, as BEP 52 defines it: by recursion, and with
/// zeros as the hashes of leaves behind the data.
pub(crate) fn merkle_root(data: &[u8], leaves: u32) -> [u8; 32] {
    if leaves == 1 {
        return match data {
            [] => [0; 32],
            data => Sha256::digest(data).into(),
        };
    }
    let half = (TORRENT_LEAF_LEN as usize * leaves as usize / 2).min(data.len());
    let (left, right) = data.split_at(half);
    let children = [left, right].map(|data| merkle_root(data, leaves / 2));
    Sha256::digest(children.as_flattened()).into()
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
