//! Reads a content, also while it is being downloaded.

use std::fmt;
use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::future::FutureExt;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};

use crate::error::DownloadError;
use crate::peer::contents::complete_bytes::{CompleteBytes, PartRead};
use crate::peer::contents::readers::{Answer, ReaderBoard, ReaderSeat, Way};
use crate::peer::swarm::ReadWindow;

/// What a reader does differently from others; see
/// [`Download::reader_with`](crate::Download::reader_with).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct ReaderOptions {
    /// How many bytes from the position on are fetched before everything else. Default
    /// 8 MiB: some seconds of a film at usual rates, and what a long fast line carries
    /// in a round trip. 0 leaves the order of the download as it is, so that the reader
    /// only waits.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::bytes"))]
    pub readahead: u64,
    /// How many bytes the reader holds in memory: those at hand, and those that it reads
    /// from the storage meanwhile. Default 512 KiB: two blocks of the longest kind. At
    /// least 2. A chunk of an interrupted download that was not verified since is read
    /// as a whole, once.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::bytes"))]
    pub buffer: usize,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self {
            readahead: 8 << 20,
            buffer: 512 << 10,
        }
    }
}

impl ReaderOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many bytes are fetched before everything else.
    #[must_use]
    pub fn readahead(mut self, bytes: u64) -> Self {
        self.readahead = bytes;
        self
    }

    /// Sets how many bytes the reader holds in memory.
    #[must_use]
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.buffer = bytes;
        self
    }
}

/// Reads a content, also while it is being downloaded.
///
/// It reads like a file: [`AsyncRead`] and [`AsyncSeek`]. All bytes that it gives are
/// verified. It waits for bytes that are not here yet, and has the download fetch them
/// first: those behind its position ([`ReaderOptions::readahead`]), the nearest first.
/// A content can have many readers. They do not keep the download running, and dropping
/// one withdraws what it wanted.
///
/// # First bytes
/// The first byte after a seek is given as soon as its chunk is verified, and nothing is
/// held back to gather more. What the lines of the owners carry already comes before it.
/// The first byte of a download comes after the hashes of all chunks, and they may wait
/// behind what was asked for with them. `cargo bench --bench reading` measures how long
/// that takes.
///
/// A seek past the end is no error; reading there returns no bytes.
/// [`SeekFrom::End`] waits until the length is known. A seek that was started takes
/// effect, also if nobody waits for its end: then the next read waits for it, and fails if
/// it fails. Reading and seeking are cancel safe as far as
/// [`AsyncReadExt`](tokio::io::AsyncReadExt) says.
///
/// # Errors
/// If the download fails, is cancelled, or the peer is shut down, reading fails with an
/// [`io::Error`] around the [`DownloadError`]: see [`io::Error::get_ref`]. Bytes that the
/// reader has in memory are given before. The error comes again with each further read,
/// unless it is one of the storage. A complete content can still be read when it is no
/// longer shared. Bytes that are in no [file that is
/// wanted](crate::DownloadError::NotWanted) are an error, and can be read when they are wanted.
///
/// If the bytes of a complete content cannot be read any more, because the file has
/// changed or is gone or its disk fails, the reader goes on at another place of the
/// content ([`Peer::paths`](crate::Peer::paths)). If there is none, it fails with
/// [`DownloadError::Storage`], and the content is no longer shared: it is among the
/// [lost](crate::Peer::lost).
///
/// ```
/// # use bt_lite::{DownloadKey, MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker};
/// use std::io::SeekFrom;
/// use tokio::io::{AsyncReadExt, AsyncSeekExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let network = MemoryNetwork::new(1);
/// # let tracker = Tracker::builder(network.endpoint("tracker")).bind("memory:tracker").await?;
/// # let owner = Peer::builder(network.endpoint("owner"), MemoryStorage::new())
/// #     .tracker(tracker.local_addr()).listen("memory:owner").start().await?;
/// # owner.share(ShareSource::bytes("film", vec![7; 300_000])).await?;
/// # let peer = Peer::builder(network.endpoint("peer"), MemoryStorage::new())
/// #     .tracker(tracker.local_addr()).start().await?;
/// let download = peer.download(DownloadKey::name("film"));
/// let mut reader = download.reader();
/// reader.seek(SeekFrom::End(-1000)).await?;
/// let mut end = Vec::new();
/// reader.read_to_end(&mut end).await?;
/// assert_eq!(end.len(), 1000);
/// # Ok(())
/// # }
/// ```
pub struct ContentReader {
    seat: ReaderSeat,
    /// Cancelled when the peer is shut down.
    stop: CancellationToken,
    options: ReaderOptions,
    position: u64,
    /// Verified bytes from the position on.
    ready: Bytes,
    /// What comes behind them.
    pending: Option<Pending>,
    /// A seek from the end, which waits for the length.
    from_end: Option<i64>,
    complete: Option<CompleteBytes>,
    pace: Pace,
    /// The chunk for which the download was last told where the reader is.
    told: Option<u64>,
}

