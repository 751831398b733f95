//! Types that are saved as text, and checked when they are loaded.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::content::{ContentId, ContentName, FolderPath};
use crate::protocol::{Addr, Zone};
use crate::transport::PeerIdentity;

macro_rules! as_text {
    ($($type:ty),+) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    )+};
}

as_text!(Addr, ContentId, ContentName, FolderPath, PeerIdentity, Zone);

/// A duration as people write it: `20s`, `1m 30s`.
pub(crate) struct DurationText(Duration);

impl Serialize for DurationText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = DurationText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit, such as \"20s\" or \"1m 30s\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<DurationText, E> {
                let wrong = |error| E::custom(format_args!("invalid duration {text:?}: {error}"));
                let duration = humantime::parse_duration(text).map_err(wrong)?;
                Ok(DurationText(duration))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// What consists of durations, and how it is saved.
pub(crate) trait Durations: Copy {
    type Saved: Serialize + for<'de> Deserialize<'de>;

    fn saved(self) -> Self::Saved;

    fn loaded(saved: Self::Saved) -> Self;
}

impl Durations for Duration {
    type Saved = DurationText;

    fn saved(self) -> DurationText {
        DurationText(self)
    }

    fn loaded(saved: DurationText) -> Self {
        saved.0
    }
}

impl Durations for Option<Duration> {
    type Saved = Option<DurationText>;

    fn saved(self) -> Option<DurationText> {
        self.map(DurationText)
    }

    fn loaded(saved: Option<DurationText>) -> Self {
        saved.map(|text| text.0)
    }
}

impl Durations for (Duration, Duration) {
    type Saved = (DurationText, DurationText);

    fn saved(self) -> (DurationText, DurationText) {
        (DurationText(self.0), DurationText(self.1))
    }

    fn loaded((first, second): (DurationText, DurationText)) -> Self {
        (first.0, second.0)
    }
}

/// Fields that are durations.
pub(crate) mod duration {
    use super::{Deserialize, Deserializer, Durations, Serialize, Serializer};

    pub(crate) fn serialize<T: Durations, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.saved().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Durations, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        T::Saved::deserialize(deserializer).map(T::loaded)
    }
}

/// Fields that are a limit in bytes or bytes per second, if there is one: the same for the
/// bytes.
pub(crate) mod rate {
    use super::{Deserialize, Deserializer, Serialize, Serializer, bytes};

    /// A number of bytes, as [`bytes`] loads it.
    struct Rate(u64);

    impl<'de> Deserialize<'de> for Rate {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            bytes::deserialize(deserializer).map(Self)
        }
    }

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u64>, D::Error> {
        let rate = Option::<Rate>::deserialize(deserializer)?;
        Ok(rate.map(|Rate(rate)| rate))
    }
}

/// Fields that count bytes: saved as a number, loaded from a number or from text such as
/// `64 MiB`.
pub(crate) mod bytes {
    use bytesize::ByteSize;

    use super::{Deserializer, Error, Serializer, Visitor, fmt};

    pub(crate) fn serialize<T: Copy + TryInto<u64>, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64((*value).try_into().unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, T: TryFrom<u64>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let bytes = deserializer.deserialize_any(Bytes)?;
        let wrong = |_| D::Error::custom(format_args!("invalid number of bytes {bytes}"));
        T::try_from(bytes).map_err(wrong)
    }

    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes, such as 65536 or \"64 MiB\"")
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
            Ok(bytes)
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
            let wrong = |_| E::custom(format_args!("invalid number of bytes {bytes}"));
            u64::try_from(bytes).map_err(wrong)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            let wrong = |error: String| {
                E::custom(format_args!("invalid number of bytes {text:?}: {error}"))
            };
            let bytes = text.parse::<ByteSize>().map_err(wrong)?.0;
            // What does not fit comes out of the parser as the largest number.
            if bytes == u64::MAX && text.parse::<u64>().is_err() {
                return Err(wrong("it does not fit 64 bits".to_owned()));
            }
            Ok(bytes)
        }
    }
}
