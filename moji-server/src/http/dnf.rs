//! `moji.repo`: what dnf needs to know of a repository here, for whoever has not put a better one there.
//!
//! Pure: what is served, and where, is known by others.

use axum::http::{HeaderMap, header};

/// The file, in each repository.
pub(super) const FILE: &str = "moji.repo";
/// Longest host name with a port.
const HOST_MAX: usize = 261;

/// The file for a repository at this URL.
pub(super) fn repo_file(target: Option<&str>, url: &str) -> String {
    let (id, name) = match target {
        Some(target) => (format!("moji-{target}"), format!("Moji, {target}")),
        None => ("moji".to_owned(), "Moji".to_owned()),
    };
    format!(
        "[{id}]\nname={name}\nbaseurl={url}\nenabled=1\n\
         # Moji does not sign what it publishes. Who can change what comes over the network, or REPO, can change\n\
         # what is installed: use https or a network that you trust, or sign REPO and set gpgcheck=1.\n\
         gpgcheck=0\nmetadata_expire=60\n"
    )
}

/// The host that a client has asked, when it is no more than a name or an address with a port.
pub(super) fn host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let is_plain = !host.is_empty() && host.len() <= HOST_MAX && host.chars().all(plain);
    is_plain.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_host_and_nothing_else() {
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(header::HOST, text.parse().unwrap())]);
            host(&headers).map(str::to_owned)
        };
        for good in ["x", "repo.example.org:8080", "[2001:db8::1]:6780", "10.0.0.7"] {
            assert_eq!(of(good).as_deref(), Some(good));
        }
        for bad in ["", "a b", "a/b", "a,b", "$x", "a@b", "x\"", "{{x}}", &"x".repeat(262)] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(host(&HeaderMap::new()), None);
    }
}
