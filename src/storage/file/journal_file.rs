//! The file with the journal of a download.

use std::io;

use bytes::Bytes;

use super::disk::DiskFile;
use super::journal::{self, Chain, HEADER_LEN, Replay};
use super::timestamp::Timestamp;
use crate::content::{Bitfield, ContentId, Geometry};

/// How much of a journal is read, in bytes: six times the size of the records
/// of the longest content if every chunk is committed by itself.
const MAX_JOURNAL_LEN: u64 = 256 << 20;

/// A journal that is open for appending.
pub(super) struct JournalFile<F> {
    file: F,
    end: u64,
    chain: Chain,
}

/// A journal that was just opened, and its content.
pub(super) struct OpenedJournal<F> {
    pub(super) journal: JournalFile<F>,
    /// The chunks that may be trusted.
    pub(super) committed: Bitfield,
    /// The modification time of the unfinished file at the last record.
    pub(super) modified: Option<Timestamp>,
}

impl<F: DiskFile> JournalFile<F> {
    /// Reads the journal in a file, or starts a new one if the file is not the
    /// journal of this content.
    pub(super) fn open(
        file: F,
        id: ContentId,
        geometry: &Geometry,
    ) -> io::Result<OpenedJournal<F>> {
        let len = file.stat()?.len;
        let bytes = file.read_at(0, len.min(MAX_JOURNAL_LEN) as usize)?;
        let Some(replay) = journal::replay(&bytes, id, geometry) else {
            return Self::create(file, id, geometry);
        };
        let Replay {
            committed,
            modified,
            end,
            chain,
        } = replay;
        // An earlier sync of the journal may have failed. Then what was just
        // read may not be on the disk, and no later sync would write it. So the
        // same bytes are written again; a crash meanwhile cannot change them.
        file.write_at(0, &[bytes.slice(..end)])?;
        let end = end as u64;
        if len > end {
            file.set_len(end)?;
        }
        Ok(OpenedJournal {
            journal: Self { file, end, chain },
            committed,
            modified,
        })
    }

    fn create(file: F, id: ContentId, geometry: &Geometry) -> io::Result<OpenedJournal<F>> {
        let (header, chain) = journal::header(id, geometry);
        file.set_len(0)?;
        file.write_at(0, &[Bytes::copy_from_slice(&header)])?;
        let end = HEADER_LEN as u64;
        Ok(OpenedJournal {
            journal: Self { file, end, chain },
            committed: Bitfield::none(geometry.chunks()),
            modified: None,
        })
    }

    /// Appends the record that changes the committed chunks from one set to
    /// another, and syncs it. After an error nothing more may be appended.
    pub(super) fn append(
        &mut self,
        from: &Bitfield,
        to: &Bitfield,
        modified: Timestamp,
    ) -> io::Result<()> {
        let Some((record, chain)) = journal::record(self.chain, from, to, modified) else {
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

    pub(super) fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }
}
