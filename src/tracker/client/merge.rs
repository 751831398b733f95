//! Merges the answers of several trackers into one.

use std::collections::{BTreeMap, HashMap};

use super::error::TrackerError;
use crate::content::ContentId;
use crate::protocol::{ContentKey, Found, ListedOwner, Refusal};

/// The answers of trackers to one NEED.
#[derive(Debug)]
pub(super) struct Answers {
    key: ContentKey,
    found: Vec<Found>,
    ambiguous: BTreeMap<ContentId, u64>,
    unknown: bool,
    error: Option<TrackerError>,
}

impl Answers {
    pub(super) fn new(key: ContentKey) -> Self {
        Self {
            key,
            found: Vec::new(),
            ambiguous: BTreeMap::new(),
            unknown: false,
            error: None,
        }
    }

    pub(super) fn add(&mut self, answer: Result<Found, TrackerError>) {
        match answer {
            // It is not an answer to what was asked.
            Ok(found) if matches!(self.key, ContentKey::Id(id) if id != found.id) => {}
            Ok(found) => self.found.push(found),
            Err(TrackerError::Ambiguous { candidates }) => self.ambiguous.extend(candidates),
            Err(TrackerError::Refused {
                refusal: Refusal::UnknownContent,
                ..
            }) => self.unknown = true,
            // The first one; and one that may pass before one that stays.
            Err(error) => match &self.error {
                Some(first) if first.is_temporary() || !error.is_temporary() => {}
                _ => self.error = Some(error),
            },
        }
    }

    /// Whether the caller can start with these answers.
    pub(super) fn are_useful(&self) -> bool {
        !self.ambiguous.is_empty() || self.found.iter().any(|found| !found.owners.is_empty())
    }

    /// Merges the answers: takes one owner from each in turn, each address once.
    pub(super) fn merge(mut self, max_owners: usize) -> Result<Found, TrackerError> {
        let several = self.found.iter().any(|found| found.id != self.found[0].id);
        if several || !self.ambiguous.is_empty() {
            let found = self.found.iter().map(|found| (found.id, found.length));
            self.ambiguous.extend(found);
            return Err(TrackerError::Ambiguous {
                candidates: self.ambiguous.into_iter().collect(),
            });
        }
        // The first ones of each list are merged in turns, so that they come first again.
        let importers = self.found.iter().filter_map(|found| found.importers).max();
        let lists: Vec<Vec<ListedOwner>> = self
            .found
            .iter_mut()
            .map(|found| std::mem::take(&mut found.owners))
            .collect();
        let Some(mut merged) = self.found.into_iter().next() else {
            return Err(match self.error {
                _ if self.unknown => TrackerError::NotFound,
                Some(error) => error,
                None => TrackerError::NotFound,
            });
        };
        let mut places = HashMap::new();
        let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
        for turn in 0..longest {
            for owner in lists.iter().filter_map(|list| list.get(turn)) {
                if let Some(&place) = places.get(&owner.addr) {
                    let known: &mut ListedOwner = &mut merged.owners[place];
                    known.complete |= owner.complete;
                } else if merged.owners.len() < max_owners {
                    places.insert(owner.addr.clone(), merged.owners.len());
                    merged.owners.push(owner.clone());
                }
            }
        }
        let most = merged.owners.len() as u16;
        merged.importers = importers.map(|importers| importers.min(most));
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnerRef;

    fn id(number: u8) -> ContentId {
        ContentId::from_bytes([number; 32])
    }

    fn found(number: u8, owners: &[&str]) -> Result<Found, TrackerError> {
        let owners = owners.iter().map(|addr| ListedOwner {
            owner: OwnerRef(1),
            addr: addr.parse().unwrap(),
            complete: false,
        });
        Ok(Found {
            id: id(number),
            name: "name".parse().unwrap(),
            length: number.into(),
            owners: owners.collect(),
            importers: None,
        })
    }

    fn unknown() -> Result<Found, TrackerError> {
        Err(TrackerError::Refused {
            tracker: "memory:t".parse().unwrap(),
            refusal: Refusal::UnknownContent,
        })
    }

    fn merged(
        answers: Vec<Result<Found, TrackerError>>,
        max_owners: usize,
    ) -> Result<Vec<String>, TrackerError> {
        let mut all = Answers::new(ContentKey::Name("name".parse().unwrap()));
        answers.into_iter().for_each(|answer| all.add(answer));
        let owners = all.merge(max_owners)?.owners.into_iter();
        Ok(owners.map(|owner| owner.addr.to_string()).collect())
    }

    #[test]
    fn owners_are_taken_in_turns_and_each_once() {
        let answers = || vec![found(1, &["a", "b", "c"]), found(1, &["b", "d"])];
        assert_eq!(merged(answers(), 9).unwrap(), ["a", "b", "d", "c"]);
        assert_eq!(merged(answers(), 2).unwrap(), ["a", "b"]);
    }

    #[test]
    fn several_ids_are_ambiguous() {
        let candidates = vec![(id(1), 1), (id(2), 2), (id(3), 3)];
        let ambiguous = Err(TrackerError::Ambiguous {
            candidates: vec![(id(3), 3), (id(2), 2)],
        });
        assert_eq!(
            merged(vec![found(1, &["a"]), ambiguous], 9),
            Err(TrackerError::Ambiguous { candidates })
        );
        let answers = vec![found(2, &[]), found(1, &["a"])];
        let candidates = vec![(id(1), 1), (id(2), 2)];
        assert_eq!(
            merged(answers, 9),
            Err(TrackerError::Ambiguous { candidates })
        );
    }

    #[test]
    fn error_of_one_tracker_counts_only_when_no_other_answers() {
        let timed_out = || {
            Err(TrackerError::TimedOut {
                tracker: "memory:t".parse().unwrap(),
            })
        };
        assert_eq!(
            merged(vec![timed_out(), found(1, &["a"])], 9).unwrap(),
            ["a"]
        );
        let answers = vec![timed_out(), unknown()];
        assert_eq!(merged(answers, 9), Err(TrackerError::NotFound));
        assert_eq!(
            merged(vec![timed_out()], 9),
            timed_out().map(|_: Found| Vec::new())
        );
    }

    #[test]
    fn answer_about_another_id_is_ignored() {
        let mut answers = Answers::new(id(1).into());
        answers.add(found(2, &["a"]));
        assert!(!answers.are_useful());
        assert_eq!(answers.merge(9), Err(TrackerError::NotFound));
    }
}
