//! What is saved as JSON for other programs to read: each form is in `json_forms.txt`, so
//! that a change of one is seen.

use std::fmt::Debug;
use std::path::PathBuf;

use bt_lite::peer::swarm::{
    BanReason, BannedPeer, DownloadStats, LeaveReason, LinkState, LinkStats, PieceMap, RemotePeer,
    Waste,
};
use bt_lite::peer::{ContentStats, PeerStats};
use bt_lite::protocol::{PeerId, RefuseReason};
use bt_lite::storage::{FilePoolStats, Lost};
use bt_lite::tracker::TrackerStats;
use bt_lite::transport::AuthError;
use bt_lite::{
    Addr, Advice, BindError, ChunkIndex, ConfigError, Content, ContentId, ContentKey, ContentState,
    DownloadError, DownloadEvent, Folder, FolderError, FolderEvent, FolderFile, FolderProgress,
    ListedContent, PeerEvent, Priority, Progress, ReaderError, RemoveError, ShareError,
    StallReason, StartError, StorageError, TrackerError, TransportError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::world::named;

/// The forms so far, a line each.
#[derive(Default)]
struct Forms(String);

impl Forms {
    /// One more, which is saved only.
    fn saved(&mut self, what: &str, value: impl Serialize) {
        let json = serde_json::to_string(&value).unwrap();
        self.0 += &format!("{what} {json}\n");
    }

    /// One more, which is loaded as well.
    fn loaded<T: Serialize + DeserializeOwned + PartialEq + Debug>(
        &mut self,
        what: &str,
        value: T,
    ) {
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<T>(&json).unwrap(), value, "{json}");
        self.saved(what, value);
    }
}

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn id() -> ContentId {
    ContentId::from_bytes([0xab; 32])
}

fn x() -> Content {
    Content::new(id(), named("x"), 100_000)
}

fn owner() -> RemotePeer {
    from(json!({"peer": "0102030405060708090a0b0c0d0e0f10", "addr": "192.0.2.1:7000"}))
}

fn banned(why: BanReason) -> BannedPeer {
    let why = serde_json::to_value(why).unwrap();
    let mut banned = serde_json::to_value(owner()).unwrap();
    let why = why.as_object().unwrap().clone();
    banned.as_object_mut().unwrap().extend(why);
    from(banned)
}

fn leaves() -> [LeaveReason; 5] {
    [
        LeaveReason::Ended,
        LeaveReason::Refused {
            reason: RefuseReason::NotNeeded,
        },
        LeaveReason::Left {
            reason: RefuseReason::Busy,
        },
        LeaveReason::Violation {
            what: "a second Bitfield",
        },
        LeaveReason::Silent,
    ]
}

fn bans() -> [BanReason; 2] {
    let chunk = ChunkIndex(7);
    [BanReason::BadChunk { chunk }, BanReason::BadManifest]
}

fn stalls() -> Vec<StallReason> {
    vec![
        StallReason::NoTracker { trackers: 2 },
        StallReason::NoOwners,
        StallReason::Unreachable { owners: 2 },
        StallReason::Refused {
            full: 1,
            refused: 2,
            unreachable: 3,
        },
        StallReason::NoManifest { links: 1, wrong: 2 },
        StallReason::Queued { position: 3 },
        StallReason::Silent { links: 2 },
        StallReason::Choked { links: 2 },
        StallReason::NothingMissing { links: 2 },
        StallReason::Gone,
        StallReason::Banned { peers: 2 },
        StallReason::Storage { chunks: 2 },
    ]
}

fn progress() -> Progress {
    let mut progress = Progress::default();
    (progress.length, progress.chunks) = (Some(100_000), Some(7));
    (progress.verified_bytes, progress.verified_chunks) = (32_768, 2);
    (progress.downloaded, progress.uploaded, progress.wasted) = (50_000, 10, 20);
    progress.rate = 1000.5;
    (progress.owners, progress.senders, progress.links) = (1, 2, 3);
    progress.place_in_line = Some(4);
    progress.limited = true;
    progress
}

