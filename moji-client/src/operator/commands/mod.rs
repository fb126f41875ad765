//! What the commands do: ask, and hand the answers to those who make text of them.

mod acts;
mod events;
mod generate;
mod listings;
mod log;
mod login;
mod submit;
mod wait;

use std::ffi::OsString;

use clap::Parser as _;
use moji_proto::api::{BASE, Build};

use super::config::{Environment, Settings};
use super::options::{Command, Common, Options};
use super::output::{Style, note, pretty, print};
use super::{Failure, Farm};

/// What a command works with.
pub struct Context {
    /// The farm.
    pub farm: Farm,
    /// How text looks.
    pub style: Style,
}

/// Runs the program with these arguments, the first of which is its name; what to end with.
pub async fn run(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> u8 {
    let options = match Options::try_parse_from(without_help_of_help(arguments.into_iter().collect())) {
        Ok(options) => options,
        Err(error) => {
            // Help and version are no mistakes.
            let code = if error.use_stderr() { 64 } else { 0 };
            return match error.print() {
                Ok(()) => code,
                Err(error) => Failure::of_output(&error).code(),
            };
        }
    };
    match carry_out(options, &environment).await {
        Ok(code) => code,
        Err(Failure::Unread) => Failure::Unread.code(),
        Err(failure) => {
            note(&failure.to_string());
            failure.code()
        }
    }
}

/// `moji help --help` asks for help, which the library takes for a command's name.
fn without_help_of_help(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut words =
        arguments.iter().skip(1).filter(|argument| !argument.as_encoded_bytes().starts_with(b"-"));
    if words.next().is_some_and(|first| first == "help") {
        arguments.retain(|argument| argument != "--help" && argument != "-h");
    }
    arguments
}

async fn carry_out(options: Options, environment: &Environment) -> Result<u8, Failure> {
    let Options { common, command } = options;
    // What needs no server works also with a configuration that does not.
    match command {
        Command::Completions(wanted) => return generate::completions(&wanted).map(|()| 0),
        Command::Man(wanted) => return generate::man(&wanted).map(|()| 0),
        Command::Login(wanted) => {
            return Box::pin(login::login(&common, environment, wanted)).await.map(|()| 0);
        }
        _ => {}
    }
    let context = Context::new(&common, environment)?;
    let code = Box::pin(context.carry_out(command)).await;
    context.farm.leave().await;
    code
}

impl Context {
    fn new(common: &Common, environment: &Environment) -> Result<Self, Failure> {
        let (dial, access) = Settings::new(common, environment)?.way();
        Ok(Self { farm: Farm::new(dial, access), style: Style::of_stdout(common.color) })
    }

    /// Does it. What the program ends with.
    ///
    /// # Errors
    /// Why it came to nothing.
    pub async fn carry_out(&self, command: Command) -> Result<u8, Failure> {
        let done = |()| 0;
        match command {
            Command::Submit(wanted) => self.submit(wanted).await,
            Command::Status(json) => self.status(json).await.map(done),
            Command::Top => super::top::run(&self.farm, self.style.color).await.map(done),
            Command::Queue(wanted) => self.queue(wanted).await.map(done),
            Command::Log(wanted) => self.log(wanted).await.map(done),
            Command::Why(wanted) => self.why(wanted).await.map(done),
            Command::Retry(wanted) => self.retry(wanted).await,
            Command::Cancel(wanted) => self.cancel(wanted).await,
            Command::Hold(wanted) => self.hold(wanted).await,
            Command::Prio(wanted) => self.prio(wanted).await,
            Command::Builders(json) => self.builders(json).await.map(done),
            Command::Targets(json) => self.targets(json).await.map(done),
            Command::Drain(wanted) => self.drain(wanted).await,
            Command::Resume(wanted) => self.resume(wanted).await,
            Command::Pause(wanted) => self.pause(wanted).await,
            Command::Unpause(json) => self.unpause(json).await,
            Command::History(wanted) => self.history(wanted).await.map(done),
            Command::Events(wanted) => self.events(wanted).await.map(done),
            Command::Report(json) => self.report(json).await.map(done),
            Command::Version(wanted) => self.version(wanted.json).await.map(done),
            // Done before there is a farm.
            Command::Login(_) | Command::Completions(_) | Command::Man(_) => Ok(0),
        }
    }

    async fn version(&self, json: bool) -> Result<(), Failure> {
        if json {
            let server = self.farm.session().await?.welcome().software.clone();
            let (moji, address) = (env!("CARGO_PKG_VERSION"), self.farm.server());
            return print(&pretty(
                &serde_json::json!({ "moji": moji, "server": server, "address": address }),
            ));
        }
        print(concat!("moji ", env!("CARGO_PKG_VERSION"), "\n"))?;
        let server = self.farm.session().await?.welcome().software.clone();
        print(&format!("{server} at {}\n", self.farm.server()))
    }

    /// The build that is meant.
    async fn find(&self, reference: &str) -> Result<Build, Failure> {
        self.farm.json(&path(&format!("{BASE}/find"), [("build", reference.to_owned())])).await
    }
}

/// A path with a query. Names and values are written so that they mean only themselves.
pub(crate) fn path<'a>(base: &str, query: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut path = base.to_owned();
    for (at, (name, value)) in query.into_iter().enumerate() {
        path.push(if at == 0 { '?' } else { '&' });
        path.push_str(name);
        path.push('=');
        path.push_str(&encoded(&value));
    }
    path
}

/// With everything but letters, digits and `-._~` as `%XX`.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
