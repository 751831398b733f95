//! The state of a network: its endpoints, its links, and the task that lets
//! time pass on it.
//!
//! All that is shaped goes through one lock, in the order of the calls. The
//! task runs only while something is bound to happen by itself (a frame in
//! service or on its way) and ends with it, so a network that is no longer
//! used leaves nothing behind.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use super::Latency;
use super::link::{MemorySink, MemoryStream, Pipe, cost};
use super::rates::{EndpointId, FlowId, Schedule};
use super::trace::{Log, TraceEvent, TraceKind};
use crate::protocol::Frame;
use crate::transport::{Addr, Connection, LimitHandle};

/// Locks; what a panicking holder left behind is still consistent, for nothing
/// here panics between two writes that belong together.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the ports that nobody asked for begin, as the IANA has it.
const FIRST_EPHEMERAL: u16 = 49152;

/// What a flow carries.
#[derive(Debug)]
pub(super) enum Parcel {
    Frame(Frame),
    /// The sender closed.
    End,
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

#[derive(Debug)]
pub(super) struct Core {
    /// When the network was first used.
    start: Option<Instant>,
    pub(super) rng: fastrand::Rng,
    names: BTreeMap<Arc<str>, EndpointId>,
    endpoints: Vec<Endpoint>,
    pub(super) pairs: BTreeMap<(EndpointId, EndpointId), Latency>,
    pub(super) schedule: Schedule<Parcel>,
    flows: BTreeMap<FlowId, FlowEnds>,
    /// Numbers flows and listeners.
    counter: u64,
    pub(super) log: Option<Log>,
    runtime: Option<Handle>,
    /// Until when the task waits, while there is one.
    driven_until: Option<Duration>,
    /// To be woken once the lock is released.
    wakers: Vec<Waker>,
}

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) name: Arc<str>,
    pub(super) listeners: BTreeMap<Option<u16>, ListenerSlot>,
    next_port: u16,
    pub(super) latency: Latency,
    pub(super) refuses: bool,
    /// How likely each body is corrupted.
    pub(super) corrupt: f64,
    /// How many of the next bodies are corrupted.
    pub(super) corrupt_next: u64,
}

#[derive(Debug)]
pub(super) struct ListenerSlot {
    pub(super) id: u64,
    backlog: mpsc::Sender<Connection>,
}

/// A flow, from the network's side.
#[derive(Debug)]
struct FlowEnds {
    from: (EndpointId, Addr),
    to: (EndpointId, Addr),
    pipe: Arc<Pipe>,
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

impl Core {
    fn new(seed: u64) -> Self {
        Self {
            start: None,
            rng: fastrand::Rng::with_seed(seed),
            names: BTreeMap::new(),
            endpoints: Vec::new(),
            pairs: BTreeMap::new(),
            schedule: Schedule::default(),
            flows: BTreeMap::new(),
            counter: 0,
            log: None,
            runtime: None,
            driven_until: None,
            wakers: Vec::new(),
        }
    }

    fn now(&mut self) -> Duration {
        let now = Instant::now();
        now.saturating_duration_since(*self.start.get_or_insert(now))
    }

    /// The endpoint of this name, if the network met it.
    pub(super) fn find(&self, name: &str) -> Option<EndpointId> {
        self.names.get(name).copied()
    }

    /// The endpoint of this name, which is new if need be.
    pub(super) fn find_or_add(&mut self, name: &str) -> EndpointId {
        if let Some(id) = self.find(name) {
            return id;
        }
        let id = EndpointId(self.endpoints.len());
        let name: Arc<str> = name.into();
        self.names.insert(name.clone(), id);
        self.endpoints.push(Endpoint {
            name,
            listeners: BTreeMap::new(),
            next_port: FIRST_EPHEMERAL,
            latency: Latency::default(),
            refuses: false,
            corrupt: 0.0,
            corrupt_next: 0,
        });
        id
    }

    pub(super) fn endpoint(&mut self, id: EndpointId) -> &mut Endpoint {
        &mut self.endpoints[id.0]
    }

    fn is_passable(&self, one: EndpointId, other: EndpointId) -> bool {
        !self.schedule.is_parted(one, other)
            && !self.schedule.is_held(one)
            && !self.schedule.is_held(other)
    }

    /// Listens on a port, or on one of the network's choosing for 0. `None`
    /// when it is taken.
    pub(super) fn listen(
        &mut self,
        id: EndpointId,
        port: Option<u16>,
        backlog: mpsc::Sender<Connection>,
    ) -> Option<(Option<u16>, u64)> {
        self.counter += 1;
        let slot = ListenerSlot {
            id: self.counter,
            backlog,
        };
        let endpoint = self.endpoint(id);
        let port = match port {
            Some(0) => Some(endpoint.free_port()?),
            port if endpoint.listeners.contains_key(&port) => return None,
            port => port,
        };
        let number = slot.id;
        endpoint.listeners.insert(port, slot);
        Some((port, number))
    }

    /// The address from which an endpoint dials next.
    fn next_addr(&mut self, id: EndpointId) -> Addr {
        let endpoint = self.endpoint(id);
        let port = endpoint.free_port().unwrap_or(FIRST_EPHEMERAL);
        super::addr::join(&endpoint.name, Some(port))
    }

