//! What clients may send, and what they are told if they may not.

use httparse::Status;
use proptest::prelude::*;

use super::*;
use crate::framing::Framing;
use crate::method::Method;

type Outcome = Result<Option<RequestHead>, HeadError>;

fn parse_with(input: &[u8], limits: &Limits) -> Outcome {
    RequestParser::new().parse(&mut BytesMut::from(input), limits)
}

fn parse(input: &str) -> Outcome {
    parse_with(input.as_bytes(), &Limits::default())
}

fn head(input: &str) -> RequestHead {
    parse(input).unwrap().unwrap()
}

/// A request with a Host and these field lines.
fn with(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n")
}

#[test]
fn a_head_is_kept_as_it_was_sent() {
    let mut input = BytesMut::from(
        "\r\n\nPOST /a/../b?c HTTP/1.1\r\nhOST: Example.com:80\r\nX: \t1 2\t\r\nx:3\nContent-Length: 4\r\n\r\nbody",
    );
    let mut parser = RequestParser::new();
    let head = parser.parse(&mut input, &Limits::default()).unwrap().unwrap();
    assert_eq!(&input[..], b"body");
    assert_eq!((head.method(), head.method_name()), (Method::Post, &b"POST"[..]));
    assert_eq!((head.version(), head.protocol()), (Version::Http11, &b"HTTP/1.1"[..]));
    assert_eq!(head.request_line(), b"POST /a/../b?c HTTP/1.1");
    assert_eq!((head.target(), &head.request_uri()[..]), (&b"/a/../b?c"[..], &b"/a/../b?c"[..]));
    assert_eq!(head.uri(true).unwrap().path, "/b");
    assert_eq!(head.host().map(|h| (h.name(), h.port())), Some((&b"example.com"[..], Some(80))));
    assert_eq!(head.framing(), Framing::Length(4));
    assert_eq!(head.raw_len(), 82);
    let fields: Vec<_> = head.fields().iter().collect();
    assert_eq!(
        fields,
        [
            (&b"hOST"[..], &b"Example.com:80"[..]),
            (b"X", b"1 2"),
            (b"x", b"3"),
            (b"Content-Length", b"4")
        ]
    );
    assert!(!parser.in_head());
}

#[test]
fn one_parser_reads_pipelined_requests() {
    let mut input = BytesMut::from("GET /1 HTTP/1.0\r\n\r\nGET /2\r\nGET /3 HTTP/1.0\nA: b\n\nG");
    let mut parser = RequestParser::new();
    let mut next = || {
        parser
            .parse(&mut input, &Limits::default())
            .unwrap()
            .map(|head| (head.version(), head.request_uri()))
    };
    assert_eq!(next(), Some((Version::Http10, "/1".into())));
    assert_eq!(next(), Some((Version::Http09, "/2".into())));
    assert_eq!(next(), Some((Version::Http10, "/3".into())));
    assert_eq!(next(), None);
    assert!(parser.in_head());
}

#[test]
fn the_target_s_host_wins() {
    let head = head("GET http://A.example:81/x HTTP/1.1\r\nHost: b.example\r\n\r\n");
    assert_eq!(head.host().map(|h| (h.name(), h.port())), Some((&b"a.example"[..], Some(81))));
    assert_eq!(head.fields().first("host"), Some(&b"b.example"[..]));
    assert_eq!((head.scheme(), head.authority()), (Some(&b"http"[..]), Some(&b"A.example:81"[..])));
    assert_eq!(head.request_uri(), "/x");
}

