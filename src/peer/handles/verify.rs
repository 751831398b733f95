//! Takes over data that is here already, without other peers.

use std::sync::Arc;

use crate::content::{Content, ContentId};
use crate::error::ShareError;
use crate::peer::contents::hashing::manifest_of;
use crate::peer::contents::place::Place;
use crate::peer::contents::serve::{Telling, not_hashed, share_place};
use crate::peer::handles::peer::Peer;
use crate::peer::handles::share::ShareSource;
use crate::peer::shared::PeerShared;
use crate::peer::tasks::Decision;

/// What a file is expected to be: made from a [`ContentId`] or from a [`Content`], whose
/// length is then compared before anything is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedContent {
    id: ContentId,
    length: Option<u64>,
}

impl From<ContentId> for ExpectedContent {
    fn from(id: ContentId) -> Self {
        let length = None;
        Self { id, length }
    }
}

impl From<&ContentId> for ExpectedContent {
    fn from(id: &ContentId) -> Self {
        Self::from(*id)
    }
}

impl From<&Content> for ExpectedContent {
    fn from(content: &Content) -> Self {
        let (id, length) = (content.id, Some(content.length));
        Self { id, length }
    }
}

impl From<Content> for ExpectedContent {
    fn from(content: Content) -> Self {
        Self::from(&content)
    }
}

impl Peer {
    /// Takes over data that is here already: hashes a file and, if it is this content,
    /// shares it from where it lies, as [`share`](Self::share) does. Nothing is
    /// downloaded, and no other peer and no tracker is waited for: trackers are told in the
    /// background. With [`PeerBuilder::share_stored`](crate::PeerBuilder::share_stored) it
    /// is shared again after a restart.
    ///
    /// The file may lie in the directory of the storage or anywhere else. If the content is
    /// here already, it has this place as well from then on.
    ///
    /// For a file that has only a part of the content, or may be damaged, start a download
    /// with [`DownloadOptions::existing`](crate::DownloadOptions::existing): it copies what
    /// is right and fetches the rest.
    ///
    /// Cancel safe: if the future is dropped, the content is shared or it is not.
    ///
    /// # Errors
    /// [`ShareError::HashDiffers`] if it is another content, or
    /// [`ShareError::LengthDiffers`] if that is seen by its length, which takes that a
    /// [`Content`] is given or that the content is here; [`ShareError::Downloading`] while
    /// this peer downloads it; and the others of [`share`](Self::share) but those of
    /// trackers. Nothing has changed then.
    ///
    /// ```
    /// # use bt_lite::{ContentId, MemoryNetwork, MemoryStorage, Peer, ShareError, ShareSource};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let network = MemoryNetwork::new(1);
    /// # let peer = Peer::builder(network.endpoint("peer"), MemoryStorage::new());
    /// # let peer = peer.start().await?;
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("film.mkv");
    /// # std::fs::write(&path, "the film")?;
    /// let id = ContentId::of(b"the film");
    /// let content = peer.verify(&path, id).await?;
    /// assert_eq!(peer.contents(), [content]);
    ///
    /// let other = peer.verify(&path, ContentId::of(b"another film")).await;
    /// assert!(matches!(other, Err(ShareError::HashDiffers { found, .. }) if found == id));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn verify(
        &self,
        source: impl Into<ShareSource>,
        expected: impl Into<ExpectedContent>,
    ) -> Result<Content, ShareError> {
        let shared = self.shared();
        let decided = Decision::default();
        let verify = verify(shared, source.into(), expected.into(), &decided);
        let shut_down = ShareError::ShutDown;
        shared
            .tasks
            .until_decided(&decided, verify, shut_down)
            .await
    }
}

async fn verify(
    shared: &Arc<PeerShared>,
    source: ShareSource,
    expected: ExpectedContent,
    decided: &Decision,
) -> Result<Content, ShareError> {
    let (name, blob) = source.open(&*shared.storage).await?;
    let (id, length) = (expected.id, blob.length());
    let here = || shared.contents.names(&id).map(|(here, _)| here.length);
    if let Some(expected) = expected.length.or_else(here)
        && expected != length
    {
        return Err(ShareError::LengthDiffers {
            name,
            id,
            expected,
            length,
        });
    }
    let hashed = manifest_of(&*blob).await;
    let manifest = hashed.map_err(|error| not_hashed(&name, error))?;
    let found = manifest.id();
    if found != id {
        return Err(ShareError::HashDiffers { name, id, found });
    }
    let telling = Telling::Later;
    let place = Place::of_user(name, blob);
    share_place(shared, place, manifest, (telling, decided)).await
}
