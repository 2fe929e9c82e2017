//! Small XML documents as trees, read under limits.
//!
//! # Invariants
//!
//! 1. A document type is skipped: no entity of a file's own is expanded and nothing outside of the
//!    text is asked for. An entity other than the five of XML stays as it is written.
//! 2. Elements, their depth and their attributes are limited, so a tree costs a small multiple of
//!    the text it was read from, and dropping it does not exhaust the stack.

use std::borrow::Cow;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::{NamespaceResolver, ResolveResult};
use quick_xml::reader::NsReader;

use crate::limits::{XML_ATTRIBUTES_MAX, XML_DEPTH_MAX, XML_ELEMENTS_MAX};

/// An element, its attributes and what is in it.
#[derive(Debug, Default)]
pub(crate) struct Element {
    /// The name without prefix.
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    attributes: Vec<Attribute>,
    pub(crate) children: Vec<Element>,
    /// The text directly inside, without that of the children.
    pub(crate) text: String,
}

/// The namespaces that make a difference here.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// Dublin Core, which has the words for titles and authors.
    DublinCore,
    /// Any other, or none.
    #[default]
    Elsewhere,
}

#[derive(Debug)]
struct Attribute {
    /// The name without prefix.
    name: String,
    prefixed: bool,
    value: String,
}

impl Element {
    /// Returns the value of an attribute. One without prefix wins over one with.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let mut named = self.attributes.iter().filter(|attribute| attribute.name == name);
        let first = named.next()?;
        let plain = std::iter::once(first).chain(named).find(|attribute| !attribute.prefixed);
        Some(&plain.unwrap_or(first).value)
    }

    /// Returns the first child called `name`.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Calls `visit` with this element and all inside, in the order of the document.
    pub(crate) fn walk<'e>(&'e self, visit: &mut impl FnMut(&'e Self)) {
        visit(self);
        for child in &self.children {
            child.walk(visit);
        }
    }
}

