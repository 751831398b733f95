//! The cells: who begins with what, and what has to come of it.

use std::fs;
use std::path::PathBuf;

use bt_lite::bittorrent::tracker::ScrapeFigures;
use bt_lite::bittorrent::{FileChoice, Metainfo, MetainfoFormat};
use tempfile::TempDir;

use crate::client::{Client, Place};
use crate::ours::Ours;
use crate::program::Program;
use crate::setting::{Setting, until};
use crate::torrent::{MIDDLE, NAME, Share, announced, differences, torrent, write_share};
use crate::trackers::{OPENTRACKER, RunningTracker, TrackerKind};

/// A client, and where it has the content.
struct Running {
    program: Program,
    directory: PathBuf,
    makes_empty_files: bool,
    tells_tracker: bool,
}

/// A tracker, a torrent, and whoever is about it.
struct Cell {
    setting: Setting,
    tracker: RunningTracker,
    metainfo: Metainfo,
    clients: Vec<Running>,
    root: TempDir,
}

impl Cell {
    async fn start(clients: &[&Client], format: MetainfoFormat, kind: TrackerKind) -> Option<Self> {
        let others: &[_] = match kind.is_ours() {
            true => &[],
            false => &[OPENTRACKER],
        };
        let setting = Setting::find(clients, others)?;
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("tracker");
        let make = |url: &str| torrent(format, url);
        let (tracker, metainfo) = RunningTracker::start(kind, &setting, &home, make).await;
        fs::write(root.path().join("torrent"), metainfo.to_bytes()).unwrap();
        let mut cell = Self {
            setting,
            tracker,
            metainfo,
            clients: Vec::new(),
            root,
        };
        cell.tracker_knows("nobody", |figures| figures == ScrapeFigures::default())
            .await;
        Some(cell)
    }

    /// A directory of a peer with this share in it.
    fn directory(&self, name: &str, share: Share) -> PathBuf {
        let directory = self.root.path().join(name).join("content");
        fs::create_dir_all(&directory).unwrap();
        write_share(&self.metainfo, share, &directory);
        directory
    }

    /// Our side, and where it has the content.
    async fn ours(&self, share: Share) -> (Ours, PathBuf) {
        self.ours_of("ours", share, None).await
    }

    /// The same in a directory of its own, with these files wanted.
    async fn ours_of(
        &self,
        name: &str,
        share: Share,
        files: Option<FileChoice>,
    ) -> (Ours, PathBuf) {
        let directory = self.directory(name, share);
        let ours = Ours::start(&self.setting, &self.metainfo, &directory, files).await;
        (ours, directory)
    }

    fn client(&mut self, client: &Client, share: Share) {
        self.client_of(client, share, &[]);
    }

    /// The same with these files wanted.
    fn client_of(&mut self, client: &Client, share: Share, chosen: &[usize]) {
        let name = format!("{} {}", self.clients.len(), client.name);
        let directory = self.directory(&name, share);
        let home = self.root.path().join(&name);
        let asks_udp = self.tracker.url.starts_with("udp:");
        let place = Place {
            setting: &self.setting,
            torrent: &self.root.path().join("torrent"),
            directory: &directory,
            home: &home,
            address: self.setting.address_of(client),
            port: self.setting.free_port(),
            asks_udp,
            chosen,
        };
        let command = (client.command)(&place).unwrap();
        let program = Program::start(&name, command, &home).unwrap();
        self.clients.push(Running {
            program,
            directory,
            makes_empty_files: client.makes_empty_files,
            tells_tracker: client.tells_udp_trackers || !asks_udp,
        });
    }

    /// Waits until all clients have every byte.
    async fn clients_have_all(&mut self) {
        for client in &mut self.clients {
            until("the content at a client", async || {
                client.program.check_runs();
                differences(&client.directory, client.makes_empty_files).is_empty()
            })
            .await;
        }
    }

    /// Waits until everybody has told the tracker that they have all, if they tell.
    async fn all_are_seeders(&mut self) {
        let tell = self.clients.iter().filter(|client| client.tells_tracker);
        let count = tell.count() as u32 + 1;
        self.tracker_knows(&format!("{count} seeders"), |figures| {
            figures.complete >= count
        })
        .await;
    }

