//! Diagnosis of a WebSocket URL from the client's side: [`examine`] walks from the name to an idle
//! connection and says at each step what is wrong and what to do.
//!
//! ```text
//! dns ─▶ tcp ─▶ tls ─▶ handshake, hops ─▶ ping ─▶ size, idle (if asked for)
//! ```
//!
//! A step that fails ends the walk; within a step, further connections are made to tell causes apart: without
//! SNI, with another ALPN, without `Origin`, with half of the headers. Those who trust nobody learn more, so
//! TLS handshakes are completed whatever the certificate is, and the chain is judged by itself ([`trust`]).
//!
//! What a server answers is judged by functions of bytes ([`answer`], [`trust`]); sockets block and have
//! deadlines ([`wire`]). Findings have codes that stay what they are; texts may become better.

mod answer;
mod dns;
mod exchange;
mod facts;
mod handshake;
mod idle;
mod ping;
mod redirect;
mod report;
mod settings;
mod shake;
mod size;
mod socket;
mod take_all;
mod target;
mod tcp;
mod text;
mod tls;
mod trust;
mod walk;
mod wire;

pub use facts::Facts;
pub use report::{Finding, Report, Skipped, Step, StepReport, Verdict};
pub use settings::{Settings, Unreadable, certificates_in};
pub use take_all::TakeAll;
pub use target::{Host, InvalidTarget, Target};
pub use text::Style;
pub use trust::DEVELOPMENT_CA;
pub use walk::examine;
pub use wire::Timed;
