//! Ours, which nginx does not know: how WebSockets are carried.

use wssgate_syntax::Directive;

use crate::directive::Arity::{Exactly, Flag};
use crate::directive::{HS, HSL, Row, Value, works};
use crate::model::TlsRecords;
use crate::read::{Reading, Reads, flag, one_of};

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works(
        "tls_records",
        HS,
        Exactly(1),
        "keys",
        "Who seals and opens the TLS records of tunnels: `keys` for our own small record layer, `rustls` for \
         rustls, which costs more memory and CPU.",
        tls_records,
    ),
    works(
        "websocket",
        HSL,
        Flag,
        "on",
        "Passes WebSocket upgrades to the upstream without any `proxy_set_header` line. Lines for `Upgrade` or \
         `Connection` are obeyed instead, with `off` as well.",
        flag,
    ),
];

fn tls_records(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    one_of(word, &[("keys", TlsRecords::Keys), ("rustls", TlsRecords::Rustls)]).map(Value::new)
}
