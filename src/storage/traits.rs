//! The traits that a storage implements, and the types that they exchange.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::error::StorageError;
use super::paused::{PausedDownload, PausedId};
use super::{FilePoolStats, FileStamp, Folders};
use crate::content::{Bitfield, ContentId, ContentName, Manifest};

/// A place that stores contents by name.
///
/// Every method may be called from any task at any time. None may block the
/// thread that polls it.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// Opens a content for writing. This is the target of a download; it is not
    /// visible under its name until [`finish`](Blob::finish). If an earlier
    /// download of the same content was interrupted, the storage resumes it as
    /// far as it can vouch for the bytes.
    ///
    /// No other caller of this storage can open the same content for writing until
    /// the returned blob is dropped. A storage that other processes use as well may
    /// keep them out only from the first write on that others can see.
    ///
    /// Cancel safe: if the future is dropped, an unfinished target may remain,
    /// but no lock.
    ///
    /// # Errors
    /// [`StorageError::Exists`] when something has the name,
    /// [`StorageError::Locked`] while another download writes this content,
    /// the errors of [`check_name`](Self::check_name), those of opening a
    /// file and of reserving its space, and [`StorageError::NoLocks`] and
    /// [`StorageError::Io`] where the storage finds that it could not keep its
    /// promises.
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError>;

    /// The same for a content that replaces what has the name, when it is finished. Until
    /// then that stays as it is, and afterwards it is gone for good, together with its
    /// [record](Self::remember). The step is atomic: at any moment, also after a crash,
    /// the name has all of the one content or all of the other. Blobs of what was replaced
    /// fail to read from then on, with [`StorageError::Changed`]. A wrapper around a storage
    /// must forward the call. By default nothing can be replaced.
    ///
    /// Cancel safe, as `create` is.
    ///
    /// # Errors
    /// Those of [`create`](Self::create) except [`StorageError::Exists`],
    /// [`StorageError::NotAFile`] when what has the name is a link, a directory or
    /// another thing that is not a file, and [`StorageError::Unsupported`].
    async fn create_replacing(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let _ = (name, manifest);
        Err(StorageError::Unsupported {
            what: "replacing a content",
        })
    }

    /// Begins a content whose bytes come in order, and whose length and id are known only
    /// at their end. It is not visible under its name until it is
    /// [published](Draft::publish), and is not resumed after an interruption. A wrapper
    /// around a storage must forward the call. By default there are no drafts.
    ///
    /// Cancel safe: nothing stays.
    ///
    /// # Errors
    /// [`StorageError::Exists`] when something has the name, the errors of
    /// [`check_name`](Self::check_name), [`StorageError::Io`], and
    /// [`StorageError::Unsupported`].
    async fn draft(&self, name: &ContentName) -> Result<Box<dyn Draft>, StorageError> {
        let _ = name;
        Err(StorageError::Unsupported {
            what: "a content of unknown length",
        })
    }

    /// A storage like this one in another directory: an absolute path, or one within the
    /// directory of this storage. The directory and its parents are created if they are
    /// missing. What is finished there can be [remembered](Self::remember) by this
    /// storage. A wrapper around a storage must forward the call. By default there are no
    /// directories.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`StorageError::NotADirectory`] when the path is something else,
    /// [`StorageError::Io`] when it cannot be created or opened, and
    /// [`StorageError::Unsupported`].
    async fn in_directory(&self, path: &Path) -> Result<Arc<dyn Storage>, StorageError> {
        let _ = path;
        Err(StorageError::Unsupported {
            what: "other directories",
        })
    }

    /// Where a content with this name is, or would be. A wrapper around a storage must
    /// forward the call. By default `None`, for storages that have no paths.
    fn path(&self, name: &ContentName) -> Option<PathBuf> {
        let _ = name;
        None
    }

    /// Whether [`create`](Self::create) accepts a name, free or not. This is
    /// called before anything is fetched, also with names that strangers have
    /// chosen. A storage that keeps files should refuse the names that
    /// [`ContentName::check_file_name`] refuses. A wrapper around a storage
    /// must forward the call. By default every name is accepted.
    ///
    /// # Errors
    /// [`StorageError::UnsafeName`] and [`StorageError::Reserved`].
    fn check_name(&self, name: &ContentName) -> Result<(), StorageError> {
        let _ = name;
        Ok(())
    }

    /// Whether an interrupted download of this content may be here, which
    /// [`create`](Self::create) would resume. Then nothing is asked for before it is
    /// known which chunks are missing. A wrong answer costs time or traffic, and nothing
    /// else. A wrapper around a storage should forward the call. By default there is
    /// none.
    ///
    /// Cancel safe.
    async fn has_partial(&self, id: &ContentId) -> bool {
        let _ = id;
        false
    }

    /// Removes what an interrupted download of this content has left: its bytes, and what
    /// is recorded about them. A finished content stays. When this returns, nothing of it
    /// comes back after a crash. Returns whether there was anything. A wrapper around a
    /// storage must forward the call. By default there is nothing.
    ///
    /// Cancel safe: it is removed or not, and no lock remains.
    ///
    /// # Errors
    /// [`StorageError::Locked`] while a download writes this content, also one of another
    /// process; [`StorageError::NotAFile`], and then what is there is left alone;
    /// [`StorageError::Io`]; and [`StorageError::Unsupported`] of a storage that
    /// [has](Self::has_partial) such data and does not implement this.
    async fn discard_partial(&self, id: &ContentId) -> Result<bool, StorageError> {
        match self.has_partial(id).await {
            true => Err(StorageError::Unsupported {
                what: "discarding an interrupted download",
            }),
            false => Ok(false),
        }
    }

    /// Where this storage keeps folders. A wrapper around a storage must forward the
    /// call. By default `None`: only a [`FileStorage`](crate::FileStorage) can keep
    /// them.
    fn folders(&self) -> Option<Folders> {
        None
    }

    /// How many files the storage has open, how many it may have, and how many reads
    /// and downloads wait for that. A wrapper around a storage must forward the call.
    /// By default `None`, for storages that do not count files.
    fn open_files(&self) -> Option<FilePoolStats> {
        None
    }

    /// Opens a finished content for reading, by its name.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] when no content has the name.
    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError>;

    /// Records durably that this blob is this content under these names, so
    /// that [`catalogue`](Self::catalogue) returns it after a restart without
    /// hashing it again, and [`manifest`](Self::manifest) its manifest. Replaces an
    /// earlier record of the same content under the same name. If that says that the peer
    /// has [written](Stored::written_here) the same bytes, they stay its own. A content can have
    /// several names, and a name several contents, if their files have different paths.
    ///
    /// The blob must have been opened for reading, or be finished, and the
    /// manifest must be that of its bytes. A blob that the storage cannot find
    /// again is not recorded, and this is not an error. By default nothing is
    /// recorded. The time that this takes must not grow with the number of records.
    ///
    /// Cancel safe: the record is either written or not.
    ///
    /// # Errors
    /// [`StorageError::Full`] and [`StorageError::Io`]; [`StorageError::Unsupported`] if the
    /// manifest is of a kind that cannot be recorded, as that of a torrent.
    async fn remember(&self, stored: &Stored) -> Result<(), StorageError> {
        let _ = stored;
        Ok(())
    }

    /// Removes the record of a content under a name; the content stays, and so do
    /// its records under other names. Does nothing if there is no record.
    ///
    /// Cancel safe: the record is either removed or not.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    async fn forget(&self, name: &ContentName, id: &ContentId) -> Result<(), StorageError> {
        let _ = (name, id);
        Ok(())
    }

    /// Removes a finished content from this storage: its bytes under this name, and its
    /// [record](Self::remember). When this returns, it does not come back after a crash.
    /// Its other names stay, and so does a file that lies elsewhere and was only shared
    /// from there.
    ///
    /// Nothing else is removed: what has the name must be this content. If `known` is the
    /// [file](Blob::file) of a blob of the content, that is seen by its stamp, where a
    /// stamp proves it, and a file that lies somewhere else is not found here. Otherwise
    /// a record tells it, or the bytes are hashed. Somebody who puts another file in its
    /// place at the very moment at which it is removed loses that.
    ///
    /// Blobs that are open may go on being read, or fail with [`StorageError::Changed`].
    /// A wrapper around a storage must forward the call. By default nothing can be
    /// removed.
    ///
    /// Cancel safe: the content is removed or not. After a crash at the wrong moment its
    /// record may remain, and it is reported as lost once.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] when nothing has the name, [`StorageError::Changed`] when
    /// something else has it, and [`StorageError::NotAFile`] when that is no file: then
    /// what is there is left alone, and only the record is removed.
    /// [`StorageError::Io`], also where the system does not permit it, and
    /// [`StorageError::Unsupported`].
    async fn remove(
        &self,
        name: &ContentName,
        id: &ContentId,
        known: Option<&FileStamp>,
    ) -> Result<(), StorageError> {
        let _ = (name, id, known);
        Err(StorageError::Unsupported {
            what: "removing a content",
        })
    }

    /// Keeps the record of a download that was paused, durably and in place of an earlier
    /// one with the same id, so that it is there after a restart. At every moment of a
    /// crash one of the two is there as a whole. What has arrived of the content is not
    /// touched. A wrapper around a storage must forward the call, as well as the next two.
    /// By default nothing is kept.
    ///
    /// Cancel safe: it is kept or not.
    ///
    /// # Errors
    /// [`StorageError::Full`] and [`StorageError::Io`].
    async fn remember_paused(&self, paused: &PausedDownload) -> Result<(), StorageError> {
        let _ = paused;
        Ok(())
    }

    /// Removes that record. There may be none.
    ///
    /// Cancel safe: it is removed or not.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    async fn forget_paused(&self, id: &PausedId) -> Result<(), StorageError> {
        let _ = id;
        Ok(())
    }

    /// The [records](Self::remember_paused) that are kept, without those that are damaged:
    /// these are logged as warnings, and stay.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    async fn paused(&self) -> Result<Vec<PausedDownload>, StorageError> {
        Ok(Vec::new())
    }

    /// All [remembered](Self::remember) contents: those that are still there and
    /// have not changed, as far as that can be told without reading them, and one by
    /// one those that are lost. There may be very many, so no entry should hold its
    /// manifest in memory or a file open. By default there are none.
    ///
    /// A storage may forget a content when it has reported it as lost, if it knows that
    /// the content does not come back. A file that is not found may lie on a volume that
    /// is away: then the content is to be reported each time, and offered again when it
    /// is back.
    ///
    /// # Errors
    /// [`StorageError::Io`] when the list cannot be read at all.
    async fn catalogue(&self) -> Result<Catalogue, StorageError> {
        Ok(Catalogue::default())
    }

    /// The manifest of a content that was [remembered](Self::remember) through this
    /// storage, or is in the last [catalogue](Self::catalogue) that it returned, under
    /// this name. `None` if there is no such record, or it is that of another content.
    /// A storage that implements `catalogue` must implement this as well. By default
    /// there is none.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`StorageError::Io`], also when the record is damaged.
    async fn manifest(
        &self,
        name: &ContentName,
        id: &ContentId,
    ) -> Result<Option<Manifest>, StorageError> {
        let _ = (name, id);
        Ok(None)
    }
}

