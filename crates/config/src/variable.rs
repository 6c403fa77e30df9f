//! What a `$name` can stand for.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::hosts::HostTable;
use crate::template::{Template, VariableId};
use crate::trust::RealIp;

/// Every variable that a configuration mentions, each in a slot of its own.
#[derive(Debug, Default)]
pub struct Variables {
    slots: Vec<Slot>,
    by_name: HashMap<Box<str>, VariableId>,
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
        self.by_name.get(name).copied()
    }

    /// Adds a slot; the caller has looked for the name with [`Variables::find`].
    pub fn add(&mut self, name: &str, meaning: Variable) -> VariableId {
        let id = u32::try_from(self.slots.len()).expect("fewer than 2^32 variables");
        let id = VariableId(id);
        self.slots.push(Slot { name: name.into(), meaning });
        self.by_name.insert(name.into(), id);
        id
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
    /// `$proxy_protocol_tlv_NAME`: a fact in the header of the PROXY protocol.
    ProxyProtocolTlv(ProxyProtocolTlv),
    /// `$jwt_claim_NAME`, and variables of `auth_jwt_claim_set`: the names from the outside in.
    JwtClaim(ClaimPath),
    /// `$jwt_header_NAME`, and variables of `auth_jwt_header_set`.
    JwtHeader(ClaimPath),
    /// `$websocket_protocol_NAME`: what a client says behind this name where it offers subprotocols.
    OfferedSubprotocol(Box<[u8]>),
    /// The result of a `map`, `geo` or `split_clients` block.
    Map(MapId),
    /// A variable of `set` or a named group of a regular expression; empty until set.
    Set,
    /// A variable of `auth_request_set`; none until set.
    SetLater,
}

impl Variable {
    /// The meaning of a name, in lower case, that the program itself knows.
    pub fn named(name: &str) -> Option<Self> {
        if let Some(builtin) = Builtin::named(name) {
            return Some(Self::Builtin(builtin));
        }
        if let Some(rest) = name.strip_prefix("proxy_protocol_tlv_") {
            return ProxyProtocolTlv::parse(rest).map(Self::ProxyProtocolTlv);
        }
        // As in nginx, nothing need stand behind the underscore; such a variable is always empty.
        let families: [(&str, Family); 11] = [
            ("websocket_protocol_", |rest| Self::OfferedSubprotocol(field_name(rest))),
            ("jwt_claim_", |rest| Self::JwtClaim([rest.as_bytes().into()].into())),
            ("jwt_header_", |rest| Self::JwtHeader([rest.as_bytes().into()].into())),
            ("upstream_trailer_", |rest| Self::UpstreamTrailer(field_name(rest))),
            ("upstream_cookie_", |rest| Self::UpstreamCookie(rest.as_bytes().into())),
            ("upstream_http_", |rest| Self::UpstreamHeader(field_name(rest))),
            ("sent_trailer_", |rest| Self::SentTrailer(field_name(rest))),
            ("sent_http_", |rest| Self::SentHeader(field_name(rest))),
            ("cookie_", |rest| Self::Cookie(rest.as_bytes().into())),
            ("http_", |rest| Self::RequestHeader(field_name(rest))),
            ("arg_", |rest| Self::Argument(rest.as_bytes().into())),
        ];
        let family = families.iter().find(|(prefix, _)| name.starts_with(prefix));
        family.map(|(prefix, variable)| variable(&name[prefix.len()..]))
    }
}

/// Where a value stands in a JSON object: names from the outside in.
pub type ClaimPath = Box<[Box<[u8]>]>;

/// From the rest of a name to its meaning.
type Family = fn(&str) -> Variable;

/// The field that a variable names: underscores stand for hyphens.
fn field_name(name: &str) -> Box<[u8]> {
    name.replace('_', "-").into_bytes().into()
}

/// A fact in a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocolTlv {
    /// The one of this type.
    OfType(u8),
    /// The one of this type among those about TLS.
    OfTls(u8),
    /// Whether the client's certificate was verified, as a number.
    TlsVerify,
}

