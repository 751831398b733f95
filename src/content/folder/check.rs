//! Whether sorted entries can be one folder, on every system.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{FolderEntry, FolderItem};
use super::error::{FolderIndexError, LinkTargetError};
use super::path::{FolderPath, MAX_PATH_LEN};
use crate::content::MAX_CONTENT_LEN;

/// Checks everything that a valid path alone does not promise.
pub(super) fn check(entries: &[FolderEntry]) -> Result<(), FolderIndexError> {
    check_order(entries)?;
    check_cases(entries)?;
    check_lengths(entries)?;
    check_symlinks(entries)
}

/// Entries come strictly one after the other, and lie only in folders.
fn check_order(entries: &[FolderEntry]) -> Result<(), FolderIndexError> {
    for pair in entries.windows(2) {
        let (previous, path) = (pair[0].path.clone(), pair[1].path.clone());
        if previous >= path {
            return Err(FolderIndexError::Order { previous, path });
        }
        // In this order, what lies in an entry comes right behind it.
        if path.is_within(&previous) {
            let within = previous;
            return Err(FolderIndexError::Within { path, within });
        }
    }
    Ok(())
}

/// No two paths, and no two folders on the way, differ only in case.
fn check_cases(entries: &[FolderEntry]) -> Result<(), FolderIndexError> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    let mut previous = None;
    for entry in entries {
        let path = &entry.path;
        for part in path.folders().chain([path.as_str()]) {
            // The folders that it shares with the entry before were looked at.
            if previous.is_some_and(|p: &FolderPath| p.folders().any(|folder| folder == part)) {
                continue;
            }
            let first = *seen.entry(folded(part)).or_insert(part);
            if first != part {
                return Err(FolderIndexError::Case {
                    first: first.to_owned(),
                    second: part.to_owned(),
                });
            }
        }
        previous = Some(path);
    }
    Ok(())
}

/// The text without the difference of upper and lower case. Going through both
/// also unites letters such as `s` and `ſ`, as file systems do.
fn folded(text: &str) -> String {
    let upper = text.chars().flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase).collect()
}

fn check_lengths(entries: &[FolderEntry]) -> Result<(), FolderIndexError> {
    let mut lengths = BTreeMap::new();
    for entry in entries {
        let FolderItem::File { id, length, .. } = entry.item else {
            continue;
        };
        let path = || entry.path.clone();
        if length > MAX_CONTENT_LEN {
            let path = path();
            return Err(FolderIndexError::FileTooLong { path, length });
        }
        if *lengths.entry(id).or_insert(length) != length {
            return Err(FolderIndexError::Lengths { path: path(), id });
        }
    }
    Ok(())
}

fn check_symlinks(entries: &[FolderEntry]) -> Result<(), FolderIndexError> {
    let is_link = |entry: &FolderEntry| matches!(entry.item, FolderItem::Symlink { .. });
    if !entries.iter().any(is_link) {
        return Ok(());
    }
    let places = Places::of(entries);
    for entry in entries {
        if let FolderItem::Symlink { target } = &entry.item {
            check_target(&entry.path, target, &places).map_err(|source| {
                FolderIndexError::Symlink {
                    path: entry.path.clone(),
                    target: target.clone(),
                    source,
                }
            })?;
        }
    }
    Ok(())
}

/// Where the target of a link may lead through.
struct Places<'a> {
    folders: BTreeSet<&'a str>,
    /// What is no folder, without the difference of upper and lower case.
    others: BTreeSet<String>,
}

impl<'a> Places<'a> {
    fn of(entries: &'a [FolderEntry]) -> Self {
        let mut places = Self {
            folders: BTreeSet::from([""]),
            others: BTreeSet::new(),
        };
        for FolderEntry { path, item } in entries {
            places.folders.extend(path.folders());
            match item {
                FolderItem::EmptyFolder => {
                    places.folders.insert(path.as_str());
                }
                _ => {
                    places.others.insert(folded(path.as_str()));
                }
            }
        }
        places
    }

    /// Whether this path is a folder, or nothing at all, on every system. Where
    /// letters are written in two ways, one that is not ASCII may mean an entry that
    /// is written in the other.
    fn is_passable(&self, path: &str) -> bool {
        let is_missing = || path.is_ascii() && !self.others.contains(&folded(path));
        self.folders.contains(path) || is_missing()
    }
}

/// Follows a target element by element. A link on the way would lead elsewhere than
/// the text says, and then a `..` behind it as well. Only the last element may be a
/// link, which is checked by itself.
fn check_target(
    link: &FolderPath,
    target: &str,
    places: &Places<'_>,
) -> Result<(), LinkTargetError> {
    if target.len() > MAX_PATH_LEN {
        return Err(LinkTargetError::TooLong { len: target.len() });
    }
    if target.starts_with('/') {
        return Err(LinkTargetError::Absolute);
    }
    let mut at: Vec<&str> = link.elements().collect();
    at.pop();
    for element in target.split('/') {
        let through = at.join("/");
        if !places.is_passable(&through) {
            return Err(LinkTargetError::Through { through });
        }
        match element {
            "." => {}
            ".." => {
                at.pop().ok_or(LinkTargetError::Outside)?;
            }
            name => {
                FolderPath::check_element(name)?;
                at.push(name);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_file_systems_unite_are_the_same() {
        for (a, b) in [
            ("A/x", "a/X"),
            ("ſ", "S"),
            ("ß", "SS"),
            ("K", "k"),
            ("Σ", "ς"),
        ] {
            assert_eq!(folded(a), folded(b), "{a} {b}");
        }
        assert_ne!(folded("a"), folded("b"));
    }
}
