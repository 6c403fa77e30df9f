//! The command line of the comparison.

use std::path::PathBuf;

use crate::peers::Peer;

/// What may be said.
pub(crate) const HELP: &str = "\
cargo bench --bench peers -- [OPTION]...
  --quick             little work and one run: shows that everything works, measures nothing
  --only ROW[,ROW]    only rows whose name contains one of these words
  --runs N            interleaved runs of each row (5)
  --peers A[,B]       of wssgate, nginx, haproxy
  --wssgate PATH      another wssgate than the one just built
  --before PATH       an earlier wssgate, as one more peer
  --directives TEXT   what else stands in the http block of wssgate
  --before-directives TEXT  and of the earlier one
  --out DIR           write peers.md and peers.svg here, even after a partial run
  --draw PEERS.MD     draw peers.svg anew from a report that is there, and measure nothing
  --list              names of the rows";

/// What was said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) list: bool,
    /// Words of row names; none means all rows.
    pub(crate) only: Vec<String>,
    pub(crate) runs: Option<usize>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) wssgate: Option<PathBuf>,
    /// An earlier build that takes its turns too.
    pub(crate) before: Option<PathBuf>,
    /// What else stands in the configuration of wssgate, and of the earlier build.
    pub(crate) directives: String,
    pub(crate) before_directives: String,
    pub(crate) out: Option<PathBuf>,
    /// A report whose picture is wanted, and no measurement.
    pub(crate) draw: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            quick: false,
            list: false,
            only: Vec::new(),
            runs: None,
            peers: Peer::PROXIES.to_vec(),
            wssgate: None,
            before: None,
            directives: String::new(),
            before_directives: String::new(),
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
                "--quick" => options.quick = true,
                "--list" => options.list = true,
                "--only" => options.only = value()?.split(',').map(str::to_string).collect(),
                "--runs" => options.runs = Some(positive(&value()?)?),
                "--peers" => {
                    let peer = |name| Peer::named(name, &Peer::PROXIES);
                    options.peers = value()?.split(',').map(peer).collect::<Result<_, _>>()?;
                }
                "--wssgate" => options.wssgate = Some(value()?.into()),
                "--before" => options.before = Some(value()?.into()),
                "--directives" => options.directives = value()?,
                "--before-directives" => options.before_directives = value()?,
                "--draw" => options.draw = Some(value()?.into()),
                "--out" => options.out = Some(value()?.into()),
                _ => return Err(format!("unknown option {arg}")),
            }
        }
        Ok(options)
    }

    /// Whether the figures are worth keeping: everything was measured, at full size. An earlier build
    /// is for those who change something, not for readers of the report.
    pub(crate) fn is_full(&self) -> bool {
        let whole = self.only.is_empty() && self.peers == Peer::PROXIES;
        !self.quick && whole && self.before.is_none() && self.directives.is_empty()
    }

    /// Whether a row of this name is wanted.
    pub(crate) fn wants(&self, row: &str) -> bool {
        is_wanted(row, &self.only)
    }
}

/// Whether a name contains one of the words that were said, if any were.
pub(crate) fn is_wanted(name: &str, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|word| name.contains(word.as_str()))
}

pub(crate) fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or(format!("{text} is no positive number"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_string))
    }

    #[test]
    fn nothing_said_is_a_full_run() {
        let options = parse("--bench").unwrap();
        assert_eq!(options, Options::default());
        assert!(options.is_full() && options.wants("echo"));
    }

    #[test]
    fn a_part_is_no_full_run() {
        let options = parse("--only idle,echo-16k --peers nginx,haproxy --runs 3").unwrap();
        assert_eq!(options.peers, [Peer::Nginx, Peer::Haproxy]);
        assert_eq!(options.runs, Some(3));
        assert!(options.wants("echo-16k-tls") && !options.wants("echo-1m-tls"));
        assert!(!options.is_full() && !parse("--quick").unwrap().is_full());
        assert!(!parse("--before old/wssgate").unwrap().is_full());
    }

    #[test]
    fn mistakes_are_named() {
        for (line, word) in [
            ("--run 3", "--run"),
            ("--runs 0", "0"),
            ("--runs", "--runs"),
            ("--peers nginx,varnish", "varnish"),
        ] {
            assert!(parse(line).unwrap_err().contains(word), "{line}");
        }
    }
}
