//! `CNI_ARGS`: pairs `K=V` with `;` between them.
//!
//! Nomad writes its own facts and the job author's `cni { args }` into one list,
//! in no order. One key is ours; the others are other plugins', and left alone,
//! as `IgnoreUnknown` asks of everyone.

use crate::fault::Fault;

/// The key of [`crate::Config`].
pub(crate) const KEY: &str = "CONSUL_IPTABLES_CONFIG";

/// How long `CNI_ARGS` may be.
pub(crate) const MAX_ARGS_BYTES: usize = 64 * 1024;

/// The text of the one pair that is ours; none when there is no such pair.
///
/// # Errors
/// The list is too long, a piece of it is not a pair, or the key comes twice:
/// then nobody can say whose is meant.
pub(crate) fn iptables_config(text: &str) -> Result<Option<&str>, Fault> {
    let wrong = |what: String| Err(Fault::Environment(format!("CNI_ARGS: {what}")));
    if text.len() > MAX_ARGS_BYTES {
        return wrong(format!(
            "{} bytes, at most {MAX_ARGS_BYTES} are taken; shorten `args` of the job's `cni` block",
            text.len(),
        ));
    }
    let mut found = None;
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return wrong(format!(
                "{} is not KEY=VALUE; see `args` of the job's `cni` block",
                crate::fault::quoted(pair),
            ));
        };
        if key == KEY && found.replace(value).is_some() {
            return wrong(format!(
                "{KEY} comes twice; take it out of `args` of the job's `cni` block",
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pair_is_found_among_nomads() {
        let text = "IgnoreUnknown=true;NOMAD_REGION=global;CONSUL_IPTABLES_CONFIG={\"a\":\"=\"};x=";
        assert_eq!(iptables_config(text), Ok(Some("{\"a\":\"=\"}")));
        assert_eq!(iptables_config("IgnoreUnknown=true;"), Ok(None));
        assert_eq!(iptables_config(""), Ok(None));
    }

    #[test]
    fn what_is_not_a_list_of_pairs_is_refused() {
        for (text, says) in [
            ("a=b;c".to_owned(), "\"c\" is not KEY=VALUE"),
            (format!("{KEY}={{}};{KEY}={{}}"), "comes twice"),
            ("x".repeat(MAX_ARGS_BYTES + 1), "65537 bytes, at most 65536"),
        ] {
            let fault = iptables_config(&text).unwrap_err();
            assert_eq!(fault.code(), 4);
            assert!(fault.to_string().contains(says), "{fault}");
        }
    }
}
