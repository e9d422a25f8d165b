//! `agentbox log verify`: what of a log is proven, by its chain, by its signed heads and by the run's own file.

use std::path::Path;

use anyhow::Result;

use super::{BROKEN, FINE, Output, located, unfinished, warn_about_run};
use crate::audit::head::Signed;
use crate::audit::key::PublicKey;
use crate::audit::read::{self, Chain, Expected, Proof};
use crate::audit::run::Found;
use crate::audit::text::printable;

/// Proves the log of `found`; with `key`, also that its holder has signed it.
pub fn verify(found: &Found, key: Option<&str>, output: &mut Output<'_>) -> Result<u8> {
    let key = key.map(PublicKey::named).transpose()?;
    let status = warn_about_run(found, output)?;
    let expected = expected(found, key);
    let proof = read::prove(&found.log, &expected)?;
    for line in chain_in_words(&found.log, &proof, expected.head.is_some()) {
        writeln!(output.out, "{line}")?;
    }
    if let Some(line) = signed_in_words(&proof, key.is_some()) {
        writeln!(output.out, "{line}")?;
    }
    Ok(status.max(if matches!(proof.chain, Chain::Verified { .. }) { FINE } else { BROKEN }))
}

/// What is known of a log from elsewhere; the key that a person names counts before the one in `run.json`.
pub fn expected(found: &Found, key: Option<PublicKey>) -> Expected<'_> {
    let about = found.about.as_ref().ok().and_then(Option::as_ref);
    Expected {
        head: about.and_then(|about| about.head.as_ref()),
        run: found.run.as_ref(),
        key: key.or(about.and_then(|about| about.key)),
    }
}

fn chain_in_words(log: &Path, proof: &Proof, compared: bool) -> Vec<String> {
    let name = printable(&log.to_string_lossy());
    match &proof.chain {
        Chain::Verified { records, head, dropped } => {
            let lost = || format!("the run itself says that {dropped} records could not be written");
            let with = match compared {
                true => ", as in run.json",
                false => " (not compared: no run.json says how the log must end)",
            };
            [format!("{name}: whole, {records} records")]
                .into_iter()
                .chain((*dropped > 0).then(lost))
                .chain([format!("head {} {}{with}", head.seq, head.hash)])
                .collect()
        }
        Chain::Unfinished { records, head } => vec![
            format!("{name}: {records} records, whole as far as it goes; {}", unfinished(log)),
            format!("head {} {}", head.seq, head.hash),
        ],
        Chain::Broken(fault) => vec![format!("BROKEN {}", located(log, fault))],
    }
}

/// What signed heads add to that.
fn signed_in_words(proof: &Proof, checked: bool) -> Option<String> {
    let Some(Signed { key, heads, to, time }) = &proof.signed else {
        return (!matches!(proof.chain, Chain::Broken(_))).then(|| "not signed".into());
    };
    let by = match checked {
        true => format!("{key}, the key given"),
        false => format!("{key} (unchecked: name the key that you trust with --key)"),
    };
    let heads = format!("{heads} heads, the last of {}", printable(time));
    Some(match proof.chain {
        Chain::Verified { .. } => format!("signed to its end by {by}; {heads}"),
        Chain::Unfinished { records, .. } if *to + 1 < records => {
            format!("signed to record {to} by {by}; {heads}; what follows is chained and not signed")
        }
        Chain::Unfinished { .. } => format!("signed to record {to} by {by}; {heads}"),
        Chain::Broken(_) => format!("before that, what stands up to record {to} was signed by {by}; {heads}"),
    })
}
