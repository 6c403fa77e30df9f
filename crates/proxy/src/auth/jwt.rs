//! JSON Web Tokens (RFC 7519) that are signed (RFC 7515), and the keys that verify them (RFC 7517).
//!
//! What a token may be signed with is decided by its key alone: by the type of the key, and by its
//! `alg` if it has one. The header of the token only chooses among that, so that a public key is never
//! taken for the secret of an HMAC, and there is no `none`.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::clock;

/// How many keys of a set are used.
const MAX_KEYS: usize = 100;

/// How many of them are tried for a token that does not say which one it is for.
const MAX_TRIES: usize = 16;

/// The parts of a token, before anything of it is believed.
#[derive(Debug)]
pub(crate) struct Token {
    /// As it was sent.
    text: Bytes,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    payload: Bytes,
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Of the five parts of RFC 7516.
    #[error("it is encrypted")]
    Encrypted,
    /// Not three parts.
    #[error("it does not have three parts")]
    Parts,
    /// A part is no JSON object in base64url.
    #[error("its {0} is not a JSON object in base64url")]
    Part(&'static str),
}

impl Token {
    /// Takes a token apart.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn parse(text: &Bytes) -> Result<Self, TokenError> {
        let parts: Vec<_> = text.splitn(6, |&b| b == b'.').collect();
        let [header, claims, _] = parts[..] else {
            return Err(if parts.len() == 5 { TokenError::Encrypted } else { TokenError::Parts });
        };
        let (header, _) = object(header).ok_or(TokenError::Part("header"))?;
        let (claims, payload) = object(claims).ok_or(TokenError::Part("payload"))?;
        Ok(Self { text: text.clone(), header, claims, payload: payload.into() })
    }

    /// The text.
    pub(crate) fn text(&self) -> &Bytes {
        &self.text
    }

    /// The claims as JSON.
    pub(crate) fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// A parameter of the header, by the names from the outside in.
    pub(crate) fn header(&self, path: &[Box<[u8]>]) -> Option<Bytes> {
        found(&self.header, path)
    }

    /// A claim.
    pub(crate) fn claim(&self, path: &[Box<[u8]>]) -> Option<Bytes> {
        found(&self.claims, path)
    }

    /// Whom it is about, `sub`, as `$jwt_claim_sub` has it.
    pub(crate) fn subject(&self) -> Option<String> {
        member(&self.claims, "sub").map(text)
    }

    /// What it is called, `jti`, as `$jwt_claim_jti` has it.
    pub(crate) fn id(&self) -> Option<String> {
        member(&self.claims, "jti").map(text)
    }

    /// The time after which it is not valid, `exp`.
    pub(crate) fn expires(&self) -> Option<SystemTime> {
        let seconds = self.claims.get("exp")?.as_f64().filter(|seconds| *seconds >= 0.0)?;
        UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
    }

    fn kid(&self) -> Option<&str> {
        self.header.get("kid")?.as_str()
    }
}

fn object(encoded: &[u8]) -> Option<(Map<String, Value>, Vec<u8>)> {
    let decoded = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    let object = serde_json::from_slice(&decoded).ok()?;
    Some((object, decoded))
}

fn found(object: &Map<String, Value>, path: &[Box<[u8]>]) -> Option<Bytes> {
    let (first, rest) = path.split_first()?;
    let value = member(object, std::str::from_utf8(first).ok()?)?;
    match (rest, value) {
        ([], value) => Some(text(value).into()),
        (rest, Value::Object(inner)) => found(inner, rest),
        _ => None,
    }
}

fn member<'o>(object: &'o Map<String, Value>, name: &str) -> Option<&'o Value> {
    // Names of variables are in lower case, those of claims need not be.
    let same = |found: &&String| found.eq_ignore_ascii_case(name);
    object.get(name).or_else(|| object.get(object.keys().find(same)?))
}

/// A value as text; the elements of an array are joined by commas.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(elements) => elements.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

/// Keys that may verify tokens.
#[derive(Debug)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
    /// Why others of the set cannot be used.
    unusable: Vec<String>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Why a text is no set of keys.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeySetError {
    /// It is no JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// It is JSON, but neither a set nor a key.
    #[error("neither a JSON Web Key Set nor a JSON Web Key")]
    Shape,
    /// No key of it can verify a signature.
    #[error("no key can verify signatures{}", .0.iter().map(|why| format!("; {why}")).collect::<String>())]
    Unusable(Vec<String>),
}

impl KeySet {
    /// Reads a set of keys, or one key alone. Keys that cannot verify signatures, for example since
    /// they are for encryption, are passed over (RFC 7517 §5).
    ///
    /// # Errors
    /// When nothing is left.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let value: Value =
            serde_json::from_slice(text).map_err(|error| KeySetError::Json(error.to_string()))?;
        let values = match value {
            Value::Object(mut set) => match set.remove("keys") {
                Some(Value::Array(keys)) => keys,
                Some(_) => return Err(KeySetError::Shape),
                None if set.contains_key("kty") => vec![Value::Object(set)],
                None => return Err(KeySetError::Shape),
            },
            _ => return Err(KeySetError::Shape),
        };
        let mut set = Self { keys: Vec::new(), unusable: Vec::new() };
        for (index, value) in values.into_iter().take(MAX_KEYS).enumerate() {
            match Key::parse(value) {
                Ok(key) => set.keys.push(key),
                Err(reason) => set.unusable.push(format!("key {} {reason}", index + 1)),
            }
        }
        match set.keys.is_empty() {
            true => Err(KeySetError::Unusable(set.unusable)),
            false => Ok(set),
        }
    }

    /// Why keys of the set cannot be used; one text for each.
    pub(crate) fn unusable(&self) -> &[String] {
        &self.unusable
    }
}

