//! The contents of one peer: asleep, or awake with a driver.
//!
//! A complete content that nobody asks for is asleep: it has no task, no channel
//! and no open file, and its manifest is not in memory if it can be had from the
//! storage. The first link wakes it, and when its last link is gone it falls
//! asleep again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::content::{Bitfield, Content, ContentId, ContentName, Geometry, Manifest};
use crate::peer::contents::inbox::{DriverInput, Inbox, NewLink};
use crate::peer::contents::role::Role;
use crate::peer::contents::status::ContentStatus;
use crate::peer::swarm::LinkId;
use crate::storage::{Blob, Remembered};

/// Up to this many bytes of a file of a folder are hashed again when it wakes up.
/// That takes some ten milliseconds.
pub(in crate::peer) const REHASHED_LEN: u64 = 16 << 20;

/// All contents of one peer.
pub(in crate::peer) struct Contents {
    table: Mutex<Table>,
    waker: Box<dyn Waker>,
    /// Ends every driver in order.
    stop: CancellationToken,
    next_link: AtomicU64,
}

#[derive(Default)]
struct Table {
    contents: HashMap<ContentId, State>,
    /// Contents that are complete, and that no tracker has accepted yet; each with
    /// what is cancelled then.
    announcing: HashMap<ContentId, CancellationToken>,
}

enum State {
    Asleep(Arc<Asleep>),
    Awake(DriverHandle),
}

impl State {
    fn role(&self) -> Role {
        match self {
            Self::Asleep(asleep) => asleep.role,
            Self::Awake(driver) => driver.role,
        }
    }
}

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

/// How the rest of the peer reaches a driver.
#[derive(Clone)]
pub(in crate::peer) struct DriverHandle {
    pub(in crate::peer) inbox: mpsc::Sender<DriverInput>,
    pub(in crate::peer) status: watch::Receiver<ContentStatus>,
    /// Ends the driver.
    pub(in crate::peer) stop: CancellationToken,
    /// Ends the driver unless its content is complete.
    pub(in crate::peer) cancel: CancellationToken,
    /// What the content is.
    pub(in crate::peer) role: Role,
}

/// Starts the driver of a content that was asleep.
pub(in crate::peer) trait Waker: Send + Sync {
    fn wake(&self, waking: Waking);
}

/// What the driver of a content that wakes up begins with.
pub(in crate::peer) struct Waking {
    pub(in crate::peer) content: Arc<Asleep>,
    pub(in crate::peer) claim: DriverClaim,
    pub(in crate::peer) inbox: Inbox,
    pub(in crate::peer) status: watch::Sender<ContentStatus>,
    pub(in crate::peer) handle: DriverHandle,
}

/// The state of a content that this peer has already.
pub(in crate::peer) enum Settled {
    /// It is complete, and shared.
    Complete(Content),
    /// It is being downloaded.
    Downloading,
    /// Its driver has ended, and gave up its claim.
    Ended,
}

impl DriverHandle {
    /// Waits while the driver is about to end.
    async fn settled(mut self) -> Settled {
        loop {
            if self.inbox.is_closed() {
                return Settled::Ended;
            }
            if !self.stop.is_cancelled() {
                let status = self.status.borrow_and_update();
                match status.complete() {
                    Some(content) => return Settled::Complete(content.clone()),
                    None if self.cancel.is_cancelled() => {}
                    None => return Settled::Downloading,
                }
            }
            tokio::select! {
                () = self.inbox.closed() => {}
                Ok(()) = self.status.changed() => {}
            }
        }
    }

    /// Its content, if that is complete and stays.
    fn complete(&self) -> Option<Content> {
        let status = self.status.borrow();
        let complete = status.complete().filter(|_| !self.stop.is_cancelled());
        complete.cloned()
    }
}

/// The right to drive a content, given back when it is dropped.
pub(in crate::peer) struct DriverClaim {
    /// `None` once the content is asleep.
    contents: Option<Arc<Contents>>,
    id: ContentId,
}

