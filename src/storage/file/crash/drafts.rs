//! Crashes and failures while a draft is published: its name has all of it or nothing.

use super::super::draft::DraftFile;
use super::super::storage_dir::StorageDir;
use super::crash_disk::CrashDisk;
use super::disk_state::{Ability, Failure, PlantedBug, Trouble};
use super::{Arc, CHUNKS, Checked, Disk, NAME, SAMPLE, Sample, VARIANTS};
use crate::storage::StorageError;

fn publish(disk: &CrashDisk) -> Result<(), StorageError> {
    let dir = Arc::new(StorageDir::new(disk.clone(), "model".into()));
    let draft = DraftFile::begin(dir, Sample::name())?;
    draft.write(0, SAMPLE.bytes.slice(..500_000))?;
    draft.write(500_000, SAMPLE.bytes.slice(500_000..))?;
    draft.publish(SAMPLE.bytes.len() as u64).map(drop)
}

fn troubled(
    ability: Ability,
    planted: Option<PlantedBug>,
    trouble: impl Fn(u64) -> Trouble,
) -> Checked<u64> {
    for at in 1.. {
        let disk = CrashDisk::new(CHUNKS);
        disk.state().ability = ability;
        disk.state().planted = planted;
        disk.set_trouble(trouble(at));
        let published = publish(&disk);
        let ops = disk.state().ops();
        let crashes = (0..VARIANTS).map(|variant| disk.state().crashed(at << 8 | variant));
        for state in crashes {
            let is_reserved = ability == Ability::NoLinks;
            match state.file(NAME) {
                Some(file) if *file == SAMPLE.bytes[..] => {}
                Some(file) if file.len() == 0 && is_reserved && published.is_err() => {}
                None if published.is_err() => {}
                found => {
                    let len = found.map(|file| file.len());
                    return Err(format!("the name has {len:?} bytes (operation {at})"));
                }
            }
        }
        if ops < at {
            disk.set_trouble(Trouble::None);
            let names = disk.names().map_err(|e| e.to_string())?;
            assert_eq!(names, [NAME]);
            return Ok(at);
        }
    }
    unreachable!("a draft ends")
}

#[test]
fn draft_is_published_as_a_whole_or_not_at_all() {
    for ability in [Ability::Full, Ability::NoRename, Ability::NoLinks] {
        let points = troubled(ability, None, Trouble::PowerOff).unwrap();
        assert!(points > 10, "{points}");
        let io = |at| Trouble::Fails(at, Failure::Io);
        troubled(ability, None, io).unwrap();
    }
}

#[test]
fn draft_that_is_not_synced_is_caught() {
    for planted in [PlantedBug::PublishesUnsynced, PlantedBug::NoDirectorySync] {
        let found = troubled(Ability::Full, Some(planted), Trouble::PowerOff);
        assert!(found.unwrap_err().contains("the name has"), "{planted:?}");
    }
}