/// Parses a document and returns its root; the error ends a sentence that begins with its name.
pub(crate) fn parse(bytes: &[u8]) -> Result<Element, String> {
    let text = decode(bytes)?;
    let mut reader = NsReader::from_str(&text);
    reader.config_mut().allow_dangling_amp = true;
    let mut tree = Tree::default();
    loop {
        let event = reader.read_event().map_err(|error| format!("is not well-formed: {error}"))?;
        let resolver = reader.resolver();
        match event {
            Event::Start(start) => tree.open(element(&start, resolver))?,
            Event::Empty(start) => {
                tree.open(element(&start, resolver))?;
                tree.close();
            }
            Event::End(_) => tree.close(),
            Event::Text(text) => tree.text(&text.xml10_content()),
            Event::CData(text) => tree.text(&text.xml10_content()),
            Event::GeneralRef(entity) => tree.text(&expand(&entity)),
            Event::Eof => return tree.root.ok_or_else(|| "is empty".to_owned()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

/// A tree that is being read.
#[derive(Default)]
struct Tree {
    /// The elements that are not closed, the root first.
    open: Vec<Element>,
    root: Option<Element>,
    elements: usize,
}

impl Tree {
    fn open(&mut self, element: Element) -> Result<(), String> {
        self.elements += 1;
        if XML_ELEMENTS_MAX < self.elements {
            return Err(format!("has more than {XML_ELEMENTS_MAX} elements"));
        }
        if XML_DEPTH_MAX <= self.open.len() {
            return Err(format!("is nested deeper than {XML_DEPTH_MAX} elements"));
        }
        self.open.push(element);
        Ok(())
    }

    fn close(&mut self) {
        let Some(element) = self.open.pop() else { return };
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            // What follows the root is no part of the document.
            None => {
                self.root.get_or_insert(element);
            }
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(element) = self.open.last_mut() {
            element.text.push_str(text);
        }
    }
}

fn element(start: &BytesStart<'_>, resolver: &NamespaceResolver) -> Element {
    let (namespace, name) = resolver.resolve_element(start.name());
    let dublin_core = match namespace {
        ResolveResult::Bound(namespace) => namespace.0.starts_with("http://purl.org/dc/elements/"),
        // Sloppy programs forget to declare the prefix.
        ResolveResult::Unknown(prefix) => prefix.eq_ignore_ascii_case("dc"),
        ResolveResult::Unbound => false,
    };
    let mut attributes = start.attributes();
    // Looking for duplicates takes time in the square of their number.
    attributes.with_checks(false);
    Element {
        name: name.as_ref().to_owned(),
        namespace: if dublin_core { Namespace::DublinCore } else { Namespace::Elsewhere },
        attributes: attributes
            .filter_map(Result::ok)
            .take(XML_ATTRIBUTES_MAX)
            .map(|attribute| Attribute {
                name: attribute.key.local_name().as_ref().to_owned(),
                prefixed: attribute.key.prefix().is_some(),
                value: match attribute.normalized_value(XmlVersion::Implicit1_0) {
                    Ok(value) => value.into_owned(),
                    Err(_) => attribute.value.into_owned(),
                },
            })
            .collect(),
        children: Vec::new(),
        text: String::new(),
    }
}

fn expand(entity: &BytesRef<'_>) -> String {
    if let Ok(Some(character)) = entity.resolve_char_ref() {
        return character.into();
    }
    match quick_xml::escape::resolve_predefined_entity(entity) {
        Some(text) => text.to_owned(),
        None => format!("&{};", &**entity),
    }
}

/// Returns the text of a document: UTF-16 and UTF-8 by their marks, else as it declares.
fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => return Ok(String::from_utf8_lossy(rest)),
        [0xFE, 0xFF, rest @ ..] => return Ok(utf16(rest, u16::from_be_bytes).into()),
        [0xFF, 0xFE, rest @ ..] => return Ok(utf16(rest, u16::from_le_bytes).into()),
        [0, b'<', ..] => return Ok(utf16(bytes, u16::from_be_bytes).into()),
        [b'<', 0, ..] => return Ok(utf16(bytes, u16::from_le_bytes).into()),
        _ => {}
    }
    let encoding = declared_encoding(bytes);
    match encoding.as_str() {
        // Text that says UTF-16 and has no mark is in truth UTF-8: its declaration was readable.
        "" | "utf-8" | "utf8" | "us-ascii" | "ascii" | "utf-16" => {
            Ok(String::from_utf8_lossy(bytes))
        }
        "iso-8859-1" | "latin1" | "latin-1" | "windows-1252" | "cp1252" => {
            Ok(bytes.iter().map(|&byte| windows_1252(byte)).collect::<String>().into())
        }
        other => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err(format!("is written in the unknown encoding {other:?}")),
        },
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let (pairs, _) = bytes.as_chunks::<2>();
    char::decode_utf16(pairs.iter().map(|&pair| unit(pair)))
        .map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// Returns the encoding of the XML declaration in lower case, or nothing.
fn declared_encoding(bytes: &[u8]) -> String {
    let head: String = bytes.iter().take(200).map(|&byte| char::from(byte)).collect();
    let declaration = head.trim_start();
    let declaration = declaration
        .strip_prefix("<?xml")
        .and_then(|rest| rest.split_once("?>"))
        .map_or("", |(declaration, _)| declaration);
    declaration
        .split_once("encoding")
        .map(|(_, rest)| rest.trim_start_matches(|c: char| c.is_whitespace() || c == '='))
        .and_then(|rest| {
            let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            rest.split(quote).nth(1)
        })
        .unwrap_or_default()
        .to_ascii_lowercase()
}

/// Latin-1 as browsers understand it: with the letters of Windows where it has controls.
fn windows_1252(byte: u8) -> char {
    const LETTERS: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";
    match byte {
        0x80..=0x9F => LETTERS.chars().nth(usize::from(byte - 0x80)).unwrap_or(char::from(byte)),
        _ => char::from(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_known_by_local_name_and_namespace() {
        let root = parse(
            br#"<o:package xmlns:o="http://www.idpf.org/2007/opf" xmlns:x="http://purl.org/dc/elements/1.1/">
                <x:title o:role="a" role="b">One &amp; <![CDATA[<two>]]>&#33;</x:title><title>No</title>
            </o:package>"#,
        )
        .unwrap();

        assert_eq!(root.name, "package");
        assert_eq!(root.namespace, Namespace::Elsewhere);
        assert_eq!(root.children[0].namespace, Namespace::DublinCore);
        assert_eq!(root.children[0].text, "One & <two>!");
        assert_eq!(root.children[0].attribute("role"), Some("b"));
        assert_eq!(root.children[1].namespace, Namespace::Elsewhere);
    }

    #[test]
    fn entities_of_the_file_are_not_expanded() {
        let root = parse(
            br#"<!DOCTYPE p [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>
                <p t="&b;">&b;&c;</p>"#,
        )
        .unwrap();

        assert_eq!(root.text, "&b;&c;");
        assert_eq!(root.attribute("t"), Some("&b;"));
    }

    #[test]
    fn utf_16_is_read_in_both_orders_with_and_without_mark() {
        let text = r#"<?xml version="1.0" encoding="UTF-16"?><p>Ærø 漢 𝄞</p>"#;
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();

        for bytes in [
            little.clone(),
            big.clone(),
            [vec![0xFF, 0xFE], little].concat(),
            [vec![0xFE, 0xFF], big].concat(),
        ] {
            assert_eq!(parse(&bytes).unwrap().text, "Ærø 漢 𝄞");
        }
    }

    #[test]
    fn declared_encodings_are_followed() {
        let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><p>caf\xE9 \x96</p>";
        assert_eq!(parse(latin).unwrap().text, "café –");

        let marked = b"\xEF\xBB\xBF<?xml version='1.0' encoding='ISO-8859-1'?><p>caf\xC3\xA9</p>";
        assert_eq!(parse(marked).unwrap().text, "café");

        let unknown = b"<?xml version='1.0' encoding='x-mac'?><p>\xE9</p>";
        assert!(parse(unknown).unwrap_err().contains("x-mac"));
    }

    #[test]
    fn deep_and_numerous_elements_are_refused() {
        let deep = "<a>".repeat(XML_DEPTH_MAX + 1);
        assert!(parse(deep.as_bytes()).unwrap_err().contains("nested"));

        let numerous = format!("<a>{}</a>", "<b/>".repeat(XML_ELEMENTS_MAX));
        assert!(parse(numerous.as_bytes()).unwrap_err().contains("elements"));
    }

    #[test]
    fn broken_documents_are_refused_with_a_reason() {
        for broken in ["", "text", "<a", "<a></b>", "<a b='></a>"] {
            assert!(parse(broken.as_bytes()).is_err(), "{broken:?}");
        }
    }
}
