//! How many announces per second a tracker answers from a shared store, for each core of the
//! tracker and of Redis, beside `redis-benchmark` that makes the same calls of the same scripts.
//!
//! `cargo bench --bench tracker_redis -- --announces 400000`
//!
//! It starts a `redis-server` that keeps nothing on the disk, and a tracker in a process of its
//! own. Each client has one connection, on which it keeps a fixed number of announces under way.
//! An announce is one frame to the tracker and one back: seven times NEED of a content with 16
//! owners, and then a heartbeat. What the tracker calls for them is seen by MONITOR, and the
//! same number of calls with the same keys and arguments is made by `redis-benchmark`, in turns
//! with the tracker, so that both meet the same machine.
//!
//! On two cores the clients, the tracker and Redis are in each other's way, and
//! `redis-benchmark` has one core to itself. So what is compared is the CPU time of Redis:
//! `ratio` is announces per second of it by the tracker, relative to those by
//! `redis-benchmark`. It falls short of 1 by what the tracker costs Redis beyond the calls:
//! pipelines that are too short, a look at leases every second.

#[path = "../common/mod.rs"]
#[allow(dead_code)] // Not every benchmark needs all of it.
mod common;
mod store;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bt_lite::protocol::limits::TRACKER_FRAMES;
use bt_lite::protocol::{Frame, OwnEntry, OwnState, Token, TrackerReply, TrackerRequest};
use bt_lite::tracker::{RedisConfig, Tracker};
use bt_lite::transport::Connection;
use bt_lite::{Addr, ContentId, TcpTransport, Transport};
use common::Outcome;
use common::process::{Process, ROLE, say, until_end};
use common::usage::cpu_seconds;
use futures::{FutureExt, SinkExt, StreamExt};
use store::{Calls, Redis};

/// How many owners each content has, and how many a NEED asks for.
const OWNERS: u16 = 16;

/// How many contents there are. Each client asks for one of them.
const CONTENTS: u8 = 16;

/// How many announces one client has under way.
const PIPELINE: usize = 32;

/// How many announces there are until they begin anew: one heartbeat, and NEEDs.
const CYCLE: u64 = 8;

/// How often the tracker and `redis-benchmark` take turns.
const ROUNDS: u64 = 4;

/// The secret of the store, as nobody else uses it.
const KEY: [u8; 32] = [7; 32];

struct Setting {
    clients: usize,
    /// In all rounds together.
    announces: u64,
    is_small: bool,
}

impl Setting {
    fn from_args() -> Self {
        let args: Vec<String> = std::env::args().collect();
        let is_small = args.iter().any(|arg| arg == "--test" || arg == "--small");
        let number = |name: &str| {
            let at = args.iter().position(|arg| arg == name)?;
            args.get(at + 1)?.parse::<u64>().ok()
        };
        let announces = if is_small { 4_000 } else { 400_000 };
        Self {
            clients: number("--clients").unwrap_or(16).clamp(1, 256) as usize,
            announces: number("--announces")
                .unwrap_or(announces)
                .max(CYCLE * ROUNDS),
            is_small,
        }
    }
}

