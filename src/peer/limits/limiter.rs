//! The limits of a peer, shared by all of its drivers.
//!
//! A driver has a [`Seat`]. As long as nothing limits its content, it takes no lock: it
//! looks at a counter that changes with the limits. While something waits, one task sleeps
//! until the next turn, and wakes the driver that has it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::config::{ContentLimits, RateLimits};
use super::turns::{Turn, Turns};
use crate::content::ContentId;
use crate::peer::swarm::{Allowance, AllowanceKind, Direction, Swarm};
use crate::peer::tasks::Tasks;

/// When the limits of so many contents are kept, those of contents that are not here any
/// more are looked for.
const MIN_KEPT: usize = 1024;

/// The limits of a peer.
pub(in crate::peer) struct Limiter {
    state: Mutex<State>,
    /// Changes with the limits. Zero as long as there were none.
    version: AtomicU64,
    /// The next turn may come earlier than the task knows.
    earlier: Notify,
    tasks: Arc<Tasks>,
}

#[derive(Default)]
struct State {
    limits: RateLimits,
    contents: BTreeMap<ContentId, ContentLimits>,
    /// When there are so many, those that are gone are forgotten.
    prune_at: usize,
    upload: Turns,
    download: Turns,
    /// The drivers of contents that are limited.
    drivers: BTreeMap<ContentId, Mailbox>,
    /// Whether the task runs that waits for turns.
    is_waiting: bool,
}

/// What a driver is told.
#[derive(Default)]
struct Mailbox {
    /// At most one of a kind for each host and direction: no more is asked for at a time.
    allowed: Vec<Allowance>,
    news: Arc<Notify>,
}

impl Limiter {
    pub(in crate::peer) fn new(limits: RateLimits, tasks: Arc<Tasks>) -> Self {
        let limiter = Self {
            state: Mutex::default(),
            version: AtomicU64::new(0),
            earlier: Notify::new(),
            tasks,
        };
        if limits != RateLimits::default() {
            limiter.set(limits);
        }
        limiter
    }

    /// The limits of the whole peer.
    pub(in crate::peer) fn limits(&self) -> RateLimits {
        self.state().limits
    }

    /// Changes the limits of the whole peer.
    pub(in crate::peer) fn set(&self, limits: RateLimits) {
        let now = now();
        let mut state = self.state();
        state.limits = limits;
        state.upload.set_peer(now, limits.upload);
        state.upload.set_per_host(now, limits.upload_per_host);
        state.download.set_peer(now, limits.download);
        state.download.set_per_host(now, limits.download_per_host);
        self.changed(state);
    }

    /// The limits of a content of its own.
    pub(in crate::peer) fn content(&self, id: &ContentId) -> ContentLimits {
        self.state().contents.get(id).copied().unwrap_or_default()
    }

    /// Changes them. `is_here` says of which contents they are kept.
    pub(in crate::peer) fn set_content(
        &self,
        id: ContentId,
        limits: ContentLimits,
        is_here: impl Fn(&ContentId) -> bool,
    ) {
        let now = now();
        let mut state = self.state();
        state.upload.set_content(now, id, limits.upload);
        state.download.set_content(now, id, limits.download);
        match limits == ContentLimits::default() {
            true => _ = state.contents.remove(&id),
            false => _ = state.contents.insert(id, limits),
        }
        state.prune(now, |other| *other == id || is_here(other));
        self.changed(state);
    }

    fn changed(&self, state: MutexGuard<'_, State>) {
        // Before the drivers are woken.
        self.version.fetch_add(1, Ordering::Release);
        for driver in state.drivers.values() {
            driver.news.notify_one();
        }
        drop(state);
        self.earlier.notify_one();
    }

