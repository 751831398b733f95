//! A tracker of several is ended on purpose, and how one tells that its store is away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bt_lite::tracker::{ClientConfig, TrackerClient};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_tracker_that_drains_are_at_another_and_announce_nothing_again() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let mut trackers = Vec::new();
    for number in 0..2 {
        trackers.push(tracker(&network, number, config(&[&server])).await);
    }
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut config = ClientConfig::default().one_store(true);
        // Shorter than a lease of these trackers.
        config = config
            .return_spread(Duration::from_millis(500))
            .seed(number);
        let name = format!("client-{number}");
        let at = (0..2).map(|number| addr(&format!("memory:t{number}")));
        let listen = Some(addr(&format!("memory:{name}")));
        let endpoint = Arc::new(network.endpoint(&name));
        let client = TrackerClient::start(endpoint, at.collect(), listen, config);
        let own = client.own(entry(1, OwnState::Complete)).await;
        own.expect("it is announced");
        clients.push(client);
    }
    let announced = |trackers: &[Tracker]| {
        let owns = trackers.iter().map(|tracker| tracker.stats().registry);
        owns.map(|stats| stats.requests.own).sum::<u64>()
    };
    assert_eq!(announced(&trackers), 20);
    let before = trackers[1].stats().connections;
    assert!(before < 20, "some are at the first");

    let asks = async {
        for client in &clients {
            let found = client.need(id(1).into(), 50).await;
            assert_eq!(found.expect("it is found").owners.len(), 19);
        }
    };
    let (left, ()) = tokio::join!(trackers[0].drain(PATIENCE), asks);
    assert_eq!(left, 0);
    until("all are at the second", async || {
        trackers[1].stats().connections == 20
    })
    .await;
    assert_eq!(announced(&trackers), 20, "nobody announces again");
    assert_eq!(trackers[1].stats().registry.expired, 0);
    until("all are counted", async || {
        trackers[1].stats().registry.ownerships == 20
    })
    .await;
}

/// The status and the body of `/readyz`.
fn readyz(admin: &str) -> (String, String) {
    let mut stream = TcpStream::connect(admin).expect("it listens");
    let request = format!("GET /readyz HTTP/1.0\r\nhost: {admin}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).expect("a status");
    (status.to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn program_is_not_ready_when_its_store_is_away_for_too_long() {
    let mut server = Server::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "of any length").expect("it is written");
    let test = std::env::current_exe().expect("it has a path");
    let profile = test.ancestors().nth(2).expect("a folder");
    let mut program = Command::new(profile.join("examples").join("tracker"))
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(["--redis", &server.url(), "--redis-secret"])
        .arg(&secret)
        .env("BT_LITE_TRACKER_STORE__ANSWERS_WITHOUT", "1s")
        .stdout(Stdio::piped())
        .spawn()
        .expect("cargo build --example tracker");
    let mut said = BufReader::new(program.stdout.take().expect("it is piped")).lines();
    let mut admin = said.nth(1).expect("two lines").expect("text");
    admin = admin.replace("admin http://", "");
    assert_eq!(readyz(&admin), ("200".into(), "ready\n".into()));
    server.kill();
    until("it is not ready", async || readyz(&admin).0 == "503").await;
    let (_, reason) = readyz(&admin);
    assert!(reason.contains("the store has been away for"), "{reason}");
    server.run().await;
    until("it is ready again", async || readyz(&admin).0 == "200").await;
    program.kill().expect("it can be ended");
    program.wait().expect("it ends");
}
