//! Certificates, and what can be asked of one.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_long};
use std::ptr::{self, NonNull};

use aws_lc_sys as lc;

use crate::der;
use crate::fault::Fault;
use crate::peer::Peer;

/// The smallest RSA key with the 112 bits of security that OpenSSL's level 2 demands, as
/// OpenSSL estimates them.
const MIN_RSA_BITS: i32 = 1963;

/// The smallest order of a curve with 112 bits of security.
const MIN_EC_BITS: i32 = 224;

/// Digests with 112 bits of security, by the last byte of 2.16.840.1.101.3.4.2: SHA-256, 384, 512,
/// 224, and those of SHA-3.
const STRONG_DIGESTS: std::ops::RangeInclusive<u8> = 1..=10;
const NIST_DIGESTS: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02";

/// A certificate of X.509. Clones share it.
#[derive(Debug)]
pub struct Certificate(NonNull<lc::X509>);

// SAFETY: the library counts references atomically; what it notes of a certificate later (its
// extensions, its key) it notes under a lock.
unsafe impl Send for Certificate {}
// SAFETY: as above.
unsafe impl Sync for Certificate {}

impl Certificate {
    /// Reads a certificate in DER; `None` when the library cannot read it.
    pub fn parse(der: &[u8]) -> Option<Self> {
        Self::parse_front(der).and_then(|(this, rest)| rest.is_empty().then_some(this))
    }

    /// Reads the certificate at the front of `der`; gives also what follows it.
    pub fn parse_front(der: &[u8]) -> Option<(Self, &[u8])> {
        let mut rest = der.as_ptr();
        let len = c_long::try_from(der.len()).ok()?;
        // SAFETY: `rest` points to `len` bytes that live through the call; a new object is asked
        // for, which is ours.
        let read = unsafe { lc::d2i_X509(ptr::null_mut(), &raw mut rest, len) };
        // SAFETY: always allowed; what went wrong is told by the result.
        unsafe { lc::ERR_clear_error() };
        let this = NonNull::new(read).map(Self)?;
        // The library advances the pointer by what it has read.
        let used = rest.addr() - der.as_ptr().addr();
        Some((this, &der[used..]))
    }

    pub(crate) fn as_ptr(&self) -> *mut lc::X509 {
        self.0.as_ptr()
    }

    /// Whether both are the same, byte for byte.
    pub(crate) fn is(&self, other: &Self) -> bool {
        // SAFETY: both are alive.
        unsafe { lc::X509_cmp(self.as_ptr(), other.as_ptr()) == 0 }
    }

    /// The name of its owner in DER.
    pub fn subject(&self) -> Vec<u8> {
        let (mut der, mut len) = (ptr::null(), 0);
        // SAFETY: the certificate is alive and owns the name; both places are ours.
        let found = unsafe {
            let name = lc::X509_get_subject_name(self.as_ptr());
            lc::X509_NAME_get0_der(name, &raw mut der, &raw mut len)
        };
        if found != 1 || der.is_null() {
            return Vec::new();
        }
        // SAFETY: so many bytes, which belong to the name, and so live as long as the certificate.
        unsafe { std::slice::from_raw_parts(der, len) }.to_vec()
    }

    /// Whether `subject` says that this has issued it: names and key identifiers fit, and so do the
    /// kinds of key and signature.
    pub(crate) fn likely_issued(&self, subject: &Self) -> bool {
        // SAFETY: both are alive.
        let found = unsafe { lc::X509_check_issued(self.as_ptr(), subject.as_ptr()) };
        match found {
            // OpenSSL asks later whether this may sign.
            lc::X509_V_OK | lc::X509_V_ERR_KEYUSAGE_NO_CERTSIGN => {}
            // The library cannot make sense of one of them. OpenSSL may, and then find fault with it,
            // which is worse than to lack an issuer: so it goes onto the path, where nothing is
            // trusted that the library has not understood.
            lc::X509_V_ERR_UNSPECIFIED => {}
            _ => return false,
        }
        self.could_have_signed(subject)
            && !self.has_pointless_distribution_point()
            && !subject.has_pointless_distribution_point()
    }

    /// Whether the signature of `subject` is of the kind that this key makes.
    fn could_have_signed(&self, subject: &Self) -> bool {
        let kind = self.key_kind();
        // SAFETY: the certificate is alive; the place for the result is ours.
        let (known, key) = unsafe {
            let nid = lc::X509_get_signature_nid(subject.as_ptr());
            let mut key = 0;
            (lc::OBJ_find_sigid_algs(nid, ptr::null_mut(), &raw mut key), key)
        };
        let is_rsa = |kind: i32| [lc::EVP_PKEY_RSA, lc::EVP_PKEY_RSA_PSS].contains(&kind);
        // A key that only OpenSSL can read may have; on the path it is found to be unreadable.
        known != 1 || kind.is_none_or(|kind| kind == key || is_rsa(kind) && is_rsa(key))
    }

