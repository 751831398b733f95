//! What a torrent is as well in this crate's network: its file a content, or its files a folder.

use std::sync::Arc;

use tokio::sync::watch;

use super::also::{InCommon, also_file};
use super::also_folder::also_folder;
use super::options::TorrentOptions;
use crate::content::ContentId;
use crate::peer::contents::status::ContentStatus;

/// Fetches and shares a torrent under another id as well, until it is shared, or cannot be.
/// `torrent` is what is known of the download of the torrent.
pub(super) async fn also(
    common: Arc<InCommon>,
    id: ContentId,
    options: TorrentOptions,
    torrent: watch::Receiver<ContentStatus>,
) {
    let Some(_under_way) = common.begin(id) else {
        return;
    };
    let stop = common.shared.tasks.stop.clone();
    let fetched = async {
        match common.is_single {
            true => also_file(Arc::clone(&common), id, &options, torrent).await,
            false => Box::pin(also_folder(&common, id, &options, torrent)).await,
        }
    };
    stop.run_until_cancelled(fetched).await;
}
