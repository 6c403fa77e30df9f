//! State that holds secrets, as bytes that are wiped.

use std::convert::Infallible;

use minicbor::Encode;
use minicbor::encode::Write;
use wssgate_sys::memory::Secret;

/// Adds something, encoded, to what is wiped.
pub fn write(what: &impl Encode<()>, records: &mut Secret) {
    let Ok(()) = minicbor::encode(what, Memory(records))
        .map_err(|error| unreachable!("memory takes it: {error}"));
}

/// Where records are written.
struct Memory<'m>(&'m mut Secret);

impl Write for Memory<'_> {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}
