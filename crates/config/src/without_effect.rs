//! nginx's directives that can be left out without changing a response, each with the reason.
//!
//! What decides who may do what is never among them. Those of protocols that are not there stand in `foreign.rs`.

use crate::directive::Arity::{AtLeast, Between, Exactly, Flag};
use crate::directive::{E, H, HS, HSL, HSLI, L, LI, M, Row, S, SI, idle};

const BODY_BUFFERS: &str = "the buffering of request bodies is not configurable";
const DEBUGGING: &str = "it is for debugging nginx itself";
const EVENTS: &str = "event processing is not configurable";
const FILE_IO: &str = "the way files are read and sent is not configurable";
const HTTP1_ONLY: &str = "only HTTP/1.1 is supported so far";
const KEEPALIVE: &str = "idle connections are closed after keepalive_timeout";
const LOG_ONLY: &str = "it only adds messages to the error log";
const MEMORY: &str = "memory is allocated as needed";
const NO_CACHE: &str = "responses are not cached; every request is passed on";
const NO_COMPRESSION: &str = "responses are passed on unchanged";
const NO_EARLY_DATA: &str = "early data is never accepted";
const NO_FILE_CACHE: &str = "files are opened for each request";
const NO_MODULES: &str = "modules are not supported, and neither are their directives";
const NO_MP4: &str = "`mp4` is not supported";
const NO_TEMP_FILES: &str = "responses are never written to disk";
const NO_USERID: &str = "`userid` is not supported";
const OLD_BROWSERS: &str = "it is for obsolete browsers";
const OVERCOMMIT: &str = "it is for systems without memory overcommit";
const OWN_SOCKETS: &str = "each worker has its own listening socket";
const PROFILING: &str = "it profiles nginx";
const READ_AGAIN: &str = "a reload reads all certificates again";
const REGEXES: &str =
    "regular expressions of requests are compiled to machine code wherever that is possible";
const SCHEDULER: &str = "the operating system schedules the workers";
const SOCKET_BUFFERS: &str = "the operating system chooses buffer sizes";
const TABLE_SIZES: &str = "hash tables are sized automatically";

