//! Certificates that certbot has obtained become ours, with the accounts they were obtained by.

use std::fmt::{self, Display};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use wssgate_acme::certbot::{self, Lineage};
use wssgate_acme::schedule::Span;
use wssgate_acme::state::Directory;
use wssgate_acme::status::Status;
use wssgate_acme::{Order, date, now, span};
use wssgate_config::model::{AcmeIssuer, Http};
use wssgate_sys::files;
use wssgate_sys::privileges::User;

use crate::tls::certificates;

/// What became of all certificates of a configuration.
#[derive(Debug)]
pub struct Import {
    /// One for each.
    pub certificates: Vec<Imported>,
    /// Certificates of certbot's that cannot be read, and why.
    pub unreadable: Vec<String>,
}

/// What became of one certificate of a configuration.
#[derive(Debug)]
pub struct Imported {
    names: String,
    issuer: String,
    uri: String,
    outcome: Result<Outcome, String>,
    /// What became of the account, if anything.
    account: Option<String>,
    now: i64,
}

#[derive(Debug)]
enum Outcome {
    /// What certbot calls it, and when it will be renewed.
    Ours { lineage: String, valid: Span, next: i64 },
    /// The one in the state directory is valid as long, or longer.
    Kept(Span),
}

impl Imported {
    /// Whether there is a certificate in the state directory now.
    pub fn is_there(&self) -> bool {
        self.outcome.is_ok()
    }
}

/// Puts what certbot has of each `acme_certificate` into the state directory, unless what is there is newer. A
/// directory that is not there is made for `owner`.
///
/// # Errors
/// When certbot's directory cannot be read.
pub fn from_certbot(http: &Http, owner: Option<&User>, certbot: &Path) -> Result<Import, String> {
    let (mut lineages, mut unreadable) = (Vec::new(), Vec::new());
    for lineage in certbot::lineages(certbot)? {
        match lineage {
            Ok(lineage) => lineages.push(lineage),
            Err(why) => unreadable.push(why),
        }
    }
    let certificates = http.acme.certificates.iter().map(|model| {
        let issuer = &http.acme.issuers[model.issuer.0];
        let order = super::order(model);
        let mut imported = Imported {
            names: order.names(),
            issuer: issuer.name.value.to_string(),
            uri: issuer.uri.to_string(),
            outcome: Err(String::new()),
            account: None,
            now: now(),
        };
        imported.outcome = imported.import(issuer, &order, owner, certbot, &lineages);
        imported
    });
    Ok(Import { certificates: certificates.collect(), unreadable })
}

impl Imported {
    fn import(
        &mut self,
        issuer: &AcmeIssuer,
        order: &Order,
        owner: Option<&User>,
        certbot: &Path,
        lineages: &[Lineage],
    ) -> Result<Outcome, String> {
        let path = issuer.state_path.as_deref();
        let path = path.ok_or("nothing can be stored with `state_path off`")?;
        let lineage = choose(lineages, &self.uri, order, self.now)?;
        let chain = &lineage.chain;
        certificates::from_pem(&chain.pem, &chain.key)?;
        let shown = path.display();
        let failed = |what: &str, error: std::io::Error| {
            format!("{what}() \"{shown}\" failed ({})", crate::errno_text(&error))
        };
        if !path.exists() {
            super::make_directory(path, owner).map_err(|error| failed("mkdir", error))?;
        }
        let directory = Directory::new(Some(path.to_owned()));
        let id = order.id();
        let Some(_lock) = directory.lock(&id) else {
            return Err(format!(
                "another process holds its lock in \"{shown}\": stop wssgate, and start it again \
                 afterwards"
            ));
        };
        let taken = self.take(&directory, order, issuer, certbot, lineage);
        // Those of whoever runs wssgate, even if that is decided elsewhere; also after a failure, or the lock
        // would be somebody's who keeps it from everybody.
        let uid = fs::metadata(path).map_err(|error| failed("stat", error))?.uid();
        let mut handed = Ok(());
        for file in Directory::files(path, &[id]) {
            handed = handed.and(files::hand_over(&file, uid));
        }
        let outcome = taken?;
        handed.map_err(|error| failed("chown", error))?;
        Ok(outcome)
    }

    /// Writes what there is to take.
    fn take(
        &mut self,
        directory: &Directory,
        order: &Order,
        issuer: &AcmeIssuer,
        certbot: &Path,
        lineage: &Lineage,
    ) -> Result<Outcome, String> {
        let (id, chain) = (order.id(), &lineage.chain);
        let kept = directory.certificate(&id).ok().flatten();
        let outcome = match kept.filter(|kept| kept.valid.end >= chain.valid.end) {
            Some(kept) => Outcome::Kept(kept.valid),
            None => {
                directory.write_certificate(&id, chain)?;
                let status = Status::of_foreign(&self.uri, order, chain.valid);
                directory.write_status(&id, &status)?;
                directory.forget_pending(&id);
                let (lineage, valid) = (lineage.name.clone(), chain.valid);
                Outcome::Ours { lineage, valid, next: status.next }
            }
        };
        if issuer.account_key.is_none() && directory.account_key()?.is_none() {
            self.account = match directory.lock("account") {
                Some(_lock) => import_account(directory, certbot, lineage)?,
                None => Some("not imported: another process is registering one".to_owned()),
            };
        }
        Ok(outcome)
    }
}

