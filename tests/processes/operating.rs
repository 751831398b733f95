//! The `tracker` example as operators use it: how it is asked how it is, how it is told what to
//! do, and how it ends.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use bt_lite::Transport;
use bt_lite::protocol::TrackerRequest;
use bt_lite::transport::Connection;
use futures::{SinkExt, StreamExt};

use super::*;

impl Program {
    /// Like [`start`](Program::start), with variables of the environment.
    fn start_with(name: &'static str, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(example(name));
        command.args(args).envs(variables.iter().copied());
        Self::spawned(name, command)
    }

    /// The error with which it ends, which is one line or more.
    fn failed(&mut self) -> String {
        let (status, _, stderr) = self.ended();
        assert_eq!(status.code(), Some(1), "{stderr}");
        stderr
    }
}

/// The status and the body of an answer over HTTP.
fn get(base: &str, path: &str) -> (u16, String) {
    let host = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// Looks again and again until something is so. Each look takes its time.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < PATIENCE,
            "it never came about that {what}"
        );
        std::thread::yield_now();
    }
}

/// A tracker with an admin address, and both addresses.
fn tracker(args: &[&str]) -> (Program, String, String) {
    let both = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let tracker = Program::start("tracker", &[&both[..], args].concat());
    let addr = tracker.said("listening ");
    let admin = tracker.said("admin ");
    (tracker, addr, admin)
}

/// A connection that stays whatever it is told: a client that has asked once.
async fn staying(tracker: &str) -> Connection {
    let request = TrackerRequest::Register {
        listen: None,
        token: None,
    };
    let connected = TcpTransport::new().connect(&tracker.parse().unwrap()).await;
    let mut connection = connected.unwrap();
    connection
        .sink
        .send(request.encode().unwrap())
        .await
        .unwrap();
    connection.stream.next().await.unwrap().unwrap();
    connection
}

#[test]
fn health_and_figures_are_told_over_http() {
    let (tracker, addr, admin) = tracker(&[]);
    assert_eq!(get(&admin, "/healthz"), (200, "ok\n".into()));
    assert_eq!(get(&admin, "/readyz"), (200, "ready\n".into()));
    assert_eq!(get(&admin, "/else").0, 404);
    let runtime = Runtime::new().unwrap();
    let client = {
        let _inside = runtime.enter();
        client(&addr, None)
    };
    runtime.block_on(client.registered()).unwrap();
    let (status, figures) = get(&admin, "/metrics");
    assert_eq!(status, 200);
    for line in [
        "# TYPE bt_lite_tracker_requests_total counter",
        "bt_lite_tracker_requests_total{kind=\"register\"} 1",
        "bt_lite_tracker_peers 1",
        "bt_lite_tracker_connections 1",
        "# TYPE bt_lite_tracker_request_seconds histogram",
    ] {
        assert!(
            figures.lines().any(|found| found == line),
            "{line}: {figures}"
        );
    }
    drop(tracker);
}

#[test]
fn address_that_is_taken_is_an_error_that_names_it() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin"] {
        let free = ["--listen", "--admin"]
            .into_iter()
            .find(|other| *other != flag);
        let args = [flag, &taken, free.unwrap(), "127.0.0.1:0"];
        let stderr = Program::start("tracker", &args).failed();
        assert!(
            stderr.contains(&taken) && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tracker.toml");
    fs::write(
        &file,
        "listen = \"127.0.0.9:0\"\nadmin = \"127.0.0.9:0\"\ndrain = 5\n\
         [limits]\nmax_connections = 1\nmax_connections_per_host = 7\n",
    )
    .unwrap();
    let variables = [
        ("BT_LITE_TRACKER_CONFIG", text(&file)),
        ("BT_LITE_TRACKER_LISTEN", "127.0.0.8:0"),
        ("BT_LITE_TRACKER_HTTP", "127.0.0.1:0, 127.0.0.2:0"),
        ("BT_LITE_TRACKER_LIMITS__MAX_CONNECTIONS", "30"),
    ];
    let mut tracker = Program::start_with("tracker", &["--admin", "127.0.0.1:0"], &variables);
    let listens = tracker.said("listening ");
    assert!(listens.starts_with("127.0.0.8:"), "{listens}");
    for host in ["127.0.0.1", "127.0.0.2"] {
        let announce = tracker.said("announce http://");
        assert!(announce.starts_with(host), "{announce}");
    }
    let admin = tracker.said("admin ");
    assert!(admin.starts_with("http://127.0.0.1:"), "{admin}");
    tracker.kill();
}