impl DriverClaim {
    fn new(contents: &Arc<Contents>, id: ContentId) -> Self {
        Self {
            contents: Some(Arc::clone(contents)),
            id,
        }
    }

    /// Puts the content to sleep, unless something waits in its inbox. Then the
    /// claim comes back.
    pub(in crate::peer) fn sleep(mut self, asleep: Asleep, inbox: &Inbox) -> Result<(), Self> {
        let Some(contents) = self.contents.take() else {
            return Ok(());
        };
        let mut table = contents.table();
        // Whoever has a permit to send a link keeps the content awake, and permits
        // of those that come later fail. So no link is lost.
        if inbox.is_idle() {
            let asleep = State::Asleep(Arc::new(asleep));
            table.contents.insert(self.id, asleep);
            return Ok(());
        }
        drop(table);
        self.contents = Some(contents);
        Err(self)
    }

    /// Puts the content back to sleep, whatever waits in its inbox.
    pub(in crate::peer) fn sleep_again(mut self, asleep: Arc<Asleep>) {
        if let Some(contents) = self.contents.take() {
            let mut table = contents.table();
            table.contents.insert(self.id, State::Asleep(asleep));
        }
    }
}

impl Drop for DriverClaim {
    fn drop(&mut self) {
        if let Some(contents) = &self.contents {
            contents.table().contents.remove(&self.id);
        }
    }
}

impl Contents {
    pub(in crate::peer) fn new(waker: Box<dyn Waker>, stop: CancellationToken) -> Self {
        Self {
            table: Mutex::default(),
            waker,
            stop,
            next_link: AtomicU64::new(0),
        }
    }

    /// The number of one more link. Links of all contents have different ones.
    pub(in crate::peer) fn next_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    /// Hands a link to the driver of its content, and wakes it up first if it is
    /// asleep. `make` gets the inbox of the driver. Returns `false` if this peer
    /// neither has nor wants the content.
    ///
    /// Cancel safe: the link is made and handed over, or not made.
    pub(in crate::peer) async fn link(
        self: &Arc<Self>,
        id: ContentId,
        make: impl FnOnce(mpsc::Sender<DriverInput>, LinkId) -> NewLink,
    ) -> bool {
        loop {
            let handle = {
                let mut table = self.table();
                match table.contents.get(&id) {
                    None => return false,
                    Some(State::Awake(handle)) => handle.clone(),
                    Some(State::Asleep(content)) => {
                        let content = Arc::clone(content);
                        let waking = self.waking(&mut table, id, content);
                        // A new inbox has room. While a permit is out, the content
                        // does not fall asleep.
                        let inbox = waking.handle.inbox.clone();
                        if let Ok(permit) = inbox.try_reserve_owned() {
                            let link = make(waking.handle.inbox.clone(), self.next_link());
                            permit.send(DriverInput::Link(Box::new(link)));
                        }
                        drop(table);
                        self.waker.wake(waking);
                        return true;
                    }
                }
            };
            if let Ok(permit) = handle.inbox.clone().reserve_owned().await {
                let link = make(handle.inbox, self.next_link());
                permit.send(DriverInput::Link(Box::new(link)));
                return true;
            }
            // It has ended or fallen asleep meanwhile.
        }
    }

    fn waking(self: &Arc<Self>, table: &mut Table, id: ContentId, content: Arc<Asleep>) -> Waking {
        let inbox = Inbox::new();
        let (status, watched) = watch::channel(ContentStatus::shared(content.content.clone()));
        let handle = DriverHandle {
            role: content.role,
            ..self.handle(&inbox, watched)
        };
        table.contents.insert(id, State::Awake(handle.clone()));
        Waking {
            content,
            claim: DriverClaim::new(self, id),
            inbox,
            status,
            handle,
        }
    }

    /// The handle of a new driver.
    pub(in crate::peer) fn handle(
        &self,
        inbox: &Inbox,
        status: watch::Receiver<ContentStatus>,
    ) -> DriverHandle {
        DriverHandle {
            inbox: inbox.sender(),
            status,
            stop: self.stop.child_token(),
            cancel: CancellationToken::new(),
            role: Role::Alone,
        }
    }

