mod parsing;
mod providing;
mod versions;

use super::*;

/// `name [op evr]`, as a capability.
fn capability(text: &str) -> Capability {
    match text.parse().unwrap() {
        Requirement::Plain { name, versions } => Capability { name, versions },
        Requirement::File(name) => Capability { name, versions: None },
        Requirement::Rich(rich) => panic!("{rich}"),
    }
}

fn requirement(text: &str) -> Requirement {
    text.parse().unwrap()
}

fn package(name: &str, provides: &[&str], files: &[&str]) -> PublishedPackage {
    let mut files: Vec<_> = files.iter().map(|path| FileHash::of(path)).collect();
    files.sort();
    PublishedPackage {
        path: PackagePath::new(format!("{name}-1-1/{name}-1-1.noarch.rpm")),
        name: name.into(),
        evr: Evr::new("1-1"),
        arch: "noarch".into(),
        source: None,
        provides: provides.iter().map(|text| capability(text)).collect(),
        files,
    }
}
