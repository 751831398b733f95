//! When frames move: rates, latency and holds, as a pure state machine.
//!
//! Every endpoint has two lines, an uplink and a downlink. A frame occupies the
//! uplink of its sender for `length / rate`, travels for its delay, and occupies
//! the downlink of its receiver for `length / rate`. A line carries one frame at
//! a time and serves the flows that wait for it in turn, one frame each. A line
//! without a rate takes no time. Frames of one flow never overtake each other.
//!
//! The machine knows no clock and no frames: time is an argument, and what it
//! carries is a type parameter. The same calls give the same deliveries.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

/// An endpoint, numbered in the order in which the network got to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EndpointId(pub(super) usize);

/// One direction of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FlowId(pub(super) u64);

/// The two lines of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Up,
    Down,
}

type LineId = (EndpointId, Way);

/// An item that arrived, with its time and its flow.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivery<T> {
    pub(super) at: Duration,
    pub(super) flow: FlowId,
    pub(super) item: T,
}

#[derive(Debug)]
struct Packet<T> {
    item: T,
    len: usize,
    delay: Duration,
}

/// What a line is carrying.
#[derive(Debug)]
struct Carried<T> {
    flow: FlowId,
    packet: Packet<T>,
    /// The number of the event at which it has carried it.
    served: u64,
}

#[derive(Debug)]
struct Line<T> {
    /// Bytes per second.
    rate: Option<u64>,
    held: bool,
    /// The packet that it carries, until its [`Event::Served`].
    current: Option<Carried<T>>,
    queues: BTreeMap<FlowId, VecDeque<Packet<T>>>,
    /// The flows that have a packet waiting and may send, the next one first.
    turns: VecDeque<FlowId>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            rate: None,
            held: false,
            current: None,
            queues: BTreeMap::new(),
            turns: VecDeque::new(),
        }
    }
}

#[derive(Debug)]
struct FlowPath {
    from: EndpointId,
    to: EndpointId,
    /// When the last packet that was sent so far arrives at the downlink.
    last_arrival: Duration,
    /// How many packets are between the two lines.
    travelling: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A line has carried its packet.
    Served(LineId),
    /// A packet arrives at the downlink: the one of this number in `travelling`.
    Arrived(u64),
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    lines: BTreeMap<LineId, Line<T>>,
    flows: BTreeMap<FlowId, FlowPath>,
    /// Pairs of endpoints between which nothing passes, in both orders.
    parted: BTreeSet<(EndpointId, EndpointId)>,
    /// Ordered by time, then by the order in which they were made.
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    travelling: BTreeMap<u64, (FlowId, Packet<T>)>,
    /// Numbers events and travels.
    counter: u64,
    delivered: VecDeque<Delivery<T>>,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self {
            lines: BTreeMap::new(),
            flows: BTreeMap::new(),
            parted: BTreeSet::new(),
            events: BinaryHeap::new(),
            travelling: BTreeMap::new(),
            counter: 0,
            delivered: VecDeque::new(),
        }
    }
}

impl<T> Schedule<T> {
    /// Opens a flow between two endpoints.
    pub(super) fn open(&mut self, flow: FlowId, from: EndpointId, to: EndpointId) {
        let path = FlowPath {
            from,
            to,
            last_arrival: Duration::ZERO,
            travelling: 0,
        };
        self.flows.insert(flow, path);
    }

    /// Forgets a flow and everything that is on its way. A line that is carrying a
    /// packet of it breaks off, and goes on with the next one.
    pub(super) fn close(&mut self, now: Duration, flow: FlowId) {
        self.run(now);
        let Some(FlowPath { from, to, .. }) = self.flows.remove(&flow) else {
            return;
        };
        for id in [(from, Way::Up), (to, Way::Down)] {
            let Some(line) = self.lines.get_mut(&id) else {
                continue;
            };
            if line.queues.remove(&flow).is_some() {
                line.turns.retain(|&turn| turn != flow);
            }
            let broken_off = line.current.take_if(|carried| carried.flow == flow);
            if broken_off.is_some() {
                self.serve(now, id);
            }
        }
    }

