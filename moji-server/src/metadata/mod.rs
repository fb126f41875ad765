//! Keeps the dnf metadata of REPO true and consistent at all times.
//!
//! One task ([`Metadata::run`]) owns everything; per repository a [`coalescer`] decides when to look
//! (pure), a run looks, has `createrepo_c` write into a private folder, and publishes. REPO is the
//! only truth: whoever put the RPMs there, the metadata follow. A folder directly in REPO with a
//! `repodata` of its own is a repository of its own (a target), and not part of REPO's.
//!
//! ```text
//! inotify ─▶ hints ─┐                        ┌─ look: walk, compare with the ledger ──▶ the same
//! nudge ────────────┼─▶ coalescer ─▶ run ────┤
//! every `rescan` ───┘   (per repository)     └─ createrepo_c into staging ─▶ publish ─▶ generation
//! ```
//!
//! It deliberately does not know builds, builders or who put a file into REPO, and it never touches
//! anything in REPO but the folders `repodata`.

pub mod coalescer;
mod createrepo;
mod inspect;
mod keeper;
mod ledger;
mod packages;
mod publish;
mod refresh;
mod repomd;
mod watch;
mod whole;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch as state};

pub use createrepo::{MissingProgram, check_program};
pub(crate) use inspect::digest;
pub use inspect::{Disagreement, inspect, make_anew};
pub use keeper::Metadata;
pub use packages::Package;
pub use publish::Step;
pub(crate) use publish::UNFINISHED;

/// Settings. [`MetadataConfig::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct MetadataConfig {
    /// The served folder, REPO. It must be there.
    pub repo: PathBuf,
    /// A private folder for staging and ledgers, made by the caller, mode 0700; nobody else uses it.
    pub private: PathBuf,
    /// The program, a path or a name in `PATH`: `createrepo_c`.
    pub createrepo: PathBuf,
    /// A run starts when nothing changed for so long: 1 s.
    pub quiet: Duration,
    /// And so long after the first change even if changes go on: 15 s.
    pub at_most: Duration,
    /// How long files of earlier generations stay: 30 min. Enough for a client that read
    /// `repomd.xml` and then fetches slowly what it names, and for a proxy that keeps `repomd.xml`
    /// for some minutes; little enough that a busy day does not fill the disk.
    pub keep: Duration,
    /// Whether to watch REPO with inotify: yes. Without it (it is blind on NFS), changes are found by
    /// nudges and every `rescan`.
    pub watch: bool,
    /// How often to look at every folder whatever inotify says: 60 s. Costs one `stat` a file.
    pub rescan: Duration,
    /// When to end a `createrepo_c` that does not: 30 min.
    pub time_limit: Duration,
    /// The first rest after a failure, doubled with each further one: 2 s.
    pub rest: Duration,
    /// The longest rest: 5 min.
    pub rest_at_most: Duration,
}

impl MetadataConfig {
    /// The defaults.
    pub fn new(repo: PathBuf, private: PathBuf) -> Self {
        Self {
            repo,
            private,
            createrepo: "createrepo_c".into(),
            quiet: Duration::from_secs(1),
            at_most: Duration::from_secs(15),
            keep: Duration::from_secs(30 * 60),
            watch: true,
            rescan: Duration::from_secs(60),
            time_limit: Duration::from_secs(30 * 60),
            rest: Duration::from_secs(2),
            rest_at_most: Duration::from_secs(5 * 60),
        }
    }
}

/// One of the repositories in REPO.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repository {
    /// REPO itself.
    Main,
    /// The folder of this name in REPO.
    Nested(String),
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main => f.write_str("REPO"),
            Self::Nested(name) => write!(f, "REPO/{name}"),
        }
    }
}

/// One consistent state of a repository's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Of which repository.
    pub repository: Repository,
    /// The revision in `repomd.xml`: one more than the one before, whoever wrote that.
    pub number: u64,
    /// How many packages it lists.
    pub packages: usize,
    /// The packages that it lists, by path, in order.
    pub listing: Arc<[Package]>,
    /// Whether it can be had at an address of its own, where it does not change: `generations/<number>`
    /// in the repository.
    pub fixed: bool,
}

/// What is served, by repository.
pub type Served = BTreeMap<Repository, Generation>;

/// How the rest of the server talks to the metadata task.
#[derive(Debug, Clone)]
pub struct Handle {
    nudges: mpsc::Sender<Repository>,
    served: state::Receiver<Served>,
}

impl Handle {
    /// Says that something in `repository` changed: quicker than inotify, and where that is blind.
    /// It never waits and need not be called.
    pub fn nudge(&self, repository: Repository) {
        // Full means that looks are due already; what they miss, the next rescan finds.
        let _ = self.nudges.try_send(repository);
    }

    /// What is served. `changed()` on it returns after each publication (several may be seen as one),
    /// and after the first look at a repository that needs none.
    pub fn served(&self) -> state::Receiver<Served> {
        self.served.clone()
    }
}

/// Makes `folder` a repository of its own by giving it a folder `repodata` (0755 both, durable), if
/// it has none: before anything is put into `REPO/<target>`, or its RPMs would be in REPO's metadata.
/// Blocks.
///
/// # Errors
/// When that fails, or something else has one of the names.
pub fn make_repository(folder: &Path) -> io::Result<()> {
    publish::make_folder(folder)?;
    publish::make_folder(&folder.join(packages::REPODATA))
}
