//! `auth_jwt`: who has a valid token is let in.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::task::spawn_blocking;
use wssgate_config::model::{AuthJwt, JwtKeys, JwtRequire, LogLevel};

use super::guard::Verdict;
use super::subrequest;
use crate::auth::FileError;
use crate::auth::jwt::{self, Invalid, KeySet, Token};
use crate::auth::keys::{KeyFileError, Look, MAX_LEN, Source};
use crate::content::pages;
use crate::exchange::refusal::{JwtRefusal, KeysError};
use crate::exchange::{Exchange, Refusal, Request, identity, variables};

/// Asks for the token that the location's `auth_jwt` wants.
///
/// # Errors
/// When there is none, it is not valid, or it cannot be checked.
pub(super) async fn check(exchange: &mut Exchange, jwt: &AuthJwt) -> Result<Verdict, Refusal> {
    let realm = exchange.request.text(&jwt.realm);
    if *realm == *b"off" {
        return Ok(Verdict::NoOpinion);
    }
    let refusal = match admit(exchange, jwt).await {
        Ok(()) => return Ok(Verdict::Allowed),
        Err(refusal) => refusal,
    };
    if refusal.status() == 401 {
        let challenge = challenge(&realm, matches!(refusal, JwtRefusal::NoToken));
        let field = (Bytes::from_static(b"WWW-Authenticate"), challenge);
        exchange.request.response.special_fields.push(field);
    }
    Err(Refusal::Jwt(refusal))
}

/// What is asked for (RFC 6750 §3): without a reason if no token was sent.
fn challenge(realm: &[u8], unasked: bool) -> Bytes {
    let mut value = BytesMut::from(&b"Bearer realm=\""[..]);
    value.put_slice(realm);
    value.put_slice(if unasked { b"\"" } else { b"\", error=\"invalid_token\"" });
    value.freeze()
}

async fn admit(exchange: &Exchange, jwt: &AuthJwt) -> Result<(), JwtRefusal> {
    let request = &exchange.request;
    request.identity.ask();
    let text = identity::presented(request).ok_or(JwtRefusal::NoToken)?;
    request.secrets.add(text.clone());
    let token = Rc::new(Token::parse(&text).map_err(JwtRefusal::Malformed)?);
    if jwt.keys.is_empty() {
        return Err(JwtRefusal::Keys(KeysError::NoSource));
    }
    verify(exchange, jwt, &token).await?;
    if let Some(kind) = request.site.revocations.of_token(&token, Instant::now()) {
        return Err(JwtRefusal::Revoked(kind));
    }
    request.identity.verified(token);
    let unmet = jwt.require.iter().find(|line| !is_met(request, line));
    if let Some(line) = unmet {
        return Err(JwtRefusal::Requirement(line.status));
    }
    request.identity.let_in(jwt.leeway);
    Ok(())
}

fn is_met(request: &Request, line: &JwtRequire) -> bool {
    line.values.iter().all(|value| variables::is_true(&request.text(value)))
}

async fn verify(exchange: &Exchange, jwt: &AuthJwt, token: &Token) -> Result<(), JwtRefusal> {
    let mut sets = Vec::with_capacity(jwt.keys.len());
    for keys in &jwt.keys {
        sets.push(of_source(exchange, jwt, keys).await.map_err(JwtRefusal::Keys)?);
    }
    let judged = jwt::verify(token, sets.iter().map(|set| &**set), jwt.leeway);
    let Err(Invalid::UnknownKey(_)) = judged else { return judged.map_err(JwtRefusal::Invalid) };
    // Who signs tokens may have got a new key since.
    let mut renewed = Vec::new();
    for keys in &jwt.keys {
        renewed.extend(renewed_of(exchange, jwt, keys).await);
    }
    let judged = match renewed.is_empty() {
        true => judged,
        false => jwt::verify(token, renewed.iter().map(|set| &**set), jwt.leeway),
    };
    judged.map_err(JwtRefusal::Invalid)
}