/// A part that is being read.
struct Pending {
    from: u64,
    /// 0 if only the length of the content is asked for.
    len: usize,
    fetch: Fetch,
    /// Whether nobody has come there yet.
    is_ahead: bool,
}

enum Fetch {
    Driver(oneshot::Receiver<Answer>),
    Direct(ReusableBoxFuture<'static, Result<PartRead, DownloadError>>),
    Done(Result<Bytes, DownloadError>),
}

impl ContentReader {
    pub(in crate::peer) fn new(
        board: Arc<ReaderBoard>,
        stop: CancellationToken,
        options: ReaderOptions,
    ) -> Self {
        let window = ReadWindow::new(0, options.readahead, None);
        Self {
            seat: ReaderSeat::new(board, window),
            stop,
            options,
            position: 0,
            ready: Bytes::new(),
            pending: None,
            from_end: None,
            complete: None,
            pace: Pace::default(),
            told: None,
        }
    }

    /// The length of the content in bytes, once it is known.
    pub fn length(&self) -> Option<u64> {
        let geometry = self.seat.geometry();
        geometry.map(|geometry| geometry.length())
    }

    /// Waits until the length of the content is known, and returns it in bytes.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn wait_length(&mut self) -> io::Result<u64> {
        std::future::poll_fn(|cx| self.poll_length(cx)).await
    }

    /// Where the next read begins, in bytes from the start of the content. A seek from the
    /// end counts when it has ended.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn poll_length(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        loop {
            if let Some(length) = self.length() {
                return Poll::Ready(Ok(length));
            }
            if self.pending.is_none() {
                let pending = self.begin(self.position, 0)?;
                self.pending = Some(pending);
            }
            // The answer to a part comes no sooner than the length.
            ready!(self.poll_pending(cx)).map_err(io_error)?;
        }
    }

    /// Waits until there is something at hand, or the position is past the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.ready.is_empty() || self.is_at_end() {
                return Poll::Ready(Ok(()));
            }
            let fits = |pending: &Pending| pending.from == self.position && pending.len > 0;
            if !self.pending.as_ref().is_some_and(fits) {
                let pending = self.begin(self.position, self.part_len())?;
                self.pending = Some(pending);
            }
            let is_ahead = self
                .pending
                .as_ref()
                .is_some_and(|pending| pending.is_ahead);
            match ready!(self.poll_pending(cx)) {
                Ok(Some(bytes)) => self.ready = bytes,
                Ok(None) => {}
                // It may be wanted by now.
                Err(DownloadError::NotWanted { .. }) if is_ahead => {}
                Err(error) => return Poll::Ready(Err(io_error(error))),
            }
        }
    }

    fn is_at_end(&self) -> bool {
        self.length().is_some_and(|length| self.position >= length)
    }

    /// How many bytes are read at a time.
    fn part_len(&self) -> usize {
        (self.options.buffer / 2).max(1)
    }

    /// Begins to read a part.
    fn begin(&mut self, from: u64, len: usize) -> io::Result<Pending> {
        if self.stop.is_cancelled() {
            return Err(io_error(DownloadError::ShutDown));
        }
        loop {
            let known = self.complete.clone().map(Way::Direct);
            let fetch = match known.unwrap_or_else(|| self.seat.want(from, len)) {
                Way::Driver(answer) => Fetch::Driver(answer),
                Way::Direct(bytes) => {
                    self.complete = Some(bytes.clone());
                    Fetch::Direct(ReusableBoxFuture::new(bytes.read(from, len)))
                }
                Way::Moved(board) => {
                    self.seat = ReaderSeat::new(board, self.window());
                    continue;
                }
                Way::Ended(error) => return Err(io_error(error)),
            };
            return Ok(Pending {
                from,
                len,
                fetch,
                is_ahead: false,
            });
        }
    }

    fn window(&self) -> ReadWindow {
        ReadWindow::new(self.position, self.options.readahead, self.pace.rate())
    }

    /// Waits for the part that is being read. `None` if it has to be asked for again.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, DownloadError>> {
        let Some(pending) = &mut self.pending else {
            return Poll::Ready(Ok(None));
        };
        let done = match &mut pending.fetch {
            // Without an answer, somebody else answers now.
            Fetch::Driver(answer) => ready!(answer.poll_unpin(cx)).ok(),
            Fetch::Direct(read) => Some(match ready!(read.poll(cx)) {
                Ok(part) => {
                    if let Some(complete) = &mut self.complete {
                        complete.note(&part);
                    }
                    Ok(part.bytes)
                }
                Err(error) => Err(error),
            }),
            Fetch::Done(_) => None,
        };
        let pending = self.pending.take();
        match (done, pending.map(|pending| pending.fetch)) {
            (Some(done), _) | (None, Some(Fetch::Done(done))) => Poll::Ready(done.map(Some)),
            (None, _) => Poll::Ready(Ok(None)),
        }
    }

    /// Begins to read what comes behind the bytes at hand.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        let next = self.position + self.ready.len() as u64;
        let is_inside = self.length().is_some_and(|length| next < length);
        if self.pending.is_some() || !is_inside {
            return;
        }
        // An error is reported by the read that comes to it.
        let Ok(mut pending) = self.begin(next, self.part_len()) else {
            return;
        };
        pending.is_ahead = true;
        let (from, len) = (pending.from, pending.len);
        self.pending = Some(pending);
        // The first poll starts it.
        let done = match self.poll_pending(cx) {
            Poll::Ready(Ok(Some(bytes))) => Ok(bytes),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(None)) | Poll::Pending => return,
        };
        let fetch = Fetch::Done(done);
        self.pending = Some(Pending {
            from,
            len,
            fetch,
            is_ahead: true,
        });
    }

    /// Ends a seek from the end. One that fails changes nothing.
    fn poll_seek(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(offset) = self.from_end {
            let length = ready!(self.poll_length(cx));
            self.from_end = None;
            let position = length?.checked_add_signed(offset);
            self.go_to(position.ok_or_else(outside)?);
        }
        Poll::Ready(Ok(()))
    }

    /// Goes to another position. Bytes at hand stay, if they are there.
    fn go_to(&mut self, position: u64) {
        let skip = position.checked_sub(self.position);
        match skip.filter(|skip| *skip <= self.ready.len() as u64) {
            Some(skip) => self.ready.advance(skip as usize),
            None => {
                self.ready = Bytes::new();
                self.pending = None;
                self.pace.rest();
            }
        }
        self.position = position;
        self.tell();
    }

    /// Tells the download where the reader is, if that is news to it.
    fn tell(&mut self) {
        if self.complete.is_some() {
            return;
        }
        let geometry = self.seat.geometry();
        let chunk = geometry.map(|geometry| self.position / geometry.chunk_len());
        if chunk.is_none() || chunk != self.told {
            self.told = chunk;
            self.seat.moved(self.window());
        }
    }
}

