//! What a CA says of a certificate is shown with it: fetched from a responder, which is OpenSSL's own,
//! or read from a file. nginx is asked the same where there is one.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use wssgate_testkit::{Instance, wait_until, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A CA, a certificate of it (`leaf`), and a stranger who is no CA of anybody.
struct Ca(TempDir);

impl Ca {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        for name in ["ca", "stranger"] {
            this.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 \
                 -keyout {name}.key -out {name}.pem -subj /CN={name}"
            ));
        }
        this.openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -out leaf.csr \
             -subj /CN=a.test",
        );
        this.openssl("x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -set_serial 0x1234 -days 9 -out leaf.pem");
        fs::write(this.path().join("good"), "V\t491231235959Z\t\t1234\tunknown\t/CN=a.test\n")
            .unwrap();
        let revoked = "R\t491231235959Z\t250101000000Z\t1234\tunknown\t/CN=a.test\n";
        fs::write(this.path().join("revoked"), revoked).unwrap();
        this
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let output = command.args(arguments.split_whitespace()).current_dir(self.path()).output();
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "{arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// A responder that knows this and signs as this one.
    fn responder(&self, knows: &str, signer: &str) -> Responder {
        let mut child = Command::new("openssl")
            .args(["ocsp", "-port", "0", "-CA", "ca.pem", "-index", knows, "-nmin", "60"])
            .args(["-rsigner", &format!("{signer}.pem"), "-rkey", &format!("{signer}.key")])
            .current_dir(self.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // `ACCEPT [::]:34473 PID=28119`
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split(' ').nth(1).unwrap();
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        Responder { child, port }
    }

    /// A certificate with this purpose, signed by somebody: `NAME.pem`, `NAME.key`.
    fn issue(&self, name: &str, by: &str, purpose: &str) {
        fs::write(self.path().join("purpose"), format!("extendedKeyUsage={purpose}\n")).unwrap();
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key \
             -out {name}.csr -subj /CN={name}"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {by}.pem -CAkey {by}.key -set_serial 7 -days 9 \
             -extfile purpose -out {name}.pem"
        ));
    }

    /// An answer that says good, in `NAME.der`, by somebody with a key for RSA in `rsa.pem`; with these
    /// times in seconds from now.
    fn dated(&self, name: &str, this_update: i64, next_update: Option<i64>) {
        let next = if next_update.is_some() { "-nmin 60" } else { "" };
        self.openssl("ocsp -issuer ca.pem -cert leaf.pem -reqout request.der");
        self.openssl(&format!(
            "ocsp -index good -CA ca.pem -rsigner rsa.pem -rkey rsa.key -reqin request.der -rmd sha256 \
             -resp_no_certs {next} -respout {name}.der"
        ));
        let path = self.path().join(format!("{name}.der"));
        let mut der = fs::read(&path).unwrap();
        // `producedAt`, `thisUpdate`, `nextUpdate`: each a GeneralizedTime of 15 characters.
        let found = |der: &[u8]| {
            let at = (0..der.len()).filter(|&at| der[at..].starts_with(&[0x18, 15, b'2', b'0']));
            at.map(|at| at + 2).collect::<Vec<_>>()
        };
        let places = found(&der);
        let times = [Some(this_update), next_update].into_iter().flatten();
        assert_eq!(places.len(), 1 + times.clone().count());
        for (at, time) in places[1..].iter().zip(times) {
            der[*at..at + 15].copy_from_slice(generalized_time(time).as_bytes());
        }
        // The signed part begins the sequence in the octets behind the identifier of the kind of answer.
        let basic = [0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
        let signed = der.windows(9).position(|part| part == basic).unwrap() + 9 + 4 + 4;
        let len = match der[signed + 1..signed + 4] {
            [0x81, len, _] => 3 + usize::from(len),
            [0x82, high, low] => 4 + usize::from(u16::from_be_bytes([high, low])),
            _ => unreachable!("it is not that short"),
        };
        fs::write(self.path().join("signed"), &der[signed..signed + len]).unwrap();
        self.openssl("dgst -sha256 -sign rsa.key -out signature signed");
        let signature = fs::read(self.path().join("signature")).unwrap();
        let at = der.len() - signature.len();
        der[at..].copy_from_slice(&signature);
        fs::write(path, der).unwrap();
    }

    /// A server with the leaf.
    fn server(&self, exe: &str, settings: &str) -> Instance {
        Instance::setup(exe).http(&self.http(settings)).start()
    }

    fn http(&self, settings: &str) -> String {
        let dir = self.path().display();
        let settings = settings.replace("DIR", &dir.to_string());
        format!(
            "server {{ listen %%LISTEN_0%% ssl; ssl_protocols TLSv1.2 TLSv1.3; {settings}
             ssl_certificate {dir}/leaf.pem; ssl_certificate_key {dir}/leaf.key; return 204; }}"
        )
    }
}

