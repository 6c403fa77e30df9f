//! The one place that reads the time.
//!
//! Log lines and `Date` fields need the time as text, many times a second and to the second only.
//! Each form is made once per thread and second.

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use wssgate_sys::process::monotonic_micros;

/// The wall clock.
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// One moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For how long something took.
    pub instant: Instant,
    /// By the wall.
    pub wall: SystemTime,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self { instant: Instant::now(), wall: now() }
    }
}

/// Moments as other processes of this machine know them: in microseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedClock {
    now: Instant,
    micros: u64,
}

impl SharedClock {
    /// That of now.
    pub(crate) fn now() -> Self {
        Self { now: Instant::now(), micros: monotonic_micros() }
    }

    /// A moment that has been, or is to come.
    pub(crate) fn micros_of(&self, moment: Instant) -> u64 {
        match moment.checked_duration_since(self.now) {
            Some(ahead) => self.micros.saturating_add(micros(ahead)),
            None => self.micros.saturating_sub(micros(self.now - moment)),
        }
    }

    /// The moment; the present if this process cannot have it.
    pub(crate) fn moment(&self, micros: u64) -> Instant {
        let moment = match micros.checked_sub(self.micros) {
            Some(ahead) => self.now.checked_add(Duration::from_micros(ahead)),
            None => self.now.checked_sub(Duration::from_micros(self.micros - micros)),
        };
        moment.unwrap_or(self.now)
    }
}

/// Whole microseconds; more than there is room for is for ever.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Time since 1970, for `$msec` and the like; zero if the clock is before that.
pub fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time in seconds since the Unix epoch, as certificates have it.
pub(crate) fn unix_seconds() -> i64 {
    i64::try_from(since_epoch(now()).as_secs()).unwrap_or(i64::MAX)
}

/// Whole milliseconds; more than there is room for is for ever.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The time of error lines: `2026/11/22 18:27:37`, local.
pub fn error_log_time(time: SystemTime) -> String {
    cached(0, time, |timestamp| local(timestamp, "%Y/%m/%d %H:%M:%S"))
}

/// `$time_local`: `22/Nov/2026:18:27:37 +0000`.
pub fn time_local(time: SystemTime) -> String {
    cached(1, time, |timestamp| local(timestamp, "%d/%b/%Y:%H:%M:%S %z"))
}

/// `$time_iso8601`: `2026-11-22T18:27:37+00:00`.
pub fn time_iso8601(time: SystemTime) -> String {
    cached(2, time, |timestamp| local(timestamp, "%Y-%m-%dT%H:%M:%S%:z"))
}

/// `Date` and other times of HTTP (RFC 9110 §5.6.7): `Sun, 22 Nov 2026 18:27:37 GMT`.
pub fn http_date(time: SystemTime) -> String {
    cached(3, time, |timestamp| format_http_date(timestamp.as_second()))
}

/// The date of HTTP for seconds since 1970; those that have none (files may bear any time) are
/// brought into the range that has.
pub fn format_http_date(seconds: i64) -> String {
    // One at a time is remembered: a file that is asked for is asked for again.
    LAST_DATE.with_borrow_mut(|(last, text)| {
        if text.is_empty() || *last != seconds {
            *text = format_utc(seconds, "%a, %d %b %Y %H:%M:%S GMT");
            *last = seconds;
        }
        text.clone()
    })
}

/// Seconds since 1970 in a format of strftime, by UTC; brought into the range that has dates.
pub fn format_utc(seconds: i64, format: &str) -> String {
    let timestamp = Timestamp::from_second(seconds.max(0)).unwrap_or(Timestamp::MAX);
    timestamp.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

/// How far local time is ahead of UTC at `time`, in seconds.
pub fn utc_offset(time: SystemTime) -> i64 {
    let second = i64::try_from(since_epoch(time).as_secs()).unwrap_or(i64::MAX);
    let timestamp = Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
    i64::from(TimeZone::system().to_offset(timestamp).seconds())
}

/// The date of cookies, as Netscape wrote it: `Sun, 06-Nov-94 08:49:37 GMT`. Old browsers only know
/// years of two digits, which are no longer clear after 2037.
pub fn format_cookie_date(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds.max(0)).unwrap_or(Timestamp::MAX);
    let time = time.to_zoned(TimeZone::UTC);
    let year = if time.year() > 2037 { "%Y" } else { "%y" };
    time.strftime(&format!("%a, %d-%b-{year} %H:%M:%S GMT")).to_string()
}

