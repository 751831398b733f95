//! The phases of a content that is being written, and the file of one that has a single
//! chunk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::dir::{DataFile, Dir};
use super::partial_file::PartialFile;
use super::pool::{Pool, WriterPlaces};
use super::read_blob::{Located, ReadBlob};
use super::recovery::RecoveryOptions;
use super::stamp::Stamp;
use super::storage_dir::StorageDir;
use super::writers::FilePermit;
use crate::content::{ContentName, Manifest};
use crate::storage::StorageError;

/// Where a content is on its way to the disk.
pub(super) enum Phase {
    /// A content of one chunk: it is written when it is finished.
    Short {
        file: Arc<ShortFile>,
        /// All of it, once that was written.
        pieces: Option<Vec<Bytes>>,
    },
    Writing {
        file: Arc<PartialFile<Dir>>,
        /// Where the file is to be when it is finished.
        target: Located,
    },
    /// The file has its name, and is open only while it is read.
    Finished(ReadBlob),
}

/// The file of a content of one chunk, which does not exist yet.
pub(super) struct ShortFile {
    pub(super) dir: Arc<StorageDir<Dir>>,
    pub(super) pool: Arc<Pool<DataFile>>,
    pub(super) name: ContentName,
    pub(super) manifest: Manifest,
    pub(super) options: RecoveryOptions,
    pub(super) permit: Arc<FilePermit>,
    pub(super) target: Located,
}

impl ShortFile {
    /// Waits for the places of its file.
    pub(super) async fn places(&self) -> WriterPlaces {
        let files = PartialFile::<Dir>::files(&self.manifest);
        self.pool.writer_places(files).await
    }

    /// Opens the file. `written_whole` says that all of it is written next.
    fn open(
        &self,
        places: WriterPlaces,
        written_whole: bool,
    ) -> Result<PartialFile<Dir>, StorageError> {
        let permits = (Some(Arc::clone(&self.permit)), Some(places));
        let (dir, manifest) = (Arc::clone(&self.dir), self.manifest.clone());
        let options = RecoveryOptions {
            written_whole,
            ..self.options
        };
        let opened = PartialFile::open(dir, self.name.clone(), manifest, options, permits)?;
        Ok(opened.file)
    }
}

/// Opens the file of a content of one chunk, and writes what waits in memory. Returns
/// nothing if another call was faster.
pub(super) fn write_short(
    short: &ShortFile,
    places: WriterPlaces,
    phase: &Mutex<Phase>,
) -> Result<Option<Arc<PartialFile<Dir>>>, StorageError> {
    let waiting = || match &*lock(phase) {
        Phase::Short { pieces, .. } => Some(pieces.clone()),
        Phase::Writing { .. } | Phase::Finished(_) => None,
    };
    let Some(pieces) = waiting() else {
        return Ok(None);
    };
    let file = Arc::new(short.open(places, pieces.is_some())?);
    // What waits may be another copy by now, and stays all of the content.
    let Some(pieces) = waiting().map(|newer| newer.or(pieces)) else {
        return Ok(None);
    };
    if let Some(pieces) = pieces {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        // If this fails, the bytes still wait, and the next call begins anew.
        file.write(0, len, &pieces)?;
    }
    *lock(phase) = Phase::Writing {
        file: Arc::clone(&file),
        target: short.target.clone(),
    };
    Ok(Some(file))
}

pub(super) fn lock(phase: &Mutex<Phase>) -> MutexGuard<'_, Phase> {
    phase.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on the file is open only while it is read.
pub(super) fn finished(phase: &Mutex<Phase>, stamp: Stamp) {
    let mut phase = lock(phase);
    let Phase::Writing { target, .. } = &*phase else {
        return;
    };
    let blob = ReadBlob::new(target.clone(), stamp);
    let writing = std::mem::replace(&mut *phase, Phase::Finished(blob));
    drop(phase);
    // Closes the file, unless it is being read right now.
    drop(writing);
}
