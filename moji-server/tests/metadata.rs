//! The metadata task with the real `createrepo_c`, real files and real inotify.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking, like tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use moji_proto::Sha256;
use moji_server::folders::Folders;
use moji_server::metadata::{
    Generation, Handle, Maker, Metadata, MetadataConfig, Repository, Standing, check_program, make_repository,
};
use rpm::{BuildConfig, CompressionType, PackageBuilder};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// No condition takes this long unless it never comes true.
const DEADLINE: Duration = Duration::from_secs(60);

/// A task over temporary folders.
struct Farm {
    root: Arc<tempfile::TempDir>,
    handle: Handle,
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Farm {
    fn folders() -> Arc<tempfile::TempDir> {
        let found = check_program(Path::new("createrepo_c"));
        assert!(found.is_ok(), "these tests need createrepo_c: run scripts/install-deps");
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("repo")).unwrap();
        fs::create_dir(root.path().join("private")).unwrap();
        Arc::new(root)
    }

    fn start_in(root: Arc<tempfile::TempDir>, change: impl FnOnce(&mut MetadataConfig)) -> Self {
        let mut config = MetadataConfig::new(root.path().join("repo"), root.path().join("private"));
        config.quiet = Duration::from_millis(60);
        config.at_most = Duration::from_millis(600);
        config.rest = Duration::from_millis(100);
        config.rest_at_most = Duration::from_millis(200);
        change(&mut config);
        let (metadata, handle) = Metadata::new(config);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(metadata.run(shutdown.clone()));
        Self { root, handle, shutdown, task }
    }

    fn start() -> Self {
        Self::start_in(Self::folders(), |_| {})
    }

    fn repo(&self) -> PathBuf {
        self.root.path().join("repo")
    }

    async fn stop(self) -> Arc<tempfile::TempDir> {
        self.shutdown.cancel();
        timeout(DEADLINE, self.task).await.unwrap().unwrap().unwrap();
        self.root
    }

    /// Waits until the served generation of `repository` is as wanted.
    async fn wait(&self, repository: &Repository, wanted: impl Fn(&Generation) -> bool) -> Generation {
        let mut served = self.handle.served();
        let found = timeout(DEADLINE, served.wait_for(|all| all.get(repository).is_some_and(&wanted))).await;
        let Ok(found) = found else { panic!("{repository} stayed at {:?}", self.handle.served().borrow()) };
        found.unwrap().get(repository).unwrap().clone()
    }

    /// Waits until the metadata of REPO list exactly these files and no others, and checks them.
    async fn lists(&self, paths: &[&str]) {
        self.folder_lists(&self.repo(), paths).await;
    }