    /// Waits until the tracker knows anybody.
    async fn somebody_is_there(&mut self) {
        self.tracker_knows("a peer", |figures| {
            figures.complete + figures.incomplete > 0
        })
        .await;
    }

    async fn tracker_knows(&mut self, what: &str, is_so: impl Fn(ScrapeFigures) -> bool) {
        let info_hash = announced(&self.metainfo);
        let mut known = None;
        until(&format!("{what} at the tracker"), async || {
            for client in &mut self.clients {
                client.program.check_runs();
            }
            let figures = self.tracker.scrape(info_hash).await;
            if figures != known {
                println!("{}: {figures:?}", self.tracker.url);
                known = figures;
            }
            figures.is_some_and(&is_so)
        })
        .await;
    }
}

/// A client fetches from us.
pub(crate) async fn we_seed(client: &Client, format: MetainfoFormat, kind: TrackerKind) {
    let Some(mut cell) = Cell::start(&[client], format, kind).await else {
        return;
    };
    let (mut ours, _) = cell.ours(Share::All).await;
    ours.complete().await;
    cell.all_are_seeders().await;
    cell.client(client, Share::None);
    cell.clients_have_all().await;
    cell.all_are_seeders().await;
    ours.shutdown().await;
}

/// We fetch from a client.
pub(crate) async fn we_fetch(client: &Client, format: MetainfoFormat, kind: TrackerKind) {
    let Some(mut cell) = Cell::start(&[client], format, kind).await else {
        return;
    };
    cell.client(client, Share::All);
    cell.somebody_is_there().await;
    let (mut ours, directory) = cell.ours(Share::None).await;
    ours.complete().await;
    cell.all_are_seeders().await;
    assert_eq!(differences(&directory, true), [""; 0]);
    ours.shutdown().await;
}

/// Three clients, each with another third, and we with nothing, until all have all.
pub(crate) async fn mixed(clients: [&Client; 3], format: MetainfoFormat, kind: TrackerKind) {
    mix(clients, format, kind, (3, Share::None)).await;
}

/// Three clients and we, each with another quarter, until all have all.
pub(crate) async fn mixed_with_our_part(
    clients: [&Client; 3],
    format: MetainfoFormat,
    kind: TrackerKind,
) {
    let ours = Share::Part { of: 4, at: 3 };
    mix(clients, format, kind, (4, ours)).await;
}

async fn mix(
    clients: [&Client; 3],
    format: MetainfoFormat,
    kind: TrackerKind,
    (of, ours): (usize, Share),
) {
    let Some(mut cell) = Cell::start(&clients, format, kind).await else {
        return;
    };
    for (at, client) in clients.into_iter().enumerate() {
        cell.client(client, Share::Part { of, at });
    }
    let (mut ours, directory) = cell.ours(ours).await;
    ours.complete().await;
    cell.clients_have_all().await;
    cell.all_are_seeders().await;
    assert_eq!(differences(&directory, true), [""; 0]);
    ours.shutdown().await;
}

/// A client wants one file and gets it from us. Then it is a partial seed: one of us gets the
/// same file from it alone, and one that has all else gets what it lacks.
pub(crate) async fn some_files(client: &Client, format: MetainfoFormat, kind: TrackerKind) {
    let Some(mut cell) = Cell::start(&[client], format, kind).await else {
        return;
    };
    let (path, number, without) = MIDDLE;
    let (mut seeder, _) = cell.ours(Share::All).await;
    seeder.complete().await;
    cell.client_of(client, Share::None, &[number]);
    let theirs = cell.clients[0].directory.clone();
    until("the file at the client", async || {
        cell.clients[0].program.check_runs();
        !differences(&theirs, true).contains(&path)
    })
    .await;
    seeder.shutdown().await;
    let only = FileChoice::none().path(path);
    let (mut same, ours) = cell.ours_of("same", Share::None, Some(only)).await;
    same.complete().await;
    assert!(!differences(&ours, true).contains(&path));
    assert!(!ours.join(NAME).join("large").exists());
    same.shutdown().await;
    let (mut rest, ours) = cell.ours_of("rest", without, None).await;
    rest.complete().await;
    assert_eq!(differences(&ours, true), [""; 0]);
    rest.shutdown().await;
    assert!(differences(&theirs, true).contains(&"large"));
}
