//! Who asks behind trusted proxies (`set_real_ip_from`).
//!
//! The address of the connection is that of the last proxy. If it is trusted, its word about the
//! next one before it is taken, and so on.

use std::net::SocketAddr;

use wssgate_config::model::{RealIp, RealIpHeader};

use crate::exchange::Request;
use crate::exchange::forwarded::{forwarded_for, is_trusted, last_hop};

/// Replaces the address of the client by the one that the proxies trusted here tell; once for each
/// request.
pub(crate) fn find(request: &mut Request) {
    if request.vouched_for {
        return;
    }
    let Some(trust) = &request.location().settings.real_ip else { return };
    if let Some(client) = client_behind(request, trust) {
        request.client = Some(client);
        request.vouched_for = true;
    }
}

fn client_behind(request: &Request, trust: &RealIp) -> Option<SocketAddr> {
    let fields = request.arrival.head.as_ref()?.fields();
    let peer = request.client.map(|peer| peer.ip());
    match &trust.header {
        RealIpHeader::ProxyProtocol => {
            let told = request.connection.told.as_ref()?;
            is_trusted(&trust.from, peer).then_some(told.ends.source)
        }
        RealIpHeader::Field(name) => {
            let name = std::str::from_utf8(name).ok()?;
            last_hop(trust, peer, fields.first(name).into_iter())
        }
        RealIpHeader::ForwardedFor => forwarded_for(request, trust, peer),
    }
}
