//! Runs all targets over the corpus, and over inputs that are made up from it.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bt_lite_fuzz::{TARGETS, Target};

/// How many inputs are made up for each target. `FUZZ_INPUTS` sets another number.
const INPUTS: usize = 2000;

/// A script of a machine takes so many times as long as anything else.
const SLOW: &[(&str, usize)] = &[
    ("hash_trees", 40),
    ("links", 4),
    ("manifests", 8),
    ("metadata", 4),
    ("registry", 20),
    ("swarm", 40),
];

/// The longest input that is made up, in bytes.
const MAX_LEN: usize = 1024;

/// The memory of the whole process is measured, so one target runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of what is in a folder, without their endings.
fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into();
    paths.map(stem).collect()
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(root().join("corpus").join(target)).expect("a corpus");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = paths
        .map(|path| (path.clone(), fs::read(path).expect("a file")))
        .collect();
    files.sort();
    files
}

fn run((name, body): Target, input: &[u8], from: &str) {
    if catch_unwind(AssertUnwindSafe(|| body(input))).is_err() {
        panic!("{name} fails, {from}, with {}", input.escape_ascii());
    }
}

/// Bytes that are often of a meaning.
const TELLING: &[u8] = b"\0\x01\x7f\x80\xff0:de/";

/// An input like one of these, or like two of them.
fn made_up(rng: &mut fastrand::Rng, corpus: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let len = 1 << rng.u32(0..8);
    let mut input: Vec<u8> = match corpus.is_empty() || rng.u8(..) < 32 {
        true => (0..rng.usize(..len)).map(|_| rng.u8(..)).collect(),
        false => corpus[rng.usize(..corpus.len())].1.clone(),
    };
    for _ in 0..rng.u32(0..6) {
        let at = rng.usize(..=input.len());
        let byte = match rng.bool() {
            true => TELLING[rng.usize(..TELLING.len())],
            false => rng.u8(..),
        };
        match rng.u8(..6) {
            0 => input.insert(at, byte),
            1 => input.truncate(at),
            2 if !corpus.is_empty() => {
                let other = &corpus[rng.usize(..corpus.len())].1;
                input.truncate(at);
                input.extend(&other[rng.usize(..=other.len())..]);
            }
            _ if at == input.len() => {}
            3 => drop(input.remove(at)),
            4 => input[at] ^= 1 << rng.u8(..8),
            _ => input[at] = byte,
        }
    }
    input.truncate(MAX_LEN.max(corpus.iter().map(|(_, file)| file.len()).max().unwrap_or(0)));
    input
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let _alone = alone();
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
    let manifest = include_str!("../Cargo.toml");
    for target in &targets {
        let program = format!("fuzz_targets/{target}.rs");
        assert!(manifest.contains(&program), "{target}");
        let text = fs::read_to_string(root().join(&program)).expect("a program");
        assert!(
            text.contains(&format!("bt_lite_fuzz::{target}(data)")),
            "{target}"
        );
        assert!(!corpus(target).is_empty(), "{target}");
    }
}

#[test]
fn corpus_is_small() {
    let _alone = alone();
    let files = TARGETS.iter().flat_map(|(name, _)| corpus(name));
    let bytes: usize = files.map(|(_, file)| file.len()).sum();
    assert!(bytes <= 500 << 10, "{bytes}");
}

#[test]
fn corpus_breaks_no_promise() {
    let _alone = alone();
    for target in TARGETS {
        run(*target, b"", "empty");
        for (path, input) in corpus(target.0) {
            run(*target, &input, &path.display().to_string());
        }
    }
}

#[test]
fn made_up_inputs_break_no_promise() {
    let _alone = alone();
    let seed = std::env::var("FUZZ_SEED").ok();
    let seed: u64 = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    let inputs = std::env::var("FUZZ_INPUTS").ok();
    let inputs = inputs.map_or(INPUTS, |inputs| inputs.parse().expect("a number"));
    for target in TARGETS {
        let corpus = corpus(target.0);
        let slow = SLOW.iter().find(|(name, _)| *name == target.0);
        let inputs = inputs / slow.map_or(1, |(_, times)| *times);
        let mut rng = fastrand::Rng::with_seed(seed);
        for n in 0..inputs {
            let input = made_up(&mut rng, &corpus);
            run(*target, &input, &format!("FUZZ_SEED={seed}, input {n}"));
        }
    }
}
