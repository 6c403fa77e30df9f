//! What keys do.

use std::time::Instant;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::Value;
use wssgate_ws::CloseCode;
use wssgate_ws::close::MAX_REASON_LEN;

use super::asking::Kill;
use super::state::{Effect, MAX_ROWS, Mode, SORTS, State, id_of};

/// The longest text that is typed, in characters.
const MAX_TEXT: usize = 400;

/// Every key of the table and what it does, for the help and the manual.
pub(super) const HELP: [(&str, &str); 14] = [
    ("Up Down PgUp PgDn Home End", "move"),
    ("Enter", "everything known of the selected tunnel"),
    ("k", "close it, with a code and a reason; asks first"),
    ("/", "filter: user=ann min_age=1h; a word alone is a user"),
    ("c", "sort by current rate"),
    ("r", "by average rate"),
    ("a", "by age"),
    ("i", "by idle time"),
    ("m", "by messages"),
    ("b", "by bytes"),
    ("t", "by round-trip time"),
    ("n", "by number"),
    ("same key again", "the other way round"),
    ("q Ctrl-C, Ctrl-Z, Ctrl-L", "quit, stop, draw anew"),
];

impl State {
    pub(super) fn on_key(&mut self, key: KeyEvent) -> Effect {
        if key.kind == KeyEventKind::Release {
            return Effect::None;
        }
        self.unsay();
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Effect::Quit,
                KeyCode::Char('z') => Effect::Suspend,
                KeyCode::Char('l') => Effect::Redraw,
                KeyCode::Char('u') => self.on_edit(|text| text.clear()),
                _ => Effect::None,
            };
        }
        match (&self.mode, key.code) {
            (Mode::Help, _) => self.back(),
            (Mode::Confirm { kill, .. }, KeyCode::Char('y' | 'Y')) => {
                let kill = kill.clone();
                self.mode = Mode::Table;
                self.close(kill)
            }
            (Mode::Confirm { .. }, _) => {
                self.say(Instant::now(), "nothing was closed".to_owned());
                self.back()
            }
            (Mode::Filter(_) | Mode::Words { .. }, code) => self.on_text_key(code),
            (Mode::Table, code) if self.details.is_some() => self.on_details_key(code),
            (Mode::Table, code) => self.on_table_key(code),
        }
    }

    fn back(&mut self) -> Effect {
        self.mode = Mode::Table;
        Effect::None
    }

    fn on_table_key(&mut self, code: KeyCode) -> Effect {
        match code {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter(self.filter.clone()),
            KeyCode::Char('k') | KeyCode::F(9) => self.begin_close(),
            KeyCode::Enter => {
                self.details = self.row().and_then(id_of).map(|id| (id, 0));
                return Effect::Ask;
            }
            KeyCode::Esc if !self.filter.is_empty() => return self.set_filter(""),
            KeyCode::Char(key) => {
                let sort = ["current", "rate", "age", "idle", "messages", "bytes", "t", "n"];
                let sort = sort.into_iter().find(|name| name.starts_with(key));
                let sort = match sort {
                    Some("t") => Some("rtt"),
                    Some("n") => Some("id"),
                    other => other,
                };
                let known = SORTS.iter().map(|(name, _)| *name).find(|name| Some(*name) == sort);
                return known.map_or(Effect::None, |sort| self.sort_by(sort));
            }
            code => {
                let Some(row) = moved(code, self.cursor, self.room) else { return Effect::None };
                let first = self.first;
                self.reach = if code == KeyCode::End { MAX_ROWS } else { 0 };
                self.move_to(row);
                // The rows behind those that are there.
                let ends = self.first + 2 * self.room > self.rows().len();
                if first != self.first && ends && self.matched() > self.rows().len() as u64 {
                    return Effect::Ask;
                }
            }
        }
        Effect::None
    }

    fn on_details_key(&mut self, code: KeyCode) -> Effect {
        match code {
            KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace | KeyCode::Char('q') => {
                self.details = None;
            }
            KeyCode::Char('k') | KeyCode::F(9) => self.begin_close(),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.mode = Mode::Help,
            code => {
                let room = self.room;
                if let Some((_, first)) = &mut self.details
                    && let Some(row) = moved(code, *first, room)
                {
                    // Drawing knows how many lines there are.
                    *first = row;
                }
            }
        }
        Effect::None
    }

    fn begin_close(&mut self) {
        let shown = self.details.as_ref().map(|(id, _)| id.clone());
        let row = match &shown {
            Some(id) => self.rows().iter().find(|row| row["id"].as_str() == Some(id)),
            None => self.row(),
        };
        let whose = row.and_then(whose).unwrap_or_default();
        if let Some(id) = shown.or_else(|| row.and_then(id_of)) {
            self.mode = Mode::Words { id, whose, text: String::new() };
        }
    }

    fn on_edit(&mut self, edit: impl FnOnce(&mut String)) -> Effect {
        if let Mode::Filter(text) | Mode::Words { text, .. } = &mut self.mode {
            edit(text);
        }
        Effect::None
    }

    fn on_text_key(&mut self, code: KeyCode) -> Effect {
        match code {
            KeyCode::Esc => self.back(),
            KeyCode::Backspace => self.on_edit(|text| {
                text.pop();
            }),
            KeyCode::Char(character) => self.on_edit(|text| {
                if text.chars().count() < MAX_TEXT {
                    text.push(character);
                }
            }),
            KeyCode::Enter => match std::mem::replace(&mut self.mode, Mode::Table) {
                Mode::Filter(text) => match self.set_filter(&text) {
                    Effect::None => {
                        // To be put right.
                        self.mode = Mode::Filter(text);
                        Effect::None
                    }
                    effect => effect,
                },
                Mode::Words { id, whose, text } => {
                    self.mode = match words(&text) {
                        Ok(words) => confirmation(id, &whose, words),
                        Err(problem) => {
                            self.say(Instant::now(), problem.to_owned());
                            Mode::Words { id, whose, text }
                        }
                    };
                    Effect::None
                }
                other => {
                    self.mode = other;
                    Effect::None
                }
            },
            _ => Effect::None,
        }
    }
}

