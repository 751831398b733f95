//! The names of contents, and their validation.

use std::borrow::Borrow;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use super::ContentId;

/// The maximum length of a name, in bytes of UTF-8. All common file systems
/// accept this length.
pub const MAX_NAME_LEN: usize = 255;

/// The name of a content.
///
/// It has 1 to [`MAX_NAME_LEN`] bytes of UTF-8, without path separators (`/`,
/// `\`), NUL or other control characters, and is neither `.` nor `..`. So a name
/// is always a plain file name and never a path.
///
/// ```
/// use bt_lite::{ContentName, NameError};
///
/// let name: ContentName = "ubuntu.iso".parse()?;
/// assert_eq!(name.as_str(), "ubuntu.iso");
/// assert_eq!("..".parse::<ContentName>(), Err(NameError::Dots));
/// # Ok::<(), NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentName(Arc<str>);

/// Why a text is not a valid [`ContentName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty.
    #[error("a content name must not be empty")]
    Empty,
    /// The text is longer than [`MAX_NAME_LEN`] bytes.
    #[error("a content name can have at most {MAX_NAME_LEN} bytes, not {len}")]
    TooLong {
        /// The length of the text in bytes.
        len: usize,
    },
    /// The text is `.` or `..`, which mean directories.
    #[error("a content name must not be `.` or `..`")]
    Dots,
    /// The text contains a path separator, NUL, or another control character.
    #[error("a content name must not contain {found:?}")]
    Character {
        /// The first such character.
        found: char,
    },
    /// The bytes are not UTF-8.
    #[error("a content name must be UTF-8")]
    Encoding,
}

/// Why a name is not safe as a file name; see
/// [`ContentName::check_file_name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum UnsafeName {
    /// A character with a special meaning in a Windows path: `C:evil` is a file
    /// on another drive, and `a:b` a stream of the file `a`.
    #[error("{found:?} has a special meaning in a Windows path")]
    Character {
        /// The first such character.
        found: char,
    },
    /// The name of a device on Windows, with any extension.
    #[error("it is the name of a device on Windows")]
    Device,
    /// White space at the start or the end, or a dot at the end. Windows removes
    /// some of these, so that the name refers to another file; and people do not
    /// see them.
    #[error("it starts or ends with {found:?}")]
    Edge {
        /// The character.
        found: char,
    },
    /// A character that is invisible, or that changes the order in which others
    /// are displayed. The name differs from the name that people read.
    #[error("it contains the invisible character {found:?}")]
    Invisible {
        /// The first such character.
        found: char,
    },
    /// A dot at the start. It hides a file on Unix, and many programs read
    /// their settings from files with such names.
    #[error("a dot at the start hides the file")]
    Hidden,
}

/// The characters with a special meaning in a Windows path, except the
/// separators.
const SPECIAL: [char; 7] = ['<', '>', ':', '"', '|', '?', '*'];

/// The names of devices on Windows, except the numbered ones.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];
const NUMBERED_DEVICES: [&str; 2] = ["COM", "LPT"];
/// The numbers of such devices. Windows accepts the superscript digits of ISO
/// 8859-1 as well.
const DEVICE_NUMBERS: [char; 13] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '\u{b9}', '\u{b2}', '\u{b3}',
];

/// The ranges of invisible characters, in order. These are the characters of the
/// general category Cf (format, including the bidi controls), the characters with
/// the property `Default_Ignorable_Code_Point` except the variation selectors
/// (which choose the shape of the character before them, and occur in emoji), and
/// the line and paragraph separators. From `DerivedGeneralCategory.txt` and
/// `DerivedCoreProperties.txt` of Unicode 16.0.
const INVISIBLE: [(char, char); 25] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e00ff}'),
    ('\u{e01f0}', '\u{e0fff}'),
];

