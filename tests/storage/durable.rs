//! The file storage after an interruption: what it finds again, what it does
//! not trust, and what it remembers.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bt_lite::storage::{Blob, Partial, Stored, open_file};
use bt_lite::{Bitfield, ChunkIndex, ContentName, FileStorage, Manifest, Storage, StorageError};
use bytes::Bytes;
use tempfile::TempDir;

const CHUNK: usize = 16 << 10;
const CHUNKS: u32 = 6;

struct Place {
    dir: TempDir,
    content: Bytes,
    manifest: Manifest,
}

impl Place {
    fn new() -> Self {
        let mut content = vec![0; CHUNKS as usize * CHUNK - 99];
        fastrand(&mut content);
        Self {
            dir: tempfile::tempdir().unwrap(),
            manifest: Manifest::of(&content).unwrap(),
            content: content.into(),
        }
    }

    fn storage(&self) -> FileStorage {
        FileStorage::open(self.dir.path()).unwrap()
    }

    fn verifying(&self) -> FileStorage {
        let builder = FileStorage::builder(self.dir.path());
        builder.verify_on_resume(true).open().unwrap()
    }

    fn path(&self, ending: &str) -> PathBuf {
        let id = self.manifest.id();
        self.dir.path().join(format!("{id}.{ending}"))
    }

    fn exists(&self) -> StorageError {
        StorageError::Exists {
            name: name(),
            path: Some(self.target()),
        }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("a")
    }

    async fn create(&self, storage: &FileStorage) -> Partial {
        self.try_create(storage).await.unwrap()
    }

    async fn try_create(&self, storage: &FileStorage) -> Result<Partial, StorageError> {
        storage.create(&name(), &self.manifest).await
    }

    async fn write(&self, partial: &Partial, chunks: &Bitfield) {
        for chunk in chunks.iter() {
            let range = self.manifest.geometry().range_of(chunk);
            let bytes = self.content.slice(range.start as usize..range.end as usize);
            partial
                .blob
                .write_at(range.start, vec![bytes])
                .await
                .unwrap();
        }
    }

    /// A download that was interrupted with these chunks committed.
    async fn interrupted(&self, chunks: &[u32]) {
        let partial = self.create(&self.storage()).await;
        self.write(&partial, &set(chunks)).await;
        partial.blob.commit(&set(chunks)).await.unwrap();
    }

    /// Fetches what is missing, and finishes.
    async fn complete(&self, partial: Partial) -> Result<(), StorageError> {
        let mut missing = Bitfield::none(CHUNKS);
        partial.present.iter_missing().for_each(|chunk| {
            missing.insert(chunk);
        });
        self.write(&partial, &missing).await;
        partial.blob.finish().await
    }

    async fn check_completes(&self, partial: Partial) {
        self.complete(partial).await.unwrap();
        assert_eq!(fs::read(self.target()).unwrap(), self.content);
        for ending in ["part", "journal"] {
            assert!(!self.path(ending).exists(), "{ending}");
        }
    }

    async fn finished(&self) -> FileStorage {
        let storage = self.storage();
        let partial = self.create(&storage).await;
        let blob = partial.blob.clone();
        self.complete(partial).await.unwrap();
        self.remember(&storage, "a", blob).await;
        storage
    }

    async fn remember(&self, storage: &FileStorage, name: &str, blob: Arc<dyn Blob>) {
        let stored = Stored::new(name.parse().unwrap(), self.manifest.clone(), blob);
        storage.remember(&stored).await.unwrap();
    }

    /// The names in the catalogue of a storage that was just opened.
    async fn offered(&self) -> Vec<String> {
        let stored = self.storage().catalogue().await.unwrap();
        for stored in &stored {
            assert_eq!(stored.manifest, self.manifest);
        }
        stored.iter().map(|s| s.name.to_string()).collect()
    }

    fn record(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths.find(|path| path.extension().is_some_and(|e| e == "manifest"))
    }

    fn records(&self) -> usize {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_str().unwrap().ends_with(".manifest"))
            .count()
    }
}

fn fastrand(bytes: &mut [u8]) {
    let mut state = 7u32;
    for byte in bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
}

fn name() -> ContentName {
    "a".parse().unwrap()
}

fn set(chunks: &[u32]) -> Bitfield {
    let mut set = Bitfield::none(CHUNKS);
    for &chunk in chunks {
        set.insert(ChunkIndex(chunk));
    }
    set
}

fn alter(path: &Path, at: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at as u64).unwrap();
}

