//! "Did you mean": the known name nearest to a misspelt one.

/// The candidate that `name` was most likely meant to be, if any is near enough: a third of its letters may be wrong,
/// counting a letter too many, too few, another one, or two neighbours swapped as one each. Case does not count, nor
/// does the order of words joined by `_`. Of equally near candidates the first wins.
pub fn closest<'a>(
    name: impl AsRef<[u8]>,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let name = name.as_ref().to_ascii_lowercase();
    let (words, letters) = (sorted_words(&name), Letters::of(&name));
    let allowed = (name.len() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        // Each change makes a word longer or shorter by one letter at most. Few candidates are left to be compared in
        // earnest.
        if candidate.len().abs_diff(name.len()) > allowed || letters.missing(candidate) > allowed {
            continue;
        }
        let lower = candidate.to_ascii_lowercase().into_bytes();
        let distance = if sorted_words(&lower) == words { 0 } else { distance(&name, &lower) };
        // A name as short as the number of changes has nothing in common with the candidate.
        let near = distance <= allowed && distance < name.len();
        if near && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// How often each byte is in a name.
struct Letters([u16; 256]);

impl Letters {
    fn of(name: &[u8]) -> Self {
        let mut letters = Self([0; 256]);
        for &byte in name {
            letters.0[usize::from(byte)] = letters.0[usize::from(byte)].saturating_add(1);
        }
        letters
    }

    /// How many letters of a candidate, in lower case, are not in the name: each costs a change.
    fn missing(&self, candidate: &str) -> usize {
        let mut left = self.0;
        let is_missing = |byte: u8| {
            let left = &mut left[usize::from(byte.to_ascii_lowercase())];
            let missing = *left == 0;
            *left = left.saturating_sub(1);
            missing
        };
        candidate.bytes().map(is_missing).filter(|missing| *missing).count()
    }
}

fn sorted_words(name: &[u8]) -> Vec<&[u8]> {
    let mut words: Vec<_> = name.split(|&byte| byte == b'_').collect();
    words.sort_unstable();
    words
}

/// How many letters differ: the Damerau-Levenshtein distance in its restricted form (no letter is changed twice).
pub fn distance(from: &[u8], to: &[u8]) -> usize {
    // Row by row of the table of all beginnings of the one and the other.
    let mut before = vec![0; to.len() + 1];
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (i, &left) in from.iter().enumerate() {
        let mut row = Vec::with_capacity(to.len() + 1);
        row.push(i + 1);
        for (j, &right) in to.iter().enumerate() {
            let replaced = above[j] + usize::from(left != right);
            let mut least = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && left == to[j - 1] && from[i - 1] == right {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_slip_costs_one() {
        let cases = [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("listen", "lisetn", 1),
            ("listen", "listn", 1),
            ("listen", "llisten", 1),
            ("ca", "abc", 3),
        ];
        for (from, to, expected) in cases {
            assert_eq!(distance(from.as_bytes(), to.as_bytes()), expected, "{from} {to}");
            assert_eq!(distance(to.as_bytes(), from.as_bytes()), expected, "{to} {from}");
        }
    }

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let known =
            ["listen", "location", "proxy_pass", "proxy_read_timeout", "server", "ssl", "map"];
        let cases = [
            ("proxy_pas", Some("proxy_pass")),
            ("proxy_pss", Some("proxy_pass")),
            ("LISTEN", Some("listen")),
            ("lsiten", Some("listen")),
            ("\u{feff}server", Some("server")),
            ("read_proxy_timeout", Some("proxy_read_timeout")),
            ("ssll", Some("ssl")),
            ("x", None),
            ("", None),
            ("gzip", None),
            ("completely_different", None),
        ];
        for (name, expected) in cases {
            assert_eq!(closest(name, known), expected, "{name}");
        }
    }
}