    fn open_flow(
        &mut self,
        from: &(EndpointId, Addr),
        to: &(EndpointId, Addr),
    ) -> (FlowId, Arc<Pipe>) {
        self.counter += 1;
        let id = FlowId(self.counter);
        let pipe = Arc::new(Pipe::default());
        self.schedule.open(id, from.0, to.0);
        let ends = FlowEnds {
            from: from.clone(),
            to: to.clone(),
            pipe: pipe.clone(),
        };
        self.flows.insert(id, ends);
        (id, pipe)
    }

    /// How long something travels from one endpoint to another, this time.
    pub(super) fn delay(&mut self, from: EndpointId, to: EndpointId) -> Duration {
        let between = match self.pairs.get(&(from, to)) {
            Some(&latency) => latency,
            None => {
                let (a, b) = (self.endpoints[from.0].latency, self.endpoints[to.0].latency);
                Latency {
                    base: a.base + b.base,
                    jitter: a.jitter + b.jitter,
                }
            }
        };
        let most = u64::try_from(between.jitter.as_nanos()).unwrap_or(u64::MAX);
        match most {
            0 => between.base,
            most => between.base + Duration::from_nanos(self.rng.u64(..=most)),
        }
    }

    fn send(&mut self, now: Duration, flow: FlowId, parcel: Parcel) {
        let Some(ends) = self.flows.get(&flow) else {
            return;
        };
        let (from, to) = (ends.from.0, ends.to.0);
        let delay = self.delay(from, to);
        let (parcel, len) = match parcel {
            Parcel::Frame(mut frame) => {
                if self.corrupts(from, &frame) {
                    frame.body = self.flip_a_bit(&frame.body);
                    self.record_flow(now, flow, TraceKind::Corrupted, frame.len());
                }
                self.record_flow(now, flow, TraceKind::Sent, frame.len());
                let len = cost(&frame);
                (Parcel::Frame(frame), len)
            }
            Parcel::End => (Parcel::End, 0),
        };
        self.schedule.send(now, flow, parcel, len, delay);
    }

    fn corrupts(&mut self, from: EndpointId, frame: &Frame) -> bool {
        let endpoint = &mut self.endpoints[from.0];
        if frame.body.is_empty() {
            return false;
        }
        if endpoint.corrupt_next > 0 {
            endpoint.corrupt_next -= 1;
            return true;
        }
        endpoint.corrupt > 0.0 && self.rng.f64() < endpoint.corrupt
    }

    fn flip_a_bit(&mut self, body: &Bytes) -> Bytes {
        let mut copy = BytesMut::from(&body[..]);
        copy[self.rng.usize(..body.len())] ^= 1 << self.rng.u8(..8);
        copy.freeze()
    }

    /// Hands over what has arrived by now.
    fn deliver(&mut self, now: Duration) {
        while let Some(delivery) = self.schedule.poll(now) {
            let (at, flow) = (delivery.at, delivery.flow);
            let Some(ends) = self.flows.get(&flow) else {
                continue;
            };
            let pipe = ends.pipe.clone();
            let waker = match delivery.item {
                Parcel::Frame(frame) => {
                    self.record_flow(at, flow, TraceKind::Delivered, frame.len());
                    pipe.deliver(frame)
                }
                Parcel::End => {
                    self.record_flow(at, flow, TraceKind::Closed, 0);
                    self.flows.remove(&flow);
                    self.schedule.close(flow);
                    pipe.finish()
                }
            };
            self.wakers.extend(waker);
        }
    }

    /// Tears every connection whose two ends the predicate picks.
    pub(super) fn reset(&mut self, now: Duration, picks: impl Fn(EndpointId, EndpointId) -> bool) {
        let torn: Vec<FlowId> = self
            .flows
            .iter()
            .filter(|(_, ends)| picks(ends.from.0, ends.to.0))
            .map(|(&flow, _)| flow)
            .collect();
        for flow in torn {
            self.record_flow(now, flow, TraceKind::Reset, 0);
            self.schedule.close(flow);
            if let Some(ends) = self.flows.remove(&flow) {
                self.wakers.extend(ends.pipe.reset().into_iter().flatten());
            }
        }
    }

    fn record_flow(&mut self, at: Duration, flow: FlowId, kind: TraceKind, bytes: usize) {
        if self.log.is_some()
            && let Some(ends) = self.flows.get(&flow)
        {
            let (from, to) = (ends.from.1.clone(), ends.to.1.clone());
            self.record(at, &from, &to, kind, bytes);
        }
    }

    fn record(&mut self, at: Duration, from: &Addr, to: &Addr, kind: TraceKind, bytes: usize) {
        if let Some(log) = &mut self.log {
            log.push(TraceEvent {
                at,
                from: from.clone(),
                to: to.clone(),
                kind,
                bytes,
            });
        }
    }
}

impl Endpoint {
    /// The next port that nobody listens on; they come in turn.
    fn free_port(&mut self) -> Option<u16> {
        for _ in FIRST_EPHEMERAL..=u16::MAX {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_EPHEMERAL);
            if !self.listeners.contains_key(&Some(port)) {
                return Some(port);
            }
        }
        None
    }
}
