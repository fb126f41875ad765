//! Who is at the other end of a connection, as far as it can be known before anything is said.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    address: Option<SocketAddr>,
    words: String,
}

impl Peer {
    /// One with an address.
    pub fn at(address: SocketAddr) -> Self {
        // A socket for both kinds shows IPv4 addresses as IPv6.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        Self { address: Some(address), words: address.to_string() }
    }

    /// One without: what a test brings. No limit for addresses holds for it.
    pub fn named(words: impl Into<String>) -> Self {
        Self { address: None, words: words.into() }
    }

    /// Its address, where there is one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Whether it is on this machine, as far as its address tells.
    pub fn is_local(&self) -> bool {
        self.address.is_none_or(|address| address.ip().is_loopback())
    }

    /// What it has in common with others that are probably the same.
    pub fn origin(&self) -> Option<Origin> {
        self.address.map(|address| match address.ip() {
            IpAddr::V4(address) => Origin::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Origin::V6Net([a, b, c, d])
            }
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// What limits "for each address" count by: who has one IPv6 address has the whole /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address.
    V6Net([u16; 4]),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(address: &str) -> Origin {
        Peer::at(address.parse().unwrap()).origin().unwrap()
    }

    #[test]
    fn origins() {
        assert_eq!(origin("192.0.2.1:5"), origin("192.0.2.1:6"));
        assert_ne!(origin("192.0.2.1:5"), origin("192.0.2.2:5"));
        assert_eq!(origin("192.0.2.1:5"), origin("[::ffff:192.0.2.1]:5"));
        assert_eq!(origin("[2001:db8:0:1::1]:5"), origin("[2001:db8:0:1:ffff::2]:5"));
        assert_ne!(origin("[2001:db8:0:1::1]:5"), origin("[2001:db8:0:2::1]:5"));
        assert_eq!(Peer::named("a test").origin(), None);
        assert_eq!(Peer::at("[::ffff:192.0.2.1]:5".parse().unwrap()).to_string(), "192.0.2.1:5");
    }
}
