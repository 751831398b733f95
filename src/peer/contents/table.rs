//! The contents of one peer: asleep, or awake with a driver.
//!
//! A complete content that nobody asks for is asleep: it has no task, no channel
//! and no open file, and its manifest is not in memory if it can be had from the
//! storage. The first link wakes it, and when its last link is gone it falls
//! asleep again.

mod eviction;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::content::{Content, ContentId, ContentName, Manifest};
use crate::peer::contents::asleep::{Asleep, KeptManifest};
use crate::peer::contents::inbox::{DriverInput, Inbox, NewLink};
use crate::peer::contents::place::{MAX_PLACES, Place};
use crate::peer::contents::read_boards::ReadBoards;
use crate::peer::contents::readers::{ReaderBoard, ReaderDesk};
use crate::peer::contents::role::Role;
use crate::peer::contents::status::{ContentStatus, StatusSender};
use crate::peer::contents::uploads::Uploads;
use crate::peer::downloads::control::DownloadControl;
use crate::peer::downloads::holders::Holders;
use crate::peer::events::download_watchers::DownloadWatchers;
use crate::peer::swarm::LinkId;
use crate::storage::{Blob, StorageError};

/// All contents of one peer.
pub(in crate::peer) struct Contents {
    table: Mutex<Table>,
    waker: Box<dyn Waker>,
    /// Ends every driver in order.
    stop: CancellationToken,
    next_link: AtomicU64,
    /// When the ticks of the table began.
    started: Instant,
}

#[derive(Default)]
struct Table {
    contents: HashMap<ContentId, State>,
    /// Contents that are complete, and that no tracker has accepted yet; each with
    /// what is cancelled then.
    announcing: HashMap<ContentId, CancellationToken>,
    /// Other places of contents that are here, of those that have several.
    places: HashMap<ContentId, Vec<Place>>,
    /// What was sent of contents that are here, of those that were awake. One that
    /// nobody reads and that is zero may be missing.
    uploads: HashMap<ContentId, Uploads>,
    /// What is never evicted, here or not.
    pinned: HashSet<ContentId>,
    /// Who reads contents that are asleep, if any may be evicted.
    boards: Option<ReadBoards>,
}

impl Table {
    /// Forgets a content. Returns its other places.
    fn remove(&mut self, id: &ContentId) -> Vec<Place> {
        self.contents.remove(id);
        self.uploads.remove(id);
        self.places.remove(id).unwrap_or_default()
    }

    /// Whether a content is here by itself: not only in a folder, where it has one place.
    fn is_alone(&self, id: &ContentId, state: &State) -> bool {
        state.role().is_by_itself() || self.places.contains_key(id)
    }
}

enum State {
    Asleep(Arc<Asleep>),
    /// In a box: far more contents are asleep, and need no room for it.
    Awake(Box<DriverHandle>),
}

impl State {
    fn role(&self) -> Role {
        match self {
            Self::Asleep(asleep) => asleep.role,
            Self::Awake(driver) => driver.role,
        }
    }
}

/// How the rest of the peer reaches a driver.
#[derive(Clone)]
pub(in crate::peer) struct DriverHandle {
    pub(in crate::peer) inbox: mpsc::Sender<DriverInput>,
    pub(in crate::peer) status: watch::Receiver<ContentStatus>,
    /// Those who read the content here.
    pub(in crate::peer) readers: Arc<ReaderBoard>,
    /// Ends the driver.
    pub(in crate::peer) stop: CancellationToken,
    /// Who wants the download. When nobody does any more, the driver ends, unless its
    /// content is complete.
    pub(in crate::peer) holders: Arc<Holders>,
    /// What the content is.
    pub(in crate::peer) role: Role,
    /// What is wanted of the download; nothing of a content that is complete.
    pub(in crate::peer) control: Option<Arc<DownloadControl>>,
    /// Those who watch the download; nobody of a content that is complete.
    pub(in crate::peer) watchers: Option<Arc<DownloadWatchers>>,
    /// Whether it is downloaded for one caller only, and does not stay.
    pub(in crate::peer) is_private: bool,
    /// Whether it only passes through, so that nobody else can join.
    pub(in crate::peer) is_passing: bool,
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
    pub(in crate::peer) status: StatusSender,
    pub(in crate::peer) readers: ReaderDesk,
    pub(in crate::peer) handle: DriverHandle,
}

