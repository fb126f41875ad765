//! Supervision of real processes: a shell script plays Mock and misbehaves on demand.
//!
//! Real processes, so a real clock: nothing here waits for a time, only for conditions, with a
//! generous deadline.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how tests fail")]

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use moji_client::mock::configs::{ProbeError, probe};
use moji_client::mock::run::{Job, Limits, Report, environment, run};
use moji_client::mock::sweep::{ClearError, clear, sweep};
use moji_client::mock::{Argv, Build, Ended, Root, UniqueExt};
use tokio_util::sync::CancellationToken;

const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake-mock.sh");

struct Fixture {
    dir: tempfile::TempDir,
    job: Job,
}

impl Fixture {
    fn new(mode: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let root = Root::new(FAKE, "fedora-43-x86_64", UniqueExt::new("slot-3").unwrap(), vec![]).unwrap();
        let build =
            Build { resultdir: path("results"), srpm: "/srv/a-1-1.src.rpm".into(), add_repos: vec![] };
        let mut env = environment(std::env::vars_os());
        env.push(("HOSTMOCK_MODE".into(), mode.into()));
        env.push(("HOSTMOCK_DIR".into(), dir.path().into()));
        let job = Job {
            argv: root.rebuild(&build).unwrap(),
            root,
            env,
            mock_log: path("mock.log"),
            cleanup_log: path("cleanup.log"),
            watched: vec![path("build.log")],
            disks: vec![dir.path().into()],
            limits: Limits { grace: Duration::from_millis(500), ..Limits::default() },
        };
        Self { dir, job }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The commands that cleaned up, in order.
    fn calls(&self) -> Vec<String> {
        self.read("calls").lines().map(str::to_owned).collect()
    }

    fn alive(&self, file: &str) -> bool {
        alive(self.read(file).trim())
    }

    async fn run(&self) -> Report {
        within(run(&self.job, &CancellationToken::new())).await
    }

    /// Runs, and cancels when the fake is ready.
    async fn run_and_cancel(&self) -> Report {
        let cancel = CancellationToken::new();
        let when_ready = async {
            until("the fake is ready", || self.path("pid").exists()).await;
            cancel.cancel();
        };
        within(async { tokio::join!(run(&self.job, &cancel), when_ready).0 }).await
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("no end in 60 s")
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Whether a process runs. One that ended and that nobody reaped yet does not.
fn alive(pid: &str) -> bool {
    assert!(!pid.is_empty(), "no process id");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn ends_by_itself() {
    for (mode, code) in [("succeeds", 0), ("fails", 30)] {
        let fixture = Fixture::new(mode);
        let report = fixture.run().await;
        assert_eq!(report.ended, Ended::Exit(code));
        let log = fixture.read("mock.log");
        assert!(log.contains("--rebuild /srv/a-1-1.src.rpm") && log.contains("on standard error"), "{log}");
        assert!(fixture.calls().is_empty(), "Mock cleans up by itself");
    }
}

#[tokio::test]
async fn mock_gets_files_and_no_secrets() {
    let mut fixture = Fixture::new("looks");
    let all = [("MOJI_PASSWORD", "geheim"), ("PATH", "/usr/bin:/bin"), ("LC_ALL", "C")];
    let all = all.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let own = fixture.job.env.iter().filter(|(name, _)| name.to_string_lossy().starts_with("HOSTMOCK_"));
    fixture.job.env = environment(all).into_iter().chain(own.cloned()).collect();
    assert_eq!(fixture.run().await.ended, Ended::Exit(0));
    let log = fixture.path("mock.log");
    assert_eq!(fixture.read("fds"), format!("/dev/null\n{0}\n{0}\n", log.display()));
    let env = fixture.read("env");
    assert!(env.contains("LC_ALL=C") && !env.contains("geheim") && !env.contains("CARGO"), "{env}");
}

#[tokio::test]
async fn free_space_is_watched() {
    let mut fixture = Fixture::new("writes-slowly");
    fixture.job.limits.stall_timeout = Some(Duration::from_secs(20));
    let report = fixture.run().await;
    assert!(report.lowest_free.is_some(), "{report:?}");
}

#[tokio::test]
async fn free_space_is_looked_at_once_more_at_the_end_of_a_short_build() {
    let mut fixture = Fixture::new("looks");
    // Nothing tells of it before Mock has made it.
    fixture.job.disks = vec![fixture.path("env")];
    let report = fixture.run().await;
    assert!(report.lowest_free.is_some(), "{report:?}");
}

#[tokio::test]
async fn a_program_that_is_not_there() {
    let mut fixture = Fixture::new("succeeds");
    fixture.job.argv = Argv { program: "/no/such/mock".into(), args: vec![] };
    let Ended::NotStarted(why) = fixture.run().await.ended else { panic!() };
    assert!(why.contains("/no/such/mock") && why.contains("No such file"), "{why}");
}

#[tokio::test]
async fn cancelled_before_it_began() {
    let fixture = Fixture::new("succeeds");
    let cancel = CancellationToken::new();
    cancel.cancel();
    assert_eq!(run(&fixture.job, &cancel).await.ended, Ended::Cancelled);
    assert!(!fixture.path("mock.log").exists());
}

#[tokio::test]
async fn nothing_of_its_group_outlives_it() {
    let fixture = Fixture::new("leaves-a-child");
    assert_eq!(fixture.run().await.ended, Ended::Exit(0));
    until("its child is dead", || !fixture.alive("child")).await;
}

#[tokio::test]
async fn cancel_by_sigterm() {
    let fixture = Fixture::new("ends-by-term");
    assert_eq!(fixture.run_and_cancel().await.ended, Ended::Cancelled);
    assert!(!fixture.alive("pid"));
    // Mock ended its processes, but left the chroot.
    assert_eq!(fixture.calls(), ["term", "clean"]);
}

#[tokio::test]
async fn cancel_by_orphanskill_when_sigterm_does_nothing() {
    let fixture = Fixture::new("waits-for-rpmbuild");
    assert_eq!(fixture.run_and_cancel().await.ended, Ended::Cancelled);
    assert!(!fixture.alive("pid"));
    assert_eq!(fixture.calls(), ["orphanskill", "clean"]);
}

#[tokio::test]
async fn cancel_by_sigkill_leaves_no_rpmbuild() {
    let fixture = Fixture::new("deaf");
    assert_eq!(fixture.run_and_cancel().await.ended, Ended::Cancelled);
    assert!(!fixture.alive("pid"));
    assert!(!fixture.alive("hidden"), "rpmbuild lives on");
    assert_eq!(fixture.calls(), ["orphanskill", "orphanskill", "clean"]);
}

#[tokio::test]
async fn killed_from_outside() {
    let fixture = Fixture::new("kills-itself");
    assert_eq!(fixture.run().await.ended, Ended::Signal(9));
    assert_eq!(fixture.calls(), ["orphanskill", "clean"]);
    assert!(!fixture.path("orphan").exists(), "rpmbuild lives on");
}

#[tokio::test]
async fn a_silent_one_is_stalled() {
    let mut fixture = Fixture::new("silent");
    fixture.job.limits.stall_timeout = Some(Duration::from_millis(300));
    assert_eq!(fixture.run().await.ended, Ended::Stalled);
    assert!(!fixture.alive("pid"));
    assert_eq!(fixture.calls(), ["orphanskill", "clean"], "sleep died by the signal: no handler ran");
}

#[tokio::test]
async fn a_slow_one_is_not_stalled() {
    let mut fixture = Fixture::new("writes-slowly");
    // It writes every 0.1 s, for 2 s.
    fixture.job.limits.stall_timeout = Some(Duration::from_millis(1500));
    assert_eq!(fixture.run().await.ended, Ended::Exit(0));
}

#[tokio::test]
async fn the_time_limit_holds_for_one_that_writes() {
    let mut fixture = Fixture::new("writes-for-ever");
    fixture.job.limits.build_timeout = Some(Duration::from_millis(300));
    fixture.job.limits.stall_timeout = Some(Duration::from_secs(50));
    assert_eq!(fixture.run().await.ended, Ended::TimedOut);
    until("it is dead", || !fixture.path("pid").exists() || !fixture.alive("pid")).await;
}

#[tokio::test]
async fn a_dropped_run_ends_mock() {
    let fixture = Fixture::new("ends-by-term");
    let job = fixture.job.clone();
    let task = tokio::spawn(async move { run(&job, &CancellationToken::new()).await });
    until("the fake is ready", || fixture.path("pid").exists()).await;
    task.abort();
    until("Mock got SIGTERM", || fixture.calls() == ["term"]).await;
    until("Mock is dead", || !fixture.alive("pid")).await;
}

#[tokio::test]
async fn cleaning_is_bounded() {
    let mut fixture = Fixture::new("clean-hangs");
    fixture.job.limits.clean_timeout = Duration::from_millis(300);
    // The mode says nothing about the build itself: it waits.
    assert_eq!(fixture.run_and_cancel().await.ended, Ended::Cancelled);
    assert_eq!(fixture.calls().last().map(String::as_str), Some("clean"));
}

#[tokio::test]
async fn a_sweep_waits_for_a_locked_root() {
    let fixture = Fixture::new("succeeds");
    std::fs::write(fixture.path("locked"), "").unwrap();
    let Job { root, env, cleanup_log, limits, .. } = &fixture.job;
    let swept = within(sweep(std::slice::from_ref(root), env, cleanup_log, limits)).await;
    assert_eq!(swept, [(UniqueExt::new("slot-3").unwrap(), Ok(()))]);
    assert_eq!(fixture.calls(), ["orphanskill", "clean", "orphanskill", "clean"]);
    assert!(fixture.read("cleanup.log").contains("locked by another process"));
}

#[tokio::test]
async fn a_root_that_cannot_be_cleaned() {
    let fixture = Fixture::new("clean-fails");
    let Job { root, env, cleanup_log, limits, .. } = &fixture.job;
    let cleared = within(clear(root, env, cleanup_log, limits, false)).await;
    assert_eq!(cleared, Err(ClearError::Failed(20)));
    let locked = Limits { clean_timeout: Duration::from_millis(900), ..limits.clone() };
    std::fs::write(fixture.path("locked"), "").unwrap();
    assert_eq!(within(clear(root, env, cleanup_log, &locked, false)).await, Err(ClearError::Locked));
}

#[tokio::test]
async fn probing() {
    let fixture = Fixture::new("succeeds");
    let ask = async |program: &Path, mode: &str| {
        let fixture = Fixture::new(mode);
        within(probe(program.as_os_str(), &fixture.job.env)).await
    };
    assert_eq!(ask(Path::new(FAKE), "succeeds").await.unwrap(), "6.7");
    let error = ask(Path::new("no-such-mock"), "succeeds").await.unwrap_err();
    assert!(matches!(error, ProbeError::NotFound(_)) && error.to_string().contains("install"), "{error}");
    let plain = fixture.path("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    let error = ask(&plain, "succeeds").await.unwrap_err();
    assert!(matches!(error, ProbeError::NotExecutable { .. }), "{error}");
    let error = ask(Path::new(FAKE), "no-group").await.unwrap_err();
    assert!(matches!(error, ProbeError::NotInGroup { .. }), "{error}");
    let error = ask(Path::new(FAKE), "broken").await.unwrap_err();
    assert!(error.to_string().contains("ImportError: no module"), "{error}");
    let path = [(OsString::from("PATH"), OsString::from(Path::new(FAKE).parent().unwrap()))];
    let found = within(probe(OsStr::new("fake-mock.sh"), &path)).await;
    assert_eq!(found.unwrap(), "6.7");
}
