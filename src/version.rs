//! Who we are: `-v`, `-V` and `-h`, in the shape that scripts and nginx's own tests read.

use std::fmt::Write;

use wssgate_proxy::exchange::NGINX_VERSION;

/// Where relative paths begin without `-p`.
pub(crate) const PREFIX: &str = wssgate_config::load::DEFAULT_PREFIX;
/// The configuration file without `-c`.
pub(crate) const CONF_PATH: &str = wssgate_config::load::DEFAULT_CONF;
/// The error log without `-e`.
pub(crate) const ERROR_LOG_PATH: &str = "/var/log/nginx/error.log";
/// The pid file when the configuration does not name one.
pub(crate) const PID_PATH: &str = "/run/nginx.pid";

/// How much to say; each says what the ones before it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Detail {
    /// `-v`.
    Version,
    /// `-h`.
    Help,
    /// `-V`.
    Configure,
}

/// nginx's modules that are on unless they are denied, and that we do not have.
const ABSENT: &[&str] = &[
    "http_browser_module",
    "http_fastcgi_module",
    "http_grpc_module",
    "http_gzip_module",
    "http_memcached_module",
    "http_scgi_module",
    "http_tunnel_module",
    "http_userid_module",
    "http_uwsgi_module",
];

/// nginx's modules that must be asked for, and that we have.
const PRESENT: &[&str] = &[
    "http_addition_module",
    "http_auth_jwt_module",
    "http_auth_request_module",
    "http_random_index_module",
    "http_realip_module",
    "http_secure_link_module",
    "http_ssl_module",
    "http_stub_status_module",
    "http_sub_module",
];

/// The text, with its line ends.
pub(crate) fn text(detail: Detail) -> String {
    let mut out =
        format!("nginx version: nginx/{NGINX_VERSION} (wssgate {})\n", env!("CARGO_PKG_VERSION"));
    match detail {
        Detail::Version => {}
        Detail::Help => help(&mut out),
        Detail::Configure => configure(&mut out),
    }
    out
}

fn help(out: &mut String) {
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "Usage: wssgate [-?hvVtTq] [-s signal] [-p prefix]
               [-e filename] [-c filename] [-g directives]
       wssgate COMMAND [OPTIONS]

Options:
  -?,-h         : this help
  -v            : show version and exit
  -V            : show version and configure options then exit
  -t            : test configuration and exit
  -T            : test configuration, dump it and exit
  -q            : suppress non-error messages during configuration testing
  -s signal     : send signal to a master process: stop, quit, reopen, reload
  -p prefix     : set prefix path (default: {PREFIX})
  -e filename   : set error log file (default: {ERROR_LOG_PATH})
  -c filename   : set configuration file (default: {CONF_PATH})
  -g directives : set global directives out of configuration file

Commands (see \"wssgate --help\"):
  proxy         : terminate TLS for a name and proxy to an app server,
                  without a configuration file
  demo          : run an app server behind two hops, with a page to try it
  fmt           : format configuration files
  acme          : show and import certificates obtained by ACME
  doctor        : examine a WebSocket from the client's side
  health        : ask a server whether it answers, for health checks
  completions   : print a shell completion script

"
    );
}

fn configure(out: &mut String) {
    out.push_str("built with rustls (TLS 1.2 and 1.3)\nTLS SNI support enabled\n");
    let _ = write!(
        out,
        "configure arguments: --prefix={PREFIX} --conf-path={CONF_PATH} \
         --error-log-path={ERROR_LOG_PATH} --pid-path={PID_PATH}"
    );
    for module in PRESENT {
        let _ = write!(out, " --with-{module}");
    }
    for module in ABSENT {
        let _ = write!(out, " --without-{module}");
    }
    out.push_str(" --without-http-cache\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_has_the_shape_that_scripts_read() {
        let text = text(Detail::Version);
        let rest = text.strip_prefix("nginx version: nginx/1.31.5 (wssgate ");
        assert!(rest.is_some_and(|rest| rest.ends_with(")\n")), "{text}");
    }

    #[test]
    fn what_is_absent_is_denied_and_foreign_libraries_are_not_named() {
        let text = text(Detail::Configure);
        assert!(
            text.contains(" --with-http_ssl_module ") && text.contains("TLS SNI support enabled")
        );
        assert!(
            text.contains(" --without-http_gzip_module ") && text.contains("--without-http-cache")
        );
        for word in ["OpenSSL", "LibreSSL", "BoringSSL", "AWS-LC"] {
            assert!(!text.contains(word), "tests of nginx expect a library's manners at {word}");
        }
    }

    #[test]
    fn lists_are_sorted() {
        assert!(ABSENT.is_sorted() && PRESENT.is_sorted());
    }
}