fn peer_events(forms: &mut Forms) {
    let (id, content) = (id(), x());
    let by_name = ContentKey::from(named("x"));
    let events = [
        PeerEvent::Queued {
            key: by_name.clone(),
        },
        PeerEvent::Queued { key: id.into() },
        PeerEvent::Found {
            content: content.clone(),
        },
        PeerEvent::OwnerJoined { id, owner: owner() },
        PeerEvent::ChunkVerified {
            id,
            chunk: ChunkIndex(7),
        },
        PeerEvent::Resumed { id },
        PeerEvent::Paused { key: id.into() },
        PeerEvent::Unpaused { key: id.into() },
        PeerEvent::Complete {
            content: content.clone(),
        },
        PeerEvent::Failed {
            key: by_name,
            error: DownloadError::Cancelled,
        },
        PeerEvent::ShareStarted {
            content: content.clone(),
        },
        PeerEvent::ShareEnded {
            content: content.clone(),
        },
        PeerEvent::Evicted {
            content: content.clone(),
        },
        PeerEvent::Withdrawn {
            content,
            error: StorageError::ReadOnly,
        },
        PeerEvent::Missed { events: 5 },
    ];
    events
        .iter()
        .for_each(|event| forms.saved("PeerEvent", event));
    for why in leaves() {
        let owner = owner();
        forms.saved("PeerEvent", PeerEvent::OwnerLeft { id, owner, why });
    }
    for why in bans() {
        let banned = banned(why);
        forms.saved("PeerEvent", PeerEvent::Banned { id, banned });
    }
    for reason in stalls() {
        forms.saved("PeerEvent", PeerEvent::Stalled { id, reason });
    }
}

fn download_events(forms: &mut Forms) {
    let events = [
        DownloadEvent::Queued,
        DownloadEvent::Found(x()),
        DownloadEvent::Progress(progress()),
        DownloadEvent::Stalled(StallReason::Silent { links: 2 }),
        DownloadEvent::Resumed,
        DownloadEvent::Paused,
        DownloadEvent::Unpaused,
        DownloadEvent::OwnerJoined(owner()),
        DownloadEvent::OwnerLeft {
            owner: owner(),
            why: LeaveReason::Silent,
        },
        DownloadEvent::Banned(banned(BanReason::BadManifest)),
        DownloadEvent::ChunkVerified {
            chunk: ChunkIndex(7),
        },
        DownloadEvent::Missed { events: 5 },
        DownloadEvent::Finished(x()),
        DownloadEvent::Failed(DownloadError::ShutDown),
    ];
    events
        .iter()
        .for_each(|event| forms.saved("DownloadEvent", event));
    let folder: Folder = from(json!({"id": id(), "name": "x", "files": 3, "length": 100_000}));
    let mut so_far = FolderProgress::default();
    (so_far.files, so_far.files_done, so_far.length) = (3, 1, 100_000);
    let file: FolderFile = from(json!({
        "path": "a/b", "id": id(), "length": 5, "verified_bytes": 5, "done": true, "found": false,
    }));
    let events = [
        FolderEvent::Found(folder.clone()),
        FolderEvent::FileDone(file),
        FolderEvent::NoSuchPath {
            path: "docs/a".parse().unwrap(),
        },
        FolderEvent::Progress(so_far),
        FolderEvent::Paused,
        FolderEvent::Unpaused,
        FolderEvent::Finished(folder),
        FolderEvent::Failed(FolderError::Unsupported),
    ];
    events
        .iter()
        .for_each(|event| forms.saved("FolderEvent", event));
}

fn stats(forms: &mut Forms) {
    forms.loaded("Progress", progress());
    stalls()
        .into_iter()
        .for_each(|reason| forms.loaded("StallReason", reason));
    bans()
        .into_iter()
        .for_each(|why| forms.loaded("BannedPeer", banned(why)));
    let states = [
        LinkState::Greeting,
        LinkState::Unchoked,
        LinkState::Choked,
        LinkState::Queued { position: 3 },
        LinkState::Waiting { position: 4 },
    ];
    states
        .into_iter()
        .for_each(|state| forms.loaded("LinkState", state));
    let link: LinkStats = from(json!({
        "link": 5, "peer": "0102030405060708090a0b0c0d0e0f10", "addr": null,
        "remote": "192.0.2.1:50000", "dialled": true, "state": "queued", "position": 3,
        "choked": false, "download_rate": 1000, "upload_rate": 0, "downloaded": 50_000,
        "uploaded": 10, "chunks": 7, "share": 1.0,
    }));
    let mut waste = Waste::default();
    (waste.late, waste.bad, waste.dropped) = (1, 2, 3);
    let mut stats = DownloadStats::default();
    stats.progress = progress();
    (stats.download_rate, stats.upload_rate, stats.waste) = (1000, 10, waste);
    (stats.links, stats.banned) = (vec![link], vec![banned(BanReason::BadManifest)]);
    stats.rejected = 1;
    forms.loaded("DownloadStats", stats);
    let map: PieceMap = from(json!({"chunks": 3, "runs": [
        {"first": 0, "len": 2, "state": "stored", "copies": 1},
        {"first": 2, "len": 1, "state": "under_way", "copies": 2},
    ]}));
    forms.loaded("PieceMap", map);
    for state in ["missing", "under_way", "arrived", "unchecked", "stored"] {
        let state: bt_lite::peer::swarm::PieceState = from(json!(state));
        forms.loaded("PieceState", state);
    }
    let files: FilePoolStats = from(json!({"open": 1, "max_open": 8, "waiting": 0}));
    let peer: PeerStats = from(json!({
        "contents": 3, "awake": 1, "active_downloads": 1, "queued_downloads": 0,
        "connections": 2, "max_connections": 200, "files": files, "download_rate": 1000,
        "upload_rate": 10, "downloaded": 50_000, "uploaded": 10, "waste": waste,
    }));
    forms.loaded("PeerStats", peer);
    let states = [
        ContentState::Queued { position: 3 },
        ContentState::Looking,
        ContentState::Downloading,
        ContentState::Paused,
        ContentState::Seeding,
    ];
    for state in states {
        forms.loaded("ContentState", state);
        let mut listed = serde_json::to_value(state).unwrap();
        let folder = json!({"folder": {"progress": FolderProgress::default(), "path": "/a"}});
        for kind in [json!("single"), folder] {
            let rest = json!({
                "kind": kind, "id": id(), "name": "x", "length": 100_000, "progress": progress(),
            });
            let rest = rest.as_object().unwrap().clone();
            listed.as_object_mut().unwrap().extend(rest);
            forms.loaded("ListedContent", from::<ListedContent>(listed.clone()));
        }
    }
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        forms.loaded("Priority", priority);
    }
    let content: ContentStats =
        from(json!({"id": id(), "length": 100_000, "names": ["x", "y"], "uploaded": 10}));
    forms.loaded("ContentStats", content);
    let mut tracker = TrackerStats::default();
    tracker.registry.peers = 2;
    tracker.registry.requests.need = 3;
    tracker.registry.refusals.busy = 1;
    tracker.uptime = std::time::Duration::from_secs(90);
    forms.loaded("TrackerStats", tracker);
}

