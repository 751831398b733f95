//! Crashes and failures while a finished content is removed, or what is left of an
//! unfinished one is discarded.
//!
//! What was reported as removed does not come back. What was not is there as a whole, or
//! in a state from which a download goes on.

use std::sync::Arc;

use super::super::disk::Disk;
use super::super::removal::{discard, remove_file};
use super::super::storage_dir::StorageDir;
use super::crash_disk::CrashDisk;
use super::disk_state::{DiskState, Failure, PlantedBug, Trouble};
use super::{
    Bitfield, CHUNKS, Checked, NAME, SAMPLE, SCRIPTS, Sample, Tally, VARIANTS, check_disk,
    complete, download, open,
};
use crate::storage::StorageError;

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Finished,
    Partial,
}

/// A disk with a finished content or an interrupted download, and nothing promised.
fn prepared(what: What) -> DiskState {
    let disk = CrashDisk::new(CHUNKS);
    let script = SCRIPTS[0];
    if what == What::Partial {
        disk.set_trouble(Trouble::PowerOff(60));
        download(&disk, script).unwrap().unwrap_err();
    } else {
        download(&disk, script).unwrap().unwrap();
    }
    let mut state = disk.state().killed();
    assert!(what == What::Finished || !state.promise.chunks.is_empty());
    state.set_trouble(Trouble::None);
    state.promise.chunks = Bitfield::none(CHUNKS);
    state.promise.finished = false;
    state
}

/// Removes it.
fn remove(disk: &CrashDisk, what: What) -> Result<(), StorageError> {
    let dir = StorageDir::new(disk.clone(), "model".into());
    match what {
        What::Partial => discard(&dir, SAMPLE.manifest.id()).map(drop),
        What::Finished => {
            let file = disk.open_existing(NAME);
            let file =
                file.map_err(|e| super::super::failure::refused("opening", NAME.as_ref(), e))?;
            remove_file(&dir, &Sample::name(), SAMPLE.manifest.id(), &file)
        }
    }
}

/// Checks a disk after a crash: nothing is there of what was removed, and whatever is
/// there is right.
fn check(state: &DiskState, what: What, removed: bool) -> Checked<()> {
    check_disk(state)?;
    let names = match what {
        What::Finished => vec![NAME],
        What::Partial => vec![&*SAMPLE.names.data, &*SAMPLE.names.journal],
    };
    match names.into_iter().find(|name| state.file(name).is_some()) {
        Some(name) if removed => Err(format!("{name} was removed and is back")),
        _ => Ok(()),
    }
}

/// Has the trouble at each operation of a removal. Returns at how many.
fn troubled(
    what: What,
    planted: Option<PlantedBug>,
    trouble: impl Fn(u64) -> Trouble,
) -> Checked<u64> {
    let state = prepared(what);
    for at in 1.. {
        let disk = CrashDisk::of(state.clone());
        disk.state().planted = planted;
        disk.set_trouble(trouble(at));
        let removed = remove(&disk, what);
        let ops = disk.state().ops();
        disk.set_trouble(Trouble::None);
        disk.state().planted = None;
        let case = |e| format!("{e} ({what:?}, operation {at})");
        for variant in 0..VARIANTS {
            let seed = at << 8 | variant;
            let crashed = disk.state().crashed(seed);
            check(&crashed, what, removed.is_ok()).map_err(case)?;
            // A download goes on from there, and the power fails again.
            if crashed.file(NAME).is_none() {
                Tally::default()
                    .crash(&crashed, SCRIPTS[0], seed)
                    .map_err(case)?;
            }
        }
        // Or without a crash, after another attempt.
        check(&disk.state(), what, removed.is_ok()).map_err(case)?;
        if let Err(StorageError::Io { .. }) = removed
            && disk.state().file(NAME).is_some() == (what == What::Finished)
        {
            let again = remove(&disk, what);
            again.map_err(|e| case(e.to_string()))?;
        }
        complete(&disk, SCRIPTS[0]).map_err(case)?;
        if ops < at {
            return Ok(at);
        }
    }
    unreachable!("a removal ends")
}

#[test]
fn what_was_removed_does_not_come_back_after_a_crash() {
    for what in [What::Finished, What::Partial] {
        let points = troubled(what, None, Trouble::PowerOff).unwrap();
        assert!(points > 3, "{points}");
    }
}

#[test]
fn removal_that_fails_leaves_what_a_download_goes_on_from() {
    for what in [What::Finished, What::Partial] {
        let io = |at| Trouble::Fails(at, Failure::Io);
        let points = troubled(what, None, io).unwrap();
        assert!(points > 3, "{points}");
    }
}

#[test]
fn removal_that_is_not_synced_is_caught() {
    for what in [What::Finished, What::Partial] {
        let found = troubled(what, Some(PlantedBug::NoDirectorySync), Trouble::PowerOff);
        let found = found.unwrap_err();
        let is_back = found.contains("is back") || found.contains("is committed but wrong");
        assert!(is_back, "{found}");
    }
}

#[test]
fn what_a_download_writes_is_not_discarded() {
    let disk = CrashDisk::of(prepared(What::Partial));
    let running = open(&disk).map_err(|e| e.to_string()).unwrap();
    let refused = remove(&disk, What::Partial).unwrap_err();
    assert!(matches!(refused, StorageError::Locked { .. }), "{refused}");
    drop(running);
    remove(&disk, What::Partial).unwrap();
    // Nothing is left.
    let dir = Arc::new(StorageDir::new(disk.clone(), "model".into()));
    assert_eq!(discard(&dir, SAMPLE.manifest.id()), Ok(false));
    assert_eq!(disk.names().unwrap(), [""; 0]);
}
