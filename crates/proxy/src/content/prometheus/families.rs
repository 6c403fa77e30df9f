//! Every metric: its name, what it means, its labels, and what bounds its series.
//!
//! `docs/metrics.md` is made of this, and a test holds it to it.

use wssgate_metrics::Family;
use wssgate_metrics::Kind::{Counter, Gauge, Histogram, Info};

const SERVERS: &str = "servers with names of their own, at most 200 since the start; then `other`";
const PEERS: &str = "addresses in upstream groups, at most 1,000; then `other`";
const SIDE: &str = "2";
const SIDE_AND_KIND: &str = "4";

pub(super) static BUILD_INFO: Family =
    Family::new("wssgate_build_info", Info, "The version that runs.").by(&["version"], "1");

pub(super) static CONFIG_GENERATION: Family = Family::new(
    "wssgate_config_generation",
    Gauge,
    "The number of the configuration in effect: 1 after the start, one more with each successful reload.",
);

pub(super) static RELOAD_SUCCESSFUL: Family = Family::new(
    "wssgate_config_last_reload_successful",
    Gauge,
    "1 if the last reload put its configuration into effect, or there was none; 0 if the previous one stays.",
);

pub(super) static RELOAD_TIME: Family = Family::new(
    "wssgate_config_last_reload_timestamp_seconds",
    Gauge,
    "When a configuration was last loaded, successfully or not; the start counts.",
);

pub(super) static RELOAD_SUCCESS_TIME: Family = Family::new(
    "wssgate_config_last_reload_success_timestamp_seconds",
    Gauge,
    "When the configuration in effect was loaded.",
);

pub(super) static RELOADS: Family = Family::new(
    "wssgate_config_reloads_total",
    Counter,
    "Reloads, by `result`: `success` or `failure`.",
)
.by(&["result"], "2");

pub(super) static ACCEPTED: Family =
    Family::new("wssgate_connections_accepted_total", Counter, "Client connections accepted.");

pub(super) static REFUSED: Family = Family::new(
    "wssgate_connections_refused_total",
    Counter,
    "Client connections that were accepted and dropped at once: because of `worker_connections`, or because no `descriptors` were left.",
)
.by(&["reason"], "2");

pub(super) static CONNECTIONS: Family = Family::new(
    "wssgate_connections",
    Gauge,
    "Client connections now, by `state`: `opening` (PROXY protocol, TLS handshake), `waiting` for a request, `reading` \
     its head, `answering` it, or a `tunnel`.",
)
.by(&["state"], "5");

pub(super) static CONNECTION_FAILURES: Family = Family::new(
    "wssgate_connection_failures_total",
    Counter,
    "Client connections that ended before their first request, by `reason`: no valid PROXY protocol header, or how \
     the TLS handshake failed.",
)
.by(&["reason"], "8");

pub(super) static TLS_HANDSHAKES: Family = Family::new(
    "wssgate_tls_handshakes_total",
    Counter,
    "TLS handshakes with clients that succeeded.",
);

pub(super) static REQUESTS: Family = Family::new(
    "wssgate_http_requests_total",
    Counter,
    "Requests that began, those for WebSockets included.",
);

pub(super) static REQUEST_DURATION: Family = Family::new(
    "wssgate_http_request_duration_seconds",
    Histogram,
    "From the first byte of a request to the end of its response, by class of `status`: `2xx` to `5xx`, or `none` for \
     those without a response. A request that became a tunnel (101) is not among them.",
)
.by(&["server", "status"], "5 for each server, of which there are at most 200 and `other`");

pub(super) static HANDSHAKE_FAILURES: Family = Family::new(
    "wssgate_websocket_handshake_failures_total",
    Counter,
    "Requests for a WebSocket that came to none, by `reason`.",
)
.by(&["reason"], "13");

pub(super) static HANDSHAKE_DURATION: Family = Family::new(
    "wssgate_tunnel_handshake_duration_seconds",
    Histogram,
    "From the first byte of a request to the end of the 101 that made it a tunnel.",
)
.by(&["server"], SERVERS);

pub(super) static LIFETIME: Family = Family::new(
    "wssgate_tunnel_lifetime_seconds",
    Histogram,
    "How long tunnels lived that have ended.",
)
.by(&["server"], SERVERS);

pub(super) static TUNNELS: Family = Family::new(
    "wssgate_tunnels",
    Gauge,
    "Open tunnels: WebSockets and other upgraded connections, by the number of their worker.",
)
.by(&["worker"], "`worker_processes`");

