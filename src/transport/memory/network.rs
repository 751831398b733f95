//! The state of a network: its endpoints, its flows, and what happens to a
//! parcel on its way. It is told the time and wakes nobody; see the module
//! `shared` for that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Latency;
use super::link::{Pipe, cost};
use super::rates::{EndpointId, FlowId, Schedule};
use super::trace::{Log, TraceEvent, TraceKind};
use crate::protocol::Frame;
use crate::transport::{Addr, Connection};

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
pub(super) struct Core {
    /// When the network was first used inside a runtime.
    pub(super) start: Option<Instant>,
    pub(super) rng: fastrand::Rng,
    names: BTreeMap<Arc<str>, EndpointId>,
    endpoints: Vec<Endpoint>,
    pub(super) pairs: BTreeMap<(EndpointId, EndpointId), Latency>,
    pub(super) schedule: Schedule<Parcel>,
    flows: BTreeMap<FlowId, FlowEnds>,
    /// Numbers flows and listeners.
    counter: u64,
    pub(super) log: Option<Log>,
    pub(super) runtime: Option<Handle>,
    /// Until when the task waits, while there is one.
    pub(super) driven_until: Option<Duration>,
    /// To be woken once the lock is released.
    pub(super) wakers: Vec<Waker>,
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
    pub(super) backlog: mpsc::Sender<Connection>,
}

/// A flow, from the network's side.
#[derive(Debug)]
struct FlowEnds {
    from: (EndpointId, Addr),
    to: (EndpointId, Addr),
    pipe: Arc<Pipe>,
}

impl Core {
    pub(super) fn new(seed: u64) -> Self {
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

    /// The time on this network. It begins with the first use inside a
    /// runtime: before, there is no clock that could be paused.
    pub(super) fn now(&mut self) -> Duration {
        match self.start {
            Some(start) => Instant::now().saturating_duration_since(start),
            None => {
                self.start = Handle::try_current().is_ok().then(Instant::now);
                Duration::ZERO
            }
        }
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

    pub(super) fn is_passable(&self, one: EndpointId, other: EndpointId) -> bool {
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
    pub(super) fn next_addr(&mut self, id: EndpointId) -> Addr {
        let endpoint = self.endpoint(id);
        let port = endpoint.free_port().unwrap_or(FIRST_EPHEMERAL);
        super::addr::join(&endpoint.name, Some(port))
    }

    pub(super) fn open_flow(
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

    pub(super) fn send(&mut self, now: Duration, flow: FlowId, parcel: Parcel) {
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
    pub(super) fn deliver(&mut self, now: Duration) {
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

    pub(super) fn record(
        &mut self,
        at: Duration,
        from: &Addr,
        to: &Addr,
        kind: TraceKind,
        bytes: usize,
    ) {
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
