//! What one change costs in a book of 10,000 annotations. Printed, never asserted: benches judge times.

use std::hint::black_box;
use std::time::Instant;

use catchword_model::annotation::{AnnotationField, Creation, Kind};
use catchword_model::change::past::{Judgement, judge};
use catchword_model::change::read::read;
use catchword_model::edit::Edit;
use catchword_model::id::AnnotationId;
use catchword_model::locator::Locator;
use catchword_model::schema::DocumentKind;

use crate::writer::Writer;

const ANNOTATIONS: u16 = 10_000;
const ROUNDS: u32 = 1_000;

fn id(n: u16) -> AnnotationId {
    AnnotationId::derived("cost", &[&n.to_string()])
}

fn annotate(n: u16) -> Edit {
    let creation = Creation {
        kind: Kind::Highlight,
        locator: Locator::new().with_total_ppm(u32::from(n) * 90),
        quote: "q".repeat(80),
        color: Some("yellow".to_owned()),
        note: Some("n".repeat(60)),
        created_by: "cost".to_owned(),
        source: None,
        unknown: String::new(),
    };
    Edit::Annotate { id: id(n), creation: Box::new(creation) }
}

#[expect(clippy::disallowed_methods, reason = "a measurement, of which nothing is asserted")]
fn micros(mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..ROUNDS {
        run();
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
}

#[test]
fn making_reading_and_judging_a_change_does_not_need_the_book() {
    let mut writer = Writer::new(1, DocumentKind::Book);
    let edits: Vec<Edit> = (0..ANNOTATIONS).map(annotate).collect();
    for batch in edits.chunks(1_000) {
        writer.edit(1, batch);
    }
    let mut other = Writer::new(2, DocumentKind::Book);
    other.take_all(&writer);
    let note = Edit::SetField { id: id(77), field: AnnotationField::Note, value: "x".repeat(60) };
    let change = other.clone().edit(2, std::slice::from_ref(&note));
    let history = &writer.history;

    let build = micros(|| {
        black_box(other.build(2, std::slice::from_ref(&note)));
    });
    let reading = micros(|| {
        black_box(read(change.bytes()).unwrap());
    });
    let judging = micros(|| {
        let Ok(judgement) = judge(&change, DocumentKind::Book, history.id(), history);
        assert_eq!(judgement, Judgement::Admitted);
    });
    eprintln!(
        "of {} bytes in a book of {ANNOTATIONS}: built in {build:.1} us, read in {reading:.1} us, \
         judged in {judging:.1} us",
        change.bytes().len(),
    );
}