/// Reads a date of HTTP in any of its three forms (RFC 9110 §5.6.7), as seconds since 1970.
///
/// As in nginx the weekday is not looked at: it says nothing that the rest does not.
pub fn parse_http_date(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (format, text) = match text.split_once(", ") {
        Some((_, rest)) if rest.contains('-') => ("%d-%b-%y %H:%M:%S GMT", rest),
        Some((_, rest)) => ("%d %b %Y %H:%M:%S GMT", rest),
        None => ("%b %e %H:%M:%S %Y", text.split_once(' ')?.1),
    };
    let time = DateTime::strptime(format, text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

/// The time of syslog lines (RFC 3164 §4.1.2): `Nov 22 18:27:37`, local.
pub fn syslog_time(time: SystemTime) -> String {
    cached(4, time, |timestamp| local(timestamp, "%b %e %H:%M:%S"))
}

/// The time in a format of strftime, in local time or `gmt`; `None` when the format is none.
pub fn format_time(time: SystemTime, format: &str, gmt: bool) -> Option<String> {
    let seconds = i64::try_from(since_epoch(time).as_secs()).ok()?;
    if format == "%s" {
        return Some(seconds.to_string());
    }
    let timestamp = Timestamp::from_second(seconds).ok()?;
    // C calls that zone GMT, jiff UTC.
    let (zone, format) = match gmt {
        true => (TimeZone::UTC, format.replace("%Z", "GMT")),
        false => (TimeZone::system(), format.to_owned()),
    };
    jiff::fmt::strtime::format(format, &timestamp.to_zoned(zone)).ok()
}

fn local(timestamp: Timestamp, format: &str) -> String {
    timestamp.to_zoned(TimeZone::system()).strftime(format).to_string()
}

const FORMS: usize = 5;

/// The last second that each form was made for, and its text.
type TextCache = [(u64, String); FORMS];

thread_local! {
    /// What [`format_http_date`] was asked for last, and its text.
    static LAST_DATE: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
    static CACHE: RefCell<TextCache> = const { RefCell::new([const { (u64::MAX, String::new()) }; FORMS]) };
}

fn cached(form: usize, time: SystemTime, make: impl FnOnce(Timestamp) -> String) -> String {
    let second = since_epoch(time).as_secs();
    CACHE.with_borrow_mut(|cache| {
        let (cached_second, text) = &mut cache[form];
        if *cached_second != second {
            let whole = i64::try_from(second).ok().and_then(|s| Timestamp::from_second(s).ok());
            *text = make(whole.unwrap_or(Timestamp::MAX));
            *cached_second = second;
        }
        text.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_the_same_on_the_shared_clock_later() {
        let before = SharedClock::now();
        let (past, future) =
            (before.now - Duration::from_millis(1_500), before.now + Duration::from_secs(5));
        let after = SharedClock::now();
        for moment in [past, before.now, future] {
            let again = after.moment(before.micros_of(moment));
            let off = again.max(moment) - again.min(moment);
            // The two clocks are not read at once.
            assert!(off < Duration::from_secs(1), "{off:?}");
        }
        assert_eq!(before.micros - before.micros_of(past), 1_500_000);
        assert_eq!(before.micros_of(future) - before.micros, 5_000_000);
        assert!(before.moment(0) <= before.now);
        before.moment(u64::MAX);
    }

    #[test]
    fn every_form_is_the_one_that_nginx_writes() {
        let time = UNIX_EPOCH + Duration::from_millis(784_111_777_999);
        assert_eq!(http_date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(error_log_time(time).len(), "1994/11/06 08:49:37".len());
        assert!(error_log_time(time).starts_with("1994/11/0"));
        assert!(time_local(time).contains("/Nov/1994:"));
        assert_eq!(time_local(time).len(), "06/Nov/1994:08:49:37 +0000".len());
        assert_eq!(time_iso8601(time).len(), "1994-11-06T08:49:37+00:00".len());
        assert!(syslog_time(time).starts_with("Nov  "), "the day is padded with a space");
    }

    #[test]
    fn every_form_of_an_http_date_is_read() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Mon, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 29 Feb 2024 12:00:00 GMT", Some(1_709_208_000)),
            ("Thu, 29 Feb 2023 12:00:00 GMT", None),
            ("Sun, 06 Foo 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", None),
            ("", None),
            ("nonsense, with comma", None),
        ] {
            assert_eq!(parse_http_date(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_format_that_is_none_gives_no_time() {
        let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (format, expected) in [
            ("%A, %d-%b-%Y %H:%M:%S %Z", Some("Sunday, 06-Nov-1994 08:49:37 GMT")),
            ("%s", Some("784111777")),
            ("%H%%", Some("08%")),
            ("%", None),
        ] {
            assert_eq!(format_time(time, format, true).as_deref(), expected, "{format}");
        }
    }

    #[test]
    fn any_time_of_a_file_has_a_date() {
        for (seconds, expected) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (-1, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (i64::MAX, "Thu, 30 Dec 9999 22:00:00 GMT"),
        ] {
            assert_eq!(format_http_date(seconds), expected);
        }
        for seconds in (0..4_000_000_000).step_by(86_399 * 97) {
            assert_eq!(parse_http_date(format_http_date(seconds).as_bytes()), Some(seconds));
        }
    }

    #[test]
    fn cookies_have_short_years_as_long_as_they_are_clear() {
        for (seconds, expected) in [
            (784_111_777, "Sun, 06-Nov-94 08:49:37 GMT"),
            (2_145_916_555, "Thu, 31-Dec-37 23:55:55 GMT"),
            (2_145_916_800, "Fri, 01-Jan-2038 00:00:00 GMT"),
        ] {
            assert_eq!(format_cookie_date(seconds), expected);
        }
    }

    #[test]
    fn a_new_second_is_a_new_text() {
        let time = UNIX_EPOCH + Duration::from_secs(1);
        assert_ne!(http_date(time), http_date(time + Duration::from_secs(1)));
        assert_eq!(http_date(time), http_date(time + Duration::from_millis(999)));
    }
}
