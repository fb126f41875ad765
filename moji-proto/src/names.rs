//! Names that came from outside: each is checked in its one constructor, so that nothing behind it
//! has to check again, and none of them can name a file outside the folder it is used in.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name of any kind, in bytes: `NAME_MAX` of Linux file systems.
pub const NAME_MAX: usize = 255;

/// Why a text is not a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {kind}: {reason}")]
pub struct NameError {
    text: String,
    kind: &'static str,
    reason: &'static str,
}

impl NameError {
    fn new(text: &str, kind: &'static str, reason: &'static str) -> Self {
        // What is quoted came from outside and may be long.
        Self { text: text.chars().take(80).collect(), kind, reason }
    }
}

/// The rules that all names share: one path component that is no option, not hidden and printable.
fn check(text: &str, kind: &'static str, max: usize) -> Result<(), NameError> {
    let refuse = |reason| Err(NameError::new(text, kind, reason));
    if text.is_empty() {
        return refuse("it is empty");
    }
    if text.len() > max {
        return refuse("it is too long");
    }
    if text.starts_with(['.', '-']) {
        return refuse("it starts with a dot or a dash");
    }
    if text.contains(['/', '\\']) {
        return refuse("it has a path separator");
    }
    if text.chars().any(|c| c.is_control() || is_invisible(c)) {
        return refuse("it has a control or an invisible character");
    }
    Ok(())
}

/// Characters that no terminal or page shows but that reorder or hide what stands beside them
/// (Unicode Technical Report 36, bidirectional and zero-width characters; line separators).
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// For names that a person or a program types: letters, digits and `._+~^-` (what RPM allows in
/// names and versions), and `@` and `:` nowhere.
fn check_plain(text: &str, kind: &'static str, max: usize) -> Result<(), NameError> {
    check(text, kind, max)?;
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "._+~^-".contains(c)) {
        Ok(())
    } else {
        Err(NameError::new(text, kind, "only letters, digits and . _ + ~ ^ - are allowed"))
    }
}

// A name of a long queue is in many places: it is shared, not copied.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text`.
            ///
            /// # Errors
            /// When `text` breaks a rule that the type's description gives.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                let check: fn(&str, &'static str) -> Result<(), NameError> = $check;
                check(&text, $kind)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<std::path::Path> for $name {
            fn as_ref(&self) -> &std::path::Path {
                self.as_str().as_ref()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// The file name of an SRPM: one path component that ends in `.src.rpm`, in RPM's characters.
    SrpmName, "the file name of an SRPM", |text, kind| {
        check_plain(text, kind, NAME_MAX)?;
        match text.strip_suffix(".src.rpm") {
            Some(stem) if !stem.is_empty() => Ok(()),
            _ => Err(NameError::new(text, kind, "it does not end in .src.rpm")),
        }
    }
}

name! {
    /// Name, version and release of an SRPM, `name-version-release`, as its header says.
    Nvr, "an NVR", |text, kind| {
        check_plain(text, kind, NAME_MAX)?;
        let mut parts = text.rsplitn(3, '-');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(r), Some(v), Some(n)) if !r.is_empty() && !v.is_empty() && !n.is_empty() => Ok(()),
            _ => Err(NameError::new(text, kind, "it is not name-version-release")),
        }
    }
}

name! {
    /// The file name of one artifact: a harmless path component that is an RPM (`.rpm`) or a text
    /// that Mock or one of its plugins leaves in the result directory (`.log`, `.txt`, `.json`,
    /// `.spec`, `.cfg`, or one of these compressed).
    ArtifactName, "an artifact's file name", |text, kind| {
        check(text, kind, NAME_MAX)?;
        let plain = [".gz", ".xz", ".zst", ".bz2"].iter().find_map(|c| text.strip_suffix(c)).unwrap_or(text);
        let known = [".log", ".txt", ".json", ".spec", ".cfg"];
        if [RESERVED_ARTIFACT, REFUSED_RECORD].contains(&text) {
            Err(NameError::new(text, kind, "the server writes that one itself"))
        } else if text.ends_with(".rpm") || known.iter().any(|k| plain.ends_with(k)) {
            Ok(())
        } else {
            Err(NameError::new(text, kind, "it is neither an RPM nor a known kind of log"))
        }
    }
}

/// The file in which the server describes a build, beside its artifacts.
pub const RESERVED_ARTIFACT: &str = "build.json";

/// The file in which the server says why it has refused results, beside them.
pub const REFUSED_RECORD: &str = "refused.json";

name! {
    /// The name of a builder, by default its host name; at most 128 bytes of RPM's characters.
    BuilderName, "a builder's name", |text, kind| check_plain(text, kind, 128)
}

name! {
    /// The name of a credential; at most 128 bytes of RPM's characters.
    CredentialName, "a credential's name", |text, kind| check_plain(text, kind, 128)
}

