//! What zones count a request by.

use bytes::Bytes;
use wssgate_config::model::{LimitZone, LogLevel};
use wssgate_syntax::printable;

use super::Request;

/// What a zone counts a request by; nothing when that is empty or longer than it may be.
pub(crate) fn zone_key(request: &Request, zone: &LimitZone, max_len: usize) -> Option<Bytes> {
    let key = request.text(&zone.key);
    if key.len() > max_len {
        let (name, shown) = (printable(&zone.key_text), String::from_utf8_lossy(&key));
        let text = format_args!(
            "the value of the \"{name}\" key is more than {max_len} bytes: \"{shown}\""
        );
        request.log(LogLevel::Error, text);
        return None;
    }
    Some(key).filter(|key| !key.is_empty())
}
