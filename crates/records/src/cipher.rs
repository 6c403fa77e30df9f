//! An AEAD with its key expanded, by the library that is faster on this CPU.
//!
//! aws-lc seals AES-GCM with AVX-512 or with 128-bit instructions, and has nothing between the two. On
//! x86-64 with VAES but without AVX-512 (AMD before Zen 4, many virtual machines, small Intel CPUs) `ring`
//! takes half of its time. Everywhere else, and for ChaCha20-Poly1305, it is aws-lc.

use std::hint::black_box;

use aws_lc_rs::aead as aws_lc;
use ring::aead as ring;

use crate::Aead;

/// The length of every tag.
pub(crate) const TAG: usize = 16;

/// A library that has the AEADs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Library {
    AwsLc,
    Ring,
}

impl Library {
    /// The faster one for this AEAD here.
    fn fastest(aead: Aead) -> Self {
        match aead {
            Aead::Aes128Gcm | Aead::Aes256Gcm if has_vaes_without_avx512() => Self::Ring,
            _ => Self::AwsLc,
        }
    }
}

/// Whether `ring` has a way to seal AES-GCM here that is wider than that of aws-lc.
#[cfg(target_arch = "x86_64")]
fn has_vaes_without_avx512() -> bool {
    // All of these are looked up once in a process. The second line is what aws-lc's
    // `crypto_gcm_avx512_enabled` asks for besides.
    let vaes = is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    vaes && is_x86_feature_detected!("avx2") && !avx512
}

#[cfg(not(target_arch = "x86_64"))]
fn has_vaes_without_avx512() -> bool {
    false
}

/// An expanded key, about 600 bytes of heap. Wiped when dropped.
pub(crate) enum Cipher {
    AwsLc(aws_lc::LessSafeKey),
    Ring(Box<RingKey>),
}

/// What was sealed is not what is opened, or not with this key and nonce.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

impl Cipher {
    /// Expands a key, which has the length of this AEAD.
    pub(crate) fn new(aead: Aead, key: &[u8]) -> Self {
        Self::with(Library::fastest(aead), aead, key)
    }

    fn with(library: Library, aead: Aead, key: &[u8]) -> Self {
        match library {
            Library::AwsLc => {
                let algorithm = match aead {
                    Aead::Aes128Gcm => &aws_lc::AES_128_GCM,
                    Aead::Aes256Gcm => &aws_lc::AES_256_GCM,
                    Aead::ChaCha20Poly1305 => &aws_lc::CHACHA20_POLY1305,
                };
                let key = aws_lc::UnboundKey::new(algorithm, key)
                    .expect("the key has the length of its AEAD");
                Self::AwsLc(aws_lc::LessSafeKey::new(key))
            }
            Library::Ring => Self::Ring(Box::new(RingKey::new(aead, key))),
        }
    }

    /// Opens `sealed` and the tag at its end into `plain`, which has the length of what is inside.
    pub(crate) fn open(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<(), NotAuthentic> {
        let (sealed, tag) = sealed.split_last_chunk::<TAG>().ok_or(NotAuthentic)?;
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                key.open_separate_gather(nonce, aws_lc::Aad::from(aad), sealed, tag, plain)
                    .map_err(|_| NotAuthentic)
            }
            // It works in place only. A copy is a tenth of its time.
            Self::Ring(key) => {
                plain.copy_from_slice(sealed);
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let aad = ring::Aad::from(aad);
                key.0
                    .open_in_place_separate_tag(nonce, aad, ring::Tag::from(*tag), plain, 0..)
                    .map(|_| ())
                    .map_err(|_| NotAuthentic)
            }
        }
    }

    /// Seals `plain` and `behind` it into `sealed`, which has room for both and the tag.
    pub(crate) fn seal(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        plain: &[u8],
        behind: &[u8],
        sealed: &mut [u8],
    ) {
        const SHORT: &str = "a record is shorter than any AEAD's limit";
        let (text, behind_and_tag) = sealed.split_at_mut(plain.len());
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let aad = aws_lc::Aad::from(aad);
                key.seal_out_of_place_scatter(nonce, aad, plain, text, behind, behind_and_tag)
                    .expect(SHORT);
            }
            Self::Ring(key) => {
                text.copy_from_slice(plain);
                behind_and_tag[..behind.len()].copy_from_slice(behind);
                let (text, tag) = sealed.split_at_mut(plain.len() + behind.len());
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let sealed_tag = key
                    .0
                    .seal_in_place_separate_tag(nonce, ring::Aad::from(aad), text)
                    .expect(SHORT);
                tag.copy_from_slice(sealed_tag.as_ref());
            }
        }
    }
}

