//! A network as its handles and halves hold it: the lock around its state, and
//! the task that lets time pass.
//!
//! All that is shaped goes through one lock, in the order of the calls. The
//! task runs only while something is bound to happen by itself (a frame in
//! service or on its way) and ends with it, so a network that is no longer
//! used leaves nothing behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep_until;

use super::link::{MemorySink, MemoryStream, Pipe};
use super::network::{Core, Parcel};
use super::rates::{EndpointId, FlowId};
use super::trace::TraceKind;
use crate::transport::{Addr, Connection, LimitHandle};

/// Locks; what a panicking holder left behind is still consistent, for nothing
/// here panics between two writes that belong together.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(super) struct Shared {
    /// Nothing was ever shaped or recorded: frames need no lock but their
    /// link's. It never becomes true again, so that no frame overtakes one
    /// that is still on its way.
    plain: AtomicBool,
    core: Mutex<Core>,
    /// The way between two endpoints may have opened.
    opened: Notify,
    /// Something happens earlier than the task waits for.
    earlier: Notify,
}

/// What came of knocking at an address.
pub(super) struct Knock {
    /// For the one who dialled.
    pub(super) dialled: Connection,
    /// For the listener, which has room for it or not.
    pub(super) accepted: Connection,
    pub(super) backlog: mpsc::Sender<Connection>,
}

impl Shared {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            plain: AtomicBool::new(true),
            core: Mutex::new(Core::new(seed)),
            opened: Notify::new(),
            earlier: Notify::new(),
        }
    }

    pub(super) fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Acquire)
    }

    /// From now on all goes through the schedule.
    pub(super) fn shape(&self) {
        self.plain.store(false, Ordering::Release);
    }

    /// The way between two endpoints may be open now.
    pub(super) fn notify_opened(&self) {
        self.opened.notify_waiters();
    }

    /// Does something to the network, then lets happen what is due, and wakes
    /// whom it concerns.
    pub(super) fn with<R>(self: &Arc<Self>, act: impl FnOnce(&mut Core, Duration) -> R) -> R {
        let mut core = lock(&self.core);
        let now = core.now();
        let result = act(&mut core, now);
        core.deliver(now);
        let wakers = std::mem::take(&mut core.wakers);
        let start_task = match (core.schedule.next_event(), core.driven_until) {
            (Some(next), None) => {
                let runtime = Handle::try_current().ok().or_else(|| core.runtime.clone());
                if runtime.is_some() {
                    core.driven_until = Some(next);
                }
                runtime
            }
            (Some(next), Some(until)) if next < until => {
                core.driven_until = Some(next);
                self.earlier.notify_one();
                None
            }
            _ => None,
        };
        drop(core);
        if let Some(runtime) = start_task {
            let task = Driving {
                shared: self.clone(),
                done: false,
            };
            runtime.spawn(task.run());
        }
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// Sends something on a flow; at once, if nothing holds it up.
    pub(super) fn send(self: &Arc<Self>, flow: FlowId, parcel: Parcel) {
        self.with(|core, now| core.send(now, flow, parcel));
    }

    /// Returns once something can pass between two endpoints.
    pub(super) async fn passable(self: &Arc<Self>, one: EndpointId, other: EndpointId) {
        loop {
            let mut opened = std::pin::pin!(self.opened.notified());
            opened.as_mut().enable();
            if self.with(|core, _| core.is_passable(one, other)) {
                return;
            }
            opened.await;
        }
    }

    /// Dials: both directions of a connection, if somebody listens there.
    pub(super) fn knock(
        self: &Arc<Self>,
        from: EndpointId,
        to: EndpointId,
        port: Option<u16>,
        addr: &Addr,
    ) -> Option<Knock> {
        self.with(|core, now| {
            core.runtime = Handle::try_current().ok();
            let dialler = core.next_addr(from);
            let endpoint = core.endpoint(to);
            let slot = endpoint.listeners.get(&port).filter(|_| !endpoint.refuses);
            let Some(backlog) = slot.map(|slot| slot.backlog.clone()) else {
                core.record(now, &dialler, addr, TraceKind::Refused, 0);
                return None;
            };
            core.record(now, &dialler, addr, TraceKind::Connected, 0);
            let (here, there) = ((from, dialler), (to, addr.clone()));
            let forth = core.open_flow(&here, &there);
            let back = core.open_flow(&there, &here);
            Some(Knock {
                dialled: self.connection(there.1, &forth, &back),
                accepted: self.connection(here.1, &back, &forth),
                backlog,
            })
        })
    }

    fn connection(
        self: &Arc<Self>,
        remote: Addr,
        (flow, out): &(FlowId, Arc<Pipe>),
        (_, inward): &(FlowId, Arc<Pipe>),
    ) -> Connection {
        let limits = LimitHandle::default();
        let sink = MemorySink::new(self.clone(), out.clone(), *flow);
        let stream = MemoryStream::new(inward.clone(), limits.clone());
        Connection::new(remote, sink, stream, limits)
    }
}

/// The task that lets time pass; unregisters itself when it is dropped with
/// its runtime.
struct Driving {
    shared: Arc<Shared>,
    /// Unregistered already, so that another one may be there by now.
    done: bool,
}

impl Driving {
    async fn run(mut self) {
        loop {
            let shared = self.shared.clone();
            let earlier = shared.earlier.notified();
            let next = shared.with(|core, now| {
                core.deliver(now);
                core.driven_until = core.schedule.next_event();
                core.driven_until
                    .and_then(|at| core.start.map(|start| start + at))
            });
            let Some(next) = next else {
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

impl Drop for Driving {
    fn drop(&mut self) {
        if !self.done {
            lock(&self.shared.core).driven_until = None;
        }
    }
}
