#![allow(clippy::unwrap_used)]

use super::*;

/// The key and the answer of RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

type Fields<'a> = &'a [(&'a str, &'a str)];

fn bytes<'a>(fields: Fields<'a>) -> impl Iterator<Item = Field<'a>> {
    fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

const REQUEST: Fields<'_> = &[
    ("Host", "example.com"),
    ("Upgrade", "websocket"),
    ("Connection", "keep-alive, Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
];

const ANSWER: Fields<'_> =
    &[("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ACCEPT)];

/// `fields` without those called `name`, and with `value` in their place.
fn with<'a>(fields: Fields<'a>, name: &'a str, values: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let kept = fields.iter().copied().filter(|field| field.0 != name);
    kept.chain(values.iter().map(|value| (name, *value))).collect()
}

#[test]
fn the_key_of_rfc_6455_gets_its_answer() {
    assert_eq!(accept_key(KEY.as_bytes()), ACCEPT.as_bytes());
    assert_eq!(encode_key(*b"the sample nonce"), KEY.as_bytes());
}

#[test]
fn a_request_of_ours_is_valid_and_gets_its_own_fields() {
    let key = encode_key([7; 16]);
    let head = encode_request("/chat", "up.test", &key, &[(b"Origin", b"https://a.test")]);
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
    assert_eq!(lines.next(), Some("GET /chat HTTP/1.1"));
    let fields: Vec<_> = lines.map(|line| line.split_once(": ").unwrap()).collect();
    assert_eq!(fields.first(), Some(&("Host", "up.test")));
    assert_eq!(fields.last(), Some(&("Origin", "https://a.test")));
    assert_eq!(check_request(b"GET", true, bytes(&fields)), Ok(()));
}

#[test]
fn requests_are_judged_by_rfc_6455_section_4_2_1() {
    let cases: &[(&str, &[&str], Result<(), RequestError>)] = &[
        ("Host", &[], Ok(())),
        ("Upgrade", &["h2c, WebSocket"], Ok(())),
        ("Upgrade", &["h2c", "WEBSOCKET "], Ok(())),
        ("Upgrade", &[], Err(RequestError::Upgrade)),
        ("Upgrade", &["websocket/13"], Err(RequestError::Upgrade)),
        ("Connection", &["upgrade"], Ok(())),
        ("Connection", &["keep-alive"], Err(RequestError::Connection)),
        ("Connection", &[], Err(RequestError::Connection)),
        ("Sec-WebSocket-Key", &[], Err(RequestError::NoKey)),
        ("Sec-WebSocket-Key", &[KEY, KEY], Err(RequestError::SeveralKeys)),
        ("Sec-WebSocket-Key", &[""], Err(RequestError::BadKey)),
        ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ"], Err(RequestError::BadKey)),
        ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ=="], Ok(())),
        ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZR=="], Ok(())),
        ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25j Q=="], Err(RequestError::BadKey)),
        ("Sec-WebSocket-Version", &["8"], Err(RequestError::WebSocketVersion)),
        ("Sec-WebSocket-Version", &["13", "8"], Err(RequestError::WebSocketVersion)),
        ("Sec-WebSocket-Version", &[], Err(RequestError::WebSocketVersion)),
        ("Content-Length", &["0"], Ok(())),
        ("Content-Length", &["5"], Err(RequestError::Body)),
        ("Transfer-Encoding", &["chunked"], Err(RequestError::Body)),
    ];
    for (name, values, expected) in cases {
        let fields = with(REQUEST, name, values);
        assert_eq!(check_request(b"GET", true, bytes(&fields)), *expected, "{name}: {values:?}");
    }
    assert_eq!(check_request(b"POST", true, bytes(REQUEST)), Err(RequestError::Method));
    assert_eq!(check_request(b"GET", false, bytes(REQUEST)), Err(RequestError::HttpVersion));
}

#[test]
fn without_upgrade_nothing_is_offered() {
    assert_eq!(Offer::from_request(bytes(&[("Host", "a")])), None);
    assert_eq!(Offer::from_request(bytes(&[("Upgrade", " , ")])), None);
    let offer = Offer::from_request(bytes(REQUEST)).unwrap();
    assert!(offer.names_websocket());
    assert_eq!(offer.upgrade(), b"websocket");
}

fn judged(request: Fields<'_>, answer: Fields<'_>) -> Result<Switched, SwitchError> {
    Offer::from_request(bytes(request)).unwrap().check_answer(bytes(answer))
}

#[test]
fn the_right_answer_switches() {
    let oddities = Vec::new();
    let plain = Switched::WebSocket { subprotocol: None, extensions: Extensions::NONE, oddities };
    assert_eq!(judged(REQUEST, ANSWER), Ok(plain.clone()));
    let loose: Fields<'_> = &[
        ("UPGRADE", "WebSocket"),
        ("connection", "keep-alive , uPgRaDe"),
        ("sec-websocket-accept", " s3pPLMBiTxaQ9kYGzzhZRbK+xOo= "),
    ];
    assert_eq!(judged(REQUEST, loose), Ok(plain));
}

