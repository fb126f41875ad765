//! Builds, as many of them as wanted, and which.

use maud::{Markup, html};
use moji_proto::FailureKind;
use moji_proto::api::{self, Build, BuildState, Target};

use super::frame::{Frame, Fresh, Page, Part};
use super::{link, parts, words};
use crate::history::BuildFilter;

const KINDS: [FailureKind; 6] = [
    FailureKind::Package,
    FailureKind::MissingDependency,
    FailureKind::Infrastructure,
    FailureKind::Configuration,
    FailureKind::UnreadableSrpm,
    FailureKind::Interrupted,
];

/// A part of the builds.
pub fn builds(frame: Frame<'_>, page: &api::Page<Build>, filter: &BuildFilter, targets: &[Target]) -> Markup {
    let first = BuildFilter { before: None, ..filter.clone() };
    let any = |filter: &BuildFilter| *filter == BuildFilter { limit: filter.limit, ..BuildFilter::default() };
    let body = html! {
        h1 { "Builds" @if let Some(total) = page.total { span .count { (words::number(total)) } } }
        (states(&first))
        (form(&first, targets))
        section #list data-live[filter.before.is_none()] {
            @if page.items.is_empty() {
                @if any(filter) {
                    (parts::nothing("There are no builds yet.", html! { "Put an SRPM into SOURCE, or " code { "moji submit" } " one." }))
                } @else {
                    (parts::nothing("No build is like that.", html! { a href="/builds" { "Show all" } }))
                }
            } @else { (parts::builds(frame, "Builds, the newest first", &page.items)) }
        }
        nav .pages aria-label="Parts of the list" {
            @if filter.before.is_some() { a rel="first" href=(link::builds(&first)) { "Newest" } }
            @if let Some(next) = page.next {
                a rel="next" href=(link::builds(&BuildFilter { before: Some(next), ..filter.clone() })) { "Older" }
            }
        }
    };
    let fresh = Fresh { is_still: filter.before.is_some(), ..Fresh::default() };
    Page { title: "Builds", part: Part::Builds, above: None, fresh, body }.render(frame)
}

fn states(filter: &BuildFilter) -> Markup {
    let with = |states: Vec<BuildState>| link::builds(&BuildFilter { states, ..filter.clone() });
    let current = |states: &[BuildState]| (filter.states == states).then_some("true");
    html! {
        nav .choice aria-label="State" {
            ul {
                li { a href=(with(Vec::new())) aria-current=[current(&[])] { "All" } }
                @for state in BuildState::ALL {
                    li { a href=(with(vec![state])) aria-current=[current(&[state])] { (parts::state(state)) } }
                }
            }
        }
    }
}

fn form(filter: &BuildFilter, targets: &[Target]) -> Markup {
    let states = filter.states.iter().map(|state| state.word()).collect::<Vec<_>>().join(",");
    html! {
        form .filter action="/builds" aria-label="Which builds" {
            @if !states.is_empty() { input type="hidden" name="state" value=(states); }
            @if let Some(package) = &filter.package { input type="hidden" name="package" value=(package); }
            label { span { "Name" } input type="search" name="q" value=[filter.search.as_ref()] spellcheck="false" autocomplete="off"; }
            label {
                span { "Target" }
                select name="target" {
                    option value="" { "all" }
                    @for target in targets {
                        @let word = link::target_word(target.name.as_ref());
                        option value=(word) selected[filter.target.as_ref() == Some(&target.name)] {
                            @match &target.name { Some(name) => (name), None => "any builder (SOURCE)" }
                        }
                    }
                }
            }
            label {
                span { "Failed because of" }
                select name="kind" {
                    option value="" { "anything" }
                    @for kind in KINDS {
                        option value=(link::kind(kind)) selected[filter.failure == Some(kind)] { (words::kind(kind)) }
                    }
                }
            }
            label { span { "Builder" } input name="builder" value=[filter.builder.as_ref()] spellcheck="false" autocomplete="off"; }
            button { "Show" }
            @if filter.package.is_some() || filter.builder.is_some() || filter.search.is_some() || filter.target.is_some() || filter.failure.is_some() {
                a href=(link::builds(&BuildFilter { states: filter.states.clone(), ..BuildFilter::default() })) { "Clear" }
            }
            @if let Some(package) = &filter.package { p .soft { "Only of the package " strong { (package) } } }
        }
    }
}
