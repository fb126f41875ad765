//! The server as one function: folders, tasks, and the order in which they begin and end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::accept::{Listener, accept};
use crate::access::credentials::Credentials;
use crate::access::identity::Identity;
use crate::access::{self, Access};
use crate::api::Api;
use crate::catalogue::Catalogue;
use crate::contents;
use crate::farm::{Campaign, Farm, FarmConfig, FarmInputs, Steering};
use crate::farm_handle::FarmHandle;
use crate::folders::{Folders, FoldersError};
use crate::history::History;
use crate::http;
use crate::left_behind::take_over;
use crate::limits::Limits;
use crate::logins::Logins;
use crate::metadata::{self, Maker, Metadata, MetadataConfig};
use crate::outgoing::{HistoryLog, Outgoing, SinkConfig};
use crate::quiet::Quiet;
use crate::rebuilt;
use crate::repository_url::RepositoryUrls;
use crate::room::FreeSpace;
use crate::scheduler::Rules;
use crate::session::{Desk, PREPARING, SessionConfig};
use crate::source::{self, SourceConfig};
use crate::submissions::Submissions;
use crate::working::WorkingWatch;

/// How a server is to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The four folders; made and checked by [`run`].
    pub folders: Folders,
    /// A password that lets builders in; `None`: they need a credential, or anybody who can connect is
    /// let in when there are none.
    pub password: Option<String>,
    /// Whether to speak without TLS.
    pub plaintext: bool,
    /// How often builders say that they live.
    pub heartbeat: Duration,
    /// After how long without a frame a connection is given up.
    pub dead_after: Duration,
    /// How long a lease outlives its connection.
    pub grace: Duration,
    /// What the operator has decided about who builds what.
    pub rules: Rules,
    /// How long a lease outlives the server that gave it: 60 s.
    pub patience: Duration,
    /// Nothing is handed out with less room on the disk of WORKING, in bytes; 0: whatever there is.
    pub min_free: u64,
    /// How much room there is.
    pub free_space: FreeSpace,
    /// The `createrepo_c` program.
    pub createrepo: PathBuf,
    /// Who makes the metadata.
    pub metadata: Maker,
    /// Most bytes of one live log.
    pub log_limit: u64,
    /// What strangers and builders may make the server keep or do.
    pub limits: Limits,
    /// Whether to watch the folders with inotify: yes. Without it, changes are found every `rescan`
    /// only, which makes a server on a simulated clock reproducible.
    pub watch: bool,
    /// How often the folders are looked at whatever inotify says: 60 s.
    pub rescan: Duration,
    /// How long earlier generations of the repositories can be had: 2 days.
    pub keep_generations: Duration,
    /// Where HTTP is served, if it is.
    pub http: Option<Arc<TcpListener>>,
    /// Who is told of what happens.
    pub outgoing: Vec<SinkConfig>,
    /// Under which URLs builders find the repositories.
    pub repository_urls: RepositoryUrls,
}

/// What may wait between tasks before the sender has to wait too.
const CHANNEL: usize = 1024;
/// Each may tell of many packages.
const CONTENTS: usize = 4;

