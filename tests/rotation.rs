//! Log rotation as Debian does it: logrotate moves the files, makes new ones and sends USR1. The same is asked of
//! nginx, where it is installed.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use wssgate_sys::privileges;
use wssgate_testkit::{Conn, Instance, NGINX, http, skipped, wait_until, with_nginx};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");
const LOGROTATE: &str = "/usr/sbin/logrotate";

/// Workers may write into the directory of the test.
const ROOT: &str = "user root;";

/// How often the logs are rotated under load.
const ROTATIONS: usize = 6;
/// Who asks meanwhile.
const CLIENTS: usize = 4;
/// How long a client rests between two requests, or all lines together would take long to read.
const PACE: Duration = Duration::from_micros(500);

/// Runs logrotate once on the logs of `server`, with these lines besides Debian's.
fn rotate(server: &Instance, lines: &str) {
    let path = |name: &str| server.dir().join(name).display().to_string();
    // `/etc/logrotate.d/nginx`, with the signal that `invoke-rc.d nginx rotate` sends.
    let conf = format!(
        "{0}/*.log {0}/packed.gz {{
            daily
            missingok
            rotate 14
            notifempty
            sharedscripts
            {lines}
            postrotate
                kill -USR1 `cat {0}/nginx.pid`
            endscript
        }}",
        server.dir().display()
    );
    fs::write(path("logrotate.conf"), conf).unwrap();
    let output = Command::new(LOGROTATE)
        .args(["--force", "--state", &path("state"), &path("logrotate.conf")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// What stands in the file with this name and in all that it was rotated to, oldest first.
fn whole(dir: &Path, name: &str) -> String {
    let mut files: BTreeMap<usize, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let Some(rest) = path.file_name().unwrap().to_str().unwrap().strip_prefix(name) else {
            continue;
        };
        let age = rest.trim_start_matches('.').trim_end_matches(".gz");
        files.insert(age.parse().unwrap_or(0), path);
    }
    files.values().rev().map(|path| content(path)).collect()
}

/// The text of a file that may have been compressed: by the server, then by logrotate.
fn content(path: &Path) -> String {
    let mut bytes = fs::read(path).unwrap();
    while bytes.starts_with(&[0x1f, 0x8b]) {
        let mut text = Vec::new();
        flate2::read::MultiGzDecoder::new(&*bytes).read_to_end(&mut text).unwrap();
        bytes = text;
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn no_line_is_lost_or_doubled_by_logrotate_under_load() {
    if !Path::new(LOGROTATE).exists() {
        return skipped("rotation: logrotate is not installed");
    }
    const LOGS: [&str; 4] = ["access.log", "other.log", "buffered.log", "packed.gz"];
    let create =
        if wssgate_sys::privileges::is_root() { "create 0640 www-data adm" } else { "create" };
    for exe in with_nginx(WSSGATE) {
        let mut server = Instance::setup(exe)
            .main_and_http(
                &format!("{ROOT} worker_processes 2;"),
                "log_format n '$request_uri';
                 keepalive_requests 1000000;
                 server { listen %%LISTEN_0%%; error_log %%DIR%%/errors.log;
                     access_log %%DIR%%/access.log n;
                     access_log %%DIR%%/other.log n;
                     access_log %%DIR%%/buffered.log n buffer=2k flush=50ms;
                     access_log %%DIR%%/packed.gz n gzip buffer=1k flush=50ms;
                     location / { return 204; }
                     location /missing/ { root %%DIR%%/none; } }",
            )
            .start();
        let (over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        let address = server.listen(0);
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (over, count) = (&over, &count);
                scope.spawn(move || {
                    let mut conn = Conn::connect(address);
                    for number in 0.. {
                        if over.load(Ordering::SeqCst) {
                            break;
                        }
                        // Every tenth is an error, too.
                        let folder = if number % 10 == 0 { "/missing" } else { "" };
                        let path = format!("{folder}/{client}-{number}");
                        conn.send_raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
                        conn.recv_response();
                        count.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(PACE);
                    }
                });
            }
            for _ in 0..ROTATIONS {
                let before = count.load(Ordering::SeqCst);
                wait_until("some requests", || count.load(Ordering::SeqCst) > before + 100);
                rotate(&server, &format!("compress\ndelaycompress\n{create}"));
                let after = count.load(Ordering::SeqCst);
                wait_until("requests in the new files", || {
                    count.load(Ordering::SeqCst) > after + 100
                        && fs::metadata(server.dir().join("access.log")).unwrap().len() > 0
                });
            }
            over.store(true, Ordering::SeqCst);
        });
        server.signal("QUIT");
        wait_until("the end", || server.has_ended());
        let count = count.into_inner();
        for log in LOGS {
            let text = whole(server.dir(), log);
            let mut lines: Vec<_> = text.lines().collect();
            let written = lines.len();
            lines.sort_unstable();
            lines.dedup();
            assert_eq!((written, lines.len()), (count, count), "{exe} {log}");
        }
        let missing = whole(server.dir(), "access.log").matches("/missing/").count();
        let errors = whole(server.dir(), "errors.log").matches("failed (2: No such file").count();
        assert_eq!(errors, missing, "{exe}");
        assert!(server.dir().join("access.log.2.gz").exists() && errors > 0, "{exe}");
    }
}

/// Owner, group and permissions of a file.
fn rights(path: &Path) -> (u32, u32, u32) {
    let file = fs::metadata(path).unwrap();
    (file.uid(), file.gid(), file.mode() & 0o7777)
}

#[test]
fn the_new_files_belong_to_those_whom_nginx_gives_them() {
    if !Path::new(LOGROTATE).exists() || !privileges::is_root() {
        return skipped("owners of rotated logs: needs logrotate and root");
    }
    let user = privileges::user("www-data").unwrap().expect("Debian has this user");
    let ways =
        ["create 0640 www-data adm", "create 0600 root root", "create", "nocreate", "copytruncate"];
    for way in ways {
        let rights: Vec<_> = with_nginx(WSSGATE)
            .map(|exe| {
                let server = Instance::setup(exe)
                    .main_and_http(
                        "user www-data;",
                        "server { listen %%LISTEN_0%%; location / { return 204; } }",
                    )
                    .start();
                // An empty log would not be rotated.
                server.wait_for_log("start");
                let mut found = vec![rights(&server.dir().join("access.log"))];
                http::get(server.listen(0), "a", "/before");
                server.wait_for_access("/before");
                rotate(&server, way);
                wait_until("a line in the new file", || {
                    http::get(server.listen(0), "a", "/after");
                    server.read("access.log").contains("/after")
                });
                // Lines go on before and while the files are opened again.
                wait_until("the owner of both files", || {
                    ["access.log", "error.log"]
                        .iter()
                        .all(|name| rights(&server.dir().join(name)).0 == user.uid)
                });
                assert!(server.read("access.log.1").contains("/before"), "{exe} {way}");
                // No hole where the old content was.
                assert!(!server.read("access.log").contains('\0'), "{exe} {way}");
                for name in ["access.log", "error.log", "access.log.1"] {
                    let (owner, group, mode) = rights(&server.dir().join(name));
                    // Files that nobody made before us are of the workers' group. nginx makes them as root.
                    let group = if way == "nocreate" { 0 } else { group };
                    found.push((owner, group, mode));
                }
                found
            })
            .collect();
        assert!(rights.iter().all(|found| *found == rights[0]), "{way}: {rights:?}");
    }
}

/// `access.log` and `error.log` are rotated into something that takes no lines.
#[test]
fn a_log_that_cannot_be_opened_again_goes_on_where_it_was() {
    for exe in with_nginx(WSSGATE) {
        let server = Instance::setup(exe)
            .main_and_http(
                ROOT,
                "server { listen %%LISTEN_0%%; location / { return 204; }
                     access_log %%DIR%%/logs/access.log; access_log %%DIR%%/healthy.log; }",
            )
            .file("logs/old", "")
            .start();
        let get = |path: &str| http::get(server.listen(0), "a", path);
        let logs = server.dir().join("logs");
        let moved = server.dir().join("moved");
        fs::rename(&logs, &moved).unwrap();
        fs::write(&logs, "no directory").unwrap();
        server.signal("USR1");
        let line = server.wait_for_log("logs/access.log\" failed (20: Not a directory)");
        assert!(line.contains("[emerg]"), "{exe}: {line}");
        get("/1");
        server.wait_for_line("moved/access.log", "/1");
        server.wait_for_line("healthy.log", "/1");
        // Once it is possible, the next signal mends it.
        fs::remove_file(&logs).unwrap();
        fs::create_dir(&logs).unwrap();
        fs::set_permissions(&logs, fs::Permissions::from_mode(0o755)).unwrap();
        server.signal("USR1");
        wait_until("the new file", || logs.join("access.log").exists());
        wait_until("a line in it", || {
            get("/2");
            server.read("logs/access.log").contains("/2")
        });
    }
}

