//! Whatever two ends, a wire, a policy and an operator do in made-up time, a conversation keeps its promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wssgate_ws::conversation::simulation::{Chance, run};

fuzz_target!(|choices: Vec<u8>| run(&mut Chance::from_bytes(choices)));
