//! The certificates and chains: good ones, and every defect and oddity that comes to mind.

use std::collections::HashMap;

use crate::mint::{
    Edit, GENERALIZED, KEY, Made, Mint, OTHER_KEY, Order, THIRD_KEY, UTC, pem, subject, tlv,
};

/// What is trusted, what is shown, and for which host it is asked.
pub(crate) struct Case {
    pub(crate) name: String,
    /// PEM.
    pub(crate) trusted: Vec<String>,
    /// PEM.
    pub(crate) lists: Vec<String>,
    /// DER, the leaf first.
    pub(crate) shown: Vec<Vec<u8>>,
    pub(crate) key: &'static str,
    pub(crate) host: String,
}

/// All cases; the names of CAs are of one case each, so that all can share one file.
pub(crate) fn all(mint: &Mint) -> Vec<Case> {
    let root = mint.ca("the root").make();
    let ca = mint.ca("the ca").by(&root).make();
    let mut cases = Cases { mint, found: Vec::new(), number: 0, root, ca, lists: HashMap::new() };
    cases.dates();
    cases.usages();
    cases.extended_usages();
    cases.constraints();
    cases.versions();
    cases.signatures();
    cases.keys();
    cases.names();
    cases.extensions();
    cases.identifiers();
    cases.subjects();
    cases.chains();
    cases.own();
    cases.stated();
    cases.revoked();
    cases.lists();
    cases.distribution_points();
    cases.hosts();
    cases.found
}

struct Cases<'a> {
    mint: &'a Mint,
    found: Vec<Case>,
    number: u32,
    /// A root and a CA for those who need nothing else.
    root: Made,
    ca: Made,
    /// The revocation list of each CA, in PEM.
    lists: HashMap<Vec<u8>, String>,
}

/// Where in a chain of root, CA and leaf something is odd.
const LEVELS: [&str; 3] = ["leaf", "ca", "root"];

