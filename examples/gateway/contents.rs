//! The contents of the gateway: complete, or being downloaded because somebody asked.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bt_lite::{
    Bitfield, ChunkIndex, Content, ContentId, ContentReader, Download, DownloadError,
    DownloadEvent, DownloadKey, Peer,
};
use futures::StreamExt;
use serde_json::{Value, json};

/// How many downloads run at a time; who asks for more is told to come again.
const MAX_DOWNLOADS: usize = 256;

/// How many fields the map of a content has at most.
const MAX_FIELDS: u32 = 128;

pub(crate) struct Contents {
    peer: Peer,
    /// By what was asked for.
    downloads: Arc<Mutex<BTreeMap<String, Arc<Download>>>>,
}

/// What a key of the page means: an id if it is one, and else a name.
fn key_of(text: &str) -> DownloadKey {
    match text.parse::<ContentId>() {
        Ok(id) => id.into(),
        Err(_) => DownloadKey::name(text),
    }
}

impl Contents {
    pub(crate) fn new(peer: Peer) -> Self {
        Self {
            peer,
            downloads: Arc::default(),
        }
    }

    /// A reader of a content, which is downloaded if it is not here. Returns when its
    /// length is known.
    pub(crate) async fn open(&self, key: &str) -> io::Result<(Content, ContentReader)> {
        if let Some(content) = self.complete(key) {
            let reader = self.peer.reader(&content.id).await;
            return Ok((content, reader.map_err(io::Error::other)?));
        }
        let download = self.download(key)?;
        let mut reader = download.reader();
        reader.wait_length().await?;
        let content = download.content();
        let content = content.ok_or_else(|| io::Error::other("the download has ended"))?;
        Ok((content, reader))
    }

    /// A complete content of this name or id.
    fn complete(&self, key: &str) -> Option<Content> {
        let id = key.parse::<ContentId>().ok();
        let mut complete = self.peer.contents().into_iter();
        complete.find(|content| match id {
            Some(id) => content.id == id,
            None => content.name.as_str() == key,
        })
    }

    /// The download of a content, which begins if there is none.
    fn download(&self, key: &str) -> io::Result<Arc<Download>> {
        let mut downloads = self
            .downloads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(download) = downloads.get(key) {
            return Ok(Arc::clone(download));
        }
        if downloads.len() >= MAX_DOWNLOADS {
            let kind = io::ErrorKind::QuotaExceeded;
            return Err(io::Error::new(kind, "too many downloads run"));
        }
        let download = Arc::new(self.peer.download(key_of(key)));
        downloads.insert(key.to_owned(), Arc::clone(&download));
        // A complete content is found without it, and a failed one is tried again.
        let (all, key) = (Arc::clone(&self.downloads), key.to_owned());
        let mut events = download.events();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if let DownloadEvent::Failed(error) = event {
                    report(&key, &error);
                }
            }
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.remove(&key);
        });
        Ok(download)
    }

    /// What the page shows.
    pub(crate) async fn list(&self) -> Value {
        let running: Vec<_> = {
            let downloads = self
                .downloads
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let running = downloads.iter();
            running
                .map(|(key, download)| (key.clone(), Arc::clone(download)))
                .collect()
        };
        let mut listed = Vec::new();
        for (key, download) in running {
            let chunks = download.verified_chunks().await;
            let (content, progress) = (download.content(), download.progress());
            listed.push(json!({
                "key": content.as_ref().map_or(key.clone(), |content| content.id.to_string()),
                "name": content.as_ref().map_or(key, |content| content.name.to_string()),
                "length": progress.length,
                "verified": progress.verified_bytes,
                "rate": progress.rate,
                "owners": progress.owners,
                "map": chunks.map_or(Vec::new(), |chunks| map(&chunks)),
            }));
        }
        for content in self.peer.contents() {
            listed.push(json!({
                "key": content.id.to_string(),
                "name": content.name.to_string(),
                "length": content.length,
                "verified": content.length,
                "rate": 0,
                "owners": 0,
                "map": [100],
            }));
        }
        Value::Array(listed)
    }
}

/// How many percent of each part of a content are here.
fn map(chunks: &Bitfield) -> Vec<u32> {
    let fields = chunks.chunks().min(MAX_FIELDS);
    let parts = bt_lite::split_evenly(chunks.chunks().into(), fields);
    let share = |part: std::ops::Range<u64>| {
        let here = |chunk: &u64| chunks.contains(ChunkIndex(*chunk as u32));
        let count = part.clone().filter(here).count() as u64;
        (100 * count / (part.end - part.start).max(1)) as u32
    };
    parts.map(share).collect()
}

fn report(key: &str, error: &DownloadError) {
    eprintln!("gateway: {key:?}: {error}");
}
