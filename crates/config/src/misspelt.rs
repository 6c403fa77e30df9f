//! Names of request fields that are probably misspelt. nginx knows a variable for any name, which is empty then.

use wssgate_syntax::closest;

/// Fields that configurations ask for, as variables name them.
const FIELDS: [&str; 30] = [
    "accept",
    "accept_encoding",
    "accept_language",
    "authorization",
    "cf_connecting_ip",
    "connection",
    "content_length",
    "content_type",
    "cookie",
    "forwarded",
    "host",
    "if_modified_since",
    "if_none_match",
    "origin",
    "range",
    "referer",
    "sec_websocket_extensions",
    "sec_websocket_key",
    "sec_websocket_protocol",
    "sec_websocket_version",
    "upgrade",
    "user_agent",
    "via",
    "x_forwarded_for",
    "x_forwarded_host",
    "x_forwarded_port",
    "x_forwarded_proto",
    "x_real_ip",
    "x_request_id",
    "x_requested_with",
];

/// Names as near to one of them that are fields of their own.
const OTHERS: [&str; 9] = [
    "cookie2",
    "ranges",
    "x_forwarded",
    "x_forwarded_by",
    "x_forwarded_ip",
    "x_forwarded_ssl",
    "x_forwarded_user",
    "x_request_ip",
    "x_requested_by",
];

/// The field that was probably meant by `$http_NAME`. Short names are too near to each other to tell.
pub(crate) fn misspelt_field(name: &str) -> Option<&'static str> {
    let name = name.replace('-', "_");
    if FIELDS.contains(&&*name) || OTHERS.contains(&&*name) {
        return None;
    }
    let found = closest(&name, FIELDS.into_iter().filter(|field| field.len() > 5))?;
    // A slip changes a letter or two, not a word of a longer name.
    let near = name.len().abs_diff(found.len()) <= 1 && slips(&name, found) <= 2;
    near.then_some(found)
}

/// Letters that differ between the common beginning and the common end.
fn slips(name: &str, other: &str) -> usize {
    let (name, other) = (name.as_bytes(), other.as_bytes());
    let head = name.iter().zip(other).take_while(|(a, b)| a == b).count();
    let rest = name.len().min(other.len()) - head;
    let tail = name.iter().rev().zip(other.iter().rev()).take(rest).take_while(|(a, b)| a == b);
    name.len().max(other.len()) - head - tail.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_told_and_other_fields_are_not() {
        for (name, expected) in [
            ("upgrad", Some("upgrade")),
            ("upgarde", Some("upgrade")),
            ("ugprade", Some("upgrade")),
            ("uprgade", Some("upgrade")),
            ("referrer", Some("referer")),
            ("conection", Some("connection")),
            ("user_agnet", Some("user_agent")),
            ("x_forwarded_fro", Some("x_forwarded_for")),
            ("orign", Some("origin")),
            ("sec_websocket_protocal", Some("sec_websocket_protocol")),
            ("upgrade", None),
            ("x_forwarded_port", None),
            ("x_forwarded_ssl", None),
            ("x_real_port", None),
            ("x_request_ip", None),
            ("upgrade_insecure_requests", None),
            ("x_own", None),
            ("dnt", None),
            ("te", None),
            ("hosts", None),
            ("x_client_ip", None),
            ("true_client_ip", None),
            ("sec_fetch_site", None),
            ("token", None),
            ("x_token", None),
        ] {
            assert_eq!(misspelt_field(name), expected, "{name}");
        }
    }

    #[test]
    fn lists_are_sorted() {
        assert!(FIELDS.is_sorted() && OTHERS.is_sorted());
    }
}
