//! Applies the plan's Landlock rules to the calling thread. Runs in the command's process, before seccomp.

use std::os::fd::AsFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::plan::landlock::{Rights, Rules};
use crate::sys::file;

/// The rules could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    /// The kernel refused a step.
    #[error("cannot set up Landlock")]
    Ruleset(#[from] RulesetError),
    /// Nothing is enforced although the kernel said it could.
    #[error("the kernel accepted the Landlock rules but enforces none")]
    NotEnforced,
}

/// Confines the calling thread and all it starts, for good.
///
/// Handles every right the kernel's interface knows; what a newer interface adds is refused unless a rule grants it.
pub fn confine(rules: &Rules) -> Result<(), LandlockError> {
    let abi = ABI::from(rules.abi);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .scope(BitFlags::<Scope>::all())?;
    if rules.no_tcp {
        ruleset = ruleset.handle_access(BitFlags::<AccessNet>::all())?;
    }
    let mut created = ruleset.create()?;
    for tree in &rules.trees {
        // A tree that is missing in the view grants nothing.
        if let Ok(top) = PathFd::new(&tree.path) {
            created = created.add_rule(PathBeneath::new(top, access(tree.rights, abi)))?;
        }
    }
    created = grant_standard_files(created, abi)?;
    match created.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err(LandlockError::NotEnforced),
        _ => Ok(()),
    }
}

fn access(rights: Rights, abi: ABI) -> BitFlags<AccessFs> {
    let known = AccessFs::from_all(abi);
    let wanted: BitFlags<AccessFs> = match rights {
        Rights::List => AccessFs::ReadDir.into(),
        Rights::Read => AccessFs::from_read(abi),
        Rights::Device => AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::IoctlDev,
        Rights::Write => known,
    };
    wanted & known
}

/// Lets `/dev/stdin` and its kin reopen a file that was handed in, with the rights it was handed in with and no more.
fn grant_standard_files(mut created: RulesetCreated, abi: ABI) -> Result<RulesetCreated, LandlockError> {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [input.as_fd(), output.as_fd(), error.as_fd()] {
        if let Some(rights) = standard_rights(fd) {
            created = created.add_rule(PathBeneath::new(fd, rights & AccessFs::from_all(abi)))?;
        }
    }
    Ok(created)
}

fn standard_rights(fd: std::os::fd::BorrowedFd<'_>) -> Option<BitFlags<AccessFs>> {
    use std::os::fd::AsRawFd;
    let stat = file::fstatat(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH).ok()?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL).ok()?);
    Some(match flags & OFlag::O_ACCMODE {
        OFlag::O_RDONLY => AccessFs::ReadFile.into(),
        OFlag::O_WRONLY => AccessFs::WriteFile.into(),
        _ => AccessFs::ReadFile | AccessFs::WriteFile,
    })
}
