//! What is read of EPUBs, and what is wrong with some of them.

use catchword_formats::{BookFile, Format, ItemKind, RefusedFile, Warning};
use zip::CompressionMethod;

use crate::made::{CONTAINER, Entries, PACKAGE, read};

#[test]
fn a_good_book_is_read_without_warning() {
    for method in [CompressionMethod::Deflated, CompressionMethod::Stored] {
        let book = read(Entries::good().pack_as(method)).unwrap();

        assert_eq!(book.warnings, []);
        assert_eq!(book.format, Format::Epub3);
        assert_eq!(book.title.as_deref(), Some("A Book"));
        assert_eq!(book.spine.iter().map(|item| item.bytes).collect::<Vec<_>>(), [18, 19]);
        assert!(book.has_cover);
    }
}

#[test]
fn the_title_refined_as_main_wins_over_the_first() {
    let book = with_metadata(
        r##"<dc:title id="s">The Subtitle</dc:title>
        <dc:title id="m"> The
            Main&#160;Title </dc:title>
        <meta refines="#s" property="title-type">subtitle</meta>
        <meta refines="#m" property="title-type">main</meta>"##,
    );
    assert_eq!(book.title.as_deref(), Some("The Main Title"));
}

#[test]
fn an_empty_title_gives_a_warning_and_the_next_one_counts() {
    let next = with_metadata("<dc:title> </dc:title><dc:title>Second</dc:title>");
    assert_eq!(next.title.as_deref(), Some("Second"));
    assert_eq!(next.warnings, []);

    let none = with_metadata("<dc:title/><dc:creator>Ana</dc:creator>");
    assert_eq!(none.title, None);
    assert_eq!(none.warnings, [Warning::NoTitle]);
}

#[test]
fn authors_are_those_with_the_role_of_one_or_none() {
    let book = with_metadata(
        r##"<dc:title>T</dc:title>
        <dc:creator xmlns:opf="http://www.idpf.org/2007/opf" opf:role="aut">First</dc:creator>
        <dc:creator xmlns:opf="http://www.idpf.org/2007/opf" opf:role="trl">Translator</dc:creator>
        <dc:creator id="c3">Illustrator</dc:creator>
        <dc:creator id="c4">Fourth</dc:creator>
        <dc:creator>Fifth</dc:creator>
        <dc:contributor>Nobody</dc:contributor>
        <meta refines="#c3" property="role" scheme="marc:relators">ill</meta>
        <meta refines="#c4" property="role" scheme="marc:relators">ill</meta>
        <meta refines="#c4" property="role" scheme="marc:relators">aut</meta>"##,
    );
    assert_eq!(book.authors, ["First", "Fourth", "Fifth"]);
}

#[test]
fn the_unique_identifier_comes_first_and_each_once() {
    let book = with_metadata(
        r#"<dc:title>T</dc:title><dc:identifier>one</dc:identifier>
        <dc:identifier id="id">two</dc:identifier><dc:identifier>one</dc:identifier>"#,
    );
    assert_eq!(book.identifiers, ["two", "one"]);
}

