//! One WebSocket, from upgrade request to log line.

use wssgate_http1::ResponseHead;

/// An upstream that has switched protocols.
#[derive(Debug)]
pub struct Switch {
    /// Its 101.
    pub head: ResponseHead,
}
