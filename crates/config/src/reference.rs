//! The reference of all directives and variables, made from the rows.

use std::fmt::Write as _;

use crate::directive::{Arity, Kind, Row};
use crate::registry::rows;
use crate::tls::key_file::ACME_VARIABLES;
use crate::variable::BUILTINS;

const HEAD: &str = "\
# Directives

Generated from the program's own tables; the test `reference` of `wssgate-config` keeps it up to date.

Directives have the same meaning as in nginx. Inner blocks inherit them unless they set their own values; lists
(`add_header`, `proxy_set_header`, …) are inherited only if the inner block has no such line.
";

const FAMILIES: [(&str, &str); 12] = [
    ("arg_NAME", "an argument of the query string"),
    ("cookie_NAME", "a cookie of the request"),
    ("http_NAME", "a request header; `_` stands for `-`"),
    ("jwt_claim_NAME", "a claim of the `auth_jwt` token; not verified before the access phase"),
    (
        "jwt_header_NAME",
        "a header parameter of the `auth_jwt` token; not verified before the access phase",
    ),
    (
        "proxy_protocol_tlv_NAME",
        "a TLV of the PROXY protocol header: `alpn`, `authority`, `unique_id`, `ssl`, `netns`, \
         `ssl_verify`, `ssl_version`, `ssl_cn`, `ssl_cipher`, `ssl_sig_alg`, `ssl_key_alg`, or a \
         type such as `0xea` or `ssl_0x21`",
    ),
    ("sent_http_NAME", "a response header"),
    ("sent_trailer_NAME", "a response trailer"),
    ("upstream_cookie_NAME", "a cookie set by the upstream server"),
    ("upstream_http_NAME", "a header of the upstream response"),
    ("upstream_trailer_NAME", "a trailer of the upstream response"),
    (
        "websocket_protocol_NAME",
        "the subprotocol offered after `NAME`, or the rest of `NAME.…`, for WebSocket tokens in \
         browsers: `new WebSocket(url, [\"NAME\", token])`, or `[\"chat\", \"NAME.\" + token]` if \
         the server accepts `chat`, since Chromium fails a WebSocket if none of its offers is \
         accepted. Where `auth_jwt` uses it as its token, both are removed from the offer to the \
         upstream server, and `NAME` is accepted if the server accepts nothing",
    ),
];

/// The text of `docs/directives.md`.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    out.push_str("\n## Implemented\n");
    for row in rows().iter().filter(|row| matches!(row.kind, Kind::Works)) {
        let _ = write!(out, "\n### {}\n\n{}\n\n", row.name, row.doc);
        let _ = writeln!(out, "- takes: {}", takes(row));
        if !row.default.is_empty() {
            let _ = writeln!(out, "- default: `{}`", row.default);
        }
        let _ = writeln!(out, "- context: {}", row.context_names());
        explain(&mut out, row);
    }
    out.push_str("\n## Accepted without effect\n\n");
    out.push_str("Removing these changes no response; `-t` reports those that are used.\n\n");
    list(&mut out, |kind| match kind {
        Kind::WithoutEffect(reason) => Some(reason),
        _ => None,
    });
    out.push_str(
        "\n## Refused\n\nIgnoring these would change access control or what clients see.\n\n",
    );
    list(&mut out, |kind| match kind {
        Kind::Refused(advice) => Some(advice),
        _ => None,
    });
    out.push_str("\n## Variables\n\n| name | value |\n| --- | --- |\n");
    for (name, doc) in ACME_VARIABLES {
        let _ = writeln!(out, "| `${name}` | {doc} |");
    }
    for (name, _, doc) in BUILTINS {
        let _ = writeln!(out, "| `${name}` | {doc} |");
    }
    for (name, doc) in FAMILIES {
        let _ = writeln!(out, "| `${name}` | {doc} |");
    }
    out
}

/// The arguments of a directive and an example, where it has them.
fn explain(out: &mut String, row: &Row) {
    if !row.parameters.is_empty() {
        out.push_str("\n| argument | |\n| --- | --- |\n");
    }
    for (written, doc) in row.parameters {
        // A bar would end the cell.
        let written = written.replace('|', "\\|");
        let _ = writeln!(out, "| `{written}` | {doc} |");
    }
    if !row.example.is_empty() {
        let _ = writeln!(out, "\n```nginx\n{}\n```", row.example);
    }
}

fn takes(row: &Row) -> String {
    let block = if row.braces == crate::directive::Braces::None { "" } else { " and a block" };
    match row.arity {
        Arity::Flag => "`on` or `off`".into(),
        arity => format!("{}{block}", arity.words()),
    }
}

/// A table of names and reasons; a name that has several rows of a kind stands once.
fn list(out: &mut String, reason: impl Fn(Kind) -> Option<&'static str>) {
    out.push_str("| directive | |\n| --- | --- |\n");
    let mut last = "";
    for row in rows() {
        if let Some(reason) = reason(row.kind).filter(|_| row.name != last) {
            let but = match (row.kind, row.harmless) {
                (Kind::Refused(_), value) if !value.is_empty() => {
                    format!(" (`{value}` is accepted)")
                }
                _ => String::new(),
            };
            let _ = writeln!(out, "| `{}` | {reason}{but} |", row.name);
            last = &row.name;
        }
    }
}
