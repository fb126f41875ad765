//! A terminal for tests: a tmux server of its own with one window.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use moji_tests::support::processes::{DEADLINE, let_pass, now};

/// A window of a terminal in which a command runs, and afterwards nothing. Ends with the test.
pub(crate) struct Terminal {
    /// The name of tmux's socket, which nobody else has.
    socket: String,
    folder: PathBuf,
}

impl Terminal {
    /// Opens a window of that size, and runs a line of shell in it. Afterwards the window shows `ended: CODE`.
    pub(crate) fn run(folder: &Path, size: (u16, u16), environment: &[(&str, &str)], line: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let socket = format!("moji-test-{}-{count}", std::process::id());
        let terminal = Self { socket, folder: folder.to_owned() };
        // What runs after the line keeps the window: what the line left on the screen can be looked at.
        let script = folder.join(format!("terminal-{count}.sh"));
        let set: String =
            environment.iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect();
        let text = format!(
            "unset NO_COLOR LC_ALL LC_CTYPE; export LANG=C.UTF-8\n{set}{line}\necho \"ended: $?\"\nexec cat\n"
        );
        std::fs::write(&script, text).unwrap();
        let (columns, rows) = (size.0.to_string(), size.1.to_string());
        let script = script.to_str().unwrap();
        let out = terminal.tmux(&["new-session", "-d", "-x", &columns, "-y", &rows, "sh", script]);
        assert!(out.status.success(), "tmux: {}", String::from_utf8_lossy(&out.stderr));
        terminal.tmux(&["set-option", "-g", "status", "off"]);
        terminal.resize(size);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        // No configuration of whoever runs the tests. -u: it may show more than ASCII.
        command.args(["-u", "-f", "/dev/null", "-L", &self.socket]).args(arguments);
        command.env_remove("TMUX").env("TERM", "xterm-256color").env("HOME", &self.folder);
        command
            .output()
            .unwrap_or_else(|error| panic!("tmux: {error}: run scripts/install-deps --with terminal"))
    }

    /// Gives the window another size.
    pub(crate) fn resize(&self, (columns, rows): (u16, u16)) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// Presses keys, by tmux's names: `Enter`, `C-c`, `q`.
    pub(crate) fn press(&self, keys: &[&str]) {
        let arguments: Vec<_> = ["send-keys"].iter().chain(keys).copied().collect();
        self.tmux(&arguments);
    }

    /// What the window shows.
    pub(crate) fn screen(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p"]).stdout).unwrap()
    }

    /// The same with its colours, as escape sequences.
    pub(crate) fn coloured(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p", "-e"]).stdout).unwrap()
    }

    /// Whether a program has the whole screen, so that what was there before comes back.
    pub(crate) fn is_full_screen(&self) -> bool {
        self.asked("#{alternate_on}") == "1"
    }

    /// Whether the cursor is shown.
    pub(crate) fn has_cursor(&self) -> bool {
        self.asked("#{cursor_flag}") == "1"
    }

    fn asked(&self, format: &str) -> String {
        String::from_utf8(self.tmux(&["display-message", "-p", format]).stdout).unwrap().trim().to_owned()
    }

    /// Waits until the window shows all of these; gives it.
    pub(crate) fn wait_for(&self, texts: &[&str]) -> String {
        self.wait(&format!("{texts:?}"), |screen| texts.iter().all(|text| screen.contains(text)))
    }

    /// Waits until the window shows what is wanted; gives it.
    pub(crate) fn wait(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let begin = now();
        loop {
            let screen = self.screen();
            if is_it(&screen) {
                return screen;
            }
            assert!(
                begin.elapsed() < DEADLINE,
                "waited {DEADLINE:?} for {what}; the terminal shows:\n{screen}"
            );
            let_pass(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
