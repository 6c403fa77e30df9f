//! The command line of the real program: options, texts and exit codes are those of nginx.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use wssgate_testkit::skipped;

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A directory with this `nginx.conf`.
fn directory(conf: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("nginx.conf"), conf).unwrap();
    directory
}

/// Runs the program on the configuration of `directory`.
fn run_in(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(EXE);
    command.arg("-p").arg(directory).args(["-c", "nginx.conf", "-e", "error.log"]);
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn run(arguments: &[&str]) -> Output {
    Command::new(EXE).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const GOOD: &str = "pid nginx.pid;\nevents {}\n";

#[test]
fn v_tells_the_version_on_stderr() {
    let output = run(&["-v"]);
    assert!(output.status.success());
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(stderr(&output), format!("nginx version: nginx/1.31.5 (wssgate {version})\n"));
    assert_eq!(stdout(&output), "");
}

#[test]
fn capital_v_tells_what_is_built_in_and_what_is_not() {
    let output = run(&["-V"]);
    assert!(output.status.success());
    let text = stderr(&output);
    assert!(text.contains("\nTLS SNI support enabled\n"), "{text}");
    assert!(text.contains("\nconfigure arguments: "), "{text}");
    assert!(text.contains(" --with-http_ssl_module"), "{text}");
    assert!(text.contains(" --without-http_fastcgi_module"), "{text}");
}

#[test]
fn h_shows_help() {
    for option in ["-h", "-?"] {
        let output = run(&[option]);
        assert!(output.status.success());
        assert!(stderr(&output).contains("\nOptions:\n  -?,-h         : this help\n"));
    }
}

#[test]
fn a_good_configuration_is_called_good_on_stderr() {
    let directory = directory(GOOD);
    let path = directory.path().join("nginx.conf").display().to_string();
    let output = run_in(directory.path(), &["-t"]);
    assert!(output.status.success());
    let expected = format!(
        "nginx: the configuration file {path} syntax is ok\n\
         nginx: configuration file {path} test is successful\n"
    );
    assert_eq!(stderr(&output), expected);
    assert!(directory.path().join("error.log").exists());
    assert!(!directory.path().join("nginx.pid").exists());
}

#[test]
fn what_cannot_be_written_or_read_is_told_in_one_run() {
    let directory = directory(
        "pid nginx.pid;\nerror_log none/error.log;\nevents {}\nhttp { server { listen 443 ssl;\n\
         ssl_certificate none.pem; ssl_certificate_key none.key; } }\n",
    );
    let output = run_in(directory.path(), &["-t"]);
    assert_eq!(output.status.code(), Some(1));
    for file in ["none/error.log", "none.pem", "none.key"] {
        let text = stderr(&output);
        let path = directory.path().join(file).display().to_string();
        let told = |line: &str| line.starts_with("nginx: [emerg] ") && line.contains(&path);
        assert!(text.lines().any(told), "{file}: {text}");
    }
}

/// Who has mended the one would else meet the other in the next run.
#[test]
fn certificates_are_looked_at_beside_other_errors() {
    let server =
        "server { listen 443 ssl; ssl_certificate none.pem;\n ssl_certificate_key none.key; }";
    let rest = "log files, passwords and addresses are checked when these errors are gone\n";
    let text = |conf: &str| stderr(&run_in(directory(conf).path(), &["-t"]));
    let told = text(&format!("events {{}}\nhttp {{ wrong;\n{server} }}\n"));
    let lines: Vec<_> = told.lines().filter(|line| line.contains("[emerg]")).collect();
    for (line, part) in lines.iter().zip(["\"wrong\"", "/none.pem\"", "/none.key\""]) {
        assert!(line.contains(part), "{told}");
    }
    assert_eq!(lines.len(), 3, "{told}");
    assert!(told.contains(&format!("\n{rest}3 errors\n")), "{told}");
    // Nobody knows in which block they stand then.
    let told = text(&format!("events {{}}\nhttp {{\n{server}\n"));
    assert!(
        told.contains(&format!("\ncertificates, {rest}")) && !told.contains("cannot load"),
        "{told}"
    );
}

#[test]
fn a_pid_file_without_directory_fails_before_the_background() {
    let directory = directory("daemon on;\npid none/nginx.pid;\nevents {}\n");
    let path = directory.path().join("none/nginx.pid").display().to_string();
    for options in [["-t"].as_slice(), &[]] {
        let output = run_in(directory.path(), options);
        assert_eq!(output.status.code(), Some(1), "{options:?}");
        let expected =
            format!("nginx: [emerg] open() \"{path}\" failed (2: No such file or directory)\n");
        assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    }
}

#[test]
fn a_descriptor_limit_that_is_not_granted_keeps_no_server_down() {
    // No system grants more than `fs.nr_open`. The end comes later, from a port that is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = directory(&format!(
        "daemon off;\npid nginx.pid;\nworker_rlimit_nofile 2000000000;\nevents {{}}\n\
         http {{ server {{ listen {}; }} }}\n",
        taken.local_addr().unwrap()
    ));
    let text = stderr(&run_in(directory.path(), &[]));
    let line = "nginx: [alert] setrlimit(RLIMIT_NOFILE, 2000000000) failed (1: Operation not \
                permitted), the limit is ";
    assert!(text.contains(line) && text.contains("Address already in use"), "{text}");
}

