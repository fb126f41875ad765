//! From the path of a URL to a path below a folder, and back.
//!
//! Pure. A path that leads out, to something hidden, or that no file can have is none; whether something
//! is there, and whether a link is on the way, is found out when it is opened.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Most bytes of a path: the kernel takes no more either.
const PATH_MAX: usize = 4096;

/// What a URL names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Below the folder; empty: the folder itself.
    pub(super) path: PathBuf,
    /// Whether it ends like a folder.
    pub(super) is_folder: bool,
}

/// What the rest of a URL's path names below a folder. `..` is taken as browsers, dnf and httpd take it:
/// before anything is looked up.
pub(super) fn named(rest: &str) -> Option<Named> {
    if rest.len() > PATH_MAX {
        return None;
    }
    let mut parts = Vec::new();
    let mut is_folder = true;
    for part in rest.split('/') {
        let part = decoded(part)?;
        is_folder = matches!(part.as_slice(), b"" | b"." | b"..");
        match part.as_slice() {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            [b'.', ..] => return None,
            name if name.contains(&b'/') || name.contains(&0) => return None,
            _ => parts.push(part),
        }
    }
    let path = parts.iter().map(|part| Path::new(OsStr::from_bytes(part))).collect();
    Some(Named { path, is_folder })
}

fn decoded(part: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut decoded) = (part.bytes(), Vec::with_capacity(part.len()));
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit =
                    || char::from(bytes.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit()? * 16 + digit()?
            }
            byte => byte,
        });
    }
    Some(decoded)
}

/// A name as part of a URL.
pub(crate) fn encoded(name: &[u8]) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'+' => {
                encoded.push(char::from(*byte));
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_stay_below_and_nothing_hidden_is_named() {
        let path = |rest: &str| named(rest).map(|named| (named.path.display().to_string(), named.is_folder));
        let found = |path: &str, is_folder| Some((path.to_owned(), is_folder));
        assert_eq!(path(""), found("", true));
        assert_eq!(path("a/b%20c.rpm"), found("a/b c.rpm", false));
        assert_eq!(path("a//b/./"), found("a/b", true));
        assert_eq!(
            path("generations/7/../rpms/x-gcc-c++.rpm"),
            found("generations/rpms/x-gcc-c++.rpm", false)
        );
        assert_eq!(path("a/%2e%2e/b/.."), found("", true));
        for bad in [
            "..",
            "a/../..",
            "../etc/passwd",
            "%2e%2e/x",
            ".hidden",
            "a/.git/x",
            "a/%2ehidden",
            "...",
            "a%2fb",
            "a%00",
            "%",
            "%4",
            "%zz",
            "%+1",
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
        assert_eq!(path(&"a/".repeat(2049)), None);
    }

    proptest! {
        #[test]
        fn a_name_comes_back(name in "[^/\0.][^/\0]{0,60}") {
            let text = encoded(name.as_bytes());
            prop_assert!(text.is_ascii() && !text.contains(['<', '"', '?', '#', ' ', '&']));
            prop_assert_eq!(named(&text).unwrap().path, PathBuf::from(name));
        }

        #[test]
        fn no_url_leads_out(rest in "(\\.|/|%2e|%2F|a|\\.\\.|%00){0,12}") {
            if let Some(named) = named(&rest) {
                let normal = |part| matches!(part, std::path::Component::Normal(name) if !name.as_bytes().starts_with(b"."));
                prop_assert!(named.path.components().all(normal));
            }
        }
    }
}
