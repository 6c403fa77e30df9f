//! Directives and variables of well-known modules that are not part of nginx itself.
//!
//! To nginx without the module they are unknown, as they are to us. But a name that only looks alike is no help for
//! them: what helps is to know what the module does and what does the same here.

/// What takes the place of nginx's browser module.
pub(crate) const USER_AGENT: &str = "match `$http_user_agent` in a `map`";

/// A module, or a family of modules that are answered alike.
struct Module {
    /// What it is called, with its article.
    name: &'static str,
    /// What its directives are called, or begin with where the text ends with `*`; `*` before a text stands for what
    /// they end with.
    directives: &'static [&'static str],
    /// What to do instead.
    instead: &'static str,
}

const SCRIPTS: &str =
    "decide with `map` and `if`, ask a server with `auth_request`, or let the app server do it";
const WAF: &str = "put the firewall in front of wssgate, or into the app server";
const METRICS: &str = "`prometheus` has metrics, `log_format` everything about requests";
const LDAP: &str = "ask an authentication server with `auth_request`";
const HEALTH: &str = "use `health_check` in the location that passes requests to the group";

const MODULES: &[Module] = &[
    Module {
        name: "the headers-more module",
        directives: &["more_*"],
        instead: "use `add_header NAME VALUE always`, `proxy_hide_header` or `proxy_set_header`",
    },
    Module {
        name: "the Lua module (OpenResty)",
        directives: &["*_by_lua", "*_by_lua_block", "*_by_lua_file", "lua_*"],
        instead: SCRIPTS,
    },
    Module { name: "the njs module", directives: &["js_*"], instead: SCRIPTS },
    Module {
        name: "the brotli module",
        directives: &["brotli", "brotli_*"],
        instead: "leave it out; clients that know brotli accept responses without it",
    },
    Module {
        name: "the zstd module",
        directives: &["zstd", "zstd_*"],
        instead: "leave it out; clients that know zstd accept responses without it",
    },
    Module {
        name: "the vts module",
        directives: &["vhost_traffic_status", "vhost_traffic_status_*"],
        instead: METRICS,
    },
    Module {
        name: "the sts module",
        directives: &[
            "server_traffic_status",
            "server_traffic_status_*",
            "stream_server_traffic_*",
        ],
        instead: METRICS,
    },
    Module {
        name: "the geoip2 module",
        directives: &["geoip2", "geoip2_*"],
        instead: "list the networks in a `geo` block, or take the country from a header of the CDN",
    },
    Module {
        name: "the ModSecurity module",
        directives: &["modsecurity", "modsecurity_*"],
        instead: WAF,
    },
    Module {
        name: "the naxsi module",
        directives: &[
            "BasicRule",
            "CheckRule",
            "DeniedUrl",
            "LearningMode",
            "MainRule",
            "SecRulesDisabled",
            "SecRulesEnabled",
        ],
        instead: WAF,
    },
    Module { name: "NGINX App Protect", directives: &["app_protect_*"], instead: WAF },
    Module {
        name: "the PageSpeed module",
        directives: &["pagespeed", "pagespeed_*"],
        instead: "leave it out; build pages the way they are to be sent",
    },
    Module {
        name: "the upload module",
        directives: &["report_uploads", "track_uploads", "upload_*"],
        instead: "let the app server take uploads; `client_max_body_size` sets how large they may be",
    },
    Module {
        name: "the echo module",
        directives: &["echo", "echo_*"],
        instead: "use `return 200 TEXT`",
    },
    Module {
        name: "the set-misc module",
        directives: &[
            "set_base32_alphabet",
            "set_decode_*",
            "set_encode_*",
            "set_escape_uri",
            "set_formatted_*",
            "set_hashed_upstream",
            "set_hmac_*",
            "set_if_empty",
            "set_local_today",
            "set_md5",
            "set_misc_*",
            "set_quote_*",
            "set_random",
            "set_rotate",
            "set_secure_random_*",
            "set_sha1",
            "set_unescape_uri",
        ],
        instead: "use `set` and `map`, or let the app server do it",
    },
    Module {
        name: "the redis, memc or srcache module",
        directives: &["memc_*", "redis2_*", "redis_*", "srcache_*"],
        instead: "access the cache from the app server",
    },
    Module {
        name: "modules for databases",
        directives: &["drizzle_*", "postgres_*", "rds_*"],
        instead: "access the database from the app server",
    },
    Module {
        name: "the rtmp module",
        directives: &["rtmp", "rtmp_*"],
        instead: "keep a media server for RTMP; wssgate is for HTTP and WebSockets",
    },
    Module {
        name: "the fair module",
        directives: &["fair", "upstream_fair_shm_size"],
        instead: "use `least_conn`",
    },
    Module {
        name: "the session sticky module (Tengine)",
        directives: &["session_sticky", "session_sticky_*"],
        instead: "use `sticky cookie NAME`, for example `sticky cookie route`",
    },
    Module {
        name: "the jvm-route module",
        directives: &["jvm_route", "jvm_route_*"],
        instead: "use `sticky route $route`, with `route=` for each server and a `map` that takes `$route` from what follows the dot in `$cookie_jsessionid`",
    },
    Module {
        name: "the consistent hash module",
        directives: &["consistent_hash"],
        instead: "use `hash KEY consistent`",
    },
    Module {
        name: "the AJP module",
        directives: &["ajp_*"],
        instead: "let the servlet container speak HTTP, and use `proxy_pass`",
    },
    Module {
        name: "the tcp proxy module",
        directives: &["proxy_websocket", "websocket_buffer", "websocket_pass"],
        instead: "use `proxy_pass`; it passes WebSockets as well",
    },
    Module {
        name: "the cookie flag module",
        directives: &["set_cookie_flag"],
        instead: "use `proxy_cookie_flags`",
    },
    Module {
        name: "the security headers module",
        directives: &["hide_server_tokens", "security_headers", "security_headers_*"],
        instead: "use `add_header NAME VALUE always` and `server_tokens off`",
    },
    Module {
        name: "the iconv module",
        directives: &["iconv_*", "set_iconv"],
        instead: "use `charset` with a `charset_map`",
    },
    Module {
        name: "modules for dynamic limits",
        directives: &["dynamic_limit_req*", "limit_traffic_rate*"],
        instead: "use `limit_req`, `limit_conn` and `limit_rate`",
    },
    Module {
        name: "the concat or trim module (Tengine)",
        directives: &["concat", "concat_*", "footer", "footer_types", "trim", "trim_*"],
        instead: "leave it out; build pages the way they are to be sent",
    },
    Module {
        name: "the SPDY module",
        directives: &["spdy_*"],
        instead: "leave it out; no browser speaks SPDY any more",
    },
    Module {
        name: "a patch or module for TLS",
        directives: &["ssl_ct", "ssl_ct_*", "ssl_dyn_rec_*"],
        instead: "leave it out; connections work without",
    },
    Module {
        name: "the nchan module",
        directives: &["nchan_*", "push_*"],
        instead: "let the app server keep the subscribers, and pass their WebSockets with `proxy_pass`",
    },
    Module {
        name: "Phusion Passenger",
        directives: &["passenger_*", "rails_*"],
        instead: "start the app by itself (`passenger start`) and use `proxy_pass`",
    },
    Module {
        name: "the fancyindex module",
        directives: &["fancyindex", "fancyindex_*"],
        instead: "use `autoindex` or an `index` file",
    },
    Module {
        name: "the dav-ext module",
        directives: &["dav_ext_*"],
        instead: "use a WebDAV server with `proxy_pass`",
    },
    Module {
        name: "the cache purge module",
        directives: &[
            "proxy_cache_purge",
            "fastcgi_cache_purge",
            "scgi_cache_purge",
            "uwsgi_cache_purge",
        ],
        instead: "leave it out; responses are not cached",
    },
    Module {
        name: "modules for LDAP, PAM, Kerberos or digest authentication",
        directives: &[
            "auth_digest*",
            "auth_gss*",
            "auth_ldap*",
            "auth_pam*",
            "ldap_server",
            "shib_request*",
        ],
        instead: LDAP,
    },
    Module { name: "NGINX Plus", directives: &["auth_oidc*", "oidc_provider"], instead: LDAP },
    Module {
        name: "the upstream check module",
        directives: &["check", "check_*"],
        instead: HEALTH,
    },
    Module {
        name: "NGINX Plus",
        directives: &[
            "api",
            "f4f*",
            "hls",
            "hls_*",
            "internal_redirect",
            "keyval",
            "keyval_zone",
            "mgmt",
            "ntlm",
            "session_log",
            "session_log_*",
            "state",
            "status",
            "status_format",
            "zone_sync*",
        ],
        instead: "leave it out, or let the app server do it",
    },
    Module {
        name: "modules for OpenTelemetry or OpenTracing",
        directives: &["opentelemetry*", "opentracing*", "otel_*", "zipkin_*"],
        instead: "pass `$request_id` to the app server with `proxy_set_header`, and let it trace",
    },
    Module {
        name: "modules for dynamic upstreams",
        directives: &["consul*", "dyups_*", "dynamic_resolve", "jdomain", "upsync*"],
        instead: "write the servers into the configuration and reload; a reload ends no connection",
    },
    Module {
        name: "the substitutions module",
        directives: &["replace_filter*", "subs_filter*"],
        instead: "use `sub_filter`, or let the app server do it",
    },
    Module {
        name: "the proxy-connect module",
        directives: &[
            "proxy_connect",
            "proxy_connect_address",
            "proxy_connect_allow",
            "proxy_connect_bind",
            "proxy_connect_data_timeout",
            "proxy_connect_response",
        ],
        instead: "use a forward proxy; wssgate passes requests to the servers of its configuration only",
    },
    Module {
        name: "the testcookie module",
        directives: &["testcookie*"],
        instead: "slow clients down with `limit_req` and `limit_conn`",
    },
    Module {
        name: "the form-input, array-var or encrypted-session module",
        directives: &[
            "array_*",
            "encrypted_session_*",
            "set_decrypt_session",
            "set_encrypt_session",
            "set_form_input*",
        ],
        instead: "let the app server do it",
    },
];

