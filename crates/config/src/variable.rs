//! What a `$name` can stand for.

use std::net::IpAddr;

use crate::hosts::HostTable;
use crate::template::{Template, VariableId};

/// Every variable that a configuration mentions, each in a slot of its own.
#[derive(Debug, Default)]
pub struct Variables {
    slots: Vec<Slot>,
}

/// One variable: its name as written (lower case) and its meaning.
#[derive(Debug)]
pub struct Slot {
    /// The name without `$`.
    pub name: Box<str>,
    /// What gives the value.
    pub meaning: Variable,
}

impl Variables {
    /// The number of slots; slots are numbered from 0.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no variable is used at all.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The slot of `id`.
    ///
    /// # Panics
    /// When `id` belongs to another table.
    pub fn slot(&self, id: VariableId) -> &Slot {
        &self.slots[id.0 as usize]
    }

    /// The slot that has this name.
    pub fn find(&self, name: &str) -> Option<VariableId> {
        let index = self.slots.iter().position(|slot| &*slot.name == name)?;
        u32::try_from(index).ok().map(VariableId)
    }

    /// Adds a slot; the caller has looked for the name with [`Variables::find`].
    pub fn add(&mut self, name: &str, meaning: Variable) -> VariableId {
        let id = u32::try_from(self.slots.len()).expect("fewer than 2^32 variables");
        self.slots.push(Slot { name: name.into(), meaning });
        VariableId(id)
    }

    /// Gives a slot another meaning (a name used before the `map` or `set` that defines it).
    pub fn define(&mut self, id: VariableId, meaning: Variable) {
        self.slots[id.0 as usize].meaning = meaning;
    }
}

/// What gives a variable its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// A fixed name of the program.
    Builtin(Builtin),
    /// `$arg_NAME`: an argument of the query string, compared without case.
    Argument(Box<[u8]>),
    /// `$http_NAME`: a request field; the field name in lower case, `-` for `_`.
    RequestHeader(Box<[u8]>),
    /// `$sent_http_NAME`: a field of our response.
    SentHeader(Box<[u8]>),
    /// `$sent_trailer_NAME`.
    SentTrailer(Box<[u8]>),
    /// `$cookie_NAME`.
    Cookie(Box<[u8]>),
    /// `$upstream_http_NAME`.
    UpstreamHeader(Box<[u8]>),
    /// `$upstream_trailer_NAME`.
    UpstreamTrailer(Box<[u8]>),
    /// `$upstream_cookie_NAME`.
    UpstreamCookie(Box<[u8]>),
    /// The result of a `map`, `geo` or `split_clients` block.
    Map(MapId),
    /// A variable of `set` or a named group of a regular expression; empty until set.
    Set,
    /// A variable of `auth_request_set`; none until set.
    SetLater,
}

/// Index into [`Http::maps`](crate::model::Http::maps).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapId(pub usize);

/// A `map` block (also what `geo` and `split_clients` become).
#[derive(Debug)]
pub struct Map {
    /// How the value is found.
    pub kind: MapKind,
    /// `volatile`: not cached during a request.
    pub volatile: bool,
}

/// The kinds of [`Map`].
#[derive(Debug)]
pub enum MapKind {
    /// `map SOURCE $name { … }`.
    Map {
        /// What is looked up.
        source: Template,
        /// Whether keys are host names: a final dot of the source is ignored, wildcards work.
        hostnames: bool,
        /// Keys; regular expressions in the order of the file.
        table: HostTable<Template>,
        /// `default`; empty when not given.
        default: Template,
    },
    /// `split_clients SOURCE $name { … }`: upper bounds of a 32-bit hash, in order.
    SplitClients {
        /// What is hashed (MurmurHash2).
        source: Template,
        /// Bound and value; the last bound is `u32::MAX` when `*` was given.
        parts: Vec<(u32, Template)>,
    },
    /// `geo [SOURCE] $name { … }`: networks to values, the longest prefix wins.
    Geo {
        /// The address; `$remote_addr` when not given.
        source: Template,
        /// Networks.
        networks: Vec<(IpAddr, u8, Box<[u8]>)>,
        /// `default`.
        default: Box<[u8]>,
    },
}

