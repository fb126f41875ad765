//! Versions of the wire, newest last. Each entry's description is its changelog; adding one is one
//! commit together with golden bytes (`tests/golden.rs`) and `PROTOCOL.md`.

/// Versions that the messages had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Version {
    /// Hand-out by pull, SRPMs and results in windowed streams, live logs, requeue on disconnect.
    V1 = 1,
    /// Attempts outlive their connection: `Hold` and `Resume`; uploads go on where they were cut:
    /// `Wanted` and `Upload`, and `Deliver` opens no stream of its own; a log's stream has an offset;
    /// `Release` says whether the builder is at fault, `Suspended` what follows from it. V1 was never
    /// released and is not spoken any more.
    V2 = 2,
    /// Who is there: a client names its credential in its hello, the server its key; proofs are HMACs of
    /// a password or Ed25519 signatures. TLS 1.3 below all of it. V2 was never released either, and is not
    /// spoken any more.
    V3 = 3,
    /// What a builder has and is called: `resources` and `tags` in its registration, `disk` in its heartbeats.
    /// Where the farm's own repository is: `repository` in an assignment. V3 was never released either, and
    /// is not spoken any more.
    V4 = 4,
    /// People: `Operate` in the place of a registration, and the messages of [`crate::operator`]. V4 was never
    /// released either, and is not spoken any more.
    V5 = 5,
}

/// The newest version that this program speaks.
pub const NEWEST: u16 = Version::V5 as u16;
/// The oldest version that this program still speaks.
pub const OLDEST: u16 = Version::V5 as u16;

/// The newest version that two ranges of versions share.
///
/// # Errors
/// When they share none: a sentence that says which side has to be updated.
pub fn agree(server: (u16, u16), client: (u16, u16)) -> Result<u16, String> {
    let common = server.1.min(client.1);
    if common >= server.0 && common >= client.0 {
        return Ok(common);
    }
    let older = if server.1 < client.0 { "server" } else { "client" };
    Err(format!(
        "no common protocol version: the server speaks {}, the client {}; update the {older}",
        range(server),
        range(client),
    ))
}

fn range((oldest, newest): (u16, u16)) -> String {
    if oldest == newest { format!("{oldest}") } else { format!("{oldest} to {newest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_wins() {
        assert_eq!(agree((1, 3), (2, 5)), Ok(3));
        assert_eq!(agree((1, 3), (1, 1)), Ok(1));
    }

    #[test]
    fn without_a_common_version_the_older_side_is_named() {
        let server_old = agree((1, 1), (2, 3)).unwrap_err();
        assert!(
            server_old.ends_with("server speaks 1, the client 2 to 3; update the server"),
            "{server_old}"
        );
        assert!(agree((4, 5), (2, 3)).unwrap_err().ends_with("update the client"));
    }
}