/// A change of an order.
type Change<'c> = &'c dyn Fn(Order<'_>) -> Order<'_>;

impl<'a> Cases<'a> {
    fn add(&mut self, name: impl Into<String>) -> &mut Case {
        self.found.push(Case {
            name: name.into(),
            trusted: Vec::new(),
            lists: Vec::new(),
            shown: Vec::new(),
            key: KEY,
            host: "leaf.test".to_owned(),
        });
        self.found.last_mut().unwrap()
    }

    /// A name that no other CA has.
    fn unique(&mut self, name: &str) -> String {
        self.number += 1;
        format!("{name} {}", self.number)
    }

    fn root(&mut self) -> Made {
        let name = self.unique("root");
        self.mint.ca(&name).make()
    }

    fn below(&mut self, issuer: &Made) -> Made {
        let name = self.unique("ca");
        self.mint.ca(&name).by(issuer).make()
    }

    /// A root, a CA and a leaf, changed at one level: the root is trusted, the others are shown.
    fn odd(&mut self, name: &str, level: &str, change: Change<'_>) -> &mut Case {
        let at = |this: &str, order: Order<'a>| if this == level { change(order) } else { order };
        // Its lifetime is that of the mint.
        let mint = self.mint;
        let root = match level {
            "root" => change(mint.ca(&self.unique("root"))).make(),
            _ => self.root.clone(),
        };
        let ca = match level {
            "leaf" => self.ca.clone(),
            _ => at("ca", mint.ca(&self.unique("ca")).by(&root)).make(),
        };
        let leaf = at("leaf", mint.leaf(&ca)).make();
        self.chain(&format!("{name} of {level}"), &root, &[&ca], &leaf)
    }

    /// A leaf below CAs (the one nearest to it first), which are shown with it.
    fn chain(&mut self, name: &str, root: &Made, above: &[&Made], leaf: &Made) -> &mut Case {
        let with_lists =
            above.iter().copied().chain([root]).filter(|ca| ca.key.starts_with("p256"));
        let lists: Vec<_> = with_lists.map(|ca| self.list(ca)).collect();
        let case = self.add(name);
        case.trusted.push(pem("CERTIFICATE", &root.der));
        case.lists = lists;
        case.shown =
            std::iter::once(leaf).chain(above.iter().copied()).map(|one| one.der.clone()).collect();
        case.key = leaf.key;
        case
    }

    /// The revocation list of a CA, which revokes nobody.
    fn list(&mut self, ca: &Made) -> String {
        let made = || pem("X509 CRL", &self.mint.list(ca).make());
        self.lists.entry(ca.der.clone()).or_insert_with(made).clone()
    }

    fn dates(&mut self) {
        let utc = |time: &str| (UTC, time.to_owned());
        let long = |time: &str| (GENERALIZED, time.to_owned());
        let (past, future) = (utc("200101000000Z"), utc("450101000000Z"));
        for (name, from, to) in [
            ("good dates", past.clone(), future.clone()),
            ("expired", past.clone(), utc("210101000000Z")),
            ("not yet valid", utc("440101000000Z"), future.clone()),
            ("ends before it begins", utc("440101000000Z"), utc("210101000000Z")),
            ("ends in 9999", past.clone(), long("99991231235959Z")),
            ("generalized before 2050", long("20200101000000Z"), long("20450101000000Z")),
            ("begins in 1950", utc("500101000000Z"), future.clone()),
            ("time without seconds", utc("2001010000Z"), future.clone()),
            ("time with a zone", utc("200101000000+0100"), future.clone()),
            ("time with a fraction", past.clone(), long("20450101000000.5Z")),
            ("time in month 13", past.clone(), utc("451301000000Z")),
        ] {
            for level in LEVELS {
                // Our program does not start with a root whose times it cannot read.
                if level == "root" && name.starts_with("time ") {
                    continue;
                }
                let edit = Edit::Times(from.clone(), to.clone());
                self.odd(name, level, &|order| order.edit(edit.clone()));
            }
        }
    }

    fn usages(&mut self) {
        let bits = [
            "digitalSignature",
            "nonRepudiation",
            "keyEncipherment",
            "dataEncipherment",
            "keyAgreement",
            "keyCertSign",
            "cRLSign",
            "encipherOnly",
            "decipherOnly",
            "digitalSignature,keyEncipherment",
            "critical,digitalSignature,keyEncipherment",
            "critical,keyAgreement,encipherOnly",
            "digitalSignature,keyCertSign",
            "DER:03:02:07:00",
            "DER:03:01:00",
            "DER:04:01:00",
        ];
        for usage in bits {
            self.odd(&format!("usage {usage}"), "leaf", &|order| {
                order.says(&format!("keyUsage={usage}"))
            });
        }
        for usage in [
            "digitalSignature",
            "keyCertSign",
            "cRLSign",
            "critical,digitalSignature,cRLSign",
            "keyAgreement",
            "DER:03:02:07:00",
            "",
        ] {
            for level in ["ca", "root"] {
                self.odd(&format!("usage {usage}"), level, &|order| {
                    order.says(&format!("keyUsage={usage}"))
                });
            }
        }
        for kind in
            ["client", "server", "email", "objsign", "sslCA", "emailCA", "objCA", "client,server"]
        {
            for level in LEVELS {
                let says = format!("nsCertType={kind}");
                self.odd(&says, level, &|order| order.says(&says));
            }
            let says = format!("nsCertType={kind}");
            self.odd(&format!("{says} and nothing else"), "root", &|order| {
                order.says("basicConstraints=").says("keyUsage=").says(&says)
            });
        }
    }

    fn extended_usages(&mut self) {
        for usage in [
            "clientAuth",
            "serverAuth",
            "clientAuth,serverAuth",
            "critical,clientAuth,serverAuth",
            "codeSigning",
            "anyExtendedKeyUsage",
            "critical,anyExtendedKeyUsage",
            "emailProtection",
            "OCSPSigning",
            "timeStamping",
            "msSGC",
            "nsSGC",
            "1.2.3.4",
            "1.2.3.4,clientAuth,serverAuth",
            "DER:30:00",
            "DER:05:00",
        ] {
            for level in LEVELS {
                let says = format!("extendedKeyUsage={usage}");
                self.odd(&says, level, &|order| order.says(&says));
            }
        }
    }

    fn constraints(&mut self) {
        for says in [
            "basicConstraints=CA:FALSE",
            "basicConstraints=critical,CA:FALSE",
            "basicConstraints=CA:TRUE",
            "basicConstraints=critical,CA:TRUE",
            "basicConstraints=critical,CA:TRUE,pathlen:0",
            "basicConstraints=CA:FALSE,pathlen:1",
            "basicConstraints=",
            "basicConstraints=DER:30:00",
            "basicConstraints=DER:30:03:01:01:01",
            "basicConstraints=DER:30:06:01:01:FF:02:01:FF",
            "basicConstraints=DER:05:00",
        ] {
            for level in LEVELS {
                self.odd(says, level, &|order| order.says(says));
                if level != "leaf" {
                    self.odd(&format!("{says} without usage"), level, &|order| {
                        order.says(says).says("keyUsage=")
                    });
                }
            }
        }
        for (height, bound) in (1..=3).flat_map(|height| (0..=2).map(move |bound| (height, bound)))
        {
            let says = format!("basicConstraints=critical,CA:TRUE,pathlen:{bound}");
            let name = self.unique("root");
            let root = self.mint.ca(&name).says(&says).make();
            let mut cas = vec![root.clone()];
            for _ in 0..height {
                let next = self.below(cas.last().unwrap());
                cas.push(next);
            }
            let leaf = self.mint.leaf(cas.last().unwrap()).make();
            let above: Vec<_> = cas[1..].iter().rev().collect();
            self.chain(&format!("path length {bound}, {height} CAs"), &root, &above, &leaf);
        }
        // CAs that issued themselves are not counted.
        let name = self.unique("root");
        let bound = "basicConstraints=critical,CA:TRUE,pathlen:0";
        let root = self.mint.ca(&name).says(bound).make();
        let rolled = self
            .mint
            .ca(&name)
            .key(OTHER_KEY)
            .by(&root)
            .says("authorityKeyIdentifier=keyid")
            .make();
        let leaf = self.mint.leaf(&rolled).says("authorityKeyIdentifier=keyid").make();
        self.chain("path length 0, a CA that rolled over", &root, &[&rolled], &leaf);
        let below = self.below(&rolled);
        let leaf = self.mint.leaf(&below).make();
        self.chain(
            "path length 0, a CA below one that rolled over",
            &root,
            &[&below, &rolled],
            &leaf,
        );
    }

    fn versions(&mut self) {
        for level in LEVELS {
            for version in [0, 1, 2, 3] {
                let (with, edit) = (version + 1, Edit::Version(version));
                // Our program does not start with a root that it cannot read.
                let starts = |has_extensions: bool| {
                    level != "root" || with == 3 || with < 3 && !has_extensions
                };
                if starts(true) {
                    let name = format!("version {with} with extensions");
                    self.odd(&name, level, &|order| order.edit(edit.clone()));
                }
                if starts(false) {
                    let name = format!("version {with} without extensions");
                    self.odd(&name, level, &|order| {
                        order.edit(edit.clone()).edit(Edit::NoExtensions)
                    });
                }
            }
            for (name, serial) in [
                ("serial 0", vec![0]),
                ("negative serial", vec![0x80]),
                ("long serial", vec![1; 40]),
                ("padded serial", vec![0, 0, 1]),
            ] {
                // nginx does not start with such a root.
                if name.starts_with("padded") && level == "root" {
                    continue;
                }
                self.odd(name, level, &|order| order.edit(Edit::Serial(serial.clone())));
            }
        }
    }

    fn signatures(&mut self) {
        for level in LEVELS {
            self.odd("damaged signature", level, &|order| order.edit(Edit::Damage));
            self.odd("two algorithms", level, &|order| order.edit(Edit::OtherAlgorithm));
            for digest in ["-sha1", "-sha224", "-sha384", "-sha512", "-sha3-256"] {
                self.odd(&format!("digest {digest}"), level, &|order| order.digest(digest));
            }
        }
        for digest in [
            "-md5",
            "-sha1",
            "-sha224",
            "-sha256",
            "-sha256 -sigopt rsa_padding_mode:pss",
            "-sha1 -sigopt rsa_padding_mode:pss",
            "-sha512 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:20",
            "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_mgf1_md:sha1",
        ] {
            for level in LEVELS {
                let mint = self.mint;
                let at = |this: &str, order: Order<'a>| {
                    if this == level { order.digest(digest) } else { order }
                };
                let root = at("root", mint.ca(&self.unique("root")).key("rsa2048")).make();
                let ca = at("ca", mint.ca(&self.unique("ca")).key("rsa2048").by(&root)).make();
                let leaf = at("leaf", mint.leaf(&ca)).make();
                self.chain(&format!("RSA {digest} of {level}"), &root, &[&ca], &leaf);
            }
        }
        // The name of a CA is not its key.
        let (root, name) = (self.root(), self.unique("ca"));
        let ca = self.mint.ca(&name).by(&root).make();
        let mimic = self.mint.ca(&name).key(OTHER_KEY).by(&root).make();
        let leaf = self.mint.leaf(&mimic).make();
        self.chain("issued by another of that name", &root, &[&ca], &leaf);
        let leaf = self.mint.leaf(&mimic).says("authorityKeyIdentifier=keyid").make();
        self.chain("issued by another of that name, who says so", &root, &[&ca], &leaf);
        self.chain("issued by one of two of that name", &root, &[&ca, &mimic], &leaf);
    }

    fn keys(&mut self) {
        for key in [
            "P-224",
            "P-384",
            "P-521",
            "secp256k1",
            "brainpoolP256r1",
            "P-192",
            "explicit",
            "rsa1024",
            "rsa1962",
            "rsa1963",
            "rsa2048",
            "rsa3072",
            "rsa-pss",
            "ed25519",
            "ed448",
        ] {
            for level in LEVELS {
                self.odd(&format!("key {key}"), level, &|order| order.key(key));
            }
            let mint = self.mint;
            let leaf = mint.order("own").key(key).says("subjectAltName=DNS:leaf.test");
            let leaf = leaf.subject(&format!("/CN={}", self.unique("own"))).make();
            let case = self.add(format!("key {key} of a leaf that is trusted itself"));
            case.trusted.push(pem("CERTIFICATE", &leaf.der));
            case.shown.push(leaf.der);
            case.key = key;
        }
    }

    fn names(&mut self) {
        let leaves = [
            ("a DNS name", "subjectAltName=DNS:leaf.test"),
            ("an address", "subjectAltName=DNS:leaf.test,IP:10.1.2.3"),
            ("an email", "subjectAltName=DNS:leaf.test,email:a@leaf.test"),
            ("a URI", "subjectAltName=DNS:leaf.test,URI:https://leaf.test/"),
            ("no name", "subjectAltName="),
        ];
        let constraints = [
            "permitted;DNS:leaf.test",
            "permitted;DNS:test",
            "permitted;DNS:.test",
            "permitted;DNS:other.test",
            "excluded;DNS:leaf.test",
            "excluded;DNS:other.test",
            "permitted;email:leaf.test",
            "permitted;email:other.test",
            "permitted;IP:10.0.0.0/255.0.0.0",
            "excluded;IP:10.0.0.0/255.0.0.0",
            "permitted;URI:leaf.test",
            "excluded;URI:.test",
            "permitted;dirName:subtrees",
            "excluded;dirName:subtrees",
            "permitted;DNS:test,excluded;DNS:other.test",
            // An excluded DNS name of nothing: all of them.
            "DER:30:06:A1:04:30:02:82:00",
            "DER:30:00",
        ];
        for (index, constraint) in constraints.into_iter().enumerate() {
            let name = self.unique("root");
            let says = format!("nameConstraints=critical,{constraint}");
            // One level is enough for each, and both are tried.
            let at_root = index % 2 == 0;
            let order = self.mint.ca(&name);
            let root = if at_root { order.says(&says) } else { order }.make();
            let name = self.unique("ca");
            let order = self.mint.ca(&name).by(&root);
            let ca = if at_root { order } else { order.says(&says) }.make();
            for (what, names) in leaves {
                let leaf = self.mint.leaf(&ca).subject("/CN=leaf.test").says(names).make();
                self.chain(&format!("{constraint} above {what}"), &root, &[&ca], &leaf);
            }
        }
    }

    fn extensions(&mut self) {
        for says in [
            "1.2.3.4=DER:05:00",
            "1.2.3.4=critical,DER:05:00",
            "subjectKeyIdentifier=critical,hash",
            "authorityInfoAccess=critical,OCSP;URI:http://ocsp.test/",
            "noCheck=critical,ignored",
            "certificatePolicies=critical,1.2.3.4",
            "certificatePolicies=DER:05:00",
            "policyConstraints=critical,requireExplicitPolicy:0",
            "inhibitAnyPolicy=critical,0",
            "policyMappings=critical,1.2.3.4:1.2.3.5",
            "issuerAltName=critical,DNS:x.test",
            "subjectAltName=critical,DNS:leaf.test",
            "subjectAltName=DER:05:00",
            "subjectAltName=DER:30:00",
            "crlDistributionPoints=DER:05:00",
            "sbgp-ipAddrBlock=IPv4:10.0.0.0/8",
            "sbgp-ipAddrBlock=critical,IPv4:10.0.0.0/8",
            "sbgp-autonomousSysNum=AS:64496",
            "tlsfeature=status_request",
            "nsComment=comment",
            "proxyCertInfo=language:id-ppl-anyLanguage",
            "proxyCertInfo=critical,language:id-ppl-anyLanguage,pathlen:3",
        ] {
            for level in LEVELS {
                if level != "leaf" && says.starts_with("subjectAltName") {
                    continue;
                }
                // It may not have alternative names (RFC 3820 §3.5).
                let without = if says.starts_with("proxy") { "subjectAltName=" } else { says };
                self.odd(says, level, &|order| order.says(without).says(says));
            }
        }
        for level in LEVELS {
            self.odd("an extension twice", level, &|order| {
                let content = b"\x30\x03\x01\x01\xff".to_vec();
                order
                    .edit(Edit::Extension(b"\x55\x1d\x13".to_vec(), true, content.clone()))
                    .edit(Edit::Extension(b"\x55\x1d\x13".to_vec(), true, content))
            });
        }
    }

    fn identifiers(&mut self) {
        for says in [
            "authorityKeyIdentifier=keyid",
            "authorityKeyIdentifier=keyid,issuer:always",
            "authorityKeyIdentifier=DER:30:06:80:04:01:02:03:04",
            "authorityKeyIdentifier=DER:30:03:82:01:01",
            "authorityKeyIdentifier=DER:30:00",
            "authorityKeyIdentifier=DER:05:00",
            "subjectKeyIdentifier=",
            "subjectKeyIdentifier=01020304",
            "subjectKeyIdentifier=DER:05:00",
        ] {
            for level in LEVELS {
                self.odd(says, level, &|order| order.says(says));
            }
        }
        let name = self.unique("root");
        let root = self.mint.ca(&name).make();
        let name = self.unique("ca");
        let ca = self.mint.ca(&name).by(&root).make();
        let leaf = self.mint.leaf(&ca).says("authorityKeyIdentifier=keyid,issuer:always").make();
        let again = self.mint.ca(&name).by(&root).make();
        self.chain("the issuer has been made again", &root, &[&again], &leaf);
    }

    fn subjects(&mut self) {
        let name = |tag: u8, text: &str| {
            let value = [tlv(6, b"\x55\x04\x03"), tlv(tag, text.as_bytes())].concat();
            tlv(0x30, &tlv(0x31, &tlv(0x30, &value)))
        };
        let (utf8, printable, ia5) = (0x0c, 0x13, 0x16);
        for (what, tag, change) in [
            ("as it is", utf8, 0),
            ("in capitals", utf8, 1),
            ("as another kind of string", printable, 0),
            ("as a kind of string that may not be", ia5, 0),
            ("with more spaces", utf8, 2),
            ("with a space at the end", utf8, 3),
        ] {
            let own = self.unique("named ca");
            let told = match change {
                1 => own.to_uppercase(),
                2 => own.replace(' ', "   "),
                3 => format!("{own} "),
                _ => own.clone(),
            };
            let root = self.root();
            let ca = self.mint.ca(&own).by(&root).make();
            let leaf = self.mint.leaf(&ca).edit(Edit::Issuer(name(tag, &told))).make();
            self.chain(&format!("issuer {what}"), &root, &[&ca], &leaf);
        }
        let empty = tlv(0x30, &[]);
        for level in ["leaf", "ca"] {
            let edit = Edit::Subject(empty.clone());
            self.odd("empty subject", level, &|order| order.edit(edit.clone()));
        }
        let own = self.unique("own");
        let both = [Edit::Issuer(empty.clone()), Edit::Subject(empty)];
        let nobody = self.mint.ca(&own);
        let nobody = both.into_iter().fold(nobody, Order::edit).make();
        let leaf = self.mint.leaf(&nobody).make();
        self.chain("empty name of a root", &nobody, &[], &leaf);
    }

    fn chains(&mut self) {
        let root = self.root();
        let mut cas = vec![root.clone()];
        for _ in 0..4 {
            let next = self.below(cas.last().unwrap());
            cas.push(next);
        }
        let leaves: Vec<_> = cas.iter().map(|ca| self.mint.leaf(ca).make()).collect();
        for height in 0..=4 {
            let above: Vec<_> = cas[1..=height].iter().rev().collect();
            let leaf = leaves[height].clone();
            self.chain(&format!("{height} CAs"), &root, &above, &leaf);
            let with_root: Vec<_> = cas[..=height].iter().rev().collect();
            self.chain(&format!("{height} CAs and the root"), &root, &with_root, &leaf);
            let reversed: Vec<_> = cas[..=height].iter().collect();
            self.chain(&format!("{height} CAs and the root in disorder"), &root, &reversed, &leaf);
            self.chain(&format!("{height} CAs are not shown"), &root, &[], &leaf);
        }
        let other = self.root();
        self.chain("a CA that has nothing to do with it", &root, &[&other, &cas[1]], &leaves[1]);
        self.chain("a CA twice", &root, &[&cas[1], &cas[1]], &leaves[1]);
        self.chain("the leaf twice", &root, &[&leaves[1], &cas[1]], &leaves[1]);
        self.chain("a CA misses", &root, &[&cas[1]], &leaves[2]);
        self.trusted_above("trusted");
        self.crossed();
        self.namesakes();
        self.circles();
        // Somebody else's.
        let stranger = self.root();
        for (name, trusted) in [("a stranger", &other), ("not a stranger", &stranger)] {
            let below = self.below(&stranger);
            let leaf = self.mint.leaf(&below).make();
            self.chain(name, trusted, &[&below], &leaf);
            self.chain(&format!("{name} with the root"), trusted, &[&below, &stranger], &leaf);
            self.chain(&format!("{name}, alone"), trusted, &[], &leaf);
        }
        for (name, change) in [
            (
                "expired",
                &(|order: Order<'a>| order.times("200101000000Z", "210101000000Z"))
                    as &dyn Fn(Order<'a>) -> Order<'a>,
            ),
            ("not yet valid", &|order| order.times("440101000000Z", "450101000000Z")),
            ("for another purpose", &|order| order.says("extendedKeyUsage=codeSigning")),
            ("with a usage for nothing", &|order| order.says("keyUsage=keyCertSign")),
            ("with a weak key", &|order| order.key("rsa1024")),
            ("with an unknown extension", &|order| order.says("1.2.3.4=critical,DER:05:00")),
            ("with SHA-1", &|order| order.digest("-sha1")),
            ("with a damaged signature", &|order| order.edit(Edit::Damage)),
        ] {
            let stranger = self.root();
            let below = self.below(&stranger);
            let leaf = change(self.mint.leaf(&below)).make();
            self.chain(&format!("a stranger {name}, alone"), &other, &[], &leaf);
            self.chain(&format!("a stranger {name}"), &other, &[&below], &leaf);
            self.chain(
                &format!("a stranger {name} with the root"),
                &other,
                &[&below, &stranger],
                &leaf,
            );
            let own = self.unique("own");
            let leaf = self.mint.order(&own).says("subjectAltName=DNS:leaf.test");
            let leaf = change(leaf).make();
            self.chain(&format!("a stranger {name} who issued himself"), &other, &[], &leaf);
        }
    }

    /// Which of the CAs are trusted, and which are shown.
    fn trusted_above(&mut self, name: &str) {
        for trusted in 1..8u32 {
            let root = self.root();
            let upper = self.below(&root);
            let lower = self.below(&upper);
            let leaf = self.mint.leaf(&lower).make();
            let all = [&root, &upper, &lower];
            for is_shown in [true, false] {
                let shown: &[&Made] = if is_shown { &[&lower, &upper] } else { &[] };
                let names = ["root", "upper", "lower"];
                let is_in = |index: &usize| trusted & (1 << index) != 0;
                let told: Vec<_> = (0..3).filter(is_in).map(|index| names[index]).collect();
                let shows = if is_shown { "shown" } else { "not shown" };
                let case = self.chain(
                    &format!("{name}: {}; {shows}", told.join(" and ")),
                    &root,
                    shown,
                    &leaf,
                );
                case.trusted =
                    (0..3).filter(is_in).map(|index| pem("CERTIFICATE", &all[index].der)).collect();
            }
        }
    }

    /// CAs of one name with different keys, of which each has issued.
    fn namesakes(&mut self) {
        for (told, named) in [("", "none"), (", by its key", "keyid:always")] {
            let says = format!("authorityKeyIdentifier={named}");
            let names = |order: Order<'a>| order.says(&says);
            let kinds = [("", None), (" expired first", Some(0)), (" expired second", Some(1))];
            for (kind, expired) in kinds {
                let name = self.unique("namesake");
                let make = |number: usize, key: &'static str| {
                    let order = self.mint.ca(&name).key(key);
                    let is_over = expired == Some(number);
                    let times = ("200101000000Z", "210101000000Z");
                    if is_over { order.times(times.0, times.1).make() } else { order.make() }
                };
                let both = [make(0, KEY), make(1, OTHER_KEY)];
                let trusted = || both.iter().map(|one| pem("CERTIFICATE", &one.der)).collect();
                for (number, root) in both.iter().enumerate() {
                    let leaf = names(self.mint.leaf(root)).make();
                    let name = format!("namesakes{kind} are trusted: by {number}{told}");
                    self.chain(&name, root, &[], &leaf).trusted = trusted();
                }
                let below = self.unique("below");
                let below = names(self.mint.ca(&below).by(&both[1])).make();
                let leaf = names(self.mint.leaf(&below)).make();
                let name = format!("namesakes{kind} are trusted: below 1{told}");
                self.chain(&name, &both[1], &[&below], &leaf).trusted = trusted();
            }
            let root = self.root();
            let mut make_both = || {
                let name = self.unique("namesake");
                [KEY, OTHER_KEY].map(|key| self.mint.ca(&name).key(key).by(&root).make())
            };
            let (shown, one_trusted) = (make_both(), make_both());
            for (number, ca) in shown.iter().enumerate() {
                let leaf = names(self.mint.leaf(ca)).make();
                let name = format!("namesakes are shown: by {number}{told}");
                self.chain(&name, &root, &[&shown[0], &shown[1]], &leaf);
            }
            let [trusted, ca] = one_trusted;
            let leaf = names(self.mint.leaf(&ca)).make();
            let name = format!("a namesake of its issuer is trusted{told}");
            let case = self.chain(&name, &root, &[&ca], &leaf);
            case.trusted.push(pem("CERTIFICATE", &trusted.der));
        }
    }

    /// A CA with two certificates: by the root that is trusted, and by another, or its own.
    fn crossed(&mut self) {
        let (root, other) = (self.root(), self.root());
        let name = self.unique("crossed");
        let by = |issuer: &Made| self.mint.ca(&name).by(issuer).make();
        let (ours, theirs) = (by(&root), by(&other));
        let own = self.mint.ca(&name).make();
        let old = self.mint.ca(&name).by(&root).times("200101000000Z", "210101000000Z").make();
        let leaf = self.mint.leaf(&ours).make();
        self.chain("crossed: ours first", &root, &[&ours, &theirs], &leaf);
        self.chain("crossed: theirs first", &root, &[&theirs, &ours], &leaf);
        self.chain("crossed: own first", &root, &[&own, &ours], &leaf);
        self.chain("crossed: ours before its own", &root, &[&ours, &own], &leaf);
        self.chain("crossed: expired first", &root, &[&old, &ours], &leaf);
        self.chain("crossed: expired alone", &root, &[&old], &leaf);
        self.chain("crossed: theirs alone", &root, &[&theirs], &leaf);
        let case = self.chain("crossed: trusted itself", &own, &[&theirs, &other], &leaf);
        case.lists.clear();
        let mint = self.mint;
        let lists = [&own, &other].map(|ca| pem("X509 CRL", &mint.list(ca).make()));
        self.found.last_mut().unwrap().lists = lists.into();
    }

    fn circles(&mut self) {
        let (a, b) = (self.unique("circle"), self.unique("circle"));
        let first = self.mint.ca(&a).key(OTHER_KEY).make();
        let second = self.mint.ca(&b).key(THIRD_KEY).by(&first).make();
        let closing = self.mint.ca(&a).key(OTHER_KEY).by(&second).make();
        let leaf = self.mint.leaf(&second).make();
        let root = self.root();
        self.chain("a circle", &root, &[&second, &closing], &leaf);
        let case = self.chain("a circle that is trusted", &second, &[], &leaf);
        case.trusted.push(pem("CERTIFICATE", &closing.der));
    }

    /// Certificates that issued themselves, trusted and not.
    fn own(&mut self) {
        let changes: &[(&str, Change<'_>)] = &[
            ("plain", &|order| order),
            ("of a CA", &|order| order.says("basicConstraints=critical,CA:TRUE")),
            ("of no CA", &|order| order.says("basicConstraints=critical,CA:FALSE")),
            ("for signatures", &|order| order.says("keyUsage=digitalSignature")),
            ("for certificates", &|order| order.says("keyUsage=keyCertSign")),
            ("for all", &|order| order.says("keyUsage=digitalSignature,keyCertSign,cRLSign")),
            ("for clients", &|order| order.says("extendedKeyUsage=clientAuth")),
            ("for servers", &|order| order.says("extendedKeyUsage=serverAuth")),
            ("for code", &|order| order.says("extendedKeyUsage=codeSigning")),
            ("with identifiers", &|order| {
                order
                    .says("subjectKeyIdentifier=hash")
                    .says("authorityKeyIdentifier=keyid:always,issuer")
            }),
            ("with another's identifier", &|order| {
                order.says("authorityKeyIdentifier=DER:30:06:80:04:01:02:03:04")
            }),
            ("expired", &|order| order.times("200101000000Z", "210101000000Z")),
            ("not yet valid", &|order| order.times("440101000000Z", "450101000000Z")),
            ("of version 1", &|order| order.edit(Edit::Version(0)).edit(Edit::NoExtensions)),
            ("with SHA-1", &|order| order.digest("-sha1")),
            ("damaged", &|order| order.edit(Edit::Damage)),
            ("with an unknown extension", &|order| order.says("1.2.3.4=critical,DER:05:00")),
            ("with a constraint", &|order| {
                order.says("nameConstraints=critical,excluded;DNS:test")
            }),
            ("for no host", &|order| order.says("subjectAltName=")),
        ];
        for (what, change) in changes {
            let name = self.unique("own");
            let order = || self.mint.order(&name).says("subjectAltName=DNS:leaf.test");
            let (own, mimic) = (change(order()).make(), change(order().key(OTHER_KEY)).make());
            self.chain(&format!("own {what}, trusted"), &own, &[], &own);
            self.chain(&format!("own {what}, and one like it is trusted"), &mimic, &[], &own);
            let root = self.root();
            self.chain(&format!("own {what}, not trusted"), &root, &[], &own);
            // As the issuer of another.
            let leaf = self.mint.leaf(&own).make();
            self.chain(&format!("own {what}, above a leaf"), &own, &[], &leaf);
        }
        let (name, root) = (self.unique("own"), self.root());
        let same = subject(&self.mint.order(&name).make());
        let leaf =
            self.mint.leaf(&root).edit(Edit::Subject(same.clone())).edit(Edit::Issuer(same)).make();
        self.chain("own that another has signed, trusted", &leaf, &[], &leaf);
        // No leaf, but no root either, is trusted.
        let leaf = self.mint.leaf(&root).make();
        self.chain("a leaf that is trusted itself", &leaf, &[], &leaf);
        let case = self.chain("a leaf that is trusted itself, and its root", &leaf, &[], &leaf);
        case.trusted.push(pem("CERTIFICATE", &root.der));
        let mint = self.mint;
        let list = pem("X509 CRL", &mint.list(&root).make());
        self.found.last_mut().unwrap().lists.push(list);
    }

    /// `TRUSTED CERTIFICATE`, made as `openssl x509 -addtrust` makes it.
    fn stated(&mut self) {
        let client = tlv(6, b"\x2b\x06\x01\x05\x05\x07\x03\x02");
        let server = tlv(6, b"\x2b\x06\x01\x05\x05\x07\x03\x01");
        let (any, email) =
            (tlv(6, b"\x55\x1d\x25\x00"), tlv(6, b"\x2b\x06\x01\x05\x05\x07\x03\x04"));
        let trusts = |uses: &[u8]| tlv(0x30, &tlv(0x30, uses));
        let rejects = |uses: &[u8]| tlv(0x30, &tlv(0xa0, uses));
        for (what, settings) in [
            ("nothing", tlv(0x30, &[])),
            ("trusted for clients", trusts(&client)),
            ("trusted for servers", trusts(&server)),
            ("trusted for both", trusts(&[&client[..], &server].concat())),
            ("trusted for any", trusts(&any)),
            ("trusted for email", trusts(&email)),
            ("rejected for clients", rejects(&client)),
            ("rejected for servers", rejects(&server)),
            ("rejected for any", rejects(&any)),
            ("rejected for email", rejects(&email)),
        ] {
            let trusted =
                |made: &Made| pem("TRUSTED CERTIFICATE", &[&made.der[..], &settings].concat());
            let root = self.root();
            let ca = self.below(&root);
            let leaf = self.mint.leaf(&ca).make();
            let case = self.chain(&format!("a root that says {what}"), &root, &[&ca], &leaf);
            case.trusted = vec![trusted(&root)];
            let other = self.root();
            let ca = self.below(&other);
            let leaf = self.mint.leaf(&ca).make();
            let case = self.chain(&format!("a CA that says {what}"), &other, &[&ca], &leaf);
            case.trusted = vec![trusted(&ca)];
            let name = self.unique("own");
            let own = self.mint.order(&name).says("subjectAltName=DNS:leaf.test");
            let own = own.says("extendedKeyUsage=codeSigning").make();
            let case = self.chain(&format!("an own for code that says {what}"), &own, &[], &own);
            case.trusted = vec![trusted(&own)];
        }
        let root = self.root();
        let leaf = self.mint.leaf(&root).make();
        let case = self.chain("the label X509 CERTIFICATE", &root, &[], &leaf);
        case.trusted = vec![pem("X509 CERTIFICATE", &root.der)];
    }

    fn revoked(&mut self) {
        for level in LEVELS {
            let root = self.root();
            let ca = self.below(&root);
            let leaf = self.mint.leaf(&ca).make();
            let mint = self.mint;
            let (mut of_root, mut of_ca) = (mint.list(&root), mint.list(&ca));
            match level {
                "leaf" => of_ca = of_ca.revokes(&leaf, &[]),
                "ca" => of_root = of_root.revokes(&ca, &[]),
                _ => of_root = of_root.revokes(&root, &[]),
            }
            let lists = [of_root, of_ca].map(|list| pem("X509 CRL", &list.make())).into();
            self.chain(&format!("revoked {level}"), &root, &[&ca], &leaf).lists = lists;
        }
        // The reasons of RFC 5280 §5.3.1, and extensions of an entry.
        for reason in 0..=10u8 {
            let root = self.root();
            let leaf = self.mint.leaf(&root).make();
            let entry = crate::mint::extension(b"\x55\x1d\x15", false, &[10, 1, reason]);
            let list = pem("X509 CRL", &self.mint.list(&root).revokes(&leaf, &entry).make());
            self.chain(&format!("revoked for reason {reason}"), &root, &[], &leaf).lists =
                vec![list];
        }
        for (name, is_critical) in [("critical", true), ("uncritical", false)] {
            let root = self.root();
            let leaf = self.mint.leaf(&root).make();
            let other = self.mint.leaf(&root).make();
            let entry = crate::mint::extension(b"\x2a\x03\x04", is_critical, &[5, 0]);
            for (what, revoked) in [("it", &leaf), ("another", &other)] {
                let list = pem("X509 CRL", &self.mint.list(&root).revokes(revoked, &entry).make());
                let name = format!("revoked {what} with a {name} extension");
                // Another root for each: the file is one.
                let root = if what == "it" { root.clone() } else { continue };
                self.chain(&name, &root, &[], &leaf).lists = vec![list];
            }
        }
    }

    fn lists(&mut self) {
        const NUMBER: &[u8] = b"\x55\x1d\x14";
        const DELTA: &[u8] = b"\x55\x1d\x1b";
        const AUTHORITY: &[u8] = b"\x55\x1d\x23";
        const SCOPE: &[u8] = b"\x55\x1d\x1c";
        type Listed<'l> = crate::mint::List<'l>;
        type Lists<'l> = &'l dyn Fn(&Mint, &Made) -> Vec<Vec<u8>>;
        let one = |change: fn(Listed<'_>) -> Listed<'_>| {
            move |mint: &Mint, ca: &Made| vec![change(mint.list(ca)).make()]
        };
        let all: &[(&str, Lists<'_>)] = &[
            ("good", &one(|list| list)),
            ("none", &|_, _| Vec::new()),
            ("version 1", &one(|list| list.v1())),
            ("expired", &one(|list| list.times("200101000000Z", Some("210101000000Z")))),
            ("not yet valid", &one(|list| list.times("440101000000Z", Some("450101000000Z")))),
            ("without an end", &one(|list| list.times("200101000000Z", None))),
            ("signed by another", &one(|list| list.signed_with(OTHER_KEY))),
            ("damaged", &one(|list| list.damaged())),
            ("a number", &one(|list| list.says(NUMBER, false, &[2, 1, 1]))),
            ("unknown extension", &one(|list| list.says(b"\x2a\x03\x04", false, &[5, 0]))),
            ("unknown critical extension", &one(|list| list.says(b"\x2a\x03\x04", true, &[5, 0]))),
            (
                "another's identifier",
                &one(|list| list.says(AUTHORITY, false, &[0x30, 6, 0x80, 4, 1, 2, 3, 4])),
            ),
            (
                "changes only",
                &one(|list| list.says(NUMBER, false, &[2, 1, 2]).says(DELTA, true, &[2, 1, 1])),
            ),
            ("users only", &one(|list| list.says(SCOPE, true, &[0x30, 3, 0x81, 1, 0xff]))),
            ("CAs only", &one(|list| list.says(SCOPE, true, &[0x30, 3, 0x82, 1, 0xff]))),
            ("some reasons", &one(|list| list.says(SCOPE, true, &[0x30, 4, 0x83, 2, 5, 0x60]))),
            ("others' too", &one(|list| list.says(SCOPE, true, &[0x30, 3, 0x84, 1, 0xff]))),
            ("attributes only", &one(|list| list.says(SCOPE, true, &[0x30, 3, 0x85, 1, 0xff]))),
            (
                "users and CAs only",
                &one(|list| list.says(SCOPE, true, &[0x30, 6, 0x81, 1, 0xff, 0x82, 1, 0xff])),
            ),
            ("a scope of nothing", &one(|list| list.says(SCOPE, true, &[0x30, 0]))),
            ("expired and a good one", &|mint, ca| {
                vec![
                    mint.list(ca).times("200101000000Z", Some("210101000000Z")).make(),
                    mint.list(ca).make(),
                ]
            }),
        ];
        for (name, lists) in all {
            for level in ["ca", "root"] {
                let root = self.root();
                let ca = self.below(&root);
                let leaf = self.mint.leaf(&ca).make();
                let mint = self.mint;
                let of = |this: &str, made: &Made| {
                    if this == level { lists(mint, made) } else { vec![mint.list(made).make()] }
                };
                let lists: Vec<_> = [of("ca", &ca), of("root", &root)].concat();
                let lists = lists.iter().map(|der| pem("X509 CRL", der)).collect();
                self.chain(&format!("list of {level}: {name}"), &root, &[&ca], &leaf).lists = lists;
            }
        }
        // The newer of two counts.
        for (name, newer_revokes) in
            [("the newer one revokes", true), ("the older one revokes", false)]
        {
            let root = self.root();
            let leaf = self.mint.leaf(&root).make();
            let list = |from: &str, revokes: bool| {
                let list = self.mint.list(&root).times(from, Some("400101000000Z"));
                pem("X509 CRL", &if revokes { list.revokes(&leaf, &[]) } else { list }.make())
            };
            let lists =
                vec![list("200101000000Z", !newer_revokes), list("230101000000Z", newer_revokes)];
            self.chain(&format!("two lists: {name}"), &root, &[], &leaf).lists = lists;
        }
        // Whoever may not sign lists.
        for says in ["keyUsage=critical,keyCertSign", "keyUsage="] {
            let name = self.unique("root");
            let root = self.mint.ca(&name).says(says).make();
            let leaf = self.mint.leaf(&root).make();
            self.chain(&format!("list of a root with {says}"), &root, &[], &leaf);
        }
    }

    fn distribution_points(&mut self) {
        const SCOPE: &[u8] = b"\x55\x1d\x1c";
        // [0] [0] [6] "http://x/": a full name that is a URI.
        let uri = tlv(0xa0, &tlv(0xa0, &tlv(0x86, b"http://x/")));
        let other = tlv(0xa0, &tlv(0xa0, &tlv(0x86, b"http://y/")));
        let reasons = tlv(0x81, &[5, 0x60]);
        let issuer = tlv(
            0xa2,
            &tlv(0xa4, &{
                let value = [tlv(6, b"\x55\x04\x03"), tlv(0x0c, b"somebody")].concat();
                tlv(0x30, &tlv(0x31, &tlv(0x30, &value)))
            }),
        );
        let points = |points: &[&[u8]]| {
            tlv(0x30, &points.iter().flat_map(|point| tlv(0x30, point)).collect::<Vec<u8>>())
        };
        for (name, points, scope) in [
            ("a place", points(&[&uri]), None),
            ("a place, and the list names it", points(&[&uri]), Some(&uri)),
            ("a place, and the list names another", points(&[&uri]), Some(&other)),
            ("no place, and the list names one", Vec::new(), Some(&uri)),
            ("two places, and the list names one", points(&[&other, &uri]), Some(&uri)),
            ("some reasons", points(&[&[&uri[..], &reasons].concat()]), None),
            ("some reasons, and all", points(&[&[&uri[..], &reasons].concat(), &uri]), None),
            ("all, and some reasons", points(&[&uri, &[&uri[..], &reasons].concat()]), None),
            ("reasons alone", points(&[&reasons]), None),
            ("another issuer", points(&[&[&uri[..], &issuer].concat()]), None),
            ("another issuer alone", points(&[&issuer]), None),
            ("nothing", points(&[&[]]), None),
        ] {
            let root = self.root();
            let leaf = self.mint.leaf(&root);
            let extension = Edit::Extension(b"\x55\x1d\x1f".to_vec(), false, points.clone());
            let leaf = if points.is_empty() { leaf } else { leaf.edit(extension) }.make();
            let list = self.mint.list(&root);
            let list = match scope {
                Some(scope) => list.says(SCOPE, true, &tlv(0x30, scope)),
                None => list,
            };
            let list = pem("X509 CRL", &list.make());
            self.chain(&format!("distribution point: {name}"), &root, &[], &leaf).lists =
                vec![list];
        }
    }

    fn hosts(&mut self) {
        let root = self.root();
        let long = format!("{}.test", "a".repeat(50));
        for (host, common, alternative) in [
            ("leaf.test", "leaf.test", ""),
            ("LEAF.test", "leaf.test", ""),
            ("leaf.test", "LEAF.TEST", "DNS:LEAF.test"),
            ("leaf.test", "leaf.test", "DNS:other.test"),
            ("leaf.test", "other", "DNS:other.test,DNS:leaf.test"),
            ("leaf.test", "leaf.test", "IP:10.1.2.3"),
            ("leaf.test", "leaf.test", "email:a@leaf.test"),
            ("leaf.test", "leaf.test", "URI:https://leaf.test/"),
            ("a.leaf.test", "x", "DNS:*.leaf.test"),
            ("leaf.test", "x", "DNS:*.leaf.test"),
            ("a.b.leaf.test", "x", "DNS:*.leaf.test"),
            ("leaf.test", "x", "DNS:*.test"),
            ("test", "x", "DNS:*"),
            ("leaf.test", "x", "DNS:*"),
            ("leaf.test", "x", "DNS:*.*"),
            ("leaf.test", "x", "DNS:l*.test"),
            ("a.leaf.test", "x", "DNS:a*.leaf.test"),
            ("ab.leaf.test", "x", "DNS:a*.leaf.test"),
            ("ab.leaf.test", "x", "DNS:*b.leaf.test"),
            ("xn--a.leaf.test", "x", "DNS:*.leaf.test"),
            ("xn--ab.leaf.test", "x", "DNS:xn--*.leaf.test"),
            ("a.leaf.test", "*.leaf.test", ""),
            ("a.leaf.test", "x", "DNS:a.*.test"),
            ("leaf.test", "x", "DNS:leaf.test."),
            ("leaf.test.", "x", "DNS:leaf.test"),
            ("leaf.test.", "x", "DNS:leaf.test."),
            ("leaf.test", "x", "DNS:.leaf.test"),
            (".test", "x", "DNS:leaf.test"),
            (".leaf.test", "x", "DNS:a.leaf.test"),
            ("leaf_a.test", "x", "DNS:leaf_a.test"),
            ("a_b.leaf.test", "x", "DNS:*.leaf.test"),
            ("-a.leaf.test", "x", "DNS:*.leaf.test"),
            ("127.0.0.1", "x", "IP:127.0.0.1"),
            ("127.0.0.1", "x", "DNS:127.0.0.1"),
            ("127.0.0.1", "127.0.0.1", ""),
            ("127.0.0.1", "127.0.0.1", "IP:127.0.0.1"),
            ("[::1]", "x", "IP:::1"),
            ("[::1]", "[::1]", ""),
            ("[::1]:443", "::1", ""),
            ("leaf.test:443", "x", "DNS:leaf.test"),
            ("leaf.test", "leaf.test ", ""),
            ("leaf.test", "leaf", ""),
            (&long, &long, &format!("DNS:{long}")),
            ("b\u{fc}cher.test", "b\u{fc}cher.test", ""),
        ] {
            let leaf = self.mint.leaf(&root).subject(&format!("/CN={common}"));
            let alternative = alternative.to_owned();
            let leaf = leaf.says(&format!("subjectAltName={alternative}")).make();
            let name = format!("host {host} of CN {common} and {alternative}");
            self.chain(&name, &root, &[], &leaf).host = host.to_owned();
        }
        // Two common names, and one with a zero byte.
        let leaf = self
            .mint
            .leaf(&root)
            .says("subjectAltName=")
            .subject("/CN=other.test/CN=leaf.test")
            .make();
        self.chain("host leaf.test of two CNs", &root, &[], &leaf);
        let value = [tlv(6, b"\x55\x04\x03"), tlv(0x0c, b"leaf.test\0.other.test")].concat();
        let name = tlv(0x30, &tlv(0x31, &tlv(0x30, &value)));
        let leaf = self.mint.leaf(&root).says("subjectAltName=").edit(Edit::Subject(name)).make();
        self.chain("host leaf.test of a CN with a zero byte", &root, &[], &leaf);
    }
}