    async fn folder_lists(&self, folder: &Path, paths: &[&str]) {
        let wanted: BTreeSet<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        let start = Instant::now();
        loop {
            let listed: BTreeSet<_> = read(folder).unwrap_or_default().into_keys().collect();
            if listed == wanted {
                return assert_true_of_folder(folder);
            }
            assert!(start.elapsed() < DEADLINE, "listed: {listed:?}, wanted: {wanted:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn rpm_bytes(name: &str, version: &str, config: BuildConfig) -> Vec<u8> {
    let mut builder = PackageBuilder::new(name, version, "MIT", "noarch", "a test");
    let package = builder.using_config(config.compression(CompressionType::None)).build().unwrap();
    let mut bytes = Vec::new();
    package.write(&mut bytes).unwrap();
    bytes
}

fn rpm(name: &str) -> Vec<u8> {
    rpm_bytes(name, "1", BuildConfig::v4())
}

/// Publishes a folder with one RPM as the server does, with one rename.
fn publish_build(folder: &Path, nvr: &str) {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let repo = folder.ancestors().find(|path| path.ends_with("repo")).unwrap();
    let staging = repo.with_file_name(format!("results-{}", SERIAL.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&staging).unwrap();
    fs::write(staging.join(format!("{nvr}.rpm")), rpm(nvr)).unwrap();
    fs::write(staging.join("build.log"), "log").unwrap();
    fs::rename(&staging, folder.join(nvr)).unwrap();
}

fn text_between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// Reads `repomd.xml` and all that it names as dnf does: every digest must be right. Gives path and
/// digest of each package. Deliberately not the code under test.
fn read(folder: &Path) -> Result<BTreeMap<String, String>, String> {
    let repomd =
        fs::read_to_string(folder.join("repodata/repomd.xml")).map_err(|e| format!("repomd.xml: {e}"))?;
    if !repomd.trim_end().ends_with("</repomd>") {
        return Err(format!("torn: {repomd}"));
    }
    let mut packages = None;
    for data in repomd.split("<data ").skip(1) {
        let href = text_between(data, "<location href=\"", "\"").ok_or("no location")?;
        let digest = text_between(data, "<checksum type=\"sha256\">", "<").ok_or("no checksum")?;
        let bytes = fs::read(folder.join(href)).map_err(|e| format!("{href}: {e}"))?;
        if Sha256::of(&bytes).to_string() != digest {
            return Err(format!("{href} is not what repomd.xml says"));
        }
        if data.starts_with("type=\"primary\"") {
            let mut text = String::new();
            flate2::read::MultiGzDecoder::new(bytes.as_slice())
                .read_to_string(&mut text)
                .map_err(|e| e.to_string())?;
            let entries = text.split("<package ").skip(1).map(|entry| {
                let path = text_between(entry, "<location href=\"", "\"").unwrap().to_owned();
                (path, text_between(entry, "pkgid=\"YES\">", "<").unwrap().to_owned())
            });
            packages = Some(entries.collect());
        }
    }
    packages.ok_or_else(|| "no primary.xml".to_owned())
}

/// Every package in the metadata is in the folder with that digest.
fn assert_true_of_folder(folder: &Path) {
    for (path, digest) in read(folder).unwrap() {
        let bytes = fs::read(folder.join(&path)).unwrap();
        assert_eq!(Sha256::of(&bytes).to_string(), digest, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_never_meets_a_gap_in_fifty_quick_publications() {
    let root = Farm::folders();
    // As quick as can be: every folder is looked at by itself, and old files go at once but one.
    let farm = Farm::start_in(root, |config| {
        config.quiet = Duration::from_millis(1);
        config.at_most = Duration::from_millis(2);
        config.keep = Duration::from_secs(2);
    });
    let first = farm.wait(&Repository::Main, |generation| generation.packages == 0).await;
    let (stop, repo) = (Arc::new(AtomicBool::new(false)), farm.repo());
    let (stopped, folder) = (Arc::clone(&stop), repo.clone());
    let reader = std::thread::spawn(move || {
        let (mut reads, mut errors) = (0_u64, Vec::new());
        while !stopped.load(Ordering::Relaxed) {
            reads += 1;
            errors.extend(read(&folder).err());
        }
        (reads, errors)
    });
    let started = Instant::now();
    for count in 1..=50 {
        publish_build(&repo, &format!("pkg{count}-1-1"));
        farm.wait(&Repository::Main, |generation| generation.packages == count).await;
    }
    let took = started.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (reads, errors) = reader.join().unwrap();
    let last = farm.handle.served().borrow().get(&Repository::Main).unwrap().clone();
    println!("50 publications in {took:?}, {reads} reads, generations {} to {}", first.number, last.number);
    assert!(errors.is_empty(), "{} of {reads} reads: {:?}", errors.len(), errors.first());
    assert!(reads > 50);
    assert_eq!(last.number, first.number + 50, "each of them is one generation");
    assert_eq!(read(&repo).unwrap().len(), 50);
    assert_true_of_folder(&repo);
    assert!(fs::read_dir(repo.join("repodata")).unwrap().count() < 4 + 50 * 3, "old files are deleted");
    farm.stop().await;
}

#[tokio::test]
async fn an_empty_repository_is_valid_at_once_and_a_burst_is_one_generation() {
    let farm = Farm::start_in(Farm::folders(), |config| {
        config.quiet = Duration::from_millis(500);
        config.at_most = Duration::from_secs(30);
    });
    let first = farm.wait(&Repository::Main, |_| true).await;
    assert_eq!((first.number, first.packages), (1, 0));
    assert_eq!(read(&farm.repo()), Ok(BTreeMap::new()));
    for count in 0..20 {
        publish_build(&farm.repo(), &format!("p{count}-1-1"));
    }
    let second = farm.wait(&Repository::Main, |generation| generation.number == 2).await;
    assert_eq!(second.packages, 20);
    farm.stop().await;
}

#[tokio::test]
async fn what_a_person_copies_is_listed_once_it_is_whole_and_what_goes_is_not() {
    let farm = Farm::start();
    let repo = farm.repo();
    let bytes = rpm("by-hand");
    fs::create_dir_all(repo.join("some/where")).unwrap();
    let half = repo.join("some/where/by-hand-1-1.noarch.rpm");
    fs::write(&half, &bytes[..bytes.len() - 1]).unwrap();
    fs::write(repo.join("six-1-1.noarch.rpm"), rpm_bytes("six", "1", BuildConfig::v6())).unwrap();
    fs::write(repo.join("x.rpm.part"), rpm("part")).unwrap();
    std::os::unix::fs::symlink("six-1-1.noarch.rpm", repo.join("link.rpm")).unwrap();
    farm.lists(&["six-1-1.noarch.rpm"]).await;
    fs::write(&half, &bytes).unwrap();
    farm.lists(&["six-1-1.noarch.rpm", "some/where/by-hand-1-1.noarch.rpm"]).await;
    fs::remove_file(repo.join("six-1-1.noarch.rpm")).unwrap();
    farm.lists(&["some/where/by-hand-1-1.noarch.rpm"]).await;
    farm.stop().await;
}

#[tokio::test]
async fn a_file_replaced_by_one_of_the_same_size_and_second_is_read_again() {
    let farm = Farm::start();
    let (path, other) = (farm.repo().join("a.rpm"), farm.root.path().join("other"));
    let time = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let write = |path: &Path, version| {
        fs::write(path, rpm_bytes("a", version, BuildConfig::v4())).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    };
    write(&path, "1");
    farm.lists(&["a.rpm"]).await;
    write(&other, "2");
    assert_eq!(fs::metadata(&other).unwrap().len(), fs::metadata(&path).unwrap().len());
    let number = farm.wait(&Repository::Main, |generation| generation.packages == 1).await.number;
    fs::rename(&other, &path).unwrap();
    farm.wait(&Repository::Main, |generation| generation.number > number).await;
    assert_true_of_folder(&farm.repo());
    farm.stop().await;
}

#[tokio::test]
async fn a_corrupt_rpm_does_not_break_the_rest_and_causes_no_further_generations() {
    assert_eq!(logged("starts the log"), 0);
    let farm = Farm::start();
    let repo = farm.repo();
    let mut corrupt = rpm("corrupt");
    // The index of the main header, which only createrepo_c reads.
    let main = corrupt.windows(4).rposition(|four| four == [0x8e, 0xad, 0xe8, 0x01]).unwrap();
    corrupt[main + 16..main + 200].fill(0x5a);
    fs::write(repo.join("corrupt-1-1.noarch.rpm"), &corrupt).unwrap();
    fs::write(repo.join("text.rpm"), "no RPM at all").unwrap();
    publish_build(&repo, "good-1-1");
    farm.lists(&["good-1-1/good-1-1.rpm"]).await;
    let before = farm.wait(&Repository::Main, |generation| generation.packages == 1).await;
    publish_build(&repo, "more-1-1");
    farm.lists(&["good-1-1/good-1-1.rpm", "more-1-1/more-1-1.rpm"]).await;
    for file in ["corrupt-1-1.noarch.rpm", "text.rpm"] {
        let line = format!("left out of the metadata until it changes: {}:", repo.join(file).display());
        assert_eq!(logged(&line), 1, "{file} is named once");
    }
    let before = farm.wait(&Repository::Main, |generation| generation.number > before.number).await;
    let root = farm.stop().await;

    let farm = Farm::start_in(root, |_| {});
    let after = farm.wait(&Repository::Main, |_| true).await;
    assert_eq!(after, before, "a restart with a corrupt RPM is no change");
    fs::write(repo.join("corrupt-1-1.noarch.rpm"), rpm("corrupt")).unwrap();
    farm.lists(&["corrupt-1-1.noarch.rpm", "good-1-1/good-1-1.rpm", "more-1-1/more-1-1.rpm"]).await;
    farm.stop().await;
}

#[tokio::test]
async fn a_target_is_a_repository_of_its_own() {
    let root = Farm::folders();
    let repo = root.path().join("repo");
    make_repository(&repo.join("f43")).unwrap();
    publish_build(&repo.join("f43"), "early-1-1");
    let farm = Farm::start_in(root, |_| {});
    let f43 = Repository::Nested("f43".into());
    farm.wait(&f43, |generation| generation.packages == 1).await;
    publish_build(&repo, "main-1-1");
    farm.lists(&["main-1-1/main-1-1.rpm"]).await;
    farm.folder_lists(&repo.join("f43"), &["early-1-1/early-1-1.rpm"]).await;

    // A new one while it runs; and one that becomes one.
    make_repository(&repo.join("f44")).unwrap();
    publish_build(&repo.join("f44"), "new-1-1");
    fs::create_dir(repo.join("f45")).unwrap();
    publish_build(&repo.join("f45"), "was-main-1-1");
    farm.folder_lists(&repo.join("f44"), &["new-1-1/new-1-1.rpm"]).await;
    farm.lists(&["main-1-1/main-1-1.rpm", "f45/was-main-1-1/was-main-1-1.rpm"]).await;
    fs::create_dir(repo.join("f45/repodata")).unwrap();
    farm.folder_lists(&repo.join("f45"), &["was-main-1-1/was-main-1-1.rpm"]).await;
    farm.lists(&["main-1-1/main-1-1.rpm"]).await;

    // One that loses its metadata stays one; one that goes is forgotten.
    fs::remove_dir_all(repo.join("f43/repodata")).unwrap();
    farm.handle.nudge(f43.clone(), None);
    farm.folder_lists(&repo.join("f43"), &["early-1-1/early-1-1.rpm"]).await;
    fs::remove_dir_all(repo.join("f44")).unwrap();
    let mut served = farm.handle.served();
    let gone = served.wait_for(|all| !all.contains_key(&Repository::Nested("f44".into())));
    timeout(DEADLINE, gone).await.unwrap().unwrap();
    farm.stop().await;
}

/// How many lines of the log contain `text`.
fn logged(text: &str) -> usize {
    logged_with(&[text])
}

/// How many contain all of these.
fn logged_with(texts: &[&str]) -> usize {
    static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    static START: Once = Once::new();
    struct Writer;
    impl io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            LOG.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    START.call_once(|| tracing_subscriber::fmt().with_ansi(false).with_writer(|| Writer).init());
    String::from_utf8_lossy(&LOG.lock().unwrap())
        .lines()
        .filter(|line| texts.iter().all(|text| line.contains(text)))
        .count()
}

/// What tells its lines in the log from those of other tests.
fn script_name(farm: &Farm) -> String {
    farm.root.path().join("fake-createrepo").display().to_string()
}

/// A fake that fails while a file `fail` is beside it, and is createrepo_c otherwise.
fn fake(root: &Path) -> PathBuf {
    let script = root.join("fake-createrepo");
    let text = "#!/bin/sh\n\
        here=$(dirname \"$0\")\necho run >> \"$here/runs\"\n\
        [ -e \"$here/fail\" ] && { echo 'no such luck' >&2; exit 1; }\nexec createrepo_c \"$@\"\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_failing_program_leaves_the_old_generation_and_is_tried_again() {
    assert_eq!(logged("starts the log"), 0);
    let root = Farm::folders();
    let (script, fail, runs) = (fake(root.path()), root.path().join("fail"), root.path().join("runs"));
    let farm = Farm::start_in(root, |config| config.createrepo = script);
    publish_build(&farm.repo(), "one-1-1");
    farm.lists(&["one-1-1/one-1-1.rpm"]).await;
    let count = || fs::read_to_string(&runs).unwrap_or_default().lines().count();
    let before = count();
    fs::write(&fail, "").unwrap();
    publish_build(&farm.repo(), "two-1-1");
    wait_for("it is tried again", || count() >= before + 3).await;
    let standing = || farm.handle.standings().remove(&Repository::Main).unwrap();
    let failures = || standing().trouble.map_or(0, |trouble| trouble.failures);
    wait_for("it counts", || failures() >= 3).await;
    let since = standing().since.unwrap();
    wait_for("it goes on counting", || failures() >= 5).await;
    let Standing { since: still, trouble: Some(trouble) } = standing() else { panic!("it is no trouble") };
    assert_eq!((still, trouble.maker), (Some(since), Some(Maker::Createrepo)));
    assert!(trouble.reason.contains("no such luck"), "{}", trouble.reason);
    assert_eq!(read(&farm.repo()).unwrap().len(), 1);
    fs::remove_file(&fail).unwrap();
    farm.lists(&["one-1-1/one-1-1.rpm", "two-1-1/two-1-1.rpm"]).await;
    wait_for("it is over", || standing() == Standing::default()).await;
    // Once when it began, with its maker, and once when it was over.
    let name = script_name(&farm);
    assert_eq!(logged_with(&[&name, "no such luck", "out of date", "(createrepo_c)"]), 1);
    assert_eq!(logged_with(&[&name, "all metadata are made by createrepo_c this time"]), 1);
    assert!(logged_with(&["up to date again by native", "failed tries"]) >= 1);
    farm.stop().await;
}

#[tokio::test]
async fn a_missing_program_is_no_end_and_it_recovers_when_it_appears() {
    assert_eq!(logged("starts the log"), 0);
    let root = Farm::folders();
    let (script, later) = (fake(root.path()), root.path().join("later"));
    let farm = Farm::start_in(root, |config| config.createrepo = later.clone());
    publish_build(&farm.repo(), "one-1-1");
    let warning = format!("{} is not there or cannot be run: install createrepo_c", later.display());
    let failures = || {
        let standings = farm.handle.standings();
        standings.get(&Repository::Main).and_then(|standing| standing.trouble.as_ref()).map(|it| it.failures)
    };
    wait_for("it is tried again", || failures() >= Some(4)).await;
    // At the start and at the first try.
    assert_eq!(logged(&warning), 2);
    assert!(farm.handle.served().borrow().is_empty() && !farm.task.is_finished());
    fs::rename(script, later).unwrap();
    farm.lists(&["one-1-1/one-1-1.rpm"]).await;
    farm.stop().await;
}

#[tokio::test]
async fn a_restart_without_changes_is_no_generation_and_damage_is_repaired() {
    let root = Farm::folders();
    let script = fake(root.path());
    let (repo, runs) = (root.path().join("repo"), root.path().join("runs"));
    publish_build(&repo, "one-1-1");
    let farm = Farm::start_in(root, |config| config.createrepo = script.clone());
    let first = farm.wait(&Repository::Main, |generation| generation.packages == 1).await;
    let root = farm.stop().await;
    let before = fs::read_to_string(&runs).unwrap();

    let farm = Farm::start_in(Arc::clone(&root), |config| config.createrepo = script.clone());
    assert_eq!(farm.wait(&Repository::Main, |_| true).await, first);
    assert_eq!(fs::read_to_string(&runs).unwrap(), before, "nothing ran");
    farm.stop().await;

    let primary = fs::read_dir(repo.join("repodata")).unwrap().map(|entry| entry.unwrap().path());
    let primary = primary.into_iter().find(|path| path.to_string_lossy().contains("primary")).unwrap();
    fs::remove_file(primary).unwrap();
    let farm = Farm::start_in(Arc::clone(&root), |config| config.createrepo = script.clone());
    assert_eq!(farm.wait(&Repository::Main, |_| true).await.number, first.number + 1);
    assert_true_of_folder(&repo);
    farm.stop().await;

    // A change while nobody watched; the private folder lost as well: the numbers go on.
    publish_build(&repo, "two-1-1");
    fs::remove_dir_all(root.path().join("private")).unwrap();
    fs::create_dir(root.path().join("private")).unwrap();
    let farm = Farm::start_in(root, |config| config.createrepo = script);
    let last = farm.wait(&Repository::Main, |_| true).await;
    assert_eq!((last.number, last.packages), (first.number + 2, 2));
    farm.stop().await;
}

#[tokio::test]
async fn a_repository_of_another_tool_is_taken_over_with_its_extras_and_its_files_stay_a_while() {
    let root = Farm::folders();
    let repo = root.path().join("repo");
    publish_build(&repo, "one-1-1");
    let run = |program: &str, arguments: &[&Path]| {
        let output = std::process::Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    run("createrepo_c", &[&repo]);
    let comps = root.path().join("comps.xml");
    fs::write(&comps, "<?xml version=\"1.0\"?><comps><group><id>g</id></group></comps>").unwrap();
    run("modifyrepo_c", &[Path::new("--mdtype=group"), &comps, &repo.join("repodata")]);
    let text = || fs::read_to_string(repo.join("repodata/repomd.xml")).unwrap();
    let before = text();
    let revision: u64 = text_between(&before, "<revision>", "<").unwrap().parse().unwrap();

    let farm = Farm::start_in(root, |_| {});
    let first = farm.wait(&Repository::Main, |_| true).await;
    assert_eq!((first.number, first.packages), (revision + 1, 1));
    assert!(text().contains("<data type=\"group\">"), "{}", text());
    for data in before.split("<location href=\"").skip(1) {
        assert!(repo.join(data.split('"').next().unwrap()).exists(), "a reader of the old one finds it");
    }
    publish_build(&repo, "two-1-1");
    farm.lists(&["one-1-1/one-1-1.rpm", "two-1-1/two-1-1.rpm"]).await;
    assert!(text().contains("<data type=\"group\">"));
    // What createrepo_c has to make from nothing keeps what people have added too; what is damaged itself it cannot.
    let file = |kind: &str| {
        let named = text_between(&text(), &format!("<data type=\"{kind}\">"), "</data>").unwrap().to_owned();
        repo.join(text_between(&named, "<location href=\"", "\"").unwrap())
    };
    for (damaged, next, keeps_group) in [("primary", "three-1-1", true), ("group", "four-1-1", false)] {
        fs::write(file(damaged), "no longer what it was").unwrap();
        publish_build(&repo, next);
        let path = format!("{next}/{next}.rpm");
        farm.wait(&Repository::Main, |main| main.listing.iter().any(|package| package.path == path)).await;
        assert_eq!(text().contains("<data type=\"group\">"), keeps_group, "{damaged}: {}", text());
    }
    farm.stop().await;
}

#[tokio::test]
async fn what_inotify_does_not_see_the_rescan_finds_and_a_nudge_finds_at_once() {
    let blind = |every| {
        move |config: &mut MetadataConfig| {
            config.watch = false;
            config.rescan = every;
        }
    };
    let farm = Farm::start_in(Farm::folders(), blind(Duration::from_millis(50)));
    farm.wait(&Repository::Main, |_| true).await;
    publish_build(&farm.repo(), "one-1-1");
    farm.lists(&["one-1-1/one-1-1.rpm"]).await;
    let root = farm.stop().await;

    let farm = Farm::start_in(root, blind(DEADLINE * 10));
    farm.wait(&Repository::Main, |_| true).await;
    publish_build(&farm.repo(), "two-1-1");
    farm.handle.nudge(Repository::Main, None);
    farm.lists(&["one-1-1/one-1-1.rpm", "two-1-1/two-1-1.rpm"]).await;
    farm.stop().await;
}

#[tokio::test]
async fn without_the_folder_it_says_which_one_is_missing() {
    let root = Farm::folders();
    let missing = root.path().join("elsewhere");
    let (metadata, _handle) =
        Metadata::new(MetadataConfig::new(missing.clone(), root.path().join("private")));
    let error = metadata.run(CancellationToken::new()).await.unwrap_err().to_string();
    assert_eq!(error, format!("failed to find the folder {}", missing.display()));
}

#[tokio::test]
async fn shutdown_ends_a_running_child_at_once() {
    let root = Farm::folders();
    let (script, started) = (root.path().join("hangs"), root.path().join("started"));
    fs::write(&script, "#!/bin/sh\n: > \"$(dirname \"$0\")/started\"\nsleep 600\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let farm = Farm::start_in(root, |config| config.createrepo = script);
    wait_for("it runs", || started.exists()).await;
    farm.stop().await;
}

/// Where a generation is.
fn at(farm: &Farm, number: u64) -> PathBuf {
    farm.repo().join("generations").join(number.to_string())
}

/// Every package that a generation lists is there with its digest; gives the file names without the
/// prefix.
fn whole(generation: &Path) -> Vec<String> {
    let listed = read(generation).unwrap();
    let mut names = Vec::new();
    for (path, digest) in listed {
        let bytes = fs::read(generation.join(&path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(Sha256::of(&bytes).to_string(), digest, "{path}");
        names.push(path.rsplit('/').next().unwrap().split_once('-').unwrap().1.to_owned());
    }
    names.sort();
    names
}

#[tokio::test]
async fn a_generation_stays_what_it_was_when_rpms_come_go_and_are_replaced() {
    let farm = Farm::start();
    let repo = farm.repo();
    let first = farm.wait(&Repository::Main, |_| true).await;
    assert!(first.fixed && first.listing.is_empty());
    publish_build(&repo, "one-1-1");
    publish_build(&repo, "two-1-1");
    let both = farm.wait(&Repository::Main, |generation| generation.packages == 2).await;
    assert!(both.fixed);
    let paths: Vec<_> = both.listing.iter().map(|package| package.path.as_str()).collect();
    assert_eq!(paths, ["one-1-1/one-1-1.rpm", "two-1-1/two-1-1.rpm"]);
    assert_eq!(whole(&at(&farm, both.number)), ["one-1-1.rpm", "two-1-1.rpm"]);
    let before = fs::read(at(&farm, both.number).join("repodata/repomd.xml")).unwrap();

    fs::remove_dir_all(repo.join("one-1-1")).unwrap();
    let other = farm.root.path().join("other");
    fs::write(&other, rpm_bytes("two", "7", BuildConfig::v4())).unwrap();
    fs::rename(&other, repo.join("two-1-1/two-1-1.rpm")).unwrap();
    fs::write(repo.join("c++ & <x>-1-1.noarch.rpm"), rpm("tricky")).unwrap();
    let listed = |generation: &Generation| {
        generation.number > both.number
            && generation.packages == 2
            && generation.listing[0].path.contains('&')
    };
    let last = farm.wait(&Repository::Main, listed).await;
    assert_eq!(whole(&at(&farm, last.number)), ["c++____x_-1-1.noarch.rpm", "two-1-1.rpm"]);
    assert_eq!(whole(&at(&farm, both.number)), ["one-1-1.rpm", "two-1-1.rpm"]);
    assert_eq!(fs::read(at(&farm, both.number).join("repodata/repomd.xml")).unwrap(), before);
    assert_eq!(whole(&at(&farm, first.number)), [""; 0]);

    // Nothing of it is in the metadata of the repository, also not for a server that knows nothing.
    let root = farm.stop().await;
    fs::remove_dir_all(root.path().join("private")).unwrap();
    fs::create_dir(root.path().join("private")).unwrap();
    // No number is given a second time either.
    fs::remove_dir_all(repo.join("repodata")).unwrap();
    fs::create_dir_all(repo.join("generations/.9/repodata")).unwrap();
    let farm = Farm::start_in(root, |_| {});
    let next = farm.wait(&Repository::Main, |_| true).await;
    assert_eq!((next.number, next.packages, next.fixed), (last.number + 1, 2, true));
    for generation in [&both, &last] {
        assert_eq!(whole(&at(&farm, generation.number)).len(), 2);
    }
    assert!(!repo.join("generations/.9").exists());
    farm.stop().await;
}

#[tokio::test]
async fn what_is_lost_or_cannot_be_made_is_made_at_the_next_look() {
    let root = Farm::folders();
    publish_build(&root.path().join("repo"), "one-1-1");
    // Something that is in the way.
    fs::write(root.path().join("repo/generations"), "").unwrap();
    let blind = |config: &mut MetadataConfig| {
        config.watch = false;
        config.rescan = Duration::from_millis(50);
    };
    let farm = Farm::start_in(root, blind);
    let first = farm.wait(&Repository::Main, |_| true).await;
    assert_eq!((first.packages, first.fixed), (1, false), "published all the same");
    fs::remove_file(farm.repo().join("generations")).unwrap();
    let fixed = farm.wait(&Repository::Main, |generation| generation.fixed).await;
    assert_eq!(fixed, Generation { fixed: true, ..first });
    assert_eq!(whole(&at(&farm, fixed.number)), ["one-1-1.rpm"]);
    let before = fs::read(at(&farm, fixed.number).join("repodata/repomd.xml")).unwrap();

    let root = farm.stop().await;
    fs::remove_dir_all(root.path().join("repo/generations")).unwrap();
    // As after a crash between the links and the rest.
    fs::create_dir_all(root.path().join("repo/generations/rpms")).unwrap();
    let farm = Farm::start_in(root, |_| {});
    assert_eq!(farm.wait(&Repository::Main, |_| true).await, fixed);
    assert_eq!(fs::read(at(&farm, fixed.number).join("repodata/repomd.xml")).unwrap(), before);
    farm.stop().await;
}

#[tokio::test]
async fn generations_go_when_nobody_needs_them_and_so_do_their_links() {
    let root = Farm::folders();
    let repo = root.path().join("repo");
    let hasty = |config: &mut MetadataConfig| {
        config.keep_generations = Duration::ZERO;
        config.generations_grace = Duration::ZERO;
        config.rescan = Duration::from_millis(50);
    };
    let farm = Farm::start_in(root, hasty);
    let mut numbers = Vec::new();
    for count in 1..=4 {
        publish_build(&repo, &format!("p{count}-1-1"));
        numbers.push(farm.wait(&Repository::Main, |generation| generation.packages == count).await.number);
    }
    for number in &numbers {
        assert!(at(&farm, *number).exists(), "until somebody says what is in use all stay");
    }
    fs::remove_dir_all(repo.join("p1-1-1")).unwrap();
    let last = farm.wait(&Repository::Main, |generation| generation.packages == 3).await.number;
    let links = || fs::read_dir(repo.join("generations/rpms")).unwrap().count();
    assert_eq!(links(), 4);

    farm.handle.in_use([(Repository::Main, [numbers[1]].into())].into());
    wait_for("the others go", || {
        [numbers[0], numbers[2], numbers[3]].iter().all(|n| !at(&farm, *n).exists())
    })
    .await;
    assert_eq!(whole(&at(&farm, numbers[1])), ["p1-1-1.rpm", "p2-1-1.rpm"], "it is in use");
    assert_eq!(whole(&at(&farm, last)).len(), 3, "it is served");
    assert_eq!(links(), 4);
    // A restart knows as much.
    let root = farm.stop().await;
    let farm = Farm::start_in(root, hasty);
    farm.wait(&Repository::Main, |_| true).await;
    assert!(at(&farm, numbers[1]).exists());
    farm.handle.in_use(BTreeMap::new());
    wait_for("it goes", || !at(&farm, numbers[1]).exists() && links() == 3).await;
    assert_eq!(whole(&at(&farm, last)).len(), 3);
    let names: Vec<_> =
        fs::read_dir(repo.join("generations")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    farm.stop().await;
}

/// Where everything lies in what is served is noted in a file that is a help, and no more.
#[tokio::test]
async fn whatever_has_become_of_the_index_what_is_served_next_is_right() {
    assert_eq!(logged("starts the log"), 0);
    let mut root = Farm::folders();
    let index = root.path().join("private/main/index.json");
    let (repo, shown) = (root.path().join("repo"), index.display().to_string());
    let (mut older, mut count) = (String::new(), 0);
    for (what, says) in [
        ("sound", None),
        ("cut off", Some(format!("{shown} is damaged"))),
        ("not there", None),
        ("beyond the file", Some("REPO: all metadata are made by createrepo_c this time".to_owned())),
        ("of another generation", Some(format!("{shown} is of another generation"))),
        ("sound", None),
    ] {
        match (what, fs::read_to_string(&index)) {
            ("cut off", Ok(text)) => fs::write(&index, &text[..text.len() / 2]).unwrap(),
            ("not there", Ok(text)) => {
                older = text;
                fs::remove_file(&index).unwrap();
            }
            ("beyond the file", Ok(text)) => {
                fs::write(&index, text.replace("\"offset\":", "\"offset\":9")).unwrap();
            }
            ("of another generation", Ok(_)) => fs::write(&index, &older).unwrap(),
            ("sound", _) => {}
            other => panic!("{other:?}"),
        }
        let times = || says.as_ref().map_or(0, |says| logged(says));
        let before = times();
        let farm = Farm::start_in(Arc::clone(&root), |_| {});
        for _ in 0..2 {
            publish_build(&repo, &format!("p{count}-1-1"));
            count += 1;
            let generation = farm.wait(&Repository::Main, |served| served.packages == count).await;
            assert!(generation.fixed, "{what}");
            assert_eq!(read(&repo).unwrap().len(), count, "{what}");
            assert_true_of_folder(&repo);
            assert_eq!(whole(&at(&farm, generation.number)).len(), count, "{what}");
        }
        root = farm.stop().await;
        assert_eq!(times() - before, usize::from(says.is_some()), "{what}");
    }
    assert_eq!(logged("are made by createrepo_c this time"), 1, "all others natively");
}

/// What dnf says on its standard output.
fn dnf(arguments: &[&str]) -> String {
    let output = std::process::Command::new("dnf").args(arguments).output().unwrap();
    assert!(output.status.success(), "dnf {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// As builders use it: the generation is not served any more, and its package is gone from REPO.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dnf_reads_and_installs_from_a_generation() {
    if check_program(Path::new("dnf")).is_err() {
        return println!("not run, because there is no dnf: run scripts/install-deps --with dnf");
    }
    let farm = Farm::start();
    let repo = farm.repo();
    publish_build(&repo, "one++-1-1");
    let number = farm.wait(&Repository::Main, |generation| generation.packages == 1).await.number;
    fs::remove_dir_all(repo.join("one++-1-1")).unwrap();
    farm.lists(&[]).await;

    let listener = Arc::new(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let folders = Folders { repo: repo.clone(), ..Folders::within(farm.root.path()) };
    let api = moji_server::api::Api::of_folders(Arc::new(folders));
    let serving = tokio::spawn(moji_server::http::serve(listener, api, farm.shutdown.clone()));
    let root = farm.root.path().to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let file = format!("file://{}/generations/{number}/", repo.display());
        for (kind, url) in [("file", file), ("http", format!("http://{address}/repo/generations/{number}/"))]
        {
            let (cache, installed) = (root.join(kind), root.join(format!("{kind}-root")));
            let options = [
                format!("--repofrompath=g,{url}"),
                format!("--setopt=cachedir={}", cache.display()),
                format!("--installroot={}", installed.display()),
            ];
            let [from, cache, into] = options.each_ref().map(String::as_str);
            let common = ["-q", "-y", "--repo=g", "--nogpgcheck", "--releasever=1", from, cache];
            let with = |more: &[&str]| dnf(&[&common[..], more].concat());
            let locations = with(&["repoquery", "--location"]);
            assert!(locations.trim_end().ends_with("-one++-1-1.rpm"), "{kind}: {locations}");
            // Only root can change its root.
            if rustix::process::geteuid().is_root() {
                with(&[into, "--setopt=tsflags=noscripts", "install", "one++-1-1"]);
                let output = std::process::Command::new("rpm")
                    .args(["-q", "one++-1-1", "--root"])
                    .arg(&installed)
                    .output();
                assert!(output.unwrap().status.success(), "{kind}: it is not installed");
            }
        }
    });
    timeout(DEADLINE * 2, asked).await.unwrap().unwrap();
    farm.stop().await;
    timeout(DEADLINE, serving).await.unwrap().unwrap();
}
