//! The library's own verification of a path that was found.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use aws_lc_sys as lc;

use crate::certificate::Certificate;
use crate::fault::Fault;
use crate::peer::Peer;
use crate::revocation::RevocationList;

/// What the library verifies with: the revocation lists.
#[derive(Debug)]
pub(crate) struct Store {
    store: NonNull<lc::X509_STORE>,
    has_lists: bool,
}

// SAFETY: the library counts references atomically and looks into a store under its lock.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

/// A complaint of the library about the certificate at this place of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) fault: Fault,
    pub(crate) place: usize,
}

/// What came of a verification.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) complaints: Vec<Complaint>,
    /// Whether the whole of just this path was looked at.
    pub(crate) is_complete: bool,
}

impl Store {
    /// A store of these lists; `None` when there is no memory for it.
    pub(crate) fn new(lists: &[RevocationList]) -> Option<Self> {
        // SAFETY: no conditions; the new object is ours.
        let store = NonNull::new(unsafe { lc::X509_STORE_new() })?;
        let this = Self { store, has_lists: !lists.is_empty() };
        // SAFETY: store and list are alive; the store takes a reference to the list.
        let add = |list: &RevocationList| unsafe {
            lc::X509_STORE_add_crl(store.as_ptr(), list.as_ptr()) == 1
        };
        lists.iter().all(add).then_some(this)
    }

    /// Verifies a path, of which the first `sent` certificates are believed nothing and the others are
    /// trusted, at `now` (seconds since the Unix epoch). All complaints are heard.
    pub(crate) fn verify(
        &self,
        path: &[Certificate],
        sent: usize,
        peer: Peer,
        now: i64,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        let (between, trusted) = (path.get(1..sent).unwrap_or_default(), &path[sent..]);
        let stacks = (Stack::new(between), Stack::new(trusted));
        let (Some(between), Some(trusted), Some(context)) = (stacks.0, stacks.1, Context::new())
        else {
            return verdict;
        };
        // Leaf and root are not counted; below zero the library would take its default.
        let depth = c_int::try_from(path.len().saturating_sub(2)).unwrap_or(c_int::MAX);
        let complaints = &raw mut verdict.complaints;
        // SAFETY: the store, the path, both stacks and `complaints` outlive the context, which is the
        // last of them to be made and the first to be dropped. `note` takes what is set here for a
        // `Vec<Complaint>`, and nobody else touches that until it has been called for the last time.
        let verified = unsafe {
            let context = context.0.as_ptr();
            let begun = lc::X509_STORE_CTX_init(
                context,
                self.store.as_ptr(),
                path[0].as_ptr(),
                between.as_ptr(),
            );
            if begun != 1
                || lc::X509_STORE_CTX_set_default(context, peer.settings().as_ptr()) != 1
                || lc::X509_STORE_CTX_set_ex_data(context, 0, complaints.cast()) != 1
            {
                return verdict;
            }
            lc::X509_STORE_CTX_set0_trusted_stack(context, trusted.as_ptr());
            if self.has_lists {
                let all = lc::X509_V_FLAG_CRL_CHECK | lc::X509_V_FLAG_CRL_CHECK_ALL;
                lc::X509_STORE_CTX_set_flags(context, all.cast_unsigned().into());
            }
            lc::X509_STORE_CTX_set_depth(context, depth);
            lc::X509_STORE_CTX_set_time_posix(context, 0, now);
            lc::X509_STORE_CTX_set_verify_cb(context, Some(note));
            lc::X509_verify_cert(context) == 1
        };
        verdict.is_complete = verified && context.has_verified(path);
        drop(context);
        // SAFETY: always allowed; what went wrong is told by the verdict.
        unsafe { lc::ERR_clear_error() };
        verdict
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: this reference is ours and is not used again.
        unsafe { lc::X509_STORE_free(self.store.as_ptr()) }
    }
}

/// Notes a complaint and lets the library go on.
unsafe extern "C" fn note(ok: c_int, context: *mut lc::X509_STORE_CTX) -> c_int {
    if ok == 0 {
        // SAFETY: the library calls with the context that it was given, whose first place holds
        // what `Store::verify` has put there.
        let (complaints, error, place) = unsafe {
            (
                lc::X509_STORE_CTX_get_ex_data(context, 0).cast::<Vec<Complaint>>().as_mut(),
                lc::X509_STORE_CTX_get_error(context),
                lc::X509_STORE_CTX_get_error_depth(context),
            )
        };
        let Some(complaints) = complaints else { return 0 };
        let place = usize::try_from(place).unwrap_or_default();
        complaints.push(Complaint { fault: Fault::of_library(error), place });
    }
    1
}

/// What one verification works with.
struct Context(NonNull<lc::X509_STORE_CTX>);

impl Context {
    fn new() -> Option<Self> {
        // SAFETY: no conditions; the new object is ours.
        NonNull::new(unsafe { lc::X509_STORE_CTX_new() }).map(Self)
    }

    /// Whether the path that was verified is this one.
    fn has_verified(&self, path: &[Certificate]) -> bool {
        // SAFETY: the context is alive and owns the stack, whose entries are certificates.
        unsafe {
            let chain = lc::X509_STORE_CTX_get0_chain(self.0.as_ptr()).cast::<lc::OPENSSL_STACK>();
            lc::OPENSSL_sk_num(chain) == path.len()
                && path.iter().enumerate().all(|(index, one)| {
                    let other = lc::OPENSSL_sk_value(chain, index).cast::<lc::X509>();
                    lc::X509_cmp(other, one.as_ptr()) == 0
                })
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again.
        unsafe { lc::X509_STORE_CTX_free(self.0.as_ptr()) }
    }
}

/// A stack of certificates, which it does not own.
pub(crate) struct Stack(NonNull<lc::OPENSSL_STACK>);

impl Stack {
    pub(crate) fn new(certificates: &[Certificate]) -> Option<Self> {
        // SAFETY: no conditions; the new object is ours.
        let stack = Self(NonNull::new(unsafe { lc::OPENSSL_sk_new_null() })?);
        let mut push = |one: &Certificate| {
            let one = one.as_ptr().cast::<c_void>();
            // SAFETY: the stack is alive and only holds the pointer.
            unsafe { lc::OPENSSL_sk_push(stack.0.as_ptr(), one) > 0 }
        };
        let filled = certificates.iter().all(&mut push);
        filled.then_some(stack)
    }

    pub(crate) fn as_ptr(&self) -> *mut lc::stack_st_X509 {
        self.0.as_ptr().cast()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again; what it held is not touched.
        unsafe { lc::OPENSSL_sk_free(self.0.as_ptr()) }
    }
}
