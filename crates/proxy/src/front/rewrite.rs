//! The rewrite directives: `set`, `if`, `rewrite`, `return`, `break`, executed in order.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use wssgate_config::model::{
    Condition, Content, FileTest, LogLevel, Return, Rewrite, RewriteFlag, RewriteOp,
};
use wssgate_config::template::{Part, Template};
use wssgate_http1::{Escape, Unescape, escape, unescape};

use crate::exchange::path::as_path;
use crate::exchange::request::Request;
use crate::exchange::variables;
use crate::front::phases;

/// How a list of directives ended.
#[derive(Clone, Debug)]
pub(crate) enum Rewritten {
    /// The path stayed, or stays in this location.
    Stay,
    /// The path changed: a location is to be looked for again.
    Changed,
    /// `return` answers.
    Return(Return),
    /// A status, such as a redirect's, whose `Location` is noted in the request.
    Status(u16),
}

/// Executes the directives of a level.
pub(crate) fn run(request: &mut Request, ops: &[RewriteOp]) -> Rewritten {
    let mut engine = Engine { changed: false, quote: true };
    match engine.run(request, ops) {
        Flow::Status(status) => Rewritten::Status(status),
        Flow::Return(answer) => Rewritten::Return(answer),
        Flow::Next | Flow::Stop if engine.changed => Rewritten::Changed,
        Flow::Next | Flow::Stop => Rewritten::Stay,
    }
}

/// What follows one directive.
enum Flow {
    Next,
    Stop,
    Return(Return),
    Status(u16),
}

struct Engine {
    /// Whether a `rewrite` changed the path and no `break` followed.
    changed: bool,
    /// Whether captures are escaped when the request's path had escapes. nginx does so until the
    /// first `rewrite` that matches.
    quote: bool,
}

impl Engine {
    fn run(&mut self, request: &mut Request, ops: &[RewriteOp]) -> Flow {
        for op in ops {
            match self.step(request, op) {
                Flow::Next => {}
                end => return end,
            }
        }
        Flow::Next
    }

    fn step(&mut self, request: &mut Request, op: &RewriteOp) -> Flow {
        match op {
            RewriteOp::Set { variable, value } => {
                let value = quoted_text(request, value, self.quote);
                variables::set(request, *variable, value);
                Flow::Next
            }
            RewriteOp::Break => {
                request.route.path_replaced |= std::mem::take(&mut self.changed);
                Flow::Stop
            }
            RewriteOp::Return(answer) => Flow::Return(answer.clone()),
            RewriteOp::If { condition, ops, location } => {
                if !holds(request, condition) {
                    return Flow::Next;
                }
                if let Some(location) = location {
                    let proxied = is_proxied(request);
                    phases::enter(request, *location);
                    // As in nginx the upstream stays in charge, but this block has none for it.
                    request.route.lost_upstream |= proxied && !is_proxied(request);
                }
                self.run(request, ops)
            }
            RewriteOp::Rewrite(rewrite) => self.rewrite(request, rewrite),
        }
    }

    fn rewrite(&mut self, request: &mut Request, rewrite: &Rewrite) -> Flow {
        let path = request.target.path.clone();
        if !request.matches(&rewrite.regex, &path) {
            forget_match(request);
            return Flow::Next;
        }
        match rewrite.flag {
            RewriteFlag::Redirect => return redirect(request, rewrite, 302),
            RewriteFlag::Permanent => return redirect(request, rewrite, 301),
            _ => {}
        }
        self.quote = false;
        request.route.redirect();
        request.target.as_sent.set(false);
        let new_path = quoted_text(request, &rewrite.replacement, false);
        let args = rewritten_args(request, rewrite);
        *request.target.args.borrow_mut() = args;
        if new_path.is_empty() {
            request.log(LogLevel::Error, "the rewritten URI has a zero length");
            return Flow::Status(500);
        }
        request.target.path = new_path;
        self.changed = rewrite.flag != RewriteFlag::Break;
        request.route.path_replaced |= rewrite.flag == RewriteFlag::Break;
        match rewrite.flag {
            RewriteFlag::None => Flow::Next,
            _ => Flow::Stop,
        }
    }
}

