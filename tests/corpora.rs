//! What the fuzz targets have collected, on stable Rust and without libFuzzer: whatever was once found
//! stays mended, and a change that breaks one of their rules for a usual input shows at once.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use moji_tests::support::processes::top;

#[path = "fuzz/src/lib.rs"]
#[expect(unreachable_pub, dead_code, reason = "it is a library, and not this test's own")]
#[expect(clippy::expect_used, clippy::indexing_slicing, reason = "a finding is a panic")]
mod fuzz;

/// The most bytes of one corpus: it is in everybody's clone.
const SMALL: u64 = 256 << 10;

fn folder(name: &str) -> PathBuf {
    top().join("tests/fuzz").join(name)
}

/// The names in a folder, without an extension.
fn names(folder: &Path) -> BTreeSet<String> {
    let name = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_string_lossy().into_owned();
    fs::read_dir(folder).into_iter().flatten().map(|entry| name(entry.unwrap())).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(target: &str) {
    let (_, check) = fuzz::TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let corpus = files(&folder("corpus").join(target));
    assert!(!corpus.is_empty(), "{target} has no corpus");
    let bytes: u64 = corpus.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= SMALL, "the corpus of {target} has {bytes} bytes: scripts/fuzz --merge makes it small");
    for file in corpus.into_iter().chain(files(&folder("found").join(target))) {
        // The last one that is named is the one that fails.
        eprintln!("{}", file.display());
        check(&fs::read(file).unwrap());
    }
}

macro_rules! targets {
    ($($target:ident)+) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target));
            }
        )+

        #[test]
        fn each_target_has_a_program_a_corpus_and_a_test() {
            let tested: BTreeSet<_> = [$(stringify!($target)),+].map(str::to_owned).into();
            assert_eq!(fuzz::TARGETS.map(|(name, _)| name.to_owned()).into_iter().collect::<BTreeSet<_>>(), tested);
            assert_eq!(names(&folder("fuzz_targets")), tested);
            assert_eq!(names(&folder("corpus")), tested);
            assert!(names(&folder("found")).is_subset(&tested));
        }
    };
}

targets! { frame handshake priority requires root_log srpm to_builder to_server }