/// The rows.
pub(crate) fn rows() -> Vec<Row> {
    vec![
        idle("accept_mutex", E, Flag, OWN_SOCKETS),
        idle("accept_mutex_delay", E, Exactly(1), OWN_SOCKETS),
        idle("aio", HSL, Exactly(1), FILE_IO),
        idle("aio_write", HSL, Flag, FILE_IO),
        idle("client_body_early_read", HS, AtLeast(1), BODY_BUFFERS),
        idle("client_body_in_single_buffer", HSL, Flag, BODY_BUFFERS),
        idle("connection_pool_size", HS, Exactly(1), MEMORY),
        idle("debug_connection", E, Exactly(1), DEBUGGING),
        idle("debug_points", M, Exactly(1), DEBUGGING),
        idle("degradation", H, Exactly(1), OVERCOMMIT),
        idle("degrade", HSL, Exactly(1), OVERCOMMIT),
        idle("directio", HSL, Exactly(1), FILE_IO),
        idle("directio_alignment", HSL, Exactly(1), FILE_IO),
        idle("epoll_events", E, Exactly(1), EVENTS),
        idle("google_perftools_profiles", M, Exactly(1), PROFILING),
        idle("gunzip", HSL, Flag, NO_COMPRESSION),
        idle("gunzip_buffers", HSL, Exactly(2), NO_COMPRESSION),
        idle("gzip", HSLI, Flag, NO_COMPRESSION),
        idle("gzip_buffers", HSL, Exactly(2), NO_COMPRESSION),
        idle("gzip_comp_level", HSL, Exactly(1), NO_COMPRESSION),
        idle("gzip_disable", HSL, AtLeast(1), NO_COMPRESSION),
        idle("gzip_hash", HSL, Exactly(1), NO_COMPRESSION),
        idle("gzip_http_version", HSL, Exactly(1), NO_COMPRESSION),
        idle("gzip_min_length", HSL, Exactly(1), NO_COMPRESSION),
        idle("gzip_no_buffer", HSL, Flag, NO_COMPRESSION),
        idle("gzip_proxied", HSL, AtLeast(1), NO_COMPRESSION),
        idle("gzip_static", HSL, Exactly(1), NO_COMPRESSION),
        idle("gzip_types", HSL, AtLeast(1), NO_COMPRESSION),
        idle("gzip_vary", HSL, Flag, NO_COMPRESSION),
        idle("gzip_window", HSL, Exactly(1), NO_COMPRESSION),
        idle("http2", HS, Flag, HTTP1_ONLY),
        idle("http2_body_preread_size", HS, Exactly(1), HTTP1_ONLY),
        idle("http2_chunk_size", HSL, Exactly(1), HTTP1_ONLY),
        idle("http2_idle_timeout", HS, Exactly(1), HTTP1_ONLY),
        idle("http2_max_concurrent_pushes", HS, Exactly(1), HTTP1_ONLY),
        idle("http2_max_concurrent_streams", HS, Exactly(1), HTTP1_ONLY),
        idle("http2_max_field_size", HS, Exactly(1), HTTP1_ONLY),
        idle("http2_max_header_size", HS, Exactly(1), HTTP1_ONLY),
        idle("http2_max_requests", HS, Exactly(1), HTTP1_ONLY),
        idle("http2_pool_size", HS, Exactly(1), HTTP1_ONLY),
        idle("http2_push", HSL, Exactly(1), HTTP1_ONLY),
        idle("http2_push_preload", HSL, Flag, HTTP1_ONLY),
        idle("http2_recv_buffer_size", H, Exactly(1), HTTP1_ONLY),
        idle("http2_recv_timeout", HS, Exactly(1), HTTP1_ONLY),
        idle("http2_streams_index_size", HS, Exactly(1), HTTP1_ONLY),
        idle("http3", HS, Flag, HTTP1_ONLY),
        idle("http3_hq", HS, Flag, HTTP1_ONLY),
        idle("http3_max_concurrent_streams", HS, Exactly(1), HTTP1_ONLY),
        idle("http3_stream_buffer_size", HS, Exactly(1), HTTP1_ONLY),
        idle("keepalive_min_timeout", HSL, Exactly(1), KEEPALIVE),
        idle("load_module", M, Exactly(1), NO_MODULES),
        idle("lock_file", M, Exactly(1), OWN_SOCKETS),
        idle("map_hash_bucket_size", H, Exactly(1), TABLE_SIZES),
        idle("map_hash_max_size", H, Exactly(1), TABLE_SIZES),
        idle("mp4_buffer_size", HSL, Exactly(1), NO_MP4),
        idle("mp4_max_buffer_size", HSL, Exactly(1), NO_MP4),
        idle("mp4_start_key_frame", HSL, Flag, NO_MP4),
        idle("msie_refresh", HSL, Flag, OLD_BROWSERS),
        idle("multi_accept", E, Flag, EVENTS),
        idle("open_file_cache", HSL, Between(1, 2), NO_FILE_CACHE),
        idle("open_file_cache_errors", HSL, Flag, NO_FILE_CACHE),
        idle("open_file_cache_events", HSL, Flag, NO_FILE_CACHE),
        idle("open_file_cache_min_uses", HSL, Exactly(1), NO_FILE_CACHE),
        idle("open_file_cache_valid", HSL, Exactly(1), NO_FILE_CACHE),
        idle("output_buffers", HSL, Exactly(2), FILE_IO),
        idle("pcre_jit", M, Flag, REGEXES).unless("on"),
        idle("postpone_gzipping", HSL, Exactly(1), NO_COMPRESSION),
        idle("postpone_output", HSL, Exactly(1), FILE_IO),
        idle("proxy_cache", HSL, Exactly(1), NO_CACHE),
        idle("proxy_cache_background_update", HSL, Flag, NO_CACHE),
        idle("proxy_cache_bypass", HSL, AtLeast(1), NO_CACHE),
        idle("proxy_cache_convert_head", HSL, Flag, NO_CACHE),
        idle("proxy_cache_key", HSL, Exactly(1), NO_CACHE),
        idle("proxy_cache_lock", HSL, Flag, NO_CACHE),
        idle("proxy_cache_lock_age", HSL, Exactly(1), NO_CACHE),
        idle("proxy_cache_lock_timeout", HSL, Exactly(1), NO_CACHE),
        idle("proxy_cache_max_range_offset", HSL, Exactly(1), NO_CACHE),
        idle("proxy_cache_methods", HSL, AtLeast(1), NO_CACHE),
        idle("proxy_cache_min_uses", HSL, Exactly(1), NO_CACHE),
        idle("proxy_cache_path", H, AtLeast(2), NO_CACHE),
        idle("proxy_cache_revalidate", HSL, Flag, NO_CACHE),
        idle("proxy_cache_use_stale", HSL, AtLeast(1), NO_CACHE),
        idle("proxy_cache_valid", HSL, AtLeast(1), NO_CACHE),
        idle("proxy_headers_hash_bucket_size", HSL, Exactly(1), TABLE_SIZES),
        idle("proxy_headers_hash_max_size", HSL, Exactly(1), TABLE_SIZES),
        idle("proxy_max_temp_file_size", HSL, Exactly(1), NO_TEMP_FILES).unless("0"),
        idle("proxy_no_cache", HSL, AtLeast(1), NO_CACHE),
        idle("proxy_send_lowat", HSL, Exactly(1), SOCKET_BUFFERS),
        idle("proxy_socket_rcvbuf", HSL, Exactly(1), SOCKET_BUFFERS),
        idle("proxy_socket_sndbuf", HSL, Exactly(1), SOCKET_BUFFERS),
        idle("proxy_temp_file_write_size", HSL, Exactly(1), NO_TEMP_FILES),
        idle("proxy_temp_path", HSL, Between(1, 4), NO_TEMP_FILES),
        idle("quic_active_connection_id_limit", HS, Exactly(1), HTTP1_ONLY),
        idle("quic_bpf", M, Flag, HTTP1_ONLY),
        idle("quic_gso", HS, Flag, HTTP1_ONLY),
        idle("quic_host_key", HS, Exactly(1), HTTP1_ONLY),
        idle("quic_retry", HS, Flag, HTTP1_ONLY),
        idle("read_ahead", HSL, Exactly(1), FILE_IO),
        idle("referer_hash_bucket_size", S | L, Exactly(1), TABLE_SIZES),
        idle("referer_hash_max_size", S | L, Exactly(1), TABLE_SIZES),
        idle("request_pool_size", HS, Exactly(1), MEMORY),
        idle("rewrite_log", H | S | L | SI | LI, Flag, LOG_ONLY),
        idle("send_lowat", HSL, Exactly(1), FILE_IO),
        idle("sendfile", HSLI, Flag, FILE_IO),
        idle("sendfile_max_chunk", HSL, Exactly(1), FILE_IO),
        idle("server_names_hash_bucket_size", H, Exactly(1), TABLE_SIZES),
        idle("server_names_hash_max_size", H, Exactly(1), TABLE_SIZES),
        idle("ssi_ignore_recycled_buffers", HSL, Flag, MEMORY),
        idle("ssi_min_file_chunk", HSL, Exactly(1), FILE_IO),
        idle("ssl_early_data", HS, Flag, NO_EARLY_DATA),
        idle("ssl_object_cache_inheritable", M, Flag, READ_AGAIN),
        idle("tcp_nopush", HSL, Flag, FILE_IO),
        idle("thread_pool", M, Between(2, 3), EVENTS),
        idle("timer_resolution", M, Exactly(1), EVENTS),
        idle("types_hash_bucket_size", HSL, Exactly(1), TABLE_SIZES),
        idle("types_hash_max_size", HSL, Exactly(1), TABLE_SIZES),
        idle("uninitialized_variable_warn", H | S | L | SI | LI, Flag, LOG_ONLY),
        idle("userid_domain", HSL, Exactly(1), NO_USERID),
        idle("userid_expires", HSL, Exactly(1), NO_USERID),
        idle("userid_flags", HSL, Between(1, 3), NO_USERID),
        idle("userid_mark", HSL, Exactly(1), NO_USERID),
        idle("userid_name", HSL, Exactly(1), NO_USERID),
        idle("userid_p3p", HSL, Exactly(1), NO_USERID),
        idle("userid_path", HSL, Exactly(1), NO_USERID),
        idle("userid_service", HSL, Exactly(1), NO_USERID),
        idle("variables_hash_bucket_size", H, Exactly(1), TABLE_SIZES),
        idle("variables_hash_max_size", H, Exactly(1), TABLE_SIZES),
        idle("worker_aio_requests", E, Exactly(1), EVENTS),
        idle("worker_cpu_affinity", M, AtLeast(1), SCHEDULER),
        idle("worker_priority", M, Exactly(1), SCHEDULER).unless("0"),
        idle("worker_rlimit_core", M, Exactly(1), DEBUGGING),
    ]
}
