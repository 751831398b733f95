//! Those who read a content here: where they are, what they wait for, and who answers.
//!
//! ```text
//!           the content is complete        (the blob is read directly)
//!  Driven ───────────────────────────▶ Complete
//!     ├──────────────────────────────▶ Moved     (it is here already)
//!     │ the download has ended otherwise
//!     └──────────────────────────────▶ Ended
//! ```
//! While a content is downloaded, its driver reads for them: it knows what is verified,
//! and nobody else may keep the blob, as that would lock the next download out.
//! Invariant: whoever waits for an answer is answered, or its channel is dropped when
//! the phase changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::content::Geometry;
use crate::error::DownloadError;
use crate::peer::contents::complete_bytes::CompleteBytes;
use crate::peer::swarm::ReadWindow;

/// What a driver answers: bytes from the position on that was asked for. None at the end
/// of the content, and to the question for its length.
pub(in crate::peer) type Answer = Result<Bytes, DownloadError>;

/// All readers of one content.
pub(in crate::peer) struct ReaderBoard {
    board: Mutex<Board>,
    /// Wakes the driver.
    changed: Notify,
}

struct Board {
    phase: ReadPhase,
    /// How the content is cut, once that is known.
    geometry: Option<Geometry>,
    /// By their numbers.
    readers: BTreeMap<u64, Reader>,
    next: u64,
    /// Whether the driver has not seen the present windows.
    moved: bool,
    /// When a reader last left.
    left: Option<Instant>,
    /// The boards whose readers are to move here.
    from: Vec<Weak<ReaderBoard>>,
}

/// Who reads the bytes.
#[derive(Clone)]
enum ReadPhase {
    Driven,
    Complete(CompleteBytes),
    /// The content turned out to be one that is here already.
    Moved(Arc<ReaderBoard>),
    Ended(DownloadError),
}

struct Reader {
    window: ReadWindow,
    wanted: Option<Wanted>,
}

/// A part that a reader waits for: at most `len` bytes.
struct Wanted {
    from: u64,
    len: usize,
    reply: oneshot::Sender<Answer>,
}

/// How a reader gets what it wants.
pub(in crate::peer) enum Way {
    /// The driver answers. If it drops the channel, ask again.
    Driver(oneshot::Receiver<Answer>),
    Direct(CompleteBytes),
    /// Ask there.
    Moved(Arc<ReaderBoard>),
    /// There is nothing more to be had.
    Ended(DownloadError),
}

impl Default for ReaderBoard {
    fn default() -> Self {
        Self {
            board: Mutex::new(Board {
                phase: ReadPhase::Driven,
                geometry: None,
                readers: BTreeMap::new(),
                next: 0,
                moved: false,
                left: None,
                from: Vec::new(),
            }),
            changed: Notify::new(),
        }
    }
}

impl ReaderBoard {
    /// The board of a content that is complete.
    pub(in crate::peer) fn complete(bytes: CompleteBytes) -> Self {
        let board = Self::default();
        board.settle(ReadPhase::Complete(bytes));
        board
    }

    /// Whether somebody reads here, or is to move here.
    pub(in crate::peer) fn is_read(&self) -> bool {
        let board = self.board();
        let mut from = board.from.iter().filter_map(Weak::upgrade);
        !board.readers.is_empty() || from.any(|other| !other.board().readers.is_empty())
    }

    /// When a reader last left.
    pub(in crate::peer) fn last_left(&self) -> Option<Instant> {
        self.board().left
    }

    /// Leaves the phase in which the driver reads; later calls change nothing.
    fn settle(&self, phase: ReadPhase) {
        let mut board = self.board();
        if !matches!(board.phase, ReadPhase::Driven) {
            return;
        }
        if let ReadPhase::Complete(bytes) = &phase {
            // That of a torrent does not follow from the length.
            let known = board.geometry;
            board.geometry = known.or_else(|| Geometry::of(bytes.length()).ok());
        }
        board.phase = phase;
        // Whoever waits asks again.
        for reader in board.readers.values_mut() {
            reader.wanted = None;
        }
    }

    /// Ignores poison: no change under this lock is left half done.
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a reader at the board. Dropping it withdraws all that it wants.
pub(in crate::peer) struct ReaderSeat {
    board: Arc<ReaderBoard>,
    number: u64,
}

impl ReaderSeat {
    /// A place for a reader with this window.
    pub(in crate::peer) fn new(board: Arc<ReaderBoard>, window: ReadWindow) -> Self {
        let number = {
            let mut board = board.board();
            let number = board.next;
            board.next += 1;
            let wanted = None;
            board.readers.insert(number, Reader { window, wanted });
            board.moved = true;
            number
        };
        board.changed.notify_one();
        Self { board, number }
    }