fn is_proxied(request: &Request) -> bool {
    matches!(request.location().content, Content::Proxy(_))
}

/// A test that fails leaves no captures behind.
fn forget_match(request: &Request) {
    request.values.last_match.borrow_mut().captures.groups.clear();
}

/// The arguments after a `rewrite`: those it writes, then the request's own.
fn rewritten_args(request: &Request, rewrite: &Rewrite) -> Bytes {
    let own = request.target.args.borrow().clone();
    match &rewrite.args {
        None if rewrite.append_args => own,
        None => Bytes::new(),
        Some(template) => {
            let written = quoted_text(request, template, true);
            match rewrite.append_args && !own.is_empty() {
                true => [&written[..], b"&", &own[..]].concat().into(),
                false => written,
            }
        }
    }
}

/// Notes where to redirect to.
fn redirect(request: &mut Request, rewrite: &Rewrite, status: u16) -> Flow {
    let mut target = quoted_text(request, &rewrite.replacement, true).to_vec();
    if let Some(template) = &rewrite.args {
        target.push(b'?');
        target.extend_from_slice(&quoted_text(request, template, true));
    }
    let mut url = Vec::with_capacity(target.len());
    unescape(&mut url, &target, Unescape::Redirect);
    let own = request.target.args.borrow().clone();
    if rewrite.append_args && !own.is_empty() {
        // Of the text as written, like nginx: a `?` that a variable brings does not count.
        let has_args = rewrite.args.is_some() || has_question_mark(&rewrite.replacement);
        url.push(if has_args { b'&' } else { b'?' });
        url.extend_from_slice(&own);
    }
    request.response.redirect = Some(url.into());
    Flow::Status(status)
}

/// Whether arguments are written in the text of a redirect.
fn has_question_mark(template: &Template) -> bool {
    template.parts().iter().any(|part| matches!(part, Part::Text(text) if text.contains(&b'?')))
}

/// The text of a template, with captures escaped as arguments if `quote` says so and the
/// request's path had escapes or a plus.
fn quoted_text(request: &Request, template: &Template, quote: bool) -> Bytes {
    if !(quote && request.target.quoted) {
        return request.text(template);
    }
    let mut text = BytesMut::new();
    for part in template.parts() {
        let value = variables::part_value(request, part).unwrap_or_default();
        if matches!(part, Part::Capture(_)) {
            let mut escaped = Vec::with_capacity(value.len());
            escape(&mut escaped, &value, Escape::Args);
            text.put_slice(&escaped);
        } else {
            text.put_slice(&value);
        }
    }
    text.freeze()
}

fn holds(request: &Request, condition: &Condition) -> bool {
    match condition {
        Condition::True(variable) => {
            request.variable(*variable).is_some_and(|value| variables::is_true(&value))
        }
        Condition::Equal { variable, value, negate } => {
            let left = request.variable(*variable).unwrap_or_default();
            (left == request.text(value)) != *negate
        }
        Condition::Matches { variable, regex, negate } => {
            let subject = request.variable(*variable).unwrap_or_default();
            let matched = request.matches(regex, &subject);
            if !matched {
                forget_match(request);
            }
            matched != *negate
        }
        Condition::File { path, test, negate } => test_file(&request.text(path), *test) != *negate,
    }
}

fn test_file(path: &[u8], test: FileTest) -> bool {
    let Ok(metadata) = std::fs::metadata(as_path(path)) else {
        return false;
    };
    match test {
        FileTest::File => metadata.is_file(),
        FileTest::Directory => metadata.is_dir(),
        FileTest::Exists => true,
        FileTest::Executable => metadata.permissions().mode() & 0o111 != 0,
    }
}

/// The rewrite directives of the level that `request` is in.
pub(crate) fn run_location(request: &mut Request) -> Rewritten {
    let generation = Arc::clone(&request.generation);
    run(request, &generation.http().locations[request.route.location.0].rewrite)
}

/// The rewrite directives of the server.
pub(crate) fn run_server(request: &mut Request) -> Rewritten {
    let generation = Arc::clone(&request.generation);
    run(request, &generation.http().servers[request.route.server.0].rewrite)
}
