//! Taking back what clients were let in with.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wssgate_http1::Method;
use wssgate_syntax::printable;
use wssgate_ws::conversation::{Cause, Lapse};

use super::api::{Answer, Refusal, Request, ok};
use super::query::{MAX_TIME, Query};
use super::walk::{self, Row};
use crate::auth::revocations::{Kind, MAX, Revocation, text_of};
use crate::clock::{self, Moment};

/// How long something is revoked unless it is said.
const TIME: Duration = Duration::from_secs(24 * 3600);

/// The most rows of one answer.
const MAX_ROWS: usize = 1000;

impl Request<'_> {
    pub(super) fn revocations(self) -> Result<Answer, Refusal> {
        match self.method {
            Method::Get => self.list_revocations(),
            Method::Post => self.revoke(),
            _ => Err(Refusal::Method("GET or POST")),
        }
    }

    fn list_revocations(mut self) -> Result<Answer, Refusal> {
        let after = self.query.number("after")?.unwrap_or(0);
        let limit = self.query.read("limit", "1 to 1000 is expected", |text| {
            text.parse().ok().filter(|limit| (1..=MAX_ROWS).contains(limit))
        })?;
        self.query.finish()?;
        let (revocations, now) = (&self.view.revocations, Instant::now());
        let (page, more) = revocations.page(after, limit.unwrap_or(MAX_ROWS), now);
        let next = page.last().filter(|_| more).map(|last| last.id.to_string());
        Ok(ok(json!({
            "held": revocations.count(now),
            "max": MAX,
            "revocations": page.iter().map(row).collect::<Vec<_>>(),
            "next": next,
        })))
    }

    /// Revokes for those who come, then ends those who are here.
    fn revoke(mut self) -> Result<Answer, Refusal> {
        let (kind, text) = named(&mut self.query)?;
        let fits = |text: &str| {
            let time = wssgate_config::value::duration(text.as_bytes())?;
            (!time.is_zero() && time <= MAX_TIME).then_some(time)
        };
        let time = self.query.read("for", "a time such as 1h, at most 366d, is expected", fits)?;
        let time = time.unwrap_or(TIME);
        std::mem::take(&mut self.query).finish()?;
        let revocation = self.view.revocations.add(kind, &text, time, Moment::now())?;
        let shown = printable(text.as_bytes());
        self.note(format_args!("revoking the {} \"{shown}\" for {time:?}", kind.words()));
        let ended = self.end_revoked(kind, &text_of(text.as_bytes())).map_err(|refusal| {
            let id = revocation.id;
            refusal
                .after(format!("the revocation is held (id {id}), repeat it to close the others"))
        })?;
        let mut answer = row(&revocation);
        answer["ended"] = ended.into();
        answer["warning"] = self.in_vain(kind).into();
        Ok(ok(answer))
    }

    /// Why nobody who comes is refused, if that is so: no location knows clients by texts of this kind.
    fn in_vain(&self, kind: Kind) -> Option<&'static str> {
        let generation = self.view.current.load();
        let mut locations = generation.config.http.iter().flat_map(|http| &http.locations);
        let is_known = locations.any(|location| match kind {
            Kind::User => location.settings.websocket_user.is_some(),
            Kind::Subject | Kind::TokenId => location.settings.auth_jwt.is_some(),
        });
        match (is_known, kind) {
            (true, _) => None,
            (_, Kind::User) => Some("no location has websocket_user: this refuses nobody"),
            _ => Some("no location has auth_jwt: this refuses nobody"),
        }
    }

    /// Ends the tunnels that are known by this text; how many we had not begun to close before.
    fn end_revoked(&self, kind: Kind, text: &str) -> Result<usize, Refusal> {
        let relays = self.view.relays.all();
        let is_meant = |row: &Row| row.about.name(kind) == Some(text) && !row.live.is_closing;
        let handles = walk::select(&relays, is_meant)?;
        let cause = Cause::Credentials(Lapse::Revoked);
        let mut ended = 0;
        for (worker, handles) in handles.iter().enumerate() {
            ended += walk::end(&relays, worker, handles, cause, None)?;
        }
        Ok(ended)
    }

    pub(super) fn unrevoke(mut self, id: &str) -> Result<Answer, Refusal> {
        if !matches!(self.method, Method::Delete) {
            return Err(Refusal::Method("DELETE"));
        }
        let id = id.parse().map_err(|_| Refusal::NoRevocation)?;
        std::mem::take(&mut self.query).finish()?;
        let removed = self.view.revocations.remove(id, Instant::now());
        let removed = removed.ok_or(Refusal::NoRevocation)?;
        let (words, shown) = (removed.kind.words(), printable(removed.text.as_bytes()));
        self.note(format_args!("the {words} \"{shown}\" is no longer revoked"));
        Ok(ok(row(&removed)))
    }
}

/// What is to be revoked: one text of one kind.
fn named(query: &mut Query) -> Result<(Kind, String), Refusal> {
    let said = Kind::ALL.map(|kind| (kind, query.text(kind.name())));
    let mut said = said.into_iter().filter_map(|(kind, text)| Some((kind, text?)));
    match (said.next(), said.next()) {
        (Some((_, text)), None) if text.is_empty() => Err(Refusal::Whom),
        (Some(one), None) => Ok(one),
        _ => Err(Refusal::Whom),
    }
}

/// A revocation as the API shows it.
fn row(revocation: &Revocation) -> Value {
    let Revocation { id, kind, text, began, ends, .. } = revocation;
    let seconds = |time| clock::millis(clock::since_epoch(time)) as f64 / 1000.0;
    let mut row = json!({
        "id": id.to_string(),
        "subject": null,
        "token_id": null,
        "user": null,
        "began": seconds(*began),
        "ends": seconds(*ends),
    });
    row[kind.name()] = Value::from(&**text);
    row
}