/// For a directive of a module that is not here: the module, and what to do instead.
pub(crate) fn module_of(name: &[u8]) -> Option<(&'static str, &'static str)> {
    let of = |module: &&Module| module.directives.iter().any(|pattern| is_called(name, pattern));
    MODULES.iter().find(of).map(|module| (module.name, module.instead))
}

/// What to write for a directive that another module takes with other arguments.
pub(crate) fn other_syntax(name: &str) -> Option<&'static str> {
    (name == "sticky").then_some(
        "for `sticky` of the sticky module write `sticky cookie NAME`, for example `sticky cookie route`",
    )
}

/// Whether a name is what a pattern says, where `*` stands for anything.
fn is_called(name: &[u8], pattern: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => name.ends_with(end.as_bytes()),
        (_, Some(start)) => name.starts_with(start.as_bytes()),
        _ => name == pattern.as_bytes(),
    }
}

/// Variables that other modules have, and what to do instead.
const VARIABLES: &[(&str, &str)] = &[
    (
        "connection_upgrade",
        "define it in `http`: `map $http_upgrade $connection_upgrade { default upgrade; '' close; }`; without lines for \
         \"Upgrade\" and \"Connection\", WebSockets are passed as well",
    ),
    (
        "acme_certificate*",
        "it can only be the whole value of `ssl_certificate` or `ssl_certificate_key`",
    ),
    ("ancient_browser", USER_AGENT),
    ("modern_browser", USER_AGENT),
    ("msie", USER_AGENT),
    ("fastcgi_*", "FastCGI is not supported, and neither are its variables"),
    ("memcached_key", "memcached is not supported, and neither is its variable"),
    ("slice_range", "`slice` is not supported, and neither is its variable"),
    ("brotli_ratio", "the brotli module is not in wssgate; take it out of the log format"),
    ("geoip_*", "the geoip module is not in wssgate; list the networks in a `geo` block"),
    ("geoip2_*", "define it in a `geo` block, or take it from a header of the CDN"),
    ("spdy*", "SPDY is no more; take it out"),
    ("otel_*", "the OpenTelemetry module is not in wssgate; `$request_id` tells requests apart"),
    (
        "opentracing_*",
        "the OpenTracing module is not in wssgate; `$request_id` tells requests apart",
    ),
    ("upload_*", "the upload module is not in wssgate"),
    ("session_log_*", "this is a variable of NGINX Plus"),
    ("zstd_ratio", "the zstd module is not in wssgate; take it out of the log format"),
];