#[test]
fn a_disk_that_is_full_after_a_rotation_costs_only_what_it_cannot_take() {
    for exe in with_nginx(WSSGATE) {
        let server = Instance::setup(exe)
            .main_and_http(
                ROOT,
                "log_format n '$request_uri'; server { listen %%LISTEN_0%%; location / { return 204; }
                     access_log %%DIR%%/full.log n; access_log %%DIR%%/buffered.log n buffer=1k flush=20ms;
                     access_log %%DIR%%/healthy.log n; }",
            )
            .start();
        let get = |path: &str| assert_eq!(http::get(server.listen(0), "a", path).status, 204);
        let path = |name: &str| server.dir().join(name);
        get("/before");
        server.wait_for_line("buffered.log", "/before");
        for name in ["full.log", "buffered.log"] {
            fs::rename(path(name), path(&format!("{name}.1"))).unwrap();
            symlink("/dev/full", path(name)).unwrap();
        }
        let reopened = |times: usize| {
            server.signal("USR1");
            let marks = if exe == NGINX { 3 } else { 1 };
            wait_until("the rotation", || {
                server.error_log().matches("reopening logs").count() == times * marks
            });
        };
        reopened(1);
        // Said before it is done.
        wait_until("the end of the old files", || {
            !["full.log.1", "buffered.log.1"].iter().any(|name| is_open(&path(name)))
        });
        get("/lost");
        for name in ["full.log", "buffered.log"] {
            let text = format!("write() to \"{}\" failed (28: No space left", path(name).display());
            let line = server.wait_for_log(&text);
            assert!(line.contains("[alert]"), "{exe}: {line}");
        }
        server.wait_for_line("healthy.log", "/lost");
        for name in ["full.log", "buffered.log"] {
            fs::remove_file(path(name)).unwrap();
            File::create(path(name)).unwrap();
        }
        reopened(2);
        wait_until("the new files", || {
            ["full.log", "buffered.log"].iter().all(|name| is_open(&path(name)))
        });
        for name in ["full.log", "buffered.log"] {
            let after = format!("/after/{name}");
            get(&after);
            // For the rest of the second nginx does not try again.
            wait_until("the first line", || {
                let is_there = server.read(name).contains(&after);
                if exe == NGINX && !is_there {
                    get(&after);
                }
                is_there
            });
            assert!(server.read(name).lines().all(|line| line.starts_with("/after")), "{exe}");
            assert_eq!(server.read(&format!("{name}.1")), "/before\n", "{exe} {name}");
        }
        assert!(server.read("healthy.log").starts_with("/before\n/lost\n/after"), "{exe}");
    }
}

/// Whether any process has this file open.
fn is_open(path: &Path) -> bool {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    entries(Path::new("/proc"))
        .flat_map(|process| entries(&process.path().join("fd")).collect::<Vec<_>>())
        .any(|open| fs::read_link(open.path()).is_ok_and(|target| target == path))
}
