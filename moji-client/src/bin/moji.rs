//! `moji`: arguments, environment; then [`moji_client::operator`].

use std::process::ExitCode;

use moji_client::operator::commands::run;
use moji_client::operator::config::Environment;
use moji_client::out_of_sight;

fn main() -> ExitCode {
    out_of_sight::close_to_others();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("moji: cannot start: {error}");
            return ExitCode::from(74);
        }
    };
    let code = runtime.block_on(run(std::env::args_os(), Environment::of_process()));
    // A read of standard input that nobody waits for any more does not keep the program.
    runtime.shutdown_background();
    ExitCode::from(code)
}
