//! Keys of zones as other processes of ours know them.

use minicbor::bytes::{ByteSlice, ByteVec};
use minicbor::{Decode, Encode};
use wssgate_config::model::LimitZone;

/// What a zone is known by in all processes, as far as a reload would go on with it too.
#[derive(Debug, Default)]
pub(super) struct ZoneName {
    name: Box<[u8]>,
    key_text: Box<[u8]>,
}

/// A key of a zone. Numbers are never used again for something else.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct KeyState<'b> {
    /// The name of the zone.
    #[b(0)]
    zone: &'b ByteSlice,
    /// The key of the zone as it is written: by another one nothing is known.
    #[b(1)]
    key_text: &'b ByteSlice,
    /// The key.
    #[n(2)]
    key: ByteVec,
}

impl ZoneName {
    pub(super) fn of_zone(zone: &LimitZone) -> Self {
        Self { name: zone.name.clone(), key_text: zone.key_text.clone() }
    }

    /// A key of the zone.
    pub(super) fn of(&self, key: ByteVec) -> KeyState<'_> {
        KeyState { zone: (&*self.name).into(), key_text: (&*self.key_text).into(), key }
    }
}

impl KeyState<'_> {
    /// The key.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn is_of(&self, zone: &ZoneName) -> bool {
        self.zone[..] == zone.name[..] && self.key_text[..] == zone.key_text[..]
    }
}
