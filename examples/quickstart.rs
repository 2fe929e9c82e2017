//! One library, one book, one reader: import, read, mark, and ask what is there.
//!
//! `cargo run -p catchword-examples --example quickstart [BOOK]`, where BOOK is an EPUB or PDF file;
//! without it, a sample of our own is read. The library is made in a folder that is removed at the end.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use catchword::{Library, Locator, NewAnnotation, WHOLE_BOOK};

#[expect(clippy::print_stdout, reason = "an example shows what it did")]
fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => sample(folder.path())?,
    };
    for line in story(&folder.path().join("library"), &file)? {
        println!("{line}");
    }
    Ok(())
}

/// Lives through an evening with a book, and returns what there is to say about it.
fn story(folder: &Path, file: &Path) -> anyhow::Result<Vec<String>> {
    // A folder is a library: made if it is not there.
    let library = Library::open(folder)?;
    let imported = library.import(file)?;
    let book = imported.book;

    // Opening is not reading: nothing is recorded before a page is turned.
    let mut session = book.session("quickstart")?;
    session.restored();
    session.turned(Locator::new().with_total_ppm(125_000))?;
    session.close()?;

    // Each call returns when what it wrote is durable.
    let place = Locator::new().with_total_ppm(120_000);
    let marked = NewAnnotation::highlight("the lamp").at(place).with_note("remember this");
    let marked = book.annotate(marked)?;
    book.tag(&["evening"], &[])?;
    book.delete(marked.id)?;
    book.undelete(marked.id)?;

    // Everything is read from rows, whatever the size of the book.
    let place = book.place()?.context("a page was turned")?;
    let annotations = book.annotations(WHOLE_BOOK)?;
    Ok(vec![
        format!("{}, at {} of 1,000,000", imported.title, place.position.ppm),
        format!("tags: {}", book.tags()?.join(", ")),
        format!("annotations: {}", annotations.len()),
        annotations.iter().map(|it| it.quote.as_str()).collect(),
        format!("deeds in its history: {}", book.history()?.len()),
    ])
}

/// Writes a small book of our own into a folder.
fn sample(folder: &Path) -> anyhow::Result<PathBuf> {
    let sample =
        catchword_formats::sample::all().into_iter().next().context("there are samples")?;
    let path = folder.join(sample.file_name);
    std::fs::write(&path, sample.bytes)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_does_what_it_says() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = sample(folder.path())?;

        let told = story(&folder.path().join("library"), &file)?;

        assert!(told[0].ends_with("at 125000 of 1,000,000"), "{}", told[0]);
        assert_eq!(told[1], "tags: evening");
        assert_eq!(told[2..4], ["annotations: 1", "the lamp"]);
        Ok(())
    }
}
