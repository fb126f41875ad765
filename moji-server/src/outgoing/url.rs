//! The URL of a webhook, checked once.
//!
//! It deliberately opens no connection.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::Scheme;
use rustls_pki_types::ServerName;
use serde::Deserialize;

/// Where events are posted to: http or https, with a host, without a user. Prints without its path, which is a secret
/// with many services.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HookUrl {
    uri: Uri,
    is_https: bool,
    host: String,
    port: u16,
}

/// The longest.
const LONGEST: usize = 2000;

impl HookUrl {
    /// Whether to use TLS.
    pub(super) fn is_https(&self) -> bool {
        self.is_https
    }

    /// Name or address to connect to, without brackets.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The port to connect to.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, for the first line of a request.
    pub(super) fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    /// Host and port as they are written, for the header.
    pub(super) fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// All of it, which is what tells webhooks apart.
    pub(super) fn whole(&self) -> String {
        self.uri.to_string()
    }
}

impl FromStr for HookUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Not the URL itself: it may be a secret, and this goes into a log.
        let wrong =
            |why: &str| format!("{why}: a webhook is http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH");
        if text.len() > LONGEST || text.contains('#') {
            return Err(wrong("it is too long, or has a #"));
        }
        let uri: Uri = text.parse().map_err(|error| wrong(&format!("it is no URL ({error})")))?;
        let is_https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(wrong("it begins neither with http:// nor with https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it has a user or a password in it"));
        }
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        if ServerName::try_from(host.as_str()).is_err() {
            return Err(wrong("its host can be none"));
        }
        let port = match authority.port_u16() {
            // With a port that is no number there is none either.
            None if authority.as_str().rsplit(']').next().is_some_and(|rest| rest.contains(':')) => {
                return Err(wrong("its port is no number"));
            }
            None if is_https => 443,
            None => 80,
            Some(port) => port,
        };
        Ok(Self { is_https, host, port, uri })
    }
}

impl TryFrom<String> for HookUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        let rest = if self.path() == "/" { "" } else { "…" };
        write!(f, "{scheme}://{}/{rest}", self.authority())
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_url() {
        let parts = |text: &str| {
            let url: HookUrl = text.parse().unwrap();
            (
                url.host().to_owned(),
                url.port(),
                url.path().to_owned(),
                url.authority().to_owned(),
                url.to_string(),
            )
        };
        let wanted = |host: &str, port, path: &str, authority: &str, shown: &str| {
            (host.to_owned(), port, path.to_owned(), authority.to_owned(), shown.to_owned())
        };
        assert_eq!(parts("http://h"), wanted("h", 80, "/", "h", "http://h/"));
        assert_eq!(
            parts("https://h.example/a?b=c"),
            wanted("h.example", 443, "/a?b=c", "h.example", "https://h.example/…")
        );
        assert_eq!(
            parts("http://[::1]:8080/x"),
            wanted("::1", 8080, "/x", "[::1]:8080", "http://[::1]:8080/…")
        );
    }

    #[test]
    fn what_is_no_webhook_is_refused_and_not_repeated() {
        for text in [
            "",
            "/secret",
            "secret",
            "ftp://h/secret",
            "https:///secret",
            "https://user:secret@h/",
            "http://h:port/secret",
            "http://h:99999/secret",
            "http://[::1]:secret/",
            "http://h/\u{1b}secret",
            "http://h/ secret",
            "http://h/#secret",
            "http://a_b!secret/",
            &format!("http://h/{}secret", "x".repeat(2000)),
        ] {
            let error = text.parse::<HookUrl>().unwrap_err();
            assert!(error.contains("a webhook is") && !error.contains("secret"), "{text:?}: {error}");
        }
    }

    #[test]
    fn nothing_prints_the_path() {
        let url: HookUrl = "https://h/secret?secret".parse().unwrap();
        assert!(!format!("{url} {url:?}").contains("secret"));
        assert!(url.whole().contains("secret"));
    }
}
