//! What the driver starts, and hears the end of.

use std::sync::Arc;

use bytes::Bytes;

use super::super::INLINE_HASH_LEN;
use super::super::handshake::{HandshakeError, dial};
use super::super::share::{HashError, manifest_of, off_thread};
use super::super::shared::Shared;
use super::{Done, Driver, NewLink, Opened, now};
use crate::content::{Bitfield, ChunkIndex, ContentName, Manifest};
use crate::error::DownloadError;
use crate::protocol::Addr;
use crate::storage::{Blob, Partial, StorageError, Stored};
use crate::tracker::TrackerError;

impl Driver {
    pub(super) fn dial(&mut self, addr: Addr) {
        let shared = Arc::clone(&self.shared);
        let id = self.content.id;
        self.job(async move {
            let link = async {
                let place = shared.admission.dial().ok_or(HandshakeError::Full)?;
                let (connection, info) = dial(&shared, &addr, id).await?;
                Ok(Box::new(NewLink {
                    connection,
                    info,
                    place,
                }))
            };
            let link = link.await;
            Done::Dialled { addr, link }
        });
    }

    pub(super) fn find_owners(&mut self) {
        let shared = Arc::clone(&self.shared);
        let id = self.content.id;
        self.job(async move {
            let wanted = shared.config.owners_wanted;
            let owners = match shared.trackers.need(id.into(), wanted).await {
                Ok(found) => found.owners,
                Err(error) => {
                    if error != TrackerError::NoTracker {
                        tracing::warn!(content = %id, %error, "finding owners failed");
                    }
                    Vec::new()
                }
            };
            let owners = owners.into_iter().map(|owner| (owner.addr, owner.complete));
            Done::Found(owners.collect())
        });
    }

    pub(super) fn open(&mut self, manifest: Arc<Manifest>) {
        // Only the manifest proves the length; a tracker merely repeats it.
        self.content.length = manifest.geometry().length();
        let content = self.content.clone();
        self.status.send_modify(|status| status.found(content));
        self.show_progress();
        let shared = Arc::clone(&self.shared);
        let (id, name) = (self.content.id, self.content.name.clone());
        let instead = self.name_is_optional.then(|| ContentName::from(id));
        self.job(async move {
            let mut opened = open_target(&shared, name, &manifest).await;
            if let (Err(StorageError::Exists { .. }), Some(name)) = (&opened, instead) {
                opened = open_target(&shared, name, &manifest).await;
            }
            Done::Opened(opened)
        });
    }

    pub(super) fn opened(&mut self, name: ContentName, opened: Opened) {
        if self.content.name != name {
            self.content.name = name;
            let content = self.content.clone();
            self.status.send_modify(|status| status.found(content));
        }
        let Partial {
            blob,
            present,
            verified,
            untouched,
        } = match opened {
            Opened::Partial(partial) => partial,
            Opened::Whole(blob) => {
                self.published = true;
                let chunks = self.swarm.manifest().map(|m| m.geometry().chunks());
                let all = Bitfield::all(chunks.unwrap_or_default());
                Partial {
                    blob,
                    present: all.clone(),
                    verified: all,
                    untouched: true,
                }
            }
        };
        self.blob = Some(blob);
        self.swarm.opened(now(), &present, &verified);
        let mut unchecked = present;
        for chunk in verified.iter() {
            unchecked.remove(chunk);
        }
        if !unchecked.is_empty() {
            self.unchecked = Some(unchecked);
            if untouched {
                self.swarm.left_untouched(now());
            }
        }
        self.show_progress();
    }

    pub(super) fn storage_failed(&mut self, chunk: Option<ChunkIndex>, source: StorageError) {
        let id = self.content.id;
        self.failed = Some(match source {
            StorageError::Exists { name, path } => DownloadError::TargetExists { name, id, path },
            source => DownloadError::Storage { id, chunk, source },
        });
    }

