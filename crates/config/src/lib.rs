//! The meaning of a configuration: a tree of directives becomes one complete, typed [`Config`].
//!
//! [`load`](load()) reads a file and everything it includes, checks every directive against its row ([`registry`]), and
//! merges the levels as nginx does. It reports every problem of a configuration in one run.

mod access;
mod advice;
mod advice_kind;
mod auth_basic;
mod auth_jwt;
mod auth_request;
mod buffering;
mod core;
pub mod directive;
mod dns;
mod error_page;
mod files;
mod filters;
mod foreign;
mod geo;
mod headers;
pub mod hosts;
mod http;
mod ignored;
mod level;
mod limits;
mod listen;
pub mod load;
mod location;
mod log;
mod map;
mod misspelt;
pub mod model;
mod modules;
mod name_servers;
mod names;
mod paths;
mod position;
mod proxy;
pub mod read;
mod real_ip;
mod reference;
mod referer;
mod refused;
pub mod regex;
pub mod registry;
mod resolve;
mod rewrite;
mod scope;
mod secure_link;
mod server;
mod server_name;
mod settings;
mod subrequests;
pub mod template;
mod tls;
mod trust;
mod unresolved;
mod upstream;
pub mod value;
pub mod variable;
mod websocket;
mod without_effect;
mod zones;

pub use load::{Failed, LoadOptions, Loaded, load};
pub use model::Config;
pub use reference::reference;
