//! Tests of the watch on SOURCE: the pure parts without files, the whole on real folders.

mod intake;
mod known;
mod lists;
mod priority;
mod requires;
mod srpm;
mod watching;
