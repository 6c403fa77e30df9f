//! Virtual servers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use wssgate_syntax::{Diagnostic, printable};

use crate::directives::server::ServerName;
use crate::draft::{Entry, Level};
use crate::model::{
    CertificateFiles, ConnectionSettings, Located, Locations, Server, ServerTls, TlsProtocols,
    VerifyClient,
};

use super::location::{Inherited, Place};
use super::{Resolver, Scope};

impl Resolver<'_, '_> {
    /// Takes in every `server` block.
    pub(crate) fn server_blocks(&mut self, http: &Level<'_>, scope: &Scope<'_, '_>) {
        let inherited = self.outermost_inheritance(scope);
        for entry in http.named("server") {
            if let Some(level) = &entry.level {
                let scope = scope.inner(level);
                let server = self.server(entry, level, &scope, &inherited);
                self.servers.push(server);
            }
        }
    }

    fn server(
        &mut self,
        entry: &Entry<'_>,
        level: &Level<'_>,
        scope: &Scope<'_, '_>,
        inherited: &Inherited,
    ) -> Server {
        let names = server_names(level);
        let span = entry.directive.head();
        let place = Place::server(span);
        let inherited = self.inheritance(scope, inherited, &place);
        let rewrite = self.rewrite_ops(scope, &inherited, &place);
        let mut locations = Locations::default();
        let mut named_locations = BTreeMap::new();
        self.nested(scope, &inherited, &place, &mut locations, Some(&mut named_locations));
        let location = self.location(scope, &inherited, &place, Locations::default(), Vec::new());
        Server {
            name: first_name(&names),
            names: names.iter().map(|name| name.text.clone()).collect(),
            span,
            rewrite,
            location,
            locations,
            named_locations,
            connection: connection_settings(scope),
            tls: self.server_tls(scope),
            tls_records: scope.one("tls_records"),
        }
    }

    fn server_tls(&mut self, scope: &Scope<'_, '_>) -> ServerTls {
        let chains: Vec<Located<PathBuf>> = scope.all("ssl_certificate");
        let mut keys: Vec<Located<PathBuf>> = scope.all("ssl_certificate_key");
        if keys.len() < chains.len() {
            let chain = &chains[chains.len() - 1];
            let path = printable(chain.value.as_os_str().as_encoded_bytes());
            let message =
                format!("no \"ssl_certificate_key\" is defined for certificate \"{path}\"");
            self.error(message, chain.span);
            // Said once is enough: elsewhere the server counts as one that has certificates.
            keys.extend_from_slice(&chains[keys.len()..]);
        }
        let protocols = scope.all::<TlsProtocols>("ssl_protocols");
        let tls = ServerTls {
            certificates: chains
                .into_iter()
                .zip(keys)
                .map(|(chain, key)| CertificateFiles { chain, key })
                .collect(),
            password_file: scope.maybe("ssl_password_file"),
            protocols: union(&protocols),
            ciphers: scope.one("ssl_ciphers"),
            prefer_server_ciphers: scope.one("ssl_prefer_server_ciphers"),
            ecdh_curves: scope.one("ssl_ecdh_curve"),
            dhparam: scope.maybe("ssl_dhparam"),
            session_cache: scope.one("ssl_session_cache"),
            session_timeout: scope.one("ssl_session_timeout"),
            session_tickets: scope.one("ssl_session_tickets"),
            ticket_keys: scope.all("ssl_session_ticket_key"),
            reject_handshake: scope.one("ssl_reject_handshake"),
            buffer_size: scope.count("ssl_buffer_size"),
            verify_client: scope.one("ssl_verify_client"),
            verify_depth: scope.small("ssl_verify_depth"),
            client_certificate: scope.maybe("ssl_client_certificate"),
            trusted_certificate: scope.maybe("ssl_trusted_certificate"),
            crl: scope.maybe("ssl_crl"),
        };
        self.check_client_verification(&tls, scope);
        tls
    }

    /// Who asks for certificates must say which CAs count; only servers that speak TLS are asked.
    fn check_client_verification(&mut self, tls: &ServerTls, scope: &Scope<'_, '_>) {
        let speaks = !tls.certificates.is_empty() || tls.reject_handshake;
        let verifies = matches!(tls.verify_client, VerifyClient::On | VerifyClient::Optional);
        let knows = tls.client_certificate.is_some() || tls.trusted_certificate.is_some();
        if speaks && verifies && !knows {
            let message =
                "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client";
            let mut problem = Diagnostic::error(message);
            let written = scope.nearest(&["ssl_verify_client"]);
            if let Some(entry) =
                written.and_then(|found| found.level.named("ssl_verify_client").next())
            {
                problem = problem.at(entry.directive.head(), "");
            }
            self.reading.report.push(problem);
        }
    }
}

/// Versions of several lines, taken together.
pub(crate) fn union(lines: &[TlsProtocols]) -> TlsProtocols {
    TlsProtocols {
        tls12: lines.iter().any(|line| line.tls12),
        tls13: lines.iter().any(|line| line.tls13),
    }
}

/// All names of a server, the empty one when it says none.
pub(crate) fn server_names(level: &Level<'_>) -> Vec<ServerName> {
    level.named("server_name").filter_map(Entry::value::<Vec<ServerName>>).flatten().collect()
}

/// `$server_name`: the first name; `.example.com` loses its dot.
fn first_name(names: &[ServerName]) -> Box<[u8]> {
    let first = names.first().map_or(&b""[..], |name| &name.text.value);
    first.strip_prefix(b".").unwrap_or(first).into()
}

fn connection_settings(scope: &Scope<'_, '_>) -> ConnectionSettings {
    ConnectionSettings {
        client_header_timeout: scope.one("client_header_timeout"),
        client_header_buffer_size: scope.count("client_header_buffer_size"),
        large_client_header_buffers: scope.one("large_client_header_buffers"),
        max_headers: scope.count("max_headers"),
        ignore_invalid_headers: scope.one("ignore_invalid_headers"),
        underscores_in_headers: scope.one("underscores_in_headers"),
        merge_slashes: scope.one("merge_slashes"),
    }
}
