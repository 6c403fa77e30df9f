//! The new process, as the old one sees it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ExitStatus};

use wssgate_proxy::listen::LeftSocket;
use wssgate_proxy::moving::FORMAT;
use wssgate_sys::{passed, rights, successor};

use super::message::{Channel, Hello, Message, Received};
use super::predecessor;
use super::program::Program;

/// A new process, from its start to its end.
#[derive(Debug)]
pub(crate) struct Successor {
    child: Child,
    channel: Channel,
    has_channel: bool,
    /// Readable when it has ended; the kernel may be too old for that.
    end: Option<OwnedFd>,
    /// By which it takes tunnels, until that is taken.
    tunnels: Option<OwnedFd>,
    /// How many listening sockets it was left.
    pub(crate) sockets: usize,
    /// What it says of itself.
    pub(crate) hello: Option<Hello>,
    /// Why it does not serve, if it said so.
    pub(crate) reason: Option<String>,
}

/// What has become of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It says that its configuration is good.
    Checked,
    /// It accepts connections.
    Ready,
    /// It is about to be replaced itself.
    Final,
    /// It has ended.
    Ended(ExitStatus),
}

impl Successor {
    /// Starts it and says `hello`, to which it adds what it knows of `sockets`.
    pub(crate) fn start(
        program: &Program,
        binary: Option<&Path>,
        sockets: &[LeftSocket<'_>],
        hello: Hello,
    ) -> io::Result<Self> {
        let (ours, theirs) = successor::channel()?;
        let (tunnels, their_tunnels) = rights::stream_channel()?;
        let channel = Channel::new(ours)?;
        let of_manager = sockets.iter().filter(|socket| socket.is_managers);
        let of_manager = of_manager.map(|socket| socket.fd.as_raw_fd()).collect();
        // It waits there until it is asked for.
        channel.send(&Message::Hello(Hello { of_manager, ..hello }));
        let numbers = sockets.iter().map(|socket| socket.fd.as_raw_fd());
        let mut command = program.command(binary);
        command
            .env(passed::SOCKETS_VARIABLE, passed::sockets_variable(numbers))
            .env(predecessor::CHANNEL_VARIABLE, theirs.as_raw_fd().to_string())
            .env(predecessor::TUNNELS_VARIABLE, their_tunnels.as_raw_fd().to_string());
        let mut descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|socket| socket.fd).collect();
        descriptors.extend([theirs.as_fd(), their_tunnels.as_fd()]);
        let child = successor::start(&mut command, &descriptors)?;
        let end = successor::end_of(&child).ok();
        let (sockets, tunnels) = (sockets.len(), Some(tunnels));
        let (has_channel, hello, reason) = (true, None, None);
        Ok(Self { child, channel, has_channel, end, tunnels, sockets, hello, reason })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What is readable when there may be something new.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.channel.as_fd()].into_iter().chain(self.end.as_ref().map(AsFd::as_fd))
    }

    /// Whether its end has to be looked for from time to time.
    pub(crate) fn must_be_polled(&self) -> bool {
        self.end.is_none()
    }

    /// What is new, if anything.
    pub(crate) fn next(&mut self) -> Option<Event> {
        while self.has_channel {
            match self.channel.receive() {
                Received::Message(Message::Hello(hello)) => self.hello = Some(hello),
                Received::Message(Message::Checked) => return Some(Event::Checked),
                Received::Message(Message::Refused { reason }) => self.reason = Some(reason),
                Received::Message(Message::Ready) => return Some(Event::Ready),
                Received::Message(Message::Final) => return Some(Event::Final),
                Received::Message(_) => {}
                Received::Nothing => break,
                Received::End => self.has_channel = false,
            }
        }
        self.child.try_wait().ok().flatten().map(Event::Ended)
    }

    /// Whether its channel has come to its end, and need not be looked at any more.
    pub(crate) fn is_mute(&self) -> bool {
        !self.has_channel
    }

    /// The way for tunnels to it, once, if it takes those of our format.
    pub(crate) fn take_tunnels(&mut self) -> Option<OwnedFd> {
        let takes = self.hello.as_ref().is_some_and(|hello| hello.tunnels.contains(&FORMAT));
        self.tunnels.take_if(|_| takes)
    }

    /// Where its end of the channel is.
    pub(crate) fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    pub(crate) fn tell(&self, message: &Message) {
        self.channel.send(message);
    }

    /// Ends it, whatever it does.
    pub(crate) fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
    }
}
