//! Files made to do harm: bombs, lies, and bytes that are anything.

use std::fmt::Write as _;
use std::io::{Cursor, Write as _};

use catchword_formats::{Excess, RefusedFile, Warning, limits, sample};
use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::made::{CONTAINER, Entries, PACKAGE, read};

#[test]
fn a_bomb_is_refused_by_its_ratio() {
    let bomb = zeros(65 << 20, &Entries::good());
    assert!(bomb.len() * 200 < 65 << 20, "{} bytes", bomb.len());

    let refused = read(bomb).unwrap_err();

    let ratio = matches!(&refused, RefusedFile::TooLarge { excess: Excess::Ratio { .. } });
    assert!(ratio, "{refused:?}");
    assert!(refused.to_string().contains("200 times"), "{refused}");
}

#[test]
fn a_highly_compressed_book_below_the_limit_is_read() {
    assert!(read(zeros(60 << 20, &Entries::good())).is_ok());
}

/// What comes out counts, not what is declared, and whether or not anything names the entry.
#[test]
fn a_bomb_that_declares_another_size_does_not_get_past() {
    let bomb = zeros(100 << 20, &Entries::good());
    let refused = read(with_declared_size(&bomb, "zeros.bin", 1)).unwrap_err();
    let ratio = matches!(&refused, RefusedFile::TooLarge { excess: Excess::Ratio { .. } });
    assert!(ratio, "{refused:?}");
}

#[test]
fn a_declared_size_beyond_the_limit_is_refused_at_once() {
    let lie = with_declared_size(&Entries::good().pack(), "OPS/cover.svg", u32::MAX - 1);
    let refused = read(lie).unwrap_err();
    let inflated = matches!(&refused, RefusedFile::TooLarge { excess: Excess::Inflated });
    assert!(inflated, "{refused:?}");
}

/// Many names for one stretch of compressed bytes: the sum counts, whatever each is.
#[test]
fn entries_that_share_their_bytes_are_counted_each() {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("zeros.bin", SimpleFileOptions::default()).unwrap();
    archive.write_all(&vec![0; 20 << 20]).unwrap();
    for n in 0..60 {
        archive.shallow_copy_file("zeros.bin", &format!("copy-{n}")).unwrap();
    }
    let refused = read(archive.finish().unwrap().into_inner()).unwrap_err();
    assert!(matches!(&refused, RefusedFile::TooLarge { .. }), "{refused:?}");
}

#[test]
fn too_many_entries_are_refused() {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for n in 0..=limits::ENTRIES_MAX {
        archive.start_file(n.to_string(), SimpleFileOptions::default()).unwrap();
    }
    let refused = read(archive.finish().unwrap().into_inner()).unwrap_err();
    let entries = matches!(&refused, RefusedFile::TooLarge { excess: Excess::Entries });
    assert!(entries, "{refused:?}");
}

