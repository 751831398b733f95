//! Crashes after every operation, and failures of every operation, of a
//! download: what a disk may hold then, and whether the storage goes on from
//! there as it promises.
//!
//! In every state: no byte that the journal claims is wrong, the final name
//! stands for the right bytes or for nothing, nothing of somebody else's is
//! touched, and what was reported durable is there. The checker itself is
//! checked by mistakes that are planted under the storage.

mod blocks;
mod files;
mod model;

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use fastrand::Rng;

use super::disk::Disk;
use super::journal;
use super::part::Names;
use super::place::{Options, Place};
use crate::content::{Bitfield, ChunkIndex, ContentName, MIN_CHUNK_LEN, Manifest};
use crate::storage::StorageError;
use blocks::Blocks;
use model::{FOREIGN, Failure, Model, Planted, State, Trouble};

const CHUNKS: u32 = 64;
/// How many crashes are tried at each point of a download.
const VARIANTS: u64 = 32;
const NAME: &str = "content";

struct Sample {
    bytes: Bytes,
    manifest: Manifest,
    names: Names,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    // The last chunk is a short one.
    let mut bytes = vec![0; (u64::from(CHUNKS) * MIN_CHUNK_LEN) as usize - 5000];
    Rng::with_seed(4).fill(&mut bytes);
    let manifest = Manifest::of(&bytes).unwrap();
    assert_eq!(manifest.geometry().chunks(), CHUNKS);
    Sample {
        names: Names::of(manifest.id()),
        bytes: bytes.into(),
        manifest,
    }
});

