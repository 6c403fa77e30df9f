//! What is read and documented is obeyed: the engine reads every field of the model and has a value for every variable,
//! and the settings ask for every directive.
//!
//! Read from the sources as text, without comments and tests. Field names alone say little, since a third of them stand
//! in several types: [`READERS`] says which files read a type and what they call it; each of its fields must be read
//! there. A field can still hide behind one of the same name if it is of a type of the engine's own, and the same file
//! calls values of both types the same.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use wssgate_config::variable::{BUILTINS, Builtin};

/// Who reads the model but does not obey it, or is no part of what runs.
const NO_READERS: [&str; 4] = ["bench", "config", "syntax", "testkit"];

/// The types of the model that have named fields, and who obeys them: files and folders below `crates/proxy/src`, or of
/// the program with `src/`, each with its names for values of the type. Patterns (`Type { field, .. }`) need no name.
const READERS: &[(&str, &[&str])] = &[
    ("AccessLog", &["exchange/access_log.rs: log", "log.rs: line"]),
    ("AccessRule", &["front/access.rs: rule"]),
    ("Acme", &["acme.rs: acme", "generation.rs: acme"]),
    ("AcmeCertificate", &["acme.rs: model"]),
    ("AcmeDns", &["acme/dns.rs"]),
    ("AcmeDnsHook", &["acme/dns.rs: hook"]),
    ("AcmeDnsUpdate", &["acme/dns.rs: zone"]),
    ("AcmeExternalAccount", &["acme/issuer.rs: model"]),
    ("AcmeIssuer", &["acme/issuer.rs: model"]),
    ("AddHeader", &["exchange/headers.rs: header"]),
    ("Additions", &["exchange/filter.rs: additions", "exchange/filter/addition.rs: additions"]),
    (
        "AddressRoute",
        &["front/connection.rs: route", "front/route.rs: route", "tls/server.rs: route"],
    ),
    ("Admin", &["admin/socket.rs: wanted", "src/run.rs: wanted"]),
    ("AuthBasic", &["front/auth_basic.rs: basic"]),
    ("AuthJwt", &["exchange/identity.rs: jwt", "front/auth_jwt.rs: jwt"]),
    ("AuthRequest", &["front/auth_request.rs: asked"]),
    ("Autoindex", &["content/listing.rs: wanted", "content/listing/format.rs: wanted"]),
    ("Balance", &["peers/group.rs"]),
    ("Buffering", &["log/access.rs: buffering"]),
    ("CertificateCache", &["tls/certificates/on_demand.rs: rules"]),
    ("CertificateFiles", &["tls/certificates.rs: files"]),
    ("Charset", &["exchange/filter/charset.rs: charset"]),
    ("CharsetMap", &["exchange/filter/charset.rs: map"]),
    ("CheckKind", &["content/proxy/check.rs"]),
    ("CheckRules", &["peers/checked.rs: rules"]),
    ("Condition", &["front/rewrite.rs"]),
    ("Config", &["generation.rs: config"]),
    ("ConnectionLimit", &["front/limits/connections.rs: limit"]),
    ("ConnectionSettings", &["front/arrival.rs: connection", "front/h1.rs: settings"]),
    ("CookieFlags", &["content/proxy/response.rs: rule"]),
    ("CookieRewrite", &["content/proxy/response.rs: rule"]),
    (
        "Core",
        &[
            "generation.rs: core",
            "generation/descriptors.rs: core",
            "log.rs: core",
            "proxy.rs: core",
            "src/run.rs: core",
            "worker/accept.rs: core",
        ],
    ),
    ("Dashboard", &["content/dashboard.rs: wanted"]),
    ("DrainPace", &["generation/draining.rs: pace"]),
    ("ErrorLog", &["log/error.rs: line"]),
    ("ErrorPage", &["content/pages.rs: page"]),
    ("Expires", &["exchange/headers.rs"]),
    ("Expiry", &["tunnel.rs: expiry"]),
    (
        "Filters",
        &["exchange/filter.rs: filters of_location", "exchange/filter/charset.rs: filters"],
    ),
    ("FixedPass", &["content/proxy/destination.rs: fixed"]),
    ("HandshakeRate", &["front/limits/handshakes.rs: rate", "limit/handshakes.rs: rate"]),
    ("HealthCheck", &["content/proxy/check.rs: model", "content/proxy/check/websocket.rs: model"]),
    (
        "Http",
        &[
            "acme.rs: http",
            "content/proxy/destination.rs: http",
            "exchange: http",
            "generation.rs: http",
            "limit.rs: http",
            "proxy.rs: http",
        ],
    ),
    ("JwtRequire", &["front/auth_jwt.rs: line"]),
    ("KeepaliveDisable", &["front/phases.rs: disable"]),
    ("KeepaliveOption", &["listen.rs"]),
    ("Lifetime", &["tunnel.rs: lifetime"]),
    ("LimitConnections", &["front/limits/connections.rs: limits"]),
    ("LimitKind", &["front/limits/requests.rs", "tunnel/meters.rs"]),
    ("LimitRequests", &["front/limits/requests.rs: limits"]),
    (
        "LimitZone",
        &[
            "exchange/zone_key.rs: zone",
            "front/limits: zone",
            "limit.rs: wanted zone",
            "tunnel/meters.rs: limit_zones",
        ],
    ),
    ("ListenOptions", &["listen.rs: options"]),
    ("ListenSocket", &["front/route.rs: socket", "listen.rs: wanted", "proxy.rs: wanted"]),
    ("Located", &["tls/certificates.rs: file"]),
    (
        "Location",
        &["front: location locations", "generation.rs: location", "peers/ports.rs: location"],
    ),
    (
        "LocationSettings",
        &[
            "content/conditional.rs: settings",
            "content/files.rs: settings",
            "content/index.rs: settings",
            "content/listing.rs: settings",
            "content/pages.rs: settings",
            "content/proxy/destination.rs: local",
            "content/proxy/handshake.rs: local",
            "content/status.rs: settings",
            "exchange: settings",
            "front: settings",
            "generation/places.rs: settings",
            "log.rs: settings",
            "tunnel.rs: settings",
            "tunnel/about.rs: settings",
        ],
    ),
    ("Locations", &["front/route.rs: locations"]),
    ("LogFileCache", &["log/kept_open.rs: limits"]),
    ("LogFormat", &["exchange/access_log.rs: format"]),
    ("Map", &["exchange/variables.rs: map"]),
    ("MapKind", &["exchange/variables/map.rs"]),
    ("Mirrors", &["front/subrequest.rs: mirrors"]),
    ("NextUpstream", &["content/proxy.rs: allowed"]),
    ("ProxyRedirect", &["content/proxy/response.rs"]),
    (
        "ProxySettings",
        &["content/proxy.rs: settings", "content/proxy: proxy settings", "tunnel.rs: proxy"],
    ),
    ("ProxyTls", &["content/proxy/connect.rs: tls", "tls/client.rs: settings"]),
    ("Queue", &["peers/group.rs: limits"]),
    ("RealIp", &["exchange/forwarded.rs: trust", "front/real_ip.rs: trust"]),
    ("Reauth", &["tunnel/reauth.rs: reauth"]),
    ("RequestLimit", &["front/limits/requests.rs: limit"]),
    ("Resolve", &["peers/names.rs: resolve"]),
    ("Resolver", &["resolve.rs: model", "resolve/wire.rs: model"]),
    ("Return", &["content/status.rs: answer"]),
    ("Rewrite", &["front/rewrite.rs: rewrite"]),
    ("RewriteOp", &["front/rewrite.rs"]),
    ("Root", &["exchange/path.rs: root", "front/try_files.rs: root"]),
    (
        "Server",
        &[
            "content/proxy/check.rs: server",
            "exchange/request.rs: server",
            "front: server servers",
            "tls/server.rs: server",
        ],
    ),
    (
        "ServerTls",
        &[
            "tls/server.rs: tls",
            "tls/server/resumption.rs: tls",
            "tls/server/verify.rs: tls",
            "tls/sessions.rs: tls",
            "tls/stapling.rs: tls",
        ],
    ),
    ("SessionCache", &["tls/sessions.rs"]),
    ("Sides", &["generation/policies.rs: sides"]),
    ("Slot", &["exchange/variables.rs: slot"]),
    ("Ssi", &["exchange/filter.rs: ssi", "exchange/filter/ssi.rs: ssi"]),
    ("Stapling", &["tls/stapling.rs: stapling"]),
    ("StickyCookie", &["content/proxy/sticky.rs: cookie"]),
    ("StickyLearn", &["content/proxy/sticky.rs: learn", "peers/sticky.rs: model"]),
    (
        "Substitutions",
        &["exchange/filter.rs: substitutions", "exchange/filter/sub.rs: substitutions"],
    ),
    ("Syslog", &["log/syslog.rs: parameters"]),
    ("TlsProtocols", &["tls.rs: protocols"]),
    ("TryFile", &["front/try_files.rs: candidate"]),
    ("TryFiles", &["front/try_files.rs: try_files"]),
    ("TunnelLimit", &["tunnel/meters.rs: limit"]),
    ("TunnelRate", &["tunnel/meters.rs: rate"]),
    (
        "TunnelSettings",
        &[
            "generation/draining.rs: tunnels",
            "generation/policies.rs: settings",
            "tunnel.rs: tunnels",
            "tunnel/meters.rs: tunnels",
            "tunnel/reauth.rs: tunnels",
        ],
    ),
    (
        "Upstream",
        &["content/proxy/destination.rs: model", "peers/group.rs: model", "peers/names.rs: model"],
    ),
    (
        "UpstreamServer",
        &["peers/group.rs: server", "peers/peer.rs: server", "peers/names.rs: line server"],
    ),
    ("User", &["generation.rs: names"]),
    ("ValidReferers", &["exchange/variables/referer.rs: referers"]),
    ("VariableCertificate", &["content/proxy/connect.rs: files", "front/connection.rs: files"]),
    ("VariableFile", &["exchange/path.rs: file"]),
    ("WebSocketLog", &["exchange/access_log.rs: asked", "log.rs: record"]),
    ("WebSocketTap", &["admin/tap.rs"]),
    ("WebSocketToken", &["exchange/secrets.rs: token", "exchange/token.rs: token"]),
    ("WebSocketTrace", &["exchange/trace.rs: settings"]),
];

