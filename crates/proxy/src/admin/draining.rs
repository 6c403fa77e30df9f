//! Drains that operators order, and locations that they close to new WebSockets.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wssgate_config::model::{Content, LocationId};
use wssgate_http1::Method;
use wssgate_relay::{Order, Pace, Paces, Whom};
use wssgate_ws::CloseCode;
use wssgate_ws::conversation::Farewell;

use super::api::{Answer, Refusal, Request, ok, words};
use super::drains::Wanted;
use super::query::{MAX_TIME, Query, QueryError};
use super::rows::Filter;
use super::walk::{self, Row, walk};
use crate::generation::doors::Again;
use crate::generation::{Generation, Place};

/// When those who are refused may come again unless it is said, in seconds.
const AGAIN: Again = Again { least: 10, most: 60 };

/// How many a drain means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meant {
    /// Those that it can close.
    matched: usize,
    /// Those that fit and stay, for their frames are not known.
    pub(super) staying: usize,
}

impl Meant {
    /// Counts one that fits; says whether it can be closed.
    fn count(&mut self, row: &Row) -> bool {
        let is_open = row.live.is_websocket && !row.live.is_closing;
        self.matched += usize::from(is_open);
        self.staying += usize::from(!row.live.is_websocket);
        is_open
    }
}

/// How an operator wants some drained.
#[derive(Debug)]
pub(super) struct Manner {
    pace: Pace,
    words: Option<Arc<Farewell>>,
}

impl Manner {
    /// `over` and what goes with it; `None` if nothing of it is there.
    pub(super) fn parse(query: &mut Query) -> Result<Option<Self>, QueryError> {
        let expected = "a time such as 90s, 1h30m or 250ms, at most 366d, is expected";
        let time = |text: &str| {
            wssgate_config::value::duration(text.as_bytes()).filter(|time| *time <= MAX_TIME)
        };
        let over = query.read("over", expected, time)?;
        let words = words(query)?;
        let order = |text: &str| match text {
            "oldest" => Some(Order::Oldest),
            "idlest" => Some(Order::Idlest),
            _ => None,
        };
        let order = query.read("order", "oldest or idlest is expected", order)?;
        let jitter = query.read("jitter", expected, time)?;
        let Some(over) = over else {
            let is_said = words.is_some() || order.is_some() || jitter.is_some();
            return if is_said { Err(QueryError::Missing("over")) } else { Ok(None) };
        };
        let pace = Pace {
            over,
            code: words.as_ref().map_or(CloseCode::GOING_AWAY, |words| words.code),
            order: order.unwrap_or(Order::Oldest),
            jitter: jitter.unwrap_or(over / 10).min(over),
        };
        Ok(Some(Self { pace, words }))
    }
}

/// Which locations are meant; all that is said must fit.
#[derive(Debug, Default)]
struct Where {
    server: Option<String>,
    location: Option<String>,
    upstream: Option<String>,
}

impl Where {
    fn is_empty(&self) -> bool {
        [&self.server, &self.location, &self.upstream].into_iter().all(Option::is_none)
    }

    fn fits(&self, place: &Place) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        is(&self.server, &place.server)
            && is(&self.location, &place.location)
            && (self.upstream.is_none() || self.upstream.as_deref() == place.upstream.as_deref())
    }

    /// Those that pass requests on.
    fn locations(&self, generation: &Generation) -> Vec<LocationId> {
        let Some(http) = &generation.config.http else { return Vec::new() };
        let proxies = |id: &LocationId| matches!(http.locations[id.0].content, Content::Proxy(_));
        let fits = |id: &LocationId| self.fits(&generation.places()[id.0]);
        (0..http.locations.len()).map(LocationId).filter(proxies).filter(fits).collect()
    }
}

