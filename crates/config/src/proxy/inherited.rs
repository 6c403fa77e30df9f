//! What a level hands down of the settings for passing requests on. Levels share the parts about which they say
//! nothing, whatever they say about the others.

use crate::common::Common;
use crate::position::Position;
use crate::proxy::redirect::{Redirects, redirects};
use crate::proxy::tls::{self, ProxyTls};
use crate::proxy::{PROXY_HIDE_HEADER, PROXY_PASS_HEADER, PROXY_SET_HEADER};
use crate::read::Reading;
use crate::scope::Scope;
use crate::template::Template;

/// What a level hands down.
pub(crate) struct InheritedProxy {
    pub(super) redirects: Redirects,
    pub(super) set_headers: Common<Vec<(Box<[u8]>, Template)>>,
    pub(super) hide_headers: Common<Vec<Box<[u8]>>>,
    pub(super) tls: Common<ProxyTls>,
}

impl InheritedProxy {
    /// What the `http` level is handed.
    pub(crate) fn outermost() -> Self {
        Self {
            redirects: Redirects { on: true, rules: None },
            set_headers: Common::new(),
            hide_headers: Common::new(),
            tls: Common::new(),
        }
    }

    /// What a level inside hands down.
    pub(crate) fn inner(
        &self,
        reading: &mut Reading<'_>,
        scope: &Scope<'_, '_>,
        position: &Position<'_>,
    ) -> Self {
        let level = scope.level;
        let hides = level.has(&PROXY_HIDE_HEADER) || level.has(&PROXY_PASS_HEADER);
        Self {
            redirects: redirects(reading, scope, &self.redirects, position.name),
            set_headers: self.set_headers.inner(!level.has(&PROXY_SET_HEADER)),
            hide_headers: self.hide_headers.inner(!hides),
            tls: self.tls.inner(!level.has_any(&[tls::ROWS])),
        }
    }
}