/// Rows whose values nobody asks for, and why.
const NOT_ASKED_FOR: [(&str, &str); 9] = [
    ("ACME_SHARED_ZONE", "has no effect: workers always share what is in it"),
    ("AUTH_JWT_CLAIM_SET", "its reader gives the variable its meaning"),
    ("AUTH_JWT_HEADER_SET", "its reader gives the variable its meaning"),
    ("ENV", "has no effect: the environment stays as it is"),
    ("INCLUDE", "the included files are in the tree already"),
    ("LIMIT_CONN_ZONE", "its reader puts the zone into the model"),
    ("LIMIT_REQ_ZONE", "its reader puts the zone into the model"),
    ("MASTER_PROCESS", "has no effect: there is always one process"),
    ("WEBSOCKET_LIMIT_ZONE", "its reader puts the zone into the model"),
];

#[test]
fn every_field_of_the_model_is_read_by_those_who_obey_it() {
    let (model, engine) = (model(), engine());
    assert!(model.values().map(BTreeSet::len).sum::<usize>() > 250, "the model is elsewhere");
    let mut unread = Vec::new();
    for (owner, fields) in &model {
        let read: BTreeSet<_> =
            readers(owner).iter().flat_map(|reader| reader.reads(&engine, owner)).collect();
        unread.extend(fields.difference(&read).map(|field| format!("{owner}.{field}")));
    }
    assert!(unread.is_empty(), "obey these or take them out of the model: {unread:?}");
}