#[test]
fn key_that_is_unknown_or_wrong_is_named_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tracker.toml");
    for (content, named) in [
        ("lisen = \"127.0.0.1:0\"", "unknown field `lisen`"),
        (
            "[limits]\nmax_conections = 1",
            "unknown field `max_conections`",
        ),
        (
            "[limits.registry]\nheartbeat = 5",
            "a duration with its unit",
        ),
        ("[store]\nprefx = \"x\"", "unknown field `prefx`"),
        ("listen = ", "TOML parse error"),
        ("drain = \"soon\"", "drain"),
    ] {
        fs::write(&file, content).unwrap();
        let stderr = Program::start("tracker", &["--config", text(&file)]).failed();
        let told = stderr.contains(named) && stderr.contains("tracker.toml");
        assert!(told, "{content}: {stderr}");
    }
    let missing = dir.path().join("missing.toml");
    let stderr = Program::start("tracker", &["--config", text(&missing)]).failed();
    assert!(stderr.contains("missing.toml"), "{stderr}");
    for (name, value, named) in [
        (
            "BT_LITE_TRACKER_LISEN",
            "127.0.0.1:0",
            "unknown field `lisen`",
        ),
        ("BT_LITE_TRACKER_DRAIN", "soon", "soon"),
        (
            "BT_LITE_TRACKER_LIMITS__SHARS",
            "1",
            "unknown field `shars`",
        ),
    ] {
        let mut tracker = Program::start_with("tracker", &[], &[(name, value)]);
        let stderr = tracker.failed();
        assert!(stderr.contains(name) && stderr.contains(named), "{stderr}");
    }
    let redis = ["--redis", "redis://127.0.0.1:1/"];
    let stderr = Program::start("tracker", &redis).failed();
    assert!(stderr.contains("redis_secret"), "{stderr}");
}

#[test]
fn log_is_one_object_of_json_in_each_line() {
    let args = ["--log", "json", "--log-filter", "info"];
    let (mut tracker, addr, _) = tracker(&args);
    tracker.terminate();
    let (status, _, stderr) = tracker.ended();
    assert!(status.success(), "{stderr}");
    let lines: Vec<serde_json::Value> = stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let started = lines
        .iter()
        .find(|line| line["message"] == "tracker started");
    assert_eq!(started.unwrap()["addr"], addr.as_str(), "{stderr}");
    let drained = lines
        .iter()
        .find(|line| line["message"] == "tracker has drained");
    assert_eq!(drained.unwrap()["left"], 0, "{stderr}");
    for filter in ["loud", "info,bt_lite=loud"] {
        let stderr = Program::start("tracker", &["--log-filter", filter]).failed();
        assert!(stderr.contains("log_filter"), "{stderr}");
    }
}

