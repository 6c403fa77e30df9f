//! How records for dns-01 come into the DNS: by a program, or by the servers of zones.

use std::fs;
use std::sync::Arc;

use wssgate_acme::dns::{Solver, Solving};
use wssgate_config::model::{AcmeDns, AcmeDnsUpdate};
use wssgate_dns01::tsig::Key;
use wssgate_dns01::{Hook, Update};
use wssgate_syntax::Diagnostic;
use zeroize::Zeroizing;

enum Records {
    Hook(Hook),
    Zones(Vec<Update>),
}

/// Reads what an issuer says, with the keys in files.
pub(super) fn solver(model: &AcmeDns) -> Result<Arc<dyn Solver>, Diagnostic> {
    Ok(Arc::new(match model {
        AcmeDns::Hook(hook) => {
            let args = hook.args.iter().map(ToString::to_string).collect();
            Records::Hook(Hook::new(hook.program.clone(), args))
        }
        AcmeDns::Updates { zones, propagation } => {
            let update = |zone: &AcmeDnsUpdate| {
                let key = key(zone)?;
                let (server, ttl, propagation) = (zone.server, zone.ttl, *propagation);
                let zone = zone.zone.as_deref().map(str::to_owned);
                Ok(Update { server, zone, key, ttl, propagation })
            };
            Records::Zones(zones.iter().map(update).collect::<Result<_, Diagnostic>>()?)
        }
    }))
}

fn key(zone: &AcmeDnsUpdate) -> Result<Option<Key>, Diagnostic> {
    let Some(file) = &zone.secret else { return Ok(None) };
    let fail = |why: &str| {
        let text = format!("cannot load DNS key \"{}\": {why}", file.value.display());
        Diagnostic::error(text).at(file.span, "")
    };
    let algorithm = zone.algorithm.as_ref().map(|name| name.parse());
    let algorithm = algorithm.transpose();
    let algorithm = algorithm.map_err(|why: String| Diagnostic::error(why).at(zone.span, ""))?;
    let text = fs::read_to_string(&file.value);
    let text = text.map_err(|error| fail(&format!("({})", crate::errno_text(&error))))?;
    let key = Key::from_file(&Zeroizing::new(text), zone.key.as_deref(), algorithm);
    key.map(Some).map_err(|why| fail(&why))
}

impl Records {
    /// Who takes a record: of several zones the smallest that it is in.
    fn zone_of(&self, name: &str) -> Result<&Update, String> {
        let Self::Zones(zones) = self else { unreachable!("only zones are asked for") };
        let is_in = |zone: &&Update| {
            let zone = zone.zone.as_deref().unwrap_or_default().trim_matches('.');
            let above = name.len().checked_sub(zone.len()).map(|at| name.split_at_checked(at));
            above.flatten().is_some_and(|(above, end)| {
                end.eq_ignore_ascii_case(zone)
                    && (zone.is_empty() || above.is_empty() || above.ends_with('.'))
            })
        };
        let length = |zone: &&Update| zone.zone.as_ref().map_or(0, String::len);
        let found = zones.iter().filter(is_in).max_by_key(length);
        found.ok_or_else(|| "no \"dns_update\" has a zone for it".to_owned())
    }
}

impl Solver for Records {
    fn present<'a>(&'a self, name: &'a str, value: &'a str) -> Solving<'a> {
        Box::pin(async move {
            match self {
                Self::Hook(hook) => hook.present(name, value).await,
                Self::Zones(_) => self.zone_of(name)?.present(name, value).await,
            }
        })
    }

    fn cleanup<'a>(&'a self, name: &'a str, value: &'a str) -> Solving<'a> {
        Box::pin(async move {
            match self {
                Self::Hook(hook) => hook.cleanup(name, value).await,
                Self::Zones(_) => self.zone_of(name)?.cleanup(name, value).await,
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_smallest_zone_takes_a_record() {
        let update = |zone: Option<&str>| Update {
            server: "192.0.2.1:53".parse().unwrap(),
            zone: zone.map(str::to_owned),
            key: None,
            ttl: 60,
            propagation: Duration::ZERO,
        };
        let zones = [Some("example.com"), Some("sub.example.com."), Some("example.org")];
        let records = Records::Zones(zones.into_iter().map(update).collect());
        let zone = |name: &str| records.zone_of(name).ok().and_then(|zone| zone.zone.clone());
        assert_eq!(zone("_acme-challenge.example.com").unwrap(), "example.com");
        assert_eq!(zone("_acme-challenge.a.SUB.example.com").unwrap(), "sub.example.com.");
        assert_eq!(zone("_acme-challenge.notexample.com"), None);
        let any = Records::Zones(vec![update(None)]);
        assert!(any.zone_of("_acme-challenge.example.net").is_ok());
    }
}
