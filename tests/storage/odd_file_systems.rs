//! Real processes on file systems that lack something. `strace` makes the system
//! calls fail; without it these tests say so and do nothing, and the tests on a
//! simulated disk in `src/storage/file/crash` remain.

use std::fs;
use std::path::Path;
use std::process::Command;

use bt_lite::{FileStorage, Manifest, Storage, StorageError};
use bytes::Bytes;

const ROLE: &str = "BT_LITE_TEST_ODD_FILE_SYSTEM";
const RENAMES: &str = "inject=renameat2:error=";
const LINKS: &str = "inject=link,linkat:error=";

/// Stores a content in a directory, in a process in which the system calls fail that
/// `strace` is told to let fail. Returns what the process says; nothing if there is no
/// `strace` that works.
fn store(dir: &Path, failing: &[String]) -> Option<String> {
    let works = Command::new("strace").args(["-qq", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no strace that works");
        return None;
    }
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null"]);
    for failing in failing {
        traced.args(["-e", failing]);
    }
    let program = std::env::current_exe().unwrap();
    let output = traced
        .arg(program)
        .args([
            "--exact",
            "odd_file_systems::storing_process",
            "--nocapture",
        ])
        .env(ROLE, dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("1 passed"), "{text}");
    Some(text)
}

fn content(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
    bytes.into()
}

async fn store_here(dir: &Path, bytes: &Bytes) -> Result<(), StorageError> {
    let storage = FileStorage::open(dir)?;
    let manifest = Manifest::of(bytes).unwrap();
    let name = "content".parse().unwrap();
    let partial = storage.create(&name, &manifest).await?;
    println!("began");
    partial.blob.write_at(0, vec![bytes.clone()]).await?;
    partial.blob.finish().await
}

/// The body of the other process.
#[tokio::test]
async fn storing_process() {
    let Some(dir) = std::env::var_os(ROLE) else {
        return;
    };
    for len in [100_000, 1000] {
        let (dir, bytes) = (Path::new(&dir).join(len.to_string()), content(len));
        match store_here(&dir, &bytes).await {
            Ok(()) => println!("stored"),
            Err(error) => println!("refused: {error}"),
        }
    }
}

/// The names in a directory below this one.
fn names(dir: &Path, len: usize) -> Vec<String> {
    let entries = fs::read_dir(dir.join(len.to_string())).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    entries.map(|e| name(e).into_string().unwrap()).collect()
}

#[test]
fn content_is_published_where_there_is_no_safe_rename_and_no_second_name() {
    for (rename, link) in [
        ("EPERM", None),
        ("EINVAL", None),
        ("ENOSYS", Some("EPERM")),
        ("EINVAL", Some("EOPNOTSUPP")),
        ("EPERM", Some("EACCES")),
    ] {
        let root = tempfile::tempdir().unwrap();
        let mut failing = vec![format!("{RENAMES}{rename}")];
        failing.extend(link.map(|link| format!("{LINKS}{link}")));
        let Some(said) = store(root.path(), &failing) else {
            return;
        };
        assert_eq!(said.matches("stored").count(), 2, "{failing:?}: {said}");
        for len in [100_000, 1000] {
            assert_eq!(names(root.path(), len), ["content"], "{failing:?}");
            let stored = fs::read(root.path().join(format!("{len}/content")));
            assert_eq!(stored.unwrap(), content(len));
        }
    }
}

#[test]
fn directory_in_which_nothing_can_be_renamed_is_refused_before_the_first_byte() {
    let root = tempfile::tempdir().unwrap();
    let failing = [
        format!("{RENAMES}EPERM"),
        format!("{LINKS}EPERM"),
        "inject=rename,renameat:error=EPERM".to_owned(),
    ];
    let Some(said) = store(root.path(), &failing) else {
        return;
    };
    assert_eq!(said.matches("refused: renaming ").count(), 2, "{said}");
    // The short one is prepared in memory.
    assert_eq!(said.matches("began").count(), 1, "{said}");
    for len in [100_000, 1000] {
        assert_eq!(names(root.path(), len), [""; 0]);
    }
}

#[test]
fn directory_without_locks_is_refused_and_nothing_is_left_behind() {
    for error in ["ENOLCK", "ENOSYS", "EOPNOTSUPP"] {
        let root = tempfile::tempdir().unwrap();
        let Some(said) = store(root.path(), &[format!("inject=flock:error={error}")]) else {
            return;
        };
        let refused = said.matches("refused: files cannot be locked in ").count();
        assert_eq!(refused, 2, "{error}: {said}");
        for len in [100_000, 1000] {
            assert_eq!(names(root.path(), len), [""; 0], "{error}");
        }
    }
}
