//! Which files of a torrent are meant.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::error::TorrentError;
use super::file_list::FileList;
use crate::bittorrent::{Magnet, MagnetError, magnet};
use crate::content::{FolderPath, FolderPathError};

/// Some of the files of a torrent: by their numbers, which are their places in
/// [`Metainfo::files`](crate::bittorrent::Metainfo::files), and by their paths. What is named
/// several times counts once. Padding may be named, and is never fetched for itself.
///
/// As text it is as in magnet links (BEP 53):
///
/// ```
/// use bt_lite::bittorrent::FileChoice;
///
/// let choice: FileChoice = "0,2-4".parse()?;
/// assert_eq!(choice, FileChoice::none().file(0).files(2..=4));
/// # Ok::<(), bt_lite::bittorrent::MagnetError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileChoice {
    is_all: bool,
    numbers: Vec<RangeInclusive<usize>>,
    paths: Vec<FolderPath>,
    /// The first text that was no path, and why not.
    wrong: Option<FolderPathError>,
}

impl FileChoice {
    /// All files.
    pub fn all() -> Self {
        Self {
            is_all: true,
            ..Self::default()
        }
    }

    /// No file. A torrent of which none is wanted waits until one is.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds the file of this number.
    #[must_use]
    pub fn file(self, number: usize) -> Self {
        self.files(number..=number)
    }

    /// Adds the files of these numbers.
    #[must_use]
    pub fn files(mut self, numbers: RangeInclusive<usize>) -> Self {
        self.numbers.push(numbers);
        self
    }

    /// Adds a file or folder of the torrent: a [`FolderPath`] within its folder, or text, in
    /// which a slash may follow. If it is not a path, whoever takes the choice says
    /// [`TorrentError::Path`].
    #[must_use]
    pub fn path<P>(mut self, path: P) -> Self
    where
        P: TryInto<FolderPath> + fmt::Display,
        P::Error: Into<FolderPathError>,
    {
        match FolderPath::named(path) {
            Ok(path) => self.paths.push(path),
            Err((_, source)) => self.wrong = self.wrong.or(Some(source)),
        }
        self
    }

    /// Whether it means all files, whatever files there are.
    pub(super) fn is_all(&self) -> bool {
        self.is_all
    }

    /// Adds all that another choice means.
    pub(super) fn add(&mut self, other: Self) {
        self.is_all |= other.is_all;
        self.numbers.extend(other.numbers);
        self.paths.extend(other.paths);
        self.wrong = self.wrong.take().or(other.wrong);
    }

    /// Whether each of these files is meant. O(files times paths).
    ///
    /// # Errors
    /// What is named and is not there.
    pub(super) fn of(&self, list: &FileList) -> Result<Vec<bool>, TorrentError> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone().into());
        }
        let count = list.files().len();
        let mut chosen = vec![self.is_all; count];
        // How many ranges begin and end there: there may be many, over each other.
        let mut depths = vec![0_i64; count + 1];
        for range in &self.numbers {
            if range.is_empty() {
                continue;
            }
            if *range.end() >= count {
                let file = *range.end();
                return Err(TorrentError::NoSuchFile { file, files: count });
            }
            depths[*range.start()] += 1;
            depths[range.end() + 1] -= 1;
        }
        let mut depth = 0;
        for (chosen, change) in chosen.iter_mut().zip(depths) {
            depth += change;
            *chosen |= depth > 0;
        }
        for path in &self.paths {
            let mut any = false;
            let files = list.files().iter().zip(&mut chosen);
            for (_, chosen) in files.filter(|(file, _)| file.is_within(path)) {
                *chosen = true;
                any = true;
            }
            if !any {
                return Err(TorrentError::NoSuchPath { path: path.clone() });
            }
        }
        Ok(chosen)
    }
}

impl FromStr for FileChoice {
    type Err = MagnetError;

    /// Reads numbers and ranges with commas between them, such as `0,2-4`.
    fn from_str(text: &str) -> Result<Self, MagnetError> {
        let ranges = magnet::selection(text)?.into_iter();
        let numbers = ranges.map(|range| *range.start() as usize..=*range.end() as usize);
        Ok(Self {
            numbers: numbers.collect(),
            ..Self::default()
        })
    }
}

impl Magnet {
    /// The files that the link [selects](Self::selected), if it selects any.
    pub fn choice(&self) -> Option<FileChoice> {
        let ranges = self.selected.as_ref()?.iter();
        let numbers = ranges.map(|range| *range.start() as usize..=*range.end() as usize);
        Some(FileChoice {
            numbers: numbers.collect(),
            ..FileChoice::default()
        })
    }
}
