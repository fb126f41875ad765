//! Tests of server and client together; what they share.
