//! The configuration language: text, tokens, trees and diagnostics.
//!
//! nginx's language knows words, `;`, `{`, `}` and comments, and one directive that belongs to the language itself:
//! `include`. This crate reads it, byte for byte as nginx does, into a tree of [`Directive`]s whose every word knows
//! where it stands, and draws what is wrong with it. What a directive means is none of its business.

mod diagnostic;
mod files;
mod format;
mod lexer;
mod load;
mod lua;
mod parser;
mod render;
mod source;
mod suggest;
mod tree;

pub use diagnostic::{Diagnostic, MAX_DIAGNOSTICS, Report, Severity, printable};
pub use files::{Disk, Files, Memory};
pub use format::format;
pub use lexer::{Lexer, MAX_WORD_LEN, Token, TokenKind, unescape};
pub use load::{
    Include, MAX_INCLUDE_DEPTH, MAX_INCLUDES, Main, Options, Parsed, parse, parse_text,
};
pub use parser::MAX_BLOCK_DEPTH;
pub use source::{FileId, Location, MAX_FILE_LEN, Origin, SourceFile, SourceMap, Span};
pub use suggest::{closest, distance};
pub use tree::{Block, Directive, Word};