name! {
    /// What to build for: the name of a Mock config without `.cfg`, `fedora-43-aarch64`; at most
    /// 128 bytes of RPM's characters.
    TargetName, "a target's name", |text, kind| check_plain(text, kind, 128)
}

name! {
    /// What the owner of a builder says of it, `big` or `fast-disk`, for SRPMs that ask for it; at most
    /// 64 bytes of RPM's characters.
    Tag, "a tag", |text, kind| check_plain(text, kind, 64)
}

impl SrpmName {
    /// The name without `.src.rpm`: what an honest file name says the NVR is.
    pub fn stem(&self) -> &str {
        self.0.strip_suffix(".src.rpm").unwrap_or(&self.0)
    }
}

impl ArtifactName {
    /// Whether it is an RPM, source or binary.
    pub fn is_rpm(&self) -> bool {
        self.0.ends_with(".rpm")
    }
}

/// One try of a build on one builder. Never used again, not even by a server that was restarted:
/// `boot` is drawn at random when the server starts, `serial` counts from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// Random number of the server run that gave the id out.
    pub boot: u64,
    /// Counts the attempts of that run.
    pub serial: u64,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.boot, self.serial)
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AttemptId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parse = || {
            let (boot, serial) = text.split_once('-')?;
            let id = Self { boot: u64::from_str_radix(boot, 16).ok()?, serial: serial.parse().ok()? };
            // One id has one text: no signs, no missing or additional zeros.
            (id.to_string() == text).then_some(id)
        };
        parse().ok_or_else(|| {
            NameError::new(text, "an attempt's id", "it is not 16 hex digits, a dash and a number")
        })
    }
}

impl Serialize for AttemptId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { (self.boot, self.serial).serialize(to) }
    }
}

impl<'de> Deserialize<'de> for AttemptId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            let text = String::deserialize(from)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            let (boot, serial) = Deserialize::deserialize(from)?;
            Ok(Self { boot, serial })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing of this may become a file name, whatever it is meant to be.
    const HOSTILE: [&str; 17] = [
        "",
        ".",
        "..",
        "/",
        "a/b.rpm",
        "../x.rpm",
        "..\\x.rpm",
        ".hidden.rpm",
        "-rf.rpm",
        "a\0.rpm",
        "a\n.rpm",
        "\u{1b}[2J.rpm",
        "a\u{202e}mpr.rpm",
        "a\u{200b}.rpm",
        "a\r.log",
        "\u{7f}.log",
        "a\u{85}.log",
    ];

    #[test]
    fn no_name_leaves_its_folder_or_reaches_a_terminal() {
        let long = format!("{}.rpm", "x".repeat(NAME_MAX));
        for text in HOSTILE.into_iter().chain([long.as_str()]) {
            assert!(ArtifactName::new(text).is_err(), "artifact {text:?}");
            assert!(SrpmName::new(text).is_err(), "SRPM {text:?}");
            assert!(Nvr::new(text).is_err(), "NVR {text:?}");
            assert!(BuilderName::new(text).is_err(), "builder {text:?}");
            assert!(TargetName::new(text).is_err(), "target {text:?}");
            assert!(CredentialName::new(text).is_err(), "credential {text:?}");
            assert!(Tag::new(text).is_err(), "tag {text:?}");
        }
    }

    #[test]
    fn srpms() {
        assert_eq!(SrpmName::new("gtk+3.0-3.0~rc1-1.fc43.src.rpm").unwrap().stem(), "gtk+3.0-3.0~rc1-1.fc43");
        for text in [".src.rpm", "a.rpm", "a.src.rpm ", "a b.src.rpm", "ä.src.rpm", "{{x}}.src.rpm"] {
            assert!(SrpmName::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nvrs() {
        assert!(Nvr::new("a-b-1.0-2.fc43").is_ok());
        for text in ["a", "a-1", "-1-2", "a--1", "a-1-"] {
            assert!(Nvr::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn artifacts_are_what_mock_and_its_plugins_leave() {
        for text in [
            "a-1-1.x86_64.rpm",
            "a-1-1.src.rpm",
            "build.log",
            "installed_pkgs.log",
            "expanded-spec.txt",
            "buildroot_lock.json",
            "build.log.gz",
            "hw_info.log",
            "dnf log of Tuesday.log",
        ] {
            assert!(ArtifactName::new(text).is_ok(), "{text}");
        }
        for text in ["build.json", "index.html", "a.rpm.part", "core", "x.so", "repomd.xml", "a.gz"] {
            assert!(ArtifactName::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn attempt_ids_have_one_text_each() {
        let id = AttemptId { boot: 0xabc, serial: 17 };
        assert_eq!(id.to_string(), "0000000000000abc-17");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "-", "abc-17", "0000000000000abc-017", "0000000000000abc-+17", "0000000000000ABC-17"]
        {
            assert!(text.parse::<AttemptId>().is_err(), "{text}");
        }
    }
}
