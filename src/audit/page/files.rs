//! What became of files: what stays before what came and went, and many of a kind as one row.

use std::fmt::Write as _;

use super::super::record::Op;
use super::super::story::{Changed, Kept, Story};
use super::parts::rows;
use super::{Shown, number};

/// From how many alike of one directory on they share a row.
const ALIKE: usize = 4;

/// A file and what became of it.
type Entry<'a> = (&'a str, &'a Changed);

pub(super) fn files(html: &mut String, story: &Story<'_>) {
    html.push_str("<section id=\"files\"><h2>Files changed</h2>\n");
    let outside = if story.knows_workspace() { "Outside the workspace" } else { "Files" };
    let inside: Vec<Entry<'_>> = entries(&story.inside, story);
    let (git, own): (Vec<Entry<'_>>, Vec<Entry<'_>>) = inside.into_iter().partition(|(path, _)| is_gits(path));
    let (gone, stay): (Vec<Entry<'_>>, Vec<Entry<'_>>) =
        own.into_iter().partition(|(_, changed)| came_and_went(changed));
    let lists = [
        (outside, entries(&story.elsewhere, story), 20, story.elsewhere.more),
        ("In the workspace", stay, 20, story.inside.more),
        ("Made and removed again", gone, 2, 0),
        ("What git keeps for itself", git, 0, 0),
        ("Temporary", entries(&story.temporary, story), 4, story.temporary.more),
    ];
    if lists.iter().all(|(_, list, ..)| list.is_empty()) {
        html.push_str("<p class=\"soft\">None on record.</p>\n");
    }
    for (title, list, open, more) in lists.into_iter().filter(|(_, list, ..)| !list.is_empty()) {
        let count = format!("{}{}", number(list.len() as u64), if more > 0 { "+" } else { "" });
        let _ = writeln!(html, "<h3>{title} <span class=\"soft\">({count})</span></h3>");
        rows(html, alike(&list).into_iter().map(|group| row(group, story)), open, more, "changes");
    }
    html.push_str("</section>\n");
}

fn entries<'a>(list: &'a Kept<String, Changed>, story: &'a Story<'_>) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = list.iter().map(|(path, changed)| (story.relative(path), changed)).collect();
    // By directory first: what lies below one stands together.
    entries.sort_by_key(|(path, _)| path.rsplit_once('/').unwrap_or(("", path)));
    entries
}

fn is_gits(path: &str) -> bool {
    path.starts_with(".git/") || path.contains("/.git/")
}

/// Whether it was made as often as it was removed, so that nothing of it is left.
fn came_and_went(changed: &Changed) -> bool {
    let count =
        |ops: &[Op]| changed.done.iter().filter(|(op, _)| ops.contains(op)).map(|(_, count)| count).sum::<u64>();
    let made = count(&[Op::Create, Op::Mkdir, Op::Mknod, Op::Symlink]);
    let began = changed.done.first().is_some_and(|(op, _)| !matches!(op, Op::Unlink | Op::Rmdir));
    let moved = count(&[Op::Rename, Op::Exchange, Op::Link]) > 0;
    made > 0 && began && !moved && made == count(&[Op::Unlink, Op::Rmdir])
}

/// Cuts a list where the directory or what became of it is another.
fn alike<'a, 'b>(list: &'b [Entry<'a>]) -> Vec<&'b [Entry<'a>]> {
    let directory = |path: &'a str| path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let same = |a: &Entry<'a>, b: &Entry<'a>| {
        directory(a.0) == directory(b.0) && a.1.done == b.1.done && a.1.other.is_none() && b.1.other.is_none()
    };
    let runs = list.chunk_by(same);
    runs.flat_map(|run| if run.len() < ALIKE { run.chunks(1) } else { run.chunks(run.len()) }).collect()
}

fn row(group: &[Entry<'_>], story: &Story<'_>) -> String {
    match group {
        [] => String::new(),
        [(path, changed)] => file(path, changed, story),
        [(path, changed), ..] => many(path.rsplit_once('/').map_or("", |(directory, _)| directory), changed, group),
    }
}

fn file(path: &str, changed: &Changed, story: &Story<'_>) -> String {
    let other = changed.other.as_ref();
    let other = other.map(|(way, other)| format!(" {way} <code>{}</code>", Shown(story.relative(other))));
    format!(
        "<div class=\"split\"><span><code>{}</code></span><span class=\"how\">{}{}</span></div>",
        Shown(path),
        words(changed),
        other.unwrap_or_default()
    )
}

/// Files of one directory to which the same was done.
fn many(directory: &str, changed: &Changed, group: &[Entry<'_>]) -> String {
    let name = |path: &str| format!("<code>{}</code>", Shown(path.rsplit('/').next().unwrap_or(path)));
    let names: Vec<String> = group.iter().map(|(path, _)| name(path)).collect();
    format!(
        "<div class=\"split\"><span><code>{}/</code> {} names in it</span><span class=\"how\">each {}</span></div>\
         <details><summary>which</summary><p class=\"how\">{}</p></details>",
        Shown(if directory.is_empty() { "." } else { directory }),
        number(group.len() as u64),
        words(changed),
        names.join(" ")
    )
}

fn words(changed: &Changed) -> String {
    changed.done.iter().map(|(op, count)| done(*op, *count)).collect::<Vec<_>>().join(", ")
}

fn done(op: Op, count: u64) -> String {
    let word = match op {
        Op::Create => "created",
        Op::Mkdir => "directory made",
        Op::Mknod => "special file made",
        Op::Symlink => "link made",
        Op::Link => "second name",
        Op::Write => "written",
        Op::Truncate => "cut",
        Op::Unlink => "removed",
        Op::Rmdir => "directory removed",
        Op::Rename => "renamed",
        Op::Exchange => "exchanged",
        Op::Chmod => "mode set",
        Op::Chown => "owner set",
        Op::Utime => "times set",
        Op::Xattr => "attribute set",
        Op::Read
        | Op::Exec
        | Op::Connect
        | Op::Send
        | Op::Route
        | Op::Resolve
        | Op::Accept
        | Op::Bind
        | Op::Signal
        | Op::Call => op.name(),
    };
    if count > 1 { format!("{word} {count}×") } else { word.to_string() }
}
