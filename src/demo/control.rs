//! What the page may do to the proxy: reload it.
//!
//! A page of any other site can have a browser send requests here, so three things must agree that the
//! demo's own page asks: the method, the origin, and a header that no form and no other site can set
//! (a browser would first ask for leave by OPTIONS, which nobody grants).

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::timeout;
use wssgate_http1::{Fields, Method, RequestHead};
use wssgate_sys::process;

use crate::reloads::{Outcome, Reloads};
use crate::signal::Signal;

/// What can be done, each at `/control/NAME`; the page shows no button for anything else.
pub(super) const CONTROLS: [&str; 1] = ["reload"];

/// The header of a request that does something; its value is what is done.
const HEADER: &str = "X-Wssgate-Demo";

/// How long a reload of two servers may take on a busy machine.
const LONGEST_RELOAD: Duration = Duration::from_secs(10);

/// Who may reload, and whether somebody does.
pub(super) struct Control {
    /// The origins that the page has.
    origins: Vec<String>,
    reloads: Reloads,
    is_busy: Cell<bool>,
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no such thing to do.
    Unknown,
    /// It was not posted.
    Method,
    /// Not the page of this demo asked.
    Foreign,
    /// A reload is under way.
    Busy,
    /// The new generation could not be built, which the error log explains.
    Failed,
}

impl Refusal {
    /// Status line and text of the answer.
    pub(super) fn answer(self) -> (&'static str, &'static str) {
        match self {
            Self::Unknown => ("404 Not Found", "not found\n"),
            Self::Method => ("405 Method Not Allowed", "this takes a POST\n"),
            Self::Foreign => ("403 Forbidden", "only the page of this demo may do that\n"),
            Self::Busy => ("409 Conflict", "a reload is under way\n"),
            Self::Failed => ("500 Internal Server Error", "failed; the terminal says why\n"),
        }
    }
}

impl Control {
    /// For a page that browsers reach at this port of this machine.
    pub(super) fn new(port: u16, reloads: Reloads) -> Self {
        // Browsers leave the port of https out.
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let origins = ["localhost", "127.0.0.1", "[::1]"];
        let origins = origins.map(|host| format!("https://{host}{port}")).to_vec();
        Self { origins, reloads, is_busy: Cell::new(false) }
    }

    /// Hears of each reload, whoever asked for it.
    pub(super) fn listen(&self) -> Receiver<Outcome> {
        self.reloads.listen()
    }

    /// What the page that opened this WebSocket may do.
    pub(super) fn granted(&self, fields: &Fields) -> &'static [&'static str] {
        if self.is_own(fields) { &CONTROLS } else { &[] }
    }

    /// Whether the demo's own page asks, as the browser attests.
    ///
    /// Not compared with `Host`, which the hops have changed, and which a foreign name that leads here
    /// would agree with.
    fn is_own(&self, fields: &Fields) -> bool {
        let mut origins = fields.all("Origin");
        let (Some(origin), None) = (origins.next(), origins.next()) else { return false };
        self.origins.iter().any(|own| own.as_bytes() == origin)
    }

    /// Whether a request for `/control/NAME` is to be obeyed.
    pub(super) fn check(&self, head: &RequestHead, name: &[u8]) -> Result<(), Refusal> {
        if !CONTROLS.iter().any(|control| control.as_bytes() == name) {
            return Err(Refusal::Unknown);
        }
        if head.method() != Method::Post {
            return Err(Refusal::Method);
        }
        let fields = head.fields();
        // Old browsers do not send it.
        let is_same_site = fields.all("Sec-Fetch-Site").all(|site| site == b"same-origin");
        match self.is_own(fields) && is_same_site && fields.first(HEADER) == Some(name) {
            true => Ok(()),
            false => Err(Refusal::Foreign),
        }
    }

    /// Reloads the proxy as `-s reload` does, by a signal, and says what became of it.
    pub(super) async fn reload(&self) -> Result<Value, Refusal> {
        if self.is_busy.replace(true) {
            return Err(Refusal::Busy);
        }
        let reloaded = self.signal_and_wait().await;
        self.is_busy.set(false);
        reloaded.ok_or(Refusal::Failed)
    }

    async fn signal_and_wait(&self) -> Option<Value> {
        let mut outcomes = self.reloads.listen();
        let begin = Instant::now();
        let own = i32::try_from(std::process::id()).ok()?;
        process::kill(own, Signal::Reload.number()).ok()?;
        timeout(LONGEST_RELOAD, outcomes.changed()).await.ok()?.ok()?;
        let Outcome { generation, is_failure } = *outcomes.borrow();
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        (!is_failure).then(|| json!({"generation": generation, "ms": ms}))
    }
}

