//! Tests of server and client together; what they share.

/// Helpers, one module for each kind of test.
pub mod support {
    pub mod simulated;
}
