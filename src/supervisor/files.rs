//! The files of which it is known that nothing is lost with them: those that this run has made, and those whose content git
//! held when the run first changed them.
//!
//! By file system and number, for names change. Bounded: a file that is not remembered counts as one of which nothing is
//! held.

use super::resolve::Resolved;
use super::{Made, lock};
use crate::event::{Access, Before, FileId, GitState, Place};
use crate::gate::Judged;

/// How many files are remembered.
const MANY: usize = 1 << 20;

impl Made {
    /// Whether what stood in a file before this run is to be had elsewhere, or nothing did.
    pub(super) fn is_held(&self, file: FileId) -> bool {
        lock(&self.held).contains(&file)
    }

    /// Remembers a file that was made by what was judged.
    pub(super) fn created(&self, judged: &mut Judged, file: FileId) {
        judged.made(file);
        self.hold(file);
    }

    /// Remembers a file that was opened for writing or cut, if git held its content: it still does.
    pub(super) fn changed(&self, judged: &Judged) {
        let clean = Some(GitState::Clean);
        if let Access::File { at: Place { file: Some(file), before: Some(Before { git, .. }), .. }, .. } =
            &judged.event.access
            && *git == clean
        {
            self.hold(*file);
        }
    }

    fn hold(&self, file: FileId) {
        let mut held = lock(&self.held);
        if held.len() < MANY {
            held.insert(file);
        }
    }

    /// Forgets a file whose last name is gone: its number may come back with another.
    pub(super) fn gone(&self, found: &Resolved) {
        if let Some(stat) = found.stat.as_ref().filter(|stat| stat.st_nlink <= 1) {
            lock(&self.held).remove(&(stat.st_dev, stat.st_ino));
        }
    }
}
