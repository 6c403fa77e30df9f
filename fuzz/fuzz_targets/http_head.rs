//! Wherever a head is cut, the parsers say the same about it; what they accept is what httparse reads, and what is
//! written from it reads back the same. The same bytes are read as a header of the PROXY protocol, too.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wssgate_http1::{
    HeadError, Limits, RequestHead, RequestParser, ResponseParser, Version, write_end,
    write_fields, write_request_line,
};
use wssgate_proxy_protocol::{Header, MAX_LEN, encode_v1, encode_v2, types};

fuzz_target!(|input: (bool, u16, u8, &[u8])| {
    let (request, size, cut, bytes) = input;
    let cut = usize::from(cut).max(1);
    // No configuration has buffers that do not hold the first word of a head.
    let size = usize::from(size).max(16);
    read_proxy_header(bytes);
    if request {
        let limits = Limits {
            client_header_buffer_size: size,
            large_buffers: 2,
            large_buffer_size: size,
            max_headers: 20,
            underscores_in_headers: size & 1 != 0,
            ignore_invalid_headers: size & 2 != 0,
        };
        let whole = read_request(bytes, usize::MAX, &limits);
        assert_eq!(format!("{whole:?}"), format!("{:?}", read_request(bytes, cut, &limits)));
        if let Ok(Some(head)) = whole {
            assert!(head.raw_len() <= limits.max_head_len());
            check(&head, bytes);
        }
    } else {
        assert_eq!(read_response(bytes, usize::MAX, size), read_response(bytes, cut, size));
    }
});

fn read_proxy_header(bytes: &[u8]) {
    let whole = Header::decode(bytes);
    // Every cut says the same or asks for more; an early refusal quotes less.
    for cut in 0..bytes.len().min(MAX_LEN) {
        match Header::decode(&bytes[..cut]) {
            Ok(None) => {}
            Ok(early) => assert_eq!(Ok(early), whole),
            Err(_) => assert!(whole.is_err()),
        }
    }
    if let Ok(Some(Header { told: Some(told), .. })) = whole {
        let _ = told.tlvs.ssl().and_then(|ssl| ssl.find(types::SSL_CN));
        for header in [encode_v1(Some(&told.ends)), encode_v2(Some(&told.ends), None)] {
            let again = Header::decode(&header).expect("ours").expect("whole");
            let ends = again.told.expect("addresses").ends;
            assert_eq!(ends.source.ip().to_canonical(), told.ends.source.ip().to_canonical());
            assert_eq!(ends.destination.port(), told.ends.destination.port());
        }
    }
}

fn read_request(
    bytes: &[u8],
    cut: usize,
    limits: &Limits,
) -> Result<Option<RequestHead>, HeadError> {
    let (mut input, mut parser) = (BytesMut::new(), RequestParser::new());
    for piece in bytes.chunks(cut) {
        input.extend_from_slice(piece);
        if let Some(head) = parser.parse(&mut input, limits)? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

fn read_response(bytes: &[u8], cut: usize, max_len: usize) -> String {
    let (mut input, mut parser) = (BytesMut::new(), ResponseParser::new());
    for piece in bytes.chunks(cut) {
        input.extend_from_slice(piece);
        let outcome = parser.parse(&mut input, max_len);
        if !matches!(outcome, Ok(None)) {
            return format!("{outcome:?}");
        }
    }
    "more".into()
}

fn check(head: &RequestHead, bytes: &[u8]) {
    for merge_slashes in [true, false] {
        if let Ok(uri) = head.uri(merge_slashes) {
            assert!(uri.path.starts_with(b"/"));
            assert!(
                !uri.path.split(|&b| b == b'/').any(|segment| segment == b".." || segment == b".")
            );
        }
    }
    if head.version() == Version::Http09 {
        return;
    }
    read_by_httparse(head, bytes);
    let mut out = BytesMut::new();
    write_request_line(&mut out, head.method_name(), head.target(), head.version())
        .expect("came from a head");
    write_fields(&mut out, head.fields()).expect("came from a head");
    write_end(&mut out);
    let roomy = Limits {
        client_header_buffer_size: 1 << 20,
        underscores_in_headers: true,
        ignore_invalid_headers: false,
        ..Limits::default()
    };
    let again =
        RequestParser::new().parse(&mut out, &roomy).expect("was valid").expect("was complete");
    assert!(out.is_empty());
    assert_eq!((again.fields(), again.framing()), (head.fields(), head.framing()));
    assert_eq!((again.request_uri(), again.host()), (head.request_uri(), head.host()));
}

fn read_by_httparse(head: &RequestHead, bytes: &[u8]) {
    let names_a_version = matches!(head.protocol(), b"HTTP/1.0" | b"HTTP/1.1");
    if !names_a_version || head.ignored().count() > 0 {
        return;
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let mut config = httparse::ParserConfig::default();
    config.allow_multiple_spaces_in_request_line_delimiters(true);
    if config.parse_request(&mut request, bytes).is_err() {
        // It is stricter about the target and about what surrounds the version; that is no other meaning.
        return;
    }
    assert_eq!(request.path.map(str::as_bytes), Some(head.target()));
    assert!(
        request.headers.iter().map(|field| (field.name.as_bytes(), field.value)).eq(head.fields())
    );
}
