//! What is counted of tunnels and requests.

use std::time::Duration;

use wssgate_metrics::{Counter, Histogram};

/// The bounds of handshakes: from the first byte of the request to the end of the 101.
static HANDSHAKE: [Duration; 13] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// The bounds of lives: a second to a week. The usual time-outs stand between two of them.
static LIFETIME: [Duration; 13] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(45),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(3600),
    Duration::from_secs(3 * 3600),
    Duration::from_secs(8 * 3600),
    Duration::from_secs(24 * 3600),
    Duration::from_secs(3 * 24 * 3600),
    Duration::from_secs(7 * 24 * 3600),
];

/// The bounds of ordinary requests.
static REQUEST: [Duration; 11] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// The classes of statuses.
pub const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "none"];

/// The place of a status in [`CLASSES`]; the last is for those without an answer.
pub fn status_class(status: u16) -> usize {
    match status {
        // nginx's own: the connection was closed without an answer, by us or by the client.
        444 | 499 => 4,
        200..=299 => 0,
        300..=399 => 1,
        400..=499 => 2,
        500..=599 => 3,
        _ => 4,
    }
}

/// What is counted by server, whose name outlives generations.
#[derive(Debug)]
pub struct ServerSeries {
    /// The first name of the server; `_` for those without one.
    pub name: Box<str>,
    workers: Box<[ServerCounters]>,
}

/// What one worker counts of a server.
#[derive(Debug)]
#[repr(align(128))]
pub struct ServerCounters {
    /// Tunnels that began.
    pub opened: Counter,
    /// Tunnels that have ended.
    pub ended: Counter,
    /// Tunnels that an old process has handed over.
    pub taken_over: Counter,
    /// Tunnels that have left for a new process, or back to the old one.
    pub left: Counter,
    /// How long it took to open them.
    pub handshake: Histogram<13>,
    /// How long those lived that have ended.
    pub lifetime: Histogram<13>,
    /// How long requests took that came to no tunnel, by [`CLASSES`].
    pub requests: [Histogram<11>; CLASSES.len()],
}

impl Default for ServerCounters {
    fn default() -> Self {
        Self {
            opened: Counter::default(),
            ended: Counter::default(),
            taken_over: Counter::default(),
            left: Counter::default(),
            handshake: Histogram::new(&HANDSHAKE),
            lifetime: Histogram::new(&LIFETIME),
            requests: std::array::from_fn(|_| Histogram::new(&REQUEST)),
        }
    }
}

impl ServerCounters {
    /// Tunnels that have been here.
    pub fn begun(&self) -> u64 {
        self.opened.value() + self.taken_over.value()
    }

    /// Tunnels that are here no longer.
    pub fn gone(&self) -> u64 {
        self.ended.value() + self.left.value()
    }
}

impl ServerSeries {
    /// Nothing was counted.
    pub(super) fn new(name: &str, workers: usize) -> Self {
        let workers = (0..workers).map(|_| ServerCounters::default()).collect();
        Self { name: name.into(), workers }
    }

    /// The counters of a worker.
    pub fn worker(&self, id: usize) -> &ServerCounters {
        &self.workers[id]
    }

    /// The counters of all workers.
    pub fn workers(&self) -> &[ServerCounters] {
        &self.workers
    }

    /// The sum over all workers.
    pub fn total(&self, value: impl Fn(&ServerCounters) -> u64) -> u64 {
        self.workers.iter().map(value).sum()
    }
}

/// The causes of ends, as `$websocket_close_cause` has them; the last is for what this table does not know.
pub const CAUSES: [&str; 47] = [
    "client_byte_rate",
    "client_close",
    "client_control_flood",
    "client_error",
    "client_fin",
    "client_frame_too_big",
    "client_invalid_close",
    "client_invalid_text",
    "client_message_rate",
    "client_message_too_big",
    "client_pong_timeout",
    "client_protocol_error",
    "client_reset",
    "client_send_timeout",
    "client_slow_reader",
    "client_tls",
    "client_too_many_fragments",
    "client_truncated",
    "credentials",
    "drain",
    "half_close_timeout",
    "idle_timeout",
    "kill",
    "max_lifetime",
    "read_timeout",
    "setup_failed",
    "shutdown",
    "upstream_byte_rate",
    "upstream_close",
    "upstream_control_flood",
    "upstream_error",
    "upstream_fin",
    "upstream_frame_too_big",
    "upstream_invalid_close",
    "upstream_invalid_text",
    "upstream_message_rate",
    "upstream_message_too_big",
    "upstream_pong_timeout",
    "upstream_protocol_error",
    "upstream_reset",
    "upstream_send_timeout",
    "upstream_slow_reader",
    "upstream_tls",
    "upstream_too_many_fragments",
    "upstream_truncated",
    "upstream_unhealthy",
    "other",
];

