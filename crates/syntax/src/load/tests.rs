//! Tables of files in, directives and error lines out.

use super::*;
use crate::files::Memory;

/// Reads `/etc/main.conf` of a table of files.
fn read(files: &[(&str, &str)]) -> Parsed {
    let files: Memory = files.iter().copied().collect();
    let main = Main::File("/etc/main.conf".into());
    parse(Options { files: &files, ..Options::new(&main) })
}

fn names(directives: &[Directive]) -> Vec<String> {
    directives.iter().map(|directive| directive.name.to_string()).collect()
}

#[test]
fn included_directives_stand_where_their_include_stood() {
    let parsed = read(&[
        ("/etc/main.conf", "a; include one.conf; d; map $x $y { e; include sub/*.conf; h; }"),
        ("/etc/one.conf", "b;\ninclude /abs.conf;"),
        ("/abs.conf", "c;"),
        ("/etc/sub/2.conf", "g;"),
        ("/etc/sub/1.conf", "f; include one.conf;"),
        ("/etc/sub/.3.conf", "hidden;"),
    ]);
    assert!(parsed.report.is_empty(), "{:?}", parsed.report);
    assert_eq!(names(&parsed.directives), ["a", "b", "c", "d", "map"]);
    let map = parsed.directives[4].block.as_ref().map(|block| names(&block.directives));
    assert_eq!(map.as_deref(), Some(&["e", "f", "b", "c", "g", "h"].map(String::from)[..]));
    let location = parsed.sources.location(parsed.directives[2].name.span);
    assert_eq!(location.to_string(), "/abs.conf:1");
    let paths: Vec<_> =
        parsed.sources.files().map(|(_, file)| file.path().display().to_string()).collect();
    assert_eq!(
        paths,
        ["/etc/main.conf", "/etc/one.conf", "/abs.conf", "/etc/sub/1.conf", "/etc/sub/2.conf"],
        "each file is kept once, in the order of reading"
    );
    assert_eq!(parsed.includes.len(), 6, "each inclusion is known");
}

#[test]
fn what_is_wrong_with_an_include_is_said_at_the_include() {
    let cases: &[(&str, &[&str])] = &[
        (
            "a;\ninclude none.conf;",
            &[
                "open() \"/etc/none.conf\" failed (2: No such file or directory) in /etc/main.conf:2",
            ],
        ),
        ("include none*.conf;", &[]),
        ("include;", &["invalid number of arguments in \"include\" directive in /etc/main.conf:1"]),
        (
            "include a b;",
            &["invalid number of arguments in \"include\" directive in /etc/main.conf:1"],
        ),
        ("include a {}", &["directive \"include\" is not terminated by \";\" in /etc/main.conf:1"]),
        (
            "include main.conf;",
            &["include cycle: \"/etc/main.conf\" includes \"/etc/main.conf\" in /etc/main.conf:1"],
        ),
        (
            "include x.conf;",
            &[
                "include cycle: \"/etc/x.conf\" includes \"/etc/y.conf\" includes \"/etc/x.conf\" in /etc/y.conf:2",
            ],
        ),
        (
            "include open.conf;\n}",
            &[
                "unexpected \"}\" in /etc/main.conf:2",
                "unexpected end of file, expecting \"}\" in /etc/open.conf:1",
            ],
        ),
        ("include bad.conf; include bad.conf;", &["unexpected \";\" in /etc/bad.conf:1"]),
    ];
    for &(main, expected) in cases {
        let parsed = read(&[
            ("/etc/main.conf", main),
            ("/etc/x.conf", "include y.conf;"),
            ("/etc/y.conf", "\ninclude x.conf;"),
            ("/etc/open.conf", "a {"),
            ("/etc/bad.conf", ";"),
        ]);
        let expected: Vec<_> = expected.iter().map(|line| format!("[emerg] {line}")).collect();
        assert_eq!(parsed.report.lines(&parsed.sources), expected, "{main}");
    }
}

#[test]
fn a_chain_of_includes_has_an_end() {
    let next = |at: usize| (format!("/etc/{at}.conf"), format!("include {}.conf;", at + 1));
    let files: Memory = (0..100).map(next).collect();
    let main = Main::File("/etc/0.conf".into());
    let parsed = parse(Options { files: &files, ..Options::new(&main) });
    let lines = parsed.report.lines(&parsed.sources);
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].starts_with("[emerg] includes nest more than 16 deep: \"/etc/0.conf\" includes")
    );
}

