//! What is written to disk and read again after a restart, by anybody who can write there
//! in the meantime; and what is loaded as JSON.
//!
//! Most of these files have checksums, which no input meets by chance. So each is read as it
//! is, and again with the checksums that it should have.

use std::time::{Duration, Instant};

use bt_lite::content::{Bitfield, MIN_CHUNK_LEN};
use bt_lite::fuzzing;
use bt_lite::tracker::{RegistryConfig, ShardedRegistry, Snapshot};
use bt_lite::{ChunkIndex, ContentId, FolderEntry, FolderIndex, Geometry};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::input::Input;
use crate::memory::Bound;

/// A record is read into values that have texts of their own.
const RECORD_MEMORY: Bound = Bound::new(16, 8 << 10);
/// Each entry may be as short as 60 bytes, and is found by its name, its place and its number.
const CATALOGUE_MEMORY: Bound = Bound::new(24, 32 << 10);
/// Some texts, and what the parser needs for its errors.
const JSON_MEMORY: Bound = Bound::new(64, 16 << 10);

/// The chunks of the content whose journal is read.
const CHUNKS: u32 = 150;

/// The journal of a download. Its good records are those before the first bad byte.
pub fn journals(data: &[u8]) {
    let geometry = Geometry::of(u64::from(CHUNKS) * MIN_CHUNK_LEN).expect("it is short");
    let id = ContentId::of(b"content");
    let mut input = Input::new(data);
    // Sets of chunks are written and read.
    let mut sets = Vec::new();
    for _ in 0..input.below(5) {
        let mut set = Bitfield::none(CHUNKS);
        for _ in 0..input.below(12) {
            let (first, len) = (u32::from(input.u8()), u32::from(input.below(9)));
            for chunk in first..(first + len).min(CHUNKS) {
                set.insert(ChunkIndex(chunk));
            }
        }
        sets.push(set);
    }
    let good = fuzzing::journal_of(id, &geometry, &sets);
    let (committed, end) = fuzzing::journal(&good, id, &geometry).expect("its header is right");
    assert_eq!(end, good.len());
    assert_eq!(committed, sets.pop().unwrap_or(Bitfield::none(CHUNKS)));
    // What follows may be anything.
    let is_sealed = input.flag();
    let mut bytes = [&good, input.rest()].concat();
    let read =
        |bytes: &[u8]| RECORD_MEMORY.of(bytes.len(), || fuzzing::journal(bytes, id, &geometry));
    let (found, longer) = read(&bytes).expect("its header is right");
    // It may also be the rest of a journal that began like this one.
    assert!(longer > end || (found, longer) == (committed, end));
    if is_sealed {
        bytes = fuzzing::journal_sealed(bytes);
        let (committed, longer) = read(&bytes).expect("its header is right");
        assert!((end..=bytes.len()).contains(&longer));
        assert_eq!(committed.chunks(), CHUNKS);
        // Nothing behind the good records counts.
        let cut = read(&bytes[..longer]);
        assert_eq!(cut, Some((committed.clone(), longer)));
        if longer < bytes.len() {
            bytes.truncate(bytes.len() - 1);
            assert_eq!(read(&bytes), Some((committed, longer)));
        }
    }
    // The journal of another content is none.
    assert_eq!(
        fuzzing::journal(&good, ContentId::of(b"other"), &geometry),
        None
    );
}

/// The log of finished contents: a segment of it. The entries that are read are written
/// again as they were, and the index of them says what a search through all says.
pub fn catalogues(data: &[u8]) {
    let mut input = Input::new(data);
    let (number, is_sealed) = (u64::from(input.below(3)), !input.flag());
    let mut bytes = input.rest().to_vec();
    if is_sealed {
        bytes = fuzzing::segment_sealed(bytes, number);
    }
    let entries = CATALOGUE_MEMORY.of(bytes.len(), || fuzzing::segment(&bytes, number));
    let mut end = 0;
    for (offset, written) in &entries {
        // They lie one behind the other.
        assert!(*offset >= end && written.len() > 32);
        let place = bytes[*offset as usize..].len();
        // A name for trackers that is the same is not written again.
        assert!(written.len() <= place);
        end = offset + 1;
    }
    if let (Some((first, _)), Some((last, written))) = (entries.first(), entries.last()) {
        assert!(*first >= 16 && *last as usize + written.len() <= bytes.len());
    }
    // A torn end loses what is in it, and nothing else.
    if let Some((last, _)) = entries.last() {
        let torn = fuzzing::segment(&bytes[..*last as usize], number);
        assert!(torn.len() < entries.len());
    }
}

