//! The process that attacks, and measures.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use bt_lite::content::{BlockRange, Geometry};
use bt_lite::protocol::{ChannelId, Frame, PeerMessage};
use bt_lite::{ChunkIndex, ContentId, TcpTransport, Transport};
use futures::{SinkExt, StreamExt};
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::{interval, sleep, timeout};

use crate::Outcome;
use crate::attacks::{Flood, bytes_of, connect_from, flood, greeting, hello};
use crate::setting::Setting;
use crate::world::{strangers, wire};

/// The other process.
struct Attacked {
    child: Child,
    told: ChildStdin,
    says: BufReader<ChildStdout>,
    addr: SocketAddr,
    content: ContentId,
    length: u64,
}

impl Attacked {
    fn start(setting: &Setting) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--attacked", "--mib", &setting.mib.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let told = child.stdin.take().ok_or("no input")?;
        let mut says = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        says.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let mut word = || words.next().ok_or("the other process has failed");
        Ok(Self {
            addr: word()?.parse()?,
            content: word()?.parse()?,
            length: word()?.parse()?,
            child,
            told,
            says,
        })
    }

    /// Has it do something, and returns the number that it says then.
    fn ask(&mut self, what: &str) -> Outcome<f64> {
        writeln!(self.told, "{what}")?;
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        Ok(line.trim_end().parse()?)
    }
}