impl Sample {
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

/// How a download goes.
#[derive(Debug, Clone, Copy)]
struct Script {
    /// A commit follows so many chunks.
    every: u32,
    /// In which order the chunks come; by the index if none.
    shuffled: Option<u64>,
    /// The file gets its name in two steps.
    two_steps: bool,
}

const SCRIPTS: [Script; 3] = [
    Script {
        every: 8,
        shuffled: None,
        two_steps: false,
    },
    Script {
        every: 5,
        shuffled: Some(1),
        two_steps: true,
    },
    Script {
        every: 3,
        shuffled: Some(2),
        two_steps: false,
    },
];

/// The most commits for the fewest chunks, to find a mistake soon.
const DENSE: Script = Script {
    every: 1,
    shuffled: Some(3),
    two_steps: false,
};

/// What is wrong.
type Checked<T> = Result<T, String>;

/// Goes on with a download, as a peer does, and ends it at the first error.
fn download(disk: &Model, script: Script) -> Checked<Result<(), StorageError>> {
    disk.state().two_steps = script.two_steps;
    let place = Place::new(disk.clone(), "model".into(), Options::default());
    let name = Sample::name();
    let opened = Place::open_part(Arc::new(place), name, SAMPLE.manifest.clone(), None);
    let resumed = match opened {
        Ok(resumed) => resumed,
        Err(error) => return Ok(Err(error)),
    };
    let part = resumed.part;
    let mut have = resumed.present;
    check_present(&disk.state(), &have)?;
    let mut order: Vec<ChunkIndex> = have.iter_missing().collect();
    if let Some(seed) = script.shuffled {
        Rng::with_seed(seed).shuffle(&mut order);
    }
    let mut steps = || -> Result<(), StorageError> {
        for (n, &chunk) in order.iter().enumerate() {
            let bytes = SAMPLE.chunk(chunk);
            let offset = SAMPLE.manifest.geometry().offset_of(chunk);
            part.write(offset, bytes.len() as u64, &[bytes])?;
            have.insert(chunk);
            if (n as u32 + 1).is_multiple_of(script.every) {
                part.commit(&have)?;
                disk.state().promise.chunks = have.clone();
            }
        }
        part.finish()?;
        disk.state().promise.finished = true;
        Ok(())
    };
    Ok(steps())
}

/// What is present must be right, and all that was promised.
fn check_present(state: &State, present: &Bitfield) -> Checked<()> {
    if let Some(chunk) = state.promise.chunks.first_not_in(present) {
        return Err(format!("chunk {chunk} was durable, and is not present"));
    }
    let file = state.file(&SAMPLE.names.part);
    match present.iter().find(|&chunk| !SAMPLE.is_in(file, chunk)) {
        Some(chunk) => Err(format!("chunk {chunk} is present, and wrong")),
        None => Ok(()),
    }
}

/// What must hold of any disk that a crash left.
fn check_disk(state: &State) -> Checked<()> {
    let finished = match state.file(NAME) {
        None => false,
        Some(file) if *file == *FOREIGN => false,
        Some(file) if *file == SAMPLE.bytes[..] => true,
        Some(_) => return Err("the name stands for wrong bytes".into()),
    };
    if state.promise.finished && !finished {
        return Err("the content was finished, and is gone".into());
    }
    if finished {
        return Ok(());
    }
    let part = state.file(&SAMPLE.names.part);
    let journal = state.file(&SAMPLE.names.journal);
    let mut bytes = journal
        .and_then(|file| file.read(0, file.len()))
        .unwrap_or_default();
    if state.planted == Some(Planted::TrustsTornRecord) {
        bytes = journal::sealed_anew(bytes);
    }
    let (id, geometry) = (SAMPLE.manifest.id(), SAMPLE.manifest.geometry());
    let claimed = match journal::replay(&bytes, id, &geometry) {
        Some(replay) => replay.claimed,
        None => Bitfield::none(CHUNKS),
    };
    if let Some(chunk) = state.promise.chunks.first_not_in(&claimed) {
        return Err(format!("chunk {chunk} was durable, and is not claimed"));
    }
    match claimed.iter().find(|&chunk| !SAMPLE.is_in(part, chunk)) {
        Some(chunk) => Err(format!("chunk {chunk} is claimed, and wrong")),
        None => Ok(()),
    }
}

fn is_finished(file: Option<&Blocks>) -> bool {
    file.is_some_and(|file| *file == SAMPLE.bytes[..])
}

/// Goes on until the content is finished.
fn complete(disk: &Model, script: Script) -> Checked<()> {
    match download(disk, script)? {
        Ok(()) => {}
        // It was finished just before.
        Err(StorageError::Exists { .. }) if is_finished(disk.state().file(NAME)) => {
            let place = Place::new(disk.clone(), "model".into(), Options::default());
            let file = disk.open_existing(NAME).map_err(|e| format!("{e:?}"))?;
            place
                .make_durable(&file, NAME.as_ref())
                .map_err(|e| e.to_string())?;
            disk.state().promise.finished = true;
        }
        Err(error) => return Err(format!("resuming failed: {error}")),
    }
    let state = disk.state();
    check_disk(&state)?;
    let left = [&SAMPLE.names.part, &SAMPLE.names.journal];
    match left.into_iter().find(|name| state.file(name).is_some()) {
        Some(name) => Err(format!("{name} is left")),
        None => match state.placed && is_finished(state.durable_file(NAME)) {
            true => Ok(()),
            false => Err("the content is finished, and not durable".into()),
        },
    }
}

/// Counts states, and stops at the first that is wrong.
#[derive(Default)]
struct Tally {
    states: u64,
    /// Moments of a download at which it crashed.
    points: u64,
}

impl Tally {
    /// A crash (now and then of the process only), another one somewhere in
    /// what follows, and the rest.
    fn crash(&mut self, state: &State, script: Script, seed: u64) -> Checked<()> {
        let mut rng = Rng::with_seed(seed);
        let crashed = match rng.u8(..8) {
            0 => state.killed(),
            _ => state.crashed(rng.u64(..)),
        };
        self.states += 1;
        check_disk(&crashed)?;
        let disk = Model::of(crashed);
        disk.set_trouble(Trouble::PowerOff(rng.u64(..40)));
        if let Ok(()) = download(&disk, script)? {
            disk.set_trouble(Trouble::None);
            return check_disk(&disk.state());
        }
        let crashed = disk.state().crashed(rng.u64(..));
        self.states += 1;
        check_disk(&crashed)?;
        complete(&Model::of(crashed), script)
    }