fn confirmation(id: String, whose: &str, words: Vec<(&'static str, String)>) -> Mode {
    let with = match &words[..] {
        [] => "1001".to_owned(),
        [(_, code)] => code.clone(),
        [(_, code), (_, reason), ..] => format!("{code} \"{reason}\""),
    };
    let question = format!("Close {id}{whose} with {with}? y/n");
    Mode::Confirm { kill: Kill { id, words }, question }
}

/// Such as ` of ann`.
fn whose(row: &Value) -> Option<String> {
    let user = row["user"].as_str().filter(|user| !user.is_empty())?;
    Some(format!(" of {user}"))
}

/// A code and a reason, as the API takes them.
fn words(text: &str) -> Result<Vec<(&'static str, String)>, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let (code, reason) = text.split_once(' ').unwrap_or((text, ""));
    let is_code = code.parse().is_ok_and(|code| CloseCode(code).is_valid_on_wire());
    if !is_code {
        return Err("a code comes first, such as 1008, 1012 or 4000 to 4999");
    }
    let reason = reason.trim();
    if reason.len() > MAX_REASON_LEN {
        return Err("a reason has at most 123 bytes");
    }
    let mut words = vec![("code", code.to_owned())];
    if !reason.is_empty() {
        words.push(("reason", reason.to_owned()));
    }
    Ok(words)
}

/// Where a key for moving leads from this row.
fn moved(code: KeyCode, row: usize, page: usize) -> Option<usize> {
    Some(match code {
        KeyCode::Up => row.saturating_sub(1),
        KeyCode::Down => row + 1,
        KeyCode::PageUp => row.saturating_sub(page),
        KeyCode::PageDown => row + page,
        KeyCode::Home => 0,
        KeyCode::End => usize::MAX,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::asking::{Answer, Found};
    use super::*;
    use crate::ctl_command::client::CtlError;

    fn press(state: &mut State, keys: &str) -> Vec<Effect> {
        let code = |key| match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            'v' => KeyCode::Down,
            other => KeyCode::Char(other),
        };
        keys.chars().map(|key| state.on_key(code(key).into())).collect()
    }

    fn state() -> State {
        let mut state = State::new("current", String::new(), 2);
        show(&mut state, &["4", "7", "9"]);
        state
    }

    fn show(state: &mut State, ids: &[&str]) {
        let rows: Vec<_> = ids.iter().map(|id| json!({"id": id, "user": "ann"})).collect();
        let tunnels = json!({"matched": rows.len(), "tunnels": rows});
        let found = Found { tunnels, ..Found::default() };
        let now = Instant::now();
        state.on_answer(Answer { at: now, found: Ok(found), killed: None }, now);
    }

    #[test]
    fn a_tunnel_is_closed_with_these_words_and_only_after_a_yes() {
        let mut state = state();
        press(&mut state, "vk4001 go away\n");
        assert!(
            matches!(&state.mode, Mode::Confirm { question, .. }
            if question == "Close 7 of ann with 4001 \"go away\"? y/n"),
            "{:?}",
            state.mode
        );
        assert_eq!(press(&mut state, "n"), [Effect::None]);
        assert_eq!(state.question().kill, None);
        press(&mut state, "k\n");
        assert_eq!(press(&mut state, "y"), [Effect::Ask]);
        let kill = Kill { id: "7".to_owned(), words: Vec::new() };
        assert_eq!(state.question().kill, Some(kill));
        assert_eq!(state.question().kill, None, "an order is given once");
        for (text, expected) in [
            ("", Ok(vec![])),
            ("4001", Ok(vec![("code", "4001".to_owned())])),
            ("1008 a b", Ok(vec![("code", "1008".to_owned()), ("reason", "a b".to_owned())])),
            ("1005", Err(())),
            ("gone", Err(())),
        ] {
            assert_eq!(words(text).map_err(drop), expected, "{text}");
        }
    }

    #[test]
    fn the_cursor_follows_its_tunnel_except_at_the_top() {
        let mut state = state();
        show(&mut state, &["7", "4", "9"]);
        assert_eq!(state.cursor, 0, "who looks at the busiest goes on to look at the busiest");
        press(&mut state, "v");
        show(&mut state, &["9", "7", "4"]);
        assert_eq!(state.cursor, 2);
        show(&mut state, &["9"]);
        assert_eq!((state.cursor, state.row().and_then(id_of).as_deref()), (0, Some("9")));
        show(&mut state, &[]);
        assert_eq!((state.cursor, state.row()), (0, None));
        press(&mut state, "k\n");
        assert_eq!(state.mode, Mode::Table, "there is nothing to close");
    }

    #[test]
    fn keys_choose_the_order_and_the_same_one_turns_it_round() {
        let mut state = state();
        for (key, sort, order) in [
            ("a", "age", "desc"),
            ("a", "age", "asc"),
            ("n", "id", "asc"),
            ("t", "rtt", "desc"),
            ("c", "current", "desc"),
            ("r", "rate", "desc"),
        ] {
            assert_eq!(press(&mut state, key), [Effect::Ask]);
            let asked = state.question().tunnels;
            assert!(asked.contains(&("sort", sort.to_owned())), "{asked:?}");
            assert!(asked.contains(&("order", order.to_owned())), "{asked:?}");
        }
        assert_eq!(press(&mut state, "xz"), [Effect::None; 2]);
    }

    #[test]
    fn a_filter_is_typed_and_a_wrong_one_is_put_right() {
        let mut state = state();
        press(&mut state, "/colour=red\n");
        assert_eq!(state.mode, Mode::Filter("colour=red".to_owned()));
        state.on_key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
        assert_eq!(press(&mut state, "q \n").last(), Some(&Effect::Ask));
        assert_eq!(state.filter, "q");
        assert!(state.question().tunnels.contains(&("user", "q".to_owned())));
        assert_eq!(press(&mut state, "\u{1b}"), [Effect::Ask], "Esc takes it away");
        assert_eq!(state.filter, "");
        assert_eq!(press(&mut state, "q"), [Effect::Quit]);
    }

    #[test]
    fn a_filter_that_the_server_refuses_gives_way_to_the_last_good_one() {
        let mut state = state();
        press(&mut state, "/ann\n");
        show(&mut state, &["4"]);
        press(&mut state, "/ min_age=soon\n");
        let refuse = |state: &mut State| {
            let refused = CtlError::Refused { status: 400, message: "\"soon\" is no time".into() };
            let now = Instant::now();
            state.on_answer(Answer { at: now, found: Err(refused), killed: None }, now);
            state.message(now).map(str::to_owned)
        };
        assert_eq!(refuse(&mut state).as_deref(), Some("\"soon\" is no time"));
        assert_eq!((&*state.filter, state.rows().len(), state.is_stale), ("ann", 1, true));
        assert_eq!(state.mode, Mode::Filter("ann min_age=soon".to_owned()), "to be put right");
        assert_eq!(state.question().tunnels[0], ("user", "ann".to_owned()));
        // It does not go round in circles where the filter is not the reason.
        state.is_stale = false;
        state.unsay();
        assert_eq!((refuse(&mut state), state.is_stale), (None, false));
        assert!(state.refused.is_some());
    }
}
