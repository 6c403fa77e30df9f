//! When a CA wants a certificate to be renewed (RFC 9773).

use std::time::Duration;

use serde_json::Value;

use crate::chain::Chain;
use crate::failure::Failure;
use crate::schedule::Span;
use crate::session::Session;

/// How long an answer is believed when it does not say, and between which bounds otherwise; as nginx.
const LIFE: Duration = Duration::from_secs(12 * 60 * 60);
const SHORTEST_LIFE: Duration = Duration::from_secs(60);
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Asks the CA; `None` when it has no opinion on such things, or not on this certificate. The answer is good
/// for so long.
pub(crate) async fn ask(
    session: &Session,
    chain: &Chain,
) -> Result<Option<(Span, Duration)>, Failure> {
    let meta = session.meta().await?;
    let (Some(url), Some((authority, serial))) = (&meta.renewal_info, &chain.renewal_id) else {
        return Ok(None);
    };
    let url = format!("{}/{authority}.{serial}", url.trim_end_matches('/'));
    let (answer, wait) = session.client.get(&url).await?;
    let window = window(&answer)
        .ok_or_else(|| Failure::way(format!("{url}: the suggested window is invalid")))?;
    Ok(Some((window, wait.unwrap_or(LIFE).clamp(SHORTEST_LIFE, LONGEST_LIFE))))
}

fn window(answer: &Value) -> Option<Span> {
    let time = |name: &str| {
        let text = answer["suggestedWindow"][name].as_str()?;
        Some(text.parse::<jiff::Timestamp>().ok()?.as_second())
    };
    let window = Span { start: time("start")?, end: time("end")? };
    (window.start < window.end).then_some(window)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_window_has_two_ends() {
        let of = |start, end| window(&json!({ "suggestedWindow": { "start": start, "end": end } }));
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00+00:00");
        assert_eq!(of(early, late), Some(Span { start: 1_767_225_600, end: 1_767_229_200 }));
        assert_eq!(of(late, early), None);
        assert_eq!(of("soon", late), None);
    }
}
