//! What the server says.

use moji_proto::ToBuilder;

use super::message::{assert_name, assert_paid, read};

/// Whatever the bytes are, see the module.
pub fn check(bytes: &[u8]) {
    match read::<ToBuilder>(bytes) {
        Some(ToBuilder::Assign(assignment)) => {
            assert_name(assignment.target.as_str());
            assert_name(assignment.srpm.as_str());
            if let Some(repository) = assignment.repository {
                let url = repository.at("moji.example.org").unwrap();
                assert!(url.chars().all(|c| c.is_ascii_graphic()) && !url.contains("{{"), "{url:?}");
                assert!(url.ends_with('/') && url.contains("://"), "{url:?}");
            }
        }
        Some(ToBuilder::Resume { logs, .. }) => assert_paid(bytes, logs.len(), 2),
        _ => {}
    }
}
