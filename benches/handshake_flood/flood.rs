//! The process of the flood.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Outcome;
use super::setting::{Over, Setting};

/// How many connections are kept open.
const KEPT: usize = 512;

/// How many different ClientHellos and first datagrams there are. They are made beforehand,
/// as that costs more than to send them.
const DIFFERENT: usize = 2048;

/// How often attempts are made.
const TICK: Duration = Duration::from_millis(5);

/// For how many seconds it goes on before it is measured what it leaves.
const BEFORE: u32 = 3;

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Floods until it is killed.
pub(crate) fn run(setting: &Setting, target: SocketAddr) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match setting.over {
            Over::Tls => over_tcp(setting, target).await,
            Over::Quic => over_udp(setting, target).await,
        }
    })
}

/// The address of a host: never that of the member.
fn host(setting: &Setting, number: usize) -> SocketAddr {
    let host = 2 + (number % usize::from(setting.hosts)) as u8 % 250;
    (Ipv4Addr::new(127, 0, 1, host), 0).into()
}

fn client_config() -> Outcome<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Ok(config)
}

fn client_hello() -> Outcome<Vec<u8>> {
    let name = "localhost".try_into()?;
    let mut client = ClientConnection::new(Arc::new(client_config()?), name)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello)
}

/// What is said on a connection.
fn words(kind: &str, hello: &[u8], garbage: &[u8]) -> Outcome<Vec<u8>> {
    Ok(match kind {
        "silent" => Vec::new(),
        "half" => hello[..hello.len() / 2].to_vec(),
        "hello" => hello.to_vec(),
        "garbage" => garbage.to_vec(),
        other => return Err(format!("no kind {other}").into()),
    })
}

async fn over_tcp(setting: &Setting, target: SocketAddr) -> Outcome<()> {
    let hello = client_hello()?;
    let mut garbage = [0; 512];
    fastrand::Rng::with_seed(1).fill(&mut garbage);
    let kinds: Vec<&str> = match &setting.kind {
        Some(kind) => vec![kind],
        None => vec!["silent", "half", "hello", "garbage"],
    };
    let kinds = kinds.into_iter().map(|kind| words(kind, &hello, &garbage));
    let kinds = kinds.collect::<Outcome<Vec<_>>>()?;
    let mut kept: VecDeque<TcpStream> = VecDeque::with_capacity(KEPT);
    let mut attempts = Attempts::new(setting.rate);
    loop {
        for number in attempts.due().await {
            let socket = TcpSocket::new_v4()?;
            socket.bind(host(setting, number / kinds.len()))?;
            let Ok(Ok(mut stream)) = timeout(PATIENCE, socket.connect(target)).await else {
                continue;
            };
            // It may be closed already.
            let _ = stream.write_all(&kinds[number % kinds.len()]).await;
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(stream);
        }
    }
}

/// First datagrams, each of another connection.
async fn initials() -> Outcome<Vec<Vec<u8>>> {
    let sink = UdpSocket::bind("127.0.0.1:0").await?;
    let mut tls = client_config()?;
    tls.alpn_protocols = vec![b"bt_lite/2".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut initials = Vec::new();
    let mut buffer = vec![0; 2000];
    while initials.len() < DIFFERENT {
        // A new one each time, so that what the others send again is not heard.
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
        let from = endpoint.local_addr()?;
        let _connecting = endpoint.connect_with(config.clone(), sink.local_addr()?, "localhost")?;
        loop {
            let (len, sender) = sink.recv_from(&mut buffer).await?;
            if sender == from {
                initials.push(buffer[..len].to_vec());
                break;
            }
        }
    }
    Ok(initials)
}

async fn over_udp(setting: &Setting, target: SocketAddr) -> Outcome<()> {
    let initials = initials().await?;
    let one_port = UdpSocket::bind((Ipv4Addr::new(127, 0, 1, 1), 0)).await?;
    let mut many_ports = Vec::new();
    for number in 0..usize::from(setting.hosts) {
        many_ports.push(UdpSocket::bind(host(setting, number)).await?);
    }
    let kinds = match setting.kind.as_deref() {
        None => [true, false],
        Some("one-port") => [true, true],
        Some("many-ports") => [false, false],
        Some(other) => return Err(format!("no kind {other}").into()),
    };
    let mut attempts = Attempts::new(setting.rate);
    loop {
        for number in attempts.due().await {
            let socket = match kinds[number % 2] {
                true => &one_port,
                false => &many_ports[number / 2 % many_ports.len()],
            };
            // What cannot be sent is not sent.
            let _ = socket.try_send_to(&initials[number % initials.len()], target);
        }
    }
}

/// Says when attempts are due.
struct Attempts {
    interval: tokio::time::Interval,
    in_a_tick: f64,
    due: f64,
    made: usize,
    /// After how many it says that it has begun.
    begun: usize,
}

impl Attempts {
    fn new(rate: u32) -> Self {
        let mut interval = interval(TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            interval,
            in_a_tick: f64::from(rate) * TICK.as_secs_f64(),
            due: 0.0,
            made: 0,
            begun: (rate * BEFORE) as usize,
        }
    }

    /// The numbers of the next ones, when they are due.
    async fn due(&mut self) -> std::ops::Range<usize> {
        self.interval.tick().await;
        self.due += self.in_a_tick;
        let begin = self.made;
        self.made = self.due as usize;
        if (begin..self.made).contains(&self.begun) {
            println!("under way");
        }
        begin..self.made
    }
}
