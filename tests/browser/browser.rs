//! A real browser: Debian's chromium, steered through chromedriver in the words of W3C WebDriver.
//!
//! Each test has one of its own, with a profile that is empty and goes with it. What is wanted of WebDriver is little,
//! so it is spoken here: the crates for it bring sixty others.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use moji_tests::support::processes::{DEADLINE, wait_for, wait_until};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

const MISSING: &str =
    "the tests in a browser want chromium and chromedriver: scripts/install-deps --with browser";

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) is_phone: bool,
    pub(crate) is_dark: bool,
    pub(crate) has_scripts: bool,
}

impl Look {
    pub(crate) const DESK: Self =
        Self { width: 1280, height: 900, is_phone: false, is_dark: false, has_scripts: true };
    pub(crate) const DARK: Self = Self { is_dark: true, ..Self::DESK };
    pub(crate) const PHONE: Self =
        Self { width: 360, height: 740, is_phone: true, is_dark: false, has_scripts: true };
}

/// What WebDriver calls the id of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window.
pub(crate) struct Browser {
    driver: Driver,
    /// The path of its session.
    session: String,
    _profile: TempDir,
}

/// chromedriver, which ends with all that it started.
struct Driver {
    child: Child,
    port: u16,
}

impl Driver {
    fn start() -> Self {
        let mut command = Command::new("chromedriver");
        // In a process group of its own: what it started goes with it.
        command.arg("--port=0").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("chromedriver: {error}: {MISSING}"));
        let mut driver = Self { child, port: 0 };
        let said = BufReader::new(driver.child.stdout.take().unwrap()).lines();
        let port = said.map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        driver.port = port.unwrap_or_else(|| panic!("chromedriver did not start: {MISSING}"));
        driver
    }

    /// One request; what it answers, or what is wrong.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line).unwrap();
            match line.to_lowercase().strip_prefix("content-length:") {
                Some(bytes) => length = bytes.trim().parse().unwrap(),
                None if line.trim().is_empty() => break,
                None => {}
            }
        }
        let mut json = vec![0; length];
        answer.read_exact(&mut json).unwrap();
        let value = serde_json::from_slice::<Value>(&json).unwrap()["value"].take();
        match value.get("error") {
            Some(error) => Err(format!("{path}: {error}: {}", value["message"])),
            None => Ok(value),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(group) = self.child.id().try_into().ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Browser {
    pub(crate) fn start(look: Look) -> Self {
        let profile = tempfile::Builder::new().prefix("moji-browser-").tempdir().unwrap();
        let driver = Driver::start();
        let wanted = json!({ "capabilities": { "alwaysMatch": capabilities(look, &profile) } });
        let session = driver.ask("POST", "/session", &wanted);
        let session = session.unwrap_or_else(|error| panic!("no browser: {error}: {MISSING}"));
        let session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        Self { driver, session, _profile: profile }
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.driver.ask("POST", &format!("{}{path}", self.session), body).unwrap()
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        self.driver.ask("GET", &format!("{}{path}", self.session), &Value::Null)
    }

    fn find(&self, selector: &str) -> String {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        format!("/element/{}", found[ELEMENT].as_str().unwrap())
    }

    /// Goes to a page and waits until all of it is there. WebDriver is to wait for that itself, but chromedriver has
    /// been seen to answer while a page without scripts was not there yet; so the page that is left is marked.
    pub(crate) fn open(&self, url: &str) {
        self.run("window.isLeft = true");
        self.post("/url", &json!({ "url": url }));
        self.wait("return !window.isLeft && document.readyState === 'complete'");
    }

    /// Waits until it has gone there: what a key or a click begins, WebDriver may not know of yet.
    pub(crate) fn arrives(&self, url: &str) {
        wait_until(url, || self.get("/url").is_ok_and(|now| now == url));
    }

    /// What a script in the page gives back, or what it promises.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Types into whatever has the focus.
    pub(crate) fn type_keys(&self, keys: &str) {
        let active = self.get("/element/active").unwrap();
        self.post(&format!("/element/{}/value", active[ELEMENT].as_str().unwrap()), &json!({ "text": keys }));
    }

    pub(crate) fn click(&self, selector: &str) {
        self.post(&format!("{}/click", self.find(selector)), &json!({}));
    }

    /// What is to be read in an element.
    pub(crate) fn text(&self, selector: &str) -> String {
        self.get(&format!("{}/text", self.find(selector))).unwrap().as_str().unwrap().to_owned()
    }

    pub(crate) fn count(&self, selector: &str) -> usize {
        let found = self.post("/elements", &json!({ "using": "css selector", "value": selector }));
        found.as_array().unwrap().len()
    }

    /// Waits until a script in the page gives back something true.
    pub(crate) fn wait(&self, script: &str) -> Value {
        wait_for(script, || {
            Some(self.run(script)).filter(|value| !matches!(value, Value::Bool(false) | Value::Null))
        })
    }

    /// Lets the page's own time pass, in which something must not happen.
    pub(crate) fn let_pass(&self, time: Duration) {
        self.run(&format!(
            "return new Promise((done) => setTimeout(() => done(true), {}))",
            time.as_millis()
        ));
    }

    /// What a message box of a script says, of which there must be none.
    pub(crate) fn alert(&self) -> Option<String> {
        self.get("/alert/text").ok().map(|text| text.to_string())
    }

    /// Keeps what is seen, where `MOJI_SHOTS` says: for people to look at.
    pub(crate) fn shoot(&self, name: &str) {
        let Some(folder) = std::env::var_os("MOJI_SHOTS").map(PathBuf::from) else { return };
        fs::create_dir_all(&folder).unwrap();
        let shot = self.get("/screenshot").unwrap();
        fs::write(folder.join(format!("{name}.png")), from_base64(shot.as_str().unwrap())).unwrap();
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in text.chars().filter_map(|c| DIGITS.find(c)) {
        (bits, count) = ((bits << 6 | u32::try_from(digit).unwrap()) & 0xff_ffff, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    bytes
}

fn capabilities(look: Look, profile: &TempDir) -> Value {
    let mut arguments = vec![
        "--headless=new".to_owned(),
        "--no-sandbox".into(),
        "--disable-gpu".into(),
        "--disable-quic".into(),
        "--disable-dev-shm-usage".into(),
        "--no-first-run".into(),
        "--disable-background-networking".into(),
        "--disable-component-update".into(),
        "--disable-sync".into(),
        "--hide-scrollbars".into(),
        format!("--window-size={},{}", look.width, look.height),
        format!("--user-data-dir={}", profile.path().display()),
    ];
    arguments.push(format!("--blink-settings=preferredColorScheme={}", u8::from(!look.is_dark)));
    let mut options = json!({ "args": arguments });
    if look.is_phone {
        options["mobileEmulation"] = json!({ "deviceMetrics": {
            "width": look.width, "height": look.height, "pixelRatio": 2.0, "touch": true,
        } });
    }
    if !look.has_scripts {
        options["prefs"] = json!({ "profile.managed_default_content_settings.javascript": 2 });
    }
    json!({ "browserName": "chrome", "unhandledPromptBehavior": "ignore", "goog:chromeOptions": options })
}
