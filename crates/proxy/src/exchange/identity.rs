//! Who a request is from, as its token says (`auth_jwt`).
//!
//! Claims are there as soon as a variable asks for them, as in nginx: limits count by them before the
//! access phase, and a `map` of the issuer can say which keys are to verify the token. From the access
//! phase on only those of a token that was verified are.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

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
    /// The leeway for its times, once it has let the request in.
    leeway: Cell<Option<Duration>>,
    /// Whose password was right.
    user: RefCell<Option<Bytes>>,
    /// Whether a variable was given something that is not verified.
    peeked: Cell<bool>,
}

impl Identity {
    /// The time after which the token that has let the request in would no longer do so.
    pub fn expires(&self) -> Option<SystemTime> {
        let leeway = self.leeway.get()?;
        self.token.borrow().as_ref()?.expires()?.checked_add(leeway)
    }

    /// The password of this user was right.
    pub(crate) fn logged_in(&self, user: Bytes) {
        *self.user.borrow_mut() = Some(user);
    }

    /// The access phase begins: nobody has logged in to this location.
    pub(crate) fn begin(&self) {
        *self.user.borrow_mut() = None;
    }

    /// Whose password the access phase has found right.
    pub(crate) fn user(&self) -> Option<Bytes> {
        self.user.borrow().clone()
    }

    /// The token was verified.
    pub(crate) fn verified(&self, token: Rc<Token>) {
        *self.token.borrow_mut() = Some(token);
        self.trust.set(Trust::Verified);
    }

    /// The verified token lets the request in; its times may be off by `leeway`.
    pub(crate) fn let_in(&self, leeway: Duration) {
        self.leeway.set(Some(leeway));
    }

    /// A location asks for a token, as if none had been shown before.
    pub(crate) fn ask(&self) {
        *self.token.borrow_mut() = None;
        self.trust.set(Trust::Claimed);
        self.leeway.set(None);
    }
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

/// The text of the token that the location asks for, if it asks for one and there is one.
pub(crate) fn presented(request: &Request) -> Option<Bytes> {
    let jwt = request.location().settings.auth_jwt.as_ref()?;
    let text = match jwt.token {
        None => credentials::bearer(request).map(Bytes::copy_from_slice),
        // In memory of its own: it may be kept for as long as a tunnel.
        Some(variable) => request.variable(variable).map(|text| Bytes::copy_from_slice(&text)),
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
