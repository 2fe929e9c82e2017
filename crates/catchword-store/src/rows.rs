//! The values of `fields` and `rows`: who holds a register, and everything about one annotation.
//!
//! An operation is named by its counter and the place of its writer in the document's list, so that
//! a holder takes a few bytes. A row begins with its creation, parsed, since that is what is read.

use catchword_model::annotation::{Annotation, Created, Creation, Kind, Row};
use catchword_model::change::{Object, OpId, Scalar};
use catchword_model::hlc::Hlc;
use catchword_model::id::{AnnotationId, DeviceId};
use catchword_model::locator::{Locator, SortKey};
use catchword_model::merge::{Field, Holder};
use catchword_model::schema::Container;

use crate::bytes::{Reader, Writer};
use crate::doc::Doc;
use crate::error::{LoadError, corrupt};

/// The first byte of the key of a register in a container that a newer release made.
const UNKNOWN_CONTAINER: u8 = 0xFF;

/// Returns the key of a register inside its document.
pub(crate) fn field_key(container: Container, key: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(container.code());
    out.extend_from_slice(key.as_bytes());
    out
}

/// Returns the key of a register in an object this release has no meaning for.
pub(crate) fn unknown_field_key(object: OpId, key: &str) -> Vec<u8> {
    let mut out = vec![UNKNOWN_CONTAINER];
    out.extend_from_slice(&object.counter.to_be_bytes());
    out.extend_from_slice(&object.actor.0);
    out.extend_from_slice(key.as_bytes());
    out
}

/// Reads the text of a key of one of our containers.
pub(crate) fn field_text(key: &[u8]) -> Option<(Container, &str)> {
    let (code, text) = key.split_first()?;
    Some((Container::from_code(*code)?, std::str::from_utf8(text).ok()?))
}

/// Returns the key of a field among all documents.
pub(crate) fn full_key(number: u32, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + key.len());
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(key);
    out
}

/// Returns the key of a row among all documents: number, sort key, 0, id.
///
/// The 0 keeps the order where one sort key begins another: a kind byte is never 0.
pub(crate) fn row_key(number: u32, sort: &SortKey, id: AnnotationId) -> Vec<u8> {
    let sort = sort.as_bytes();
    let mut out = Vec::with_capacity(4 + sort.len() + 17);
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(sort);
    out.push(0);
    out.extend_from_slice(&id.0);
    out
}

/// Reads the id at the end of the key of a row.
pub(crate) fn row_id(key: &[u8]) -> Result<AnnotationId, LoadError> {
    let id = key.last_chunk::<16>().ok_or_else(|| corrupt("the key of a row is cut off"))?;
    Ok(AnnotationId(*id))
}

pub(crate) fn id_key(number: u32, id: AnnotationId) -> [u8; 20] {
    let mut key = [0; 20];
    let (head, tail) = key.split_at_mut(4);
    head.copy_from_slice(&number.to_be_bytes());
    tail.copy_from_slice(&id.0);
    key
}

/// Which register an operation of a book or library document writes.
pub(crate) fn object_key(
    doc: &Doc,
    object: Object,
    key: &str,
) -> Option<(Option<Container>, Vec<u8>)> {
    match doc.kind.container(object) {
        Some(container) => Some((Some(container), field_key(container, key))),
        None => match object {
            Object::Made(id) => Some((None, unknown_field_key(id, key))),
            Object::Root => None,
        },
    }
}

fn write_op(out: &mut Writer, doc: &Doc, op: OpId) -> Result<(), LoadError> {
    let writer = doc.writer_place(op.actor);
    let writer =
        writer.ok_or_else(|| corrupt("an operation of an unknown writer holds a field"))?;
    out.number(op.counter).number(u64::from(writer));
    Ok(())
}

fn read_op(input: &mut Reader<'_>, doc: &Doc) -> Result<OpId, LoadError> {
    let counter = input.number()?;
    let writer = doc.writer_at(input.small()?)?;
    Ok(OpId { counter, actor: writer.actor })
}

fn write_stamp(out: &mut Writer, stamp: Hlc) {
    out.fixed(&stamp.packed().to_be_bytes());
}

fn read_stamp(input: &mut Reader<'_>) -> Result<Hlc, LoadError> {
    let packed = u64::from_be_bytes(input.fixed()?);
    Hlc::from_packed(packed).ok_or_else(|| corrupt("a stamp is out of range"))
}

pub(crate) fn write_scalar(out: &mut Writer, value: &Scalar) {
    match value {
        Scalar::Null => out.byte(0),
        Scalar::Boolean(false) => out.byte(1),
        Scalar::Boolean(true) => out.byte(2),
        Scalar::Uint(value) => out.byte(3).fixed(&value.to_be_bytes()),
        Scalar::Int(value) => out.byte(4).fixed(&value.to_be_bytes()),
        Scalar::F64(value) => out.byte(5).fixed(&value.to_bits().to_be_bytes()),
        Scalar::Text(text) => out.byte(6).text(text),
        Scalar::Bytes(bytes) => out.byte(7).prefixed(bytes),
        Scalar::Counter(value) => out.byte(8).fixed(&value.to_be_bytes()),
        Scalar::Timestamp(value) => out.byte(9).fixed(&value.to_be_bytes()),
    };
}

