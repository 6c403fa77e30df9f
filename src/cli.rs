//! The command line: nginx's options, exactly, and our commands.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand, value_parser};
use clap_complete::Shell;
use thiserror::Error;
use wssgate_syntax::closest;

use crate::Failed;
use crate::acme_command::AcmeArgs;
use crate::console;
use crate::ctl_command::CtlArgs;
use crate::demo::DemoArgs;
use crate::doctor_command::{self, DoctorArgs};
use crate::format::Fmt;
use crate::health::HealthArgs;
use crate::options::{Action, Options};
use crate::proxy_command::ProxyArgs;
use crate::signal::Signal;
use crate::upgrade_command::UpgradeArgs;
use crate::version::Detail;

/// What the program is called for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// What nginx would be.
    Nginx(Options),
    /// One of our commands.
    Own(Command),
}

/// A WebSocket reverse proxy configured in nginx's language
#[derive(Parser, Debug)]
#[command(name = "wssgate", version, disable_help_flag = true, disable_version_flag = true)]
#[command(override_usage = USAGE, after_help = AFTER_HELP)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

const USAGE: &str = "wssgate [-tTqvV] [-c FILE] [-p PREFIX] [-e FILE] [-g DIRECTIVES] [-s SIGNAL]
       wssgate COMMAND [OPTIONS]";

const AFTER_HELP: &str =
    "Without a command, wssgate starts like nginx, with the same options, signals and exit codes.
The documentation is in docs/ or, if installed, in /usr/share/doc/wssgate/.";

/// Our commands.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Terminate TLS for a name and proxy to an app server, without a configuration file
    Proxy(ProxyArgs),
    /// Run an app server behind two proxy hops on this machine, with a page to try it
    Demo(DemoArgs),
    /// Format configuration files
    Fmt(Fmt),
    /// Show and import certificates obtained by ACME
    Acme(AcmeArgs),
    /// Inspect and control a running server: live WebSockets, upstreams, reload
    Ctl(Box<CtlArgs>),
    /// Replace a running server's program by a new version, without refusing anybody
    ///
    /// The new program first tests the configuration, then it is started with the listening sockets of the old process.
    /// The exit code is 0 if it serves in the old one's place, and 1 if nothing was upgraded.
    Upgrade(UpgradeArgs),
    /// Examine a WebSocket from the client's side: DNS, TCP, TLS, the handshake, pings
    Doctor(DoctorArgs),
    /// Ask a server once whether it answers, for health checks; the exit code is 0 if it does
    Health(HealthArgs),
    /// Print a shell completion script
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page
    #[command(hide = true)]
    Man,
}

/// nginx's options as help, completions and the manual page tell of them. [`parse_nginx`] reads them.
const NGINX_OPTIONS: [(&str, Option<&str>, &str); 10] = [
    ("t", None, "Test the configuration and exit"),
    ("T", None, "Test the configuration, dump it and exit"),
    ("q", None, "Suppress non-error messages during a test"),
    ("s", Some("SIGNAL"), "Send a signal to the running server: stop, quit, reopen, reload"),
    (
        "c",
        Some("FILE"),
        "Configuration file [default: /etc/nginx/nginx.conf, or /etc/wssgate/wssgate.conf if there is none]",
    ),
    (
        "p",
        Some("PREFIX"),
        "Directory that relative paths are resolved against [default: /usr/share/nginx]",
    ),
    ("e", Some("FILE"), "Error log until the configuration is read; stderr for standard error"),
    ("g", Some("DIRECTIVES"), "Directives to read before the configuration file"),
    ("v", None, "Print the version as nginx does"),
    ("V", None, "Print the version and build options as nginx does"),
];

