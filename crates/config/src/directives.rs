//! The rows by subject.

pub(crate) mod access;
pub(crate) mod auth_request;
pub(crate) mod core;
pub(crate) mod geo;
pub(crate) mod headers;
pub(crate) mod http;
pub(crate) mod location;
pub(crate) mod log;
pub(crate) mod map;
pub(crate) mod proxy;
pub(crate) mod refused;
pub(crate) mod rewrite;
pub(crate) mod server;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod websocket;
pub(crate) mod without_effect;

use crate::directive::Row;

/// Every table.
pub(crate) const TABLES: &[&[Row]] = &[
    access::ROWS,
    auth_request::ROWS,
    core::ROWS,
    geo::ROWS,
    headers::ROWS,
    http::ROWS,
    location::ROWS,
    log::ROWS,
    map::ROWS,
    proxy::ROWS,
    refused::ROWS,
    rewrite::ROWS,
    server::ROWS,
    tls::ROWS,
    upstream::ROWS,
    websocket::ROWS,
    without_effect::ROWS,
];
