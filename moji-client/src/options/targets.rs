//! What a client is to build for, as its owner says it. Knows no Mock and no file: whether a config is there
//! is found out when the client starts.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use moji_proto::TargetName;
use moji_proto::limits::TARGETS;
use serde::Deserialize;

/// A target that is to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedTarget {
    /// Its name, where the config has another one.
    pub name: Option<TargetName>,
    /// The Mock config: a name, or the path of a `.cfg` file.
    pub config: String,
}

impl WantedTarget {
    /// `NAME=CONFIG`.
    pub(super) fn named(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, config)) if !config.is_empty() => {
                let name = TargetName::new(name).map_err(|error| error.to_string())?;
                Ok(Self { name: Some(name), config: config.to_owned() })
            }
            _ => Err(format!("{text:?} is not NAME=CONFIG, a target and the Mock config to build it with")),
        }
    }

    /// What the target is called, if the config can be one's: as the config's file without `.cfg`.
    fn called(&self) -> &str {
        let file = || self.config.rsplit('/').next().unwrap_or_default();
        self.name.as_ref().map_or_else(|| file().strip_suffix(".cfg").unwrap_or(file()), TargetName::as_str)
    }
}

/// `mock-config` in the configuration file.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "mock-config is one text, or a list of texts")]
pub(super) enum Configs {
    /// As on the command line.
    Line(String),
    /// One each.
    List(Vec<String>),
}

/// All that is to be served, the preferred ones first: `configs`, then those with a name.
///
/// # Errors
/// What is wrong with them, or that there are none.
pub(super) fn wanted(
    configs: Option<Configs>,
    named: Vec<WantedTarget>,
) -> anyhow::Result<Vec<WantedTarget>> {
    let configs: Vec<String> = match configs {
        None => Vec::new(),
        Some(Configs::Line(line)) => line.split(',').map(|config| config.trim().to_owned()).collect(),
        Some(Configs::List(configs)) => configs,
    };
    if configs.iter().any(String::is_empty) {
        bail!("a Mock config without a name: write CONFIG,CONFIG without anything between");
    }
    let unnamed = configs.into_iter().map(|config| WantedTarget { name: None, config });
    let all: Vec<_> = unnamed.chain(named).collect();
    if all.is_empty() {
        bail!("the Mock config is missing: moji-client HOST[:PORT] MOCK_CONFIG (see moji-client --help)");
    }
    if all.len() > TARGETS {
        bail!("a builder serves at most {TARGETS} targets, not {}", all.len());
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = all.iter().map(WantedTarget::called).find(|name| !seen.insert(*name)) {
        bail!("the target {twice} is given twice: each can have one Mock config (see --target)");
    }
    Ok(all)
}

/// `[targets]` in the configuration file, sorted by name.
pub(super) fn from_table(table: BTreeMap<String, String>) -> anyhow::Result<Vec<WantedTarget>> {
    let one = |(name, config)| {
        WantedTarget::named(&format!("{name}={config}"))
            .map_err(anyhow::Error::msg)
            .context("[targets] in the configuration file")
    };
    table.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str, named: &[&str]) -> Result<Vec<(String, String)>, String> {
        let named = named.iter().map(|text| WantedTarget::named(text)).collect::<Result<_, _>>()?;
        let line = (!line.is_empty()).then(|| Configs::Line(line.into()));
        let all = wanted(line, named).map_err(|error| error.to_string())?;
        Ok(all.into_iter().map(|one| (one.called().to_owned(), one.config)).collect())
    }

    #[test]
    fn the_order_is_that_of_preference() {
        let is = |wanted: &[(&str, &str)]| {
            Ok(wanted.iter().map(|(name, config)| ((*name).to_owned(), (*config).to_owned())).collect())
        };
        assert_eq!(names("f43", &[]), is(&[("f43", "f43")]));
        assert_eq!(
            names("f43-x86_64, /etc/x/f42.cfg,eol/f12", &["b=f43-local", "a=./x=y.cfg"]),
            is(&[
                ("f43-x86_64", "f43-x86_64"),
                ("f42", "/etc/x/f42.cfg"),
                ("f12", "eol/f12"),
                ("b", "f43-local"),
                ("a", "./x=y.cfg"),
            ])
        );
        assert_eq!(names("", &["a=f43"]), is(&[("a", "f43")]));
        // Two targets may have one config.
        assert_eq!(names("f43", &["a=f43"]), is(&[("f43", "f43"), ("a", "f43")]));
    }

    #[test]
    fn mistakes_are_named() {
        let many = (0..=TARGETS).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        for (line, named, wanted) in [
            ("", &[][..], "Mock config is missing"),
            ("a,,b", &[], "without a name"),
            (",", &[], "without a name"),
            ("a,b,a", &[], "a is given twice"),
            ("x/a.cfg,eol/a", &[], "a is given twice"),
            ("f43,a", &["a=f43"], "a is given twice"),
            ("", &["a=x", "a=y"], "a is given twice"),
            ("", &["a"], "not NAME=CONFIG"),
            ("", &["a="], "not NAME=CONFIG"),
            ("", &["../a=x"], "target's name"),
            ("", &["=x"], "target's name"),
            (&many, &[], "at most 64 targets, not 65"),
        ] {
            let error = names(line, named).unwrap_err();
            assert!(error.contains(wanted), "{line} {named:?}: {error}");
        }
    }
}