/// The whole command line, for help and what is made from it.
fn program() -> clap::Command {
    let flag = |name: &'static str, help| Arg::new(name).action(ArgAction::SetTrue).help(help);
    let option = |&(name, value, help): &(&'static str, Option<&'static str>, &'static str)| {
        let arg = Arg::new(name).short(name.chars().next()).help(help);
        match value {
            None => arg.action(ArgAction::SetTrue),
            // The help text names them already.
            Some("SIGNAL") => {
                arg.value_name("SIGNAL").value_parser(Signal::NAMES).hide_possible_values(true)
            }
            Some(value) => arg.value_name(value).value_parser(value_parser!(OsString)),
        }
    };
    let verbose = "With -t: list every setting without effect, where it is and why";
    Program::command()
        .args(NGINX_OPTIONS.iter().map(option))
        .arg(flag("verbose", verbose).long("verbose"))
        // Of the whole program `-h` is nginx's.
        .arg(flag("h", "Print help as nginx does").short('h'))
        .arg(flag("help", "Print help").long("help").action(ArgAction::HelpShort))
        .arg(flag("version", "Print version").long("version").action(ArgAction::Version))
        .mut_subcommands(with_help)
}

/// Of our commands both options print the same.
fn with_help(command: clap::Command) -> clap::Command {
    let help = Arg::new("help").long("help").short('h').action(ArgAction::HelpShort);
    command.arg(help.help("Print help")).mut_subcommands(with_help)
}

/// Arguments that make no sense.
#[derive(Debug, Error)]
pub(crate) enum UsageError {
    /// No such option, in nginx's words.
    #[error("invalid option: \"{0}\"")]
    Invalid(String),
    /// A word where nothing but options is expected, in nginx's words.
    #[error("invalid option: \"{word}\"")]
    Stray {
        /// What was written.
        word: String,
        /// Whether a test was asked for before it.
        tests: bool,
    },
    /// The option needs an argument, in nginx's words.
    #[error("option \"-{0}\" requires {1}")]
    Requires(char, &'static str),
    /// Something that only a test has.
    #[error("option \"--verbose\" requires \"-t\"")]
    VerboseAlone,
    /// Of one of our commands, and the exit code for it; or help was asked for, which clap counts among them.
    #[error("{0}")]
    Own(clap::Error, u8),
}

impl UsageError {
    /// Tells the person, and what the program then ends with.
    pub(crate) fn tell(&self) -> ExitCode {
        let Self::Own(error, misused) = self else {
            match self {
                // No option of nginx.
                Self::VerboseAlone => eprintln!("wssgate: {self}"),
                _ => console::say(self),
            }
            eprintln!("{}", self.advice());
            return ExitCode::FAILURE;
        };
        // Everything that is asked for goes to standard output, as does what names itself.
        if !error.use_stderr()
            || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        {
            let printed = error.print();
            let code = if error.use_stderr() { *misused } else { 0 };
            return ExitCode::from(if printed.is_ok() { code } else { 1 });
        }
        let text = error.render().to_string();
        console::say(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
        ExitCode::from(*misused)
    }

    /// How to go on.
    fn advice(&self) -> String {
        let meant = match self {
            Self::Invalid(word) => meant(word),
            Self::Stray { word, tests } => meant(word).or_else(|| meant_file(word, *tests)),
            _ => None,
        };
        match meant {
            Some(line) => {
                format!("Did you mean \"wssgate {line}\"? \"wssgate --help\" lists all commands.")
            }
            None => "See \"wssgate --help\".".to_owned(),
        }
    }
}

/// What other programs call what nginx has options for.
const KNOWN_ELSEWHERE: [(&str, &str); 8] = [
    ("check", "-t"),
    ("configtest", "-t"),
    ("quit", "-s quit"),
    ("reload", "-s reload"),
    ("reopen", "-s reopen"),
    ("stop", "-s stop"),
    ("test", "-t"),
    ("version", "--version"),
];

/// The command line that was probably meant by a word that is none of our commands, or by an unknown signal.
fn meant(word: &str) -> Option<String> {
    if let Some(signal) = word.strip_prefix("-s ") {
        let signal = signal.to_ascii_lowercase();
        return closest(&signal, Signal::NAMES).map(|signal| format!("-s {signal}"));
    }
    if let Some((_, line)) = KNOWN_ELSEWHERE.iter().find(|(known, _)| *known == word) {
        return Some((*line).to_owned());
    }
    let program = program();
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
    let found = closest(word, commands.map(clap::Command::get_name));
    found.map(str::to_owned)
}

/// The command line that was probably meant by a word that looks like a configuration file.
fn meant_file(word: &str, tests: bool) -> Option<String> {
    let path = Path::new(word);
    let (is_there, is_conf) = (path.is_file(), word.ends_with(".conf"));
    // Of `-c` a relative path begins at the prefix, and not where the command was typed.
    let path = std::path::absolute(path).ok().filter(|_| is_there);
    let path = path.map_or_else(|| word.to_owned(), |path| path.display().to_string());
    let test = if tests { "-t " } else { "" };
    (is_there || is_conf).then(|| format!("{test}-c {path}"))
}

/// Reads the arguments, without the program's name.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Invocation, UsageError> {
    let mut arguments = arguments.into_iter().peekable();
    let first = arguments.peek().and_then(|first| first.to_str()).unwrap_or_default();
    let is_own = |command: &clap::Command| command.get_name() == first || first == "help";
    if !program().get_subcommands().any(is_own) {
        return parse_nginx(arguments).map(Invocation::Nginx);
    }
    console::speak_as(first);
    // The verdicts of this one are codes as well.
    let misused = if first == "doctor" { doctor_command::MISUSED } else { 2 };
    let own = parse_own(arguments).map(Invocation::Own);
    own.map_err(|error| UsageError::Own(error, misused))
}

fn parse_own(arguments: impl Iterator<Item = OsString>) -> Result<Command, clap::Error> {
    let name = OsString::from("wssgate");
    let matches = program().try_get_matches_from(std::iter::once(name).chain(arguments))?;
    Ok(Program::from_arg_matches(&matches)?.command)
}

/// Prints the completion script of a shell.
pub(crate) fn print_completions(shell: Shell) -> Result<(), Failed> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut completed(), "wssgate", &mut script);
    print(&script)
}

