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
    let client = client.map(|ip| as_ruled(rules, ip));
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

/// `::ffff:192.0.2.1` is the client 192.0.2.1 where any rule is about IPv4 (`all` is). Where none is,
/// the rules for IPv6 see the address as it is: who denies `::/0` means everybody.
fn as_ruled(rules: &[AccessRule], ip: IpAddr) -> IpAddr {
    let about_ipv4 = |rule: &AccessRule| {
        matches!(rule.who, AccessFrom::All | AccessFrom::Network(IpAddr::V4(_), _))
    };
    if rules.iter().any(about_ipv4) { ip.to_canonical() } else { ip }
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

    #[test]
    fn a_mapped_address_is_ipv4_to_whom_ipv4_matters() {
        let rule = |allow, who| AccessRule { allow, who };
        let network = |text: &str, bits| AccessFrom::Network(text.parse().unwrap(), bits);
        let mapped = Some("::ffff:127.0.0.1".parse().unwrap());
        let everybody = || network("::", 0);
        for (rules, allowed) in [
            (vec![rule(false, everybody())], false),
            (vec![rule(false, network("::ffff:127.0.0.0", 104))], false),
            (vec![rule(true, network("192.0.2.1", 32)), rule(false, everybody())], true),
            (vec![rule(false, network("127.0.0.0", 8)), rule(true, everybody())], false),
            (vec![rule(false, everybody()), rule(true, AccessFrom::All)], true),
            (vec![rule(true, AccessFrom::Unix), rule(false, everybody())], false),
        ] {
            assert_eq!(check(&rules, mapped).is_ok(), allowed, "{rules:?}");
        }
    }
}
