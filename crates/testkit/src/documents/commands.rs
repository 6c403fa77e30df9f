//! Commands in documents.

use super::Document;

/// The program as it is called in documents.
const PROGRAM: &str = "wssgate";

/// A call of the program in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The line of the document, the first is 1.
    pub line: usize,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether it could be run as it is written; `wssgate proxy` in a sentence may leave out what must follow.
    pub complete: bool,
}

impl Document {
    /// Every call of the program: in lines of code, and in code that a sentence has.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        for block in &self.blocks {
            if !matches!(&*block.language, "" | "sh" | "bash" | "console" | "ini") {
                continue;
            }
            // Where some lines are typed and others are printed, those with a prompt are typed.
            let with_prompt = block.text.lines().any(|line| line.starts_with("$ "));
            let mut lines = block.text.lines().enumerate();
            while let Some((index, line)) = lines.next() {
                let typed = if with_prompt { line.strip_prefix("$ ") } else { Some(line) };
                let Some(typed) = typed else { continue };
                let mut typed = typed.to_owned();
                while typed.ends_with('\\') {
                    typed.pop();
                    typed.push_str(lines.next().map_or("", |(_, line)| line.trim_start()));
                }
                commands.extend(calls(&unit_line(&typed), block.line + index, true));
            }
        }
        for span in &self.spans {
            commands.extend(calls(&unit_line(&span.text), span.line, false));
        }
        commands
    }
}

/// The command of a line such as `ExecStart=@/usr/bin/wssgate nginx -t` of a systemd unit; other lines as they are.
fn unit_line(line: &str) -> String {
    let Some((name, command)) = line.split_once('=') else { return line.to_owned() };
    if !name.starts_with("Exec") {
        return line.to_owned();
    }
    let program = command.trim_start_matches(['-', '+', '!', '@']);
    match program.split_once(' ') {
        // The word behind the program is what the process is called.
        Some((program, rest)) if command.contains('@') => {
            format!("{program} {}", rest.split_once(' ').map_or("", |(_, rest)| rest))
        }
        _ => program.to_owned(),
    }
}

/// The calls of the program in a line of a shell.
fn calls(line: &str, number: usize, complete: bool) -> Vec<Command> {
    let call = |words: Vec<String>| {
        let mut words = words.into_iter().skip_while(|word| {
            let name = word.split_once('=').map_or("", |(name, _)| name);
            word == "sudo" || (!name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase()))
        });
        let program = words.next()?;
        let arguments: Vec<_> = match program.rsplit('/').next()? {
            PROGRAM => words.collect(),
            "cargo" if words.next()? == "run" => {
                words.skip_while(|word| word != "--").skip(1).collect()
            }
            _ => return None,
        };
        // What is left out in the text is no argument.
        let count = arguments.len();
        let arguments: Vec<_> = arguments.into_iter().filter(|word| word != "…").collect();
        let complete = complete && arguments.len() == count;
        Some(Command { line: number, arguments, complete })
    };
    split(line).into_iter().filter_map(call).collect()
}

/// The words of each command of a line, as a shell splits them; redirections and comments end a command.
fn split(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut redirected = false;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '|' | '&' | ';' | '>' | '<') => {
                let finished = word.take();
                if !redirected {
                    commands.last_mut().expect("there is one").extend(finished);
                }
                match letter {
                    ' ' => {}
                    '>' | '<' => redirected = true,
                    _ => {
                        redirected = false;
                        commands.push(Vec::new());
                    }
                }
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if !redirected {
        commands.last_mut().expect("there is one").extend(word);
    }
    commands.retain(|words| !words.is_empty());
    commands
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, String, bool)> {
        let commands = Document::parse("a.md", text).commands();
        let shown =
            |command: Command| (command.line, command.arguments.join("|"), command.complete);
        commands.into_iter().map(shown).collect()
    }

    #[test]
    fn commands_are_found_where_they_are_typed() {
        type Found<'a> = (usize, &'a str, bool);
        let cases: &[(&str, &[Found<'_>])] = &[
            ("Text wssgate is here.", &[]),
            ("Use `wssgate -t` or `sudo wssgate proxy`.", &[(1, "-t", false), (1, "proxy", false)]),
            ("    wssgate -s reload   # a comment\n", &[]),
            ("\n    wssgate -s reload   # wssgate\n", &[(2, "-s|reload", true)]),
            ("\n    $ wssgate acme status\n    wssgate prints this\n", &[(2, "acme|status", true)]),
            (
                "\n    wssgate proxy --to 1 \\\n        --from x\n",
                &[(2, "proxy|--to|1|--from|x", true)],
            ),
            (
                "\n    A=b /usr/bin/wssgate -t && cd x; wssgate >y -q\n",
                &[(2, "-t", true), (2, "", true)],
            ),
            ("\n    wssgate -g 'daemon off;' -e \"a b\"\n", &[(2, "-g|daemon off;|-e|a b", true)]),
            ("\n    cargo run --release -- demo\n    cargo test\n", &[(2, "demo", true)]),
            (
                "`wssgate proxy … --to 1 | wssgate -c -`",
                &[(1, "proxy|--to|1", false), (1, "-c|-", false)],
            ),
            (
                "```ini\nExecStart=@/usr/bin/wssgate nginx -t\nExecReload=/bin/kill x\n```\n",
                &[(2, "-t", true)],
            ),
            ("```text\nwssgate is a word\n```\n", &[]),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> = expected
                .iter()
                .map(|&(line, words, complete)| (line, words.to_owned(), complete))
                .collect();
            assert_eq!(found(text), expected, "{text}");
        }
    }
}