impl ContentName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks that this name is safe as a file name on every system. A storage
    /// that keeps files should require this of names that strangers may have
    /// chosen. A name is not safe if it
    ///
    /// - has another meaning on Windows: it contains one of `< > : " | ? *` (a
    ///   drive, a stream, a wildcard), or is a device (`NUL`, `com1.txt`);
    /// - starts or ends with white space, or ends with a dot;
    /// - contains an invisible character, or one that reorders others, so that
    ///   `gpj.exe` is displayed as `exe.jpg`;
    /// - starts with a dot.
    ///
    /// Different letters that look the same are not detected.
    ///
    /// The sources are Microsoft's [Naming Files, Paths, and Namespaces], the
    /// Unicode Standard Annex 9 ([Unicode Bidirectional Algorithm]) and the
    /// Unicode Technical Report 36 ([Unicode Security Considerations]).
    ///
    /// ```
    /// use bt_lite::ContentName;
    /// use bt_lite::content::UnsafeName;
    ///
    /// let check = |name: &str| name.parse::<ContentName>().unwrap().check_file_name();
    /// assert_eq!(check("ubuntu.iso"), Ok(()));
    /// assert_eq!(check(".bash_profile"), Err(UnsafeName::Hidden));
    /// assert_eq!(check("C:evil"), Err(UnsafeName::Character { found: ':' }));
    /// ```
    ///
    /// # Errors
    /// [`UnsafeName`]: the first of the above conditions that is met.
    ///
    /// [Naming Files, Paths, and Namespaces]: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
    /// [Unicode Bidirectional Algorithm]: https://www.unicode.org/reports/tr9/
    /// [Unicode Security Considerations]: https://www.unicode.org/reports/tr36/
    pub fn check_file_name(&self) -> Result<(), UnsafeName> {
        let name = self.as_str();
        if let Some(found) = name.chars().find(|c| SPECIAL.contains(c)) {
            return Err(UnsafeName::Character { found });
        }
        if is_device(name) {
            return Err(UnsafeName::Device);
        }
        let first = name.chars().next().filter(|c| c.is_whitespace());
        let last = name.chars().next_back();
        let last = last.filter(|&c| c.is_whitespace() || c == '.');
        if let Some(found) = first.or(last) {
            return Err(UnsafeName::Edge { found });
        }
        if let Some(found) = name.chars().find(|&c| is_invisible(c)) {
            return Err(UnsafeName::Invisible { found });
        }
        match name.starts_with('.') {
            true => Err(UnsafeName::Hidden),
            false => Ok(()),
        }
    }

    fn check(text: &str) -> Result<(), NameError> {
        match text {
            "" => return Err(NameError::Empty),
            "." | ".." => return Err(NameError::Dots),
            _ => {}
        }
        if text.len() > MAX_NAME_LEN {
            return Err(NameError::TooLong { len: text.len() });
        }
        match text
            .chars()
            .find(|&c| c == '/' || c == '\\' || c.is_control())
        {
            Some(found) => Err(NameError::Character { found }),
            None => Ok(()),
        }
    }
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end_matches(' ');
    let stem = stem.to_ascii_uppercase();
    let numbered = NUMBERED_DEVICES
        .into_iter()
        .find_map(|device| stem.strip_prefix(device));
    let mut number = numbered.unwrap_or_default().chars();
    match (number.next(), number.next()) {
        (Some(number), None) => DEVICE_NUMBERS.contains(&number),
        _ => DEVICES.contains(&&*stem),
    }
}

fn is_invisible(c: char) -> bool {
    let after = INVISIBLE.partition_point(|&(first, _)| first <= c);
    after > 0 && c <= INVISIBLE[after - 1].1
}

/// The default name of a content: the 64 hexadecimal digits of its id.
impl From<ContentId> for ContentName {
    fn from(id: ContentId) -> Self {
        Self(id.to_string().into())
    }
}

impl FromStr for ContentName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }
}

impl TryFrom<&str> for ContentName {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<String> for ContentName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<&String> for ContentName {
    type Error = NameError;