    /// Sets the rate of a line in bytes per second, for the packets that it starts
    /// from now on.
    pub(super) fn set_rate(&mut self, now: Duration, id: LineId, rate: Option<u64>) {
        self.run(now);
        self.lines.entry(id).or_default().rate = rate;
        self.serve(now, id);
    }

    /// Holds both lines of an endpoint, or lets them go on. A packet that a line
    /// is carrying is completed.
    pub(super) fn hold(&mut self, now: Duration, endpoint: EndpointId, held: bool) {
        self.run(now);
        for id in [(endpoint, Way::Up), (endpoint, Way::Down)] {
            self.lines.entry(id).or_default().held = held;
            self.serve(now, id);
        }
    }

    /// Whether an endpoint is held.
    pub(super) fn is_held(&self, endpoint: EndpointId) -> bool {
        self.lines
            .get(&(endpoint, Way::Up))
            .is_some_and(|line| line.held)
    }

    /// Parts two endpoints: the flows between them wait.
    pub(super) fn part(&mut self, now: Duration, one: EndpointId, other: EndpointId) {
        self.run(now);
        self.parted.extend([(one, other), (other, one)]);
        for line in self.lines.values_mut() {
            line.turns.retain(|flow| {
                self.flows
                    .get(flow)
                    .is_some_and(|flow| !self.parted.contains(&(flow.from, flow.to)))
            });
        }
    }

    /// Whether nothing passes between two endpoints.
    pub(super) fn is_parted(&self, one: EndpointId, other: EndpointId) -> bool {
        self.parted.contains(&(one, other))
    }

    /// Ends every partition.
    pub(super) fn heal(&mut self, now: Duration) {
        self.run(now);
        let parted = std::mem::take(&mut self.parted);
        let ids: Vec<LineId> = self.lines.keys().copied().collect();
        for id in ids {
            if let Some(line) = self.lines.get_mut(&id) {
                for (&flow, queue) in &line.queues {
                    let waited = self
                        .flows
                        .get(&flow)
                        .is_some_and(|flow| parted.contains(&(flow.from, flow.to)));
                    if waited && !queue.is_empty() {
                        line.turns.push_back(flow);
                    }
                }
            }
            self.serve(now, id);
        }
    }

    /// Sends an item of `len` bytes that travels for `delay`. On a closed flow it
    /// is lost.
    pub(super) fn send(
        &mut self,
        now: Duration,
        flow: FlowId,
        item: T,
        len: usize,
        delay: Duration,
    ) {
        self.run(now);
        if let Some(path) = self.flows.get(&flow) {
            let id = (path.from, Way::Up);
            self.queue(now, id, flow, Packet { item, len, delay });
        }
    }

