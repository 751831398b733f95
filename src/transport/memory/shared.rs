//! A network as its handles and halves share it: the lock around its state, its
//! clock, and the task that lets time pass.
//!
//! All that is shaped goes through one lock, in the order of the calls. The task
//! runs only while something will happen by itself (a frame that a line carries,
//! or that travels), and ends with it. So a network that is no longer used
//! leaves nothing behind.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::lock::lock;
use super::pipe::FlowItem;
use super::schedule::{EndpointId, FlowId};
use super::state::NetworkState;

#[derive(Debug)]
pub(super) struct SharedNetwork {
    /// Nothing was ever shaped or recorded, so frames need no lock but that of
    /// their pipe. It never becomes true again, so that no frame overtakes one
    /// that is still on its way.
    plain: AtomicBool,
    driven: Mutex<Driven>,
    /// Frames may pass between two endpoints again.
    opened: Notify,
    /// Something will happen earlier than the task waits for.
    earlier: Notify,
}

/// The state of the network, with its clock and its task.
#[derive(Debug)]
struct Driven {
    network: NetworkState,
    /// When the network was first used inside a runtime.
    start: Option<Instant>,
    /// The runtime of the last dialler, for calls from outside of any runtime.
    runtime: Option<Handle>,
    /// Until when the task waits, if it runs.
    driven_until: Option<Duration>,
}

impl Driven {
    /// The time on this network. It starts with the first use inside a runtime:
    /// before that, there is no clock that could be paused.
    fn now(&mut self) -> Duration {
        match self.start {
            Some(start) => Instant::now().saturating_duration_since(start),
            None => {
                self.start = Handle::try_current().is_ok().then(Instant::now);
                Duration::ZERO
            }
        }
    }
}

impl SharedNetwork {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            plain: AtomicBool::new(true),
            driven: Mutex::new(Driven {
                network: NetworkState::new(seed),
                start: None,
                runtime: None,
                driven_until: None,
            }),
            opened: Notify::new(),
            earlier: Notify::new(),
        }
    }

    /// Whether frames may skip the schedule.
    pub(super) fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Acquire)
    }

    /// From now on, all frames go through the schedule.
    pub(super) fn shape(&self) {
        self.plain.store(false, Ordering::Release);
    }

    /// Frames may pass between two endpoints again.
    pub(super) fn notify_opened(&self) {
        self.opened.notify_waiters();
    }

    /// Changes the network, then delivers what is due, and wakes the tasks that
    /// wait for it.
    pub(super) fn update<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut NetworkState, Duration) -> R,
    ) -> R {
        let mut driven = lock(&self.driven);
        let now = driven.now();
        let result = change(&mut driven.network, now);
        driven.network.deliver(now);
        let wakers = driven.network.take_wakers();
        let start_on = self.plan_task(&mut driven);
        drop(driven);
        if let Some(runtime) = start_on {
            let task = DriverTask {
                shared: self.clone(),
                done: false,
            };
            runtime.spawn(task.run());
        }
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// Makes sure that the task wakes up in time for the next event. Returns the
    /// runtime on which to start it, if it has to be started.
    fn plan_task(&self, driven: &mut Driven) -> Option<Handle> {
        let next = driven.network.schedule.next_event()?;
        match driven.driven_until {
            None => {
                let current = Handle::try_current().ok();
                let runtime = current.or_else(|| driven.runtime.clone())?;
                driven.driven_until = Some(next);
                Some(runtime)
            }
            Some(until) if next < until => {
                driven.driven_until = Some(next);
                self.earlier.notify_one();
                None
            }
            Some(_) => None,
        }
    }

    /// Delivers what is due, and returns when the task must do so again.
    fn advance(&self) -> Option<Instant> {
        let mut driven = lock(&self.driven);
        let now = driven.now();
        driven.network.deliver(now);
        let wakers = driven.network.take_wakers();
        driven.driven_until = driven.network.schedule.next_event();
        let (start, until) = (driven.start, driven.driven_until);
        drop(driven);
        wakers.into_iter().for_each(Waker::wake);
        Some(start? + until?)
    }

    /// Remembers the runtime of the caller.
    pub(super) fn note_runtime(&self) {
        lock(&self.driven).runtime = Handle::try_current().ok();
    }

    /// Sends something on a flow. It arrives at once if nothing delays it.
    pub(super) fn send(self: &Arc<Self>, flow: FlowId, item: FlowItem) {
        self.update(|network, now| network.send(now, flow, item));
    }

    /// Nobody reads a flow any more.
    pub(super) fn abandon(self: &Arc<Self>, flow: FlowId) {
        self.update(|network, now| network.abandon(now, flow));
    }

    /// Returns once frames can pass between two endpoints.
    pub(super) async fn passable(self: &Arc<Self>, one: EndpointId, other: EndpointId) {
        loop {
            // Registered before the check, so that no opening is missed.
            let mut opened = pin!(self.opened.notified());
            opened.as_mut().enable();
            if self.update(|network, _| network.is_passable(one, other)) {
                return;
            }
            opened.await;
        }
    }
}

/// The task that lets time pass. If it is dropped with its runtime, it clears the
/// way for another one.
struct DriverTask {
    shared: Arc<SharedNetwork>,
    /// It has ended by itself, so another task may already run.
    done: bool,
}

impl DriverTask {
    async fn run(mut self) {
        loop {
            let shared = self.shared.clone();
            let earlier = shared.earlier.notified();
            let Some(next) = shared.advance() else {
                self.done = true;
                return;
            };
            tokio::select! {
                () = sleep_until(next) => {}
                () = earlier => {}
            }
        }
    }
}

impl Drop for DriverTask {
    fn drop(&mut self) {
        if !self.done {
            lock(&self.shared.driven).driven_until = None;
        }
    }
}