    pub(super) fn verify(&mut self, chunk: ChunkIndex, pieces: Vec<Bytes>) {
        let Some(manifest) = self.swarm.manifest().cloned() else {
            return;
        };
        let len = pieces.iter().map(Bytes::len).sum::<usize>();
        let verify = move || manifest.verify(chunk, pieces.iter().map(|piece| &piece[..]));
        if len <= INLINE_HASH_LEN {
            self.swarm.chunk_verified(now(), chunk, verify());
        } else {
            self.job(async move {
                let good = off_thread(verify).await;
                Done::Verified { chunk, good }
            });
        }
    }

    /// Publishes the content, and keeps in mind that it is here.
    pub(super) fn finish(&mut self) {
        let Some(manifest) = self.swarm.manifest().cloned() else {
            return;
        };
        let (shared, content) = (Arc::clone(&self.shared), self.content.clone());
        let listed_as = self.listed_as.clone();
        let published = self.published;
        self.on_blob(move |blob| async move {
            let result = match published {
                // It was found, and is not durable for that.
                true => blob.sync().await,
                false => blob.finish().await,
            };
            let stored = Stored::new(content.name, (*manifest).clone(), blob);
            let stored = stored.listed_as(listed_as);
            if result.is_ok()
                && let Err(error) = shared.remember(&stored).await
            {
                tracing::warn!(content = %content.id, %error, "not shared after a restart");
            }
            Done::Finished(result)
        });
    }

    pub(super) fn on_blob<F: Future<Output = Done> + Send + 'static>(
        &mut self,
        work: impl FnOnce(Arc<dyn Blob>) -> F,
    ) {
        if let Some(blob) = &self.blob {
            let work = work(Arc::clone(blob));
            self.job(work);
        }
    }

    pub(super) fn job(&mut self, job: impl Future<Output = Done> + Send + 'static) {
        self.jobs.push(Box::pin(job));
    }

    pub(super) fn bytes_of(&self, chunks: &Bitfield) -> u64 {
        let manifest = self.swarm.manifest();
        manifest.map_or(0, |manifest| manifest.geometry().bytes_of(chunks))
    }

    /// So many bytes of the content are durable. No event says so.
    pub(super) fn are_durable(&self, bytes: u64) {
        self.status.send_if_modified(|status| {
            status.are_durable(bytes);
            false
        });
    }

    pub(super) fn offset_of(&self, chunk: ChunkIndex) -> u64 {
        let manifest = self.swarm.manifest();
        manifest.map_or(0, |manifest| manifest.geometry().offset_of(chunk))
    }
}

/// Opens a content for writing under a name, or takes what is there.
async fn open_target(
    shared: &Shared,
    name: ContentName,
    manifest: &Manifest,
) -> Result<(ContentName, Opened), StorageError> {
    let opened = match shared.storage.create(&name, manifest).await {
        Ok(partial) => Opened::Partial(partial),
        Err(taken @ StorageError::Exists { .. }) => {
            existing(shared, &name, manifest, taken).await?
        }
        Err(error) => return Err(error),
    };
    Ok((name, opened))
}

/// What stands under the name already: the content itself, or something else,
/// of which the storage has said that it is `taken`.
async fn existing(
    shared: &Shared,
    name: &ContentName,
    manifest: &Manifest,
    taken: StorageError,
) -> Result<Opened, StorageError> {
    let blob = match shared.storage.open(name).await {
        Ok(blob) => blob,
        Err(error @ (StorageError::Io { .. } | StorageError::NotFound { .. })) => {
            return Err(error);
        }
        Err(_) => return Err(taken),
    };
    if blob.length() != manifest.geometry().length() {
        return Err(taken);
    }
    match manifest_of(&*blob).await {
        Ok(found) if found.id() == manifest.id() => Ok(Opened::Whole(blob)),
        Err(HashError::Storage(error)) => Err(error),
        Ok(_) | Err(HashError::Manifest(_)) => Err(taken),
    }
}
