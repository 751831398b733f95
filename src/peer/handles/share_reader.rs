//! Shares what comes out of a reader.

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::content::{Content, ContentName, Manifest, ManifestError, NameError, StreamedManifest};
use crate::error::ShareError;
use crate::peer::contents::hashing::hash;
use crate::peer::contents::kept_draft::KeptDraft;
use crate::peer::contents::place::Place;
use crate::peer::contents::serve::{Telling, share_place};
use crate::peer::handles::peer::Peer;
use crate::peer::shared::PeerShared;
use crate::peer::tasks::Decision;

/// How many bytes are read at a time, and then hashed and written.
const READ_LEN: usize = 256 << 10;

impl Peer {
    /// Stores everything that comes out of a reader in the peer's storage under a name,
    /// and shares it as [`share`](Self::share) does. Its length need not be known. It is
    /// hashed on the way, and takes less than a megabyte of memory however long it is
    /// (and 32 bytes for each of its chunks).
    ///
    /// It appears under its name when it is whole and durable. If the reader fails, or the
    /// storage, nothing stays of it. If sharing fails after that, it stays in the storage
    /// under its name, and [`ShareSource::stored`](crate::ShareSource::stored) shares it.
    ///
    /// Cancel safe as far as the storage goes: if the future is dropped, all of it is
    /// stored or nothing. What was read is lost with the reader. When
    /// [`shutdown`](Self::shutdown) has returned, nothing unfinished is left.
    ///
    /// # Errors
    /// [`ShareError::Reader`] when the reader fails; [`ShareError::Content`] as soon as it
    /// has given more than [`MAX_CONTENT_LEN`](crate::content::MAX_CONTENT_LEN) bytes;
    /// [`ShareError::Storage`], with [`StorageError::Exists`](crate::StorageError::Exists) before anything is read if
    /// something has the name; and the others of [`share`](Self::share).
    pub async fn share_reader<N>(
        &self,
        name: N,
        reader: impl AsyncRead + Send,
    ) -> Result<Content, ShareError>
    where
        N: TryInto<ContentName> + fmt::Display,
        N::Error: Into<NameError>,
    {
        let text = name.to_string();
        let name = name.try_into().map_err(|source| ShareError::Name {
            name: text,
            source: source.into(),
        })?;
        let shared = self.shared();
        let decided = Decision::default();
        let share = share_reader(shared, name, reader, &decided);
        let shut_down = ShareError::ShutDown;
        shared.tasks.until_decided(&decided, share, shut_down).await
    }
}

async fn share_reader(
    shared: &Arc<PeerShared>,
    name: ContentName,
    reader: impl AsyncRead + Send,
    decided: &Decision,
) -> Result<Content, ShareError> {
    let draft = KeptDraft::begin(shared, name.clone()).await?;
    let manifest = match fill(&draft, &name, reader).await {
        Ok(manifest) => manifest,
        Err(error) => {
            draft.discard().await;
            return Err(error);
        }
    };
    let blob = draft.publish(manifest.id()).await?;
    let place = Place {
        listed_as: name.clone(),
        name,
        blob,
        written_here: true,
    };
    let telling = Telling::Awaited;
    share_place(shared, place, manifest, (telling, decided)).await
}

/// Writes everything that a reader gives. A piece is hashed while it is written.
async fn fill(
    draft: &KeptDraft,
    name: &ContentName,
    reader: impl AsyncRead + Send,
) -> Result<Manifest, ShareError> {
    let mut reader = std::pin::pin!(reader);
    let wrong = |source| ShareError::Content {
        name: name.clone(),
        source,
    };
    let mut builder = StreamedManifest::new();
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_LEN);
        let mut piece = (&mut reader).take(READ_LEN as u64);
        while buffer.len() < READ_LEN {
            let read = piece.read_buf(&mut buffer).await;
            let read = read.map_err(|source| ShareError::Reader {
                name: name.clone(),
                source: source.into(),
            })?;
            if read == 0 {
                break;
            }
        }
        let bytes = buffer.split().freeze();
        if bytes.is_empty() {
            return builder.finish().map_err(wrong);
        }
        let (hashed, written) = futures::join!(add(builder, bytes.clone()), draft.append(bytes));
        builder = hashed.map_err(wrong)?;
        written?;
    }
}

async fn add(
    mut builder: StreamedManifest,
    bytes: bytes::Bytes,
) -> Result<StreamedManifest, ManifestError> {
    let len = bytes.len();
    hash(len, move || builder.update(&bytes).map(|()| builder)).await
}
