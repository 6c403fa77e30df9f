//! Whatever a client and upstreams say to the front, the connection comes to its end, and what the client reads is a
//! sequence of whole answers, of which only the last may be cut off.
//!
//! An input is a dialogue: parts between bytes `0xff`, each of which begins with a letter that says what it is.
#![no_main]

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::unix::net;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;
use wssgate_config::model::LogTarget;
use wssgate_config::{LoadOptions, load};
use wssgate_http1::{
    BodyDecoder, BodyError, Decoded, Framing, Limits, Method, RequestParser, ResponseParser,
    Version,
};
use wssgate_proxy::generation::{Environment, Generation};
use wssgate_proxy::worker::fuzz::LoneWorker;

/// `%%` is a directory that lives as long as the process.
const CONFIG: &str = r#"
    error_log /dev/null info;
    events { }
    http {
        access_log /dev/null;
        client_body_temp_path %%/bodies;
        client_max_body_size 64k;
        client_body_buffer_size 256;
        upstream app { server unix:%%/app.sock; keepalive 2; }
        map $http_upgrade $wish { default upgrade; '' close; }
        server {
            listen unix:%%/front.sock;
            server_name a.example *.b.example;
            root %%/files;
            error_page 404 /missing.html;
            error_page 418 =200 @named;
            if ($arg_teapot) { return 418; }
            location / { try_files $uri $uri/index.html =404; }
            location /return { return 200 "$request_method $uri $args $http_x\n"; }
            location /moved { return 301 /$http_host/$arg_to; }
            location /pass { proxy_pass http://app; }
            location /replaced/ {
                proxy_pass http://app/other/;
                proxy_redirect default;
                proxy_cookie_path / /replaced/;
                proxy_set_header X-Addr "$remote_addr $http_x $cookie_c";
                proxy_buffering off;
                proxy_request_buffering off;
            }
            location /caught {
                proxy_pass http://app;
                proxy_intercept_errors on;
                error_page 500 502 504 = @named;
                proxy_next_upstream error timeout http_503;
            }
            location /old { proxy_pass http://app; proxy_http_version 1.0; proxy_pass_trailers on; }
            location /lines {
                proxy_pass http://app;
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection $wish;
            }
            location /secret { internal; add_header X-Secret yes; }
            location @named { add_header X-Was $upstream_status always; return 200 named; }
            location ~ ^/rewrite/(\w+)/(.*)$ { rewrite ^/rewrite/(\w+)/(.*)$ /$1?rest=$2 last; }
            location /if {
                set $x "$arg_a-$http_x";
                if ($x ~* "^(b+)-(.*)$") { rewrite ^ /return/$1$2 last; }
                if ($request_method = POST) { return 405; }
                limit_except GET { deny all; }
            }
        }
        server { listen unix:%%/front.sock; server_name second; return 204; }
    }
"#;

/// One millisecond of a paused clock passes when nobody has anything left to do.
const SETTLE: Duration = Duration::from_millis(1);

struct Site {
    dir: TempDir,
    app: net::UnixListener,
    worker: LoneWorker,
}

thread_local! {
    /// Made once; a dialogue leaves nothing in it.
    static SITE: RefCell<Site> = RefCell::new(Site::new());
}

impl Site {
    fn new() -> Self {
        // A peer that has gone is an error of the write, as in every Rust program.
        wssgate_sys::signals::ignore_broken_pipes();
        let dir = TempDir::new().expect("a directory");
        let files = dir.path().join("files");
        fs::create_dir_all(files.join("sub")).expect("a directory");
        for (name, content) in [
            ("index.html", "index".to_owned()),
            ("sub/index.html", "sub".to_owned()),
            ("missing.html", "missing".to_owned()),
            ("long.txt", "long ".repeat(20_000)),
            ("empty.css", String::new()),
        ] {
            fs::write(files.join(name), content).expect("a file");
        }
        let app = net::UnixListener::bind(dir.path().join("app.sock")).expect("a socket");
        app.set_nonblocking(true).expect("a socket");
        let worker = LoneWorker::new(generation(dir.path())).expect("a relay");
        Self { dir, app, worker }
    }
}

fn generation(dir: &Path) -> Generation {
    let text = CONFIG.replace("%%", dir.to_str().expect("a plain path"));
    let loaded = match load(&LoadOptions::text(text)) {
        Ok(loaded) => loaded,
        Err(failed) => panic!("{}", failed.report.render(&failed.sources, false)),
    };
    let environment = Environment::new(LogTarget::Stderr).expect("a bell");
    match Generation::build(loaded.config, None, &environment) {
        Ok((generation, _)) => generation,
        Err(report) => panic!("{}", report.render(&loaded.sources, false)),
    }
}

fuzz_target!(|dialogue: &[u8]| {
    let parts: Vec<&[u8]> = dialogue.split(|byte| *byte == 0xff).collect();
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    let answers = SITE.with_borrow_mut(|site| {
        assert!(site.dir.path().is_dir());
        LocalSet::new().block_on(&runtime.expect("a runtime"), hold(site, &parts))
    });
    let said = parts.iter().filter_map(|part| client_says(part)).collect::<Vec<_>>().concat();
    check(&said, &answers, may_be_slow(dialogue));
});

/// Whether `limit_rate` may be at work, which can cut a head as the client leaves. A name may be
/// written with escapes, too.
fn may_be_slow(dialogue: &[u8]) -> bool {
    let dialogue = dialogue.to_ascii_lowercase();
    [&b"slow"[..], b"limit-rate", b"%"]
        .iter()
        .any(|word| dialogue.windows(word.len()).any(|w| w == *word))
}

/// What of a part the client says.
fn client_says(part: &[u8]) -> Option<&[u8]> {
    match part {
        [b'u' | b'x' | b'e' | b'w', ..] => None,
        [b'c', bytes @ ..] => Some(bytes),
        bytes => Some(bytes),
    }
}

/// Holds the dialogue and returns all that the client has read.
async fn hold(site: &mut Site, parts: &[&[u8]]) -> Vec<u8> {
    let (near, far) = UnixStream::pair().expect("a socket pair");
    let (mut answers, mut client) = far.into_split();
    let reading = spawn_local(async move {
        let mut read = Vec::new();
        // An end by error is an end.
        let _ = answers.read_to_end(&mut read).await;
        read
    });
    let app = Rc::new(App::default());
    let listener = site.app.try_clone().and_then(UnixListener::from_std).expect("a socket");
    let accepting = spawn_local(Rc::clone(&app).accept(listener));
    let speaking = async {
        for part in parts {
            match part {
                [b'u', bytes @ ..] => app.say(bytes).await,
                [b'x', ..] => app.close(),
                [b'e', ..] => drop(client.shutdown().await),
                [b'w', ..] => sleep(Duration::from_secs(61)).await,
                part => say(&mut client, client_says(part).unwrap_or_default()).await,
            }
            sleep(SETTLE).await;
        }
        let _ = client.shutdown().await;
        app.refuse.set(true);
        app.close();
    };
    tokio::join!(site.worker.serve(near), speaking);
    accepting.abort();
    drop(client);
    reading.await.expect("reads to the end")
}

/// Says what is taken at once; who takes nothing is not waited for.
async fn say(to: &mut OwnedWriteHalf, bytes: &[u8]) {
    tokio::select! {
        _ = to.write_all(bytes) => {}
        () = sleep(SETTLE) => {}
    }
}

/// The upstream; it speaks on the connection that came last.
#[derive(Default)]
struct App {
    newest: RefCell<Option<OwnedWriteHalf>>,
    refuse: Cell<bool>,
}

impl App {
    async fn accept(self: Rc<Self>, listener: UnixListener) {
        while let Ok((stream, _)) = listener.accept().await {
            if !self.refuse.get() {
                let (requests, answers) = stream.into_split();
                self.newest.replace(Some(answers));
                spawn_local(ignore(requests));
            }
        }
    }

    async fn say(&self, bytes: &[u8]) {
        let taken = self.newest.take();
        if let Some(mut stream) = taken {
            say(&mut stream, bytes).await;
            self.newest.borrow_mut().get_or_insert(stream);
        }
    }

    /// Ends the direction of the answers.
    fn close(&self) {
        self.newest.take();
    }
}

async fn ignore(mut requests: OwnedReadHalf) {
    let mut buffer = [0; 4096];
    while matches!(requests.read(&mut buffer).await, Ok(1..)) {}
}

/// Reads the answers as a client would that knows what it has asked.
fn check(said: &[u8], answers: &[u8], may_be_slow: bool) {
    let (asked, complete) = asked(said);
    let mut rest = BytesMut::from(answers);
    let (mut count, mut closing) = (0, false);
    while !rest.is_empty() {
        assert!(!closing, "an answer behind Connection: close");
        let request = asked.get(count).copied();
        if request.is_some_and(|(_, version)| version == Version::Http09) {
            return;
        }
        assert!(count < asked.len() + 1 || !complete, "more answers than requests");
        let head = ResponseParser::new().parse(&mut rest, 1 << 16);
        let Some(head) = head.expect("a readable head") else {
            assert!(may_be_slow, "a head is cut");
            return;
        };
        if head.status() == 101 {
            return;
        }
        if head.is_interim() {
            continue;
        }
        let method = request.map_or(Method::Get, |(method, _)| method);
        let framing = head.framing(method).expect("a readable length");
        if !skip_body(framing, &mut rest).expect("a readable body") {
            return;
        }
        closing = head.fields().contains_token("connection", "close");
        count += 1;
    }
}

/// The requests as far as they can be told apart, and whether those are all.
fn asked(said: &[u8]) -> (Vec<(Method, Version)>, bool) {
    let (mut asked, mut rest) = (Vec::new(), BytesMut::from(said));
    while let Ok(Some(head)) = RequestParser::new().parse(&mut rest, &Limits::default()) {
        asked.push((head.method(), head.version()));
        if skip_body(head.framing(), &mut rest) != Ok(true) {
            break;
        }
    }
    (asked, rest.is_empty())
}

/// Takes a body from the front of `rest`; whether it was whole.
fn skip_body(framing: Framing, rest: &mut BytesMut) -> Result<bool, BodyError> {
    let mut decoder = BodyDecoder::from(framing);
    loop {
        match decoder.decode(rest)? {
            Decoded::Data(_) => {}
            Decoded::NeedMore => return Ok(false),
            Decoded::End { .. } => return Ok(true),
        }
    }
}
