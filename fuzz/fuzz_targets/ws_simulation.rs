//! Whatever two ends, a wire, a policy and an operator do in made-up time, a conversation keeps its promises, and one
//! that goes from process to process meanwhile decides the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wssgate_ws::conversation::simulation::{Chance, run_moved};

fuzz_target!(|choices: Vec<u8>| run_moved(&mut Chance::from_bytes(choices)));
