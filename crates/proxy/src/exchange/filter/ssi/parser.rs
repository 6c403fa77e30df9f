//! From bytes to text and commands: `<!--#command name="value" -->`.
//!
//! ```text
//! Text ──`<!--#`──▶ Command ──space──▶ Gap ──▶ Name ──`=`──▶ Value ──quote──▶ Gap ──`-->`──▶ Text
//!                                  anything unexpected ──▶ Broken ──`-->`──▶ Text
//! ```
//!
//! Pieces may end anywhere. Every part of a command has a bound.

use bytes::{Buf, Bytes};

/// What a command begins with.
const OPEN: &[u8; 5] = b"<!--#";
/// The longest name of a command or parameter, as in nginx.
const NAME_MAX: usize = 16;
/// As many parameters as a command may have, as in nginx.
pub(super) const PARAMS_MAX: usize = 16;

/// A command with its parameters as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) name: Vec<u8>,
    pub(super) params: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What comes next in a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Not empty.
    Text(Bytes),
    /// A command.
    Command(Command),
    /// What looks like one and is none: what to log.
    Broken(String),
}

/// Reads a page.
#[derive(Debug)]
pub(super) struct Parser {
    state: State,
    command: Command,
    value_max: usize,
}

#[derive(Debug)]
enum State {
    /// So many bytes of [`OPEN`] are there, and held back.
    Text(usize),
    Command,
    /// Before a parameter or the end; `space` says whether a parameter may begin here.
    Gap {
        space: bool,
    },
    Name,
    /// Behind a name, or behind the `=` of a parameter.
    Before {
        equal: bool,
    },
    Value {
        quote: u8,
        escaped: bool,
    },
    /// So many hyphens of `-->` are there.
    End(usize),
    /// The same inside of what cannot be understood.
    Broken {
        why: String,
        hyphens: usize,
    },
}

impl Parser {
    /// At the start of a page; values have at most `value_max` bytes.
    pub(super) fn new(value_max: usize) -> Self {
        Self { state: State::Text(0), command: Command::default(), value_max }
    }

