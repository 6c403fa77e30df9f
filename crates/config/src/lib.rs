//! The meaning of a configuration: a tree of directives becomes one complete, typed [`Config`].
//!
//! [`load`](load()) reads a file and everything it includes, checks every directive against its row ([`directive::rows`]), and
//! merges the levels as nginx does. It reports every problem of a configuration in one run.

pub mod directive;
mod directives;
mod draft;
pub mod hosts;
pub mod load;
pub mod model;
mod names;
mod paths;
pub mod read;
mod reference;
pub mod regex;
mod resolve;
pub mod template;
pub mod value;
pub mod variable;

pub use load::{Failed, LoadOptions, Loaded, load};
pub use model::Config;
pub use reference::reference;
