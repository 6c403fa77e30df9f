//! Shows all chains to nginx and to us, as clients and as upstream servers.

use std::{
    fmt, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use tokio_rustls::rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig,
    ServerConnection, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS12,
};
use wssgate_testkit::{GUARD, Instance, NGINX, Pki};

use crate::cases::Case;
use crate::mint::{Mint, pem};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

const MODES: [&str; 3] = ["on", "optional", "optional_no_ca"];
const DEPTHS: std::ops::Range<u32> = 0..4;

/// What is said to the owner of a chain: a status, 0 when the handshake failed, and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    status: u16,
    told: String,
}

impl Verdict {
    fn passes(&self) -> bool {
        // Whoever finds no kind of signature in common shows nothing.
        self.status / 100 == 2 && self.told != "NONE"
    }
}

/// Who shows a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Client,
    Upstream,
}

/// How we differ from nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// nginx refuses, and we do not.
    Laxer,
    /// We refuse, and nginx does not.
    Stricter,
    /// The verdict is the same, what is said is not.
    Words,
}

#[derive(Debug)]
pub(crate) struct Difference {
    case: String,
    side: Side,
    setting: String,
    nginx: Verdict,
    ours: Verdict,
}

impl Difference {
    fn kind(&self) -> Kind {
        match (self.nginx.passes(), self.ours.passes()) {
            (false, true) => Kind::Laxer,
            (true, false) => Kind::Stricter,
            _ => Kind::Words,
        }
    }

    pub(crate) fn key(&self) -> Key {
        (self.side, self.kind(), self.case.clone())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, side, setting, nginx, ours } = self;
        let (kind, one) =
            (self.kind(), |verdict: &Verdict| format!("{} {}", verdict.status, verdict.told));
        write!(formatter, "{side:?} {kind:?} [{case}] {setting}: {} / {}", one(nginx), one(ours))
    }
}

/// What the table of known differences has of one.
pub(crate) type Key = (Side, Kind, String);

/// nginx and our program with the same configuration.
pub(crate) struct Worlds<'a> {
    mint: &'a Mint,
    nginx: Instance,
    ours: Instance,
}

impl<'a> Worlds<'a> {
    pub(crate) fn start(mint: &'a Mint, cases: &[Case]) -> Self {
        let all = |part: fn(&Case) -> &[String]| {
            // Some cases share their CAs.
            let mut seen = std::collections::HashSet::new();
            let parts = cases.iter().flat_map(part).filter(|&one| seen.insert(one));
            parts.map(String::as_str).collect::<String>()
        };
        let (trusted, lists) = (all(|case| &case.trusted), all(|case| &case.lists));
        let ours = Pki::new();
        let leaf = ours.leaf(&["localhost"]);
        let (chain, key) = (leaf.fullchain.display(), leaf.key.display());
        let mut text = format!(
            "ssl_certificate {chain}; ssl_certificate_key {key}; ssl_session_tickets off;\n\
             ssl_trusted_certificate trusted.pem; ssl_client_certificate {};\n\
             proxy_ssl_trusted_certificate trusted.pem; proxy_ssl_session_reuse off;\n\
             proxy_ssl_protocols TLSv1.2 TLSv1.3; proxy_ssl_verify on; proxy_ssl_name $arg_name;\n",
            ours.root_path().display()
        );
        for (number, mode, depth, crl) in settings() {
            text.push_str(&format!(
                "server {{ listen %%LISTEN_0%% ssl; server_name s{number}.test; \
                 ssl_verify_client {mode}; ssl_verify_depth {depth}; {} \
                 add_header X-Verify $ssl_client_verify always; return 204; }}\n",
                if crl { "ssl_crl lists.pem;" } else { "" }
            ));
        }
        text.push_str("server { listen %%LISTEN_1%%;\n");
        for (path, depth, crl) in locations() {
            let old = if path == OLD { "proxy_ssl_protocols TLSv1.2;" } else { "" };
            let lists = if crl { "proxy_ssl_crl lists.pem;" } else { "" };
            text.push_str(&format!(
                "location /{path} {{ proxy_pass https://127.0.0.1:$arg_port/; \
                 proxy_ssl_verify_depth {depth}; {lists} {old} }}\n"
            ));
        }
        text.push_str("}\n");
        let start = |exe: &str| {
            Instance::setup(exe)
                .file("trusted.pem", &trusted)
                .file("lists.pem", &lists)
                .main_and_http("worker_processes 2;", &text)
                .start()
        };
        Self { mint, nginx: start(NGINX), ours: start(WSSGATE) }
    }

