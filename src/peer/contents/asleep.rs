//! A complete content as it sleeps: where it is, and how its manifest can be had.

use std::sync::Arc;

use crate::content::{Bitfield, Content, ContentName, Geometry, Manifest};
use crate::peer::contents::place::Place;
use crate::storage::{Blob, Remembered};

/// A complete content without a driver.
pub(in crate::peer) struct Asleep {
    pub(in crate::peer) content: Content,
    /// Its name at trackers, if that is another one.
    pub(in crate::peer) listed_as: Option<ContentName>,
    pub(in crate::peer) blob: Arc<dyn Blob>,
    pub(in crate::peer) manifest: KeptManifest,
    /// Chunks that were not verified since an earlier download left them behind.
    /// They have to be before they are served.
    pub(in crate::peer) unchecked: Option<Box<Bitfield>>,
}

/// Where the manifest of a content that sleeps is.
#[derive(Clone)]
pub(in crate::peer) enum KeptManifest {
    /// Nothing else can give it back.
    Here(Arc<Manifest>),
    /// The storage has it.
    Recorded,
    /// That of a single chunk follows from its bytes.
    Derived,
}

impl Asleep {
    /// A complete content, and its name at trackers. `recorded` says that the storage
    /// has its manifest.
    pub(in crate::peer) fn new(
        content: Content,
        listed_as: ContentName,
        blob: Arc<dyn Blob>,
        manifest: &Arc<Manifest>,
        recorded: bool,
    ) -> Self {
        Self {
            listed_as: Some(listed_as).filter(|listed_as| *listed_as != content.name),
            content,
            blob,
            manifest: match manifest.geometry().chunks() {
                1 => KeptManifest::Derived,
                _ if recorded => KeptManifest::Recorded,
                _ => KeptManifest::Here(Arc::clone(manifest)),
            },
            unchecked: None,
        }
    }

    /// Where it is.
    pub(in crate::peer) fn place(&self) -> Place {
        Place {
            name: self.content.name.clone(),
            listed_as: self
                .listed_as
                .as_ref()
                .unwrap_or(&self.content.name)
                .clone(),
            blob: Arc::clone(&self.blob),
        }
    }

    /// The same content at another place.
    pub(in crate::peer) fn at(&self, place: Place) -> Self {
        let content = Content::new(self.content.id, place.name, self.content.length);
        Self {
            listed_as: Some(place.listed_as).filter(|listed_as| *listed_as != content.name),
            content,
            blob: place.blob,
            manifest: self.manifest.clone(),
            unchecked: None,
        }
    }

    /// A content that the storage remembers.
    pub(in crate::peer) fn remembered(remembered: Remembered) -> Self {
        let Remembered {
            id,
            name,
            listed_as,
            blob,
            ..
        } = remembered;
        let content = Content::new(id, name, blob.length());
        let chunks = Geometry::of(content.length).map_or(0, |geometry| geometry.chunks());
        Self {
            listed_as: Some(listed_as).filter(|listed_as| *listed_as != content.name),
            content,
            blob,
            manifest: match chunks {
                1 => KeptManifest::Derived,
                _ => KeptManifest::Recorded,
            },
            unchecked: None,
        }
    }
}
