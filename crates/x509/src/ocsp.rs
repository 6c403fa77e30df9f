//! What a CA's responder says of a certificate (RFC 6960), for stapling: questions and answers, read
//! and verified by the library.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_long, c_uchar};
use std::ptr::{self, NonNull};
use std::slice;

use aws_lc_sys as lc;

use crate::certificate::Certificate;
use crate::library::Stack;

/// By how many seconds the clock of a responder may be wrong, as in nginx.
const DRIFT: c_long = 300;

/// For how many seconds an answer counts that does not say until when: a newer one is always to be had then
/// (RFC 6960 §4.2.2.1), and Firefox believes one for so long.
const DAY: c_long = 86_400;

/// A certificate that a responder is asked about.
#[derive(Debug)]
pub struct Subject {
    leaf: Certificate,
    issuer: Certificate,
    /// What is sent besides the certificate: a responder's may be among it.
    sent: Vec<Certificate>,
    /// Whom responders are issued by.
    trusted: Vec<Certificate>,
}

/// An answer that says that the certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Good {
    /// Until when, in seconds since the Unix epoch; for a day after its making when it does not say.
    pub until: i64,
}

/// Why an answer is not one to show; the texts are nginx's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is no answer.
    #[error("d2i_OCSP_RESPONSE() failed")]
    Unreadable,
    /// The responder could not answer.
    #[error("OCSP response not successful ({number}: {words})", number = .0, words = status_words(*.0))]
    Unsuccessful(i32),
    /// The signature is wrong, or not that of somebody who may answer.
    #[error("OCSP_basic_verify() failed")]
    Unverified,
    /// It is about other certificates.
    #[error("certificate status not found in the OCSP response")]
    OtherCertificate,
    /// It is over, or not valid yet.
    #[error("OCSP_check_validity() failed: the response is out of date")]
    OutOfDate,
    /// The certificate is revoked; until when the answer counts, as in [`Good`].
    #[error("certificate status \"revoked\" in the OCSP response")]
    Revoked(i64),
    /// The responder does not know it; until when the answer counts.
    #[error("certificate status \"unknown\" in the OCSP response")]
    Unknown(i64),
}

fn status_words(status: i32) -> &'static str {
    match status {
        1 => "malformedrequest",
        2 => "internalerror",
        3 => "trylater",
        5 => "sigrequired",
        6 => "unauthorized",
        _ => "(UNKNOWN)",
    }
}

/// Whether these bytes are an answer, whatever it says.
pub fn is_response(der: &[u8]) -> bool {
    Response::parse(der).is_some()
}

impl Subject {
    /// A certificate with those that are sent with it; its issuer is among them, or among `trusted`.
    /// `None` when it is not.
    pub fn new(
        leaf: Certificate,
        sent: Vec<Certificate>,
        trusted: Vec<Certificate>,
    ) -> Option<Self> {
        let issuer = sent.iter().chain(&trusted).find(|one| one.likely_issued(&leaf))?.clone();
        Some(Self { leaf, issuer, sent, trusted })
    }

    /// The URL that the certificate names for questions.
    pub fn responder(&self) -> Option<String> {
        // SAFETY: the certificate is alive; the stack of strings is ours.
        let urls = NonNull::new(unsafe { lc::X509_get1_ocsp(self.leaf.as_ptr()) })?;
        // SAFETY: the stack is alive and holds strings that end with a zero; what is found is copied
        // before it goes, and it is not used again.
        unsafe {
            let first = lc::OPENSSL_sk_value(urls.as_ptr().cast::<lc::OPENSSL_STACK>(), 0);
            let url = (!first.is_null())
                .then(|| CStr::from_ptr(first.cast()).to_string_lossy().into_owned());
            lc::X509_email_free(urls.as_ptr());
            url
        }
    }

