//! Programs that change a zone: what they are told, and what becomes of them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use wssgate_dns01::Hook;
use wssgate_testkit::wait_until;

/// A hook that is this shell script, called in a directory of its own (`$1`).
fn script(text: &str) -> (TempDir, Hook) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hook.sh");
    fs::write(&path, text).unwrap();
    let args = [&path, dir.path()].map(|path| path.display().to_string());
    // By the shell's name: a file that was just written may still be busy.
    let hook = Hook::new(PathBuf::from("/bin/sh"), args.to_vec());
    (dir, hook)
}

fn read(dir: &TempDir, name: &str) -> String {
    fs::read_to_string(dir.path().join(name)).unwrap()
}

/// Whether a process is there and no zombie.
fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}

const RECORD: &str = "_acme-challenge.a.test";

#[tokio::test]
async fn a_program_is_told_by_arguments_and_environment() {
    let (dir, hook) = script(
        "cd $1; shift; echo \"$@\" >> args; echo $$ > pid; cat > stdin
         env | grep -E '^(WSSGATE_)?ACME_|^CERTBOT_' | sort > env",
    );
    hook.present(RECORD, "v a").await.unwrap();
    let env = read(&dir, "env");
    let expected = "ACME_ACTION=present\nACME_DOMAIN=a.test\nACME_RECORD=_acme-challenge.a.test\n\
                    ACME_VALUE=v a\nCERTBOT_DOMAIN=a.test\nCERTBOT_VALIDATION=v a\n\
                    WSSGATE_ACME_ACTION=present\n";
    assert_eq!(env, expected);
    assert_eq!(read(&dir, "stdin"), "");
    let pid = read(&dir, "pid");
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "it is not left behind");
    hook.cleanup(RECORD, "v a").await.unwrap();
    let args = "present _acme-challenge.a.test. v a\ncleanup _acme-challenge.a.test. v a\n";
    assert_eq!(read(&dir, "args"), args);
}

#[tokio::test]
async fn what_a_program_says_last_is_why_it_failed() {
    for (text, expected) in [
        (
            "echo first >&2; echo 'no such zone' >&2; echo >&2; exit 3",
            "present\" ended with 3: no such zone",
        ),
        ("exit 1", "present\" ended with 1"),
        ("kill -9 $$", "present\" was killed by signal 9"),
        (
            "head -c 100000 /dev/zero | tr '\\0' x >&2; echo >&2; echo end >&2; exit 1",
            "ended with 1: end",
        ),
    ] {
        let error = script(text).1.present(RECORD, "v").await.unwrap_err();
        assert!(error.ends_with(expected), "{error}");
    }
    let none = Hook::new("/nonexistent/hook".into(), Vec::new());
    let error = none.present(RECORD, "v").await.unwrap_err();
    let expected = "cannot start \"/nonexistent/hook\": (2: No such file or directory)";
    assert_eq!(error, expected);
}

#[tokio::test]
async fn a_program_that_takes_too_long_ends_with_all_that_it_has_started() {
    let (dir, hook) = script("cd $1; sleep 1000 & echo $! > child; echo $$ > pid; wait");
    let hook = hook.with_patience(Duration::from_secs(2));
    let error = hook.present(RECORD, "v").await.unwrap_err();
    assert!(error.ends_with("present\" was killed: it took more than 2 seconds"), "{error}");
    for name in ["pid", "child"] {
        let pid = read(&dir, name);
        wait_until("the end of what the hook has started", || !lives(&pid));
    }
}

/// A daemon goes on, and may hold the pipe for ever.
#[tokio::test]
async fn a_program_that_leaves_a_daemon_leaves_nothing_of_ours() {
    let (dir, hook) = script(
        "cd $1; setsid sh -c 'echo $$ > new; mv new daemon; exec sleep 1000' &
         until [ -e daemon ]; do sleep 0.01; done; echo 'see the daemon' >&2; exit 1",
    );
    let error = hook.present(RECORD, "v").await.unwrap_err();
    assert!(error.ends_with("present\" ended with 1: see the daemon"), "{error}");
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let daemon = read(&dir, "daemon").trim().to_owned();
    let pipe = fs::read_link(format!("/proc/{daemon}/fd/2")).unwrap();
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let open = open.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
    let ours = open.filter(|open| *open == pipe).count();
    let _ = wssgate_sys::process::kill(daemon.parse().unwrap(), 9);
    assert_eq!((tasks, ours), (0, 0));
}

#[tokio::test]
async fn a_program_whose_caller_has_gone_ends() {
    let (dir, hook) = script("cd $1; echo $$ > new; mv new pid; sleep 1000");
    let path = dir.path().join("pid");
    let waiting = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = hook.present(RECORD, "v") => panic!("it waits"),
        () = waiting => {}
    }
    let pid = read(&dir, "pid");
    wait_until("the end of the hook", || !lives(&pid));
}