    fn key(&self) -> Option<NonNull<lc::EVP_PKEY>> {
        // SAFETY: the certificate is alive; the key belongs to it.
        let key = unsafe { lc::X509_get0_pubkey(self.as_ptr()) };
        // SAFETY: always allowed.
        unsafe { lc::ERR_clear_error() };
        NonNull::new(key)
    }

    fn key_kind(&self) -> Option<i32> {
        // SAFETY: the key lives as long as the certificate.
        self.key().map(|key| unsafe { lc::EVP_PKEY_id(key.as_ptr()) })
    }

    /// Whether the library can read its key.
    pub(crate) fn has_readable_key(&self) -> bool {
        self.key().is_some()
    }

    /// Whether the key is as strong as OpenSSL's level 2 demands.
    pub(crate) fn has_strong_key(&self) -> bool {
        let Some(key) = self.key() else { return false };
        // SAFETY: the key lives as long as the certificate.
        let bits = unsafe { lc::EVP_PKEY_bits(key.as_ptr()) };
        match self.key_kind() {
            Some(lc::EVP_PKEY_RSA | lc::EVP_PKEY_RSA_PSS) => bits >= MIN_RSA_BITS,
            Some(lc::EVP_PKEY_EC) => bits >= MIN_EC_BITS,
            Some(lc::EVP_PKEY_ED25519) => true,
            // Nobody shakes hands with them here.
            _ => false,
        }
    }

    /// Whether the key's curve is described by numbers and not named.
    pub fn has_explicit_curve(&self) -> bool {
        let Some(key) = self.key().filter(|_| self.key_kind() == Some(lc::EVP_PKEY_EC)) else {
            return false;
        };
        // SAFETY: the key lives as long as the certificate, and its EC key as long as that.
        #[allow(deprecated, reason = "there is no other way to ask")]
        unsafe {
            let key = lc::EVP_PKEY_get0_EC_KEY(key.as_ptr());
            !key.is_null() && lc::EC_KEY_decoded_from_explicit_params(key) != 0
        }
    }

    /// Whether the digest of its signature is as strong as OpenSSL's level 2 demands.
    pub(crate) fn has_strong_digest(&self) -> bool {
        let (mut digest, mut key, mut bits, mut flags) = (0, 0, 0, 0);
        // SAFETY: the certificate is alive; the places for results are ours.
        let known = unsafe {
            lc::X509_get_signature_info(
                self.as_ptr(),
                &raw mut digest,
                &raw mut key,
                &raw mut bits,
                &raw mut flags,
            )
        };
        match digest {
            _ if known != 1 => false,
            // Ed25519 has its own.
            lc::NID_undef if key == lc::NID_ED25519 => true,
            lc::NID_undef => self.has_strong_pss_digest(),
            _ => bits >= 112,
        }
    }

    /// The digest of RSASSA-PSS stands in its parameters (RFC 4055 §3.1); SHA-1 when it does not.
    fn has_strong_pss_digest(&self) -> bool {
        let mut parameters = self.signature_parameters();
        let digest = || {
            let mut parameters = der::take(&mut parameters, der::SEQUENCE)?;
            let mut digest = der::take(&mut parameters, der::CONTEXT_0)?;
            let mut digest = der::take(&mut digest, der::SEQUENCE)?;
            der::take(&mut digest, der::OID)
        };
        let last = { digest }().and_then(|oid| oid.strip_prefix(NIST_DIGESTS));
        last.is_some_and(|last| last.len() == 1 && STRONG_DIGESTS.contains(&last[0]))
    }

    /// The parameters of the signature's algorithm if they are a sequence; empty otherwise.
    fn signature_parameters(&self) -> &[u8] {
        let (mut kind, mut value) = (0, ptr::null());
        // SAFETY: the certificate is alive and owns the algorithm; the places for results are ours.
        unsafe {
            let mut algorithm = ptr::null();
            lc::X509_get0_signature(ptr::null_mut(), &raw mut algorithm, self.as_ptr());
            lc::X509_ALGOR_get0(ptr::null_mut(), &raw mut kind, &raw mut value, algorithm);
        }
        if kind != lc::V_ASN1_SEQUENCE || value.is_null() {
            return &[];
        }
        let value = value.cast::<lc::ASN1_STRING>();
        // SAFETY: a value of this kind is a string, which belongs to the certificate.
        let (data, len) =
            unsafe { (lc::ASN1_STRING_get0_data(value), lc::ASN1_STRING_length(value)) };
        let len = usize::try_from(len).unwrap_or_default();
        if data.is_null() {
            return &[];
        }
        // SAFETY: the string has so many bytes and lives as long as the certificate.
        unsafe { std::slice::from_raw_parts(data, len) }
    }

