//! What an operator wants of conversations.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::meter::Meter;
use crate::cbor::{is_default, known};
use crate::{CloseCode, Side};

/// Something for each side of a WebSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PerSide<T> {
    /// For the client, or what it sends.
    #[n(0)]
    pub client: T,
    /// For the server, or what it sends.
    #[n(1)]
    pub server: T,
}

impl<T> PerSide<T> {
    /// The same for both.
    pub fn both(value: T) -> Self
    where
        T: Clone,
    {
        Self { client: value.clone(), server: value }
    }

    /// What is for this side.
    #[inline]
    pub fn get(&self, side: Side) -> &T {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// What is for this side, to change it.
    #[inline]
    pub fn get_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

/// What holds for many conversations. By default it is nothing: all passes, and nobody is asked.
///
/// It travels with each of them; what the numbers of its fields mean never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Policy {
    /// How each side is asked whether it is there.
    #[cbor(n(0), skip_if = "is_default")]
    pub keep_alive: PerSide<Option<KeepAlive>>,
    /// How long no data frame may pass either way, in milliseconds.
    #[cbor(n(1), skip_if = "is_default")]
    pub idle_ms: Option<u64>,
    /// Whether somebody will ask when the last data frame passed, whatever `idle_ms` is.
    #[cbor(n(2), skip_if = "is_default")]
    pub notes_data: bool,
    /// How long bytes may wait, without a moment between, because a side does not take them, in
    /// milliseconds.
    #[cbor(n(3), skip_if = "is_default")]
    pub slow_reader_ms: PerSide<Option<u64>>,
    /// What becomes of broken rules.
    #[cbor(n(4), decode_with = "known", skip_if = "is_default")]
    pub check: Check,
    /// What each side may send.
    #[cbor(n(5), skip_if = "is_default")]
    pub limits: PerSide<Limits>,
    /// The code of the Close that one side is sent when the other is lost. Without it, it is sent none and
    /// sees its connection end, as from nginx.
    #[cbor(n(6), skip_if = "is_default")]
    pub failure: Option<CloseCode>,
}

impl Policy {
    /// Whether anything is looked for in the frames of this side.
    pub(super) fn watches(&self, from: Side) -> bool {
        self.check != Check::Note || *self.limits.get(from) != Limits::default()
    }
}

/// What a conversation is begun with.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What the two ends have agreed upon.
    pub extensions: crate::Extensions,
    /// What holds for this and others.
    pub policy: Arc<Policy>,
    /// When it has to end, from its beginning, in milliseconds.
    pub lifetime_ms: Option<u64>,
    /// When what the client may do is over, from the beginning, in milliseconds.
    pub expiry_ms: Option<u64>,
    /// Begins the payload of our pings, so that nobody else's pong is taken for an answer. Random.
    pub mark: [u8; 4],
    /// Who counts what each side sends, if anybody does.
    pub meters: Option<Box<PerSide<Meters>>>,
}

/// Those who count what a side sends.
pub type Meters = Vec<Arc<dyn Meter>>;

/// How a side is asked whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeepAlive {
    /// After how much silence of its own, in milliseconds.
    #[n(0)]
    pub interval_ms: u64,
    /// How long it may stay silent then, in milliseconds, if anybody waits for that.
    #[n(1)]
    pub pong_timeout_ms: Option<u64>,
}

impl KeepAlive {
    /// How long to wait for an answer, in milliseconds.
    pub(super) fn wait_ms(&self) -> u64 {
        self.pong_timeout_ms.unwrap_or(self.interval_ms)
    }
}

/// What becomes of broken rules of RFC 6455.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Check {
    /// They are noted, and all passes: the ends are to judge. Nothing of ours is said any more.
    #[default]
    #[n(0)]
    Note,
    /// They end the conversation with 1002.
    #[n(1)]
    Frames,
    /// And text that is not UTF-8 with 1007.
    #[n(2)]
    Text,
}

/// What one side may send. Payloads are counted as they are on the wire, so compressed ones compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Limits {
    /// The longest payload of a frame, in bytes.
    #[n(0)]
    pub frame: Option<u64>,
    /// The longest message over all its fragments, in bytes.
    #[n(1)]
    pub message: Option<u64>,
    /// How many frames a message may have.
    #[n(2)]
    pub fragments: Option<u32>,
    /// How many control frames may come within a second.
    #[n(3)]
    pub controls: Option<u32>,
}
