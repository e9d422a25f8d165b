//! Tests of the policy room, one file for each step. A test hands a made-up world in; nothing here needs a kernel.

mod deciding;
mod differing;
mod exec;
mod filing;
mod loading;
mod matching;
mod naming;
mod networking;
mod reaching;
mod shape;
mod walls;
mod weighing;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{LoadError, Loaded, Policy, Request, World, load};

/// A home with a project in it, as a temporary tree.
struct Lab {
    top: TempDir,
}

impl Lab {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("home/project/.git/hooks")).unwrap();
        Self { top }
    }

    fn path(&self, below: &str) -> PathBuf {
        fs::canonicalize(self.top.path()).unwrap().join(below)
    }

    fn home(&self) -> PathBuf {
        self.path("home")
    }

    fn project(&self) -> PathBuf {
        self.path("home/project")
    }

    fn world(&self) -> World {
        World {
            cwd: self.project(),
            home: self.home(),
            state: self.path("home/.local/state/agentbox"),
            vars: BTreeMap::new(),
        }
    }

    fn write(&self, below: &str, text: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self, request: &Request) -> Result<Loaded, LoadError> {
        load(request, &self.world())
    }

    /// The policy of one file in the project, made of `rules` after `version: 1`.
    fn policy(&self, rules: &str) -> Policy {
        self.write("home/project/test.yaml", &format!("version: 1\n{rules}"));
        let request = Request { policies: vec!["./test.yaml".into()], ..Request::default() };
        self.load(&request).unwrap_or_else(|e| panic!("{e}")).policy
    }

    fn error(&self, rules: &str) -> String {
        self.write("home/project/test.yaml", &format!("version: 1\n{rules}"));
        let request = Request { policies: vec!["./test.yaml".into()], ..Request::default() };
        self.load(&request).map(|l| l.policy.name).unwrap_err().to_string()
    }

    fn default_policy(&self) -> Policy {
        self.load(&Request::default()).unwrap_or_else(|e| panic!("{e}")).policy
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| s.to_string()).collect()
}

fn paths(list: &[&Path]) -> Vec<PathBuf> {
    list.iter().map(|p| p.to_path_buf()).collect()
}
