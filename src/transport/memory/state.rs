//! The state of a network: its endpoints, its flows, and what happens to a frame
//! on its way. It is told the time, and it wakes nobody; [`SharedNetwork`] does.
//!
//! [`SharedNetwork`]: super::shared::SharedNetwork

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::addr;
use super::latency::Latency;
use super::pipe::{FlowItem, LINK_BYTES, Pipe, cost};
use super::schedule::{EndpointId, FlowId, Schedule};
use super::trace::{Log, Trace, TraceEvent, TraceKind};
use crate::protocol::{Addr, Frame};
use crate::transport::connection::Connection;

/// The first ephemeral port, as IANA defines them (RFC 6335).
const FIRST_EPHEMERAL: u16 = 49152;

#[derive(Debug)]
pub(super) struct NetworkState {
    rng: fastrand::Rng,
    names: BTreeMap<Arc<str>, EndpointId>,
    endpoints: Vec<EndpointState>,
    pairs: BTreeMap<(EndpointId, EndpointId), Latency>,
    pub(super) schedule: Schedule<FlowItem>,
    flows: BTreeMap<FlowId, FlowEnds>,
    /// How many bytes a new link holds in one direction.
    pub(super) link_bytes: usize,
    /// Numbers flows and listeners.
    counter: u64,
    log: Option<Log>,
    /// To be woken once the lock is released.
    wakers: Vec<Waker>,
}

#[derive(Debug)]
pub(super) struct EndpointState {
    name: Arc<str>,
    listeners: BTreeMap<Option<u16>, ListenerSlot>,
    next_port: u16,
    pub(super) latency: Latency,
    pub(super) refuses: bool,
    /// The probability that a body is corrupted.
    pub(super) corrupt: f64,
    /// How many of the next bodies are corrupted.
    pub(super) corrupt_next: u64,
}

/// A listener as its endpoint holds it.
#[derive(Debug)]
pub(super) struct ListenerSlot {
    id: u64,
    backlog: mpsc::Sender<Connection>,
}

/// One direction of a connection, as its halves hold it.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) id: FlowId,
    pub(super) pipe: Arc<Pipe>,
}

/// One direction of a connection, as the network holds it.
#[derive(Debug)]
struct FlowEnds {
    from: (EndpointId, Addr),
    to: (EndpointId, Addr),
    pipe: Arc<Pipe>,
}

/// A new connection, which the listener has not seen yet.
pub(super) struct NewConnection {
    /// The address that it comes from.
    pub(super) dialler: Addr,
    /// From the dialler to the listener.
    pub(super) forth: Flow,
    /// And back.
    pub(super) back: Flow,
    /// Where the listener takes its connections from.
    pub(super) backlog: mpsc::Sender<Connection>,
}

