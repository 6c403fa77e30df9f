//! What is shown and asked for: plain data, changed by keys and answers.
//!
//! `Table` ──/──▶ `Filter` ──Enter, Esc──▶ `Table`
//! `Table`, `Details` ──k──▶ `Words` ──Enter──▶ `Confirm` ──y: an order; any other key──▶ where it began
//! `Table` ──Enter──▶ `Details` ──Esc──▶ `Table`, and the same for `Help` by ?

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::asking::{Answer, Found, Kill, Question};
use super::filter;
use crate::ctl_command::client::CtlError;

/// What is sorted by: as in the API, and in words.
pub(super) const SORTS: [(&str, &str); 8] = [
    ("id", "number"),
    ("age", "age"),
    ("idle", "idle time"),
    ("current", "current rate"),
    ("rate", "average rate"),
    ("messages", "messages"),
    ("bytes", "bytes"),
    ("rtt", "round-trip time"),
];

/// The most tunnels that are asked for; further ones are found by a filter.
pub(super) const MAX_ROWS: usize = 1000;

/// How long what was done is told of.
const MESSAGE_TIME: Duration = Duration::from_secs(6);

/// The shortest time that rates are told over.
const RATE_TIME: Duration = Duration::from_secs(1);

/// What keys mean at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Table,
    /// A filter is typed.
    Filter(String),
    /// The code and the reason of a Close are typed.
    Words {
        id: String,
        whose: String,
        text: String,
    },
    /// They wait for a yes.
    Confirm {
        kill: Kill,
        question: String,
    },
    Help,
}

