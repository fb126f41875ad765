mod api;
mod events;
mod scene;
mod streams;

use std::fs;
use std::os::unix::fs::symlink;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::folders::Folders;

const DEADLINE: Duration = Duration::from_secs(60);

/// A server over a folder with something of everything.
struct Site {
    at: tempfile::TempDir,
    address: SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Site {
    async fn start() -> Self {
        let at = tempfile::tempdir().unwrap();
        let repo = at.path().join("repo");
        fs::create_dir_all(repo.join("foo-1-1/.hidden")).unwrap();
        fs::create_dir_all(repo.join("generations/7")).unwrap();
        for (path, content) in [
            ("repo/foo-1-1/foo & <b>.rpm", "0123456789"),
            ("repo/foo-1-1/.hidden/x", "hidden"),
            ("repo/foo-1-1/build.log", "<script>"),
            ("repo/.secret", "hidden"),
            ("secret", "secret"),
        ] {
            fs::write(at.path().join(path), content).unwrap();
        }
        symlink("../secret", repo.join("link")).unwrap();
        symlink("..", repo.join("out")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, repo.join("fifo"), rustix::fs::FileType::Fifo, 0o644.into(), 0)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let api = Api::of_folders(Arc::new(Folders::within(at.path())));
        let task = tokio::spawn(serve(Arc::new(listener), api, shutdown.clone()));
        Self { at, address, shutdown, task }
    }

    /// Sends this as it is, and reads to the end.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Header, in lower case, and body.
    async fn get(&self, path: &str, more: &str) -> (String, String) {
        self.ask("GET", path, more).await
    }

    async fn ask(&self, method: &str, path: &str, more: &str) -> (String, String) {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n");
        let answer = self.raw(&request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }
}

const RPM: &str = "/repo/foo-1-1/foo%20%26%20%3Cb%3E.rpm";

#[tokio::test]
async fn files_whole_in_part_and_not_again() {
    let site = Site::start().await;
    let (head, body) = site.get(RPM, "").await;
    assert_eq!(body, "0123456789");
    for line in [
        "http/1.1 200 ok",
        "content-length: 10\r\n",
        "content-type: application/x-rpm",
        "accept-ranges: bytes",
        "x-content-type-options: nosniff",
        "content-security-policy: default-src 'none'",
        "last-modified: ",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    let (head, body) = site.get(RPM, "Range: bytes=2-4\r\n").await;
    assert!(head.starts_with("http/1.1 206") && head.contains("content-range: bytes 2-4/10"), "{head}");
    assert_eq!(body, "234");
    let (head, _) = site.get(RPM, "Range: bytes=10-\r\n").await;
    assert!(head.starts_with("http/1.1 416") && head.contains("content-range: bytes */10"), "{head}");
    let (head, body) = site.get(RPM, &format!("If-None-Match: {etag}\r\n")).await;
    assert!(head.starts_with("http/1.1 304") && body.is_empty(), "{head}");
    let (head, body) = site.ask("HEAD", RPM, "").await;
    assert!(head.contains("content-length: 10") && body.is_empty(), "{head}");
    fs::write(site.at.path().join("repo/foo-1-1/foo & <b>.rpm"), "other").unwrap();
    let (_, body) = site.get(RPM, &format!("Range: bytes=2-4\r\nIf-Range: {etag}\r\n")).await;
    assert_eq!(body, "other", "the whole of the new one");
    let (head, body) = site.get("/repo/generations/7/../../foo-1-1/build.log", "").await;
    assert!(body == "<script>" && head.contains("content-type: text/plain"), "{head}");
}

#[tokio::test]
async fn nothing_else_is_there() {
    let site = Site::start().await;
    for path in [
        "/repo/link",
        "/repo/out/secret",
        "/repo/out/",
        "/repo/fifo",
        "/repo/.secret",
        "/repo/foo-1-1/.hidden/x",
        "/repo/../secret",
        "/repo/%2e%2e/secret",
        "/repo/foo-1-1/../../secret",
        "/repo/%2fetc/passwd",
        "/repo//etc/passwd",
        "/repo/none",
        "/repo/foo-1-1/build.log/",
        "/secret",
        "/repository/x",
        "/repo/%00",
    ] {
        let (head, body) = site.get(path, "").await;
        assert!(head.starts_with("http/1.1 404") && !body.contains("secret"), "{path}: {head}");
    }
    for method in ["PUT", "POST", "DELETE"] {
        let (head, _) = site.ask(method, RPM, "Content-Length: 0\r\n").await;
        assert!(head.starts_with("http/1.1 405"), "{method}: {head}");
    }
    assert!(site.raw("nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let long = format!("GET /repo/ HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(HEADER_BYTES));
    assert!(site.raw(&long).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn folders_are_listed() {
    let site = Site::start().await;
    let (head, body) = site.get("/repo/", "").await;
    assert!(head.contains("content-type: text/html"), "{head}");
    assert!(body.contains("<a href=\"foo-1-1/\">"), "{body}");
    for hidden in ["secret", "link", "out", "fifo"] {
        assert!(!body.contains(hidden), "{hidden}");
    }
    let (_, body) = site.get("/repo/foo-1-1/", "").await;
    assert!(body.contains("href=\"foo%20%26%20%3Cb%3E.rpm\">foo &amp; &lt;b&gt;.rpm</a>"), "{body}");
    let (head, _) = site.get("/repo/foo-1-1", "").await;
    assert!(head.starts_with("http/1.1 301") && head.contains("location: /repo/foo-1-1/"), "{head}");
    let (head, _) = site.get("/repo", "").await;
    assert!(head.contains("location: /repo/\r\n"), "{head}");
}

#[tokio::test]
async fn it_ends_in_order_whoever_is_connected() {
    let site = Site::start().await;
    let mut idle = TcpStream::connect(site.address).await.unwrap();
    let mut busy = TcpStream::connect(site.address).await.unwrap();
    busy.write_all(b"GET /repo/foo-1-1/build.log HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    busy.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    site.shutdown.cancel();
    timeout(DEADLINE, site.task).await.unwrap().unwrap();
    let mut rest = Vec::new();
    // Closed, in order or not.
    let _ = timeout(DEADLINE, idle.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
}
