//! What operators type, and what they read then. The words and exit codes are those of nginx, of which the same is
//! expected where it is installed. What only wssgate says is in `cli.rs`.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use wssgate_testkit::{NGINX, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

const GOOD: &str = "daemon off; pid nginx.pid; events {}";

/// A process number that no process can have.
const NOBODY: &str = "2147483647";

/// Runs a command line, in which `DIR` is a directory with these files.
fn run(exe: &str, line: &[&str], files: &[(&str, &str)]) -> (tempfile::TempDir, Output) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    for (name, content) in files {
        fs::write(dir.path().join(name), content.replace("DIR", &path)).unwrap();
    }
    let mut command = Command::new(exe);
    command.args(line.iter().map(|word| word.replace("DIR", &path)));
    let output = command.stdin(Stdio::null()).output().unwrap();
    (dir, output)
}

/// The lines in nginx's form of what was told, without times and numbers of processes; what wssgate draws below them
/// is left out.
fn told(output: &[u8], dir: &Path) -> Vec<String> {
    let text = String::from_utf8_lossy(output).replace(&dir.display().to_string(), "DIR");
    let line = |line: &str| match line.split_once("#") {
        _ if line.starts_with("nginx: ") => Some(line.to_owned()),
        Some((before, after)) if line.starts_with("20") => {
            let (_, level) = before.split_once(" [")?;
            let (level, _) = level.split_once("] ")?;
            Some(format!("[{level}] {}", after.split_once(": ")?.1))
        }
        _ => None,
    };
    text.lines().filter_map(line).collect()
}

/// Command line behind `-p DIR -c nginx.conf -e error.log`, content of `nginx.pid` if there is one, lines of stderr.
/// All of them fail.
#[test]
fn a_signal_that_reaches_nobody_is_told_alike() {
    let missing = "open() \"DIR/nginx.pid\" failed (2: No such file or directory)";
    let gone = format!("kill({NOBODY}, 3) failed (3: No such process)");
    let invalid = |text: &str| format!("invalid PID number \"{text}\" in \"DIR/nginx.pid\"");
    let cases: &[(&[&str], Option<&str>, &str, &str)] = &[
        (&["-s", "stop"], None, "error", missing),
        (&["-sreload", "-q"], None, "error", missing),
        (&["-s", "reopen"], Some(""), "error", &invalid("")),
        (&["-s", "reload"], Some("\n"), "error", &invalid("")),
        (&["-s", "stop"], Some("abc\n"), "error", &invalid("abc")),
        (&["-s", "stop"], Some("12 34\n"), "error", &invalid("12 34")),
        (&["-s", "stop"], Some("-5\n"), "error", &invalid("-5")),
        (&["-s", "stop"], Some(" 5\n"), "error", &invalid(" 5")),
        (
            &["-s", "stop"],
            Some("99999999999999999999999\n"),
            "error",
            &invalid("9999999999999999999999"),
        ),
        (&["-s", "quit"], Some("2147483647"), "alert", &gone),
        (&["-s", "quit"], Some("2147483647\r\n\n"), "alert", &gone),
        (
            &["-s", "stop", "-g", "pid other.pid;"],
            Some("1"),
            "error",
            "open() \"DIR/other.pid\" failed (2: No such file or directory)",
        ),
    ];
    for (exe, (line, pid, level, text)) in
        with_nginx(WSSGATE).flat_map(|exe| cases.iter().map(move |case| (exe, case)))
    {
        let conf = if line.contains(&"-g") { "events {}" } else { GOOD };
        let files: Vec<_> =
            [("nginx.conf", conf)].into_iter().chain(pid.map(|pid| ("nginx.pid", pid))).collect();
        let line = [&["-p", "DIR", "-c", "nginx.conf", "-e", "error.log"], *line].concat();
        let (dir, output) = run(exe, &line, &files);
        assert_eq!(output.status.code(), Some(1), "{exe} {line:?} {pid:?}");
        assert_eq!(told(&output.stderr, dir.path()), [format!("nginx: [{level}] {text}")], "{exe}");
        let log = fs::read(dir.path().join("error.log")).unwrap();
        let logged = ["[notice] signal process started".into(), format!("[{level}] {text}")];
        assert_eq!(told(&log, dir.path()), logged, "{exe} {line:?} {pid:?}");
    }
}

