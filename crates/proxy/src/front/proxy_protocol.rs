//! The header of the PROXY protocol at the front of a connection.

use std::io;

use thiserror::Error;
use wssgate_proxy_protocol::{Header, HeaderError, Told};

use crate::front::connection::read_once;
use crate::listen::Stream;

/// Why there is no header.
#[derive(Debug, Error)]
pub(crate) enum NoHeader {
    #[error("{0}")]
    Wrong(#[from] HeaderError),
    #[error("client closed connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads the header, and returns it with what was read behind it. The caller bounds the time.
pub(crate) async fn read(stream: &mut Stream) -> Result<(Option<Box<Told>>, Vec<u8>), NoHeader> {
    let mut input = Vec::new();
    loop {
        // It ends within the bound of a header, so no more than one read lies behind that.
        if let Some(header) = Header::decode(&input)? {
            return Ok((header.told.map(Box::new), input.split_off(header.len)));
        }
        let read = match read_once(stream).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Vec::new(),
            read => read?,
        };
        match (read.is_empty(), input.is_empty()) {
            (false, _) => input.extend_from_slice(&read),
            // A balancer that only looks whether we are there.
            (true, true) => return Err(NoHeader::Closed),
            (true, false) => return Err(HeaderError::broken(&input).into()),
        }
    }
}