    fn try_from(text: &String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<&ContentName> for ContentName {
    type Error = NameError;

    fn try_from(name: &ContentName) -> Result<Self, NameError> {
        Ok(name.clone())
    }
}

/// Lets a function take a [`ContentName`] as it takes text.
impl From<Infallible> for NameError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl TryFrom<&[u8]> for ContentName {
    type Error = NameError;

    fn try_from(bytes: &[u8]) -> Result<Self, NameError> {
        std::str::from_utf8(bytes)
            .map_err(|_| NameError::Encoding)?
            .parse()
    }
}

impl AsRef<str> for ContentName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ContentName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ContentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_at_each_limit_is_accepted_or_refused() {
        for good in [
            "a",
            "...",
            "a b",
            "ubuntu-26.04.iso",
            ".hidden",
            "文件",
            "a:b",
        ] {
            assert_eq!(good.parse::<ContentName>().unwrap().as_str(), good);
        }
        assert!("x".repeat(MAX_NAME_LEN).parse::<ContentName>().is_ok());
        assert_eq!(
            "x".repeat(MAX_NAME_LEN + 1).parse::<ContentName>(),
            Err(NameError::TooLong { len: 256 })
        );
        let id = ContentId::of(b"x");
        assert_eq!(id.to_string().parse(), Ok(ContentName::from(id)));
        assert_eq!("".parse::<ContentName>(), Err(NameError::Empty));
        for dots in [".", ".."] {
            assert_eq!(dots.parse::<ContentName>(), Err(NameError::Dots));
        }
        for found in ['/', '\\', '\0', '\n', '\u{7f}', '\u{85}'] {
            assert_eq!(
                format!("a{found}b").parse::<ContentName>(),
                Err(NameError::Character { found })
            );
        }
        assert_eq!(
            ContentName::try_from(&[0xff, 0xfe][..]),
            Err(NameError::Encoding)
        );
    }

    fn unsafe_as_a_file(name: &str) -> Option<UnsafeName> {
        let name: ContentName = name.parse().unwrap();
        name.check_file_name().err()
    }

    #[test]
    fn name_that_is_what_it_seems_is_safe() {
        for safe in [
            "a",
            "a.b",
            "ubuntu-26.04.iso",
            "no extension",
            "a..b",
            "naïve 文件 файл ملف",
            "❤\u{fe0f}.png",
            "console.log",
            "com.txt",
            "com10",
            "comx",
            "nuls",
            "x.nul",
            "lpt-1",
            "$a#b%c&d'e(f)g+h,i;j=k@l[m]n^o`p{q}r~s!",
            &"x".repeat(MAX_NAME_LEN),
        ] {
            assert_eq!(unsafe_as_a_file(safe), None, "{safe:?}");
        }
    }

    #[test]
    fn name_with_a_special_meaning_on_windows_is_unsafe() {
        for found in SPECIAL {
            for name in [
                format!("a{found}b"),
                format!("{found}"),
                format!(".{found} "),
            ] {
                let expected = UnsafeName::Character { found };
                assert_eq!(unsafe_as_a_file(&name), Some(expected), "{name:?}");
            }
        }
        let numbered = NUMBERED_DEVICES
            .iter()
            .flat_map(|device| DEVICE_NUMBERS.map(|number| format!("{device}{number}")));
        for device in DEVICES.map(String::from).into_iter().chain(numbered) {
            for name in [
                device.clone(),
                device.to_lowercase(),
                format!("{device}.txt"),
                format!("{device}.tar.gz"),
                format!("{device} .txt"),
                format!("{device}."),
                format!("{device} "),
            ] {
                assert_eq!(
                    unsafe_as_a_file(&name),
                    Some(UnsafeName::Device),
                    "{name:?}"
                );
            }
        }
        for (name, found) in [
            ("a.", '.'),
            ("a ", ' '),
            (" a", ' '),
            (" ", ' '),
            ("...", '.'),
            ("a. ", ' '),
            ("\u{a0}a", '\u{a0}'),
            ("a\u{3000}", '\u{3000}'),
        ] {
            assert_eq!(unsafe_as_a_file(name), Some(UnsafeName::Edge { found }));
        }
    }

    #[test]
    fn hidden_name_and_invisible_character_are_unsafe() {
        for name in [".bash_profile", ".a.b", "..a"] {
            assert_eq!(unsafe_as_a_file(name), Some(UnsafeName::Hidden));
        }
        // From the lists of Unicode: the bidi controls, the characters without
        // width, and those that are displayed as nothing.
        let hidden = [
            '\u{ad}', '\u{34f}', '\u{61c}', '\u{115f}', '\u{180e}', '\u{3164}',
        ]
        .into_iter()
        .chain('\u{200b}'..='\u{200f}')
        .chain('\u{202a}'..='\u{202e}')
        .chain('\u{2060}'..='\u{2069}')
        .chain(['\u{feff}', '\u{ffa0}', '\u{fff9}', '\u{e0001}', '\u{e007f}']);
        for found in hidden {
            let name = format!("a{found}gpj.exe");
            assert_eq!(
                unsafe_as_a_file(&name),
                Some(UnsafeName::Invisible { found })
            );
        }
        let visible = [
            '\u{ac}', '\u{ae}', '\u{606}', '\u{2027}', '\u{2070}', '\u{fffd}',
        ];
        for seen in visible {
            assert_eq!(unsafe_as_a_file(&format!("a{seen}b")), None);
        }
        assert!(INVISIBLE.is_sorted());
        assert!(INVISIBLE.iter().all(|(first, last)| first <= last));
    }
}
