//! The terminal: taken, drawn on, and given back whatever happens.

use std::io::{self, Write, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    self, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen,
};
use crossterm::{execute, queue};

/// How a part of a line looks. Everything can be told apart without colours too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    /// What a number is of.
    Label,
    Strong,
    /// The head of the table.
    Head,
    /// The column in it that is sorted by.
    SortedHead,
    /// The line that keys mean.
    Selected,
    Good,
    Bad,
    Faint,
}

/// One line: parts with their looks.
pub(super) type Line = Vec<(Style, String)>;

/// Whether the terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while it is ours. Dropping it gives it back.
pub(super) struct Screen {
    shown: Vec<Line>,
    colours: bool,
}

impl Screen {
    pub(super) fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let tell = std::panic::take_hook();
            // What it tells would be lost with the screen.
            std::panic::set_hook(Box::new(move |panic| {
                leave();
                tell(panic);
            }));
        });
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let mut screen = Self { shown: Vec::new(), colours };
        screen.take()?;
        Ok(screen)
    }

    fn take(&mut self) -> io::Result<()> {
        // Before it is complete, so that what has been done is undone.
        TAKEN.store(true, Ordering::Relaxed);
        terminal::enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        self.forget();
        Ok(())
    }

    /// After a stop: somebody else had it meanwhile.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        if TAKEN.load(Ordering::Relaxed) {
            // Stopped by force, so it was never given back, and the shell has set it.
            leave();
        }
        self.take()
    }

    /// What is shown is not known any more.
    pub(super) fn forget(&mut self) {
        self.shown.clear();
    }

    /// Columns and rows; never so few that nothing can be drawn.
    pub(super) fn size(&self) -> io::Result<(usize, usize)> {
        let (columns, rows) = terminal::size()?;
        Ok((usize::from(columns).max(1), usize::from(rows).max(1)))
    }

    /// Shows these lines, from the first row on.
    pub(super) fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut out = Vec::new();
        queue!(out, BeginSynchronizedUpdate)?;
        if self.shown.len() != lines.len() {
            self.shown = vec![Line::new(); lines.len()];
            queue!(out, Clear(ClearType::All))?;
        }
        let mut changed = false;
        for (row, line) in (0..).zip(lines) {
            let shown = &mut self.shown[usize::from(row)];
            if shown != line {
                changed = true;
                queue!(out, MoveTo(0, row), Clear(ClearType::CurrentLine))?;
                put(&mut out, line, self.colours)?;
                shown.clone_from(line);
            }
        }
        if !changed {
            return Ok(());
        }
        queue!(out, EndSynchronizedUpdate)?;
        stdout().write_all(&out)?;
        stdout().flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Gives the terminal back, if it is ours.
pub(super) fn leave() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        // If that fails nobody looks at it any more.
        let _ = execute!(
            stdout(),
            ResetColor,
            SetAttribute(Attribute::Reset),
            Show,
            LeaveAlternateScreen
        );
        let _ = terminal::disable_raw_mode();
    }
}

fn put(out: &mut Vec<u8>, line: &Line, colours: bool) -> io::Result<()> {
    for (style, text) in line {
        let (attribute, colour) = match style {
            Style::Plain => (None, None),
            Style::Label => (None, Some(Color::DarkCyan)),
            Style::Strong => (Some(Attribute::Bold), None),
            Style::Head => (Some(Attribute::Reverse), Some(Color::DarkGreen)),
            Style::SortedHead | Style::Selected => (Some(Attribute::Reverse), None),
            Style::Good => (None, Some(Color::DarkGreen)),
            Style::Bad => (Some(Attribute::Bold), Some(Color::DarkRed)),
            Style::Faint => (Some(Attribute::Dim), None),
        };
        if let Some(attribute) = attribute {
            queue!(out, SetAttribute(attribute))?;
        }
        if let Some(colour) = colour.filter(|_| colours) {
            queue!(out, SetForegroundColor(colour))?;
        }
        queue!(out, Print(text), SetAttribute(Attribute::Reset))?;
    }
    Ok(())
}
