//! Who a request is from, as its token says (`auth_jwt`).
//!
//! Claims are there as soon as a variable asks for them, as in nginx: limits count by them before the
//! access phase, and a `map` of the issuer can say which keys are to verify the token. From the access
//! phase on only those of a token that was verified are.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

use super::credentials;
use super::request::Request;
use super::variables;
use crate::auth::jwt::Token;

/// How far a token is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trust {
    /// Not checked yet.
    #[default]
    Claimed,
    /// Its signature and times were right.
    Verified,
    /// It was not, or nobody has checked it by the end of the access phase.
    None,
}

/// What is known of a request's token; subrequests share it.
#[derive(Debug, Default)]
pub struct Identity {
    token: RefCell<Option<Rc<Token>>>,
    trust: Cell<Trust>,
    /// Whether a variable was given something that is not verified.
    peeked: Cell<bool>,
    /// Tokens that must not get into log lines.
    secrets: RefCell<Vec<Bytes>>,
}

/// How many tokens of a request are remembered to keep them out of lines.
const MAX_SECRETS: usize = 8;

impl Identity {
    /// The time after which the verified token is no longer valid.
    pub fn expires(&self) -> Option<SystemTime> {
        if self.trust.get() != Trust::Verified {
            return None;
        }
        self.token.borrow().as_ref()?.expires()
    }

    /// The token was verified.
    pub(crate) fn verified(&self, token: Rc<Token>) {
        *self.token.borrow_mut() = Some(token);
        self.trust.set(Trust::Verified);
    }

    /// A location asks for a token, as if none had been shown before.
    pub(crate) fn ask(&self) {
        *self.token.borrow_mut() = None;
        self.trust.set(Trust::Claimed);
    }

    /// Keeps a token out of the log lines from now on.
    pub(crate) fn conceal(&self, token: &Bytes) {
        let mut secrets = self.secrets.borrow_mut();
        if !token.is_empty() && secrets.len() < MAX_SECRETS && !secrets.contains(token) {
            secrets.push(token.clone());
        }
    }

    /// A text for a log line, with `***` where a token stood.
    pub(crate) fn concealed(&self, text: Bytes) -> Bytes {
        self.secrets.borrow().iter().fold(text, |text, secret| replace(text, secret))
    }
}

fn replace(text: Bytes, secret: &[u8]) -> Bytes {
    let finder = memchr::memmem::Finder::new(secret);
    if finder.find(&text).is_none() {
        return text;
    }
    let mut out = BytesMut::with_capacity(text.len());
    let mut rest = &text[..];
    while let Some(at) = finder.find(rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(b"***");
        rest = &rest[at + secret.len()..];
    }
    out.extend_from_slice(rest);
    out.freeze()
}

/// The access phase is over: what it has not verified is nobody's claim any more.
pub(crate) fn settle(request: &Request) {
    let identity = &request.identity;
    if identity.trust.get() != Trust::Claimed {
        return;
    }
    identity.trust.set(Trust::None);
    if identity.peeked.replace(false) {
        variables::forget_maps(request);
    }
}

/// Keeps the token that the location asks for out of the log lines from now on, even if nobody comes to
/// look at it.
pub(crate) fn conceal(request: &Request) {
    if let Some(text) = presented(request) {
        request.identity.conceal(&text);
    }
}

/// The text of the token that the location asks for, if it asks for one and there is one.
pub(crate) fn presented(request: &Request) -> Option<Bytes> {
    let jwt = request.location().settings.auth_jwt.as_ref()?;
    let text = match jwt.token {
        None => credentials::bearer(request).map(Bytes::copy_from_slice),
        Some(variable) => request.variable(variable),
    };
    text.filter(|text| !text.is_empty())
}

/// The token whose claims variables show.
pub(crate) fn token(request: &Request) -> Option<Rc<Token>> {
    let identity = &request.identity;
    match identity.trust.get() {
        Trust::None => None,
        Trust::Verified => identity.token.borrow().clone(),
        Trust::Claimed => {
            let text = presented(request)?;
            identity.peeked.set(true);
            if let Some(token) = &*identity.token.borrow()
                && *token.text() == text
            {
                return Some(Rc::clone(token));
            }
            let token = Rc::new(Token::parse(&text).ok()?);
            *identity.token.borrow_mut() = Some(Rc::clone(&token));
            Some(token)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leaves_every_line() {
        let identity = Identity::default();
        let line = Bytes::from_static(b"GET /?t=a.b.c&u=a.b.c HTTP/1.1");
        assert_eq!(identity.concealed(line.clone()), line);
        identity.conceal(&Bytes::new());
        identity.conceal(&Bytes::from_static(b"a.b.c"));
        assert_eq!(identity.concealed(line), &b"GET /?t=***&u=*** HTTP/1.1"[..]);
        assert_eq!(identity.concealed(Bytes::from_static(b"a.b")), &b"a.b"[..]);
    }
}
