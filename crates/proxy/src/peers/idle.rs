//! Idle connections to upstreams, kept for the next request (`keepalive`).
//!
//! One pool per worker. A connection on which anything arrives while it is idle, an end included,
//! is of no more use and is dropped at once, as is one that has waited too long: one task watches
//! all of them.

use std::cell::RefCell;
use std::future::poll_fn;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use wssgate_config::model::ListenAddr;

use super::connect::Connection;
use super::group::Keepalive;

/// For whom a connection may be used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The group's name; its bound counts all connections of that name.
    pub(crate) group: Arc<[u8]>,
    /// The peer.
    pub(crate) address: ListenAddr,
    /// What else must be the same, where settings of the caller made the connection what it is.
    pub(crate) tag: Option<[u64; 2]>,
    /// The header of the PROXY protocol that it began with: it speaks for one client connection.
    pub(crate) header: Option<Bytes>,
    /// Whom it was to reach over TLS: for what the peer's certificate was judged and its server picked.
    pub(crate) name: Option<Bytes>,
    /// Our certificate and its key, where their paths have variables.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
}

/// The idle connections of one worker.
#[derive(Clone, Debug, Default)]
pub struct IdlePool {
    shared: Rc<RefCell<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The longest idle first.
    idle: Vec<Idle>,
    watcher: Option<Waker>,
    watched: bool,
}

#[derive(Debug)]
struct Idle {
    key: Key,
    connection: Connection,
    until: Instant,
}

impl IdlePool {
    /// A pool without connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections are idle.
    pub fn len(&self) -> usize {
        self.shared.borrow().idle.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the connection to a peer that was used last.
    pub(crate) fn take(&self, key: &Key) -> Option<Connection> {
        let shared = &mut *self.shared.borrow_mut();
        // What arrived since the watcher last ran must not be taken for an answer.
        shared.drop_spoiled(&mut Context::from_waker(Waker::noop()), Instant::now());
        // The one that was used last, so that those beyond the need grow old and go.
        let index = shared.idle.iter().rposition(|idle| idle.key == *key)?;
        let mut connection = shared.idle.remove(index).connection;
        shared.wake();
        connection.reuse();
        Some(connection)
    }

    /// Keeps a connection, unless it has served long enough.
    pub(crate) fn keep(&self, key: Key, connection: Connection, rules: Keepalive) {
        let now = Instant::now();
        let worn = connection.requests >= rules.requests || connection.made.elapsed() > rules.time;
        if rules.connections == 0 || worn || !connection.is_clean() {
            return;
        }
        let shared = &mut *self.shared.borrow_mut();
        let of_group = |idle: &Idle| idle.key.group == key.group;
        if shared.idle.iter().filter(|idle| of_group(idle)).count() >= rules.connections
            && let Some(oldest) = shared.idle.iter().position(of_group)
        {
            // nginx gives up the least recently used one as well.
            shared.idle.remove(oldest);
        }
        shared.idle.push(Idle { key, connection, until: now + rules.timeout });
        shared.wake();
        if !shared.watched {
            shared.watched = true;
            tokio::task::spawn_local(watch(Rc::downgrade(&self.shared)));
        }
    }
}

/// Drops connections as they become useless, until the pool is empty or gone.
async fn watch(pool: std::rc::Weak<RefCell<Shared>>) {
    loop {
        // Held weakly: the pool would otherwise outlive its worker for as long as a peer stays
        // silent.
        let Some(next) = pool.upgrade().and_then(|shared| shared.borrow_mut().next_deadline())
        else {
            return;
        };
        let mut timer = std::pin::pin!(sleep_until(next));
        poll_fn(|cx| {
            let Some(shared) = pool.upgrade() else { return Poll::Ready(()) };
            let shared = &mut *shared.borrow_mut();
            let before = shared.idle.len();
            shared.watcher = Some(cx.waker().clone());
            shared.drop_spoiled(cx, Instant::now());
            let changed = shared.idle.len() != before || shared.next_at() != Some(next);
            if changed { Poll::Ready(()) } else { timer.as_mut().poll(cx) }
        })
        .await;
    }
}

impl Shared {
    fn next_at(&self) -> Option<Instant> {
        self.idle.iter().map(|idle| idle.until).min()
    }

    /// The next time at which one has waited too long; when there is none, nobody watches any more.
    fn next_deadline(&mut self) -> Option<Instant> {
        let next = self.next_at();
        self.watched = next.is_some();
        next
    }

