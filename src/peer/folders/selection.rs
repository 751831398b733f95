//! What is wanted of a folder.

use crate::content::{FolderIndex, FolderPath};

/// The paths that are wanted of a folder, with all that is within them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selection {
    /// `None` if all of it is wanted.
    paths: Option<Vec<FolderPath>>,
    /// Whether nothing can be added any more.
    sealed: bool,
}

impl Selection {
    /// These paths; all, if there are none.
    pub(super) fn new(paths: Vec<FolderPath>) -> Self {
        Self {
            paths: Some(paths).filter(|paths| !paths.is_empty()),
            sealed: false,
        }
    }

    /// Adds paths, or all if there are none. Returns `false` if it is too late.
    pub(super) fn add(&mut self, more: &[FolderPath]) -> bool {
        if self.covers(more) {
            return true;
        }
        if self.sealed {
            return false;
        }
        match (&mut self.paths, more) {
            (paths, []) => *paths = None,
            (None, _) => {}
            (Some(paths), more) => {
                for path in more {
                    if !paths.contains(path) {
                        paths.push(path.clone());
                    }
                }
            }
        }
        true
    }

    pub(super) fn seal(&mut self) {
        self.sealed = true;
    }

    /// The paths; none if all is wanted.
    pub(super) fn paths(&self) -> &[FolderPath] {
        self.paths.as_deref().unwrap_or_default()
    }

    /// The part of the folder that is wanted.
    ///
    /// # Errors
    /// The first path at which the folder has nothing.
    pub(super) fn of(&self, whole: &FolderIndex) -> Result<FolderIndex, FolderPath> {
        match &self.paths {
            None => Ok(whole.clone()),
            Some(paths) => whole.select(paths),
        }
    }

    /// Leaves out the paths at which the folder has nothing, unless there are no others.
    /// Returns them.
    pub(super) fn leave_out_missing(&mut self, whole: &FolderIndex) -> Vec<FolderPath> {
        let Some(paths) = &mut self.paths else {
            return Vec::new();
        };
        let is_there = |path: &FolderPath| whole.has(path);
        let (there, missing): (Vec<_>, Vec<_>) = paths.iter().cloned().partition(is_there);
        if there.is_empty() {
            return Vec::new();
        }
        *paths = there;
        missing
    }

    /// Whether all of this is wanted already.
    fn covers(&self, more: &[FolderPath]) -> bool {
        match &self.paths {
            None => true,
            Some(_) if more.is_empty() => false,
            Some(paths) => more
                .iter()
                .all(|path| paths.iter().any(|wanted| path.is_within(wanted))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{ContentId, FolderEntry};

    #[test]
    fn paths_that_the_folder_lacks_are_left_out_unless_all_are() {
        let paths = |texts: &[&str]| -> Vec<FolderPath> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let id = ContentId::of(b"");
        let files = paths(&["a", "b/c"]).into_iter();
        let whole = files.map(|path| FolderEntry::file(path, id, 0)).collect();
        let whole = FolderIndex::new(whole).unwrap();
        for (wanted, left, missing) in [
            (
                &["b", "x", "a", "b/d"][..],
                &["b", "a"][..],
                &["x", "b/d"][..],
            ),
            (&["x"], &["x"], &[]),
            (&[], &[], &[]),
        ] {
            let mut selection = Selection::new(paths(wanted));
            assert_eq!(selection.leave_out_missing(&whole), paths(missing));
            assert_eq!(selection.paths(), paths(left));
        }
    }

    #[test]
    fn what_both_want_is_wanted_until_it_is_sealed() {
        let paths = |texts: &[&str]| -> Vec<FolderPath> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let mut wanted = Selection::new(paths(&["a", "b/c"]));
        assert!(wanted.add(&paths(&["d", "a/x"])));
        assert_eq!(wanted.paths(), paths(&["a", "b/c", "d", "a/x"]));
        wanted.seal();
        assert!(wanted.add(&paths(&["b/c/e", "d"])));
        assert!(!wanted.add(&paths(&["b"])) && !wanted.add(&[]));
        let mut wanted = Selection::new(paths(&["a"]));
        assert!(wanted.add(&[]));
        assert_eq!(wanted, Selection::new(Vec::new()));
        wanted.seal();
        assert!(wanted.add(&paths(&["x"])) && wanted.paths().is_empty());
    }
}
