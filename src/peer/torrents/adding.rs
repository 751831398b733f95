//! What a torrent is to a driver: its pieces, where they go, and who has them.

use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;

use super::also::InCommon;
use super::beside::also;
use super::error::TorrentError;
use super::file_list::FileList;
use super::identity::identity;
use super::links::TorrentOutside;
use super::options::TorrentOptions;
use super::rendezvous::{Driven, Rendezvous};
use super::sought::Sought;
use super::table::TorrentTable;
use super::torrent::Torrent;
use crate::bittorrent::{Metainfo, TorrentFile};
use crate::content::{
    Content, ContentId, ContentName, FolderPath, Geometry, Manifest, PieceDigests,
};
use crate::peer::contents::driver::TargetOptions;
use crate::peer::contents::listing::Listing;
use crate::peer::contents::role::Role;
use crate::peer::downloads::task::DownloadTask;
use crate::peer::downloads::task::outside::OutsidePart;
use crate::peer::shared::PeerShared;
use crate::storage::{CommonStorage, SpannedFile, SpannedLink, SpannedStorage};

/// A torrent that is about to be driven.
pub(super) struct Adding {
    pub(super) torrent: Arc<Torrent>,
    pub(super) content: Content,
    manifest: Arc<Manifest>,
    target: TargetOptions,
    options: TorrentOptions,
    slots: Option<usize>,
}

impl Adding {
    /// Checks that this peer can take the torrent.
    pub(super) fn new(
        meeting: Arc<Rendezvous>,
        metainfo: Metainfo,
        options: &TorrentOptions,
    ) -> Result<Self, TorrentError> {
        let (_, id) = identity(&metainfo);
        let manifest = manifest(&metainfo, id)?;
        let geometry = manifest.geometry();
        let name = metainfo.name().parse::<ContentName>();
        let name = name.unwrap_or_else(|_| id.into());
        let directory = directory(&meeting.session.shared, options, &name)?;
        let (files, links) = (files(&metainfo)?, links(&metainfo)?);
        let storage = SpannedStorage::new(&directory, files, geometry.length(), options.overwrite);
        let storage = storage.links(links);
        let list = FileList::new(&metainfo, geometry);
        meeting.choosing.known(list, storage.chosen())?;
        let files = CommonStorage::new(storage);
        let mut target = TargetOptions::to(Arc::new(files.clone()));
        target.sibling = Some(Arc::new(files.clone()));
        let (shared, is_single) = (&meeting.session.shared, metainfo.is_single_file());
        let common = Arc::new(InCommon::new(shared, files, is_single));
        let about = (id, geometry);
        Ok(Self {
            torrent: Arc::new(Torrent::new(meeting, metainfo, about, common)),
            content: Content::new(id, name, geometry.length()),
            manifest: Arc::new(manifest),
            target,
            options: options.clone(),
            slots: options.upload_slots,
        })
    }

    /// What a driver with this status needs.
    pub(super) fn part(
        self,
        table: &Arc<TorrentTable>,
        sought: Option<Arc<Sought>>,
        driven: Driven,
    ) -> OutsidePart {
        let common = &self.torrent.common;
        let turn = common.turn.clone();
        let mut others = self.torrent.meeting.also();
        others.extend(self.options.also);
        let beside = others.into_iter().map(|id| {
            let common = Arc::clone(common);
            also(common, id, self.options.clone(), driven.status.clone()).boxed()
        });
        let beside = beside.collect();
        let outside = TorrentOutside::new(self.torrent, Arc::clone(table), sought, driven);
        let name = self.content.name.clone();
        OutsidePart {
            listing: Listing::new(self.content, name).role(Role::Torrent),
            manifest: self.manifest,
            outside: Arc::new(outside),
            // Its storage knows by itself what it may change.
            target: self.target,
            beside,
            turn,
            slots: self.slots,
        }
    }
}

/// The driver of this download, of a torrent of this length.
pub(super) fn driven(task: &DownloadTask, length: u64) -> Driven {
    Driven {
        status: task.status(),
        inbox: task.inbox(),
        length,
    }
}

/// The directory that a torrent of this name goes to.
pub(super) fn directory(
    shared: &PeerShared,
    options: &TorrentOptions,
    name: &ContentName,
) -> Result<PathBuf, TorrentError> {
    if let Some(directory) = &options.directory {
        return Ok(directory.clone());
    }
    let path = shared.storage.path(name);
    let parent = path.as_deref().and_then(|path| path.parent());
    Ok(parent.ok_or(TorrentError::NoDirectory)?.to_path_buf())
}

/// What its pieces must be. A hybrid torrent may lack hashes of v2, and is a good one of v1
/// then.
fn manifest(metainfo: &Metainfo, id: ContentId) -> Result<Manifest, TorrentError> {
    let piece_len = u64::from(metainfo.piece_length());
    let geometry = Geometry::of_torrent(metainfo.total_length(), piece_len)?;
    let pieces = 0..metainfo.pieces();
    let v1 = metainfo.info_hash_v1().map(|_| {
        let hashes = pieces
            .clone()
            .filter_map(|piece| metainfo.piece_hash_v1(piece));
        hashes.collect::<Vec<_>>()
    });
    let has_v2 = metainfo.info_hash_v2().is_some() && metainfo.missing_layers().is_empty();
    let v2 = has_v2.then(|| {
        let roots = pieces.filter_map(|piece| metainfo.piece_root(piece));
        roots.collect::<Vec<_>>()
    });
    let digests = match (v1, v2) {
        (Some(v1), Some(v2)) => PieceDigests::hybrid(v1, v2),
        (Some(v1), None) => PieceDigests::v1(v1),
        (None, v2) => PieceDigests::v2(v2.unwrap_or_default()),
    };
    Ok(Manifest::torrent(id, geometry, digests)?)
}

/// Which of its bytes lie where, in the directory that it goes to.
fn files(metainfo: &Metainfo) -> Result<Vec<SpannedFile>, TorrentError> {
    let stored = metainfo.files().iter();
    let stored = stored.filter(|file| !file.is_padding() && file.symlink_target().is_none());
    let spanned = stored.map(|file| {
        Ok(SpannedFile {
            path: path_of(metainfo, file)?,
            range: file.offset()..file.offset() + file.length(),
            executable: file.is_executable(),
        })
    });
    spanned.collect()
}

/// The symbolic links beside them.
fn links(metainfo: &Metainfo) -> Result<Vec<SpannedLink>, TorrentError> {
    let links = metainfo.files().iter().filter_map(|file| {
        let target = file.link_text()?;
        Some(path_of(metainfo, file).map(|path| SpannedLink { path, target }))
    });
    links.collect()
}

/// Where something lies, in the directory that the torrent goes to.
fn path_of(metainfo: &Metainfo, file: &TorrentFile) -> Result<FolderPath, TorrentError> {
    Ok(match metainfo.is_single_file() {
        true => file.path().clone(),
        false => format!("{}/{}", metainfo.name(), file.path()).parse()?,
    })
}
