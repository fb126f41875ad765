//! Packages that need each other, and what must become of them: a model that knows nothing of the farm.
//!
//! Deterministic from a seed. All names begin with `moji-t-`, which no host has: hostmock would take what the host
//! has for installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A package of the set.
#[derive(Debug, Clone, Default)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: u32,
    /// BuildRequires.
    pub(super) needs: Vec<Need>,
    /// Requires of the binary package.
    pub(super) requires: Vec<String>,
    /// Queued for the second target too.
    pub(super) is_linked: bool,
    /// Its %build fails.
    pub(super) fails: bool,
}

/// A BuildRequires.
#[derive(Debug, Clone)]
pub(super) struct Need {
    /// As in the spec file.
    pub(super) text: String,
    /// The package that meets it; none does when it is empty.
    pub(super) met_by: Option<String>,
    /// The SRPM whose header shows that it would provide this, if only it were built, or were another version.
    pub(super) known_of: Option<String>,
}

impl Need {
    fn name(of: &Package) -> Self {
        Self::known(of, of.name.clone())
    }

    fn at_least(of: &Package, version: u32) -> Self {
        Self::known(of, format!("{} >= {version}", of.name))
    }

    fn known(of: &Package, text: String) -> Self {
        Self { text, met_by: Some(of.name.clone()), known_of: Some(of.name.clone()) }
    }

    /// What is in no SRPM's header.
    fn hidden(of: &Package, text: String) -> Self {
        Self { text, met_by: Some(of.name.clone()), known_of: None }
    }

    fn api(of: &Package) -> Self {
        Self::hidden(of, format!("{}(api) >= {}", of.name, of.version))
    }

    fn file(of: &Package) -> Self {
        Self::hidden(of, format!("/usr/bin/{}", of.name))
    }

    /// What nobody meets.
    fn unmet(text: &str, known_of: Option<&Package>) -> Self {
        Self { text: text.to_owned(), met_by: None, known_of: known_of.map(|of| of.name.clone()) }
    }
}

impl Package {
    pub(super) fn srpm(&self) -> String {
        format!("{}-{}-1.src.rpm", self.name, self.version)
    }

    pub(super) fn nvr(&self) -> String {
        format!("{}-{}-1", self.name, self.version)
    }

    /// The line of build.log that tells why it failed.
    pub(super) fn error_line(&self) -> String {
        format!("{}.c:7:2: error: this does not compile", self.name)
    }

    pub(super) fn spec(&self) -> String {
        let Self { name, version, .. } = self;
        let mut spec = format!(
            "Name: {name}\nVersion: {version}\nRelease: 1%{{?dist}}\nSummary: A package for tests\nLicense: MIT\n\
             BuildArch: noarch\nProvides: {name}(api) = {version}\n"
        );
        for need in &self.needs {
            writeln!(spec, "BuildRequires: {}", need.text).unwrap();
        }
        for name in &self.requires {
            writeln!(spec, "Requires: {name}").unwrap();
        }
        let build = if self.fails { format!("echo '{}'; exit 1", self.error_line()) } else { String::new() };
        write!(
            spec,
            "%description\nA package for tests.\n%prep\n%build\n{build}\n%install\nmkdir -p %{{buildroot}}/usr/bin\n\
             echo {name} >%{{buildroot}}/usr/bin/{name}\n%files\n/usr/bin/{name}\n"
        )
        .unwrap();
        spec
    }
}

/// Small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }

    fn of<'a>(&mut self, among: &[&'a Package]) -> &'a Package {
        among[self.below(among.len())]
    }
}

/// Packages for so many builds, a third of them for the second target, in chains of this depth. Those on which others
/// depend come first.
pub(super) fn packages(builds: usize, depth: usize, seed: u64) -> Vec<Package> {
    let mut random = Random(seed);
    let linked = builds / 3;
    // The odd ones below are 14, 3 of them linked.
    let mut all = good(builds - linked - 14, linked - 3, depth, &mut random);
    all.extend(odd(&all, &mut random));
    all
}

/// Those that can be built, in layers.
fn good(count: usize, linked: usize, depth: usize, random: &mut Random) -> Vec<Package> {
    let layer_of = |at: usize| at * depth / count;
    let mut all: Vec<Package> = Vec::new();
    for at in 0..count {
        let layer = layer_of(at);
        let mut package = Package {
            name: format!("moji-t-{}{at}", char::from(b'a' + u8::try_from(layer).unwrap())),
            version: 1 + u32::try_from(random.below(3)).unwrap(),
            is_linked: at * linked / count != (at + 1) * linked / count,
            ..Package::default()
        };
        let usable: Vec<_> =
            all.iter().enumerate().filter(|(_, other)| other.is_linked || !package.is_linked).collect();
        let of_layer = |layer| -> Vec<&Package> {
            usable.iter().filter(|(at, _)| layer_of(*at) == layer).map(|(_, other)| *other).collect()
        };
        if layer > 0 {
            let mut providers = vec![random.of(&of_layer(layer - 1))];
            for _ in 0..random.below(3) {
                let lower = of_layer(random.below(layer));
                // The first one of a layer is what many need.
                providers.push(if random.below(2) == 0 { lower[0] } else { random.of(&lower) });
            }
            for provider in providers {
                let need = match random.below(10) {
                    0 => Need::file(provider),
                    1 => Need::api(provider),
                    2..=4 => Need::at_least(provider, provider.version),
                    _ => Need::name(provider),
                };
                if package.needs.iter().all(|other| other.met_by != need.met_by) {
                    package.needs.push(need);
                }
            }
            if random.below(8) == 0 {
                let lower = of_layer(random.below(layer));
                package.requires.push(random.of(&lower).name.clone());
            }
        }
        all.push(package);
    }
    all
}

