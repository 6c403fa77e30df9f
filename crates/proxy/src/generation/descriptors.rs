//! Whether there are as many descriptors as `worker_connections` promises.
//!
//! nginx asks that of each worker process; here all workers are one process with one limit. An
//! operator must hear of it before the night when the last of them is in use.

use wssgate_config::model::Core;
use wssgate_syntax::{Diagnostic, Report};
use wssgate_sys::process;

use crate::resolve::MAX_SOCKETS;

/// The sockets of a tunnel, to the client and to the upstream server.
const PER_TUNNEL: u64 = 2;

/// What advice leaves for listeners, logs and the like.
const OTHERS: u64 = 64;

/// Warns when so many workers may have more connections than this process may have descriptors, beside
/// those for names that are looked up if `resolves`.
pub(super) fn check(core: &Core, workers: usize, resolves: bool, report: &mut Report) {
    // Without an answer there is nothing to compare with.
    if let Ok((limit, _)) = process::descriptor_limit()
        && let Some(warning) = shortage(core, workers, resolves, limit)
    {
        report.push(warning);
    }
}

/// How many `worker_connections` so many descriptors are enough for.
pub(super) fn fitting(limit: u64, workers: u64) -> u64 {
    (limit.saturating_sub(OTHERS) / PER_TUNNEL / workers.max(1)).max(1)
}

fn shortage(core: &Core, workers: usize, resolves: bool, limit: u64) -> Option<Diagnostic> {
    let connections = core.worker_connections;
    let workers = u64::try_from(workers).unwrap_or(u64::MAX);
    let all = workers.saturating_mul(u64::try_from(connections).unwrap_or(u64::MAX));
    let lookups = if resolves { MAX_SOCKETS as u64 } else { 0 };
    let needed = all.saturating_mul(PER_TUNNEL).saturating_add(lookups);
    if needed <= limit {
        return None;
    }
    let workers_need = match workers {
        1 => "one worker needs".to_owned(),
        _ => format!("{workers} workers need"),
    };
    let names = if resolves { format!(" and {lookups} to resolve names") } else { String::new() };
    let text = format!(
        "{connections} worker_connections exceed open file resource limit: {limit}, as \
         {workers_need} up to {needed}, two for each tunnel{names}"
    );
    let fits = fitting(limit.saturating_sub(lookups), workers);
    let needed = needed.saturating_add(OTHERS);
    let raise = match core.worker_rlimit_nofile {
        Some(set) if set <= limit => format!("`worker_rlimit_nofile {needed}`"),
        _ => format!("`LimitNOFILE={needed}` in the systemd unit, or `ulimit -n {needed}`"),
    };
    let help = format!("raise the limit ({raise}), or set `worker_connections {fits}`");
    let warning = Diagnostic::warning(text).help(help);
    Some(match core.worker_connections_at {
        Some(span) => warning.at(span, ""),
        None => warning,
    })
}

#[cfg(test)]
mod tests {
    use wssgate_config::model::EventMethod;

    use super::*;

    fn core(worker_connections: usize, worker_rlimit_nofile: Option<u64>) -> Core {
        Core {
            admin: None,
            daemon: false,
            worker_processes: None,
            user: None,
            pid: None,
            error_logs: Vec::new(),
            worker_rlimit_nofile,
            event_method: EventMethod::Best,
            worker_connections,
            worker_connections_at: None,
            worker_shutdown_timeout: None,
            working_directory: None,
        }
    }

    #[test]
    fn two_descriptors_for_each_connection_of_each_worker_must_fit() {
        for (connections, workers, limit, fits) in
            [(512, 1, 1024, true), (512, 2, 1024, false), (513, 1, 1024, false), (1, 1, 0, false)]
        {
            let shortage = shortage(&core(connections, None), workers, false, limit);
            assert_eq!(shortage.is_none(), fits, "{workers} × {connections} within {limit}");
        }
        assert!(shortage(&core(usize::MAX, None), usize::MAX, true, 1024).is_some());
    }

    #[test]
    fn what_fits_is_no_shortage() {
        for (limit, workers, fits) in
            [(1024, 1, 480), (1024, 4, 120), (20_000, 2, 4984), (10, 8, 1)]
        {
            assert_eq!(fitting(limit, workers), fits, "{limit} for {workers}");
            let connections = usize::try_from(fits).expect("a small number");
            let workers = usize::try_from(workers).expect("a small number");
            let short = shortage(&core(connections, None), workers, false, limit).is_some();
            assert_eq!(short, limit < 1024, "{limit} for {workers}");
        }
    }

    #[test]
    fn the_warning_says_which_limit_to_raise_to_what() {
        let text = |core, resolves| {
            let warning = shortage(&core, 4, resolves, 65_536).expect("it is too much");
            warning.render(&wssgate_syntax::SourceMap::default(), false)
        };
        let told = text(core(16_384, None), false);
        for part in [
            "16384 worker_connections exceed open file resource limit: 65536, as 4 workers need up \
             to 131072, two for each tunnel",
            "`LimitNOFILE=131136`",
            "`worker_connections 8184`",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
        let told = text(core(16_384, Some(65_536)), false);
        assert!(told.contains("`worker_rlimit_nofile 131136`"), "{told}");
        let told = text(core(8192, None), true);
        for part in ["and 512 to resolve names", "up to 66048", "`worker_connections 8120`"] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
}
