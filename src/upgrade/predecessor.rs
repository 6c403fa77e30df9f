//! The old process, as the new one sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::parent_id;
use std::path::Path;

use wssgate_proxy::listen::PassedSockets;
use wssgate_sys::passed;

use super::message::{Channel, Hello, Message, Received};

/// Where the number of the descriptor of the channel is told.
pub(super) const CHANNEL_VARIABLE: &str = "WSSGATE_UPGRADE";

/// And that of the channel by which its tunnels come.
pub(super) const TUNNELS_VARIABLE: &str = "WSSGATE_TUNNELS";

/// The process that we are to replace.
#[derive(Debug)]
pub(crate) struct Predecessor {
    pid: u32,
    /// None if it is another program, such as nginx, or has ended.
    channel: Option<Channel>,
    /// Its channel was closed.
    is_gone: bool,
    hello: Hello,
    /// By which its tunnels come, until that is taken.
    tunnels: Option<OwnedFd>,
    sockets: Vec<(RawFd, OwnedFd)>,
    /// Whether it has told that it accepts no more.
    has_given_way: bool,
}

/// What it tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It accepts no more.
    Committed,
    /// It accepts again.
    Resumed,
    /// It has ended.
    Gone,
}

impl Predecessor {
    /// The process that has left us sockets, if there is one. Call it before there are other threads.
    pub(crate) fn find() -> Option<Self> {
        let left = passed::inheritance([CHANNEL_VARIABLE, TUNNELS_VARIABLE])?;
        let [channel, tunnels] = left.channels;
        let channel = channel.and_then(|socket| Channel::new(socket).ok());
        let hello = channel.as_ref().map(Channel::receive);
        let hello = match hello {
            Some(Received::Message(Message::Hello(hello))) => hello,
            _ => Hello::default(),
        };
        let (pid, sockets) = (parent_id(), left.sockets);
        let this =
            Self { pid, channel, hello, tunnels, sockets, is_gone: false, has_given_way: false };
        this.tell(&Message::Hello(Hello::ours()));
        Some(this)
    }

    /// The sockets, besides those of a service manager that has started us.
    pub(crate) fn take_sockets(&mut self, mut of_manager: Vec<OwnedFd>) -> PassedSockets {
        let mut of_predecessor = Vec::new();
        for (number, socket) in self.sockets.drain(..) {
            match self.hello.of_manager.contains(&number) {
                true => of_manager.push(socket),
                false => of_predecessor.push(socket),
            }
        }
        PassedSockets { of_manager, of_predecessor }
    }

    /// Where its tunnels come from, once.
    pub(crate) fn take_tunnels(&mut self) -> Option<OwnedFd> {
        self.tunnels.take()
    }

    /// The number of its last connection, about; 0 if it does not say.
    pub(crate) fn last_connection(&self) -> u64 {
        self.hello.last_connection
    }

    /// How many descriptors it has open, about; we are to have as many.
    pub(crate) fn descriptors(&self) -> u64 {
        self.hello.descriptors
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether its admin socket is there.
    pub(crate) fn has_admin_at(&self, path: &Path) -> bool {
        self.hello.admin.as_deref() == Some(path)
    }

    /// Whether it tells when it gives way.
    pub(crate) fn speaks(&self) -> bool {
        self.channel.is_some()
    }

    /// Whether it is still there.
    pub(crate) fn is_alive(&self) -> bool {
        // Whoever speaks tells; of another program the kernel gives us a new parent, but only behind its last thread.
        !self.is_gone && (self.channel.is_some() || parent_id() == self.pid)
    }

    /// Whether another process may replace us: it could not take over again then.
    pub(crate) fn may_be_final(&self) -> bool {
        !self.is_alive() || self.has_given_way
    }

    /// The channel, while there is one.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn tell(&self, message: &Message) {
        if let Some(channel) = &self.channel {
            channel.send(message);
        }
    }

    /// What it tells that is new, if anything.
    pub(crate) fn next(&mut self) -> Option<News> {
        loop {
            match self.channel.as_ref()?.receive() {
                Received::Message(Message::Committed) => {
                    self.has_given_way = true;
                    return Some(News::Committed);
                }
                Received::Message(Message::Resumed) => {
                    self.has_given_way = false;
                    return Some(News::Resumed);
                }
                Received::Message(_) => {}
                Received::Nothing => return None,
                Received::End => {
                    self.channel = None;
                    self.is_gone = true;
                    return Some(News::Gone);
                }
            }
        }
    }
}
