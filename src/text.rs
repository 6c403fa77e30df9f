//! Text for configurations that the program writes itself.

/// `text` as one word of nginx's language, whatever is in it except `$`, which stays a variable.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_stays_one_word() {
        assert_eq!(quoted("/a b/\"c\"\\d;"), r#""/a b/\"c\"\\d;""#);
    }
}