#[tokio::test]
async fn interrupted_download_goes_on_from_each_commit_by_the_word_of_the_journal() {
    let place = Place::new();
    place.interrupted(&[1, 2]).await;
    let partial = place.create(&place.storage()).await;
    assert_eq!(partial.present, set(&[1, 2]));
    assert_eq!(partial.verified, set(&[]));
    place.write(&partial, &set(&[0, 5])).await;
    partial.blob.commit(&set(&[0, 1, 2, 5])).await.unwrap();
    // Not committed.
    place.write(&partial, &set(&[3])).await;
    drop(partial);
    let partial = place.create(&place.storage()).await;
    assert_eq!(partial.present, set(&[0, 1, 2, 5]));
    place.check_completes(partial).await;
}

#[tokio::test]
async fn altered_chunk_is_found_before_the_content_has_its_name_and_fetched_again() {
    let place = Place::new();
    place.interrupted(&[0, 1, 2, 4]).await;
    alter(&place.path("part"), 2 * CHUNK + 5);
    let partial = place.create(&place.storage()).await;
    assert_eq!(partial.present, set(&[0, 1, 2, 4]));
    let altered = StorageError::Altered {
        path: place.path("part"),
        chunk: ChunkIndex(2),
    };
    let blob = partial.blob.clone();
    assert_eq!(place.complete(partial).await, Err(altered.clone()));
    assert!(!place.target().exists());
    let again = blob.write_at(0, vec![place.content.slice(..CHUNK)]).await;
    assert_eq!(again, Err(altered));
    drop(blob);
    let partial = place.create(&place.storage()).await;
    assert_eq!(partial.present, set(&[0, 1, 4]));
    place.check_completes(partial).await;
}

#[tokio::test]
async fn altered_chunk_that_was_written_again_is_no_error() {
    let place = Place::new();
    place.interrupted(&[0, 1, 2]).await;
    alter(&place.path("part"), CHUNK + 5);
    let partial = place.create(&place.storage()).await;
    place.write(&partial, &set(&[1])).await;
    drop(partial);
    // It was written, and not committed again.
    let partial = place.create(&place.storage()).await;
    assert_eq!(partial.present, set(&[0, 2]));
    place.check_completes(partial).await;
}

#[tokio::test]
async fn unfinished_file_that_was_cut_loses_what_was_cut_off() {
    let place = Place::new();
    for (length, present) in [
        (4 * CHUNK + 1, &[0, 3][..]),
        (4 * CHUNK, &[0, 3]),
        (4 * CHUNK - 1, &[0]),
        (0, &[]),
    ] {
        place.interrupted(&[0, 3, 4, 5]).await;
        let file = File::options()
            .write(true)
            .open(place.path("part"))
            .unwrap();
        file.set_len(length as u64).unwrap();
        let partial = place.create(&place.storage()).await;
        assert_eq!(partial.present, set(present), "{length}");
    }
    place.interrupted(&[0, 5]).await;
    let file = File::options()
        .write(true)
        .open(place.path("part"))
        .unwrap();
    file.set_len(1 << 20).unwrap();
    let partial = place.create(&place.storage()).await;
    assert_eq!(partial.present, set(&[0, 5]));
    place.check_completes(partial).await;
}

#[tokio::test]
async fn journal_without_its_file_and_file_without_its_journal_are_not_trusted() {
    let place = Place::new();
    for ending in ["part", "journal"] {
        place.interrupted(&[0, 1]).await;
        fs::remove_file(place.path(ending)).unwrap();
        let partial = place.create(&place.storage()).await;
        assert_eq!(partial.present, set(&[]), "{ending}");
    }
    let partial = place.create(&place.storage()).await;
    place.check_completes(partial).await;
}

#[tokio::test]
async fn journal_that_is_bad_is_trusted_up_to_there_and_one_of_another_content_is_not() {
    let place = Place::new();
    place.interrupted(&[0]).await;
    let good = fs::metadata(place.path("journal")).unwrap().len();
    let partial = place.create(&place.storage()).await;
    place.write(&partial, &set(&[1, 2])).await;
    partial.blob.commit(&set(&[0, 1, 2])).await.unwrap();
    drop(partial);
    alter(&place.path("journal"), good as usize + 20);
    let partial = place.create(&place.storage()).await;
    assert_eq!(partial.present, set(&[0]));
    drop(partial);

    let other = Place::new();
    let journal = other.path("journal");
    fs::rename(place.path("journal"), place.dir.path().join("kept")).unwrap();
    fs::write(&journal, "no journal at all").unwrap();
    fs::copy(&journal, place.path("journal")).unwrap();
    let partial = place.create(&place.storage()).await;
    assert_eq!(partial.present, set(&[]));
    drop(partial);
    // The header names the content in its last bytes before the check.
    fs::copy(place.dir.path().join("kept"), place.path("journal")).unwrap();
    alter(&place.path("journal"), 40);
    let partial = place.create(&place.storage()).await;
    assert_eq!(partial.present, set(&[]));
    place.check_completes(partial).await;
}

