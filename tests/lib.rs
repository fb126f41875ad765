//! Tests of server and client together; what they share.

/// Fixtures, one module for each kind of test.
pub mod support {
    pub mod corpus;
    pub mod credentials;
    pub mod disk;
    pub mod dnf;
    pub mod metadata_sets;
    pub mod peer;
    pub mod person;
    pub mod processes;
    pub mod proxy;
    pub mod published;
    pub mod repository;
    pub mod simulated;
    pub mod tls;
}