/// The codes that have a label of their own.
const CODES: [u16; 15] =
    [1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015];

/// What stands for all others: those of frameworks and of applications (RFC 6455 §7.4.2), those that nobody may
/// send, and no Close at all.
const MORE_CODES: [&str; 4] = ["3000-3999", "4000-4999", "other", "none"];

/// How tunnels ended, by cause and code.
#[derive(Debug)]
pub struct Ends(Box<[Counter]>);

impl Default for Ends {
    fn default() -> Self {
        Self((0..CAUSES.len() * end_codes().count()).map(|_| Counter::default()).collect())
    }
}

impl Ends {
    /// Counts an end; `code` is that of the Close with which it began, if there was one.
    pub fn count(&self, cause: &str, code: Option<u16>) {
        let cause = CAUSES.iter().position(|known| *known == cause).unwrap_or(CAUSES.len() - 1);
        let codes = end_codes().count();
        self.0[cause * codes + code_place(code)].increment();
    }

    /// How many there were in all of `sets`, in the order of [`CAUSES`], whatever the code.
    pub fn by_cause<'s>(sets: impl Iterator<Item = &'s Self>) -> [u64; CAUSES.len()] {
        let codes = end_codes().count();
        let mut sums = [0; CAUSES.len()];
        for set in sets {
            for (sum, counters) in sums.iter_mut().zip(set.0.chunks(codes)) {
                *sum += counters.iter().map(Counter::value).sum::<u64>();
            }
        }
        sums
    }

    /// Causes and codes of those that occurred, with how many there were in all of `sets`.
    pub fn occurred<'s>(
        sets: impl Iterator<Item = &'s Self> + Clone,
    ) -> impl Iterator<Item = (&'static str, String, u64)> {
        let pairs = CAUSES.into_iter().flat_map(|cause| end_codes().map(move |code| (cause, code)));
        pairs.enumerate().filter_map(move |(at, (cause, code))| {
            let count = sets.clone().map(|set| set.0[at].value()).sum::<u64>();
            (count > 0).then_some((cause, code, count))
        })
    }
}

/// All labels of codes.
pub fn end_codes() -> impl Iterator<Item = String> {
    CODES.iter().map(u16::to_string).chain(MORE_CODES.map(str::to_owned))
}

fn code_place(code: Option<u16>) -> usize {
    let known = |code| CODES.iter().position(|known| *known == code);
    CODES.len()
        + match code {
            Some(3000..=3999) => 0,
            Some(4000..=4999) => 1,
            Some(code) => return known(code).unwrap_or(CODES.len() + 2),
            None => 3,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart_by_cause_and_code() {
        let (one, two) = (Ends::default(), Ends::default());
        one.count("client_close", Some(1000));
        two.count("client_close", Some(1000));
        for code in [3000, 3999, 4000, 4999, 5000, 999, 2000] {
            one.count("upstream_truncated", Some(code));
        }
        one.count("read_timeout", None);
        one.count("nobody knows", None);
        let by_cause = Ends::by_cause([&one, &two].into_iter());
        let of = |cause| by_cause[CAUSES.iter().position(|known| *known == cause).expect("known")];
        assert_eq!((of("client_close"), of("upstream_truncated"), of("other")), (2, 7, 1));
        let ends: Vec<_> = Ends::occurred([&one, &two].into_iter()).collect();
        let ends: Vec<_> =
            ends.iter().map(|(cause, code, count)| (*cause, &**code, *count)).collect();
        assert_eq!(
            ends,
            [
                ("client_close", "1000", 2),
                ("read_timeout", "none", 1),
                ("upstream_truncated", "3000-3999", 2),
                ("upstream_truncated", "4000-4999", 2),
                ("upstream_truncated", "other", 3),
                ("other", "none", 1),
            ]
        );
    }

    #[test]
    fn causes_are_those_of_the_document() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/websocket-ends.md");
        let text = std::fs::read_to_string(path).expect("the document");
        let table = text.split("## Causes").nth(1).and_then(|rest| rest.split("\n## ").next());
        let rows = table.expect("its table").lines().filter_map(|line| line.strip_prefix("| `"));
        let mut told: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();
        told.sort_unstable();
        let mut known: Vec<_> = CAUSES.iter().copied().filter(|cause| *cause != "other").collect();
        known.sort_unstable();
        assert_eq!(told, known);
        assert_eq!((CAUSES.len(), end_codes().count()), (47, 19), "what is told of their bound");
    }

    #[test]
    fn an_answer_that_nobody_got_is_of_no_class() {
        for (status, class) in
            [(200, "2xx"), (304, "3xx"), (404, "4xx"), (502, "5xx"), (499, "none"), (0, "none")]
        {
            assert_eq!(CLASSES[status_class(status)], class, "{status}");
        }
    }
}
