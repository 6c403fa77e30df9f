//! The meaning of a configuration: a tree of directives becomes one complete, typed [`Config`].

pub mod hosts;
pub mod model;
pub mod regex;
pub mod template;
pub mod variable;

pub use model::Config;
