//! A complete content as it sleeps: where it is, and how its manifest can be had.

use std::sync::Arc;

use crate::content::{Bitfield, Content, ContentName, Geometry, Manifest};
use crate::peer::contents::place::Place;
use crate::peer::contents::role::Role;
use crate::storage::{Blob, Remembered};

/// Up to this many bytes of a file of a folder are hashed again when it wakes up.
/// That takes some ten milliseconds.
pub(in crate::peer) const REHASHED_LEN: u64 = 16 << 20;

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
    pub(in crate::peer) role: Role,
}

/// Where the manifest of a content that sleeps is.
#[derive(Clone)]
pub(in crate::peer) enum KeptManifest {
    /// Nothing else can give it back.
    Here(Arc<Manifest>),
    /// The storage has it.
    Recorded,
    /// It follows from the bytes, of which there are few.
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
            role: Role::Alone,
        }
    }

    /// A file of a folder, or its index, with its manifest if that is known.
    pub(in crate::peer) fn of_folder(
        content: Content,
        role: Role,
        blob: Arc<dyn Blob>,
        manifest: Option<Manifest>,
    ) -> Self {
        let manifest = manifest.map_or(KeptManifest::Derived, |manifest| {
            KeptManifest::Here(Arc::new(manifest))
        });
        let asleep = Self {
            listed_as: None,
            content,
            blob,
            manifest,
            unchecked: None,
            role,
        };
        asleep.role(role)
    }

    /// Sets what the content is. The manifest of a short file of a folder is not
    /// kept: there may be very many.
    pub(in crate::peer) fn role(mut self, role: Role) -> Self {
        self.role = role;
        if role == Role::File && self.content.length <= REHASHED_LEN {
            self.manifest = KeptManifest::Derived;
        }
        self
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

    /// The same content at another place. A file of a folder is elsewhere by itself.
    pub(in crate::peer) fn at(&self, place: Place) -> Self {
        let content = Content::new(self.content.id, place.name, self.content.length);
        Self {
            listed_as: Some(place.listed_as).filter(|listed_as| *listed_as != content.name),
            content,
            blob: place.blob,
            manifest: self.manifest.clone(),
            unchecked: None,
            role: match self.role {
                Role::Index => Role::Index,
                Role::Alone | Role::File => Role::Alone,
            },
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
            role: Role::Alone,
        }
    }
}
