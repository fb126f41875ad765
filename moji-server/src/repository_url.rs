//! Under which URL a builder finds a repository, or one generation of it.
//!
//! Pure: whether anything is served there is not known here, nor what a builder does with it.

use std::net::SocketAddr;
use std::str::FromStr;

use moji_proto::RepositoryUrl;

use crate::http::{self, encoded};
use crate::metadata::{GENERATIONS, Repository};

/// Most bytes of a URL that an operator gives.
const URL_MAX: usize = 512;

/// The URL under which somebody serves REPO, without a slash at its end.
///
/// It goes into configurations of Mock and dnf on builders, where quotes, white space, commas, `$` and
/// braces mean something: there are none in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoUrl(String);

/// Why a text is no such URL; follows after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RepoUrlError {
    /// Another beginning.
    #[error("it must begin with http://, https://, ftp:// or file:///")]
    Scheme,
    /// No host, or for `file` no path.
    #[error("it names no host, or with file:// no absolute path")]
    Empty,
    /// A character that would mean something to Mock or dnf, or a % that begins no escape.
    #[error("{0:?} cannot stand in it, because it means something to Mock or dnf")]
    Character(char),
    /// Longer than any honest one.
    #[error("it is longer than {URL_MAX} bytes")]
    Long,
}

impl FromStr for RepoUrl {
    type Err = RepoUrlError;