/// A content that is open for writing: what [`Storage::create`] returns.
///
/// A storage that cannot resume returns [`Partial::empty`]; one that can
/// returns [`Partial::resumed`]. A wrapper around a storage replaces
/// [`blob`](Self::blob).
#[non_exhaustive]
pub struct Partial {
    /// Where to write its bytes.
    pub blob: Arc<dyn Blob>,
    /// The chunks that are already there, and that the storage vouches for.
    /// They need not be fetched. If one of them is wrong after all,
    /// [`Blob::finish`] fails instead of publishing it.
    pub present: Bitfield,
    /// The present chunks that have been verified since the storage was
    /// opened. All other present chunks were recorded before a restart: verify
    /// each of them before it is served for the first time, and write it again
    /// if it is wrong.
    pub verified: Bitfield,
    /// Whether the bytes of the present chunks are unchanged since they were
    /// recorded, as far as the storage can tell. Then the content can be
    /// finished before all of them are verified. `false` is always correct.
    pub untouched: bool,
}

impl Partial {
    /// A new content of `chunks` chunks, none of which is present.
    pub fn empty(blob: Arc<dyn Blob>, chunks: u32) -> Self {
        Self::resumed(blob, Bitfield::none(chunks)).untouched(true)
    }

    /// An interrupted download with these chunks present. None of them counts
    /// as verified, and the content does not count as untouched.
    pub fn resumed(blob: Arc<dyn Blob>, present: Bitfield) -> Self {
        Self {
            blob,
            verified: Bitfield::none(present.chunks()),
            present,
            untouched: false,
        }
    }

