//! OpenSSL cipher strings in terms of the suites that we have.
//!
//! `ssl_ciphers` is written in OpenSSL's language: a list of suites and of words that stand for
//! many (`HIGH`, `ECDHE+AESGCM`), with `!` to ban, `-` to remove and `+` to move to the end. It
//! only speaks of TLS 1.2; the suites of TLS 1.3 are always on, as in nginx. Words for what we do
//! not have (finite-field Diffie-Hellman, CBC, RSA key exchange) are understood and reported.

use rustls::crypto::aws_lc_rs;
use rustls::{CipherSuite, SupportedCipherSuite};

/// What a cipher string asks for.
#[derive(Debug, Default)]
pub struct CipherList {
    /// TLS 1.2 suites that we have, in the order of preference.
    pub suites: Vec<SupportedCipherSuite>,
    /// Suites named one by one that we do not have.
    pub unavailable: Vec<String>,
    /// Words that mean nothing to us; OpenSSL ignores such words too.
    pub unknown: Vec<String>,
}

/// A TLS 1.2 suite of ours, with the words that select it.
struct Suite {
    name: &'static str,
    suite: CipherSuite,
    words: &'static [&'static str],
}

/// In OpenSSL's own order of preference.
const SUITES: &[Suite] = &[
    Suite {
        name: "ECDHE-ECDSA-AES256-GCM-SHA384",
        suite: CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        words: &["aECDSA", "ECDSA", "AESGCM", "AES", "AES256", "SHA384"],
    },
    Suite {
        name: "ECDHE-RSA-AES256-GCM-SHA384",
        suite: CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        words: &["aRSA", "AESGCM", "AES", "AES256", "SHA384"],
    },
    Suite {
        name: "ECDHE-ECDSA-CHACHA20-POLY1305",
        suite: CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        words: &["aECDSA", "ECDSA", "CHACHA20"],
    },
    Suite {
        name: "ECDHE-RSA-CHACHA20-POLY1305",
        suite: CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        words: &["aRSA", "CHACHA20"],
    },
    Suite {
        name: "ECDHE-ECDSA-AES128-GCM-SHA256",
        suite: CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        words: &["aECDSA", "ECDSA", "AESGCM", "AES", "AES128", "SHA256"],
    },
    Suite {
        name: "ECDHE-RSA-AES128-GCM-SHA256",
        suite: CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        words: &["aRSA", "AESGCM", "AES", "AES128", "SHA256"],
    },
];

/// Words that every suite of ours answers to.
const COMMON_WORDS: &[&str] = &[
    "ALL",
    "DEFAULT",
    "COMPLEMENTOFALL",
    "HIGH",
    "ECDHE",
    "EECDH",
    "kEECDH",
    "kECDHE",
    "ECDH",
    "TLSv1.2",
    "AEAD",
    "FIPS",
];

/// Words that stand for groups none of ours belongs to.
const FOREIGN_WORDS: &[&str] = &[
    "MEDIUM",
    "LOW",
    "EXP",
    "EXPORT",
    "EXPORT40",
    "EXPORT56",
    "NULL",
    "eNULL",
    "aNULL",
    "kRSA",
    "RSA",
    "DH",
    "DHE",
    "EDH",
    "kDH",
    "kDHE",
    "kEDH",
    "kDHr",
    "kDHd",
    "aDH",
    "ADH",
    "AECDH",
    "aDSS",
    "DSS",
    "aECDH",
    "kECDH",
    "kECDHr",
    "kECDHe",
    "PSK",
    "kPSK",
    "aPSK",
    "kECDHEPSK",
    "kEECDHPSK",
    "kDHEPSK",
    "kRSAPSK",
    "SRP",
    "kSRP",
    "aSRP",
    "GOST",
    "kGOST",
    "aGOST",
    "aGOST01",
    "GOST94",
    "GOST89MAC",
    "KRB5",
    "FZA",
    "3DES",
    "DES",
    "RC4",
    "RC2",
    "IDEA",
    "SEED",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "ARIAGCM",
    "AESCCM",
    "AESCCM8",
    "CBC",
    "SHA",
    "SHA1",
    "MD5",
    "SSLv2",
    "SSLv3",
    "TLSv1",
    "TLSv1.0",
    "COMPLEMENTOFDEFAULT",
    "CHACHA20PSK",
    "DES-CBC3-SHA",
];

/// The suites of TLS 1.3 under OpenSSL's and RFC 8446's name.
const TLS13: &[(&str, CipherSuite)] = &[
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
];

/// What OpenSSL calls `suite`.
pub fn openssl_name(suite: CipherSuite) -> Option<&'static str> {
    let tls12 = SUITES.iter().map(|known| (known.name, known.suite));
    tls12.chain(TLS13.iter().copied()).find(|known| known.1 == suite).map(|known| known.0)
}