impl ProxyProtocolTlv {
    /// Reads what stands behind `proxy_protocol_tlv_`: a name, or `0x` and a type, each with
    /// `ssl_` before it for those about TLS.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let number = |name: &str| {
            name.strip_prefix("0x").and_then(|digits| u8::from_str_radix(digits, 16).ok())
        };
        if let Some(name) = name.strip_prefix("ssl_") {
            let known = match name {
                "verify" => return Some(Self::TlsVerify),
                "version" => Some(0x21),
                "cn" => Some(0x22),
                "cipher" => Some(0x23),
                "sig_alg" => Some(0x24),
                "key_alg" => Some(0x25),
                _ => number(name),
            };
            return known.map(Self::OfTls);
        }
        let known = match name {
            "alpn" => Some(0x01),
            "authority" => Some(0x02),
            "unique_id" => Some(0x05),
            "ssl" => Some(0x20),
            "netns" => Some(0x30),
            _ => number(name),
        };
        known.map(Self::OfType)
    }
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
        /// `proxy` and `proxy_recursive`: an address of these is that of the client before it.
        proxies: Option<RealIp>,
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
    Args "args" "the query string; can be set",
    BinaryRemoteAddr "binary_remote_addr" "the client address, 4 or 16 bytes",
    BodyBytesSent "body_bytes_sent" "bytes sent to the client, without the response header",
    BytesSent "bytes_sent" "bytes sent to the client",
    Connection "connection" "the serial number of the connection",
    ConnectionRequests "connection_requests" "number of requests on the connection so far",
    ConnectionTime "connection_time" "seconds since the connection was accepted, with millisecond resolution",
    ConnectionsActive "connections_active" "current number of client connections",
    ConnectionsReading "connections_reading" "current number of connections whose request header is being read",
    ConnectionsWaiting "connections_waiting" "current number of idle keep-alive connections",
    ConnectionsWriting "connections_writing" "current number of connections with a request being processed",
    ContentLength "content_length" "the Content-Length request header",
    ContentType "content_type" "the Content-Type request header",
    DateGmt "date_gmt" "the current time in GMT, in the format of the SSI command `config`",
    DateLocal "date_local" "the current local time, in the format of the SSI command `config`",
    DocumentRoot "document_root" "the root or alias of the location",
    DocumentUri "document_uri" "the same as $uri",
    GzipRatio "gzip_ratio" "always empty: responses are passed on unchanged",
    Host "host" "the host of the request line, or else of the Host header, or else the server name",
    Hostname "hostname" "the host name of the machine",
    Http2 "http2" "h2 for HTTP/2 over TLS, h2c for HTTP/2 without TLS, otherwise empty",
    Http3 "http3" "h3 or empty",
    Https "https" "on with TLS, otherwise empty",
    InvalidReferer "invalid_referer" "1 if the Referer request header is not one of valid_referers, otherwise empty",
    IsArgs "is_args" "? if there is a query string, otherwise empty",
    IsRequestPort "is_request_port" ": if the request names a port, otherwise empty",
    JwtPayload "jwt_payload" "the claims of the auth_jwt token, as JSON",
    LimitConnStatus "limit_conn_status" "the result of limit_conn: PASSED, REJECTED or REJECTED_DRY_RUN",
    LimitRate "limit_rate" "the rate limit of the response; can be set",
    LimitReqStatus "limit_req_status" "the result of limit_req: PASSED, DELAYED, REJECTED, DELAYED_DRY_RUN or REJECTED_DRY_RUN",
    Msec "msec" "the current time in seconds, with millisecond resolution",
    NginxVersion "nginx_version" "the version of nginx that wssgate follows",
    Pid "pid" "the process ID",
    Pipe "pipe" "p for a pipelined request, otherwise .",
    ProxyAddXForwardedFor "proxy_add_x_forwarded_for" "the X-Forwarded-For request header with the client address appended",
    ProxyHost "proxy_host" "the host and port of the upstream server, as in proxy_pass",
    ProxyInternalBodyLength "proxy_internal_body_length" "always empty: only nginx's internal default headers use it",
    ProxyInternalChunked "proxy_internal_chunked" "always empty: only nginx's internal default headers use it",
    ProxyPort "proxy_port" "the port of the upstream server, as in proxy_pass",
    ProxyProtocolAddr "proxy_protocol_addr" "the client address in the PROXY protocol header",
    ProxyProtocolPort "proxy_protocol_port" "the client port in the PROXY protocol header",
    ProxyProtocolServerAddr "proxy_protocol_server_addr" "the server address in the PROXY protocol header",
    ProxyProtocolServerPort "proxy_protocol_server_port" "the server port in the PROXY protocol header",
    QueryString "query_string" "the same as $args",
    RealipRemoteAddr "realip_remote_addr" "the address of the connection, which $remote_addr was before set_real_ip_from applied",
    RealipRemotePort "realip_remote_port" "the port of the connection, which $remote_port was before set_real_ip_from applied",
    RealpathRoot "realpath_root" "$document_root with symbolic links resolved",
    RemoteAddr "remote_addr" "the client address",
    RemotePort "remote_port" "the client port",
    RemoteUser "remote_user" "the user name of Basic authentication",
    Request "request" "the request line",
    RequestBody "request_body" "the request body, if it was read into memory",
    RequestBodyFile "request_body_file" "the name of the temporary file with the request body",
    RequestCompletion "request_completion" "OK if the request was completed, otherwise empty",
    RequestFilename "request_filename" "the file path of the request, from root or alias and $uri",
    RequestId "request_id" "16 random bytes in hexadecimal",
    RequestLength "request_length" "length of the request in bytes: request line, header and body",
    RequestMethod "request_method" "the request method",
    RequestPort "request_port" "the port named in the request",
    RequestTime "request_time" "seconds since the first byte of the request, with millisecond resolution",
    RequestUri "request_uri" "the request URI as sent by the client, with the query string",
    Scheme "scheme" "http or https",
    SecureLink "secure_link" "the result of secure_link: the link or 1 if it is valid, 0 if it has expired, otherwise empty",
    SecureLinkExpires "secure_link_expires" "until when the link is valid, in seconds since 1970",
    ServerAddr "server_addr" "the address that accepted the connection",
    ServerName "server_name" "the first name of the server",
    ServerPort "server_port" "the port that accepted the connection",
    ServerProtocol "server_protocol" "HTTP/1.0 or HTTP/1.1",
    SslAlpnProtocol "ssl_alpn_protocol" "the protocol chosen by ALPN",
    SslCipher "ssl_cipher" "the cipher suite, by its OpenSSL name",
    SslCiphers "ssl_ciphers" "the cipher suites offered by the client",
    SslClientCert "ssl_client_cert" "the client certificate in PEM, each line but the first with a leading tab",
    SslClientEscapedCert "ssl_client_escaped_cert" "the client certificate in PEM, URL-encoded",
    SslClientFingerprint "ssl_client_fingerprint" "the SHA-1 fingerprint of the client certificate",
    SslClientIDn "ssl_client_i_dn" "the issuer of the client certificate",
    SslClientIDnLegacy "ssl_client_i_dn_legacy" "the issuer of the client certificate, in OpenSSL's legacy format",
    SslClientRawCert "ssl_client_raw_cert" "the client certificate in PEM",
    SslClientSDn "ssl_client_s_dn" "the subject of the client certificate",
    SslClientSDnLegacy "ssl_client_s_dn_legacy" "the subject of the client certificate, in OpenSSL's legacy format",
    SslClientSerial "ssl_client_serial" "the serial number of the client certificate",
    SslClientSigalg "ssl_client_sigalg" "always empty: the signature algorithms of handshakes are not kept",
    SslClientVEnd "ssl_client_v_end" "the end date of the client certificate",
    SslClientVRemain "ssl_client_v_remain" "days until the client certificate expires",
    SslClientVStart "ssl_client_v_start" "the start date of the client certificate",
    SslClientVerify "ssl_client_verify" "SUCCESS, FAILED:reason or NONE",
    SslCurve "ssl_curve" "the negotiated key exchange group",
    SslCurves "ssl_curves" "the key exchange groups offered by the client",
    SslEarlyData "ssl_early_data" "always empty: early data is never accepted",
    SslEchOuterServerName "ssl_ech_outer_server_name" "always empty: Encrypted Client Hello is not implemented",
    SslEchStatus "ssl_ech_status" "always empty: Encrypted Client Hello is not implemented",
    SslProtocol "ssl_protocol" "TLSv1.2 or TLSv1.3",
    SslServerName "ssl_server_name" "the server name (SNI) sent by the client",
    SslSessionId "ssl_session_id" "the identifier of the TLS session; in TLS 1.3 a random number of the connection",
    SslSessionReused "ssl_session_reused" "r for a resumed session, otherwise .",
    SslSigalg "ssl_sigalg" "always empty: the signature algorithms of handshakes are not kept",
    SslSigalgs "ssl_sigalgs" "always empty: the signature algorithms of handshakes are not kept",
    Status "status" "the response status",
    TcpinfoRcvSpace "tcpinfo_rcv_space" "receive space of the client connection in bytes; for tunnels as of the switch",
    TcpinfoRtt "tcpinfo_rtt" "round-trip time of the client connection in microseconds; for tunnels as of the switch",
    TcpinfoRttvar "tcpinfo_rttvar" "variation of the round-trip time of the client connection in microseconds; for tunnels as of the switch",
    TcpinfoSndCwnd "tcpinfo_snd_cwnd" "congestion window of the client connection in segments; for tunnels as of the switch",
    TimeIso8601 "time_iso8601" "local time in ISO 8601",
    TimeLocal "time_local" "local time in the Common Log Format",
    UidGot "uid_got" "always empty: `userid` is not supported",
    UidReset "uid_reset" "always empty: `userid` is not supported",
    UidSet "uid_set" "always empty: `userid` is not supported",
    UpstreamAddr "upstream_addr" "addresses of the upstream servers tried",
    UpstreamBytesReceived "upstream_bytes_received" "bytes received from each upstream server",
    UpstreamBytesSent "upstream_bytes_sent" "bytes sent to each upstream server",
    UpstreamCacheEtag "upstream_cache_etag" "always empty: there is no cache",
    UpstreamCacheLastModified "upstream_cache_last_modified" "always empty: there is no cache",
    UpstreamCacheStatus "upstream_cache_status" "always empty: there is no cache",
    UpstreamConnectTime "upstream_connect_time" "seconds spent connecting to each upstream server",
    UpstreamHeaderTime "upstream_header_time" "seconds until the response header of each upstream server was received",
    UpstreamLastAddr "upstream_last_addr" "address of the last upstream server tried",
    UpstreamResponseLength "upstream_response_length" "length of the response body of each upstream server, in bytes",
    UpstreamResponseTime "upstream_response_time" "seconds until the response of each upstream server was complete",
    UpstreamStatus "upstream_status" "response status of each upstream server",
    Uri "uri" "the current path, normalised; changes with rewrites",
    WebSocketClientBinaryBytes "websocket_client_binary_bytes" "payload bytes of the complete binary messages that the client has sent",
    WebSocketClientBinaryMessages "websocket_client_binary_messages" "complete binary messages that the client has sent",
    WebSocketClientBlockedTime "websocket_client_blocked_time" "seconds that bytes had to wait because the client did not read them, with millisecond resolution",
    WebSocketClientBytes "websocket_client_bytes" "bytes that the client has sent in the tunnel, frame headers included",
    WebSocketClientCloseCode "websocket_client_close_code" "the code of the Close that the client has sent; 1005 if there is none in it",
    WebSocketClientCloseReason "websocket_client_close_reason" "the reason in the Close that the client has sent",
    WebSocketClientFrames "websocket_client_frames" "complete frames that the client has sent",
    WebSocketClientLargestMessage "websocket_client_largest_message" "payload bytes of the longest complete message that the client has sent",
    WebSocketClientMessages "websocket_client_messages" "complete messages that the client has sent",
    WebSocketClientPayloadBytes "websocket_client_payload_bytes" "payload bytes of the complete messages that the client has sent, compressed if they are",
    WebSocketClientPings "websocket_client_pings" "pings that the client has sent",
    WebSocketClientPongs "websocket_client_pongs" "pongs that the client has sent, without those that answer the proxy's own pings",
    WebSocketClientRtt "websocket_client_rtt" "seconds that the client took to answer the last ping of the proxy, with millisecond resolution",
    WebSocketClientTextBytes "websocket_client_text_bytes" "payload bytes of the complete text messages that the client has sent",
    WebSocketClientTextMessages "websocket_client_text_messages" "complete text messages that the client has sent",
    WebSocketCloseCause "websocket_close_cause" "what ended the tunnel, in one word: see websocket-ends.md",
    WebSocketCloseCode "websocket_close_code" "the code of the first Close, whoever sent it",
    WebSocketCloseReason "websocket_close_reason" "the reason in the first Close",
    WebSocketClosedBy "websocket_closed_by" "who started ending the tunnel: client, upstream or proxy",
    WebSocketEvent "websocket_event" "what the log line is about: open, progress or close",
    WebSocketHandshakeTime "websocket_handshake_time" "seconds from the first byte of the request to the end of the 101, with millisecond resolution",
    WebSocketHops "websocket_hops" "the hops of websocket_trace behind this one, the nearest first",
    WebSocketLifetime "websocket_lifetime" "seconds since the tunnel began, with millisecond resolution",
    WebSocketProtocol "websocket_protocol" "the subprotocols offered to the upstream server, separated by a comma and a space; for use in a map, before one of them is chosen",
    WebSocketTrace "websocket_trace" "the identifier of websocket_trace",
    WebSocketUpstreamBinaryBytes "websocket_upstream_binary_bytes" "payload bytes of the complete binary messages that the upstream server has sent",
    WebSocketUpstreamBinaryMessages "websocket_upstream_binary_messages" "complete binary messages that the upstream server has sent",
    WebSocketUpstreamBlockedTime "websocket_upstream_blocked_time" "seconds that bytes had to wait because the upstream server did not read them, with millisecond resolution",
    WebSocketUpstreamBytes "websocket_upstream_bytes" "bytes that the upstream server has sent in the tunnel, frame headers included",
    WebSocketUpstreamCloseCode "websocket_upstream_close_code" "the code of the Close that the upstream server has sent; 1005 if there is none in it",
    WebSocketUpstreamCloseReason "websocket_upstream_close_reason" "the reason in the Close that the upstream server has sent",
    WebSocketUpstreamFrames "websocket_upstream_frames" "complete frames that the upstream server has sent",
    WebSocketUpstreamLargestMessage "websocket_upstream_largest_message" "payload bytes of the longest complete message that the upstream server has sent",
    WebSocketUpstreamMessages "websocket_upstream_messages" "complete messages that the upstream server has sent",
    WebSocketUpstreamPayloadBytes "websocket_upstream_payload_bytes" "payload bytes of the complete messages that the upstream server has sent, compressed if they are",
    WebSocketUpstreamPings "websocket_upstream_pings" "pings that the upstream server has sent",
    WebSocketUpstreamPongs "websocket_upstream_pongs" "pongs that the upstream server has sent, without those that answer the proxy's own pings",
    WebSocketUpstreamRtt "websocket_upstream_rtt" "seconds that the upstream server took to answer the last ping of the proxy, with millisecond resolution",
    WebSocketUpstreamTextBytes "websocket_upstream_text_bytes" "payload bytes of the complete text messages that the upstream server has sent",
    WebSocketUpstreamTextMessages "websocket_upstream_text_messages" "complete text messages that the upstream server has sent",
}