    /// The question about it, in DER; `None` when there is no memory for it.
    pub fn request(&self) -> Option<Vec<u8>> {
        // SAFETY: no conditions; the new object is ours.
        let request = Request(NonNull::new(unsafe { lc::OCSP_REQUEST_new() })?);
        let id = self.id()?;
        // SAFETY: both are alive. Once it is added, the request owns the identifier.
        let added = unsafe { lc::OCSP_request_add0_id(request.0.as_ptr(), id.0.as_ptr()) };
        if added.is_null() {
            return None;
        }
        std::mem::forget(id);
        // SAFETY: the request is alive; without a place only the length is told.
        let len = unsafe { lc::i2d_OCSP_REQUEST(request.0.as_ptr(), ptr::null_mut()) };
        let mut der: Vec<u8> = vec![0; usize::try_from(len).ok()?];
        let mut place: *mut c_uchar = der.as_mut_ptr();
        // SAFETY: the request is alive, and so many bytes is what it needs.
        let written = unsafe { lc::i2d_OCSP_REQUEST(request.0.as_ptr(), &raw mut place) };
        (written == len).then_some(der)
    }

    /// Whether an answer says now that the certificate is good. The responder must be the issuer, have
    /// its word, or be one of those that are sent or trusted (RFC 6960 §4.2.2.2); with `authority` the
    /// issuer's word must also go up to somebody who is trusted.
    ///
    /// # Errors
    /// When it does not.
    pub fn judge(&self, answer: &[u8], authority: bool) -> Result<Good, Unfit> {
        let result = self.judge_as(answer, authority);
        // SAFETY: always allowed; what went wrong is told by the result.
        unsafe { lc::ERR_clear_error() };
        result
    }

    fn judge_as(&self, answer: &[u8], authority: bool) -> Result<Good, Unfit> {
        let response = Response::parse(answer).ok_or(Unfit::Unreadable)?;
        // SAFETY: it is alive.
        let status = unsafe { lc::OCSP_response_status(response.0.as_ptr()) };
        if status != lc::OCSP_RESPONSE_STATUS_SUCCESSFUL {
            return Err(Unfit::Unsuccessful(status));
        }
        // SAFETY: it is alive; what is given is ours.
        let basic = unsafe { lc::OCSP_response_get1_basic(response.0.as_ptr()) };
        let basic = Basic(NonNull::new(basic).ok_or(Unfit::Unreadable)?);
        self.verify_signer(&basic)?;
        if authority {
            let sent = [&self.issuer].into_iter().chain(&self.sent).cloned().collect::<Vec<_>>();
            let store = Trusted::new(&self.trusted).ok_or(Unfit::Unverified)?;
            verify(&basic, &sent, &store, lc::OCSP_TRUSTOTHER)?;
        }
        let id = self.id().ok_or(Unfit::OtherCertificate)?;
        let (mut status, mut since, mut until) = (-1, ptr::null_mut(), ptr::null_mut());
        // SAFETY: answer and identifier are alive; the places are ours, and the times that they point
        // to afterwards belong to the answer.
        let (found, is_current) = unsafe {
            let found = lc::OCSP_resp_find_status(
                basic.0.as_ptr(),
                id.0.as_ptr(),
                &raw mut status,
                ptr::null_mut(),
                ptr::null_mut(),
                &raw mut since,
                &raw mut until,
            );
            let oldest = if until.is_null() { DAY } else { -1 };
            let is_current = || lc::OCSP_check_validity(since, until, DRIFT, oldest) == 1;
            (found == 1, found == 1 && is_current())
        };
        if !found {
            return Err(Unfit::OtherCertificate);
        }
        let until = match until.is_null() {
            true => posix(since).map(|since| since + DAY),
            false => posix(until),
        };
        let until = until.filter(|_| is_current).ok_or(Unfit::OutOfDate)?;
        match status {
            lc::V_OCSP_CERTSTATUS_GOOD => Ok(Good { until }),
            lc::V_OCSP_CERTSTATUS_REVOKED => Err(Unfit::Revoked(until)),
            _ => Err(Unfit::Unknown(until)),
        }
    }