impl NetworkState {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            names: BTreeMap::new(),
            endpoints: Vec::new(),
            pairs: BTreeMap::new(),
            schedule: Schedule::default(),
            flows: BTreeMap::new(),
            link_bytes: LINK_BYTES,
            counter: 0,
            log: None,
            wakers: Vec::new(),
        }
    }

    /// The endpoint of this name, if there is one.
    pub(super) fn find(&self, name: &str) -> Option<EndpointId> {
        self.names.get(name).copied()
    }

    /// The endpoint of this name, which is added if it is new.
    pub(super) fn find_or_add(&mut self, name: &str) -> EndpointId {
        if let Some(id) = self.find(name) {
            return id;
        }
        let id = EndpointId(self.endpoints.len());
        let name: Arc<str> = name.into();
        self.names.insert(name.clone(), id);
        self.endpoints.push(EndpointState {
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

    pub(super) fn endpoint(&mut self, id: EndpointId) -> &mut EndpointState {
        &mut self.endpoints[id.0]
    }

    /// Whether frames can pass between two endpoints.
    pub(super) fn is_passable(&self, one: EndpointId, other: EndpointId) -> bool {
        !self.schedule.is_parted(one, other)
            && !self.schedule.is_held(one)
            && !self.schedule.is_held(other)
    }

    /// Sets the latency between two endpoints, in both directions.
    pub(super) fn set_latency_between(&mut self, a: EndpointId, b: EndpointId, latency: Latency) {
        self.pairs.extend([((a, b), latency), ((b, a), latency)]);
    }

    /// Listens on a port, or on a free one for port 0. Returns the port and the
    /// number of the listener; `None` if the port is taken.
    pub(super) fn listen(
        &mut self,
        id: EndpointId,
        port: Option<u16>,
        backlog: mpsc::Sender<Connection>,
    ) -> Option<(Option<u16>, u64)> {
        self.counter += 1;
        let number = self.counter;
        let endpoint = self.endpoint(id);
        let port = match port {
            Some(0) => Some(endpoint.free_port()?),
            port if endpoint.listeners.contains_key(&port) => return None,
            port => port,
        };
        let slot = ListenerSlot {
            id: number,
            backlog,
        };
        endpoint.listeners.insert(port, slot);
        Some((port, number))
    }

    /// Opens both directions of a connection if somebody listens at the address,
    /// which is that of `to` and `port`.
    pub(super) fn connect(
        &mut self,
        now: Duration,
        from: EndpointId,
        to: EndpointId,
        port: Option<u16>,
        addr: &Addr,
    ) -> Option<NewConnection> {
        let dialler = self.next_addr(from);
        let Some(backlog) = self.endpoint(to).backlog(port) else {
            self.record(now, &dialler, addr, TraceKind::Refused, 0);
            return None;
        };
        self.record(now, &dialler, addr, TraceKind::Connected, 0);
        let (here, there) = ((from, dialler.clone()), (to, addr.clone()));
        let forth = self.open_flow(&here, &there);
        let back = self.open_flow(&there, &here);
        Some(NewConnection {
            dialler,
            forth,
            back,
            backlog,
        })
    }

    /// The address from which an endpoint connects next.
    fn next_addr(&mut self, id: EndpointId) -> Addr {
        let endpoint = self.endpoint(id);
        let port = endpoint.free_port().unwrap_or(FIRST_EPHEMERAL);
        addr::join(&endpoint.name, Some(port))
    }

    fn open_flow(&mut self, from: &(EndpointId, Addr), to: &(EndpointId, Addr)) -> Flow {
        self.counter += 1;
        let id = FlowId(self.counter);
        let pipe = Arc::new(Pipe::new(self.link_bytes));
        self.schedule.open(id, from.0, to.0);
        let ends = FlowEnds {
            from: from.clone(),
            to: to.clone(),
            pipe: pipe.clone(),
        };
        self.flows.insert(id, ends);
        Flow { id, pipe }
    }

    /// Draws the travel time from one endpoint to another.
    pub(super) fn delay(&mut self, from: EndpointId, to: EndpointId) -> Duration {
        let latency = match self.pairs.get(&(from, to)) {
            Some(&latency) => latency,
            None => {
                let (from, to) = (&self.endpoints[from.0], &self.endpoints[to.0]);
                from.latency.plus(to.latency)
            }
        };
        latency.draw(&mut self.rng)
    }

    pub(super) fn send(&mut self, now: Duration, flow: FlowId, item: FlowItem) {
        let Some(ends) = self.flows.get(&flow) else {
            return;
        };
        let (from, to) = (ends.from.0, ends.to.0);
        let delay = self.delay(from, to);
        let (item, len) = match item {
            FlowItem::Frame(mut frame) => {
                if self.draw_corruption(from, &frame) {
                    frame.body = self.flip_a_bit(&frame.body);
                    self.record_flow(now, flow, TraceKind::Corrupted, frame.len());
                }
                self.record_flow(now, flow, TraceKind::Sent, frame.len());
                let len = cost(&frame);
                (FlowItem::Frame(frame), len)
            }
            FlowItem::End => (FlowItem::End, 0),
        };
        self.schedule.send(now, flow, item, len, delay);
    }

    /// Decides whether a frame is corrupted.
    fn draw_corruption(&mut self, from: EndpointId, frame: &Frame) -> bool {
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

    /// Delivers everything that has arrived by now.
    pub(super) fn deliver(&mut self, now: Duration) {
        while let Some(delivery) = self.schedule.poll(now) {
            let (at, flow) = (delivery.at, delivery.flow);
            let Some(ends) = self.flows.get(&flow) else {
                continue;
            };
            let pipe = ends.pipe.clone();
            let waker = match delivery.item {
                FlowItem::Frame(frame) => {
                    self.record_flow(at, flow, TraceKind::Delivered, frame.len());
                    pipe.deliver(frame)
                }
                FlowItem::End => {
                    self.record_flow(at, flow, TraceKind::Closed, 0);
                    self.flows.remove(&flow);
                    self.schedule.close(at, flow);
                    pipe.finish()
                }
            };
            self.wakers.extend(waker);
        }
    }

    /// Nobody reads this flow any more: what is on its way is lost, as with a
    /// connection that is reset.
    pub(super) fn abandon(&mut self, now: Duration, flow: FlowId) {
        self.record_flow(now, flow, TraceKind::Abandoned, 0);
        self.schedule.close(now, flow);
        self.flows.remove(&flow);
    }

    /// Takes the tasks that are to be woken once no lock is held.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers)
    }

    /// Resets all flows whose two endpoints the predicate selects.
    pub(super) fn reset(
        &mut self,
        now: Duration,
        selects: impl Fn(EndpointId, EndpointId) -> bool,
    ) {
        let reset: Vec<FlowId> = self
            .flows
            .iter()
            .filter(|(_, ends)| selects(ends.from.0, ends.to.0))
            .map(|(&flow, _)| flow)
            .collect();
        for flow in reset {
            self.record_flow(now, flow, TraceKind::Reset, 0);
            self.schedule.close(now, flow);
            if let Some(ends) = self.flows.remove(&flow) {
                self.wakers.extend(ends.pipe.reset().into_iter().flatten());
            }
        }
    }

    /// Starts a new log of at most `capacity` events.
    pub(super) fn start_log(&mut self, capacity: usize) {
        self.log = Some(Log::new(capacity));
    }

    /// The events in the log.
    pub(super) fn trace(&self) -> Trace {
        self.log.as_ref().map(Log::trace).unwrap_or_default()
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

impl EndpointState {
    /// The next port that nobody listens on; ports come in turn.
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

    /// The backlog of the listener on a port, unless the endpoint refuses
    /// connections.
    fn backlog(&self, port: Option<u16>) -> Option<mpsc::Sender<Connection>> {
        let slot = self.listeners.get(&port).filter(|_| !self.refuses)?;
        Some(slot.backlog.clone())
    }

    /// Removes the listener on a port, unless a later one has taken its place.
    pub(super) fn remove_listener(&mut self, port: Option<u16>, number: u64) {
        if self
            .listeners
            .get(&port)
            .is_some_and(|slot| slot.id == number)
        {
            self.listeners.remove(&port);
        }
    }

    /// Removes all listeners.
    pub(super) fn take_listeners(&mut self) -> BTreeMap<Option<u16>, ListenerSlot> {
        std::mem::take(&mut self.listeners)
    }
}
