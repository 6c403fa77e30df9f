//! Log formats and the access logs that use them.

use wssgate_syntax::{Diagnostic, closest, printable};

use crate::directives::log::{AccessLogDraft, LogFormatDraft};
use crate::draft::{Entry, Level};
use crate::model::{AccessLog, ErrorLog, Located, LogEscape, LogFormat, LogFormatId};

use super::{Resolver, Scope};

/// nginx's predefined format.
const COMBINED: &[u8] =
    b"$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
    \"$http_referer\" \"$http_user_agent\"";

impl Resolver<'_, '_> {
    /// Takes in `combined` and all `log_format` lines.
    pub(crate) fn log_formats(&mut self, http: &Level<'_>) {
        let line = self.reading.names.template(COMBINED, self.nowhere);
        let line = line.expect("the predefined format is valid");
        let name = b"combined".as_slice().into();
        self.add_format(LogFormat { name, escape: LogEscape::Default, line });
        for draft in http.named("log_format").filter_map(Entry::value::<LogFormatDraft>) {
            let Located { value: name, span } = draft.name;
            if self.formats.contains_key(&name) {
                let message = format!("duplicate \"log_format\" name \"{}\"", printable(&name));
                self.error(message, span);
                continue;
            }
            self.add_format(LogFormat { name, escape: draft.escape, line: draft.line });
        }
    }

    fn add_format(&mut self, format: LogFormat) {
        self.formats.insert(format.name.clone(), LogFormatId(self.log_formats.len()));
        self.log_formats.push(format);
    }

    /// The access logs that apply in `scope`; `off` beside others turns all off.
    pub(crate) fn access_logs(&mut self, scope: &Scope<'_, '_>) -> Vec<AccessLog> {
        let drafts: Vec<AccessLogDraft> = scope.all("access_log");
        if drafts.iter().any(|draft| matches!(draft, AccessLogDraft::Off)) {
            return Vec::new();
        }
        drafts.into_iter().filter_map(|draft| self.access_log(draft)).collect()
    }

    fn access_log(&mut self, draft: AccessLogDraft) -> Option<AccessLog> {
        let AccessLogDraft::On { target, format, condition, buffer, flush } = draft else {
            return None;
        };
        let format = match format {
            None => LogFormatId(0),
            Some(name) => self.format_named(&name)?,
        };
        Some(AccessLog { target, format, condition, buffer, flush })
    }

    fn format_named(&mut self, name: &Located<Box<[u8]>>) -> Option<LogFormatId> {
        if let Some(format) = self.formats.get(&name.value) {
            return Some(*format);
        }
        let known = self.log_formats.iter();
        let known = known.filter_map(|format| std::str::from_utf8(&format.name).ok());
        let help = closest(&name.value, known).map(|close| format!("did you mean `{close}`?"));
        let message = format!("unknown log format \"{}\"", printable(&name.value));
        self.reading.report.push(Diagnostic::error(message).at(name.span, "").maybe_help(help));
        None
    }

    /// The error logs that apply in `scope`: those of the main level when `http` and below say
    /// nothing.
    pub(crate) fn error_logs(&self, scope: &Scope<'_, '_>) -> Vec<ErrorLog> {
        match scope.nearest(&["error_log"]) {
            Some(found) => found.all("error_log"),
            None => self.error_logs.clone(),
        }
    }
}
