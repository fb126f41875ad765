//! Runs one after the other, as the keeper has them made, with the real `createrepo_c`.

use std::os::unix::fs::symlink;

use rpm::{BuildConfig, CompressionType, PackageBuilder};
use tempfile::TempDir;

use moji_proto::Sha256;

use super::*;
use crate::metadata::publish::read_repomd;
use crate::metadata::repomd::{self, Repomd};

/// A repository, and what is remembered of it.
struct Runs {
    root: TempDir,
    config: Arc<MetadataConfig>,
    memory: Option<Box<Memory>>,
    expired: BTreeSet<u64>,
}

impl Runs {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let [repo, private] = ["repo", "private"].map(|name| root.path().join(name));
        fs::create_dir(&repo).unwrap();
        fs::create_dir(&private).unwrap();
        let config = Arc::new(MetadataConfig::new(repo, private));
        Self { root, config, memory: None, expired: BTreeSet::new() }
    }

    /// With these packages in it, made natively once.
    async fn natively(names: &[&str]) -> Self {
        let mut runs = Self::new();
        for name in names {
            runs.put(&format!("{name}.rpm"), &rpm(name, "1"));
        }
        runs.publish().await;
        runs.put("last.rpm", &rpm("last", "1"));
        runs.publish().await;
        runs
    }

    fn repo(&self, path: &str) -> PathBuf {
        self.config.repo.join(path)
    }

    fn places(&self) -> Places {
        self.config.places(&Repository::Main)
    }

    /// Another file takes the place of what was there.
    fn put(&self, path: &str, bytes: &[u8]) {
        let new = self.root.path().join("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, self.repo(path)).unwrap();
    }

    async fn run(&mut self, aim: Aim, place: Where) -> Ended {
        let run = Run {
            config: Arc::clone(&self.config),
            repository: Repository::Main,
            nested: BTreeSet::new(),
            complaints: Complaints::default(),
            trust: Trust::Served,
            expired: std::mem::take(&mut self.expired),
            memory: self.memory.take(),
            place,
            aim,
            is_retry: false,
        };
        let mut ended = run.run(CancellationToken::new()).await;
        self.memory = ended.memory.take();
        ended
    }

    async fn prepare(&mut self) {
        let ended = self.run(Aim::Prepare, Where::Everywhere).await;
        assert!(ended.result.unwrap().is_none());
    }

    async fn publish(&mut self) -> Reached {
        self.publish_at(Where::Everywhere).await
    }

    async fn publish_at(&mut self, place: Where) -> Reached {
        self.run(Aim::Publish, place).await.result.unwrap().unwrap()
    }

    /// A package goes, and what is published then cannot be kept.
    async fn publish_unkept(&mut self, goes: &str) {
        let (rpms, aside) = (self.repo("generations/rpms"), self.root.path().join("aside"));
        fs::rename(&rpms, &aside).unwrap();
        fs::write(&rpms, "in the way").unwrap();
        fs::remove_file(self.repo(goes)).unwrap();
        let reached = self.publish_at(Where::At(BTreeSet::from([goes.to_owned()]))).await;
        assert!(!reached.generation.fixed && reached.unfixed.is_some());
        fs::remove_file(&rpms).unwrap();
        fs::rename(&aside, &rpms).unwrap();
    }

    /// The digests of the packages that are listed, by name.
    fn listed(&self) -> BTreeMap<String, Sha256> {
        listed(&self.repo(REPODATA)).into_iter().collect()
    }

    /// The digests of what lies there.
    fn there(&self, names: &[&str]) -> BTreeMap<String, Sha256> {
        let digest = |name: &&str| Sha256::of(&fs::read(self.repo(name)).unwrap());
        names.iter().map(|name| ((*name).to_owned(), digest(name))).collect()
    }

    /// The files in a folder of REPO.
    fn names(&self, folder: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.repo(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// What every package that a generation lists is called, which is there and is what it says.
    fn kept(&self, number: u64) -> BTreeSet<String> {
        let folder = self.repo(&format!("generations/{number}"));
        let whole = listed(&folder.join(REPODATA)).into_iter().map(|(place, sha256)| {
            assert_eq!(Sha256::of(&fs::read(folder.join(&place)).unwrap()), sha256, "{place}");
            let name = place.rsplit('/').next().unwrap();
            name.split_once('-').map_or(name, |(_, name)| name).to_owned()
        });
        whole.collect()
    }
}

fn listed(repodata: &Path) -> Vec<(String, Sha256)> {
    let repomd = Repomd::parse(&read_repomd(repodata).unwrap().unwrap()).unwrap();
    let primary = repomd.files.iter().find(|file| file.kind == "primary").unwrap();
    let listed = repomd::listed_packages(&repodata.join(&primary.name)).unwrap();
    listed.into_iter().map(|(path, listed)| (path, listed.sha256.unwrap())).collect()
}

fn rpm(name: &str, version: &str) -> Vec<u8> {
    let mut builder = PackageBuilder::new(name, version, "MIT", "noarch", "a test");
    let config = BuildConfig::v4().compression(CompressionType::None);
    let mut bytes = Vec::new();
    builder.using_config(config).build().unwrap().write(&mut bytes).unwrap();
    bytes
}

/// As long as its headers say, but `createrepo_c` cannot read it.
fn unreadable(name: &str) -> Vec<u8> {
    let mut bytes = rpm(name, "1");
    let main = bytes.windows(4).rposition(|four| four == [0x8e, 0xad, 0xe8, 0x01]).unwrap();
    bytes[main + 16..main + 200].fill(0x5a);
    bytes
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn what_was_prepared_is_not_taken_for_what_has_replaced_it() {
    let mut runs = Runs::natively(&["a"]).await;
    runs.put("b.rpm", &rpm("b", "1"));
    runs.prepare().await;
    runs.put("b.rpm", &unreadable("b"));
    runs.prepare().await;
    runs.put("c.rpm", &rpm("c", "1"));
    runs.publish().await;
    assert_eq!(runs.listed(), runs.there(&["a.rpm", "c.rpm", "last.rpm"]));
    let refused = &runs.memory.as_ref().unwrap().ledger.published.as_ref().unwrap().refused;
    assert_eq!(refused.iter().map(|package| package.path.as_str()).collect::<Vec<_>>(), ["b.rpm"]);

    // What is published comes back after another one was there for a while.
    let aside = runs.root.path().join("aside");
    fs::rename(runs.repo("a.rpm"), &aside).unwrap();
    runs.put("a.rpm", &rpm("a", "2"));
    runs.prepare().await;
    fs::rename(&aside, runs.repo("a.rpm")).unwrap();
    runs.put("d.rpm", &rpm("d", "1"));
    runs.publish().await;
    assert_eq!(runs.listed(), runs.there(&["a.rpm", "c.rpm", "d.rpm", "last.rpm"]));
}

#[tokio::test]
async fn a_run_that_only_prepares_makes_nothing_and_leaves_nothing() {
    let mut runs = Runs::natively(&["a"]).await;
    fs::remove_dir_all(runs.repo("generations/2")).unwrap();
    runs.prepare().await;
    assert!(!runs.repo("generations/2").exists());
    runs.put("b.rpm", &rpm("b", "1"));
    runs.prepare().await;
    assert!(!runs.places().staging.exists(), "its files are read");
    assert!(runs.memory.as_ref().unwrap().spool.is_some());
    fs::remove_file(runs.repo("b.rpm")).unwrap();
    assert_eq!(runs.publish().await.generation.number, 2, "nothing has changed");
    let memory = runs.memory.as_ref().unwrap();
    assert!(memory.spool.is_none() && memory.prepared.is_empty());
    assert_eq!(runs.kept(2), names(&["a.rpm", "last.rpm"]));
}

#[tokio::test]
async fn after_a_generation_that_could_not_be_kept_no_link_stays_too_long() {
    let mut runs = Runs::natively(&["a", "b", "c"]).await;
    let at = |name: &str| Where::At(BTreeSet::from([name.to_owned()]));
    runs.publish_unkept("b.rpm").await;
    fs::remove_file(runs.repo("c.rpm")).unwrap();
    let reached = runs.publish_at(at("c.rpm")).await;
    assert_eq!((reached.generation.number, reached.generation.fixed, reached.unfixed), (4, true, None));
    assert_eq!(runs.kept(4), names(&["a.rpm", "last.rpm"]));
    assert_eq!(runs.kept(1).len() + runs.kept(2).len(), 3 + 4);
    assert_eq!(runs.names("generations/rpms").len(), 4);
    runs.expired = [1, 2].into();
    runs.publish_at(at("c.rpm")).await;
    assert_eq!(runs.names("generations/rpms").len(), 2, "those of what is left");
    assert_eq!(runs.kept(4), names(&["a.rpm", "last.rpm"]));
}

#[tokio::test]
async fn a_generation_that_is_made_later_is_in_the_index_of_the_next_start() {
    let mut runs = Runs::natively(&["a", "b"]).await;
    runs.publish_unkept("b.rpm").await;
    let fixed = |runs: &Runs| {
        let repomd = runs.memory.as_ref().unwrap().ledger.published.as_ref().unwrap().repomd;
        let index = Index::load(&runs.places().index, repomd).unwrap();
        index.open_fixed(&runs.repo("generations")).map(|(fixed, _)| fixed.number)
    };
    assert_eq!(fixed(&runs), Some(2));
    let reached = runs.publish().await;
    assert_eq!((reached.generation.number, reached.generation.fixed), (3, true));
    assert_eq!(fixed(&runs), Some(3));
    assert_eq!(runs.kept(3), names(&["a.rpm", "last.rpm"]));
}

#[tokio::test]
async fn what_nobody_names_goes_at_a_full_look() {
    let mut runs = Runs::natively(&["a"]).await;
    // A crash, or a disk that was full, after links were made.
    fs::write(runs.repo("generations/rpms/0123-gone.rpm"), "12345").unwrap();
    fs::remove_dir_all(runs.repo("generations/1")).unwrap();
    runs.publish().await;
    assert_eq!(runs.names("generations/rpms").len(), 2);
    assert_eq!(runs.kept(2), names(&["a.rpm", "last.rpm"]));
}

#[tokio::test]
async fn a_link_that_is_lost_is_made_again_at_a_full_look() {
    let mut runs = Runs::natively(&["a"]).await;
    let link = runs.names("generations/rpms").into_iter().find(|name| name.ends_with("-a.rpm")).unwrap();
    fs::remove_file(runs.repo("generations/rpms").join(link)).unwrap();
    assert!(runs.publish().await.generation.fixed);
    assert_eq!(runs.kept(2), names(&["a.rpm", "last.rpm"]));
}

#[tokio::test]
async fn all_packages_without_a_link_are_counted() {
    let many: Vec<String> = (0..150).map(|n| format!("many{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    let mut runs = Runs::new();
    fs::create_dir(runs.repo("generations")).unwrap();
    symlink(elsewhere.path(), runs.repo("generations/rpms")).unwrap();
    for name in &many {
        runs.put(&format!("{name}.rpm"), &rpm(name, "1"));
    }
    runs.publish().await;
    for count in 151..154 {
        runs.put(&format!("more{count}.rpm"), &rpm("more", &count.to_string()));
        let reached = runs.publish().await;
        let text = reached.unfixed.unwrap();
        assert!(text.starts_with(&format!("{count} packages")), "{text}");
        assert_eq!(runs.publish().await.unfixed, Some(text), "also when nothing is made");
    }
}

/// A file that is valid, but says that the fixed generation's groups lie where there is nothing.
#[tokio::test]
async fn a_fixed_generation_that_does_not_lie_as_the_index_says_is_made_from_what_is_served() {
    let mut runs = Runs::natively(&["a", "b"]).await;
    let many: Vec<String> = (0..150).map(|n| format!("many{n}")).collect();
    for name in &many {
        runs.put(&format!("{name}.rpm"), &rpm(name, "1"));
    }
    runs.publish().await;
    let path = runs.places().index;
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let groups = index["groups"].as_array_mut().unwrap();
    assert!(groups.len() > 1);
    for group in groups {
        group["fixed"]["offset"] = 1_000_000.into();
    }
    fs::write(&path, index.to_string()).unwrap();
    runs.memory = None;
    runs.put("c.rpm", &rpm("c", "1"));
    let reached = runs.publish().await;
    assert!(reached.generation.fixed, "{:?}", reached.unfixed);
    assert_eq!(runs.kept(reached.generation.number).len(), 154);
}
