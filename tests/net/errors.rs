//! Every error that a call fails with: what it says, what to do about it, and that
//! nothing of its causes is lost. One row for each variant.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::path::Path;

use bt_lite::bittorrent::TorrentError;
use bt_lite::content::{FolderIndexError, FolderPathError, ManifestError, UnsafeName};
use bt_lite::peer::swarm::StallReason;
use bt_lite::protocol::{PeerId, ProtocolError, Refusal};
use bt_lite::tracker::StoreError;
use bt_lite::transport::AuthError;
use bt_lite::{
    Addr, Advice, BindError, ChunkIndex, ConfigError, ContentId, DownloadError, FolderError,
    FolderPath, NameError, ReaderError, RemoveError, ShareError, StartError, StorageError,
    TrackerError, TransportError,
};

use crate::world::named;
use Advice::{AskUser, GiveUp, Retry};

/// The number of "no space left".
const SYSTEM: i32 = 28;

/// An error, and what is expected of it.
struct Row {
    /// The names of its type and of its variant.
    name: String,
    error: Box<dyn Error>,
    advice: Advice,
    transient: bool,
    expected: Advice,
    text: String,
}

/// Rows of one type.
macro_rules! rows {
    ($rows:ident, $type:ident: $($error:expr => $advice:ident, $text:expr;)+) => {
        $({
            let error: $type = $error;
            let debug = format!("{error:?}");
            let variant = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            $rows.push(Row {
                name: format!("{}::{variant}", stringify!($type)),
                advice: error.advice(),
                transient: error.is_transient(),
                expected: $advice,
                text: $text.to_string(),
                error: Box::new(error),
            });
        })+
    };
}

fn os() -> io::Error {
    io::Error::from_raw_os_error(SYSTEM)
}

fn addr() -> Addr {
    "memory:a".parse().unwrap()
}

fn id() -> ContentId {
    ContentId::of(b"x")
}

fn path() -> FolderPath {
    "docs/a".parse().unwrap()
}

fn down() -> TransportError {
    io::Error::from(io::ErrorKind::ConnectionRefused).into()
}

fn disk() -> StorageError {
    StorageError::io("writing /a/film", os()).at("/a/film")
}

fn unreachable() -> TrackerError {
    TrackerError::Unreachable {
        tracker: addr(),
        source: os().into(),
    }
}

/// A tracker of a private swarm.
fn clear() -> TrackerError {
    TrackerError::Unreachable {
        tracker: addr(),
        source: TransportError::SpeaksTls,
    }
}

fn refused(refusal: Refusal) -> TrackerError {
    TrackerError::Refused {
        tracker: addr(),
        refusal,
    }
}

fn transport_rows(rows: &mut Vec<Row>) {
    let io = |kind: io::ErrorKind| TransportError::from(io::Error::from(kind));
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    let in_use = io::Error::from(io::ErrorKind::AddrInUse);
    rows!(rows, TransportError:
        TransportError::Address { addr: addr(), reason: "no port".into() }
            => AskUser, "invalid address memory:a for this transport: no port";
        TransportError::from(os()) => Retry, os();
        io(io::ErrorKind::PermissionDenied) => AskUser, denied;
        io(io::ErrorKind::AddrInUse) => AskUser, in_use;
        TransportError::FrameTooLarge { len: 9, max: 8 }
            => Retry, "part of a frame is 9 bytes long; the limit is 8";
        TransportError::Truncated => Retry, "the connection ended in the middle of a frame";
        TransportError::FrameTimeout => Retry, "timed out in the middle of a frame";
        TransportError::SpeaksTls
            => AskUser, "the other side speaks TLS, and this side does not";
        TransportError::Auth(AuthError::NotTls)
            => AskUser, "the other side does not speak TLS, and this side does: set both to the \
                same transport, or look whether this is its address";
        TransportError::Auth(AuthError::Expired)
            => AskUser, "the certificate of the other side has expired: it must be renewed there, \
                or the clock of this machine is wrong";
        TransportError::Closed => Retry, "the connection is closed";
    );
}

