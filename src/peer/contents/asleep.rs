//! A complete content as it sleeps: where it is, and how its manifest can be had.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::content::{Bitfield, Content, ContentId, ContentName, Geometry, Manifest};
use crate::peer::contents::place::Place;
use crate::peer::contents::role::Role;
use crate::storage::{Blob, Remembered};

/// Up to this many bytes of a file of a folder are hashed again when it wakes up.
/// That takes some ten milliseconds.
pub(in crate::peer) const REHASHED_LEN: u64 = 16 << 20;

/// A complete content without a driver.
///
/// There may be very many, so what few of them have is in a box.
pub(in crate::peer) struct Asleep {
    pub(in crate::peer) content: Content,
    pub(in crate::peer) blob: Arc<dyn Blob>,
    pub(in crate::peer) role: Role,
    /// Whether the storage has the manifest.
    recorded: bool,
    /// Whether this peer has written the bytes.
    written_here: bool,
    /// When it was last used, in ticks of the table.
    used: AtomicU32,
    rare: Option<Box<Rare>>,
}

/// What few contents that sleep have.
#[derive(Default)]
struct Rare {
    /// The name at trackers, if that is another one.
    listed_as: Option<ContentName>,
    /// The manifest, if nothing else can give it back.
    manifest: Option<Arc<Manifest>>,
    /// Chunks that were not verified since an earlier download left them behind.
    unchecked: Option<Bitfield>,
}

impl Rare {
    fn boxed(self) -> Option<Box<Self>> {
        let is_empty =
            self.listed_as.is_none() && self.manifest.is_none() && self.unchecked.is_none();
        (!is_empty).then(|| Box::new(self))
    }
}

/// Where the manifest of a content that sleeps is.
pub(in crate::peer) enum KeptManifest<'a> {
    /// Nothing else can give it back.
    Here(&'a Arc<Manifest>),
    /// The storage has it.
    Recorded,
    /// It follows from the bytes, of which there are few.
    Derived,
}

impl Asleep {
    /// A complete content at this place. `recorded` says that the storage has its manifest.
    pub(in crate::peer) fn new(
        id: ContentId,
        place: Place,
        manifest: &Arc<Manifest>,
        recorded: bool,
    ) -> Self {
        let content = Content::new(id, place.name, place.blob.length());
        // What a torrent must be follows from none of its bytes.
        let is_short = manifest.geometry().chunks() == 1 && !manifest.is_torrent();
        let recorded = recorded && !manifest.is_torrent();
        let rare = Rare {
            listed_as: Some(place.listed_as).filter(|listed_as| *listed_as != content.name),
            manifest: (!is_short && !recorded).then(|| Arc::clone(manifest)),
            unchecked: None,
        };
        Self {
            content,
            blob: place.blob,
            role: Role::Alone,
            recorded: !is_short && recorded,
            written_here: place.written_here,
            used: AtomicU32::default(),
            rare: rare.boxed(),
        }
    }

    /// A file of a folder, or its index, with its manifest if that is known.
    pub(in crate::peer) fn of_folder(
        content: Content,
        role: Role,
        blob: Arc<dyn Blob>,
        manifest: Option<Manifest>,
    ) -> Self {
        let rare = Rare {
            manifest: manifest.map(Arc::new),
            ..Rare::default()
        };
        let asleep = Self {
            content,
            blob,
            role,
            recorded: false,
            written_here: false,
            used: AtomicU32::default(),
            rare: rare.boxed(),
        };
        asleep.role(role)
    }

    /// Sets what the content is. The manifest of a short file of a folder is not
    /// kept: there may be very many.
    pub(in crate::peer) fn role(mut self, role: Role) -> Self {
        self.role = role;
        if role == Role::File && self.content.length <= REHASHED_LEN {
            self.recorded = false;
            self.change_rare(|rare| rare.manifest = None);
        }
        self
    }

    /// Sets the chunks that were not verified since an earlier download left them
    /// behind. They have to be before they are served.
    pub(in crate::peer) fn unverified(mut self, unchecked: Option<Bitfield>) -> Self {
        self.change_rare(|rare| rare.unchecked = unchecked);
        self
    }

    /// The storage has recorded the manifest, if it was kept here. It never has that of a
    /// torrent.
    pub(in crate::peer) fn set_recorded(&mut self) {
        if let KeptManifest::Here(manifest) = self.manifest()
            && !manifest.is_torrent()
        {
            self.recorded = true;
            self.change_rare(|rare| rare.manifest = None);
        }
    }

    fn change_rare(&mut self, change: impl FnOnce(&mut Rare)) {
        let mut rare = self.rare.take().map_or_else(Rare::default, |rare| *rare);
        change(&mut rare);
        self.rare = rare.boxed();
    }