/// What is completed: all but hidden commands, which the generators would show.
fn completed() -> clap::Command {
    let program = program();
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
    clap::Command::new("wssgate")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(program.get_arguments().cloned())
        .subcommands(commands.cloned())
}

/// Prints the manual page.
pub(crate) fn print_man_page() -> Result<(), Failed> {
    print(man_page().map_err(console::fail)?.as_bytes())
}

fn man_page() -> io::Result<String> {
    let (man, mut page) = (clap_mangen::Man::new(program()), Vec::new());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    page.extend_from_slice(b".SH COMMANDS\n");
    for command in program().get_subcommands().filter(|command| !command.is_hide_set()) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        page.extend_from_slice(format!(".TP\n{}\n{about}\n", command.get_name()).as_bytes());
    }
    page.extend_from_slice(MORE_MAN.as_bytes());
    man.render_version_section(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// Sections of the manual page that no option tells of.
const MORE_MAN: &str = r#".TP
help
Print the help of a command
.SH SIGNALS
.TP
HUP
Read the configuration again (\-s reload)
.TP
USR1
Open the log files again (\-s reopen)
.TP
QUIT
End when all connections have (\-s quit)
.TP
USR2
Start the program file anew and leave accepting to it (wssgate upgrade)
.TP
WINCH
After USR2, in the background: accept no more, and wait for HUP or QUIT
.TP
TERM, INT
End now (\-s stop)
.SH EXIT STATUS
0 if what was asked for was done, and 1 if not, as of nginx. The commands also give 2 if their arguments make no sense.
Of "wssgate doctor", 1 is a warning, 2 a fault and 3 arguments that make no sense.
.SH FILES
.TP
/etc/nginx/nginx.conf
The configuration
.TP
/etc/wssgate/wssgate.conf
The configuration if the former does not exist
.TP
/run/nginx.pid
The number of the running server, unless the configuration names another file
.SH NOTES
Without a command, wssgate starts like nginx, with the same options, signals and exit codes.
The documentation is in docs/ or, if installed, in /usr/share/doc/wssgate/.
"#;

fn print(text: &[u8]) -> Result<(), Failed> {
    io::Write::write_all(&mut io::stdout(), text).map_err(console::fail)
}

/// nginx reads letters one after the other; one with a value takes the rest of its word, or the
/// next word. Whole words are ours: nginx has none.
fn parse_nginx(mut arguments: impl Iterator<Item = OsString>) -> Result<Options, UsageError> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--verbose") => {
                options.verbose = true;
                continue;
            }
            Some("--help" | "--version") => {
                let asked = parse_own(std::iter::once(argument.clone()));
                return Err(asked.map_or_else(
                    |help| UsageError::Own(help, 2),
                    |_| UsageError::Invalid(argument.to_string_lossy().into_owned()),
                ));
            }
            _ => {}
        }
        let Some(mut letters) = argument.as_bytes().strip_prefix(b"-") else {
            let word = argument.to_string_lossy().into_owned();
            return Err(UsageError::Stray { word, tests: options.tests() });
        };
        while let Some((&letter, rest)) = letters.split_first() {
            letters = rest;
            let mut value = |what| {
                if rest.is_empty() {
                    arguments.next().ok_or(UsageError::Requires(char::from(letter), what))
                } else {
                    Ok(OsStr::from_bytes(rest).to_owned())
                }
            };
            match letter {
                b'?' | b'h' => options.version = options.version.max(Some(Detail::Help)),
                b'v' => options.version = options.version.max(Some(Detail::Version)),
                b'V' => options.version = options.version.max(Some(Detail::Configure)),
                b't' => options.test(false),
                b'T' => options.test(true),
                b'q' => options.quiet = true,
                b'p' => options.prefix = Some(value("directory name")?.into()),
                b'c' => options.conf = Some(value("file name")?.into()),
                b'g' => options.globals = Some(value("parameter")?.into_vec()),
                b'e' => options.error_log = Some(error_log(value("file name")?)),
                b's' => options.signal(&value("parameter")?)?,
                _ => return Err(UsageError::Invalid(char::from(letter).to_string())),
            }
            if b"pcges".contains(&letter) {
                break;
            }
        }
    }
    if options.verbose && !options.tests() {
        return Err(UsageError::VerboseAlone);
    }
    options.find_places();
    Ok(options)
}