/// What only wssgate says below nginx's line, and not in its log.
#[test]
fn a_signal_that_reaches_nobody_is_told_with_what_may_help() {
    let same = "the pid file is the one that DIR/nginx.conf names: give the same -c, -p and -g as when the server was \
                started\n";
    for (conf, pid, expected) in [
        (GOOD, None, format!("\nno server runs with it, or {same}")),
        (GOOD, Some("x"), format!("\n{same}")),
        (
            GOOD,
            Some(NOBODY),
            "\nthe server that wrote DIR/nginx.pid has ended without removing it".to_owned(),
        ),
        (
            "pid off; events {}",
            None,
            "\nDIR/nginx.conf says `pid off`: signal the process by its number, as in `kill -HUP PID`\n"
                .to_owned(),
        ),
    ] {
        let files: Vec<_> =
            [("nginx.conf", conf)].into_iter().chain(pid.map(|pid| ("nginx.pid", pid))).collect();
        let line = ["-p", "DIR", "-c", "nginx.conf", "-e", "error.log", "-s", "reload"];
        let (dir, output) = run(WSSGATE, &line, &files);
        let place = dir.path().display().to_string();
        let text = String::from_utf8_lossy(&output.stderr).replace(&place, "DIR");
        assert!(text.contains(&expected), "{text}");
        let log = fs::read_to_string(dir.path().join("error.log")).unwrap();
        assert_eq!(log.lines().count(), 2, "{log}");
    }
}

/// Whoever reloads wants to know what the server does now.
#[test]
fn a_configuration_with_errors_sends_no_signal() {
    for (signal, expected) in [
        ("reload", "\nno signal was sent; the running server keeps its configuration\n"),
        ("quit", "\nno signal was sent\n"),
    ] {
        let line = ["-p", "DIR", "-c", "nginx.conf", "-e", "error.log", "-s", signal];
        let (_dir, output) = run(WSSGATE, &line, &[("nginx.conf", "wrong; events {}")]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.ends_with(expected), "{text}");
    }
}

