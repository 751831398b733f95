//! The trackers by which the peers of a cell find each other.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use bt_lite::bittorrent::tracker::ScrapeFigures;
use bt_lite::bittorrent::tracker::http::{ScrapeAnswer, ScrapeQuery};
use bt_lite::bittorrent::{InfoHashV1, Metainfo};
use bt_lite::{MemoryNetwork, Tracker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::program::Program;
use crate::setting::Setting;

/// As `.ci/clients` calls it, and where it is.
pub(crate) const OPENTRACKER: (&str, &str) = ("opentracker", "bin/opentracker");

/// A tracker, and how it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrackerKind {
    OurHttp,
    OurUdp,
    OpentrackerHttp,
    OpentrackerUdp,
}

impl TrackerKind {
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::OurHttp | Self::OurUdp)
    }

    fn is_udp(self) -> bool {
        matches!(self, Self::OurUdp | Self::OpentrackerUdp)
    }

    fn url(self, addr: SocketAddr) -> String {
        match self.is_udp() {
            true => format!("udp://{addr}"),
            false => format!("http://{addr}/announce"),
        }
    }
}

/// A tracker that runs.
pub(crate) struct RunningTracker {
    /// What a torrent says of it.
    pub(crate) url: String,
    /// Where it answers over HTTP.
    http: SocketAddr,
    _ours: Option<Tracker>,
    theirs: Option<Program>,
}

impl RunningTracker {
    /// Starts it. Which torrents there are has to be told to some before.
    pub(crate) async fn start(
        kind: TrackerKind,
        setting: &Setting,
        home: &Path,
        torrent: impl FnOnce(&str) -> Metainfo,
    ) -> (Self, Metainfo) {
        match kind.is_ours() {
            true => ours(kind, setting, torrent).await,
            false => theirs(kind, setting, home, torrent),
        }
    }

    /// What it knows of a torrent. `None` if it does not answer yet.
    pub(crate) async fn scrape(&mut self, info_hash: InfoHashV1) -> Option<ScrapeFigures> {
        if let Some(program) = &mut self.theirs {
            program.check_runs();
        }
        let info_hashes = vec![info_hash];
        let query = ScrapeQuery { info_hashes }.to_query();
        let mut stream = TcpStream::connect(self.http).await.ok()?;
        let request =
            format!("GET /scrape?{query} HTTP/1.1\r\nHost: tracker\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let answer = ScrapeAnswer::decode(&answer[head + 4..]).unwrap();
        Some(answer.files.get(&info_hash).copied().unwrap_or_default())
    }
}

async fn ours(
    kind: TrackerKind,
    setting: &Setting,
    torrent: impl FnOnce(&str) -> Metainfo,
) -> (RunningTracker, Metainfo) {
    let network = MemoryNetwork::new(1);
    let tracker = Tracker::builder(network.endpoint("tracker"));
    let tracker = tracker.bind("memory:tracker").await.unwrap();
    let at = format!("{}:0", setting.address);
    let http = tracker.serve_http(&*at).await.unwrap();
    let http = http.socket_addr().unwrap();
    let asked = match kind.is_udp() {
        true => tracker
            .serve_udp(&*at)
            .await
            .unwrap()
            .socket_addr()
            .unwrap(),
        false => http,
    };
    let url = kind.url(asked);
    let metainfo = torrent(&url);
    let tracker = RunningTracker {
        url,
        http,
        _ours: Some(tracker),
        theirs: None,
    };
    (tracker, metainfo)
}

fn theirs(
    kind: TrackerKind,
    setting: &Setting,
    home: &Path,
    torrent: impl FnOnce(&str) -> Metainfo,
) -> (RunningTracker, Metainfo) {
    let addr = SocketAddr::from((setting.address, setting.free_port()));
    let url = kind.url(addr);
    let metainfo = torrent(&url);
    fs::create_dir_all(home).unwrap();
    // The packaged one tracks nothing else.
    let v2 = metainfo.info_hash_v2().map(|hash| hash.truncated());
    let hashes = metainfo.info_hash_v1().into_iter().chain(v2);
    let known: String = hashes.map(|hash| format!("{hash}\n")).collect();
    fs::write(home.join("known"), known).unwrap();
    // It gives up its rights and changes its root, so it has to find all of that as another
    // user, from the new root.
    let options = format!(
        "listen.tcp_udp {addr}\ntracker.rootdir {}\ntracker.user nobody\naccess.whitelist known\n",
        home.display()
    );
    let path = home.join("options");
    fs::write(&path, options).unwrap();
    let mut command = Command::new(setting.programs.join(OPENTRACKER.1));
    command.arg("-f").arg(path);
    let program = Program::start("opentracker", command, home).unwrap();
    let tracker = RunningTracker {
        url,
        http: addr,
        _ours: None,
        theirs: Some(program),
    };
    (tracker, metainfo)
}
