//! Bytes that are no change of ours, and how little they may cost.

use std::io::Write as _;
use std::path::PathBuf;

use catchword_model::change::read::{ReadError, read};
use catchword_model::change::{Change, Key, Object, Scalar};
use catchword_model::edit::Edit;
use catchword_model::genesis::genesis;
use catchword_model::id::sha256;
use catchword_model::schema::{Container, DocumentKind};

use crate::writer::{Writer, op, put_text};

pub(crate) const TOO_LARGE: ReadError = ReadError::TooLarge;

const MAGIC: [u8; 4] = [0x85, 0x6F, 0x4A, 0x83];
const CHANGE: u8 = 1;

/// Appends a LEB128 number.
pub(crate) fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while 0x80 <= value {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Wraps content into a chunk whose checksum fits.
pub(crate) fn seal(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![kind];
    unsigned(&mut header, content.len() as u64);
    let hash = sha256(&[&header, content]);
    [&MAGIC[..], &hash[..4], &header, content].concat()
}

/// Returns the content of a chunk.
pub(crate) fn body(chunk: &[u8]) -> &[u8] {
    let len = chunk[9..].iter().position(|byte| *byte < 0x80).unwrap() + 1;
    &chunk[9 + len..]
}

/// A change with one tag, and no other actor than the genesis.
fn change() -> Change {
    let mut writer = Writer::new(1, DocumentKind::Book);
    writer.edit(10, &[Edit::AddTag { tag: "a tag".to_owned() }])
}

/// The columns of [`change`] taken apart: what stands before the table, the table, what follows.
struct Parts {
    head: Vec<u8>,
    columns: Vec<(u64, Vec<u8>)>,
    footer: Vec<u8>,
}

impl Parts {
    fn of(change: &Change) -> Self {
        let bytes = body(change.bytes());
        let dependencies = change.dependencies.len() * 32;
        let mut rest = &bytes[1 + dependencies + 17..];
        for _ in 0..3 {
            take_number(&mut rest);
        }
        assert_eq!(take_number(&mut rest), 0, "no message");
        let others = usize::try_from(take_number(&mut rest)).unwrap();
        rest = &rest[others * 17..];
        let head = bytes[..bytes.len() - rest.len()].to_vec();
        let count = take_number(&mut rest);
        let table: Vec<(u64, usize)> = (0..count)
            .map(|_| (take_number(&mut rest), usize::try_from(take_number(&mut rest)).unwrap()))
            .collect();
        let mut columns = Vec::new();
        for (spec, len) in table {
            columns.push((spec, rest[..len].to_vec()));
            rest = &rest[len..];
        }
        Self { head, columns, footer: rest.to_vec() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = self.head.clone();
        unsigned(&mut out, self.columns.len() as u64);
        for (spec, data) in &self.columns {
            unsigned(&mut out, *spec);
            unsigned(&mut out, data.len() as u64);
        }
        self.columns.iter().for_each(|(_, data)| out.extend_from_slice(data));
        out.extend_from_slice(&self.footer);
        seal(CHANGE, &out)
    }

    fn column(&mut self, spec: u64) -> &mut Vec<u8> {
        let place = self.columns.iter().position(|(other, _)| *other == spec).unwrap();
        &mut self.columns[place].1
    }
}

fn take_number(rest: &mut &[u8]) -> u64 {
    let len = rest.iter().position(|byte| *byte < 0x80).unwrap() + 1;
    let (number, tail) = rest.split_at(len);
    *rest = tail;
    number.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7F))
}

#[track_caller]
fn assert_refused(bytes: &[u8], error: ReadError) {
    assert_eq!(read(bytes).err(), Some(error));
}

fn with_column(spec: u64, data: &[u8]) -> Vec<u8> {
    let mut parts = Parts::of(&change());
    *parts.column(spec) = data.to_vec();
    parts.bytes()
}

#[test]
fn a_change_taken_apart_and_put_together_is_the_same() {
    let change = change();
    assert_eq!(Parts::of(&change).bytes(), change.bytes());
    assert_eq!(read(change.bytes()), Ok(change));
}

