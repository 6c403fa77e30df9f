//! Lookup by name as `server_name` and `map` do it: exact, then the longest wildcard at the head,
//! then the longest at the tail, then regular expressions in order.

use std::collections::HashMap;

use crate::regex::{Captures, Regex};

/// What a written name stands for in a [`HostTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPattern<'n> {
    /// `www.example.com`.
    Exact(&'n [u8]),
    /// `.example.com`: the name itself and everything below it.
    Domain(&'n [u8]),
    /// `*.example.com`, without its `*`.
    Head(&'n [u8]),
    /// `www.example.*`, without its `*`.
    Tail(&'n [u8]),
}

impl<'n> HostPattern<'n> {
    /// Reads a name; `None` when it has a wildcard where none may be, or an empty label.
    pub fn parse(name: &'n [u8]) -> Option<Self> {
        let pattern = match name {
            [b'.', _, ..] => Self::Domain(name),
            [b'*', b'.', _, ..] => Self::Head(&name[1..]),
            [prefix @ .., b'.', b'*'] if !prefix.is_empty() => Self::Tail(&name[..name.len() - 1]),
            _ => Self::Exact(name),
        };
        let (Self::Exact(rest) | Self::Domain(rest) | Self::Head(rest) | Self::Tail(rest)) =
            pattern;
        let odd =
            rest.contains(&b'*') || rest.contains(&0) || rest.windows(2).any(|pair| pair == b"..");
        (!odd).then_some(pattern)
    }
}

/// Names of all four kinds and what each stands for.
#[derive(Debug)]
pub struct HostTable<T> {
    exact: HashMap<Box<[u8]>, T>,
    /// `*.example.com` under `.example.com`.
    heads: HashMap<Box<[u8]>, T>,
    /// `www.example.*` under `www.example.`.
    tails: HashMap<Box<[u8]>, T>,
    regexes: Vec<(Regex, T)>,
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            heads: HashMap::new(),
            tails: HashMap::new(),
            regexes: Vec::new(),
        }
    }
}

impl<T> HostTable<T> {
    /// Adds an exact name; `false` when the name was there already (the first one stays).
    pub fn add_exact(&mut self, name: &[u8], value: T) -> bool {
        insert(&mut self.exact, name, value)
    }

    /// Adds a name written `*.example.com` (`suffix` is `.example.com`).
    pub fn add_head_wildcard(&mut self, suffix: &[u8], value: T) -> bool {
        insert(&mut self.heads, suffix, value)
    }

    /// Adds a name written `www.example.*` (`prefix` is `www.example.`).
    pub fn add_tail_wildcard(&mut self, prefix: &[u8], value: T) -> bool {
        insert(&mut self.tails, prefix, value)
    }

    /// Adds a name of any kind but a regular expression; `false` when one was there already.
    pub fn add(&mut self, pattern: HostPattern<'_>, value: T) -> bool
    where
        T: Clone,
    {
        match pattern {
            HostPattern::Exact(name) => self.add_exact(name, value),
            HostPattern::Domain(name) => {
                let exact = self.add_exact(&name[1..], value.clone());
                self.add_head_wildcard(name, value) && exact
            }
            HostPattern::Head(suffix) => self.add_head_wildcard(suffix, value),
            HostPattern::Tail(prefix) => self.add_tail_wildcard(prefix, value),
        }
    }

    /// Adds a regular expression; they are tried in the order of adding.
    pub fn add_regex(&mut self, regex: Regex, value: T) {
        self.regexes.push((regex, value));
    }

    /// Looks `name` up, without regard to case; regular expressions see it as given, and give
    /// their captures. An empty name is only looked up exactly.
    pub fn find(&self, name: &[u8]) -> Option<(&T, Option<(&Regex, Captures)>)> {
        let lower = name.to_ascii_lowercase();
        self.find_name(&lower).map(|value| (value, None)).or_else(|| self.find_regex(name))
    }

    /// Every value in the table, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        let names = self.exact.values().chain(self.heads.values()).chain(self.tails.values());
        names.chain(self.regexes.iter().map(|(_, value)| value))
    }

    fn find_name(&self, name: &[u8]) -> Option<&T> {
        self.exact.get(name).or_else(|| self.find_head(name)).or_else(|| self.find_tail(name))
    }

    fn find_head(&self, name: &[u8]) -> Option<&T> {
        if self.heads.is_empty() {
            return None;
        }
        // The earliest dot gives the longest suffix; something must stand before it.
        dots(name).filter(|&dot| dot > 0).find_map(|dot| self.heads.get(&name[dot..]))
    }

    fn find_tail(&self, name: &[u8]) -> Option<&T> {
        if self.tails.is_empty() {
            return None;
        }
        dots(name)
            .rev()
            .filter(|&dot| dot + 1 < name.len())
            .find_map(|dot| self.tails.get(&name[..=dot]))
    }

    fn find_regex(&self, name: &[u8]) -> Option<(&T, Option<(&Regex, Captures)>)> {
        if name.is_empty() {
            return None;
        }
        self.regexes.iter().find_map(|(regex, value)| {
            regex.captures(name).map(|captures| (value, Some((regex, captures))))
        })
    }
}

fn insert<T>(table: &mut HashMap<Box<[u8]>, T>, name: &[u8], value: T) -> bool {
    let key = name.to_ascii_lowercase().into_boxed_slice();
    if table.contains_key(&key) {
        return false;
    }
    table.insert(key, value);
    true
}

fn dots(name: &[u8]) -> impl DoubleEndedIterator<Item = usize> {
    name.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::VariableId;

    fn table() -> HostTable<&'static str> {
        let mut table = HostTable::default();
        assert!(table.add_exact(b"www.example.com", "exact"));
        assert!(table.add_head_wildcard(b".example.com", "head"));
        assert!(table.add_head_wildcard(b".deep.example.com", "deep head"));
        assert!(table.add_tail_wildcard(b"www.", "tail"));
        assert!(table.add_tail_wildcard(b"www.example.", "long tail"));
        let regex = Regex::new(r"^(?<x>\w+)\.test$", false, |_| VariableId(0));
        table.add_regex(regex.expect("compiles"), "regex");
        table
    }

    #[test]
    fn names_are_found_in_nginx_order() {
        let table = table();
        for (name, expected) in [
            ("www.example.com", Some("exact")),
            ("WWW.Example.COM", Some("exact")),
            ("a.example.com", Some("head")),
            ("b.a.example.com", Some("head")),
            ("x.deep.example.com", Some("deep head")),
            (".example.com", None),
            ("example.com", None),
            ("www.example.org", Some("long tail")),
            ("www.org", Some("tail")),
            ("www.", None),
            ("abc.test", Some("regex")),
            ("", None),
        ] {
            let found = table.find(name.as_bytes()).map(|(value, _)| *value);
            assert_eq!(found, expected, "{name:?}");
        }
    }

    #[test]
    fn the_first_of_two_equal_names_stays() {
        let mut table = table();
        assert!(!table.add_exact(b"WWW.example.com", "second"));
        assert_eq!(table.find(b"www.example.com").map(|found| *found.0), Some("exact"));
    }

    #[test]
    fn wildcards_may_only_stand_at_an_end() {
        for (name, expected) in [
            ("a.b", Some(HostPattern::Exact(b"a.b"))),
            ("", Some(HostPattern::Exact(b""))),
            (".a.b", Some(HostPattern::Domain(b".a.b"))),
            ("*.a.b", Some(HostPattern::Head(b".a.b"))),
            ("a.b.*", Some(HostPattern::Tail(b"a.b."))),
            ("a.*.b", None),
            ("*.a.*", None),
            ("a*.b", None),
            ("*", None),
            ("a..b", None),
        ] {
            assert_eq!(HostPattern::parse(name.as_bytes()), expected, "{name:?}");
        }
    }

    #[test]
    fn a_regex_gives_its_captures() {
        let table = table();
        let (_, captures) = table.find(b"abc.test").expect("found");
        let (_, captures) = captures.expect("a regular expression");
        assert_eq!(captures.group(b"abc.test", 1), Some(b"abc".as_slice()));
    }
}