/// What was used for a number of announces.
#[derive(Debug, Default)]
struct Used {
    seconds: f64,
    redis: f64,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let role = args.iter().position(|arg| arg == ROLE);
    let url = role.and_then(|at| args.get(at + 2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let ended = runtime.map_err(Into::into).and_then(|runtime| match url {
        Some(url) => runtime.block_on(track(url)),
        None => runtime.block_on(run(&Setting::from_args())),
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tracker_redis: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The process of the tracker. Says where it is, and for each line that it is told how much CPU
/// time it has used.
async fn track(url: &str) -> Outcome<()> {
    let builder = Tracker::builder(TcpTransport::new()).redis(RedisConfig::new([url], KEY));
    let tracker = builder.bind("127.0.0.1:0").await?;
    say(tracker.local_addr());
    tokio::task::spawn_blocking(until_end).await?;
    let store = tracker.stats().store.ok_or("no store")?;
    let (trips, calls) = (store.round_trips, store.calls);
    let lost = store.losses + store.answered_without;
    say(format_args!("{} {trips} {calls} {lost}", cpu_seconds()));
    Ok(())
}

async fn run(setting: &Setting) -> Outcome<()> {
    let Some(redis) = Redis::start()? else {
        let missing = "redis-server and redis-benchmark are not on the PATH";
        return match setting.is_small {
            true => {
                println!("not run: {missing}");
                Ok(())
            }
            false => Err(missing.into()),
        };
    };
    let mut process = Process::start(["tracker", &redis.url])?;
    let addr: Addr = process.line()?.parse()?;
    let mut tokens = Vec::new();
    let mut connection = connect(&addr).await?;
    for port in 1000..1000 + OWNERS.max(setting.clients as u16 + 1) {
        let token = register(&mut connection, port).await?;
        if port < 1000 + OWNERS {
            let entries = (0..CONTENTS).map(content).collect();
            let owned = ask(&mut connection, &TrackerRequest::Own { token, entries }).await?;
            assert_eq!(owned, TrackerReply::Done);
        }
        tokens.push(token);
    }
    // An asker is not told of itself.
    let asker = *tokens.last().ok_or("no client")?;
    let monitor = redis.monitor()?;
    let reply = ask(&mut connection, &need(asker, 0)).await?;
    let TrackerReply::Found(found) = &reply else {
        return Err(format!("{reply:?}").into());
    };
    assert!(found.owners.len() + 1 >= usize::from(OWNERS), "{found:?}");
    let port = 1000 + tokens.len() as u16 - 1;
    ask(&mut connection, &heartbeat(asker, port)).await?;
    // Twice `heard`, and `need` between them.
    let seen = monitor.calls(3)?;
    let [of_need @ .., of_heartbeat] = seen.as_slice() else {
        return Err("the tracker calls nothing".into());
    };
    println!(
        "setting: {} announces, {} clients, {PIPELINE} under way each, {} calls for a NEED and \
         one for a heartbeat",
        setting.announces,
        setting.clients,
        of_need.len(),
    );

    let each = setting.announces / ROUNDS / CYCLE * CYCLE;
    let beats = each / CYCLE;
    let (mut tracked, mut bare) = (Used::default(), Used::default());
    for _ in 0..ROUNDS {
        measure(&mut tracked, &redis, async || {
            load(&addr, &tokens, each, setting.clients).await
        })
        .await?;
        measure(&mut bare, &redis, async || {
            let needs = of_need.iter().map(|call| (call, each - beats));
            let calls: Calls<'_> = needs.chain([(of_heartbeat, beats)]).collect();
            redis.benchmark(calls)
        })
        .await?;
    }
    let last = process.stop()?;
    let figures: Vec<f64> = last.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [cpu, trips, calls, lost] = figures[..] else {
        return Err("the tracker does not say what it has used".into());
    };
    assert_eq!(lost, 0.0, "the store was there all the time");
    let announces = (each * ROUNDS) as f64;
    println!("announces {announces}");
    println!("calls_per_round_trip {:.1}", calls / trips);
    println!("announces_per_second {:.0}", announces / tracked.seconds);
    // With what it took to start, and to register.
    println!(
        "announces_per_second_per_tracker_core {:.0}",
        announces / cpu
    );
    println!(
        "announces_per_second_per_redis_core {:.0}",
        announces / tracked.redis
    );
    println!("bare_per_second {:.0}", announces / bare.seconds);
    println!(
        "bare_per_second_per_redis_core {:.0}",
        announces / bare.redis
    );
    println!("ratio_of_time {:.2}", bare.seconds / tracked.seconds);
    println!("ratio {:.2}", bare.redis / tracked.redis);
    Ok(())
}

/// Adds what something takes.
async fn measure(
    used: &mut Used,
    redis: &Redis,
    what: impl AsyncFnOnce() -> Outcome<()>,
) -> Outcome<()> {
    let (cpu, begun) = (redis.cpu_seconds()?, Instant::now());
    what().await?;
    used.seconds += begun.elapsed().as_secs_f64();
    used.redis += redis.cpu_seconds()? - cpu;
    Ok(())
}

async fn connect(addr: &Addr) -> Outcome<Connection> {
    let connection = TcpTransport::new().connect(addr).await?;
    connection.limits.set(TRACKER_FRAMES);
    Ok(connection)
}

async fn ask(connection: &mut Connection, request: &TrackerRequest) -> Outcome<TrackerReply> {
    connection.sink.send(request.encode()?).await?;
    let reply = connection.stream.next().await.ok_or("no answer")?;
    Ok(TrackerReply::decode(reply?)?)
}

async fn register(connection: &mut Connection, port: u16) -> Outcome<Token> {
    let request = TrackerRequest::Register {
        listen: Some(format!("127.0.0.1:{port}").parse()?),
        token: None,
    };
    match ask(connection, &request).await? {
        TrackerReply::Registered(registered) => Ok(registered.token),
        other => Err(format!("{other:?}").into()),
    }
}

fn content(number: u8) -> OwnEntry {
    let id = ContentId::of(&[number]);
    let name = format!("content-{number}").parse().expect("a name");
    OwnEntry::new(id, name, 1 << 30, OwnState::Complete)
}

fn need(token: Token, number: u8) -> TrackerRequest {
    TrackerRequest::Need {
        token,
        key: content(number).id.into(),
        max_owners: OWNERS,
    }
}

fn heartbeat(token: Token, port: u16) -> TrackerRequest {
    TrackerRequest::Register {
        listen: format!("127.0.0.1:{port}").parse().ok(),
        token: Some(token),
    }
}

/// Has all clients make their share of announces.
async fn load(addr: &Addr, tokens: &[Token], announces: u64, clients: usize) -> Outcome<()> {
    let mut tasks = Vec::new();
    for (number, token) in (0..clients).zip(tokens) {
        let share =
            announces / clients as u64 + u64::from((number as u64) < announces % clients as u64);
        let need = need(*token, number as u8 % CONTENTS).encode()?;
        let heartbeat = heartbeat(*token, 1000 + number as u16).encode()?;
        let connection = connect(addr).await?;
        tasks.push(tokio::spawn(announce(connection, [heartbeat, need], share)));
    }
    for task in tasks {
        task.await?
            .map_err(|error| error as Box<dyn std::error::Error>)?;
    }
    Ok(())
}

/// Makes so many announces, a fixed number of which are under way.
async fn announce(
    mut connection: Connection,
    [heartbeat, need]: [Frame; 2],
    announces: u64,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let frames = (0..announces).map(|number| match number % CYCLE {
        0 => heartbeat.clone(),
        _ => need.clone(),
    });
    let mut frames = frames.fuse();
    for frame in frames.by_ref().take(PIPELINE) {
        connection.sink.feed(frame).await?;
    }
    connection.sink.flush().await?;
    let mut answered = 0;
    while answered < announces {
        let patience = Duration::from_secs(30);
        let reply = tokio::time::timeout(patience, connection.stream.next()).await?;
        let mut reply = Some(reply.ok_or("the tracker has hung up")?);
        while let Some(frame) = reply {
            if let TrackerReply::Refused(refusal) = TrackerReply::decode(frame?)? {
                return Err(refusal.into());
            }
            answered += 1;
            if let Some(frame) = frames.next() {
                connection.sink.feed(frame).await?;
            }
            reply = connection.stream.next().now_or_never().flatten();
        }
        connection.sink.flush().await?;
    }
    Ok(())
}
