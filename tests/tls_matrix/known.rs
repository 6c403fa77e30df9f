//! Whom we refuse, or name otherwise, than nginx does, and why.

use crate::run::{
    Key, Kind,
    Kind::{Stricter, Words},
    Side,
    Side::{Client, Upstream},
};

/// Who is told what otherwise in which cases.
struct Row {
    how: &'static [(Side, Kind)],
    cases: &'static [&'static str],
}

/// Why, and the cases.
const REASONS: &[(&str, &[Row])] = &[
    (
        "an extension that cannot be read: nginx then finds no issuer, here the certificate is refused",
        &[Row {
            how: &[(Client, Stricter), (Client, Words), (Upstream, Words)],
            cases: &[
                "an extension twice of ca",
                "an extension twice of leaf",
                "an extension twice of root",
                "basicConstraints=DER:05:00 of ca",
                "basicConstraints=DER:05:00 of leaf",
                "basicConstraints=DER:05:00 of root",
                "basicConstraints=DER:05:00 without usage of ca",
                "basicConstraints=DER:05:00 without usage of root",
                "basicConstraints=DER:30:06:01:01:FF:02:01:FF of ca",
                "basicConstraints=DER:30:06:01:01:FF:02:01:FF of leaf",
                "basicConstraints=DER:30:06:01:01:FF:02:01:FF of root",
                "basicConstraints=DER:30:06:01:01:FF:02:01:FF without usage of ca",
                "basicConstraints=DER:30:06:01:01:FF:02:01:FF without usage of root",
                "crlDistributionPoints=DER:05:00 of ca",
                "crlDistributionPoints=DER:05:00 of leaf",
                "crlDistributionPoints=DER:05:00 of root",
                "extendedKeyUsage=DER:05:00 of ca",
                "extendedKeyUsage=DER:05:00 of leaf",
                "extendedKeyUsage=DER:05:00 of root",
                "subjectAltName=DER:05:00 of leaf",
                "usage DER:03:01:00 of leaf",
                "usage DER:03:02:07:00 of ca",
                "usage DER:03:02:07:00 of leaf",
                "usage DER:03:02:07:00 of root",
                "usage DER:04:01:00 of leaf",
            ],
        }],
    ),
    (
        "the library reads no bound of a path where there is no CA (RFC 5280 §4.2.1.9)",
        &[
            Row {
                how: &[
                    (Client, Stricter),
                    (Client, Words),
                    (Upstream, Stricter),
                    (Upstream, Words),
                ],
                cases: &["basicConstraints=CA:FALSE,pathlen:1 of leaf"],
            },
            Row {
                how: &[(Client, Words), (Upstream, Words)],
                cases: &[
                    "basicConstraints=CA:FALSE,pathlen:1 of ca",
                    "basicConstraints=CA:FALSE,pathlen:1 of root",
                    "basicConstraints=CA:FALSE,pathlen:1 without usage of ca",
                    "basicConstraints=CA:FALSE,pathlen:1 without usage of root",
                ],
            },
        ],
    ),
    (
        "the library does not check signatures with such a digest",
        &[
            Row {
                how: &[(Client, Stricter), (Client, Words), (Upstream, Words)],
                cases: &["digest -sha3-256 of ca", "digest -sha3-256 of leaf"],
            },
            Row {
                how: &[(Client, Words), (Upstream, Words)],
                cases: &["RSA -md5 of ca", "RSA -md5 of leaf", "digest -sha3-256 of root"],
            },
        ],
    ),
    (
        "what a revocation list covers: nginx goes by reasons, which the library does not; both refuse what is not covered, in other words",
        &[
            Row {
                how: &[(Client, Stricter), (Upstream, Stricter)],
                cases: &["distribution point: all, and some reasons", "revoked for reason 8"],
            },
            Row {
                how: &[(Client, Words), (Upstream, Words)],
                cases: &[
                    "distribution point: a place, and the list names another",
                    "distribution point: a place, and the list names it",
                    "distribution point: no place, and the list names one",
                    "distribution point: two places, and the list names one",
                    "list of ca: CAs only",
                    "list of ca: attributes only",
                    "list of ca: changes only",
                    "list of root: attributes only",
                    "list of root: changes only",
                    "list of root: users only",
                ],
            },
        ],
    ),
    (
        "TLS here has no such kind of key",
        &[
            Row {
                how: &[(Client, Stricter), (Upstream, Stricter)],
                cases: &[
                    "key ed448 of a leaf that is trusted itself",
                    "key ed448 of leaf",
                    "key rsa-pss of a leaf that is trusted itself",
                    "key rsa-pss of leaf",
                ],
            },
            Row {
                how: &[
                    (Client, Stricter),
                    (Client, Words),
                    (Upstream, Stricter),
                    (Upstream, Words),
                ],
                cases: &[
                    "key ed448 of ca",
                    "key ed448 of root",
                    "key explicit of a leaf that is trusted itself",
                ],
            },
            Row {
                how: &[(Client, Words)],
                cases: &[
                    "key P-192 of a leaf that is trusted itself",
                    "key P-192 of leaf",
                    "key P-224 of a leaf that is trusted itself",
                    "key P-224 of leaf",
                    "key brainpoolP256r1 of a leaf that is trusted itself",
                    "key brainpoolP256r1 of leaf",
                    "key secp256k1 of a leaf that is trusted itself",
                    "key secp256k1 of leaf",
                ],
            },
            Row {
                how: &[(Client, Words), (Upstream, Words)],
                cases: &[
                    "key P-192 of ca",
                    "key P-192 of root",
                    "key explicit of ca",
                    "key explicit of leaf",
                    "key explicit of root",
                ],
            },
        ],
    ),
    (
        "the library does not know this extension as a critical one",
        &[
            Row {
                how: &[
                    (Client, Stricter),
                    (Client, Words),
                    (Upstream, Stricter),
                    (Upstream, Words),
                ],
                cases: &["noCheck=critical,ignored of ca", "noCheck=critical,ignored of leaf"],
            },
            Row {
                how: &[(Client, Stricter), (Upstream, Stricter)],
                cases: &["noCheck=critical,ignored of root"],
            },
        ],
    ),
    (
        "the library asks for basic constraints or a key usage of a root",
        &[Row {
            how: &[(Client, Stricter), (Upstream, Stricter)],
            cases: &["nsCertType=sslCA and nothing else of root"],
        }],
    ),
    (
        "proxy certificates (RFC 3820) are refused by that name at any level",
        &[
            Row {
                how: &[(Client, Stricter), (Client, Words), (Upstream, Words)],
                cases: &[
                    "proxyCertInfo=critical,language:id-ppl-anyLanguage,pathlen:3 of ca",
                    "proxyCertInfo=critical,language:id-ppl-anyLanguage,pathlen:3 of root",
                    "proxyCertInfo=language:id-ppl-anyLanguage of ca",
                    "proxyCertInfo=language:id-ppl-anyLanguage of root",
                ],
            },
            Row {
                how: &[(Client, Words), (Upstream, Words)],
                cases: &[
                    "proxyCertInfo=critical,language:id-ppl-anyLanguage,pathlen:3 of leaf",
                    "proxyCertInfo=language:id-ppl-anyLanguage of leaf",
                ],
            },
        ],
    ),
    (
        "certificates for number resources (RFC 3779) are refused at any level",
        &[
            Row {
                how: &[
                    (Client, Stricter),
                    (Client, Words),
                    (Upstream, Stricter),
                    (Upstream, Words),
                ],
                cases: &[
                    "sbgp-autonomousSysNum=AS:64496 of ca",
                    "sbgp-ipAddrBlock=IPv4:10.0.0.0/8 of ca",
                    "sbgp-ipAddrBlock=critical,IPv4:10.0.0.0/8 of ca",
                ],
            },
            Row {
                how: &[(Client, Stricter), (Upstream, Stricter)],
                cases: &[
                    "sbgp-autonomousSysNum=AS:64496 of root",
                    "sbgp-ipAddrBlock=IPv4:10.0.0.0/8 of root",
                    "sbgp-ipAddrBlock=critical,IPv4:10.0.0.0/8 of root",
                ],
            },
        ],
    ),
    (
        "times that RFC 5280 §4.1.2.5 forbids are not read here",
        &[
            Row {
                how: &[(Client, Stricter), (Client, Words), (Upstream, Words)],
                cases: &[
                    "time in month 13 of ca",
                    "time with a fraction of ca",
                    "time without seconds of ca",
                ],
            },
            Row {
                how: &[(Client, Words), (Upstream, Words)],
                cases: &[
                    "time in month 13 of leaf",
                    "time with a fraction of leaf",
                    "time without seconds of leaf",
                ],
            },
        ],
    ),
    (
        "extensions need version 3 here (RFC 5280 §4.1.2.9), and there is no version 4",
        &[
            Row {
                how: &[
                    (Client, Stricter),
                    (Client, Words),
                    (Upstream, Stricter),
                    (Upstream, Words),
                ],
                cases: &[
                    "version 1 with extensions of ca",
                    "version 1 with extensions of leaf",
                    "version 2 with extensions of ca",
                    "version 2 with extensions of leaf",
                    "version 4 with extensions of ca",
                    "version 4 with extensions of leaf",
                ],
            },
            Row {
                how: &[(Client, Stricter), (Client, Words), (Upstream, Words)],
                cases: &["version 4 without extensions of leaf"],
            },
            Row {
                how: &[(Client, Words), (Upstream, Words)],
                cases: &["version 4 without extensions of ca"],
            },
        ],
    ),
    (
        "neither side reads such a number, and each says so in its way",
        &[Row {
            how: &[(Client, Words), (Upstream, Words)],
            cases: &["padded serial of ca", "padded serial of leaf"],
        }],
    ),
    (
        "the library has forgotten the gated cryptography of old browsers",
        &[
            Row {
                how: &[(Upstream, Stricter)],
                cases: &["extendedKeyUsage=msSGC of ca", "extendedKeyUsage=nsSGC of ca"],
            },
            Row {
                how: &[(Upstream, Stricter), (Upstream, Words)],
                cases: &["extendedKeyUsage=msSGC of leaf", "extendedKeyUsage=nsSGC of leaf"],
            },
        ],
    ),
    (
        "the library takes a star for whole labels only (RFC 9525 §6.3)",
        &[Row {
            how: &[(Upstream, Stricter)],
            cases: &[
                "host a.leaf.test of CN x and DNS:a*.leaf.test",
                "host ab.leaf.test of CN x and DNS:a*.leaf.test",
                "host ab.leaf.test of CN x and DNS:*b.leaf.test",
            ],
        }],
    ),
    (
        "with TLS 1.2 nginx asks an ECDSA key for its usage before anything is judged, and ends the \
         handshake",
        &[Row {
            how: &[(Upstream, Words)],
            cases: &[
                "a stranger with a usage for nothing",
                "a stranger with a usage for nothing who issued himself",
                "a stranger with a usage for nothing with the root",
                "a stranger with a usage for nothing, alone",
                "distribution point: nothing",
                "distribution point: reasons alone",
                "own for certificates, and one like it is trusted",
                "own for certificates, not trusted",
                "own for certificates, trusted",
                "usage cRLSign of leaf",
                "usage critical,keyAgreement,encipherOnly of leaf",
                "usage dataEncipherment of leaf",
                "usage decipherOnly of leaf",
                "usage encipherOnly of leaf",
                "usage keyAgreement of leaf",
                "usage keyCertSign of leaf",
                "usage keyEncipherment of leaf",
                "usage nonRepudiation of leaf",
            ],
        }],
    ),
    (
        "servers with TLS 1.2 show such a key only to those who agree on keys on this curve",
        &[Row {
            how: &[(Upstream, Stricter)],
            cases: &["key P-521 of a leaf that is trusted itself", "key P-521 of leaf"],
        }],
    ),
];

/// Cases in which releases of OpenSSL differ: 3.0.19 takes a revocation list of changes alone for a whole one, others
/// refuse it. Here it is refused.
const BY_RELEASE: &[&str] = &["list of ca: changes only", "list of root: changes only"];

/// Whether a difference depends on the release of OpenSSL; never that somebody gets in.
pub(crate) fn depends_on_release((_, kind, case): &Key) -> bool {
    *kind != Kind::Laxer && BY_RELEASE.contains(&case.as_str())
}

/// All that is known.
pub(crate) fn keys() -> impl Iterator<Item = Key> {
    REASONS.iter().flat_map(|(_, rows)| *rows).flat_map(|row| {
        row.cases
            .iter()
            .flat_map(|case| row.how.iter().map(|(side, kind)| (*side, *kind, (*case).to_owned())))
    })
}
