//! What pages of `dashboard` are told: some of the same requests as on the socket, and an overview.

use serde_json::{Value, json};
use wssgate_http1::Method;
use wssgate_metrics::Seconds;
use wssgate_relay::Side;

use super::View;
use super::api::{Answer, By, answer_at};
use super::query::Query;
use crate::content::prometheus::certificate_ends;
use crate::dashboard::history::Totals;
use crate::dashboard::{Answered, Answers, Asked};
use crate::metrics::{Failure, HandshakeFailure};

impl Answers for View {
    fn answer(&self, asked: &Asked) -> Answered {
        let Answer { status, body } = match &*asked.path {
            "overview" if asked.method == Method::Get => self.overview(asked),
            path if is_offered(path) => {
                let path = format!("/v1/{path}");
                answer_at(&path, &asked.args, asked.method, By::Dashboard(&asked.by), self)
            }
            _ => Answer::error(404, "there is nothing at this path"),
        };
        Answered { status, body: body.to_string() }
    }
}

/// Whether pages may ask for this: not for a reload, nor for another log level.
fn is_offered(path: &str) -> bool {
    matches!(path.split('/').next(), Some("tunnels" | "drains"))
}

impl View {
    /// All but the list: it asks no relay, so that it costs the same with one tunnel and with a million.
    fn overview(&self, asked: &Asked) -> Answer {
        let since = Query::parse(&asked.args).and_then(|mut query| {
            let since = query.number("since")?;
            query.finish()?;
            Ok(since.unwrap_or(0))
        });
        let since = match since {
            Ok(since) => since,
            Err(error) => return Answer::error(400, &error.to_string()),
        };
        let get = |path| answer_at(path, b"", Method::Get, By::Dashboard(&asked.by), self).body;
        let mut upstreams = get("/v1/upstreams");
        let body = json!({
            "status": get("/v1/status"),
            "upstreams": upstreams["upstreams"].take(),
            "counters": Totals::read(&self.metrics).json(),
            "failures": self.failures(),
            "rtt": self.round_trips(),
            "reload": self.last_reload(),
            "certificates": self.certificates(),
            "history": self.history.json(since),
            "control": asked.control,
        });
        Answer { status: 200, body }
    }

    /// Handshakes that came to no WebSocket, by reason.
    fn failures(&self) -> Value {
        let count =
            |kind: HandshakeFailure| self.metrics.total(|c| c.failed_handshakes.value(kind));
        let all = HandshakeFailure::ALL.iter().map(|kind| (kind.word().to_owned(), count(*kind)));
        all.filter(|(_, count)| *count > 0)
            .map(|(word, count)| (word, Value::from(count)))
            .collect()
    }

    /// How many pings each side has answered.
    fn round_trips(&self) -> Value {
        let count = |side| {
            let workers = self.metrics.workers();
            Seconds::of(workers.map(|worker| &worker.relay.side(side).rtt)).count()
        };
        json!([count(Side::Client), count(Side::Upstream)])
    }

    fn last_reload(&self) -> Value {
        let reload = &self.metrics.registry.reload;
        let (tried, succeeded) = reload.times();
        json!({
            "tried": tried,
            "succeeded": succeeded,
            "successful": reload.is_successful(),
            "successes": reload.successes.value(),
            "failures": reload.failures.value(),
        })
    }

    fn certificates(&self) -> Value {
        let generation = self.current.load();
        let ends = certificate_ends(&generation);
        let one = |((server, certificate), ends): ((&str, String), i64)| json!({"server": server, "certificate": certificate, "ends": ends});
        ends.into_iter().map(one).collect()
    }
}
