//! `allow` and `deny`.

use std::net::IpAddr;

use wssgate_config::model::{AccessFrom, AccessRule};

use super::guard::Verdict;
use crate::exchange::Refusal;
use crate::exchange::variables::contains;

/// What rules say of a client, which has no address on a Unix socket: the first that fits decides.
///
/// # Errors
/// When that one denies.
pub(super) fn check(rules: &[AccessRule], client: Option<IpAddr>) -> Result<Verdict, Refusal> {
    // `::ffff:192.0.2.1` is the same client as 192.0.2.1.
    let client = client.map(|ip| ip.to_canonical());
    let fits = |rule: &&AccessRule| match (&rule.who, client) {
        (AccessFrom::All, _) | (AccessFrom::Unix, None) => true,
        (AccessFrom::Network(base, bits), Some(ip)) => contains(*base, *bits, ip),
        (AccessFrom::Unix, Some(_)) | (AccessFrom::Network(..), None) => false,
    };
    match rules.iter().find(fits) {
        None => Ok(Verdict::NoOpinion),
        Some(rule) if rule.allow => Ok(Verdict::Allowed),
        Some(_) => Err(Refusal::Forbidden),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rule = |allow, who| AccessRule { allow, who };
        let network = |text: &str, bits| AccessFrom::Network(text.parse().unwrap(), bits);
        let rules = [
            rule(false, network("192.168.1.1", 32)),
            rule(true, network("192.168.1.0", 24)),
            rule(true, network("2001:db8::", 32)),
            rule(true, AccessFrom::Unix),
            rule(false, AccessFrom::All),
        ];
        for (client, allowed) in [
            (Some("192.168.1.1"), false),
            (Some("192.168.1.2"), true),
            (Some("10.0.0.1"), false),
            (Some("2001:db8::5"), true),
            (Some("2001:db9::5"), false),
            (None, true),
        ] {
            let ip = client.map(|text| text.parse().unwrap());
            let verdict = check(&rules, ip).ok();
            assert_eq!(verdict, allowed.then_some(Verdict::Allowed), "{client:?}");
        }
        assert!(matches!(check(&rules[..1], None), Ok(Verdict::NoOpinion)));
    }
}
