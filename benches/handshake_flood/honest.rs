//! The process of those who are flooded: an owner, and a member that fetches from it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use bt_lite::transport::auth::{Authenticator, HandshakeStats, Identity, Secret, Trust};
use bt_lite::transport::{QuicTransport, TlsTransport};
use bt_lite::{
    Content, DownloadOptions, MemoryStorage, Peer, ShareSource, TcpTransport, Transport,
};

use super::Outcome;
use super::setting::{Over, Setting};

/// `USER_HZ`, which is 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A transport, and how its handshakes have ended.
struct Member {
    transport: Box<dyn Transport>,
    stats: Box<dyn Fn() -> HandshakeStats>,
}

fn member(over: Over, secret: &Secret) -> Outcome<Member> {
    let auth = Authenticator::new(Identity::generate()?, Trust::Secret(secret.clone()))?;
    Ok(match over {
        Over::Tls => {
            let tls = TlsTransport::new(TcpTransport::new(), auth);
            Member {
                transport: Box::new(tls.clone()),
                stats: Box::new(move || tls.stats()),
            }
        }
        Over::Quic => {
            let quic = QuicTransport::new(auth);
            Member {
                transport: Box::new(quic.clone()),
                stats: Box::new(move || quic.stats()),
            }
        }
    })
}

/// The flood. It ends when this is dropped.
struct Flood {
    child: Child,
    begun: Instant,
    /// CPU seconds that it took to get ready.
    before: f64,
}

impl Flood {
    fn start(setting: &Setting, target: SocketAddr) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let over = match setting.over {
            Over::Tls => "tls",
            Over::Quic => "quic",
        };
        command.args(["--transport", over, "--flood", &target.to_string()]);
        command.args(["--rate", &setting.rate.to_string()]);
        command.args(["--hosts", &setting.hosts.to_string()]);
        if let Some(kind) = &setting.kind {
            command.args(["--kind", kind]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("it has an output")?;
        // It says so when it has gone on for a while.
        BufReader::new(stdout).read_line(&mut String::new())?;
        let before = cpu_seconds(&child.id().to_string());
        Ok(Self {
            child,
            begun: Instant::now(),
            before,
        })
    }

    /// The share of a core that it takes.
    fn share(&self) -> f64 {
        let cpu = cpu_seconds(&self.child.id().to_string()) - self.before;
        cpu / self.begun.elapsed().as_secs_f64()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU seconds of a process.
fn cpu_seconds(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name of the program may contain anything, and ends at the last bracket.
    let fields = &stat[stat.rfind(')').map_or(0, |at| at + 2)..];
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / TICKS_PER_SECOND
}

/// What one transfer took.
#[derive(Debug, Clone, Copy)]
struct Took {
    /// MiB a second.
    rate: f64,
    /// CPU milliseconds of this process for a MiB.
    cpu: f64,
}

async fn fetch(
    setting: &Setting,
    secret: &Secret,
    owner: &Peer,
    content: &Content,
) -> Outcome<Took> {
    let addr = owner.local_addr().ok_or("it listens")?;
    let (begun, cpu) = (Instant::now(), cpu_seconds("self"));
    let peer = Peer::builder(
        member(setting.over, secret)?.transport,
        MemoryStorage::new(),
    );
    let peer = peer.start().await?;
    let options = DownloadOptions::new().owner(addr.clone());
    peer.download_with(content.id, options).await?;
    let mib = setting.mib as f64;
    let took = Took {
        rate: mib / begun.elapsed().as_secs_f64(),
        cpu: (cpu_seconds("self") - cpu) * 1000.0 / mib,
    };
    peer.shutdown().await;
    Ok(took)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn run(setting: &Setting) -> Outcome<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(setting))
}

async fn measure(setting: &Setting) -> Outcome<()> {
    let secret = Secret::generate()?;
    let Member { transport, stats } = member(setting.over, &secret)?;
    let owner = Peer::builder(transport, MemoryStorage::new()).listen("127.0.0.1:0");
    let owner = owner.start().await?;
    let target = owner.local_addr().and_then(|addr| addr.socket_addr());
    let target = target.ok_or("no address of a socket")?;
    let mut bytes = vec![0; setting.mib << 20];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    let content = owner.share(ShareSource::bytes("film", bytes)).await?;
    println!(
        "setting: {:?}, {} MiB, {} attempts a second from {} hosts, {}",
        setting.over,
        setting.mib,
        setting.rate,
        setting.hosts,
        setting.kind.as_deref().unwrap_or("all kinds"),
    );
    // The first one warms up.
    fetch(setting, &secret, &owner, &content).await?;
    let mut rounds = Vec::new();
    for _ in 0..setting.rounds {
        let without = fetch(setting, &secret, &owner, &content).await?;
        let flood = Flood::start(setting, target)?;
        let before = stats();
        let with = fetch(setting, &secret, &owner, &content).await?;
        let (share, after) = (flood.share(), stats());
        drop(flood);
        println!(
            "without {:.0} MiB/s, {:.2} ms a MiB; with {:.0} MiB/s, {:.2} ms a MiB; \
             the flood took {:.2} of a core; {} failed, {} gave way, {} unheard, {} retried",
            without.rate,
            without.cpu,
            with.rate,
            with.cpu,
            share,
            after.failed - before.failed,
            after.gave_way - before.gave_way,
            after.unheard - before.unheard,
            after.retried - before.retried,
        );
        rounds.push((without, with));
    }
    let rate = |took: &Took| took.rate;
    let cpu = |took: &Took| took.cpu;
    let ratio = |of: &dyn Fn(&Took) -> f64, is_cost: bool| {
        let without = median(rounds.iter().map(|(without, _)| of(without)));
        let with = median(rounds.iter().map(|(_, with)| of(with)));
        if is_cost {
            without / with
        } else {
            with / without
        }
    };
    println!("bytes_a_second_ratio {:.3}", ratio(&rate, false));
    println!("bytes_a_cpu_second_ratio {:.3}", ratio(&cpu, true));
    owner.shutdown().await;
    Ok(())
}
