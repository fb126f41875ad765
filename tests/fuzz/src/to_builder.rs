//! What the server says.

use moji_proto::ToBuilder;

use super::message::{assert_name, assert_paid, read};

/// Whatever the bytes are, see the module.
pub fn check(bytes: &[u8]) {
    match read::<ToBuilder>(bytes) {
        Some(ToBuilder::Assign(assignment)) => {
            assert_name(assignment.target.as_str());
            assert_name(assignment.srpm.as_str());
        }
        Some(ToBuilder::Resume { logs, .. }) => assert_paid(bytes, logs.len(), 2),
        _ => {}
    }
}