/// What a key leads to outside of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// The answer that is shown is not to what is wanted now.
    Ask,
    /// Draw everything anew.
    Redraw,
    Suspend,
    Quit,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct State {
    pub(super) found: Option<Found>,
    pub(super) rates: Option<Rates>,
    base: Option<(Instant, Value)>,
    /// When the last good answer came.
    pub(super) answered: Option<Instant>,
    /// Why the last question was not answered.
    pub(super) trouble: Option<String>,
    /// Why the server refuses what is asked, though the filter is one.
    pub(super) refused: Option<String>,
    message: Option<(Instant, String)>,
    pub(super) mode: Mode,
    pub(super) sort: &'static str,
    /// The least come first.
    pub(super) ascends: bool,
    /// As it was typed.
    pub(super) filter: String,
    query: Vec<(&'static str, String)>,
    /// The last filter that the server has understood, as it was typed and as it was asked.
    good: (String, Vec<(&'static str, String)>),
    /// Where the cursor is, and on which tunnel.
    pub(super) cursor: usize,
    selected: Option<String>,
    /// The first row that is shown, and how many there is room for.
    pub(super) first: usize,
    pub(super) room: usize,
    /// The one that is shown in full, and the first line of it.
    pub(super) details: Option<(String, usize)>,
    kill: Option<Kill>,
    /// How many rows are wanted at least.
    pub(super) reach: usize,
    /// What is being answered is out of date.
    pub(super) is_stale: bool,
    /// How long nothing is asked after an answer, in seconds.
    pub(super) interval_s: u64,
}

/// What happens per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) connections: f64,
    pub(super) tunnels: f64,
    pub(super) ended: f64,
    /// Messages and bytes from clients, then from upstream servers.
    pub(super) client: (f64, f64),
    pub(super) upstream: (f64, f64),
}

impl State {
    pub(super) fn new(sort: &str, filter: String, interval_s: u64) -> Self {
        let sort = SORTS.iter().map(|(key, _)| *key).find(|key| *key == sort).unwrap_or("current");
        let query = filter::parse(&filter).unwrap_or_default();
        Self {
            found: None,
            rates: None,
            base: None,
            answered: None,
            trouble: None,
            refused: None,
            message: None,
            mode: Mode::Table,
            sort,
            ascends: sort == "id",
            filter,
            query,
            good: Default::default(),
            cursor: 0,
            selected: None,
            first: 0,
            room: 20,
            details: None,
            kill: None,
            reach: 0,
            is_stale: false,
            interval_s,
        }
    }

    /// What is to be asked now. An order is given once.
    pub(super) fn question(&mut self) -> Question {
        let mut tunnels = self.query.clone();
        tunnels.push(("sort", self.sort.to_owned()));
        tunnels.push(("order", if self.ascends { "asc" } else { "desc" }.to_owned()));
        tunnels.push(("current", "true".to_owned()));
        // One page more than is shown, so that the next one is there when it is wanted.
        let rows = self.reach.max(self.first + 2 * self.room);
        tunnels.push(("limit", rows.clamp(1, MAX_ROWS).to_string()));
        let details = self.details.as_ref().map(|(id, _)| id.clone());
        Question { tunnels, details, kill: self.kill.take() }
    }

    pub(super) fn on_answer(&mut self, answer: Answer, now: Instant) {
        if let Some((id, killed)) = answer.killed {
            self.say(
                now,
                match killed {
                    Ok(()) => format!("{id} is being closed"),
                    Err(CtlError::Refused { status: 404, .. }) => format!("{id} had ended already"),
                    Err(error) => format!("{id}: {error}"),
                },
            );
        }
        match answer.found {
            Ok(found) => {
                (self.trouble, self.refused) = (None, None);
                if !self.is_stale {
                    self.good = (self.filter.clone(), self.query.clone());
                }
                self.answered = Some(answer.at);
                self.note_totals(answer.at, &found.status);
                self.found = Some(found);
                self.follow_selected();
            }
            // It answers, but not that.
            Err(CtlError::Refused { status: 400, message }) => {
                self.trouble = None;
                self.on_refusal(message, now);
            }
            Err(CtlError::Io { source, .. }) if source.kind() == ErrorKind::WouldBlock => {
                self.trouble = Some("the server accepts and says nothing".to_owned());
            }
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }

    /// The server does not understand what is asked, so a new filter is not one: the last good one is in effect again,
    /// and the new one is there to be put right.
    fn on_refusal(&mut self, message: String, now: Instant) {
        if self.is_stale {
            // It was about something else.
            return;
        }
        if self.query == self.good.1 {
            self.refused = Some(message);
            return;
        }
        let typed;
        (typed, (self.filter, self.query)) = (std::mem::take(&mut self.filter), self.good.clone());
        self.is_stale = true;
        self.say(now, message);
        if self.mode == Mode::Table && self.details.is_none() {
            self.mode = Mode::Filter(typed);
        }
    }

    fn note_totals(&mut self, at: Instant, status: &Value) {
        let is_same = |before: &Value| {
            before["started"] == status["started"] && before["pid"] == status["pid"]
        };
        let Some((since, before)) = self.base.as_ref().filter(|(_, before)| is_same(before)) else {
            (self.base, self.rates) = (Some((at, status.clone())), None);
            return;
        };
        let over = at.saturating_duration_since(*since);
        // Keys have more questions asked than rates can be told over.
        if over >= RATE_TIME {
            self.rates = Some(Rates::between(&before["totals"], &status["totals"], over));
            self.base = Some((at, status.clone()));
        }
    }

    pub(super) fn rows(&self) -> &[Value] {
        let found = self.found.as_ref().and_then(|found| found.tunnels["tunnels"].as_array());
        found.map_or(&[], Vec::as_slice)
    }

    /// How many tunnels fit the filter.
    pub(super) fn matched(&self) -> u64 {
        self.found.as_ref().and_then(|found| found.tunnels["matched"].as_u64()).unwrap_or(0)
    }

    /// The tunnel that keys mean.
    pub(super) fn row(&self) -> Option<&Value> {
        self.rows().get(self.cursor)
    }

    /// What is told for a while.
    pub(super) fn message(&self, now: Instant) -> Option<&str> {
        let (at, text) = self.message.as_ref()?;
        (now.saturating_duration_since(*at) < MESSAGE_TIME).then_some(text)
    }

    pub(super) fn unsay(&mut self) {
        self.message = None;
    }

    pub(super) fn say(&mut self, now: Instant, text: String) {
        self.message = Some((now, text));
    }

    /// So many rows are shown from now on.
    pub(super) fn set_room(&mut self, room: usize) {
        self.room = room.max(1);
        self.show_cursor();
    }

    /// Moves the cursor to a row, or to the last one.
    pub(super) fn move_to(&mut self, row: usize) {
        self.cursor = row.min(self.rows().len().saturating_sub(1));
        self.selected = self.row().and_then(id_of);
        self.show_cursor();
    }

    /// The order of rows has changed: the cursor stays at the top if it was there, else on its tunnel.
    fn follow_selected(&mut self) {
        let place = self
            .selected
            .as_ref()
            .and_then(|id| self.rows().iter().position(|row| row["id"].as_str() == Some(id)));
        match place {
            Some(row) if self.cursor > 0 => self.move_to(row),
            _ => self.move_to(self.cursor),
        }
    }

    fn show_cursor(&mut self) {
        let least = (self.cursor + 1).saturating_sub(self.room);
        self.first = self.first.clamp(least, self.cursor);
    }

    /// Sorts by this from now on, greatest first except by number; by the same again, the other way round.
    pub(super) fn sort_by(&mut self, key: &'static str) -> Effect {
        self.ascends = if self.sort == key { !self.ascends } else { key == "id" };
        self.sort = key;
        self.move_to(0);
        Effect::Ask
    }

    /// Takes a filter; what is wrong with one leaves the last in effect.
    pub(super) fn set_filter(&mut self, text: &str) -> Effect {
        match filter::parse(text) {
            Ok(query) => {
                (self.query, self.filter) = (query, text.trim().to_owned());
                self.refused = None;
                self.move_to(0);
                Effect::Ask
            }
            Err(problem) => {
                self.say(Instant::now(), problem);
                Effect::None
            }
        }
    }

    /// Gives the order.
    pub(super) fn close(&mut self, kill: Kill) -> Effect {
        self.kill = Some(kill);
        Effect::Ask
    }
}

impl Rates {
    fn between(before: &Value, now: &Value, over: Duration) -> Self {
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        let rate = |before: &Value, now: &Value| {
            ((number(now) - number(before)) / over.as_secs_f64()).max(0.0)
        };
        let side = |name: &str| {
            let (before, now) = (&before[name], &now[name]);
            (rate(&before["messages"], &now["messages"]), rate(&before["bytes"], &now["bytes"]))
        };
        Self {
            connections: rate(&before["connections"], &now["connections"]),
            tunnels: rate(&before["tunnels"], &now["tunnels"]),
            ended: rate(&before["ended"], &now["ended"]),
            client: side("from_client"),
            upstream: side("from_upstream"),
        }
    }
}

pub(super) fn id_of(row: &Value) -> Option<String> {
    row["id"].as_str().map(str::to_owned)
}
