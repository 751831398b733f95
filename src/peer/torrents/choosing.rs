//! Which files of a torrent are wanted, from the first call for it until it ends.
//!
//! Before the torrent is known, only what was asked for is: it takes effect when it is. From
//! then on each change is told at once to the storage, which has the files, and to the
//! [`Choice`] that the driver follows, which has the pieces.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::TorrentError;
use super::file_choice::FileChoice;
use super::file_list::{FileKind, FileList};
use crate::peer::contents::choice::{Choice, Wanted};
use crate::storage::ChosenFiles;

/// Which files of a torrent are wanted.
pub(super) struct Choosing {
    state: Mutex<State>,
    pub(super) choice: Arc<Choice>,
}

struct State {
    /// Before the torrent is known.
    asked: Vec<(Change, FileChoice)>,
    known: Option<Known>,
    /// Whether the files of the torrent are another content as well, which has all of them.
    is_also: bool,
}

struct Known {
    list: Arc<FileList>,
    chosen: Vec<bool>,
    storage: Arc<ChosenFiles>,
}

/// What becomes of some files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// They are wanted as well.
    Select,
    /// They are not wanted any more.
    Deselect,
    /// They are wanted, and no others.
    Only,
}

impl Choosing {
    /// These files are wanted; all, if none are named.
    pub(super) fn new(files: Option<FileChoice>, is_also: bool) -> Self {
        let files = files.map(|files| (Change::Only, files));
        Self {
            state: Mutex::new(State {
                asked: files.into_iter().collect(),
                known: None,
                is_also,
            }),
            choice: Arc::new(Choice::new()),
        }
    }

    /// The torrent is asked for once more: these files are wanted as well, or all. `is_also`
    /// says whether its files are to be another content as well.
    pub(super) fn asked_again(
        &self,
        files: Option<&FileChoice>,
        is_also: bool,
    ) -> Result<(), TorrentError> {
        let mut state = self.state();
        let all = FileChoice::all();
        let files = files.unwrap_or(&all);
        if is_also && !files.is_all() {
            return Err(TorrentError::PartIsNoOther);
        }
        state.change(Change::Select, files)?;
        state.is_also |= is_also;
        state.apply(&self.choice);
        Ok(())
    }

    /// Changes what is wanted.
    pub(super) fn change(&self, change: Change, files: &FileChoice) -> Result<(), TorrentError> {
        let mut state = self.state();
        if state.is_also && change != Change::Select {
            return Err(TorrentError::PartIsNoOther);
        }
        state.change(change, files)?;
        state.apply(&self.choice);
        Ok(())
    }

