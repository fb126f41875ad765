//! What a seed means: everything that happens in one simulation, drawn before it begins.

use std::time::Duration;

use moji_proto::{FailureKind, Outcome};

/// Faults and hostile peers end after so many seconds.
pub(crate) const FAULTS: u64 = 180;

/// SplitMix64: small, and the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(purpose.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, mix))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `from` to `to`, both included.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }

    pub(crate) fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from * 1000, to * 1000))
    }
}

/// A package and how building it ends, whoever does it.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) target: Option<&'static str>,
    pub(crate) payload: usize,
    pub(crate) put_at: Duration,
    pub(crate) outcome: Outcome,
}

impl Package {
    /// The path below SOURCE, WORKING and FINISHED.
    pub(crate) fn path(&self) -> String {
        let srpm = format!("{}-1-1.src.rpm", self.name);
        self.target.map_or(srpm.clone(), |target| format!("{target}/{srpm}"))
    }

    /// The folder below REPO.
    pub(crate) fn folder(&self) -> String {
        let nvr = format!("{}-1-1", self.name);
        self.target.map_or(nvr.clone(), |target| format!("{target}/{nvr}"))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct BuilderPlan {
    pub(crate) name: String,
    pub(crate) targets: Vec<&'static str>,
    pub(crate) slots: u16,
    /// Of its link to the server.
    pub(crate) latency: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Crash,
    Partition,
    /// What is sent is neither lost nor delivered: a half-open connection.
    Hold,
    Slow,
}

/// One fault of one host (and the server, where it takes two).
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) fault: Fault,
    pub(crate) host: String,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) packages: Vec<Package>,
    pub(crate) builders: Vec<BuilderPlan>,
    pub(crate) troubles: Vec<Trouble>,
    pub(crate) hostile: bool,
    pub(crate) again: Again,
    pub(crate) grace: Duration,
    pub(crate) password: Option<&'static str>,
}

/// When a package may be built a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// When its builder was away for longer than the grace, or failed.
    Late,
    /// When its builder crashed before it had finished.
    Unfinished,
    /// Never: no builder crashes or fails, and nobody is away for longer than the grace.
    Never,
}

const TARGETS: [&str; 2] = ["f43-arm", "f44-arm"];

impl Plan {
    pub(crate) fn calm(seed: u64) -> Self {
        Self::new(seed, &[], false)
    }

    pub(crate) fn crashes(seed: u64) -> Self {
        Self::new(seed, &[Fault::Crash], false)
    }

    pub(crate) fn bad_network(seed: u64) -> Self {
        Self::new(seed, &[Fault::Partition, Fault::Hold, Fault::Slow], false)
    }

    pub(crate) fn everything(seed: u64) -> Self {
        Self::new(seed, &[Fault::Crash, Fault::Partition, Fault::Hold, Fault::Slow], false)
    }

    pub(crate) fn hostile(seed: u64) -> Self {
        Self::new(seed, &[Fault::Crash, Fault::Partition, Fault::Hold, Fault::Slow], true)
    }

    /// Nobody is away for long, and no builder crashes: nothing is built twice for nothing.
    pub(crate) fn short_faults(seed: u64) -> Self {
        let mut plan = Self::new(seed, &[Fault::Crash, Fault::Partition, Fault::Hold, Fault::Slow], false);
        plan.troubles.retain(|trouble| trouble.fault != Fault::Crash || trouble.host == "server");
        plan.again = Again::Never;
        plan.shortened()
    }

    /// Nobody is away for long, but anybody may crash: what is finished is not built again.
    pub(crate) fn short_crashes(seed: u64) -> Self {
        let mut plan = Self::new(seed, &[Fault::Crash, Fault::Crash, Fault::Partition], false);
        plan.again = Again::Unfinished;
        plan.shortened()
    }

    /// The same with faults that are over long before the grace is.
    fn shortened(mut self) -> Self {
        for trouble in &mut self.troubles {
            trouble.to = trouble.from + (trouble.to - trouble.from) / 6;
        }
        self.grace = Duration::from_secs(120);
        self
    }

    /// When nothing bad happens any more.
    pub(crate) fn quiet_at(&self) -> Duration {
        let packages = self.packages.iter().map(|package| package.put_at);
        let troubles = self.troubles.iter().map(|trouble| trouble.to);
        let hostile = self.hostile.then_some(Duration::from_secs(FAULTS));
        packages.chain(troubles).chain(hostile).max().unwrap_or_default() + Duration::from_secs(1)
    }

    fn new(seed: u64, faults: &[Fault], hostile: bool) -> Self {
        let mut random = Random::new(seed, "plan");
        let builders: Vec<_> = (1..=random.between(3, 5))
            .map(|number| {
                // The first two serve everything, so that nothing is without a builder.
                let both = number <= 2 || random.percent(50);
                let one = TARGETS[random.between(0, 1) as usize];
                let targets = if both { TARGETS.to_vec() } else { vec![one] };
                BuilderPlan {
                    name: format!("builder-{number}"),
                    targets,
                    slots: random.between(1, 3) as u16,
                    latency: Duration::from_millis(random.between(1, 300)),
                }
            })
            .collect();
        let packages = (1..=random.between(6, 14)).map(|number| package(number, &mut random)).collect();
        let hosts: Vec<_> =
            builders.iter().map(|builder| builder.name.clone()).chain(["server".into()]).collect();
        let mut troubles = Vec::new();
        for _ in 0..if faults.is_empty() { 0 } else { random.between(2, 9) } {
            let fault = faults[random.between(0, faults.len() as u64 - 1) as usize];
            let last = if fault == Fault::Crash { hosts.len() } else { builders.len() };
            let host = hosts[random.between(0, last as u64 - 1) as usize].clone();
            let from = random.seconds(1, FAULTS - 60);
            troubles.push(Trouble { fault, host, from, to: from + random.seconds(1, 60) });
        }
        let grace = if random.percent(20) { Duration::ZERO } else { random.seconds(1, 10) };
        let password = random.percent(10).then_some("a long password");
        Self { seed, packages, builders, troubles, hostile, again: Again::Late, grace, password }
    }
}

fn package(number: u64, random: &mut Random) -> Package {
    let name = format!("package-{number}");
    let target = if random.percent(30) { Some(TARGETS[random.between(0, 1) as usize]) } else { None };
    let outcome = match random.between(1, 10) {
        1 | 2 => Outcome::failed(FailureKind::Package, &format!("{name} does not compile"), Some(1), vec![]),
        3 => {
            let missing = vec![format!("pkgconfig(missing-{number})")];
            Outcome::failed(FailureKind::MissingDependency, "no such package", Some(30), missing)
        }
        _ => Outcome::Succeeded,
    };
    let put_at = if random.percent(50) { Duration::ZERO } else { random.seconds(1, 120) };
    Package { name, target, payload: random.between(100, 300_000) as usize, put_at, outcome }
}