/// So many seconds from now, as in DER.
fn generalized_time(from_now: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = format!("@{}", now.checked_add_signed(from_now).unwrap());
    let output = Command::new("date").args(["-u", "-d", &at, "+%Y%m%d%H%M%SZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// OpenSSL's responder.
struct Responder {
    child: Child,
    port: u16,
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is shown with the certificate: the status, or nothing.
fn shown(server: &Instance, version: &str) -> Option<String> {
    let output = Command::new("openssl")
        .args(["s_client", "-status", version, "-connect", &server.listen(0).to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.contains("OCSP response: no response sent") {
        return None;
    }
    let status = text.lines().find_map(|line| line.trim().strip_prefix("Cert Status: "));
    Some(status.unwrap_or_else(|| panic!("no handshake: {text}")).to_owned())
}

#[test]
fn the_answer_of_a_responder_is_shown_and_kept() {
    let ca = Ca::new();
    let responder = ca.responder("good", "ca");
    let settings = format!(
        "ssl_stapling on; ssl_stapling_verify on; ssl_trusted_certificate DIR/ca.pem;
         ssl_stapling_responder http://127.0.0.1:{}/;",
        responder.port
    );
    for exe in with_nginx(WSSGATE) {
        let server = ca.server(exe, &settings);
        for version in ["-tls1_2", "-tls1_3"] {
            wait_until("the answer", || shown(&server, version).as_deref() == Some("good"));
        }
    }
    let server = ca.server(WSSGATE, &settings);
    wait_until("the answer", || shown(&server, "-tls1_3").is_some());
    // Nobody answers any more, and the configuration is another one: what is known still counts.
    drop(responder);
    server.signal("HUP");
    server.wait_for_log("reconfigured, generation 2");
    assert_eq!(shown(&server, "-tls1_3").as_deref(), Some("good"));
}

#[test]
fn an_answer_that_cannot_be_shown_is_told_in_nginx_words() {
    let ca = Ca::new();
    let trusted = "ssl_trusted_certificate DIR/ca.pem;";
    for (knows, signer, more, expected) in [
        ("revoked", "ca", trusted, Some("certificate status \"revoked\" in the OCSP response")),
        ("good", "stranger", "ssl_stapling_verify on;", Some("OCSP_basic_verify() failed")),
        // nginx takes anybody's word unless it is to be verified.
        ("good", "stranger", "", Some("OCSP_basic_verify() failed")),
        // Trusted by the operator, as nginx's own tests have it.
        ("good", "stranger", "ssl_client_certificate DIR/stranger.pem;", None),
    ] {
        let nginx_shows = signer == "stranger" && more.is_empty();
        let responder = ca.responder(knows, signer);
        let port = responder.port;
        let settings = format!(
            "ssl_stapling on; {trusted} ssl_stapling_responder http://127.0.0.1:{port}; {}",
            more.replace(trusted, "")
        );
        for exe in with_nginx(WSSGATE) {
            let server = ca.server(exe, &settings);
            let expected = expected.filter(|_| exe == WSSGATE || !nginx_shows);
            let Some(expected) = expected else {
                wait_until("the answer", || shown(&server, "-tls1_3").is_some());
                continue;
            };
            // nginx asks when the first client comes.
            assert_eq!(shown(&server, "-tls1_3"), None);
            let line = server.wait_for_log(expected);
            let about = "while requesting certificate status, responder: 127.0.0.1";
            assert!(line.contains("[error]") && line.contains(about), "{exe}: {line}");
            assert_eq!(shown(&server, "-tls1_3"), None);
        }
    }
}

/// RFC 6960 §4.2.2.2: a CA may have somebody else answer, by a certificate of its own for that purpose.
#[test]
fn a_ca_may_have_somebody_else_answer() {
    let ca = Ca::new();
    ca.issue("delegate", "ca", "OCSPSigning");
    ca.issue("host", "ca", "serverAuth");
    ca.issue("foreign", "stranger", "OCSPSigning");
    for (signer, is_delegate) in [("delegate", true), ("host", false), ("foreign", false)] {
        let responder = ca.responder("good", signer);
        for verify in ["on", "off"] {
            let settings = format!(
                "ssl_stapling on; ssl_trusted_certificate DIR/ca.pem; ssl_stapling_verify {verify};
                 ssl_stapling_responder http://127.0.0.1:{};",
                responder.port
            );
            for exe in with_nginx(WSSGATE) {
                let server = ca.server(exe, &settings);
                // nginx takes anybody's word unless it is to be verified.
                if is_delegate || (exe != WSSGATE && verify == "off") {
                    let is_shown = || shown(&server, "-tls1_3").as_deref() == Some("good");
                    wait_until(&format!("the answer of {signer} for {exe}"), is_shown);
                } else {
                    assert_eq!(shown(&server, "-tls1_3"), None, "{signer} for {exe}");
                    server.wait_for_log("OCSP_basic_verify() failed");
                    assert_eq!(shown(&server, "-tls1_3"), None, "{signer} for {exe}");
                }
            }
        }
    }
}

/// What was known of it before must not come back either.
#[test]
fn a_certificate_that_is_revoked_is_shown_alone() {
    let ca = Ca::new();
    let settings = |responder: &Responder, trusted: &str| {
        ca.http(&format!(
            "ssl_stapling on; ssl_trusted_certificate DIR/{trusted}.pem;
             ssl_client_certificate DIR/ca.pem;
             ssl_stapling_responder http://127.0.0.1:{};",
            responder.port
        ))
    };
    let good = ca.responder("good", "stranger");
    let mut server = Instance::setup(WSSGATE).http(&settings(&good, "stranger")).start();
    wait_until("the answer", || shown(&server, "-tls1_3").as_deref() == Some("good"));
    // Whoever does not believe the first one asks again.
    let revoked = ca.responder("revoked", "ca");
    server.rewrite_http(&settings(&revoked, "ca"));
    server.signal("HUP");
    server.wait_for_log("certificate status \"revoked\" in the OCSP response");
    assert_eq!(shown(&server, "-tls1_3"), None);
    server.rewrite_http(&settings(&revoked, "stranger"));
    server.signal("HUP");
    server.wait_for_log("reconfigured, generation 3");
    assert_eq!(shown(&server, "-tls1_3"), None);
}

#[test]
fn a_handshake_waits_for_no_responder() {
    let ca = Ca::new();
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let server = ca.server(
        WSSGATE,
        &format!("ssl_stapling on; ssl_trusted_certificate DIR/ca.pem; ssl_stapling_responder http://127.0.0.1:{port};"),
    );
    let (_asked, _) = silent.accept().unwrap();
    assert_eq!(shown(&server, "-tls1_3"), None);
}

#[test]
fn a_file_is_shown_as_it_is() {
    let ca = Ca::new();
    ca.openssl("ocsp -issuer ca.pem -cert leaf.pem -reqout request.der");
    for (knows, times) in [("good", "-nmin 60"), ("revoked", "-nmin 60")] {
        ca.openssl(&format!(
            "ocsp -index {knows} -CA ca.pem -rsigner ca.pem -rkey ca.key -reqin request.der {times} \
             -respout {knows}.der"
        ));
        let settings = format!(
            "ssl_stapling on; ssl_stapling_file DIR/{knows}.der; ssl_trusted_certificate DIR/ca.pem;"
        );
        for exe in with_nginx(WSSGATE) {
            let server = ca.server(exe, &settings);
            assert_eq!(shown(&server, "-tls1_3").as_deref(), Some(knows), "{exe}");
        }
    }
    // What no client would believe is not shown, whatever nginx does.
    fs::write(ca.path().join("later.der"), [0x30, 3, 10, 1, 3]).unwrap();
    ca.openssl(
        "ocsp -index good -CA ca.pem -rsigner stranger.pem -rkey stranger.key -reqin request.der \
         -nmin 60 -respout stranger.der",
    );
    for (file, trusted, expected) in [
        ("later", "ca", "OCSP response not successful (3: trylater)"),
        ("stranger", "ca", "OCSP_basic_verify() failed"),
        ("good", "stranger", "issuer certificate not found for certificate"),
    ] {
        let server = ca.server(
            WSSGATE,
            &format!(
                "ssl_stapling on; ssl_stapling_file DIR/{file}.der;
                 ssl_trusted_certificate DIR/{trusted}.pem;"
            ),
        );
        let said = format!("{}{}", server.stderr(), server.error_log());
        assert!(said.contains("\"ssl_stapling\" ignored, ") && said.contains(expected), "{said}");
        assert_eq!(shown(&server, "-tls1_3"), None, "{file}");
    }
    let settings = "ssl_stapling on; ssl_stapling_file DIR/leaf.pem;";
    for exe in with_nginx(WSSGATE) {
        let failed = Instance::setup(exe).http(&ca.http(settings)).try_start().err().unwrap();
        assert!(failed.stderr.contains("d2i_OCSP_RESPONSE_bio("), "{exe}: {}", failed.stderr);
    }
}

#[test]
fn an_answer_in_a_file_ends() {
    let ca = Ca::new();
    ca.openssl(
        "req -x509 -newkey rsa:2048 -nodes -days 9 -keyout rsa.key -out rsa.pem -subj /CN=rsa",
    );
    let settings = |file: &str| {
        format!(
            "ssl_stapling on; ssl_stapling_file DIR/{file}.der; ssl_client_certificate DIR/rsa.pem;
             ssl_trusted_certificate DIR/ca.pem;"
        )
    };
    const DAY: i64 = 86_400;
    for (name, this_update, next_update) in [
        ("with-an-end", -60, Some(4)),
        // Without one it counts for a day.
        ("without-end", 4 - DAY, None),
    ] {
        ca.dated(name, this_update, next_update);
        let server = ca.server(WSSGATE, &settings(name));
        let line = server.wait_for_log("has expired and is no longer sent");
        assert!(line.contains("[warn]") && line.contains(&format!("{name}.der\"")), "{line}");
        assert_eq!(shown(&server, "-tls1_3"), None, "{name}");
    }
    for (name, this_update, next_update, is_current) in [
        ("current", -2 * DAY, Some(600), true),
        ("current-without-end", 600 - DAY, None, true),
        ("over", -2 * DAY, Some(-600), false),
        ("over-without-end", -600 - DAY, None, false),
    ] {
        ca.dated(name, this_update, next_update);
        let server = ca.server(WSSGATE, &settings(name));
        let said = format!("{}{}", server.stderr(), server.error_log());
        assert_eq!(said.contains("in the file is out of date"), !is_current, "{name}: {said}");
        assert_eq!(shown(&server, "-tls1_3").is_some(), is_current, "{name}");
    }
}

#[test]
fn what_cannot_be_asked_is_a_warning() {
    let ca = Ca::new();
    for (settings, expected) in [
        ("", "issuer certificate not found for certificate \""),
        ("ssl_trusted_certificate DIR/ca.pem;", "no OCSP responder URL in the certificate \""),
        (
            "ssl_trusted_certificate DIR/ca.pem; ssl_stapling_responder https://a.test/;",
            "invalid URL prefix in OCSP responder \"https://a.test/\" in the certificate \"",
        ),
    ] {
        for exe in with_nginx(WSSGATE) {
            let server = ca.server(exe, &format!("ssl_stapling on; {settings}"));
            let expected = format!("\"ssl_stapling\" ignored, {expected}");
            let said = format!("{}{}", server.stderr(), server.error_log());
            assert!(said.contains(&expected), "{exe}: {said}");
            assert_eq!(shown(&server, "-tls1_2"), None, "{exe}");
        }
    }
}

#[test]
fn what_is_known_of_a_certificate_is_shown_when_it_comes_back() {
    let ca = Ca::new();
    // Neither is older than the other.
    fs::write(ca.path().join("index"), "").unwrap();
    fs::write(ca.path().join("serial"), "1234\n").unwrap();
    let conf = "[ca]\ndefault_ca = one\n[one]\ndatabase = index\nunique_subject = no\n\
                serial = serial\nnew_certs_dir = .\ndefault_md = sha256\npolicy = any\n\
                [any]\ncommonName = supplied\n";
    fs::write(ca.path().join("ca.conf"), conf).unwrap();
    let issue = || {
        ca.openssl(
            "ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -in leaf.csr -notext \
             -startdate 20250101000000Z -enddate 20491231235959Z -out new.pem",
        );
        fs::rename(ca.path().join("new.pem"), ca.path().join("leaf.pem")).unwrap();
    };
    issue();
    let first = fs::read(ca.path().join("leaf.pem")).unwrap();
    let responder = ca.responder("good", "ca");
    let server = ca.server(
        WSSGATE,
        &format!(
            "ssl_certificate_watch 1s; ssl_stapling on; ssl_trusted_certificate DIR/ca.pem;
             ssl_stapling_responder http://127.0.0.1:{};",
            responder.port
        ),
    );
    wait_until("the answer", || shown(&server, "-tls1_3").is_some());
    drop(responder);
    issue();
    wait_until("the other certificate", || shown(&server, "-tls1_3").is_none());
    fs::write(ca.path().join("new.pem"), first).unwrap();
    fs::rename(ca.path().join("new.pem"), ca.path().join("leaf.pem")).unwrap();
    // Nobody could be asked about it again.
    wait_until("the first answer", || shown(&server, "-tls1_3").as_deref() == Some("good"));
}
