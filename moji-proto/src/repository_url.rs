//! Where a builder finds the farm's own repository: a URL that was checked once, because it becomes a
//! line of dnf's configuration, which Mock renders as a template before.
//!
//! Does not know what lies there, nor by which name a builder knows its server: see [`RepositoryUrl::at`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest URL, and longest path on the server, in bytes.
pub const URL_MAX: usize = 1024;

const SCHEMES: [&str; 4] = ["http://", "https://", "ftp://", "file:///"];
/// What opens something in a Jinja template.
const MARKERS: [&str; 3] = ["{{", "{%", "{#"];
/// Beside white space, control characters and everything that is not ASCII: quotes, what dnf takes for the
/// end of a URL or of a line's contents, and what begins a query or a fragment.
const REFUSED: &str = "\"'`\\,;<>?#";

/// The repository with the farm's own results, of one fixed generation. It ends with `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Place", into = "Place")]
pub struct RepositoryUrl(Place);

/// The same, as it travels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Absolute { url: String },
    OnServer { port: u16, path: String },
}

/// Why a text is no URL of a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the URL of a repository: {reason}")]
pub struct UrlError {
    text: String,
    reason: &'static str,
}

impl UrlError {
    fn new(text: &str, reason: &'static str) -> Self {
        // What is quoted came from outside and may be long.
        Self { text: text.chars().take(80).collect(), reason }
    }
}

impl RepositoryUrl {
    /// An absolute URL: `http://`, `https://`, `ftp://` or `file:///`, without user or password.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn absolute(url: impl Into<String>) -> Result<Self, UrlError> {
        let url = url.into();
        let refuse = |reason| Err(UrlError::new(&url, reason));
        let Some(scheme) = SCHEMES.into_iter().find(|scheme| url.starts_with(scheme)) else {
            return refuse("it does not begin with http://, https://, ftp:// or file:///");
        };
        check(&url)?;
        let rest = url.strip_prefix(scheme).unwrap_or_default();
        if !scheme.ends_with("///") {
            let host = rest.split('/').next().unwrap_or_default();
            if host.contains('@') {
                return refuse("it has a user or a password in it, which everybody could read");
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]%".contains(c);
            if host.is_empty() || host.starts_with(':') || !host.chars().all(plain) {
                return refuse("it has no host");
            }
        }
        Ok(Self(Place::Absolute { url }))
    }

    /// On the server that the builder is connected to: HTTP on `port`, at the absolute path `path`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn on_server(port: u16, path: impl Into<String>) -> Result<Self, UrlError> {
        let path = path.into();
        if port == 0 {
            return Err(UrlError::new(&path, "there is no port 0"));
        }
        if !path.starts_with('/') {
            return Err(UrlError::new(&path, "it does not begin with /"));
        }
        check(&path)?;
        Ok(Self(Place::OnServer { port, path }))
    }

    /// The URL for a builder that knows the server as `host`: a name or an address, IPv6 without brackets.
    ///
    /// # Errors
    /// When no URL can have that host in it.
    pub fn at(&self, host: &str) -> Result<String, UrlError> {
        match &self.0 {
            Place::Absolute { url } => Ok(url.clone()),
            Place::OnServer { port, path } => {
                // An address with a zone is written with an escaped percent sign (RFC 6874).
                let address = host.contains(':').then(|| format!("[{}]", host.replace('%', "%25")));
                let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
                if host.is_empty() || !host.chars().all(is_plain) {
                    return Err(UrlError::new(host, "no URL can have such a host in it"));
                }
                Ok(format!("http://{}:{port}{path}", address.as_deref().unwrap_or(host)))
            }
        }
    }
}

/// The rules that both kinds share.
fn check(text: &str) -> Result<(), UrlError> {
    let refuse = |reason| Err(UrlError::new(text, reason));
    if text.len() > URL_MAX {
        return refuse("it is too long");
    }
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return refuse("it has white space, or a character that is not plain ASCII: write it as %xx");
    }
    if MARKERS.iter().any(|marker| text.contains(marker)) {
        return refuse("it has template markers in it");
    }
    if text.contains(|c| REFUSED.contains(c)) {
        return refuse("it has a quote, a comma, a semicolon, a backslash, < > ? or #");
    }
    if !text.ends_with('/') {
        return refuse("it does not end with /");
    }
    Ok(())
}

impl TryFrom<Place> for RepositoryUrl {
    type Error = UrlError;