    fn flags(&self) -> i32 {
        // SAFETY: the certificate is alive.
        let flags = unsafe { lc::X509_get_extension_flags(self.as_ptr()) };
        flags.cast_signed()
    }

    fn has_flags(&self, flags: i32) -> bool {
        self.flags() & flags == flags
    }

    /// Whether subject and issuer are the same name.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.has_flags(lc::EXFLAG_SI)
    }

    /// Whether it says that it has signed itself. OpenSSL does not check that signature.
    pub(crate) fn is_self_signed(&self) -> bool {
        self.is_self_issued() && self.likely_issued(self) && self.has_known_signature()
    }

    fn has_known_signature(&self) -> bool {
        // SAFETY: the certificate is alive; nobody wants to know the parts of the algorithm.
        unsafe {
            let nid = lc::X509_get_signature_nid(self.as_ptr());
            lc::OBJ_find_sigid_algs(nid, ptr::null_mut(), ptr::null_mut()) == 1
        }
    }

    pub(crate) fn has_unknown_critical_extension(&self) -> bool {
        self.has_flags(lc::EXFLAG_CRITICAL)
    }

    fn has_extension(&self, nid: i32) -> bool {
        // SAFETY: the certificate is alive; -1 begins at the first extension.
        unsafe { lc::X509_get_ext_by_NID(self.as_ptr(), nid, -1) >= 0 }
    }

    pub(crate) fn is_proxy(&self) -> bool {
        self.has_extension(lc::NID_proxyCertInfo)
    }

    /// Whether it speaks of addresses or autonomous systems (RFC 3779).
    pub(crate) fn has_resources(&self) -> bool {
        [lc::NID_sbgp_ipAddrBlock, lc::NID_sbgp_autonomousSysNum]
            .into_iter()
            .any(|nid| self.has_extension(nid))
    }

    /// Whether key usage, if there is any, allows to sign certificates.
    pub(crate) fn may_sign_certificates(&self) -> bool {
        // SAFETY: the certificate is alive.
        let usage = unsafe { lc::X509_get_key_usage(self.as_ptr()) };
        usage.cast_signed() & lc::X509v3_KU_KEY_CERT_SIGN != 0
    }

    /// Whether its owner may sign handshakes, as he does with an ECDSA key: key usage, if there is any,
    /// must allow it. OpenSSL asks servers for this up to TLS 1.2, besides their purpose.
    pub fn may_sign_handshakes(&self) -> bool {
        // SAFETY: the certificate is alive.
        let usage = unsafe { lc::X509_get_key_usage(self.as_ptr()) };
        self.key_kind() != Some(lc::EVP_PKEY_EC)
            || usage.cast_signed() & lc::X509v3_KU_DIGITAL_SIGNATURE != 0
    }

    /// What makes this a CA's certificate, if anything does.
    pub(crate) fn authority(&self) -> Authority {
        let flags = self.flags();
        let has = |wanted| flags & wanted == wanted;
        if has(lc::EXFLAG_KUSAGE) && !self.may_sign_certificates() {
            return Authority::No;
        }
        if has(lc::EXFLAG_BCONS) {
            return if has(lc::EXFLAG_CA) { Authority::Yes } else { Authority::No };
        }
        let old_root = has(lc::EXFLAG_V1) && self.is_self_signed();
        if old_root || has(lc::EXFLAG_KUSAGE) { Authority::Tolerated } else { Authority::No }
    }

    /// Whether a leaf was made for a peer of this kind.
    pub(crate) fn is_for(&self, peer: Peer) -> bool {
        // SAFETY: the certificate is alive.
        unsafe { lc::X509_check_purpose(self.as_ptr(), peer.purpose(), 0) == 1 }
    }

    /// Whether extended key usage, if there is any, allows this CA's to stand above a peer of this
    /// kind.
    pub(crate) fn may_be_above(&self, peer: Peer) -> bool {
        // SAFETY: the certificate is alive.
        let usage = unsafe { lc::X509_get_extended_key_usage(self.as_ptr()) };
        !self.has_flags(lc::EXFLAG_XKUSAGE) || usage.cast_signed() & peer.extended_usage() != 0
    }

    /// How many CAs may stand between this and a leaf, if that is bounded.
    pub(crate) fn path_length(&self) -> Option<usize> {
        // SAFETY: the certificate is alive.
        let length = unsafe { lc::X509_get_pathlen(self.as_ptr()) };
        usize::try_from(length).ok()
    }

    /// What is wrong at `now`, in seconds since the Unix epoch.
    pub(crate) fn time_faults(&self, now: i64) -> impl Iterator<Item = Fault> {
        let start = match self.compare_start(now) {
            0 => Some(Fault::NOT_BEFORE),
            1.. => Some(Fault::NOT_YET_VALID),
            _ => None,
        };
        // SAFETY: the certificate is alive and owns the time.
        let end = match unsafe { lc::X509_cmp_time_posix(self.not_after(), now) } {
            0 => Some(Fault::NOT_AFTER),
            ..0 => Some(Fault::EXPIRED),
            _ => None,
        };
        start.into_iter().chain(end)
    }

    fn compare_start(&self, now: i64) -> c_int {
        // SAFETY: the certificate is alive and owns the time.
        unsafe { lc::X509_cmp_time_posix(lc::X509_get0_notBefore(self.as_ptr()), now) }
    }

    fn not_after(&self) -> *const lc::ASN1_TIME {
        // SAFETY: the certificate is alive.
        unsafe { lc::X509_get0_notAfter(self.as_ptr()) }
    }

    /// When it ends, in seconds since the Unix epoch; long ago if that cannot be read.
    pub(crate) fn end(&self) -> i64 {
        let mut end = 0;
        // SAFETY: the certificate is alive and owns the time; the place for the result is ours.
        let read = unsafe { lc::ASN1_TIME_to_posix(self.not_after(), &raw mut end) };
        if read == 1 { end } else { i64::MIN }
    }

    /// Whether a distribution point of revocation lists is for some reasons only.
    pub(crate) fn has_partial_distribution_point(&self) -> bool {
        self.any_distribution_point(|point| !point.reasons.is_null())
    }

    /// Whether a distribution point says neither where nor whose its list is, which OpenSSL does not
    /// accept (RFC 5280 §4.2.1.13).
    fn has_pointless_distribution_point(&self) -> bool {
        self.any_distribution_point(|point| point.distpoint.is_null() && point.CRLissuer.is_null())
    }

    fn any_distribution_point(&self, is_wanted: impl Fn(&lc::DIST_POINT) -> bool) -> bool {
        if !self.has_extension(lc::NID_crl_distribution_points) {
            return false;
        }
        // SAFETY: the certificate is alive; nobody wants to know what else there is.
        let points = unsafe {
            lc::X509_get_ext_d2i(
                self.as_ptr(),
                lc::NID_crl_distribution_points,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        let Some(points) = NonNull::new(points) else { return false };
        let stack = points.as_ptr().cast::<lc::OPENSSL_STACK>();
        // SAFETY: this extension is a stack of distribution points. It is ours and is freed once,
        // after its last use.
        unsafe {
            let found = (0..lc::OPENSSL_sk_num(stack)).any(|index| {
                is_wanted(&*lc::OPENSSL_sk_value(stack, index).cast::<lc::DIST_POINT>())
            });
            lc::CRL_DIST_POINTS_free(points.as_ptr().cast());
            found
        }
    }

    /// Whether it is for the host `name`: by its alternative names, or by its common names when none
    /// of those is a host's.
    pub fn is_for_host(&self, name: &[u8]) -> bool {
        // Without a length the library would look for the end by itself.
        if name.is_empty() {
            return false;
        }
        // SAFETY: the certificate is alive, the name has this length; its peer's name is not asked.
        let found = unsafe {
            lc::X509_check_host(self.as_ptr(), name.as_ptr().cast(), name.len(), 0, ptr::null_mut())
        };
        // SAFETY: always allowed.
        unsafe { lc::ERR_clear_error() };
        found == 1
    }

    /// Whether it is for an IP address, given by its 4 or 16 bytes: by its alternative names only.
    pub fn is_for_address(&self, address: &[u8]) -> bool {
        // SAFETY: the certificate is alive, the address has this length.
        let found = unsafe { lc::X509_check_ip(self.as_ptr(), address.as_ptr(), address.len(), 0) };
        // SAFETY: always allowed.
        unsafe { lc::ERR_clear_error() };
        found == 1
    }
}

impl Clone for Certificate {
    fn clone(&self) -> Self {
        // SAFETY: the certificate is alive; the new reference is the clone's.
        unsafe { lc::X509_up_ref(self.as_ptr()) };
        Self(self.0)
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        // SAFETY: this reference is ours and is not used again.
        unsafe { lc::X509_free(self.as_ptr()) }
    }
}

/// Whether a certificate is a CA's (`X509_check_ca`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authority {
    No,
    /// Its basic constraints say so.
    Yes,
    /// It says nothing, but is a root of version 1, or may sign certificates: good enough at the end
    /// of a path.
    Tolerated,
}
