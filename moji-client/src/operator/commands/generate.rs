//! `moji completions` and `moji man`, from the same definitions as the command line itself.

use std::fs;
use std::io::{self, Write as _};

use clap::{Command, CommandFactory as _};

use crate::operator::Failure;
use crate::operator::options::{AFTER, Completions, Man, Options};
use crate::operator::output::{print, print_bytes};

pub(super) fn completions(wanted: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(wanted.shell, &mut Options::command(), "moji", &mut script);
    print_bytes(&script)
}

pub(super) fn man(wanted: &Man) -> Result<(), Failure> {
    let mut command = Options::command().disable_help_subcommand(true);
    command.build();
    let Some(folder) = &wanted.folder else {
        let page = page(&mut command, AFTER).map_err(|error| Failure::of_output(&error))?;
        return print_bytes(&page);
    };
    let mut write = || {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("moji.1"), page(&mut command, AFTER)?)?;
        for command in command.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
            let name = format!("moji-{}.1", command.get_name());
            fs::write(folder.join(name), page(command, "")?)?;
        }
        io::Result::Ok(())
    };
    write().map_err(|error| {
        Failure::Wrong(format!("cannot write man pages into {}: {error}", folder.display()))
    })?;
    print(&format!("written into {}\n", folder.display()))
}

/// The man page of one command. `after` is what follows its options, in paragraphs.
fn page(command: &mut Command, after: &str) -> io::Result<Vec<u8>> {
    let usage = command.render_usage().to_string();
    let man = clap_mangen::Man::new(command.clone().after_help(None::<&str>));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    // Of options' values the library's own synopsis says nothing.
    let usage = usage.lines().map(|line| line.trim_start_matches("Usage:").trim());
    writeln!(page, ".SH SYNOPSIS\n{}", as_it_is(usage))?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let of = |title: &str| after.split("\n\n").find_map(|part| part.strip_prefix(title));
    if let Some(codes) = of("Exit codes:\n") {
        writeln!(page, ".SH \"EXIT STATUS\"\n{}", as_it_is(codes.lines()))?;
    }
    let is_note =
        |part: &&str| !part.is_empty() && !part.starts_with("Exit codes:") && !part.starts_with("Examples:");
    let notes: Vec<_> = after.split("\n\n").filter(is_note).map(|part| lines(part.lines())).collect();
    if !notes.is_empty() {
        writeln!(page, ".SH NOTES\n{}", notes.join("\n.PP\n"))?;
    }
    if let Some(examples) = of("Examples:\n") {
        writeln!(page, ".SH EXAMPLES\n{}", as_it_is(examples.lines()))?;
    }
    Ok(page)
}

/// Lines that stay lines.
fn as_it_is<'a>(text: impl Iterator<Item = &'a str>) -> String {
    format!(".nf\n{}\n.fi", lines(text))
}

/// Lines that mean nothing but themselves to roff.
fn lines<'a>(text: impl Iterator<Item = &'a str>) -> String {
    let line = |line: &str| format!("\\&{}", line.replace('\\', "\\e").replace('-', "\\-"));
    text.map(line).collect::<Vec<_>>().join("\n")
}