/// Blocks count over all files: whoever walks the tree needs stack for [`MAX_BLOCK_DEPTH`] of them and no more.
#[test]
fn depth_is_bounded_over_all_files() {
    let nested =
        |depth: usize, inner: &str| format!("{}{inner}{}", "a {".repeat(depth), "}".repeat(depth));
    let half = MAX_BLOCK_DEPTH / 2;
    for (depth, expected) in
        [(half, vec![]), (half + 1, vec!["[emerg] blocks nest more than 64 deep in /etc/x.conf:1"])]
    {
        let main = nested(half, "include x.conf; b;");
        let parsed = read(&[("/etc/main.conf", &main), ("/etc/x.conf", &nested(depth, "c;"))]);
        assert_eq!(parsed.report.lines(&parsed.sources), expected);
        let mut levels = 0;
        let mut inner = &parsed.directives;
        while let Some(block) = inner.first().and_then(|directive| directive.block.as_ref()) {
            (levels, inner) = (levels + 1, &block.directives);
        }
        assert_eq!(levels, half + depth, "what is too deep is empty");
    }
}

#[test]
fn a_missing_main_file_is_an_error_without_a_place() {
    let files = Memory::default();
    let main = Main::File("conf/n.conf".into());
    let prefix = Some(Path::new("/opt"));
    let parsed = parse(Options { files: &files, prefix, ..Options::new(&main) });
    assert_eq!(
        parsed.report.lines(&parsed.sources),
        ["[emerg] open() \"/opt/conf/n.conf\" failed (2: No such file or directory)"]
    );
}

#[test]
fn globals_come_first_and_have_words_of_their_own() {
    let cases: &[(&str, &[&str])] = &[
        ("g 1;", &[]),
        ("g 1", &["unexpected end of parameter, expecting \";\" in command line"]),
        ("g \"1", &["unexpected end of parameter, expecting \";\" in command line"]),
        ("g { }", &["block directives are not supported in -g option in command line"]),
        ("g 1; }", &["unexpected \"}\" in command line"]),
    ];
    for &(globals, expected) in cases {
        let files: Memory = [("/n.conf", "a;")].into_iter().collect();
        let main = Main::File("/n.conf".into());
        let options =
            Options { files: &files, globals: Some(globals.as_bytes()), ..Options::new(&main) };
        let parsed = parse(options);
        let expected: Vec<_> = expected.iter().map(|line| format!("[emerg] {line}")).collect();
        assert_eq!(parsed.report.lines(&parsed.sources), expected, "{globals}");
        assert_eq!(names(&parsed.directives), ["g", "a"], "{globals}");
    }
}

#[test]
fn a_text_without_a_file_includes_from_the_prefix() {
    let files: Memory = [("/opt/x.conf", "b;")].into_iter().collect();
    let main = Main::Text { name: "defaults".into(), text: b"a; include x.conf; c }".to_vec() };
    let prefix = Some(Path::new("/opt"));
    let parsed = parse(Options { files: &files, prefix, ..Options::new(&main) });
    assert_eq!(names(&parsed.directives), ["a", "b", "c"]);
    assert_eq!(parsed.report.lines(&parsed.sources), ["[emerg] unexpected \"}\" in defaults:1"]);
}

#[test]
fn a_byte_order_mark_is_an_error_of_the_main_file_and_joins_the_first_word_of_others_as_in_nginx() {
    let parsed = read(&[("/etc/main.conf", "\u{feff}user x;")]);
    assert_eq!(names(&parsed.directives), ["user"]);
    let line = "the file begins with a byte order mark in /etc";
    assert_eq!(parsed.report.lines(&parsed.sources), [format!("[emerg] {line}/main.conf:1")]);
    let parsed = read(&[("/etc/main.conf", "include a.conf;"), ("/etc/a.conf", "\u{feff}user x;")]);
    assert_eq!(parsed.directives[0].name.as_str(), Some("\u{feff}user"));
    assert_eq!(parsed.report.lines(&parsed.sources), [format!("[warn] {line}/a.conf:1")]);
}