impl Request<'_> {
    /// Shows all drains, or begins one.
    pub(super) fn drains(mut self) -> Result<Answer, Refusal> {
        if matches!(self.method, Method::Post) {
            return self.begin_drain();
        }
        self.reads()?;
        std::mem::take(&mut self.query).finish()?;
        let (drains, refusing) = (self.view.drains.all(), self.refusing());
        Ok(ok(json!({"drains": drains, "refusing": refusing})))
    }

    pub(super) fn drain(self, id: &str) -> Result<Answer, Refusal> {
        self.reads()?;
        self.query.finish()?;
        Ok(ok(self.view.drains.show(drain_id(id))?))
    }

    pub(super) fn cancel_drain(mut self, id: &str) -> Result<Answer, Refusal> {
        self.changes()?;
        std::mem::take(&mut self.query).finish()?;
        let id = drain_id(id);
        self.view.drains.cancel(id, &self.view.relays.all())?;
        self.note(format_args!("drain {id} is cancelled"));
        Ok(ok(self.view.drains.show(id)?))
    }

    fn begin_drain(mut self) -> Result<Answer, Refusal> {
        let what = self.query.meaning();
        let filter = Filter::parse(&mut self.query)?;
        let manner = Manner::parse(&mut self.query)?.ok_or(QueryError::Missing("over"))?;
        let (all, dry_run) = (self.query.flag("all")?, self.query.flag("dry_run")?);
        let refuse_new = self.query.flag("refuse_new")?;
        if refuse_new && self.is_of_dashboard() {
            let why = "refuse_new is for `wssgate ctl`: a dashboard could not let new WebSockets in again";
            return Err(Refusal::Wrong(why));
        }
        let again = self.query.read("retry_after", "a time or a range such as 10s-60s", again)?;
        std::mem::take(&mut self.query).finish()?;
        if filter.is_empty() && !all {
            return Err(Refusal::Everything);
        }
        let closes = match (refuse_new, again) {
            (true, again) => Some((self.closes(&filter)?, again.unwrap_or(AGAIN))),
            (false, Some(_)) => return Err(Refusal::Wrong("retry_after goes with refuse_new")),
            (false, None) => None,
        };
        if dry_run {
            let mut meant = Meant::default();
            walk(&self.view.relays.all(), |row| {
                if filter.fits(&row) {
                    meant.count(&row);
                }
            })?;
            let Meant { matched, staying } = meant;
            return Ok(ok(json!({"matched": matched, "staying": staying, "drain": null})));
        }
        self.view.drains.check_room()?;
        if let Some((locations, again)) = &closes {
            // First, so that only those who were let in before are not told.
            self.close_doors(locations, *again);
        }
        let begun = self.drain_those(what, manner, |row| filter.fits(row));
        let (meant, drain) = begun.map_err(|refusal| match closes {
            Some(_) => refusal.after("no drain has begun, but new WebSockets are refused already"),
            None => refusal,
        })?;
        let (Meant { matched, staying }, refusing) = (meant, self.refusing());
        Ok(ok(
            json!({"matched": matched, "staying": staying, "drain": drain, "refusing": refusing}),
        ))
    }

    /// Begins a drain of those that fit now; says how many it means, and what is known of the drain.
    pub(super) fn drain_those(
        &self,
        what: String,
        manner: Manner,
        fits: impl Fn(&Row) -> bool,
    ) -> Result<(Meant, Value), Refusal> {
        let drains = &self.view.drains;
        drains.check_room()?;
        let relays = self.view.relays.all();
        let mut meant = Meant::default();
        let handles = walk::select(&relays, |row| fits(row) && meant.count(row))?;
        let whom = handles.into_iter().map(|handles| Whom::These(handles.into()));
        let Manner { pace, words } = manner;
        let wanted = Wanted {
            what,
            by: Some(self.who()),
            paces: Paces::One(pace),
            over: pace.over,
            words,
            takes_over: true,
        };
        let id = drains.begin(wanted, drains.new_progress(), relays.iter().zip(whom));
        let drain = drains.show(id)?;
        let what = drain["what"].as_str().unwrap_or_default();
        self.note(format_args!("drain {id} of {what} over {:?}", pace.over));
        Ok((meant, drain))
    }

    /// The locations to close for a drain of these.
    fn closes(&self, filter: &Filter) -> Result<Vec<LocationId>, Refusal> {
        let Some((server, location, upstream)) = filter.place() else {
            let why = "refuse_new goes with server, location and the name of an upstream alone: nothing else is known \
                       of a handshake";
            return Err(Refusal::Wrong(why));
        };
        let wanted = Where { server, location, upstream };
        let locations = wanted.locations(&self.view.current.load());
        if locations.is_empty() {
            return Err(Refusal::NotThere("no location with proxy_pass fits"));
        }
        Ok(locations)
    }

    fn close_doors(&self, locations: &[LocationId], again: Again) {
        let generation = self.view.current.load();
        for &location in locations {
            generation.doors.close(location, again);
        }
        let Again { least, most } = again;
        let what = format_args!(
            "no new WebSockets in {} until the next reload, Retry-After from {least}s to {most}s",
            names(&generation, locations)
        );
        self.note(what);
    }

    /// Lets new WebSockets in again.
    pub(super) fn resume(mut self) -> Result<Answer, Refusal> {
        self.changes()?;
        let wanted = Where {
            server: self.query.text("server"),
            location: self.query.text("location"),
            upstream: self.query.text("upstream"),
        };
        let all = self.query.flag("all")?;
        std::mem::take(&mut self.query).finish()?;
        if wanted.is_empty() && !all {
            return Err(Refusal::Wrong(
                "name a server, a location or an upstream, or say all=true",
            ));
        }
        let generation = self.view.current.load();
        let mut opened = wanted.locations(&generation);
        opened.retain(|location| generation.doors.open(*location));
        if !opened.is_empty() {
            self.note(format_args!("new WebSockets again in {}", names(&generation, &opened)));
        }
        Ok(ok(json!({"resumed": opened.len(), "refusing": self.refusing()})))
    }

    /// The locations that are closed.
    fn refusing(&self) -> Vec<Value> {
        let generation = self.view.current.load();
        let places = generation.places().iter().enumerate();
        let closed = places
            .filter(|(number, _)| generation.doors.closed(LocationId(*number)).is_some())
            .map(|(_, place)| json!({"server": place.server, "location": place.location}));
        closed.collect()
    }
}

