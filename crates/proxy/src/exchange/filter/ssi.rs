//! Server side includes: commands in pages, executed while the page passes.

mod page;
mod parser;
mod text;

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use wssgate_config::model::{LogLevel, Ssi};
use wssgate_http1::{Escape, escape};

use super::{Filter, Include, Included, Step};
use crate::exchange::escape::put_html;
use crate::exchange::headers;
use crate::exchange::own_uri;
use crate::exchange::request::Request;
use crate::exchange::response::Reply;
use page::Failed;
use parser::{Command, Event, PARAMS_MAX, Parser};
use text::{evaluate, holds};

pub(crate) use page::Page;

/// How many commands that write nothing one turn of the worker may take; then others' requests go
/// first.
const TURN: usize = 16;

/// Executes the commands of one page.
pub(crate) struct Includes {
    silent_errors: bool,
    parser: Parser,
    input: Bytes,
    /// What comes behind `input`: a block may have been put before it.
    rest: Vec<Bytes>,
    /// What is passed on before anything else is read.
    due: Bytes,
    /// How many commands of this turn have written nothing.
    quiet: usize,
    ended: bool,
    page: Rc<Page>,
    place: Place,
    /// Whether we are in a block, which is kept and not passed on.
    in_block: bool,
    /// Whether a branch of the `if` in work was taken.
    chosen: bool,
    /// Whether text is passed on.
    output: bool,
    encoding: Encoding,
    error_text: Bytes,
    asked: Asked,
}

/// Where in a page we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Open,
    /// Behind `if` or `elif`.
    If,
    Else,
}

/// How `echo` writes values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    Url,
    Entity,
}

/// What waits for a subrequest.
#[derive(Debug)]
enum Asked {
    Nothing,
    /// A block that stands for an answer that is empty.
    Stub(Bytes),
    /// The variable that becomes the answer.
    Variable(Vec<u8>),
}

/// What a command has done.
enum Done {
    Quietly,
    Text(Bytes),
    Include(Include),
}

impl Includes {
    /// Makes of a head one whose body has includes.
    pub(crate) fn new(request: &Request, reply: &mut Reply, ssi: &Ssi) -> Self {
        if !request.is_subrequest() {
            headers::change_body(reply, ssi.last_modified);
        }
        let page = Rc::clone(request.values.page.borrow_mut().get_or_insert_default());
        Self {
            silent_errors: ssi.silent_errors,
            parser: Parser::new(ssi.value_length),
            input: Bytes::new(),
            rest: Vec::new(),
            due: Bytes::new(),
            quiet: 0,
            ended: false,
            page,
            place: Place::Open,
            in_block: false,
            chosen: false,
            output: true,
            encoding: Encoding::Entity,
            error_text: Bytes::from_static(b"[an error occurred while processing the directive]"),
            asked: Asked::Nothing,
        }
    }

    /// What of the text is passed on.
    fn text(&self, request: &Request, text: Bytes) -> Option<Bytes> {
        if self.in_block {
            self.page.add_to_block(request, &text);
            return None;
        }
        self.output.then_some(text)
    }

    /// Executes a command where it stands.
    fn command(&mut self, request: &Request, command: &Command) -> Result<Done, Failed> {
        let name = &command.name[..];
        if self.in_block && name != b"endblock" {
            self.page.add_to_block(request, &written(command));
            return Ok(Done::Quietly);
        }
        if !self.output && !matches!(name, b"elif" | b"else" | b"endif" | b"endblock") {
            return Ok(Done::Quietly);
        }
        let params = Params { request, command };
        match name {
            b"include" => self.include(&params),
            b"echo" => self.echo(&params),
            b"config" => self.config(&params),
            b"set" => {
                let [var, value] = params.take(["var", "value"])?;
                let (var, value) = (params.needed("var", var)?, params.needed("value", value)?);
                let value = evaluate(request, &self.page, value)?;
                self.page.set(request, var, value).map(|()| Done::Quietly)
            }
            b"if" | b"elif" => self.branch(&params),
            b"else" => {
                params.take([])?;
                self.expect_if(&params)?;
                self.output = !self.chosen;
                self.place = Place::Else;
                Ok(Done::Quietly)
            }
            b"endif" => {
                params.take([])?;
                if !matches!(self.place, Place::If | Place::Else) {
                    return Err(params.misplaced());
                }
                (self.output, self.chosen, self.place) = (true, false, Place::Open);
                Ok(Done::Quietly)
            }
            b"block" => {
                let [block] = params.take(["name"])?;
                let name = params.needed("name", block)?;
                self.in_block = true;
                self.page.begin_block(request, name).map(|()| Done::Quietly)
            }
            b"endblock" => {
                params.take([])?;
                if std::mem::take(&mut self.in_block) {
                    self.page.end_block();
                }
                Ok(Done::Quietly)
            }
            name => {
                let name = name.escape_ascii();
                Err(params.failed(format_args!("invalid SSI command: \"{name}\"")))
            }
        }
    }

