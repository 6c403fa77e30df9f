//! The command line of the restarts.

use std::path::PathBuf;

use super::PEERS;
use crate::options::{is_wanted, positive};
use crate::peers::Peer;

/// What may be said.
pub(crate) const HELP: &str = "\
cargo bench --bench restarts -- [OPTION]...
  --only NAME[,NAME]  of full, rolling
  --peers A[,B]       of wssgate, nginx, haproxy, caddy, direct
  --clients N         how many clients reconnect (1000)
  --runs N            interleaved runs (3)
  --wssgate PATH      another wssgate than the one just built
  --out DIR           write restarts.md and restarts.json here, even after a partial run";

/// What was said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Words of scenarios; none means all.
    pub(crate) only: Vec<String>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) clients: usize,
    pub(crate) runs: usize,
    pub(crate) wssgate: Option<PathBuf>,
    pub(crate) out: Option<PathBuf>,
}

const CLIENTS: usize = 1000;
const RUNS: usize = 3;

impl Default for Options {
    fn default() -> Self {
        Self {
            only: Vec::new(),
            peers: PEERS.to_vec(),
            clients: CLIENTS,
            runs: RUNS,
            wssgate: None,
            out: None,
        }
    }
}

impl Options {
    pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                // Said by cargo to every benchmark.
                "--bench" => {}
                "--only" => options.only = value()?.split(',').map(str::to_string).collect(),
                "--peers" => {
                    options.peers = value()?.split(',').map(peer).collect::<Result<_, _>>()?;
                }
                "--clients" => options.clients = positive(&value()?)?,
                "--runs" => options.runs = positive(&value()?)?,
                "--wssgate" => options.wssgate = Some(value()?.into()),
                "--out" => options.out = Some(value()?.into()),
                _ => return Err(format!("unknown option {arg}")),
            }
        }
        Ok(options)
    }

    /// Whether the figures are worth keeping: everything was measured, at full size.
    pub(crate) fn is_full(&self) -> bool {
        let whole = self.only.is_empty() && self.peers == PEERS;
        whole && self.clients >= CLIENTS && self.runs >= RUNS
    }

    /// Whether a scenario of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        is_wanted(name, &self.only)
    }
}

fn peer(name: &str) -> Result<Peer, String> {
    match name {
        "direct" => Ok(Peer::Direct),
        _ => Peer::named(name, &PEERS),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_string))
    }

    #[test]
    fn a_part_is_no_full_run() {
        assert!(parse("--bench").unwrap().is_full());
        let options = parse("--only full --peers caddy,direct --clients 100 --runs 1").unwrap();
        assert_eq!(options.peers, [Peer::Caddy, Peer::Direct]);
        assert!(options.wants("full") && !options.wants("rolling") && !options.is_full());
        assert!(!parse("--clients 100").unwrap().is_full());
    }

    #[test]
    fn mistakes_are_named() {
        for (line, word) in [("--client 3", "--client"), ("--runs 0", "0"), ("--peers x", "x")] {
            assert!(parse(line).unwrap_err().contains(word), "{line}");
        }
    }
}