#[test]
fn every_type_of_the_model_has_its_readers() {
    let (model, engine) = (model(), engine());
    let listed: Vec<_> = READERS.iter().map(|(owner, _)| *owner).collect();
    let owners: Vec<_> = model.keys().collect();
    assert_eq!(listed, owners, "each type with named fields has one line, in order");
    for (owner, fields) in &model {
        for reader in readers(owner) {
            let reads = !reader.reads(&engine, owner).is_disjoint(fields);
            assert!(reads, "{owner} is not read in {} as `{}`", reader.path, reader.name);
        }
    }
}

/// Else a field that nobody reads would hide behind the one of its name.
#[test]
fn no_file_calls_two_types_of_the_model_with_the_same_field_the_same() {
    let (model, engine) = (model(), engine());
    let mut owner_of = BTreeMap::new();
    for (owner, fields) in &model {
        for reader in readers(owner).iter().filter(|reader| !reader.name.is_empty()) {
            for (file, _) in reader.files(&engine) {
                for field in fields {
                    let access = format!("{}.{field} in {}", reader.name, file.display());
                    let other = owner_of.insert(access.clone(), owner).unwrap_or(owner);
                    assert_eq!(owner, other, "{access}");
                }
            }
        }
    }
}

#[test]
fn every_row_is_asked_for() {
    let mut files = BTreeMap::new();
    sources(&root().join("crates/config/src"), &mut |path, source| {
        files.insert(path.to_owned(), without_tables(&product(source)));
    });
    let rows: Vec<_> =
        files.iter().flat_map(|(home, text)| rows(text).map(move |row| (home, row))).collect();
    assert!(rows.len() > 150, "the rows are elsewhere");
    let ignored = rows.iter().filter(|(home, row)| {
        let module = home.file_stem().unwrap().to_str().unwrap();
        !files.iter().any(|(path, text)| match path == *home {
            true => has_words(text, &format!("&{row}")),
            false => asks_elsewhere(text, module, row),
        })
    });
    let ignored: BTreeSet<_> = ignored.map(|(_, row)| *row).collect();
    let expected = BTreeSet::from(NOT_ASKED_FOR.map(|(row, _)| row));
    assert_eq!(ignored, expected, "ask for the values of these, or say why nobody does");
}