    /// Crashes after each operation of a download that changes something.
    fn crashes(&mut self, planted: Option<Planted>, scripts: &[Script]) -> Checked<()> {
        for (n, &script) in scripts.iter().enumerate() {
            for at in 0.. {
                let disk = Model::new(CHUNKS);
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

    /// Fails each operation of a download in turn. The download ends with a
    /// typed error, or well; then the cause goes away, with or without a crash.
    fn failures(&mut self, planted: Option<Planted>) -> Checked<()> {
        for failure in [Failure::Io, Failure::NoSpace, Failure::Short] {
            let script = Script {
                two_steps: failure == Failure::Short,
                ..SCRIPTS[0]
            };
            for at in 1.. {
                let disk = Model::new(CHUNKS);
                disk.state().planted = planted;
                disk.set_trouble(Trouble::Fails(at, failure));
                let ended = download(&disk, script)?;
                let case = |e| format!("{e} ({failure:?} at operation {at})");
                let (ops, _) = disk.state().counts();
                check_typed(&ended, failure).map_err(case)?;
                disk.set_trouble(Trouble::None);
                self.after_failure(&disk, script, at).map_err(case)?;
                if ops < at {
                    break;
                }
            }
        }
        Ok(())
    }

    fn after_failure(&mut self, disk: &Model, script: Script, seed: u64) -> Checked<()> {
        let state = disk.state().clone();
        for variant in 0..4 {
            self.crash(&state, script, seed << 8 | variant)?;
        }
        // Without a crash, what the cache has is seen, whether or not it can
        // ever reach the disk; with one later on, it is not.
        for variant in 4..8 {
            let disk = Model::of(state.clone());
            let mut rng = Rng::with_seed(seed << 8 | variant);
            disk.set_trouble(Trouble::PowerOff(rng.u64(..60)));
            if download(&disk, script)?.is_err() {
                let crashed = disk.state().crashed(rng.u64(..));
                self.states += 1;
                check_disk(&crashed)?;
                complete(&Model::of(crashed), script)?;
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
        Err(error) => Err(format!("{error} is not what {failure:?} is")),
    }
}

#[test]
fn crash_after_any_operation_loses_nothing_that_was_durable() {
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
fn failure_of_any_operation_is_typed_and_the_download_goes_on_after_it() {
    let (mut tally, start) = (Tally::default(), Instant::now());
    tally.failures(None).unwrap();
    println!(
        "{} states after a failure, in {:?}",
        tally.states,
        start.elapsed()
    );
}

/// What the checker says of a mistake.
fn complaint(planted: Planted) -> String {
    let mut tally = Tally::default();
    let failures = tally.failures(Some(planted));
    let found = failures.and_then(|()| tally.crashes(Some(planted), &[DENSE]));
    println!("{planted:?} after {} states: {found:?}", tally.states);
    found.expect_err("the mistake was not noticed")
}

#[test]
fn record_before_sync_is_caught() {
    assert!(complaint(Planted::RecordBeforeSync).contains("is claimed, and wrong"));
}

#[test]
fn missing_directory_sync_is_caught() {
    assert!(complaint(Planted::NoDirectorySync).contains("durable"));
}

#[test]
fn missing_sync_of_the_directory_above_is_caught() {
    assert!(complaint(Planted::NoSyncAbove).contains("durable"));
}

#[test]
fn trusted_torn_record_is_caught() {
    assert!(complaint(Planted::TrustsTornRecord).contains("wrong"));
}

#[test]
fn retried_sync_is_caught() {
    assert!(complaint(Planted::RetriesFailedSync).contains("wrong"));
}

#[test]
fn journal_that_was_never_written_again_is_caught() {
    assert!(complaint(Planted::KeepsUnsyncedJournal).contains("was durable"));
}

/// Something takes the name while the content is published.
fn name_taken(planted: Option<Planted>, script: Script) -> Checked<()> {
    let disk = Model::new(CHUNKS);
    disk.state().planted = planted;
    disk.set_trouble(Trouble::NameTaken("publish"));
    let ended = download(&disk, script)?;
    if disk.state().file(NAME).is_none_or(|file| *file != *FOREIGN) {
        return Err("what had the name is gone".into());
    }
    match ended {
        Err(StorageError::Exists { .. }) => {}
        other => return Err(format!("{other:?} where the name was taken")),
    }
    // Nothing need be fetched again, not even what was not committed.
    let mut state = disk.state().crashed(1);
    check_disk(&state)?;
    state.promise.chunks = Bitfield::all(CHUNKS);
    let disk = Model::of(state);
    match download(&disk, script)? {
        Err(StorageError::Exists { .. }) => {}
        other => return Err(format!("{other:?} where the name was taken")),
    }
    disk.remove(NAME).unwrap();
    complete(&disk, script)
}

#[test]
fn name_that_is_taken_at_the_end_is_left_and_nothing_is_fetched_again() {
    name_taken(None, SCRIPTS[0]).unwrap();
    name_taken(None, SCRIPTS[1]).unwrap();
}

#[test]
fn rename_that_replaces_is_caught() {
    let found = name_taken(Some(Planted::RenameReplaces), SCRIPTS[0]).unwrap_err();
    assert!(found.contains("is gone"), "{found}");
}

#[test]
fn failed_sync_is_final() {
    let chunk = SAMPLE.chunk(ChunkIndex(0));
    let place = Place::new(Model::new(CHUNKS), "model".into(), Options::default());
    let place = Arc::new(place);
    let name = Sample::name();
    let opened = Place::open_part(place.clone(), name, SAMPLE.manifest.clone(), None);
    let Ok(resumed) = opened else {
        panic!("nobody else has it");
    };
    let part = resumed.part;
    let none = Bitfield::none(CHUNKS);
    part.commit(&none).unwrap();
    place.dir.set_trouble(Trouble::Fails(1, Failure::Io));
    let error = part.commit(&none).unwrap_err();
    assert!(error.to_string().starts_with("syncing model/"), "{error}");
    let written = part.write(0, chunk.len() as u64, &[chunk]);
    assert_eq!(written, Err(error.clone()));
    assert_eq!(part.commit(&none), Err(error.clone()));
    assert_eq!(part.finish(), Err(error));
}

#[test]
fn chunk_that_was_read_whole_is_not_read_again_to_be_proven() {
    let disk = Model::new(CHUNKS);
    disk.set_trouble(Trouble::PowerOff(80));
    download(&disk, SCRIPTS[0]).unwrap().unwrap_err();
    // The process was killed between two commits.
    let state = disk.state().killed();
    let finishing = |looks: bool| {
        let disk = Model::of(state.clone());
        disk.set_trouble(Trouble::None);
        let place = Place::new(disk.clone(), "model".into(), Options::default());
        let name = Sample::name();
        let opened = Place::open_part(Arc::new(place), name, SAMPLE.manifest.clone(), None);
        let resumed = opened.map_err(|e| e.to_string()).unwrap();
        assert!(!resumed.part.is_proven());
        let geometry = SAMPLE.manifest.geometry();
        for chunk in resumed.present.iter().filter(|_| looks) {
            let len = geometry.len_of(chunk) as usize;
            resumed.part.read(geometry.offset_of(chunk), len).unwrap();
        }
        assert_eq!(resumed.part.is_proven(), looks);
        for chunk in resumed.present.iter_missing() {
            let bytes = SAMPLE.chunk(chunk);
            let offset = geometry.offset_of(chunk);
            let written = resumed.part.write(offset, bytes.len() as u64, &[bytes]);
            written.unwrap();
        }
        let before = disk.state().counts().0;
        resumed.part.finish().unwrap();
        let ops = disk.state().counts().0 - before;
        (ops, u64::from(resumed.present.count()))
    };
    let ((proving, present), (proven, _)) = (finishing(false), finishing(true));
    assert!(present > 0);
    assert_eq!(proving - proven, present);
}

#[test]
fn missing_room_is_found_before_anything_is_created() {
    let disk = Model::new(CHUNKS);
    let length = SAMPLE.bytes.len() as u64;
    disk.state().room = length - 1;
    let refused = download(&disk, SCRIPTS[0]).unwrap();
    assert_eq!(
        refused,
        Err(StorageError::Full {
            what: format!("model/{}", SAMPLE.names.part),
            needed: length,
            available: Some(length - 1),
        })
    );
    assert!(disk.state().file(&SAMPLE.names.part).is_none());
    disk.state().room = length;
    complete(&disk, SCRIPTS[0]).unwrap();
}