    fn expect_if(&self, params: &Params<'_>) -> Result<(), Failed> {
        if self.place == Place::If { Ok(()) } else { Err(params.misplaced()) }
    }

    /// `if` and `elif`.
    fn branch(&mut self, params: &Params<'_>) -> Result<Done, Failed> {
        let [expression] = params.take(["expr"])?;
        let expression = params.needed("expr", expression)?;
        if params.command.name == b"if" {
            if self.place != Place::Open {
                let why = "the \"if\" command inside the \"if\" command";
                return Err(params.failed(format_args!("{why}")));
            }
        } else {
            self.expect_if(params)?;
        }
        if self.chosen {
            self.output = false;
            return Ok(Done::Quietly);
        }
        self.output = holds(params.request, &self.page, expression)?;
        self.chosen = self.output;
        self.place = Place::If;
        Ok(Done::Quietly)
    }

    fn echo(&mut self, params: &Params<'_>) -> Result<Done, Failed> {
        let [var, default, encoding] = params.take(["var", "default", "encoding"])?;
        let var = params.needed("var", var)?;
        let value = self.page.variable(params.request, var);
        let value = value.or_else(|| default.map(Bytes::copy_from_slice));
        let value = value.unwrap_or(Bytes::from_static(b"(none)"));
        match encoding {
            None => {}
            Some(b"none") => self.encoding = Encoding::Plain,
            Some(b"url") => self.encoding = Encoding::Url,
            Some(b"entity") => self.encoding = Encoding::Entity,
            Some(other) => {
                let other = other.escape_ascii();
                let _ = params
                    .failed(format_args!("unknown encoding \"{other}\" in the \"echo\" command"));
            }
        }
        Ok(Done::Text(match self.encoding {
            Encoding::Plain => value,
            Encoding::Entity => {
                let mut text = BytesMut::with_capacity(value.len());
                put_html(&mut text, &value);
                text.freeze()
            }
            Encoding::Url => {
                let mut url = Vec::new();
                escape(&mut url, &value, Escape::Html);
                url.into()
            }
        }))
    }

    fn config(&mut self, params: &Params<'_>) -> Result<Done, Failed> {
        let [error_text, time_format] = params.take(["errmsg", "timefmt"])?;
        if let Some(text) = error_text {
            self.error_text = Bytes::copy_from_slice(text);
        }
        if let Some(format) = time_format {
            let format = String::from_utf8_lossy(format).into_owned();
            *params.request.values.time_format.borrow_mut() = Some(format);
        }
        Ok(Done::Quietly)
    }

    fn include(&mut self, params: &Params<'_>) -> Result<Done, Failed> {
        let [path, file, wait, set, stub] =
            params.take(["virtual", "file", "wait", "set", "stub"])?;
        let uri = match (path, file) {
            (Some(uri), None) | (None, Some(uri)) => uri,
            (Some(path), Some(file)) => {
                let (path, file) = (path.escape_ascii(), file.escape_ascii());
                return Err(params.failed(format_args!(
                    "inclusion may be either virtual=\"{path}\" or file=\"{file}\""
                )));
            }
            (None, None) => {
                let why = "no parameter in \"include\" SSI command";
                return Err(params.failed(format_args!("{why}")));
            }
        };
        if set.is_some() && stub.is_some() {
            return Err(params.failed(format_args!(
                "\"set\" and \"stub\" cannot be used together in \"include\" SSI command"
            )));
        }
        check_wait(params, wait, file)?;
        let uri = evaluate(params.request, &self.page, uri)?;
        let uri = below_directory(params.request, uri);
        let Some((path, args)) = own_uri::target(&uri) else {
            let uri = uri.escape_ascii();
            return Err(params.failed(format_args!("unsafe URI \"{uri}\" was detected")));
        };
        self.asked = match (set, stub) {
            (Some(variable), _) => Asked::Variable(variable.to_vec()),
            (None, Some(stub)) => match self.page.block(stub) {
                Some(block) => Asked::Stub(block),
                None => {
                    let stub = stub.escape_ascii();
                    return Err(params
                        .failed(format_args!("\"stub\"=\"{stub}\" for \"include\" not found")));
                }
            },
            (None, None) => Asked::Nothing,
        };
        let keep = set.is_some();
        let or_nothing = stub.is_some();
        Ok(Done::Include(Include { path, args, keep, or_nothing, own: false }))
    }
}

/// Subrequests run one after another, so that there is nothing to obey in `wait`.
fn check_wait(params: &Params<'_>, wait: Option<&[u8]>, file: Option<&[u8]>) -> Result<(), Failed> {
    let Some(wait) = wait else { return Ok(()) };
    if let Some(file) = file {
        let file = file.escape_ascii();
        return Err(params.failed(format_args!("\"wait\" cannot be used with file=\"{file}\"")));
    }
    if wait.eq_ignore_ascii_case(b"yes") || wait.eq_ignore_ascii_case(b"no") {
        return Ok(());
    }
    let wait = wait.escape_ascii();
    Err(params.failed(format_args!("invalid value \"{wait}\" in the \"wait\" parameter")))
}

