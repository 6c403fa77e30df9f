//! One client connection: TLS, protocol, its requests one after the other.

use std::rc::Rc;
use std::sync::Arc;

use wssgate_config::model::ListenAddr;

use crate::generation::Generation;
use crate::listen::Stream;
use crate::worker::Worker;

/// Serves one accepted connection, from its first byte to its end; `socket` is its index in
/// `Http::sockets`. Nothing is spoken yet: the connection is closed.
pub async fn serve(
    _worker: Rc<Worker>,
    _generation: Arc<Generation>,
    _socket: usize,
    stream: Stream,
    _peer: ListenAddr,
) {
    drop(stream);
}
