//! An upstream that switches protocols.

use wssgate_config::model::LogLevel;
use wssgate_http1::{Fields, Framing, ResponseHead};
use wssgate_ws::handshake::{Extensions, SwitchError, Switched};

use super::attempt::{Cause, Trouble};
use super::plan::Asked;
use super::{PeerLink, Proxying, Tried, record, response};
use crate::content::Outcome;
use crate::exchange::Reply;
use crate::tunnel::Switch;

impl Proxying<'_> {
    /// A switch of protocols: only if it is the answer to what was asked for.
    pub(super) async fn switch(&mut self, link: PeerLink, mut head: ResponseHead) -> Tried {
        // A tunnel lives long; it must not keep the buffer that its head was read into.
        head.detach();
        record(self.request, &link.connection, Some(&head), link.began);
        self.request.upstream.head = Some(head.clone());
        match checked(self.plan.offer.as_ref(), head.fields()) {
            Ok(extensions) => {
                let reply = response::reply(self.request, &head, Framing::None);
                let PeerLink { connection, mut lease, began, .. } = link;
                self.count_answer(&mut lease);
                let session = self.learn_at_switch(&lease);
                let switch = Switch { reply, connection, lease, session, extensions, began };
                Tried::Over(Outcome::Upgrade(Box::new(switch)))
            }
            // nginx sends no body here either: it waits for one until somebody gives up.
            Err(error @ SwitchError::NotAsked) if !self.request.has_error_page(502) => {
                self.request.log(LogLevel::Error, invalid_switch(&error));
                self.count_failure(link.lease);
                self.request.fate.keepalive = false;
                let reply = Reply { length: Some(0), ..Reply::new(502) };
                // Nothing of it can be asked for by ranges.
                let _ = self.response.head(self.request, reply);
                let sent = self.response.finish(self.request, None).await;
                Tried::Over(sent.map_or(Outcome::Close, |()| Outcome::Done))
            }
            Err(error) => {
                let message = invalid_switch(&error);
                link.failed(Trouble { cause: Cause::InvalidHeader, message })
            }
        }
    }
}

fn invalid_switch(error: &SwitchError) -> String {
    format!(
        "upstream sent an invalid 101 response: {error} while reading response header from \
         upstream"
    )
}

/// The extensions of the WebSocket that follows a 101 with these fields; none if something else follows.
fn checked(asked: Option<&Asked>, fields: &Fields) -> Result<Option<Extensions>, SwitchError> {
    let Asked { offer, keyed } = asked.ok_or(SwitchError::NotAsked)?;
    match offer.check_answer(fields.iter()) {
        Ok(Switched::WebSocket { extensions, .. }) => Ok(Some(extensions)),
        Ok(Switched::Other) => Ok(None),
        // A client without a key wants no proof; it is no WebSocket client, whatever it says.
        Err(SwitchError::NoKey) if !keyed => Ok(None),
        Err(error) => Err(error),
    }
}
