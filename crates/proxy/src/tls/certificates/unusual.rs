//! Keys that OpenSSL makes and that cannot be used here, by their name.

use rustls::pki_types::PrivateKeyDer;

use wssgate_x509::der::{CONTEXT_0, INTEGER, OCTETS, OID, SEQUENCE};

use super::encrypted::Der;

/// id-ecPublicKey (RFC 5480 §2.1.1), id-RSASSA-PSS (RFC 4055 §3.1), id-Ed448 (RFC 8410 §3).
const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
const RSA_PSS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
const ED448: &[u8] = b"\x2b\x65\x71";

/// Why a key cannot be used, and what to do instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unusual {
    pub(super) why: &'static str,
    pub(super) help: &'static str,
}

/// Its curve is described by numbers (RFC 3279 §2.3.5) and not by its name.
pub(super) const EXPLICIT_CURVE: Unusual = Unusual {
    why: "the curve of the key is given by explicit parameters, which are not supported",
    help: "name the curve, openssl pkey -in old.key -ec_param_enc named_curve -out new.key, and \
           have the certificate reissued for this key",
};

const ONLY_PSS: Unusual = Unusual {
    why: "RSA-PSS-only keys are not supported",
    help: "use a plain RSA key, whose signatures in TLS 1.3 are RSA-PSS anyway",
};

const NO_ED448: Unusual =
    Unusual { why: "Ed448 keys are not supported", help: "use an ECDSA key on P-256" };

/// What is unusual about a key, if anything is.
pub(super) fn find(key: &PrivateKeyDer<'_>) -> Option<Unusual> {
    let mut whole = Der(key.secret_der()).take(SEQUENCE).ok()?;
    whole.take(INTEGER).ok()?;
    match key {
        PrivateKeyDer::Pkcs8(_) => {
            let mut algorithm = whole.take(SEQUENCE).ok()?;
            match algorithm.take(OID).ok()?.0 {
                EC if algorithm.take(SEQUENCE).is_ok() => Some(EXPLICIT_CURVE),
                RSA_PSS => Some(ONLY_PSS),
                ED448 => Some(NO_ED448),
                _ => None,
            }
        }
        PrivateKeyDer::Sec1(_) => {
            whole.take(OCTETS).ok()?;
            let mut curve = whole.take(CONTEXT_0).ok()?;
            curve.take(SEQUENCE).is_ok().then_some(EXPLICIT_CURVE)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{PrivatePkcs8KeyDer, PrivateSec1KeyDer};

    use super::*;

    #[test]
    fn unusual_keys_are_known_by_what_they_say_of_themselves() {
        let wrap = |tag: u8, content: &[u8]| {
            [&[tag, u8::try_from(content.len()).unwrap_or(0)], content].concat()
        };
        let version = wrap(INTEGER, &[0]);
        let pkcs8 = |oid: &[u8], parameters: &[u8]| {
            let algorithm = wrap(SEQUENCE, &[&wrap(OID, oid)[..], parameters].concat());
            let der = wrap(SEQUENCE, &[&version[..], &algorithm, &wrap(OCTETS, &[])].concat());
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der))
        };
        let sec1 = |parameters: &[u8]| {
            let parameters = wrap(CONTEXT_0, parameters);
            let der = [&version[..], &wrap(OCTETS, &[1]), &parameters].concat();
            PrivateKeyDer::from(PrivateSec1KeyDer::from(wrap(SEQUENCE, &der)))
        };
        let (name, numbers) = (wrap(OID, &[42, 3, 4]), wrap(SEQUENCE, &version));
        for (key, expected) in [
            (pkcs8(EC, &name), None),
            (pkcs8(EC, &numbers), Some(EXPLICIT_CURVE)),
            (pkcs8(RSA_PSS, &[]), Some(ONLY_PSS)),
            (pkcs8(ED448, &[]), Some(NO_ED448)),
            (sec1(&name), None),
            (sec1(&numbers), Some(EXPLICIT_CURVE)),
        ] {
            assert_eq!(find(&key), expected);
        }
    }
}