    /// Sets which of the present chunks are [`verified`](Self::verified).
    #[must_use]
    pub fn verified(mut self, verified: Bitfield) -> Self {
        self.verified = verified;
        self
    }

    /// Sets whether the present chunks are [`untouched`](Self::untouched).
    #[must_use]
    pub fn untouched(mut self, untouched: bool) -> Self {
        self.untouched = untouched;
        self
    }
}

impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partial")
            .field("present", &self.present)
            .field("verified", &self.verified)
            .field("untouched", &self.untouched)
            .finish_non_exhaustive()
    }
}

/// What a storage remembers: the result of [`Storage::catalogue`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Catalogue {
    /// The contents that can be read, in the order in which the storage keeps them.
    pub remembered: Vec<Remembered>,
    /// The contents that cannot.
    pub lost: Vec<Lost>,
}

/// A content that a storage has remembered. It is small: its manifest is read when it
/// is wanted ([`Storage::manifest`]), and its bytes are opened when they are read.
#[derive(Clone)]
#[non_exhaustive]
pub struct Remembered {
    /// Its id.
    pub id: ContentId,
    /// Its name in the storage.
    pub name: ContentName,
    /// Its name at trackers.
    pub listed_as: ContentName,
    /// Its bytes. [`Blob::length`] is its length, and [`Blob::file`] says what the
    /// storage knows its file by. If they change, reading fails with
    /// [`StorageError::Changed`].
    pub blob: Arc<dyn Blob>,
    /// Whether the peer has written these bytes ([`Stored::written_here`]). `false` if that
    /// is not known: then the peer never removes them.
    pub written_here: bool,
}