impl Drop for Attacked {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn run(setting: &Setting) -> Outcome<()> {
    let mut attacked = Attacked::start(setting)?;
    if setting.has("floods") {
        floods(setting, &mut attacked)?;
    }
    if setting.has("idle") {
        idle(setting, &mut attacked)?;
    }
    if setting.has("liars") {
        liars(setting, &mut attacked)?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What was sent to the other process, and what that cost it.
struct Cost {
    messages: u32,
    bytes: u64,
    /// CPU seconds.
    cpu: f64,
}

impl Cost {
    fn a_byte(&self) -> f64 {
        self.cpu * 1e9 / self.bytes as f64
    }

    fn print(&self, name: &str, honest: Option<&Self>) {
        let ratio = honest.map(|honest| self.a_byte() / honest.a_byte());
        println!(
            "{name}: {:.0} ns a message, {:.1} ns a byte{}",
            self.cpu * 1e9 / f64::from(self.messages),
            self.a_byte(),
            ratio.map_or(String::new(), |ratio| format!(", ratio {ratio:.3}")),
        );
    }
}

fn floods(setting: &Setting, attacked: &mut Attacked) -> Outcome<()> {
    // The answers are read while more is sent.
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build()?;
    let (addr, content) = (attacked.addr, attacked.content);
    let mut costs = Vec::new();
    let mut cost = |name: &str, attack: &mut dyn FnMut() -> Outcome<(u32, u64)>| {
        let before = attacked.ask("cpu")?;
        let (messages, bytes) = attack()?;
        let cpu = attacked.ask("cpu")? - before;
        let cost = Cost {
            messages,
            bytes,
            cpu,
        };
        costs.push((name.to_owned(), cost));
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    let length = setting.mib as u64 * (1 << 20);
    cost("warm-up", &mut || {
        runtime.block_on(take(addr, content, length))
    })?;
    cost("honest", &mut || {
        runtime.block_on(take(addr, content, length))
    })?;
    for kind in Flood::ALL {
        cost(&format!("{kind:?}"), &mut || {
            let flooded = flood(kind, addr, content, setting.messages);
            let (bytes, whole) = runtime.block_on(flooded)?;
            match whole {
                true => Ok((setting.messages, bytes)),
                false => Err(format!("{kind:?}: it was cut").into()),
            }
        })?;
    }
    for (name, content, has_one_id) in [
        ("connections of one identity", content, true),
        ("connections of many", content, false),
        (
            "connections for what is not there",
            ContentId::of(b"-"),
            true,
        ),
    ] {
        cost(name, &mut || {
            let connected = connect(setting.connections, addr, content, has_one_id);
            Ok((setting.connections, runtime.block_on(connected)?))
        })?;
    }
    let honest = &costs[1].1;
    honest.print("an honest leecher", None);
    println!(
        "  {:.2} ns a byte both ways",
        honest.cpu * 1e9 / (honest.bytes + attacked.length) as f64
    );
    let mut worst: f64 = 0.0;
    for (name, cost) in &costs[2..] {
        cost.print(name, Some(honest));
        worst = worst.max(cost.a_byte() / honest.a_byte());
    }
    println!("worst_flood_byte_ratio {worst:.3}");
    Ok(())
}

/// Takes a whole content as an honest leecher does. Returns how many messages and bytes it has
/// sent.
async fn take(addr: SocketAddr, content: ContentId, length: u64) -> Outcome<(u32, u64)> {
    const AT_ONCE: usize = 32;
    const BLOCK: u64 = 256 << 10;
    let geometry = Geometry::of(length)?;
    let blocks = (0..geometry.chunks()).flat_map(|chunk| {
        let (chunk, len) = (ChunkIndex(chunk), geometry.len_of(ChunkIndex(chunk)));
        (0..len)
            .step_by(BLOCK as usize)
            .map(move |offset| BlockRange {
                chunk,
                offset: offset as u32,
                len: BLOCK.min(len - offset) as u32,
            })
    });
    let mut wanted: VecDeque<BlockRange> = blocks.collect();
    let mut connection = TcpTransport::new().connect(&addr.into()).await?;
    let (mut messages, mut bytes, mut under_way, mut choked) = (0, 0, 0, false);
    let mut queue = VecDeque::from([
        strangers::StrangerHello::new(content, strangers::id(9)).message(),
        PeerMessage::Open(content),
        PeerMessage::HaveNone,
        PeerMessage::Interested,
    ]);
    let chunks = (0..geometry.chunks()).map(|chunk| geometry.len_of(ChunkIndex(chunk)));
    let mut missing: Vec<u64> = chunks.collect();
    let mut left = length;
    while left > 0 {
        while !choked
            && under_way < AT_ONCE
            && let Some(block) = wanted.pop_front()
        {
            under_way += 1;
            queue.push_back(PeerMessage::Request(block));
        }
        for message in queue.drain(..) {
            let frame: Frame = wire::frame(message);
            (messages, bytes) = (messages + 1, bytes + bytes_of(&frame).len() as u64);
            connection.sink.feed(frame).await?;
        }
        connection.sink.flush().await?;
        let frame = connection.stream.next().await.ok_or("it has closed")??;
        let (_, message): (ChannelId, _) = PeerMessage::decode(frame)?;
        match message {
            PeerMessage::Block { chunk, data, .. } => {
                let len = data.len() as u64;
                let missing = &mut missing[chunk.0 as usize];
                (left, *missing, under_way) = (left - len, *missing - len, under_way - 1);
                if *missing == 0 {
                    queue.push_back(PeerMessage::Have(chunk));
                }
            }
            PeerMessage::Reject(block) => {
                wanted.push_back(block);
                under_way -= 1;
            }
            PeerMessage::Choke => choked = true,
            PeerMessage::Unchoke => choked = false,
            PeerMessage::Refuse(reason) => return Err(reason.to_string().into()),
            _ => {}
        }
    }
    Ok((messages, bytes))
}

/// Connects so often, one connection after the other, and leaves when the owner has answered.
/// Returns how many bytes were sent.
async fn connect(
    count: u32,
    addr: SocketAddr,
    content: ContentId,
    has_one_id: bool,
) -> Outcome<u64> {
    let mut sent = 0;
    for number in 0..count {
        let peer = match has_one_id {
            true => 7,
            false => (number % 251) as u8,
        };
        let words = [hello(peer), greeting(content)].concat();
        let mut stream = connect_from(2, addr).await?;
        stream.write_all(&words).await?;
        sent += words.len() as u64;
        stream.read_exact(&mut [0; 8]).await?;
    }
    Ok(sent)
}

/// Idle connections, as long as this runs: so many a second come until they are all there.
async fn stay_idle(most: usize, rate: u32, to: SocketAddr) {
    const TICK: Duration = Duration::from_millis(5);
    let mut ticks = interval(TICK);
    let (mut idle, mut number) = (Vec::<TcpStream>::with_capacity(most), 0usize);
    let words = hello(2);
    let a_tick = (f64::from(rate) * TICK.as_secs_f64()).ceil() as usize;
    let ticks_a_second = (1.0 / TICK.as_secs_f64()) as usize;
    let mut tick = 0;
    loop {
        ticks.tick().await;
        for _ in 0..a_tick.min(most - idle.len()) {
            let connecting = connect_from(2 + (number % 200) as u8, to);
            let connected = timeout(Duration::from_secs(1), connecting).await;
            if let Ok(Ok(stream)) = connected {
                idle.push(stream);
                number += 1;
            }
        }
        // Half of them send a byte a second; those that were cut fail.
        tick = (tick + 1) % ticks_a_second;
        for stream in idle.iter().skip(tick * 2).step_by(2 * ticks_a_second) {
            let _ = stream.try_write(&words[..1]);
        }
    }
}

fn idle(setting: &Setting, attacked: &mut Attacked) -> Outcome<()> {
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = setting.idle.min((allowed as usize).saturating_sub(100));
    let [mut without, mut coming, mut with] = [const { Vec::new() }; 3];
    // The first one warms up.
    attacked.ask("fetch")?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let full = Duration::from_secs_f64(most as f64 / f64::from(setting.rate));
    for _ in 0..setting.rounds {
        without.push(attacked.ask("fetch")?);
        let idle = runtime.spawn(stay_idle(most, setting.rate, attacked.addr));
        runtime.block_on(async { sleep(full / 4).await });
        coming.push(attacked.ask("fetch")?);
        runtime.block_on(async { sleep(full).await });
        with.push(attacked.ask("fetch")?);
        idle.abort();
    }
    let [without, coming, with] = [without, coming, with].map(median);
    println!("{most} idle: {without:.3} CPU seconds without, {coming:.3} while they come");
    println!("and {with:.3} when they are there");
    println!("coming_bytes_a_cpu_second_ratio {:.3}", without / coming);
    println!("idle_bytes_a_cpu_second_ratio {:.3}", without / with);
    Ok(())
}

fn liars(setting: &Setting, attacked: &mut Attacked) -> Outcome<()> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..setting.rounds {
        without.push(attacked.ask("no liars")?);
        with.push(attacked.ask("liars")?);
    }
    let (without, with) = (median(without), median(with));
    println!("63 liars and an honest owner: {with:.2} s, the owner alone {without:.2} s");
    println!("liars_time_ratio {:.3}", with / without);
    Ok(())
}
