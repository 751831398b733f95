//! Tests that crash after every operation of a download, and tests in which
//! every operation fails: what is on the disk afterwards, and whether the
//! storage resumes from there as it promises.
//!
//! In every state the following must hold. Every committed chunk is correct.
//! The final name refers to the correct bytes, or to nothing. No other file was
//! touched. Everything that was reported durable is there. The checker itself is
//! tested with bugs that are planted under the storage.

mod blocks;
mod crash_disk;
mod disk_state;
mod drafts;
mod inode;
mod log;
mod name_table;
mod records;
mod removal;
mod replacing;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use fastrand::Rng;

use super::disk::{Disk, DiskFile};
use super::journal;
use super::names::{PartialNames, probe_names};
use super::partial_file::{PartialFile, Resumed, finish_together};
use super::recovery::RecoveryOptions;
use super::storage_dir::StorageDir;
use crate::content::{Bitfield, ChunkIndex, ContentName, MIN_CHUNK_LEN, Manifest};
use crate::storage::StorageError;
use blocks::Blocks;
use crash_disk::CrashDisk;
use disk_state::{Ability, DiskState, FOREIGN, Failure, PlantedBug, Trouble};

const CHUNKS: u32 = 64;
/// How many states after a crash are tried at each point of a download.
const VARIANTS: u64 = 32;
const NAME: &str = "content";

struct Sample {
    bytes: Bytes,
    manifest: Manifest,
    names: PartialNames,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| Sample::new(CHUNKS));
/// A content of one chunk, which has no journal.
static SMALL: LazyLock<Sample> = LazyLock::new(|| Sample::new(1));

impl Sample {
    /// The content that a disk is for.
    fn on(state: &DiskState) -> &'static Self {
        match state.promise.chunks.chunks() {
            1 => &SMALL,
            _ => &SAMPLE,
        }
    }

    fn new(chunks: u32) -> Self {
        // The last chunk is a short one.
        let mut bytes = vec![0; (u64::from(chunks) * MIN_CHUNK_LEN) as usize - 5000];
        Rng::with_seed(4).fill(&mut bytes);
        let manifest = Manifest::of(&bytes).unwrap();
        assert_eq!(manifest.geometry().chunks(), chunks);
        Self {
            names: PartialNames::of(manifest.id()),
            bytes: bytes.into(),
            manifest,
        }
    }

    fn name() -> ContentName {
        NAME.parse().unwrap()
    }

    fn chunk(&self, chunk: ChunkIndex) -> Bytes {
        let range = self.manifest.geometry().range_of(chunk);
        self.bytes.slice(range.start as usize..range.end as usize)
    }

    fn is_in(&self, file: Option<&Blocks>, chunk: ChunkIndex) -> bool {
        let start = self.manifest.geometry().offset_of(chunk);
        file.is_some_and(|file| file.has(start as usize, &self.chunk(chunk)))
    }
}

/// The course of a download.
#[derive(Debug, Clone, Copy)]
struct Script {
    chunks: u32,
    /// How many chunks there are between two commits.
    every: u32,
    /// The seed of the order of the chunks; if there is none, they are in order.
    shuffled: Option<u64>,
    /// What the file system can do.
    ability: Ability,
}

const SCRIPTS: [Script; 6] = [
    Script {
        chunks: CHUNKS,
        every: 8,
        shuffled: None,
        ability: Ability::Full,
    },
    Script {
        chunks: CHUNKS,
        every: 5,
        shuffled: Some(1),
        ability: Ability::NoRename,
    },
    Script {
        chunks: CHUNKS,
        every: 3,
        shuffled: Some(2),
        ability: Ability::NoLinks,
    },
    Script {
        chunks: 1,
        every: 1,
        shuffled: None,
        ability: Ability::Full,
    },
    Script {
        chunks: 1,
        every: 2,
        shuffled: None,
        ability: Ability::NoRename,
    },
    Script {
        chunks: 1,
        every: 1,
        shuffled: None,
        ability: Ability::NoLinks,
    },
];

/// A commit after every chunk, to find a bug early.
const DENSE: Script = Script {
    chunks: CHUNKS,
    every: 1,
    shuffled: Some(3),
    ability: Ability::Full,
};

/// An error says what is wrong.
type Checked<T> = Result<T, String>;

