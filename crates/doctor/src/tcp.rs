//! Connections to each address.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crate::facts::{Attempt, TcpFacts, ms};
use crate::report::{Finding, Verdict};
use crate::settings::Settings;
use crate::wire::Timed;

/// An address that can be connected to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reached {
    pub(crate) address: SocketAddr,
    /// How long it took: about a round trip.
    pub(crate) took: Duration,
}

/// Connects to all addresses at once; gives those that can be connected to, in their order.
pub(crate) fn examine(
    addresses: &[IpAddr],
    port: u16,
    settings: &Settings,
) -> (Vec<Finding>, TcpFacts, Vec<Reached>) {
    let timeout = settings.timeout;
    let attempts: Vec<_> = thread::scope(|scope| {
        let connect = |&ip: &IpAddr| {
            let address = SocketAddr::new(ip, port);
            scope.spawn(move || {
                let begun = Instant::now();
                let done = Timed::connect(address, timeout).map(drop);
                (address, begun.elapsed(), done)
            })
        };
        let threads: Vec<_> = addresses.iter().map(connect).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let good = attempts.iter().filter(|(_, _, done)| done.is_ok());
    let reached: Vec<_> = good.map(|&(address, took, _)| Reached { address, took }).collect();
    let mut findings = Vec::new();
    for (address, took, done) in &attempts {
        match done {
            Err(error) => findings.extend(failed(*address, error, !reached.is_empty())),
            Ok(()) if *took > settings.slow => findings.push(Finding::warning(
                "tcp_slow",
                format!("connecting to {address} took {:.1} s", took.as_secs_f64()),
                "check the network on the path; the first packet of a connection may have been \
                 lost",
            )),
            Ok(()) => {}
        }
    }
    let attempt = |(address, took, done): (SocketAddr, Duration, io::Result<()>)| Attempt {
        address,
        ms: ms(took),
        error: done.err().map(|error| words(&error)),
    };
    let facts = TcpFacts { attempts: attempts.into_iter().map(attempt).collect() };
    (findings, facts, reached)
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timed out".into(),
        ErrorKind::ConnectionRefused => "connection refused".into(),
        _ => error.to_string(),
    }
}

/// What is wrong with an address; one of several that fails is no reason to give up.
fn failed(address: SocketAddr, error: &io::Error, others_work: bool) -> Option<Finding> {
    let port = address.port();
    let mut finding = match error.kind() {
        ErrorKind::ConnectionRefused => Finding::fault(
            "connection_refused",
            format!("{address} refuses connections: nothing listens on port {port} there"),
            format!(
                "start the server, or check the port of the URL, and that the server listens on \
                 this address, not only on 127.0.0.1 (`ss -ltn 'sport = :{port}'`)"
            ),
        ),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Finding::fault(
            "connect_timeout",
            format!("{address} does not respond"),
            format!(
                "open port {port} in the firewall or security group of the host; if it is open, \
                 check that the DNS record points to the host"
            ),
        ),
        // It says more of the machine that asks.
        ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable if others_work => return None,
        _ => Finding::fault(
            "unreachable",
            format!("{address} cannot be reached: {error}"),
            "check the network of this machine and the DNS record",
        ),
    };
    if others_work {
        finding.verdict = Verdict::Warning;
        finding.what += "; clients that try this address first wait or fail";
    }
    Some(finding)
}