/// Records that have a file each: of contents as earlier versions kept them, of folders, and
/// of downloads that are paused.
pub fn records(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.below(5);
    let bytes = input.rest();
    let len = bytes.len();
    match kind {
        0 => {
            let sealed = fuzzing::old_record_sealed(bytes);
            RECORD_MEMORY.of(len, || fuzzing::old_record(&sealed));
        }
        1 => {
            let index = index_of_folder();
            let sealed = fuzzing::folder_record_sealed(bytes, index.id());
            let read = || fuzzing::folder_record(&sealed, &index);
            if let Some(written) = RECORD_MEMORY.of(len, read) {
                assert_eq!(
                    fuzzing::folder_record(&written, &index),
                    Some(written.clone())
                );
            }
        }
        2 => {
            let sealed = fuzzing::paused_file_sealed(bytes);
            RECORD_MEMORY.of(len, || fuzzing::paused_file(&sealed));
        }
        3 => {
            if let Some(written) = RECORD_MEMORY.of(len, || fuzzing::paused_download(bytes)) {
                assert_eq!(fuzzing::paused_download(&written), Some(written.clone()));
            }
        }
        _ => {
            if let Some(written) = RECORD_MEMORY.of(len, || fuzzing::paused_folder(bytes)) {
                assert_eq!(fuzzing::paused_folder(&written), Some(written.clone()));
            }
        }
    }
}

/// A folder with a file of two chunks, and others.
fn index_of_folder() -> FolderIndex {
    let path = |path: &str| path.parse().expect("a valid path");
    FolderIndex::new(vec![
        FolderEntry::empty_folder(path("e")),
        FolderEntry::file(path("f"), ContentId::of(&[7; 40_000]), 40_000),
        FolderEntry::symlink(path("g"), "f"),
        FolderEntry::file(path("h/i"), ContentId::of(b""), 0),
    ])
    .expect("a valid folder")
}

/// What is loaded as JSON: the snapshot of a tracker, and configurations.
pub fn json(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else {
        return;
    };
    match kind % 4 {
        0 => snapshot(text),
        1 => same_in_json::<RegistryConfig>(text),
        2 => same_in_json::<bt_lite::PeerConfig>(text),
        _ => same_in_json::<bt_lite::TrackerConfig>(text),
    }
}

/// What is loaded is saved, and loaded again as the same.
fn same_in_json<T: Serialize + DeserializeOwned>(text: &[u8]) {
    let read = || serde_json::from_slice::<T>(text);
    let Ok(value) = JSON_MEMORY.of(text.len(), read) else {
        return;
    };
    let saved = serde_json::to_string(&value).expect("it can be saved");
    let loaded: T = serde_json::from_str(&saved).expect("what was saved is loaded");
    assert_eq!(
        serde_json::to_string(&loaded).expect("it can be saved"),
        saved
    );
}

fn snapshot(text: &[u8]) {
    let read = || serde_json::from_slice::<Snapshot>(text);
    let Ok(snapshot) = JSON_MEMORY.of(text.len(), read) else {
        return;
    };
    let saved = serde_json::to_string(&snapshot).expect("it can be saved");
    assert_eq!(serde_json::from_str(&saved).ok().as_ref(), Some(&snapshot));
    // A tracker takes whatever is in it, and forgets it after a while.
    let now = Instant::now();
    let registry = ShardedRegistry::new(RegistryConfig::default(), [3; 32], 1, 2, now);
    registry.restore(now, &snapshot);
    registry.check_invariants();
    assert_eq!(registry.stats().peers, 0);
    let long = now + Duration::from_secs(3 * 86_400);
    while let Some(at) = registry.poll_timeout().filter(|at| *at < long) {
        registry.handle_timeout(at.max(now));
        registry.check_invariants();
    }
    let after = registry.snapshot(long);
    assert!(after.credits.is_empty() && after.contents.is_empty());
}
