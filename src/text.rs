//! Text that commands read and write.

/// What a configuration of our own making says of its first two lines, `daemon off;` and `pid off;`.
pub(crate) const FOREGROUND: &str =
    "# For a program in the foreground; remove these two lines to run it as a service.\n";

/// `text` as one word of nginx's language, whatever is in it except `$`, which stays a variable.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `text` as one word of a POSIX shell, quoted only if it has to be.
pub(crate) fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// `HOST:PORT` as it is, and `HOST` with this port; colons in brackets are those of an address.
pub(crate) fn with_port(authority: &str, port: u16) -> String {
    match authority.rsplit(']').next().is_some_and(|rest| rest.contains(':')) {
        true => authority.to_owned(),
        false => format!("{authority}:{port}"),
    }
}

/// What the system said, in its words and without its number.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or_default().to_owned()
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
    fn a_word_of_a_shell_is_quoted_if_it_has_to_be() {
        for (text, expected) in [
            ("wssgate", "wssgate"),
            ("./target/release/wssgate", "./target/release/wssgate"),
            ("/my programs/it's", r"'/my programs/it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(text), expected);
        }
    }

    #[test]
    fn a_quoted_word_stays_one_word() {
        assert_eq!(quoted("/a b/\"c\"\\d;"), r#""/a b/\"c\"\\d;""#);
    }
}
