//! Whose certificates are trusted: hundreds of chains with every defect and oddity, judged by nginx with
//! OpenSSL 3 and by us, of clients and of upstream servers.
//!
//! Nobody gets in whom nginx refuses. Whom we refuse or name otherwise than nginx is in the table of
//! [`known`], with the reason; the table is exact. Without nginx or `openssl` this is skipped.
//!
//! `WSSGATE_MATRIX` prints all verdicts on the cases whose names contain its value.
#![allow(clippy::unwrap_used)]

mod cases;
mod known;
mod mint;
mod run;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use wssgate_testkit::{NGINX, skipped};

use mint::Mint;
use run::{Key, Kind, Worlds};

/// As many as were promised at least.
const MANY: usize = 300;

#[test]
fn nobody_gets_in_whom_nginx_refuses() {
    let has_openssl = Command::new("openssl").arg("version").output().is_ok();
    if !has_openssl || !Path::new(NGINX).exists() {
        skipped("certificates judged as by nginx: nginx or openssl is not installed");
        return;
    }
    let mint = Mint::new();
    let cases = cases::all(&mint);
    assert!(cases.len() >= MANY, "only {} cases", cases.len());
    let worlds = Worlds::start(&mint, &cases);
    let differences = worlds.compare(&cases);
    // One example of each is enough.
    let mut found = BTreeMap::new();
    for difference in &differences {
        found.entry(difference.key()).or_insert(difference);
    }
    let tell = |key: &Key| found.get(key).map_or_else(|| format!("{key:?}"), ToString::to_string);
    let known: BTreeSet<Key> = known::keys().collect();
    let told: BTreeSet<Key> = found.keys().cloned().collect();
    let laxer: Vec<_> = told.iter().filter(|(_, kind, _)| *kind == Kind::Laxer).map(tell).collect();
    let is_exact = |key: &&Key| !known::depends_on_release(key);
    let unknown: Vec<_> = told.difference(&known).filter(is_exact).map(tell).collect();
    let gone: Vec<_> = known.difference(&told).filter(is_exact).map(tell).collect();
    assert!(
        laxer.is_empty() && unknown.is_empty() && gone.is_empty(),
        "{} get in here: {laxer:#?}\n{} are not in the table: {unknown:#?}\n\
         {} are in the table and not so: {gone:#?}",
        laxer.len(),
        unknown.len(),
        gone.len(),
    );
}