#[test]
fn more_connections_than_descriptors_are_told_by_a_test_with_numbers() {
    let main = "pid nginx.pid;\nworker_processes 2;\nworker_rlimit_nofile 1024;\n";
    for (connections, expected) in [(256, false), (257, true)] {
        let directory =
            directory(&format!("{main}events {{ worker_connections {connections}; }}\n"));
        let output = run_in(directory.path(), &["-t"]);
        assert!(output.status.success());
        let text = stderr(&output);
        let line = "[warn] 257 worker_connections exceed open file resource limit: 1024, as ";
        assert_eq!(text.contains(line), expected, "{text}");
        assert_eq!(text.contains("`worker_rlimit_nofile 1092`"), expected, "{text}");
    }
}

#[test]
fn an_unknown_user_is_told_once() {
    if !wssgate_sys::privileges::is_root() {
        skipped("needs root");
        return;
    }
    for (user, lines) in [("no-such-name", 1), ("no-such-name no-such-group", 2)] {
        let directory = directory(&format!("user {user};\npid nginx.pid;\nevents {{}}\n"));
        let output = run_in(directory.path(), &["-tq"]);
        assert_eq!(output.status.code(), Some(1), "{user}");
        let text = stderr(&output);
        assert!(text.contains("[emerg] getpwnam(\"no-such-name\") failed"), "{text}");
        assert_eq!(text.matches("[emerg]").count(), lines, "{text}");
    }
}

#[test]
fn a_quiet_test_of_a_good_configuration_says_nothing() {
    let directory = directory(GOOD);
    let output = run_in(directory.path(), &["-tq"]);
    assert!(output.status.success());
    assert_eq!((stderr(&output), stdout(&output)), (String::new(), String::new()));
}

#[test]
fn a_bad_configuration_fails_with_its_place() {
    let directory = directory("events {}\nhttp {\n    server { lisen 80; }\n}\n");
    let path = directory.path().join("nginx.conf").display().to_string();
    for options in [["-t"].as_slice(), &["-tq"], &["-T"]] {
        let output = run_in(directory.path(), options);
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        let problem = format!("nginx: [emerg] unknown directive \"lisen\" in {path}:3\n");
        assert!(text.contains(&problem), "{text}");
        // The line is said once, and the place shown below it.
        let below = text.split(&problem).nth(1).unwrap();
        assert!(
            below.starts_with(
                "  |\n3 |     server { lisen 80; }\n  |              ^^^^^ not known in `server`\n"
            ),
            "{text}"
        );
        assert_eq!(text.matches("unknown directive").count(), 1, "{text}");
        assert!(
            text.ends_with(&format!("nginx: configuration file {path} test failed\n")),
            "{text}"
        );
        assert_eq!(stdout(&output), "");
    }
    let log = fs::read_to_string(directory.path().join("error.log")).unwrap();
    assert!(log.contains(&format!(": unknown directive \"lisen\" in {path}:3\n")), "{log}");
}

