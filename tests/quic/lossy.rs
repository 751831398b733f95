//! A line that loses, repeats and reorders datagrams: a proxy of UDP on loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// How many datagrams may be on the line in one direction. Further ones are lost.
const MAX_ON_THE_LINE: usize = 4096;

/// How many datagrams overtake one that is held back.
const OVERTAKERS: usize = 3;

/// The longest datagram of UDP.
const MAX_DATAGRAM: usize = 1 << 16;

/// What becomes of the datagrams of either direction. Shares are from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// The share that is lost.
    pub(crate) loss: f64,
    /// The share that the next ones overtake.
    pub(crate) reorder: f64,
    /// The share that arrives twice.
    pub(crate) repeat: f64,
    /// How long each is on its way.
    pub(crate) delay: Duration,
    /// Bytes a second, and how long a datagram may wait for others before it is lost.
    pub(crate) line: Option<(f64, Duration)>,
    /// Whether all that arrives is recorded.
    pub(crate) recorded: bool,
}

/// What has become of the datagrams of both directions.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Bytes that have arrived.
    pub(crate) bytes: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) reordered: AtomicU64,
    pub(crate) repeated: AtomicU64,
    /// What has arrived at the server, and at its clients, if that is recorded.
    pub(crate) to_server: Mutex<Vec<Vec<u8>>>,
    pub(crate) to_clients: Mutex<Vec<Vec<u8>>>,
}

/// A line to one server. It is cut when it is dropped.
pub(crate) struct Line {
    pub(crate) addr: SocketAddr,
    pub(crate) counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    /// A line on which nothing happens, which is recorded.
    pub(crate) async fn recorded(to: SocketAddr) -> Self {
        let weather = Weather {
            recorded: true,
            ..Weather::default()
        };
        Self::to(to, weather, 0).await
    }

    /// What is sent to its address arrives at `to`, as far as the weather lets it.
    pub(crate) async fn to(to: SocketAddr, weather: Weather, seed: u64) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let addr = socket.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let task = carry(socket, to, weather, seed, Arc::clone(&counts));
        Self {
            addr,
            counts,
            task: tokio::spawn(task),
        }
    }
}

/// Carries datagrams to the server, and for each client those that come back.
async fn carry(
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    weather: Weather,
    seed: u64,
    counts: Arc<Counts>,
) {
    // They end with this task.
    let mut backs = tokio::task::JoinSet::new();
    let mut clients: HashMap<SocketAddr, Direction> = HashMap::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let Ok((len, client)) = socket.recv_from(&mut buffer).await else {
            // An earlier datagram has found nobody.
            continue;
        };
        if !clients.contains_key(&client) {
            let seed = seed + 2 * clients.len() as u64;
            let server = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            server.connect(to).await.unwrap();
            let there = Direction::new(weather, seed, &counts);
            let mut back = Direction::new(weather, seed + 1, &counts);
            backs.spawn(there.1.deliver(Arc::clone(&server), None));
            backs.spawn(back.1.deliver(Arc::clone(&socket), Some(client)));
            backs.spawn(async move {
                let mut buffer = vec![0; MAX_DATAGRAM];
                loop {
                    if let Ok(len) = server.recv(&mut buffer).await {
                        back.0.send(&buffer[..len]);
                    }
                }
            });
            clients.insert(client, there.0);
        }
        if let Some(direction) = clients.get_mut(&client) {
            direction.send(&buffer[..len]);
        }
    }
}

type Datagram = (Instant, Vec<u8>);

/// Where the datagrams of one direction begin.
struct Direction {
    weather: Weather,
    rng: fastrand::Rng,
    /// One that is overtaken, and how many must still do so.
    held: Option<(usize, Vec<u8>)>,
    /// When the line is free again.
    free: Instant,
    line: mpsc::Sender<Datagram>,
    counts: Arc<Counts>,
}

/// Where they end.
struct End {
    line: mpsc::Receiver<Datagram>,
    counts: Arc<Counts>,
    recorded: bool,
}

impl Direction {
    #[allow(clippy::new_ret_no_self)]
    fn new(weather: Weather, seed: u64, counts: &Arc<Counts>) -> (Self, End) {
        let (sender, line) = mpsc::channel(MAX_ON_THE_LINE);
        let direction = Self {
            weather,
            rng: fastrand::Rng::with_seed(seed),
            held: None,
            free: Instant::now(),
            line: sender,
            counts: Arc::clone(counts),
        };
        let counts = Arc::clone(counts);
        let recorded = weather.recorded;
        let end = End {
            line,
            counts,
            recorded,
        };
        (direction, end)
    }

    fn send(&mut self, datagram: &[u8]) {
        let [lost, reordered, repeated] =
            [self.weather.loss, self.weather.reorder, self.weather.repeat]
                .map(|share| self.rng.f64() < share);
        if lost {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if reordered && self.held.is_none() {
            self.counts.reordered.fetch_add(1, Ordering::Relaxed);
            self.held = Some((OVERTAKERS, datagram.to_vec()));
            return;
        }
        if repeated {
            self.counts.repeated.fetch_add(1, Ordering::Relaxed);
            self.put(datagram.to_vec());
        }
        self.put(datagram.to_vec());
        match self.held.take() {
            Some((1, held)) => self.put(held),
            Some((left, held)) => self.held = Some((left - 1, held)),
            None => {}
        }
    }

    /// Puts a datagram on the line.
    fn put(&mut self, datagram: Vec<u8>) {
        let now = Instant::now();
        if let Some((rate, queue)) = self.weather.line {
            let begins = self.free.max(now);
            if begins - now > queue {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.free = begins + Duration::from_secs_f64(datagram.len() as f64 / rate);
        }
        let due = self.free.max(now) + self.weather.delay;
        if self.line.try_send((due, datagram)).is_err() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl End {
    /// Delivers what is due: to `client`, or to where the socket is connected.
    async fn deliver(mut self, socket: Arc<UdpSocket>, client: Option<SocketAddr>) {
        while let Some((due, datagram)) = self.line.recv().await {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            let sent = match client {
                Some(client) => socket.send_to(&datagram, client).await,
                None => socket.send(&datagram).await,
            };
            if let Ok(len) = sent {
                self.counts.bytes.fetch_add(len as u64, Ordering::Relaxed);
            }
            if self.recorded {
                let tape = match client {
                    Some(_) => &self.counts.to_clients,
                    None => &self.counts.to_server,
                };
                tape.lock().unwrap().push(datagram);
            }
        }
    }
}
