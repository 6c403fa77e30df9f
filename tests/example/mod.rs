//! An example as a test runs it: on free ports, with certificates of its own, in a directory of its own.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};

use wssgate_testkit::instance::Setup;
use wssgate_testkit::{Instance, Pki};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// The key of [`TOKEN`].
const KEYS: &str = r#"{"keys":[{"kty":"oct","alg":"HS256","k":"YSBrZXkgb2YgYXQgbGVhc3QgdGhpcnR5LXR3byBieXRlcyBmb3IgdGVzdHM"}]}"#;

/// `ada` with the password `secret`.
const PASSWORDS: &str = "ada:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/\n";

/// A token of `ada`, signed with HMAC-SHA256 until the year 2100.
pub(crate) const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
                         eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDB9.\
                         WFfcnqtws5UmD79IyzQVt9qplC8JU5rDWcSZmfpUqTk";

/// The files in `examples/`, without their endings.
pub(crate) fn names() -> Vec<String> {
    let entries = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> =
        entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// One example.
pub(crate) struct Example {
    /// As it is written, or as [`Example::with`] has changed it.
    pub(crate) text: String,
    /// Who has signed its certificate.
    pub(crate) pki: Pki,
}

impl Example {
    /// The one of this name.
    pub(crate) fn of(name: &str) -> Self {
        let text = fs::read_to_string(directory().join(format!("{name}.conf"))).unwrap();
        Self { text, pki: Pki::new() }
    }

    /// What an operator changes, such as the address of the app server; it must be there.
    pub(crate) fn with(mut self, from: &str, to: impl std::fmt::Display) -> Self {
        assert!(self.text.contains(from), "no {from:?} in {}", self.text);
        self.text = self.text.replace(from, &to.to_string());
        self
    }

    /// Starts it. `listen(0)` is where it speaks TLS, `listen(1)` where it does not.
    pub(crate) fn start(&self) -> Instance {
        self.setup().start()
    }

    /// Everything that belongs to a machine is in a directory, and the ports are free ones.
    pub(crate) fn setup(&self) -> Setup {
        let names = self.server_names();
        let leaf = self.pki.leaf(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let root = fs::read_to_string(self.pki.root_path()).unwrap();
        let chain = fs::read_to_string(&leaf.fullchain).unwrap() + &root;
        let setup = Instance::setup(EXE)
            .file("fullchain.pem", chain)
            .file("privkey.pem", fs::read(&leaf.key).unwrap())
            .file("jwks.json", KEYS)
            .file("terminal.htpasswd", PASSWORDS)
            .file("ca.pem", self.pki.authorities_pem());
        let dir = setup.dir().display().to_string();
        let lines = self.text.lines().filter(|line| !line.trim_start().starts_with("listen [::]"));
        let mut text = String::from("daemon off;\n");
        for line in lines {
            text.push_str(&local(line, &dir));
            text.push('\n');
        }
        setup.conf(&text)
    }

    /// The names that its certificate is for.
    fn server_names(&self) -> Vec<String> {
        let lines = self.text.lines().filter_map(|line| line.trim().strip_prefix("server_name "));
        let names = lines.flat_map(|names| names.trim_end_matches(';').split(' '));
        let mut names: Vec<_> = names.filter(|name| *name != "_").map(str::to_owned).collect();
        names.sort();
        names.dedup();
        if names.is_empty() { vec!["a.test".to_owned()] } else { names }
    }
}

/// A line with ports and paths of the test.
fn local(line: &str, dir: &str) -> String {
    // These depend on the machine: its users, its cores, the limits that it allows.
    if ["user ", "worker_rlimit_nofile "].iter().any(|name| line.starts_with(name)) {
        return String::new();
    }
    if line.trim_start().starts_with("worker_connections ") {
        return "worker_connections 256;".to_owned();
    }
    let line = line
        .replace("worker_processes auto", "worker_processes 2")
        .replace("/var/log/nginx/", &format!("{dir}/"))
        .replace("/run/nginx.pid", &format!("{dir}/nginx.pid"))
        .replace("/etc/nginx/", &format!("{dir}/"));
    if let Some(rest) = line.trim_start().strip_prefix("listen ") {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = if &rest[..digits] == "443" { 0 } else { 1 };
        return format!("listen %%LISTEN_{number}%%{}", &rest[digits..]);
    }
    let Some((before, path)) = line.split_once("/etc/letsencrypt/live/") else {
        // Authorities of others are ours.
        return match line.trim_start().split(' ').next() {
            Some(name @ ("ssl_client_certificate" | "proxy_ssl_trusted_certificate")) => {
                format!("{name} {dir}/ca.pem;")
            }
            _ => line,
        };
    };
    let file = path.rsplit('/').next().unwrap();
    format!("{before}{dir}/{file}")
}