#[test]
fn every_problem_is_told_in_one_run() {
    let directory = directory("events {}\nfoo 1;\nhttp { bar 2; }\n");
    let text = stderr(&run_in(directory.path(), &["-t"]));
    assert!(
        text.contains("unknown directive \"foo\"") && text.contains("unknown directive \"bar\"")
    );
}

#[test]
fn problems_are_told_in_the_order_of_the_text_and_counted() {
    // The syntax is read before the meaning, and what is missing in the whole is found last.
    let directory = directory(
        "foo 1;\nhttp {\n    error_page 404;\n    server { listen 81; }\n    include a.inc;\n}\nbar",
    );
    fs::write(directory.path().join("a.inc"), "server_name_in_redirect maybe;\n").unwrap();
    let output = run_in(directory.path(), &["-t"]);
    let text = stderr(&output);
    let told = text.lines().filter(|line| line.contains("[emerg] "));
    let places: Vec<_> = told.map(|line| line.rsplit('/').next().unwrap()).collect();
    let expected = [
        "nginx.conf:1",
        "nginx.conf:3",
        // It is unknown, and its `;` is missing.
        "nginx.conf:7",
        "nginx.conf:7",
        "a.inc:1",
        "\"events\" section in configuration",
    ];
    for (place, expected) in places.iter().zip(expected) {
        assert!(place.ends_with(expected), "{text}");
    }
    assert_eq!(places.len(), expected.len(), "{text}");
    let path = directory.path().join("nginx.conf").display().to_string();
    let end = format!("\n6 errors\nnginx: configuration file {path} test failed\n");
    assert!(text.ends_with(&end), "{text}");
    // One needs no counting.
    fs::write(directory.path().join("nginx.conf"), "events {}\nfoo 1;\n").unwrap();
    let text = stderr(&run_in(directory.path(), &["-t"]));
    assert!(!text.contains("1 error"), "{text}");
}

#[test]
fn a_dump_shows_each_file_once_and_exactly() {
    let directory = directory("pid nginx.pid;\nevents {}\ninclude a.inc;\ninclude a.inc;\n");
    fs::write(directory.path().join("a.inc"), "#  kept as it is\n").unwrap();
    let output = run_in(directory.path(), &["-T", "-q"]);
    assert!(output.status.success());
    let place = directory.path().display();
    let expected = format!(
        "# configuration file {place}/nginx.conf:\n\
         pid nginx.pid;\nevents {{}}\ninclude a.inc;\ninclude a.inc;\n\n\
         # configuration file {place}/a.inc:\n#  kept as it is\n\n"
    );
    assert_eq!(stdout(&output), expected);
}