    /// It was used at this tick of the table.
    pub(in crate::peer) fn touch(&self, tick: u32) {
        self.used.fetch_max(tick, Ordering::Relaxed);
    }

    /// The tick at which it was last used.
    pub(in crate::peer) fn last_used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// Its name at trackers.
    pub(in crate::peer) fn listed_as(&self) -> &ContentName {
        let other = self.rare.as_ref().and_then(|rare| rare.listed_as.as_ref());
        other.unwrap_or(&self.content.name)
    }

    /// Where its manifest is.
    pub(in crate::peer) fn manifest(&self) -> KeptManifest<'_> {
        match self.rare.as_ref().and_then(|rare| rare.manifest.as_ref()) {
            Some(manifest) => KeptManifest::Here(manifest),
            None if self.recorded => KeptManifest::Recorded,
            None => KeptManifest::Derived,
        }
    }

    /// How it is cut into chunks.
    pub(in crate::peer) fn geometry(&self) -> Option<Geometry> {
        match self.manifest() {
            KeptManifest::Here(manifest) => Some(manifest.geometry()),
            KeptManifest::Recorded | KeptManifest::Derived => {
                Geometry::of(self.content.length).ok()
            }
        }
    }

    /// The chunks that have to be verified before they are served, if any.
    pub(in crate::peer) fn unchecked(&self) -> Option<&Bitfield> {
        self.rare.as_ref()?.unchecked.as_ref()
    }

    /// Where it is.
    pub(in crate::peer) fn place(&self) -> Place {
        Place {
            name: self.content.name.clone(),
            listed_as: self.listed_as().clone(),
            blob: Arc::clone(&self.blob),
            written_here: self.written_here,
        }
    }

    /// The same content at another place. A file of a folder is elsewhere by itself.
    pub(in crate::peer) fn at(&self, place: Place) -> Self {
        let content = Content::new(self.content.id, place.name, self.content.length);
        let manifest = self.rare.as_ref().and_then(|rare| rare.manifest.clone());
        let rare = Rare {
            listed_as: Some(place.listed_as).filter(|listed_as| *listed_as != content.name),
            manifest,
            unchecked: None,
        };
        Self {
            content,
            blob: place.blob,
            role: match self.role {
                Role::Index => Role::Index,
                Role::Alone | Role::File => Role::Alone,
                #[cfg(feature = "bittorrent")]
                Role::Torrent => Role::Torrent,
            },
            recorded: self.recorded,
            written_here: place.written_here,
            used: AtomicU32::new(self.last_used()),
            rare: rare.boxed(),
        }
    }

    /// A content that the storage remembers.
    pub(in crate::peer) fn remembered(remembered: Remembered) -> Self {
        let Remembered {
            id,
            name,
            listed_as,
            blob,
            written_here,
        } = remembered;
        let content = Content::new(id, name, blob.length());
        let chunks = Geometry::of(content.length).map_or(0, |geometry| geometry.chunks());
        let rare = Rare {
            listed_as: Some(listed_as).filter(|listed_as| *listed_as != content.name),
            ..Rare::default()
        };
        Self {
            content,
            blob,
            role: Role::Alone,
            recorded: chunks != 1,
            written_here,
            used: AtomicU32::default(),
            rare: rare.boxed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "bittorrent")]
    #[tokio::test]
    async fn torrent_that_sleeps_keeps_its_manifest_however_short_it_is() {
        use crate::content::{ContentId, PieceDigests};
        use crate::storage::{MemoryStorage, Storage};

        let storage = MemoryStorage::new();
        for pieces in [1, 2] {
            let name: ContentName = format!("{pieces}").parse().unwrap();
            let geometry = Geometry::of_torrent(pieces * 100, 100).unwrap();
            let digests = PieceDigests::v1(vec![[0; 20]; pieces as usize]);
            let id = ContentId::of_torrent_v1(&[pieces as u8; 20]);
            let manifest = Arc::new(Manifest::torrent(id, geometry, digests).unwrap());
            let created = storage.create(&name, &manifest).await;
            let place = Place::of_user(name, created.unwrap().blob);
            let mut asleep = Asleep::new(id, place, &manifest, true);
            asleep.set_recorded();
            assert!(matches!(asleep.manifest(), KeptManifest::Here(kept) if *kept == manifest));
            assert_eq!(asleep.geometry(), Some(geometry));
        }
    }

    #[test]
    fn content_that_sleeps_is_small() {
        assert!(size_of::<Asleep>() <= 88, "{}", size_of::<Asleep>());
    }
}
