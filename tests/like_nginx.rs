//! The same configurations and requests for nginx and wssgate, one directive after the other: what is answered, byte
//! for byte, and what is logged must be the same.
//!
//! The cases are in `tests/like_nginx/*.txt`. A case begins with `=== NAME`. Lines behind `http|` stand in the `http`
//! block, others in a `server` that listens and has the files of [`FILES`] as its root. `>` sends a request: method and
//! target, then fields between `|`; `>>` sends bytes as they are, with `\r\n` written so. `~ TEXT -- REASON` leaves
//! out of the comparison every line that has this text, of answers and logs: what differs on purpose, and why.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::Path,
    process::Command,
};

use wssgate_testkit::{Conn, Instance, NGINX, Upstream, skipped};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// Files below the root, all of one age.
const FILES: &[(&str, &str)] = &[
    ("html/index.html", "<p>front page</p>\n"),
    ("html/a.txt", "0123456789"),
    ("html/data.json", "{}"),
    ("html/no_extension", "plain"),
    ("html/Upper.HTML", "upper"),
    ("html/error.html", "<p>a page for errors</p>\n"),
    ("html/dir/index.html", "index of dir"),
    ("html/dir/other.html", "other of dir"),
    ("html/empty/.hidden", "hidden"),
    ("html/with space/b%c.txt", "odd name"),
    ("html/list/.hidden", "hidden"),
    ("html/list/B.txt", "1"),
    ("html/list/a b%c&d=e?f#g;h+i:j.txt", "22"),
    ("html/list/a<b>\"c\"'d'.txt", "333"),
    ("html/list/back\\slash", "4444"),
    ("html/list/line\nfeed\tand\u{1}more", "55555"),
    ("html/list/dir <1>/inner.txt", "inner"),
    ("html/list/zdir/inner.txt", "inner"),
    ("html/list/\u{fc}ber \u{65e5}\u{672c}.txt", "umlaut"),
    ("html/random/only.txt", "the only one"),
    ("html/searchable/file", "can be had by its name"),
    ("html/shut/file", "nobody's"),
    ("html/random/.hidden", "hidden"),
    ("html/random/dir/of no interest", "x"),
    ("other/a.txt", "from another root"),
];

/// When all files were changed: 9 September 2001.
const CHANGED: &str = "@1000000000";

struct Case {
    name: String,
    http: String,
    server: String,
    requests: Vec<String>,
    left_out: Vec<String>,
}

fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("# ")) {
        if let Some(name) = line.strip_prefix("=== ") {
            cases.push(Case {
                name: name.into(),
                http: String::new(),
                server: String::new(),
                requests: Vec::new(),
                left_out: Vec::new(),
            });
            continue;
        }
        let case = cases.last_mut().expect("a case begins with its name");
        if let Some(raw) = line.strip_prefix(">> ") {
            case.requests.push(raw.replace("\\r", "\r").replace("\\n", "\n"));
        } else if let Some(request) = line.strip_prefix("> ") {
            case.requests.push(request_of(request));
        } else if let Some(left_out) = line.strip_prefix("~ ") {
            let (text, reason) = left_out.split_once(" -- ").expect("a difference has a reason");
            assert!(reason.len() > 10, "{line}");
            case.left_out.push(text.into());
        } else if let Some(text) = line.strip_prefix("http| ") {
            case.http.push_str(text);
            case.http.push('\n');
        } else {
            case.server.push_str(line);
            case.server.push('\n');
        }
    }
    cases
}

