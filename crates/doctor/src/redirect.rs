//! Where a redirect leads.

use crate::target::Target;

/// Where a `Location` leads, from the URL of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// To this path of the same host, port and security.
    Here(String),
    /// From `ws` to TLS on the same host.
    ToTls(String),
    /// Anywhere else.
    Elsewhere(String),
}

impl Redirect {
    /// Reads `location`, which came in answer to a request for `path`.
    pub(crate) fn read(location: &str, target: &Target, path: &str) -> Self {
        let location = location.split('#').next().unwrap_or_default();
        let own = if target.tls { "https" } else { "http" };
        let absolute = match location {
            _ if location.starts_with("//") => format!("{own}:{location}"),
            _ if location.contains("://") => location.to_owned(),
            _ if location.starts_with('/') => return Self::Here(location.to_owned()),
            _ if location.starts_with('?') => {
                let base = path.split('?').next().unwrap_or_default();
                return Self::Here(format!("{base}{location}"));
            }
            _ => {
                let base = path.split('?').next().unwrap_or_default();
                let dir = &base[..=base.rfind('/').unwrap_or(0)];
                return Self::Here(format!("{dir}{location}"));
            }
        };
        let as_websocket = match absolute.split_once("://") {
            Some(("https" | "wss", rest)) => format!("wss://{rest}"),
            Some(("http" | "ws", rest)) => format!("ws://{rest}"),
            _ => return Self::Elsewhere(absolute),
        };
        match Target::parse(&as_websocket) {
            Ok(to) if to.host == target.host && to.tls == target.tls && to.port == target.port => {
                Self::Here(to.path)
            }
            Ok(to) if to.host == target.host && to.tls && !target.tls => {
                Self::ToTls(to.to_string())
            }
            Ok(to) => Self::Elsewhere(to.to_string()),
            Err(_) => Self::Elsewhere(absolute),
        }
    }
}

/// Whether an address looks like that of a login page.
pub(crate) fn is_login(location: &str) -> bool {
    let location = location.to_ascii_lowercase();
    ["login", "signin", "sign_in", "sign-in", "auth", "sso", "account"]
        .iter()
        .any(|word| location.contains(word))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_seen_from_the_url_of_the_websocket() {
        use Redirect::*;
        let here = |path: &str| Here(path.into());
        for (url, location, expected) in [
            ("wss://a.test/x", "https://a.test/x", here("/x")),
            ("wss://a.test/x", "https://a.test:443/y#z", here("/y")),
            ("wss://a.test/x", "wss://A.test/x", here("/x")),
            ("wss://a.test/x", "//a.test/y", here("/y")),
            ("wss://a.test/x/y?q", "/z", here("/z")),
            ("wss://a.test/x/y?q", "z", here("/x/z")),
            ("wss://a.test/x/y?q", "?r", here("/x/y?r")),
            ("ws://a.test/x", "https://a.test/x", ToTls("wss://a.test/x".into())),
            ("wss://a.test/x", "http://a.test/x", Elsewhere("ws://a.test/x".into())),
            ("wss://a.test/x", "https://b.test/x", Elsewhere("wss://b.test/x".into())),
            ("wss://a.test/x", "mailto://b", Elsewhere("mailto://b".into())),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(
                Redirect::read(location, &target, &target.path),
                expected,
                "{url} {location}"
            );
        }
    }
}
