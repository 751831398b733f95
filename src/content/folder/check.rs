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
///
/// In the order of their folded texts, all that lies in one folder lies together, however its
/// name is written. So if it is written in two ways, two neighbours do so. One text is kept for
/// each entry, however many folders are on the way to it.
fn check_cases(entries: &[FolderEntry]) -> Result<(), FolderIndexError> {
    // The separator comes before whatever a name may have.
    let folded = entries
        .iter()
        .map(|entry| folded(entry.path.as_str()).replace('/', "\0"));
    let mut folded: Vec<(String, usize)> = folded.zip(0..).collect();
    folded.sort_unstable();
    for pair in folded.windows(2) {
        let [(one, at), (other, other_at)] = pair else {
            continue;
        };
        let both = one.split('\0').zip(other.split('\0'));
        let common = both.take_while(|(one, other)| one == other).count();
        let first = &entries[*at.min(other_at)].path;
        let second = &entries[*at.max(other_at)].path;
        let mut ways = first.ways().zip(second.ways()).take(common);
        if let Some((first, second)) = ways.find(|(first, second)| first != second) {
            return Err(FolderIndexError::Case {
                first: first.to_owned(),
                second: second.to_owned(),
            });
        }
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
    use proptest::prelude::*;

    use super::*;

    fn entries(paths: &[String]) -> Vec<FolderEntry> {
        let paths: BTreeSet<FolderPath> = paths.iter().map(|path| path.parse().unwrap()).collect();
        let folder = |path| FolderEntry {
            path,
            item: FolderItem::EmptyFolder,
        };
        paths.into_iter().map(folder).collect()
    }

    /// The same, with all that is on the way.
    fn differ_in_case(entries: &[FolderEntry]) -> bool {
        let mut seen = BTreeMap::new();
        let mut all = entries.iter().flat_map(|entry| entry.path.ways());
        all.any(|way| *seen.entry(folded(way)).or_insert(way) != way)
    }

    proptest! {
        #[test]
        fn cases_differ_if_anything_on_the_way_to_two_entries_does(
            paths in prop::collection::vec("[aAbBſsS-](/[aAbBſsS-]){0,3}", 0..8),
        ) {
            let entries = entries(&paths);
            let checked = check_cases(&entries);
            prop_assert_eq!(checked.is_err(), differ_in_case(&entries), "{:?}", checked);
            if let Err(FolderIndexError::Case { first, second }) = checked {
                prop_assert_ne!(&first, &second);
                prop_assert_eq!(folded(&first), folded(&second));
            }
        }
    }

    /// What is kept for an entry does not depend on how many folders are on the way.
    #[test]
    fn deep_entries_that_have_nothing_in_common_are_checked() {
        let deep = |name: usize| format!("{name}/{}", ["x"; 60].join("/"));
        let mut paths: Vec<String> = (0..1000).map(deep).collect();
        assert_eq!(check_cases(&entries(&paths)), Ok(()));
        paths.push(deep(7).replace('x', "X"));
        assert!(check_cases(&entries(&paths)).is_err());
    }

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
