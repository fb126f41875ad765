//! The whole watch on real folders with real inotify, in real time.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use moji_proto::{SrpmName, TargetName};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::BuildKey;
use crate::source::testing::{Fake, SizeTag, srpm};
use crate::source::{Demand, Priority, QueuedSrpm, Requires, SourceConfig, SourceEvent, SrpmHeader, watch};

/// A SOURCE that is watched, with a folder on the same file system beside it.
pub(super) struct Watched {
    dir: tempfile::TempDir,
    events: mpsc::Receiver<SourceEvent>,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

pub(super) fn key(path: &str) -> BuildKey {
    let (target, name) = match path.split_once('/') {
        Some((target, name)) => (Some(TargetName::new(target).unwrap()), name),
        None => (None, path),
    };
    BuildKey { target, srpm: SrpmName::new(name).unwrap() }
}

impl Watched {
    /// Prepares SOURCE with `prepare`, then watches it, with times for impatient people.
    async fn start(prepare: impl FnOnce(&Watched)) -> Self {
        Self::with(|_| {}, prepare).await
    }

    pub(super) async fn with(
        configure: impl FnOnce(&mut SourceConfig),
        prepare: impl FnOnce(&Watched),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("SOURCE")).unwrap();
        let mut config = SourceConfig::new(dir.path().join("SOURCE"));
        config.settle = Duration::from_millis(100);
        config.broken_after = Duration::from_secs(1);
        configure(&mut config);
        let (sender, events) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let shutdown = stop.clone();
        let task = tokio::spawn(async move {
            wait.await?;
            watch(config, sender, shutdown).await
        });
        let watched = Self { dir, events, stop, task };
        prepare(&watched);
        go.send(()).unwrap();
        watched
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("SOURCE").join(name)
    }

    pub(super) fn aside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Writes it elsewhere, then renames it to its name.
    pub(super) fn move_in(&self, name: &str, bytes: &[u8]) {
        fs::write(self.aside("moving"), bytes).unwrap();
        fs::rename(self.aside("moving"), self.path(name)).unwrap();
    }

    async fn next(&mut self) -> SourceEvent {
        timeout(Duration::from_secs(20), self.events.recv())
            .await
            .expect("an event in time")
            .expect("an event")
    }

    pub(super) async fn ready(&mut self) {
        let event = self.next().await;
        assert!(matches!(event, SourceEvent::Ready), "{event:?}");
    }

    pub(super) async fn found(&mut self, path: &str) -> QueuedSrpm {
        match self.next().await {
            SourceEvent::Found(srpm) if srpm.key == key(path) => srpm,
            other => panic!("{path} was not found, but {other:?}"),
        }
    }

    async fn gone(&mut self, path: &str) {
        let event = self.next().await;
        assert!(matches!(&event, SourceEvent::Gone(is) if *is == key(path)), "{path}: {event:?}");
    }

    /// So many events about SRPMs, sorted: the order among different ones says nothing.
    async fn some(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(match self.next().await {
                SourceEvent::Found(srpm) => format!("found {}", srpm.key),
                SourceEvent::Gone(key) => format!("gone {key}"),
                other => panic!("{other:?}"),
            });
        }
        events.sort();
        events
    }

    async fn changing(&mut self, path: &str) {
        let event = self.next().await;
        assert!(matches!(&event, SourceEvent::Changing(is) if *is == key(path)), "{path}: {event:?}");
    }

    async fn broken(&mut self, path: &str) -> String {
        match self.next().await {
            SourceEvent::Broken { key: is, reason } if is == key(path) => reason,
            other => panic!("{path} was not broken, but {other:?}"),
        }
    }

    async fn list(&mut self) -> (Option<String>, Priority) {
        match self.next().await {
            SourceEvent::Priority { target, list } => (target.map(|t| t.to_string()), list),
            other => panic!("no list, but {other:?}"),
        }
    }

    async fn requires(&mut self) -> (Option<String>, Requires) {
        match self.next().await {
            SourceEvent::Requires { target, list } => (target.map(|t| t.to_string()), list),
            other => panic!("no list, but {other:?}"),
        }
    }

    /// Nothing is left to be said: what comes next is about an SRPM that arrives now.
    async fn silent(&mut self) {
        self.move_in("zz-last-1-1.src.rpm", &srpm("zz-last"));
        self.found("zz-last-1-1.src.rpm").await;
        fs::remove_file(self.path("zz-last-1-1.src.rpm")).unwrap();
        self.gone("zz-last-1-1.src.rpm").await;
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap().unwrap();
    }
}