/// Opens the sample on a disk.
fn open(disk: &CrashDisk) -> Result<Resumed<CrashDisk>, StorageError> {
    let dir = Arc::new(StorageDir::new(disk.clone(), "model".into()));
    let sample = Sample::on(&disk.state());
    open_in(dir, Sample::name(), sample)
}

fn open_in(
    dir: Arc<StorageDir<CrashDisk>>,
    name: ContentName,
    sample: &Sample,
) -> Result<Resumed<CrashDisk>, StorageError> {
    let manifest = sample.manifest.clone();
    let options = RecoveryOptions {
        written_whole: manifest.geometry().chunks() == 1,
        ..RecoveryOptions::default()
    };
    PartialFile::open(dir, name, manifest, options, (None, None))
}

/// Resumes a download as a peer does, and stops at the first error.
fn download(disk: &CrashDisk, script: Script) -> Checked<Result<(), StorageError>> {
    disk.state().ability = script.ability;
    let resumed = match open(disk) {
        Ok(resumed) => resumed,
        Err(error) => return Ok(Err(error)),
    };
    let sample = Sample::on(&disk.state());
    let file = resumed.file;
    let mut have = resumed.present;
    check_present(&disk.state(), &have)?;
    let mut order: Vec<ChunkIndex> = have.iter_missing().collect();
    if let Some(seed) = script.shuffled {
        Rng::with_seed(seed).shuffle(&mut order);
    }
    let mut steps = || -> Result<(), StorageError> {
        for (n, &chunk) in order.iter().enumerate() {
            let bytes = sample.chunk(chunk);
            let offset = sample.manifest.geometry().offset_of(chunk);
            file.write(offset, bytes.len() as u64, &[bytes])?;
            have.insert(chunk);
            if (n as u32 + 1).is_multiple_of(script.every) {
                file.commit(&have)?;
                if script.chunks > 1 {
                    disk.state().promise.chunks = have.clone();
                }
            }
        }
        file.finish()?;
        disk.state().promise.finished = true;
        Ok(())
    };
    Ok(steps())
}

/// Every present chunk must be correct, and every promised chunk present.
fn check_present(state: &DiskState, present: &Bitfield) -> Checked<()> {
    if let Some(chunk) = state.promise.chunks.first_not_in(present) {
        return Err(format!("chunk {chunk} was durable and is not present"));
    }
    let sample = Sample::on(state);
    let file = state.file(&sample.names.data);
    match present.iter().find(|&chunk| !sample.is_in(file, chunk)) {
        Some(chunk) => Err(format!("chunk {chunk} is present but wrong")),
        None => Ok(()),
    }
}

/// Checks a disk after a crash.
fn check_disk(state: &DiskState) -> Checked<()> {
    let sample = Sample::on(state);
    let finished = match state.file(NAME) {
        None => false,
        Some(file) if *file == *FOREIGN => false,
        // The name is reserved.
        Some(file) if file.len() == 0 && state.ability == Ability::NoLinks => false,
        Some(file) if *file == sample.bytes[..] => true,
        Some(_) => return Err("the name refers to wrong bytes".into()),
    };
    if state.promise.finished && !finished {
        return Err("the content was finished and is gone".into());
    }
    if finished {
        return Ok(());
    }
    let data = state.file(&sample.names.data);
    let journal = state.file(&sample.names.journal);
    let mut bytes = journal
        .and_then(|file| file.read(0, file.len()))
        .unwrap_or_default();
    if state.planted == Some(PlantedBug::TrustsTornRecord) {
        bytes = journal::with_new_checksums(bytes);
    }
    let (id, geometry) = (sample.manifest.id(), sample.manifest.geometry());
    let committed = match journal::replay(&bytes, id, &geometry) {
        Some(replay) => replay.committed,
        None => Bitfield::none(geometry.chunks()),
    };
    if let Some(chunk) = state.promise.chunks.first_not_in(&committed) {
        return Err(format!("chunk {chunk} was durable and is not committed"));
    }
    match committed.iter().find(|&chunk| !sample.is_in(data, chunk)) {
        Some(chunk) => Err(format!("chunk {chunk} is committed but wrong")),
        None => Ok(()),
    }
}

fn is_finished(state: &DiskState, file: Option<&Blocks>) -> bool {
    file.is_some_and(|file| *file == Sample::on(state).bytes[..])
}

