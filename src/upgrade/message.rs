//! What the two processes tell each other: one JSON object in each record.
//!
//! A message that is not known is passed over, and so is a field; a field that is missing has the value of its type's
//! default. So both sides may be of different releases. The version rises only with a change that does not fit into
//! that, and each side then uses the lower one of the two.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wssgate_proxy::moving::FORMAT;

/// The version that we speak.
pub(crate) const VERSION: u32 = 1;

/// The longest record, in bytes.
const MAX_RECORD: usize = 64 * 1024;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(crate) enum Message {
    /// The first one of either side.
    Hello(Hello),
    /// The new process has accepted its configuration.
    Checked,
    /// The new process cannot serve, and ends.
    Refused {
        /// Why, for the log.
        #[serde(default)]
        reason: String,
    },
    /// The new process accepts connections.
    Ready,
    /// The old process accepts none any more.
    Committed,
    /// The old process accepts again.
    Resumed,
    /// The old process need not be able to accept again: the new one is about to be replaced itself.
    Final,
    /// Something that a later version says.
    #[serde(other)]
    Unknown,
}

/// Who speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hello {
    /// Of the protocol.
    pub(crate) version: u32,
    /// The process.
    pub(crate) pid: u32,
    /// The version of the program.
    pub(crate) program: String,
    /// The versions of the format of live tunnels that it can take.
    pub(crate) tunnels: Vec<u32>,
    /// The number of its last connection (`$connection`): the other process counts on far behind it.
    pub(crate) last_connection: u64,
    /// How many descriptors it has open, about.
    pub(crate) descriptors: u64,
    /// Of the sockets that are passed on, those that a service manager has opened.
    pub(crate) of_manager: Vec<RawFd>,
    /// Where its admin socket is.
    pub(crate) admin: Option<PathBuf>,
}

impl Hello {
    /// Of this process.
    pub(crate) fn ours() -> Self {
        let program = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            version: VERSION,
            pid: std::process::id(),
            program,
            tunnels: vec![FORMAT],
            last_connection: wssgate_proxy::last_serial(),
            ..Self::default()
        }
    }
}

/// One end of the channel.
#[derive(Debug)]
pub(crate) struct Channel(UnixDatagram);

/// What there is to receive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A record.
    Message(Message),
    /// Nothing yet.
    Nothing,
    /// Nothing any more: the other process has ended, or wants no channel.
    End,
}

impl Channel {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = UnixDatagram::from(socket);
        // Neither process waits for the other.
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Sends a record. Who does not read any more learns of it in another way.
    pub(crate) fn send(&self, message: &Message) {
        if let Ok(text) = serde_json::to_vec(message) {
            let _ = self.0.send(&text);
        }
    }

    /// The next record.
    pub(crate) fn receive(&self) -> Received {
        let mut buffer = vec![0; MAX_RECORD];
        match self.0.recv(&mut buffer) {
            Ok(0) => Received::End,
            Ok(len) => {
                let message = serde_json::from_slice(&buffer[..len]);
                Received::Message(message.unwrap_or(Message::Unknown))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Received::Nothing,
            Err(_) => Received::End,
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use wssgate_sys::successor;

    use super::*;

    #[test]
    fn what_a_later_version_says_is_passed_over() {
        for (text, expected) in [
            (r#"{"message":"ready","since":7}"#, Message::Ready),
            (r#"{"message":"refused"}"#, Message::Refused { reason: String::new() }),
            (r#"{"message":"moved","tunnels":[1]}"#, Message::Unknown),
            (
                r#"{"message":"hello","version":2,"pid":5,"more":{}}"#,
                Message::Hello(Hello { version: 2, pid: 5, ..Hello::default() }),
            ),
        ] {
            assert_eq!(serde_json::from_str::<Message>(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn records_arrive_as_they_were_sent_until_the_other_end_is_gone() {
        let (one, other) = successor::channel().unwrap();
        let (one, other) = (Channel::new(one).unwrap(), Channel::new(other).unwrap());
        assert_eq!(other.receive(), Received::Nothing);
        for message in [
            Message::Hello(Hello { of_manager: vec![3, 4], ..Hello::ours() }),
            Message::Refused { reason: "because".into() },
            Message::Committed,
        ] {
            one.send(&message);
            assert_eq!(other.receive(), Received::Message(message));
        }
        one.0.send(b"no JSON").unwrap();
        assert_eq!(other.receive(), Received::Message(Message::Unknown));
        drop(one);
        assert_eq!(other.receive(), Received::End);
        other.send(&Message::Ready);
    }
}
