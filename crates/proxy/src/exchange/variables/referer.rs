//! `$invalid_referer`.

use wssgate_config::model::ValidReferers;

/// Longer host names are none, as in nginx.
const MAX_HOST: usize = 256;

/// Whether a request with this `Referer` comes from where it may.
pub(super) fn is_valid(referers: &ValidReferers, referer: Option<&[u8]>) -> bool {
    let names_nobody = referers.names.values().next().is_none()
        && referers.hosts.is_empty()
        && referers.urls.is_empty();
    if names_nobody {
        return true;
    }
    let Some(referer) = referer else { return referers.none };
    let Some(url) = without_scheme(referer) else { return referers.blocked };
    let end = url.iter().position(|byte| b"/:".contains(byte)).unwrap_or(url.len());
    if end > MAX_HOST {
        return false;
    }
    let host = url[..end].to_ascii_lowercase();
    if let Some((path, _)) = referers.names.find(&host) {
        // What stands between them is a port.
        let slash = url.iter().position(|&byte| byte == b'/').unwrap_or(url.len());
        return path.as_ref().is_none_or(|path| url[slash..].starts_with(path));
    }
    referers.hosts.iter().any(|regex| regex.captures(&host).is_some())
        || referers.urls.iter().any(|regex| regex.captures(url).is_some())
}

/// What stands behind `http://` or `https://`; the shortest URL that nginx believes has four letters more than that.
fn without_scheme(referer: &[u8]) -> Option<&[u8]> {
    if referer.len() < "http://i.ru".len() {
        return None;
    }
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    schemes.iter().find_map(|scheme| {
        let (start, rest) = referer.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}