/// Whether the final name is that of an empty file.
fn has_reservation(disk: &CrashDisk) -> bool {
    let state = disk.state();
    state.file(NAME).is_some_and(|file| file.len() == 0)
}

/// Resumes until the content is finished.
fn complete(disk: &CrashDisk, script: Script) -> Checked<()> {
    if has_reservation(disk) {
        // It is left behind by a crash, and removed by the user.
        disk.remove(NAME).map_err(|e| e.to_string())?;
    }
    let ended = download(disk, script)?;
    let finished = {
        let state = disk.state();
        is_finished(&state, state.file(NAME))
    };
    match ended {
        Ok(()) => {}
        // It was finished just before.
        Err(StorageError::Exists { .. }) if finished => {
            let dir = StorageDir::new(disk.clone(), "model".into());
            let file = disk.open_existing(NAME).map_err(|e| format!("{e:?}"))?;
            dir.make_durable(&file, NAME.as_ref())
                .map_err(|e| e.to_string())?;
            disk.state().promise.finished = true;
        }
        Err(error) => return Err(format!("resuming failed: {error}")),
    }
    let state = disk.state();
    check_disk(&state)?;
    let names = &Sample::on(&state).names;
    let [probe, probed] = &probe_names(Sample::on(&state).manifest.id());
    let left = [&names.data, &names.journal, probe, probed];
    match left.into_iter().find(|name| state.file(name).is_some()) {
        Some(name) => Err(format!("{name} remains")),
        None => match state.directory_is_durable && is_finished(&state, state.durable_file(NAME)) {
            true => Ok(()),
            false => Err("the content is finished but not durable".into()),
        },
    }
}

/// Counts the states that were checked, and stops at the first bad one.
#[derive(Default)]
struct Tally {
    states: u64,
    /// At how many points of a download it crashed.
    points: u64,
}

impl Tally {
    /// Crashes (sometimes only the process), resumes, crashes again at some
    /// point, and completes the download.
    fn crash(&mut self, state: &DiskState, script: Script, seed: u64) -> Checked<()> {
        let mut rng = Rng::with_seed(seed);
        let crashed = match rng.u8(..8) {
            0 => state.killed(),
            _ => state.crashed(rng.u64(..)),
        };
        self.states += 1;
        check_disk(&crashed)?;
        let disk = CrashDisk::of(crashed);
        disk.set_trouble(Trouble::PowerOff(rng.u64(..40)));
        if let Ok(()) = download(&disk, script)? {
            disk.set_trouble(Trouble::None);
            return check_disk(&disk.state());
        }
        let crashed = disk.state().crashed(rng.u64(..));
        self.states += 1;
        check_disk(&crashed)?;
        complete(&CrashDisk::of(crashed), script)
    }

