//! What all pictures are made of: SVG without a background, which follows the reader's light or dark scheme.

/// A whole picture of this width and height; `label` is read to those who do not see it.
pub(crate) fn document(
    (width, height): (f64, f64),
    label: &str,
    style: &str,
    body: &str,
) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{label}\">\n<style>\n{style}\n</style>\n{body}</svg>\n"
    )
}

/// A text whose start, middle or end (`anchor`) is at this place.
pub(crate) fn text(class: &str, x: f64, y: f64, anchor: &str, text: &str) -> String {
    let text = escape(text);
    format!(
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
    )
}

/// A text as it stands between tags.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
