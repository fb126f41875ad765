//! `moji-client`: options, log, Mock, signals; then [`moji_client::run::run`].

use std::process::ExitCode;

use clap::Parser as _;
use moji_client::access::Unwelcome;
use moji_client::options::{Options, Settings, Surroundings};
use moji_client::run::Signal;
use moji_client::{crash, log, out_of_sight, run, start};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

fn main() -> ExitCode {
    let options = Options::parse();
    log::start();
    out_of_sight::close_to_others();
    // Before there is any thread or file to lose.
    match options.out_of_sight() {
        Ok(None) => {}
        Ok(Some(again)) => {
            let error = again.start();
            tracing::warn!("builds may be able to read the password: cannot start anew without it: {error}");
        }
        Err(error) => return end(2, &error),
    }
    if let Err(error) = crash::arm() {
        return end(2, &error);
    }
    let around = Surroundings {
        password: std::env::var(out_of_sight::VARIABLE).ok(),
        host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        home: std::env::home_dir(),
        is_root: rustix::process::geteuid().is_root(),
    };
    let settings = match options.settings(around) {
        Ok(settings) => settings,
        Err(error) => return end(2, &error),
    };
    if let Some(warning) = start::too_many_rights() {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(1, &error.into()),
    };
    runtime.block_on(work(settings))
}

async fn work(settings: Settings) -> ExitCode {
    let (signals_tx, mut signals) = mpsc::channel(2);
    tokio::spawn(pass_signals_on(signals_tx));
    // What start has begun is ended when it is dropped.
    let started = tokio::select! {
        biased;
        Some(_) = signals.recv() => return ExitCode::SUCCESS,
        started = start::start(settings) => match started {
            Ok(started) => started,
            Err(error) => return end(3, &error),
        },
    };
    match run::run(started.config, started.connector, started.mock, started.work_dir, signals).await {
        Ok(run::Why::Told) => ExitCode::SUCCESS,
        Ok(run::Why::Idle) => {
            tracing::info!("there was nothing to build for long enough: leaving");
            ExitCode::SUCCESS
        }
        Err(error) if error.is::<Unwelcome>() => end(4, &error),
        Err(error) => end(1, &error),
    }
}

/// The first signal drains, every further one stops.
async fn pass_signals_on(signals: mpsc::Sender<Signal>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return tracing::warn!("cannot catch signals: the client can only be killed");
    };
    let mut next = Signal::Drain;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if signals.send(next).await.is_err() {
            return;
        }
        next = Signal::Stop;
    }
}

fn end(code: u8, error: &anyhow::Error) -> ExitCode {
    tracing::error!("{error:#}");
    ExitCode::from(code)
}