fn storage_rows(rows: &mut Vec<Row>) {
    let (name, film) = (named("film"), || "/a/film".into());
    let memory = io::Error::from(io::ErrorKind::OutOfMemory);
    rows!(rows, StorageError:
        StorageError::Exists { name: name.clone(), path: Some(film()) }
            => AskUser, "/a/film already exists";
        StorageError::Exists { name: name.clone(), path: None }
            => AskUser, "film already exists";
        StorageError::Locked { id: id(), path: Some(film()) }
            => Retry, "/a/film is being written by another download";
        StorageError::NotFound { name: name.clone() }
            => AskUser, "film is not in the storage";
        StorageError::Reserved { name: name.clone() }
            => AskUser, "the name film is reserved by the storage";
        StorageError::UnsafeName { name: name.clone(), reason: UnsafeName::Hidden }
            => AskUser, format!("\"film\" is not a safe file name: {}", UnsafeName::Hidden);
        StorageError::OutOfBounds { offset: 1, len: 2, length: 2 }
            => GiveUp, "2 bytes at offset 1 are out of bounds: the content has 2 bytes";
        StorageError::Unsupported { what: "removing a content" }
            => GiveUp, "this storage does not support removing a content";
        StorageError::NotADirectory { path: film() } => AskUser, "/a/film is not a directory";
        StorageError::NotAFile { path: film(), found: "a pipe" }
            => AskUser, "cannot use /a/film: it is a pipe";
        StorageError::WrongLength { path: film(), length: 7 }
            => AskUser, "cannot use /a/film: it does not read as the 7 bytes that the system \
                         says it has";
        StorageError::NoLocks { path: "/a".into(), source: os().into() }
            => AskUser, format!("files cannot be locked in /a: {}", os());
        StorageError::ReadOnly => GiveUp, "the content is read-only";
        StorageError::Tampered { path: film(), how: "removed" }
            => Retry, "/a/film was removed during the download";
        StorageError::Changed { path: film() }
            => AskUser, "/a/film has changed since it was opened, or is gone";
        StorageError::Altered { path: film(), chunk: ChunkIndex(3) }
            => Retry, "chunk 3 of /a/film has been altered since it was written";
        StorageError::Mismatch { path: film() }
            => GiveUp, "/a/film is a torrent's that is not the same content";
        StorageError::full("/a/film", 7, Some(3)).at(film())
            => AskUser, "/a/film: not enough space (7 bytes needed, 3 available)";
        StorageError::Full {
            what: "writing /a/film".into(),
            needed: 0,
            available: None,
            path: Some(film()),
            source: Some(os().into()),
        } => AskUser, "writing /a/film: not enough space";
        disk() => AskUser, format!("writing /a/film failed: {}", os());
        StorageError::io("reading /a/film", io::ErrorKind::OutOfMemory)
            => Retry, format!("reading /a/film failed: {memory}");
    );
}

fn tracker_rows(rows: &mut Vec<Row>) {
    let magic = ProtocolError::Magic;
    rows!(rows, TrackerError:
        unreachable() => Retry, format!("cannot reach tracker memory:a: {}", os());
        TrackerError::TimedOut { tracker: addr() }
            => Retry, "tracker memory:a did not answer in time";
        refused(Refusal::Busy)
            => Retry, format!("tracker memory:a refused the request: {}", Refusal::Busy);
        refused(Refusal::Malformed)
            => AskUser, format!("tracker memory:a refused the request: {}", Refusal::Malformed);
        TrackerError::Protocol { tracker: addr(), source: magic.clone() }
            => AskUser, format!("invalid message from tracker memory:a: {magic}");
        TrackerError::Unexpected { tracker: addr() }
            => AskUser, "unexpected answer from tracker memory:a";
        TrackerError::Ambiguous { candidates: vec![(id(), 1), (id(), 2)] }
            => AskUser, "2 contents have this name; use an id instead";
        TrackerError::NotFound => Retry, "no tracker knows this content";
        TrackerError::NoTracker => AskUser, "no tracker is configured";
        TrackerError::Invalid(magic.clone())
            => AskUser, format!("cannot encode the request: {magic}");
        TrackerError::TooManyContents { max: 5 }
            => AskUser, "already sharing 5 contents, the configured maximum";
        TrackerError::TooManyNames { max: 8 } => AskUser, "the content has 8 names already";
        TrackerError::Closed => GiveUp, "the tracker client is shut down";
    );
    let zero = ConfigError::Zero {
        field: "max_connections",
    };
    rows!(rows, BindError:
        BindError::Config(zero) => AskUser, "max_connections must be at least 1";
        BindError::Listen { addr: addr(), source: os().into() }
            => Retry, format!("cannot listen at memory:a: {}", os());
        BindError::Entropy { source: os().into() }
            => AskUser, format!("cannot get random bytes from the operating system: {}", os());
        BindError::Store(StoreError::Key)
            => AskUser, "the trackers of this store have another key";
    );
    let message = || "SAID".to_owned();
    rows!(rows, StoreError:
        StoreError::Unreachable { message: message() }
            => Retry, "the store is out of reach: SAID";
        StoreError::ReadOnly { message: message() }
            => Retry, "the store accepts no changes: SAID";
        StoreError::Full { message: message() } => AskUser, "the store is full: SAID";
        StoreError::Schema { found: "2".to_owned(), expected: "1" }
            => AskUser, "the store has schema 2, and this tracker writes schema 1";
        StoreError::Key => AskUser, "the trackers of this store have another key";
    );
}