    /// The torrent has these files, and lies in this storage.
    pub(super) fn known(
        &self,
        list: FileList,
        storage: &Arc<ChosenFiles>,
    ) -> Result<(), TorrentError> {
        let mut state = self.state();
        let chosen = vec![true; list.files().len()];
        state.known = Some(Known {
            list: Arc::new(list),
            chosen,
            storage: Arc::clone(storage),
        });
        let asked = std::mem::take(&mut state.asked);
        let mut any = asked.is_empty();
        let mut failed = None;
        for (change, files) in asked {
            match state.change(change, &files) {
                Ok(()) => any = true,
                Err(error) => {
                    tracing::warn!(%error, "not in the torrent");
                    if change == Change::Only {
                        // What was asked for since is wanted, and nothing else.
                        state.choose_none();
                    }
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            // What others want is there.
            Some(error) if !any => Err(error),
            _ if state.is_also && state.is_part() => Err(TorrentError::PartIsNoOther),
            _ => {
                state.apply(&self.choice);
                Ok(())
            }
        }
    }

    /// The files, once they are known, and whether each of them is wanted.
    pub(super) fn files(&self) -> Option<(Arc<FileList>, Vec<bool>)> {
        let state = self.state();
        let known = state.known.as_ref()?;
        Some((Arc::clone(&known.list), known.chosen.clone()))
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn change(&mut self, change: Change, files: &FileChoice) -> Result<(), TorrentError> {
        let Some(known) = &mut self.known else {
            // However often it is asked: what is asked for together is one.
            match self.asked.last_mut() {
                Some((last, so_far)) if *last == change && change != Change::Only => {
                    so_far.add(files.clone());
                }
                _ if change == Change::Only => self.asked = vec![(change, files.clone())],
                // All are wanted in any case.
                None if change == Change::Select => {}
                _ => self.asked.push((change, files.clone())),
            }
            return Ok(());
        };
        let meant = files.of(&known.list)?;
        for (chosen, meant) in known.chosen.iter_mut().zip(meant) {
            *chosen = match change {
                Change::Select => *chosen || meant,
                Change::Deselect => *chosen && !meant,
                Change::Only => meant,
            };
        }
        Ok(())
    }

    fn choose_none(&mut self) {
        if let Some(known) = &mut self.known {
            known.chosen.fill(false);
        }
    }

    /// Whether some file is not wanted, as far as that is known.
    fn is_part(&self) -> bool {
        match &self.known {
            None => {
                let is_all = |is_all, (change, files): &(Change, FileChoice)| match change {
                    Change::Select => is_all || files.is_all(),
                    Change::Deselect => false,
                    Change::Only => files.is_all(),
                };
                !self.asked.iter().fold(true, is_all)
            }
            Some(known) => !known.is_all(),
        }
    }

    /// Tells the storage and the driver.
    fn apply(&self, choice: &Choice) {
        let Some(known) = &self.known else {
            return;
        };
        let (list, chosen) = (&known.list, &known.chosen);
        if known.is_all() {
            known.storage.set(None);
            return choice.set(Wanted::All);
        }
        let of_kind = |kind| list.of_kind(kind, chosen);
        let (files, links) = (of_kind(FileKind::Data), of_kind(FileKind::Link));
        let is_any = files.iter().chain(&links).any(|chosen| *chosen);
        known.storage.set(Some((files, links)));
        choice.set(match is_any {
            true => Wanted::Part(list.pieces_of(chosen)),
            false => Wanted::Nothing(list.none()),
        });
    }
}

impl Known {
    /// Whether all files are wanted. Padding counts for nothing.
    fn is_all(&self) -> bool {
        let mut files = self.list.files().iter().zip(&self.chosen);
        files.all(|(file, chosen)| *chosen || file.kind == FileKind::Padding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bittorrent::{Metainfo, MetainfoBuilder, MetainfoFormat};
    use crate::content::Geometry;

    /// Three files, with padding between them.
    fn metainfo() -> Metainfo {
        let builder = MetainfoBuilder::folder("f").expect("a name");
        let builder = ["a", "b", "c"].into_iter().fold(builder, |builder, path| {
            builder.add(path.parse().expect("a path"), 5)
        });
        let builder = builder.format(MetainfoFormat::Hybrid);
        let torrent = builder.build(|_| Ok(&b"hello"[..]));
        torrent.expect("a torrent")
    }

    fn list() -> FileList {
        let metainfo = metainfo();
        let piece_len = u64::from(metainfo.piece_length());
        let geometry = Geometry::of_torrent(metainfo.total_length(), piece_len);
        FileList::new(&metainfo, geometry.expect("a geometry"))
    }

    fn known(choosing: &Choosing) -> Result<(), TorrentError> {
        choosing.known(list(), &Arc::default())
    }

    /// The files that are wanted.
    fn wanted(choosing: &Choosing) -> Vec<String> {
        let (list, chosen) = choosing.files().expect("they are known");
        let files = list.files().iter().zip(chosen);
        let files = files.filter(|(file, chosen)| *chosen && file.kind == FileKind::Data);
        files.map(|(file, _)| file.path.to_string()).collect()
    }

    fn of(path: &str) -> FileChoice {
        FileChoice::none().path(path)
    }

    #[test]
    fn what_was_wanted_at_first_and_is_not_there_leaves_what_was_asked_for_since() {
        let choosing = Choosing::new(Some(of("x")), false);
        choosing
            .asked_again(Some(&of("b")), false)
            .expect("not known yet");
        assert_eq!(known(&choosing), Ok(()));
        assert_eq!(wanted(&choosing), ["b"]);
    }

    #[test]
    fn whole_torrent_stays_whole_whatever_is_asked_for_before_it_is_known() {
        let choosing = Choosing::new(None, false);
        choosing
            .asked_again(Some(&of("x")), false)
            .expect("not known yet");
        // All are wanted: what else is does not matter, not even whether it is there.
        assert_eq!(known(&choosing), Ok(()));
        assert_eq!(wanted(&choosing), ["a", "b", "c"]);
    }

    #[test]
    fn calls_of_one_kind_are_put_together_before_the_torrent_is_known() {
        let begun = || Choosing::new(Some(of("a")), false);
        let choosing = begun();
        for files in [of("b"), FileChoice::all()] {
            choosing
                .change(Change::Select, &files)
                .expect("not known yet");
        }
        assert_eq!(known(&choosing), Ok(()));
        assert_eq!(wanted(&choosing), ["a", "b", "c"]);
        // One path that is none is told of those that were put together.
        let choosing = begun();
        for files in [of("b"), of("../b")] {
            choosing
                .change(Change::Select, &files)
                .expect("not known yet");
        }
        assert_eq!(known(&choosing), Ok(()));
        assert_eq!(wanted(&choosing), ["a"]);
    }

    #[test]
    fn part_of_a_torrent_is_no_other_content_as_well() {
        let refused = Err(TorrentError::PartIsNoOther);
        let choosing = Choosing::new(Some(of("a")), false);
        assert_eq!(choosing.asked_again(Some(&of("b")), true), refused);
        assert_eq!(known(&choosing), Ok(()));
        assert_eq!(choosing.asked_again(Some(&of("b")), true), refused);
        assert_eq!(wanted(&choosing), ["a"]);
        assert_eq!(choosing.asked_again(None, true), Ok(()));
        assert_eq!(choosing.change(Change::Deselect, &of("b")), refused);
        assert_eq!(wanted(&choosing), ["a", "b", "c"]);
    }

    #[test]
    fn padding_cannot_be_chosen() {
        let choosing = Choosing::new(None, false);
        assert_eq!(known(&choosing), Ok(()));
        let list = list();
        let padding = list
            .files()
            .iter()
            .find(|file| file.kind == FileKind::Padding);
        let path = padding.expect("there is some").path.clone();
        let refused = choosing.change(Change::Only, &of(path.as_str()));
        assert_eq!(refused, Err(TorrentError::NoSuchPath { path }));
    }
}
