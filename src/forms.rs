//! How errors, and a few other values, are saved for machines to read.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

use crate::error::{ConfigError, DownloadError, ReaderError, RemoveError, ShareError, StartError};
use crate::error_kind::ErrorKind;
#[cfg(feature = "file-storage")]
use crate::peer::FolderError;
use crate::protocol::PeerId;
use crate::storage::{FilePoolStats, StorageError};
#[cfg(feature = "redis")]
use crate::tracker::StoreError;
use crate::tracker::{BindError, TrackerError};
use crate::transport::{AuthError, TransportError};

/// An error as it is saved.
#[derive(serde::Serialize)]
struct ErrorForm {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    message: String,
    advice: crate::Advice,
}

macro_rules! error_forms {
    ($($error:ty),+ $(,)?) => {$(
        impl Serialize for $error {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let form = ErrorForm {
                    kind: self.kind(),
                    cause: self.cause_kind(),
                    message: self.to_string(),
                    advice: self.advice(),
                };
                form.serialize(serializer)
            }
        }
    )+};
}

error_forms!(
    AuthError,
    BindError,
    ConfigError,
    DownloadError,
    ReaderError,
    RemoveError,
    ShareError,
    StartError,
    StorageError,
    TrackerError,
    TransportError,
);

#[cfg(feature = "file-storage")]
error_forms!(FolderError);
#[cfg(feature = "redis")]
error_forms!(StoreError);

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let wrong = || D::Error::custom(format_args!("{text:?} is not 32 hexadecimal digits"));
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| digits);
        number
            .map(|number| Self(number.to_be_bytes()))
            .ok_or_else(wrong)
    }
}

/// [`FilePoolStats`] as it is saved.
#[derive(serde::Serialize, serde::Deserialize)]
struct FilePoolForm {
    open: usize,
    max_open: usize,
    waiting: usize,
}

impl Serialize for FilePoolStats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            open,
            max_open,
            waiting,
        } = *self;
        let form = FilePoolForm {
            open,
            max_open,
            waiting,
        };
        form.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FilePoolStats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let FilePoolForm {
            open,
            max_open,
            waiting,
        } = Deserialize::deserialize(deserializer)?;
        Ok(Self {
            open,
            max_open,
            waiting,
        })
    }
}
