//! A steady stream of SRPMs of a few kinds, made by a thread of its own.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use moji_proto::{FailureKind, Outcome};
use moji_tests::support::processes::{tiny_spec, top};

use crate::random::Random;

/// SRPMs that are made in one go.
const BATCH: u64 = 6;

/// What comes of an SRPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Builds at once.
    Good,
    /// Takes some seconds.
    Slow,
    /// Its results are megabytes that cannot be compressed.
    Big,
    /// Fails in `%build`.
    Fails,
    /// The same, after megabytes of log.
    FailsLoudly,
    /// Needs what nobody has.
    Needy,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Slow => "slow",
            Self::Big => "big",
            Self::Fails => "fails",
            Self::FailsLoudly => "loud",
            Self::Needy => "needy",
        })
    }
}

impl Kind {
    fn draw(random: &mut Random) -> Self {
        match random.below(100) {
            0..45 => Self::Good,
            45..60 => Self::Slow,
            60..72 => Self::Big,
            72..82 => Self::Fails,
            82..90 => Self::FailsLoudly,
            _ => Self::Needy,
        }
    }

    /// Whether this is how an SRPM of this kind ends when nothing else goes wrong.
    pub(crate) fn expects(self, outcome: &Outcome) -> bool {
        let Outcome::Failed { kind, .. } = outcome else {
            return matches!(self, Self::Good | Self::Slow | Self::Big);
        };
        match self {
            Self::Fails | Self::FailsLoudly => *kind == FailureKind::Package,
            Self::Needy => *kind == FailureKind::MissingDependency,
            _ => false,
        }
    }

    fn spec(self, name: &str, random: &mut Random) -> String {
        let tenths = random.below(8);
        let script = match self {
            Self::Good | Self::Needy => format!("sleep 0.{tenths}"),
            Self::Slow => format!("for n in 1 2 3 4; do echo part $n; sleep 0.{}; done", 3 + tenths / 2 * 2),
            Self::Big => format!("head -c {}M /dev/urandom >big", 10 + random.below(15)),
            Self::Fails => format!("sleep 0.{tenths}; echo 'error: no'; exit 1"),
            Self::FailsLoudly => {
                "yes 'a line of a log that is far too long' | head -c 1000000; exit 1".into()
            }
        };
        let spec = tiny_spec(name, &script);
        match self {
            Self::Big => spec
                .replace("%description", "%global _binary_payload w0.gzdio\n%description")
                .replace("%files", &format!("cp big %{{buildroot}}/usr/share/{name}\n%files")),
            Self::Needy => spec.replace("BuildArch:", "BuildRequires: nobody-has-this\nBuildArch:"),
            _ => spec,
        }
    }
}

/// An SRPM that is not queued yet.
pub(crate) struct Srpm {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
}

/// Makes SRPMs in `folder` as long as somebody takes them; big ones up to `big` bytes of results.
pub(crate) fn supply(folder: &Path, seed: u64, big: u64) -> Receiver<Srpm> {
    let (sender, receiver) = sync_channel(2 * BATCH as usize);
    let folder = folder.to_owned();
    thread::spawn(move || {
        let mut random = Random::new(seed, "supply");
        let mut left = big;
        for batch in 0.. {
            let mut kinds = Vec::new();
            let mut command = Command::new(top().join("scripts/make-srpm"));
            for n in 0..BATCH {
                let mut kind = Kind::draw(&mut random);
                if kind == Kind::Big {
                    match left.checked_sub(25 << 20) {
                        Some(rest) => left = rest,
                        None => kind = Kind::Good,
                    }
                }
                let name = format!("{kind}{}", batch * BATCH + n);
                let spec = folder.join(format!("{name}.spec"));
                fs::write(&spec, kind.spec(&name, &mut random)).unwrap();
                command.arg(spec);
                kinds.push((kind, folder.join(format!("srpms/{name}-1-1.src.rpm"))));
            }
            let output = command.arg("-o").arg(folder.join("srpms")).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            for (kind, path) in kinds {
                if sender.send(Srpm { kind, path }).is_err() {
                    return;
                }
            }
        }
    });
    receiver
}