/// Of certbot's certificates the one to take, or why there is none.
fn choose<'l>(
    lineages: &'l [Lineage],
    uri: &str,
    order: &Order,
    now: i64,
) -> Result<&'l Lineage, String> {
    let has_all = |lineage: &&Lineage| {
        order.identifiers.iter().all(|wanted| lineage.chain.identifiers.contains(wanted))
    };
    let named: Vec<_> = lineages.iter().filter(has_all).collect();
    let Some(first) = named.first() else {
        return Err("certbot has no certificate for all of these names".to_owned());
    };
    let of_issuer = named.iter().filter(|lineage| lineage.server == uri);
    // Rather one that is for nothing else.
    let others = |lineage: &Lineage| lineage.chain.identifiers.len();
    let rank = |lineage: &&&Lineage| {
        (lineage.chain.valid.end > now, std::cmp::Reverse(others(lineage)), lineage.chain.valid.end)
    };
    let Some(best) = of_issuer.max_by_key(rank) else {
        let Lineage { name, server, .. } = first;
        return Err(format!("certbot's \"{name}\" is from another CA ({server})"));
    };
    let Span { end, .. } = best.chain.valid;
    match end > now {
        true => Ok(best),
        false => Err(format!("certbot's \"{}\" has expired at {}", best.name, date(end))),
    }
}

/// Makes certbot's account ours, if we can use it.
fn import_account(
    directory: &Directory,
    certbot: &Path,
    lineage: &Lineage,
) -> Result<Option<String>, String> {
    Ok(match certbot::account(certbot, lineage) {
        Ok(None) => None,
        Ok(Some(account)) => {
            directory.write_account_url(&account.url)?;
            directory.write_account_key(&account.key.pem())?;
            Some(format!("imported: {}", account.url))
        }
        Err(why) => Some(format!("not imported ({why}); the next order registers a new one")),
    })
}

impl Display for Imported {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.names)?;
        let mut row = |name: &str, value: &str| writeln!(formatter, "  {name:<12} {value}");
        row("issuer", &format!("{} ({})", self.issuer, self.uri))?;
        let until = |valid: &Span| {
            format!("valid until {} (for {})", date(valid.end), span(valid.end - self.now))
        };
        match &self.outcome {
            Ok(Outcome::Ours { lineage, valid, next }) => {
                row("certificate", &format!("imported: \"{lineage}\", {}", until(valid)))?;
                row("renewal", &format!("{} (in {})", date(*next), span(next - self.now)))?;
            }
            Ok(Outcome::Kept(valid)) => {
                row(
                    "certificate",
                    &format!("kept: it is {}, as long as certbot's or longer", until(valid)),
                )?;
            }
            Err(why) => row("certificate", &format!("not imported: {why}"))?,
        }
        match &self.account {
            Some(account) => row("account", account),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use wssgate_acme::{Chain, Identifier, KeyKind};
    use wssgate_testkit::Pki;
    use wssgate_testkit::pki::Leaf;

    use super::*;

    const CA: &str = "https://ca.test/dir";

    fn lineage(name: &str, server: &str, leaf: &Leaf) -> Lineage {
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let chain = Chain::new(read(&leaf.fullchain), read(&leaf.key).into()).unwrap();
        Lineage { name: name.to_owned(), server: server.to_owned(), account: None, chain }
    }

    #[test]
    fn the_certificate_is_taken_that_fits_best() {
        let pki = Pki::new();
        let all = [
            lineage("gone", CA, &pki.expired_leaf(&["d.test"])),
            lineage("old", CA, &pki.expired_leaf(&["a.test"])),
            lineage("other", CA, &pki.leaf(&["b.test"])),
            lineage("own", CA, &pki.leaf(&["a.test"])),
            lineage("staging", "https://staging.test/dir", &pki.leaf(&["a.test", "c.test"])),
            lineage("wide", CA, &pki.leaf(&["b.test", "a.test"])),
        ];
        for (names, expected) in [
            (&["a.test"][..], Ok("own")),
            (&["b.test"], Ok("other")),
            (&["a.test", "b.test"], Ok("wide")),
            (&["a.test", "d.test"], Err("certbot has no certificate for all of these names")),
            (
                &["c.test"],
                Err("certbot's \"staging\" is from another CA (https://staging.test/dir)"),
            ),
            (&["d.test"], Err("certbot's \"gone\" has expired at ")),
        ] {
            let identifiers = names.iter().map(|name| Identifier::Dns((*name).into())).collect();
            let order = Order { identifiers, key: KeyKind::default() };
            match (choose(&all, CA, &order, now()), expected) {
                (Ok(lineage), Ok(expected)) => assert_eq!(lineage.name, expected, "{names:?}"),
                (Err(why), Err(expected)) => assert!(why.starts_with(expected), "{why}"),
                (chosen, _) => panic!("{names:?}: {:?}", chosen.map(|lineage| &lineage.name)),
            }
        }
    }
}
