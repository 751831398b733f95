//! Crashes and failures while contents are remembered and forgotten.
//!
//! After each of them every name must have what was reported last about it, or what
//! was on its way then, and every record its manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;

use super::super::disk::{Disk, DiskFile};
use super::super::log_entry::{Change, Head, encode};
use super::super::log_index::LogLimits;
use super::super::record::Record;
use super::super::record_log::RecordLog;
use super::super::segment::{Segment, read_entries};
use super::super::stamp::Stamp;
use super::super::storage_dir::{LockAttempt, StorageDir};
use super::super::timestamp::Timestamp;
use super::Checked;
use super::crash_disk::{CrashDisk, CrashFile};
use super::disk_state::{Ability, DiskState, Failure, PlantedBug, Trouble};
use crate::content::{ContentName, Manifest};
use crate::storage::StorageError;

const NAMES: u32 = 5;
/// So small that segments are merged all the time.
const LIMITS: LogLimits = LogLimits {
    small: 4000,
    max_small: 2,
};

/// One call. Every version of a name has another modification time.
#[derive(Debug, Clone, Copy)]
enum Step {
    Remember {
        name: u32,
        version: u32,
    },
    Forget {
        name: u32,
    },
    /// The storage is closed and opened again.
    Restart,
}

/// A version of a name, or nothing if it is forgotten.
type Version = Option<u32>;

/// What each name may have after a crash.
type Allowed = BTreeMap<u32, Vec<Version>>;

fn steps(seed: u64, restarts: bool) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let step = |version| {
        let name = rng.u32(..NAMES);
        match rng.u8(..8) {
            0 if restarts => Step::Restart,
            1 | 2 => Step::Forget { name },
            _ => Step::Remember { name, version },
        }
    };
    (0..30).map(step).collect()
}

fn name(name: u32) -> ContentName {
    format!("name {name}").parse().unwrap()
}

fn content(of: u32, version: u32) -> (Manifest, Stamp) {
    let bytes = vec![of as u8; 600 + 17_000 * (of as usize % 3)];
    let stamp = Stamp {
        len: bytes.len() as u64,
        modified: Timestamp {
            seconds: version.into(),
            nanos: 0,
        },
        settled: true,
    };
    (Manifest::of(&bytes).unwrap(), stamp)
}

/// Whether the file of this version is the peer's.
fn is_written(version: u32) -> bool {
    !version.is_multiple_of(2)
}

struct Storage {
    disk: CrashDisk,
    log: RecordLog<CrashDisk>,
    allowed: Allowed,
}

impl Storage {
    fn new(disk: CrashDisk, allowed: Allowed) -> Self {
        let log = Self::open(&disk);
        Self { disk, log, allowed }
    }

    fn open(disk: &CrashDisk) -> RecordLog<CrashDisk> {
        let dir = Arc::new(StorageDir::new(disk.clone(), "model".into()));
        RecordLog::with_limits(dir, LIMITS)
    }

    fn run(&mut self, step: Step) -> Result<(), StorageError> {
        let (of, version, done) = match step {
            Step::Restart => {
                self.log = Self::open(&self.disk);
                return Ok(());
            }
            Step::Remember { name, version } => (name, Some(version), self.remember(name, version)),
            Step::Forget { name: of } => (of, None, self.forget(of)),
        };
        let allowed = self.allowed.entry(of).or_insert_with(|| vec![None]);
        if done.is_ok() {
            allowed.clear();
        }
        allowed.push(version);
        done
    }

    fn remember(&self, of: u32, version: u32) -> Result<(), StorageError> {
        let (manifest, stamp) = content(of, version);
        let record = Record {
            id: manifest.id(),
            name: name(of),
            listed_as: name(of),
            path: None,
            stamp,
            written_here: is_written(version),
        };
        match self.log.remember(record, &manifest)? {
            Some(appended) => self.log.make_durable(&appended),
            None => panic!("the record can be represented"),
        }
    }

