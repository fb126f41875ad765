//! What became of the queue: what was built, what was not, and why.

mod excerpt;

pub use excerpt::{Excerpt, excerpt, excerpt_of};