impl Key {
    fn parse(value: Value) -> Result<Self, String> {
        // `alg` may be of a kind that the library does not know; it counts in any case.
        let named = value.get("alg").and_then(Value::as_str).map(str::to_owned);
        let jwk: Jwk =
            serde_json::from_value(value).map_err(|error| format!("cannot be parsed: {error}"))?;
        let mut algorithms = algorithms(&jwk.algorithm).ok_or("is of an unsupported type")?;
        if let Some(named) = named {
            algorithms
                .retain(|algorithm| Algorithm::from_str(&named).is_ok_and(|one| one == *algorithm));
            if algorithms.is_empty() {
                return Err(format!("is for the algorithm \"{}\"", named.escape_default()));
            }
        }
        let signs =
            jwk.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
        let verifies = jwk
            .common
            .key_operations
            .as_ref()
            .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        if !signs || !verifies {
            return Err("is not for signatures".into());
        }
        let key = DecodingKey::from_jwk(&jwk).map_err(|error| format!("is invalid: {error}"))?;
        Ok(Self { id: jwk.common.key_id, algorithms, key })
    }

    /// Whether a token with this key ID may be for it. A key without an ID is for all.
    fn may_be(&self, kid: Option<&str>) -> bool {
        match (&self.id, kid) {
            (Some(id), Some(kid)) => id == kid,
            _ => true,
        }
    }
}

/// What a key of a type can verify.
fn algorithms(parameters: &AlgorithmParameters) -> Option<Vec<Algorithm>> {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512};
    use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
    Some(match parameters {
        AlgorithmParameters::OctetKey(_) => vec![HS256, HS384, HS512],
        AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => vec![ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => vec![ES384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            vec![EdDSA]
        }
        _ => return None,
    })
}

/// Why a token is not valid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// It is signed in a way that no key is for.
    #[error("no key is for the algorithm \"{}\"", .0.escape_default())]
    Algorithm(String),
    /// It names another key.
    #[error("no key has the ID \"{}\"", .0.escape_default())]
    UnknownKey(String),
    /// No key has signed it.
    #[error("the signature is invalid")]
    Signature,
    /// `exp` is over.
    #[error("it has expired")]
    Expired,
    /// `nbf` is to come.
    #[error("it is not valid yet")]
    NotYetValid,
    /// Something else that the library finds.
    #[error("{0}")]
    Other(String),
}

/// Whether one of `keys` has signed `token`, and now is the time. `exp` and `nbf` may be missing.
///
/// # Errors
/// When not.
pub(crate) fn verify<'k>(
    token: &Token,
    keys: impl Iterator<Item = &'k KeySet>,
    leeway: Duration,
) -> Result<(), Invalid> {
    let named = token.header.get("alg").and_then(Value::as_str).unwrap_or_default();
    let unknown = || Invalid::Algorithm(named.chars().take(32).collect());
    let algorithm = Algorithm::from_str(named).map_err(|_| unknown())?;
    let (mut of_algorithm, mut tries, mut failure) = (false, 0, None);
    for key in keys.flat_map(|set| &set.keys).filter(|key| key.algorithms.contains(&algorithm)) {
        of_algorithm = true;
        if !key.may_be(token.kid()) {
            continue;
        }
        tries += 1;
        match verified(token, key, algorithm, leeway) {
            // The signature was right, and this is about the token.
            judged @ (Ok(()) | Err(Invalid::Expired | Invalid::NotYetValid)) => return judged,
            // Another key may have signed it, and this one may be broken.
            Err(Invalid::Signature) => {}
            Err(other) => failure = failure.or(Some(other)),
        }
        if tries == MAX_TRIES {
            break;
        }
    }
    Err(match token.kid() {
        _ if !of_algorithm => unknown(),
        Some(kid) if tries == 0 => Invalid::UnknownKey(kid.chars().take(64).collect()),
        _ => failure.unwrap_or(Invalid::Signature),
    })
}

fn verified(
    token: &Token,
    key: &Key,
    algorithm: Algorithm,
    leeway: Duration,
) -> Result<(), Invalid> {
    let mut rules = Validation::new(algorithm);
    // The library subtracts it from the time without a look.
    let now = clock::since_epoch(clock::now());
    rules.leeway = leeway.min(now).as_secs();
    rules.required_spec_claims.clear();
    rules.validate_nbf = true;
    // Who a token is for is asked by `auth_jwt_require`.
    rules.validate_aud = false;
    match decode::<Map<String, Value>>(&token.text, &key.key, &rules) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            ErrorKind::InvalidSignature => Invalid::Signature,
            ErrorKind::ExpiredSignature => Invalid::Expired,
            ErrorKind::ImmatureSignature => Invalid::NotYetValid,
            _ => Invalid::Other(error.to_string()),
        }),
    }
}

#[cfg(test)]
mod tests;