    /// Registers the driver of a content, unless the content is here. Waits for a
    /// driver that is about to end, and for a content that is being announced.
    ///
    /// Cancel safe: nothing is claimed unless a claim is returned.
    pub(in crate::peer) async fn claim(
        self: &Arc<Self>,
        id: ContentId,
        handle: &DriverHandle,
    ) -> Result<DriverClaim, Settled> {
        loop {
            let settled = match self.table().contents.entry(id) {
                Entry::Occupied(_) => None,
                Entry::Vacant(free) => {
                    free.insert(State::Awake(handle.clone()));
                    Some(DriverClaim::new(self, id))
                }
            };
            if let Some(claim) = settled {
                return Ok(claim);
            }
            match self.settled(id).await {
                Settled::Ended => {}
                settled => return Err(settled),
            }
        }
    }

    /// Adds a complete content, asleep, unless the content is here. It counts as
    /// shared when [`announced`](Self::announced) is called. Waits as
    /// [`claim`](Self::claim) does.
    ///
    /// Cancel safe: nothing is added unless this returns.
    pub(in crate::peer) async fn add(&self, asleep: Asleep) -> Result<(), Settled> {
        let id = asleep.content.id;
        let asleep = Arc::new(asleep);
        loop {
            {
                let mut table = self.table();
                let table = &mut *table;
                if let Entry::Vacant(free) = table.contents.entry(id) {
                    free.insert(State::Asleep(asleep));
                    table.announcing.insert(id, CancellationToken::new());
                    return Ok(());
                }
            }
            match self.settled(id).await {
                Settled::Ended => {}
                settled => return Err(settled),
            }
        }
    }

