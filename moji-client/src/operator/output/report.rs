//! `moji report`: what became of the queue. Pure.
//!
//! The report has a form of its own, with a number; of it only what people ask for first is shown. What is not
//! there is left out, so that a report of another form is shown as far as it is understood.

use moji_proto::outcome::plain;
use serde_json::Value;

use super::{Paint, Style, words};

/// Longest list of one target; `--json` has all.
const SHOWN: usize = 50;

/// What became of the queue.
pub fn report(report: &Value, style: &Style) -> String {
    let standing = match text(report, "standing") {
        "empty" => "Nothing is left in the queue",
        "stuck" => "What is left waits for what does not come by itself",
        _ => "Builds go on",
    };
    let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_u64).unwrap_or(0);
    let totals = report.get("totals").unwrap_or(&Value::Null);
    let mut page = format!("{}\n", style.heading(standing));
    page += &format!("{}\n", counts(totals.get("counts").unwrap_or(&Value::Null)));
    page += &format!(
        "{} attempts, {} of building in {}\n",
        number(totals, "attempts"),
        words::duration(number(totals, "busy_seconds")),
        words::duration(number(totals, "wall_seconds"))
    );
    for target in list(report, "targets") {
        let name = target.get("target").and_then(Value::as_str).unwrap_or("any builder");
        page += &format!("\n{}\n", style.heading(&format!("== {name} ==")));
        page += &format!("{}\n", counts(target.get("counts").unwrap_or(&Value::Null)));
        for (title, field, paint) in [("Failed", "failed", Paint::Bad), ("Held", "held", Paint::Odd)] {
            section(&mut page, title, list(target, field), style, |failed| {
                let head = style.paint(paint, text(failed, "srpm"));
                format!("  {head}: {}\n", plain(text(failed, "reason")))
            });
        }
        for (title, field, missing) in [("Parked", "parked", "missing"), ("Waiting", "waiting", "needs")] {
            section(&mut page, title, list(target, field), style, |waiting| {
                let mut lines = format!("  {}\n", plain(text(waiting, "srpm")));
                lines.extend(list(waiting, missing).iter().map(needs));
                lines
            });
        }
        section(&mut page, "Dependency cycles", list(target, "cycles"), style, |cycle| {
            let edges = list(cycle, "edges").iter();
            let edges =
                edges.map(|edge| format!("{} (needs {})", text(edge, "package"), text(edge, "requirement")));
            format!("  {}\n", plain(&edges.collect::<Vec<_>>().join(" -> ")))
        });
    }
    page
}

fn section(page: &mut String, title: &str, entries: &[Value], style: &Style, one: impl Fn(&Value) -> String) {
    if entries.is_empty() {
        return;
    }
    *page += &format!("{}\n", style.heading(title));
    page.extend(entries.iter().take(SHOWN).map(one));
    if let rest @ 1.. = entries.len().saturating_sub(SHOWN) {
        *page += &format!("  and {rest} more (--json)\n");
    }
}

fn needs(missing: &Value) -> String {
    let providers = list(missing, "providers").iter();
    let providers = providers.map(|one| format!("{} is {}", text(one, "srpm"), text(one, "state")));
    let providers = providers.collect::<Vec<_>>().join(", ");
    let requirement = plain(text(missing, "requirement"));
    match (providers.is_empty(), missing.get("is_there").and_then(Value::as_bool)) {
        (_, Some(true)) => format!("    {requirement}: is there now\n"),
        (true, _) => format!("    {requirement}: nothing here is known to bring it\n"),
        (false, _) => format!("    {requirement}: {}\n", plain(&providers)),
    }
}

fn counts(counts: &Value) -> String {
    let number = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or(0);
    let names = ["built", "failed", "held", "parked", "waiting"];
    names.map(|name| format!("{} {name}", number(name))).join(", ")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