#[test]
fn metadata_of_another_namespace_are_not_taken_for_the_books() {
    let book = with_metadata(r#"<title>No</title><x:title xmlns:x="urn:x">No</x:title>"#);
    assert_eq!(book.title, None);
}

#[test]
fn an_epub_2_names_its_cover_in_the_metadata() {
    let package = PACKAGE
        .replace("version=\"3.0\"", "version=\"2.0\"")
        .replace(" properties=\"cover-image\"", "")
        .replace("</metadata>", "<meta content=\"cover\" name=\"cover\"/></metadata>");

    let book = Entries::good().with("OPS/package.opf", package).read().unwrap();

    assert_eq!(book.format, Format::Epub2);
    assert!(book.has_cover);
    assert_eq!(book.warnings, []);
}

#[test]
fn hrefs_are_resolved_against_the_package_and_decoded() {
    let package = PACKAGE
        .replace("a.xhtml", "../text/one%20caf%C3%A9.xhtml#top")
        .replace("b.xhtml", "100%25.xhtml");
    // The archive of a Mac has decomposed names.
    let book = Entries::good()
        .with("OPS/package.opf", package)
        .with("text/one cafe\u{301}.xhtml", "12345")
        .with("OPS/100%.xhtml", "123")
        .read()
        .unwrap();

    assert_eq!(book.warnings, []);
    let spine: Vec<_> = book.spine.iter().map(|item| (item.href.as_str(), item.bytes)).collect();
    assert_eq!(spine, [("text/one%20caf%C3%A9.xhtml", 5), ("OPS/100%25.xhtml", 3)]);
    assert_eq!(book.total_ppm_at("text/one café.xhtml", 1_000_000), Some(625_000));
}

#[test]
fn names_that_were_packed_encoded_are_found() {
    let package = PACKAGE.replace("a.xhtml", "one%20two.xhtml");
    let book = Entries::good()
        .with("OPS/package.opf", package)
        .with("OPS/one%20two.xhtml", "12345")
        .read()
        .unwrap();

    assert_eq!(book.warnings, []);
    assert_eq!(book.spine[0].href, "OPS/one%2520two.xhtml");
}

#[test]
fn a_package_in_utf_16_or_behind_a_mark_is_read() {
    let package = PACKAGE.replace("A Book", "Übung 漢");
    let utf16: Vec<u8> =
        std::iter::once(0xFEFF).chain(package.encode_utf16()).flat_map(u16::to_be_bytes).collect();
    let marked = format!("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>{package}");

    for package in [utf16, marked.into_bytes()] {
        let book = Entries::good().with("OPS/package.opf", package).read().unwrap();
        assert_eq!(book.title.as_deref(), Some("Übung 漢"));
        assert_eq!(book.warnings, []);
    }
}

#[test]
fn of_two_items_with_one_id_the_first_counts() {
    let package = PACKAGE.replace(
        "</manifest>",
        r#"<item id="a" href="b.xhtml" media-type="application/xhtml+xml"/></manifest>"#,
    );

    let book = Entries::good().with("OPS/package.opf", package).read().unwrap();

    assert_eq!(book.spine[0].href, "OPS/a.xhtml");
    assert_eq!(book.warnings, [Warning::DuplicateId { id: "a".into() }]);
}

#[test]
fn missing_parts_are_warnings_by_kind() {
    let package = PACKAGE.replace(
        "</manifest>",
        r#"<item id="i" href="i.jpg" media-type="image/jpeg"/>
        <item id="f" href="f.ttf" media-type="application/x-font-ttf"/>
        <item id="s" href="../s.css" media-type="text/css"/>
        <item id="n" href="../../n.ncx" media-type="application/x-dtbncx+xml"/>
        <item id="w" href="https://example.org/sound.mp3" media-type="audio/mpeg"/></manifest>"#,
    );

    let book =
        Entries::good().with("OPS/package.opf", package).without("OPS/b.xhtml").read().unwrap();

    assert_eq!(
        book.warnings,
        [
            (ItemKind::SpineItem, "OPS/b.xhtml"),
            (ItemKind::Image, "OPS/i.jpg"),
            (ItemKind::Font, "OPS/f.ttf"),
            (ItemKind::Style, "s.css"),
            (ItemKind::Other, "../../n.ncx"),
        ]
        .map(|(item, href)| Warning::MissingItem { item, href: href.into() })
    );
    assert_eq!(book.spine.len(), 2);
    assert_eq!(book.spine[1].bytes, 0);
}

#[test]
fn a_missing_cover_file_is_a_missing_image() {
    let book = Entries::good().without("OPS/cover.svg").read().unwrap();
    let href = "OPS/cover.svg".into();
    assert_eq!(book.warnings, [Warning::MissingItem { item: ItemKind::Image, href }]);
    assert!(!book.has_cover);
}

#[test]
fn a_damaged_chapter_is_a_warning_while_another_can_be_read() {
    let mut bytes = Entries::good().pack_as(CompressionMethod::Stored);
    let at = bytes.windows(6).position(|window| window == b"second").unwrap();
    bytes[at] ^= 1;

    let book = read(bytes).unwrap();

    let href = "OPS/b.xhtml".into();
    assert_eq!(book.warnings, [Warning::DamagedItem { item: ItemKind::SpineItem, href }]);
    assert_eq!(book.spine[1].bytes, 0);
    assert_eq!(book.total_ppm_at("OPS/a.xhtml", 1_000_000), Some(1_000_000));
}

#[test]
fn a_spine_that_refers_to_nothing_keeps_its_count() {
    let package = PACKAGE.replace("<spine>", r#"<spine><itemref idref="ghost"/>"#);
    let book = Entries::good().with("OPS/package.opf", package).read().unwrap();

    assert_eq!(book.warnings, [Warning::UnknownSpineItem { idref: "ghost".into() }]);
    assert_eq!(book.spine.len(), 3);
    assert_eq!(book.spine[0].href, "");
}

#[test]
fn a_book_without_a_readable_document_is_refused() {
    let missing = Entries::good().without("OPS/a.xhtml").with("OPS/b.xhtml", "").read();
    assert!(matches!(missing, Err(RefusedFile::NoReadableSpineItem { items: 2 })), "{missing:?}");

    let package = PACKAGE.replace(r#"<itemref idref="a"/><itemref idref="b"/>"#, "");
    let empty = Entries::good().with("OPS/package.opf", package).read();
    assert!(matches!(empty, Err(RefusedFile::NoReadableSpineItem { items: 0 })), "{empty:?}");
}

#[test]
fn an_odd_mimetype_is_a_warning() {
    let last = Entries::good().without("mimetype").with("mimetype", "application/epub+zip");
    for entries in [Entries::good().with("mimetype", "text/plain"), last] {
        assert_eq!(entries.read().unwrap().warnings, [Warning::OddMimetype]);
    }
}

#[test]
fn an_archive_that_is_no_epub_is_refused() {
    for (entries, part) in [
        (Entries::good().without("META-INF/container.xml"), "missing"),
        (Entries::good().with("META-INF/container.xml", "<container"), "well-formed"),
        (Entries::good().with("META-INF/container.xml", "<container/>"), "names no package"),
    ] {
        let refused = entries.read().unwrap_err();
        assert!(matches!(&refused, RefusedFile::NoContainer { .. }), "{refused:?}");
        assert!(refused.to_string().contains(part), "{refused}");
    }
}

#[test]
fn a_book_without_a_readable_package_is_refused() {
    for (entries, part) in [
        (Entries::good().without("OPS/package.opf"), "missing"),
        (Entries::good().with("OPS/package.opf", "<package><a></package>"), "well-formed"),
        (Entries::good().with("OPS/package.opf", "<html/>"), "not a package"),
    ] {
        let refused = entries.read().unwrap_err();
        assert!(matches!(&refused, RefusedFile::NoPackage { .. }), "{refused:?}");
        assert!(refused.to_string().contains(part), "{refused}");
    }
}

#[test]
fn a_package_outside_of_the_archive_is_refused() {
    for path in ["../package.opf", "OPS/../../package.opf", "file:///etc/passwd", ""] {
        let container = CONTAINER.replace("OPS/package.opf", path);
        let refused = Entries::good().with("META-INF/container.xml", container).read().unwrap_err();
        assert!(refused.to_string().contains("not inside the archive"), "{path}: {refused}");
    }
}

#[test]
fn an_encoded_path_of_the_package_is_understood() {
    let container = CONTAINER.replace("OPS/package.opf", "/OPS/my%20package.opf");
    let book = Entries::good()
        .with("META-INF/container.xml", container)
        .without("OPS/package.opf")
        .with("OPS/my package.opf", PACKAGE)
        .read()
        .unwrap();
    assert_eq!(book.warnings, []);
}

#[test]
fn encrypted_books_are_refused() {
    for (algorithm, named) in [
        ("Algorithm=\"http://www.w3.org/2001/04/xmlenc#aes256-cbc\"", "aes256-cbc"),
        ("", "does not name"),
    ] {
        let encryption = encryption(algorithm);
        let refused =
            Entries::good().with("META-INF/encryption.xml", encryption).read().unwrap_err();
        assert!(matches!(&refused, RefusedFile::Encrypted { .. }), "{refused:?}");
        assert!(refused.to_string().contains(named), "{refused}");
    }
}

#[test]
fn an_unreadable_list_of_encrypted_parts_is_refused() {
    let refused = Entries::good().with("META-INF/encryption.xml", "<encr").read();
    assert!(matches!(refused, Err(RefusedFile::Encrypted { .. })), "{refused:?}");
}

#[test]
fn obfuscated_fonts_and_rights_keep_nobody_from_reading() {
    for algorithm in ["http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"] {
        let encryption = encryption(&format!("Algorithm=\"{algorithm}\""));
        let book = Entries::good()
            .with("META-INF/encryption.xml", encryption)
            .with("META-INF/rights.xml", "<rights/>")
            .read()
            .unwrap();
        assert_eq!(book.warnings, []);
    }
}

fn encryption(algorithm: &str) -> String {
    format!(
        r#"<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"
            xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:EncryptedData>
            <enc:EncryptionMethod {algorithm}/><enc:CipherData>
            <enc:CipherReference URI="OPS/a.xhtml"/></enc:CipherData></enc:EncryptedData></encryption>"#
    )
}

/// Reads the good book with other metadata.
fn with_metadata(metadata: &str) -> BookFile {
    let package = format!(
        r#"<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">
        <metadata xmlns:dc="http://purl.org/dc/elements/1.1/">{metadata}</metadata>{}"#,
        PACKAGE.split_once("</metadata>").unwrap().1
    );
    Entries::good().with("OPS/package.opf", package).read().unwrap()
}