    /// Whether an answer is signed by somebody who may.
    fn verify_signer(&self, basic: &Basic) -> Result<(), Unfit> {
        let known = [&self.issuer].into_iter().chain(&self.sent).chain(&self.trusted);
        let known: Vec<_> = known.cloned().collect();
        let store = Trusted::new(slice::from_ref(&self.issuer)).ok_or(Unfit::Unverified)?;
        // SAFETY: the store is alive. The issuer ends a path also when it is not a root.
        unsafe {
            lc::X509_STORE_set_flags(
                store.0.as_ptr(),
                lc::X509_V_FLAG_PARTIAL_CHAIN.cast_unsigned().into(),
            )
        };
        let flags = lc::OCSP_TRUSTOTHER | lc::OCSP_NOCHAIN | lc::OCSP_NOEXPLICIT;
        verify(basic, &known, &store, flags)
    }

    fn id(&self) -> Option<Id> {
        // SAFETY: both are alive; without a digest the library takes SHA-1, as all responders do. The
        // new object is ours.
        let id =
            unsafe { lc::OCSP_cert_to_id(ptr::null(), self.leaf.as_ptr(), self.issuer.as_ptr()) };
        NonNull::new(id).map(Id)
    }
}

/// Verifies the signature of an answer; its signer is looked for among `known` first.
fn verify(basic: &Basic, known: &[Certificate], store: &Trusted, flags: i32) -> Result<(), Unfit> {
    let known_stack = Stack::new(known).ok_or(Unfit::Unverified)?;
    // SAFETY: answer, stack and store are alive, and so is what the stack holds: `known`.
    let verified = unsafe {
        lc::OCSP_basic_verify(
            basic.0.as_ptr(),
            known_stack.as_ptr(),
            store.0.as_ptr(),
            flags.cast_unsigned().into(),
        )
    };
    if verified == 1 { Ok(()) } else { Err(Unfit::Unverified) }
}

/// A time of the library in seconds since the Unix epoch.
fn posix(time: *const lc::ASN1_GENERALIZEDTIME) -> Option<i64> {
    let mut seconds = 0;
    // SAFETY: it is null or belongs to an answer that is alive; the place is ours.
    let read = !time.is_null() && unsafe { lc::ASN1_TIME_to_posix(time, &raw mut seconds) } == 1;
    read.then_some(seconds)
}

struct Request(NonNull<lc::OCSP_REQUEST>);

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again.
        unsafe { lc::OCSP_REQUEST_free(self.0.as_ptr()) }
    }
}

struct Id(NonNull<lc::OCSP_CERTID>);

impl Drop for Id {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again.
        unsafe { lc::OCSP_CERTID_free(self.0.as_ptr()) }
    }
}

struct Response(NonNull<lc::OCSP_RESPONSE>);

impl Response {
    fn parse(der: &[u8]) -> Option<Self> {
        let mut rest = der.as_ptr();
        let len = c_long::try_from(der.len()).ok()?;
        // SAFETY: `rest` points to `len` bytes that live through the call; a new object is asked for,
        // which is ours.
        let read = unsafe { lc::d2i_OCSP_RESPONSE(ptr::null_mut(), &raw mut rest, len) };
        // SAFETY: always allowed; what went wrong is told by the result.
        unsafe { lc::ERR_clear_error() };
        let this = NonNull::new(read).map(Self)?;
        (rest.addr() - der.as_ptr().addr() == der.len()).then_some(this)
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again.
        unsafe { lc::OCSP_RESPONSE_free(self.0.as_ptr()) }
    }
}

struct Basic(NonNull<lc::OCSP_BASICRESP>);

impl Drop for Basic {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again.
        unsafe { lc::OCSP_BASICRESP_free(self.0.as_ptr()) }
    }
}

/// A store of certificates that are trusted.
struct Trusted(NonNull<lc::X509_STORE>);

impl Trusted {
    fn new(certificates: &[Certificate]) -> Option<Self> {
        // SAFETY: no conditions; the new object is ours.
        let store = Self(NonNull::new(unsafe { lc::X509_STORE_new() })?);
        let add = |one: &Certificate| {
            // SAFETY: both are alive; the store takes a reference.
            let added: c_int = unsafe { lc::X509_STORE_add_cert(store.0.as_ptr(), one.as_ptr()) };
            added == 1
        };
        certificates.iter().all(add).then_some(store)
    }
}

impl Drop for Trusted {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again.
        unsafe { lc::X509_STORE_free(self.0.as_ptr()) }
    }
}