/// Those that cannot, and those that need them.
fn odd(good: &[Package], random: &mut Random) -> Vec<Package> {
    let linked: Vec<&Package> = good.iter().filter(|package| package.is_linked).collect();
    let unlinked: Vec<&Package> = good.iter().filter(|package| !package.is_linked).collect();
    let last = linked[linked.len() - 1];
    let new = |name: &str, needs: Vec<Need>| Package {
        name: format!("moji-t-{name}"),
        version: 1,
        needs,
        ..Package::default()
    };
    let link = |package: Package| Package { is_linked: true, ..package };
    let fails = |package: Package| Package { fails: true, ..package };
    let mut some = || Need::name(random.of(&linked));
    let fail0 = link(fails(new("fail0", vec![some()])));
    let fail1 = fails(new("fail1", vec![some()]));
    let fail2 = fails(new("fail2", vec![Need::at_least(last, 1)]));
    let after0 = link(new("after0", vec![Need::name(&fail0), some()]));
    let after1 = new("after1", vec![Need::api(&fail1)]);
    let later1 = new("later1", vec![Need::name(&after1)]);
    let [x, y, z] = ["x", "y", "z"].map(|name| new(&format!("ring-{name}"), Vec::new()));
    let ring = [
        Package { needs: vec![Need::name(&y), some()], ..x.clone() },
        Package { needs: vec![Need::at_least(&z, 1)], ..y },
        Package { needs: vec![Need::name(&x)], ..z },
    ];
    let outside = new("outside", vec![Need::name(&x)]);
    let high0 = new("high0", vec![Need::unmet(&format!("{} >= 99", last.name), Some(last))]);
    let high1 = new("high1", vec![Need::unmet(&format!("{}(api) >= 99", last.name), None), some()]);
    let nowhere =
        vec![Need::unmet("moji-t-nowhere", None), Need::unmet("pkgconfig(moji-t-nowhere) >= 2", None)];
    let nowhere = new("nobody", nowhere);
    // Only the first target has that.
    let apart = link(new("apart", vec![Need::name(unlinked[unlinked.len() - 1])]));
    let mut all = vec![fail0, fail1, fail2, after0, after1, later1];
    all.extend(ring);
    all.extend([outside, high0, high1, nowhere, apart]);
    all
}

/// What must become of the packages of one target.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) built: BTreeSet<String>,
    pub(super) failed: BTreeSet<String>,
    /// The rest, each with what it lacks.
    pub(super) lacking: BTreeMap<String, BTreeSet<String>>,
}

/// By trying again and again until nothing changes.
pub(super) fn fate(packages: &[&Package]) -> Fate {
    let mut fate = Fate::default();
    loop {
        let is_met =
            |need: &Need| need.met_by.as_ref().is_some_and(|name| installable(name, packages, &fate.built));
        let settled =
            |package: &Package| fate.built.contains(&package.name) || fate.failed.contains(&package.name);
        let next = packages.iter().find(|package| !settled(package) && package.needs.iter().all(is_met));
        let Some(next) = next else {
            let rest = packages.iter().filter(|package| !settled(package));
            let lacks = |package: &Package| -> BTreeSet<String> {
                package.needs.iter().filter(|need| !is_met(need)).map(|need| need.text.clone()).collect()
            };
            let lacking = rest.map(|package| (package.name.clone(), lacks(package))).collect();
            return Fate { lacking, ..fate };
        };
        let (name, set) = (next.name.clone(), if next.fails { &mut fate.failed } else { &mut fate.built });
        set.insert(name);
    }
}

/// It and all that it requires are built.
fn installable(name: &str, packages: &[&Package], built: &BTreeSet<String>) -> bool {
    let package = packages.iter().find(|package| package.name == name);
    built.contains(name)
        && package
            .is_some_and(|package| package.requires.iter().all(|name| installable(name, packages, built)))
}

/// Whatever an attempt at a package can have lacked: each of them can come once.
pub(super) fn can_lack(package: &Package, packages: &[Package]) -> BTreeSet<String> {
    let mut lacks: BTreeSet<String> = package.needs.iter().map(|need| need.text.clone()).collect();
    let mut todo: Vec<&str> = package.needs.iter().filter_map(|need| need.met_by.as_deref()).collect();
    while let Some(name) = todo.pop() {
        for required in packages.iter().filter(|other| other.name == name).flat_map(|other| &other.requires) {
            lacks.insert(required.clone());
            todo.push(required);
        }
    }
    lacks
}