impl Options {
    fn test(&mut self, dump: bool) {
        let dumps = self.action == Action::Test { dump: true };
        self.action = Action::Test { dump: dump || dumps };
    }

    fn signal(&mut self, name: &OsStr) -> Result<(), UsageError> {
        let signal = name.to_str().and_then(Signal::named);
        let signal =
            signal.ok_or_else(|| UsageError::Invalid(format!("-s {}", name.to_string_lossy())))?;
        // A test comes before a signal, whatever their order.
        if !self.tests() {
            self.action = Action::Signal(signal);
        }
        Ok(())
    }
}

fn error_log(value: OsString) -> PathBuf {
    if value == "stderr" { PathBuf::new() } else { value.into() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::error::ErrorKind;
    use wssgate_testkit::documents::{self, Document};

    use super::*;
    use crate::version;

    fn nginx(arguments: &[&str]) -> Result<Options, String> {
        match parse(arguments.iter().map(OsString::from)) {
            Ok(Invocation::Nginx(options)) => Ok(options),
            Ok(other) => panic!("not nginx's options: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn letters_may_stand_together_and_values_may_touch_them() {
        let options = nginx(&["-tq", "-c", "a.conf", "-p/srv/", "-g", "daemon off;"]).unwrap();
        assert_eq!(options.action, Action::Test { dump: false });
        assert!(options.quiet);
        assert_eq!(options.conf_path(), Path::new("/srv/a.conf"));
        assert_eq!(options.globals.unwrap(), b"daemon off;");
        let options = nginx(&["-Tt", "-e", "stderr"]).unwrap();
        assert_eq!(options.action, Action::Test { dump: true });
        assert_eq!(options.error_log.unwrap(), Path::new(""));
    }

    #[test]
    fn errors_have_nginx_words() {
        let cases: &[(&[&str], &str)] = &[
            (&["foo"], "invalid option: \"foo\""),
            (&["-x"], "invalid option: \"x\""),
            (&["-tx"], "invalid option: \"x\""),
            (&["-s", "foo"], "invalid option: \"-s foo\""),
            (&["-s"], "option \"-s\" requires parameter"),
            (&["-p"], "option \"-p\" requires directory name"),
            (&["-c"], "option \"-c\" requires file name"),
            (&["-e"], "option \"-e\" requires file name"),
            (&["-g"], "option \"-g\" requires parameter"),
            (&["--bogus"], "invalid option: \"-\""),
            (&["--verbose"], "option \"--verbose\" requires \"-t\""),
        ];
        for &(arguments, expected) in cases {
            assert_eq!(nginx(arguments).unwrap_err(), expected, "{arguments:?}");
        }
    }

    #[test]
    fn without_options_the_paths_are_those_of_the_packages() {
        let options = nginx(&[]).unwrap();
        assert_eq!(options.action, Action::Serve);
        assert_eq!(options.conf_path(), Path::new(version::CONF_PATH));
    }

    #[test]
    fn the_most_detailed_version_wins() {
        assert_eq!(nginx(&["-v"]).unwrap().version, Some(Detail::Version));
        assert_eq!(nginx(&["-vV"]).unwrap().version, Some(Detail::Configure));
        assert_eq!(nginx(&["-Vh"]).unwrap().version, Some(Detail::Configure));
        assert_eq!(nginx(&["-?"]).unwrap().version, Some(Detail::Help));
    }

    #[test]
    fn signals_are_known_by_name() {
        assert_eq!(nginx(&["-sreload"]).unwrap().action, Action::Signal(Signal::Reload));
        assert_eq!(nginx(&["-s", "stop"]).unwrap().action, Action::Signal(Signal::Terminate));
    }

    #[test]
    fn a_test_may_be_verbose() {
        assert!(nginx(&["--verbose", "-tq"]).unwrap().verbose);
        assert!(!nginx(&["-t"]).unwrap().verbose);
    }

    #[test]
    fn fmt_takes_files() {
        let own = |line: &str| match parse(line.split(' ').map(OsString::from)) {
            Ok(Invocation::Own(command)) => Ok(command),
            Ok(other) => panic!("not a command of ours: {other:?}"),
            Err(error) => Err(error.to_string()),
        };
        let files = vec!["a".into(), "-".into()];
        let fmt = Command::Fmt(Fmt { check: true, write: false, files });
        assert_eq!(own("fmt --check a -"), Ok(fmt));
        assert!(own("fmt").unwrap_err().contains("<FILE>"));
        assert!(own("fmt --check --write a").unwrap_err().contains("cannot be used with"));
    }

    #[test]
    fn help_tells_every_option_that_is_read() {
        program().debug_assert();
        for (letter, value, _) in NGINX_OPTIONS {
            let option = format!("-{letter}");
            let words = if value.is_some() { vec![&*option, "reload"] } else { vec![&*option] };
            assert!(nginx(&words).is_ok(), "{option}");
        }
        // What nginx has besides is another word for the same.
        let known =
            |letter: u8| NGINX_OPTIONS.iter().any(|(known, ..)| known.as_bytes() == [letter]);
        for letter in (b'!'..=b'~').filter(|letter| !known(*letter) && !b"?h".contains(letter)) {
            let option = format!("-{}", char::from(letter));
            assert!(nginx(&[&option, "reload"]).is_err(), "{option}");
        }
    }

    /// What the program would say of a call in a document.
    fn complaint(call: &documents::Command) -> Option<String> {
        let error = match parse(call.arguments.iter().map(OsString::from)) {
            Ok(_) => return None,
            Err(UsageError::Own(error, _)) => error,
            Err(error) => return Some(error.to_string()),
        };
        // `URL` and `wss://…` stand for what is to be written there.
        let is_open = |word: &String| {
            word.contains('…') || word.bytes().all(|letter| letter.is_ascii_uppercase())
        };
        let accepted = match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::MissingRequiredArgument => !call.complete,
            ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
                !call.complete && call.arguments.iter().any(is_open)
            }
            _ => false,
        };
        (!accepted).then(|| error.to_string())
    }

    fn complaints(documents: &[Document]) -> (usize, String) {
        let (mut count, mut told) = (0, String::new());
        for document in documents {
            for call in document.commands() {
                count += 1;
                if let Some(said) = complaint(&call) {
                    let arguments = call.arguments.join(" ");
                    told += &format!("{}: {arguments}: {said}\n", document.place(call.line));
                }
            }
        }
        (count, told)
    }

    #[test]
    fn every_command_in_the_documents_is_one() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (count, told) = complaints(&documents::all(root));
        assert!(count > 60, "{count} commands");
        assert!(told.is_empty(), "{told}");
    }

    #[test]
    fn a_command_in_a_document_that_is_none_is_found() {
        let cases = [
            (
                "`wssgate proxy`, `wssgate health --timeout 3`, `wssgate acme`, `wssgate doctor URL`",
                "",
            ),
            ("\n    wssgate --help\n    wssgate help proxy\n    wssgate -tq -c a\n", ""),
            ("\n    wssgate proxy --to 1\n", "--from"),
            ("`wssgate proxy --form x`", "--form"),
            ("\n    wssgate doctor wss://…\n", "wss://…"),
            ("`wssgate health --timeout soon http://a/`", "soon"),
            ("`wssgate -s restart`", "-s restart"),
            ("`wssgate statsu`", "statsu"),
            ("\n    wssgate fmt --check --write a.conf\n", "cannot be used with"),
            ("\n    wssgate -t --quiet\n", "invalid option"),
        ];
        for (text, expected) in cases {
            let (count, told) = complaints(&[Document::parse("a.md", text)]);
            assert!(count > 0, "{text}");
            assert_eq!(told.is_empty(), expected.is_empty(), "{text}: {told}");
            assert!(told.contains(expected), "{text}: {told}");
        }
    }

    #[test]
    fn a_command_that_is_nearly_right_is_suggested() {
        let advice = |line: &str| match parse(line.split(' ').map(OsString::from)) {
            Err(error) => error.advice(),
            Ok(other) => panic!("{line} is understood: {other:?}"),
        };
        for (line, meant) in [
            ("prxy", "proxy"),
            ("helth", "health"),
            ("reload", "-s reload"),
            ("test", "-t"),
            ("-t reload", "-s reload"),
            ("-s relaod", "-s reload"),
            ("-s Stop", "-s stop"),
            ("-s quiet", "-s quit"),
            ("-t /etc/x/site.conf", "-t -c /etc/x/site.conf"),
            ("site.conf", "-c site.conf"),
        ] {
            let expected =
                format!("Did you mean \"wssgate {meant}\"? \"wssgate --help\" lists all commands.");
            assert_eq!(advice(line), expected, "{line}");
        }
        for line in ["restart", "-s hup", "-s", "-t nowhere", "-x", "ma"] {
            assert_eq!(advice(line), "See \"wssgate --help\".", "{line}");
        }
    }

    #[test]
    fn a_file_is_suggested_by_its_whole_path() {
        let there = std::path::absolute("Cargo.toml").unwrap().display().to_string();
        assert_eq!(meant_file("Cargo.toml", true), Some(format!("-t -c {there}")));
    }
}