    /// Crashes after each change of a download.
    fn crashes(&mut self, planted: Option<PlantedBug>, scripts: &[Script]) -> Checked<()> {
        for (n, &script) in scripts.iter().enumerate() {
            for at in 0.. {
                let disk = CrashDisk::new(script.chunks);
                disk.state().planted = planted;
                disk.set_trouble(Trouble::PowerOff(at));
                let done = download(&disk, script)?;
                let state = disk.state().clone();
                self.points += 1;
                for variant in 0..VARIANTS {
                    let seed = (n as u64) << 48 | at << 16 | variant;
                    self.crash(&state, script, seed)
                        .map_err(|e| format!("{e} (script {n}, operation {at}, {variant})"))?;
                }
                if done.is_ok() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Lets each operation of a download fail in turn. The download must succeed,
    /// or end with a typed error. Then the cause disappears, with or without a
    /// crash.
    fn failures(&mut self, planted: Option<PlantedBug>) -> Checked<()> {
        let failures = [Failure::Io, Failure::NoSpace, Failure::Short];
        let scripts = [SCRIPTS[0], SCRIPTS[3]];
        for (failure, script) in failures.into_iter().flat_map(|f| scripts.map(|s| (f, s))) {
            let script = Script {
                ability: match failure {
                    Failure::Io => Ability::Full,
                    Failure::Short => Ability::NoRename,
                    Failure::NoSpace => Ability::NoLinks,
                },
                ..script
            };
            for at in 1.. {
                let disk = CrashDisk::new(script.chunks);
                disk.state().planted = planted;
                disk.set_trouble(Trouble::Fails(at, failure));
                let ended = download(&disk, script)?;
                let case = |e| format!("{e} ({failure:?} at operation {at})");
                let ops = disk.state().ops();
                check_typed(&ended, failure).map_err(case)?;
                if has_reservation(&disk) {
                    return Err(case("the name is reserved after a failure".into()));
                }
                disk.set_trouble(Trouble::None);
                self.after_failure(&disk, script, at).map_err(case)?;
                if ops < at {
                    break;
                }
            }
        }
        Ok(())
    }

    fn after_failure(&mut self, disk: &CrashDisk, script: Script, seed: u64) -> Checked<()> {
        let state = disk.state().clone();
        for variant in 0..4 {
            self.crash(&state, script, seed << 8 | variant)?;
        }
        // Without a crash, the next download reads from the cache what may never
        // reach the disk. A later crash loses it.
        for variant in 4..8 {
            let disk = CrashDisk::of(state.clone());
            let mut rng = Rng::with_seed(seed << 8 | variant);
            disk.set_trouble(Trouble::PowerOff(rng.u64(..60)));
            if download(&disk, script)?.is_err() {
                let crashed = disk.state().crashed(rng.u64(..));
                self.states += 1;
                check_disk(&crashed)?;
                complete(&CrashDisk::of(crashed), script)?;
            }
        }
        self.states += 1;
        complete(disk, script)
    }
}

fn check_typed(ended: &Result<(), StorageError>, failure: Failure) -> Checked<()> {
    match ended {
        Ok(()) | Err(StorageError::Full { .. }) if failure != Failure::Io => Ok(()),
        Ok(()) => Ok(()),
        Err(StorageError::Io { what, .. }) if failure == Failure::Io && what.contains("model") => {
            Ok(())
        }
        Err(error) => Err(format!("{error} is not the error for {failure:?}")),
    }
}

#[test]
fn crash_after_any_operation_loses_no_durable_data() {
    let (mut tally, start) = (Tally::default(), Instant::now());
    tally.crashes(None, &SCRIPTS).unwrap();
    println!(
        "{} states: crashes at {} points, {VARIANTS} variants of each, in {:?}",
        tally.states,
        tally.points,
        start.elapsed()
    );
    assert!(tally.states >= 20_000, "{}", tally.states);
}

#[test]
fn failure_of_any_operation_is_typed_and_the_download_can_be_resumed() {
    let (mut tally, start) = (Tally::default(), Instant::now());
    tally.failures(None).unwrap();
    println!(
        "{} states after a failure, in {:?}",
        tally.states,
        start.elapsed()
    );
}

/// What the checker reports for a bug.
fn complaint(planted: PlantedBug) -> String {
    complaint_in(planted, DENSE)
}

/// The same where this script is interrupted.
fn complaint_in(planted: PlantedBug, script: Script) -> String {
    let mut tally = Tally::default();
    let failures = match script.chunks {
        1 => Ok(()),
        _ => tally.failures(Some(planted)),
    };
    let found = failures.and_then(|()| tally.crashes(Some(planted), &[script]));
    println!("{planted:?} after {} states: {found:?}", tally.states);
    found.expect_err("the bug was not detected")
}

#[test]
fn record_before_sync_is_caught() {
    assert!(complaint(PlantedBug::RecordBeforeSync).contains("is committed but wrong"));
}

#[test]
fn publishing_before_the_bytes_are_synced_is_caught() {
    for script in [DENSE, SCRIPTS[3]] {
        let found = complaint_in(PlantedBug::PublishesUnsynced, script);
        assert!(
            found.contains("wrong bytes") || found.contains("not durable"),
            "{found}"
        );
    }
}

#[test]
fn missing_directory_sync_of_a_content_without_a_journal_is_caught() {
    for planted in [PlantedBug::NoDirectorySync, PlantedBug::NoParentSync] {
        let found = complaint_in(planted, SCRIPTS[3]);
        assert!(
            found.contains("gone") || found.contains("durable"),
            "{found}"
        );
    }
}

#[test]
fn missing_directory_sync_is_caught() {
    assert!(complaint(PlantedBug::NoDirectorySync).contains("durable"));
}

#[test]
fn missing_sync_of_the_parent_directory_is_caught() {
    assert!(complaint(PlantedBug::NoParentSync).contains("durable"));
}

#[test]
fn trusted_torn_record_is_caught() {
    assert!(complaint(PlantedBug::TrustsTornRecord).contains("wrong"));
}

#[test]
fn retried_sync_is_caught() {
    assert!(complaint(PlantedBug::RetriesFailedSync).contains("wrong"));
}

#[test]
fn journal_that_is_not_written_again_is_caught() {
    assert!(complaint(PlantedBug::KeepsUnsyncedJournal).contains("was durable"));
}

/// Another file takes the name while the content is being published.
fn name_taken(trouble: Trouble, planted: Option<PlantedBug>, script: Script) -> Checked<()> {
    let disk = CrashDisk::new(script.chunks);
    disk.state().planted = planted;
    disk.set_trouble(trouble);
    let ended = download(&disk, script)?;
    if disk.state().file(NAME).is_none_or(|file| *file != *FOREIGN) {
        return Err("the file that had the name is gone".into());
    }
    match ended {
        Err(StorageError::Exists { .. }) => {}
        other => return Err(format!("{other:?}, although the name was taken")),
    }
    // No chunk need be fetched again, not even an uncommitted one.
    let mut state = disk.state().crashed(1);
    check_disk(&state)?;
    if script.chunks > 1 {
        state.promise.chunks = Bitfield::all(CHUNKS);
    }
    let disk = CrashDisk::of(state);
    match download(&disk, script)? {
        Err(StorageError::Exists { .. }) => {}
        other => return Err(format!("{other:?}, although the name was taken")),
    }
    disk.remove(NAME).unwrap();
    complete(&disk, script)
}

#[test]
fn name_that_is_taken_at_the_end_is_left_alone_and_no_chunk_is_fetched_again() {
    // A content of one chunk is fetched again, and published then.
    for script in SCRIPTS {
        name_taken(Trouble::NameTaken, None, script).unwrap();
    }
    for script in [SCRIPTS[2], SCRIPTS[5]] {
        name_taken(Trouble::ReservationTaken, None, script).unwrap();
    }
}

#[test]
fn rename_that_replaces_is_caught() {
    let found = name_taken(
        Trouble::NameTaken,
        Some(PlantedBug::RenameReplaces),
        SCRIPTS[0],
    )
    .unwrap_err();
    assert!(found.contains("is gone"), "{found}");
}

#[test]
fn failed_sync_is_final() {
    let chunk = SAMPLE.chunk(ChunkIndex(0));
    let disk = CrashDisk::new(CHUNKS);
    let Ok(Resumed { file, .. }) = open(&disk) else {
        panic!("the disk is empty");
    };
    let none = Bitfield::none(CHUNKS);
    file.commit(&none).unwrap();
    // The sync comes after it was made sure that both files are there.
    disk.set_trouble(Trouble::Fails(4, Failure::Io));
    let error = file.commit(&none).unwrap_err();
    assert!(error.to_string().starts_with("syncing model/"), "{error}");
    let written = file.write(0, chunk.len() as u64, &[chunk]);
    assert_eq!(written, Err(error.clone()));
    assert_eq!(file.commit(&none), Err(error.clone()));
    assert_eq!(file.finish().map(|_| ()), Err(error));
}

#[test]
fn chunk_that_was_read_as_a_whole_is_not_verified_again() {
    let disk = CrashDisk::new(CHUNKS);
    disk.set_trouble(Trouble::PowerOff(80));
    download(&disk, SCRIPTS[0]).unwrap().unwrap_err();
    // The process was killed between two commits.
    let state = disk.state().killed();
    let finish = |reads_first: bool| {
        let disk = CrashDisk::of(state.clone());
        disk.set_trouble(Trouble::None);
        let resumed = open(&disk).map_err(|e| e.to_string()).unwrap();
        assert!(!resumed.file.is_proven());
        let geometry = SAMPLE.manifest.geometry();
        for chunk in resumed.present.iter().filter(|_| reads_first) {
            let len = geometry.len_of(chunk) as usize;
            resumed.file.read(geometry.offset_of(chunk), len).unwrap();
        }
        assert_eq!(resumed.file.is_proven(), reads_first);
        for chunk in resumed.present.iter_missing() {
            let bytes = SAMPLE.chunk(chunk);
            let offset = geometry.offset_of(chunk);
            let written = resumed.file.write(offset, bytes.len() as u64, &[bytes]);
            written.unwrap();
        }
        let before = disk.state().ops();
        resumed.file.finish().unwrap();
        let ops = disk.state().ops() - before;
        (ops, u64::from(resumed.present.count()))
    };
    let ((unproven, present), (proven, _)) = (finish(false), finish(true));
    assert!(present > 0);
    assert_eq!(unproven - proven, present);
}

#[test]
fn missing_space_is_detected_before_anything_is_created() {
    let disk = CrashDisk::new(CHUNKS);
    let length = SAMPLE.bytes.len() as u64;
    disk.state().room = length - 1;
    let refused = download(&disk, SCRIPTS[0]).unwrap();
    let path = format!("model/{}", SAMPLE.names.data);
    assert_eq!(
        refused,
        Err(StorageError::full(&*path, length, Some(length - 1)).at(&path))
    );
    assert!(disk.state().file(&SAMPLE.names.data).is_none());
    disk.state().room = length;
    complete(&disk, SCRIPTS[0]).unwrap();
}

/// Writes all chunks of a sample.
fn write_all(file: &PartialFile<CrashDisk>, sample: &Sample) -> Result<(), StorageError> {
    for chunk in sample.manifest.geometry().indices() {
        let (offset, bytes) = (
            sample.manifest.geometry().offset_of(chunk),
            sample.chunk(chunk),
        );
        file.write(offset, bytes.len() as u64, &[bytes])?;
    }
    Ok(())
}

/// One content is finished while another is on its way, in the same directory. The
/// operation with this number fails. Whatever the second one reports as durable must
/// survive, although it shares the syncs of the first.
fn shared_syncs(at: u64, seed: u64) -> Checked<bool> {
    let disk = CrashDisk::new(CHUNKS);
    let dir = Arc::new(StorageDir::new(disk.clone(), "model".into()));
    let opened = |name: &str, sample| {
        let opened = open_in(dir.clone(), name.parse().unwrap(), sample);
        opened.map_err(|e| e.to_string())
    };
    let (first, second) = (opened("small", &SMALL)?.file, opened(NAME, &SAMPLE)?.file);
    disk.set_trouble(Trouble::Fails(at, Failure::Io));
    let finished = write_all(&first, &SMALL).and_then(|()| first.finish());
    let ops = disk.state().ops();
    disk.set_trouble(Trouble::None);
    let all = Bitfield::all(CHUNKS);
    let committed = write_all(&second, &SAMPLE).and_then(|()| second.commit(&all));
    if committed.is_ok() {
        disk.state().promise.chunks = all;
        if seed.is_multiple_of(2) {
            second.finish().map_err(|e| e.to_string())?;
            disk.state().promise.finished = true;
        }
    }
    let crashed = disk.state().crashed(seed);
    check_disk(&crashed)?;
    let there = crashed
        .file("small")
        .is_some_and(|file| *file == SMALL.bytes[..]);
    match finished.is_ok() && !there {
        true => Err("the first content was finished and is gone".into()),
        false => Ok(ops >= at),
    }
}

#[test]
fn contents_that_share_a_sync_share_its_failure() {
    let mut failed = 0;
    for at in 1.. {
        let mut reached = false;
        for seed in 0..VARIANTS {
            reached =
                shared_syncs(at, seed).unwrap_or_else(|e| panic!("{e} (operation {at}, {seed})"));
        }
        if !reached {
            break;
        }
        failed += 1;
    }
    assert!(failed > 5, "{failed}");
}

/// Two contents of one chunk are finished together, and the operation with this number
/// fails, or the power does. What is reported as finished must survive; the other one
/// has its name or not.
fn finished_together(trouble: Trouble, seed: u64) -> Checked<u64> {
    let disk = CrashDisk::new(1);
    let dir = Arc::new(StorageDir::new(disk.clone(), "model".into()));
    let (first, second) = (&*SMALL, Sample::new(2));
    disk.set_trouble(trouble);
    let written = |name: &str, sample: &Sample| {
        let file = open_in(dir.clone(), name.parse().unwrap(), sample)?.file;
        write_all(&file, sample)?;
        Ok(Arc::new(file))
    };
    let files: Result<Vec<_>, StorageError> = [written("first", first), written("second", &second)]
        .into_iter()
        .collect();
    let outcomes = files.map(|files| finish_together(&files));
    let ops = disk.state().ops();
    let outcomes = outcomes.unwrap_or_default();
    let crashed = disk.state().crashed(seed);
    for (at, (name, sample)) in [("first", first), ("second", &second)]
        .into_iter()
        .enumerate()
    {
        let is_finished = outcomes.get(at).is_some_and(Result::is_ok);
        match crashed.file(name) {
            Some(file) if *file == sample.bytes[..] => {}
            None if !is_finished => {}
            Some(_) => return Err(format!("{name} has wrong bytes")),
            None => return Err(format!("{name} was finished and is gone")),
        }
    }
    Ok(ops)
}

#[test]
fn contents_that_are_finished_together_survive_a_crash_and_a_failure() {
    let mut points = 0;
    for at in 1.. {
        let mut ops = 0;
        for seed in 0..VARIANTS {
            for trouble in [Trouble::Fails(at, Failure::Io), Trouble::PowerOff(at)] {
                let case = |e| panic!("{e} (operation {at}, {seed})");
                ops = finished_together(trouble, seed)
                    .unwrap_or_else(case)
                    .max(ops);
            }
        }
        if ops < at {
            break;
        }
        points = at;
    }
    assert!(points > 20, "{points}");
}

/// What somebody else does to the files of a download that runs.
#[derive(Debug, Clone, Copy)]
enum Meddling {
    Removes(&'static str),
    Replaces(&'static str),
    Truncates,
}

impl Meddling {
    /// Meddles with the sample, and returns the path of the file.
    fn meddle(self, disk: &CrashDisk) -> PathBuf {
        let name_of = |ending: &str| format!("{}{ending}", SAMPLE.manifest.id());
        let name = match self {
            Self::Removes(ending) | Self::Replaces(ending) => name_of(ending),
            Self::Truncates => name_of(".part"),
        };
        match self {
            Self::Removes(_) => disk.remove(&name).unwrap(),
            Self::Replaces(_) => {
                disk.remove(&name).unwrap();
                disk.state().create(&name, FOREIGN);
            }
            Self::Truncates => {
                let half = SAMPLE.bytes.len() as u64 / 2;
                let file = disk.open_existing(&name).unwrap();
                file.set_len(half).unwrap();
            }
        }
        PathBuf::from("model").join(name)
    }
}

#[test]
fn meddling_with_the_files_of_a_download_ends_it_at_the_next_commit() {
    for (meddling, how) in [
        (Meddling::Removes(".part"), "removed"),
        (Meddling::Removes(".journal"), "removed"),
        (Meddling::Replaces(".part"), "replaced"),
        (Meddling::Replaces(".journal"), "replaced"),
        (Meddling::Truncates, "truncated"),
    ] {
        let disk = CrashDisk::new(CHUNKS);
        let Ok(Resumed { file, .. }) = open(&disk) else {
            panic!("the disk is empty");
        };
        let mut first = Bitfield::none(CHUNKS);
        first.insert(ChunkIndex(0));
        let chunk = SAMPLE.chunk(ChunkIndex(0));
        file.write(0, chunk.len() as u64, &[chunk]).unwrap();
        file.commit(&first).unwrap();

        let path = meddling.meddle(&disk);
        let error = file.commit(&first).unwrap_err();
        assert_eq!(error, StorageError::Tampered { path, how }, "{meddling:?}");
        let chunk = SAMPLE.chunk(ChunkIndex(1));
        let written = file.write(chunk.len() as u64, chunk.len() as u64, &[chunk]);
        assert_eq!(written, Err(error.clone()));
        assert_eq!(file.finish().map(|_| ()), Err(error));
        drop(file);

        // The next download begins with what is left.
        disk.state().promise.chunks = Bitfield::none(CHUNKS);
        let resumed = open(&disk).map_err(|e| e.to_string()).unwrap();
        let left = match meddling {
            Meddling::Truncates => 1,
            Meddling::Removes(_) | Meddling::Replaces(_) => 0,
        };
        assert_eq!(resumed.present.count(), left, "{meddling:?}");
        drop(resumed);
        complete(&disk, SCRIPTS[0]).unwrap();
    }
}

#[test]
fn last_chunk_does_not_hide_that_the_file_was_truncated() {
    let disk = CrashDisk::new(CHUNKS);
    let Ok(Resumed { file, .. }) = open(&disk) else {
        panic!("the disk is empty");
    };
    let last = ChunkIndex(CHUNKS - 1);
    let written = || {
        let offset = SAMPLE.manifest.geometry().offset_of(last);
        let bytes = SAMPLE.chunk(last);
        file.write(offset, bytes.len() as u64, &[bytes])
    };
    written().unwrap();
    let truncated = disk.open_existing(&SAMPLE.names.data).unwrap();
    truncated.set_len(5000).unwrap();
    let error = written().unwrap_err();
    let path = PathBuf::from("model").join(&SAMPLE.names.data);
    let how = "truncated";
    assert_eq!(error, StorageError::Tampered { path, how });
    assert_eq!(file.finish().map(|_| ()), Err(error));
}

#[test]
fn file_that_was_taken_away_after_the_last_commit_is_not_published() {
    for (meddling, how) in [
        (Meddling::Removes(".part"), "removed"),
        (Meddling::Replaces(".part"), "replaced"),
        (Meddling::Truncates, "truncated"),
    ] {
        for ability in [Ability::Full, Ability::NoRename, Ability::NoLinks] {
            let disk = CrashDisk::new(CHUNKS);
            disk.state().ability = ability;
            let Ok(Resumed { file, .. }) = open(&disk) else {
                panic!("the disk is empty");
            };
            write_all(&file, &SAMPLE).unwrap();
            let path = meddling.meddle(&disk);
            let tampered = StorageError::Tampered { path, how };
            for _ in 0..2 {
                assert_eq!(file.finish().map(|_| ()), Err(tampered.clone()));
            }
            assert!(disk.state().file(NAME).is_none(), "{meddling:?}");
        }
    }
}

/// Begins a download on a disk that lacks something, and returns the error.
fn refused_by(ability: Ability, sample: &'static Sample) -> (CrashDisk, StorageError) {
    let disk = CrashDisk::new(sample.manifest.geometry().chunks());
    disk.state().ability = ability;
    let Err(error) = open(&disk) else {
        panic!("{ability:?} is enough");
    };
    (disk, error)
}

#[test]
fn disk_that_cannot_keep_its_promises_is_refused_and_nothing_is_left_behind() {
    for sample in [&*SAMPLE, &*SMALL] {
        let (disk, error) = refused_by(Ability::NoLocks, sample);
        let source = std::io::ErrorKind::Unsupported.into();
        let path = "model".into();
        assert_eq!(error, StorageError::NoLocks { path, source });
        assert_eq!(disk.names().unwrap(), [""; 0]);

        let (disk, error) = refused_by(Ability::NoNaming, sample);
        let probe = &probe_names(sample.manifest.id())[0];
        let denied = std::io::ErrorKind::PermissionDenied;
        let path = format!("model/{probe}");
        let expected = StorageError::io(format!("renaming {path}"), denied).at(path);
        assert_eq!(error, expected);
        assert_eq!(disk.names().unwrap(), [""; 0]);
    }
}

#[test]
fn how_files_get_their_names_is_found_out_once() {
    for ability in [Ability::Full, Ability::NoRename, Ability::NoLinks] {
        let disk = CrashDisk::new(CHUNKS);
        disk.state().ability = ability;
        let dir = Arc::new(StorageDir::new(disk.clone(), "model".into()));
        let changes_of_one = || {
            let before = disk.state().changes();
            let opened = open_in(dir.clone(), Sample::name(), &SAMPLE);
            drop(opened.map_err(|e| e.to_string()).unwrap());
            let changes = disk.state().changes() - before;
            disk.remove(&SAMPLE.names.data).unwrap();
            disk.remove(&SAMPLE.names.journal).unwrap();
            changes
        };
        let (first, second, third) = (changes_of_one(), changes_of_one(), changes_of_one());
        assert!(first > second, "{ability:?}: {first} {second}");
        assert_eq!(second, third);
        assert_eq!(disk.names().unwrap(), [""; 0]);
    }
}