    /// All that is told otherwise.
    pub(crate) fn compare(&self, cases: &[Case]) -> Vec<Difference> {
        let (nginx, ours) = thread::scope(|scope| {
            let nginx = scope.spawn(|| self.verdicts(&self.nginx, cases));
            let ours = scope.spawn(|| self.verdicts(&self.ours, cases));
            (nginx.join().unwrap(), ours.join().unwrap())
        });
        let shown = std::env::var("WSSGATE_MATRIX").ok();
        let mut differences = Vec::new();
        for (theirs, own) in nginx.into_iter().zip(ours) {
            let (case, side, setting, nginx) = theirs;
            let ours = own.3;
            if shown.as_ref().is_some_and(|part| case.contains(part.as_str())) {
                eprintln!("{case}: {side:?} {setting}: {nginx:?}, ours {ours:?}");
            }
            if nginx != ours {
                differences.push(Difference { case, side, setting, nginx, ours });
            }
        }
        differences
    }

    fn verdicts(&self, world: &Instance, cases: &[Case]) -> Vec<(String, Side, String, Verdict)> {
        let mut found = Vec::new();
        let upstream = Shown::start();
        for case in cases {
            for (setting, verdict) in self.of_client(world, case) {
                found.push((case.name.clone(), Side::Client, setting, verdict));
            }
        }
        let mut statuses = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            self.of_upstream(world, &upstream, (number, case), &mut statuses);
        }
        // The last line of the log has been written when the last answer was.
        let log = world.error_log();
        let mut told = told_of_upstreams(&log);
        for (number, path, status) in statuses {
            let told = told.remove(&(number, path.clone())).unwrap_or_default();
            let verdict = Verdict { status, told };
            found.push((cases[number].name.clone(), Side::Upstream, path, verdict));
        }
        found
    }

    fn of_client(&self, world: &Instance, case: &Case) -> Vec<(String, Verdict)> {
        let address = world.listen(0);
        let told = |(number, mode, depth, crl): &(usize, &str, u32, bool)| {
            format!("{number}: {mode}, depth {depth}, crl {crl}")
        };
        let Some(key) = certified(self.mint, case) else {
            let few = settings().filter(|(_, _, depth, crl)| *depth == 1 && !crl);
            let ask = |setting: (usize, &'static str, u32, bool)| {
                let verdict = tried(|| self.by_openssl(address, case, setting.0));
                (told(&setting), verdict)
            };
            return few.map(ask).collect();
        };
        let config = |versions| {
            let mut config = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(versions)
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody))
                .with_client_cert_resolver(Arc::new(Holder(Arc::clone(&key))));
            config.resumption = Resumption::disabled();
            Arc::new(config)
        };
        let (new, old) = (config(ALL_VERSIONS), config(&[&TLS12]));
        let ask = |config: &Arc<ClientConfig>, number| {
            tried(|| {
                let verdict = ask_as_client(address, Arc::clone(config), number);
                verdict.unwrap_or(Verdict { status: 0, told: String::new() })
            })
        };
        let verdicts = settings().map(|setting| (told(&setting), ask(&new, setting.0)));
        let of_old =
            settings().filter(|(_, mode, depth, crl)| *mode == "on" && *depth == 1 && !crl);
        let of_old =
            of_old.map(|setting| (format!("{}, TLS 1.2", told(&setting)), ask(&old, setting.0)));
        verdicts.chain(of_old).collect()
    }

    /// By a client that has more kinds of keys.
    fn by_openssl(&self, address: SocketAddr, case: &Case, number: usize) -> Verdict {
        let (leaf, rest) = self.files(case);
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-ign_eof", "-cipher", "DEFAULT:@SECLEVEL=0"]);
        command.args(["-connect", &address.to_string(), "-servername", &format!("s{number}.test")]);
        command.arg("-cert").arg(leaf).arg("-key").arg(self.mint.key_path(case.key));
        if let Some(rest) = rest {
            command.arg("-cert_chain").arg(rest);
        }
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let _ = input.write_all(request(number).as_bytes());
        let output = child.wait_with_output().unwrap();
        drop(input);
        verdict(&String::from_utf8_lossy(&output.stdout))
    }

    fn files(&self, case: &Case) -> (std::path::PathBuf, Option<std::path::PathBuf>) {
        let name: String = case.name.chars().filter(char::is_ascii_alphanumeric).collect();
        let path = self.mint.dir().join(format!("{name}.leaf.pem"));
        fs::write(&path, pem("CERTIFICATE", &case.shown[0])).unwrap();
        let rest: String = case.shown[1..].iter().map(|der| pem("CERTIFICATE", der)).collect();
        let rest_path = path.with_extension("rest.pem");
        fs::write(&rest_path, &rest).unwrap();
        (path, (!rest.is_empty()).then_some(rest_path))
    }

    fn of_upstream(
        &self,
        world: &Instance,
        upstream: &Shown,
        (number, case): (usize, &Case),
        statuses: &mut Vec<(usize, String, u16)>,
    ) {
        let mut by_openssl = None;
        let port = match certified(self.mint, case) {
            Some(key) => {
                upstream.show(key);
                upstream.port
            }
            None => {
                let server = by_openssl.insert(self.server_of_openssl(case));
                server.port
            }
        };
        let is_few = by_openssl.is_some();
        for (path, depth, crl) in locations() {
            if is_few && (depth != 1 || crl) {
                continue;
            }
            let target = format!("/{path}?n={number}&port={port}&name={}", case.host);
            let status = get(world.listen(1), &target);
            statuses.push((number, path, status));
        }
    }

    fn server_of_openssl(&self, case: &Case) -> ByOpenssl {
        let (leaf, rest) = self.files(case);
        let mut command = Command::new("openssl");
        command.args(["s_server", "-www", "-accept", "127.0.0.1:0"]);
        command.args(["-cipher", "DEFAULT:@SECLEVEL=0"]);
        command.arg("-cert").arg(leaf).arg("-key").arg(self.mint.key_path(case.key));
        if let Some(rest) = rest {
            command.arg("-cert_chain").arg(rest);
        }
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // "ACCEPT 127.0.0.1:1234"
        let line = lines.map_while(Result::ok).find(|line| line.starts_with("ACCEPT ")).unwrap();
        let port = line.rsplit(':').next().unwrap().trim().parse().unwrap();
        ByOpenssl { child, port }
    }
}

