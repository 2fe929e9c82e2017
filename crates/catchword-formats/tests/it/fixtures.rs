//! The real books of the fixtures folder. Absent, the tests say so and leave them out.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use catchword_formats::{BookFile, Format, Warning, partial_md5, read};
use data_encoding::HEXLOWER;

/// What is known of a book of the fixtures.
struct Known {
    file: &'static str,
    format: Format,
    title: Option<&'static str>,
    author: Option<&'static str>,
    /// Documents of the spine, or pages.
    length: usize,
}

const BOOKS: [Known; 8] = [
    Known {
        file: "epubjs/alice_without_cover.epub",
        format: Format::Epub3,
        title: Some("Alice's Adventures in Wonderland"),
        author: Some("Lewis Carroll"),
        length: 2,
    },
    Known {
        file: "idpf/childrens-media-query.epub",
        format: Format::Epub3,
        title: Some("Abroad"),
        author: Some("Thomas Crane"),
        length: 1,
    },
    Known {
        file: "koreader/leaves.epub",
        format: Format::Epub2,
        title: Some("Leaves of Grass"),
        author: Some("Walt Whitman"),
        length: 383,
    },
    Known {
        file: "noted/koreader/dialogues_seneca.epub",
        format: Format::Epub3,
        title: Some("Dialogues"),
        author: Some("Seneca"),
        length: 17,
    },
    Known {
        file: "noted/koreader/pg42324.epub",
        format: Format::Epub2,
        title: Some("Frankenstein"),
        author: Some("Mary Shelley"),
        length: 40,
    },
    Known {
        file: "noted/pdf/single column.pdf",
        format: Format::Pdf,
        // The file says nothing; people know it by its name.
        title: None,
        author: None,
        length: 2,
    },
    Known {
        file: "noted/pdf/two column.pdf",
        format: Format::Pdf,
        title: Some("Preparation of Papers in Two-Column Format"),
        author: Some("Dan Budny"),
        length: 3,
    },
    Known {
        file: "standardebooks/flatland.epub",
        format: Format::Epub3,
        title: Some("Flatland"),
        author: Some("Edwin A. Abbott"),
        length: 33,
    },
];

#[test]
fn every_book_of_the_fixtures_is_read_with_its_title() {
    let Some(root) = fixtures() else { return };
    for Known { file, format, title, author, length } in BOOKS {
        let book = open(&root.join(file));

        assert_eq!(book.format, format, "{file}");
        assert_eq!(book.title.as_deref(), title, "{file}");
        assert_eq!(book.authors, Vec::from_iter(author), "{file}");
        let found = book.pages.map_or(book.spine.len(), |pages| usize::try_from(pages).unwrap());
        assert_eq!(found, length, "{file}");
    }
}

#[test]
fn no_book_of_the_fixtures_is_left_out() {
    let Some(root) = fixtures() else { return };
    let known: BTreeSet<PathBuf> = BOOKS.iter().map(|book| root.join(book.file)).collect();
    let mut found = BTreeSet::new();
    collect_books(&root, &mut found);

    assert_eq!(found, known);
}

#[test]
fn a_book_without_cover_is_read_with_a_warning() {
    let Some(root) = fixtures() else { return };
    let book = open(&root.join("epubjs/alice_without_cover.epub"));

    assert_eq!(book.warnings, [Warning::NoCover]);
    assert!(!book.has_cover);
    assert_eq!(book.language.as_deref(), Some("en-US"));
    assert_eq!(
        book.identifiers,
        [
            "edu.nyu.itp.future-of-publishing.alice-in-wonderland",
            "calibre:5",
            "uuid:c210148c-8ff2-4bc0-81ba-cdef01db07df",
        ]
    );
    assert_eq!(book.spine[1].href, "OPS/titlepage.xhtml");
    assert_eq!(book.spine[1].bytes, 793);
}

#[test]
fn complete_books_are_read_without_warning() {
    let Some(root) = fixtures() else { return };
    for file in [
        "koreader/leaves.epub",
        "noted/koreader/dialogues_seneca.epub",
        "noted/koreader/pg42324.epub",
        "noted/pdf/two column.pdf",
        "standardebooks/flatland.epub",
    ] {
        let book = open(&root.join(file));
        assert_eq!(book.warnings, [], "{file}");
        assert_eq!(book.has_cover, book.format != Format::Pdf, "{file}");
    }
}

#[test]
fn partial_md5_of_real_and_made_files_is_as_listed() {
    let Some(root) = fixtures() else { return };
    let vectors = fs::read(root.join("made/partial-md5/vectors.json")).unwrap();
    let vectors: serde_json::Value = serde_json::from_slice(&vectors).unwrap();

    let generated = vectors["generated"].as_array().unwrap();
    assert!(20 < generated.len());
    for vector in generated {
        let size = usize::try_from(vector["size"].as_u64().unwrap()).unwrap();
        let bytes: Vec<u8> =
            (0..size).map(|i| u8::try_from((i * 31 + 7 + i / 256) % 256).unwrap()).collect();
        let hash = partial_md5(Cursor::new(bytes)).unwrap();
        assert_eq!(HEXLOWER.encode(&hash), vector["partial_md5"].as_str().unwrap(), "{size}");
    }
    let real = vectors["real_files"].as_object().unwrap();
    assert_eq!(real.len(), 3);
    for (file, expected) in real {
        let hash = partial_md5(File::open(root.join(file)).unwrap()).unwrap();
        assert_eq!(HEXLOWER.encode(&hash), expected.as_str().unwrap(), "{file}");
    }
}

#[test]
fn truncated_real_books_are_refused() {
    let Some(root) = fixtures() else { return };
    for Known { file, format, .. } in BOOKS {
        let bytes = fs::read(root.join(file)).unwrap();
        let half = read(Cursor::new(&bytes[..bytes.len() / 2]));
        assert!(half.is_err() || format == Format::Pdf, "{file}: {half:?}");
    }
}

fn open(path: &Path) -> BookFile {
    read(File::open(path).unwrap())
        .unwrap_or_else(|refused| panic!("{}: {refused}", path.display()))
}

fn collect_books(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_books(&path, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "epub" || extension == "pdf")
        {
            found.insert(path);
        }
    }
}

/// Returns the folder of the fixtures, or says that the test is left out.
fn fixtures() -> Option<PathBuf> {
    let root = match std::env::var_os("CATCHWORD_FIXTURES") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
    };
    if root.is_dir() {
        return Some(root);
    }
    let required = std::env::var_os("CATCHWORD_REQUIRE_FIXTURES").is_some_and(|value| value == "1");
    assert!(!required, "no fixtures at {}", root.display());
    let notice = format!("left out: no fixtures at {}\n", root.display());
    std::io::stderr().write_all(notice.as_bytes()).unwrap();
    None
}