/// `GET /a.txt | Name: value | …`; the connection ends with the answer unless a field says otherwise.
fn request_of(line: &str) -> String {
    let mut parts = line.split(" | ");
    let mut request = format!("{} HTTP/1.1\r\nHost: a.test\r\n", parts.next().unwrap_or_default());
    let fields: Vec<_> = parts.collect();
    let (body, fields) = match fields.split_last() {
        Some((last, rest)) if last.starts_with("body ") => (&last[5..], rest),
        _ => ("", &fields[..]),
    };
    for field in fields {
        request.push_str(&format!("{field}\r\n"));
    }
    if !fields.iter().any(|field| field.starts_with("Connection: ")) {
        request.push_str("Connection: close\r\n");
    }
    if !body.is_empty() {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    format!("{request}\r\n{body}")
}

/// What a directory may have beside files of text with plain names.
fn make_odd_entries(directory: &Path) {
    let wide = "\u{e9}";
    for len in [46, 47, 48, 49, 50, 51, 52, 60, 200] {
        let name = format!("{:c<len$}", format!("{len}"));
        fs::write(directory.join(name), "").unwrap();
        fs::create_dir(directory.join(format!("{:d<len$}", format!("{len}")))).unwrap();
        fs::write(directory.join(format!("{:&<len$}", format!("{len}"))), "").unwrap();
        if len < 100 {
            fs::write(directory.join(format!("{len}{}", wide.repeat(len - 2))), "").unwrap();
            fs::write(directory.join(format!("{len}{}>", wide.repeat(len - 3))), "").unwrap();
            fs::create_dir(directory.join(format!("{len}{}", "\u{df}".repeat(len - 2)))).unwrap();
        }
    }
    fs::write(
        directory.join(OsStr::from_bytes(&[b"not \xff UTF-8 ", &[b'\xfe'; 45][..]].concat())),
        "",
    )
    .unwrap();
    for size in [
        9999,
        10_000,
        10_751,
        10_752,
        1_048_575,
        1_048_576,
        1_572_864,
        1_073_741_823,
        1_073_741_824,
        5_500_000_000,
    ] {
        File::create(directory.join(format!("size {size}"))).unwrap().set_len(size).unwrap();
    }
    for (link, target) in [
        ("to a file", "size 9999"),
        ("to a directory", "zdir"),
        ("to nowhere", "none"),
        ("to itself", "to itself"),
        ("to what is shut", "../shut/file"),
    ] {
        symlink(target, directory.join(link)).unwrap();
    }
    run(Command::new("mkfifo").arg(directory.join("pipe")));
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// What came of a case: answers and the lines of both logs.
fn outcome(exe: &str, case: &Case, upstream: &Upstream) -> Vec<String> {
    let mut setup = Instance::setup(exe);
    for (name, content) in FILES {
        setup = setup.file(name, content);
    }
    make_odd_entries(&setup.dir().join("html/list"));
    run(Command::new("find")
        .arg(setup.dir())
        .args(["-exec", "touch", "-h", "-d", CHANGED, "{}", "+"]));
    for (name, mode) in [("html/searchable", 0o111), ("html/shut", 0)] {
        fs::set_permissions(setup.dir().join(name), Permissions::from_mode(mode)).unwrap();
    }
    let (http, server) = (&case.http, &case.server);
    let instance = setup
        .http(&format!("{http}\nserver {{ listen %%LISTEN_0%%; root %%DIR%%/html;\n{server}\n}}"))
        .var("UP", upstream.addr())
        .try_start();
    let instance = match instance {
        Ok(instance) => instance,
        Err(failed) if exe == WSSGATE => return vec![format!("does not start: {}", failed.stderr)],
        Err(failed) => panic!("{}: {failed:?}", case.name),
    };
    let address = instance.listen(0);
    let mut lines = Vec::new();
    for request in &case.requests {
        let mut conn = Conn::connect(address);
        conn.send_raw(request);
        let (answer, end) = conn.recv_to_end();
        lines.push(format!("--- {}", request.lines().next().unwrap_or_default()));
        lines.extend(answer.split(|byte| *byte == b'\n').map(readable));
        lines.push(format!("--- {end:?}"));
    }
    let dir = instance.dir().to_owned();
    instance.signal("QUIT");
    let logs = {
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        let pid = dir.join("nginx.pid");
        wssgate_testkit::wait_until("the end", || !pid.exists());
        (read("access.log"), read("error.log"))
    };
    // Each worker writes when it comes to that, so the order across connections is nobody's.
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    lines.extend(sorted(logs.0.lines().map(without_time).collect()));
    lines.extend(sorted(logs.1.lines().filter_map(error_line).collect()));
    let dir = dir.display().to_string();
    let masked = |line: String| {
        let line = line.replace(&dir, "DIR").replace(&address.to_string(), "ADDRESS");
        let line = line.replace(&format!(":{}", address.port()), ":PORT");
        let line = line.replace("nginx/1.22.1", "nginx/V").replace("nginx/1.31.5", "nginx/V");
        match line.starts_with("Date: ") {
            true => "Date: NOW".to_owned(),
            false => line,
        }
    };
    let kept = |line: &String| !case.left_out.iter().any(|text| line.contains(text.as_str()));
    lines.into_iter().map(masked).filter(kept).collect()
}

/// A line of an answer, every byte of it.
fn readable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    match text.contains('\u{fffd}') {
        true => line.escape_ascii().to_string(),
        false => text.into_owned(),
    }
}

/// An access line without its time.
fn without_time(line: &str) -> String {
    match (line.find('['), line.find(']')) {
        (Some(start), Some(end)) if start < end => {
            format!("{}[]{}", &line[..start], &line[end + 1..])
        }
        _ => line.to_owned(),
    }
}

/// The level and text of an error line that is about a request and at least a warning.
fn error_line(line: &str) -> Option<String> {
    let level = ["[warn]", "[error]", "[crit]", "[alert]", "[emerg]"];
    let level = level.iter().find(|level| line.contains(*level))?;
    let (_, text) = line.split_once(": *")?;
    let (_, text) = text.split_once(' ')?;
    Some(format!("{level} {text}"))
}

/// Answers with what it was asked, or as the path says.
fn app() -> Upstream {
    Upstream::http(|request| {
        let status = request.target().strip_prefix("/status/").map(|rest| rest.get(..3));
        let status = status.flatten().unwrap_or("200").to_owned();
        let mut asked = format!("{}\n", request.head.start);
        asked.extend(request.head.lines().iter().map(|line| format!("{line}\n")));
        asked.push_str(&String::from_utf8_lossy(&request.body));
        let more = match request.target() {
            "/fields" => {
                "X-App: 1\r\nX-Powered-By: app\r\nSet-Cookie: a=1; Path=/app; Domain=app.test\r\n\
                 Set-Cookie: b=2\r\nCache-Control: no-cache\r\nExpires: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
            }
            "/redirect" => "Location: http://app.test/there\r\n",
            "/redirect-relative" => "Location: /there\r\n",
            "/refresh" => "Refresh: 5; url=http://app.test/there\r\n",
            "/accel" => "X-Accel-Redirect: /inside/a.txt\r\nX-From-App: yes\r\n",
            "/slow" => "X-Accel-Limit-Rate: 0\r\n",
            "/charset" => "X-Accel-Charset: koi8-r\r\n",
            _ => "",
        };
        let parameters = match request.target() {
            "/profile" => "; profile=\"x\"",
            "/koi8" => "; level=1; charset=koi8-r",
            _ => "",
        };
        let status = if more.starts_with("Location") { "302".to_owned() } else { status };
        format!(
            "HTTP/1.1 {status} Reason\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: app\r\n\
             Content-Type: text/x-app{parameters}\r\n{more}Content-Length: {}\r\n\r\n{asked}",
            asked.len()
        )
    })
}

fn compare(text: &str) {
    if !Path::new(NGINX).exists() {
        skipped("nginx is not installed");
        return;
    }
    let upstream = app();
    let mut differences = Vec::new();
    for case in cases(text) {
        assert!(!case.requests.is_empty(), "{} asks for nothing", case.name);
        let [ours, theirs] = [WSSGATE, NGINX].map(|exe| outcome(exe, &case, &upstream));
        if ours != theirs {
            let only = |these: &[String], those: &[String]| {
                let lines = these.iter().filter(|line| !those.contains(line));
                lines.map(|line| format!("    {line}\n")).collect::<String>()
            };
            let (ours, theirs) = match (only(&ours, &theirs), only(&theirs, &ours)) {
                // The order differs.
                (first, second) if first.is_empty() && second.is_empty() => {
                    (ours.join("\n"), theirs.join("\n"))
                }
                both => both,
            };
            differences
                .push(format!("=== {}\n  only we:\n{ours}  only nginx:\n{theirs}", case.name));
        }
    }
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

#[test]
fn files_are_served_alike() {
    compare(include_str!("like_nginx/files.txt"));
}

#[test]
fn requests_are_routed_and_refused_alike() {
    compare(include_str!("like_nginx/requests.txt"));
}

#[test]
fn upstreams_are_asked_alike() {
    compare(include_str!("like_nginx/proxy.txt"));
}

#[test]
fn access_is_limited_alike() {
    compare(include_str!("like_nginx/access.txt"));
}

#[test]
fn directories_are_listed_alike() {
    compare(include_str!("like_nginx/listings.txt"));
}

/// Of which directives something is compared here.
#[test]
fn many_directives_are_compared() {
    let texts = [
        include_str!("like_nginx/files.txt"),
        include_str!("like_nginx/requests.txt"),
        include_str!("like_nginx/proxy.txt"),
        include_str!("like_nginx/access.txt"),
        include_str!("like_nginx/listings.txt"),
    ];
    let known: BTreeSet<_> =
        wssgate_config::registry::rows().iter().map(|row| &*row.name).collect();
    let mut compared = BTreeSet::new();
    for case in texts.into_iter().flat_map(cases) {
        let text = format!("{}\n{}", case.http, case.server);
        let words =
            text.split([';', '{', '}', '\n']).filter_map(|line| line.split_whitespace().next());
        compared.extend(words.filter_map(|word| known.get(word)).copied());
    }
    assert!(compared.len() >= 120, "{}: {compared:?}", compared.len());
}