/// The keys of a source: kept ones, or those that it has now.
async fn of_source(
    exchange: &Exchange,
    jwt: &AuthJwt,
    keys: &JwtKeys,
) -> Result<Arc<KeySet>, KeysError> {
    let request = &exchange.request;
    let source = source(request, jwt, keys);
    let Some(time) = kept_for(jwt, keys) else { return load(exchange, &source).await };
    let kept = &request.generation.keys;
    let stale = match kept.look(&source, Instant::now()) {
        Look::Fresh(keys) => return Ok(keys),
        Look::Stale(keys) => Some(keys),
        Look::Nothing => None,
    };
    match (load_to_keep(exchange, source, time).await, stale) {
        (Ok(keys), _) => Ok(keys),
        (Err(error), Some(stale)) => {
            request.log(LogLevel::Error, format_args!("{error}, using the previous ones"));
            Ok(stale)
        }
        (Err(error), None) => Err(error),
    }
}

/// The keys of a kept source, fetched before their time if that may be done again.
async fn renewed_of(exchange: &Exchange, jwt: &AuthJwt, keys: &JwtKeys) -> Option<Arc<KeySet>> {
    let request = &exchange.request;
    let time = kept_for(jwt, keys)?;
    let source = source(request, jwt, keys);
    let kept = &request.generation.keys;
    if !kept.may_refetch(&source, Instant::now()) {
        return None;
    }
    load_to_keep(exchange, source, time)
        .await
        .inspect_err(|error| request.log(LogLevel::Error, error))
        .ok()
}

async fn load_to_keep(
    exchange: &Exchange,
    source: Source,
    time: Duration,
) -> Result<Arc<KeySet>, KeysError> {
    let keys = load(exchange, &source).await?;
    exchange.request.generation.keys.keep(source, Arc::clone(&keys), time, Instant::now());
    Ok(keys)
}

/// For how long the keys of a source are kept, if at all; as in nginx not if variables name it.
fn kept_for(jwt: &AuthJwt, keys: &JwtKeys) -> Option<Duration> {
    let template = match keys {
        JwtKeys::File(file) => &file.value,
        JwtKeys::Request(uri) => uri,
    };
    let fixed = template.as_text().is_some();
    Some(jwt.key_cache).filter(|time| fixed && !time.is_zero())
}

fn source(request: &Request, jwt: &AuthJwt, keys: &JwtKeys) -> Source {
    match keys {
        JwtKeys::File(file) => {
            let path = request.text(&file.value);
            Source::File(jwt.directory.join(OsStr::from_bytes(&path)))
        }
        JwtKeys::Request(uri) => {
            Source::Request { server: request.route.server.0, uri: request.text(uri) }
        }
    }
}

async fn load(exchange: &Exchange, source: &Source) -> Result<Arc<KeySet>, KeysError> {
    let request = &exchange.request;
    let (keys, new, name) = match source {
        Source::File(path) => {
            let (sets, file) = (Arc::clone(&request.generation.keys), path.clone());
            let read = spawn_blocking(move || sets.of_file(&file)).await;
            let read = read.unwrap_or_else(|error| {
                Err(KeyFileError::File(FileError::Read(io::Error::other(error))))
            });
            let name = path.display().to_string();
            let (keys, new) = read.map_err(|error| file_error(path, error))?;
            (keys, new, name)
        }
        Source::Request { uri, .. } => {
            let name = uri.escape_ascii().to_string();
            (Arc::new(fetch(exchange, uri, &name).await?), true, name)
        }
    };
    if new {
        for why in keys.unusable() {
            request.log(LogLevel::Info, format_args!("\"{name}\" with keys for JWT: {why}"));
        }
    }
    Ok(keys)
}

fn file_error(path: &std::path::Path, error: KeyFileError) -> KeysError {
    let file = path.to_owned();
    match error {
        KeyFileError::File(FileError::Open(error)) => KeysError::File { call: "open", file, error },
        KeyFileError::File(FileError::Read(error)) => KeysError::File { call: "read", file, error },
        KeyFileError::Set(error) => {
            KeysError::Set { source_name: file.display().to_string(), error }
        }
    }
}

async fn fetch(exchange: &Exchange, uri: &Bytes, name: &str) -> Result<KeySet, KeysError> {
    let (path, args) = pages::split_args(uri);
    let client = exchange.response.client();
    let answered = subrequest::fetch(&exchange.request, client, path, args, MAX_LEN).await;
    let (status, body) = answered.map_err(|_| KeysError::NoAnswer(uri.clone()))?;
    if status != 200 {
        return Err(KeysError::Status { status, uri: uri.clone() });
    }
    KeySet::parse(&body).map_err(|error| KeysError::Set { source_name: name.to_owned(), error })
}