struct ByOpenssl {
    child: Child,
    port: u16,
}

impl Drop for ByOpenssl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings() -> impl Iterator<Item = (usize, &'static str, u32, bool)> {
    let all = MODES
        .into_iter()
        .flat_map(|mode| DEPTHS.flat_map(move |depth| [false, true].map(|crl| (mode, depth, crl))));
    all.enumerate().map(|(number, (mode, depth, crl))| (number, mode, depth, crl))
}

/// The path of the one location with TLS 1.2.
const OLD: &str = "old/";

fn locations() -> impl Iterator<Item = (String, u32, bool)> {
    let new = DEPTHS.flat_map(|depth| {
        [("", false), ("crl", true)].map(|(name, crl)| (format!("d{depth}{name}/"), depth, crl))
    });
    new.chain([(OLD.to_owned(), 1, false)])
}

/// An answer may be lost to a reset; a handshake that fails does so each time.
fn tried(ask: impl Fn() -> Verdict) -> Verdict {
    let mut verdict = ask();
    for _ in 0..2 {
        if verdict.status == 0 {
            verdict = ask();
        }
    }
    verdict
}

fn request(number: usize) -> String {
    format!("GET / HTTP/1.1\r\nHost: s{number}.test\r\nConnection: close\r\n\r\n")
}