    fn from_str(text: &str) -> Result<Self, RepoUrlError> {
        if text.len() > URL_MAX {
            return Err(RepoUrlError::Long);
        }
        let (scheme, rest) = text.split_once("://").ok_or(RepoUrlError::Scheme)?;
        let needs_path = match scheme {
            "http" | "https" | "ftp" => false,
            "file" => true,
            _ => return Err(RepoUrlError::Scheme),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/@+=[]%".contains(c);
        let mut escapes = rest.split('%').skip(1);
        let is_escape =
            |after: &str| after.get(..2).is_some_and(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
        if let Some(odd) = rest.chars().find(|c| !plain(*c)) {
            return Err(RepoUrlError::Character(odd));
        }
        if !escapes.all(is_escape) {
            return Err(RepoUrlError::Character('%'));
        }
        if rest.is_empty() || rest.starts_with('/') != needs_path {
            return Err(RepoUrlError::Empty);
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// How REPO is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepositoryUrls(Served);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Served {
    /// Not that anybody knows.
    #[default]
    Nowhere,
    /// By somebody.
    At(RepoUrl),
    /// By this server, on all addresses of its machine.
    OnAnyAddress(u16),
    /// By this server, on one address.
    On(SocketAddr),
}

impl RepositoryUrls {
    /// From where the operator says that REPO is served, which counts, and where this server listens.
    pub fn new(repo_url: Option<RepoUrl>, http: Option<SocketAddr>) -> Self {
        Self(match (repo_url, http) {
            (Some(url), _) => Served::At(url),
            (None, Some(address)) if address.ip().is_unspecified() => Served::OnAnyAddress(address.port()),
            (None, Some(address)) => Served::On(address),
            (None, None) => Served::Nowhere,
        })
    }

    /// Whether builders cannot be told where anything is.
    pub fn is_unknown(&self) -> bool {
        self.0 == Served::Nowhere
    }

    /// Whether only builders on the server's machine can be told.
    pub fn is_local_only(&self) -> bool {
        matches!(self.0, Served::On(address) if address.ip().is_loopback())
    }

    /// Where the operator says that REPO is served, without a slash at its end.
    pub(crate) fn given(&self) -> Option<&str> {
        match &self.0 {
            Served::At(RepoUrl(url)) => Some(url),
            Served::Nowhere | Served::OnAnyAddress(_) | Served::On(_) => None,
        }
    }

    /// The URL of a repository as it is now, or of one generation of it; with a slash at its end. `None`
    /// when there is none for this peer: `peer_is_local` if it is on the server's machine.
    pub fn of(
        &self,
        repository: &Repository,
        generation: Option<u64>,
        peer_is_local: bool,
    ) -> Option<RepositoryUrl> {
        let mut below = String::new();
        if let Repository::Nested(name) = repository {
            below = format!("{}/", encoded(name.as_bytes()));
        }
        if let Some(number) = generation {
            below.push_str(&format!("{GENERATIONS}/{number}/"));
        }
        let path = format!("{}{below}", http::REPO);
        match &self.0 {
            Served::Nowhere => None,
            // What the checks here let through they let through in the protocol too.
            Served::At(RepoUrl(url)) => RepositoryUrl::absolute(format!("{url}/{below}")).ok(),
            Served::OnAnyAddress(port) => RepositoryUrl::on_server(*port, path).ok(),
            Served::On(address) if address.ip().is_loopback() && !peer_is_local => None,
            Served::On(address) => RepositoryUrl::absolute(format!("http://{address}{path}")).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(repo_url: Option<&str>, http: Option<&str>) -> RepositoryUrls {
        RepositoryUrls::new(repo_url.map(|url| url.parse().unwrap()), http.map(|http| http.parse().unwrap()))
    }

    fn absolute(url: &str) -> Option<RepositoryUrl> {
        Some(RepositoryUrl::absolute(url).unwrap())
    }

    #[test]
    fn what_the_operator_says_counts() {
        let urls = urls(Some("https://repo.example.org:8443/moji//"), Some("127.0.0.1:80"));
        let (main, nested) = (Repository::Main, Repository::Nested("f43".into()));
        assert_eq!(urls.of(&main, None, false), absolute("https://repo.example.org:8443/moji/"));
        let expected = "https://repo.example.org:8443/moji/f43/generations/17/";
        assert_eq!(urls.of(&nested, Some(17), false), absolute(expected));
    }

    #[test]
    fn the_servers_own_address() {
        let nested = Repository::Nested("f 43".into());
        assert_eq!(urls(None, None).of(&nested, Some(1), true), None);
        let any = RepositoryUrl::on_server(8080, "/repo/f%2043/generations/5/").unwrap();
        for address in ["0.0.0.0:8080", "[::]:8080"] {
            assert_eq!(urls(None, Some(address)).of(&nested, Some(5), false), Some(any.clone()));
        }
        let one = urls(None, Some("[2001:db8::1]:80")).of(&Repository::Main, None, false);
        assert_eq!(one, absolute("http://[2001:db8::1]:80/repo/"));
        let local = urls(None, Some("127.0.0.1:8080"));
        assert_eq!(local.of(&Repository::Main, Some(5), false), None, "nobody else gets there");
        assert_eq!(
            local.of(&Repository::Main, Some(5), true),
            absolute("http://127.0.0.1:8080/repo/generations/5/")
        );
    }

    #[test]
    fn what_mock_or_dnf_would_take_for_something_else_is_refused() {
        use RepoUrlError as Error;
        for good in
            ["http://h", "ftp://h/a", "file:///srv/repo", "http://[::1]:80/x%20y", "http://u:p@h/~a+b/c=d"]
        {
            assert!(good.parse::<RepoUrl>().is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", Error::Scheme),
            ("repo.example.org/moji", Error::Scheme),
            ("javascript://x", Error::Scheme),
            ("HTTP://h", Error::Scheme),
            ("http://", Error::Empty),
            ("http:///x", Error::Empty),
            ("file://srv/repo", Error::Empty),
            ("http://h/a b", Error::Character(' ')),
            ("http://h/\n[x]", Error::Character('\n')),
            ("http://h/'x", Error::Character('\'')),
            ("http://h/\"x", Error::Character('"')),
            ("http://h/$basearch", Error::Character('$')),
            ("http://h/{{ x }}", Error::Character('{')),
            ("http://h/{%x%}", Error::Character('{')),
            ("http://h/a,http://i", Error::Character(',')),
            ("http://h/%(x)s", Error::Character('(')),
            ("http://h/%4", Error::Character('%')),
            ("http://h/\u{e9}", Error::Character('\u{e9}')),
            ("http://h/?x", Error::Character('?')),
            ("http://h/#x", Error::Character('#')),
            ("http://h/\\", Error::Character('\\')),
        ] {
            assert_eq!(bad.parse::<RepoUrl>(), Err(why), "{bad}");
        }
        assert_eq!(format!("http://{}", "h".repeat(506)).parse::<RepoUrl>(), Err(Error::Long));
    }
}
