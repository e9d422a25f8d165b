//! `agentbox policy test`: puts cases to policies and prints those that come out otherwise than expected.
//!
//! Main process, no box: each case is a question of `agentbox why`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::print;
use super::why::view::{Asked, View};
use super::why::{Answer, as_run_has_it};
use crate::audit::text::printable;
use crate::event::Effect;
use crate::policy::cases::{Case, CasesFile, Question};
use crate::policy::{self, Request, World, load};

/// All came out as expected.
const FINE: u8 = 0;
/// Some did not.
const FAILED: u8 = 1;
/// What could not be understood.
const BAD: u8 = 125;

/// Runs `agentbox policy test` and returns the exit status; what cannot be understood counts most.
pub fn test(files: &[PathBuf], world: &World) -> Result<u8> {
    let mut status = FINE;
    for file in files {
        let one = test_file(file, world).unwrap_or_else(|error| {
            eprintln!("agentbox: {}", printable(&format!("{error:#}")));
            BAD
        });
        status = status.max(one);
    }
    Ok(status)
}

fn test_file(path: &Path, world: &World) -> Result<u8> {
    let shown: Arc<str> = path.to_string_lossy().into();
    let file = CasesFile::parse(&shown, &load::read_file(&world.cwd.join(path), &shown)?)?;
    let place = world.cwd.join(path);
    let dir = place.parent().unwrap_or(Path::new("/"));
    let scratch = Scratch::make(file.workdir.is_none())?;
    let workdir = file.workdir.as_deref().or(scratch.0.as_deref()).map(|workdir| dir.join(workdir));
    // What is written out in the file is named after it, from wherever it is called.
    let own: Arc<str> = path.file_name().unwrap_or_default().to_string_lossy().into();
    let named = file.policies.is_empty() && file.inline.is_empty();
    let request = Request {
        policies: if named { vec!["default".into()] } else { file.policies },
        inline: file.inline.into_iter().map(|policy| (own.clone(), policy)).collect(),
        chdir: workdir,
        ..Request::default()
    };
    // Names of files start from the file that has them.
    let world = World { cwd: dir.into(), ..world.clone() };
    let loaded = policy::load(&request, &world).with_context(|| format!("{shown}: there is no policy to test"))?;
    super::policy::print_notes(&loaded.notes);
    let (policy, whole) = as_run_has_it(loaded.policy);
    let view = View::new(&policy, whole);
    let mut failed = 0;
    for case in &file.cases {
        let asked = ask(&view, &world.home, &case.question).with_context(|| case.at.to_string())?;
        if let Some(wrong) = wrong(case, &Answer::of(&policy, asked)) {
            failed += 1;
            print(&format!("{}\n", printable(&wrong)));
        }
    }
    print(&format!("{}: {} cases, {failed} failed\n", printable(&shown), file.cases.len()));
    Ok(if failed == 0 { FINE } else { FAILED })
}

fn ask(view: &View<'_>, home: &Path, question: &Question) -> Result<Asked> {
    let at = |path: &Path| path.strip_prefix("~").map_or_else(|_| path.to_path_buf(), |below| home.join(below));
    match question {
        Question::Write(path) => view.write(&at(path)),
        Question::Read(path) => view.read(&at(path)),
        Question::Create(path) => view.create(&at(path)),
        Question::Delete(path) => view.delete(&at(path)),
        Question::Connect(to) => view.connect(to),
        Question::Resolve(name) => Ok(View::resolve(name)),
        Question::Exec(argv) => view.exec_anywhere(&argv.iter().map(OsString::from).collect::<Vec<_>>()),
    }
}

/// Says what came out otherwise than expected.
fn wrong(case: &Case, answer: &Answer) -> Option<String> {
    let rule = &answer.verdict.rule;
    let what = format!("{}: {}", case.at, answer.told());
    if answer.verdict.effect != case.expect {
        return Some(format!("{what}: expected {}, got {} by {rule}", word(case.expect), word(answer.verdict.effect)));
    }
    let expected = case.rule.as_ref().filter(|expected| ***expected != *rule.0)?;
    Some(format!("{what}: {} as expected, but by {rule} and not by {expected}", word(case.expect)))
}

fn word(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Ask => "ask",
        Effect::Deny => "deny",
    }
}

/// An empty directory for as long as the cases of one file take.
struct Scratch(Option<PathBuf>);

impl Scratch {
    fn make(wanted: bool) -> Result<Self> {
        if !wanted {
            return Ok(Self(None));
        }
        let top = std::env::temp_dir();
        for number in 0..1000 {
            let path = top.join(format!("agentbox-cases-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(Some(path))),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("cannot make {}", path.display())),
            }
        }
        anyhow::bail!("cannot make a directory in {}", top.display())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing was put into it.
        let _ = self.0.take().map(fs::remove_dir);
    }
}
