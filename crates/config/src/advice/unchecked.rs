//! What wants to be held in WebSockets of which nobody looks at the frames.

use std::collections::HashSet;

use wssgate_syntax::{Diagnostic, Span};

use super::{Adviser, Place};
use crate::advice_kind::Advice;
use crate::directive::Directive;
use crate::ignored::ignored;
use crate::limits::websockets::WEBSOCKET_LIMIT;
use crate::scope::Scope;
use crate::tunnels::credentials::WEBSOCKET_EXPIRY;
use crate::tunnels::drain::WEBSOCKET_DRAIN;
use crate::tunnels::rates::{WEBSOCKET_BYTE_RATE, WEBSOCKET_MESSAGE_RATE};
use crate::tunnels::{
    FrameCheck, Sides, WEBSOCKET_CHECK, WEBSOCKET_FAILURE_CODE, WEBSOCKET_IDLE_TIMEOUT,
    WEBSOCKET_MAX_CONTROL_FRAMES, WEBSOCKET_MAX_FRAGMENTS, WEBSOCKET_MAX_FRAME_SIZE,
    WEBSOCKET_MAX_LIFETIME, WEBSOCKET_MAX_MESSAGE_SIZE, WEBSOCKET_PING_INTERVAL,
    WEBSOCKET_PONG_TIMEOUT, WEBSOCKET_SLOW_READER_TIMEOUT,
};
use crate::websocket::WEBSOCKET;

/// Lines that hold nothing where `websocket_check` is off, and those that hold something elsewhere.
#[derive(Default)]
pub(super) struct Unchecked {
    idle: Vec<Idle>,
    used: HashSet<Span>,
}

struct Idle {
    line: Line,
    /// Where it is turned off.
    off: Option<Span>,
}

/// A line that wants something of frames.
struct Line {
    name: &'static str,
    span: Span,
}

impl Adviser<'_, '_> {
    /// Remembers what holds in a location that passes requests on, or would.
    pub(super) fn unchecked(&mut self, place: &Place<'_, '_, '_>) {
        let scope = place.scope;
        if !scope.get(&WEBSOCKET) || ignored(scope).contains(&Advice::UncheckedFrames) {
            return;
        }
        let nowhere = self.reading.nowhere;
        let lines = lines_about_frames(scope).into_iter().filter(|line| line.span != nowhere);
        if scope.get(&WEBSOCKET_CHECK) == FrameCheck::Off {
            let off = scope.written_at(&WEBSOCKET_CHECK, nowhere);
            self.unchecked.idle.extend(lines.map(|line| Idle { line, off }));
        } else {
            self.unchecked.used.extend(lines.map(|line| line.span));
        }
    }

    /// Speaks of the lines that hold nothing anywhere.
    pub(super) fn tell_unchecked(&mut self) {
        let Unchecked { idle, mut used } = std::mem::take(&mut self.unchecked);
        for Idle { line: Line { name, span }, off } in idle {
            if !used.insert(span) {
                continue;
            }
            let message = format!("\"{name}\" has no effect where \"websocket_check\" is off");
            let problem = Diagnostic::warning(message).at(span, "applies to no WebSocket");
            let problem = match off {
                Some(off) => problem.at(off, "frames are not parsed here"),
                None => problem,
            };
            let problem = problem
                .help("remove `websocket_check off`: frames that break rules pass by default, too");
            self.reading.report.push(problem.note(Advice::UncheckedFrames.silencer()));
        }
    }
}

/// The lines that apply on a level, of all directives that need somebody who looks at frames.
fn lines_about_frames(scope: &Scope<'_, '_>) -> Vec<Line> {
    let mut lines = Vec::new();
    for row in [&WEBSOCKET_MAX_FRAME_SIZE, &WEBSOCKET_MAX_MESSAGE_SIZE] {
        add(&mut lines, scope, row, any_side);
    }
    for row in [&WEBSOCKET_MAX_CONTROL_FRAMES, &WEBSOCKET_MAX_FRAGMENTS] {
        add(&mut lines, scope, row, any_side);
    }
    for row in [&WEBSOCKET_BYTE_RATE, &WEBSOCKET_MESSAGE_RATE] {
        add(&mut lines, scope, row, any_side);
    }
    for row in [&WEBSOCKET_PING_INTERVAL, &WEBSOCKET_PONG_TIMEOUT, &WEBSOCKET_SLOW_READER_TIMEOUT] {
        add(&mut lines, scope, row, any_side);
    }
    add(&mut lines, scope, &WEBSOCKET_LIMIT, |_| true);
    add(&mut lines, scope, &WEBSOCKET_DRAIN, Option::is_some);
    add(&mut lines, scope, &WEBSOCKET_EXPIRY, Option::is_some);
    add(&mut lines, scope, &WEBSOCKET_FAILURE_CODE, Option::is_some);
    add(&mut lines, scope, &WEBSOCKET_IDLE_TIMEOUT, Option::is_some);
    add(&mut lines, scope, &WEBSOCKET_MAX_LIFETIME, Option::is_some);
    lines
}

fn any_side<T>(sides: &Sides<Option<T>>) -> bool {
    sides.client.is_some() || sides.upstream.is_some()
}

/// The lines of a directive that apply on a level and want something.
fn add<T: 'static>(
    lines: &mut Vec<Line>,
    scope: &Scope<'_, '_>,
    row: &'static Directive<T>,
    wants: fn(&T) -> bool,
) {
    let Some(level) = scope.nearest(&[row]) else { return };
    let wanted = level.lines(row).filter(|line| line.value.is_some_and(wants));
    lines.extend(wanted.map(|line| Line { name: row.name, span: line.directive.head() }));
}
