//! Any text has a meaning or is refused with a reason: loading it and drawing what is said must not panic.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use wssgate_config::{LoadOptions, load};
use wssgate_syntax::Memory;

fuzz_target!(|text: &[u8]| {
    let nothing = Memory::default();
    let options = LoadOptions {
        files: &nothing,
        resolve: |_, _| Err(io::ErrorKind::NotFound.into()),
        ..LoadOptions::text(text)
    };
    match load(&options) {
        Ok(loaded) => {
            assert!(!loaded.report.has_errors());
            loaded.report.render(&loaded.sources, false);
        }
        Err(failed) => {
            assert!(failed.report.has_errors());
            failed.report.render(&failed.sources, false);
        }
    }
});
