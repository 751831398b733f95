//! A Redis of its own for each test: on a free port of loopback, with its files in a folder
//! that goes with it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long it may take to start. It takes a tenth of a second.
const START: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
    arguments: Vec<String>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A replica of another one.
    pub(crate) async fn replica_of(primary: &Self) -> Self {
        let port = primary.port.to_string();
        Self::start_with(&["--replicaof", "127.0.0.1", &port]).await
    }

    /// A node of a cluster that is to be.
    pub(crate) async fn of_cluster(node_timeout: Duration) -> Self {
        // By default it would be a fixed number above the other one.
        let bus = free_port().to_string();
        let timeout = node_timeout.as_millis().to_string();
        let nodes = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        let times = [
            "--cluster-node-timeout",
            &timeout,
            "--repl-ping-replica-period",
            "1",
        ];
        Self::start_with(&[nodes, times].concat()).await
    }

    async fn start_with(arguments: &[&str]) -> Self {
        let mut server = Self {
            folder: TempDir::new().expect("a folder"),
            port: free_port(),
            process: None,
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
        };
        server.run().await;
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Starts it, for the first time or again, with what it has written.
    pub(crate) async fn run(&mut self) {
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &port, "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .args(["--repl-diskless-sync-delay", "0"])
            .args(&self.arguments)
            .arg("--dir")
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = command.spawn().expect("redis-server can be run");
        let said = BufReader::new(process.stdout.take().expect("it is piped"));
        self.process = Some(process);
        let (ready, is_ready) = oneshot::channel();
        // It reads to the end: the server would wait if nobody did.
        thread::spawn(move || {
            let mut ready = Some(ready);
            for line in said.lines().map_while(Result::ok) {
                if line.contains("Ready to accept connections") {
                    ready.take().map(|ready| ready.send(()));
                }
            }
        });
        let started = timeout(START, is_ready).await.expect("it starts in time");
        started.expect("redis-server does not end");
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it can be ended");
            process.wait().expect("it ends");
        }
    }

    pub(crate) async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a URL");
        // It may be slow where many tests run.
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(START))
            .set_response_timeout(Some(START));
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        connection.await.expect("it accepts")
    }

    /// Has it do something that it does not refuse.
    pub(crate) async fn tell(&self, words: &[&str]) -> redis::Value {
        let mut cmd = redis::cmd(words[0]);
        cmd.arg(&words[1..]);
        let mut connection = self.connection().await;
        cmd.query_async(&mut connection).await.expect("it does so")
    }

    /// Whether this replica has all that a primary had done at an offset.
    pub(crate) async fn has_heard(&self, offset: u64) -> bool {
        self.offset("slave_repl_offset").await >= Some(offset)
    }

    /// How far a primary has got. WAIT would not tell: it is about the writes of one connection.
    pub(crate) async fn written(&self) -> u64 {
        self.offset("master_repl_offset").await.expect("a number")
    }

    async fn offset(&self, field: &str) -> Option<u64> {
        let mut connection = self.connection().await;
        let mut info = redis::cmd("INFO");
        let info = info.arg("replication").query_async(&mut connection);
        let info: String = info.await.expect("it answers");
        let mut values = info
            .lines()
            .filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        values.next()?.parse().ok()
    }
}

/// Not one of those that the system gives to connections, which begin at 32768: it must stay free
/// until a server takes it, also while that is started again.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 15_000) as u16;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
