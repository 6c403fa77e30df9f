//! An upstream that switches protocols.

use std::time::Instant;

use bytes::Bytes;
use thiserror::Error;
use wssgate_config::model::LogLevel;
use wssgate_http1::{Fields, Framing, ResponseHead};
use wssgate_ws::handshake::{Extensions, Oddity, SwitchError, Switched};

use super::attempt::{Cause, Ended, Sender, Trouble};
use super::plan::Asked;
use super::{FailedAttempt, PeerLink, Proxying, Tried, response};
use crate::content::Outcome;
use crate::exchange::{subprotocols, trace};
use crate::tunnel::{self, Switch};

/// What follows a valid 101.
pub(super) struct Follows {
    /// The extensions of the WebSocket; none if something else follows.
    extensions: Option<Extensions>,
    /// What the client has to judge.
    oddities: Vec<Oddity>,
}

/// Why a 101 is not passed on.
#[derive(Debug, Error)]
pub(super) enum Invalid {
    /// It is not the switch that was asked for.
    #[error(transparent)]
    Switch(SwitchError),
    /// `websocket_protocol` does not list what it selects.
    #[error("it selects the subprotocol \"{}\", which \"websocket_protocol\" does not list", .0.escape_ascii())]
    Subprotocol(Bytes),
}

impl Proxying<'_> {
    /// Holds a 101 against what was asked for. If it is right the rest of the request is sent first: the
    /// client too goes on with its message before it speaks the other protocol (RFC 9110 §7.8).
    ///
    /// # Errors
    /// When the rest cannot be sent.
    pub(super) async fn judge(
        &self,
        head: &ResponseHead,
        sender: &mut Sender<'_>,
    ) -> Result<Result<Follows, Invalid>, Ended> {
        let judged = checked(self.plan.offer.as_ref(), head.fields()).map_err(Invalid::Switch);
        let judged =
            judged.and_then(|follows| match subprotocols::unlisted(self.request, head.fields()) {
                Some(name) if follows.extensions.is_some() => Err(Invalid::Subprotocol(name)),
                _ => Ok(follows),
            });
        if judged.is_ok() {
            sender.finish().await?;
        }
        Ok(judged)
    }

    /// A switch of protocols: only if it is the answer to what was asked for.
    pub(super) fn switch(
        &mut self,
        link: PeerLink,
        head: ResponseHead,
        judged: Result<Result<Follows, Invalid>, Ended>,
    ) -> Tried {
        match judged {
            Ok(Ok(follows)) => self.switched(link, head, follows),
            Ok(Err(error)) => {
                self.request.upstream.head = Some(head);
                let message = format!(
                    "upstream sent an invalid 101 response: {error} while reading response header \
                     from upstream"
                );
                link.failed(Trouble { cause: Cause::InvalidHeader, message })
            }
            Err(Ended::Upstream(trouble)) => link.failed(trouble),
            Err(ended) => Tried::Over(self.broken_off(ended)),
        }
    }

    fn switched(&mut self, link: PeerLink, mut head: ResponseHead, follows: Follows) -> Tried {
        let Follows { extensions, oddities } = follows;
        // A tunnel lives long; it must not keep the buffer that its head was read into.
        head.detach();
        self.request.upstream.head = Some(head.clone());
        if !oddities.is_empty() {
            let oddities: Vec<_> = oddities.iter().map(Oddity::to_string).collect();
            let message = format!(
                "upstream sent an unusual 101 response: {}, passed to the client, while reading \
                 response header from upstream",
                oddities.join("; ")
            );
            self.request.log(LogLevel::Info, message);
        }
        let mut reply = response::reply(self.request, &head, Framing::None);
        if extensions.is_some()
            && reply.field("sec-websocket-protocol").is_none()
            && let Some(name) = subprotocols::accepted(self.request)
        {
            reply.push("Sec-WebSocket-Protocol", name);
        }
        if extensions.is_some() {
            trace::on_switch(self.request, &head, &mut reply);
        }
        let PeerLink { connection, mut lease, reused, began, .. } = link;
        if let Some(state) = self.request.upstream.attempts.last_mut() {
            // What came behind the 101 belongs to the tunnel, which counts it.
            let early = connection.with_input(|input| input.len()) as u64;
            state.bytes_received = state.bytes_received.saturating_sub(early);
            state.response_length = 0;
        }
        // Before anything is promised to the client.
        let upstream = match tunnel::upstream_leg(connection) {
            Ok(leg) => leg,
            Err(error) => {
                let message = format!("{error} while switching protocols with upstream");
                let trouble = Trouble { cause: Cause::InvalidHeader, message };
                return Tried::Failed(FailedAttempt { trouble, lease, reused, sent: true });
            }
        };
        self.count_answer(&mut lease);
        lease.switched(Instant::now());
        let session = self.learn_at_switch(&lease);
        let subprotocol =
            extensions.as_ref().and_then(|_| reply.field("sec-websocket-protocol").cloned());
        let switch = Switch { reply, subprotocol, upstream, lease, session, extensions, began };
        Tried::Over(Outcome::Upgrade(Box::new(switch)))
    }
}

/// What follows a 101 with these fields.
fn checked(asked: Option<&Asked>, fields: &Fields) -> Result<Follows, SwitchError> {
    let Asked { offer, keyed } = asked.ok_or(SwitchError::NotAsked)?;
    let bytes = Follows { extensions: None, oddities: Vec::new() };
    match offer.check_answer(fields.iter()) {
        Ok(Switched::WebSocket { extensions, oddities, .. }) => {
            Ok(Follows { extensions: Some(extensions), oddities })
        }
        Ok(Switched::Other) => Ok(bytes),
        // A client without a key wants no proof; it is no WebSocket client, whatever it says.
        Err(SwitchError::NoKey) if !keyed => Ok(bytes),
        Err(error) => Err(error),
    }
}