    fn forget(&self, of: u32) -> Result<(), StorageError> {
        for appended in self.log.forget(&name(of), &content(of, 0).0.id())? {
            self.log.make_durable(&appended)?;
        }
        Ok(())
    }
}

/// Checks a disk as a newly opened storage sees it. Returns what each name has.
fn check(disk: &CrashDisk, allowed: &Allowed) -> Checked<Allowed> {
    let log = Storage::open(disk);
    let names = disk.names().map_err(|e| e.to_string())?;
    let records = log.records(names).map_err(|e| e.to_string())?;
    let mut found: BTreeMap<u32, Version> = (0..NAMES).map(|name| (name, None)).collect();
    for record in records {
        let version = record.stamp.modified.seconds as u32;
        let of = (0..NAMES).find(|&of| name(of) == record.name);
        let of = of.ok_or("an unknown name")?;
        if found.insert(of, Some(version)).flatten().is_some() {
            return Err(format!("name {of} has two records"));
        }
        if record.written_here != is_written(version) {
            return Err(format!("name {of} does not say who has written it"));
        }
        let manifest = log.manifest(&record.name, &record.id);
        if manifest != Ok(Some(content(of, version).0)) {
            return Err(format!("name {of} has a wrong manifest: {manifest:?}"));
        }
    }
    let none = vec![None];
    for (of, version) in &found {
        let allowed = allowed.get(of).unwrap_or(&none);
        if !allowed.contains(version) {
            return Err(format!("name {of} has {version:?}, not one of {allowed:?}"));
        }
    }
    Ok(found.into_iter().map(|(of, v)| (of, vec![v])).collect())
}

/// Runs the steps on a disk with some trouble. Returns what came of it, and how many
/// steps have failed; where the power is off, all do.
fn run(disk: CrashDisk, allowed: Allowed, steps: &[Step]) -> (DiskState, Allowed, usize) {
    let mut storage = Storage::new(disk.clone(), allowed);
    let failed = steps.iter().filter(|&&step| storage.run(step).is_err());
    let failed = failed.count();
    let state = disk.state().clone();
    (state, storage.allowed, failed)
}

/// Crashes after each change, or lets each operation fail.
fn interrupted(
    seed: u64,
    planted: Option<PlantedBug>,
    trouble: impl Fn(u64) -> Trouble,
) -> Checked<u64> {
    let restarts = matches!(trouble(0), Trouble::PowerOff(_));
    let steps = steps(seed, restarts);
    for at in 0.. {
        let disk = CrashDisk::new(1);
        {
            let mut state = disk.state();
            state.planted = planted;
            state.ability = match seed.is_multiple_of(2) {
                true => Ability::NoRename,
                false => Ability::Full,
            };
        }
        disk.set_trouble(trouble(at));
        let (state, allowed, failed) = run(disk, Allowed::new(), &steps);
        let case = |e: String| format!("{e} (seed {seed}, operation {at})");
        for variant in 0..6 {
            let mut crashed = state.crashed(seed << 32 | at << 8 | variant);
            crashed.set_trouble(Trouble::None);
            let disk = CrashDisk::of(crashed);
            let allowed = check(&disk, &allowed).map_err(case)?;
            // It goes on from there, with the other steps, and the power fails again.
            let (state, allowed, _) = run(disk.clone(), allowed, &steps[steps.len() / 2..]);
            check(&CrashDisk::of(state.killed()), &allowed).map_err(case)?;
            let again = CrashDisk::of(state.crashed(seed << 32 | at << 8 | variant | 0x80));
            check(&again, &allowed).map_err(case)?;
        }
        // A failure that harms nothing is not reported.
        let over = match restarts {
            true => failed == 0,
            false => state.ops() < at,
        };
        if !restarts && failed > 1 {
            return Err(case(format!("{failed} steps fail after one failure")));
        }
        if over {
            return Ok(at);
        }
    }
    unreachable!("the steps end")
}

