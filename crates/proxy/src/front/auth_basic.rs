//! `auth_basic`: who knows the password of a user in a file is let in.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;
use wssgate_config::model::LocationSettings;
use zeroize::Zeroizing;

use super::guard::Verdict;
use crate::auth::{FileError, HashError, Stored, Turn};
use crate::exchange::credentials::{self, Basic};
use crate::exchange::refusal::BasicRefusal;
use crate::exchange::{Exchange, Refusal};

/// Asks for the password that the location's `auth_basic` wants, if it has one.
///
/// # Errors
/// When there is none, it is wrong, or it cannot be checked.
pub(super) async fn check(
    exchange: &mut Exchange,
    settings: &LocationSettings,
) -> Result<Verdict, Refusal> {
    let Some(basic) = &settings.auth_basic else { return Ok(Verdict::NoOpinion) };
    let request = &exchange.request;
    let realm = request.text(&basic.realm);
    if *realm == *b"off" {
        return Ok(Verdict::NoOpinion);
    }
    let file = basic.directory.join(OsStr::from_bytes(&request.text(&basic.user_file.value)));
    let refusal = match credentials::basic(request) {
        None => Refusal::Basic(BasicRefusal::NoCredentials),
        Some(credentials) => {
            let user = credentials.user.clone();
            match log_in(exchange, file, credentials).await {
                Ok(()) => {
                    exchange.request.identity.logged_in(user);
                    return Ok(Verdict::Allowed);
                }
                Err(refusal) => refusal,
            }
        }
    };
    if refusal.status() == 401 {
        let challenge = (Bytes::from_static(b"WWW-Authenticate"), challenge(&realm));
        exchange.request.response.special_fields.push(challenge);
    }
    Err(refusal)
}

fn challenge(realm: &[u8]) -> Bytes {
    let mut value = BytesMut::from(&b"Basic realm=\""[..]);
    value.put_slice(realm);
    value.put_u8(b'"');
    value.freeze()
}

/// Compares the password with the one of the file. What is verified already costs a look at the
/// file, everything else waits its turn.
async fn log_in(exchange: &Exchange, file: PathBuf, claimed: Basic) -> Result<(), Refusal> {
    let passwords = Arc::clone(&exchange.request.generation.passwords);
    let Basic { user, password } = claimed;
    let found = {
        let (passwords, file, user) = (Arc::clone(&passwords), file.clone(), user.clone());
        spawn_blocking(move || passwords.find(&file, &user)).await
    };
    let found = found.unwrap_or_else(|error| Err(FileError::Read(io::Error::other(error))));
    let stored = match found {
        Ok(stored) => stored,
        Err(error) => return Err(Refusal::Basic(BasicRefusal::of_file(file, error))),
    };
    if stored.as_ref().is_some_and(|stored| passwords.was_verified(stored, &password)) {
        return Ok(());
    }
    tokio::select! {
        biased;
        judged = judge(exchange, stored, file, Basic { user, password }) => judged,
        () = exchange.response.closed() => Err(Refusal::ClientGone),
    }
}

/// What becomes of a password that is not known yet.
async fn judge(
    exchange: &Exchange,
    stored: Option<Stored>,
    file: PathBuf,
    claimed: Basic,
) -> Result<(), Refusal> {
    let passwords = &exchange.request.generation.passwords;
    let Basic { user, password } = claimed;
    let Some(stored) = stored else {
        wait(exchange, &user).await?;
        passwords.failed(exchange.request.client_ip(), &user);
        return Err(Refusal::Basic(BasicRefusal::UnknownUser { user, file }));
    };
    let check = passwords.check(&stored, &password);
    let judged = check.result(attempt(exchange, &user, stored, password)).await?;
    match judged {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::Basic(BasicRefusal::Mismatch(user))),
        Err(error) => Err(Refusal::Basic(BasicRefusal::Hash { user, error })),
    }
}

/// Checks a password when it is its turn. All that wait for the same answer are one attempt.
async fn attempt(
    exchange: &Exchange,
    user: &Bytes,
    stored: Stored,
    password: Zeroizing<Vec<u8>>,
) -> Result<Result<bool, HashError>, Refusal> {
    let passwords = Arc::clone(&exchange.request.generation.passwords);
    // Another check may have ended after the first look.
    if passwords.was_verified(&stored, &password) {
        return Ok(Ok(true));
    }
    wait(exchange, user).await?;
    let judged = compare(exchange, stored, password).await?;
    if !matches!(judged, Ok(true)) {
        passwords.failed(exchange.request.client_ip(), user);
    }
    Ok(judged)
}

/// Waits until an attempt of this client to log in as `user` may be checked.
async fn wait(exchange: &Exchange, user: &[u8]) -> Result<(), Refusal> {
    let request = &exchange.request;
    match request.generation.passwords.turn(request.client_ip(), user) {
        Turn::Now => Ok(()),
        Turn::Never => Err(Refusal::Basic(BasicRefusal::TooManyFailures)),
        Turn::At(turn) => {
            sleep_until(turn.into()).await;
            Ok(())
        }
    }
}

/// Checks the password, of slow hashes on a thread that may block.
async fn compare(
    exchange: &Exchange,
    stored: Stored,
    password: Zeroizing<Vec<u8>>,
) -> Result<Result<bool, HashError>, Refusal> {
    let passwords = Arc::clone(&exchange.request.generation.passwords);
    if !stored.is_slow() {
        return Ok(passwords.verify(&stored, &password));
    }
    let slot = passwords.slot(exchange.request.client_ip()).await;
    let slot = slot.map_err(|_| Refusal::Basic(BasicRefusal::Busy))?;
    let work = spawn_blocking(move || {
        // Held to the end of the work, even if nobody waits for it any more.
        let _slot = slot;
        passwords.verify(&stored, &password)
    });
    // It panics for no hash; if it did, that hash would let nobody in.
    Ok(work.await.unwrap_or(Err(HashError::Broken)))
}
