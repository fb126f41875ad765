//! Looks at results in REPO as whoever fetches them does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use moji_proto::Sha256;
use moji_server::record::BuildRecord;

/// All results in a repository by folder, those of further attempts (`<NVR>/attempt-<id>`) included.
/// Each holds exactly what its `build.json` says.
///
/// # Errors
/// The first thing that is not so.
pub fn check_results(repository: &Path) -> Result<BTreeMap<String, BuildRecord>, String> {
    let mut found = BTreeMap::new();
    for name in names(repository)? {
        let folder = repository.join(&name);
        let is_result = name != "repodata" && name != "generations" && !name.starts_with("report.");
        if !is_result || folder.join("repodata").exists() {
            continue;
        }
        for beside in names(&folder)?.into_iter().filter(|name| name.starts_with("attempt-")) {
            found.insert(format!("{name}/{beside}"), check_result(&folder.join(&beside))?);
        }
        found.insert(name, check_result(&folder)?);
    }
    Ok(found)
}

fn check_result(folder: &Path) -> Result<BuildRecord, String> {
    let cannot = |what: &str, error: &dyn std::fmt::Display| format!("{}/{what}: {error}", folder.display());
    let json = fs::read(folder.join("build.json")).map_err(|error| cannot("build.json", &error))?;
    let record: BuildRecord = serde_json::from_slice(&json).map_err(|error| cannot("build.json", &error))?;
    let mut expected = vec!["build.json".to_owned()];
    for artifact in &record.artifacts {
        let name = artifact.name.as_str();
        let content = fs::read(folder.join(name)).map_err(|error| cannot(name, &error))?;
        if Sha256::of(&content) != artifact.sha256 {
            return Err(cannot(name, &"not what build.json says"));
        }
        expected.push(name.to_owned());
    }
    expected.sort();
    let mut there = names(folder)?;
    there.retain(|name| !name.starts_with("attempt-"));
    if there == expected { Ok(record) } else { Err(format!("{}: {there:?}", folder.display())) }
}

fn names(folder: &Path) -> Result<Vec<String>, String> {
    let cannot = |error: std::io::Error| format!("{}: {error}", folder.display());
    let entries = fs::read_dir(folder).map_err(cannot)?;
    let names = entries.map(|entry| Ok(entry.map_err(cannot)?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>, String>>()?;
    names.sort();
    Ok(names)
}
