//! The command line of the drains.

use std::path::PathBuf;
use std::time::Duration;

use crate::options::positive;
use crate::peers::Peer;

/// What may be said.
pub(crate) const HELP: &str = "\
cargo bench --bench drains -- [OPTION]...
  --peers A[,B]    of wssgate, nginx, haproxy
  --clients N      how many clients hold a WebSocket (5000)
  --over N         seconds over which they are closed, or after which they are cut (20)
  --runs N         interleaved runs (2)
  --wssgate PATH   another wssgate than the one just built
  --out DIR        write drains.md and drains.svg here, even after a partial run
  --draw DRAINS.MD draw drains.svg anew from a report that is there, and measure nothing";

/// What was said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) peers: Vec<Peer>,
    pub(crate) clients: usize,
    pub(crate) over: Duration,
    pub(crate) runs: usize,
    pub(crate) wssgate: Option<PathBuf>,
    pub(crate) out: Option<PathBuf>,
    /// A report whose picture is wanted, and no measurement.
    pub(crate) draw: Option<PathBuf>,
}

const CLIENTS: usize = 5000;
const OVER: Duration = Duration::from_secs(20);
const RUNS: usize = 2;

impl Default for Options {
    fn default() -> Self {
        Self {
            peers: Peer::PROXIES.to_vec(),
            clients: CLIENTS,
            over: OVER,
            runs: RUNS,
            wssgate: None,
            out: None,
            draw: None,
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
                "--peers" => {
                    let peer = |name| Peer::named(name, &Peer::PROXIES);
                    options.peers = value()?.split(',').map(peer).collect::<Result<_, _>>()?;
                }
                "--clients" => options.clients = positive(&value()?)?,
                "--over" => options.over = Duration::from_secs(positive(&value()?)? as u64),
                "--runs" => options.runs = positive(&value()?)?,
                "--wssgate" => options.wssgate = Some(value()?.into()),
                "--out" => options.out = Some(value()?.into()),
                "--draw" => options.draw = Some(value()?.into()),
                _ => return Err(format!("unknown option {arg}")),
            }
        }
        Ok(options)
    }

    /// Whether the figures are worth keeping: everything was measured, at full size.
    pub(crate) fn is_full(&self) -> bool {
        let whole = self.peers == Peer::PROXIES && self.over == OVER;
        whole && self.clients >= CLIENTS && self.runs >= RUNS
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
        let options = parse("--clients 200 --over 3 --runs 1 --peers nginx").unwrap();
        assert_eq!((options.clients, options.over), (200, Duration::from_secs(3)));
        assert!(!options.is_full() && !parse("--over 3").unwrap().is_full());
    }

    #[test]
    fn mistakes_are_named() {
        for (line, word) in [("--client 3", "--client"), ("--over 0", "0"), ("--peers x", "x")] {
            assert!(parse(line).unwrap_err().contains(word), "{line}");
        }
    }
}
