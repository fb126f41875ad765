//! What all pages have around them.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use super::assets;

/// What every page is told.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The time.
    pub now: Timestamp,
    /// The server's program and version.
    pub software: &'a str,
}

/// Where a page belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Overview,
    Queue,
    Builds,
    Packages,
    Builders,
    Targets,
    Report,
    Nowhere,
}

const PARTS: [(Part, &str, &str); 7] = [
    (Part::Overview, "/", "Overview"),
    (Part::Queue, "/queue", "Queue"),
    (Part::Builds, "/builds", "Builds"),
    (Part::Packages, "/packages", "Packages"),
    (Part::Builders, "/builders", "Builders"),
    (Part::Targets, "/targets", "Targets"),
    (Part::Report, "/report", "Report"),
];

/// What keeps a page up to date.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fresh {
    /// Only what happens to this build changes the page.
    pub(super) build: Option<u64>,
    /// It changes without anything happening: look now and then.
    pub(super) is_moving: bool,
    /// It never changes.
    pub(super) is_still: bool,
}

/// One page.
pub(super) struct Page<'a> {
    pub(super) title: &'a str,
    pub(super) part: Part,
    /// What is between the part and this page; none: it is the part's own page.
    pub(super) above: Option<&'a [(String, &'a str)]>,
    pub(super) fresh: Fresh,
    pub(super) body: Markup,
}

impl Page<'_> {
    pub(super) fn render(self, frame: Frame<'_>) -> Markup {
        let Self { title, part, above, fresh, body } = self;
        html! {
            (DOCTYPE)
            html lang="en" data-now=(frame.now) {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) @if part != Part::Overview { " · Moji" } }
                    link rel="icon" type="image/svg+xml" href=(assets::FAVICON.path());
                    link rel="stylesheet" href=(assets::STYLE.path());
                    script src=(assets::SCRIPT.path()) defer {}
                }
                body {
                    a .skip href="#main" { "Skip to the content" }
                    (header(part))
                    main #main tabindex="-1" data-build=[fresh.build] data-moving[fresh.is_moving]
                        data-still[fresh.is_still] {
                        (trail(part, above))
                        (body)
                    }
                    footer {
                        p { (frame.software) " · as of " (super::words::at(frame.now)) }
                        nav aria-label="For programs" {
                            a href="/api/v1/openapi.json" { "API" } " "
                            a href="/metrics" { "Metrics" } " "
                            a href="/repo/" { "Repository" }
                        }
                    }
                }
            }
        }
    }
}

fn header(part: Part) -> Markup {
    html! {
        header .top {
            div .inner {
                a .brand href="/" { (mark()) span { "Moji" } }
                nav aria-label="Pages" {
                    ul {
                        @for (one, path, name) in PARTS {
                            li { a href=(path) aria-current=[(one == part).then_some("page")] { (name) } }
                        }
                    }
                }
                form .search role="search" action="/builds" {
                    label .unseen for="search" { "Search builds" }
                    input #search type="search" name="q" placeholder="Search builds" autocomplete="off" spellcheck="false"
                        aria-keyshortcuts="/";
                }
                span #live .live hidden {}
            }
        }
    }
}

/// An m whose three strokes stand in a box, as packages do.
fn mark() -> Markup {
    html! {
        svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true" {
            rect width="32" height="32" rx="8" class="mark-box" {}
            path class="mark-m" d="M8 23V13.5a4 4 0 0 1 8 0V23M16 13.5a4 4 0 0 1 8 0V23" {}
        }
    }
}

fn trail(part: Part, above: Option<&[(String, &str)]>) -> Markup {
    let own = PARTS.iter().find(|(one, ..)| *one == part);
    html! {
        @if let (Some((_, path, name)), Some(above)) = (own, above) {
            nav .trail aria-label="Where this is" {
                ol {
                    li { a href=(path) { (name) } }
                    @for (path, name) in above { li { a href=(path) { (name) } } }
                }
            }
        }
    }
}

/// What is said when there is no such page, or none now.
pub fn problem(frame: Frame<'_>, title: &str, text: &str) -> Markup {
    let body = html! {
        h1 { (title) }
        p .lead { (text) }
        p { a href="/" { "To the overview" } " · " a href="/builds" { "All builds" } }
    };
    let fresh = Fresh { is_still: true, ..Fresh::default() };
    Page { title, part: Part::Nowhere, above: None, fresh, body }.render(frame)
}
