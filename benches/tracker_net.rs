//! How many announces per second a tracker answers over TCP, compared with a server
//! that only sends back frames of the same sizes.
//!
//! `cargo bench --bench tracker_net -- --clients 64`
//!
//! Both ends run on this machine, over loopback, in one runtime with two threads.
//! Each client has one connection, on which it keeps a fixed number of announces
//! under way. An announce is one frame to the tracker and one back: seven times NEED
//! of a content with 16 owners, and then a heartbeat. The echo server reads the same
//! requests, writes a frame as long as the reply, and does nothing else. Its figure
//! is the upper limit that TCP, the framing and the runtime set for any tracker
//! here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bt_lite::protocol::limits::TRACKER_FRAMES;
use bt_lite::protocol::{Frame, OwnEntry, OwnState, Token, TrackerReply, TrackerRequest};
use bt_lite::tracker::Tracker;
use bt_lite::transport::{Connection, Listener};
use bt_lite::{Addr, ContentId, TcpTransport, Transport};
use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt};

/// How many owners the content has, and how many a NEED asks for.
const K: u16 = 16;

/// How many requests one client has under way.
const PIPELINE: usize = 32;

struct Setting {
    clients: usize,
    time: Duration,
}

impl Setting {
    fn from_args() -> Self {
        let args: Vec<String> = std::env::args().collect();
        let small = args.iter().any(|arg| arg == "--test");
        let at = args.iter().position(|arg| arg == "--clients");
        let clients = at.and_then(|at| args.get(at + 1)?.parse().ok());
        Self {
            clients: clients.unwrap_or(if small { 4 } else { 64 }).clamp(1, 256),
            time: Duration::from_millis(if small { 100 } else { 5000 }),
        }
    }
}

async fn connect(addr: &Addr) -> Connection {
    let connection = TcpTransport::new()
        .connect(addr)
        .await
        .expect("it connects");
    connection.limits.set(TRACKER_FRAMES);
    connection
}

async fn ask(connection: &mut Connection, request: &TrackerRequest) -> TrackerReply {
    let frame = request.encode().expect("it fits");
    connection.sink.send(frame).await.expect("it is sent");
    let reply = connection.stream.next().await.expect("an answer");
    TrackerReply::decode(reply.expect("a frame")).expect("a reply")
}

async fn register(connection: &mut Connection, port: u16) -> Token {
    let request = TrackerRequest::Register {
        listen: format!("0.0.0.0:{port}").parse().ok(),
        token: None,
    };
    match ask(connection, &request).await {
        TrackerReply::Registered(registered) => registered.token,
        other => panic!("{other:?}"),
    }
}

fn content() -> OwnEntry {
    OwnEntry::new(
        ContentId::of(b"content"),
        "content".parse().expect("a name"),
        1 << 30,
        OwnState::Complete,
    )
}

/// What a client asks over and over.
fn requests(token: Token, port: u16) -> Vec<Frame> {
    let need = TrackerRequest::Need {
        token,
        key: content().id.into(),
        max_owners: K,
    };
    let heartbeat = TrackerRequest::Register {
        listen: format!("127.0.0.1:{port}").parse().ok(),
        token: Some(token),
    };
    let kinds = (0..8).map(|turn| if turn == 0 { &heartbeat } else { &need });
    kinds.map(|kind| kind.encode().expect("it fits")).collect()
}

/// Asks until the time is over, and counts the answers.
async fn load(
    mut connection: Connection,
    requests: Vec<Frame>,
    until: Instant,
    count: Arc<AtomicU64>,
) {
    let mut next = requests.iter().cycle();
    for frame in next.by_ref().take(PIPELINE) {
        connection
            .sink
            .feed(frame.clone())
            .await
            .expect("it is sent");
    }
    connection.sink.flush().await.expect("it is sent");
    while Instant::now() < until {
        let mut reply = connection.stream.next().await;
        let mut answered = 0;
        while let Some(Ok(_)) = reply {
            answered += 1;
            let frame = next.next().cloned().expect("it goes round");
            connection.sink.feed(frame).await.expect("it is sent");
            reply = connection.stream.next().now_or_never().flatten();
        }
        connection.sink.flush().await.expect("it is sent");
        count.fetch_add(answered, Ordering::Relaxed);
        assert!(answered > 0, "the server has hung up");
    }
}

/// Sends a frame of this length back for each that it reads.
async fn echo(mut listener: Box<dyn Listener>, len: usize) {
    let reply = Frame::head(Bytes::from(vec![0; len]));
    while let Ok(mut connection) = listener.accept().await {
        let reply = reply.clone();
        tokio::spawn(async move {
            connection.limits.set(TRACKER_FRAMES);
            while let Some(Ok(_)) = connection.stream.next().await {
                connection.sink.feed(reply.clone()).await.ok();
                // As a tracker does: what has arrived together is answered
                // together.
                for _ in 1..32 {
                    let Some(Some(Ok(_))) = connection.stream.next().now_or_never() else {
                        break;
                    };
                    connection.sink.feed(reply.clone()).await.ok();
                }
                if connection.sink.flush().await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
    }
}

/// Answers per second over this many connections.
async fn rate(addr: &Addr, tokens: &[Token], setting: &Setting) -> f64 {
    let count = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let until = start + setting.time;
    let mut tasks = Vec::new();
    for (port, token) in (1000..).zip(tokens) {
        let connection = connect(addr).await;
        let requests = requests(*token, port);
        tasks.push(tokio::spawn(load(
            connection,
            requests,
            until,
            count.clone(),
        )));
    }
    for task in tasks {
        task.await.expect("it ends");
    }
    count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

async fn run(setting: Setting) {
    let tracker = Tracker::builder(TcpTransport::new())
        .bind("127.0.0.1:0")
        .await;
    let tracker = tracker.expect("it binds");
    let mut connection = connect(tracker.local_addr()).await;
    let mut tokens = Vec::new();
    for port in 1000..1000 + setting.clients.max(usize::from(K) + 1) as u16 {
        let token = register(&mut connection, port).await;
        let own = TrackerRequest::Own {
            token,
            entries: vec![content()],
        };
        assert_eq!(ask(&mut connection, &own).await, TrackerReply::Done);
        tokens.push(token);
    }
    let need = TrackerRequest::Need {
        token: tokens[0],
        key: content().id.into(),
        max_owners: K,
    };
    let reply = ask(&mut connection, &need).await;
    let TrackerReply::Found(found) = &reply else {
        panic!("{reply:?}");
    };
    assert_eq!(found.owners.len(), usize::from(K));
    let len = reply.encode().expect("it fits").len();
    tokens.truncate(setting.clients);

    let any: Addr = "127.0.0.1:0".parse().expect("an address");
    let listener = TcpTransport::new().listen(&any).await.expect("it binds");
    let echo_addr = listener.local_addr().clone();
    let echo = tokio::spawn(echo(listener, len));

    println!(
        "setting: {} clients, {PIPELINE} requests under way each, replies of {len} bytes",
        setting.clients
    );
    let announces = rate(tracker.local_addr(), &tokens, &setting).await;
    let echoes = rate(&echo_addr, &tokens, &setting).await;
    echo.abort();
    tracker.shutdown().await;
    println!("announces_per_second {announces:.0}");
    // This includes the clients' share of both cores.
    println!("announces_per_second_per_core {:.0}", announces / 2.0);
    println!("echo_per_second {echoes:.0}");
    println!("ratio {:.2}", announces / echoes);
}

fn main() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime
        .expect("a runtime")
        .block_on(run(Setting::from_args()));
}