#[test]
fn wrong_heads_are_refused_by_their_kind() {
    use HeadError::*;
    for (input, error) in [
        ("get / HTTP/1.1\r\n".into(), InvalidMethod),
        ("\x16\x03\x01".into(), InvalidMethod),
        ("GET / HTTP/3.0\r\n".into(), InvalidVersion),
        ("GET /\rHTTP/1.1\r\n".into(), InvalidRequest),
        ("GET / HTTP/1.1\r\r\n".into(), InvalidRequest),
        ("GET http://a..b/ HTTP/1.1\r\n".into(), InvalidHostInLine),
        ("GET http:/// HTTP/1.1\r\n".into(), InvalidHostInLine),
        ("GET http://a@b/ HTTP/1.1\r\n".into(), InvalidHostInLine),
        ("GET / HTTP/1.1\r\n\r\n".into(), MissingHost),
        ("GET http://a/ HTTP/1.1\r\n\r\n".into(), MissingHost),
        (with("Host: h"), DuplicateHost),
        ("GET / HTTP/1.1\r\nHost:\r\n".into(), InvalidHost),
        ("GET / HTTP/1.0\r\nHost: a b\r\n".into(), InvalidHost),
        ("GET http://a/ HTTP/1.1\r\nHost: a/b\r\n".into(), InvalidHost),
        ("GET / HTTP/1.1\r\n Host: h\r\n".into(), InvalidHeader),
        (with("a: b\r\n c"), InvalidHeader),
        (with("a: b\r\n\tc"), InvalidHeader),
        (with("a : b"), InvalidHeader),
        (with("a b: c"), InvalidHeader),
        (with("a\t: c"), InvalidHeader),
        (with(": c"), InvalidHeader),
        (with("a"), InvalidHeader),
        (with("a\x02: b"), InvalidHeader),
        (with("a: b\rc: d"), InvalidHeader),
        (with("a: b\r"), InvalidHeader),
        (with("a: \0"), InvalidHeader),
        (with("a: \x01"), InvalidHeader),
        (with("a: \x7f"), InvalidHeader),
        (with("\r"), InvalidHeader),
        (with("Content-Length: 1\r\ncontent-length: 1"), DuplicateHeader),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), DuplicateHeader),
        (with("If-Range: a\r\nIf-Range: b"), DuplicateHeader),
        (with("Content-Length: +1"), Framing(FramingError::InvalidContentLength)),
        (with("Content-Length: 1\r\nTransfer-Encoding: chunked"), Framing(FramingError::Both)),
        (with("Transfer-Encoding: identity"), Framing(FramingError::UnknownTransferEncoding)),
        (
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            Framing(FramingError::TransferEncodingOnHttp10),
        ),
    ] {
        assert_eq!(parse(&input).map(|_| ()), Err(error), "{input:?}");
    }
}

#[test]
fn errors_have_nginx_s_codes() {
    use HeadError::*;
    for (error, status, code) in [
        (InvalidRequest, 400, 400),
        (UriTooLong, 414, 414),
        (HeaderTooLarge, 400, 494),
        (TooManyHeaders, 400, 494),
        (InvalidVersion, 505, 505),
        (Framing(FramingError::UnknownTransferEncoding), 501, 501),
        (Framing(FramingError::Both), 400, 400),
    ] {
        assert_eq!((error.status(), error.code()), (status, code), "{error}");
    }
    let text = "client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time";
    assert_eq!(Framing(FramingError::Both).to_string(), text);
}

#[test]
fn odd_names_are_ignored_kept_or_refused_as_configured() {
    let limits = |underscores_in_headers, ignore_invalid_headers| Limits {
        underscores_in_headers,
        ignore_invalid_headers,
        ..Limits::default()
    };
    // name, then: kept by default, with underscores on, with ignoring off; None is an error.
    for (name, kept) in [
        ("x-foo", [Some(true), Some(true), Some(true)]),
        ("x_foo", [Some(false), Some(true), Some(true)]),
        ("_foo", [Some(false), Some(true), Some(true)]),
        ("x.foo", [Some(false), Some(false), Some(true)]),
        (".foo", [Some(false), Some(false), Some(true)]),
        ("</k>", [Some(false), Some(false), None]),
        ("\u{e4}", [Some(false), Some(false), None]),
        ("foo\x02", [None, None, None]),
    ] {
        for (limits, kept) in
            [limits(false, true), limits(true, true), limits(false, false)].iter().zip(kept)
        {
            let head =
                parse_with(with(&format!("{name}: v")).as_bytes(), limits).map(Option::unwrap).ok();
            assert_eq!(
                head.as_ref().map(|head| head.fields().contains(name)),
                kept,
                "{name:?} {limits:?}"
            );
            let ignored = head.map_or(0, |head| head.ignored().count());
            assert_eq!(ignored, usize::from(kept == Some(false)), "{name:?} {limits:?}");
        }
    }
}