impl Remembered {
    /// A content that has the same name in the storage and at trackers.
    pub fn new(id: ContentId, name: ContentName, blob: Arc<dyn Blob>) -> Self {
        Self {
            id,
            listed_as: name.clone(),
            name,
            blob,
            written_here: false,
        }
    }

    /// Sets another name for trackers.
    #[must_use]
    pub fn listed_as(mut self, name: ContentName) -> Self {
        self.listed_as = name;
        self
    }

    /// Sets whether the peer has [written](Self::written_here) the bytes.
    #[must_use]
    pub fn written_here(mut self, written_here: bool) -> Self {
        self.written_here = written_here;
        self
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("listed_as", &self.listed_as)
            .field("written_here", &self.written_here)
            .finish_non_exhaustive()
    }
}

/// A content that was remembered and cannot be offered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Lost {
    /// Its id.
    pub id: ContentId,
    /// Its name in the storage.
    pub name: ContentName,
    /// Why: [`StorageError::NotFound`] when it is not there, [`StorageError::Changed`]
    /// when it is not the same any more, and other errors when that cannot be told.
    pub error: StorageError,
    /// Whether the storage still has a record of it. Then it is offered again from the
    /// next start on at which it is there, such as a file on a volume that was not
    /// mounted.
    pub recorded: bool,
}

impl Lost {
    /// A content that is lost for this reason, and not recorded any more.
    pub fn new(id: ContentId, name: ContentName, error: StorageError) -> Self {
        Self {
            id,
            name,
            error,
            recorded: false,
        }
    }

    /// Sets whether the storage still has a record of it.
    #[must_use]
    pub fn recorded(mut self, recorded: bool) -> Self {
        self.recorded = recorded;
        self
    }
}

