//! Nothing conflicts on one device; what happens with two is tested where changes are received.

use catchword::{AnnotationEdit, NewAnnotation};

use crate::support::{at, device, read};

#[test]
fn one_device_never_disagrees_with_itself() {
    let device = device("phone");
    let book = device.sample();
    read(&book, 500_000);
    read(&book, 100_000);
    let id = book.annotate(NewAnnotation::highlight("a").at(at(5))).unwrap().id;
    book.edit(id, &AnnotationEdit::new().note("one")).unwrap();
    book.edit(id, &AnnotationEdit::new().note("two")).unwrap();
    book.delete(id).unwrap();
    book.set_title("Another").unwrap();
    assert_eq!(book.conflicts().unwrap(), []);
}
