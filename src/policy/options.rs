//! Options that stand before a subcommand, so that `git -C dir push` is known for `git push`.
//!
//! An option is one word, but for the listed ones of a few programs, which take the next word as their value. An option
//! that takes one and is not listed hides what follows.

use super::programs::{Command, Word};

/// Programs, and their options that take a value as a word of its own before the subcommand.
const VALUED: &[(&[u8], &str)] = &[
    (b"git", "-C -c --git-dir --work-tree --namespace --super-prefix --config-env --attr-source"),
    (b"docker", "--config -c --context -H --host -l --log-level --tlscacert --tlscert --tlskey"),
    (
        b"kubectl",
        "-n --namespace --context --cluster --user --kubeconfig -s --server --as --as-group --as-uid --cache-dir \
         --certificate-authority --client-certificate --client-key --username --password --token --tls-server-name \
         --request-timeout --profile --profile-output -v --v --vmodule",
    ),
    (
        b"npm",
        "-C --prefix -w --workspace --registry --loglevel --cache --userconfig --globalconfig --tag --otp --access \
         --scope",
    ),
    (b"cargo", "-C -Z --config --color"),
];

/// How many words the option takes that `args` starts with; `None` if it starts with none.
pub(super) fn leading(command: &Command<'_>, args: &[Word<'_>]) -> Option<usize> {
    let first: &[u8] = args.first()?;
    let known = |name: &[u8]| VALUED.iter().find(|(program, _)| *program == name);
    let valued = command.all_names().find_map(known);
    let toolchain = first.starts_with(b"+") && valued.is_some_and(|(program, _)| *program == b"cargo");
    if !toolchain && (first.len() < 2 || first[0] != b'-') {
        return None;
    }
    let takes = valued.is_some_and(|(_, options)| options.split(' ').any(|option| option.as_bytes() == first));
    Some(if takes { args.len().min(2) } else { 1 })
}
