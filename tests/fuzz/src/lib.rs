//! Fuzz targets: what a peer, an operator, a packager or a build may write, as bytes, and what must
//! hold whatever it is.
//!
//! Each module has a `check(bytes)` that panics when something does not hold. libFuzzer calls it
//! (`fuzz_targets/`, see `scripts/fuzz`), and an ordinary test calls it for each file of `corpus/` and
//! `found/` (`tests/corpora.rs`, which includes this file). Nothing here knows files or libFuzzer.
#![expect(clippy::unwrap_used, clippy::panic, reason = "this is how a finding is reported")]

use std::cell::Cell;

pub mod frame;
pub mod handshake;
mod message;
pub mod priority;
pub mod requires;
pub mod root_log;
pub mod srpm;
pub mod to_builder;
pub mod to_server;

/// Checks what must hold for some bytes.
pub type Check = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: [(&str, Check); 8] = [
    ("frame", frame::check),
    ("handshake", handshake::check),
    ("priority", priority::check),
    ("requires", requires::check),
    ("root_log", root_log::check),
    ("srpm", srpm::check),
    ("to_builder", to_builder::check),
    ("to_server", to_server::check),
];

thread_local! {
    static CONTAINS_PANICS: Cell<bool> = const { Cell::new(false) };
}

/// Before the first input: ends the program at a panic, so that libFuzzer keeps the input; its own hook
/// would do that at one that is caught, too.
pub fn begin() {
    std::panic::set_hook(Box::new(|info| {
        if !CONTAINS_PANICS.get() {
            eprintln!("{info}\n{}", std::backtrace::Backtrace::force_capture());
            std::process::abort();
        }
    }));
}

/// Calls what is known to catch panics of its own, which are nothing to tell.
fn containing_panics<T>(act: impl FnOnce() -> T) -> T {
    CONTAINS_PANICS.set(true);
    let result = act();
    CONTAINS_PANICS.set(false);
    result
}

/// What `act` gives, which may take `most` bytes of memory at a time.
fn within<T>(most: u64, act: impl FnOnce() -> T) -> T {
    let mut result = None;
    let used = allocation_counter::measure(|| result = Some(act()));
    assert!(used.bytes_max <= most, "{} bytes of memory, not {most}", used.bytes_max);
    result.unwrap()
}

/// What is quoted of it is one line that can be shown on a terminal.
fn assert_shown(text: &str, most: usize) {
    assert!(text.len() <= most && !text.contains(char::is_control), "{text:?}");
}