fn errors(forms: &mut Forms) {
    let tracker: Addr = "192.0.2.1:6900".parse().unwrap();
    let closed = || TransportError::Closed;
    forms.saved("TransportError", closed());
    forms.saved("TransportError", TransportError::SpeaksTls);
    forms.saved("TransportError", TransportError::Auth(AuthError::NotTls));
    let unreachable = TrackerError::Unreachable {
        tracker: tracker.clone(),
        source: closed(),
    };
    forms.saved("TrackerError", &unreachable);
    let full = StorageError::full("writing /a", 5, Some(3));
    forms.saved("StorageError", &full);
    let failed = DownloadError::Storage {
        id: id(),
        chunk: Some(ChunkIndex(7)),
        source: full,
    };
    forms.saved("DownloadError", &failed);
    let gave_up = DownloadError::GaveUp {
        id: id(),
        missing: Some(2),
        reason: StallReason::Gone,
    };
    forms.saved("DownloadError", gave_up);
    let zero = ConfigError::Zero {
        field: "max_downloads",
    };
    forms.saved("ConfigError", &zero);
    forms.saved("StartError", StartError::Config(zero));
    forms.saved("ShareError", ShareError::Tracker(unreachable));
    forms.saved("ReaderError", ReaderError::NotHere { id: id() });
    let key = || "film".to_owned();
    forms.saved("ReaderError", ReaderError::Unknown { key: key() });
    forms.saved("RemoveError", RemoveError::Unknown { key: key() });
    forms.saved("RemoveError", RemoveError::NotHere { id: id() });
    forms.saved("FolderError", FolderError::Download(failed));
    forms.saved(
        "BindError",
        BindError::Listen {
            addr: tracker.clone(),
            source: closed(),
        },
    );
    forms.saved("Lost", Lost::new(id(), named("x"), StorageError::ReadOnly));
    for advice in [Advice::Retry, Advice::AskUser, Advice::GiveUp] {
        forms.loaded("Advice", advice);
    }
    let reasons = [
        RefuseReason::Version,
        RefuseReason::UnknownContent,
        RefuseReason::Busy,
        RefuseReason::SelfConnection,
        RefuseReason::Duplicate,
        RefuseReason::Banned,
        RefuseReason::NotNeeded,
        RefuseReason::ShuttingDown,
    ];
    reasons
        .into_iter()
        .for_each(|reason| forms.loaded("RefuseReason", reason));
    forms.loaded("PeerId", PeerId([0xab; 16]));
    for wrong in [
        "",
        "+b2030405060708090a0b0c0d0e0f10a",
        "0102030405060708090a0b0c0d0e0f1",
    ] {
        assert!(
            serde_json::from_value::<PeerId>(json!(wrong)).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn forms_are_those_of_the_file() {
    let mut forms = Forms::default();
    peer_events(&mut forms);
    download_events(&mut forms);
    stats(&mut forms);
    errors(&mut forms);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/net/json_forms.txt");
    if std::env::var_os("WRITE_JSON_FORMS").is_some() {
        std::fs::write(&path, &forms.0).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap();
    for (line, expected) in forms.0.lines().zip(file.lines()) {
        assert_eq!(line, expected);
    }
    assert_eq!(forms.0.lines().count(), file.lines().count());
}