/// What to do about a variable that nothing defines.
pub(crate) fn variable_advice(name: &str) -> Option<&'static str> {
    let found = VARIABLES.iter().find(|(pattern, _)| is_called(name.as_bytes(), pattern));
    found.map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::rows;

    #[test]
    fn a_module_has_no_directive_that_is_here() {
        for row in rows() {
            let module = module_of(row.name.as_bytes());
            assert!(module.is_none(), "{} is here and of {module:?}", row.name);
        }
    }

    #[test]
    fn a_variable_that_is_here_needs_no_advice() {
        for (name, ..) in crate::variable::BUILTINS {
            assert!(variable_advice(name).is_none(), "{name}");
        }
    }

    #[test]
    fn directives_are_known_by_their_whole_name_or_a_part() {
        for (name, expected) in [
            ("more_set_headers", Some("the headers-more module")),
            ("content_by_lua_block", Some("the Lua module (OpenResty)")),
            ("brotli", Some("the brotli module")),
            ("brotli_types", Some("the brotli module")),
            ("echo", Some("the echo module")),
            ("echoes", None),
            ("check", Some("the upstream check module")),
            ("proxy_pas", None),
        ] {
            assert_eq!(module_of(name.as_bytes()).map(|(module, _)| module), expected, "{name}");
        }
    }
}
