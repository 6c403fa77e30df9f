//! Signatures by RSA keys that are too short for the rest of the program.
//!
//! OpenSSL shakes hands with them and then says what it thinks of the certificate, so that the peer is
//! told more than that the handshake has failed.

#![allow(unsafe_code)]

use std::ffi::c_long;
use std::ptr::{self, NonNull};

use aws_lc_sys as lc;

/// The digest of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// How the digest is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// PKCS #1 version 1.5.
    Pkcs1,
    /// PSS with a salt as long as the digest.
    Pss,
}

/// Whether `signature` of `message` is that of an RSA key; `key` is its SubjectPublicKeyInfo in DER.
pub fn verify_rsa(
    key: &[u8],
    padding: Padding,
    digest: Digest,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let Some(key) = Key::parse(key) else { return false };
    let Some(context) = Context::new() else { return false };
    let verified = context.verify(&key, padding, digest, message, signature);
    // SAFETY: always allowed; what went wrong is told by the result.
    unsafe { lc::ERR_clear_error() };
    verified
}

/// A public key of RSA.
struct Key(NonNull<lc::EVP_PKEY>);

impl Key {
    fn parse(der: &[u8]) -> Option<Self> {
        let mut rest = der.as_ptr();
        let len = c_long::try_from(der.len()).ok()?;
        // SAFETY: `rest` points to `len` bytes that live through the call; a new key is asked for,
        // which is ours.
        let key = unsafe { lc::d2i_PUBKEY(ptr::null_mut(), &raw mut rest, len) };
        let key = NonNull::new(key).map(Self)?;
        // SAFETY: the key is alive.
        (unsafe { lc::EVP_PKEY_id(key.0.as_ptr()) } == lc::EVP_PKEY_RSA).then_some(key)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: this reference is ours and is not used again.
        unsafe { lc::EVP_PKEY_free(self.0.as_ptr()) }
    }
}

/// What one verification works with.
struct Context(NonNull<lc::EVP_MD_CTX>);

impl Context {
    fn new() -> Option<Self> {
        // SAFETY: no conditions; the new object is ours.
        NonNull::new(unsafe { lc::EVP_MD_CTX_new() }).map(Self)
    }

    fn verify(
        &self,
        key: &Key,
        padding: Padding,
        digest: Digest,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        // SAFETY: no conditions; digests are static.
        let digest = unsafe {
            match digest {
                Digest::Sha256 => lc::EVP_sha256(),
                Digest::Sha384 => lc::EVP_sha384(),
                Digest::Sha512 => lc::EVP_sha512(),
            }
        };
        let (context, mut inner) = (self.0.as_ptr(), ptr::null_mut());
        // SAFETY: context and key are alive; the context takes a reference to the key. `inner`
        // belongs to the context. -1 asks for a salt as long as the digest. Message and signature
        // have these lengths.
        unsafe {
            let begun = lc::EVP_DigestVerifyInit(
                context,
                &raw mut inner,
                digest,
                ptr::null_mut(),
                key.0.as_ptr(),
            );
            let set = begun == 1
                && (padding == Padding::Pkcs1
                    || (lc::EVP_PKEY_CTX_set_rsa_padding(inner, lc::RSA_PKCS1_PSS_PADDING) == 1
                        && lc::EVP_PKEY_CTX_set_rsa_pss_saltlen(inner, -1) == 1));
            set && lc::EVP_DigestVerify(
                context,
                signature.as_ptr(),
                signature.len(),
                message.as_ptr(),
                message.len(),
            ) == 1
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again.
        unsafe { lc::EVP_MD_CTX_free(self.0.as_ptr()) }
    }
}