/// The state of a content that this peer has already.
pub(in crate::peer) enum Settled {
    /// It is complete, and shared.
    Complete,
    /// It is being downloaded, by this driver.
    Downloading(DriverHandle),
    /// It is not here, or not any more.
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
                    Some(_) => return Settled::Complete,
                    None if self.holders.cancelled().is_cancelled() => {}
                    None => {
                        drop(status);
                        return Settled::Downloading(self);
                    }
                }
            }
            tokio::select! {
                () = self.inbox.closed() => {}
                Ok(()) = self.status.changed() => {}
            }
        }
    }

    /// Waits until the download has ended.
    ///
    /// Cancel safe.
    pub(in crate::peer) async fn ended(mut self) {
        tokio::select! {
            () = self.inbox.closed() => {}
            _ = self.status.wait_for(|status| status.outcome().is_some()) => {}
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
    /// claim comes back. `counted` says that what was sent of it is not zero, or that
    /// somebody reads that.
    pub(in crate::peer) fn sleep(
        mut self,
        asleep: Asleep,
        inbox: &Inbox,
        counted: bool,
    ) -> Result<(), Self> {
        let Some(contents) = self.contents.take() else {
            return Ok(());
        };
        let mut table = contents.table();
        // Whoever has a permit to send a link keeps the content awake, and permits
        // of those that come later fail. So no link is lost.
        if inbox.is_idle() {
            asleep.touch(contents.tick());
            let asleep = State::Asleep(Arc::new(asleep));
            if let Some(State::Awake(driver)) = table.contents.insert(self.id, asleep) {
                contents.note_board(&mut table, self.id, &driver.readers);
            }
            if !counted {
                table.uploads.remove(&self.id);
            }
            return Ok(());
        }
        drop(table);
        self.contents = Some(contents);
        Err(self)
    }

    /// Puts the content back to sleep, whatever waits in its inbox.
    pub(in crate::peer) fn sleep_again(mut self, asleep: Arc<Asleep>) {
        if let Some(contents) = self.contents.take() {
            asleep.touch(contents.tick());
            let mut table = contents.table();
            table.contents.insert(self.id, State::Asleep(asleep));
        }
    }
}

impl Drop for DriverClaim {
    fn drop(&mut self) {
        if let Some(contents) = &self.contents {
            contents.table().remove(&self.id);
        }
    }
}

impl Contents {
    /// An empty table. `evicts` says that contents may have to be evicted.
    pub(in crate::peer) fn new(
        waker: Box<dyn Waker>,
        stop: CancellationToken,
        evicts: bool,
    ) -> Self {
        let table = Table {
            boards: evicts.then(ReadBoards::default),
            ..Table::default()
        };
        Self {
            table: Mutex::new(table),
            waker,
            stop,
            next_link: AtomicU64::new(0),
            started: Instant::now(),
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
        self.link_if(id, Role::has_sessions, make).await
    }

    /// The same for contents of some roles only: this peer has no others for `is_meant`.
    pub(in crate::peer) async fn link_if(
        self: &Arc<Self>,
        id: ContentId,
        is_meant: impl Fn(Role) -> bool,
        make: impl FnOnce(mpsc::Sender<DriverInput>, LinkId) -> NewLink,
    ) -> bool {
        loop {
            let handle = {
                let mut table = self.table();
                match table.contents.get(&id) {
                    None => return false,
                    Some(state) if !is_meant(state.role()) => return false,
                    Some(State::Awake(handle)) => (**handle).clone(),
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
        let uploads = table.uploads.entry(id).or_default().clone();
        let shared = ContentStatus::shared_in(content.geometry(), content.content.clone(), uploads);
        let status = StatusSender::new(shared);
        let watched = status.subscribe();
        // Nobody cancels what is complete.
        let (holders, _) = Holders::new();
        let handle = DriverHandle {
            role: content.role,
            ..self.handle(&inbox, watched, holders)
        };
        table
            .contents
            .insert(id, State::Awake(Box::new(handle.clone())));
        Waking {
            content,
            claim: DriverClaim::new(self, id),
            inbox,
            status,
            readers: ReaderDesk::new(Arc::clone(&handle.readers)),
            handle,
        }
    }

    /// The handle of a new driver.
    pub(in crate::peer) fn handle(
        &self,
        inbox: &Inbox,
        status: watch::Receiver<ContentStatus>,
        holders: Arc<Holders>,
    ) -> DriverHandle {
        DriverHandle {
            inbox: inbox.sender(),
            status,
            readers: Arc::default(),
            stop: self.stop.child_token(),
            holders,
            role: Role::Alone,
            control: None,
            watchers: None,
            is_private: false,
            is_passing: false,
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
            let settled = {
                let mut table = self.table();
                match table.contents.entry(id) {
                    Entry::Occupied(_) => None,
                    Entry::Vacant(free) => {
                        free.insert(State::Awake(Box::new(handle.clone())));
                        let uploads = handle.status.borrow().uploads().clone();
                        table.uploads.insert(id, uploads);
                        Some(DriverClaim::new(self, id))
                    }
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
        asleep.touch(self.tick());
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

    /// Adds a place of a complete content, unless there are [`MAX_PLACES`], or the
    /// content is not here. `main` is its first one.
    pub(in crate::peer) fn add_place(
        &self,
        id: &ContentId,
        main: &Place,
        mut place: Place,
    ) -> AddedPlace {
        let mut table = self.table();
        if !table.contents.contains_key(id) {
            return AddedPlace::NotHere;
        }
        if main.is_same(&place) {
            return AddedPlace::Known;
        }
        let places = table.places.entry(*id).or_default();
        // A file is no less this peer's when it is found again.
        let mut known = std::iter::once(main).chain(places.iter());
        place.written_here |=
            known.any(|known| known.written_here && known.is_file_of(&*place.blob));
        if places.iter().any(|other| other.is_same(&place)) {
            return AddedPlace::Known;
        }
        places.retain(|other| !place.replaces(other));
        // The first one is not among them.
        if places.len() + 1 >= MAX_PLACES {
            return AddedPlace::Full;
        }
        places.push(place);
        AddedPlace::Added
    }

    /// Removes one of the other places of a content.
    pub(in crate::peer) fn remove_place(&self, id: &ContentId, place: &Place) {
        let mut table = self.table();
        if let Some(places) = table.places.get_mut(id) {
            places.retain(|other| !other.is_same(place));
            if places.is_empty() {
                table.places.remove(id);
            }
        }
    }

    /// Removes all other places of a content.
    pub(in crate::peer) fn remove_places(&self, id: &ContentId) {
        self.table().places.remove(id);
    }

    /// Takes the next of the other places of a content, to become its first one.
    pub(in crate::peer) fn next_place(&self, id: &ContentId) -> Option<Place> {
        let mut table = self.table();
        let places = table.places.get_mut(id)?;
        let next = (!places.is_empty()).then(|| places.remove(0));
        if places.is_empty() {
            table.places.remove(id);
        }
        next
    }

    /// A complete content as it sleeps, and its other places. Waits for the driver if
    /// it is awake, or about to end.
    pub(in crate::peer) async fn places(
        &self,
        id: &ContentId,
    ) -> Option<(Arc<Asleep>, Vec<Place>)> {
        loop {
            let driver = {
                let table = self.table();
                match table.contents.get(id)? {
                    State::Asleep(asleep) => {
                        let places = table.places.get(id).cloned();
                        return Some((Arc::clone(asleep), places.unwrap_or_default()));
                    }
                    State::Awake(driver) => driver.clone(),
                }
            };
            if driver.stop.is_cancelled() {
                // It may be elsewhere in a moment.
                driver.inbox.closed().await;
                continue;
            }
            driver.complete()?;
            let (tell, told) = oneshot::channel();
            // Both fail if it has ended or fallen asleep meanwhile.
            let asked = driver.inbox.send(DriverInput::Describe(tell)).await;
            if asked.is_ok()
                && let Ok(asleep) = told.await
            {
                let places = self.table().places.get(id).cloned();
                return Some((asleep, places.unwrap_or_default()));
            }
            driver.inbox.closed().await;
        }
    }

    /// Tells the driver of a complete content, if it has one, that it cannot be read from
    /// this blob.
    pub(in crate::peer) async fn unreadable(
        &self,
        id: &ContentId,
        blob: &Arc<dyn Blob>,
        error: StorageError,
    ) {
        let inbox = match self.table().contents.get(id) {
            Some(State::Awake(driver)) => driver.inbox.clone(),
            Some(State::Asleep(_)) | None => return,
        };
        let blob = Arc::clone(blob);
        // Fails if it has ended meanwhile.
        let _ = inbox.send(DriverInput::Unreadable { blob, error }).await;
    }

    /// The names that a complete content has here, and the content. As a file of a folder
    /// it has none.
    pub(in crate::peer) fn names(&self, id: &ContentId) -> Option<(Content, Vec<ContentName>)> {
        let table = self.table();
        let state = table.contents.get(id)?;
        let content = match state {
            State::Asleep(asleep) => asleep.content.clone(),
            State::Awake(driver) => driver.complete()?,
        };
        let own_name = (state.role() != Role::File).then(|| content.name.clone());
        let mut names: Vec<_> = own_name.into_iter().collect();
        for place in table.places.get(id).into_iter().flatten() {
            if !names.contains(&place.name) {
                names.push(place.name.clone());
            }
        }
        Some((content, names))
    }

    /// The name of a content that is here, or is fetched and known by a name.
    pub(in crate::peer) fn known_name(&self, id: &ContentId) -> Option<ContentName> {
        match self.table().contents.get(id)? {
            State::Asleep(asleep) => Some(asleep.content.name.clone()),
            State::Awake(driver) => {
                let status = driver.status.borrow();
                status.content().map(|content| content.name.clone())
            }
        }
    }

    /// The complete contents that have this name, here or at trackers.
    pub(in crate::peer) fn named(&self, name: &ContentName) -> Vec<ContentId> {
        let table = self.table();
        let has_name = |id: &ContentId, state: &State| {
            let mut more = table.places.get(id).into_iter().flatten();
            more.any(|place| place.name == *name || place.listed_as == *name)
                || match state {
                    State::Asleep(asleep) => {
                        asleep.content.name == *name || asleep.listed_as() == name
                    }
                    State::Awake(driver) => driver.complete().is_some_and(|c| c.name == *name),
                }
        };
        let named = table.contents.iter();
        let named = named.filter(|(id, state)| has_name(id, state));
        named.map(|(id, _)| *id).collect()
    }

    /// The complete contents of which a file with this name may be a place. O(contents).
    pub(in crate::peer) fn may_lie_at(&self, name: &ContentName) -> Vec<ContentId> {
        let table = self.table();
        let may_lie = |id: &ContentId, state: &State| {
            let mut others = table.places.get(id).into_iter().flatten();
            let may_first = match state {
                State::Asleep(asleep) => asleep.place().may_lie_at(name),
                // Few are awake. Only their drivers know their files.
                State::Awake(driver) => driver.complete().is_some(),
            };
            may_first || others.any(|place| place.may_lie_at(name))
        };
        let contents = table.contents.iter();
        let contents = contents.filter(|(id, state)| may_lie(id, state));
        contents.map(|(id, _)| *id).collect()
    }

    /// How to ask about a content that is here, if somebody drives it, and what is known of
    /// it without.
    pub(in crate::peer) fn watched(
        &self,
        id: &ContentId,
    ) -> Option<(Option<mpsc::Sender<DriverInput>>, ContentStatus)> {
        let table = self.table();
        Some(match table.contents.get(id)? {
            State::Awake(driver) => {
                let status = driver.status.borrow().clone();
                (Some(driver.inbox.clone()), status)
            }
            State::Asleep(asleep) => {
                let uploads = table.uploads.get(id).cloned().unwrap_or_default();
                let status =
                    ContentStatus::shared_in(asleep.geometry(), asleep.content.clone(), uploads);
                (None, status)
            }
        })
    }

    /// What was sent of a content.
    pub(in crate::peer) fn uploads(&self, id: &ContentId) -> Uploads {
        self.table().uploads.get(id).cloned().unwrap_or_default()
    }

    /// The same, for somebody who goes on reading it.
    pub(in crate::peer) fn watch_uploads(&self, id: &ContentId) -> Uploads {
        let mut table = self.table();
        match table.contents.contains_key(id) {
            true => table.uploads.entry(*id).or_default().clone(),
            false => Uploads::default(),
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
        {
            asleep.set_recorded();
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
                    Some(State::Asleep(_)) if announcing.is_none() => {
                        return Settled::Complete;
                    }
                    Some(State::Asleep(_)) => (announcing, None),
                    Some(State::Awake(driver)) => (announcing, Some((**driver).clone())),
                }
            };
            match (announcing, driver) {
                (Some(announcing), _) => announcing.cancelled().await,
                (None, Some(driver)) => match driver.settled().await {
                    // It may have left the content asleep.
                    Settled::Ended => {}
                    settled => return settled,
                },
                (None, None) => {}
            }
        }
    }

    /// Where a content can be read, if it is here.
    pub(in crate::peer) fn readable(&self, id: &ContentId) -> Option<Readable> {
        Some(match self.table().contents.get(id)? {
            State::Asleep(asleep) => Readable::Asleep(Arc::clone(asleep)),
            State::Awake(driver) if driver.is_passing => Readable::Passing,
            State::Awake(driver) => Readable::Awake(Arc::clone(&driver.readers)),
        })
    }

    /// The manifest of a content that is asleep, if it is in memory.
    pub(in crate::peer) fn kept_manifest(&self, id: &ContentId) -> Option<Manifest> {
        match self.table().contents.get(id)? {
            State::Asleep(asleep) => match asleep.manifest() {
                KeptManifest::Here(manifest) => Some((**manifest).clone()),
                KeptManifest::Recorded | KeptManifest::Derived => None,
            },
            State::Awake(_) => None,
        }
    }

    /// Removes a content that is asleep, with all places, or else returns the driver of
    /// one that is awake.
    pub(in crate::peer) fn take(&self, id: &ContentId) -> Option<Taken> {
        let mut table = self.table();
        match table.contents.get(id)? {
            State::Awake(driver) => Some(Taken::Awake((**driver).clone())),
            State::Asleep(asleep) => {
                let asleep = Arc::clone(asleep);
                table.remove(id);
                Some(Taken::Asleep(asleep))
            }
        }
    }

    /// What a content is, if it is here.
    pub(in crate::peer) fn role(&self, id: &ContentId) -> Option<Role> {
        self.table().contents.get(id).map(State::role)
    }

    /// Whether a content is here by itself, also if it belongs to a folder as well.
    pub(in crate::peer) fn is_alone(&self, id: &ContentId) -> bool {
        let table = self.table();
        let is_alone = |state: &State| table.is_alone(id, state);
        table.contents.get(id).is_some_and(is_alone)
    }

    /// The contents that are complete and stay, and of which the trackers know.
    pub(in crate::peer) fn complete(&self) -> Vec<Content> {
        let table = self.table();
        let known = |(id, _): &(&ContentId, &State)| !table.announcing.contains_key(*id);
        let listed = |(id, state): &(&ContentId, &State)| {
            state.role() == Role::Index || table.is_alone(id, state)
        };
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

    /// Ignores poison: no change under this lock is left half done.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a place that was to be added.
pub(in crate::peer) enum AddedPlace {
    Added,
    /// It is there already.
    Known,
    /// There are too many.
    Full,
    /// The content is not here.
    NotHere,
}

/// A content that can be read here.
pub(in crate::peer) enum Readable {
    /// It is complete.
    Asleep(Arc<Asleep>),
    /// It is complete or being downloaded.
    Awake(Arc<ReaderBoard>),
    /// It passes through a stream, which alone reads it.
    Passing,
}

pub(in crate::peer) use eviction::{Evicting, Kept};

/// A content that was asked for to be removed.
pub(in crate::peer) enum Taken {
    /// It is removed.
    Asleep(Arc<Asleep>),
    /// Its driver has to end.
    Awake(DriverHandle),
}
