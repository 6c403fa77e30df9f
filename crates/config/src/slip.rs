//! Whether one name of a directive can be a slip for another.
//!
//! Names are made of words. Who misspells one writes something that is no word; another word is another meaning, and
//! to suggest `proxy_hide_header` for `proxy_add_header` would mislead.

use std::collections::HashSet;

use wssgate_syntax::distance;

/// The words that names of directives are made of.
pub(crate) struct Words<'n>(HashSet<&'n str>);

impl<'n> Words<'n> {
    /// The words of all these names.
    pub(crate) fn of(names: impl Iterator<Item = &'n str>) -> Self {
        Self(names.flat_map(|name| name.split('_')).collect())
    }

    /// Whether somebody who wrote `name` may have meant `other`.
    pub(crate) fn may_mean(&self, name: &str, other: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let (only_here, only_there) = (without(&name, other), without(other, &name));
        if only_here.is_empty() || only_there.is_empty() {
            // A word too many, too few, or in another place.
            return true;
        }
        if only_here.len() == only_there.len() {
            let mut pairs = only_here.iter().zip(&only_there);
            return pairs.all(|(word, meant)| self.is_slip(word, meant));
        }
        // `proxypass`: words in one.
        let joined = |name: &str| name.replace('_', "").into_bytes();
        distance(&joined(&name), &joined(other)) <= 2
    }

    fn is_slip(&self, word: &str, meant: &str) -> bool {
        let allowed = match self.0.contains(word) {
            true => 1,
            false => (word.len() / 3).max(1),
        };
        distance(word.as_bytes(), meant.as_bytes()) <= allowed
    }
}

/// The words of a name that another has not, each as often as it is too many.
fn without<'n>(name: &'n str, other: &str) -> Vec<&'n str> {
    let mut there: Vec<_> = other.split('_').collect();
    let is_missing = |word: &&str| match there.iter().position(|other| other == word) {
        Some(at) => {
            there.swap_remove(at);
            false
        }
        None => true,
    };
    name.split('_').filter(is_missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::rows;

    #[test]
    fn a_slip_is_no_other_word() {
        let words = Words::of(rows().iter().map(|row| &*row.name));
        for (name, other, expected) in [
            ("proxy_pas", "proxy_pass", true),
            ("proxypass", "proxy_pass", true),
            ("read_proxy_timeout", "proxy_read_timeout", true),
            ("client_max_body", "client_max_body_size", true),
            ("hide_server_tokens", "server_tokens", true),
            ("Proxy_Set_Headers", "proxy_set_header", true),
            ("sll_certifcate", "ssl_certificate", true),
            ("\u{feff}server", "server", true),
            ("proxy_add_header", "proxy_hide_header", false),
            ("set_header", "add_header", false),
            ("upstream_timeout", "grpc_read_timeout", false),
            ("proxy_protocol_timeout", "proxy_connect_timeout", false),
            ("iconv_filter", "image_filter", false),
            ("limit_upload_zone", "limit_conn_zone", false),
            ("secure_token", "server_tokens", false),
            ("ssl_ct", "ssl_crl", false),
        ] {
            assert_eq!(words.may_mean(name, other), expected, "{name} {other}");
        }
    }
}
