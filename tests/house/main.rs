//! The rules of the house that no lint can see: what the pure part may name,
//! and what the whole tree may not do. Each rule is a function over text, and
//! is proven to fire on planted lines.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod api;
mod circles;
mod defaults;
mod lexer;
mod paths;
mod purity;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

/// A breach: the line, and what is wrong with it.
type Finding = (usize, String);

/// The Rust files under these places of the project (a file, or a folder with
/// all below it), in order, with their text. A place that is not there has
/// none.
fn sources(places: &[&str]) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = places.iter().map(|place| root.join(place)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.is_file() && path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path.strip_prefix(root).unwrap().to_owned(), text));
        }
    }
    found.sort();
    found
}

/// Ends the test with all breaches, one a line.
fn expect_none(findings: Vec<(PathBuf, Finding)>) {
    let lines: Vec<String> = findings
        .into_iter()
        .map(|(path, (line, what))| format!("{}:{line}: {what}", path.display()))
        .collect();
    assert!(lines.is_empty(), "\n{}", lines.join("\n"));
}