    fn drop_spoiled(&mut self, cx: &mut Context<'_>, now: Instant) {
        self.idle.retain(|idle| now < idle.until && idle.connection.poll_spoiled(cx).is_pending());
    }

    fn wake(&mut self) {
        if let Some(waker) = self.watcher.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::LocalSet;

    use super::*;
    use crate::listen::Stream;
    use crate::peers::connect::PeerStream;

    const RULES: Keepalive = Keepalive {
        connections: 2,
        requests: 100,
        time: Duration::from_secs(3600),
        timeout: Duration::from_secs(60),
        local: false,
    };

    fn key(group: &str) -> Key {
        let address = ListenAddr::Unix("peer".into());
        Key {
            group: group.as_bytes().into(),
            address,
            tag: None,
            header: None,
            name: None,
            certificate: None,
        }
    }

    async fn pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Connection::new(PeerStream::Plain(Stream::Tcp(near))), listener.accept().await.unwrap().0)
    }

    async fn settled(pool: &IdlePool, len: usize) {
        while pool.len() != len {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_last_one_used_is_taken_first_and_only_by_its_key() {
        LocalSet::new()
            .run_until(async {
                let pool = IdlePool::new();
                let (first, _a) = pair().await;
                let (mut second, _b) = pair().await;
                second.requests = 7;
                pool.keep(key("g"), first, RULES);
                pool.keep(key("g"), second, RULES);
                assert!(pool.take(&key("other")).is_none());
                assert_eq!(pool.take(&key("g")).unwrap().requests, 8);
                assert_eq!(pool.take(&key("g")).unwrap().requests, 2);
                assert!(pool.take(&key("g")).is_none());
            })
            .await;
    }

    #[tokio::test]
    async fn a_full_pool_drops_its_oldest() {
        LocalSet::new()
            .run_until(async {
                let pool = IdlePool::new();
                let mut far = Vec::new();
                for requests in 1..=3 {
                    let (mut near, other) = pair().await;
                    near.requests = requests;
                    pool.keep(key("g"), near, RULES);
                    far.push(other);
                }
                let (near, _other) = pair().await;
                pool.keep(key("h"), near, RULES);
                assert_eq!(pool.len(), 3);
                assert_eq!(pool.take(&key("g")).unwrap().requests, 4);
                assert_eq!(pool.take(&key("g")).unwrap().requests, 3);
                assert!(pool.take(&key("g")).is_none());
            })
            .await;
    }

    #[tokio::test]
    async fn a_peer_that_closes_or_speaks_is_dropped_while_idle() {
        LocalSet::new()
            .run_until(async {
                let pool = IdlePool::new();
                let (first, closing) = pair().await;
                let (second, mut speaking) = pair().await;
                pool.keep(key("g"), first, RULES);
                pool.keep(key("g"), second, RULES);
                drop(closing);
                settled(&pool, 1).await;
                speaking.write_all(b"HTTP/1.1 408 \r\n\r\n").await.unwrap();
                settled(&pool, 0).await;
                // The watcher has gone and comes back.
                let (third, closing) = pair().await;
                pool.keep(key("g"), third, RULES);
                drop(closing);
                settled(&pool, 0).await;
            })
            .await;
    }

    #[tokio::test]
    async fn a_worn_connection_is_not_kept() {
        LocalSet::new()
            .run_until(async {
                let pool = IdlePool::new();
                for rules in [
                    Keepalive { connections: 0, ..RULES },
                    Keepalive { requests: 1, ..RULES },
                    Keepalive { time: Duration::ZERO, ..RULES },
                ] {
                    let (near, _far) = pair().await;
                    pool.keep(key("g"), near, rules);
                    assert!(pool.is_empty());
                }
                let (near, mut far) = pair().await;
                far.write_all(b"more").await.unwrap();
                near.fill(16).await.unwrap();
                pool.keep(key("g"), near, RULES);
                assert!(pool.is_empty(), "bytes behind an answer belong to nobody");
            })
            .await;
    }

    #[tokio::test]
    async fn waiting_ends_by_itself() {
        LocalSet::new()
            .run_until(async {
                let pool = IdlePool::new();
                let (near, _far) = pair().await;
                let rules = Keepalive { timeout: Duration::from_millis(20), ..RULES };
                pool.keep(key("g"), near, rules);
                assert_eq!(pool.len(), 1);
                while !pool.is_empty() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
    }
}
