//! Events out of a real server: to a web server that is slow, to programs, over kill -9, and signed as README says.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use moji_proto::api::{Event, EventKind};
use moji_server::folders::Folders;
use moji_server::history::Reader;
use moji_tests::support::processes::{Farm, Program, tiny, top, wait_for, wait_until};
use rustix::process::Signal;

/// A request as it came.
#[derive(Debug, Clone)]
struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn read(io: &mut TcpStream) -> Option<Self> {
        io.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            io.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let mut request = Self { head: String::from_utf8(head).unwrap(), body: Vec::new() };
        request.body = vec![0; request.header("content-length").parse().unwrap()];
        io.read_exact(&mut request.body).ok()?;
        Some(request)
    }

    fn header(&self, name: &str) -> &str {
        let value = |line: &'_ str| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(line.len() - value.len())
        };
        let line = self.head.lines().find(|line| value(line).is_some()).unwrap();
        &line[value(line).unwrap()..]
    }

    fn event(&self) -> Event {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A web server on loopback. The first `hanging` requests of each sitting are answered, the next is not; `None`: all are.
#[derive(Debug, Clone)]
struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Request>,
    /// Answer so many more; `None`: all.
    answers: Option<usize>,
    /// Requests that got no answer, kept open.
    hanging: Vec<TcpStream>,
}

impl Receiver {
    fn start(answers: Option<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { answers, ..State::default() }));
        let receiver = Self { address, state };
        let served = receiver.clone();
        std::thread::spawn(move || {
            for io in listener.incoming() {
                served.take(io.unwrap());
            }
        });
        receiver
    }

    fn take(&self, mut io: TcpStream) {
        let Some(request) = Request::read(&mut io) else { return };
        let mut state = self.state.lock().unwrap();
        state.requests.push(request);
        match &mut state.answers {
            Some(0) => state.hanging.push(io),
            answers => {
                *answers = answers.map(|left| left - 1);
                let _ = io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
    }

    /// Answers so many more requests.
    fn answer(&self, answers: Option<usize>) {
        let mut state = self.state.lock().unwrap();
        (state.answers, state.hanging) = (answers, Vec::new());
    }

    fn is_hanging(&self) -> bool {
        !self.state.lock().unwrap().hanging.is_empty()
    }

    fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }
}

