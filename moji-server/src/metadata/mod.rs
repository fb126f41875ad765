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
//! What was published stays for a while where it does not change any more, in `generations/<N>`, for
//! builders and for those who want to repeat a build.
//!
//! It deliberately does not know builds, builders or who put a file into REPO, and it never touches
//! anything in REPO but the folders `repodata` and `generations`.

pub mod coalescer;
mod compare;
mod createrepo;
mod generations;
mod inspect;
mod keeper;
mod ledger;
mod links;
mod make;
mod native;
mod packages;
mod publish;
mod refresh;
mod register;
mod repomd;
mod retention;
mod rewrite;
mod standing;
mod watch;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{mpsc, watch as state};

pub use createrepo::{MissingProgram, check_program};
pub(crate) use inspect::digest;
pub use inspect::{Disagreement, inspect, make_anew};
pub use keeper::Metadata;
pub use packages::Package;
pub(crate) use packages::{GENERATIONS, REPODATA};
pub use publish::Step;
pub(crate) use publish::UNFINISHED;
pub use standing::{Standing, Standings, Trouble};

/// Who makes the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Maker {
    /// `createrepo_c` reads what is new, the rest is taken over as it is: costs what changed.
    Native,
    /// `createrepo_c --update`: costs what there is.
    #[value(name = "createrepo_c")]
    #[serde(rename = "createrepo_c")]
    Createrepo,
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Createrepo => "createrepo_c",
        })
    }
}

/// Settings. [`MetadataConfig::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct MetadataConfig {
    /// The served folder, REPO. It must be there.
    pub repo: PathBuf,
    /// A private folder for staging and ledgers, made by the caller, mode 0700; nobody else uses it.
    pub private: PathBuf,
    /// Who makes the metadata: `createrepo_c` what is new, the rest is taken over.
    pub maker: Maker,
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
    /// How long an earlier generation can be had where it stays, `generations/<N>`, beside those that
    /// are in use: 2 days.
    pub keep_generations: Duration,
    /// As long as the metadata of all these have no more bytes than that: 4 GiB. The oldest go first.
    pub generations_size: u64,
    /// How long each of them stays in any case: 60 s, in which whoever has just been told of it says that
    /// it is in use.
    pub generations_grace: Duration,
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
            maker: Maker::Native,
            createrepo: "createrepo_c".into(),
            quiet: Duration::from_secs(1),
            at_most: Duration::from_secs(15),
            keep: Duration::from_secs(30 * 60),
            keep_generations: Duration::from_secs(2 * 24 * 60 * 60),
            generations_size: 4 << 30,
            generations_grace: Duration::from_secs(60),
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
    nudges: mpsc::Sender<Nudge>,
    served: state::Receiver<Served>,
    standings: state::Receiver<Standings>,
    in_use: state::Sender<Option<InUse>>,
}

/// Says that something changed in a repository.
#[derive(Debug)]
struct Nudge {
    repository: Repository,
    entry: Option<String>,
}

/// Generations that somebody works with, by repository.
pub type InUse = BTreeMap<Repository, BTreeSet<u64>>;

impl Handle {
    /// Says that something in `repository` changed: quicker than inotify, and where that is blind. `entry` is
    /// the entry of its folder that changed; without it, everything is looked at. It never waits and need not be called.
    pub fn nudge(&self, repository: Repository, entry: Option<String>) {
        // Full means that looks are due already; what they miss, the next rescan finds.
        let _ = self.nudges.try_send(Nudge { repository, entry });
    }

    /// Says which generations attempts run against: these stay. Until it is called for the first time, all
    /// stay, because a server that has just started does not know yet what its builders work with.
    pub fn in_use(&self, in_use: InUse) {
        self.in_use.send_replace(Some(in_use));
    }

    /// What is served. `changed()` on it returns after each publication (several may be seen as one),
    /// and after the first look at a repository that needs none.
    pub fn served(&self) -> state::Receiver<Served> {
        self.served.clone()
    }

    /// How the metadata of each repository are just now.
    pub fn standings(&self) -> Standings {
        self.standings.borrow().clone()
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
    publish::make_folder(&folder.join(REPODATA))
}