#[tokio::test]
async fn journal_that_is_no_file_of_the_storage_is_left_alone() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    let refused = async |found: &'static str| {
        let path = place.path("journal");
        let created = place.try_create(&place.storage()).await.map(|_| ());
        assert_eq!(created, Err(StorageError::NotAFile { path, found }));
        assert_eq!(fs::read(&outside).unwrap(), b"mine");
    };
    fs::hard_link(&outside, place.path("journal")).unwrap();
    refused("a file with more than one hard link").await;
    fs::remove_file(place.path("journal")).unwrap();
    std::os::unix::fs::symlink(&outside, place.path("journal")).unwrap();
    refused("a symbolic link").await;
    fs::remove_file(place.path("journal")).unwrap();
    let partial = place.create(&place.storage()).await;
    place.check_completes(partial).await;
}

#[tokio::test]
async fn verification_on_resume_finds_what_is_right_whatever_the_journal_says() {
    let place = Place::new();
    place.interrupted(&[0, 1, 2, 5]).await;
    alter(&place.path("part"), CHUNK);
    let partial = place.create(&place.verifying()).await;
    assert_eq!(partial.present, set(&[0, 2, 5]));
    assert_eq!(partial.verified, partial.present);
    drop(partial);
    // The bad one is claimed no longer, with or without looking.
    let partial = place.create(&place.storage()).await;
    assert_eq!(partial.present, set(&[0, 2, 5]));
    drop(partial);

    fs::remove_file(place.path("journal")).unwrap();
    let partial = place.create(&place.verifying()).await;
    assert_eq!(partial.present, set(&[0, 2, 5]));
    partial.blob.commit(&partial.present).await.unwrap();
    drop(partial);
    let partial = place.create(&place.storage()).await;
    assert_eq!(partial.present, set(&[0, 2, 5]));
    place.check_completes(partial).await;
}

#[tokio::test]
async fn room_is_taken_at_the_start_only_when_asked() {
    for preallocate in [false, true] {
        let place = Place::new();
        let builder = FileStorage::builder(place.dir.path());
        let storage = builder.preallocate(preallocate).open().unwrap();
        let partial = place.create(&storage).await;
        let part = fs::metadata(place.path("part")).unwrap();
        assert_eq!(part.len(), place.content.len() as u64);
        let taken = part.blocks() * 512 >= part.len();
        assert_eq!(taken, preallocate);
        place.check_completes(partial).await;
    }
}

#[tokio::test]
async fn directory_that_vanished_is_an_error_that_says_where() {
    let place = Place::new();
    let storage = place.storage();
    let partial = place.create(&storage).await;
    fs::remove_dir_all(place.dir.path()).unwrap();
    let created = place.complete(partial).await.map(|_| ());
    let (Err(StorageError::Io { what, source }), dir) = (created, place.dir.path()) else {
        panic!("finished without a directory");
    };
    assert_eq!(source.kind(), ErrorKind::NotFound);
    assert!(what.contains(dir.to_str().unwrap()), "{what}");
    match place.try_create(&storage).await.map(|_| ()) {
        Err(StorageError::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::NotFound),
        other => panic!("{other:?}"),
    }
    let partial = place.create(&place.storage()).await;
    place.check_completes(partial).await;
}

/// The other process of the next test. By itself it does nothing.
#[tokio::test]
async fn holder_in_another_process() {
    let Some(dir) = std::env::var_os("BT_LITE_TEST_HOLD") else {
        return;
    };
    let place = Place::new();
    let storage = FileStorage::open(dir).unwrap();
    let partial = place.create(&storage).await;
    place.write(&partial, &set(&[0, 4])).await;
    partial.blob.commit(&set(&[0, 4])).await.unwrap();
    println!("\nheld");
    // Until the other side closes it, or ends this process.
    std::io::stdin().lines().for_each(drop);
}

#[tokio::test]
async fn content_that_another_process_writes_is_locked_until_that_is_killed() {
    let place = Place::new();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "durable::holder_in_another_process",
            "--nocapture",
        ])
        .env("BT_LITE_TEST_HOLD", place.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(holder.stdout.take().unwrap());
    assert!(output.lines().any(|line| line.unwrap() == "held"));
    let locked = place.try_create(&place.storage()).await.map(|_| ());
    let id = place.manifest.id();
    let path = Some(place.path("part"));
    assert_eq!(locked, Err(StorageError::Locked { id, path }));
    holder.kill().unwrap();
    holder.wait().unwrap();
    let partial = place.create(&place.storage()).await;
    assert_eq!(partial.present, set(&[0, 4]));
    place.check_completes(partial).await;
}

