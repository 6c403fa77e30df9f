//! Which tunnels are shown, as it is typed: `user=ann min_age=1h location="/a b"`.

use wssgate_proxy::admin::FILTERS;

/// The parameters that a text means; a word alone is a user. What is wrong with it otherwise.
pub(super) fn parse(text: &str) -> Result<Vec<(&'static str, String)>, String> {
    let mut query: Vec<(&'static str, String)> = Vec::new();
    for word in words(text)? {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => ("user".to_owned(), word),
        };
        let known = FILTERS.into_iter().find(|known| *known == name);
        let name = known.ok_or_else(|| format!("there is no filter \"{name}\""))?;
        if query.iter().any(|(other, _)| *other == name) {
            return Err(format!("\"{name}\" is repeated"));
        }
        query.push((name, value));
    }
    Ok(query)
}

/// The text that means these.
pub(super) fn text(query: &[(&'static str, String)]) -> String {
    let word = |(name, value): &(&str, String)| match value.is_empty() || value.contains([' ', '"'])
    {
        true => format!("{name}=\"{}\"", value.replace('"', "\"\"")),
        false => format!("{name}={value}"),
    };
    query.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Words between spaces; in quotes a space is one of the word, and two quotes are one.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '"' if quoted && rest.next_if_eq(&'"').is_some() => {
                word.get_or_insert_default().push('"');
            }
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_is_asked_for() {
        let query = |pairs: &[(&'static str, &str)]| {
            Ok(pairs.iter().map(|&(name, value)| (name, value.to_owned())).collect())
        };
        for (text, expected) in [
            ("", query(&[])),
            ("ann", query(&[("user", "ann")])),
            (" user=ann  min_age=1h ", query(&[("user", "ann"), ("min_age", "1h")])),
            ("user=\"Ann B\"", query(&[("user", "Ann B")])),
            ("user=\"\"", query(&[("user", "")])),
            ("user=\"a\"\"b\"", query(&[("user", "a\"b")])),
            ("subject=s token_id=t", query(&[("subject", "s"), ("token_id", "t")])),
            ("location=/a=b", query(&[("location", "/a=b")])),
            ("colour=red", Err("there is no filter \"colour\"".to_owned())),
            ("user=a b", Err("\"user\" is repeated".to_owned())),
            ("user=\"a", Err("a quote is not closed".to_owned())),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_text_means_what_it_was_made_of() {
        for value in ["ann", "", "Ann B", "a\"b", "\"", "é"] {
            let query = vec![("user", value.to_owned()), ("min_age", "1h".to_owned())];
            assert_eq!(parse(&text(&query)), Ok(query));
        }
    }
}