#[test]
fn only_changes_are_read() {
    let change = change();
    let content = body(change.bytes());
    assert_eq!(seal(CHANGE, content), change.bytes());
    // A document, a bundle, and types nobody has given a meaning.
    for kind in [0, 3, 4, 0xFF] {
        assert_refused(&seal(kind, content), ReadError::NotAChange);
    }
    assert_refused(&[change.bytes(), b"x"].concat(), ReadError::NotAChange);
    assert_refused(&[change.bytes(), change.bytes()].concat(), ReadError::NotAChange);
    let mut magic = change.bytes().to_vec();
    magic[0] = 0;
    assert_refused(&magic, ReadError::NotAChange);
    assert_refused(b"", ReadError::Truncated);
}

#[test]
fn a_change_cut_off_anywhere_is_refused() {
    let change = change();
    for end in 0..change.bytes().len() {
        assert_refused(&change.bytes()[..end], ReadError::Truncated);
    }
    let content = body(change.bytes());
    // Without its author it is still a change, which is for the judge to refuse.
    let author = Parts::of(&change).footer.len();
    for end in 0..content.len() {
        let without_author = end == content.len() - author;
        assert_eq!(read(&seal(CHANGE, &content[..end])).is_ok(), without_author, "{end}");
    }
}

#[test]
fn a_change_whose_checksum_does_not_fit_is_refused() {
    for place in 4..8 {
        let mut bytes = change().into_bytes();
        bytes[place] ^= 1;
        assert_refused(&bytes, ReadError::Checksum);
    }
    let mut bytes = change().into_bytes();
    *bytes.last_mut().unwrap() ^= 1;
    assert_refused(&bytes, ReadError::Checksum);
}

fn deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Wraps deflated content into a chunk with the checksum of what it inflates to.
fn seal_deflated(content: &[u8], deflated: &[u8]) -> Vec<u8> {
    let checksum = seal(CHANGE, content)[4..8].to_vec();
    let mut out = [&MAGIC[..], &checksum, &[2]].concat();
    unsigned(&mut out, deflated.len() as u64);
    out.extend_from_slice(deflated);
    out
}

#[test]
fn a_deflated_change_is_read_as_the_same_change() {
    let change = change();
    let content = body(change.bytes());
    let bytes = seal_deflated(content, &deflate(content));
    assert_eq!(read(&bytes), Ok(change));
}

#[test]
fn a_deflated_change_that_inflates_without_end_is_refused() {
    let bomb = vec![0; 64 << 20];
    let deflated = deflate(&bomb);
    assert!(deflated.len() < 100_000, "{}", deflated.len());
    assert_refused(&seal_deflated(&[], &deflated), ReadError::TooLarge);
}

#[test]
fn a_deflated_change_with_something_behind_it_or_cut_off_is_refused() {
    let change = change();
    let content = body(change.bytes());
    let mut deflated = deflate(content);
    deflated.push(0);
    assert_refused(&seal_deflated(content, &deflated), ReadError::NotCanonical);
    deflated.truncate(deflated.len() - 3);
    assert!(read(&seal_deflated(content, &deflated)).is_err());
    assert!(read(&seal_deflated(content, b"")).is_err());
}

#[test]
fn a_change_above_the_limit_is_refused_before_it_is_decoded() {
    let content = vec![0; (4 << 20) + 1];
    assert_refused(&seal(CHANGE, &content), ReadError::TooLarge);
}

#[test]
fn a_number_has_one_spelling() {
    let change = change();
    let content = body(change.bytes()).to_vec();
    // The count of dependencies, 1, in two bytes.
    let overlong = [&[0x81, 0x00], &content[1..]].concat();
    assert_refused(&seal(CHANGE, &overlong), ReadError::NotCanonical);
    // The length of the chunk.
    let mut header = vec![CHANGE];
    unsigned(&mut header, content.len() as u64 | 1 << 14);
    header.pop();
    header.push(0);
    let hash = sha256(&[&header, &content]);
    let bytes = [&MAGIC[..], &hash[..4], &header, &content].concat();
    assert!(read(&bytes).is_err());
    // A stamp that does not fit 64 bits.
    let mut parts = Parts::of(&change);
    let time = parts.head.len() - 17 - 3 - change.time_len();
    parts.head.splice(time..time + change.time_len(), [0xFF; 10]);
    assert_refused(&parts.bytes(), ReadError::Number);
}

