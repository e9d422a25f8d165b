//! The person's terminal while the box has one of its own: raw mode, window size, bytes in both directions.
//!
//! Runs on agentbox's main thread. The person's terminal is put back by [`RawMode`]'s destructor, whatever ends the run.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::sys;

/// Whether the command gets a terminal of its own: when a person sits at both ends.
///
/// With output in a pipe or file the person's terminal must stay as it is for whoever reads there (`| less`).
pub fn wanted() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The person's terminal in raw mode: every key goes to the box, where the box's terminal gives it meaning.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Switches standard input's terminal to raw mode.
    pub fn enter() -> nix::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}

/// Gives the box's terminal the person's window size; without a terminal there is none to give.
pub fn copy_window_size(master: &OwnedFd) {
    if let Ok(size) = sys::process::window_size(io::stdin().as_fd()) {
        let _ = sys::process::set_window_size(master.as_fd(), &size);
    }
}

/// Gives the box's terminal the person's settings (erase key, UTF-8, …) before the command starts.
pub fn copy_settings(master: &OwnedFd) {
    if let Ok(settings) = tcgetattr(io::stdin()) {
        let _ = tcsetattr(master, SetArg::TCSANOW, &settings);
    }
}