#[test]
fn answers_that_do_not_fit_the_request_are_refused_with_a_reason() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("Upgrade", &[], "it has no \"Upgrade\" header"),
        ("Upgrade", &["h2c"], "it switches to \"h2c\", which"),
        ("Upgrade", &["websocket, foo"], "it switches to \"foo\", which"),
        ("Sec-WebSocket-Accept", &[], "it has no \"Sec-WebSocket-Accept\" header"),
        ("Sec-WebSocket-Accept", &["wrong"], "its \"Sec-WebSocket-Accept\" \"wrong\" does not"),
        ("Sec-WebSocket-Accept", &["S3PPLMBITXAQ9KYGZZHZRBK+XOO="], "its \"Sec-WebSocket-Accept\""),
        (
            "Sec-WebSocket-Accept",
            &[ACCEPT, ACCEPT],
            "it has more than one \"Sec-WebSocket-Accept\"",
        ),
    ];
    for (name, values, message) in cases {
        let error = judged(REQUEST, &with(ANSWER, name, values)).unwrap_err().to_string();
        assert!(error.starts_with(message), "{name}: {values:?} gave: {error}");
    }
}

/// What is odd about an answer that switches.
fn oddities(request: Fields<'_>, answer: Fields<'_>) -> Vec<String> {
    match judged(request, answer) {
        Ok(Switched::WebSocket { oddities, .. }) => {
            oddities.iter().map(|oddity| oddity.to_string()).collect()
        }
        other => panic!("{answer:?} gave {other:?}"),
    }
}

#[test]
fn what_the_client_has_to_judge_switches_and_is_told() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("Connection", &[], "its \"Connection\" header does not name \"upgrade\""),
        ("Connection", &["close"], "its \"Connection\" header does not name \"upgrade\""),
        ("Sec-WebSocket-Protocol", &["chat"], "it selects the subprotocol \"chat\", which"),
        ("Sec-WebSocket-Protocol", &[""], "it selects the subprotocol \"\", which"),
        ("Sec-WebSocket-Protocol", &["a", "a"], "it has more than one \"Sec-WebSocket-Protocol\""),
        ("Sec-WebSocket-Extensions", &["permessage-deflate"], "it uses the extension \"permess"),
    ];
    for (name, values, message) in cases {
        let found = oddities(REQUEST, &with(ANSWER, name, values));
        assert_eq!(found.len(), 1, "{name}: {values:?}");
        assert!(found[0].starts_with(message), "{name}: {values:?} gave: {found:?}");
    }
    let all: Fields<'_> = &[
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Accept", ACCEPT),
        ("Sec-WebSocket-Protocol", "mqtt"),
        ("Sec-WebSocket-Extensions", "foo"),
    ];
    assert_eq!(oddities(REQUEST, all).len(), 3);
}

#[test]
fn an_offered_subprotocol_is_chosen_as_it_was_written() {
    let request = with(REQUEST, "Sec-WebSocket-Protocol", &["mqtt, chat", "v2.chat"]);
    for (values, odd) in [
        (&["chat"][..], false),
        (&["v2.chat"], false),
        (&["Chat"], true),
        (&["mqtt, chat"], true),
        (&[""], true),
        (&["chat", "chat"], true),
    ] {
        let answer = with(ANSWER, "Sec-WebSocket-Protocol", values);
        let Ok(Switched::WebSocket { subprotocol, oddities, .. }) = judged(&request, &answer)
        else {
            panic!("{values:?} is the client's business");
        };
        assert_eq!(subprotocol.as_deref(), Some(values[0].as_bytes()));
        assert_eq!(!oddities.is_empty(), odd, "{values:?}");
    }
}

#[test]
fn extensions_say_which_bits_are_allowed_offered_or_not() {
    let name = "Sec-WebSocket-Extensions";
    let offer = ["permessage-deflate; client_max_window_bits, foo; a=\"b,c\"", "bar"];
    let request = with(REQUEST, name, &offer);
    let cases: &[(&[&str], Extensions, bool)] = &[
        (&["permessage-deflate; server_no_context_takeover"], Extensions::DEFLATE, false),
        (&["permessage-deflate", "foo"], Extensions::UNKNOWN, false),
        (&["bar"], Extensions::UNKNOWN, false),
        (&[""], Extensions::NONE, false),
        (&["permessage-deflate, c"], Extensions::UNKNOWN, true),
    ];
    for (values, expected, odd) in cases {
        let Ok(Switched::WebSocket { extensions, oddities, .. }) =
            judged(&request, &with(ANSWER, name, values))
        else {
            panic!("{values:?} is the client's business");
        };
        assert_eq!(extensions, *expected, "{values:?}");
        assert_eq!(!oddities.is_empty(), *odd, "{values:?}");
    }
}

#[test]
fn without_exactly_one_key_nothing_proves_websocket() {
    for keys in [&[][..], &[KEY, KEY]] {
        let request = with(REQUEST, "Sec-WebSocket-Key", keys);
        assert_eq!(judged(&request, ANSWER), Err(SwitchError::NoKey));
    }
}

#[test]
fn of_another_protocol_only_the_name_is_checked() {
    let request: Fields<'_> = &[("Upgrade", "foo, TLS/1.3"), ("Connection", "upgrade")];
    assert_eq!(judged(request, &[("Upgrade", "FOO")]), Ok(Switched::Other));
    assert_eq!(judged(request, &[("Upgrade", "tls/1.3, foo")]), Ok(Switched::Other));
    let error = judged(request, &[("Upgrade", "websocket")]);
    assert_eq!(error, Err(SwitchError::OtherProtocol("\"websocket\"".into())));
}

#[test]
fn what_others_sent_is_shown_escaped_and_short() {
    let long = format!("x\r\n{}", "y".repeat(100));
    let error = judged(REQUEST, &with(ANSWER, "Upgrade", &[&long])).unwrap_err().to_string();
    assert!(error.contains(r#""x\r\nyyy"#) && error.contains(r#"yyy...""#), "{error}");
    assert!(error.len() < 160, "{error}");
}
