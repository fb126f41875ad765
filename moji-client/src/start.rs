//! What a client does before it connects: finds Mock and its config, takes its work folder, cleans
//! up after an earlier run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use moji_proto::{Registration, RepositoryUrl, TargetName};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;

use crate::access::{Access, KnownServers};
use crate::builder::{FarmRepository, Mock};
use crate::disk::FreeSpace;
use crate::mock::command::check_mock_args;
use crate::mock::configs::{self, MockConfig};
use crate::mock::run::{Limits, environment};
use crate::options::{Settings, WantedTarget};
use crate::resources::Machine;
use crate::run::{Config, Connector};
use crate::work_dir::WorkDir;

/// Everything that [`crate::run::run`] wants.
pub struct Started {
    /// How to run.
    pub config: Config,
    /// The way to the server.
    pub connector: Tcp,
    /// The builder.
    pub mock: Arc<Mock>,
    /// The work folder.
    pub work_dir: Arc<WorkDir>,
}

/// The server's address; looked up anew for each connection.
#[derive(Debug)]
pub struct Tcp {
    host: String,
    port: u16,
}

impl Tcp {
    /// To this host.
    pub fn new(host: String, port: u16) -> Self {
        Self { host, port }
    }
}

impl Connector for Tcp {
    type Io = TcpStream;

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        moji_proto::io::tune(&stream)?;
        Ok(stream)
    }

    fn server(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// What to say to whoever runs a client as root. It works, but nothing needs it: Mock wants a member of
/// its group, and builds of strangers run as whoever calls Mock.
pub fn too_many_rights() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some(
        "running as root, which nothing here needs: use a user of its own in the group mock \
         (useradd --system --create-home --groups mock moji-builder)",
    )
}

/// Checks everything that a build will need, so that a mistake shows now and not in the first build.
///
/// # Errors
/// What cannot be used, and what to do about it.
pub async fn start(settings: Settings) -> anyhow::Result<Started> {
    check_mock_args(&settings.mock_args).context("--mock-arg")?;
    let program = find_program(settings.mock)?;
    let environment = environment(std::env::vars_os());
    let home = std::env::home_dir();
    let folders =
        configs::folders_of(&program, home.as_deref(), std::env::var_os("HOSTMOCK_CONFIG_DIR").as_deref());
    let farm_repository = farm_repository(settings.no_addrepo, &settings.host)?;
    let wanted = settings.targets;
    let (targets, configs) = spawn_blocking(move || find_configs(wanted, &folders)).await??;
    let version = configs::probe(&program, &environment).await?;
    tracing::info!("{} {version}", program.display());
    for config in configs.values() {
        tracing::info!("target {}, config {}", config.target, config.path.display());
    }
    let path = settings.work_dir;
    let work_dir = Arc::new(spawn_blocking(move || WorkDir::open(&path)).await??);
    let mock = Mock {
        program,
        configs,
        farm_repository,
        mock_args: settings.mock_args,
        environment,
        limits: Limits {
            build_timeout: Some(settings.build_timeout),
            stall_timeout: Some(settings.stall_timeout),
            ..Limits::default()
        },
        id: work_dir.id(),
        cleanup_log: work_dir.path().join("cleanup.log"),
        blocked: Mutex::default(),
    };
    mock.sweep(settings.slots).await?;
    let disks = vec![work_dir.path().to_owned(), PathBuf::from("/var/lib/mock")];
    let free_space = FreeSpace::of(disks);
    let look = free_space.clone();
    let machine = spawn_blocking(move || Machine::look(Path::new("/"), look.look())).await?;
    let registration = Registration {
        name: settings.name,
        targets,
        slots: settings.slots,
        arch: rustix::system::uname().machine().to_string_lossy().into_owned(),
        software: concat!("moji-client ", env!("CARGO_PKG_VERSION")).into(),
        resources: machine.per_build(settings.slots),
        tags: settings.tags,
    };
    let access = match settings.plaintext {
        true => Access::plaintext(settings.secret, settings.server_key),
        false => Access::encrypted(settings.secret, settings.server_key, KnownServers::new(work_dir.path())),
    };
    let config = Config {
        registration,
        access,
        exit_when_idle: settings.exit_when_idle,
        log_limit: settings.log_limit,
        outbox_limit: settings.outbox_limit,
        outbox_age: settings.outbox_age,
        min_free: settings.min_free,
        free_space,
    };
    let connector = Tcp::new(settings.host, settings.port);
    Ok(Started { config, connector, mock: Arc::new(mock), work_dir })
}

/// The config of each target; the targets in their order.
fn find_configs(
    wanted: Vec<WantedTarget>,
    folders: &[PathBuf],
) -> anyhow::Result<(Vec<TargetName>, BTreeMap<TargetName, MockConfig>)> {
    let (mut targets, mut configs) = (Vec::new(), BTreeMap::new());
    for WantedTarget { name, config } in wanted {
        let found = configs::find(&config, name, folders)?;
        targets.push(found.target.clone());
        configs.insert(found.target.clone(), found);
    }
    Ok((targets, configs))
}

fn farm_repository(no_addrepo: bool, host: &str) -> anyhow::Result<FarmRepository> {
    if no_addrepo {
        return Ok(FarmRepository::InConfigs);
    }
    // Now, and not in the first build.
    RepositoryUrl::on_server(1, "/").and_then(|url| url.at(host)).context(
        "the farm's repository could not be given to Mock: name the server otherwise, or --no-addrepo",
    )?;
    Ok(FarmRepository::Added { host: host.to_owned() })
}

/// A path is made absolute, because builds do not run in the folder where the client was started;
/// a mere name is left to be found in PATH.
fn find_program(mock: PathBuf) -> anyhow::Result<OsString> {
    if mock.components().count() > 1 {
        let absolute = std::path::absolute(&mock).with_context(|| format!("--mock {}", mock.display()))?;
        return Ok(absolute.into_os_string());
    }
    Ok(mock.into_os_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_has_its_config_and_the_order_stays() {
        let at = tempfile::tempdir().unwrap();
        for name in ["f43", "f42", "local"] {
            std::fs::write(at.path().join(format!("{name}.cfg")), "").unwrap();
        }
        let wanted = |name: Option<&str>, config: &str| WantedTarget {
            name: name.map(|name| name.parse().unwrap()),
            config: config.into(),
        };
        let folders = [at.path().to_owned()];
        let all = vec![wanted(None, "f43"), wanted(Some("f12"), "local"), wanted(None, "f42")];
        let (targets, configs) = find_configs(all, &folders).unwrap();
        assert_eq!(targets.iter().map(TargetName::as_str).collect::<Vec<_>>(), ["f43", "f12", "f42"]);
        let arguments: Vec<_> =
            targets.iter().map(|target| configs[target].argument.to_str().unwrap()).collect();
        assert_eq!(arguments, ["f43", "local", "f42"]);
        let error = find_configs(vec![wanted(None, "f43"), wanted(None, "gone")], &folders).unwrap_err();
        assert!(error.to_string().contains("\"gone\""), "{error}");
    }

    #[test]
    fn a_host_that_no_url_can_have_is_said_at_the_start() {
        assert!(farm_repository(false, "böse.example.org").is_err());
        assert_eq!(farm_repository(true, "böse.example.org").unwrap(), FarmRepository::InConfigs);
        assert_eq!(farm_repository(false, "::1").unwrap(), FarmRepository::Added { host: "::1".into() });
    }
}
