//! A certificate as servers show it: it may be replaced, and what its CA says of it goes along.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;

use super::certificates;

/// A certificate with its key that handshakes take the newest of.
pub(super) struct Served {
    current: ArcSwap<Current>,
    replaced: Notify,
}

struct Current {
    bare: Arc<CertifiedKey>,
    /// When it ends, in seconds since the Unix epoch.
    end: Option<i64>,
    stapled: Option<Stapled>,
}

#[derive(Clone)]
struct Stapled {
    key: Arc<CertifiedKey>,
    /// Seconds since the Unix epoch.
    until: i64,
}

impl fmt::Debug for Served {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Served").finish_non_exhaustive()
    }
}

impl Current {
    fn new(key: Arc<CertifiedKey>) -> Self {
        Self { end: certificates::end(&key), bare: key, stapled: None }
    }
}

impl Served {
    pub(super) fn new(key: Arc<CertifiedKey>) -> Self {
        let current = ArcSwap::from_pointee(Current::new(key));
        Self { current, replaced: Notify::new() }
    }

    /// What to show at `now` (seconds since the Unix epoch). What a CA has said counts until then.
    pub(super) fn at(&self, now: i64) -> Arc<CertifiedKey> {
        let current = self.current.load();
        let stapled = current.stapled.as_ref().filter(|stapled| now < stapled.until);
        Arc::clone(stapled.map_or(&current.bare, |stapled| &stapled.key))
    }

    /// The certificate alone.
    pub(super) fn bare(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.load().bare)
    }

    /// When it ends, in seconds since the Unix epoch; `None` if that cannot be read.
    pub(super) fn end(&self) -> Option<i64> {
        self.current.load().end
    }

    /// Shows `answer` with the certificate until it is over, if that is still `of`.
    pub(super) fn staple(&self, of: &Arc<CertifiedKey>, answer: &[u8], until: i64) {
        let mut key = (**of).clone();
        key.ocsp = Some(answer.to_vec());
        let stapled = Stapled { key: Arc::new(key), until };
        self.current.rcu(|current| {
            let is_same = Arc::ptr_eq(&current.bare, of);
            let stapled = if is_same { Some(stapled.clone()) } else { current.stapled.clone() };
            Current { bare: Arc::clone(&current.bare), end: current.end, stapled }
        });
    }

    /// Shows nothing with the certificate any more, if that is still `of`.
    pub(super) fn unstaple(&self, of: &Arc<CertifiedKey>) {
        self.current.rcu(|current| {
            let is_same = Arc::ptr_eq(&current.bare, of);
            let stapled = current.stapled.clone().filter(|_| !is_same);
            Current { bare: Arc::clone(&current.bare), end: current.end, stapled }
        });
    }

    /// Shows another certificate from now on.
    pub(super) fn replace(&self, key: Arc<CertifiedKey>) {
        self.current.store(Arc::new(Current::new(key)));
        self.replaced.notify_one();
    }

    /// Waits for the next replacement. One waits at most.
    pub(super) async fn replaced(&self) {
        self.replaced.notified().await;
    }
}