fn start_rows(rows: &mut Vec<Row>) {
    let source = "".parse::<Addr>().unwrap_err();
    let unusable = TransportError::Address {
        addr: addr(),
        reason: "no port".into(),
    };
    rows!(rows, ConfigError:
        ConfigError::Addr { text: "".into(), source }
            => AskUser, format!("invalid address \"\": {source}");
        ConfigError::Advertise { addr: addr(), source: unusable.clone() }
            => AskUser, format!("cannot advertise memory:a: {unusable}");
        ConfigError::Id { fixed: PeerId([1; 16]), set: PeerId([2; 16]) }
            => AskUser, format!(
                "the id is {}, that of the key of the transport, and cannot be {}",
                PeerId([1; 16]), PeerId([2; 16]));
        ConfigError::Zero { field: "max_links" } => AskUser, "max_links must be at least 1";
        ConfigError::OutOfRange {
            field: "silence",
            found: "1ms".into(),
            allowed: "at least 10ms".into(),
        } => AskUser, "silence must be at least 10ms, not 1ms";
    );
    rows!(rows, StartError:
        StartError::ShutDown => GiveUp, "the peer is shut down";
        StartError::Config(ConfigError::Zero { field: "max_links" })
            => AskUser, "max_links must be at least 1";
        StartError::Listen { addr: addr(), source: os().into() }
            => Retry, format!("cannot listen at memory:a: {}", os());
        StartError::Tracker(unreachable())
            => Retry, format!("cannot reach tracker memory:a: {}", os());
        StartError::Storage(disk())
            => AskUser, format!("cannot list the stored contents: {}", disk());
        StartError::Entropy { source: os().into() }
            => AskUser, format!("cannot get random bytes from the operating system: {}", os());
    );
}

fn share_rows(rows: &mut Vec<Row>) {
    let (name, locked) = (
        named("film"),
        StorageError::Locked {
            id: id(),
            path: None,
        },
    );
    rows!(rows, ShareError:
        ShareError::Name { name: "..".into(), source: NameError::Dots }
            => AskUser, format!("invalid content name \"..\": {}", NameError::Dots);
        ShareError::Storage(disk()) => AskUser, disk();
        ShareError::Storage(locked.clone()) => Retry, locked;
        ShareError::Content { name: name.clone(), source: ManifestError::Mismatch }
            => AskUser, format!("film: {}", ManifestError::Mismatch);
        ShareError::Reader { name: named("film"), source: os().into() }
            => Retry, format!("film: reading failed: {}", os());
        ShareError::LengthDiffers { name: named("film"), id: id(), expected: 3, length: 2 }
            => AskUser, format!("film is not {}: it has 2 bytes, and not 3", id());
        ShareError::HashDiffers { name: named("film"), id: id(), found: ContentId::of(b"y") }
            => AskUser, format!("film is not {}: it is {}", id(), ContentId::of(b"y"));
        ShareError::TooManyNames { id: id(), max: 8 }
            => AskUser, format!("{} has 8 names already", id());
        ShareError::Downloading { id: id() }
            => Retry, format!("{} is being downloaded by this peer", id());
        ShareError::Tracker(unreachable()) => Retry, unreachable();
        ShareError::ShutDown => GiveUp, "the peer is shut down";
    );
    let unknown = "\"film\" stands for no content here, or for more than one";
    rows!(rows, RemoveError:
        RemoveError::Unknown { key: "film".into() } => AskUser, unknown;
        RemoveError::NotHere { id: id() } => AskUser, format!("{} is not here", id());
        RemoveError::Downloading { id: id() }
            => AskUser, format!("{} is being downloaded", id());
        RemoveError::Folder { id: id() } => AskUser, format!("{} belongs to a folder", id());
        RemoveError::ShutDown => GiveUp, "the peer is shut down";
    );
    rows!(rows, ReaderError:
        ReaderError::Unknown { key: "film".into() } => AskUser, unknown;
        ReaderError::NotHere { id: id() }
            => AskUser, format!("{} is neither complete here nor being downloaded", id());
        ReaderError::Passing { id: id() }
            => Retry, format!("{} passes through a stream, which alone can read it", id());
        ReaderError::Storage { id: id(), source: disk() }
            => AskUser, format!("{}: {}", id(), disk());
        ReaderError::Storage { id: id(), source: locked.clone() }
            => Retry, format!("{}: {locked}", id());
        ReaderError::ShutDown => GiveUp, "the peer is shut down";
    );
}

