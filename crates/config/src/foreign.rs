//! Protocols towards upstreams that are not there, each a family of directives with a common prefix.
//!
//! The directive that passes requests is refused; the others are about what it would do, and have no effect without it.
//! What several families share is listed once.

use crate::directive::Arity::{AtLeast, Between, Exactly, Flag};
use crate::directive::{Arity, Contexts, H, HSL, L, LI, Row, S, idle, refused};

/// A protocol and its directives.
struct Family {
    /// What all names begin with, without the underscore.
    prefix: &'static str,
    /// Where the directive that passes requests may stand, and how many arguments it takes.
    pass: (Contexts, Arity),
    /// What to do instead of passing requests so.
    advice: &'static str,
    /// Why the others have no effect.
    reason: &'static str,
    /// The rest of their names, by lists that are shared with other families.
    suffixes: &'static [&'static [Suffix]],
}

/// What follows the prefix, where the directive may stand, and how many arguments it takes.
type Suffix = (&'static str, Contexts, Arity);

const FAMILIES: [Family; 6] = [
    Family {
        prefix: "fastcgi",
        pass: (L | LI, Exactly(1)),
        advice: "let PHP be run by a server that speaks HTTP (nginx or Apache on another port, FrankenPHP), and use \
                 `proxy_pass`",
        reason: "`fastcgi_pass` is not supported",
        suffixes: &[
            CONNECTION,
            SOCKET_BUFFERS,
            FIELDS,
            BODIES,
            &[
                ("cache_background_update", HSL, Flag),
                ("catch_stderr", HSL, Exactly(1)),
                ("index", HSL, Exactly(1)),
                ("keep_conn", HSL, Flag),
                ("send_lowat", HSL, Exactly(1)),
                ("split_path_info", HSL, Exactly(1)),
            ],
        ],
    },
    Family {
        prefix: "grpc",
        pass: (L | LI, Exactly(1)),
        advice: "gRPC needs HTTP/2, which is not implemented",
        reason: "`grpc_pass` is not supported",
        suffixes: &[CONNECTION, SOCKET_BUFFERS, FIELDS, TLS, &[("set_header", HSL, Exactly(2))]],
    },
    Family {
        prefix: "memcached",
        pass: (L | LI, Exactly(1)),
        advice: "access memcached from the app server",
        reason: "`memcached_pass` is not supported",
        suffixes: &[CONNECTION, &[("gzip_flag", HSL, Exactly(1))]],
    },
    Family {
        prefix: "scgi",
        pass: (L | LI, Exactly(1)),
        advice: "let the app be run by a server that speaks HTTP, and use `proxy_pass`",
        reason: "`scgi_pass` is not supported",
        suffixes: &[
            CONNECTION,
            SOCKET_BUFFERS,
            FIELDS,
            BODIES,
            &[("cache_background_update", HSL, Flag)],
        ],
    },
    Family {
        prefix: "tunnel",
        pass: (S | L | LI, Between(0, 1)),
        advice: "forward proxying with CONNECT is not implemented",
        reason: "`tunnel_pass` is not supported",
        suffixes: &[CONNECTION, SOCKET_BUFFERS, &[("send_lowat", HSL, Exactly(1))]],
    },
    Family {
        prefix: "uwsgi",
        pass: (L | LI, Exactly(1)),
        advice: "let uwsgi speak HTTP (`http-socket`) and use `proxy_pass`",
        reason: "`uwsgi_pass` is not supported",
        suffixes: &[
            CONNECTION,
            SOCKET_BUFFERS,
            FIELDS,
            BODIES,
            TLS,
            &[
                // The others call it a flag, nginx does not for this one.
                ("cache_background_update", HSL, Exactly(1)),
                ("modifier1", HSL, Exactly(1)),
                ("modifier2", HSL, Exactly(1)),
                ("string", HSL, Exactly(1)),
            ],
        ],
    },
];

/// How a peer is chosen, connected and waited for.
const CONNECTION: &[Suffix] = &[
    ("bind", HSL, Between(1, 2)),
    ("buffer_size", HSL, Exactly(1)),
    ("connect_timeout", HSL, Exactly(1)),
    ("next_upstream", HSL, AtLeast(1)),
    ("next_upstream_timeout", HSL, Exactly(1)),
    ("next_upstream_tries", HSL, Exactly(1)),
    ("read_timeout", HSL, Exactly(1)),
    ("send_timeout", HSL, Exactly(1)),
    ("socket_keepalive", HSL, Flag),
];

const SOCKET_BUFFERS: &[Suffix] =
    &[("socket_rcvbuf", HSL, Exactly(1)), ("socket_sndbuf", HSL, Exactly(1))];

/// What becomes of the fields of an answer.
const FIELDS: &[Suffix] = &[
    ("hide_header", HSL, Exactly(1)),
    ("ignore_headers", HSL, AtLeast(1)),
    ("intercept_errors", HSL, Flag),
    ("pass_header", HSL, Exactly(1)),
];

/// What is sent, and how answers are kept: in memory, in files, in a cache.
const BODIES: &[Suffix] = &[
    ("buffering", HSL, Flag),
    ("buffers", HSL, Exactly(2)),
    ("busy_buffers_size", HSL, Exactly(1)),
    ("cache", HSL, Exactly(1)),
    ("cache_bypass", HSL, AtLeast(1)),
    ("cache_key", HSL, Exactly(1)),
    ("cache_lock", HSL, Flag),
    ("cache_lock_age", HSL, Exactly(1)),
    ("cache_lock_timeout", HSL, Exactly(1)),
    ("cache_max_range_offset", HSL, Exactly(1)),
    ("cache_methods", HSL, AtLeast(1)),
    ("cache_min_uses", HSL, Exactly(1)),
    ("cache_path", H, AtLeast(2)),
    ("cache_revalidate", HSL, Flag),
    ("cache_use_stale", HSL, AtLeast(1)),
    ("cache_valid", HSL, AtLeast(1)),
    ("force_ranges", HSL, Flag),
    ("ignore_client_abort", HSL, Flag),
    ("limit_rate", HSL, Exactly(1)),
    ("max_temp_file_size", HSL, Exactly(1)),
    ("no_cache", HSL, AtLeast(1)),
    ("param", HSL, Between(2, 3)),
    ("pass_request_body", HSL, Flag),
    ("pass_request_headers", HSL, Flag),
    ("request_buffering", HSL, Flag),
    ("store", HSL, Exactly(1)),
    ("store_access", HSL, Between(1, 3)),
    ("temp_file_write_size", HSL, Exactly(1)),
    ("temp_path", HSL, Between(1, 4)),
];

const TLS: &[Suffix] = &[
    ("ssl_certificate", HSL, Exactly(1)),
    ("ssl_certificate_cache", HSL, Between(1, 3)),
    ("ssl_certificate_key", HSL, Exactly(1)),
    ("ssl_ciphers", HSL, Exactly(1)),
    ("ssl_conf_command", HSL, Exactly(2)),
    ("ssl_crl", HSL, Exactly(1)),
    ("ssl_name", HSL, Exactly(1)),
    ("ssl_password_file", HSL, Exactly(1)),
    ("ssl_protocols", HSL, AtLeast(1)),
    ("ssl_server_name", HSL, Flag),
    ("ssl_session_reuse", HSL, Flag),
    ("ssl_trusted_certificate", HSL, Exactly(1)),
    ("ssl_verify", HSL, Flag),
    ("ssl_verify_depth", HSL, Exactly(1)),
];

/// The rows of all families.
pub(crate) fn rows() -> impl Iterator<Item = Row> {
    FAMILIES.into_iter().flat_map(|family| {
        let name = move |suffix: &str| format!("{}_{suffix}", family.prefix);
        let (contexts, arity) = family.pass;
        let pass = refused(name("pass"), contexts, arity, family.advice);
        let others = family.suffixes.iter().copied().flatten();
        let others = others.map(move |(suffix, contexts, arity)| {
            idle(name(suffix), *contexts, *arity, family.reason)
        });
        std::iter::once(pass).chain(others)
    })
}
