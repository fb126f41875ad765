use std::fs;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::dependency::Requirement;
use crate::rpm_file::Bytes;
use crate::verify::testing::{Made, numbers, texts};

/// No condition takes this long unless it never comes true.
const DEADLINE: Duration = Duration::from_secs(30);

/// A repository, its generation, and each package's path and stamp.
type Listed<'a> = (Repository, u64, &'a [(&'a str, u64)]);

struct Scene {
    repo: tempfile::TempDir,
    served: watch::Sender<Served>,
    changes: mpsc::Receiver<RepositoryChange>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Scene {
    fn new() -> Self {
        let repo = tempfile::tempdir().unwrap();
        let (served, receiver) = watch::channel(Served::new());
        let (to, changes) = mpsc::channel(1);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(follow(repo.path().to_owned(), receiver, to, shutdown.clone()));
        Self { repo, served, changes, shutdown, task }
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.repo.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Publishes generations.
    fn serve(&self, repositories: &[Listed<'_>]) {
        let package = |(path, inode): &(&str, u64)| Package {
            path: (*path).to_owned(),
            size: 3,
            modified: (4, 5),
            inode: *inode,
        };
        let generation = |(repository, number, packages): &Listed<'_>| {
            let listing: Arc<[Package]> = packages.iter().map(package).collect();
            let packages = listing.len();
            let (repository, number) = (repository.clone(), *number);
            (repository.clone(), Generation { repository, number, packages, listing, fixed: false })
        };
        self.served.send(repositories.iter().map(generation).collect()).unwrap();
    }

    /// The next change: repository, generation, names that came, paths that went.
    async fn next(&mut self) -> (String, u64, Vec<String>, Vec<String>) {
        let change = timeout(DEADLINE, self.changes.recv()).await.unwrap().unwrap();
        let RepositoryChange { repository, generation, added, removed } = change;
        let added = added.iter().map(|package| package.name.to_string()).collect();
        (repository.to_string(), generation, added, removed.iter().map(ToString::to_string).collect())
    }
}

fn told(
    repository: &str,
    generation: u64,
    added: &[&str],
    removed: &[&str],
) -> (String, u64, Vec<String>, Vec<String>) {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    (repository.to_owned(), generation, texts(added), texts(removed))
}

fn rpm(name: &'static str) -> Vec<u8> {
    Made { name, ..Made::binary() }.bytes()
}

#[tokio::test]
async fn what_comes_and_goes_is_told_once() {
    let mut scene = Scene::new();
    let f43 = || Repository::Nested("f43".to_owned());
    // An empty repository is told of too.
    scene.serve(&[(Repository::Main, 7, &[])]);
    assert_eq!(scene.next().await, told("REPO", 7, &[], &[]));
    scene.put("a-1-1/a.rpm", &rpm("a"));
    scene.put("a-1-1/a.src.rpm", &Made::source().bytes());
    scene.put("b.rpm", &rpm("b"));
    scene.put("garbage.rpm", b"garbage");
    scene.put("f43/c.rpm", &rpm("c"));
    scene.serve(&[
        (
            Repository::Main,
            8,
            &[("a-1-1/a.rpm", 1), ("a-1-1/a.src.rpm", 2), ("b.rpm", 3), ("garbage.rpm", 4), ("gone.rpm", 5)],
        ),
        (f43(), 1, &[("c.rpm", 6)]),
    ]);
    assert_eq!(scene.next().await, told("REPO", 8, &["a", "b"], &[]));
    assert_eq!(scene.next().await, told("REPO/f43", 1, &["c"], &[]));
    // One is replaced, one goes, one comes, one is what it was: that is not read again.
    scene.put("a-1-1/a.rpm", &rpm("unread"));
    scene.put("b.rpm", &rpm("b2"));
    scene.put("d.rpm", &rpm("d"));
    scene.serve(&[
        (Repository::Main, 9, &[("a-1-1/a.rpm", 1), ("b.rpm", 33), ("d.rpm", 7)]),
        (f43(), 1, &[("c.rpm", 6)]),
    ]);
    let removed = ["a-1-1/a.src.rpm", "b.rpm", "garbage.rpm", "gone.rpm"];
    assert_eq!(scene.next().await, told("REPO", 9, &["b2", "d"], &removed));
    // A repository goes, and comes again; of the other one nothing is said.
    let main = (Repository::Main, 9, &[("a-1-1/a.rpm", 1), ("b.rpm", 33), ("d.rpm", 7)][..]);
    scene.serve(std::slice::from_ref(&main));
    assert_eq!(scene.next().await, told("REPO/f43", 0, &[], &["c.rpm"]));
    scene.serve(&[main, (f43(), 1, &[("c.rpm", 6)])]);
    assert_eq!(scene.next().await, told("REPO/f43", 1, &["c"], &[]));
    scene.shutdown.cancel();
    timeout(DEADLINE, scene.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_the_disk_did_not_give_is_tried_again() {
    let mut scene = Scene::new();
    scene.put("elsewhere", &rpm("a"));
    let link = scene.repo.path().join("a.rpm");
    std::os::unix::fs::symlink("elsewhere", &link).unwrap();
    scene.serve(&[(Repository::Main, 1, &[("a.rpm", 1)])]);
    assert_eq!(scene.next().await, told("REPO", 1, &[], &[]));
    fs::remove_file(link).unwrap();
    scene.put("a.rpm", &rpm("a"));
    scene.serve(&[(Repository::Main, 2, &[("a.rpm", 1)])]);
    assert_eq!(scene.next().await, told("REPO", 2, &["a"], &[]));
    scene.serve(&[(Repository::Main, 3, &[("a.rpm", 1)])]);
    assert_eq!(scene.next().await, told("REPO", 3, &[], &[]));
}

#[tokio::test]
async fn it_ends_when_told_to_although_nobody_listens() {
    let scene = Scene::new();
    // One change fits into the channel, the second waits.
    for name in ["a", "b", "c"] {
        fs::create_dir(scene.repo.path().join(name)).unwrap();
    }
    let nested = |name: &str| (Repository::Nested(name.to_owned()), 1, &[][..]);
    scene.serve(&["a", "b", "c"].map(nested));
    let full = async {
        while scene.changes.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, full).await.unwrap();
    scene.shutdown.cancel();
    timeout(DEADLINE, scene.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn it_ends_with_whom_it_works_for() {
    let Scene { served, task, changes, .. } = Scene::new();
    drop(served);
    timeout(DEADLINE, task).await.unwrap().unwrap();
    drop(changes);
    let scene = Scene::new();
    drop(scene.changes);
    let generation = Generation {
        repository: Repository::Main,
        number: 1,
        packages: 0,
        listing: Arc::new([]),
        fixed: false,
    };
    scene.served.send(Served::from([(Repository::Main, generation)])).unwrap();
    timeout(DEADLINE, scene.task).await.unwrap().unwrap();
}

fn described(bytes: &[u8]) -> Result<PublishedPackage, String> {
    package::of(&Bytes(bytes), bytes.len() as u64, "x/foo.rpm").unwrap()
}

#[test]
fn what_a_package_offers() {
    let made = Made {
        main: vec![
            (1003, numbers(&[2])),
            (1047, texts(&["foo", "pkgconfig(foo)", "libfoo.so.1()(64bit)"])),
            (1112, numbers(&[8, 8, 0])),
            (1113, texts(&["2:1-1", "1.5", ""])),
        ],
        ..Made::binary()
    };
    let package = described(&made.bytes()).unwrap();
    assert_eq!((&*package.name, package.evr.as_str(), &*package.arch), ("foo", "2:1-1", "x86_64"));
    assert_eq!((package.path.as_str(), package.source.as_deref()), ("x/foo.rpm", Some("foo-1-1.src.rpm")));
    let provides: Vec<_> = package.provides.iter().map(ToString::to_string).collect();
    assert_eq!(provides, ["foo = 2:1-1", "pkgconfig(foo) = 1.5", "libfoo.so.1()(64bit)"]);
    let helps =
        |text: &str| text.parse::<Requirement>().unwrap().helped_by(&package.provides, &package.files);
    assert!(
        ["/usr/bin/foo", "/etc/foo.conf", "/", "foo > 1:7", "pkgconfig(foo) >= 1.5"].map(helps) == [true; 5]
    );
    assert!(["/usr/bin/bar", "foo.conf", "foo < 2", "pkgconfig(foo) > 1.5"].map(helps) == [false; 4]);
    // Of itself, if it does not say so.
    let provides = described(&Made::binary().bytes()).unwrap().provides;
    assert_eq!(provides.iter().map(ToString::to_string).collect::<Vec<_>>(), ["foo = 1-1"]);
}

#[test]
fn what_offers_nothing() {
    assert_eq!(described(&Made::source().bytes()).unwrap_err(), "it is a source package");
    assert_eq!(described(b"<html>").unwrap_err(), "it is no RPM");
    assert_eq!(described(&rpm("foo")[..200]).unwrap_err(), "it ends within its RPM header");
    assert_eq!(described(&rpm("f\u{1b}[2J")).unwrap_err(), "it has no usable name");
    let without = Made { without: vec![1001], ..Made::binary() };
    assert_eq!(described(&without.bytes()).unwrap_err(), "it has no usable version");
}

#[test]
fn flipped_bytes_never_panic() {
    let bytes = rpm("foo");
    for at in 0..bytes.len() - 3_000 {
        for flip in [0x01, 0x02, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            let _ = described(&bytes);
        }
    }
}
