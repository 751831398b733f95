//! One node: a disk, the peer that runs on it now, and what its user wants.

use std::cell::{Cell, RefCell};
use std::io::Cursor;
use std::time::Duration;

use bt_lite::protocol::PeerId;
use bt_lite::{
    Content, ContentId, ContentName, DownloadError, DownloadKey, DownloadOptions, MemoryNetwork,
    Peer, PeerEvent, RateLimits, Zone,
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::disk::Disk;
use crate::gate::Gate;
use crate::plan::{Mistake, NodePlan, Plan, Role};
use crate::violation::Violation;

/// How long a user waits before trying again what has failed.
const AGAIN: Duration = Duration::from_secs(3);

/// A content that is somewhere in the world.
pub(crate) struct Wanted {
    pub(crate) name: ContentName,
    pub(crate) id: ContentId,
    pub(crate) bytes: Bytes,
}

pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) plan: NodePlan,
    pub(crate) network: MemoryNetwork,
    trackers: usize,
    seed: u64,
    mistake: Option<Mistake>,
    pub(crate) disk: RefCell<Disk>,
    gate: RefCell<Option<Gate>>,
    /// The peer that runs, if one does, and how many have.
    pub(crate) peer: watch::Sender<Option<Peer>>,
    /// The last peer, on its way out.
    leaving: RefCell<Option<JoinHandle<()>>>,
    /// Whether something has happened here that may end a download.
    pub(crate) troubled: Cell<bool>,
    /// Whether something sent from here may have arrived as something else.
    pub(crate) noisy: Cell<bool>,
    pub(crate) figures: RefCell<Figures>,
    /// Why a download was tried again.
    pub(crate) last_error: RefCell<String>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Figures {
    pub(crate) downloaded: u64,
    pub(crate) wasted: u64,
    /// Downloaded from another zone.
    pub(crate) far: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
}

pub(crate) fn name_of(number: usize) -> String {
    format!("node-{number}")
}

pub(crate) fn id_of(number: usize) -> PeerId {
    PeerId([number as u8 + 1; 16])
}

impl Node {
    pub(crate) fn new(
        number: usize,
        plan: NodePlan,
        network: &MemoryNetwork,
        world: &Plan,
    ) -> Self {
        Self {
            number,
            plan,
            network: network.clone(),
            trackers: world.trackers,
            seed: world.seed.wrapping_add(number as u64),
            mistake: world.mistake,
            disk: RefCell::new(Disk::new(world.in_files, world.mistake)),
            gate: RefCell::default(),
            peer: watch::Sender::new(None),
            leaving: RefCell::default(),
            troubled: Cell::default(),
            noisy: Cell::default(),
            figures: RefCell::default(),
            last_error: RefCell::default(),
        }
    }

    pub(crate) fn name(&self) -> String {
        name_of(self.number)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.peer.borrow().is_some()
    }

    /// Starts a peer, as soon as the disk lets it.
    pub(crate) async fn start(&self) {
        self.gone().await;
        let gate = Gate::new(self.network.endpoint(&self.name()));
        self.gate.replace(Some(gate.clone()));
        let peer = loop {
            let disk = self.disk.borrow().clone();
            let zone = self.plan.zone.map(|zone| format!("zone-{zone}"));
            let zone = zone.map(|zone| zone.parse::<Zone>().expect("a name"));
            let mut builder = Peer::builder(gate.clone(), disk)
                .id(id_of(self.number))
                .seed(self.seed)
                .listen(format!("memory:{}", self.name()))
                .share_stored()
                .trackers_optional()
                .zone(zone);
            for tracker in 0..self.trackers {
                builder = builder.tracker(format!("memory:tracker-{tracker}"));
            }
            match builder.start().await {
                Ok(peer) => break peer,
                Err(error) => assert!(self.troubled.get(), "{error}"),
            }
            sleep(Duration::from_secs(1)).await;
        };
        self.limit(&peer, None);
        self.peer.send_replace(Some(peer));
    }

    /// Sets what a user wants, within what the node is.
    pub(crate) fn limit(&self, peer: &Peer, rate: Option<u64>) {
        let upload = match self.plan.role {
            Role::FreeRider => Some(1),
            Role::Honest | Role::Liar => rate,
        };
        let limits = RateLimits::default().upload(upload).download(rate);
        peer.set_rate_limits(limits).expect("they are not zero");
    }

    pub(crate) async fn share_all(&self, contents: &[Wanted]) {
        let peer = self.peer.borrow().clone().expect("it has started");
        for &content in &self.plan.owns {
            let Wanted { name, bytes, id } = &contents[content];
            let reader = Cursor::new(bytes.clone());
            let shared = peer.share_reader(name.clone(), reader).await;
            let shared = shared.expect("nothing is wrong yet");
            assert_eq!(shared.id, *id);
        }
        if self.plan.role == Role::Liar || self.mistake == Some(Mistake::Lies) {
            self.disk.borrow().lie();
        }
    }