impl Builtin {
    /// The name without `$`.
    pub fn name(self) -> &'static str {
        // Both are made of one list.
        BUILTINS[self as usize].0
    }

    /// The one with this name, in lower case.
    pub fn named(name: &str) -> Option<Self> {
        let row = BUILTINS.binary_search_by_key(&name, |(name, ..)| *name).ok()?;
        Some(BUILTINS[row].1)
    }

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
        for (name, builtin, _) in BUILTINS {
            assert_eq!((builtin.name(), Builtin::named(name)), (*name, Some(*builtin)));
        }
    }

    #[test]
    fn facts_of_the_proxy_protocol_have_names_and_numbers() {
        use ProxyProtocolTlv::{OfTls, OfType, TlsVerify};
        for (name, expected) in [
            ("alpn", Some(OfType(1))),
            ("0x000ae", Some(OfType(0xae))),
            ("ssl", Some(OfType(0x20))),
            ("ssl_0x21", Some(OfTls(0x21))),
            ("ssl_cn", Some(OfTls(0x22))),
            ("ssl_verify", Some(TlsVerify)),
            ("0x100", None),
            ("0x", None),
            ("cn", None),
            ("", None),
        ] {
            assert_eq!(ProxyProtocolTlv::parse(name), expected, "{name}");
        }
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