/// A finished content for a storage to [remember](Storage::remember).
#[derive(Clone)]
#[non_exhaustive]
pub struct Stored {
    /// Its name in the storage.
    pub name: ContentName,
    /// Its name at trackers. This differs from the name in the storage if the
    /// user downloaded it under a name of their own.
    pub listed_as: ContentName,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its bytes, open for reading. If they change, reading fails with
    /// [`StorageError::Changed`].
    pub blob: Arc<dyn Blob>,
    /// Whether the peer has written these bytes. `false` if it has only found them in the
    /// storage, or elsewhere: then they are not the peer's to remove, and
    /// [`catalogue`](Storage::catalogue) has to say so.
    pub written_here: bool,
}

impl Stored {
    /// A content that has the same name in the storage and at trackers.
    pub fn new(name: ContentName, manifest: Manifest, blob: Arc<dyn Blob>) -> Self {
        Self {
            listed_as: name.clone(),
            name,
            manifest,
            blob,
            written_here: false,
        }
    }

    /// Sets another name for trackers.
    #[must_use]
    pub fn listed_as(mut self, name: ContentName) -> Self {
        self.listed_as = name;
        self
    }

    /// Sets whether the peer has [written](Self::written_here) the bytes.
    #[must_use]
    pub fn written_here(mut self, written_here: bool) -> Self {
        self.written_here = written_here;
        self
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("name", &self.name)
            .field("listed_as", &self.listed_as)
            .field("id", &self.manifest.id())
            .field("written_here", &self.written_here)
            .finish_non_exhaustive()
    }
}

/// A write that is ready to be done on a thread that may block: see [`Blob::write_job`]. It
/// returns the errors of [`Blob::write_at`].
pub type WriteJob = Box<dyn FnOnce() -> Result<(), StorageError> + Send>;

/// The bytes of one content. Reads and writes are positional, and several may
/// run at the same time at different positions.
///
/// Every method is cancel safe: dropping its future does not tear the data
/// that other calls see, and does not leave a lock behind. A write whose future
/// was dropped may still happen, or may never happen.
#[async_trait]
pub trait Blob: Send + Sync + 'static {
    /// The length in bytes.
    fn length(&self) -> u64;

    /// Reads exactly `len` bytes from `offset` on.
    ///
    /// # Errors
    /// [`StorageError::OutOfBounds`] past the end, [`StorageError::Changed`]
    /// when a finished content was changed or is gone,
    /// [`StorageError::WrongLength`] and [`StorageError::Tampered`] where the
    /// storage can tell, and [`StorageError::Io`] when reading fails.
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError>;

    /// Reads exactly `len` bytes from `offset` on, as [`read_at`](Self::read_at) does, if they
    /// are in memory, so that nothing is waited for: no device, no network, no other thread.
    /// It is called by async threads, which then need not wake another one.
    ///
    /// `None` says that the bytes must be read with `read_at`, which also finds out what is
    /// wrong with them. A wrapper around a blob forwards the call if it adds nothing to a
    /// read. By default `None`.
    fn read_now(&self, offset: u64, len: usize) -> Option<Bytes> {
        let _ = (offset, len);
        None
    }

    /// Writes the pieces one after the other, from `offset` on. After it has
    /// returned, [`read_at`](Self::read_at) returns these bytes.
    ///
    /// # Errors
    /// [`StorageError::OutOfBounds`] past the end, [`StorageError::ReadOnly`]
    /// for a content that was opened for reading or is finished,
    /// [`StorageError::Full`], and [`StorageError::Io`].
    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError>;

    /// What writes these pieces from `offset` on, as [`write_at`](Self::write_at) does, on a
    /// thread that may block. So a chunk is verified and written by one thread, and nobody
    /// else has to be woken for it. It is run once or dropped; after that nothing of it may
    /// be held, such as a lock.
    ///
    /// `None` says that the pieces must be written with `write_at`, which also finds out
    /// what is wrong with them. It is asked for with each write, and may change. A wrapper
    /// around a blob forwards the call if it adds nothing to a write. By default `None`.
    fn write_job(&self, offset: u64, pieces: &[Bytes]) -> Option<WriteJob> {
        let _ = (offset, pieces);
        None
    }

    /// Fills this blob, which is open for writing and has none of its bytes yet, with
    /// those of another blob of the same length, if the storage has a faster way than
    /// reading and writing: a file system can share the bytes of two files. Returns
    /// whether it did. The caller verifies what is there then, and may write it again;
    /// nothing of it is durable. A wrapper around a blob should forward the call. By
    /// default `false`.
    ///
    /// # Errors
    /// Those of [`write_at`](Self::write_at).
    async fn copy_from(&self, source: &dyn Blob) -> Result<bool, StorageError> {
        let _ = source;
        Ok(false)
    }

    /// Makes all earlier writes durable, and records that exactly these chunks
    /// (all that are verified so far) may be trusted when the content is opened
    /// again. A storage may start some contents anew, short ones for example;
    /// then this does nothing.
    ///
    /// # Errors
    /// [`StorageError::Full`], [`StorageError::Tampered`] and
    /// [`StorageError::Io`]. Afterwards the blob cannot be written any more. Nothing that was written since the last
    /// successful commit counts as durable; to continue from that commit,
    /// create the content again.
    ///
    /// # Panics
    /// May panic if `verified` has another number of chunks than the content.
    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError>;

    /// Makes the content, which must be complete, visible under its name, and
    /// durable. Replaces nothing, unless the content was created
    /// [for that](Storage::create_replacing). May be called again.
    ///
    /// # Errors
    /// [`StorageError::Exists`] when something else took the name meanwhile;
    /// [`StorageError::Altered`] when a chunk is wrong that was present when the
    /// content was created, and the content was not
    /// [untouched](Partial::untouched); and the errors of
    /// [`commit`](Self::commit).
    async fn finish(&self) -> Result<(), StorageError>;

    /// Makes a content and its name durable that was [opened](Storage::open)
    /// for reading: another program may have put it there a moment ago. A
    /// wrapper around a blob must forward the call. By default it does nothing,
    /// for storages in which everything that can be opened is durable.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    async fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// The file of a content that was opened for reading or is finished.
    /// [`Storage::remember`] needs it to find the file again. A wrapper around
    /// a blob must forward the call. By default there is no file.
    fn file(&self) -> Option<FileStamp> {
        None
    }

    /// The path of that file.
    fn path(&self) -> Option<PathBuf> {
        self.file().map(|file| file.path().to_path_buf())
    }

    /// Closes what is open only for the next read, such as a file. For a finished
    /// content that is not expected to be read soon; the next read opens it again.
    /// A wrapper around a blob must forward the call. By default it does nothing.
    fn release(&self) {}
}