    /// When the next event happens by itself.
    pub(super) fn next_event(&self) -> Option<Duration> {
        self.events.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next delivery up to `now`, in the order in which they happened.
    pub(super) fn poll(&mut self, now: Duration) -> Option<Delivery<T>> {
        self.run(now);
        self.delivered.pop_front()
    }

    /// Handles all events that are due.
    fn run(&mut self, now: Duration) {
        while let Some(&Reverse((at, number, event))) = self.events.peek()
            && at <= now
        {
            self.events.pop();
            self.handle(at, number, event);
        }
    }

    fn handle(&mut self, at: Duration, number: u64, event: Event) {
        match event {
            Event::Served(id) => {
                let line = self.lines.entry(id).or_default();
                // Another number is that of a packet that was broken off.
                let carried = line.current.take_if(|carried| carried.served == number);
                if let Some(Carried { flow, packet, .. }) = carried {
                    self.forward(at, id, flow, packet);
                }
                self.serve(at, id);
            }
            Event::Arrived(number) => {
                if let Some((flow, packet)) = self.travelling.remove(&number)
                    && let Some(path) = self.flows.get_mut(&flow)
                {
                    path.travelling -= 1;
                    let id = (path.to, Way::Down);
                    self.queue(at, id, flow, packet);
                }
            }
        }
    }

    fn queue(&mut self, at: Duration, id: LineId, flow: FlowId, packet: Packet<T>) {
        let waits = self
            .flows
            .get(&flow)
            .is_some_and(|flow| self.parted.contains(&(flow.from, flow.to)));
        let line = self.lines.entry(id).or_default();
        let queue = line.queues.entry(flow).or_default();
        if queue.is_empty() && !waits {
            line.turns.push_back(flow);
        }
        queue.push_back(packet);
        self.serve(at, id);
    }

    /// Starts the next packet of a line, and the ones after it as long as they
    /// take no time.
    fn serve(&mut self, at: Duration, id: LineId) {
        loop {
            let Some(line) = self.lines.get_mut(&id) else {
                return;
            };
            if line.held || line.current.is_some() {
                return;
            }
            let Some(flow) = line.turns.pop_front() else {
                return;
            };
            let Some(queue) = line.queues.get_mut(&flow) else {
                continue;
            };
            let Some(packet) = queue.pop_front() else {
                continue;
            };
            if queue.is_empty() {
                line.queues.remove(&flow);
            } else {
                line.turns.push_back(flow);
            }
            let takes = line
                .rate
                .map_or(Duration::ZERO, |rate| transmission(packet.len, rate));
            if takes.is_zero() {
                self.forward(at, id, flow, packet);
            } else {
                line.current = Some(Carried {
                    flow,
                    packet,
                    served: self.counter + 1,
                });
                self.push_event(at + takes, Event::Served(id));
            }
        }
    }

    /// Passes on a packet that a line has carried.
    fn forward(&mut self, at: Duration, (_, way): LineId, flow: FlowId, packet: Packet<T>) {
        let Some(path) = self.flows.get_mut(&flow) else {
            return;
        };
        if way == Way::Down {
            let item = packet.item;
            self.delivered.push_back(Delivery { at, flow, item });
            return;
        }
        let arrival = (at + packet.delay).max(path.last_arrival);
        path.last_arrival = arrival;
        if packet.delay.is_zero() && path.travelling == 0 {
            let id = (path.to, Way::Down);
            self.queue(at, id, flow, packet);
        } else {
            path.travelling += 1;
            self.counter += 1;
            let number = self.counter;
            self.travelling.insert(number, (flow, packet));
            self.push_event(arrival, Event::Arrived(number));
        }
    }

    fn push_event(&mut self, at: Duration, event: Event) {
        self.counter += 1;
        self.events.push(Reverse((at, self.counter, event)));
    }
}

/// How long `len` bytes take at `rate` bytes per second, rounded up.
fn transmission(len: usize, rate: u64) -> Duration {
    let nanos = (len as u128 * 1_000_000_000).div_ceil(u128::from(rate.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EndpointId = EndpointId(0);
    const B: EndpointId = EndpointId(1);
    const C: EndpointId = EndpointId(2);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn drain(schedule: &mut Schedule<u32>, now: Duration) -> Vec<(u64, u64, u32)> {
        std::iter::from_fn(|| schedule.poll(now))
            .map(|d| (d.at.as_millis() as u64, d.flow.0, d.item))
            .collect()
    }

    #[test]
    fn without_rates_everything_arrives_at_once() {
        let mut schedule = Schedule::default();
        schedule.open(FlowId(1), A, B);
        schedule.send(ms(5), FlowId(1), 7, 1 << 30, Duration::ZERO);
        assert_eq!(schedule.next_event(), None);
        assert_eq!(drain(&mut schedule, ms(5)), [(5, 1, 7)]);
    }

    #[test]
    fn frame_takes_both_lines_and_the_way_between() {
        let mut schedule = Schedule::default();
        schedule.open(FlowId(1), A, B);
        schedule.set_rate(ms(0), (A, Way::Up), Some(1000));
        schedule.set_rate(ms(0), (B, Way::Down), Some(500));
        for item in 0..2 {
            schedule.send(ms(0), FlowId(1), item, 100, ms(30));
        }
        // 100 up + 30 travel + 200 down; the second waits for the down line.
        assert_eq!(drain(&mut schedule, ms(329)), []);
        assert_eq!(drain(&mut schedule, ms(330)), [(330, 1, 0)]);
        assert_eq!(drain(&mut schedule, ms(1000)), [(530, 1, 1)]);
    }

    #[test]
    fn frame_sent_late_does_not_begin_in_the_past() {
        let mut schedule = Schedule::default();
        schedule.open(FlowId(1), A, B);
        schedule.set_rate(ms(0), (A, Way::Up), Some(1000));
        schedule.send(ms(0), FlowId(1), 0, 10, Duration::ZERO);
        // Nobody polled meanwhile.
        schedule.send(ms(30), FlowId(1), 1, 10, Duration::ZERO);
        assert_eq!(drain(&mut schedule, ms(99)), [(10, 1, 0), (40, 1, 1)]);
    }

    #[test]
    fn line_is_shared_in_turns() {
        let mut schedule = Schedule::default();
        schedule.open(FlowId(1), A, B);
        schedule.open(FlowId(2), A, C);
        schedule.set_rate(ms(0), (A, Way::Up), Some(1000));
        for item in 0..3 {
            schedule.send(ms(0), FlowId(1), item, 10, Duration::ZERO);
        }
        schedule.send(ms(0), FlowId(2), 9, 10, Duration::ZERO);
        assert_eq!(
            drain(&mut schedule, ms(99)),
            [(10, 1, 0), (20, 1, 1), (30, 2, 9), (40, 1, 2)]
        );
    }

    #[test]
    fn shorter_delay_overtakes_nothing() {
        let mut schedule = Schedule::default();
        schedule.open(FlowId(1), A, B);
        schedule.send(ms(0), FlowId(1), 0, 1, ms(50));
        schedule.send(ms(1), FlowId(1), 1, 1, ms(2));
        schedule.send(ms(2), FlowId(1), 2, 1, Duration::ZERO);
        assert_eq!(
            drain(&mut schedule, ms(60)),
            [(50, 1, 0), (50, 1, 1), (50, 1, 2)]
        );
    }

    #[test]
    fn held_and_parted_flows_wait_and_go_on() {
        let mut schedule = Schedule::default();
        schedule.open(FlowId(1), A, B);
        schedule.open(FlowId(2), A, C);
        schedule.part(ms(0), A, B);
        schedule.send(ms(0), FlowId(1), 0, 1, Duration::ZERO);
        schedule.send(ms(0), FlowId(2), 1, 1, Duration::ZERO);
        assert_eq!(drain(&mut schedule, ms(1)), [(0, 2, 1)]);
        schedule.hold(ms(1), A, true);
        schedule.heal(ms(2));
        assert_eq!(drain(&mut schedule, ms(2)), []);
        schedule.hold(ms(3), A, false);
        assert_eq!(drain(&mut schedule, ms(3)), [(3, 1, 0)]);
    }

    #[test]
    fn packet_caught_on_its_way_waits_for_the_heal() {
        let mut schedule = Schedule::default();
        schedule.open(FlowId(1), A, B);
        schedule.send(ms(0), FlowId(1), 0, 1, ms(10));
        schedule.part(ms(1), A, B);
        assert_eq!(drain(&mut schedule, ms(20)), []);
        schedule.heal(ms(25));
        assert_eq!(drain(&mut schedule, ms(25)), [(25, 1, 0)]);
    }

    #[test]
    fn closed_flow_loses_what_is_under_way() {
        let mut schedule = Schedule::default();
        schedule.open(FlowId(1), A, B);
        schedule.open(FlowId(2), A, B);
        schedule.set_rate(ms(0), (A, Way::Up), Some(1000));
        for item in 0..3 {
            schedule.send(ms(0), FlowId(1), item, 10, ms(5));
        }
        schedule.send(ms(0), FlowId(2), 9, 10, ms(5));
        // The line has carried 4 of the first 10 bytes.
        schedule.close(ms(4), FlowId(1));
        assert_eq!(drain(&mut schedule, ms(99)), [(19, 2, 9)]);
        assert_eq!(schedule.next_event(), None);
        assert!(schedule.travelling.is_empty());
        assert!(schedule.lines.values().all(|line| line.queues.is_empty()));
    }
}