#[tokio::test]
async fn finished_content_is_offered_after_a_restart_until_it_changes() {
    let place = Place::new();
    place.finished().await;
    assert_eq!(place.offered().await, ["a"]);
    let stored = place.storage().catalogue().await.unwrap().remove(0);
    let read = stored.blob.read_at(0, place.content.len()).await;
    assert_eq!(read.unwrap(), place.content);
    // At once, and of the same length.
    alter(&place.target(), 7);
    let path = place.target();
    let changed = stored.blob.read_at(0, 1).await;
    assert_eq!(changed, Err(StorageError::Changed { path }));
    assert_eq!(place.records(), 1);
    assert!(place.offered().await.is_empty());
    assert_eq!(place.records(), 0);
    // The same bytes again are another file, as far as can be told.
    alter(&place.target(), 7);
    assert!(place.offered().await.is_empty());
}

#[tokio::test]
async fn file_that_is_gone_or_no_file_any_more_is_not_offered() {
    for replaced in [false, true] {
        let place = Place::new();
        place.finished().await;
        let aside = place.dir.path().join("aside");
        fs::rename(place.target(), &aside).unwrap();
        if replaced {
            std::os::unix::fs::symlink(&aside, place.target()).unwrap();
        }
        assert!(place.offered().await.is_empty());
        assert_eq!(fs::read(&aside).unwrap(), place.content);
    }
}

#[tokio::test]
async fn file_elsewhere_is_offered_after_a_restart_until_it_changes() {
    let (place, elsewhere) = (Place::new(), tempfile::tempdir().unwrap());
    let path = elsewhere.path().join("file");
    for at_once in [true, false] {
        fs::write(&path, &place.content).unwrap();
        if !at_once {
            let file = File::options().write(true).open(&path).unwrap();
            let past = std::time::SystemTime::UNIX_EPOCH;
            file.set_modified(past).unwrap();
        }
        let blob = open_file(&path).await.unwrap();
        place.remember(&place.storage(), "shared", blob).await;
        for _ in 0..2 {
            assert_eq!(place.offered().await, ["shared"]);
        }
        // It may have been written within one tick of the clock of files: then
        // its bytes tell.
        alter(&path, 9);
        assert!(place.offered().await.is_empty());
    }
}

#[tokio::test]
async fn content_is_offered_also_where_its_record_cannot_be_written_anew() {
    let (place, elsewhere) = (Place::new(), tempfile::tempdir().unwrap());
    let path = elsewhere.path().join("file");
    fs::write(&path, &place.content).unwrap();
    let blob = open_file(&path).await.unwrap();
    place.remember(&place.storage(), "a", blob).await;
    // Its file was just written, so it is hashed, and then to be remembered
    // as one that need not be. The record has got another name, which is not
    // the storage's to write through.
    let record = place.record().unwrap();
    fs::hard_link(&record, elsewhere.path().join("record")).unwrap();
    let before = fs::read(&record).unwrap();
    assert_eq!(place.offered().await, ["a"]);
    assert_eq!(fs::read(&record).unwrap(), before);
}

#[tokio::test]
async fn record_that_is_damaged_renamed_or_forgotten_offers_nothing() {
    let place = Place::new();
    let storage = place.finished().await;
    storage.forget(&name()).await.unwrap();
    assert_eq!(place.records(), 0);
    assert!(place.offered().await.is_empty());

    let blob = storage.open(&name()).await.unwrap();
    for damage in [
        |path: &Path| alter(path, 50),
        |path: &Path| fs::write(path, "short").unwrap(),
        |path: &Path| fs::rename(path, path.with_file_name("0".repeat(64) + ".manifest")).unwrap(),
    ] {
        place.remember(&storage, "a", blob.clone()).await;
        assert_eq!(place.offered().await, ["a"]);
        damage(&place.record().unwrap());
        assert!(place.offered().await.is_empty());
        assert_eq!(fs::read(place.target()).unwrap(), place.content);
    }
}

#[tokio::test]
async fn journal_of_a_finished_content_is_dropped_when_it_is_met() {
    let place = Place::new();
    for (by_catalogue, linked) in [(true, false), (false, false), (false, true)] {
        place.interrupted(&[0, 1, 2, 3, 4, 5]).await;
        // As if the process had been killed just after publishing, or between
        // the steps of it where there are two.
        match linked {
            true => fs::hard_link(place.path("part"), place.target()).unwrap(),
            false => fs::rename(place.path("part"), place.target()).unwrap(),
        }
        match by_catalogue {
            true => assert!(place.offered().await.is_empty()),
            false => {
                let created = place.try_create(&place.storage()).await.map(|_| ());
                assert_eq!(created, Err(place.exists()));
            }
        }
        assert!(!place.path("journal").exists());
        assert!(!place.path("part").exists());
        let found = place.storage().open(&name()).await.unwrap();
        found.sync().await.unwrap();
        fs::remove_file(place.target()).unwrap();
    }
}
