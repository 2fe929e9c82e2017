//! Titles and names as people write them: white space collapsed, control characters gone.

use crate::limits::TEXT_CHARS_MAX;

/// Returns `raw` trimmed, with one blank for each run of white space, without control characters
/// and cut to [`TEXT_CHARS_MAX`]; `None` if nothing is left.
pub(crate) fn clean(raw: &str) -> Option<String> {
    let mut text = String::new();
    let mut chars = 0;
    for word in raw.split(|c: char| c.is_whitespace() || c.is_control()) {
        let word: Vec<char> = word.chars().filter(|&c| !is_invisible(c)).collect();
        if word.is_empty() {
            continue;
        }
        if 0 < chars && chars < TEXT_CHARS_MAX {
            text.push(' ');
            chars += 1;
        }
        let kept = word.len().min(TEXT_CHARS_MAX.saturating_sub(chars));
        text.extend(word.iter().take(kept));
        chars += kept;
        if TEXT_CHARS_MAX <= chars {
            break;
        }
    }
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Byte order marks and the controls of text direction that could make a title look like another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{feff}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_collapsed_and_trimmed() {
        let cleaned = clean("\u{feff} \n  The\t Time\u{a0}\r\nMachine ");
        assert_eq!(cleaned.as_deref(), Some("The Time Machine"));
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\u{202e}c\0").as_deref(), Some("a [31mbc"));
    }

    #[test]
    fn blank_text_is_no_text() {
        assert_eq!(clean(" \u{feff}\n\0 "), None);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let cut = clean(&"é".repeat(5_000)).unwrap();
        assert_eq!(cut.chars().count(), TEXT_CHARS_MAX);

        let words = clean(&"ab ".repeat(5_000)).unwrap();
        assert!(words.chars().count() <= TEXT_CHARS_MAX);
    }
}
