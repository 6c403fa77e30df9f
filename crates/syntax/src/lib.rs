//! The configuration language: text, tokens, trees and diagnostics.
