//! The journal as a file: opened, appended to, and never trusted further than
//! it is read.

use std::io;

use bytes::Bytes;

use super::disk::{DiskFile, Stamp};
use super::journal::{self, Chain, HEADER_LEN, Replay};
use crate::content::{Bitfield, ContentId, Geometry};

/// How much of a journal is read, in bytes: six times what the records of the
/// longest content can take if every chunk is claimed by itself.
const MAX_JOURNAL_LEN: u64 = 256 << 20;

/// A journal that is open for appending.
pub(super) struct Ledger<F> {
    file: F,
    end: u64,
    chain: Chain,
}

impl<F: DiskFile> Ledger<F> {
    /// Takes up the journal in a file, or begins it anew if it is not of this
    /// content. Gives what it claims, and the modification time that its last
    /// record has.
    pub(super) fn open(
        file: F,
        id: ContentId,
        geometry: &Geometry,
    ) -> io::Result<(Self, Bitfield, Option<Stamp>)> {
        let len = file.stat()?.len;
        let bytes = file.read_at(0, len.min(MAX_JOURNAL_LEN) as usize)?;
        let Some(Replay {
            claimed,
            stamp,
            end,
            chain,
        }) = journal::replay(&bytes, id, geometry)
        else {
            let (header, chain) = journal::header(id, geometry);
            file.set_len(0)?;
            file.write_at(0, &[Bytes::copy_from_slice(&header)])?;
            let end = HEADER_LEN as u64;
            let claimed = Bitfield::none(geometry.chunks());
            return Ok((Self { file, end, chain }, claimed, None));
        };
        // A sync of it may have failed before: then what was read is not on
        // the disk, and no later sync would write it. The same bytes written
        // again are; whatever a crash makes of that, they are no others.
        file.write_at(0, &[bytes.slice(..end)])?;
        let end = end as u64;
        if len > end {
            file.set_len(end)?;
        }
        Ok((Self { file, end, chain }, claimed, stamp))
    }

    /// Appends the record that leads from one set of claims to another, and
    /// syncs it. After an error nothing may be appended any more.
    pub(super) fn append(
        &mut self,
        from: &Bitfield,
        to: &Bitfield,
        stamp: Stamp,
    ) -> io::Result<()> {
        let Some((record, chain)) = journal::record(self.chain, from, to, stamp) else {
            return Ok(());
        };
        let end = self.end + record.len() as u64;
        if end > MAX_JOURNAL_LEN {
            return Err(io::Error::other("the journal is too long"));
        }
        self.file.write_at(self.end, &[record.into()])?;
        self.file.sync_data()?;
        (self.end, self.chain) = (end, chain);
        Ok(())
    }

    pub(super) fn file(&self) -> &F {
        &self.file
    }
}
