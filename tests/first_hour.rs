//! What somebody meets who has just installed the program: what it says at a terminal, and what `proxy` and `health`
//! do with what people type first.
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use wssgate_testkit::net::free_addr_on;
use wssgate_testkit::{Addr, Instance, Pki, Upstream, free_addr, skipped, wait_until};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the program with its home in this directory.
fn run(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(EXE);
    command.args(arguments).env("XDG_DATA_HOME", home).stdin(Stdio::null());
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory with a configuration of the background.
fn in_background(listen: SocketAddr) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let conf = format!(
        "daemon on;\npid nginx.pid;\nerror_log error.log;\nevents {{}}\nhttp {{ access_log off;\n\
         client_body_temp_path body;\nserver {{ listen {listen}; return 204; }} }}\n"
    );
    fs::write(directory.path().join("nginx.conf"), conf).unwrap();
    directory
}

/// nginx's scripts expect silence; who types the command does not.
#[test]
fn a_server_in_the_background_is_told_at_a_terminal_and_nowhere_else() {
    if !Path::new("/usr/bin/script").exists() {
        return skipped("the terminal: no script(1)");
    }
    for terminal in [true, false] {
        let listen = free_addr();
        let directory = in_background(listen);
        let place = directory.path().display().to_string();
        let options = format!("-p {place} -c nginx.conf -e error.log");
        let line = format!("{EXE} {options}");
        let mut command = Command::new(if terminal { "/usr/bin/script" } else { "sh" });
        match terminal {
            true => command.args(["-qec", &line, "/dev/null"]),
            false => command.args(["-c", &line]),
        };
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
        let expected = format!(
            "wssgate: listening on {listen} in the background; errors go to {place}/error.log; `-s stop` with the \
             same options ends it\r\n"
        );
        assert_eq!(said, if terminal { &expected } else { "" });
        let pid = directory.path().join("nginx.pid");
        wait_until("the pid file", || {
            fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'))
        });
        let url = format!("http://{listen}/");
        wait_until("an answer", || run(directory.path(), &["health", &url]).status.success());
        let mut stop = Command::new("sh");
        assert!(stop.args(["-c", &format!("{line} -s stop")]).status().unwrap().success());
        wait_until("the end", || !pid.exists());
    }
}

/// Starts `wssgate proxy` and waits until it serves.
fn proxy(home: &Path, from: &str, to: &str) -> (Running, String) {
    let mut command = Command::new(EXE);
    command.args(["proxy", "--from", from, "--to", to]).env("XDG_DATA_HOME", home);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut greeting = String::new();
    for line in lines.by_ref() {
        greeting += &line;
        greeting.push('\n');
        if line.contains("stop with Ctrl-C") {
            break;
        }
    }
    // Access lines follow, for which there must be room.
    std::thread::spawn(move || lines.for_each(drop));
    (Running(child), greeting)
}