#[test]
fn every_variable_has_a_value_in_the_engine() {
    let engine: String = engine().into_values().collect();
    let documented = |builtin: &Builtin| builtin.always_empty().is_none();
    let wrong = BUILTINS.iter().filter(|(_, builtin, _)| {
        has_value(&engine, &format!("{builtin:?}")) != documented(builtin)
    });
    let wrong: Vec<_> = wrong.map(|(name, ..)| name).collect();
    let help = "give these a value or document them as always empty, whichever they are not";
    assert!(wrong.is_empty(), "{help}: {wrong:?}");
}

/// Where a type of the model is read: in a file or folder, by the name of a value; empty when only patterns read it.
struct Reader {
    path: &'static str,
    name: &'static str,
}

impl Reader {
    /// The sources that it stands for.
    fn files<'e>(&self, engine: &'e Sources) -> impl Iterator<Item = (&'e Path, &'e str)> {
        let base = if self.path.starts_with("src/") { "" } else { "crates/proxy/src" };
        let path = root().join(base).join(self.path);
        let files = engine.iter().filter(move |(file, _)| file.starts_with(&path));
        files.map(|(file, text)| (&**file, &**text))
    }

    /// The fields that it reads.
    fn reads(&self, engine: &Sources, owner: &str) -> BTreeSet<String> {
        let mut read = BTreeSet::new();
        for (_, text) in self.files(engine) {
            let accessed = fields_read(text).into_iter();
            read.extend(accessed.filter(|(name, _)| name == self.name).map(|(_, field)| field));
            read.extend(fields_taken(text, owner));
        }
        read
    }
}

/// The readers of a type.
fn readers(owner: &str) -> Vec<Reader> {
    let lines = READERS.iter().filter(|(listed, _)| *listed == owner).flat_map(|(_, lines)| *lines);
    let readers = lines.map(|line| line.split_once(": ").unwrap_or((line, "")));
    readers
        .flat_map(|(path, names)| names.split(' ').map(move |name| Reader { path, name }))
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Texts by their paths.
type Sources = BTreeMap<PathBuf, String>;

/// All that may read the model.
fn engine() -> Sources {
    let mut engine = Sources::new();
    let crates = fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap());
    let crates = crates.filter(|entry| !NO_READERS.iter().any(|name| entry.file_name() == **name));
    for reader in crates.map(|entry| entry.path()).chain([root()]) {
        sources(&reader.join("src"), &mut |path, source| {
            engine.insert(path.to_owned(), product(source));
        });
    }
    assert!(engine.values().map(String::len).sum::<usize>() > 100_000, "the engine is elsewhere");
    engine
}

