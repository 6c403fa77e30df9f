//! Text that commands read and write.

/// `text` as one word of nginx's language, whatever is in it except `$`, which stays a variable.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `HOST:PORT` as it is, and `HOST` with this port; colons in brackets are those of an address.
pub(crate) fn with_port(authority: &str, port: u16) -> String {
    match authority.rsplit(']').next().is_some_and(|rest| rest.contains(':')) {
        true => authority.to_owned(),
        false => format!("{authority}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_added_where_there_is_none() {
        for (authority, expected) in [
            ("app", "app:80"),
            ("app:1", "app:1"),
            ("[::1]", "[::1]:80"),
            ("[::1]:1", "[::1]:1"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(with_port(authority, 80), expected);
        }
    }

    #[test]
    fn a_quoted_word_stays_one_word() {
        assert_eq!(quoted("/a b/\"c\"\\d;"), r#""/a b/\"c\"\\d;""#);
    }
}
