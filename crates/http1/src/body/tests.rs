//! Bodies whole, in pieces, and wrong.

use proptest::prelude::*;

use super::*;

/// All that a decoder makes of the pieces: the data, then trailers or an error, and what it left in the buffer.
#[derive(Debug, PartialEq)]
struct Read {
    data: Vec<u8>,
    end: Result<Option<Fields>, BodyError>,
    rest: BytesMut,
}

fn read<'a>(framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut decoder = BodyDecoder::from(framing);
    let mut read = Read { data: Vec::new(), end: Ok(None), rest: BytesMut::new() };
    for piece in pieces {
        read.rest.extend_from_slice(piece);
        while let Ok(None) = read.end {
            match decoder.decode(&mut read.rest) {
                Ok(Decoded::Data(data)) => {
                    assert!(!data.is_empty());
                    read.data.extend_from_slice(&data);
                }
                Ok(Decoded::NeedMore) => break,
                Ok(Decoded::End { trailers }) => read.end = Ok(Some(trailers)),
                Err(error) => read.end = Err(error),
            }
        }
    }
    assert!(!matches!(read.end, Ok(Some(_))) || decoder.is_done());
    read
}

fn chunked(input: &[u8]) -> Read {
    read(Framing::Chunked, [input])
}

#[test]
fn a_length_ends_where_it_says() {
    let body = read(Framing::Length(3), [&b"ab"[..], b"cd"]);
    assert_eq!((&body.data[..], &body.rest[..]), (&b"abc"[..], &b"d"[..]));
    assert_eq!(body.end, Ok(Some(Fields::default())));
    assert_eq!(read(Framing::Length(0), [&b"x"[..]]).end, Ok(Some(Fields::default())));
    assert_eq!(read(Framing::None, [&b"x"[..]]).rest, "x");
}

#[test]
fn until_close_never_ends_by_itself() {
    let body = read(Framing::UntilClose, [&b"ab"[..], b"", b"cd"]);
    assert_eq!((&body.data[..], body.end), (&b"abcd"[..], Ok(None)));
}

#[test]
fn chunks_are_unwrapped() {
    for (input, data, rest) in [
        ("0\r\n\r\nx", "", "x"),
        ("1\r\na\r\n0\r\n\r\n", "a", ""),
        ("0000000000000002\r\nab\r\n000\r\n\r\n", "ab", ""),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", ""),
        ("1;x=y;z=\"a b\"\r\na\r\n0;last\r\n\r\n", "a", ""),
        ("1 \t ; x\r\na\r\n0  \r\n\r\n", "a", ""),
    ] {
        let body = chunked(input.as_bytes());
        assert_eq!(
            (&body.data[..], &body.rest[..]),
            (data.as_bytes(), rest.as_bytes()),
            "{input:?}"
        );
        assert_eq!(body.end, Ok(Some(Fields::default())), "{input:?}");
    }
}

#[test]
fn trailers_are_kept() {
    let trailers = chunked(b"0\r\nA: b\r\nx.y:\r\n\r\n").end.unwrap().unwrap();
    assert_eq!(trailers, [("A", "b"), ("x.y", "")].into_iter().collect());
}