/// Calls `each` with the path and text of every source file but those of tests.
fn sources(directory: &Path, each: &mut dyn FnMut(&Path, &str)) {
    let entries = fs::read_dir(directory).into_iter().flatten();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        match stem {
            "tests" | "testing" | "fuzz" => {}
            _ if path.is_dir() => sources(&path, each),
            _ => each(&path, &fs::read_to_string(&path).unwrap()),
        }
    }
}

/// Without comments, and without the tests at the end.
fn product(text: &str) -> String {
    let end = text.find("\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.map(|line| format!("{line}\n")).collect()
}

/// The types that `model` names or that stand in one of those, with the names of their fields. Types without named
/// fields are left out.
fn model() -> BTreeMap<String, BTreeSet<String>> {
    let mut types = BTreeMap::new();
    sources(&root().join("crates/config/src"), &mut |_, source| {
        let source = product(source);
        for (name, body) in public_types(&source) {
            let other = types.insert(name.to_owned(), body.to_owned());
            assert!(other.is_none(), "two types are called {name}");
        }
    });
    let mut model = BTreeMap::new();
    let mut named = fs::read_to_string(root().join("crates/config/src/model.rs")).unwrap();
    while let Some(name) = named.split(|c| !is_of_word(c)).find(|name| types.contains_key(*name)) {
        let (name, body) = types.remove_entry(name).unwrap();
        named.push_str(&body);
        model.insert(name, public_fields(&body));
    }
    model.retain(|_, fields| !fields.is_empty());
    model
}

/// The names of all public types, each with what stands between its braces.
fn public_types(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let items = text.split("\npub ").skip(1);
    items.filter_map(|item| {
        let name = word(item.strip_prefix("struct ").or_else(|| item.strip_prefix("enum "))?);
        let open = item.find(['{', '(', ';'])?;
        item[open..].starts_with('{').then(|| (name, inside(&item[open..])))
    })
}

/// The public fields of a struct, and those of an enum's variants as `Variant.field`.
fn public_fields(body: &str) -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    for item in items(body) {
        let item = without_attributes(item);
        let name = word(item);
        match item[name.len()..].trim_start() {
            public if name == "pub" && !public.starts_with('(') => {
                fields.insert(word(public).to_owned());
            }
            braces if braces.starts_with('{') => {
                let own =
                    items(inside(braces)).into_iter().map(|field| word(without_attributes(field)));
                fields.extend(own.map(|field| format!("{name}.{field}")));
            }
            _ => {}
        }
    }
    fields
}

/// The fields that are read: behind a dot, neither assigned nor called. With each goes the name before the dot, without
/// calls and indices. Fields of `self` are no fields of the model, since its types have no methods outside of this
/// crate.
fn fields_read(text: &str) -> BTreeSet<(String, String)> {
    let mut read = BTreeSet::new();
    for (at, _) in text.match_indices('.') {
        let field = word(&text[at + 1..]);
        let after = text[at + 1 + field.len()..].trim_start();
        let assigned =
            after.starts_with('=') && !after.starts_with("==") && !after.starts_with("=>");
        let name = last_name(&text[..at]);
        if !field.is_empty() && !assigned && name != "self" && !after.starts_with('(') {
            read.insert((name.to_owned(), field.to_owned()));
        }
    }
    read
}

