//! Wherever a body is cut, the decoder says the same about it; and what it decoded can be encoded and decoded again.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wssgate_http1::{
    BodyDecoder, BodyError, Decoded, Fields, Framing, encode_chunk, encode_last_chunk,
};

fuzz_target!(|input: (Option<u8>, u8, &[u8])| {
    let (length, cut, bytes) = input;
    let framing = length.map_or(Framing::Chunked, |len| Framing::Length(len.into()));
    let whole = read(framing, bytes, usize::MAX);
    let cut_up = read(framing, bytes, usize::from(cut).max(1));
    assert_eq!((&whole.data, &whole.end), (&cut_up.data, &cut_up.end));
    if whole.end.is_ok() {
        assert_eq!(whole.rest, cut_up.rest);
    }
    assert!(whole.data.len() + whole.rest.len() <= bytes.len());
    if let Ok(Some(trailers)) = whole.end {
        let mut wire = Vec::new();
        whole.data.chunks(7).for_each(|chunk| encode_chunk(&mut wire, chunk));
        encode_last_chunk(&mut wire, &trailers).expect("came from a body");
        let again = read(Framing::Chunked, &wire, 3);
        assert_eq!((again.data, again.end), (whole.data, Ok(Some(trailers))));
    }
});

struct Read {
    data: Vec<u8>,
    end: Result<Option<Fields>, BodyError>,
    rest: Vec<u8>,
}

fn read(framing: Framing, bytes: &[u8], cut: usize) -> Read {
    let (mut decoder, mut input) = (BodyDecoder::from(framing), BytesMut::new());
    let (mut data, mut end) = (Vec::new(), Ok(None));
    for piece in bytes.chunks(cut) {
        input.extend_from_slice(piece);
        while let Ok(None) = end {
            match decoder.decode(&mut input) {
                Ok(Decoded::Data(piece)) => data.extend_from_slice(&piece),
                Ok(Decoded::NeedMore) => break,
                Ok(Decoded::End { trailers }) => end = Ok(Some(trailers)),
                Err(error) => end = Err(error),
            }
        }
    }
    Read { data, end, rest: input.to_vec() }
}