#[cfg(test)]
mod tests {
    use wssgate_http1::{Limits, RequestParser};

    use super::*;

    fn head(line: &str, fields: &str) -> RequestHead {
        let text = format!("{line} HTTP/1.1\r\nHost: chat.example.com\r\n{fields}\r\n");
        let mut input = bytes::BytesMut::from(text.as_bytes());
        let parsed = RequestParser::new().parse(&mut input, &Limits::default());
        parsed.expect("valid").expect("whole")
    }

    #[test]
    fn only_the_page_itself_may_reload() {
        const POST: &str = "POST /control/reload";
        const HEADER: &str = "X-Wssgate-Demo: reload\r\n";
        const ORIGIN: &str = "Origin: https://localhost:8443\r\n";
        const SAME: &str = "Sec-Fetch-Site: same-origin\r\n";
        let control = Control::new(8443, Reloads::default());
        for (line, fields, expected) in [
            (POST, format!("{ORIGIN}{HEADER}{SAME}"), Ok(())),
            (POST, format!("{ORIGIN}{HEADER}"), Ok(())),
            (POST, format!("Origin: https://127.0.0.1:8443\r\n{HEADER}"), Ok(())),
            (POST, format!("Origin: https://[::1]:8443\r\n{HEADER}"), Ok(())),
            ("GET /control/reload", format!("{ORIGIN}{HEADER}{SAME}"), Err(Refusal::Method)),
            ("OPTIONS /control/reload", ORIGIN.to_owned(), Err(Refusal::Method)),
            (POST, format!("{ORIGIN}{SAME}"), Err(Refusal::Foreign)),
            (POST, format!("{ORIGIN}X-Wssgate-Demo: upgrade\r\n"), Err(Refusal::Foreign)),
            (POST, format!("{HEADER}{SAME}"), Err(Refusal::Foreign)),
            (POST, format!("Origin: null\r\n{HEADER}"), Err(Refusal::Foreign)),
            (POST, format!("Origin: https://localhost\r\n{HEADER}"), Err(Refusal::Foreign)),
            (POST, format!("Origin: http://localhost:8443\r\n{HEADER}"), Err(Refusal::Foreign)),
            (POST, format!("Origin: https://localhost:84430\r\n{HEADER}"), Err(Refusal::Foreign)),
            (POST, format!("Origin: https://evil.example\r\n{HEADER}"), Err(Refusal::Foreign)),
            (POST, format!("{ORIGIN}{ORIGIN}{HEADER}"), Err(Refusal::Foreign)),
            (POST, format!("{ORIGIN}{HEADER}Sec-Fetch-Site: same-site\r\n"), Err(Refusal::Foreign)),
        ] {
            let head = head(line, &fields);
            assert_eq!(control.check(&head, b"reload"), expected, "{line} {fields}");
        }
        let upgrade =
            head("POST /control/upgrade", &format!("{ORIGIN}X-Wssgate-Demo: upgrade\r\n"));
        assert_eq!(control.check(&upgrade, b"upgrade"), Err(Refusal::Unknown));
        assert_eq!(control.granted(upgrade.fields()), CONTROLS);
        let foreign = head("GET /ws", "Origin: https://chat.example.com\r\n");
        assert!(control.granted(foreign.fields()).is_empty());
    }

    #[test]
    fn the_port_of_https_is_not_part_of_an_origin() {
        let control = Control::new(443, Reloads::default());
        let own = head("GET /ws", "Origin: https://localhost\r\n");
        assert_eq!(control.granted(own.fields()), CONTROLS);
    }
}