fn download_rows(rows: &mut Vec<Row>) {
    let bad_id = "film".parse::<ContentId>().unwrap_err();
    let (name, film) = (named("film"), Some("/a/film".into()));
    let candidates = vec![(id(), 1), (id(), 2)];
    rows!(rows, DownloadError:
        DownloadError::Id { text: "film".into(), source: bad_id }
            => AskUser, format!("invalid content id \"film\": {bad_id}");
        DownloadError::Name { name: "..".into(), source: NameError::Dots }
            => AskUser, format!("invalid content name \"..\": {}", NameError::Dots);
        DownloadError::Config(ConfigError::Zero { field: "owners" })
            => AskUser, "owners must be at least 1";
        DownloadError::Owner { addr: addr(), source: down() }
            => Retry, format!("cannot ask the owner memory:a: {}", down());
        DownloadError::Owner { addr: addr(), source: os().into() }
            => Retry, format!("cannot ask the owner memory:a: {}", os());
        DownloadError::NotFound { key: name.clone().into() }
            => Retry, "no tracker knows the content film";
        DownloadError::Ambiguous { name: name.clone(), candidates }
            => AskUser, format!(
                "2 contents have the name film; ask by id: {0} (1 bytes), {0} (2 bytes)", id());
        DownloadError::NoOwners { id: id() } => Retry, format!("no peer is sharing {}", id());
        DownloadError::GaveUp { id: id(), missing: Some(2), reason: StallReason::NoOwners }
            => Retry, format!("{} was given up: no owner is known; 2 chunks are missing", id());
        DownloadError::NoTracker { trackers: 2, source: unreachable() }
            => Retry, format!("given up, as none of 2 trackers answers: {}", unreachable());
        DownloadError::NoTracker { trackers: 1, source: clear() }
            => AskUser, format!("given up, as none of 1 trackers answers: {}", clear());
        DownloadError::Directory { path: "/b".into(), source: disk() }
            => AskUser, format!("cannot download into /b: {}", disk());
        DownloadError::Existing { path: "/b".into(), source: disk() }
            => AskUser, format!("cannot take over /b: {}", disk());
        DownloadError::TooLarge { id: id(), length: 2, max: 1 }
            => AskUser, format!("{} has 2 bytes, and 1 are allowed", id());
        DownloadError::Writer { source: os().into() }
            => AskUser, format!("writing the content failed: {}", os());
        DownloadError::Tracker(unreachable()) => Retry, unreachable();
        DownloadError::TargetExists { name: name.clone(), path: film, id: id() }
            => AskUser, format!("/a/film already exists and is not {}", id());
        DownloadError::Storage { id: id(), chunk: Some(ChunkIndex(3)), source: disk() }
            => AskUser, format!("{}, chunk 3: {}", id(), disk());
        DownloadError::NotWanted { id: id(), chunk: ChunkIndex(3) }
            => AskUser, format!("chunk 3 of {} is in no file that is wanted", id());
        DownloadError::Torrent { id: id(), source: TorrentError::OtherHash }
            => AskUser, format!(
                "the torrent {} cannot be fetched: {}", id(), TorrentError::OtherHash);
        DownloadError::Cancelled => GiveUp, "the download was cancelled";
        DownloadError::ShutDown => GiveUp, "the peer is shut down";
    );
}

