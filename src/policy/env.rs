//! The command's environment: what is passed, what is set, and what is withheld because it looks like a credential.
//!
//! Pure: the outer environment is handed in.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Environment;
use super::glob::glob_matches;
use super::load::{LoadError, Request};

/// Names that hold credentials by custom. One of them passes only if a rule or flag names it outright.
const CREDENTIALS: &[&str] = &[
    "*TOKEN",
    "*_TOKEN_*",
    "*_KEY",
    "*_KEYS",
    "*APIKEY",
    "*API_KEY*",
    "*SECRET*",
    "*PASSWORD*",
    "*PASSWD*",
    "*PASSPHRASE*",
    "*_PASS",
    "*CREDENTIAL*",
    "*_PAT",
    "*_AUTH",
    "*COOKIE*",
    "*_DSN",
    "*_WEBHOOK*",
    "*PRIVATE_KEY*",
    "*ACCESS_KEY*",
    "DATABASE_URL",
    "*_DATABASE_URL",
    "REDIS_URL",
    "MONGO*_UR[IL]",
    "PGPASSFILE",
    "AWS_*",
    "AZURE_*",
    "GOOGLE_*",
    "GCP_*",
    "GCLOUD_*",
    "CLOUDSDK_*",
    "DIGITALOCEAN_*",
    "KUBECONFIG",
    "DOCKER_AUTH*",
    "VAULT_*",
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_AGENT_INFO",
    "OTEL_EXPORTER_*HEADERS",
    "KRB5CCNAME",
    "NETRC",
    "GIT_ASKPASS",
    "SSH_ASKPASS",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_INDEX",
    "*_PROXY_USER*",
];

/// The `env` rules of all files.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Names and globs that pass.
    pub pass: Vec<String>,
    /// Names and globs that do not, whatever passes.
    pub deny: Vec<String>,
    /// What is set.
    pub set: BTreeMap<OsString, OsString>,
}

/// Works out what the command gets.
pub(crate) fn work_out(
    rules: &Rules,
    request: &Request,
    home: &Path,
    outer: &BTreeMap<OsString, OsString>,
) -> Result<Environment, LoadError> {
    let mut vars = BTreeMap::new();
    if !request.clean_env {
        vars.extend(outer.iter().filter(|(name, _)| passes(rules, name)).map(|(n, v)| (n.clone(), v.clone())));
        if vars.contains_key(OsStr::new("HOME")) {
            vars.insert("HOME".into(), home.into());
        }
        vars.extend(rules.set.clone());
        vars.insert("AGENTBOX".into(), "1".into());
    }
    for asked in &request.env {
        match asked.split_once('=') {
            Some(("", _)) => return Err(LoadError::Env(asked.clone())),
            Some((name, value)) => vars.insert(name.into(), value.into()),
            None if asked.is_empty() => return Err(LoadError::Env(asked.clone())),
            None => outer.get(OsStr::new(asked)).and_then(|value| vars.insert(asked.into(), value.clone())),
        };
    }
    let withheld = outer.keys().filter(|name| !vars.contains_key(*name) && is_credential(name));
    let withheld = withheld.map(|name| name.to_string_lossy().into_owned()).collect();
    Ok(Environment { vars, withheld })
}

fn passes(rules: &Rules, name: &OsStr) -> bool {
    let named = |list: &[String]| list.iter().any(|rule| rule.as_bytes() == name.as_bytes());
    let matched = |list: &[String]| list.iter().any(|rule| glob_matches(rule.as_bytes(), name.as_bytes()));
    !matched(&rules.deny) && (named(&rules.pass) || (matched(&rules.pass) && !is_credential(name)))
}

/// Whether a variable of this name holds a credential by custom, in any case of letters.
pub fn is_credential(name: &OsStr) -> bool {
    let name = name.as_bytes().to_ascii_uppercase();
    CREDENTIALS.iter().any(|glob| glob_matches(glob.as_bytes(), &name))
}