/// The fields of a type that patterns bind or compare. An expression that makes a value looks alike, but is followed by
/// other things.
fn fields_taken(text: &str, owner: &str) -> BTreeSet<String> {
    let mut taken = BTreeSet::new();
    for (at, _) in text.match_indices(owner) {
        let rest = &text[at + owner.len()..];
        let variant = word(rest.strip_prefix("::").unwrap_or_default());
        let rest = rest.strip_prefix("::").map_or(rest, |rest| &rest[variant.len()..]);
        let braces = rest.trim_start();
        if text[..at].ends_with(is_of_word) || !braces.starts_with('{') {
            continue;
        }
        let fields = inside(braces);
        if follows_pattern(braces.get(fields.len() + 2..).unwrap_or_default()) {
            let fields = items(fields).into_iter().filter(|field| !field.ends_with(": _"));
            let fields = fields.map(word).filter(|field| !field.is_empty());
            taken.extend(fields.map(|field| match variant {
                "" => field.to_owned(),
                _ => format!("{variant}.{field}"),
            }));
        }
    }
    taken
}

/// Whether a text goes on as it does behind a pattern.
fn follows_pattern(text: &str) -> bool {
    let text = text.trim_start_matches([')', ']', ' ', '\n']);
    let follows = ["=>", "= ", ":", "| ", "if ", "in "];
    follows.iter().any(|follows| text.starts_with(follows))
}

/// The rows that a file has.
fn rows(text: &str) -> impl Iterator<Item = &str> {
    let statics = text.split("static ").skip(1);
    statics.filter(|rest| rest[word(rest).len()..].starts_with(": Directive<")).map(word)
}

/// Without the tables of rows.
fn without_tables(text: &str) -> String {
    let mut parts = text.split("static ROWS: ");
    let mut rest = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| rest.push_str(part.split_once(';').map_or("", |(_, rest)| rest)));
    rest
}

/// Whether a file names a row of another file, a module. An import does, since one that is not used does not pass.
fn asks_elsewhere(text: &str, module: &str, row: &str) -> bool {
    let mut uses = text.split("\nuse ").skip(1).filter_map(|text| text.split(';').next());
    has_words(text, &format!("{module}::{row}"))
        || uses.any(|text| has_words(text, module) && has_words(text, row))
}

/// Whether whole words stand in a text.
fn has_words(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| {
        !text[..at].ends_with(is_of_word) && !text[at + words.len()..].starts_with(is_of_word)
    })
}