fn ask_as_client(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    number: usize,
) -> io::Result<Verdict> {
    let name = ServerName::try_from(format!("s{number}.test")).unwrap();
    let stream = connect(address)?;
    let mut stream =
        StreamOwned::new(ClientConnection::new(config, name).map_err(io::Error::other)?, stream);
    stream.write_all(request(number).as_bytes())?;
    let mut answer = Vec::new();
    // Some end without close_notify.
    let _ = stream.read_to_end(&mut answer);
    Ok(verdict(&String::from_utf8_lossy(&answer)))
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(GUARD))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn verdict(answer: &str) -> Verdict {
    let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let told = answer.lines().find_map(|line| line.strip_prefix("X-Verify: "));
    Verdict { status, told: told.unwrap_or_default().to_owned() }
}

fn get(address: SocketAddr, target: &str) -> u16 {
    let mut stream = connect(address).unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    verdict(&String::from_utf8_lossy(&answer)).status
}

/// What an error log says of requests to upstreams, by their number and path.
fn told_of_upstreams(log: &str) -> std::collections::HashMap<(usize, String), String> {
    let read = |line: &str| {
        let (_, request) = line.split_once("request: \"GET /")?;
        let (path, rest) = request.split_once("?n=")?;
        let number = rest.split('&').next()?.parse().ok()?;
        let told = match line.find("upstream SSL certificate") {
            Some(start) => line[start..].split(" while ").next()?.to_owned(),
            None if line.contains("SSL_do_handshake() failed") => "handshake failed".to_owned(),
            None => return None,
        };
        Some(((number, path.to_owned()), told))
    };
    log.lines().filter_map(read).collect()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A chain with its key, if rustls can sign with it.
fn certified(mint: &Mint, case: &Case) -> Option<Arc<CertifiedKey>> {
    // What rustls signs with a key on P-521, OpenSSL 3.0 does not take.
    if case.key == "P-521" {
        return None;
    }
    let key = PrivateKeyDer::from_pem_slice(mint.key_pem(case.key).as_bytes()).ok()?;
    let key = aws_lc_rs::sign::any_supported_type(&key).ok()?;
    let chain = case.shown.iter().map(|der| CertificateDer::from(der.clone())).collect();
    Some(Arc::new(CertifiedKey::new(chain, key)))
}

/// Shows its chain to whoever asks.
#[derive(Debug)]
struct Holder(Arc<CertifiedKey>);

impl ResolvesClientCert for Holder {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// An upstream that shows what it is told to.
struct Shown {
    port: u16,
    key: Arc<Mutex<Option<Arc<CertifiedKey>>>>,
}

#[derive(Debug)]
struct Showing(Arc<Mutex<Option<Arc<CertifiedKey>>>>);

impl ResolvesServerCert for Showing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.lock().unwrap().clone()
    }
}

impl Shown {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let key = Arc::new(Mutex::new(None));
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Showing(Arc::clone(&key))));
        let config = Arc::new(config);
        // Its thread ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, Arc::clone(&config));
            }
        });
        Self { port, key }
    }

    fn show(&self, key: Arc<CertifiedKey>) {
        *self.key.lock().unwrap() = Some(key);
    }
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    stream.set_read_timeout(Some(GUARD))?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    // Whoever does not trust us sends no request.
    if stream.read(&mut [0; 4096])? > 0 {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    }
    stream.conn.send_close_notify();
    stream.flush()
}

/// Trusts everybody.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