/// A script in the farm's folder.
fn script(farm: &Farm, name: &str, text: &str) -> PathBuf {
    let path = farm.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// What the history says that happened, of these kinds.
fn written(farm: &Farm, kinds: &[EventKind]) -> Vec<Event> {
    let folders = Folders {
        source: farm.source(""),
        working: farm.working(""),
        finished: farm.finished(""),
        repo: farm.repo(""),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kinds = kinds.to_vec();
    let reader = Reader::of(&folders);
    let events = reader.ask(move |views| views.events(0, &kinds, 500));
    runtime.block_on(events).unwrap().events
}

const KEY: &str = "a key of the webhook";
const KINDS: [EventKind; 3] = [EventKind::Queued, EventKind::Started, EventKind::Succeeded];

#[test]
fn nothing_that_happened_is_lost_to_a_webhook_when_the_server_is_killed() {
    let mut farm = Farm::new();
    let receiver = Receiver::start(Some(2));
    let key = farm.path("key");
    fs::write(&key, format!("{KEY}\n")).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let url = receiver.url();
    let arguments = [
        "--webhook",
        &url,
        "--webhook-secret-file",
        key.to_str().unwrap(),
        "--event",
        "queued,started,succeeded",
    ];
    farm.start_server(&arguments);
    farm.start_client("b1", &[]);
    for name in ["a", "b", "c"] {
        farm.queue_quick(name);
    }
    // Killed while a delivery is under way, three times.
    for answers in [Some(1), Some(3), None] {
        wait_until("a delivery under way", || receiver.is_hanging());
        farm.server.as_mut().unwrap().kill();
        receiver.answer(answers);
        farm.start_server(&arguments);
    }
    for name in ["a", "b", "c"] {
        farm.wait_finished(&tiny(name));
    }
    let is_told = |id| receiver.requests().iter().any(|request| request.event().id == id);
    let happened = wait_for("the last success to be told", || {
        let happened = written(&farm, &KINDS);
        let count = happened.iter().filter(|event| event.kind == EventKind::Succeeded).count();
        (count == 3 && is_told(happened.last()?.id)).then_some(happened)
    });
    let mut told: Vec<Event> = receiver.requests().iter().map(Request::event).collect();
    let total = told.len();
    told.dedup();
    assert_eq!(told, happened, "all, in order; twice only directly after each other");
    assert!(total > told.len() && total <= told.len() + 3, "{total} for {}", told.len());
    check_signatures(&receiver.requests());
}

/// By README's own words.
fn check_signatures(requests: &[Request]) {
    let readme = fs::read_to_string(top().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```python\n").unwrap();
    let function = rest.split_once("```").unwrap().0;
    let program = format!(
        "{function}\nimport json, sys\nfor line in sys.stdin:\n    time_, signature, body, key = json.loads(line)\n    \
         headers = {{'X-Moji-Timestamp': time_, 'X-Moji-Signature': signature}}\n    \
         print(is_from_moji(headers, body.encode(), key.encode()))\n"
    );
    let mut child = Command::new("python3")
        .args(["-c", &program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut ask = |request: &Request, body: &str, key: &str| {
        let [time, signature] = ["x-moji-timestamp", "x-moji-signature"].map(|name| request.header(name));
        writeln!(input, "{}", serde_json::json!([time, signature, body, key])).unwrap();
    };
    for request in requests {
        ask(request, std::str::from_utf8(&request.body).unwrap(), KEY);
    }
    ask(&requests[0], "{}", KEY);
    ask(&requests[0], std::str::from_utf8(&requests[0].body).unwrap(), "another key");
    drop(input);
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(said, "True\n".repeat(requests.len()) + "False\nFalse\n");
}

#[test]
fn a_program_is_told_and_knows_no_secret() {
    let mut farm = Farm::new();
    let told = farm.path("told");
    let text = format!("#!/bin/sh\n{{ cat; env; }} >>{}\n", told.display());
    let program = script(&farm, "program", &text);
    let mut command = farm.server_command(&["--event", "queued", "--on-event", program.to_str().unwrap()]);
    command.args(["--listen", "127.0.0.1:0"]);
    command.env("MOJI_PASSWORD", "fluffy bunnies").env("MOJI_MIN_FREE", "0").env("OWN", "stays");
    farm.run_server(command);
    farm.queue_quick("a");
    let text = wait_for("the program", || {
        let text = fs::read_to_string(&told).ok()?;
        text.contains("PATH=").then_some(text)
    });
    assert!(
        text.contains("\"srpm\":\"a-1-1.src.rpm\"") && text.contains("MOJI_SRPM=a-1-1.src.rpm"),
        "{text}"
    );
    assert!(text.contains("OWN=stays"), "{text}");
    assert!(!text.contains("bunnies") && !text.contains("MOJI_MIN_FREE"), "{text}");
}

#[test]
fn a_program_that_hangs_keeps_neither_the_farm_nor_its_end() {
    let mut farm = Farm::new();
    let pids = farm.path("pids");
    let text = format!("#!/bin/sh\necho $$ >>{}\nexec sleep 600\n", pids.display());
    let program = script(&farm, "program", &text);
    farm.start_server(&["--on-event", program.to_str().unwrap()]);
    farm.start_client("b1", &[]);
    farm.queue_quick("a");
    wait_until("the program", || pids.exists());
    farm.wait_finished(&tiny("a"));
    farm.server().signal(Signal::TERM);
    assert_eq!(farm.server.as_mut().unwrap().wait_code(), 0);
    let count = fs::read_to_string(&pids).unwrap().lines().count();
    assert_eq!(count, 1, "one at a time");
    let pid = fs::read_to_string(&pids).unwrap();
    wait_until("its end", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        stat.map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
fn events_are_mailed() {
    let mut farm = Farm::new();
    let mails = farm.path("mails");
    let sendmail = script(
        &farm,
        "sendmail",
        &format!("#!/bin/sh\n{{ echo \"arguments: $*\"; cat; echo .; }} >>{}\n", mails.display()),
    );
    let mail = top().join("scripts/event-mail");
    let mut command = farm.server_command(&["--event", "failed", "--on-event", mail.to_str().unwrap()]);
    command.args(["--listen", "127.0.0.1:0"]).env("SENDMAIL", &sendmail).env("MAIL_TO", "people@example.org");
    farm.run_server(command);
    farm.start_client("b1", &[]);
    for srpm in farm.tiny_srpms(&[("bad", "echo 'error: it is bad' >&2; exit 1")]) {
        farm.queue(&srpm);
    }
    let text = wait_for("the mail", || {
        let text = fs::read_to_string(&mails).ok()?;
        text.ends_with("\n.\n").then_some(text)
    });
    let (head, body) = text.split_once("\n\n").unwrap();
    let id = written(&farm, &[EventKind::Failed])[0].id;
    let lines: Vec<_> = head.lines().collect();
    assert_eq!(lines[..2], ["arguments: -oi -- people@example.org", "To: people@example.org"]);
    assert!(lines[2].starts_with("Subject: [moji] ") && lines[2].contains("bad-1-1"), "{head}");
    assert!(lines[3].starts_with(&format!("Message-ID: <moji-event-{id}@")), "{head}");
    assert!(body.contains("SRPM:    bad-1-1.src.rpm\n") && body.contains("Builder: b1\n"), "{body}");
    assert_eq!(text.matches("Subject: ").count(), 1);
}

#[test]
fn a_receiver_that_is_away_is_said_once_and_so_is_its_return() {
    let mut farm = Farm::new();
    // Nobody answers there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}/secret");
    farm.start_server(&["--webhook", &url, "--event", "queued"]);
    for name in ["a", "b", "c", "d"] {
        farm.queue_quick(name);
    }
    let line = farm.server().wait_line("cannot be delivered");
    assert!(
        line.contains("(queued) cannot be delivered: cannot connect: ") && line.contains(" WARN "),
        "{line}"
    );
    wait_until("all to be written", || written(&farm, &[EventKind::Queued]).len() == 4);
    let listener = TcpListener::bind(address).unwrap();
    let mut ids = BTreeSet::new();
    for _ in 0..4 {
        let (mut io, _) = listener.accept().unwrap();
        ids.insert(Request::read(&mut io).unwrap().event().id);
        io.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    }
    assert_eq!(ids.len(), 4);
    let server: &Program = farm.server();
    assert!(server.wait_line("works again").contains("3 events wait for it"));
    assert_eq!((server.count("cannot be delivered"), server.count("works again")), (1, 1));
    assert_eq!(server.count("secret"), 0);
}
