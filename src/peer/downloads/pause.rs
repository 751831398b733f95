//! How a download is paused.

/// What goes on while a download is paused; see
/// [`Download::pause`](crate::Download::pause).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PauseOptions {
    /// Whether other peers still get what is here. Without that, this peer has no links
    /// for the content, and trackers do not list it.
    pub serve: bool,
}

impl PauseOptions {
    /// Other peers are still served.
    pub const fn new() -> Self {
        Self { serve: true }
    }

    /// Sets whether other peers still get what is here.
    #[must_use]
    pub const fn serve(mut self, serve: bool) -> Self {
        self.serve = serve;
        self
    }
}

impl Default for PauseOptions {
    fn default() -> Self {
        Self::new()
    }
}