/// A content that is written from its start to its end: what [`Storage::draft`] returns.
/// When it is dropped before it is published, nothing stays of it.
#[async_trait]
pub trait Draft: Send + 'static {
    /// Adds the next bytes.
    ///
    /// Not cancel safe: if the future is dropped, the draft must be dropped as well.
    ///
    /// # Errors
    /// [`StorageError::Full`] and [`StorageError::Io`].
    async fn append(&mut self, bytes: Bytes) -> Result<(), StorageError>;

    /// Makes the content visible under its name, and durable, with all bytes that were
    /// added. `id` is their id. Replaces nothing. Returns them, open for reading.
    ///
    /// Cancel safe: it is published or nothing stays.
    ///
    /// # Errors
    /// [`StorageError::Exists`] when something has the name by now,
    /// [`StorageError::Tampered`], [`StorageError::Full`] and [`StorageError::Io`].
    /// Nothing stays then.
    async fn publish(self: Box<Self>, id: &ContentId) -> Result<Arc<dyn Blob>, StorageError>;

    /// Removes what was added, and returns when it is gone.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    async fn discard(self: Box<Self>) -> Result<(), StorageError>;
}

/// Checks that `len` bytes from `offset` on are inside a content of `length`
/// bytes. Every blob must check this before it reads or writes.
///
/// # Errors
/// [`StorageError::OutOfBounds`].
pub fn check_range(offset: u64, len: u64, length: u64) -> Result<(), StorageError> {
    match offset.checked_add(len) {
        Some(end) if end <= length => Ok(()),
        _ => Err(StorageError::OutOfBounds {
            offset,
            len,
            length,
        }),
    }
}