/// `wssgate proxy` has no file that a line could be written into.
#[test]
fn warnings_without_a_file_do_not_say_what_to_write_into_it() {
    let (home, pki) = (tempfile::tempdir().unwrap(), Pki::new());
    let leaf = pki.leaf(&["chat.example.com"]);
    let from = format!("localhost:{}", free_addr_on(Ipv4Addr::LOCALHOST.into()).port());
    let mut command = Command::new(EXE);
    command.args(["proxy", "--from", &from, "--to", "unix:/nonexistent/app.sock", "--cert"]);
    command.arg(&leaf.fullchain).arg("--key").arg(&leaf.key).env("XDG_DATA_HOME", home.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let absent = "Nothing listens on unix:/nonexistent/app.sock yet.";
    let is_told = lines.any(|line| line == absent);
    child.kill().unwrap();
    let text = stderr(&child.wait_with_output().unwrap());
    assert!(is_told, "{text}");
    assert!(text.contains("certificate") && !text.contains("ignore_warnings"), "{text}");
}

#[test]
fn the_path_of_an_app_server_comes_before_the_paths_of_requests() {
    let home = tempfile::tempdir().unwrap();
    for (path, told, expected) in [
        ("", false, ["/", "/chat?a=1"]),
        ("/app", true, ["/app", "/app/chat?a=1"]),
        ("/app/", true, ["/app/", "/app/chat?a=1"]),
    ] {
        let upstream = Upstream::text("here");
        let local = free_addr_on(Ipv4Addr::LOCALHOST.into());
        let from = format!("localhost:{}", local.port());
        let to = format!("http://{}{path}", upstream.addr());
        let (_running, greeting) = proxy(home.path(), &from, &to);
        let example = format!("  wss://{from}/x  →  http://{}/app/x\n", upstream.addr());
        assert_eq!(greeting.contains(&example), told, "{greeting}");
        // The development CA that `proxy` has made is trusted.
        for path in ["/", "/chat?a=1"] {
            let output = run(home.path(), &["health", &format!("https://{from}{path}")]);
            assert!(output.status.success(), "{}", stderr(&output));
        }
        let requests = upstream.requests();
        let targets: Vec<_> = requests.iter().map(|request| request.target()).collect();
        assert_eq!(targets, expected, "{to}");
    }
}

#[test]
fn health_verifies_certificates_and_can_be_told_whom_to_trust() {
    let (pki, home) = (Pki::new(), tempfile::tempdir().unwrap());
    let leaf = pki.leaf(&["chat.example.com"]);
    let server = Instance::setup(EXE)
        .http(&format!(
            "ssl_certificate {}; ssl_certificate_key {};
             server {{ listen %%LISTEN_0%% ssl; return 204; }}
             server {{ listen %%LISTEN_1%%; return 204; }}",
            leaf.fullchain.display(),
            leaf.key.display(),
        ))
        .start();
    let (url, plain) =
        (format!("https://{}/", server.listen(0)), format!("http://{}/", server.listen(1)));
    let wrong = format!("https://{}/", server.listen(1));
    let root = pki.root_path().display().to_string();
    let none = home.path().join("none.pem").display().to_string();
    let name = ["--host", "chat.example.com"];
    let check = |url: &str, more: &[&str]| {
        let output = run(home.path(), &[&["health", "--timeout", "20", url], more].concat());
        let text = stderr(&output);
        assert_eq!(output.status.success(), text.is_empty(), "{more:?}: {text}");
        text
    };
    assert_eq!(check(&plain, &[]), "");
    assert_eq!(check(&url, &["--insecure"]), "");
    assert_eq!(check(&url, &[&name[..], &["--ca", &root]].concat()), "");
    for (url, more, expected) in [
        (
            &url,
            &name[..],
            "UnknownIssuer; give the CA by --ca, or use --insecure for a server on this machine\n",
        ),
        (&url, &["--ca", &root], "; give the name of the server by --host\n"),
        (&url, &["--ca", &none], "none.pem\": "),
        (&wrong, &["--insecure"], "; is it a port for plain HTTP (http://)?\n"),
        (&plain, &["--insecure"], "wssgate health: --insecure has no effect without https://\n"),
    ] {
        let text = check(url, more);
        assert!(
            text.starts_with("wssgate health: ") && text.contains(expected),
            "{more:?}: {text}"
        );
    }
}

/// Who is in the way is named, so that nobody has to know how to find out.
#[test]
fn an_address_in_use_is_told_with_the_program_that_has_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let directory = in_background(address);
    let place = directory.path().display().to_string();
    let output = run(directory.path(), &["-p", &place, "-c", "nginx.conf", "-e", "error.log"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let (name, pid) = (name.trim_end(), std::process::id());
    let help =
        format!("= help: {name} (process {pid}) listens there: stop it, or choose another port\n");
    assert!(text.contains("Address already in use") && text.contains(&help), "{text}");
    let (upstream, from) = (Upstream::text(""), format!("localhost:{}", address.port()));
    let Addr::Tcp(to) = upstream.addr().clone() else { unreachable!() };
    let output = run(directory.path(), &["proxy", "--from", &from, "--to", &to.to_string()]);
    let help =
        format!("\n  {name} (process {pid}) listens there: stop it, or choose another port\n");
    assert!(stderr(&output).contains(&help), "{}", stderr(&output));
}

/// As somebody else than root, whom the system lets have no low port and no key of root.
#[test]
fn what_only_root_may_is_told_with_what_may_help() {
    let low = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let is_free = low.is_ok_and(|text| text.trim().parse::<u16>().is_ok_and(|port| port <= 1));
    if !wssgate_sys::privileges::is_root() || is_free || !Path::new("/usr/bin/setpriv").exists() {
        return skipped("a port of root: needs root, setpriv(1) and ports of root");
    }
    let place = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(place.path(), Some(65534), Some(65534)).unwrap();
    // Where everybody may run it.
    let exe = place.path().join("wssgate");
    fs::copy(EXE, &exe).unwrap();
    let pki = Pki::new();
    let key = pki.leaf(&["a.test"]).key;
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let key = format!("ssl_certificate {0}; ssl_certificate_key {0};", key.display());
    let test = |server: &str| {
        let conf = format!(
            "pid p; events {{}} http {{ access_log off; client_body_temp_path b; server {{ {server} }} }}"
        );
        fs::write(place.path().join("c.conf"), conf).unwrap();
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&exe);
        command.args(["-t", "-e", "stderr", "-c", "c.conf", "-p"]).arg(place.path());
        stderr(&command.output().unwrap())
    };
    let text = test("listen 127.0.0.1:1;");
    let help = "= help: port 1 is for root: start the server as root or with the capability CAP_NET_BIND_SERVICE, or \
                choose a port from 1024 on\n";
    assert!(text.contains("bind() to 127.0.0.1:1 failed (13") && text.contains(help), "{text}");
    let text = test(&format!("listen 127.0.0.1:8443 ssl; {key}"));
    let help = "= help: the user who starts the server must be able to read it";
    assert!(text.contains("(13: Permission denied)") && text.contains(help), "{text}");
}
