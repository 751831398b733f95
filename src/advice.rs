//! What a program can do about an error.

/// Gives an error that has an `advice` the question that programs ask most.
macro_rules! is_transient {
    ($error:ident) => {
        impl $error {
            /// Whether the same call may succeed later although nobody changes anything
            /// here: whether its [advice](Self::advice) is
            /// [`Advice::Retry`](crate::Advice::Retry).
            pub fn is_transient(&self) -> bool {
                matches!(self.advice(), crate::Advice::Retry)
            }
        }
    };
}

/// What a program can do about an error. Each error that a call of this crate fails with
/// has a method `advice`, which goes by these rules, and `is_transient`, which is whether
/// the advice is [`Retry`](Self::Retry):
///
/// ```
/// use bt_lite::{Advice, DownloadError, DownloadKey, Peer};
///
/// async fn fetch(peer: &Peer, name: &str) -> Result<(), DownloadError> {
///     loop {
///         let Err(error) = peer.download(DownloadKey::name(name)).await else {
///             return Ok(());
///         };
///         match error.advice() {
///             Advice::Retry => tokio::time::sleep(std::time::Duration::from_secs(10)).await,
///             Advice::AskUser | Advice::GiveUp => return Err(error),
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Advice {
    /// The same call may succeed later although nobody changes anything here: something
    /// is down, busy or full elsewhere, or is not there yet. Call again after a pause.
    Retry,
    /// The same call fails until somebody changes something here: an argument, the
    /// configuration, a file, a permission, the space on a disk. Show the error.
    AskUser,
    /// The program ended this itself, or made a call that can never succeed. There is
    /// nobody to ask and nothing to wait for.
    GiveUp,
}

impl std::fmt::Display for Advice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Retry => "retry",
            Self::AskUser => "ask the user",
            Self::GiveUp => "give up",
        })
    }
}
