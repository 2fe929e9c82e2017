//! References inside a container: decoding, resolving, comparing.
//!
//! A *path* here is what an entry of the archive is called: decoded, composed (NFC), `/` between
//! segments, none at the beginning, no `.` or `..` in it.

use unicode_normalization::UnicodeNormalization;

/// Returns the path that `href`, relative to the root of the container, refers to.
///
/// `None` if it is empty, leads out of the container, or names another place (`https:`).
pub(crate) fn path(href: &str) -> Option<String> {
    resolve("", href)
}

/// Returns the path that `href` refers to in the document at `base`. `None` as for [`path`].
pub(crate) fn resolve(base: &str, href: &str) -> Option<String> {
    let href = href.trim();
    if is_remote(href) {
        return None;
    }
    normal(base, &decode(without_fragment(href)))
}

/// Like [`resolve`], taking a `%` for a character of the name. Some archives are packed so.
pub(crate) fn resolve_literally(base: &str, href: &str) -> Option<String> {
    let href = href.trim();
    if is_remote(href) {
        return None;
    }
    normal(base, without_fragment(href))
}

/// Returns the path by which an entry called `name` is found: composed, with `/` between segments.
pub(crate) fn entry_path(name: &str) -> String {
    name.replace('\\', "/").nfc().collect()
}

/// Returns `path` percent-encoded, so that [`path()`] gives it back.
pub(crate) fn encode(path: &str) -> String {
    let mut href = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) {
            href.push(char::from(byte));
        } else {
            href.push('%');
            href.push(hex_digit(byte >> 4));
            href.push(hex_digit(byte & 15));
        }
    }
    // A colon in the first segment would read as a scheme.
    if is_remote(&href) { format!("./{href}") } else { href }
}

/// Whether `href` begins with a scheme, so that it leads out of the container.
pub(crate) fn is_remote(href: &str) -> bool {
    let Some((scheme, _)) = href.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn without_fragment(href: &str) -> &str {
    href.split(['#', '?']).next().unwrap_or_default()
}

fn normal(base: &str, path: &str) -> Option<String> {
    if path.is_empty() {
        return None;
    }
    let mut segments: Vec<&str> = Vec::new();
    if !path.starts_with('/') {
        segments.extend(base.split('/').filter(|segment| !segment.is_empty()));
        segments.pop();
    }
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop()?;
            }
            segment => segments.push(segment),
        }
    }
    let path: String = segments.join("/").nfc().collect();
    (!path.is_empty()).then_some(path)
}

/// Decodes `%XX`; what is no such sequence, or no UTF-8 once decoded, stays as it is.
fn decode(href: &str) -> String {
    let mut bytes = Vec::with_capacity(href.len());
    let mut rest = href.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let escaped = (byte == b'%')
            .then(|| Some(hex_value(ahead.next()?)? << 4 | hex_value(ahead.next()?)?))
            .flatten();
        match escaped {
            Some(decoded) => {
                bytes.push(decoded);
                rest = ahead;
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| href.to_owned())
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn hex_digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0').to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hrefs_resolve_against_the_document_that_names_them() {
        let base = "OPS/package.opf";

        assert_eq!(resolve(base, "text/a.xhtml").as_deref(), Some("OPS/text/a.xhtml"));
        assert_eq!(resolve(base, "../a%20b.xhtml#x").as_deref(), Some("a b.xhtml"));
        assert_eq!(resolve(base, "/a.xhtml").as_deref(), Some("a.xhtml"));
        assert_eq!(resolve("package.opf", "./a.xhtml").as_deref(), Some("a.xhtml"));
    }

    #[test]
    fn nothing_resolves_outside_of_the_container() {
        for href in ["../../etc/passwd", "..", "/..", "https://example.org/a", "data:,x", "", "#x"]
        {
            assert_eq!(resolve("OPS/package.opf", href), None, "{href}");
        }
        assert_eq!(resolve("OPS/package.opf", "%2e%2e/%2e%2e/a"), None);
    }

    #[test]
    fn odd_percent_signs_stay_as_they_are() {
        assert_eq!(path("100%").as_deref(), Some("100%"));
        assert_eq!(path("100%zz%4").as_deref(), Some("100%zz%4"));
        assert_eq!(path("a%FFb").as_deref(), Some("a%FFb"));
    }

    proptest! {
        #[test]
        fn an_encoded_path_leads_back(segments in proptest::collection::vec("[^/\\\\\u{0}]{1,8}", 1..4)) {
            let path_before = normal("", &segments.join("/"));
            let Some(path_before) = path_before else { return Ok(()) };

            prop_assert_eq!(path(&encode(&path_before)), Some(path_before));
        }
    }
}