    /// Ends the peer in good order or in none. Returns whether there was one.
    pub(crate) fn stop(&self, crashes: bool) -> bool {
        let Some(peer) = self.peer.send_replace(None) else {
            return false;
        };
        self.troubled.set(true);
        if crashes {
            if let Some(gate) = self.gate.take() {
                gate.close();
            }
            self.network.kill(&self.name());
            let disk = self.disk.borrow().reopen(true);
            self.disk.replace(disk);
        }
        let leaving = tokio::spawn(async move { peer.shutdown().await });
        self.leaving.replace(Some(leaving));
        true
    }

    /// Waits until the last peer is gone.
    pub(crate) async fn gone(&self) {
        // Not borrowed while it is waited for.
        let leaving = self.leaving.take();
        if let Some(leaving) = leaving {
            leaving.await.expect("no shutdown panics");
        }
    }

    /// Gets a content, as a user does who wants it and does not give up.
    pub(crate) async fn fetch(&self, wanted: &Wanted, calm: bool) -> Result<(), Violation> {
        if self.mistake == Some(Mistake::NeverAsks) {
            return std::future::pending().await;
        }
        let mut running = self.peer.subscribe();
        // What was durable when the last attempt ended.
        let mut durable = 0;
        loop {
            let peer = running.wait_for(Option::is_some).await;
            let peer = peer.expect("it has a sender").clone().expect("just seen");
            let key = match self.plan.by_name {
                true => DownloadKey::from(wanted.name.clone()),
                false => wanted.id.into(),
            };
            let options = DownloadOptions::new().seed(self.plan.seed);
            let mut download = peer.download_with(key, options);
            let ended = tokio::select! {
                ended = &mut download => Some(ended),
                _ = running.wait_for(Option::is_none) => None,
            };
            let progress = download.progress();
            let far = download.stats().await.far;
            {
                let mut figures = self.figures.borrow_mut();
                figures.downloaded += progress.downloaded;
                figures.wasted += progress.wasted;
                figures.far += far.downloaded;
            }
            let useful = progress.downloaded - progress.wasted;
            let length = wanted.bytes.len() as u64;
            match ended {
                Some(Ok(content)) => {
                    self.figures.borrow_mut().completed += 1;
                    self.check_whole(wanted, &content).await?;
                    if useful + durable > length {
                        return Err(Violation::new(
                            "durable bytes were fetched again",
                            format!(
                                "node {} had {durable} of {length}, and fetched {useful}",
                                self.number
                            ),
                        ));
                    }
                    return Ok(());
                }
                Some(Err(error)) => {
                    self.figures.borrow_mut().failed += 1;
                    self.last_error.replace(error.to_string());
                    self.check_error(&error, calm)?;
                }
                None => {}
            }
            durable = durable.max(download.durable_bytes());
            drop(download);
            drop(peer);
            sleep(AGAIN).await;
        }
    }

    async fn check_whole(&self, wanted: &Wanted, content: &Content) -> Result<(), Violation> {
        let expected = (wanted.id, wanted.bytes.len() as u64);
        if (content.id, content.length) != expected {
            let what = format!("node {} has {content:?}", self.number);
            return Err(Violation::new("another content", what));
        }
        let disk = self.disk.borrow().clone();
        match disk.bytes(&content.name).await {
            Some(bytes) if bytes == wanted.bytes => Ok(()),
            other => {
                let len = other.map(|bytes| bytes.len());
                let what = format!("node {}: {} has {len:?} bytes", self.number, content.name);
                Err(Violation::new("a content is not what it should be", what))
            }
        }
    }

    /// Every error has a reason.
    fn check_error(&self, error: &DownloadError, calm: bool) -> Result<(), Violation> {
        let explained = match error {
            DownloadError::Storage { .. } | DownloadError::ShutDown => self.troubled.get(),
            _ => !calm,
        };
        match explained {
            true => Ok(()),
            false => Err(Violation::new(
                "an error without a reason",
                format!("node {}: {error}", self.number),
            )),
        }
    }

    /// Reads what its peers tell, for ever. Returns when one bans whom it should not.
    pub(crate) async fn watch(&self, may_ban: impl Fn(PeerId) -> bool) -> Violation {
        let mut running = self.peer.subscribe();
        loop {
            let peer = running.wait_for(Option::is_some).await;
            let mut events = match peer.expect("it has a sender").as_ref() {
                Some(peer) => peer.events(),
                None => continue,
            };
            while let Some(event) = events.next().await {
                if let PeerEvent::Banned { banned, .. } = event
                    && !may_ban(banned.peer.peer)
                {
                    let what = format!("node {} banned {banned:?}", self.number);
                    return Violation::new("an honest peer was banned", what);
                }
            }
            let _ = running.wait_for(Option::is_none).await;
        }
    }
}
