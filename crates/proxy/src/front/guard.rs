//! The access phase: the rules that let a request in, and how many of them must (`satisfy`).

use std::time::{Duration, Instant};

use tokio::time::sleep;
use wssgate_config::model::{LocationSettings, LogLevel, Satisfy};

use super::{access, auth_basic, auth_jwt, auth_request};
use crate::auth::revocations::{Kind, text_of};
use crate::exchange::refusal::BasicRefusal;
use crate::exchange::{Exchange, Refusal, Request, identity, variables};

/// What a rule says that does not refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not configured, or not about this client.
    NoOpinion,
    /// The client may come in.
    Allowed,
}

/// The rules, in nginx's order.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// `allow` and `deny`.
    Addresses,
    /// `auth_basic`.
    Password,
    /// `auth_jwt`.
    Token,
    /// `auth_request`.
    Request,
}

/// Lets a request in, or says why not. Subrequests are not asked who they are: as in nginx, their
/// parent is.
///
/// # Errors
/// With `satisfy all` what the first rule says that refuses. With `any`, when none lets in and one
/// refuses: 401 if one of them asks who the client is, 429 or 503 if one had no time to, otherwise 403.
pub(super) async fn let_in(
    exchange: &mut Exchange,
    settings: &LocationSettings,
) -> Result<(), Refusal> {
    if exchange.request.is_subrequest() {
        return Ok(());
    }
    exchange.request.identity.begin();
    let judged = judge(exchange, settings).await;
    identity::settle(&exchange.request);
    judged?;
    refuse_revoked_user(&exchange.request)
}

/// Whether a POST of this client may get in too where its GET did, as far as `limit_except` and addresses tell: whose
/// password or token another location wants is not asked for.
pub(super) fn may_post(request: &Request) -> bool {
    let Some((exempt, others)) = &request.location().limit_except else { return true };
    if exempt.iter().any(|method| **method == *b"POST") {
        return true;
    }
    let settings = &request.http().locations[others.0].settings;
    let asks = settings.auth_basic.is_some()
        || settings.auth_jwt.is_some()
        || settings.auth_request.is_some();
    settings.satisfy == Satisfy::Any && asks
        || access::check(&settings.access, request.client_ip()).is_ok()
}

/// Refuses a WebSocket for a user that is revoked, as far as its name is known by now: `websocket_user` may have
/// variables of the upstream's response, and then the tunnel is ended as soon as it has begun.
fn refuse_revoked_user(request: &Request) -> Result<(), Refusal> {
    let revocations = &request.site.revocations;
    if !revocations.holds(Kind::User) || !request.asks_for_websocket() {
        return Ok(());
    }
    let Some(user) = &request.location().settings.websocket_user else { return Ok(()) };
    let user = request.text(user);
    // Maps keep what they have looked up, and what they go by may get its value only later.
    variables::forget_maps(request);
    match revocations.revokes(Kind::User, &text_of(&user), Instant::now()) {
        true => Err(Refusal::RevokedUser),
        false => Ok(()),
    }
}

async fn judge(exchange: &mut Exchange, settings: &LocationSettings) -> Result<(), Refusal> {
    let satisfy = settings.satisfy;
    let challenges = exchange.request.response.special_fields.len();
    let mut denied = None;
    for rule in [Rule::Addresses, Rule::Password, Rule::Token, Rule::Request] {
        match ask(rule, exchange, settings).await {
            Ok(Verdict::NoOpinion) => {}
            Ok(Verdict::Allowed) if satisfy == Satisfy::All => {}
            Ok(Verdict::Allowed) => {
                // What others asked for is not needed any more.
                exchange.request.response.special_fields.truncate(challenges);
                return Ok(());
            }
            Err(refusal) if satisfy == Satisfy::Any && may_be_outdone(&refusal) => {
                let status = tell(exchange, refusal);
                denied = Some(denied.map_or(status, |before| weightier(before, status)));
            }
            Err(refusal) if refusal.status() == 401 => {
                return Err(delayed(exchange, refusal).await);
            }
            Err(refusal) => return Err(refusal),
        }
    }
    match denied {
        None => Ok(()),
        Some(401) => Err(delayed(exchange, Refusal::Denied(401)).await),
        Some(403) => Err(Refusal::Forbidden),
        Some(status) => Err(Refusal::Denied(status)),
    }
}

/// Whether other rules are asked after this refusal. A password that is not even looked at says no
/// more against a client than a wrong one.
fn may_be_outdone(refusal: &Refusal) -> bool {
    let unchecked =
        matches!(refusal, Refusal::Basic(BasicRefusal::TooManyFailures | BasicRefusal::Busy));
    unchecked || matches!(refusal.status(), 401 | 403)
}

/// What tells the client most of what it can do: say who it is, come later, or nothing.
fn weightier(before: u16, status: u16) -> u16 {
    let weight = |status| match status {
        401 => 2,
        403 => 0,
        _ => 1,
    };
    if weight(status) >= weight(before) { status } else { before }
}

async fn ask(
    rule: Rule,
    exchange: &mut Exchange,
    settings: &LocationSettings,
) -> Result<Verdict, Refusal> {
    match rule {
        Rule::Addresses => access::check(&settings.access, exchange.request.client_ip()),
        Rule::Password => auth_basic::check(exchange, settings).await,
        // Boxed, so that a request of which nobody asks this has no room for it.
        Rule::Token => match &settings.auth_jwt {
            Some(jwt) => Box::pin(auth_jwt::check(exchange, jwt)).await,
            None => Ok(Verdict::NoOpinion),
        },
        Rule::Request => match &settings.auth_request {
            Some(asked) => Box::pin(auth_request::check(exchange, asked)).await,
            None => Ok(Verdict::NoOpinion),
        },
    }
}

/// Tells the log of a refusal that another rule may outdo; `deny` is no news then.
fn tell(exchange: &Exchange, refusal: Refusal) -> u16 {
    match refusal {
        Refusal::Forbidden => 403,
        refusal => exchange.request.refuse(&refusal),
    }
}

/// Waits for `auth_delay` before a 401 is answered. The log is told at once.
async fn delayed(exchange: &Exchange, refusal: Refusal) -> Refusal {
    let delay = exchange.request.location().settings.auth_delay;
    let status = exchange.request.refuse(&refusal);
    if delay > Duration::ZERO {
        exchange.request.log(LogLevel::Info, "delaying unauthorized request");
        tokio::select! {
            biased;
            () = exchange.response.closed() => return Refusal::ClientGone,
            () = sleep(delay) => {}
        }
    }
    Refusal::Denied(status)
}
