//! Watching a peer and its downloads: events, figures, and the map of pieces.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::{mpsc, oneshot};

use crate::content::{ContentId, ContentName};
use crate::peer::contents::inbox::DriverInput;
use crate::peer::contents::status::ContentStatus;
use crate::peer::events::event::PeerEvent;
use crate::peer::events::hub::Subscription;
use crate::peer::handles::download::{Download, DownloadEvents};
use crate::peer::handles::key::DownloadKey;
use crate::peer::handles::peer::Peer;
use crate::peer::swarm::{DownloadStats, PieceMap};

impl Peer {
    /// What happens at this peer from now on, in order. There may be many streams, each
    /// read at its own pace; nothing waits for one that is not read.
    ///
    /// Up to 1,024 events wait to be read, all of them in order. When more would wait, the
    /// oldest [`ChunkVerified`](PeerEvent::ChunkVerified) is dropped; if none of them waits,
    /// the oldest event that ends nothing; and if only events wait that end something, an
    /// earlier one that says of the same content that it has ended in the same way
    /// (complete, failed, cancelled, no longer shared, evicted, withdrawn). The stream tells
    /// how many are missing where they were ([`PeerEvent::Missed`]), so what it gives and
    /// what it misses are all events.
    ///
    /// So a stream that is not read has at most 1,024 events and six for each content that
    /// ended something meanwhile, and never more than 1,048,576, each of some hundred
    /// bytes; drop it when it is not needed. As long as there is no stream, events cost
    /// nothing.
    ///
    /// It ends after the events of the [shutdown](Self::shutdown), or when the last handle
    /// was dropped and the tasks of the peer have ended. The stream does not keep the peer
    /// running.
    ///
    /// ```
    /// use bt_lite::peer::PeerEvent;
    /// use bt_lite::{MemoryNetwork, MemoryStorage, Peer, ShareSource};
    /// use futures::StreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let network = MemoryNetwork::new(1);
    /// let peer = Peer::builder(network.endpoint("peer"), MemoryStorage::new())
    ///     .start()
    ///     .await?;
    /// let mut events = peer.events();
    /// let content = peer.share(ShareSource::bytes("greeting", "hello")).await?;
    /// assert_eq!(events.next().await, Some(PeerEvent::ShareStarted { content }));
    /// peer.shutdown().await;
    /// assert_eq!(events.next().await, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self) -> PeerEvents {
        PeerEvents(self.shared().events.subscribe())
    }

    /// What is done for a content that is here or is being downloaded, with its links;
    /// nothing if it is neither. A content that nobody is linked about has no links, and
    /// its rates are zero. A name stands for the only content here that has it.
    ///
    /// Cancel safe.
    pub async fn share_stats(&self, key: impl Into<DownloadKey>) -> Option<DownloadStats> {
        let contents = &self.shared().contents;
        let id = self.id_of(key.into())?;
        let (inbox, status) = contents.watched(&id)?;
        let asked = match inbox {
            Some(inbox) => ask(&inbox, |reply| DriverInput::Stats { reply }).await,
            None => None,
        };
        Some(asked.unwrap_or_else(|| at_rest(&status)))
    }
}

impl Download {
    /// The content; `None` as long as a download by name has not found it.
    pub fn id(&self) -> Option<ContentId> {
        self.topic.id()
    }

    /// The name that the content has or gets here. As long as the manifest is not known,
    /// the one that it is to be stored under, or was asked for by; `None` if there is none.
    /// [`Peer::paths`] says where it lies when it is complete.
    pub fn name(&self) -> Option<ContentName> {
        let found = self.content().map(|content| content.name);
        found.or_else(|| self.topic.name().cloned())
    }

    /// The same as [`events`](Self::events), and what happens around the content: owners
    /// that join and leave, peers that are banned, and each chunk that is verified. These
    /// come from now on, in one order with the others and within the same bound. Of a
    /// download that joined another one, they are those of that one.
    pub fn detailed_events(&self) -> DownloadEvents {
        self.events().with_details(&self.topic)
    }

    /// What the download does at this moment: its rates, and its links. Without links as
    /// long as the content was not found, and when the download has ended and nobody is
    /// linked any more; [`Peer::share_stats`] tells of what is shared then.
    ///
    /// Cancel safe.
    pub async fn stats(&self) -> DownloadStats {
        let asked = match self.topic.is_found() {
            true => ask(&self.inbox, |reply| DriverInput::Stats { reply }).await,
            false => None,
        };
        asked.unwrap_or_else(|| at_rest(&self.status.borrow()))
    }

    /// How far each chunk is, and how many of the linked peers have it; `None` if the
    /// manifest is not known yet, the storage has not opened the content, or the download
    /// has ended and nobody is linked any more. O(chunks), and after the end
    /// O(links * chunks).
    ///
    /// Cancel safe.
    pub async fn piece_map(&self) -> Option<PieceMap> {
        match self.topic.is_found() {
            true => ask(&self.inbox, |reply| DriverInput::PieceMap { reply }).await?,
            false => None,
        }
    }
}

/// Asks a driver. Nothing if it has ended.
async fn ask<T>(
    inbox: &mpsc::Sender<DriverInput>,
    question: impl FnOnce(oneshot::Sender<T>) -> DriverInput,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    inbox.send(question(reply)).await.ok()?;
    answer.await.ok()
}

/// The figures of a content without a driver.
fn at_rest(status: &ContentStatus) -> DownloadStats {
    let mut progress = status.progress().clone();
    progress.uploaded = status.uploads().bytes();
    progress.rate = 0.0;
    (progress.owners, progress.links) = (0, 0);
    DownloadStats {
        progress,
        ..DownloadStats::default()
    }
}

/// The stream of [`Peer::events`].
pub struct PeerEvents(Subscription);

impl Stream for PeerEvents {
    type Item = PeerEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PeerEvent>> {
        self.0.poll_next(cx)
    }
}

impl fmt::Debug for PeerEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerEvents").finish_non_exhaustive()
    }
}
