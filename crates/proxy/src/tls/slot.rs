//! A certificate that is replaced while servers use it.

use std::fmt;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rustls::sign::CertifiedKey;

use super::certificates;

/// How often it is told that handshakes fail for want of a certificate.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// A certificate that is replaced while servers use it; it may not be there yet. Each handshake takes the newest.
#[derive(Default)]
pub struct Slot {
    certificate: ArcSwapOption<Obtained>,
    told_at: Mutex<Option<Instant>>,
}

struct Obtained {
    key: Arc<CertifiedKey>,
    end: Option<i64>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl Slot {
    /// The newest certificate, if there is any.
    pub fn certificate(&self) -> Option<Arc<CertifiedKey>> {
        self.certificate.load().as_ref().map(|obtained| Arc::clone(&obtained.key))
    }

    /// When the newest certificate ends, in seconds since the Unix epoch; `None` if there is none, or that cannot be
    /// read.
    pub(super) fn end(&self) -> Option<i64> {
        self.certificate.load().as_ref()?.end
    }

    /// Uses another certificate from the next handshake on.
    pub fn set(&self, certificate: Arc<CertifiedKey>) {
        let obtained = Obtained { end: certificates::end(&certificate), key: certificate };
        self.certificate.store(Some(Arc::new(obtained)));
    }

    /// Whether it is to be told that there is none; that was not done just now.
    pub(crate) fn tells(&self) -> bool {
        let now = Instant::now();
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        let tells = told_at.is_none_or(|at| now.saturating_duration_since(at) >= TELL_INTERVAL);
        if tells {
            *told_at = Some(now);
        }
        tells
    }
}