pub(super) static SERVER_TUNNELS: Family =
    Family::new("wssgate_server_tunnels", Gauge, "Open tunnels of a server.")
        .by(&["server"], SERVERS);

pub(super) static TUNNELS_OPENED: Family =
    Family::new("wssgate_tunnels_opened_total", Counter, "Tunnels that began.")
        .by(&["server"], SERVERS);

pub(super) static TUNNELS_TAKEN_OVER: Family = Family::new(
    "wssgate_tunnels_taken_over_total",
    Counter,
    "Tunnels that an old process has handed over at a binary upgrade. They began there, so `wssgate_tunnels_opened_total` \
     does not count them.",
)
.by(&["server"], SERVERS);

pub(super) static GENERATION_TUNNELS: Family = Family::new(
    "wssgate_generation_tunnels",
    Gauge,
    "Open tunnels by the configuration with which they began, or to which an old process has handed them over; `older` \
     stands for all but the newest five.",
)
.by(&["generation"], "6");

pub(super) static ENDS: Family = Family::new(
    "wssgate_tunnel_ends_total",
    Counter,
    "Tunnels that have ended, by `cause` (websocket-ends.md) and by the `code` of the Close with which the end began: \
     1000 to 1015, `3000-3999`, `4000-4999`, `other`, or `none` without a Close.",
)
.by(&["cause", "code"], "what has occurred; 47 causes, 19 codes");

pub(super) static REAUTHS: Family = Family::new(
    "wssgate_websocket_reauths_total",
    Counter,
    "Subrequests of `websocket_reauth` that were answered, by `result`: `allowed`, `denied`, or `failed` if there was no \
     response or one that says neither.",
)
.by(&["result"], "3");

pub(super) static REVOCATIONS: Family = Family::new(
    "wssgate_revocations",
    Gauge,
    "Revocations that are held (`wssgate ctl revoke`); there is room for 10,000.",
);

pub(super) static RECEIVED_BYTES: Family = Family::new(
    "wssgate_tunnel_received_bytes_total",
    Counter,
    "Bytes that came through tunnels, frame headers included and TLS not, by the side that they came `from`.",
)
.by(&["from"], SIDE);

pub(super) static MESSAGES: Family = Family::new(
    "wssgate_websocket_messages_total",
    Counter,
    "Complete messages, by the side that they came `from` and their `kind`: `text` or `binary`.",
)
.by(&["from", "kind"], SIDE_AND_KIND);

pub(super) static MESSAGE_BYTES: Family = Family::new(
    "wssgate_websocket_message_bytes_total",
    Counter,
    "Payload of complete messages as on the wire: compressed if it is compressed.",
)
.by(&["from", "kind"], SIDE_AND_KIND);

pub(super) static CONTROL_FRAMES: Family = Family::new(
    "wssgate_websocket_control_frames_total",
    Counter,
    "Pings and pongs of the sides, by `kind`: `ping` or `pong`. Pongs that answer pings of wssgate are not among them.",
)
.by(&["from", "kind"], SIDE_AND_KIND);

pub(super) static BLOCKED: Family = Family::new(
    "wssgate_tunnel_blocked_seconds_total",
    Counter,
    "How long bytes had to wait because this `side` did not take them, summed over tunnels. A wait is added when it is \
     over.",
)
.by(&["side"], SIDE);

pub(super) static RTT: Family = Family::new(
    "wssgate_websocket_rtt_seconds",
    Histogram,
    "How long this `side` took to answer pings of wssgate (`websocket_ping_interval`).",
)
.by(&["side"], SIDE);

pub(super) static LIMITS_HIT: Family = Family::new(
    "wssgate_limits_hit_total",
    Counter,
    "What a `zone` has done to what was beyond its limit, by `kind` (`requests`, `connections`, `messages`, `bytes`) and \
     `action`: `refused` (or closed), `delayed` (or not read for a while), `dry_run`.",
)
.by(&["zone", "kind", "action"], "3 for each zone of the configuration, at most 1,000; then `other`");

pub(super) static UPSTREAM_UP: Family = Family::new(
    "wssgate_upstream_up",
    Gauge,
    "1 if requests are sent to this address; 0 if it is out of use because it has failed, \
     does not pass its health checks, or is `down`.",
)
.by(&["upstream", "peer"], PEERS)
.least();

pub(super) static UPSTREAM_TUNNELS: Family = Family::new(
    "wssgate_upstream_tunnels",
    Gauge,
    "Open tunnels to an address. Those to hosts that variables of `proxy_pass` name are not among them.",
)
.by(&["upstream", "peer"], PEERS);