pub(crate) fn read_scalar(input: &mut Reader<'_>) -> Result<Scalar, LoadError> {
    Ok(match input.byte()? {
        0 => Scalar::Null,
        1 => Scalar::Boolean(false),
        2 => Scalar::Boolean(true),
        3 => Scalar::Uint(u64::from_be_bytes(input.fixed()?)),
        4 => Scalar::Int(i64::from_be_bytes(input.fixed()?)),
        5 => Scalar::F64(f64::from_bits(u64::from_be_bytes(input.fixed()?))),
        6 => Scalar::Text(input.text()?.to_owned()),
        7 => Scalar::Bytes(input.prefixed()?.to_vec()),
        8 => Scalar::Counter(i64::from_be_bytes(input.fixed()?)),
        9 => Scalar::Timestamp(i64::from_be_bytes(input.fixed()?)),
        tag => return Err(corrupt(format!("a value of type {tag}"))),
    })
}

fn write_field(out: &mut Writer, doc: &Doc, field: &Field) -> Result<(), LoadError> {
    out.len(field.holders().len());
    for holder in field.holders() {
        write_op(out, doc, holder.op)?;
        write_stamp(out, holder.stamp);
        write_scalar(out, &holder.value);
    }
    Ok(())
}

fn read_field(input: &mut Reader<'_>, doc: &Doc) -> Result<Field, LoadError> {
    let holders = (0..input.count()?).map(|_| {
        let op = read_op(input, doc)?;
        Ok(Holder { op, stamp: read_stamp(input)?, value: read_scalar(input)? })
    });
    holders.collect::<Result<_, _>>().map(Field::from_holders)
}

pub(crate) fn encode_field(doc: &Doc, field: &Field) -> Result<Vec<u8>, LoadError> {
    let mut out = Writer::with_capacity(64);
    write_field(&mut out, doc, field)?;
    Ok(out.0)
}

pub(crate) fn decode_field(doc: &Doc, bytes: &[u8]) -> Result<Field, LoadError> {
    read_field(&mut Reader(bytes), doc)
}

pub(crate) fn encode_row(doc: &Doc, row: &Row) -> Result<Vec<u8>, LoadError> {
    let mut out = Writer::with_capacity(320);
    out.len(row.created.len());
    for created in &row.created {
        write_op(&mut out, doc, created.op)?;
        write_stamp(&mut out, created.stamp);
        match &created.creation {
            Ok(creation) => write_creation(&mut out, creation, author_of(doc, created.op)),
            Err(value) => write_scalar(out.byte(0), value),
        }
    }
    out.len(row.fields.len());
    for (name, field) in &row.fields {
        write_field(out.text(name), doc, field)?;
    }
    Ok(out.0)
}

pub(crate) fn decode_row(doc: &Doc, id: AnnotationId, bytes: &[u8]) -> Result<Row, LoadError> {
    let mut input = Reader(bytes);
    let mut row = Row::new(id);
    for _ in 0..input.count()? {
        let op = read_op(&mut input, doc)?;
        let stamp = read_stamp(&mut input)?;
        let creation = match input.byte()? {
            0 => Err(read_scalar(&mut input)?),
            kind => Ok(read_creation(&mut input, kind, author_of(doc, op))?),
        };
        row.created.push(Created { op, stamp, creation });
    }
    for _ in 0..input.count()? {
        let name = input.text()?.to_owned();
        row.fields.insert(name, read_field(&mut input, doc)?);
    }
    Ok(row)
}

/// Reads what a person sees of a row. One that nobody has written since its creation, as nearly every
/// row, is read straight into that.
pub(crate) fn decode_annotation(
    doc: &Doc,
    id: AnnotationId,
    bytes: &[u8],
) -> Result<Option<Annotation>, LoadError> {
    let mut input = Reader(bytes);
    if input.count()? == 1 {
        let op = read_op(&mut input, doc)?;
        let stamp = read_stamp(&mut input)?;
        let kind = input.byte()?;
        if kind != 0 {
            let creation = read_creation(&mut input, kind, author_of(doc, op))?;
            if input.count()? == 0 {
                return Ok(Some(Annotation::created(id, stamp, creation)));
            }
        }
    }
    Ok(decode_row(doc, id, bytes)?.into_annotation())
}

/// Returns who wrote an operation, as far as that is known: usually who says to have created it.
fn author_of(doc: &Doc, op: OpId) -> Option<DeviceId> {
    doc.writer(op.actor).and_then(|writer| writer.author).map(|author| author.device)
}