#[test]
fn an_ignored_field_frames_nothing() {
    let head = head(&with("Content_Length: 5\r\nTransfer-Encoding\u{a0}: chunked"));
    assert_eq!(head.framing(), Framing::None);
    assert_eq!(
        head.ignored().collect::<Vec<_>>(),
        [&b"Content_Length: 5"[..], b"Transfer-Encoding\xc2\xa0: chunked"]
    );
}

#[test]
fn lines_longer_than_a_buffer_are_refused_before_they_end() {
    let limits = Limits {
        client_header_buffer_size: 64,
        large_buffers: 2,
        large_buffer_size: 128,
        ..Limits::default()
    };
    let uri = |len: usize| format!("GET /{} HTTP/1.0\r\n", "a".repeat(len - 16));
    assert_eq!(parse_with(uri(128).as_bytes(), &limits).map(|_| ()), Ok(()));
    assert_eq!(parse_with(uri(129).as_bytes(), &limits).map(|_| ()), Err(HeadError::UriTooLong));
    assert_eq!(
        parse_with(&uri(200).as_bytes()[..128], &limits).map(|_| ()),
        Err(HeadError::UriTooLong)
    );

    let field = |len: usize| format!("{}a: {}\r\n", uri(64), "b".repeat(len - 5));
    assert_eq!(parse_with(field(128).as_bytes(), &limits).map(|_| ()), Ok(()));
    assert_eq!(
        parse_with(field(129).as_bytes(), &limits).map(|_| ()),
        Err(HeadError::HeaderTooLarge)
    );
    assert_eq!(
        parse_with(&field(200).as_bytes()[..64 + 128], &limits).map(|_| ()),
        Err(HeadError::HeaderTooLarge)
    );
}

#[test]
fn only_so_many_fields_are_taken() {
    let limits = Limits { max_headers: 3, ..Limits::default() };
    let lines = |n: usize| with(&vec!["a: b"; n - 1].join("\r\n"));
    assert!(parse_with(lines(3).as_bytes(), &limits).is_ok());
    assert_eq!(
        parse_with(lines(4).as_bytes(), &limits).map(|_| ()),
        Err(HeadError::TooManyHeaders)
    );
    assert!(
        parse_with(with("a: b\r\na: b\r\na_b: ignored ones do not count").as_bytes(), &limits)
            .is_ok()
    );
}

#[test]
fn the_log_learns_where_parsing_stopped() {
    let mut input = BytesMut::from("GET /x HTTP/1.1\r\nHost: h\r\na b: c\r\nd: e\r\n");
    let mut parser = RequestParser::new();
    assert_eq!(
        parser.parse(&mut input, &Limits::default()).map(|_| ()),
        Err(HeadError::InvalidHeader)
    );
    assert_eq!(parser.request_line(&input), Some(&b"GET /x HTTP/1.1"[..]));
    assert_eq!(parser.bad_line(&input), b"a b: c");
}

#[test]
fn the_connection_is_kept_as_the_client_wishes() {
    for (input, keeps) in [
        (with("a: b"), true),
        (with("Connection: upgrade, close"), false),
        ("GET / HTTP/1.0\r\n\r\n".into(), false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(), true),
        ("GET /\r\n".into(), false),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n".into(), false),
    ] {
        assert_eq!(head(&input).keeps_alive(), keeps, "{input:?}");
    }
}

