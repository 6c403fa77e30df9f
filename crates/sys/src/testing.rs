//! Tests that change what a whole process may do.

use std::process::Command;

use crate::privileges::{User, become_user, drop_capabilities, is_root};
use crate::process::set_descriptor_limit;

/// Runs a test once more, alone in a process of an ordinary user that may open `most` descriptors: what the test does is
/// in `test`, and `name` is its own with all modules, as `module_path!` and the test's name say it.
///
/// # Panics
/// When the test fails.
pub fn alone(name: &str, most: u64, test: impl FnOnce()) {
    const VARIABLE: &str = "WSSGATE_TEST_ALONE";
    let (_, name) = name.split_once("::").expect("begins with the crate");
    if std::env::var(VARIABLE).as_deref() != Ok(name) {
        let own = std::env::current_exe().expect("has a path");
        let mut command = Command::new(own);
        command.args(["--exact", name, "--nocapture"]).env(VARIABLE, name);
        let output = command.output().expect("can be started again");
        let told = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("1 passed"), "{told}{errors}");
        return;
    }
    set_descriptor_limit(most).expect("can be lowered");
    if is_root() {
        // A number of its own, for the kernel counts by user which descriptors are on their way.
        let uid = 1_000_000 + std::process::id();
        let user = User { name: "nobody".into(), uid, gid: 65_534 };
        become_user(&user).and_then(|()| drop_capabilities()).expect("root may do so");
    }
    test();
}

/// How many descriptors this process has open, with one for looking.
pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("is mounted").count()
}