/// A key in `ring`, which keeps it in the value itself and does not wipe it.
pub(crate) struct RingKey(ring::LessSafeKey);

impl RingKey {
    fn new(aead: Aead, key: &[u8]) -> Self {
        Self(expand(
            match aead {
                Aead::Aes128Gcm => &ring::AES_128_GCM,
                Aead::Aes256Gcm => &ring::AES_256_GCM,
                Aead::ChaCha20Poly1305 => &ring::CHACHA20_POLY1305,
            },
            key,
        ))
    }

    /// Puts the key of all zeros where the key was: of the same algorithm, so of the same length.
    fn wipe(&mut self) {
        let algorithm = self.0.algorithm();
        self.0 = expand(algorithm, &[0; 32][..algorithm.key_len()]);
        // Somebody may look at it, for all that the compiler knows.
        black_box(&mut self.0);
    }
}

impl Drop for RingKey {
    fn drop(&mut self) {
        self.wipe();
    }
}

fn expand(algorithm: &'static ring::Algorithm, key: &[u8]) -> ring::LessSafeKey {
    let key = ring::UnboundKey::new(algorithm, key).expect("the key has the length of its AEAD");
    ring::LessSafeKey::new(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AEADS: [Aead; 3] = [Aead::Aes128Gcm, Aead::Aes256Gcm, Aead::ChaCha20Poly1305];

    fn sealed(
        cipher: &Cipher,
        nonce: [u8; 12],
        aad: &[u8],
        plain: &[u8],
        behind: &[u8],
    ) -> Vec<u8> {
        let mut out = vec![0; plain.len() + behind.len() + TAG];
        cipher.seal(nonce, aad, plain, behind, &mut out);
        out
    }

    fn opened(cipher: &Cipher, nonce: [u8; 12], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; sealed.len().checked_sub(TAG)?];
        cipher.open(nonce, aad, sealed, &mut out).ok().map(|()| out)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn both_libraries_seal_the_same_bytes_and_open_each_other(
            aead in prop::sample::select(&AEADS[..]),
            key in any::<[u8; 32]>(),
            nonce in any::<[u8; 12]>(),
            aad in prop::collection::vec(any::<u8>(), 0..20),
            plain in prop::collection::vec(any::<u8>(), 0..3000),
            long in prop::bool::weighted(0.1),
            behind in prop::collection::vec(any::<u8>(), 0..2),
            flip in any::<prop::sample::Index>(),
        ) {
            let plain = if long { plain.repeat((1 << 14) / plain.len().max(1)) } else { plain };
            let key = &key[..aead.key_len()];
            let ours = Cipher::with(Library::AwsLc, aead, key);
            let theirs = Cipher::with(Library::Ring, aead, key);
            let wire = sealed(&ours, nonce, &aad, &plain, &behind);
            prop_assert!(sealed(&theirs, nonce, &aad, &plain, &behind) == wire);
            let inside = [&plain[..], &behind].concat();
            let mut changed = wire.clone();
            changed[flip.index(wire.len())] ^= 1;
            for cipher in [&ours, &theirs] {
                prop_assert!(opened(cipher, nonce, &aad, &wire).as_ref() == Some(&inside));
                prop_assert_eq!(opened(cipher, nonce, &aad, &changed), None);
                prop_assert_eq!(opened(cipher, nonce, &wire[..TAG], &wire), None);
            }
        }
    }

    #[test]
    fn what_is_shorter_than_a_tag_is_not_authentic() {
        for library in [Library::AwsLc, Library::Ring] {
            let cipher = Cipher::with(library, Aead::Aes128Gcm, &[1; 16]);
            assert_eq!(cipher.open([0; 12], &[], &[0; TAG - 1], &mut []), Err(NotAuthentic));
        }
    }

    #[test]
    fn a_wiped_key_is_the_key_of_zeros() {
        for aead in AEADS {
            let mut key = RingKey::new(aead, &[7; 32][..aead.key_len()]);
            key.wipe();
            let wiped = Cipher::Ring(Box::new(key));
            let zeros = Cipher::with(Library::AwsLc, aead, &[0; 32][..aead.key_len()]);
            let [wiped, zeros] = [wiped, zeros].map(|it| sealed(&it, [3; 12], b"", b"text", b""));
            assert_eq!(wiped, zeros, "{aead:?}");
        }
    }

    #[test]
    fn the_keys_of_a_connection_are_small_while_it_is_idle() {
        assert!(size_of::<Option<Cipher>>() <= 48);
    }
}
