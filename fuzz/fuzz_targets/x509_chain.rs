//! A chain and its revocation lists, with any bytes of them changed: nothing panics, and whatever was signed is
//! not trusted once it is another.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wssgate_x509::{Anchor, Certificate, Peer, RevocationList, Trust};

const LEAF: &[u8] = include_bytes!("../chain/leaf.der");
const CA: &[u8] = include_bytes!("../chain/ca.der");
const ROOT: &[u8] = include_bytes!("../chain/root.der");
const CA_LIST: &[u8] = include_bytes!("../chain/ca.crl");
const ROOT_LIST: &[u8] = include_bytes!("../chain/root.crl");

/// 2027, when all of them are valid.
const NOW: i64 = 1_800_000_000;

fuzz_target!(|edits: Vec<(u8, u16, u8)>| {
    let whole = [LEAF, CA, ROOT, ROOT_LIST, CA_LIST];
    let mut parts = whole.map(<[u8]>::to_vec);
    for (part, place, value) in edits {
        let part = &mut parts[usize::from(part) % whole.len()];
        let place = usize::from(place) % part.len();
        part[place] = value;
    }
    let [leaf, ca, root, root_list, ca_list] = &parts;
    if let Some(leaf) = Certificate::parse(leaf) {
        let _ = (leaf.is_for_host(b"a.leaf.test"), leaf.may_sign_handshakes(), leaf.subject());
    }
    let lists = [root_list, ca_list].map(|list| RevocationList::parse(list));
    let lists: Vec<_> = lists.into_iter().flatten().collect();
    for peer in [Peer::Client, Peer::Server] {
        let Some(anchor) = Anchor::parse(root, peer) else { return };
        let trust = Trust::new(peer, vec![anchor], &lists, 2).expect("memory");
        let trusted = trust.verify(leaf, [&ca[..]], NOW).is_ok();
        assert!(!trusted || (&leaf[..], &ca[..]) == (LEAF, CA));
        assert!(trusted || parts != whole);
    }
});