impl CipherList {
    /// Reads a cipher string (openssl-ciphers(1)).
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        let mut order: Vec<usize> = Vec::new();
        let mut banned = [false; SUITES.len()];
        for word in text.split([':', ',', ' ', ';']).filter(|word| !word.is_empty()) {
            let (operator, word) = match word.as_bytes()[0] {
                operator @ (b'!' | b'-' | b'+') => (operator, &word[1..]),
                // `@STRENGTH` and `@SECLEVEL=n`: ours are all strong, in order of strength.
                b'@' => continue,
                _ => (b' ', word),
            };
            let selected = list.select(word, operator);
            match operator {
                b'!' => {
                    selected.iter().for_each(|&index| banned[index] = true);
                    // For good: what `!` has banned, nothing later brings back; `-` only takes away
                    // (openssl-ciphers(1)).
                    order.retain(|index| !banned[*index]);
                }
                b'-' => order.retain(|index| !selected.contains(index)),
                b'+' => {
                    let (moved, mut kept): (Vec<_>, Vec<_>) =
                        order.iter().partition(|index| selected.contains(index));
                    kept.extend(moved);
                    order = kept;
                }
                _ => {
                    let added: Vec<_> = selected
                        .into_iter()
                        .filter(|index| !banned[*index] && !order.contains(index))
                        .collect();
                    order.extend(added);
                }
            }
        }
        list.suites =
            order.into_iter().filter_map(|index| supported(SUITES[index].suite)).collect();
        list
    }

    /// The suites that `word` stands for; `A+B` means both. Notes words that we cannot serve.
    fn select(&mut self, word: &str, operator: u8) -> Vec<usize> {
        if let Some(index) = SUITES.iter().position(|suite| suite.name == word) {
            return vec![index];
        }
        // Always on, whatever the string says.
        if TLS13.iter().any(|(name, _)| *name == word) {
            return Vec::new();
        }
        let parts: Vec<_> = word.split('+').collect();
        if parts.iter().all(|part| is_group(part)) {
            let fits = |suite: &Suite| parts.iter().all(|part| suite.answers_to(part));
            return (0..SUITES.len()).filter(|&index| fits(&SUITES[index])).collect();
        }
        // A ban of something that we do not have is already kept.
        if operator == b' ' {
            let place = if is_suite_name(word) { &mut self.unavailable } else { &mut self.unknown };
            place.push(word.to_owned());
        }
        Vec::new()
    }
}

impl Suite {
    fn answers_to(&self, word: &str) -> bool {
        COMMON_WORDS.contains(&word) || self.words.contains(&word)
    }
}

fn is_group(word: &str) -> bool {
    COMMON_WORDS.contains(&word)
        || FOREIGN_WORDS.contains(&word)
        || SUITES.iter().any(|suite| suite.words.contains(&word))
}

/// Whether `word` looks like the name of one suite: it ends in a MAC or an AEAD.
fn is_suite_name(word: &str) -> bool {
    const ENDINGS: &[&str] =
        &["-SHA", "-SHA256", "-SHA384", "-MD5", "-POLY1305", "-CCM", "-CCM8", "-SHA1"];
    ENDINGS.iter().any(|ending| word.ends_with(ending)) && word.contains('-')
}

fn supported(suite: CipherSuite) -> Option<SupportedCipherSuite> {
    aws_lc_rs::ALL_CIPHER_SUITES.iter().copied().find(|known| known.suite() == suite)
}

/// The suite of TLS 1.3 of this name.
pub fn tls13_suite(name: &str) -> Option<SupportedCipherSuite> {
    let (_, suite) = TLS13.iter().find(|(known, _)| *known == name)?;
    supported(*suite)
}

/// All suites of TLS 1.3, in the order that we prefer.
pub fn tls13_suites() -> impl Iterator<Item = SupportedCipherSuite> {
    TLS13.iter().filter_map(|(_, suite)| supported(*suite))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<&'static str> {
        let list = CipherList::parse(text);
        list.suites.iter().filter_map(|suite| openssl_name(suite.suite())).collect()
    }

    #[test]
    fn strings_select_what_openssl_selects() {
        let all: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        for (text, expected) in [
            ("HIGH:!aNULL:!MD5", all.clone()),
            ("DEFAULT", all.clone()),
            ("DEFAULT:ECCdraft", all.clone()),
            ("ECDHE+AESGCM:!aRSA", vec![all[0], all[4]]),
            ("EECDH+ECDSA+AESGCM", vec![all[0], all[4]]),
            ("ALL:!AESGCM", vec![all[2], all[3]]),
            ("ALL:+AES256", vec![all[2], all[3], all[4], all[5], all[0], all[1]]),
            ("ALL:-CHACHA20:CHACHA20", vec![all[0], all[1], all[4], all[5], all[2], all[3]]),
            ("!AES:ALL", vec![all[2], all[3]]),
            ("AES128-SHA:RSA", vec![]),
            ("kRSA+AES:ECDHE-RSA-AES128-GCM-SHA256", vec![all[5]]),
            ("ECDHE-RSA-AES128-GCM-SHA256,ECDHE-ECDSA-AES128-GCM-SHA256", vec![all[5], all[4]]),
            ("@SECLEVEL=1:CHACHA20+aRSA:@STRENGTH", vec![all[3]]),
            ("", vec![]),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
    }

    #[test]
    fn the_list_of_certbot_keeps_its_order_and_names_what_is_missing() {
        let list = CipherList::parse(
            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
             ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
             ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
             DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384",
        );
        assert_eq!(list.suites.len(), 6);
        let first = openssl_name(list.suites[0].suite());
        assert_eq!(first, Some("ECDHE-ECDSA-AES128-GCM-SHA256"));
        assert_eq!(list.unavailable, ["DHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES256-GCM-SHA384"],);
        assert!(list.unknown.is_empty());
    }

    #[test]
    fn unknown_words_are_told_apart_from_missing_suites() {
        let list = CipherList::parse("AES128-SHA:!DES-CBC3-SHA:nonsense:TLS_AES_128_GCM_SHA256");
        assert_eq!(list.unavailable, ["AES128-SHA"]);
        assert_eq!(list.unknown, ["nonsense"]);
    }

    #[test]
    fn every_suite_of_ours_exists_in_the_library() {
        assert!(SUITES.iter().all(|suite| supported(suite.suite).is_some()));
        assert_eq!(tls13_suites().count(), 3);
    }
}
