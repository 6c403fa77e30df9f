//! Groups of peers.

use std::time::Duration;

use wssgate_syntax::{Diagnostic, Directive, Word};

use crate::directive::Arity::{AtLeast, Between, Exactly};
use crate::directive::{Braces, Context, H, Row, U, Value, works};
use crate::model::{Balance, Located, UpstreamServer};
use crate::read::{
    Reading, Reads, duration, invalid_parameter, number, parameter, present, text,
    unknown_parameter,
};
use crate::value::{self, Form};

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works("hash", U, Between(1, 2), "", "Chooses a peer by a key.", hash),
    works("ip_hash", U, Exactly(0), "", "Chooses a peer by the client's address.", present),
    works(
        "keepalive",
        U,
        Between(1, 2),
        "32",
        "Idle connections that each worker keeps; 0 for none.",
        keepalive,
    ),
    works(
        "keepalive_requests",
        U,
        Exactly(1),
        "1000",
        "Requests on one upstream connection.",
        number,
    ),
    works(
        "keepalive_time",
        U,
        Exactly(1),
        "1h",
        "How long an upstream connection takes requests.",
        duration,
    ),
    works(
        "keepalive_timeout",
        U,
        Exactly(1),
        "60s",
        "How long an idle upstream connection stays.",
        duration,
    ),
    works(
        "least_conn",
        U,
        Exactly(0),
        "",
        "Chooses the peer with the fewest connections.",
        present,
    ),
    works("random", U, Between(0, 2), "", "Chooses a peer by chance.", random),
    works("server", U, AtLeast(1), "", "Adds peers.", server).many(),
    works("upstream", H, Exactly(1), "", "Holds a group of peers.", text)
        .block(Braces::Level(Context::Upstream))
        .many(),
    works("zone", U, Between(1, 2), "", "Shares the group's state between workers.", zone),
];

/// `keepalive N [local]`.
fn keepalive(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    let count = value::number(&word.value).ok_or_else(|| {
        Diagnostic::error(format!("invalid value \"{word}\" in \"keepalive\" directive"))
            .at(word.span, "")
    })?;
    match directive.args.get(1) {
        Some(word) if !word.is("local") => Err(invalid_parameter(word)),
        _ => Ok(Value::new(count)),
    }
}

fn hash(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let consistent = match directive.args.get(1) {
        None => false,
        Some(word) if word.is("consistent") => true,
        Some(word) => return Err(invalid_parameter(word)),
    };
    Ok(Value::new(Balance::Hash { key: reading.template(&directive.args[0])?, consistent }))
}

fn random(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let two = match directive.args.first() {
        None => false,
        Some(word) if word.is("two") => true,
        Some(word) => return Err(invalid_parameter(word)),
    };
    match directive.args.get(1) {
        Some(word) if !word.is("least_conn") => Err(invalid_parameter(word)),
        _ => Ok(Value::new(Balance::Random { two })),
    }
}

/// `zone NAME [SIZE]`.
#[derive(Clone)]
pub(crate) struct Zone {
    pub(crate) name: Located<Box<[u8]>>,
    /// Whether a size was written; one of the groups that share a zone must give it.
    pub(crate) sized: bool,
}

fn zone(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let name = &directive.args[0];
    if name.value.is_empty() {
        return Err(Diagnostic::error(format!("invalid zone name \"{name}\"")).at(name.span, ""));
    }
    let size = directive.args.get(1);
    if let Some(word) = size {
        let invalid =
            || Diagnostic::error(format!("invalid zone size \"{word}\"")).at(word.span, "");
        let size = value::size(&word.value).filter(|&size| size > 0).ok_or_else(invalid)?;
        // Eight pages is the least that nginx accepts.
        if size < 8 * 4096 {
            let problem = Diagnostic::error(format!("zone \"{name}\" is too small"));
            return Err(problem.at(word.span, ""));
        }
    }
    let name = Located { value: name.value.clone(), span: name.span };
    Ok(Value::new(Zone { name, sized: size.is_some() }))
}

const DEFAULT_PORT: u16 = 80;
const DEFAULT_FAIL_TIMEOUT: Duration = Duration::from_secs(10);

fn server(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let name = &directive.args[0];
    let mut server = UpstreamServer {
        name: name.value.clone(),
        addresses: Vec::new(),
        weight: 1,
        max_conns: 0,
        max_fails: 1,
        fail_timeout: DEFAULT_FAIL_TIMEOUT,
        backup: false,
        down: false,
    };
    for word in &directive.args[1..] {
        server_parameter(&mut server, word)?;
    }
    let problem =
        |what: &str| Diagnostic::error(format!("{what} in upstream \"{name}\"")).at(name.span, "");
    let endpoint = value::endpoint(&name.value, Form::Host).map_err(problem)?;
    server.addresses = reading
        .addresses(&endpoint, DEFAULT_PORT)
        .map_err(|error| problem("host not found").note(error.to_string()))?;
    Ok(Value::new(server))
}

/// For suggestions.
const PARAMETERS: &[&str] = &["backup", "down", "fail_timeout", "max_conns", "max_fails", "weight"];

fn server_parameter(server: &mut UpstreamServer, word: &Word) -> Result<(), Diagnostic> {
    let number = |text| {
        let value = value::number(text).and_then(|value| u32::try_from(value).ok());
        value.ok_or_else(|| invalid_parameter(word))
    };
    if let Some(text) = parameter(word, "weight=") {
        server.weight = number(text)?;
        if server.weight == 0 {
            return Err(invalid_parameter(word));
        }
    } else if let Some(text) = parameter(word, "max_conns=") {
        server.max_conns = number(text)?;
    } else if let Some(text) = parameter(word, "max_fails=") {
        server.max_fails = number(text)?;
    } else if let Some(text) = parameter(word, "fail_timeout=") {
        server.fail_timeout = value::seconds(text).ok_or_else(|| invalid_parameter(word))?;
    } else if word.is("backup") {
        server.backup = true;
    } else if word.is("down") {
        server.down = true;
    } else if word.is("resolve") || parameter(word, "service=").is_some() {
        let help = "names are resolved when the configuration is read; reload to resolve again";
        return Err(Diagnostic::error(format!("\"{word}\" is not supported"))
            .at(word.span, "")
            .help(help));
    } else if word.is("drain") || parameter(word, "route=").is_some() {
        let help = "`sticky` is not implemented; use `ip_hash` or `hash`";
        return Err(Diagnostic::error(format!("\"{word}\" is not supported"))
            .at(word.span, "")
            .help(help));
    } else {
        return Err(unknown_parameter(word, PARAMETERS));
    }
    Ok(())
}
