//! Packages: what builds of one name came to, and how long they take.

use maud::{Markup, html};
use moji_proto::TargetName;
use moji_proto::api::{self, Package, PackageDetail, Took};

use super::frame::{Frame, Fresh, Page, Part};
use super::table::{Row, table};
use super::{link, parts, words};

/// Packages, those with a text in their name or all.
pub fn packages(frame: Frame<'_>, page: &api::Page<Package>, search: &str, skip: u64) -> Markup {
    let part = |skip: u64| {
        let skip = if skip == 0 { String::new() } else { skip.to_string() };
        link::query("/packages", &[("q", search.to_owned()), ("skip", skip)])
    };
    let row = |package: &Package| Row {
        key: package.name.clone(),
        cells: vec![
            html! { a href=(link::package(&package.name)) { (package.name) } },
            html! { (words::number(package.builds)) },
            parts::state(package.last.state),
            html! { a .quiet href=(link::build(package.last.id)) { (parts::name(&package.last)) } },
            words::ago(frame.now, package.last.settled_at.unwrap_or(package.last.queued_at)),
        ],
    };
    let body = html! {
        h1 { "Packages" @if let Some(total) = page.total { span .count { (words::number(total)) } } }
        form .filter action="/packages" role="search" aria-label="Packages" {
            label { span { "Name" } input type="search" name="q" value=(search) spellcheck="false" autocomplete="off"; }
            button { "Search" }
            @if !search.is_empty() { a href="/packages" { "Clear" } }
        }
        section #list data-live {
            @if page.items.is_empty() {
                @if search.is_empty() { (parts::nothing("No package was built yet.", html! { "Put an SRPM into SOURCE, or " code { "moji submit" } " one." })) }
                @else { (parts::nothing("No package has that in its name.", html! { a href="/packages" { "Show all" } })) }
            } @else {
                (table("Packages", &["Package", "Builds#", "Newest", "Which", "When#"], page.items.iter().map(row).collect()))
            }
        }
        nav .pages aria-label="Parts of the list" {
            @if skip > 0 { a rel="prev" href=(part(skip.saturating_sub(u64::from(api::PAGE)))) { "Before" } }
            @if let Some(next) = page.next { a rel="next" href=(part(next)) { "More" } }
        }
    };
    Page { title: "Packages", part: Part::Packages, above: None, fresh: Fresh::default(), body }.render(frame)
}

/// A package, for one target or all.
pub fn package(frame: Frame<'_>, package: &PackageDetail, target: Option<&TargetName>) -> Markup {
    let name = &package.name;
    let all =
        link::builds(&crate::history::BuildFilter { package: Some(name.clone()), ..Default::default() });
    let body = html! {
        h1 { (name) @if let Some(target) = target { span .count { "for " (target) } } }
        section #durations data-live aria-labelledby="durations-title" {
            h2 #durations-title { "How long it takes" }
            @if package.durations.is_empty() { (parts::nothing("No attempt at it has succeeded yet.", html! {})) }
            @else { (chart(&package.durations)) (durations(frame, &package.durations)) }
        }
        section #builds data-live aria-labelledby="builds-title" {
            h2 #builds-title { "Builds" a .more href=(all) { "All, and search" } }
            @if package.builds.is_empty() { (parts::nothing("There is no build of it.", html! {})) }
            @else { (parts::builds(frame, "Builds, the newest first", &package.builds)) }
        }
    };
    Page { title: name, part: Part::Packages, above: Some(&[]), fresh: Fresh::default(), body }.render(frame)
}

const WIDTH: u64 = 720;
const HEIGHT: u64 = 160;
/// Room for the scale, left of the bars.
const LEFT: u64 = 64;

/// The next round number of seconds that people would choose for the top of a scale.
fn top_of(longest: u64) -> u64 {
    const STEPS: [u64; 18] = [
        10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800,
        345_600, 604_800,
    ];
    STEPS.into_iter().find(|step| *step >= longest).unwrap_or(longest)
}

/// One bar each, the newest on the right.
fn chart(durations: &[Took]) -> Markup {
    let longest = durations.iter().map(|took| took.seconds).max().unwrap_or(1);
    let top = top_of(longest).max(1);
    let count = durations.len().max(1) as u64;
    // Few bars stay slim.
    let step = ((WIDTH - LEFT) * 10 / count).clamp(1, 240);
    let tenths = |value: u64| format!("{}.{}", value / 10, value % 10);
    let y = |seconds: u64| HEIGHT - 8 - (HEIGHT - 24) * seconds.min(top) / top;
    html! {
        svg .chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby="chart-text" {
            title #chart-text { (in_words(durations)) }
            @for seconds in [0, top / 2, top] {
                line class="grid" x1=(LEFT) x2=(WIDTH) y1=(y(seconds)) y2=(y(seconds)) {}
                text x=(LEFT - 8) y=(y(seconds) + 4) text-anchor="end" { (words::duration(seconds)) }
            }
            @for (at, took) in durations.iter().enumerate() {
                @let height = (y(0) - y(took.seconds)).max(2);
                rect class="bar" x=(tenths(LEFT * 10 + at as u64 * step + step / 10)) y=(y(0) - height)
                    width=(tenths((step * 8 / 10).max(5))) height=(height) rx=[(step > 60).then_some("2")] {
                    title { (words::duration(took.seconds)) " on " (took.builder) " for " (took.target) }
                }
            }
        }
    }
}

fn in_words(durations: &[Took]) -> String {
    let mut seconds: Vec<u64> = durations.iter().map(|took| took.seconds).collect();
    seconds.sort_unstable();
    let [least, middle, most] = [0, seconds.len() / 2, seconds.len().saturating_sub(1)]
        .map(|at| words::duration(seconds.get(at).copied().unwrap_or(0)));
    format!(
        "{} that succeeded, oldest on the left: from {least} to {most}, half of them at most {middle}",
        words::many(seconds.len() as u64, "attempt")
    )
}

fn durations(frame: Frame<'_>, durations: &[Took]) -> Markup {
    let row = |(at, took): (usize, &Took)| Row {
        key: format!("{}-{at}", took.at),
        cells: vec![
            words::ago(frame.now, took.at),
            html! { (words::duration(took.seconds)) },
            parts::builder(&took.builder),
            parts::target(Some(&took.target)),
        ],
    };
    html! {
        p .soft { (in_words(durations)) "." }
        details #as-table {
            summary { "As a table" }
            (table("How long attempts took that succeeded, the newest first", &["When", "Took#", "Builder", "Target"],
                durations.iter().enumerate().rev().map(row).collect()))
        }
    }
}
