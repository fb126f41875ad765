//! What Mock really did: a wrapper around hostmock writes down each run, outside of the farm, so that a
//! build that was done twice shows whatever the farm says of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A `mock` that adds a line to `journal` when a build begins and when it ends. It waits for hostmock
/// when it gets a signal, so that an end is written after a SIGTERM too.
pub(crate) fn wrapper(journal: &Path, hostmock: &Path) -> String {
    let (journal, hostmock) = (journal.display(), hostmock.display());
    format!(
        r#"#!/bin/sh
for last; do :; done
case $last in
    *.src.rpm) ;;
    *) exec {hostmock} "$@" ;;
esac
srpm=${{last##*/}}
folder=${{last%/*}}
said="$srpm ${{folder##*/}}"
trap : TERM INT HUP
read -r up _ </proc/uptime
echo "start $up $said" >>{journal}
{hostmock} "$@"
code=$?
alive=no
if test -d /proc/$PPID; then alive=yes; fi
read -r up _ </proc/uptime
echo "end $up $said $code $alive" >>{journal}
exit $code
"#
    )
}

/// Seconds since this machine was started: what the wrapper writes, too.
pub(crate) fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// One run of Mock.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) attempt: String,
    pub(crate) start: f64,
    pub(crate) end: Option<End>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) at: f64,
    code: i32,
    /// Its client was still there.
    seen: bool,
}

impl Run {
    /// When it ended by itself, seen by its client: with results, or with a failure that is a result.
    pub(crate) fn finished(&self) -> Option<f64> {
        let by_signal = |code| matches!(code, 7 | 129 | 130 | 137 | 141 | 143);
        self.end.filter(|end| end.seen && !by_signal(end.code)).map(|end| end.at)
    }
}

/// The runs of each SRPM, in the order in which they began.
pub(crate) fn read(journal: &Path) -> BTreeMap<String, Vec<Run>> {
    let mut runs: BTreeMap<String, Vec<Run>> = BTreeMap::new();
    for line in fs::read_to_string(journal).unwrap_or_default().lines() {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["start", at, srpm, attempt] => runs.entry(srpm.to_owned()).or_default().push(Run {
                attempt: attempt.to_owned(),
                start: at.parse().unwrap(),
                end: None,
            }),
            ["end", at, srpm, attempt, code, alive] => {
                let of_srpm = runs.get_mut(srpm).unwrap();
                let run = of_srpm.iter_mut().find(|run| run.attempt == attempt).unwrap();
                let (at, code) = (at.parse().unwrap(), code.parse().unwrap());
                run.end = Some(End { at, code, seen: alive == "yes" });
            }
            _ => panic!("{}: {line}", journal.display()),
        }
    }
    runs
}
