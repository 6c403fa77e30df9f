#!/usr/bin/env bash
# httpdate 1.0.3 (crates.io) reads a date of HTTP only if the name of the weekday is the right one for
# that day, in all three forms of RFC 9110 §5.6.7. Readers of such dates commonly skip the name: nginx
# does, and so does Python's email.utils. So the same `If-Modified-Since` with a wrong weekday is
# answered with 304 by one server and with 200 by another.
#
# Seen: the right name is read as 784111777 seconds, a wrong one is an error.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cargo init --quiet --vcs none --name probe
cat >>Cargo.toml <<'TOML'
httpdate = "=1.0.3"
TOML
cat >src/main.rs <<'RUST'
use std::time::UNIX_EPOCH;

fn main() {
    for text in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Mon, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Monday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Mon Nov  6 08:49:37 1994",
    ] {
        match httpdate::parse_http_date(text) {
            Ok(time) => println!("{}", time.duration_since(UNIX_EPOCH).unwrap().as_secs()),
            Err(error) => println!("{error}"),
        }
    }
}
RUST
seen=$(cargo run --quiet)
error='string contains no or an invalid date'
expected=$(printf '%s\n' 784111777 "$error" 784111777 "$error" 784111777 "$error")
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || { echo 'changed: httpdate 1.0.3 reads these dates otherwise' >&2; exit 1; }
python3 - <<'PYTHON'
from email.utils import parsedate_tz, mktime_tz
assert mktime_tz(parsedate_tz("Mon, 06 Nov 1994 08:49:37 GMT")) == 784111777
PYTHON
echo 'as described'
