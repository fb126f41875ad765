//! What builders say.

use moji_proto::ToServer;

use super::message::{assert_name, assert_outcome, assert_paid, read};

/// The least bytes of an entry of a manifest: `a.rpm` with its length, a size, a digest.
const ENTRY: usize = 6 + 1 + 32;

/// Whatever the bytes are, see the module.
pub fn check(bytes: &[u8]) {
    match read::<ToServer>(bytes) {
        Some(ToServer::Register(registration)) => {
            assert_name(registration.name.as_str());
            assert_paid(bytes, registration.targets.len(), 2);
            registration.targets.iter().for_each(|target| assert_name(target.as_str()));
            assert_paid(bytes, registration.tags.len(), 2);
            registration.tags.iter().for_each(|tag| assert_name(tag.as_str()));
        }
        Some(ToServer::Heartbeat { attempts, .. }) => assert_paid(bytes, attempts.len(), 3),
        Some(ToServer::Manifest { entries, .. }) => {
            assert_paid(bytes, entries.len(), ENTRY);
            entries.iter().for_each(|entry| assert_name(entry.name.as_str()));
        }
        Some(ToServer::Deliver { outcome, .. }) => assert_outcome(outcome),
        Some(ToServer::Hold(held)) => {
            assert_name(held.target.as_str());
            assert_name(held.srpm.as_str());
        }
        _ => {}
    }
}
