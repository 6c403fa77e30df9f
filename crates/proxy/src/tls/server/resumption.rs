//! How clients may come back to a server without a whole handshake.

use std::sync::Arc;

use rustls::server::{ProducesTickets, ServerConfig, StoresServerSessions};
use wssgate_config::model::Server;
use wssgate_syntax::Report;

use crate::tls::sessions::Sessions;

/// How many bytes of early data that nobody takes rustls may try to open. It keeps what it skips until there is
/// something that it can open, and tries, and counts, all of it again with each read (0.23.46): its own
/// 16 KiB end with the second record of 8 KiB. What it keeps is bounded by the length of a record, so about
/// as much is skipped as by OpenSSL.
const SKIPPED_EARLY_DATA: u32 = 1 << 20;

/// How clients may come back to a server.
pub(super) struct Resumption {
    store: Arc<dyn StoresServerSessions>,
    ticketer: Option<Arc<dyn ProducesTickets>>,
    /// How many tickets a handshake of TLS 1.3 sends.
    tickets: usize,
}

impl Resumption {
    pub(super) fn build(server: &Server, sessions: &Sessions, report: &mut Report) -> Option<Self> {
        let (tls, identity) = (&server.tls, identity(server));
        let store = sessions.store(tls, &identity);
        // Also where nobody needs them, as in nginx.
        let ticketer = sessions.ticketer(tls, &identity, report)?;
        let resumable = tls.session_tickets || store.can_cache();
        let ticketer = tls.session_tickets.then_some(ticketer);
        Some(Self { store, ticketer, tickets: if resumable { tls.ticket_count } else { 0 } })
    }

    pub(super) fn apply(&self, config: &mut ServerConfig) {
        config.session_storage = Arc::clone(&self.store);
        if let Some(ticketer) = &self.ticketer {
            config.ticketer = Arc::clone(ticketer);
        }
        config.send_tls13_tickets = self.tickets;
        // rustls would take early data with sessions that it keeps, and only with them.
        if self.ticketer.is_some() || !self.store.can_cache() {
            config.max_early_data_size = SKIPPED_EARLY_DATA;
        }
    }
}

/// What tells this server from others, also in the next generation: its names, whether it
/// verifies clients, and against what, and the certificates it shows, by the names of their files. With keys for
/// tickets from files these do not count: such keys are shared by hosts, of which each may have its own.
fn identity(server: &Server) -> Box<[u8]> {
    let tls = &server.tls;
    let mut identity = format!("{:?}", tls.verify_client).into_bytes();
    if tls.ticket_keys.is_empty() {
        for files in &tls.certificates {
            identity.extend_from_slice(files.chain.value.as_os_str().as_encoded_bytes());
            identity.push(0);
        }
        for files in &tls.variable_certificates {
            identity.extend(format!("{:?}", files.chain.path).into_bytes());
            identity.push(0);
        }
    }
    if let Some(file) = &server.tls.client_certificate {
        identity.extend_from_slice(file.value.as_os_str().as_encoded_bytes());
    }
    for name in &server.names {
        identity.push(0);
        identity.extend_from_slice(&name.value);
    }
    identity.into()
}