#[test]
fn a_missing_file_is_named_with_its_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nginx.conf").display().to_string();
    let output = run_in(directory.path(), &["-t"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    let problem = format!("[emerg] open() \"{path}\" failed (2: No such file or directory)");
    assert!(text.contains(&problem), "{text}");
    assert!(text.contains("test failed"), "{text}");
}

/// What may help stands below the line, and the log has the line alone.
#[test]
fn a_file_that_is_not_read_is_told_with_what_may_help() {
    let directory = directory("events {}\n");
    let place = directory.path().display();
    fs::create_dir(directory.path().join("prefix")).unwrap();
    fs::write(directory.path().join("prefix/good.conf"), GOOD).unwrap();
    let test = |prefix: &str, conf: Option<&str>| {
        let mut command = Command::new(EXE);
        command.current_dir(directory.path()).args(["-t", "-p", prefix, "-e", "stderr"]);
        let output = command.args(conf.map(|conf| format!("-c{conf}"))).output().unwrap();
        assert_eq!(output.status.success(), conf == Some("good.conf"));
        stderr(&output)
    };
    assert!(
        test("prefix", Some("good.conf")).contains("configuration file prefix/good.conf test is")
    );
    let text = test("prefix", Some("nginx.conf"));
    assert!(text.contains("open() \"prefix/nginx.conf\" failed (2"), "{text}");
    let help = format!(
        "help: a relative -c is resolved against the prefix prefix, as in nginx; for the file in the \
                        working directory write -c {place}/nginx.conf\n"
    );
    assert!(text.contains(&help), "{text}");
    let text = test("prefix", Some("none.conf"));
    assert!(text.contains("none.conf\" failed (2") && !text.contains("help:"), "{text}");
    let text = test("prefix", Some(&place.to_string()));
    let help = format!(
        "help: name the configuration file by -c, such as {place}/nginx.conf, not a directory\n"
    );
    assert!(text.contains("failed (21: Is a directory)") && text.contains(&help), "{text}");
}

#[test]
fn a_missing_include_is_named_with_its_place() {
    let directory = directory("events {}\ninclude not-there.conf;\n");
    let place = directory.path().display();
    let text = stderr(&run_in(directory.path(), &["-t"]));
    let problem = format!(
        "open() \"{place}/not-there.conf\" failed (2: No such file or directory) in {place}/nginx.conf:2\n"
    );
    assert!(text.contains(&problem), "{text}");
}

#[test]
fn an_error_log_that_cannot_be_opened_is_an_alert_and_a_wrong_log_is_fatal() {
    let directory = directory("error_log /nonexistent/x.log;\npid nginx.pid;\nevents {}\n");
    let mut command = Command::new(EXE);
    command.arg("-p").arg(directory.path()).args(["-c", "nginx.conf", "-t"]);
    let output = command.args(["-e", "/nonexistent/e.log"]).output().unwrap();
    let text = stderr(&output);
    let alert = "nginx: [alert] could not open error log file: open() \"/nonexistent/e.log\" failed \
                 (2: No such file or directory)\n";
    assert!(text.contains(alert), "{text}");
    let fatal = format!(
        ": open() \"/nonexistent/x.log\" failed (2: No such file or directory) in {}/nginx.conf:1\n",
        directory.path().display()
    );
    assert!(text.contains("[emerg]") && text.contains(&fatal), "{text}");
    assert!(text.contains("= help: the directory /nonexistent does not exist\n"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_unknown_user_is_refused_by_root_and_useless_to_others() {
    let directory = directory("user nosuchuser;\npid nginx.pid;\nevents {}\n");
    let output = run_in(directory.path(), &["-t"]);
    let text = stderr(&output);
    if wssgate_sys::privileges::is_root() {
        assert_eq!(output.status.code(), Some(1));
        assert!(text.contains("[emerg] getpwnam(\"nosuchuser\") failed in "), "{text}");
    } else {
        assert!(output.status.success());
        assert!(text.contains("[warn] the \"user\" directive makes sense only if"), "{text}");
    }
}

#[test]
fn an_empty_file_is_probably_the_wrong_one() {
    for text in ["", "\n \r\n"] {
        let directory = directory(text);
        let path = directory.path().join("nginx.conf").display().to_string();
        let text = stderr(&run_in(directory.path(), &["-t", "-g", "pid a;"]));
        let help = format!(
            "no \"events\" section in configuration\n |\n = help: {path} is empty: is it the right file?\n"
        );
        assert!(text.contains(&help), "{text}");
    }
}

#[test]
fn globals_come_before_the_file() {
    let directory = directory("events {}\n");
    let output = run_in(directory.path(), &["-t", "-g", "pid g.pid; wrong;"]);
    let text = stderr(&output);
    assert!(text.contains("[emerg] unknown directive \"wrong\" in command line\n"), "{text}");
    assert!(run_in(directory.path(), &["-t", "-g", "pid g.pid;"]).status.success());
}

#[test]
fn fmt_prints_checks_and_writes() {
    let directory = directory("events{}\n");
    let path = directory.path().join("nginx.conf");
    let name = path.to_str().unwrap();
    let printed = run(&["fmt", name]);
    assert!(printed.status.success());
    assert_ne!(stdout(&printed), "events{}\n");
    let checked = run(&["fmt", "--check", name]);
    assert_eq!(checked.status.code(), Some(1));
    assert_eq!(stdout(&checked), format!("{name}\n"));
    assert!(run(&["fmt", "--write", name]).status.success());
    assert_eq!(fs::read_to_string(&path).unwrap(), stdout(&printed));
    assert!(run(&["fmt", "--check", name]).status.success());
}

#[test]
fn fmt_refuses_what_it_cannot_read() {
    let directory = directory("events {\n");
    let path = directory.path().join("nginx.conf");
    let output = run(&["fmt", "--write", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("unexpected end of file, expecting \"}\""));
    assert_eq!(fs::read_to_string(&path).unwrap(), "events {\n");
    assert_eq!(run(&["fmt"]).status.code(), Some(2));
}

#[test]
fn help_and_version_answer_like_those_of_any_program() {
    let version = format!("wssgate {}\n", env!("CARGO_PKG_VERSION"));
    for (line, part) in [
        ("--version", &*version),
        ("--help", "\n  proxy  "),
        ("help", "\n  proxy  "),
        (
            "--help",
            "\n  -h               Print help as nginx does\n      --help       Print help\n",
        ),
        ("-t --help", "\n  proxy  "),
        ("help proxy", "--to <ADDRESS>"),
        ("proxy --help", "--to <ADDRESS>"),
        ("proxy -h", "--to <ADDRESS>"),
        ("fmt --help", "--check"),
        ("acme status --help", "Configuration file"),
    ] {
        let output = run(&line.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "{line}: {output:?}");
        assert!(stdout(&output).contains(part), "{line}: {}", stdout(&output));
        assert_eq!(stderr(&output), "", "{line}");
    }
}

/// Command line, exit code, and what standard error begins with. Each is said once.
#[test]
fn what_is_wrong_with_a_command_is_told_once_in_its_name() {
    let directory = directory("events {\n");
    let bad = directory.path().join("nginx.conf").display().to_string();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let from = format!("localhost:{port}");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["proxy"], 2, "wssgate proxy: the following required arguments were not provided:"),
        (&["fmt", "--bogus"], 2, "wssgate fmt: unexpected argument '--bogus' found"),
        (&["help", "bogus"], 2, "wssgate help: unrecognized subcommand 'bogus'"),
        (&["fmt", "/none"], 1, "wssgate fmt: /none: No such file or directory\n"),
        (&["fmt", &bad], 1, "wssgate fmt: unexpected end of file, expecting \"}\" in "),
        (&["demo", "--port", &port], 1, "wssgate demo: port "),
        (
            &["proxy", "--from", &from, "--to", "1"],
            1,
            &format!(
                "wssgate proxy: bind() to 127.0.0.1:{port} failed (98: Address already in use)\n"
            ),
        ),
        (
            &["proxy", "--from", "localhost:1", "--to", "none.invalid"],
            1,
            "wssgate proxy: host not found in upstream \"none.invalid\"\n",
        ),
        (
            &["proxy", "--from", "localhost:8443", "--to", "8443"],
            1,
            "wssgate proxy: --to \"http://localhost:8443\" is what --from listens on, so every request",
        ),
        (&["prxy"], 1, "nginx: invalid option: \"prxy\"\nDid you mean \"wssgate proxy\"?"),
    ];
    for &(line, code, expected) in cases {
        let mut command = Command::new(EXE);
        command.args(line).env("XDG_DATA_HOME", directory.path()).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{line:?}: {text}");
        assert!(text.starts_with(expected), "{line:?}: {text}");
        let said = expected.lines().next().unwrap();
        assert_eq!(text.matches(said).count(), 1, "{line:?}: {text}");
        assert_eq!(stdout(&output), "", "{line:?}");
    }
}

#[test]
fn printing_a_configuration_writes_nothing_and_what_is_printed_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    for (line, part) in [
        ("demo", "listen 127.0.0.1:8443 ssl;"),
        ("proxy --from localhost:8443 --to :8282 --to 8283", "server localhost:8283;"),
        ("proxy --from 0.0.0.0:8443 --to 8282", "listen 8443 ssl;"),
        ("proxy --from localhost:8443 --to ws://:8282/app", "location = / {"),
        (
            "proxy --from localhost:8443 --to 1",
            "remove these two lines to run it as a service.\ndaemon off;",
        ),
        ("proxy --from localhost:8443 --to 1", "access_log /dev/stdout websocket;"),
        // Whatever the limits of this shell are.
        ("proxy --from localhost:8443 --to 1", "worker_connections 8192;"),
        ("proxy --from chat.example.com --to 8282", "acme_certificate letsencrypt;"),
    ] {
        let mut command = Command::new(EXE);
        command.args(line.split(' ')).arg("--print-config").env("XDG_DATA_HOME", &data);
        // Root has a place of its own.
        let output = command.env("STATE_DIRECTORY", &data).stdin(Stdio::null()).output().unwrap();
        let text = stdout(&output);
        assert!(output.status.success() && text.contains(part), "{line}: {output:?}");
        assert!(!data.exists(), "{line}");
        let formatted = wssgate_syntax::format("t", text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8_lossy(&formatted), text, "{line}: not laid out evenly");
    }
}

const IDLE: &str =
    "pid nginx.pid;\nevents { multi_accept on; }\nhttp { sendfile on; gzip on;\n gzip on; }\n";

#[test]
fn settings_without_effect_are_one_line_unless_more_is_asked_for() {
    let directory = directory(IDLE);
    let run = |options: &[&str]| {
        let output = run_in(directory.path(), options);
        assert!(output.status.success());
        stderr(&output)
    };
    let text = run(&["-t"]);
    let line = "nginx: [notice] 3 settings have no effect: gzip, multi_accept, sendfile; \"-t --verbose\" \
                says where and why\n";
    assert!(text.contains(line), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
    let text = run(&["-t", "--verbose"]);
    assert_eq!(text.matches("\" directive has no effect: ").count(), 3, "{text}");
    let place = format!(
        "nginx: [notice] {}/nginx.conf:3: \"gzip\" directive has no effect: ",
        directory.path().display()
    );
    assert!(text.contains(&place) && !text.contains("settings have"), "{text}");
    assert_eq!(run(&["-tq"]), "");
}

#[test]
fn completions_and_the_manual_page_know_all_commands_and_options() {
    for (line, start) in [
        ("completions bash", "_wssgate() {"),
        ("completions zsh", "#compdef wssgate"),
        ("completions fish", "# Print an optspec"),
        ("man", ".ie"),
    ] {
        let output = run(&line.split(' ').collect::<Vec<_>>());
        let text = stdout(&output);
        assert!(output.status.success() && text.starts_with(start), "{line}: {text}");
        for word in ["verbose", "proxy", "demo", "health"] {
            assert!(text.contains(word), "{line}: {word}");
        }
        let mut words = text.split(|c: char| !c.is_ascii_alphabetic());
        assert!(line == "man" || !words.any(|word| word == "man"), "{line}: {text}");
    }
    let page = stdout(&run(&["man"]));
    let sections = ["COMMANDS", "SIGNALS", "EXIT STATUS", "FILES", "NOTES"];
    for section in sections.map(|section| format!("\n.SH {section}\n")) {
        assert!(page.contains(&section), "{section}: {page}");
    }
    // There is one page.
    assert!(!page.contains("(1)"), "{page}");
    // What a shell offers behind `-s`.
    let script = stdout(&run(&["completions", "bash"]));
    let ask = format!(
        "{script}\nCOMP_WORDS=(wssgate -s re); COMP_CWORD=2; _wssgate wssgate re -s; echo ${{COMPREPLY[@]}}"
    );
    let output = Command::new("bash").args(["-c", &ask]).output().unwrap();
    assert_eq!(stdout(&output), "reload reopen\n", "{output:?}");
    for shell in ["zsh", "fish"] {
        let script = stdout(&run(&["completions", shell]));
        assert!(script.contains("stop") && script.contains("reopen"), "{script}");
    }
}