/// Serves until `shutdown`. What is under way is ended in order: no new connections, builders told,
/// publications finished, metadata last.
///
/// # Errors
/// When the folders cannot be used, or a task that the server needs has failed.
pub async fn run(config: Config, listener: impl Listener, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut folders = config.folders.clone();
    let retry_on_change = config.rules.retry_on_change;
    let taken_over = spawn_blocking(move || {
        let lock = folders.prepare()?;
        let left = take_over(&folders)?;
        anyhow::Ok((lock, folders, left))
    });
    let (lock, folders, mut left) = taken_over.await??;
    let folders = Arc::new(folders);
    // From here on nothing but the farm moves SRPMs. With a long queue the first look at SOURCE and the history take most
    // of a start: each has a processor to itself.
    let mut tasks = JoinSet::new();
    let (source_tx, source) = mpsc::channel(CHANNEL);
    let source_config = SourceConfig {
        watch: config.watch,
        rescan: config.rescan,
        headers: Some(folders.private().join("headers")),
        ..SourceConfig::new(folders.source.clone())
    };
    tasks.spawn(source::watch(source_config, source_tx, shutdown.clone()));
    let before = Arc::clone(&folders);
    let remembered = spawn_blocking(move || {
        let folders = before;
        let catalogue = Catalogue::read(&folders)
            .with_context(|| format!("cannot read REPO ({})", folders.repo.display()))?;
        let (mut history, tries) =
            History::open(&folders).map_err(|error| FoldersError::new(format!("{error:#}")))?;
        left.tries = tries;
        left.remembered = history.take_remembered();
        left.unanswered.append(&mut left.remembered.unanswered);
        if retry_on_change {
            left.failed = rebuilt::failed_builds(&folders);
        }
        let (campaign, steering) = (Campaign::read(&folders), Steering::read(&folders)?);
        let private = folders.private();
        let identity = Identity::load_or_make(&private)?;
        let credentials = Credentials::read(&private)?;
        anyhow::Ok((left, catalogue, history, identity, credentials, campaign, steering))
    });
    let (left, catalogue, history, identity, credentials, campaign, steering) = remembered.await??;

    let (sessions_tx, sessions) = mpsc::channel(CHANNEL);
    let (working_tx, working) = mpsc::channel(CHANNEL);
    let watch = match config.watch {
        true => WorkingWatch::new(&folders.working, working_tx),
        false => WorkingWatch::default(),
    };
    if let Err(missing) = metadata::check_program(&config.createrepo) {
        tracing::warn!("{missing}");
    }
    let (credentials_tx, credentials) = watch::channel(Arc::new(credentials));
    let metadata_config = MetadataConfig {
        createrepo: config.createrepo.clone(),
        maker: config.metadata,
        watch: config.watch,
        rescan: config.rescan,
        keep_generations: config.keep_generations,
        generations_size: config.limits.generations_size,
        ..MetadataConfig::new(folders.repo.clone(), folders.metadata_private())
    };
    let (metadata, repositories) = Metadata::new(metadata_config);
    // Who may come in from elsewhere must be able to read it from there.
    let is_open = config.password.is_none() && credentials.borrow().is_empty();
    let urls = &config.repository_urls;
    let tells_repository = !urls.is_unknown() && (is_open || !urls.is_local_only());
    let elsewhere = if urls.is_unknown() { "" } else { " on other machines" };
    let farm_config = FarmConfig {
        repositories: repositories.clone(),
        repository_urls: config.repository_urls.clone(),
        campaign,
        steering,
        credentials: credentials.clone(),
        folders: Arc::clone(&folders),
        boot: u64::from_be_bytes(random()?),
        grace: config.grace,
        rules: Rules { tells_repository, ..config.rules.clone() },
        patience: config.patience,
        min_free: config.min_free,
        free_space: config.free_space.clone(),
        history: history.recorder(),
        catalogue,
        limits: config.limits.clone(),
    };
    let farm = Farm::new(farm_config, watch);
    if !tells_repository {
        tracing::warn!(
            "builders{elsewhere} are not told where REPO is: what is built here they find only if Mock's configs have it; see \
             --http and --repo-url"
        );
    }
    match config.plaintext {
        true => tracing::warn!("no TLS: who can listen in reads everything but the password"),
        false => tracing::info!("this server's key is {}", identity.fingerprint()),
    }
    let (farm_handle, asks) = FarmHandle::new();
    let api = Api::new(farm_handle, history.reader(), history.events(), Arc::clone(&folders))
        .with_repository_urls(config.repository_urls.clone())
        .until(shutdown.clone());
    let sessions_config = session_config(&config, &api, identity, credentials).await?;

    // The farm outlives the sessions, so that what they delivered last is still published.
    let farm_shutdown = CancellationToken::new();
    let metadata_shutdown = CancellationToken::new();
    let look = if config.watch { access::LOOK } else { config.rescan };
    let watching = access::watch(folders.private(), look, credentials_tx, shutdown.clone());
    tasks.spawn(async move {
        watching.await;
        Ok(())
    });
    let counting = api.clone().count(shutdown.clone());
    tasks.spawn(async move {
        counting.await;
        Ok(())
    });
    if let Some(listener) = config.http {
        let serving = http::serve(listener, api.clone(), shutdown.clone());
        tasks.spawn(async move {
            serving.await;
            Ok(())
        });
    }
    let outgoing_log = HistoryLog::new(history.reader(), history.recorder());
    let outgoing = Outgoing::start(config.outgoing.clone(), outgoing_log, &history.events(), &shutdown).await;
    let (contents_tx, contents) = mpsc::channel(CONTENTS);
    let following =
        contents::follow(folders.repo.clone(), repositories.served(), contents_tx, metadata_shutdown.clone());
    tokio::spawn(following);
    let mut metadata = tokio::spawn(metadata.run(metadata_shutdown.clone()));
    let inputs = FarmInputs { source, sessions, working, contents, asks };
    let mut farm = tokio::spawn(farm.run(left, inputs, shutdown.clone(), farm_shutdown.clone()));
    let mut accepting =
        tokio::spawn(accept(listener, Arc::new(sessions_config), sessions_tx, shutdown.clone()));

    let failed = tokio::select! {
        // Everything ends when it is told to: that must not be taken for a failure.
        biased;
        () = shutdown.cancelled() => None,
        Some(ended) = tasks.join_next() => Some(format!("a watcher has ended: {ended:?}")),
        ended = &mut metadata => Some(format!("the metadata's task has ended: {ended:?}")),
        ended = &mut farm => Some(format!("the farm's task has ended: {ended:?}")),
        ended = &mut accepting => Some(format!("the listener's task has ended: {ended:?}")),
    };
    shutdown.cancel();
    if failed.is_none() {
        accepting.await?;
        farm_shutdown.cancel();
        farm.await?;
        metadata_shutdown.cancel();
        let _ = metadata.await?;
    }
    outgoing.stopped().await;
    spawn_blocking(move || history.close()).await?;
    drop(lock);
    failed.map_or(Ok(()), |reason| Err(anyhow!(reason)))
}

async fn session_config(
    config: &Config,
    api: &Api,
    identity: Identity,
    credentials: watch::Receiver<Arc<Credentials>>,
) -> anyhow::Result<SessionConfig> {
    let (password, salt, plaintext) = (config.password.clone(), random()?, config.plaintext);
    let access =
        spawn_blocking(move || Access::new(&identity, password.as_deref(), salt, plaintext, credentials));
    Ok(SessionConfig {
        access: access.await??,
        heartbeat: config.heartbeat,
        dead_after: config.dead_after,
        logins: Logins::new(&config.limits),
        limits: config.limits.clone(),
        quiet: Quiet::default(),
        log_limit: config.log_limit,
        folders: Arc::clone(&api.folders),
        free_space: config.free_space.clone(),
        desk: Desk {
            router: http::router(&api.apart()),
            submissions: Submissions::new(
                Arc::clone(&api.folders),
                config.free_space.clone(),
                config.limits.submission_size,
                config.min_free,
            ),
            api: api.apart(),
        },
        preparing: Arc::new(Semaphore::new(PREPARING)),
    })
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow!("{error}"))
        .context("no random numbers from the system")?;
    Ok(bytes)
}

/// Takes as many open files as the system gives without asking: the usual 1,024 are not enough for
/// a thousand builders.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!("cannot raise the number of open files: {error}");
    }
}