/// A relative URI is one beside that of the page.
fn below_directory(request: &Request, uri: Bytes) -> Bytes {
    if uri.is_empty() || uri.starts_with(b"/") {
        return uri;
    }
    let path = &request.target.path;
    let directory = path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    [&path[..directory], &uri].concat().into()
}

/// A command as it can be read again.
fn written(command: &Command) -> Vec<u8> {
    let mut text = [b"<!--#", &command.name[..]].concat();
    for (name, value) in &command.params {
        let quote = if value.contains(&b'"') { b"'" } else { b"\"" };
        text.extend([b" ", &name[..], b"=", quote, value, quote].concat());
    }
    text.extend_from_slice(b" -->");
    text
}

/// The parameters of a command.
struct Params<'c> {
    request: &'c Request,
    command: &'c Command,
}

impl<'c> Params<'c> {
    /// The values of these parameters; others are not allowed.
    fn take<const N: usize>(&self, names: [&str; N]) -> Result<[Option<&'c [u8]>; N], Failed> {
        let command = self.command.name.escape_ascii();
        if self.command.params.len() > PARAMS_MAX {
            return Err(self.failed(format_args!("too many SSI command parameters: \"{command}\"")));
        }
        let mut values = [None; N];
        for (name, value) in &self.command.params {
            let shown = name.escape_ascii();
            let Some(at) = names.iter().position(|known| known.as_bytes() == name) else {
                return Err(self.failed(format_args!(
                    "invalid parameter name: \"{shown}\" in \"{command}\" SSI command"
                )));
            };
            if values[at].replace(&value[..]).is_some() {
                return Err(self.failed(format_args!(
                    "duplicate \"{shown}\" parameter in \"{command}\" SSI command"
                )));
            }
        }
        Ok(values)
    }

    /// A value that must be there.
    fn needed(&self, name: &str, value: Option<&'c [u8]>) -> Result<&'c [u8], Failed> {
        value.ok_or_else(|| {
            let command = self.command.name.escape_ascii();
            self.failed(format_args!(
                "mandatory \"{name}\" parameter is absent in \"{command}\" SSI command"
            ))
        })
    }

    fn misplaced(&self) -> Failed {
        let command = self.command.name.escape_ascii();
        self.failed(format_args!("invalid context of SSI command: \"{command}\""))
    }

    fn failed(&self, why: std::fmt::Arguments<'_>) -> Failed {
        self.request.log(LogLevel::Error, why);
        Failed
    }
}

impl Filter for Includes {
    fn give(&mut self, piece: Bytes) {
        self.input = piece;
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn next(&mut self, request: &Request) -> Step {
        if !self.due.is_empty() {
            return Step::Piece(std::mem::take(&mut self.due));
        }
        while self.quiet < TURN {
            let Some(event) = self.parser.next(&mut self.input) else {
                match self.rest.pop() {
                    Some(rest) => self.input = rest,
                    None if self.ended => return self.last(request),
                    None => return Step::Idle,
                }
                continue;
            };
            let done = match event {
                Event::Text(text) => match self.text(request, text) {
                    Some(text) => Ok(Done::Text(text)),
                    None => Ok(Done::Quietly),
                },
                Event::Command(command) => self.command(request, &command),
                Event::Broken(why) => {
                    request.log(LogLevel::Error, why);
                    Err(Failed)
                }
            };
            match done {
                Ok(Done::Text(text)) if !text.is_empty() => return Step::Piece(text),
                Ok(Done::Text(_) | Done::Quietly) => self.quiet += 1,
                Ok(Done::Include(wanted)) => return Step::Include(wanted),
                Err(Failed) if self.silent_errors || self.error_text.is_empty() => self.quiet += 1,
                Err(Failed) => return Step::Piece(self.error_text.clone()),
            }
        }
        self.quiet = 0;
        Step::Pause
    }

    fn on_included(&mut self, request: &Request, included: Included) {
        match (std::mem::replace(&mut self.asked, Asked::Nothing), included) {
            // A text takes the place of what would have come. It is not read again: it may ask for the
            // same.
            (_, Included::NotMade) if !self.silent_errors => self.due = self.error_text.clone(),
            (Asked::Stub(block), Included::Sent(false)) => self.insert(block),
            (Asked::Variable(name), Included::Kept(status, body)) if status < 300 => {
                // A page that is too long has been told of; it goes on without.
                let _ = self.page.set(request, &name, body);
            }
            _ => {}
        }
    }
}

impl Includes {
    /// What looked like a command until the page ended is none.
    fn last(&mut self, request: &Request) -> Step {
        let rest = self.parser.rest();
        let rest = if rest.is_empty() { None } else { self.text(request, rest) };
        rest.map_or(Step::Idle, Step::Piece)
    }

    /// Puts a text before what is to be read.
    fn insert(&mut self, text: Bytes) {
        let rest = std::mem::replace(&mut self.input, text);
        self.rest.push(rest);
    }
}
