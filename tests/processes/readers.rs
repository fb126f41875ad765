//! Many who look on while builders build: they cost the farm no time that counts, and one that does not read is dropped.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use moji_proto::api::Overview;
use moji_tests::support::processes::{DEADLINE, Farm, let_pass, now, tiny, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;

/// Stands for Mock: a package called chatty writes on its log until there is a file `stop`, the one called
/// chatty0 a great deal at once; others say when they were started, and fail as a package does.
const FAKE: &str = "#!/bin/sh
now=$(date +%s%N)
for argument; do
    case $argument in
        --version) echo 6.7; exit 0 ;;
        --clean | --orphanskill) exit 0 ;;
        --resultdir=*) results=${argument#*=} ;;
        *chatty*) name=$argument ;;
    esac
done
echo \"$now\" >\"$results/started.log\"
echo 'x - Start: rpmbuild x' >\"$results/state.log\"
case ${name-} in
    *chatty0*) yes 'a line of a log that is written for nobody' | head -c 16000000 >\"$results/build.log\" ;;
esac
[ -z \"${name-}\" ] || while [ ! -e STOP ]; do
    date '+%s.%N a line of a log that somebody reads while it is written' >>\"$results/build.log\"
    sleep 0.1
done
exit 1
";

const SLOTS: usize = 8;
const SSE: usize = 200;
const LOGS: usize = 100;
const IDLERS: usize = 10;

/// What readers got, each of them.
type Counts = Arc<Vec<AtomicU64>>;

fn counts(count: usize) -> Counts {
    Arc::new((0..count).map(|_| AtomicU64::new(0)).collect())
}

async fn ask(socket: TcpSocket, address: SocketAddr, path: &str) -> TcpStream {
    let mut io = socket.connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    io.write_all(request.as_bytes()).await.unwrap();
    io
}

/// Reads to the end, and counts.
fn read(runtime: &Runtime, address: SocketAddr, path: String, counts: &Counts, at: usize) {
    let counts = Arc::clone(counts);
    runtime.spawn(async move {
        let mut io = ask(TcpSocket::new_v4().unwrap(), address, &path).await;
        let mut piece = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = io.read(&mut piece).await {
            counts[at].fetch_add(count as u64, Ordering::Relaxed);
        }
    });
}

fn get(runtime: &Runtime, address: SocketAddr, path: &str) -> Vec<u8> {
    runtime.block_on(async {
        let mut io = TcpStream::connect(address).await.unwrap();
        io.write_all(format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.unwrap();
        let body = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        answer.split_off(body)
    })
}

fn median_until_mock_runs(farm: &Farm, round: &str) -> Duration {
    let mut times = Vec::new();
    for n in 0..5 {
        let name = format!("{round}{n}");
        let srpm = farm.tiny_srpms(&[(&name, "true")]).remove(0);
        let dropped = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        farm.queue(&srpm);
        farm.wait_finished(&tiny(&name));
        let path = farm.repo(format!("{name}-1-1/started.log"));
        wait_until("the result", || path.exists());
        let started: u64 = fs::read_to_string(path).unwrap().trim().parse().unwrap();
        times.push(Duration::from_nanos(started).saturating_sub(dropped));
    }
    times.sort();
    println!("{round}: median {:?}, worst {:?}", times[2], times[4]);
    times[2]
}

/// The most memory that a process has used, in KiB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Connections and the like; a reader of a log has the log open too.
fn sockets(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let is_socket = |path| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
    files.filter(|file| is_socket(file.as_ref().unwrap().path())).count()
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn many_readers_keep_no_build_waiting_and_one_that_does_not_read_is_dropped() {
    let mut farm = Farm::start(&["--http", "127.0.0.1:0"]);
    let line = farm.server().wait_line("shows the farm, and REPO");
    let address: SocketAddr =
        line.split("http://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (fake, stop) = (farm.path("fake-mock"), farm.path("stop"));
    script(&fake, &FAKE.replace("STOP", stop.to_str().unwrap()));
    farm.start_client("talkers", &["--slots", "8", "--mock", fake.to_str().unwrap()]);
    for n in 0..SLOTS {
        for srpm in farm.tiny_srpms(&[(&format!("chatty{n}"), "true")]) {
            farm.queue(&srpm);
        }
    }
    let overview =
        || serde_json::from_slice::<Overview>(&get(&runtime, address, "/api/v1/overview")).unwrap();
    wait_until("eight builds", || overview().running.len() == SLOTS);
    let running = overview().running;
    let log = |at: usize| format!("/api/v1/attempts/{}/logs/build.log?follow=true", running[at].attempt);
    let big = running.iter().position(|one| one.srpm.to_string().contains("chatty0")).unwrap();
    let small: Vec<_> = (0..SLOTS).filter(|at| *at != big).collect();

    farm.start_client("worker", &["--mock", fake.to_str().unwrap()]);
    let alone = median_until_mock_runs(&farm, "alone");
    let pid = farm.server().id();
    let (memory_alone, sockets_alone) = (memory(pid), sockets(pid));

    let idle = runtime.block_on(async {
        let mut idle = Vec::new();
        for _ in 0..IDLERS {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            idle.push(ask(socket, address, &log(big)).await);
        }
        idle
    });
    let (events, logs) = (counts(SSE), counts(LOGS));
    for at in 0..SSE {
        read(&runtime, address, "/events".to_owned(), &events, at);
    }
    for at in 0..LOGS {
        read(&runtime, address, log(small[at % small.len()]), &logs, at);
    }
    let all_over =
        |counts: &Counts, least: u64| counts.iter().all(|count| count.load(Ordering::Relaxed) > least);
    wait_until("logs to come", || all_over(&logs, 1000));
    wait_until("the readers", || sockets(pid) >= sockets_alone + SSE + LOGS + IDLERS);
    let before: u64 = events.iter().map(|count| count.load(Ordering::Relaxed)).min().unwrap();
    let watched = median_until_mock_runs(&farm, "watched");
    wait_until("events to come", || all_over(&events, before + 2000));

    println!("memory: {memory_alone} KiB alone, {} KiB watched", memory(pid));
    assert!(watched < alone * 2 + Duration::from_millis(500), "{alone:?} alone, {watched:?} watched");
    assert!(memory(pid) < memory_alone + 200 * 1024, "{memory_alone} KiB before, {} KiB now", memory(pid));
    // After a minute; those that read are still there.
    let begin = now();
    while sockets(pid) > sockets_alone + SSE + LOGS {
        assert!(begin.elapsed() < 2 * DEADLINE, "those that do not read are still there");
        let_pass(Duration::from_millis(100));
    }
    println!("those that did not read were dropped after {:?}", begin.elapsed());
    let mark: u64 = logs[0].load(Ordering::Relaxed);
    wait_until("more of a log", || all_over(&logs, mark.min(1000)) && logs[0].load(Ordering::Relaxed) > mark);
    assert!(overview().running.len() == SLOTS);
    drop(idle);
    fs::write(stop, "").unwrap();
    for n in 0..SLOTS {
        farm.wait_finished(&tiny(&format!("chatty{n}")));
    }
}
