//! How much memory a piece of work takes beyond what was in use before.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The most memory that work on an input may take at a time: so many bytes for each byte of
/// the input, and so many more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) each: usize,
    pub(crate) more: usize,
}

impl Bound {
    pub(crate) const fn new(each: usize, more: usize) -> Self {
        Self { each, more }
    }

    /// Does the work on an input of `len` bytes.
    ///
    /// # Panics
    /// If it takes more.
    pub(crate) fn of<T>(self, len: usize, work: impl FnOnce() -> T) -> T {
        ALLOCATOR.reset_peak_usage();
        let before = ALLOCATOR.current_usage();
        let value = work();
        let peak = ALLOCATOR.peak_usage().saturating_sub(before);
        let Self { each, more } = self;
        assert!(
            peak <= len * each + more,
            "{peak} bytes of memory for {len} bytes of input: more than {each} each and {more}"
        );
        value
    }
}
