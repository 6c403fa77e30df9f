//! The HTTP front: requests come in, each finds its location and its answer.

mod access;
mod after;
mod arrival;
mod auth_basic;
mod auth_jwt;
mod auth_request;
mod browser;
mod challenge;
pub mod connection;
mod guard;
pub(crate) mod h1;
mod handshake;
mod limits;
mod phases;
mod proxy_protocol;
mod real_ip;
pub(crate) mod reauth;
mod rewrite;
pub(crate) mod route;
mod subrequest;
mod try_files;