pub(super) static UPSTREAM_CONNECTIONS: Family = Family::new(
    "wssgate_upstream_connections",
    Gauge,
    "Connections to an address that are in use, tunnels included; idle ones that are kept are not.",
)
.by(&["upstream", "peer"], PEERS);

pub(super) static UPSTREAM_FAILURES: Family = Family::new(
    "wssgate_upstream_failures_total",
    Counter,
    "Requests that an address has failed, as `max_fails` counts them.",
)
.by(&["upstream", "peer"], PEERS);

pub(super) static PORTS: Family = Family::new(
    "wssgate_ephemeral_ports",
    Gauge,
    "Ports of this host for connections to one address of an upstream (net.ipv4.ip_local_port_range).",
);

pub(super) static PORTS_LEFT: Family = Family::new(
    "wssgate_upstream_ports_left",
    Gauge,
    "Ports that are left for connections to an address, at most: connections in use are taken away; idle ones, those in \
     TIME_WAIT and those of other programs are not known. With `proxy_bind` there are as many for each local address.",
)
.by(&["upstream", "peer"], PEERS)
.least();

pub(super) static ACCEPT_QUEUE: Family = Family::new(
    "wssgate_accept_queue_connections",
    Gauge,
    "Connections that wait to be accepted, over all sockets of an address. The kernel does not report this for Unix sockets.",
)
.by(&["listen"], "addresses of `listen`, at most 1,000; then `other`");

pub(super) static ACCEPT_QUEUE_LIMIT: Family = Family::new(
    "wssgate_accept_queue_limit",
    Gauge,
    "How many connections may wait to be accepted before the kernel drops others.",
)
.by(&["listen"], "addresses of `listen`, at most 1,000; then `other`");

pub(super) static CERTIFICATE_EXPIRY: Family = Family::new(
    "wssgate_certificate_expiry_timestamp_seconds",
    Gauge,
    "When a certificate that a server shows ends; `certificate` is its path, or `acme`. Those whose paths have variables \
     are not shown.",
)
.by(&["server", "certificate"], "certificates of the configuration, at most 1,000; then `other`")
.least();

pub(super) static OPEN_FDS: Family =
    Family::new("process_open_fds", Gauge, "Open file descriptors.");

pub(super) static MAX_FDS: Family = Family::new(
    "process_max_fds",
    Gauge,
    "How many file descriptors may be open; a tunnel needs two.",
);

pub(super) static RESIDENT: Family = Family::new(
    "process_resident_memory_bytes",
    Gauge,
    "Resident memory; what sockets need in the kernel is not in it.",
);

pub(super) static CPU: Family = Family::new(
    "process_cpu_seconds_total",
    Counter,
    "Processor time used, of the system included.",
);

pub(super) static START_TIME: Family = Family::new(
    "process_start_time_seconds",
    Gauge,
    "When the process began, since the Unix epoch.",
);

/// All of them, in the order in which they are written.
pub static ALL: &[&Family] = &[
    &BUILD_INFO,
    &CONFIG_GENERATION,
    &RELOAD_SUCCESSFUL,
    &RELOAD_TIME,
    &RELOAD_SUCCESS_TIME,
    &RELOADS,
    &ACCEPTED,
    &REFUSED,
    &CONNECTIONS,
    &CONNECTION_FAILURES,
    &TLS_HANDSHAKES,
    &REQUESTS,
    &HANDSHAKE_FAILURES,
    &REQUEST_DURATION,
    &TUNNELS_OPENED,
    &TUNNELS_TAKEN_OVER,
    &SERVER_TUNNELS,
    &HANDSHAKE_DURATION,
    &LIFETIME,
    &TUNNELS,
    &GENERATION_TUNNELS,
    &ENDS,
    &REAUTHS,
    &REVOCATIONS,
    &RECEIVED_BYTES,
    &MESSAGES,
    &MESSAGE_BYTES,
    &CONTROL_FRAMES,
    &BLOCKED,
    &RTT,
    &LIMITS_HIT,
    &UPSTREAM_UP,
    &UPSTREAM_TUNNELS,
    &UPSTREAM_CONNECTIONS,
    &UPSTREAM_FAILURES,
    &PORTS,
    &PORTS_LEFT,
    &ACCEPT_QUEUE,
    &ACCEPT_QUEUE_LIMIT,
    &CERTIFICATE_EXPIRY,
    &OPEN_FDS,
    &MAX_FDS,
    &RESIDENT,
    &CPU,
    &START_TIME,
];