fn drain_id(text: &str) -> u64 {
    // None has the number 0.
    text.parse().unwrap_or(0)
}

/// A time, or two with a dash between.
fn again(text: &str) -> Option<Again> {
    let seconds = |text: &str| {
        let time = wssgate_config::value::duration(text.as_bytes())?;
        u32::try_from(time.max(Duration::from_secs(1)).as_secs()).ok()
    };
    let (least, most) = match text.split_once('-') {
        Some((least, most)) => (seconds(least)?, seconds(most)?),
        None => (seconds(text)?, seconds(text)?),
    };
    (least <= most).then_some(Again { least, most })
}

/// Some locations, for the log.
fn names(generation: &Generation, locations: &[LocationId]) -> String {
    const SHOWN: usize = 5;
    let mut out = String::new();
    for (at, location) in locations.iter().take(SHOWN).enumerate() {
        let place = generation.place(*location);
        let comma = if at == 0 { "" } else { ", " };
        // Writing to a string does not fail.
        let _ =
            write!(out, "{comma}location \"{}\" of server \"{}\"", place.location, place.server);
    }
    if let Some(more) = locations.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        let _ = write!(out, " and {more} more");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_come_again_is_one_or_two() {
        for (text, expected) in [
            ("10s-1m", Some((10, 60))),
            ("5", Some((5, 5))),
            ("250ms-3s", Some((1, 3))),
            ("9s-5s", None),
            ("soon", None),
            ("-5s", None),
        ] {
            let expected = expected.map(|(least, most)| Again { least, most });
            assert_eq!(again(text), expected, "{text}");
        }
    }
}
