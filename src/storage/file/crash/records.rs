//! Crashes and failures while the record of a paused download is written, replaced and
//! removed: at every moment the record of before is there as a whole, or that of after.

use bytes::Bytes;

use super::super::paused::{all, forget, remember};
use super::super::storage_dir::StorageDir;
use super::crash_disk::CrashDisk;
use super::disk_state::{Failure, PlantedBug, Trouble};
use super::{CHUNKS, Checked, VARIANTS};
use crate::storage::{PausedDownload, PausedId, StorageError};

fn record(bytes: &'static [u8]) -> PausedDownload {
    PausedDownload::new(PausedId([7; 32]), Bytes::from_static(bytes))
}

/// What there is after each step.
fn states() -> [Vec<PausedDownload>; 4] {
    let [first, second] = [record(b"paused"), record(b"resumed, and longer")];
    [vec![], vec![first], vec![second], vec![]]
}

/// Pauses a download, resumes it, and ends it. Returns how many steps are done.
fn steps(disk: &CrashDisk) -> (usize, Result<(), StorageError>) {
    let dir = StorageDir::new(disk.clone(), "model".into());
    let [_, first, second, _] = states();
    let mut done = 0;
    let mut run = || {
        remember(&dir, &first[0])?;
        done = 1;
        remember(&dir, &second[0])?;
        done = 2;
        forget(&dir, PausedId([7; 32]))?;
        done = 3;
        Ok(())
    };
    let ended = run();
    (done, ended)
}

fn troubled(planted: Option<PlantedBug>, trouble: impl Fn(u64) -> Trouble) -> Checked<u64> {
    for at in 1.. {
        let disk = CrashDisk::new(CHUNKS);
        disk.state().planted = planted;
        disk.set_trouble(trouble(at));
        let (done, ended) = steps(&disk);
        let ops = disk.state().ops();
        disk.set_trouble(Trouble::None);
        let states = states();
        let next = (done + usize::from(ended.is_err())).min(states.len() - 1);
        let may_be = &states[done..=next];
        let killed = [disk.state().killed()];
        let crashed = (0..VARIANTS).map(|variant| disk.state().crashed(at << 8 | variant));
        for state in killed.into_iter().chain(crashed) {
            let after = CrashDisk::of(state);
            after.set_trouble(Trouble::None);
            let dir = StorageDir::new(after, "model".into());
            let found = all(&dir).map_err(|e| e.to_string())?;
            if !may_be.contains(&found) {
                return Err(format!("{done} steps, and {found:?} (operation {at})"));
            }
        }
        if ops < at {
            return ended.map(|()| at).map_err(|e| e.to_string());
        }
    }
    unreachable!("the steps end")
}

#[test]
fn record_of_before_or_of_after_is_there_after_any_crash() {
    let points = troubled(None, Trouble::PowerOff).unwrap();
    assert!(points > 8, "{points}");
    let io = |at| Trouble::Fails(at, Failure::Io);
    troubled(None, io).unwrap();
}

#[test]
fn record_that_is_not_synced_is_caught() {
    let found = troubled(Some(PlantedBug::NoDirectorySync), Trouble::PowerOff);
    assert!(found.unwrap_err().contains("steps, and"));
}