impl AsyncRead for ContentReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_seek(cx))?;
        this.pace.asks();
        ready!(this.poll_fill(cx))?;
        let len = this.ready.len().min(buf.remaining());
        buf.put_slice(&this.ready.split_to(len));
        this.position += len as u64;
        this.pace.took(len);
        this.tell();
        this.read_ahead(cx);
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for ContentReader {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let this = &mut *self;
        match (to, this.from_end) {
            (SeekFrom::Start(position), _) => {
                this.from_end = None;
                this.go_to(position);
            }
            (SeekFrom::Current(offset), None) => {
                let position = this.position.checked_add_signed(offset);
                this.go_to(position.ok_or_else(outside)?);
            }
            // It starts where the seek that has not ended leads.
            (SeekFrom::Current(offset), Some(from_end)) => {
                let offset = from_end.checked_add(offset).ok_or_else(outside)?;
                this.from_end = Some(offset);
            }
            (SeekFrom::End(offset), _) => this.from_end = Some(offset),
        }
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let this = &mut *self;
        ready!(this.poll_seek(cx))?;
        Poll::Ready(Ok(this.position))
    }
}

impl fmt::Debug for ContentReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentReader")
            .field("position", &self.position)
            .field("length", &self.length())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

fn outside() -> io::Error {
    let what = "a seek to before the start, or beyond what a number can say";
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// The download's error, as readers see it.
fn io_error(error: DownloadError) -> io::Error {
    let kind = match &error {
        DownloadError::Cancelled | DownloadError::ShutDown => io::ErrorKind::ConnectionAborted,
        DownloadError::NotFound { .. } | DownloadError::NoOwners { .. } => io::ErrorKind::NotFound,
        DownloadError::GaveUp { .. } => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// After so much time, what was measured before counts half.
const MEMORY: Duration = Duration::from_secs(4);

/// A reader that spends less time than this on what it was given takes whatever comes.
const NO_TIME: Duration = Duration::from_millis(20);

/// How fast a reader takes bytes while there are some: the time in which it waits for
/// them does not count.
#[derive(Debug, Default)]
struct Pace {
    bytes: f64,
    time: Duration,
    /// When it was last given bytes, if it has not asked for more since.
    given: Option<Instant>,
}

impl Pace {
    /// It asks for bytes.
    fn asks(&mut self) {
        if let Some(given) = self.given.take() {
            self.time += given.elapsed();
        }
    }

    /// It was given bytes.
    fn took(&mut self, bytes: usize) {
        self.given = Some(Instant::now());
        self.bytes += bytes as f64;
        if self.time > MEMORY {
            self.time /= 2;
            self.bytes /= 2.0;
        }
    }

    /// It goes elsewhere, and the pause does not count.
    fn rest(&mut self) {
        self.given = None;
    }

    /// Bytes per second, unless it takes whatever comes.
    fn rate(&self) -> Option<f64> {
        let seconds = self.time.as_secs_f64();
        (self.time >= NO_TIME).then(|| self.bytes / seconds)
    }
}