/// The store is away when the tracker starts: it says so and ends, so that it is started again
/// by whoever looks after it.
#[test]
fn store_that_is_away_at_the_start_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "of any length").unwrap();
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/", away.local_addr().unwrap());
    drop(away);
    let listen = ["--listen", "127.0.0.1:0"];
    let store = ["--redis", &url, "--redis-secret", text(&secret)];
    let stderr = Program::start("tracker", &[&listen[..], &store].concat()).failed();
    assert!(stderr.contains("the store is out of reach"), "{stderr}");
    let missing = dir.path().join("missing");
    let store = ["--redis", &url, "--redis-secret", text(&missing)];
    let stderr = Program::start("tracker", &[&listen[..], &store].concat()).failed();
    assert!(stderr.contains("missing"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn sigterm_lets_clients_go_before_the_end_and_a_second_one_does_not_wait() {
    let runtime = Runtime::new().unwrap();
    // One client goes when it is told to, and asks all the time; one never goes.
    let (mut tracker, addr, admin) = tracker(&["--drain", "3600"]);
    let stays = runtime.block_on(staying(&addr));
    let client = {
        let _inside = runtime.enter();
        client(&addr, None)
    };
    runtime.block_on(client.registered()).unwrap();
    let asks = runtime.spawn(async move {
        let mut answered = 0_u64;
        loop {
            let key = ContentId::from_bytes([1; 32]).into();
            match client.need(key, 10).await {
                Err(bt_lite::tracker::TrackerError::NotFound) => answered += 1,
                // It has no other tracker.
                Err(error) => return (answered, error),
                Ok(found) => panic!("{found:?}"),
            }
        }
    });
    tracker.terminate();
    until("it drains", || get(&admin, "/readyz").0 == 503);
    assert_eq!(get(&admin, "/readyz").1, "the tracker drains\n");
    assert_eq!(get(&admin, "/healthz").0, 200);
    let (_, error) = runtime.block_on(asks).unwrap();
    // What was asked later than the farewell cannot be asked anywhere.
    assert!(error.is_transient(), "{error}");
    assert!(TcpStream::connect(&addr).is_err(), "nobody is let in");
    until("one connection is left", || {
        let (_, figures) = get(&admin, "/metrics");
        figures
            .lines()
            .any(|line| line == "bt_lite_tracker_connections 1")
    });
    tracker.terminate();
    let (status, _, stderr) = tracker.ended();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("second time"), "{stderr}");
    drop(stays);
}

#[cfg(unix)]
#[test]
fn sigterm_ends_the_tracker_though_a_client_stays() {
    let runtime = Runtime::new().unwrap();
    let (mut tracker, addr, admin) = tracker(&["--drain", "1", "--log-filter", "info"]);
    let stays = runtime.block_on(staying(&addr));
    until("it is registered", || {
        let (_, figures) = get(&admin, "/metrics");
        figures
            .lines()
            .any(|line| line == "bt_lite_tracker_peers 1")
    });
    tracker.terminate();
    let (status, _, stderr) = tracker.ended();
    assert!(status.success(), "{stderr}");
    assert!(stderr.contains("left=1"), "{stderr}");
    drop(stays);
}

/// The file of the unit is read as it is, up to the store that it names.
#[test]
fn unit_and_its_file_are_true() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cluster");
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("redis.secret");
    fs::write(&secret, "of any length").unwrap();
    let unit = fs::read_to_string(example.join("bt_lite-tracker.service")).unwrap();
    let of_unit = |key: &str| {
        let mut lines = unit.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    // The program with the flags and the environment of the unit, with other paths.
    let command: Vec<&str> = of_unit("ExecStart").unwrap().split(' ').collect();
    assert_eq!(command[1..], ["--config", "/etc/bt_lite/tracker.toml"]);
    let variable = of_unit("Environment").unwrap();
    let (name, path) = variable.split_once('=').unwrap();
    assert_eq!(path, "%d/redis.secret");
    let file = example.join("tracker.toml");
    let free = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let store = ["--redis", "redis://127.0.0.1:1/"];
    let args = [&free[..], &store, &["--config", text(&file)]].concat();
    let stderr = Program::start_with("tracker", &args, &[(name, text(&secret))]).failed();
    assert!(stderr.contains("the store is out of reach"), "{stderr}");

    let said: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
    let drain = said["drain"].as_integer().unwrap() as u64;
    let ends = Duration::from_secs(drain) + bt_lite::tracker::SHUTDOWN_TIMEOUT;
    let number = |key| of_unit(key).unwrap().parse::<u64>().unwrap();
    assert!(
        number("TimeoutStopSec") > ends.as_secs(),
        "it is not killed before"
    );
    let connections = said["limits"]["max_connections"].as_integer().unwrap();
    assert!(number("LimitNOFILE") > connections as u64);
}

#[test]
fn cluster_without_redis_says_what_is_missing() {
    let mut cluster = Program::start_with("cluster", &[], &[("PATH", "/nowhere")]);
    let stderr = cluster.failed();
    assert!(stderr.contains("no redis-server on the PATH"), "{stderr}");
}
