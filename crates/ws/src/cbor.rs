//! How fields of records are left out and read; see [`crate::ConversationState`].

use minicbor::{Decode, Decoder, decode};

/// Whether a field need not be written, because it is read so where it is missing.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads a part that may be missing, and whose values must all be known. By default one with an unknown value would be
/// taken for one that is missing; so this reads every field of that kind which is an enum, or may come to hold one.
///
/// # Errors
/// Also for an unknown value anywhere in it.
pub fn known<'b, Ctx, T: Decode<'b, Ctx>>(
    decoder: &mut Decoder<'b>,
    context: &mut Ctx,
) -> Result<T, decode::Error> {
    T::decode(decoder, context).map_err(|error| match error.is_unknown_variant() {
        true => decode::Error::message("unknown value").at(decoder.position()),
        false => error,
    })
}