/// Whether a variant stands anywhere but in a match arm that gives `None`.
fn has_value(text: &str, variant: &str) -> bool {
    let pattern = format!("::{variant}");
    text.match_indices(&pattern).any(|(at, _)| {
        let rest = &text[at + pattern.len()..];
        let whole = !rest.starts_with(is_of_word);
        let arm = rest.split_once("=>").map(|(_, arm)| arm.trim_start());
        whole && !arm.is_some_and(|arm| arm.starts_with("None,"))
    })
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The word that a text begins with.
fn word(text: &str) -> &str {
    &text[..text.find(|c| !is_of_word(c)).unwrap_or(text.len())]
}

/// The name that a text ends with, without calls, indices and `?` behind it.
fn last_name(text: &str) -> &str {
    let mut text = text.trim_end();
    while text.ends_with([')', ']', '?']) {
        let mut depth = 0;
        let open = text.char_indices().rev().find(|(_, c)| {
            depth += match c {
                ')' | ']' => 1,
                '(' | '[' => -1,
                _ => 0,
            };
            depth == 0
        });
        text = text[..open.map_or(0, |(at, _)| at)].trim_end();
    }
    &text[text.rfind(|c| !is_of_word(c)).map_or(0, |at| at + 1)..]
}

/// What stands between the bracket that a text begins with and the one that closes it.
fn inside(text: &str) -> &str {
    let mut depth = 0;
    let close = text.char_indices().find(|(_, c)| {
        depth += match c {
            '(' | '[' | '{' => 1,
            ')' | ']' | '}' => -1,
            _ => 0,
        };
        depth == 0
    });
    &text[1..close.map_or(text.len(), |(at, _)| at)]
}

/// What commas separate, but for those in brackets.
fn items(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut before = ' ';
    let items = text.split(|c| {
        depth += match c {
            '>' if before == '-' => 0,
            '(' | '[' | '{' | '<' => 1,
            ')' | ']' | '}' | '>' => -1,
            _ => 0,
        };
        before = c;
        c == ',' && depth == 0
    });
    items.map(str::trim).filter(|item| !item.is_empty()).collect()
}

fn without_attributes(mut item: &str) -> &str {
    while let Some(attribute) = item.strip_prefix('#') {
        item = attribute[inside(attribute).len() + 2..].trim_start();
    }
    item
}

#[test]
fn types_and_their_public_fields_are_found() {
    let text = "\n#[derive(Debug)]\npub struct A<T> {\n    pub a: B<T, C>,\n    pub(crate) own: u8,\n    \
                #[cfg(unix)]\n    pub c: fn(u8, u8) -> u8,\n    pub d: u8,\n}\npub struct Tuple(pub usize);\n\
                pub enum E {\n    One(u8),\n    #[default]\n    Two { d: HashMap<u8, u8>, e: u8 },\n}\n";
    let found: Vec<_> = public_types(text)
        .map(|(name, body)| (name, Vec::from_iter(public_fields(body))))
        .collect();
    let fields = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(found, [("A", fields(&["a", "c", "d"])), ("E", fields(&["Two.d", "Two.e"]))]);
}

#[test]
fn writing_calling_and_testing_is_not_reading() {
    let text = product(
        "fn f(a: &A) {\n    a.written = 1; a.called(); self.own; // a.commented\n    \
         g(a.b.read == 1);\n}\n\
         #[cfg(test)]\nmod tests {\n    a.tested;\n}\n",
    );
    let expected = [("a", "b"), ("b", "read")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(Vec::from_iter(fields_read(&text)), expected);
}

#[test]
fn a_field_is_read_by_the_name_before_its_dot() {
    let text = "a.of_a; f(b(x.y(1)).of_b); c[d(1)].of_c; e()?\n    .of_e; &self.g.of_g;";
    let found = fields_read(text);
    let found: Vec<_> = found.iter().map(|(name, field)| (&**name, &**field)).collect();
    let expected = [("a", "of_a"), ("b", "of_b"), ("c", "of_c"), ("e", "of_e"), ("g", "of_g")];
    assert_eq!(found, expected);
}

#[test]
fn a_pattern_reads_and_a_new_value_does_not() {
    let text = "let A { taken, renamed: x, inner: B { own }, unused: _, .. } = a;\n\
                let b = A { made, .. }; f(A { given }, 1);\n\
                match e { E::One { first, .. } => 1, Some(E::Two { second: 2 }) if c => 2 }\n\
                |A { argument, .. }| 1; let other = MyA { another } = a;";
    let taken = |owner| Vec::from_iter(fields_taken(text, owner));
    assert_eq!(taken("A"), ["argument", "inner", "renamed", "taken"]);
    assert_eq!(taken("E"), ["One.first", "Two.second"]);
}

#[test]
fn a_row_is_asked_for_outside_of_the_tables() {
    let text = "use crate::x::{FAR, f};\nstatic ROWS: &[&dyn Any] = &[\n    &NEAR,\n    &UNUSED,\n];\n\
                static NEAR: Directive<u8> = 1;\nstatic UNUSED: Directive<()> = 2;\nstatic NO: u8 = 3;\n\
                f(&NEAR, &FAR, &y::OTHER);\n";
    let text = without_tables(&format!("\n{text}"));
    assert_eq!(Vec::from_iter(rows(&text)), ["NEAR", "UNUSED"]);
    assert!(has_words(&text, "&NEAR") && !has_words(&text, "&UNUSED"));
    let asked = [("x", "FAR"), ("y", "FAR"), ("y", "OTHER"), ("x", "OTHER"), ("x", "NEAR")];
    let asked = asked.map(|(module, row)| asks_elsewhere(&text, module, row));
    assert_eq!(asked, [true, false, true, false, false]);
}

#[test]
fn a_variable_that_is_none_has_no_value() {
    let text = "match b { B::Args => args(), B::Empty | B::Nothing => None, B::Argsx => x(), }";
    let found = ["Args", "Empty", "Nothing", "Arg"].map(|name| has_value(text, name));
    assert_eq!(found, [true, false, false, false]);
}
