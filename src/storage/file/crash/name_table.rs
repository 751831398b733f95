//! The names of the disk: what a reader sees, and what is durable.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::inode::survivors;

/// The names of a directory, each with the number of its inode.
#[derive(Debug, Clone, Default)]
pub(super) struct NameTable {
    cache: Names,
    durable: Names,
    /// What was not synced yet.
    pending: Vec<NameOp>,
}

type Names = BTreeMap<String, usize>;

#[derive(Debug, Clone)]
pub(super) enum NameOp {
    Link(String, usize),
    Rename(String, String, usize),
    Unlink(String),
}

impl NameTable {
    pub(super) fn get(&self, name: &str) -> Option<usize> {
        self.cache.get(name).copied()
    }

    /// The inode of a name that is durable.
    pub(super) fn durable(&self, name: &str) -> Option<usize> {
        self.durable.get(name).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &String> {
        self.cache.keys()
    }

    /// How many names an inode has.
    pub(super) fn count_of(&self, inode: usize) -> usize {
        self.cache.values().filter(|&&other| other == inode).count()
    }

    pub(super) fn change(&mut self, op: NameOp) {
        op.apply(&mut self.cache);
        self.pending.push(op);
    }

    /// Makes the pending operations durable. What a failed sync dropped is in
    /// the cache only, so this cannot simply copy the cache.
    pub(super) fn sync(&mut self) {
        for op in self.pending.drain(..) {
            op.apply(&mut self.durable);
        }
    }

    /// Drops the pending operations, as a failed sync does.
    pub(super) fn fail_sync(&mut self) {
        self.pending.clear();
    }

    /// Makes everything durable that a reader sees.
    pub(super) fn make_durable(&mut self) {
        self.durable = self.cache.clone();
        self.pending.clear();
    }

    /// The names after a crash; nothing if the directory itself is lost.
    pub(super) fn crashed(&self, directory_is_durable: bool, rng: &mut Rng) -> Self {
        let mut names = self.durable.clone();
        for op in survivors(&self.pending, rng) {
            op.apply(&mut names);
        }
        if !directory_is_durable && rng.bool() {
            names.clear();
        }
        Self {
            durable: names.clone(),
            cache: names,
            pending: Vec::new(),
        }
    }
}

impl NameOp {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}