    /// Reads on in `input`; `None` when it is used up.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Option<Event> {
        loop {
            if let State::Text(held) = self.state {
                if let Some(text) = self.text(input, held)? {
                    return Some(Event::Text(text));
                }
                continue;
            }
            let byte = *input.first()?;
            input.advance(1);
            if let Some(event) = self.step(byte) {
                return Some(event);
            }
        }
    }

    /// What was held back at the end of the page.
    pub(super) fn rest(&mut self) -> Bytes {
        match self.state {
            State::Text(held) => {
                self.state = State::Text(0);
                Bytes::from_static(&OPEN[..held])
            }
            _ => Bytes::new(),
        }
    }

    /// Looks for a command: the text before it, `Some(None)` for none of it yet, `None` at the end of
    /// what is there.
    #[allow(clippy::option_option)]
    fn text(&mut self, input: &mut Bytes, held: usize) -> Option<Option<Bytes>> {
        if held == 0 {
            match memchr::memchr(b'<', input) {
                Some(0) => {}
                Some(at) => return Some(Some(input.split_to(at))),
                None if input.is_empty() => return None,
                None => return Some(Some(std::mem::take(input))),
            }
        }
        let byte = *input.first()?;
        if byte != OPEN[held] {
            self.state = State::Text(0);
            return Some(Some(Bytes::from_static(&OPEN[..held])));
        }
        input.advance(1);
        self.state = match held + 1 == OPEN.len() {
            true => {
                self.command = Command::default();
                State::Command
            }
            false => State::Text(held + 1),
        };
        Some(None)
    }

    /// Takes one byte inside of a command.
    fn step(&mut self, byte: u8) -> Option<Event> {
        let space = byte.is_ascii_whitespace();
        match &mut self.state {
            State::Text(_) => {}
            State::Command => match byte {
                _ if space && self.command.name.is_empty() => {}
                _ if space => self.state = State::Gap { space: true },
                b'-' if !self.command.name.is_empty() => self.state = State::End(1),
                _ if self.command.name.len() == NAME_MAX => {
                    let name = self.command.name.escape_ascii();
                    self.fail(format!("the \"{name}...\" SSI command is too long"), byte);
                }
                _ => self.command.name.push(byte),
            },
            State::Gap { space: behind_space } => match byte {
                _ if space => self.state = State::Gap { space: true },
                b'-' => self.state = State::End(1),
                _ if !*behind_space => self.unexpected(byte, "value of"),
                _ => {
                    // One too many shows that there are too many; more are not kept.
                    if self.command.params.len() > PARAMS_MAX {
                        self.command.params.pop();
                    }
                    self.command.params.push((vec![byte], Vec::new()));
                    self.state = State::Name;
                }
            },
            State::Name => match byte {
                _ if space => self.state = State::Before { equal: false },
                b'=' => self.state = State::Before { equal: true },
                b'-' => self.unexpected(byte, ""),
                _ => {
                    let name = self.command.params.last_mut().map(|(name, _)| name);
                    match name {
                        Some(name) if name.len() < NAME_MAX => name.push(byte),
                        _ => self.too_long("parameter", byte),
                    }
                }
            },
            State::Before { equal } => match byte {
                _ if space => {}
                b'=' if !*equal => *equal = true,
                b'"' | b'\'' if *equal => self.state = State::Value { quote: byte, escaped: false },
                _ => self.unexpected(byte, ""),
            },
            State::Value { quote, escaped } => {
                if byte == *quote && !*escaped {
                    self.state = State::Gap { space: false };
                    return None;
                }
                // Both the backslash and what it protects stay, for whoever evaluates the text.
                *escaped = byte == b'\\' && !*escaped;
                let value = self.command.params.last_mut().map(|(_, value)| value);
                match value {
                    Some(value) if value.len() < self.value_max => value.push(byte),
                    _ => self.too_long("value of the parameter", byte),
                }
            }
            State::End(hyphens) => match (byte, *hyphens) {
                (b'-', 1) => *hyphens = 2,
                (b'>', 2) => {
                    self.state = State::Text(0);
                    return Some(Event::Command(std::mem::take(&mut self.command)));
                }
                _ => self.unexpected(byte, ""),
            },
            State::Broken { why, hyphens } => match (byte, *hyphens) {
                (b'>', 2..) => {
                    let why = std::mem::take(why);
                    self.state = State::Text(0);
                    return Some(Event::Broken(why));
                }
                (b'-', _) => *hyphens += 1,
                _ => *hyphens = 0,
            },
        }
        None
    }

    fn unexpected(&mut self, byte: u8, behind: &str) {
        let name = self.command.name.escape_ascii();
        let param = self.command.params.last().map(|(name, _)| name.escape_ascii().to_string());
        let place = match param {
            Some(param) => format!(" after {behind} \"{param}\" parameter"),
            None => String::new(),
        };
        let byte_shown = byte.escape_ascii();
        let why = format!("unexpected \"{byte_shown}\" symbol{place} in \"{name}\" SSI command");
        self.fail(why.replace("  ", " "), byte);
    }

    fn too_long(&mut self, what: &str, byte: u8) {
        let name = self.command.name.escape_ascii();
        let param = self.command.params.last().map(|(name, _)| name.escape_ascii().to_string());
        let param = param.unwrap_or_default();
        self.fail(format!("too long {what} \"{param}\" in \"{name}\" SSI command"), byte);
    }

    fn fail(&mut self, why: String, byte: u8) {
        self.state = State::Broken { why, hyphens: usize::from(byte == b'-') };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a page, given in pieces of `size`.
    fn events(page: &str, size: usize) -> Vec<String> {
        let mut parser = Parser::new(10);
        let mut shown: Vec<String> = Vec::new();
        let mut text = String::new();
        for piece in page.as_bytes().chunks(size) {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(event) = parser.next(&mut input) {
                match event {
                    Event::Text(piece) => {
                        text.push_str(std::str::from_utf8(&piece).expect("ASCII"));
                        continue;
                    }
                    Event::Command(command) => {
                        shown.push(std::mem::take(&mut text));
                        let mut one = command.name.escape_ascii().to_string();
                        for (name, value) in &command.params {
                            let (name, value) = (name.escape_ascii(), value.escape_ascii());
                            one.push_str(&format!(" {name}={value}"));
                        }
                        shown.push(one);
                    }
                    Event::Broken(why) => {
                        shown.push(std::mem::take(&mut text));
                        shown.push(format!("! {why}"));
                    }
                }
            }
        }
        text.push_str(std::str::from_utf8(&parser.rest()).expect("ASCII"));
        shown.push(text);
        shown
    }

    #[test]
    fn pages_are_read_alike_however_they_are_cut() {
        for (page, expected) in [
            ("plain", &["plain"][..]),
            ("a<b<!c<!-d<!--e<<!--#x-->f<!--", &["a<b<!c<!-d<!--e<", "x", "f<!--"]),
            ("<!--# echo var = \"a-->b\" -->x", &["", "echo var=a-->b", "x"]),
            ("<!--#a b='c\"d' e=\"f'\"-->", &["", "a b=c\\\"d e=f\\'", ""]),
            ("<!--#a b=\"\\\"\"-->", &["", "a b=\\\\\\\"", ""]),
            (
                "1<!--#a b=c -->2",
                &["1", "! unexpected \"c\" symbol after \"b\" parameter in \"a\" SSI command", "2"],
            ),
            (
                "<!--#a b=\"01234567890\" -->2",
                &["", "! too long value of the parameter \"b\" in \"a\" SSI command", "2"],
            ),
            ("<!--#a-b--->", &["", "! unexpected \"b\" symbol in \"a\" SSI command", ""]),
        ] {
            for size in 1..=page.len() {
                assert_eq!(events(page, size), expected, "{page} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_command_has_bounds() {
        let long = format!("<!--#{}-->", "x".repeat(17));
        assert!(events(&long, 1)[1].ends_with("SSI command is too long"));
        let many = format!("<!--#x {}-->", "a='' ".repeat(10_000));
        let mut parser = Parser::new(10);
        let Some(Event::Command(command)) = parser.next(&mut Bytes::from(many)) else {
            panic!("a command");
        };
        assert_eq!(command.params.len(), PARAMS_MAX + 1);
    }
}
