//! Tests of server and client together; what they share.

pub mod support {
    //! Fixtures.
    pub mod processes;
    pub mod repository;
}
