#![allow(clippy::unwrap_used)]

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
    RSA_PSS_SHA384, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use aws_lc_rs::{hmac, rsa};
use serde_json::json;

use super::*;

/// Somebody who signs tokens, and the JWK that others verify them with.
enum Signer {
    Hmac(Box<hmac::Key>, Vec<u8>),
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    fn hmac(algorithm: hmac::Algorithm, secret: &[u8]) -> Self {
        Self::Hmac(Box::new(hmac::Key::new(algorithm, secret)), secret.to_vec())
    }

    fn rsa() -> Self {
        let pair = rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        Self::Rsa(Box::new(pair))
    }

    fn ec(algorithm: &'static EcdsaSigningAlgorithm, curve: &'static str) -> Self {
        Self::Ec(EcdsaKeyPair::generate(algorithm).unwrap(), curve)
    }

    fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    fn jwk(&self) -> Value {
        match self {
            Self::Hmac(_, secret) => json!({"kty": "oct", "k": b64(secret)}),
            Self::Rsa(pair) => {
                let public: RsaPublicKeyComponents<Vec<u8>> = pair.public_key().into();
                json!({"kty": "RSA", "n": b64(&public.n), "e": b64(&public.e)})
            }
            Self::Ec(pair, curve) => {
                let (x, y) =
                    pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())})
            }
        }
    }

    /// The public key as a text that might be taken for a secret.
    fn public_bytes(&self) -> Vec<u8> {
        match self {
            Self::Rsa(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ec(pair, _) => pair.public_key().as_ref().to_vec(),
            Self::Ed(pair) => pair.public_key().as_ref().to_vec(),
            Self::Hmac(_, secret) => secret.clone(),
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> Bytes {
        self.sign_rsa_as(&RSA_PKCS1_SHA256, header, claims)
    }

    fn sign_rsa_as(
        &self,
        encoding: &'static dyn RsaEncoding,
        header: &Value,
        claims: &Value,
    ) -> Bytes {
        let message = format!(
            "{}.{}",
            b64(header.to_string().as_bytes()),
            b64(claims.to_string().as_bytes())
        );
        let bytes = message.as_bytes();
        let random = SystemRandom::new();
        let signature = match self {
            Self::Hmac(key, _) => hmac::sign(key, bytes).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, bytes, &mut signature).unwrap();
                signature
            }
            Self::Ec(pair, _) => pair.sign(&random, bytes).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(bytes).as_ref().to_vec(),
        };
        format!("{message}.{}", b64(&signature)).into()
    }
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn judged(text: &Bytes, keys: &KeySet) -> Result<(), Invalid> {
    verify(&Token::parse(text).unwrap(), std::iter::once(keys), Duration::ZERO)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// One of each kind of key, with the algorithm that it signs with.
fn signers() -> Vec<(&'static str, Signer)> {
    vec![
        ("HS256", Signer::hmac(hmac::HMAC_SHA256, b"fantasticjwt")),
        ("HS384", Signer::hmac(hmac::HMAC_SHA384, b"another secret")),
        ("HS512", Signer::hmac(hmac::HMAC_SHA512, b"a third secret")),
        ("RS256", Signer::rsa()),
        ("ES256", Signer::ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")),
        ("ES384", Signer::ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")),
        ("EdDSA", Signer::ed()),
    ]
}

#[test]
fn a_token_is_verified_by_its_key_and_by_no_other() {
    let signers = signers();
    for (index, (algorithm, signer)) in signers.iter().enumerate() {
        let token = signer.sign(&json!({ "alg": algorithm }), &json!({"sub": "ada"}));
        assert_eq!(judged(&token, &set(&[signer.jwk()])), Ok(()), "{algorithm}");
        let all: Vec<_> = signers.iter().map(|(_, signer)| signer.jwk()).collect();
        assert_eq!(judged(&token, &set(&all)), Ok(()), "{algorithm} among all");
        let others: Vec<_> = (0..all.len())
            .filter(|other| *other != index)
            .map(|other| all[other].clone())
            .collect();
        assert!(judged(&token, &set(&others)).is_err(), "{algorithm}");
    }
    let rsa = Signer::rsa();
    for (algorithm, encoding) in
        [("RS512", &RSA_PKCS1_SHA512 as &'static dyn RsaEncoding), ("PS384", &RSA_PSS_SHA384)]
    {
        let token = rsa.sign_rsa_as(encoding, &json!({ "alg": algorithm }), &json!({}));
        assert_eq!(judged(&token, &set(&[rsa.jwk()])), Ok(()), "{algorithm}");
    }
}

#[test]
fn a_token_that_was_changed_is_not_valid() {
    for (algorithm, signer) in signers() {
        let keys = set(&[signer.jwk()]);
        let token = signer.sign(&json!({ "alg": algorithm }), &json!({"sub": "ada"}));
        let other = signer.sign(&json!({ "alg": algorithm, "x": 1 }), &json!({"sub": "eve"}));
        let parts = |text: &Bytes| -> Vec<String> {
            text.split(|&b| b == b'.')
                .map(|part| String::from_utf8(part.to_vec()).unwrap())
                .collect()
        };
        let (mine, theirs) = (parts(&token), parts(&other));
        for mixed in [
            [&mine[0], &theirs[1], &mine[2]],
            [&theirs[0], &mine[1], &mine[2]],
            [&mine[0], &mine[1], &theirs[2]],
            [&mine[0], &mine[1], &String::new()],
            [&mine[0], &mine[1], &mine[2][..mine[2].len() - 2].to_owned()],
        ] {
            let text = Bytes::from(mixed.map(String::as_str).join("."));
            assert!(judged(&text, &keys).is_err(), "{algorithm}: {text:?}");
        }
    }
}

#[test]
fn no_byte_of_a_token_may_be_another() {
    let signer = Signer::hmac(hmac::HMAC_SHA256, b"secret");
    let keys = set(&[signer.jwk()]);
    let token = signer.sign(&json!({"alg": "HS256"}), &json!({"sub": "ada", "exp": now() + 60}));
    for at in 0..token.len() {
        for bit in 0..8 {
            let mut changed = token.to_vec();
            changed[at] ^= 1 << bit;
            let changed = Bytes::from(changed);
            let valid = Token::parse(&changed)
                .is_ok_and(|token| verify(&token, std::iter::once(&keys), Duration::ZERO).is_ok());
            assert!(!valid, "{changed:?}");
        }
        let cut = token.slice(..at);
        assert!(Token::parse(&cut).is_err() || judged(&cut, &keys).is_err(), "{cut:?}");
    }
}

#[test]
fn the_key_decides_how_a_token_may_be_signed() {
    for (algorithm, signer) in signers() {
        let keys = set(&[signer.jwk()]);
        // The public key as the secret of an HMAC, and no signature at all.
        let forger = Signer::hmac(hmac::HMAC_SHA256, &signer.public_bytes());
        if !algorithm.starts_with("HS") {
            let forged = forger.sign(&json!({"alg": "HS256"}), &json!({"sub": "eve"}));
            assert!(judged(&forged, &keys).is_err(), "{algorithm}");
        }
        for none in ["none", "None", "", "HS1", "RSA-OAEP", "ES512"] {
            let forged = forger.sign(&json!({ "alg": none }), &json!({}));
            let expected = Err(Invalid::Algorithm(none.into()));
            assert_eq!(judged(&forged, &keys), expected, "{algorithm}");
        }
        // Of the same family, but signed otherwise than it says.
        let named = if algorithm.starts_with("ES") { "ES256" } else { "RS512" };
        if named != algorithm {
            let lying = signer.sign(&json!({ "alg": named }), &json!({}));
            assert!(judged(&lying, &keys).is_err(), "{algorithm} as {named}");
        }
    }
    // `alg` of the key allows no other.
    let rsa = Signer::rsa();
    let mut jwk = rsa.jwk();
    jwk["alg"] = json!("RS512");
    let token = rsa.sign(&json!({"alg": "RS256"}), &json!({}));
    assert_eq!(judged(&token, &set(&[jwk])), Err(Invalid::Algorithm("RS256".into())));
}

#[test]
fn exp_and_nbf_are_asked_where_they_are() {
    let signer = Signer::hmac(hmac::HMAC_SHA256, b"secret");
    let keys = set(&[signer.jwk()]);
    let now = now();
    let (minute, hour) = (60, 3600);
    for (claims, leeway, expected) in [
        (json!({}), 0, Ok(())),
        (json!({"exp": now + hour}), 0, Ok(())),
        (json!({"exp": now - minute}), 0, Err(Invalid::Expired)),
        (json!({"exp": now - minute}), hour, Ok(())),
        (json!({"exp": now - minute}), u64::MAX, Ok(())),
        (json!({"exp": 0}), 0, Err(Invalid::Expired)),
        (json!({"exp": now as f64 + 3600.5}), 0, Ok(())),
        (json!({"nbf": now - minute}), 0, Ok(())),
        (json!({"nbf": now + hour}), 0, Err(Invalid::NotYetValid)),
        (json!({"nbf": now + minute}), hour, Ok(())),
        (json!({"nbf": now - minute, "exp": now + hour, "aud": "me", "iss": "you"}), 0, Ok(())),
    ] {
        let token = signer.sign(&json!({"alg": "HS256"}), &claims);
        let token = Token::parse(&token).unwrap();
        let judged = verify(&token, std::iter::once(&keys), Duration::from_secs(leeway));
        assert_eq!(judged, expected, "{claims}");
    }
    for claims in
        [json!({"exp": "soon"}), json!({"exp": -1}), json!({"nbf": {}}), json!({"exp": true})]
    {
        let token = signer.sign(&json!({"alg": "HS256"}), &claims);
        assert!(matches!(judged(&token, &keys), Err(Invalid::Other(_))), "{claims}");
    }
}

#[test]
fn the_key_id_chooses_the_key() {
    let (old, new) = (Signer::rsa(), Signer::rsa());
    let with_id = |signer: &Signer, id: &str| {
        let mut jwk = signer.jwk();
        jwk["kid"] = json!(id);
        jwk
    };
    let both = set(&[with_id(&old, "old"), with_id(&new, "new")]);
    let token = |signer: &Signer, header: Value| signer.sign(&header, &json!({}));
    let of = |id: &str| json!({"alg": "RS256", "kid": id});
    assert_eq!(judged(&token(&new, of("new")), &both), Ok(()));
    assert_eq!(judged(&token(&old, of("old")), &both), Ok(()));
    assert_eq!(judged(&token(&old, of("new")), &both), Err(Invalid::Signature));
    assert_eq!(judged(&token(&new, of("x")), &both), Err(Invalid::UnknownKey("x".into())));
    assert_eq!(judged(&token(&new, json!({"alg": "RS256"})), &both), Ok(()), "each is tried");
    assert_eq!(judged(&token(&new, of("x")), &set(&[new.jwk()])), Ok(()), "a key without ID");
}

#[test]
fn a_broken_key_hides_no_other() {
    let broken = [
        json!({"kty": "RSA", "n": b64(b"abc"), "e": b64(b"x")}),
        json!({"kty": "EC", "crv": "P-256", "x": b64(b"x"), "y": b64(b"y")}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": b64(b"x")}),
    ];
    for (algorithm, signer) in signers() {
        let mut keys = broken.to_vec();
        keys.push(signer.jwk());
        let token = signer.sign(&json!({ "alg": algorithm }), &json!({}));
        assert_eq!(judged(&token, &set(&keys)), Ok(()), "{algorithm}");
        let expired = signer.sign(&json!({ "alg": algorithm }), &json!({"exp": 1}));
        assert_eq!(judged(&expired, &set(&keys)), Err(Invalid::Expired), "{algorithm}");
    }
}

#[test]
fn a_critical_extension_is_not_passed_over() {
    let signer = Signer::hmac(hmac::HMAC_SHA256, b"secret");
    let keys = set(&[signer.jwk()]);
    for header in [
        json!({"alg": "HS256", "crit": ["exp"], "exp": 1}),
        json!({"alg": "HS256", "b64": false, "crit": ["b64"]}),
    ] {
        let token = signer.sign(&header, &json!({}));
        assert!(matches!(judged(&token, &keys), Err(Invalid::Other(_))), "{header}");
    }
}

#[test]
fn what_is_no_token_is_told_from_what_is_encrypted() {
    for (text, expected) in [
        ("", TokenError::Parts),
        ("a.b", TokenError::Parts),
        ("a.b.c.d", TokenError::Parts),
        ("a.b.c.d.e", TokenError::Encrypted),
        ("a.b.c.d.e.f.g", TokenError::Parts),
        ("!.e30.x", TokenError::Part("header")),
        ("W10.e30.x", TokenError::Part("header")),
        ("e30.W10.x", TokenError::Part("payload")),
        ("e30=.e30.x", TokenError::Part("header")),
    ] {
        assert_eq!(Token::parse(&Bytes::from(text)).err(), Some(expected), "{text}");
    }
    // Deeper than any parser should follow.
    let deep = b64(format!("{{\"a\":{}1{}}}", "[".repeat(5000), "]".repeat(5000)).as_bytes());
    assert!(Token::parse(&Bytes::from(format!("e30.{deep}.x"))).is_err());
}

#[test]
fn claims_are_found_by_their_names() {
    let claims = json!({
        "sub": "ada", "Sub": "eve", "exp": 1_700_000_000, "admin": true, "nothing": null,
        "roles": ["a", "b", 3], "info": {"e-mail": "ada@a.test", "job title": "x"}, "userId": 7,
    });
    let text = format!("e30.{}.x", b64(claims.to_string().as_bytes()));
    let token = Token::parse(&Bytes::from(text)).unwrap();
    for (path, expected) in [
        (&["sub"][..], Some("ada")),
        (&["SUB"], Some("eve")),
        (&["userid"], Some("7")),
        (&["exp"], Some("1700000000")),
        (&["admin"], Some("true")),
        (&["nothing"], Some("")),
        (&["roles"], Some("a,b,3")),
        (&["info", "e-mail"], Some("ada@a.test")),
        (&["info", "job title"], Some("x")),
        (&["info", "x"], None),
        (&["sub", "x"], None),
        (&["x"], None),
    ] {
        let path: Vec<Box<[u8]>> = path.iter().map(|name| name.as_bytes().into()).collect();
        assert_eq!(token.claim(&path).as_deref(), expected.map(str::as_bytes), "{path:?}");
    }
    assert_eq!(token.expires(), UNIX_EPOCH.checked_add(Duration::from_secs(1_700_000_000)));
    assert_eq!(Token::parse(&Bytes::from_static(b"e30.e30.x")).unwrap().expires(), None);
}

#[test]
fn keys_that_cannot_verify_are_passed_over() {
    let signer = Signer::rsa();
    let with = |name: &str, value: Value| {
        let mut jwk = signer.jwk();
        jwk[name] = value;
        jwk
    };
    let bad = [
        with("use", json!("enc")),
        with("key_ops", json!(["encrypt"])),
        with("alg", json!("RSA-OAEP")),
        with("alg", json!("HS256")),
        json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}),
        json!({"kty": "OKP", "crv": "Ed448", "x": "AA"}),
        json!({"kty": "oct", "k": ""}),
        json!({"kty": "new"}),
        json!(5),
    ];
    for jwk in &bad {
        let parsed = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes());
        assert!(matches!(parsed, Err(KeySetError::Unusable(_))), "{jwk}");
    }
    let mut all = bad.to_vec();
    all.push(with("key_ops", json!(["verify"])));
    let keys = set(&all);
    assert_eq!((keys.keys.len(), keys.unusable().len()), (1, bad.len()));
    for (text, expected) in [
        ("{}", KeySetError::Shape),
        ("[]", KeySetError::Shape),
        ("{\"keys\":{}}", KeySetError::Shape),
        ("{\"keys\":[]}", KeySetError::Unusable(Vec::new())),
    ] {
        assert_eq!(KeySet::parse(text.as_bytes()).err(), Some(expected), "{text}");
    }
    assert!(matches!(KeySet::parse(b"<html>"), Err(KeySetError::Json(_))));
}
