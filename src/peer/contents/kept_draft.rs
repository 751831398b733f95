//! A draft of the storage, kept by a task of the peer. However the one who writes it ends,
//! it is published or nothing of it is left when the peer has been shut down.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::content::{ContentId, ContentName};
use crate::error::ShareError;
use crate::peer::shared::PeerShared;
use crate::storage::{Blob, Draft, StorageError};

/// A draft. Dropping it has it discarded.
pub(in crate::peer) struct KeptDraft {
    commands: mpsc::Sender<Command>,
    /// Its sender is dropped when the task has ended.
    ended: oneshot::Receiver<()>,
}

enum Command {
    Append(Bytes, Reply<()>),
    Publish(ContentId, Reply<Arc<dyn Blob>>),
}

type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

impl KeptDraft {
    /// Begins a draft.
    ///
    /// # Errors
    /// [`ShareError::Storage`], and [`ShareError::ShutDown`] as all others here.
    pub(in crate::peer) async fn begin(
        shared: &Arc<PeerShared>,
        name: ContentName,
    ) -> Result<Self, ShareError> {
        // One command waits for the other.
        let (commands, waiting) = mpsc::channel(1);
        let (end, ended) = oneshot::channel();
        let (begun, heard) = oneshot::channel();
        let of = Arc::clone(shared);
        shared.tasks.spawn(shared.tasks.span.clone(), async move {
            let _end: oneshot::Sender<()> = end;
            // To give it up while it begins would leave it behind for a moment.
            match of.storage.draft(&name).await {
                Ok(draft) => {
                    // The caller may have gone.
                    let _ = begun.send(Ok(()));
                    keep(&of, draft, waiting).await;
                }
                Err(error) => _ = begun.send(Err(error)),
            }
        });
        answer(heard).await?;
        Ok(Self { commands, ended })
    }

    /// Adds the next bytes.
    pub(in crate::peer) async fn append(&self, bytes: Bytes) -> Result<(), ShareError> {
        self.ask(|reply| Command::Append(bytes, reply)).await
    }

    /// Makes the content visible and durable.
    pub(in crate::peer) async fn publish(self, id: ContentId) -> Result<Arc<dyn Blob>, ShareError> {
        self.ask(|reply| Command::Publish(id, reply)).await
    }

    /// Returns when nothing is left of it.
    pub(in crate::peer) async fn discard(self) {
        let Self { commands, ended } = self;
        drop(commands);
        // It ends with an error when the task does.
        let _ = ended.await;
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ShareError> {
        let (reply, heard) = oneshot::channel();
        let sent = self.commands.send(command(reply)).await;
        sent.map_err(|_| ShareError::ShutDown)?;
        answer(heard).await
    }
}

async fn answer<T>(heard: oneshot::Receiver<Result<T, StorageError>>) -> Result<T, ShareError> {
    match heard.await {
        Ok(answer) => answer.map_err(ShareError::Storage),
        Err(_) => Err(ShareError::ShutDown),
    }
}

/// Carries out what is asked for, until the draft is published, the peer is shut down, or
/// nobody can ask any more. Whoever asked may have gone by then. No command is given up:
/// a write that goes on would bring back what was discarded.
async fn keep(
    shared: &PeerShared,
    mut draft: Box<dyn Draft>,
    mut waiting: mpsc::Receiver<Command>,
) {
    while let Some(Some(command)) = shared.tasks.stop.run_until_cancelled(waiting.recv()).await {
        match command {
            Command::Append(bytes, reply) => _ = reply.send(draft.append(bytes).await),
            Command::Publish(id, reply) => {
                let _ = reply.send(draft.publish(&id).await);
                return;
            }
        }
    }
    if let Err(error) = draft.discard().await {
        tracing::warn!(%error, "failed to remove what was read");
    }
}