    /// Adds a complete content, asleep, that was shared before. Returns `false` if
    /// it is here already.
    pub(in crate::peer) fn add_stored(&self, asleep: Asleep) -> bool {
        match self.table().contents.entry(asleep.content.id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(State::Asleep(Arc::new(asleep)));
                true
            }
        }
    }

    /// A content that was added is known to the trackers, or was removed.
    pub(in crate::peer) fn announced(&self, id: &ContentId) {
        if let Some(announcing) = self.table().announcing.remove(id) {
            announcing.cancel();
        }
    }

    /// The storage has recorded the manifest of a content.
    pub(in crate::peer) fn recorded(&self, id: &ContentId) {
        if let Some(State::Asleep(asleep)) = self.table().contents.get_mut(id)
            && let Some(asleep) = Arc::get_mut(asleep)
            && let KeptManifest::Here(_) = asleep.manifest
        {
            asleep.manifest = KeptManifest::Recorded;
        }
    }

    /// Whether a content was added, and no tracker has accepted it yet.
    pub(in crate::peer) fn is_announcing(&self, id: &ContentId) -> bool {
        self.table().announcing.contains_key(id)
    }

    /// Waits until it is certain whether a content is here.
    pub(in crate::peer) async fn settled(&self, id: ContentId) -> Settled {
        loop {
            let (announcing, driver) = {
                let table = self.table();
                let announcing = table.announcing.get(&id).cloned();
                match table.contents.get(&id) {
                    None => return Settled::Ended,
                    Some(State::Asleep(asleep)) if announcing.is_none() => {
                        return Settled::Complete(asleep.content.clone());
                    }
                    Some(State::Asleep(_)) => (announcing, None),
                    Some(State::Awake(driver)) => (announcing, Some(driver.clone())),
                }
            };
            match (announcing, driver) {
                (Some(announcing), _) => announcing.cancelled().await,
                (None, Some(driver)) => return driver.settled().await,
                (None, None) => {}
            }
        }
    }

    /// The bytes of a content, if it is complete.
    ///
    /// Cancel safe.
    pub(in crate::peer) async fn blob(&self, id: &ContentId) -> Option<Arc<dyn Blob>> {
        let driver = match self.table().contents.get(id)? {
            State::Asleep(asleep) => return Some(Arc::clone(&asleep.blob)),
            State::Awake(driver) => driver.clone(),
        };
        let (done, blob) = oneshot::channel();
        driver.inbox.send(DriverInput::Blob { done }).await.ok()?;
        blob.await.ok()?
    }

    /// The manifest of a content that is asleep, if it is in memory.
    pub(in crate::peer) fn kept_manifest(&self, id: &ContentId) -> Option<Manifest> {
        match self.table().contents.get(id)? {
            State::Asleep(asleep) => match &asleep.manifest {
                KeptManifest::Here(manifest) => Some((**manifest).clone()),
                KeptManifest::Recorded | KeptManifest::Derived => None,
            },
            State::Awake(_) => None,
        }
    }

    /// Waits while a content is being downloaded.
    ///
    /// Cancel safe.
    pub(in crate::peer) async fn downloaded(&self, id: &ContentId) {
        let driver = match self.table().contents.get(id) {
            Some(State::Awake(driver)) => driver.clone(),
            _ => return,
        };
        let DriverHandle {
            inbox, mut status, ..
        } = driver;
        tokio::select! {
            () = inbox.closed() => {}
            _ = status.wait_for(|status| status.outcome().is_some()) => {}
        }
    }

    /// Removes a content that is asleep, or else returns the driver of one that is
    /// awake.
    pub(in crate::peer) fn take(&self, id: &ContentId) -> Option<Taken> {
        let mut table = self.table();
        match table.contents.get(id)? {
            State::Awake(driver) => Some(Taken::Awake(driver.clone())),
            State::Asleep(asleep) => {
                let asleep = Arc::clone(asleep);
                table.contents.remove(id);
                Some(Taken::Asleep(asleep))
            }
        }
    }

    /// Whether a content is here that does not belong to a folder.
    pub(in crate::peer) fn is_alone(&self, id: &ContentId) -> bool {
        let table = self.table();
        table
            .contents
            .get(id)
            .is_some_and(|state| state.role() == Role::Alone)
    }

    /// The contents that are complete and stay, and of which the trackers know.
    pub(in crate::peer) fn complete(&self) -> Vec<Content> {
        let table = self.table();
        let known = |(id, _): &(&ContentId, &State)| !table.announcing.contains_key(*id);
        let listed = |(_, state): &(&ContentId, &State)| state.role() != Role::File;
        let complete = table.contents.iter().filter(known).filter(listed);
        let mut complete: Vec<Content> = complete
            .filter_map(|(_, state)| match state {
                State::Asleep(asleep) => Some(asleep.content.clone()),
                State::Awake(driver) => driver.complete(),
            })
            .collect();
        complete.sort_by_key(|content| content.id);
        complete
    }

    /// How many contents are complete and stay, and how many have a driver.
    pub(in crate::peer) fn counts(&self) -> (usize, usize) {
        let table = self.table();
        let (mut complete, mut awake) = (0, 0);
        for state in table.contents.values() {
            match state {
                State::Asleep(_) => complete += 1,
                State::Awake(driver) => {
                    awake += 1;
                    complete += usize::from(driver.complete().is_some());
                }
            }
        }
        (complete, awake)
    }

    /// Whether a complete content has this name, other than this one.
    pub(in crate::peer) fn is_taken(&self, name: &ContentName, but: &ContentId) -> bool {
        let table = self.table();
        table.contents.iter().any(|(id, state)| {
            id != but
                && match state {
                    State::Asleep(asleep) => asleep.content.name == *name,
                    State::Awake(driver) => driver.complete().is_some_and(|c| c.name == *name),
                }
        })
    }

    /// Ignores poison: no change under this lock is left half done.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A content that was asked for to be removed.
pub(in crate::peer) enum Taken {
    /// It is removed.
    Asleep(Arc<Asleep>),
    /// Its driver has to end.
    Awake(DriverHandle),
}