/// Command line, `nginx.conf`, exit code, lines of stderr.
#[test]
fn command_lines_are_obeyed_and_refused_alike() {
    const BASE: &[&str] = &["-p", "DIR", "-c", "nginx.conf", "-e", "error.log"];
    const OK: &[&str] = &[
        "nginx: the configuration file DIR/nginx.conf syntax is ok",
        "nginx: configuration file DIR/nginx.conf test is successful",
    ];
    const FAILED: &str = "nginx: configuration file DIR/nginx.conf test failed";
    let base = |rest: &[&'static str]| [BASE, rest].concat();
    let refused = |option: &'static [&'static str], text: &'static str| {
        (option.to_vec(), GOOD, 1, vec![text])
    };
    let cases: Vec<(Vec<&str>, &str, i32, Vec<&str>)> = vec![
        (base(&["-t"]), GOOD, 0, OK.to_vec()),
        (base(&["-q", "-t"]), GOOD, 0, vec![]),
        (base(&["-Tq"]), GOOD, 0, vec![]),
        (base(&["-tT"]), GOOD, 0, OK.to_vec()),
        // A test comes before a signal, whatever their order.
        (base(&["-t", "-s", "stop"]), GOOD, 0, OK.to_vec()),
        (base(&["-s", "stop", "-t"]), GOOD, 0, OK.to_vec()),
        (vec!["-pDIR", "-cnginx.conf", "-eerror.log", "-t"], GOOD, 0, OK.to_vec()),
        (vec!["-p", "DIR/", "-c", "DIR/nginx.conf", "-e", "stderr", "-t"], GOOD, 0, OK.to_vec()),
        (vec!["-", "-p", "DIR", "-c", "nginx.conf", "-e", "", "-t"], GOOD, 0, OK.to_vec()),
        // The last `-c`, `-g` and `-e` count.
        (
            vec!["-c", "none", "-p", "DIR", "-c", "nginx.conf", "-e", "none/e", "-e", "e", "-t"],
            GOOD,
            0,
            OK.to_vec(),
        ),
        (base(&["-tq", "-g", "wrong;", "-g", "pid a; error_log DIR/b;"]), "events {}", 0, vec![]),
        (base(&["-tq", "-g", " "]), GOOD, 0, vec![]),
        (
            base(&["-t", "-g", "pid other.pid;"]),
            GOOD,
            1,
            vec!["nginx: [emerg] \"pid\" directive is duplicate in DIR/nginx.conf:1", FAILED],
        ),
        (
            base(&["-t", "-g", "pid a"]),
            "events {}",
            1,
            vec![
                "nginx: [emerg] unexpected end of parameter, expecting \";\" in command line",
                FAILED,
            ],
        ),
        (
            base(&["-t", "-g", "wrong on;"]),
            GOOD,
            1,
            vec!["nginx: [emerg] unknown directive \"wrong\" in command line", FAILED],
        ),
        (
            base(&["-tq"]),
            "pid none/a; events {}",
            1,
            vec![
                "nginx: [emerg] open() \"DIR/none/a\" failed (2: No such file or directory)",
                FAILED,
            ],
        ),
        (
            base(&[]),
            "pid a; error_log none/e; events {}",
            1,
            vec!["nginx: [emerg] open() \"DIR/none/e\" failed (2: No such file or directory)"],
        ),
        (
            vec!["-p", "DIR", "-c", "nginx.conf", "-e", "none/e", "-tq"],
            "pid a; error_log e; events {}",
            0,
            vec![
                "nginx: [alert] could not open error log file: open() \"DIR/none/e\" failed \
                 (2: No such file or directory)",
            ],
        ),
        (
            base(&["-s", "stop"]),
            "wrong;events {}",
            1,
            vec!["nginx: [emerg] unknown directive \"wrong\" in DIR/nginx.conf:1"],
        ),
        refused(&["-s", "Stop"], "nginx: invalid option: \"-s Stop\""),
        refused(&["-s", ""], "nginx: invalid option: \"-s \""),
        refused(&["-t", "-s", "hup"], "nginx: invalid option: \"-s hup\""),
        refused(&["-s"], "nginx: option \"-s\" requires parameter"),
        refused(&["-tc"], "nginx: option \"-c\" requires file name"),
        refused(&["-e"], "nginx: option \"-e\" requires file name"),
        refused(&["-p"], "nginx: option \"-p\" requires directory name"),
        refused(&["-g"], "nginx: option \"-g\" requires parameter"),
        refused(&["--bogus"], "nginx: invalid option: \"-\""),
        refused(&["-hx"], "nginx: invalid option: \"x\""),
        refused(&["-t", "reload"], "nginx: invalid option: \"reload\""),
        refused(&[""], "nginx: invalid option: \"\""),
    ];
    for exe in with_nginx(WSSGATE) {
        for (line, conf, code, expected) in &cases {
            let (dir, output) = run(exe, line, &[("nginx.conf", conf)]);
            let mut told = told(&output.stderr, dir.path());
            if exe == WSSGATE && conf.contains("error_log none") {
                // Where the file is named, of which nginx says nothing.
                let end = " in DIR/nginx.conf:1";
                told =
                    told.iter().flat_map(|line| line.strip_suffix(end)).map(Into::into).collect();
            }
            assert_eq!(told, *expected, "{exe} {line:?}");
            assert_eq!(output.status.code(), Some(*code), "{exe} {line:?}");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!stderr.contains("\n\n"), "{exe} {line:?}: an empty line in {stderr:?}");
            let dumps = line.iter().any(|word| word.contains('T'));
            let dump = format!("# configuration file {}/nginx.conf:\n", dir.path().display());
            let printed = String::from_utf8_lossy(&output.stdout);
            assert_eq!(printed.starts_with(&dump), dumps, "{exe} {line:?}: {printed}");
            // nginx leaves an empty one behind, at which the next signal fails.
            assert!(exe == NGINX || !dir.path().join("nginx.pid").exists(), "{line:?}");
        }
    }
}

/// Programs look for these lines; tests of the rest are with the program's own texts.
#[test]
fn version_and_help_are_told_alike() {
    for (exe, options) in with_nginx(WSSGATE)
        .flat_map(|exe| [&["-v"][..], &["-V"], &["-h"], &["-?q"], &["-vt"]].map(|o| (exe, o)))
    {
        let files = [("nginx.conf", GOOD)];
        let line = [options, &["-p", "DIR", "-c", "nginx.conf", "-e", "error.log"]].concat();
        let (_dir, output) = run(exe, &line, &files);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && output.stdout.is_empty(), "{exe} {line:?}");
        assert!(text.starts_with("nginx version: nginx/1."), "{exe} {line:?}: {text}");
        let has = |part: &str| text.contains(part);
        assert_eq!(has("\nconfigure arguments: "), options == ["-V"], "{exe}");
        assert_eq!(has("\nTLS SNI support enabled\n"), options == ["-V"], "{exe}");
        let helps = options == ["-h"] || options == ["-?q"];
        assert_eq!(has("  -s signal     : send signal to a master process: "), helps, "{exe}");
        assert_eq!(has("test is successful\n"), options == ["-vt"], "{exe}");
    }
}
