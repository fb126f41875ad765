//! Tests of server and client together; what they share.

/// Fixtures, one module for each kind of test.
pub mod support {
    pub mod credentials;
    pub mod disk;
    pub mod peer;
    pub mod processes;
    pub mod proxy;
    pub mod published;
    pub mod repository;
    pub mod simulated;
    pub mod tls;
}