fn folder_rows(rows: &mut Vec<Row>) {
    let file = || DownloadError::Storage {
        id: id(),
        chunk: Some(ChunkIndex(3)),
        source: disk(),
    };
    rows!(rows, FolderError:
        FolderError::Path { path: "..".into(), source: FolderPathError::Encoding }
            => AskUser, format!("invalid path \"..\": {}", FolderPathError::Encoding);
        FolderError::Unsupported => AskUser, "the storage of this peer cannot keep folders";
        FolderError::Name { path: "/a/x".into(), source: FolderPathError::Encoding }
            => AskUser, format!("/a/x cannot be shared: {}", FolderPathError::Encoding);
        FolderError::Index(FolderIndexError::NotAFolder)
            => AskUser, FolderIndexError::NotAFolder;
        FolderError::NoSuchPath { path: path() } => AskUser, "the folder has no docs/a";
        FolderError::TargetExists { name: named("a"), path: "/a".into(), id: id() }
            => AskUser, format!("/a already exists and is not the folder {}", id());
        FolderError::AlreadyHere { id: id() }
            => AskUser, format!("the folder {}, or a part of it, is here already", id());
        FolderError::File { path: path(), source: file() }
            => AskUser, format!("docs/a: {}", file());
        FolderError::Download(DownloadError::NoOwners { id: id() })
            => Retry, format!("no peer is sharing {}", id());
        FolderError::Share(ShareError::Storage(disk())) => AskUser, disk();
        FolderError::Storage(disk()) => AskUser, disk();
    );
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    transport_rows(&mut rows);
    storage_rows(&mut rows);
    tracker_rows(&mut rows);
    start_rows(&mut rows);
    share_rows(&mut rows);
    download_rows(&mut rows);
    folder_rows(&mut rows);
    rows
}

#[test]
fn each_variant_of_each_error_has_a_row() {
    let rows: BTreeSet<String> = rows().into_iter().map(|row| row.name).collect();
    let types: BTreeSet<&str> = rows
        .iter()
        .filter_map(|row| row.split("::").next())
        .collect();
    let mut variants = BTreeSet::new();
    for line in include_str!("../../api.txt").lines() {
        // `pub bt_lite::storage::StorageError::Changed`, or with `(...)` behind it.
        let Some(path) = line.strip_prefix("pub bt_lite::") else {
            continue;
        };
        let path: Vec<_> = path.split('(').next().unwrap().split("::").collect();
        if let [.., name, variant] = path[..]
            && types.contains(name)
            && variant.chars().all(char::is_alphanumeric)
        {
            variants.insert(format!("{name}::{variant}"));
        }
    }
    let missing: Vec<_> = variants.symmetric_difference(&rows).collect();
    assert!(missing.is_empty(), "of one only: {missing:?}");
}

#[test]
fn error_says_what_happened_in_words() {
    for Row {
        name, error, text, ..
    } in rows()
    {
        assert_eq!(error.to_string(), text, "{name}");
        for noise in [" { ", "Some(", "None", "Error"] {
            assert!(!text.contains(noise), "{name}: {text}");
        }
    }
}

#[test]
fn advice_is_that_of_the_cause_and_transient_is_what_can_be_tried_again() {
    for row in rows() {
        assert_eq!(row.advice, row.expected, "{}: {}", row.name, row.text);
        assert_eq!(row.transient, row.expected == Retry, "{}", row.name);
    }
}

#[test]
fn chain_of_causes_ends_with_the_error_of_the_system() {
    let mut from_the_system = 0;
    for Row { name, error, .. } in rows() {
        let debug = format!("{error:?}");
        if debug.contains(" source: ") && !debug.contains("source: None") {
            assert!(error.source().is_some(), "{name}");
        }
        if !debug.contains(&format!("code: {SYSTEM}")) {
            continue;
        }
        from_the_system += 1;
        let mut last: &dyn Error = &*error;
        while let Some(next) = last.source() {
            last = next;
        }
        let last = last.downcast_ref::<io::Error>();
        let number = last.and_then(io::Error::raw_os_error);
        assert_eq!(number, Some(SYSTEM), "{name}: {debug}");
    }
    assert!(from_the_system > 15, "{from_the_system}");
}

#[test]
fn storage_error_knows_the_path_that_it_is_about() {
    for Row {
        name, error, text, ..
    } in rows()
    {
        let Some(error) = error.downcast_ref::<StorageError>() else {
            continue;
        };
        // Only what was made without one has none.
        match error {
            StorageError::NoLocks { .. } => assert_eq!(error.path(), Some(Path::new("/a"))),
            _ if text.contains("/a/film") && !text.starts_with("reading") => {
                assert_eq!(error.path(), Some(Path::new("/a/film")), "{name}: {text}");
            }
            _ => assert_eq!(error.path(), None, "{name}: {text}"),
        }
    }
}