/// The large form of the end record can declare more entries than any machine has memory for.
#[test]
fn a_declared_multitude_of_entries_is_refused_before_room_is_made() {
    let mut bytes = Entries::good().pack();
    let end = bytes.windows(4).rposition(|window| window == b"PK\x05\x06").unwrap();
    let mut record = bytes.split_off(end);
    let record_at = u64::try_from(end).unwrap();
    let entries: u64 = 1 << 40;

    bytes.extend(b"PK\x06\x06");
    bytes.extend(44_u64.to_le_bytes());
    bytes.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([entries.to_le_bytes(), entries.to_le_bytes()].concat());
    bytes.extend([u64::MAX.to_le_bytes(), 0_u64.to_le_bytes()].concat());
    bytes.extend(b"PK\x06\x07");
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(record_at.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    record[8..20].fill(0xFF);
    bytes.extend(record);

    let refused = read(bytes).unwrap_err();
    let entries = matches!(&refused, RefusedFile::TooLarge { excess: Excess::Entries });
    assert!(entries, "{refused:?}");
}

#[test]
fn a_container_or_package_beyond_the_limit_is_refused() {
    let blanks = " ".repeat(usize::try_from(limits::XML_BYTES_MAX).unwrap());
    for path in ["META-INF/container.xml", "META-INF/encryption.xml", "OPS/package.opf"] {
        let refused = Entries::good().with(path, format!("<a>{blanks}</a>")).read().unwrap_err();
        let RefusedFile::TooLarge { excess: Excess::Part { path: named } } = &refused else {
            panic!("{refused:?}");
        };
        assert_eq!(named, path);
    }
}

#[test]
fn a_billion_laughs_are_not_laughed() {
    let mut entities = String::from(r#"<!DOCTYPE package [<!ENTITY lol0 "lol">"#);
    for n in 1..10 {
        let inner = format!("&lol{};", n - 1).repeat(10);
        write!(entities, "<!ENTITY lol{n} \"{inner}\">").unwrap();
    }
    entities += r#"<!ENTITY secret SYSTEM "file:///etc/passwd">]>"#;
    let package = entities + &PACKAGE.replace("A Book", "A &lol9;&secret; Book");

    let book = Entries::good().with("OPS/package.opf", package).read().unwrap();

    assert_eq!(book.title.as_deref(), Some("A &lol9;&secret; Book"));
}

#[test]
fn a_truncated_archive_is_refused_wherever_it_ends() {
    let bytes = Entries::good().pack();
    for length in [4, 100, bytes.len() / 2, bytes.len() - 30, bytes.len() - 1] {
        let refused = read(bytes[..length].to_vec()).unwrap_err();
        let damaged = matches!(&refused, RefusedFile::DamagedArchive { .. });
        assert!(damaged, "{length}: {refused:?}");
        assert!(refused.to_string().contains("fetch the file again"), "{refused}");
    }
}

#[test]
fn an_archive_with_a_password_is_refused_as_encrypted() {
    let mut bytes = Entries::good().pack();
    for at in positions(&bytes, b"PK\x01\x02") {
        bytes[at + 8] |= 1;
    }
    for at in positions(&bytes, b"PK\x03\x04") {
        bytes[at + 6] |= 1;
    }
    let refused = read(bytes).unwrap_err();
    assert!(matches!(&refused, RefusedFile::Encrypted { .. }), "{refused:?}");
}

#[test]
fn many_warnings_are_counted_rather_than_kept() {
    let mut items = String::new();
    for n in 0..10_000 {
        write!(items, r#"<item id="m{n}" href="m{n}.png" media-type="image/png"/>"#).unwrap();
    }
    let package = PACKAGE.replace("</manifest>", &format!("{items}</manifest>"));

    let book = Entries::good().with("OPS/package.opf", package).read().unwrap();

    assert_eq!(book.warnings.len(), limits::WARNINGS_MAX + 1);
    let count = 10_000 - limits::WARNINGS_MAX;
    assert_eq!(book.warnings.last(), Some(&Warning::More { count }));
}

proptest! {
    #[test]
    fn no_change_of_a_book_makes_reading_panic(mutations in arb_mutations()) {
        for bytes in [small_sample(), Entries::good().pack()] {
            let mutated = mutate(bytes, &mutations);
            if let Ok(book) = read(mutated) {
                prop_assert!(book.spine.iter().any(|item| 0 < item.bytes));
            }
        }
    }

    /// The archive stays whole, so that the changes reach what is inside.
    #[test]
    fn no_change_of_a_package_makes_reading_panic(mutations in arb_mutations()) {
        let package = mutate(PACKAGE.into(), &mutations);
        let container = mutate(CONTAINER.into(), &mutations);
        for entries in [
            Entries::good().with("OPS/package.opf", &package),
            Entries::good().with("META-INF/container.xml", container),
            Entries::good().with("META-INF/encryption.xml", package),
        ] {
            let bytes = entries.pack_as(CompressionMethod::Stored);
            let once = read(bytes.clone()).map_err(|refused| refused.to_string());
            let again = read(bytes).map_err(|refused| refused.to_string());
            prop_assert_eq!(once, again);
        }
    }

    #[test]
    fn arbitrary_bytes_behind_a_mark_do_not_panic(
        mark in prop_oneof![Just("PK\x03\x04"), Just("%PDF-1.7\n")],
        bytes in proptest::collection::vec(any::<u8>(), 0..2_000),
    ) {
        prop_assert!(read([mark.as_bytes(), &bytes].concat()).is_err());
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    Flip { at: usize, bits: u8 },
    Insert { at: usize, bytes: Vec<u8> },
    Remove { at: usize, count: usize },
    Truncate { at: usize },
}

pub(crate) fn arb_mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let at = any::<usize>();
    let mutation = prop_oneof![
        8 => (at, 1_u8..).prop_map(|(at, bits)| Mutation::Flip { at, bits }),
        2 => (at, proptest::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Mutation::Insert { at, bytes }),
        2 => (at, 1..40_usize).prop_map(|(at, count)| Mutation::Remove { at, count }),
        1 => at.prop_map(|at| Mutation::Truncate { at }),
    ];
    proptest::collection::vec(mutation, 1..6)
}

pub(crate) fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        match mutation {
            Mutation::Flip { at, bits } => bytes[at % length] ^= bits,
            Mutation::Insert { at, bytes: inserted } => {
                let at = at % length;
                bytes.splice(at..at, inserted.iter().copied());
            }
            Mutation::Remove { at, count } => {
                let at = at % length;
                bytes.drain(at..length.min(at + count));
            }
            Mutation::Truncate { at } => bytes.truncate(at % length),
        }
    }
    bytes
}

fn small_sample() -> Vec<u8> {
    sample::Builder::new("A Walk").author("Ana").chapter("One", "It rained.").build()
}

/// The entries, and one of so many zeros.
fn zeros(count: usize, entries: &Entries) -> Vec<u8> {
    let mut archive = ZipWriter::new_append(Cursor::new(entries.pack())).unwrap();
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    archive.start_file("zeros.bin", options).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..count >> 20 {
        archive.write_all(&zeros).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// The archive with another size of one entry in both of its headers.
fn with_declared_size(archive: &[u8], name: &str, size: u32) -> Vec<u8> {
    let mut bytes = archive.to_vec();
    for (mark, size_at, name_at) in [(b"PK\x03\x04", 22, 30), (b"PK\x01\x02", 24, 46)] {
        for at in positions(archive, mark) {
            if archive[at..].get(name_at..).is_some_and(|rest| rest.starts_with(name.as_bytes())) {
                bytes[at + size_at..at + size_at + 4].copy_from_slice(&size.to_le_bytes());
            }
        }
    }
    assert_ne!(bytes, archive);
    bytes
}

fn positions(bytes: &[u8], mark: &[u8]) -> Vec<usize> {
    (0..bytes.len()).filter(|&at| bytes[at..].starts_with(mark)).collect()
}