macro_rules! builtins {
    ($($variant:ident $name:literal $doc:literal,)*) => {
        /// The variables with a fixed name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Builtin {
            $(#[doc = concat!("`$", $name, "`: ", $doc)] $variant,)*
        }

        /// Name, meaning and one line of documentation of each fixed variable, sorted by name.
        pub const BUILTINS: &[(&str, Builtin, &str)] = &[$(($name, Builtin::$variant, $doc),)*];
    };
}

builtins! {
    Args "args" "the query string; may be set",
    BinaryRemoteAddr "binary_remote_addr" "the client address, 4 or 16 bytes",
    BodyBytesSent "body_bytes_sent" "bytes sent to the client without the response head",
    BytesSent "bytes_sent" "bytes sent to the client",
    Connection "connection" "the serial number of the connection",
    ConnectionRequests "connection_requests" "requests made on this connection so far",
    ConnectionTime "connection_time" "seconds since the connection was accepted, with milliseconds",
    ConnectionsActive "connections_active" "client connections",
    ConnectionsReading "connections_reading" "connections whose request head is being read",
    ConnectionsWaiting "connections_waiting" "idle keep-alive connections",
    ConnectionsWriting "connections_writing" "connections with a request in work",
    ContentLength "content_length" "the Content-Length of the request",
    ContentType "content_type" "the Content-Type of the request",
    DocumentRoot "document_root" "the root or alias of the location",
    DocumentUri "document_uri" "the same as $uri",
    Host "host" "the host of the request line, else of Host, else the server name",
    Hostname "hostname" "the name of this machine",
    Http2 "http2" "h2 for HTTP/2 over TLS, h2c for plain, else empty",
    Http3 "http3" "h3 or empty",
    Https "https" "on for TLS, else empty",
    IsArgs "is_args" "? when there is a query string, else empty",
    IsRequestPort "is_request_port" ": when the request names a port, else empty",
    LimitRate "limit_rate" "the rate limit of the response; may be set",
    Msec "msec" "the time in seconds, with milliseconds",
    NginxVersion "nginx_version" "the nginx version whose behaviour is followed",
    Pid "pid" "the process number",
    Pipe "pipe" "p for a pipelined request, else .",
    ProxyAddXForwardedFor "proxy_add_x_forwarded_for" "X-Forwarded-For with the client address appended",
    ProxyHost "proxy_host" "name and port of the upstream as proxy_pass says it",
    ProxyPort "proxy_port" "port of the upstream as proxy_pass says it",
    QueryString "query_string" "the same as $args",
    RealpathRoot "realpath_root" "$document_root with symbolic links resolved",
    RemoteAddr "remote_addr" "the client address",
    RemotePort "remote_port" "the client port",
    RemoteUser "remote_user" "the user name of Basic authentication",
    Request "request" "the request line",
    RequestBody "request_body" "the request body, when it was read into memory",
    RequestBodyFile "request_body_file" "the temporary file of the request body",
    RequestCompletion "request_completion" "OK when the request was answered whole, else empty",
    RequestFilename "request_filename" "the file for this request: root or alias and $uri",
    RequestId "request_id" "16 random bytes in hexadecimal",
    RequestLength "request_length" "bytes of the request: line, head and body",
    RequestMethod "request_method" "the method",
    RequestPort "request_port" "the port that the request names",
    RequestTime "request_time" "seconds since the first byte of the request, with milliseconds",
    RequestUri "request_uri" "the request target as sent",
    Scheme "scheme" "http or https",
    ServerAddr "server_addr" "the address that accepted the connection",
    ServerName "server_name" "the first name of the server",
    ServerPort "server_port" "the port that accepted the connection",
    ServerProtocol "server_protocol" "HTTP/1.0 or HTTP/1.1",
    SslAlpnProtocol "ssl_alpn_protocol" "the protocol chosen by ALPN",
    SslCipher "ssl_cipher" "the cipher suite, in OpenSSL's words",
    SslCiphers "ssl_ciphers" "the cipher suites that the client offers",
    SslClientCert "ssl_client_cert" "the client certificate in PEM, lines indented by a tab",
    SslClientEscapedCert "ssl_client_escaped_cert" "the client certificate in PEM, URL-encoded",
    SslClientFingerprint "ssl_client_fingerprint" "SHA-1 of the client certificate",
    SslClientIDn "ssl_client_i_dn" "issuer of the client certificate",
    SslClientIDnLegacy "ssl_client_i_dn_legacy" "issuer of the client certificate, in OpenSSL's old form",
    SslClientRawCert "ssl_client_raw_cert" "the client certificate in PEM",
    SslClientSDn "ssl_client_s_dn" "subject of the client certificate",
    SslClientSDnLegacy "ssl_client_s_dn_legacy" "subject of the client certificate, in OpenSSL's old form",
    SslClientSerial "ssl_client_serial" "serial number of the client certificate",
    SslClientVEnd "ssl_client_v_end" "end of the client certificate's validity",
    SslClientVRemain "ssl_client_v_remain" "days until the client certificate expires",
    SslClientVStart "ssl_client_v_start" "start of the client certificate's validity",
    SslClientVerify "ssl_client_verify" "SUCCESS, FAILED:reason or NONE",
    SslCurve "ssl_curve" "the key exchange group in use",
    SslCurves "ssl_curves" "the groups that the client offers",
    SslEarlyData "ssl_early_data" "always empty: early data is never accepted",
    SslProtocol "ssl_protocol" "TLSv1.2 or TLSv1.3",
    SslServerName "ssl_server_name" "the server name of the ClientHello",
    SslSessionId "ssl_session_id" "always empty: sessions have no identifier that we are told",
    SslSessionReused "ssl_session_reused" "r for a resumed session, else .",
    Status "status" "the response status",
    TcpinfoRcvSpace "tcpinfo_rcv_space" "receive space of the client's TCP connection in bytes; a tunnel's line has it as it was at the switch",
    TcpinfoRtt "tcpinfo_rtt" "round-trip time of the client's TCP connection in microseconds; a tunnel's line has it as it was at the switch",
    TcpinfoRttvar "tcpinfo_rttvar" "variation of the round-trip time in microseconds; a tunnel's line has it as it was at the switch",
    TcpinfoSndCwnd "tcpinfo_snd_cwnd" "congestion window of the client's TCP connection in segments; a tunnel's line has it as it was at the switch",
    TimeIso8601 "time_iso8601" "local time in ISO 8601",
    TimeLocal "time_local" "local time in the Common Log Format",
    UpstreamAddr "upstream_addr" "addresses of the peers tried",
    UpstreamBytesReceived "upstream_bytes_received" "bytes received from each peer",
    UpstreamBytesSent "upstream_bytes_sent" "bytes sent to each peer",
    UpstreamCacheStatus "upstream_cache_status" "always empty: there is no cache",
    UpstreamConnectTime "upstream_connect_time" "seconds until each peer was connected",
    UpstreamHeaderTime "upstream_header_time" "seconds until each peer's head had arrived",
    UpstreamLastAddr "upstream_last_addr" "address of the last peer tried",
    UpstreamResponseLength "upstream_response_length" "body bytes received from each peer",
    UpstreamResponseTime "upstream_response_time" "seconds until each peer's answer was complete",
    UpstreamStatus "upstream_status" "status of each peer's answer",
    Uri "uri" "the normalised path; changes with rewrites",
}

impl Builtin {
    /// Why the variable is known but never has a value.
    pub fn always_empty(self) -> Option<&'static str> {
        let row = BUILTINS.iter().find(|(_, builtin, _)| *builtin == self);
        row.and_then(|(_, _, doc)| doc.strip_prefix("always empty: "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtins_are_sorted_and_unique() {
        assert!(BUILTINS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn a_slot_is_found_by_its_name() {
        let mut variables = Variables::default();
        let host = variables.add("host", Variable::Builtin(Builtin::Host));
        assert_eq!(variables.find("host"), Some(host));
        assert_eq!(variables.find("uri"), None);
        variables.define(host, Variable::Set);
        assert_eq!(variables.slot(host).meaning, Variable::Set);
    }
}
