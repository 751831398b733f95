//! The bytes of a file, in pages that its copies share: the tests copy a disk
//! ten thousand times.

use std::sync::{Arc, LazyLock};

/// The unit in which a crash tears a write, in bytes.
pub(super) const PAGE: usize = 4096;

type Page = Arc<[u8; PAGE]>;

static HOLE: LazyLock<Page> = LazyLock::new(|| Arc::new([0; PAGE]));

/// The bytes of a file. Bytes that were never written are zeros.
#[derive(Debug, Clone, Default)]
pub(super) struct Blocks {
    pages: Vec<Page>,
    len: usize,
}

impl Blocks {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut blocks = Self::default();
        blocks.put(0, bytes);
        blocks
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len < self.len {
            self.pages.truncate(len.div_ceil(PAGE));
            if let (Some(last), cut @ 1..) = (self.pages.last_mut(), len % PAGE) {
                Arc::make_mut(last)[cut..].fill(0);
            }
        }
        self.pages.resize(len.div_ceil(PAGE), HOLE.clone());
        self.len = len;
    }

    pub(super) fn put(&mut self, mut at: usize, mut bytes: &[u8]) {
        if self.len < at + bytes.len() {
            self.set_len(at + bytes.len());
        }
        while !bytes.is_empty() {
            let start = at % PAGE;
            let (now, later) = bytes.split_at(bytes.len().min(PAGE - start));
            let page = &mut self.pages[at / PAGE];
            match now.try_into() {
                Ok(whole) => *page = Arc::new(whole),
                Err(_) => Arc::make_mut(page)[start..start + now.len()].copy_from_slice(now),
            }
            at += now.len();
            bytes = later;
        }
    }

    pub(super) fn read(&self, mut at: usize, len: usize) -> Option<Vec<u8>> {
        let end = at.checked_add(len).filter(|&end| end <= self.len)?;
        let mut bytes = Vec::with_capacity(len);
        while at < end {
            let start = at % PAGE;
            let now = (end - at).min(PAGE - start);
            bytes.extend_from_slice(&self.pages[at / PAGE][start..start + now]);
            at += now;
        }
        Some(bytes)
    }

    /// Whether the file has these bytes at this offset.
    pub(super) fn has(&self, mut at: usize, mut bytes: &[u8]) -> bool {
        if self.len < at + bytes.len() {
            return false;
        }
        while !bytes.is_empty() {
            let start = at % PAGE;
            let (now, later) = bytes.split_at(bytes.len().min(PAGE - start));
            if self.pages[at / PAGE][start..start + now.len()] != *now {
                return false;
            }
            at += now.len();
            bytes = later;
        }
        true
    }

    /// Whether nothing was ever written at this offset.
    pub(super) fn is_hole(&self, at: usize) -> bool {
        at >= self.len || Arc::ptr_eq(&self.pages[at / PAGE], &HOLE)
    }
}

impl PartialEq<[u8]> for Blocks {
    fn eq(&self, bytes: &[u8]) -> bool {
        self.len == bytes.len() && self.has(0, bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_behave_like_one_array(
            steps in prop::collection::vec((0usize..3 * PAGE, 0usize..2 * PAGE, any::<bool>(), 1u8..), 0..12),
        ) {
            let (mut model, mut blocks) = (Vec::new(), Blocks::default());
            for (at, len, cut, fill) in steps {
                let before = blocks.clone();
                let expected = model.clone();
                if cut {
                    model.resize(at, 0);
                    blocks.set_len(at);
                } else {
                    if model.len() < at + len {
                        model.resize(at + len, 0);
                    }
                    model[at..at + len].fill(fill);
                    blocks.put(at, &vec![fill; len]);
                }
                prop_assert!(before == expected[..]);
            }
            prop_assert!(blocks == model[..]);
            prop_assert_eq!(blocks.read(0, model.len()), Some(model.clone()));
            prop_assert_eq!(blocks.read(1, model.len()), None);
            let half = model.len() / 2;
            prop_assert!(blocks.has(half, &model[half..]));
        }
    }
}