fn header(name: &str) -> (SrpmName, SrpmHeader) {
    (SrpmName::new(format!("{name}-1-1.src.rpm")).unwrap(), super::priority::header(name, "1", "1"))
}

fn ranks(list: &Priority, name: &str) -> Option<u32> {
    let (name, header) = header(name);
    list.rank(&name, &header)
}

fn demand(list: &Requires, name: &str) -> Demand {
    let (name, header) = header(name);
    list.demand(&name, &header)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_at_the_start() {
    let mut watched = Watched::start(|w| {
        fs::create_dir_all(w.path("fedora-43-aarch64/deeper")).unwrap();
        w.put("a-1-1.src.rpm", &srpm("a"));
        w.put("fedora-43-aarch64/b-1-1.src.rpm", &srpm("b"));
        w.put("fedora-43-aarch64/deeper/c-1-1.src.rpm", &srpm("c"));
        w.put("notes.txt", b"hello");
        w.put(".hidden.src.rpm", &srpm("h"));
        w.put("d-1-1.src.rpm.part", &srpm("d"));
        w.put("e-1-1.nosrc.rpm", &srpm("e"));
        w.put("f 1.src.rpm", &srpm("f"));
        fs::create_dir(w.path("g-1-1.src.rpm")).unwrap();
        std::os::unix::fs::symlink(w.path("a-1-1.src.rpm"), w.path("h-1-1.src.rpm")).unwrap();
    })
    .await;
    let mut found = Vec::new();
    let mut readies = 0;
    while found.len() < 2 || readies == 0 {
        match watched.next().await {
            SourceEvent::Found(srpm) => found.push(srpm),
            SourceEvent::Ready => readies += 1,
            other => panic!("{other:?}"),
        }
    }
    found.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(found[0].key, key("a-1-1.src.rpm"));
    assert_eq!(found[0].header.nvr.as_str(), "a-1-1");
    assert_eq!(found[0].size, srpm("a").len() as u64);
    assert_eq!(found[1].key, key("fedora-43-aarch64/b-1-1.src.rpm"));
    watched.silent().await;
    watched.stop().await;
}

/// Far more than fit into the channel, or into one job: the order of the queue is known when it is
/// said to be.
#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_there_at_the_start_is_found_before_ready() {
    let mut watched = Watched::start(|w| {
        let bytes = srpm("a");
        for n in 0..2_000 {
            let mut file = fs::File::create(w.path(&format!("a{n}-1-1.src.rpm"))).unwrap();
            file.write_all(&bytes).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
    })
    .await;
    let mut found = BTreeSet::new();
    loop {
        match watched.next().await {
            SourceEvent::Found(srpm) => assert!(found.insert(srpm.key)),
            SourceEvent::Ready => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(found.len(), 2_000);
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_in_linked_removed_and_put_back() {
    let mut watched = Watched::start(|_| {}).await;
    watched.ready().await;
    watched.move_in("a-1-1.src.rpm", &srpm("a"));
    watched.found("a-1-1.src.rpm").await;
    fs::hard_link(watched.path("a-1-1.src.rpm"), watched.path("b-1-1.src.rpm")).unwrap();
    // The link changes the ctime of both names, and only one has an event.
    assert_eq!(watched.found("b-1-1.src.rpm").await.header.name, "a");
    fs::remove_file(watched.path("b-1-1.src.rpm")).unwrap();
    watched.gone("b-1-1.src.rpm").await;
    // As the farm does when it leases one out and takes it back.
    fs::rename(watched.path("a-1-1.src.rpm"), watched.aside("a")).unwrap();
    watched.gone("a-1-1.src.rpm").await;
    fs::rename(watched.aside("a"), watched.path("a-1-1.src.rpm")).unwrap();
    watched.found("a-1-1.src.rpm").await;
    watched.silent().await;
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_slowly_in_pieces() {
    let mut watched = Watched::with(|c| c.broken_after = Duration::from_secs(60), |_| {}).await;
    watched.ready().await;
    let bytes = Fake { payload: 300_000, ..Fake::new("slow", "1", "1") }.bytes();
    let mut file = fs::File::create(watched.path("slow-1-1.src.rpm")).unwrap();
    for piece in bytes.chunks(bytes.len() / 7 + 1) {
        file.write_all(piece).unwrap();
        file.flush().unwrap();
        // Something else goes on meanwhile: half a file is no reason to wait, and is not found.
        watched.silent().await;
    }
    drop(file);
    assert_eq!(watched.found("slow-1-1.src.rpm").await.size, bytes.len() as u64);
    watched.silent().await;
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn space_allocated_first() {
    let mut watched = Watched::with(|c| c.settle = Duration::from_secs(60), |_| {}).await;
    watched.ready().await;
    let bytes = srpm("sparse");
    let mut file = fs::File::create(watched.path("sparse-1-1.src.rpm")).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write_all(&bytes[..1_000]).unwrap();
    // All of its size and its headers are there, but not all of its bytes.
    watched.silent().await;
    file.write_all(&bytes[1_000..]).unwrap();
    drop(file);
    watched.found("sparse-1-1.src.rpm").await;
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_then_finished_half_for_ever_and_truncated() {
    let mut watched = Watched::start(|_| {}).await;
    watched.ready().await;
    let bytes = srpm("half");
    watched.put("half-1-1.src.rpm", &bytes[..3_000]);
    let mut file = OpenOptions::new().append(true).open(watched.path("half-1-1.src.rpm")).unwrap();
    file.write_all(&bytes[3_000..]).unwrap();
    drop(file);
    watched.found("half-1-1.src.rpm").await;

    OpenOptions::new().write(true).open(watched.path("half-1-1.src.rpm")).unwrap().set_len(2_000).unwrap();
    watched.changing("half-1-1.src.rpm").await;
    let reason = watched.broken("half-1-1.src.rpm").await;
    assert_eq!(reason, format!("it has 2000 of {} bytes: its copy stopped before the end", bytes.len()));
    // Once: the receiver is the one to move it.
    watched.silent().await;
    watched.put("half-1-1.src.rpm", &bytes);
    watched.found("half-1-1.src.rpm").await;
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_becomes_an_srpm() {
    let mut watched = Watched::start(|_| {}).await;
    watched.ready().await;
    let binary = Fake { source: false, ..Fake::new("binary", "1", "1") }.bytes();
    watched.move_in("binary-1-1.src.rpm", &binary);
    assert_eq!(watched.broken("binary-1-1.src.rpm").await, "it is a binary RPM, not a source package");
    watched.put("empty-1-1.src.rpm", b"");
    assert_eq!(watched.broken("empty-1-1.src.rpm").await, "it is empty (0 bytes)");
    watched.put("html-1-1.src.rpm", b"<html>404 not found");
    assert_eq!(watched.broken("html-1-1.src.rpm").await, "it is not an RPM package");
    let mut long = srpm("long");
    long.extend(b"more");
    watched.put("long-1-1.src.rpm", &long);
    let reason = watched.broken("long-1-1.src.rpm").await;
    assert!(reason.ends_with("bytes, 4 more than its header says"), "{reason}");
    fs::remove_file(watched.path("long-1-1.src.rpm")).unwrap();
    watched.gone("long-1-1.src.rpm").await;
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_by_other_content() {
    let mut watched = Watched::start(|_| {}).await;
    watched.ready().await;
    watched.move_in("a-1-1.src.rpm", &srpm("a"));
    watched.found("a-1-1.src.rpm").await;
    watched.move_in("a-1-1.src.rpm", &srpm("other"));
    assert_eq!(watched.found("a-1-1.src.rpm").await.header.name, "other");
    // And by no file at all.
    fs::remove_file(watched.path("a-1-1.src.rpm")).unwrap();
    fs::create_dir(watched.path("a-1-1.src.rpm")).unwrap();
    watched.gone("a-1-1.src.rpm").await;
    watched.silent().await;
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_does_not_say_how_long_it_is() {
    let mut watched = Watched::start(|_| {}).await;
    watched.ready().await;
    let bytes = Fake { size: SizeTag::None, ..Fake::new("unsized", "1", "1") }.bytes();
    watched.move_in("unsized-1-1.src.rpm", &bytes);
    assert_eq!(watched.found("unsized-1-1.src.rpm").await.size, bytes.len() as u64);
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn target_folders_come_and_go() {
    let mut watched = Watched::start(|_| {}).await;
    watched.ready().await;
    fs::create_dir(watched.path("epel-9")).unwrap();
    watched.put("epel-9/a-1-1.src.rpm", &srpm("a"));
    watched.found("epel-9/a-1-1.src.rpm").await;
    watched.move_in("epel-9/b-2-2.src.rpm", &Fake::new("b", "2", "2").bytes());
    watched.found("epel-9/b-2-2.src.rpm").await;
    fs::rename(watched.path("epel-9"), watched.path("epel-10")).unwrap();
    let wanted = ["found epel-10/a-1-1", "found epel-10/b-2-2", "gone epel-9/a-1-1", "gone epel-9/b-2-2"];
    assert_eq!(watched.some(4).await, wanted.map(|event| format!("{event}.src.rpm")));
    fs::remove_dir_all(watched.path("epel-10")).unwrap();
    let wanted = ["gone epel-10/a-1-1", "gone epel-10/b-2-2"];
    assert_eq!(watched.some(2).await, wanted.map(|event| format!("{event}.src.rpm")));
    // The same name again: another folder, watched anew.
    fs::create_dir(watched.path("epel-9")).unwrap();
    watched.put("epel-9/c-1-1.src.rpm", &srpm("c"));
    watched.found("epel-9/c-1-1.src.rpm").await;
    watched.move_in("epel-9/d-1-1.src.rpm", &srpm("d"));
    watched.found("epel-9/d-1-1.src.rpm").await;
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_edited_in_place_renamed_and_removed() {
    let mut watched = Watched::start(|w| {
        fs::create_dir(w.path("epel-9")).unwrap();
        w.put("priority.txt", b"first\n");
    })
    .await;
    let (mut lists, mut readies) = (Vec::new(), 0);
    while lists.is_empty() || readies == 0 {
        match watched.next().await {
            SourceEvent::Priority { target: None, list } => lists.push(list),
            SourceEvent::Ready => readies += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ranks(&lists[0], "first"), Some(1));
    // In place, and the writer takes his time after truncating: nobody sees an empty list.
    let mut file = fs::File::create(watched.path("priority.txt")).unwrap();
    watched.silent().await;
    file.write_all(b"# new\nsecond\n").unwrap();
    drop(file);
    let (_, list) = watched.list().await;
    assert_eq!((ranks(&list, "first"), ranks(&list, "second")), (None, Some(2)));
    // As vi does: the old one renamed away, a new one written.
    fs::rename(watched.path("priority.txt"), watched.path("priority.txt~")).unwrap();
    watched.silent().await;
    watched.put("priority.txt", b"third");
    assert_eq!(ranks(&watched.list().await.1, "third"), Some(1));
    watched.move_in("priority.txt", b"fou*");
    assert_eq!(ranks(&watched.list().await.1, "fourth"), Some(1));
    fs::remove_file(watched.path("priority.txt")).unwrap();
    assert!(watched.list().await.1.is_empty());
    watched.put("epel-9/priority.txt", b"a\nb");
    let (target, list) = watched.list().await;
    assert_eq!((target.as_deref(), list.len()), (Some("epel-9"), 2));
    fs::remove_dir_all(watched.path("epel-9")).unwrap();
    let (target, list) = watched.list().await;
    assert_eq!((target.as_deref(), list.len()), (Some("epel-9"), 0));
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_of_lists() {
    let mut watched = Watched::start(|w| {
        fs::create_dir(w.path("epel-9")).unwrap();
        w.put("priority.txt", b"first\n");
        w.put("requires.txt", b"* cores=2\n");
        w.put("epel-9/requires.txt", b"* cores=3\n");
    })
    .await;
    let (mut lists, mut priorities, mut readies) = (Vec::new(), 0, 0);
    while lists.len() < 2 || priorities == 0 || readies == 0 {
        match watched.next().await {
            SourceEvent::Priority { target: None, .. } => priorities += 1,
            SourceEvent::Requires { target, list } => {
                lists.push((target.map(|target| target.to_string()), demand(&list, "a").cores));
            }
            SourceEvent::Ready => readies += 1,
            other => panic!("{other:?}"),
        }
    }
    lists.sort();
    assert_eq!(lists, [(None, 2), (Some("epel-9".to_owned()), 3)]);
    // In place, and the writer takes his time after truncating: nobody sees an empty list.
    let mut file = fs::File::create(watched.path("requires.txt")).unwrap();
    watched.silent().await;
    file.write_all(b"a cores=4\n").unwrap();
    drop(file);
    assert_eq!(demand(&watched.requires().await.1, "a").cores, 4);
    // As vi does: the old one renamed away, a new one written.
    fs::rename(watched.path("requires.txt"), watched.path("requires.txt~")).unwrap();
    watched.silent().await;
    watched.put("requires.txt", b"a cores=5");
    assert_eq!(demand(&watched.requires().await.1, "a").cores, 5);
    // The other list knows nothing of it, nor does that of the target.
    watched.move_in("priority.txt", b"b\na\n");
    assert_eq!(ranks(&watched.list().await.1, "a"), Some(2));
    fs::remove_file(watched.path("epel-9/requires.txt")).unwrap();
    let (target, list) = watched.requires().await;
    assert_eq!((target.as_deref(), list.is_empty()), (Some("epel-9"), true));
    fs::remove_file(watched.path("requires.txt")).unwrap();
    let (target, list) = watched.requires().await;
    assert_eq!((target, list.is_empty()), (None, true));
    watched.silent().await;
    watched.stop().await;
}

/// SRPMs for two targets, linked into folders that were not there a moment before.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_one_file_for_two_targets() {
    let mut watched = Watched::with(|c| c.rescan = Duration::from_millis(100), |_| {}).await;
    watched.ready().await;
    let names: Vec<_> = (0..50).map(|n| format!("p{n}-1-1.src.rpm")).collect();
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    for name in &names {
        fs::write(watched.aside(name), srpm("p")).unwrap();
        // By its age such a file is never quiet.
        fs::File::options().write(true).open(watched.aside(name)).unwrap().set_modified(tomorrow).unwrap();
    }
    for target in ["f43", "f44"] {
        fs::create_dir(watched.path(target)).unwrap();
        for name in &names {
            fs::hard_link(watched.aside(name), watched.path(target).join(name)).unwrap();
        }
    }
    let mut missing: BTreeSet<_> =
        names.iter().flat_map(|name| ["f43", "f44"].map(|target| key(&format!("{target}/{name}")))).collect();
    while !missing.is_empty() {
        match watched.next().await {
            SourceEvent::Found(srpm) => missing.remove(&srpm.key),
            other => panic!("{other:?}"),
        };
    }
    // As the farm does: leased, and finished; only a rescan tells of it in the other folder.
    fs::create_dir(watched.aside("WORKING")).unwrap();
    for (n, name) in names.iter().enumerate() {
        let working = watched.aside("WORKING").join(name);
        fs::rename(watched.path("f43").join(name), &working).unwrap();
        if n % 2 == 0 {
            fs::remove_file(working).unwrap();
        }
    }
    let mut leased: BTreeSet<_> = names.iter().map(|name| key(&format!("f43/{name}"))).collect();
    let mut seen: BTreeSet<_> = names.iter().map(|name| key(&format!("f44/{name}"))).collect();
    while !leased.is_empty() || !seen.is_empty() {
        match watched.next().await {
            SourceEvent::Gone(key) => assert!(leased.remove(&key), "{key} is gone"),
            SourceEvent::Found(srpm) if srpm.key.target == key("f44/p0-1-1.src.rpm").target => {
                seen.remove(&srpm.key);
            }
            // Of the time when the folders were filled.
            SourceEvent::Found(_) => {}
            other => panic!("{other:?}"),
        }
    }
    watched.stop().await;
}

/// More happens than anybody hears of: what was lost is found by looking.
#[tokio::test(flavor = "multi_thread")]
async fn hints_are_lost() {
    let mut watched = Watched::with(|c| c.rescan = Duration::from_millis(300), |_| {}).await;
    watched.ready().await;
    // The watch waits for the receiver, who does not come: its channels overflow meanwhile.
    let bytes = srpm("a");
    for n in 0..6_000 {
        watched.move_in(&format!("a{n}-1-1.src.rpm"), &bytes);
    }
    let mut found = BTreeSet::new();
    while found.len() < 6_000 {
        if let SourceEvent::Found(srpm) = watched.next().await {
            found.insert(srpm.key);
        }
    }
    for n in 0..3_000 {
        fs::remove_file(watched.path(&format!("a{n}-1-1.src.rpm"))).unwrap();
    }
    while found.len() > 3_000 {
        if let SourceEvent::Gone(key) = watched.next().await {
            found.remove(&key);
        }
    }
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_while_nobody_listens() {
    let mut watched = Watched::start(|w| {
        for n in 0..300 {
            w.put(&format!("a{n}-1-1.src.rpm"), &srpm("a"));
        }
    })
    .await;
    watched.next().await;
    watched.stop().await;
}

#[tokio::test]
async fn no_folder_no_watch() {
    let (sender, _events) = mpsc::channel(1);
    let dir = tempfile::tempdir().unwrap();
    let config = SourceConfig::new(dir.path().join("nothing"));
    let error = watch(config, sender, CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().starts_with("failed to list "), "{error}");
}
