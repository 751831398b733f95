//! A v1 torrent of one file (BEP 3).

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::Outcome;

/// How long a piece is.
const PIECE: usize = 1 << 20;

/// Writes a file that no compression makes shorter, and its torrent.
pub(crate) fn write(file: &Path, size: usize, announce: &str, torrent: &Path) -> Outcome<()> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut out = File::create(file)?;
    let mut pieces = Vec::new();
    let mut piece = vec![0; PIECE];
    let mut left = size;
    while left > 0 {
        let piece = &mut piece[..left.min(PIECE)];
        random.fill(piece);
        out.write_all(piece)?;
        pieces.extend_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, piece).as_ref());
        left -= piece.len();
    }
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or("a name that is no text")?;
    let mut form = Vec::new();
    write!(form, "d8:announce{}:{announce}", announce.len())?;
    write!(form, "4:infod6:lengthi{size}e4:name{}:{name}", name.len())?;
    write!(form, "12:piece lengthi{PIECE}e6:pieces{}:", pieces.len())?;
    form.extend(pieces);
    form.extend(b"ee");
    std::fs::write(torrent, form)?;
    Ok(())
}

/// Whether both files have the same bytes.
pub(crate) fn same(one: &Path, other: &Path) -> Outcome<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let len = one.metadata()?.len();
    if len != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut here, mut there) = (vec![0; PIECE], vec![0; PIECE]);
    let mut left = usize::try_from(len)?;
    while left > 0 {
        let len = left.min(PIECE);
        one.read_exact(&mut here[..len])?;
        other.read_exact(&mut there[..len])?;
        if here[..len] != there[..len] {
            return Ok(false);
        }
        left -= len;
    }
    Ok(true)
}
