//! A content that passes through a bounded window of memory.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::content::Content;
use crate::error::{DownloadError, checked_addr};
use crate::peer::contents::passing::PassingStorage;
use crate::peer::contents::status::ContentStatus;
use crate::peer::handles::download::{Download, DownloadOptions};
use crate::peer::handles::key::DownloadKey;
use crate::peer::handles::peer::Peer;
use crate::peer::handles::reader::{ContentReader, ReaderOptions};
use crate::peer::swarm::{Progress, Strategy};
use crate::protocol::{Addr, AddrError};
use crate::storage::StorageError;

/// What a stream does differently from others; see
/// [`Peer::stream_with`](crate::Peer::stream_with).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StreamOptions {
    /// How many bytes of the content are in memory at a time: from the chunk that is read
    /// on, in order. Default 8 MiB: what a long fast line carries in a round trip. Never
    /// less than two chunks: a chunk has up to 16 MiB, if the content has more than 8 GiB.
    pub window: u64,
    /// How long the content may be, in bytes. Default `None`: there is no bound, since the
    /// length costs no memory but 32 bytes for each chunk.
    pub max_length: Option<u64>,
    /// Owners that are known in addition to those that a tracker names.
    pub owners: Vec<Addr>,
    /// The first text that was not an address; the stream fails with it.
    wrong: Option<DownloadError>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            window: 8 << 20,
            max_length: None,
            owners: Vec::new(),
            wrong: None,
        }
    }
}

impl StreamOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many bytes of the content are in memory at a time.
    #[must_use]
    pub fn window(mut self, bytes: u64) -> Self {
        self.window = bytes;
        self
    }

    /// Sets how long the content may be.
    #[must_use]
    pub fn max_length(mut self, bytes: u64) -> Self {
        self.max_length = Some(bytes);
        self
    }

    /// Adds an owner to ask: an [`Addr`], or text. If it is not an address, reading fails
    /// with [`DownloadError::Config`].
    #[must_use]
    pub fn owner<A>(mut self, addr: A) -> Self
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        match checked_addr(addr) {
            Ok(addr) => self.owners.push(addr),
            Err(wrong) => {
                self.wrong.get_or_insert(wrong.into());
            }
        }
        self
    }
}

/// A content that passes through memory: what [`Peer::stream`](crate::Peer::stream) gives.
///
/// It reads from the start to the end, and cannot seek: what was read is dropped. All
/// bytes that it gives are verified. Dropping it ends the download.
///
/// # Errors
/// Reading fails as that of a [`ContentReader`] does, with an [`io::Error`] around the
/// [`DownloadError`]; [`DownloadError::TooLarge`] before anything of the content is
/// fetched.
#[must_use = "dropping the stream ends the download"]
pub struct ContentStream {
    download: Download,
    reader: ContentReader,
    passing: PassingStorage,
    max_length: Option<u64>,
}

impl Peer {
    /// Downloads a content of any length and gives its bytes in order, with no more than a
    /// window of it in memory and nothing in the storage.
    ///
    /// What is in the window is offered to the peers that it is linked with, and taken back
    /// when it was read. No tracker lists this peer for the content, as it does not keep
    /// what it gets, and peers that know nothing of chunks that are taken back are told
    /// that it has none. By those it is served after others that pass on what they get.
    ///
    /// If the content is complete here, or is being downloaded to the storage or into
    /// memory, it is read from there, and waited for if that download is
    /// [paused](Download::pause) ([`Peer::get`] gives a handle of it). Another download of a
    /// content that passes through waits until that has ended; so does another stream.
    /// [`Peer::reader`] of it fails.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn stream(&self, key: impl Into<DownloadKey>) -> ContentStream {
        self.stream_with(key, StreamOptions::default())
    }

    /// [`stream`](Self::stream), with options.
    pub fn stream_with(
        &self,
        key: impl Into<DownloadKey>,
        options: StreamOptions,
    ) -> ContentStream {
        let StreamOptions {
            window,
            max_length,
            owners,
            wrong,
        } = options;
        let passing = PassingStorage::new(window, max_length.unwrap_or(u64::MAX));
        let mut options = DownloadOptions::new();
        options.strategy = Strategy::Sequential;
        options.seed = false;
        options.owners = owners;
        options.wrong = wrong;
        options.passing = Some(passing.clone());
        let download = self.download_with(key, options);
        let reader = download.reader_with(ReaderOptions::new().readahead(window));
        ContentStream {
            download,
            reader,
            passing,
            max_length,
        }
    }
}

