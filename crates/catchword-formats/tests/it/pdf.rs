//! PDFs made here, so that each says exactly one thing.

use catchword_formats::{Format, RefusedFile, Warning};
use lopdf::encryption::{EncryptionState, EncryptionVersion, Permissions};
use lopdf::{Dictionary, Document, Object, Stream, StringFormat, dictionary};
use proptest::prelude::*;

use crate::hostile::{arb_mutations, mutate};
use crate::made::read;

const XMP: &str = r#"<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:y="urn:y"><y:title>No</y:title>
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">From the
 Packet</rdf:li><rdf:li xml:lang="de">Deutsch</rdf:li></rdf:Alt></dc:title>
<dc:creator><rdf:Seq><rdf:li>One</rdf:li><rdf:li>Two</rdf:li></rdf:Seq></dc:creator>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"#;

#[test]
fn title_author_and_pages_are_read() {
    let mut pdf = pages(7);
    set_info(&mut pdf, &[("Title", literal(b" The  Title ")), ("Author", literal(b"Ana"))]);

    let book = read(bytes(&mut pdf)).unwrap();

    assert_eq!(book.format, Format::Pdf);
    assert_eq!(book.title.as_deref(), Some("The Title"));
    assert_eq!(book.authors, ["Ana"]);
    assert_eq!(book.pages, Some(7));
    assert_eq!(book.warnings, []);
    assert_eq!(book.total_ppm_of_page(3), Some(428_571));
}

#[test]
fn titles_are_read_in_each_encoding_of_the_standard() {
    let utf16: Vec<u8> = std::iter::once(0xFEFF)
        .chain("Łódź 漢".encode_utf16())
        .flat_map(u16::to_be_bytes)
        .collect();
    for (title, expected) in [
        (utf16, "Łódź 漢"),
        (b"\xEF\xBB\xBFCaf\xC3\xA9".to_vec(), "Café"),
        (b"Caf\xE9 \x84 bar".to_vec(), "Café — bar"),
    ] {
        let mut pdf = pages(1);
        set_info(&mut pdf, &[("Title", literal(&title))]);
        assert_eq!(read(bytes(&mut pdf)).unwrap().title.as_deref(), Some(expected));
    }
}

#[test]
fn without_a_title_the_metadata_packet_is_asked() {
    for compressed in [XMP.len(), 0] {
        let mut pdf = pages(2);
        set_info(&mut pdf, &[("Title", literal(b"  "))]);
        let mut packet =
            Stream::new(dictionary! { "Type" => "Metadata", "Subtype" => "XML" }, XMP.into());
        if compressed != 0 {
            packet.compress().unwrap();
        }
        let packet = pdf.add_object(packet);
        pdf.catalog_mut().unwrap().set("Metadata", packet);

        let book = read(bytes(&mut pdf)).unwrap();

        assert_eq!(book.title.as_deref(), Some("From the Packet"));
        assert_eq!(book.authors, ["One", "Two",]);
        assert_eq!(book.pages, Some(2));
    }
}

#[test]
fn a_pdf_without_any_title_is_read_with_a_warning() {
    let book = read(bytes(&mut pages(1))).unwrap();
    assert_eq!(book.title, None);
    assert_eq!(book.warnings, [Warning::NoTitle]);
}

#[test]
fn an_incredible_number_of_pages_is_counted_again() {
    let mut pdf = pages(3);
    set_info(&mut pdf, &[("Title", literal(b"T"))]);
    let root = pdf.catalog().unwrap().get(b"Pages").unwrap().as_reference().unwrap();
    pdf.get_dictionary_mut(root).unwrap().set("Count", 4_000_000_000_i64);
    assert_eq!(read(bytes(&mut pdf)).unwrap().pages, Some(3));
}