    /// How the content is cut, once that is known.
    pub(in crate::peer) fn geometry(&self) -> Option<Geometry> {
        self.board.board().geometry
    }

    /// The reader has moved.
    pub(in crate::peer) fn moved(&self, window: ReadWindow) {
        {
            let mut board = self.board.board();
            board.moved = true;
            if let Some(reader) = board.readers.get_mut(&self.number) {
                reader.window = window;
            }
        }
        self.board.changed.notify_one();
    }

    /// Asks for at most `len` bytes, instead of what was asked for before. With a
    /// length of 0, the answer comes as soon as the length of the content is known.
    pub(in crate::peer) fn want(&self, from: u64, len: usize) -> Way {
        let answer = {
            let mut board = self.board.board();
            match &board.phase {
                ReadPhase::Complete(bytes) => return Way::Direct(bytes.clone()),
                ReadPhase::Moved(board) => return Way::Moved(Arc::clone(board)),
                ReadPhase::Ended(error) => return Way::Ended(error.clone()),
                ReadPhase::Driven => {}
            }
            let (reply, answer) = oneshot::channel();
            if let Some(reader) = board.readers.get_mut(&self.number) {
                reader.wanted = Some(Wanted { from, len, reply });
            }
            answer
        };
        self.board.changed.notify_one();
        Way::Driver(answer)
    }
}

impl Drop for ReaderSeat {
    fn drop(&mut self) {
        {
            let mut board = self.board.board();
            board.readers.remove(&self.number);
            board.left = Some(Instant::now());
            board.moved = true;
        }
        self.board.changed.notify_one();
    }
}

/// The driver's side of a board. When it is dropped, and the content is not complete,
/// the readers hear that the peer was shut down.
#[derive(Default)]
pub(in crate::peer) struct ReaderDesk(Arc<ReaderBoard>);

impl ReaderDesk {
    pub(in crate::peer) fn new(board: Arc<ReaderBoard>) -> Self {
        Self(board)
    }

    /// Waits until a reader has moved, or wants something.
    ///
    /// Cancel safe.
    pub(in crate::peer) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// The length of the content is known.
    pub(in crate::peer) fn found(&self, geometry: Geometry) {
        self.0.board().geometry = Some(geometry);
    }

    /// The content is complete: it is read without the driver from now on.
    pub(in crate::peer) fn complete(&self, bytes: CompleteBytes) {
        self.0.settle(ReadPhase::Complete(bytes));
    }

    /// The content is here already: its readers have their places there.
    pub(in crate::peer) fn moved(&self, board: Arc<ReaderBoard>) {
        {
            let mut target = board.board();
            target.from.retain(|other| other.strong_count() > 0);
            target.from.push(Arc::downgrade(&self.0));
        }
        self.0.settle(ReadPhase::Moved(board));
    }

    /// The download has ended without the content.
    pub(in crate::peer) fn end(&self, error: DownloadError) {
        self.0.settle(ReadPhase::Ended(error));
    }

    /// The windows of all readers, if some have changed since the last call.
    pub(in crate::peer) fn take_windows(&self) -> Option<Vec<ReadWindow>> {
        let mut board = self.0.board();
        let moved = std::mem::take(&mut board.moved);
        moved.then(|| board.readers.values().map(|r| r.window).collect())
    }

    /// Takes the wishes that can be granted: `look` says how, given the position and the
    /// length, which do not reach beyond the content. Wishes for nothing but the length
    /// are answered here.
    pub(in crate::peer) fn take_wishes<T>(
        &self,
        mut look: impl FnMut(u64, usize) -> Option<T>,
    ) -> Vec<(T, oneshot::Sender<Answer>)> {
        let mut board = self.0.board();
        let Some(length) = board.geometry.map(|geometry| geometry.length()) else {
            return Vec::new();
        };
        let mut granted = Vec::new();
        for reader in board.readers.values_mut() {
            let Some(wanted) = &reader.wanted else {
                continue;
            };
            let len = length.saturating_sub(wanted.from).min(wanted.len as u64);
            let way = match len {
                0 => None,
                len => match look(wanted.from, len as usize) {
                    Some(way) => Some(way),
                    None => continue,
                },
            };
            let Some(Wanted { reply, .. }) = reader.wanted.take() else {
                continue;
            };
            match way {
                Some(way) => granted.push((way, reply)),
                // The reader may have gone.
                None => _ = reply.send(Ok(Bytes::new())),
            }
        }
        granted
    }
}

impl Drop for ReaderDesk {
    fn drop(&mut self) {
        self.end(DownloadError::ShutDown);
    }
}