#[test]
fn what_was_remembered_or_forgotten_survives_a_crash_after_any_operation() {
    let mut points = 0;
    for seed in 0..8 {
        points += interrupted(seed, None, Trouble::PowerOff).unwrap();
    }
    println!("crashes at {points} points");
    assert!(points > 400, "{points}");
}

#[test]
fn what_was_remembered_or_forgotten_survives_the_failure_of_any_operation() {
    let mut points = 0;
    for seed in 0..2 {
        for failure in [Failure::Io, Failure::NoSpace, Failure::Short] {
            points += interrupted(seed, None, |at| Trouble::Fails(at, failure)).unwrap();
        }
    }
    println!("failures at {points} points");
    assert!(points > 400, "{points}");
}

#[test]
fn log_that_is_not_synced_or_retries_a_failed_sync_is_caught() {
    let io = |at| Trouble::Fails(at, Failure::Io);
    let found = interrupted(1, Some(PlantedBug::NoDirectorySync), Trouble::PowerOff);
    assert!(found.unwrap_err().contains("not one of"));
    let found = interrupted(1, Some(PlantedBug::RetriesFailedSync), io);
    assert!(found.unwrap_err().contains("not one of"));
}

/// A segment with entries that have bodies.
struct Entries {
    dir: StorageDir<CrashDisk>,
    segment: Arc<Segment<CrashFile>>,
}

impl Entries {
    fn new(disk: &CrashDisk) -> Self {
        let dir = StorageDir::new(disk.clone(), "model".into());
        let LockAttempt::Acquired(file) = dir.open_locked("segment").unwrap() else {
            panic!("it is locked");
        };
        let segment = Arc::new(Segment::start(1, file, dir.mark()).unwrap());
        Self { dir, segment }
    }

    /// Appends an entry, and returns where its body is.
    fn append(segment: &Segment<CrashFile>, sequence: u64) -> u64 {
        let (place, durable) = (segment.end(), segment.durable());
        let change = Change::NameForgotten(name(0));
        let head = Head {
            sequence,
            durable,
            change,
        };
        segment
            .append(encode(place, &head, b"body").unwrap())
            .unwrap();
        segment.end().offset - 4
    }

    fn sequences(&self) -> Vec<u64> {
        let entries = read_entries(self.segment.file(), 1).unwrap();
        entries.iter().map(|entry| entry.head.sequence).collect()
    }
}

#[test]
fn body_that_was_durable_when_a_later_entry_was_written_is_not_read_with_the_others() {
    let log = Entries::new(&CrashDisk::new(1));
    let mut bodies = vec![
        Entries::append(&log.segment, 0),
        Entries::append(&log.segment, 1),
    ];
    log.segment.sync(&log.dir).unwrap();
    bodies.extend([2, 3].map(|sequence| Entries::append(&log.segment, sequence)));
    for (damaged, read) in [(3, 3), (2, 2), (1, 4), (0, 4)] {
        let (at, file) = (bodies[damaged], log.segment.file());
        let body = file.read_at(at, 4).unwrap();
        file.write_at(at, &[b"torn".as_slice().into()]).unwrap();
        assert_eq!(log.sequences(), (0..read).collect::<Vec<_>>(), "{damaged}");
        file.write_at(at, &[body]).unwrap();
    }
}

#[test]
fn entry_that_is_written_during_a_sync_is_not_durable_by_it() {
    let disk = CrashDisk::new(1);
    let log = Entries::new(&disk);
    Entries::append(&log.segment, 0);
    let (segment, end) = (Arc::clone(&log.segment), log.segment.end());
    disk.during_sync(move || _ = Entries::append(&segment, 1));
    log.segment.sync(&log.dir).unwrap();
    assert_eq!(log.segment.durable(), end.offset);
    assert!(log.segment.end() > end);
    log.segment.sync(&log.dir).unwrap();
    assert_eq!(log.segment.durable(), log.segment.end().offset);
}
