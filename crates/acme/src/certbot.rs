//! What certbot keeps in its directory, which is `/etc/letsencrypt` mostly.
//!
//! For each certificate `renewal/NAME.conf` says from which CA it is and by which account it was obtained, and
//! `live/NAME` has the chain and the key. `accounts/HOST/PATH/ACCOUNT` has what is known of an account: its key
//! in `private_key.json` and its URL in `regr.json`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::account_key::AccountKey;
use crate::chain::Chain;

/// Certificates that are read at most.
const MAX_LINEAGES: usize = 10_000;

/// A certificate of certbot's.
pub struct Lineage {
    /// What certbot calls it.
    pub name: String,
    /// The URL of the directory of its CA.
    pub server: String,
    /// What certbot calls the account that it was obtained by; not said in old files.
    pub account: Option<String>,
    /// The certificate.
    pub chain: Chain,
}

/// An account of certbot's.
pub struct Account {
    /// Its key.
    pub key: AccountKey,
    /// What the CA calls it.
    pub url: String,
}

/// Reads all certificates in the directory of certbot's, in order of their names; those that cannot be read are
/// said why, behind their names.
///
/// # Errors
/// When there is no such directory, or it cannot be read.
pub fn lineages(certbot: &Path) -> Result<Vec<Result<Lineage, String>>, String> {
    let path = certbot.join("renewal");
    let entries = fs::read_dir(&path).map_err(|error| failed(&path, &error))?;
    let names = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_suffix(".conf").map(str::to_owned)
    });
    let mut names: Vec<_> = names.take(MAX_LINEAGES).collect();
    names.sort();
    let read = |name: String| lineage(certbot, &name).map_err(|error| format!("{name}: {error}"));
    Ok(names.into_iter().map(read).collect())
}

fn lineage(certbot: &Path, name: &str) -> Result<Lineage, String> {
    let conf = read(&certbot.join(format!("renewal/{name}.conf")))?;
    let server = setting(&conf, "server").ok_or("its configuration names no CA (\"server\")")?;
    let live = certbot.join("live").join(name);
    let (pem, key) = (read(&live.join("fullchain.pem"))?, read(&live.join("privkey.pem"))?);
    Ok(Lineage {
        name: name.to_owned(),
        server: server.to_owned(),
        account: setting(&conf, "account").map(str::to_owned),
        chain: Chain::new(pem.to_string(), key)?,
    })
}

/// Reads the account that a certificate was obtained by; `None` when certbot has none.
///
/// # Errors
/// When it cannot be read, or used by us.
pub fn account(certbot: &Path, lineage: &Lineage) -> Result<Option<Account>, String> {
    #[derive(Deserialize)]
    struct Registration {
        uri: String,
    }
    let Some(account) = &lineage.account else { return Ok(None) };
    let Some((_, place)) = lineage.server.split_once("://") else { return Ok(None) };
    let path = certbot.join("accounts").join(place.trim_end_matches('/')).join(account);
    let file = |name: &str| -> Result<(PathBuf, Zeroizing<String>), String> {
        let path = path.join(name);
        read(&path).map(|text| (path, text))
    };
    if !path.exists() {
        return Ok(None);
    }
    let ((key_path, key), (url_path, url)) = (file("private_key.json")?, file("regr.json")?);
    let key = AccountKey::from_jwk(&key).map_err(|why| format!("{}: {why}", key_path.display()))?;
    let url: Registration =
        serde_json::from_str(&url).map_err(|why| format!("{}: {why}", url_path.display()))?;
    Ok(Some(Account { key, url: url.uri }))
}

/// What a line `name = value` says, in whatever section it stands.
fn setting<'c>(conf: &'c str, name: &str) -> Option<&'c str> {
    let value = conf.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then_some(value.trim())
    })?;
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
    (!value.is_empty()).then_some(value)
}

fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    fs::read_to_string(path).map(Zeroizing::new).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> String {
    let path = path.display();
    match error.kind() {
        // Its files are for root alone.
        ErrorKind::PermissionDenied => format!("cannot open \"{path}\": {error}; run this as root"),
        _ => format!("cannot open \"{path}\": {error}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const CONF: &str = "# renew_before_expiry = 30 days\nversion = 5.8.0\n\
        fullchain = /etc/letsencrypt/live/a.test/fullchain.pem\n\n[renewalparams]\naccount = 0a1b\n\
        server = https://ca.test:14000/dir\nauthenticator = webroot\n[[webroot_map]]\na.test = /srv\n";

    /// A directory with the certificate `a.test` and its account.
    fn certbot() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let key = KeyPair::generate().unwrap();
        let names = ["A.test", "b.test", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
        let pem = CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
        file("renewal/a.test.conf", CONF);
        file("renewal/old.conf", "");
        file("live/a.test/fullchain.pem", &pem);
        file("live/a.test/privkey.pem", &key.serialize_pem());
        let account = "accounts/ca.test:14000/dir/0a1b";
        file(&format!("{account}/private_key.json"), crate::account_key::JWK);
        file(&format!("{account}/regr.json"), r#"{"body": {}, "uri": "https://ca.test/acct/7"}"#);
        dir
    }

    #[test]
    fn certificates_are_found_with_their_names_and_accounts() {
        let dir = certbot();
        let found = lineages(dir.path()).unwrap();
        let [Ok(lineage), Err(broken)] = &found[..] else { panic!("{}", found.len()) };
        assert_eq!(broken, "old: its configuration names no CA (\"server\")");
        let names: Vec<_> = lineage.chain.identifiers.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a.test", "b.test", "192.0.2.1", "2001:db8::1"]);
        assert_eq!((&*lineage.name, &*lineage.server), ("a.test", "https://ca.test:14000/dir"));
        let account = super::account(dir.path(), lineage).unwrap().unwrap();
        assert_eq!(account.url, "https://ca.test/acct/7");
        let unknown = |account: Option<&str>| {
            let other = Lineage { account: account.map(str::to_owned), ..parts(lineage) };
            super::account(dir.path(), &other).unwrap().is_none()
        };
        assert!(unknown(None) && unknown(Some("other")));
    }

    /// The same without its account.
    fn parts(lineage: &Lineage) -> Lineage {
        let chain = Chain::new(lineage.chain.pem.clone(), lineage.chain.key.clone()).unwrap();
        let (name, server) = (lineage.name.clone(), lineage.server.clone());
        Lineage { name, server, account: None, chain }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        let dir = certbot();
        let told = |name: &str, text: &str| {
            let path = dir.path().join(name);
            let before = fs::read_to_string(&path).unwrap();
            fs::write(&path, text).unwrap();
            let found = lineages(dir.path()).unwrap().swap_remove(0);
            let told = found.and_then(|lineage| account(dir.path(), &lineage).map(drop));
            fs::write(&path, before).unwrap();
            told.unwrap_err()
        };
        let other = KeyPair::generate().unwrap().serialize_pem();
        let account = "accounts/ca.test:14000/dir/0a1b";
        for (name, text, expected) in [
            ("live/a.test/privkey.pem", &*other, "a.test: certificate and key do not match"),
            ("live/a.test/fullchain.pem", "", "a.test: no certificate"),
            (
                &format!("{account}/private_key.json"),
                r#"{"kty": "RSA"}"#,
                "only ECDSA keys on P-256",
            ),
            (&format!("{account}/regr.json"), "{}", "regr.json: missing field `uri`"),
        ] {
            let told = told(name, text);
            assert!(told.contains(expected), "{told}");
        }
        let error = lineages(Path::new("/nonexistent/certbot")).err().unwrap();
        assert!(error.starts_with("cannot open \"/nonexistent/certbot/renewal\""), "{error}");
    }

    #[test]
    fn settings_are_found_in_any_section() {
        for (conf, expected) in [
            (CONF, Some("https://ca.test:14000/dir")),
            ("server=x", Some("x")),
            ("server = \"x = y\"", Some("x = y")),
            ("# server = x\nservers = y\n", None),
            ("server =", None),
        ] {
            assert_eq!(setting(conf, "server"), expected, "{conf}");
        }
    }
}
