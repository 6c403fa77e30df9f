//! `wssgate ctl top`: what a running server carries, on the whole screen, over the same API as everything else.
//!
//! ```text
//! keys ────┐
//! signals ─┼─▶ State ──lines──▶ Screen
//! answers ─┘     └──questions──▶ a thread of its own
//! ```
//!
//! The state is plain data and knows no terminal; what it looks like is a function of it and the size. A server that
//! is slow or gone stops neither keys nor the clock.

mod asking;
mod columns;
mod filter;
mod keys;
mod screen;
mod state;
mod view;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use crossterm::event::{self, Event as Input};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use self::asking::{Answer, Question};
use self::screen::Screen;
use self::state::{Effect, State};
use super::client::CtlError;
use super::{Client, FilterArgs};

/// How long the server may take for one answer. It asks its relays, which have two seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// After which time the second question follows the first: so long it takes until the first rates are known.
const FIRST_PAUSE: Duration = Duration::from_millis(1_100);

/// How long the screen may stay as it is: it shows for how long there was no answer.
const TICK: Duration = Duration::from_millis(500);

/// The command line of `wssgate ctl top`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(super) struct TopArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// By what tunnels are ordered at first
    #[arg(long, value_name = "KEY", default_value = "current", value_parser = state::SORTS.map(|(key, _)| key))]
    sort: String,
    /// Seconds between two looks, at least 1
    #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

/// What there is to react to.
enum Event {
    Input(Input),
    Signal(i32),
    Answer(Box<Answer>),
    /// Nobody types any more, or nobody asks.
    Gone,
}

/// Shows it until somebody has seen enough.
pub(super) fn run(socket: PathBuf, args: &TopArgs) -> Result<(), CtlError> {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if is_dumb || !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(CtlError::Usage(
            "top needs a terminal; `wssgate ctl list --sort current` prints once",
        ));
    }
    let client = Client::new(socket).patient_for(PATIENCE);
    let (sender, events) = mpsc::channel();
    let (questions, asked) = mpsc::channel();
    let answers = sender.clone();
    thread::spawn(move || {
        asking::answer(&client, &asked, |answer| {
            answers.send(Event::Answer(Box::new(answer))).is_ok()
        })
    });
    follow_signals(sender.clone()).map_err(CtlError::Output)?;
    let screen = Screen::enter().map_err(CtlError::Output)?;
    thread::spawn(move || follow_keys(&sender));
    let state = State::new(&args.sort, filter::text(&args.filter.query()), args.interval);
    let top = Top {
        state,
        screen,
        events,
        questions,
        interval: Duration::from_secs(args.interval),
        next: Some(Instant::now()),
        answers: 0,
    };
    // The terminal is given back before a signal ends us.
    let signal = top.run().map_err(CtlError::Output)?;
    if let Some(signal) = signal {
        let _ = emulate_default_handler(signal);
    }
    Ok(())
}

fn follow_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP])?;
    thread::spawn(move || {
        signals.forever().all(|signal| events.send(Event::Signal(signal)).is_ok())
    });
    Ok(())
}

fn follow_keys(events: &Sender<Event>) {
    while let Ok(input) = event::read() {
        if events.send(Event::Input(input)).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Gone);
}

struct Top {
    state: State,
    screen: Screen,
    events: Receiver<Event>,
    questions: Sender<Question>,
    interval: Duration,
    /// When to ask next; `None` while an answer is waited for.
    next: Option<Instant>,
    answers: u64,
}

impl Top {
    /// Until the end; by which signal, if it was one.
    fn run(mut self) -> io::Result<Option<i32>> {
        loop {
            let now = Instant::now();
            if self.next.is_some_and(|next| next <= now) {
                self.next = None;
                if self.questions.send(self.state.question()).is_err() {
                    return Ok(None);
                }
            }
            self.draw(now)?;
            let wait = self.next.map_or(TICK, |next| next.saturating_duration_since(now).min(TICK));
            match self.events.recv_timeout(wait) {
                Ok(Event::Input(Input::Key(key))) => match self.state.on_key(key) {
                    Effect::None => {}
                    Effect::Ask => self.ask_now(),
                    Effect::Redraw => self.screen.forget(),
                    Effect::Suspend => self.suspend()?,
                    Effect::Quit => return Ok(None),
                },
                Ok(Event::Input(Input::Resize(..))) => self.screen.forget(),
                Ok(Event::Input(_)) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Event::Signal(SIGTSTP)) => self.suspend()?,
                Ok(Event::Signal(SIGCONT)) => self.screen.resume()?,
                Ok(Event::Signal(signal)) => return Ok(Some(signal)),
                Ok(Event::Answer(answer)) => self.on_answer(*answer),
                Ok(Event::Gone) | Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }

    fn draw(&mut self, now: Instant) -> io::Result<()> {
        let size = self.screen.size()?;
        let lines = view::lines(&mut self.state, size, now);
        self.screen.draw(&lines)
    }

    fn ask_now(&mut self) {
        match self.next {
            Some(_) => self.next = Some(Instant::now()),
            // What is being answered is out of date.
            None => self.state.is_stale = true,
        }
    }

    fn on_answer(&mut self, answer: Answer) {
        self.answers += 1;
        let now = Instant::now();
        self.state.on_answer(answer, now);
        let pause = match (std::mem::take(&mut self.state.is_stale), self.answers) {
            (true, _) => Duration::ZERO,
            (false, 1) => FIRST_PAUSE.min(self.interval),
            (false, _) => self.interval,
        };
        self.next = Some(now + pause);
    }

    /// Stops as the shell expects it, and goes on when it is told to.
    fn suspend(&mut self) -> io::Result<()> {
        screen::leave();
        emulate_default_handler(SIGTSTP)?;
        self.screen.resume()
    }
}
