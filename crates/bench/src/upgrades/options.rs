//! The command line of the upgrades.

use std::path::PathBuf;

use crate::options::positive;
use crate::peers::Peer;

/// What may be said.
pub(crate) const HELP: &str = "\
cargo bench --bench upgrades -- [OPTION]...
  --peers A[,B]       of wssgate, nginx
  --clients N         how many clients hold a WebSocket (9000)
  --per-second N      messages that they send together (2000)
  --runs N            interleaved runs (3)
  --wssgate PATH      another wssgate than the one just built
  --out DIR           write upgrades.md and upgrades.svg here, even after a partial run
  --draw UPGRADES.MD  draw upgrades.svg anew from a report that is there, and measure nothing";

/// What was said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) peers: Vec<Peer>,
    pub(crate) clients: usize,
    pub(crate) per_second: u32,
    pub(crate) runs: usize,
    pub(crate) wssgate: Option<PathBuf>,
    pub(crate) out: Option<PathBuf>,
    /// A report whose picture is wanted, and no measurement.
    pub(crate) draw: Option<PathBuf>,
}

/// Those that can be upgraded in place.
const PEERS: [Peer; 2] = [Peer::Wssgate, Peer::Nginx];
const CLIENTS: usize = 9000;
const PER_SECOND: u32 = 2000;
const RUNS: usize = 3;

impl Default for Options {
    fn default() -> Self {
        Self {
            peers: PEERS.to_vec(),
            clients: CLIENTS,
            per_second: PER_SECOND,
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
                    let peer = |name| Peer::named(name, &PEERS);
                    options.peers = value()?.split(',').map(peer).collect::<Result<_, _>>()?;
                }
                "--clients" => options.clients = positive(&value()?)?,
                "--per-second" => {
                    let text = value()?;
                    let number = u32::try_from(positive(&text)?);
                    options.per_second = number.map_err(|_| format!("{text} is too much"))?;
                }
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
        let whole = self.peers == PEERS && self.per_second == PER_SECOND;
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
        let options = parse("--clients 200 --per-second 100 --runs 1 --peers nginx").unwrap();
        assert_eq!((options.clients, options.per_second, options.runs), (200, 100, 1));
        assert!(!options.is_full() && !parse("--runs 1").unwrap().is_full());
    }

    #[test]
    fn mistakes_are_named() {
        for (line, word) in
            [("--client 3", "--client"), ("--runs 0", "0"), ("--peers haproxy", "haproxy")]
        {
            assert!(parse(line).unwrap_err().contains(word), "{line}");
        }
    }
}