trait TimeLen {
    fn time_len(&self) -> usize;
}

impl TimeLen for Change {
    /// Length of the stamp as signed LEB128, in bytes.
    fn time_len(&self) -> usize {
        (64 - self.time.leading_zeros() as usize + 7) / 7
    }
}

#[test]
fn a_column_has_one_spelling() {
    // ACTION holds one put: a literal run of one. The same as a run of one, and as two runs.
    assert_eq!(with_column(0x42, &[0x7F, 1]), change().bytes());
    assert_refused(&with_column(0x42, &[1, 1]), ReadError::NotCanonical);
    // A run of no rows, a literal run of no rows, and nulls of no rows.
    assert_refused(&with_column(0x42, &[0x7F, 1, 0, 0]), ReadError::Column);
    // More rows than operations.
    assert_refused(&with_column(0x70, &[2, 0]), ReadError::NotCanonical);
    assert_refused(&with_column(0x15, &[0x7E, 1, b'a', 1, b'b']), ReadError::NotCanonical);
    // Fewer.
    assert_refused(&with_column(0x34, &[]), ReadError::Column);
    // A boolean column that starts with no rows of false, and none of true either.
    assert_refused(&with_column(0x34, &[1, 0]), ReadError::NotCanonical);
    assert_refused(&with_column(0x34, &[0, 0, 1]), ReadError::NotCanonical);
}

#[test]
fn a_column_no_change_has_is_refused() {
    // Another id, the bit for a deflated column, and a column twice.
    for spec in [0x03, 0x99, 0x42 | 8, 0xB6, u64::MAX] {
        let mut parts = Parts::of(&change());
        parts.columns.push((spec, vec![0x7F, 1]));
        assert_refused(&parts.bytes(), ReadError::Column);
    }
    let mut parts = Parts::of(&change());
    let twice = parts.columns[3].clone();
    parts.columns.push(twice);
    assert_refused(&parts.bytes(), ReadError::NotCanonical);
    // Out of order, and empty.
    let mut parts = Parts::of(&change());
    parts.columns.swap(0, 1);
    assert_refused(&parts.bytes(), ReadError::NotCanonical);
    let mut parts = Parts::of(&change());
    parts.columns.push((0x94, Vec::new()));
    assert_refused(&parts.bytes(), ReadError::NotCanonical);
    let mut parts = Parts::of(&change());
    parts.columns.push((0x94, vec![1]));
    assert_refused(&parts.bytes(), ReadError::NotCanonical);
}

#[test]
fn a_value_of_an_unknown_type_or_another_length_is_refused() {
    for (meta, raw) in [
        (10, &b""[..]),
        (15, b""),
        (1 << 4, b"x"),
        (1 << 4 | 1, b"x"),
        (1 << 4 | 2, b"x"),
        (4 << 4 | 5, b"xxxx"),
        (2 << 4 | 3, &[1, 1]),
        (2 << 4 | 4, &[1, 1]),
    ] {
        let mut parts = Parts::of(&change());
        let mut column = vec![0x7F];
        unsigned(&mut column, meta);
        *parts.column(0x56) = column;
        *parts.column(0x57) = raw.to_vec();
        let error = read(&parts.bytes()).err();
        assert!(
            matches!(error, Some(ReadError::Column | ReadError::Truncated)),
            "{meta} {error:?}"
        );
    }
    let mut parts = Parts::of(&change());
    *parts.column(0x56) = vec![0x7F, 0x26];
    *parts.column(0x57) = vec![0xC3, 0x28];
    assert_refused(&parts.bytes(), ReadError::Text);
    // An action nobody knows, and one that has no value but carries one.
    assert_refused(&with_column(0x42, &[0x7F, 8]), ReadError::Column);
    assert_refused(&with_column(0x42, &[0x7F, 3]), ReadError::Column);
}

