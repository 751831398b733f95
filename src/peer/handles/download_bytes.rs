//! Downloads that do not go to the storage of the peer.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::content::{Content, ContentId};
use crate::error::DownloadError;
use crate::peer::handles::download::{Download, DownloadOptions};
use crate::peer::handles::key::DownloadKey;
use crate::peer::handles::peer::Peer;
use crate::peer::handles::reader::ContentReader;
use crate::peer::handles::stream::{StreamOptions, download_error};
use crate::storage::{MemoryStorage, StorageError};

/// How many bytes are handed to a writer at a time, at most.
const WRITE_LEN: usize = 64 << 10;

/// A download into memory, and its bytes in order.
struct InMemory {
    download: Download,
    reader: ContentReader,
    max_len: u64,
}

impl Peer {
    /// Downloads a content of at most `max_len` bytes into memory. Nothing goes to the
    /// peer's storage. While it is being fetched, it is served to others; when this
    /// returns, it is not here any more. If it is here already, or is being downloaded, it
    /// is read from there, and stays. If that download is [paused](Download::pause), this
    /// waits until somebody has it go on ([`Peer::get`]).
    ///
    /// `max_len` bounds what is reserved, so that nobody can fill the memory by sharing
    /// something long under a name that is asked for. Twice as much may be used for a
    /// moment.
    ///
    /// Cancel safe: dropping the future cancels the download.
    ///
    /// # Errors
    /// [`DownloadError`]; [`DownloadError::TooLarge`] as soon as the length is known, and
    /// before the bytes are fetched.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn download_bytes(
        &self,
        key: impl Into<DownloadKey>,
        max_len: u64,
    ) -> Result<Bytes, DownloadError> {
        let mut running = InMemory::start(self, key.into(), max_len);
        let length = running.length().await?;
        let mut bytes = Vec::with_capacity(length as usize);
        let read = running.reader.read_to_end(&mut bytes).await;
        running.check(read).await?;
        running.download.await?;
        Ok(bytes.into())
    }

    /// Downloads a content of at most `max_len` bytes into a writer: the bytes are written
    /// in order, each as soon as it is verified. No more than the window of a
    /// [stream](Self::stream) of it is in memory, and nothing goes to the peer's storage.
    ///
    /// Cancel safe: dropping the future cancels the download. How much was written by then
    /// is not told.
    ///
    /// # Errors
    /// [`DownloadError`]; [`DownloadError::TooLarge`] before anything is written, and
    /// [`DownloadError::Writer`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn download_to(
        &self,
        key: impl Into<DownloadKey>,
        writer: &mut (impl AsyncWrite + Unpin),
        max_len: u64,
    ) -> Result<Content, DownloadError> {
        let options = StreamOptions::new().max_length(max_len);
        let mut stream = self.stream_with(key, options);
        let length = stream.wait_length().await;
        stream.check(length).await?;
        let mut buffer = vec![0; WRITE_LEN];
        let failed = |source: io::Error| DownloadError::Writer {
            source: source.into(),
        };
        loop {
            let read = stream.read(&mut buffer).await;
            let len = stream.check(read).await?;
            if len == 0 {
                break;
            }
            let written = writer.write_all(&buffer[..len]).await;
            written.map_err(failed)?;
        }
        writer.flush().await.map_err(failed)?;
        stream.end().await
    }
}

impl InMemory {
    fn start(peer: &Peer, key: DownloadKey, max_len: u64) -> Self {
        // What does not seed does not stay: nobody has to take it back.
        let mut options = DownloadOptions::new().seed(false);
        options.memory = Some(MemoryStorage::with_capacity(max_len));
        let download = peer.download_with(key, options);
        let reader = download.reader();
        Self {
            download,
            reader,
            max_len,
        }
    }

    /// Waits until the length is known, and checks it.
    async fn length(&mut self) -> Result<u64, DownloadError> {
        let length = self.reader.wait_length().await;
        let length = self.check(length).await?;
        match self.download.content() {
            Some(content) if length > self.max_len => Err(self.too_large(content.id, length)),
            _ => Ok(length),
        }
    }

    fn too_large(&self, id: ContentId, length: u64) -> DownloadError {
        let max = self.max_len;
        DownloadError::TooLarge { id, length, max }
    }

    /// What the reader says, with the download's own error.
    async fn check<T>(&mut self, read: io::Result<T>) -> Result<T, DownloadError> {
        let error = match download_error(read, &mut self.download).await {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        Err(match error {
            DownloadError::Storage {
                id,
                source: StorageError::Full { needed, .. },
                ..
            } => self.too_large(id, needed),
            error => error,
        })
    }
}
