//! Crashes and failures while a content takes the place of another file: the name has all
//! of the one or all of the other, at any moment.

use super::super::recovery::RecoveryOptions;
use super::super::storage_dir::{StorageDir, Taken};
use super::crash_disk::CrashDisk;
use super::disk_state::{Ability, DiskState, FOREIGN, Failure, PlantedBug, Trouble};
use super::{Arc, CHUNKS, Checked, Disk, NAME, PartialFile, SAMPLE, Sample, VARIANTS, write_all};
use crate::storage::StorageError;

/// A disk with a file that has the name, durably.
fn taken(ability: Ability) -> CrashDisk {
    let disk = CrashDisk::new(CHUNKS);
    {
        let mut state = disk.state();
        state.ability = ability;
        state.create(NAME, FOREIGN);
    }
    let file = disk.open_existing(NAME).unwrap();
    super::DiskFile::sync_all(&file).unwrap();
    disk.sync_parent().unwrap();
    disk.sync().unwrap();
    disk
}

/// Downloads the content, and puts it in the place of what is there.
fn replace(disk: &CrashDisk) -> Result<(), StorageError> {
    let dir = Arc::new(StorageDir::new(disk.clone(), "model".into()));
    let options = RecoveryOptions {
        taken: Taken::Replaced,
        ..RecoveryOptions::default()
    };
    let manifest = SAMPLE.manifest.clone();
    let opened = PartialFile::open(dir, Sample::name(), manifest, options, (None, None))?;
    write_all(&opened.file, &SAMPLE)?;
    opened.file.finish().map(drop)
}

/// Checks what the name has. It may have nothing only after a sync has failed, when the
/// content is complete under its unfinished name.
fn check(state: &DiskState, replaced: bool, may_be_taken_back: bool) -> Checked<()> {
    let is_whole = |name: &str| state.file(name).is_some_and(|f| *f == SAMPLE.bytes[..]);
    match state.file(NAME) {
        Some(file) if *file == *FOREIGN && !replaced => Ok(()),
        Some(_) if is_whole(NAME) => Ok(()),
        None if may_be_taken_back && !replaced && is_whole(&SAMPLE.names.data) => Ok(()),
        found => Err(format!(
            "the name has {:?} bytes, replaced: {replaced}",
            found.map(|file| file.len())
        )),
    }
}

fn troubled(
    ability: Ability,
    planted: Option<PlantedBug>,
    trouble: impl Fn(u64) -> Trouble,
) -> Checked<u64> {
    for at in 1.. {
        let disk = taken(ability);
        disk.state().planted = planted;
        disk.set_trouble(trouble(at));
        let replaced = replace(&disk);
        let ops = disk.state().ops();
        let fails = matches!(trouble(at), Trouble::Fails(..));
        disk.set_trouble(Trouble::None);
        disk.state().planted = None;
        let case = |e| format!("{e} ({ability:?}, operation {at})");
        check(&disk.state(), replaced.is_ok(), fails).map_err(case)?;
        for variant in 0..VARIANTS {
            let crashed = disk.state().crashed(at << 8 | variant);
            check(&crashed, replaced.is_ok(), fails).map_err(case)?;
            if variant % 8 > 0 {
                continue;
            }
            let disk = CrashDisk::of(crashed);
            disk.set_trouble(Trouble::None);
            // It goes on from there.
            replace(&disk).map_err(|e| case(e.to_string()))?;
            check(&disk.state().crashed(variant), true, false).map_err(case)?;
        }
        if ops < at {
            return Ok(at);
        }
    }
    unreachable!("a download ends")
}

#[test]
fn name_that_is_replaced_has_the_one_or_the_other_after_a_crash() {
    for ability in [Ability::Full, Ability::NoRename, Ability::NoLinks] {
        let points = troubled(ability, None, Trouble::PowerOff).unwrap();
        assert!(points > 20, "{points}");
    }
}

#[test]
fn replacing_that_fails_loses_no_content() {
    for ability in [Ability::Full, Ability::NoLinks] {
        let io = |at| Trouble::Fails(at, Failure::Io);
        let points = troubled(ability, None, io).unwrap();
        assert!(points > 20, "{points}");
    }
}

#[test]
fn replacing_before_the_bytes_or_the_name_are_synced_is_caught() {
    for planted in [PlantedBug::PublishesUnsynced, PlantedBug::NoDirectorySync] {
        let found = troubled(Ability::Full, Some(planted), Trouble::PowerOff);
        let found = found.unwrap_err();
        assert!(found.contains("the name has"), "{found}");
    }
}
