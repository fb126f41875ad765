//! `moji-server`: options, log, socket, signals; then [`moji_server::run::run`].

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use moji_server::folders::FoldersError;
use moji_server::options::{Command, Http, Options, Settings};
use moji_server::out_of_sight;
use moji_server::repository_url::RepositoryUrls;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let options = Options::parse();
    moji_server::log::start();
    match options.command {
        Some(Command::Fsck(fsck)) => {
            return match fsck.resolve() {
                Ok((folders, createrepo)) => fsck.run(folders, &createrepo),
                Err(error) => end(2, &error),
            };
        }
        Some(Command::Credential(credential)) => {
            return match credential.resolve() {
                Ok(working) => credential.run(&working),
                Err(error) => end(2, &error),
            };
        }
        None => {}
    }
    out_of_sight::close_to_others();
    // Before there is any thread or file to lose.
    match options.out_of_sight() {
        Ok(None) => {}
        Ok(Some(again)) => {
            let error = again.start();
            tracing::warn!("ps may show the password: cannot start anew without it: {error}");
        }
        Err(error) => return end(2, &error),
    }
    if let Err(error) = moji_server::crash::arm() {
        return end(2, &error);
    }
    let settings = match options.settings(std::env::var(out_of_sight::VARIABLE).ok()) {
        Ok(settings) => settings,
        Err(error) => return end(2, &error),
    };
    if rustix::process::geteuid().is_root() {
        tracing::warn!(
            "running as root, which nothing here needs: use a user of its own that owns the four folders \
             (useradd --system moji; chown -R moji SOURCE WORKING FINISHED REPO)"
        );
    }
    moji_server::run::raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(1, &error.into()),
    };
    let code = runtime.block_on(serve(settings));
    // What still writes is not waited for: that was done where it mattered.
    runtime.shutdown_background();
    code
}

async fn serve(settings: Settings) -> ExitCode {
    let Settings { mut config, listen, http, repo_url, is_closed } = settings;
    let listener = match bind(&listen).await {
        Ok(listener) => listener,
        Err(error) => {
            return end(
                4,
                &anyhow::anyhow!("cannot listen on {listen:?}: {error} (is another server running?)"),
            );
        }
    };
    take_bursts(&listener);
    match listener.local_addr() {
        Ok(address) if !is_closed => {
            tracing::warn!("no password: listening on {address} for builders on this machine only");
        }
        Ok(address) => tracing::info!("listening on {address}"),
        Err(error) => tracing::warn!("listening, but on which address: {error}"),
    }
    match listen_http(http).await {
        Ok(Some((http, address))) => {
            tracing::info!("http://{address}/ shows the farm, and REPO, to everybody who can connect");
            config.repository_urls = RepositoryUrls::new(repo_url, Some(address));
            config.http = Some(Arc::new(http));
        }
        Ok(None) => {}
        Err(error) => return end(4, &error),
    }
    let shutdown = CancellationToken::new();
    let serving = moji_server::run::run(config, listener, shutdown.clone());
    tokio::select! {
        // A server that has ended in order is not asked why it was told to a second time.
        biased;
        ended = serving => match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if error.is::<FoldersError>() => end(3, &error),
            Err(error) => end(1, &error),
        },
        () = second_signal(shutdown) => {
            tracing::warn!("a second signal: ending at once; the next start goes on from here");
            ExitCode::from(1)
        }
    }
}

/// Listens. What a server before this one began when it was killed has its address for a moment: from its fork to its exec.
async fn bind(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    const MOMENT: Duration = Duration::from_millis(50);
    for _ in 0..20 {
        match TcpListener::bind(addresses).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => tokio::time::sleep(MOMENT).await,
            bound => return bound,
        }
    }
    TcpListener::bind(addresses).await
}

/// Many may connect at a time, after a restart say: the kernel keeps as many as it likes to until they are taken.
fn take_bursts(listener: &TcpListener) {
    if let Err(error) = rustix::net::listen(listener, 4096) {
        tracing::debug!("the kernel keeps few connections that wait: {error}");
    }
}

/// Where HTTP is served; nowhere, when it was not asked for and somebody else is there.
async fn listen_http(http: Http) -> anyhow::Result<Option<(TcpListener, SocketAddr)>> {
    let (addresses, is_asked_for) = match http {
        Http::Off => return Ok(None),
        Http::Default(address) => (vec![address], false),
        Http::At(addresses) => (addresses, true),
    };
    // What nobody asked for is not waited for.
    let bound = if is_asked_for { bind(&addresses).await } else { TcpListener::bind(&*addresses).await };
    match bound.and_then(|http| http.local_addr().map(|address| (http, address))) {
        Ok(bound) => {
            take_bursts(&bound.0);
            Ok(Some(bound))
        }
        Err(error) => {
            let text = format!("cannot serve HTTP at {addresses:?}: {error} (is another server running?)");
            anyhow::ensure!(!is_asked_for, text);
            tracing::warn!("{text}; there are no pages (see --http)");
            Ok(None)
        }
    }
}

/// The first signal stops the server in order. Ends with the second one: whoever sends it does not want
/// to wait, and loses nothing by that.
async fn second_signal(shutdown: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("cannot catch signals: the server can only be killed");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
    shutdown.cancel();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn end(code: u8, error: &anyhow::Error) -> ExitCode {
    tracing::error!("{error:#}");
    ExitCode::from(code)
}