#[test]
fn nothing_but_chunks_passes_for_chunks() {
    use BodyError::*;
    for (input, error) in [
        ("\r\n", Chunk),
        (" 1\r\n", Chunk),
        ("-1\r\n", Chunk),
        ("+1\r\n", Chunk),
        ("0x1\r\n", Chunk),
        ("g", Chunk),
        ("1\n", Chunk),
        ("1\r\r", Chunk),
        ("1;a\n", Chunk),
        ("1;a\r1", Chunk),
        ("1;a\0", Chunk),
        ("1 a", Chunk),
        ("1 \n", Chunk),
        (";a", Chunk),
        ("1\r\nab", Chunk),
        ("1\r\na\n", Chunk),
        ("1\r\na\rb", Chunk),
        ("00000000000000001", Chunk),
        ("8000000000000000", Chunk),
        ("0\r\n\n", Trailers),
        ("0\r\na: b\n\r\n", Trailers),
        ("0\r\na : b\r\n", Trailers),
        ("0\r\n a: b\r\n", Trailers),
        ("0\r\na\r\n", Trailers),
        ("0\r\n(a): b\r\n", Trailers),
        ("0\r\na: b\r\r\n", Trailers),
        ("0\r\na: \0\r\n", Trailers),
        ("0\r\n\r\r\n", Trailers),
    ] {
        assert_eq!(chunked(input.as_bytes()).end, Err(error), "{input:?}");
    }
    assert_eq!(chunked(b"7fffffffffffffff\r\n").end, Ok(None), "63 bits are allowed");
}

#[test]
fn extensions_and_trailers_have_an_end() {
    let extensions = "1;a=bbbbbbbb\r\nx\r\n".repeat(MAX_CHUNK_EXTENSIONS / 10 + 1);
    assert_eq!(chunked(extensions.as_bytes()).end, Err(BodyError::Extensions));
    let spaces = format!("1{}", " ".repeat(MAX_CHUNK_EXTENSIONS + 2));
    assert_eq!(chunked(spaces.as_bytes()).end, Err(BodyError::Extensions));
    let trailers = format!("0\r\n{}", "a: b\r\n".repeat(MAX_TRAILERS / 6 + 1));
    assert_eq!(chunked(trailers.as_bytes()).end, Err(BodyError::Trailers));
    let endless = format!("0\r\na: {}", "b".repeat(MAX_TRAILERS));
    assert_eq!(chunked(endless.as_bytes()).end, Err(BodyError::Trailers));
}

#[test]
fn chunk_sizes_are_written_without_leading_zeros() {
    for (len, text) in [
        (1, "1\r\n"),
        (15, "f\r\n"),
        (16, "10\r\n"),
        (0xabc0, "abc0\r\n"),
        (u64::MAX, "ffffffffffffffff\r\n"),
    ] {
        let mut out = Vec::new();
        encode_chunk_head(&mut out, len);
        assert_eq!(out, text.as_bytes());
    }
}

proptest! {
    #[test]
    fn what_was_encoded_decodes_however_it_is_cut(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
        trailers in prop::collection::vec(("[a-z]{1,4}", "([!-~]{1,5})?"), 0..3),
        cut in 1usize..20,
    ) {
        let trailers: Fields = trailers.into_iter().collect();
        let mut wire = Vec::new();
        chunks.iter().for_each(|chunk| encode_chunk(&mut wire, chunk));
        encode_last_chunk(&mut wire, &trailers).unwrap();
        wire.extend(b"next");
        let body = read(Framing::Chunked, wire.chunks(cut));
        prop_assert_eq!(body, Read { data: chunks.concat(), end: Ok(Some(trailers)), rest: "next".into() });
    }

    #[test]
    fn it_does_not_matter_how_a_body_is_cut(
        input in "([0-3]|[0-9a-f]{1,2};?[ -~]{0,2}\r\n|[0-3]\r\n|\r?\n|a: b\r\n|[ -~]{0,4}){0,9}",
        cut in 1usize..5,
    ) {
        let (whole, cut) = (chunked(input.as_bytes()), read(Framing::Chunked, input.as_bytes().chunks(cut)));
        prop_assert_eq!((&whole.data, &whole.end), (&cut.data, &cut.end));
        if whole.end.is_ok() {
            prop_assert_eq!(whole.rest, cut.rest);
        }
    }
}

#[test]
fn a_refused_trailer_leaves_nothing_of_the_last_chunk() {
    let trailers: Fields = [("a", "1"), ("b", "x\ny")].into_iter().collect();
    let mut out = b"before".to_vec();
    assert_eq!(encode_last_chunk(&mut out, &trailers), Err(WriteError::Value));
    assert_eq!(out, b"before");
}
