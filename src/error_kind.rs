//! Stable names of errors, for programs and for logs that machines read.

use crate::error::{ConfigError, DownloadError, ReaderError, RemoveError, ShareError, StartError};
#[cfg(feature = "file-storage")]
use crate::peer::FolderError;
use crate::storage::StorageError;
#[cfg(feature = "redis")]
use crate::tracker::StoreError;
use crate::tracker::{BindError, TrackerError};
use crate::transport::{AuthError, TransportError};

/// The stable name of an error: its variant in lower case with underscores, which
/// does not change when its text does.
///
/// With the feature `serde` an error is saved as
/// `{"kind":"storage","cause":"full","message":"…","advice":"ask_user"}`, without `cause`
/// if it has none.
///
/// ```
/// use bt_lite::{DownloadError, ErrorKind, StorageError};
///
/// let error = DownloadError::Storage {
///     id: bt_lite::ContentId::of(b"film"),
///     chunk: None,
///     source: StorageError::ReadOnly,
/// };
/// assert_eq!((error.kind(), error.cause_kind()), ("storage", Some("read_only")));
/// ```
pub trait ErrorKind {
    /// The name of the error among those of its type.
    fn kind(&self) -> &'static str;

    /// The name of its cause, if the cause is an error that has one.
    fn cause_kind(&self) -> Option<&'static str> {
        None
    }
}

macro_rules! kinds {
    ($error:ty { $($(#[$only:meta])? $variant:ident => $kind:literal),+ $(,)? }
     causes { $($(#[$if:meta])? $cause:pat => $source:ident),* $(,)? }) => {
        impl ErrorKind for $error {
            fn kind(&self) -> &'static str {
                match self {
                    $($(#[$only])? Self::$variant { .. } => $kind,)+
                }
            }

            fn cause_kind(&self) -> Option<&'static str> {
                match self {
                    $($(#[$if])? $cause => Some($source.kind()),)*
                    #[allow(unreachable_patterns, reason = "all may have causes")]
                    _ => None,
                }
            }
        }
    };
}

kinds!(ConfigError {
    Addr => "addr",
    Advertise => "advertise",
    Id => "id",
    Zero => "zero",
    OutOfRange => "out_of_range",
} causes { Self::Advertise { source, .. } => source });

kinds!(StartError {
    Config => "config",
    Listen => "listen",
    Tracker => "tracker",
    Storage => "storage",
    Entropy => "entropy",
    ShutDown => "shut_down",
} causes {
    Self::Config(source) => source,
    Self::Listen { source, .. } => source,
    Self::Tracker(source) => source,
    Self::Storage(source) => source,
});

kinds!(ShareError {
    Name => "name",
    Storage => "storage",
    Content => "content",
    Reader => "reader",
    LengthDiffers => "length_differs",
    HashDiffers => "hash_differs",
    TooManyNames => "too_many_names",
    Downloading => "downloading",
    Tracker => "tracker",
    ShutDown => "shut_down",
} causes {
    Self::Storage(source) => source,
    Self::Tracker(source) => source,
});

kinds!(DownloadError {
    Id => "id",
    Name => "name",
    Config => "config",
    Owner => "owner",
    NotFound => "not_found",
    Ambiguous => "ambiguous",
    NoOwners => "no_owners",
    GaveUp => "gave_up",
    NoTracker => "no_tracker",
    Tracker => "tracker",
    TargetExists => "target_exists",
    Directory => "directory",
    Existing => "existing",
    TooLarge => "too_large",
    Writer => "writer",
    Storage => "storage",
    NotWanted => "not_wanted",
    #[cfg(feature = "bittorrent")] Torrent => "torrent",
    Cancelled => "cancelled",
    ShutDown => "shut_down",
} causes {
    Self::Config(source) => source,
    Self::Owner { source, .. } => source,
    Self::NoTracker { source, .. } => source,
    Self::Tracker(source) => source,
    Self::Directory { source, .. } | Self::Existing { source, .. } => source,
    Self::Storage { source, .. } => source,
});

kinds!(ReaderError {
    Unknown => "unknown",
    NotHere => "not_here",
    Passing => "passing",
    Storage => "storage",
    ShutDown => "shut_down",
} causes { Self::Storage { source, .. } => source });

kinds!(RemoveError {
    Unknown => "unknown",
    NotHere => "not_here",
    Downloading => "downloading",
    Folder => "folder",
    ShutDown => "shut_down",
} causes {});

#[cfg(feature = "file-storage")]
kinds!(FolderError {
    Unsupported => "unsupported",
    Name => "name",
    Index => "index",
    Path => "path",
    NoSuchPath => "no_such_path",
    TargetExists => "target_exists",
    AlreadyHere => "already_here",
    File => "file",
    Download => "download",
    Share => "share",
    Storage => "storage",
} causes {
    Self::File { source, .. } | Self::Download(source) => source,
    Self::Share(source) => source,
    Self::Storage(source) => source,
});

kinds!(StorageError {
    Unsupported => "unsupported",
    NotADirectory => "not_a_directory",
    Exists => "exists",
    Locked => "locked",
    NotFound => "not_found",
    Reserved => "reserved",
    UnsafeName => "unsafe_name",
    OutOfBounds => "out_of_bounds",
    NotAFile => "not_a_file",
    WrongLength => "wrong_length",
    NoLocks => "no_locks",
    ReadOnly => "read_only",
    Tampered => "tampered",
    Changed => "changed",
    Altered => "altered",
    Mismatch => "mismatch",
    Full => "full",
    Io => "io",
} causes {});

kinds!(TransportError {
    Address => "address",
    Io => "io",
    FrameTooLarge => "frame_too_large",
    Truncated => "truncated",
    FrameTimeout => "frame_timeout",
    SpeaksTls => "speaks_tls",
    Auth => "auth",
    Closed => "closed",
} causes { Self::Auth(source) => source });

kinds!(AuthError {
    Missing => "missing",
    NotTls => "not_tls",
    UnknownKey => "unknown_key",
    UnknownAuthority => "unknown_authority",
    AuthorityExpired => "authority_expired",
    Expired => "expired",
    NotYetValid => "not_yet_valid",
    WrongUse => "wrong_use",
    ChainTooLarge => "chain_too_large",
    ChainAmbiguous => "chain_ambiguous",
    Revoked => "revoked",
    WrongSecret => "wrong_secret",
    Refused => "refused",
    Handshake => "handshake",
    TimedOut => "timed_out",
} causes {});

kinds!(TrackerError {
    Unreachable => "unreachable",
    TimedOut => "timed_out",
    Refused => "refused",
    Protocol => "protocol",
    Unexpected => "unexpected",
    Ambiguous => "ambiguous",
    NotFound => "not_found",
    NoTracker => "no_tracker",
    Invalid => "invalid",
    TooManyContents => "too_many_contents",
    TooManyNames => "too_many_names",
    Closed => "closed",
} causes { Self::Unreachable { source, .. } => source });

kinds!(BindError {
    Config => "config",
    Listen => "listen",
    Entropy => "entropy",
    #[cfg(feature = "redis")]
    Store => "store",
} causes {
    Self::Config(source) => source,
    Self::Listen { source, .. } => source,
    #[cfg(feature = "redis")]
    Self::Store(source) => source,
});

#[cfg(feature = "redis")]
kinds!(StoreError {
    Unreachable => "unreachable",
    ReadOnly => "read_only",
    Full => "full",
    Schema => "schema",
    Key => "key",
} causes {});