fn write_creation(out: &mut Writer, creation: &Creation, author: Option<DeviceId>) {
    let kind = match creation.kind {
        Kind::Highlight => 1,
        Kind::Note => 2,
        Kind::Bookmark => 3,
    };
    out.byte(kind).text(creation.locator.as_json()).text(&creation.quote);
    out.optional(creation.color.as_deref()).optional(creation.note.as_deref());
    out.optional(creation.source.as_deref()).text(&creation.unknown);
    match creation.created_by.parse::<DeviceId>() {
        Ok(device) if author == Some(device) => out.byte(2),
        Ok(device) => out.byte(1).fixed(&device.0),
        Err(_) => out.byte(0).text(&creation.created_by),
    };
}

fn read_creation(
    input: &mut Reader<'_>,
    kind: u8,
    author: Option<DeviceId>,
) -> Result<Creation, LoadError> {
    let kind = match kind {
        1 => Kind::Highlight,
        2 => Kind::Note,
        3 => Kind::Bookmark,
        other => return Err(corrupt(format!("an annotation of kind {other}"))),
    };
    let locator = Locator::stored(input.text()?.to_owned());
    let quote = input.text()?.to_owned();
    let color = input.optional()?.map(str::to_owned);
    let note = input.optional()?.map(str::to_owned);
    let source = input.optional()?.map(str::to_owned);
    let unknown = input.text()?.to_owned();
    let created_by = match input.byte()? {
        1 => DeviceId(input.fixed()?).to_string(),
        2 => author.ok_or_else(|| corrupt("an annotation of nobody"))?.to_string(),
        _ => input.text()?.to_owned(),
    };
    Ok(Creation { kind, locator, quote, color, note, created_by, source, unknown })
}

#[cfg(test)]
mod tests {
    use catchword_model::id::{ActorId, DocumentId, EventHash};
    use catchword_model::schema::DocumentKind;

    use super::*;
    use crate::doc::DocWriter;

    fn doc() -> Doc {
        let mut doc = Doc::empty(3, DocumentId([1; 32]), DocumentKind::Book, 3);
        for n in 0..3 {
            doc.writers.push(DocWriter {
                actor: ActorId([n; 16]),
                author: None,
                last: None,
                events: 0,
                last_event: EventHash([0; 32]),
            });
        }
        doc
    }

    fn holder(n: u8, value: Scalar) -> Holder {
        let op = OpId { counter: 1_000 + u64::from(n), actor: ActorId([n; 16]) };
        Holder { op, stamp: Hlc::new(5, 6).unwrap(), value }
    }

    #[test]
    fn a_row_says_everything_again() {
        let mut row = Row::new(AnnotationId([9; 16]));
        let json = format!(
            r#"{{"kind":"note","loc":{{"cfi":"epubcfi(/6/4)","total_ppm":9}},"quote":"q",
               "note":"n","created_by":"{}","stars":5}}"#,
            DeviceId([4; 16])
        );
        row.put_created(holder(0, Scalar::Text(json)));
        row.put_created(holder(1, Scalar::Text("{\"kind\":\"hologram\"}".to_owned())));
        let mut field = Field::default();
        field.put(holder(1, Scalar::Int(-7)));
        field.put(holder(2, Scalar::Bytes(vec![1, 2])));
        row.fields.insert("deleted".to_owned(), field);

        let doc = doc();
        let bytes = encode_row(&doc, &row).unwrap();
        assert_eq!(decode_row(&doc, row.id, &bytes).unwrap(), row);
        assert_eq!(decode_annotation(&doc, row.id, &bytes).unwrap(), row.annotation());
        for cut in 0..bytes.len() {
            assert!(decode_row(&doc, row.id, &bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_row_nobody_has_written_since_shows_the_same_without_being_a_row() {
        let mut row = Row::new(AnnotationId([9; 16]));
        let json = format!(
            r#"{{"kind":"note","loc":{{"total_ppm":9}},"quote":"q","color":"red","created_by":"{}"}}"#,
            DeviceId([4; 16])
        );
        row.put_created(holder(0, Scalar::Text(json)));
        let doc = doc();
        let bytes = encode_row(&doc, &row).unwrap();
        let shown = decode_annotation(&doc, row.id, &bytes).unwrap();
        assert_eq!(shown.as_ref().map(|shown| shown.quote.as_str()), Some("q"));
        assert_eq!(shown, row.annotation());

        let mut broken = Row::new(AnnotationId([9; 16]));
        broken.put_created(holder(0, Scalar::Text("no creation".to_owned())));
        let bytes = encode_row(&doc, &broken).unwrap();
        assert_eq!(decode_annotation(&doc, broken.id, &bytes).unwrap(), None);
    }

    #[test]
    fn rows_without_a_cfi_stand_before_those_with_one_at_the_same_point() {
        let at = Locator::new().with_total_ppm(500);
        let with = at.clone().with_cfi("epubcfi(/6/4!/4/2/1:0)");
        let bare = row_key(1, &at.sort_key(), AnnotationId([255; 16]));
        let exact = row_key(1, &with.sort_key(), AnnotationId([0; 16]));
        assert!(bare < exact);
        assert_eq!(row_id(&exact).unwrap(), AnnotationId([0; 16]));
    }
}