#[test]
fn only_http_1_1_waits_for_100_continue() {
    assert!(head(&with("Expect: 100-Continue")).expects_continue());
    assert!(!head(&with("Expect: 100-continue, x")).expects_continue());
    assert!(!head("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expects_continue());
}

#[test]
fn a_detached_head_shares_nothing_and_says_the_same() {
    let mut input = BytesMut::from(with("a: b").as_str());
    let mut head = RequestParser::new().parse(&mut input, &Limits::default()).unwrap().unwrap();
    let before = format!("{head:?}");
    assert!(!head.fields().buf().is_unique());
    head.detach();
    assert!(head.fields().buf().is_unique());
    assert_eq!(format!("{head:?}"), before);
}

/// Pieces of heads, good and bad, in an order that is often nearly right.
fn any_head() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        Just("GET / HTTP/1.1\r\nHost: h\r\n"),
        Just("GET http://x/ HTTP/1.0\n"),
        Just("GET http://a\\b/ HTTP/1.1\r\n"),
        Just("\r\n\nPOST /?a HTTP/1.1\r\nhost:H\r\n"),
        Just("GET /\r\n"),
        Just("G"),
        Just("")
    ];
    let line = prop_oneof![
        "[a-zA-Z_.]{1,6}:[ \t]?[ -~]{0,12}(\r\n|\n)",
        Just("Content-Length: 7\r\n".to_owned()),
        Just("Transfer-Encoding: chunked\r\n".to_owned()),
        "[\r\n :\tab\0]{0,4}",
    ];
    let end = prop_oneof![4 => Just("\r\n"), 1 => Just("\n"), 1 => Just("")];
    (start, prop::collection::vec(line, 0..6), end, "[a-z\r\n]{0,4}").prop_map(
        |(start, lines, end, rest)| format!("{start}{}{end}{rest}", lines.concat()).into_bytes(),
    )
}

/// Feeds the pieces one by one, as long as the parser asks for more.
fn parse_pieces<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    limits: &Limits,
) -> (Outcome, BytesMut) {
    let (mut input, mut parser) = (BytesMut::new(), RequestParser::new());
    let mut outcome = Ok(None);
    for piece in pieces {
        input.extend_from_slice(piece);
        if matches!(outcome, Ok(None)) {
            outcome = parser.parse(&mut input, limits);
        }
    }
    (outcome, input)
}

fn told(outcome: &Outcome) -> String {
    format!("{outcome:?}")
}

#[test]
fn what_was_good_of_a_refused_head_is_known() {
    let part = |input: &str| {
        let mut input = BytesMut::from(input);
        let mut parser = RequestParser::new();
        let outcome = parser.parse(&mut input, &Limits::default());
        assert!(!matches!(outcome, Ok(Some(_))), "{input:?} is complete");
        parser.part(&input)
    };
    for nothing in ["GET /a HTTP/9.1\r\n", "G<T /a HTTP/1.1\r\n\r\n", "GET /a HTTP/1.1"] {
        assert!(part(nothing).is_none(), "{nothing}");
    }
    let refused_host = part("GET http://a\\b/c HTTP/1.1\r\nX: 1\r\n\r\n").unwrap();
    assert_eq!((&refused_host.request_uri()[..], refused_host.raw_len()), (&b"/c"[..], 27));
    assert!(refused_host.host().is_none() && refused_host.fields().is_empty());
    let line = "GET /a HTTP/1.1\r\n";
    let bad_host = part(&format!("{line}X: 1\r\nHost: a b\r\nY: 2\r\n\r\n")).unwrap();
    assert_eq!((bad_host.fields().first("host"), bad_host.raw_len()), (Some(&b"a b"[..]), 34));
    assert!(bad_host.host().is_none() && bad_host.fields().first("y").is_none());
    for (fields, names, len) in [
        ("Host: a\r\nB C: 1\r\nD: 2\r\n\r\n", "host", 26),
        ("X: 1\r\nHost: a\r\nHost: b\r\n\r\n", "x,host", 41),
        ("X: 1\r\nIf-Match: a\r\nIf-Match: b\r\n\r\n", "x,if-match", 49),
        ("X: 1\r\n\r\n", "x", 25),
        ("X: 1\r\nTransfer-Encoding: chunked\r\nHost", "x,transfer-encoding", 51),
    ] {
        let head = part(&format!("{line}{fields}")).unwrap();
        let named: Vec<_> =
            head.fields().iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        assert_eq!(named.join(&b','), names.as_bytes(), "{fields}");
        assert_eq!((head.raw_len(), head.framing()), (len, Framing::None), "{fields}");
        assert_eq!(head.method_name(), b"GET");
        assert_eq!(head.host().map(Host::name), names.contains("host").then_some(&b"a"[..]));
    }
}

