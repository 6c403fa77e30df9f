//! Revocation lists.

#![allow(unsafe_code)]

use std::ffi::c_long;
use std::ptr::{self, NonNull};

use aws_lc_sys::{ERR_clear_error, X509_CRL, X509_CRL_free, d2i_X509_CRL};

/// A revocation list of X.509, version 1 or 2.
#[derive(Debug)]
pub struct RevocationList(NonNull<X509_CRL>);

// SAFETY: the library counts references atomically and does not change a list after it was read.
unsafe impl Send for RevocationList {}
// SAFETY: as above.
unsafe impl Sync for RevocationList {}

impl RevocationList {
    /// Reads a list in DER; `None` when the library cannot read it.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let mut rest = der.as_ptr();
        let len = c_long::try_from(der.len()).ok()?;
        // SAFETY: `rest` points to `len` bytes that live through the call; a new object is asked
        // for, which is ours.
        let list = unsafe { d2i_X509_CRL(ptr::null_mut(), &raw mut rest, len) };
        let list = NonNull::new(list).map(Self);
        // SAFETY: always allowed; what went wrong is told by the result.
        unsafe { ERR_clear_error() };
        // What follows the list is no part of it.
        list.filter(|_| ptr::eq(rest, der.as_ptr_range().end))
    }

    pub(crate) fn as_ptr(&self) -> *mut X509_CRL {
        self.0.as_ptr()
    }
}

impl Drop for RevocationList {
    fn drop(&mut self) {
        // SAFETY: this reference is ours and is not used again.
        unsafe { X509_CRL_free(self.0.as_ptr()) }
    }
}