#[test]
fn an_actor_of_another_length_is_refused() {
    let change = change();
    let mut content = body(change.bytes()).to_vec();
    let actor = 1 + 32;
    assert_eq!(content[actor], 16);
    content[actor] = 15;
    content.remove(actor + 1);
    assert_refused(&seal(CHANGE, &content), ReadError::Number);
}

#[test]
fn anything_but_an_author_behind_the_columns_is_refused() {
    let change = change();
    let plain = Parts::of(&change);
    assert_eq!(plain.footer.len(), 22);
    for footer in [
        [&plain.footer[..], b"x"].concat(),
        [&plain.footer[..], &plain.footer].concat(),
        [&[2], &plain.footer[1..]].concat(),
        [&[1, 19], &plain.footer[3..]].concat(),
        b"x".to_vec(),
    ] {
        let parts = Parts { footer, ..Parts::of(&change) };
        assert_refused(&parts.bytes(), ReadError::Column);
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    let good = change();
    let max = (1 << 31) - 1;
    let draft = |change: &dyn Fn(&mut catchword_model::change::Draft)| {
        let mut draft = good.draft().clone();
        change(&mut draft);
        draft.encode().into_bytes()
    };
    assert!(read(&draft(&|draft| draft.seq = max)).is_ok());
    assert!(read(&draft(&|draft| draft.start_op = max)).is_ok());
    assert_refused(&draft(&|draft| draft.seq = max + 1), ReadError::Number);
    assert_refused(&draft(&|draft| draft.seq = 0), ReadError::Number);
    assert_refused(&draft(&|draft| draft.start_op = 0), ReadError::Number);
    assert_refused(&draft(&|draft| draft.start_op = max + 1), ReadError::Number);
    let two = |draft: &mut catchword_model::change::Draft| {
        draft.ops.push(draft.ops[0].clone());
        draft.start_op = max;
    };
    assert_refused(&draft(&two), ReadError::Number);
}

#[test]
fn dependencies_out_of_order_are_refused() {
    let mut draft = change().draft().clone();
    draft.dependencies.push(catchword_model::id::ChangeHash([0; 32]));
    let sorted = draft.encode();
    assert_eq!(read(sorted.bytes()).as_ref(), Ok(&sorted));
    let mut content = body(sorted.bytes()).to_vec();
    content[1..65].rotate_left(32);
    assert_refused(&seal(CHANGE, &content), ReadError::NotCanonical);
}

#[test]
fn too_many_dependencies_are_refused() {
    let hash = |n: u64| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        catchword_model::id::ChangeHash(hash)
    };
    let with = |count: u64| {
        let mut draft = change().draft().clone();
        draft.dependencies = (0..count).map(hash).collect();
        draft.encode()
    };
    assert_eq!(read(with(1_025).bytes()), Ok(with(1_025)));
    assert_refused(with(1_026).bytes(), ReadError::TooLarge);
}

