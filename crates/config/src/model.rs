//! The configuration as the engine uses it: complete, typed, plain data.
//!
//! Everything that nginx merges from level to level is merged here already: a [`Location`] holds
//! every setting that applies inside it. Blocks refer to each other by number, so that the whole
//! is one value that threads can share.

pub use crate::access::{AccessFrom, AccessRule, Satisfy};
pub use crate::acme::dns::{AcmeDns, AcmeDnsHook, AcmeDnsUpdate};
pub use crate::acme::issuer::{
    AcmeChallenge, AcmeExternalAccount, AcmeExternalKey, AcmeIssuer, AcmeIssuerId,
};
pub use crate::acme::names::AcmeIdentifier;
pub use crate::acme::{Acme, AcmeCertificate, AcmeCertificateId, AcmeKey};
pub use crate::advice_kind::Advice;
pub use crate::auth_basic::AuthBasic;
pub use crate::auth_jwt::{AuthJwt, JwtKeys, JwtRequire};
pub use crate::auth_request::AuthRequest;
pub use crate::buffering::Buffering;
pub use crate::client_body::BodyInFile;
pub use crate::core::{Admin, Core, EventMethod, User};
pub use crate::error_page::{ErrorPage, ErrorPageStatus};
pub use crate::files::{MimeTypes, Root, TryFallback, TryFile, TryFiles};
pub use crate::filters::Filters;
pub use crate::filters::addition::Additions;
pub use crate::filters::charset::{Charset, CharsetMap};
pub use crate::filters::ssi::Ssi;
pub use crate::filters::sub::Substitutions;
pub use crate::filters::types::TypeSet;
pub use crate::handshake_rates::{HandshakeRate, HandshakeRateId};
pub use crate::headers::{AddHeader, Expires};
pub use crate::health_check::matching::Match;
pub use crate::health_check::{CheckKind, HealthCheck};
pub use crate::http::Http;
pub use crate::kept_connections::{KeepaliveDisable, LingeringClose};
pub use crate::limits::connections::{ConnectionLimit, LimitConnections};
pub use crate::limits::requests::{LimitRequests, RequestLimit};
pub use crate::limits::websockets::TunnelLimit;
pub use crate::listen::{AddressRoute, KeepaliveOption, ListenOptions, ListenSocket};
pub use crate::listing::{Autoindex, ListingFormat};
pub use crate::location::{Content, Dashboard, Location, LocationId, Locations};
pub use crate::log::access::{AccessLog, AccessLogTarget, LogFileCache};
pub use crate::log::syslog::Syslog;
pub use crate::log::websocket::WebSocketLog;
pub use crate::log::{ErrorLog, LogEscape, LogFormat, LogFormatId, LogLevel, LogTarget};
pub use crate::name_servers::{Resolver, ResolverId};
pub use crate::position::LocationKind;
pub use crate::proxy::cookies::{CookieFlags, CookieRewrite};
pub use crate::proxy::next_upstream::NextUpstream;
pub use crate::proxy::pass::{FixedPass, ProxyPass};
pub use crate::proxy::redirect::{Pattern, ProxyRedirect};
pub use crate::proxy::tls::ProxyTls;
pub use crate::proxy::{ProxySettings, SendProxyProtocol};
pub use crate::referer::ValidReferers;
pub use crate::resolve::Config;
pub use crate::rewrite::condition::{Condition, FileTest};
pub use crate::rewrite::{Return, Rewrite, RewriteFlag, RewriteOp};
pub use crate::secure_link::SecureLink;
pub use crate::server::{ConnectionSettings, Server, ServerId};
pub use crate::settings::{IfModifiedSince, LocationSettings, ServerTokens};
pub use crate::subrequests::Mirrors;
pub use crate::tls::key_file::{
    CertificateCache, CertificateFiles, VariableCertificate, VariableFile,
};
pub use crate::tls::session_cache::SessionCache;
pub use crate::tls::{ServerTls, Stapling, TlsProtocols, VerifyClient};
pub use crate::trust::{RealIp, RealIpHeader, TrustedProxy};
pub use crate::tunnels::credentials::{Expiry, Reauth};
pub use crate::tunnels::drain::{DrainOrder, DrainPace};
pub use crate::tunnels::rates::TunnelRate;
pub use crate::tunnels::{FrameCheck, Lifetime, Sides, TunnelSettings};
pub use crate::upstream::balance::{Balance, BetterOfTwo, TimeOf};
pub use crate::upstream::checks::{CheckRules, OnDown};
pub use crate::upstream::server::{MAX_ROUTE_LEN, Resolve, UpstreamServer};
pub use crate::upstream::sticky::{CookieLife, Sticky, StickyCookie, StickyLearn, is_samesite};
pub use crate::upstream::{Queue, Upstream, UpstreamId};
pub use crate::value::{ListenAddr, Located, Origin};
pub use crate::variable::{Map, MapId, MapKind};
pub use crate::websocket::Recovery;
pub use crate::websocket::handshake::HandshakeCheck;
pub use crate::websocket::origin::AllowedOrigins;
pub use crate::websocket::tap::WebSocketTap;
pub use crate::websocket::token::{TokenSource, WebSocketToken};
pub use crate::websocket::trace::WebSocketTrace;
pub use crate::zones::{LimitKind, LimitZone, LimitZoneId};
