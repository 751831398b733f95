//! The contents of the gateway: complete, or being downloaded because somebody asked.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bt_lite::{
    Bitfield, ChunkIndex, Content, ContentId, ContentName, ContentReader, Download, DownloadError,
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
    running: Arc<RunningDownloads>,
}

/// The downloads, by what was asked for.
#[derive(Default)]
struct RunningDownloads(Mutex<BTreeMap<String, Running>>);

struct Running {
    download: Arc<Download>,
    /// How many requests wait until its length is known.
    waiting: usize,
}

/// A request that waits. A content that is not found when the last of its clients hangs up is
/// looked for no more.
struct Waiting {
    running: Arc<RunningDownloads>,
    key: String,
    download: Arc<Download>,
}

impl RunningDownloads {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut all = self.running.all();
        let Some(running) = all.get_mut(&self.key) else {
            return;
        };
        if Arc::ptr_eq(&running.download, &self.download) {
            running.waiting -= 1;
            if running.waiting == 0 && self.download.content().is_none() {
                all.remove(&self.key);
            }
        }
    }
}

/// What a key of the page means: an id if it is one, and else a name.
fn key_of(text: &str) -> io::Result<DownloadKey> {
    if let Ok(id) = text.parse::<ContentId>() {
        return Ok(id.into());
    }
    let name = text.parse::<ContentName>();
    let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(name.into())
}

impl Contents {
    pub(crate) fn new(peer: Peer) -> Self {
        Self {
            peer,
            running: Arc::default(),
        }
    }

    /// A reader of a content, which is downloaded if it is not here. Returns when its
    /// length is known.
    pub(crate) async fn open(&self, key: &str) -> io::Result<(Content, ContentReader)> {
        if let Some(content) = self.complete(key) {
            let reader = self.peer.reader(&content.id).await;
            return Ok((content, reader.map_err(io::Error::other)?));
        }
        let waiting = self.download(key)?;
        let mut reader = waiting.download.reader();
        reader.wait_length().await?;
        let content = waiting.download.content();
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

    /// Waits for the download of a content, which begins if there is none.
    fn download(&self, key: &str) -> io::Result<Waiting> {
        let wanted = key_of(key)?;
        let mut all = self.running.all();
        if !all.contains_key(key) {
            if all.len() >= MAX_DOWNLOADS {
                let kind = io::ErrorKind::QuotaExceeded;
                return Err(io::Error::new(kind, "too many downloads run"));
            }
            let download = Arc::new(self.peer.download(wanted));
            self.follow(key, &download);
            let waiting = 0;
            all.insert(key.to_owned(), Running { download, waiting });
        }
        let running = all.get_mut(key).ok_or(io::ErrorKind::NotFound)?;
        running.waiting += 1;
        Ok(Waiting {
            running: Arc::clone(&self.running),
            key: key.to_owned(),
            download: Arc::clone(&running.download),
        })
    }

    /// Forgets a download when it has ended: a complete content is found without it, and a
    /// failed one is tried again.
    fn follow(&self, key: &str, download: &Arc<Download>) {
        let (running, key) = (Arc::clone(&self.running), key.to_owned());
        // The download ends when nobody wants it any more.
        let weak = Arc::downgrade(download);
        let mut events = download.events();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if let DownloadEvent::Failed(error) = event {
                    report(&key, &error);
                }
            }
            let mut all = running.all();
            let is_it = |one: &mut Running| Arc::as_ptr(&one.download) == weak.as_ptr();
            if all.get_mut(&key).is_some_and(is_it) {
                all.remove(&key);
            }
        });
    }

    /// What the page shows.
    pub(crate) async fn list(&self) -> Value {
        let running: Vec<_> = {
            let all = self.running.all();
            let running = all.iter();
            running
                .map(|(key, one)| (key.clone(), Arc::clone(&one.download)))
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
    if *error == DownloadError::Cancelled {
        return;
    }
    eprintln!("gateway: {key:?}: {error}");
}
