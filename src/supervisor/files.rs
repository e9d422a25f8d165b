//! What is remembered of files: which this run has made or found held elsewhere, and which carry what secrets.
//!
//! By file system and number, for names change. Bounded: a file that is not remembered counts as one of which nothing is
//! held, and its labels go to everybody who writes.

use std::collections::{HashMap, HashSet};

use super::resolve::Resolved;
use super::{Made, lock};
use crate::event::{Access, FileId, GitState, Labels, Place};
use crate::gate::Judged;

/// How many files are remembered for each reason.
const MANY: usize = 1 << 20;

/// The memory.
#[derive(Debug, Default)]
pub struct Files {
    held: HashSet<FileId>,
    labelled: HashMap<FileId, Labels>,
}

impl Made {
    /// Whether what stood in a file before this run is to be had elsewhere, or nothing did.
    pub(super) fn is_held(&self, file: FileId) -> bool {
        lock(&self.files).held.contains(&file)
    }

    /// Remembers a file that was made by what was judged.
    pub(super) fn created(&self, judged: &mut Judged, file: FileId) {
        judged.made(file);
        self.hold(file);
        self.label(file, judged.taint());
    }

    /// Remembers a file that was opened for writing or cut: what git held when the run first changed it, it still holds.
    pub(super) fn changed(&self, judged: &Judged) {
        let Access::File { at: Place { before: Some(before), .. }, .. } = &judged.event.access else { return };
        let Some(file) = before.file else { return };
        if before.git == Some(GitState::Clean) {
            self.hold(file);
        }
        self.label(file, judged.taint());
    }

    fn hold(&self, file: FileId) {
        let held = &mut lock(&self.files).held;
        if held.len() < MANY {
            held.insert(file);
        }
    }

    /// Forgets a file whose last name is gone: its number may come back with another.
    pub(super) fn gone(&self, found: &Resolved) {
        let Some(stat) = found.stat.as_ref().filter(|stat| stat.st_nlink <= 1) else { return };
        let mut files = lock(&self.files);
        files.held.remove(&(stat.st_dev, stat.st_ino));
        files.labelled.remove(&(stat.st_dev, stat.st_ino));
    }

    /// Labels of the secrets that may have been written into a file.
    pub(super) fn labels(&self, found: &Resolved) -> Labels {
        let files = lock(&self.files);
        let stat = found.stat.as_ref().filter(|_| !files.labelled.is_empty());
        stat.and_then(|stat| files.labelled.get(&(stat.st_dev, stat.st_ino))).cloned().unwrap_or_default()
    }

    /// Remembers what secrets may be written into a file.
    fn label(&self, file: FileId, labels: &Labels) {
        if labels.is_empty() {
            return;
        }
        let labelled = &mut lock(&self.files).labelled;
        if labelled.len() < MANY || labelled.contains_key(&file) {
            labelled.entry(file).or_default().extend(labels);
        }
    }
}