    /// Gives out the turns that have come, until none waits.
    async fn wait_for_turns(self: Arc<Self>) {
        loop {
            let due = {
                let mut state = self.state();
                state.give_turns(now());
                let due = state.due(now());
                state.is_waiting = due.is_some();
                due
            };
            let Some(due) = due else {
                return;
            };
            tokio::select! {
                biased;
                () = self.tasks.stop.cancelled() => return,
                () = sleep_until(Instant::from_std(due)) => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    /// Starts the task that waits for turns, if some have to wait and it does not run.
    fn ensure_waiting(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.due(now()).is_none() {
            return;
        }
        if std::mem::replace(&mut state.is_waiting, true) {
            drop(state);
            return self.earlier.notify_one();
        }
        drop(state);
        let waits = Arc::clone(self).wait_for_turns();
        self.tasks.spawn(self.tasks.span.clone(), waits);
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn turns(&mut self, direction: Direction) -> &mut Turns {
        match direction {
            Direction::Upload => &mut self.upload,
            Direction::Download => &mut self.download,
        }
    }

    fn give_turns(&mut self, now: std::time::Instant) {
        for direction in [Direction::Upload, Direction::Download] {
            while let Some(turn) = self.turns(direction).next(now) {
                let Turn {
                    kind,
                    content,
                    host,
                    bytes,
                } = turn;
                if let Some(driver) = self.drivers.get_mut(&content) {
                    driver.allowed.push(Allowance {
                        kind,
                        direction,
                        host,
                        bytes,
                    });
                    driver.news.notify_one();
                }
            }
        }
    }

    fn due(&self, now: std::time::Instant) -> Option<std::time::Instant> {
        let both = [self.upload.due(now), self.download.due(now)];
        both.into_iter().flatten().min()
    }

    /// Forgets the limits of contents that are gone, when there are many.
    fn prune(&mut self, now: std::time::Instant, is_here: impl Fn(&ContentId) -> bool) {
        if self.contents.len() < self.prune_at.max(MIN_KEPT) {
            return;
        }
        let gone = self.contents.keys().filter(|id| !is_here(id));
        let gone: Vec<ContentId> = gone.copied().collect();
        for id in gone {
            self.contents.remove(&id);
            self.upload.set_content(now, id, None);
            self.download.set_content(now, id, None);
        }
        self.prune_at = 2 * self.contents.len();
    }

    fn give_back(&mut self, now: std::time::Instant, content: ContentId, of: Allowance) {
        let Allowance {
            kind,
            direction,
            host,
            bytes,
        } = of;
        if kind == AllowanceKind::Invitation {
            // It has taken nothing.
            return;
        }
        let turn = Turn {
            kind,
            content,
            host,
            bytes,
        };
        self.turns(direction).give_back(now, &turn);
    }
}

/// What a driver holds of the limits.
pub(in crate::peer) struct Seat {
    limiter: Arc<Limiter>,
    id: ContentId,
    /// What its bytes count for as well: the folder of a file.
    group: Option<ContentId>,
    /// As of which version of the limits the machine is limited.
    version: u64,
    /// `None` as long as nothing limits the content.
    news: Option<Arc<Notify>>,
}

impl Seat {
    /// `group` is what the bytes of the content count for as well.
    pub(in crate::peer) fn new(
        limiter: &Arc<Limiter>,
        id: ContentId,
        group: Option<ContentId>,
    ) -> Self {
        Self {
            limiter: Arc::clone(limiter),
            id,
            group,
            version: 0,
            news: None,
        }
    }

    /// Limits the machine as it is wanted now. Returns whether that has changed. Call it
    /// before each input: it costs a look at a counter.
    pub(in crate::peer) fn follow(&mut self, swarm: &mut Swarm) -> bool {
        let version = self.limiter.version.load(Ordering::Acquire);
        let changed = version != self.version;
        if changed {
            self.version = version;
            self.limits_changed(swarm);
        }
        changed
    }

    /// The same, and passes on what the machine wishes for and what it is allowed. Returns
    /// whether anything was done.
    pub(in crate::peer) fn run(&mut self, swarm: &mut Swarm) -> bool {
        let changed = self.follow(swarm);
        match &self.news {
            Some(_) => self.exchange(swarm) || changed,
            None => changed,
        }
    }

    /// Waits until there is something to pass on. Never ends without limits.
    ///
    /// Cancel safe.
    pub(in crate::peer) async fn news(&self) {
        match &self.news {
            Some(news) => news.notified().await,
            None => std::future::pending().await,
        }
    }

    fn limits_changed(&mut self, swarm: &mut Swarm) {
        let (upload, download) = {
            let mut state = self.limiter.state();
            let group = self.group.as_ref();
            let upload = state.upload.limits(&self.id, group);
            let download = state.download.limits(&self.id, group);
            if (upload || download) && self.news.is_none() {
                let mailbox = Mailbox::default();
                self.news = Some(Arc::clone(&mailbox.news));
                state.drivers.insert(self.id, mailbox);
                if let Some(group) = self.group {
                    state.upload.join(self.id, group);
                    state.download.join(self.id, group);
                }
            }
            (upload, download)
        };
        let now = now();
        swarm.set_limited(now, Direction::Upload, upload);
        swarm.set_limited(now, Direction::Download, download);
        if !upload && !download {
            self.leave();
        }
    }

    fn exchange(&self, swarm: &mut Swarm) -> bool {
        let mut any = false;
        loop {
            let now = now();
            let mut state = self.limiter.state();
            let mut asks = false;
            while let Some(returned) = swarm.poll_returned() {
                state.give_back(now, self.id, returned);
                asks = true;
            }
            while let Some(wish) = swarm.poll_wish() {
                let Allowance {
                    kind,
                    direction,
                    host,
                    bytes,
                } = wish;
                let content = self.id;
                let turn = Turn {
                    kind,
                    content,
                    host,
                    bytes,
                };
                state.turns(direction).ask(now, turn);
                asks = true;
            }
            if asks {
                state.give_turns(now);
            }
            let mailbox = state.drivers.get_mut(&self.id);
            let allowed = mailbox.map(|mailbox| std::mem::take(&mut mailbox.allowed));
            if asks {
                self.limiter.ensure_waiting(state);
            } else {
                drop(state);
            }
            let allowed = allowed.unwrap_or_default();
            any |= asks || !allowed.is_empty();
            if allowed.is_empty() && !asks {
                return any;
            }
            for allowance in allowed {
                swarm.allow(now, &allowance);
            }
        }
    }

    /// Nothing of the content waits any more.
    fn leave(&mut self) {
        let Some(news) = self.news.take() else {
            return;
        };
        let mut state = self.limiter.state();
        let is_own = |mailbox: &Mailbox| Arc::ptr_eq(&mailbox.news, &news);
        if !state.drivers.get(&self.id).is_some_and(is_own) {
            // The content has a new driver already.
            return;
        }
        state.upload.forget(&self.id);
        state.download.forget(&self.id);
        let mailbox = state.drivers.remove(&self.id);
        for unused in mailbox.into_iter().flat_map(|mailbox| mailbox.allowed) {
            state.give_back(now(), self.id, unused);
        }
        drop(state);
        // Others may have their turns earlier.
        self.limiter.earlier.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
