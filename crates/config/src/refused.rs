//! nginx's directives that are not implemented and cannot be left out: each with what to do instead.

use crate::directive::Arity::{AtLeast, Between, Exactly, Flag};
use crate::directive::{H, HS, HSL, L, M, Row, X, refused};
use crate::modules::USER_AGENT;

const COOKIES: &str = "set the cookie in the app server";
const CRL: &str = "use `ssl_crl` to refuse revoked client certificates";
const ECH: &str = "remove the line: Encrypted Client Hello is not implemented";
const FILES: &str = "serve such files with another server";
const GEO: &str = "use `geo` with a list of networks";
const IMAGES: &str = "let the app server or an image server resize images, and use `proxy_pass`";
const KEY_FILES: &str = "store private keys in files";
const MAIL: &str =
    "only HTTP and WebSockets are proxied; keep nginx or a mail proxy for IMAP, POP3 and SMTP";
const MEDIA: &str = "serve media with another server";
const PERL: &str = "move this logic to the app server";
const STORE: &str = "store responses in the app server";
const RECORDS: &str =
    "remove the line: the records of tunnels are always encrypted with the keys of their handshake";
const STREAM: &str =
    "only HTTP and WebSockets are proxied; keep nginx or HAProxy for other TCP and UDP";
const WEBDAV: &str = "serve WebDAV with another server";
const XSLT: &str = "transform documents in the app server";

/// The rows.
pub(crate) fn rows() -> Vec<Row> {
    vec![
        refused("ancient_browser", HSL, AtLeast(1), USER_AGENT),
        refused("ancient_browser_value", HSL, Exactly(1), USER_AGENT),
        refused("create_full_put_path", HSL, Flag, WEBDAV),
        refused("dav_access", HSL, Between(1, 3), WEBDAV),
        refused("dav_methods", HSL, AtLeast(1), WEBDAV).unless("off"),
        refused("disable_symlinks", HSL, Between(1, 2), FILES).unless("off"),
        refused("flv", L, Exactly(0), MEDIA),
        refused("geoip_city", H, Between(1, 2), GEO),
        refused("geoip_country", H, Between(1, 2), GEO),
        refused("geoip_org", H, Between(1, 2), GEO),
        refused("geoip_proxy", H, Exactly(1), GEO),
        refused("geoip_proxy_recursive", H, Flag, GEO),
        refused("image_filter", L, Between(1, 3), IMAGES),
        refused("image_filter_buffer", HSL, Exactly(1), IMAGES),
        refused("image_filter_interlace", HSL, Flag, MEDIA),
        refused("image_filter_jpeg_quality", HSL, Exactly(1), IMAGES),
        refused("image_filter_sharpen", HSL, Exactly(1), IMAGES),
        refused("image_filter_transparency", HSL, Flag, MEDIA),
        refused("image_filter_webp_quality", HSL, Exactly(1), IMAGES),
        refused("mail", M, Exactly(0), MAIL),
        refused("min_delete_depth", HSL, Exactly(1), WEBDAV),
        refused("modern_browser", HSL, Between(1, 2), USER_AGENT),
        refused("modern_browser_value", HSL, Exactly(1), USER_AGENT),
        refused("mp4", L, Exactly(0), MEDIA),
        refused("perl", L | X, Exactly(1), PERL),
        refused("perl_modules", H, Exactly(1), PERL),
        refused("perl_require", H, Exactly(1), PERL),
        refused("perl_set", H, Exactly(2), PERL),
        refused("proxy_store", HSL, Exactly(1), STORE).unless("off"),
        refused("proxy_store_access", HSL, Between(1, 3), STORE),
        refused("slice", HSL, Exactly(1), MEDIA).unless("0"),
        refused("ssl_ech_file", HS, Exactly(1), ECH),
        refused("ssl_engine", M, Exactly(1), KEY_FILES),
        refused("ssl_ocsp", HS, Exactly(1), CRL).unless("off"),
        refused("ssl_ocsp_cache", HS, Exactly(1), CRL),
        refused("ssl_ocsp_responder", HS, Exactly(1), CRL),
        refused("stream", M, Exactly(0), STREAM),
        refused("tls_records", HS, Exactly(1), RECORDS).unless("keys"),
        refused("userid", HSL, Exactly(1), COOKIES).unless("off"),
        refused("xml_entities", HSL, Exactly(1), XSLT),
        refused("xml_external_entities", HSL, Flag, XSLT),
        refused("xslt_last_modified", HSL, Flag, XSLT),
        refused("xslt_param", HSL, Exactly(2), XSLT),
        refused("xslt_string_param", HSL, Exactly(2), XSLT),
        refused("xslt_stylesheet", L, AtLeast(1), XSLT),
        refused("xslt_types", HSL, AtLeast(1), XSLT),
    ]
}