    fn try_from(place: Place) -> Result<Self, UrlError> {
        match place {
            Place::Absolute { url } => Self::absolute(url),
            Place::OnServer { port, path } => Self::on_server(port, path),
        }
    }
}

impl From<RepositoryUrl> for Place {
    fn from(url: RepositoryUrl) -> Self {
        url.0
    }
}

/// For people; of one on the server `:PORT/PATH`, whatever its host is called.
impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Absolute { url } => f.write_str(url),
            Place::OnServer { port, path } => write!(f, ":{port}{path}"),
        }
    }
}

impl fmt::Debug for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_one() {
        for url in [
            "http://repo.example.org/moji/",
            "https://repo.example.org:8443/moji/f43/generations/7/",
            "http://[2001:db8::7]:8080/",
            "ftp://10.0.0.1/a%20b/~c/$basearch/",
            "file:///srv/moji/repo/",
        ] {
            let checked = RepositoryUrl::absolute(url).unwrap();
            assert_eq!((checked.to_string().as_str(), checked.at("elsewhere").unwrap().as_str()), (url, url));
        }
    }

    #[test]
    fn what_is_none() {
        for (url, wanted) in [
            ("", "http://"),
            ("repo.example.org/", "http://"),
            ("HTTP://x/", "http://"),
            ("file://srv/repo/", "http://"),
            ("javascript:x/", "http://"),
            ("--x/", "http://"),
            ("http:///x/", "no host"),
            ("http://:80/x/", "no host"),
            ("http://a$b/x/", "no host"),
            ("http://mo:ji@x/", "password"),
            ("http://mo@x/", "password"),
            ("http://x/y", "end with /"),
            ("http://x", "end with /"),
            ("http://x/a b/", "white space"),
            ("http://x/\n[evil]/", "white space"),
            ("http://x/\t/", "white space"),
            ("http://x/\u{202e}/", "ASCII"),
            ("http://x/\u{1b}[2J/", "ASCII"),
            ("http://ä/", "ASCII"),
            ("http://x/{{7*7}}/", "template"),
            ("http://x/{%x/", "template"),
            ("http://x/'/", "quote"),
            ("http://x/\"/", "quote"),
            ("http://x/,http://evil/", "comma"),
            ("http://x/?a=/", "?"),
            ("http://x/#/", "#"),
            ("http://x/{#/", "template"),
        ] {
            let error = RepositoryUrl::absolute(url).unwrap_err().to_string();
            assert!(error.contains(wanted), "{url:?}: {error}");
            // The same rules for what stands behind the host.
            if let Some(path) = url.strip_prefix("http://x/") {
                assert!(RepositoryUrl::on_server(80, format!("/{path}")).is_err(), "{path:?}");
            }
        }
        assert!(RepositoryUrl::on_server(0, "/x/").is_err());
        for path in ["", "x/", "http://x/", "@evil/", "/x"] {
            assert!(RepositoryUrl::on_server(80, path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn the_longest() {
        let path = |length: usize| format!("/{}/", "x".repeat(length - 2));
        assert!(RepositoryUrl::on_server(80, path(URL_MAX)).is_ok());
        assert!(RepositoryUrl::on_server(80, path(URL_MAX + 1)).is_err());
        assert!(RepositoryUrl::absolute(format!("http://a{}", path(URL_MAX - 8))).is_ok());
        let error =
            RepositoryUrl::absolute(format!("http://a{}", path(URL_MAX - 7))).unwrap_err().to_string();
        assert!(error.len() < 200, "{error}");
    }

    #[test]
    fn the_host_is_the_builders_word_for_the_server() {
        let url = RepositoryUrl::on_server(8080, "/f43/generations/7/").unwrap();
        assert_eq!(url.to_string(), ":8080/f43/generations/7/");
        for (host, wanted) in [
            ("repo.example.org", "http://repo.example.org:8080/f43/generations/7/"),
            ("10.0.0.1", "http://10.0.0.1:8080/f43/generations/7/"),
            ("2001:db8::7", "http://[2001:db8::7]:8080/f43/generations/7/"),
            ("fe80::1%eth0", "http://[fe80::1%25eth0]:8080/f43/generations/7/"),
        ] {
            assert_eq!(url.at(host).unwrap(), wanted);
        }
        for host in ["", "a b", "a/b", "a@b", "{{a}}", "ä", "[::1]"] {
            assert!(url.at(host).is_err(), "{host:?}");
        }
    }
}