/// A number of rows, in so few bytes that expanding them would be the attack.
fn rows(count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = count;
    // Signed LEB128: one more bit for the sign.
    while 0x40 <= rest {
        out.push((rest & 0x7F) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
    out
}

#[test]
fn columns_that_claim_millions_of_rows_are_refused_before_they_are_expanded() {
    let run = |count: u64, value: &[u8]| [&rows(count)[..], value].concat();
    for count in [50_001, 4_000_000, 1 << 40, i64::MAX.cast_unsigned()] {
        for (spec, value) in [(0x42, &[1][..]), (0x56, &[6]), (0x15, &[1, b'k']), (0x70, &[0])] {
            assert_refused(&with_column(spec, &run(count, value)), ReadError::TooLarge);
        }
        let mut nulls = vec![0];
        unsigned(&mut nulls, count);
        assert_refused(&with_column(0x15, &nulls), ReadError::TooLarge);
        let mut booleans = Vec::new();
        unsigned(&mut booleans, count);
        assert_refused(&with_column(0x34, &booleans), ReadError::TooLarge);
    }
    let mut claimed = vec![0x7F];
    unsigned(&mut claimed, u64::MAX);
    assert!(read(&with_column(0x15, &claimed)).is_err());
    assert!(read(&with_column(0x56, &claimed)).is_err());
}

#[test]
fn one_long_key_that_stands_for_thousands_is_refused_before_it_is_copied() {
    let mut writer = Writer::new(1, DocumentKind::Book);
    let key = "k".repeat(1 << 20);
    let ops = (0..50_000).map(|_| op(Container::Tags.object(), "", put_text(""), &[]));
    let plain = writer.draft(ops.collect());
    let mut parts = Parts::of(&plain.encode());
    let mut column = rows(50_000);
    unsigned(&mut column, key.len() as u64);
    column.extend_from_slice(key.as_bytes());
    *parts.column(0x15) = column;
    assert_refused(&parts.bytes(), ReadError::TooLarge);

    // As many bytes in keys that are not repeated are no more than the change itself.
    let few = (0..3).map(|n| op(Container::Tags.object(), &format!("{n}{key}"), put_text(""), &[]));
    let change = writer.write(few.collect());
    assert_eq!(read(change.bytes()), Ok(change));
}

#[test]
fn every_kind_of_value_survives_being_read() {
    let mut writer = Writer::new(1, DocumentKind::Notes);
    let app = crate::writer::notes_object("app");
    let values = [
        Scalar::Null,
        Scalar::Boolean(true),
        Scalar::Boolean(false),
        Scalar::Uint(u64::MAX),
        Scalar::Int(i64::MIN),
        Scalar::F64(-0.0),
        Scalar::Text("\u{1F4DA}".to_owned()),
        Scalar::Bytes(vec![0, 0xFF]),
        Scalar::Counter(-1),
        Scalar::Timestamp(i64::MAX),
    ];
    let put = |(n, value): (usize, &Scalar)| {
        op(app, &n.to_string(), catchword_model::change::Action::Put(value.clone()), &[])
    };
    let change = writer.write(values.iter().enumerate().map(put).collect());
    assert_eq!(read(change.bytes()).as_ref(), Ok(&change));
    let read: Vec<_> = values.iter().enumerate().map(put).collect();
    assert_eq!(change.ops, read);
    assert!(change.ops.iter().all(|op| op.object == Object::Made(app) && op.key != Key::Head));
}

#[test]
fn the_first_changes_are_read() {
    for kind in [DocumentKind::Book, DocumentKind::Notes, DocumentKind::Library] {
        assert_eq!(read(genesis(kind).bytes()).as_ref(), Ok(genesis(kind)));
    }
}

/// Returns the folder of shared fixtures, or `None`, having said so, where there is none.
pub(crate) fn fixtures() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder =
        std::env::var_os("CATCHWORD_FIXTURES").map_or("../shared/fixtures".into(), PathBuf::from);
    let folder = root.join(folder);
    if folder.is_dir() {
        return Some(folder);
    }
    let required = std::env::var("CATCHWORD_REQUIRE_FIXTURES").is_ok_and(|value| value == "1");
    assert!(!required, "no fixtures at {}", folder.display());
    eprintln!("LEFT OUT: no fixtures at {}", folder.display());
    None
}

#[test]
fn the_hostile_corpus_is_refused_or_harmless() {
    let Some(folder) = fixtures() else { return };
    let mut files = 0;
    for entry in std::fs::read_dir(folder.join("hostile")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        files += 1;
        if let Ok(change) = read(&bytes) {
            for kind in [DocumentKind::Book, DocumentKind::Notes, DocumentKind::Library] {
                let (history, _) =
                    crate::writer::deliver(kind, kind.document(crate::writer::BOOK), &[&change]);
                assert!(history.change(change.hash()).is_none());
            }
        }
        // Many of the files are changes behind something else.
        for start in 1..bytes.len() {
            assert!(read(&bytes[start..]).is_err() || bytes[start..].starts_with(&MAGIC));
        }
    }
    assert!(20 <= files, "{files} files");
}