proptest! {
    #[test]
    fn any_part_of_a_head_can_be_asked_for(input in any_head(), cut in 1usize..9) {
        let (limits, mut parser) = (Limits::default(), RequestParser::new());
        let mut seen = BytesMut::new();
        for piece in input.chunks(cut) {
            seen.extend_from_slice(piece);
            let before = seen.len();
            match parser.parse(&mut seen, &limits) {
                Ok(Some(_)) => break,
                _ => if let Some(head) = parser.part(&seen) {
                    prop_assert!(head.raw_len() <= before);
                    prop_assert!(head.request_line().starts_with(head.method_name()));
                },
            }
        }
    }

    #[test]
    fn it_does_not_matter_how_a_head_is_cut(input in any_head(), cut in 1usize..9, small: bool) {
        let default = Limits::default();
        let tight = Limits { client_header_buffer_size: 30, large_buffers: 1, large_buffer_size: 40, ..default };
        let limits = if small { tight } else { default };
        let (whole, whole_rest) = parse_pieces(std::iter::once(&input[..]), &limits);
        let (cut, cut_rest) = parse_pieces(input.chunks(cut), &limits);
        prop_assert_eq!(told(&whole), told(&cut));
        if whole.is_ok() {
            prop_assert_eq!(whole_rest, cut_rest);
        }
    }

    #[test]
    fn what_is_accepted_means_the_same_to_httparse(input in any_head()) {
        let Ok(Some(head)) = parse_with(&input, &Limits::default()) else { return Ok(()) };
        if head.version() == Version::Http09 || head.ignored().count() > 0 {
            return Ok(());
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let status = request.parse(&input);
        prop_assert!(matches!(status, Ok(Status::Complete(_))), "{:?}", status);
        prop_assert_eq!(request.path.unwrap().as_bytes(), head.target());
        prop_assert_eq!(request.method.unwrap().as_bytes(), head.method_name());
        let fields: Vec<_> = request.headers.iter().map(|h| (h.name.as_bytes(), h.value)).collect();
        prop_assert_eq!(fields, head.fields().iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_written_head_reads_back_the_same(
        fields in prop::collection::vec(("[a-z]{1,3}x-[A-Z]{0,3}", "([!-~\u{80}-\u{ff}]([ -~]{0,5}[!-~])?)?"), 0..8),
        target in "/[!-~]{0,9}",
    ) {
        let list: Fields = fields.iter().map(|(n, v)| (n, v)).collect();
        let mut out = BytesMut::new();
        crate::write_request_line(&mut out, b"GET", target.as_bytes(), Version::Http10).unwrap();
        crate::write_fields(&mut out, &list).unwrap();
        crate::write_end(&mut out);
        let head = RequestParser::new().parse(&mut out, &Limits::default()).unwrap().unwrap();
        prop_assert_eq!(head.fields(), &list);
        prop_assert_eq!(head.target(), target.as_bytes());
        prop_assert!(out.is_empty());
    }
}