#[test]
fn a_pdf_without_pages_is_refused() {
    let refused = read(bytes(&mut pages(0))).unwrap_err();
    assert!(matches!(&refused, RefusedFile::PdfUnreadable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("no pages"), "{refused}");
}

#[test]
fn a_mark_behind_other_bytes_is_found() {
    let mut pdf = pages(1);
    set_info(&mut pdf, &[("Title", literal(b"T"))]);
    let mut junk = vec![b'\n'; 500];
    junk.extend(bytes(&mut pdf));
    assert_eq!(read(junk).unwrap().pages, Some(1));
}

#[test]
fn nothing_but_a_mark_is_refused() {
    let refused = read(b"%PDF-1.7\nand nothing else".to_vec()).unwrap_err();
    assert!(matches!(&refused, RefusedFile::PdfUnreadable { .. }), "{refused:?}");
}

#[test]
fn a_lost_table_of_contents_is_worked_out_with_a_warning() {
    let mut pdf = pages(3);
    set_info(&mut pdf, &[("Title", literal(b"T"))]);
    let whole = bytes(&mut pdf);
    let at = whole.windows(9).rposition(|window| window == b"startxref").unwrap();

    let book = read(whole[..at].to_vec()).unwrap();

    assert_eq!(book.pages, Some(3));
    assert_eq!(book.warnings, [Warning::RepairedPdf]);
}

#[test]
fn a_pdf_that_opens_with_a_password_is_refused() {
    let refused = read(encrypted("secret")).unwrap_err();
    assert!(matches!(&refused, RefusedFile::PdfPassword), "{refused:?}");
}

#[test]
fn a_pdf_that_opens_without_a_password_is_read() {
    let book = read(encrypted("")).unwrap();
    assert_eq!(book.title.as_deref(), Some("Sealed"));
    assert_eq!(book.pages, Some(1));
}

proptest! {
    #[test]
    fn no_change_of_a_pdf_makes_reading_panic(mutations in arb_mutations()) {
        let mut pdf = pages(3);
        set_info(&mut pdf, &[("Author", literal(b"Ana"))]);
        if let Ok(book) = read(mutate(bytes(&mut pdf), &mutations)) {
            prop_assert!(book.pages.is_some_and(|pages| 0 < pages));
        }
    }
}

fn pages(count: usize) -> Document {
    let mut pdf = Document::with_version("1.7");
    let root = pdf.new_object_id();
    let kids: Vec<Object> = (0..count)
        .map(|n| {
            let content = pdf.add_object(Stream::new(Dictionary::new(), format!("% {n}").into()));
            pdf.add_object(
                dictionary! { "Type" => "Page", "Parent" => root, "Contents" => content },
            )
            .into()
        })
        .collect();
    let count = i64::try_from(count).unwrap();
    pdf.objects
        .insert(root, dictionary! { "Type" => "Pages", "Kids" => kids, "Count" => count }.into());
    let catalog = pdf.add_object(dictionary! { "Type" => "Catalog", "Pages" => root });
    pdf.trailer.set("Root", catalog);
    pdf
}

fn set_info(pdf: &mut Document, entries: &[(&str, Object)]) {
    let mut info = Dictionary::new();
    for (key, value) in entries {
        info.set(*key, value.clone());
    }
    let info = pdf.add_object(info);
    pdf.trailer.set("Info", info);
}

fn literal(text: &[u8]) -> Object {
    Object::String(text.to_vec(), StringFormat::Literal)
}

fn bytes(pdf: &mut Document) -> Vec<u8> {
    let mut bytes = Vec::new();
    pdf.save_to(&mut bytes).unwrap();
    bytes
}

fn encrypted(user_password: &str) -> Vec<u8> {
    let mut pdf = pages(1);
    set_info(&mut pdf, &[("Title", literal(b"Sealed"))]);
    let id = literal(b"0123456789abcdef");
    pdf.trailer.set("ID", vec![id.clone(), id]);
    let version = EncryptionVersion::V2 {
        document: &pdf,
        owner_password: "owner",
        user_password,
        key_length: 128,
        permissions: Permissions::all(),
    };
    let state = EncryptionState::try_from(version).unwrap();
    pdf.encrypt(&state).unwrap();
    bytes(&mut pdf)
}
