//! Orders that have been placed and not been filled yet go on, also after a restart.

use instant_acme::{Account, Order as Running};
use rcgen::KeyPair;

use crate::failure::{Failure, GONE};
use crate::issuer::Order;
use crate::keeper::now;
use crate::pending::Pending;
use crate::session::Session;

/// Keeps an order that was placed just now.
pub(crate) fn keep(
    session: &Session,
    order: &Order,
    profile: Option<&str>,
    running: &Running,
    key: &KeyPair,
) {
    let pending = Pending {
        uri: session.issuer.uri.clone(),
        profile: profile.map(str::to_owned),
        order: running.url().to_owned(),
        placed: now(),
        key: key.serialize_pem(),
    };
    // Without it a restart orders anew; that nothing can be written is told elsewhere.
    let _ = session.directory.write_pending(&order.id(), &pending);
}

/// The order that an earlier try has left, with its key, unless the CA does not fill it any more. It is forgotten
/// then.
pub(crate) async fn resume(
    session: &Session,
    account: &Account,
    order: &Order,
    profile: Option<&str>,
) -> Result<Option<(Running, KeyPair)>, Failure> {
    let id = order.id();
    let Some(pending) = session.directory.pending(&id) else { return Ok(None) };
    let is_same = pending.uri == session.issuer.uri && pending.profile.as_deref() == profile;
    if let Some(key) = KeyPair::from_pem(&pending.key).ok().filter(|_| is_same) {
        match account.order(pending.order.clone()).await.map_err(Failure::from) {
            Ok(mut running) => {
                let status = running.state().status;
                if pending.is_alive(status, now()) {
                    return Ok(Some((running, key)));
                }
            }
            Err(failure)
                if failure.is_passing() && failure.kind != GONE && pending.may_be_alive(now()) =>
            {
                return Err(failure);
            }
            // It has expired, or is another account's.
            Err(_) => {}
        }
    }
    session.directory.forget_pending(&id);
    Ok(None)
}