impl ContentStream {
    /// The length of the content in bytes, once it is known.
    pub fn length(&self) -> Option<u64> {
        self.reader.length()
    }

    /// Waits until the length of the content is known, and returns it in bytes.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn wait_length(&mut self) -> io::Result<u64> {
        let length = self.reader.wait_length().await;
        let length = length.map_err(|error| self.failed(error))?;
        if self.max_length.is_some_and(|max| length > max) {
            // It is named in a moment.
            let known = |status: &ContentStatus| status.content().is_some();
            let _ = self.download.status.wait_for(known).await;
        }
        self.check_length(length)?;
        Ok(length)
    }

    /// How many bytes were read.
    pub fn position(&self) -> u64 {
        self.reader.position()
    }

    /// The content, once its manifest is known.
    pub fn content(&self) -> Option<Content> {
        self.download.content()
    }

    /// How far the download is. What was read counts as stored.
    pub fn progress(&self) -> Progress {
        self.download.progress()
    }

    /// How many bytes of the content are in memory, verified and not read yet, and how many
    /// there were at most. What is on its way into the window is not among them, and has
    /// its place in the window: together they are never more than
    /// [`StreamOptions::window`], or two chunks. Beside that the reader has up to 512 KiB
    /// at hand. 0 if the content is read from elsewhere.
    pub fn held_bytes(&self) -> (u64, u64) {
        self.passing.held_bytes()
    }

    /// What reading said, with the download's own error.
    pub(super) async fn check<T>(&mut self, read: io::Result<T>) -> Result<T, DownloadError> {
        download_error(read, &mut self.download).await
    }

    /// Waits for the end of the download.
    pub(super) async fn end(&mut self) -> Result<Content, DownloadError> {
        (&mut self.download).await
    }

    /// Fails if the content is longer than is wanted.
    fn check_length(&self, length: u64) -> io::Result<()> {
        let Some(max) = self.max_length.filter(|max| length > *max) else {
            return Ok(());
        };
        Err(match self.content() {
            Some(Content { id, .. }) => {
                io::Error::other(DownloadError::TooLarge { id, length, max })
            }
            None => io::ErrorKind::FileTooLarge.into(),
        })
    }

    /// An error of the reader; that the content is too long has a name of its own.
    fn failed(&self, error: io::Error) -> io::Error {
        let source = error.get_ref().and_then(|error| error.downcast_ref());
        match (source, self.max_length) {
            (
                Some(DownloadError::Storage {
                    id,
                    source: StorageError::Full { needed: length, .. },
                    ..
                }),
                Some(max),
            ) => {
                let (id, length) = (*id, *length);
                io::Error::other(DownloadError::TooLarge { id, length, max })
            }
            _ => error,
        }
    }
}

impl AsyncRead for ContentStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.max_length.is_some() && this.position() == 0 {
            let length = ready!(this.reader.poll_length(cx));
            let length = length.map_err(|error| this.failed(error))?;
            this.check_length(length)?;
        }
        let read = ready!(Pin::new(&mut this.reader).poll_read(cx, buf));
        if let Err(error) = read {
            return Poll::Ready(Err(this.failed(error)));
        }
        this.passing.passed(this.reader.position());
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for ContentStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentStream")
            .field("position", &self.position())
            .field("length", &self.length())
            .field("held_bytes", &self.held_bytes().0)
            .finish_non_exhaustive()
    }
}

/// What a reader says, with the download's own error.
pub(super) async fn download_error<T>(
    read: io::Result<T>,
    download: &mut Download,
) -> Result<T, DownloadError> {
    let error = match read {
        Ok(read) => return Ok(read),
        Err(error) => error,
    };
    Err(match error.downcast::<DownloadError>() {
        Ok(error) => error,
        // A reader has no other errors.
        Err(error) => match download.await {
            Err(error) => error,
            Ok(_) => DownloadError::Writer {
                source: error.into(),
            },
        },
    })
}
