//! `catchword books` and `catchword recent`: lists of books.

use catchword::BookSummary;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Column, Table, percent};
use crate::shapes::Listed;
use crate::time::utc;

/// Books that `recent` lists at most.
const RECENT_MAX: usize = 50;
/// Digits of an id that a list shows: enough to name a book among millions.
const ID_DIGITS: usize = 12;

/// Lists every book.
pub(crate) fn all(context: &Context) -> Result<(), Failure> {
    let mut books = context.open()?.books()?;
    let unread = books.iter().position(|book| book.ppm.is_none()).unwrap_or(books.len());
    let (_, unread) = books.split_at_mut(unread);
    unread.sort_by(|a, b| (&a.title, a.book).cmp(&(&b.title, b.book)));
    list(context, books, "no books yet: `catchword import FILE` adds some")
}

/// Lists the books that were read last.
pub(crate) fn recent(context: &Context) -> Result<(), Failure> {
    let books = context.open()?.recent(RECENT_MAX)?;
    list(context, books, "nothing was read yet")
}

fn list(context: &Context, books: Vec<BookSummary>, none: &str) -> Result<(), Failure> {
    let books: Vec<Listed> = books.into_iter().map(Listed::from).collect();
    context.output.print(&books, |page| {
        if books.is_empty() {
            page.line(none);
            return;
        }
        let columns = [
            Column::word("Book"),
            Column::text("Title"),
            Column::number("Place"),
            Column::number("Furthest"),
            Column::number("Notes"),
            Column::word("Last read"),
        ];
        let mut table = Table::new(columns);
        for book in &books {
            let place = |ppm: Option<u32>| ppm.map_or_else(|| "-".to_owned(), percent);
            table.row([
                book.book.chars().take(ID_DIGITS).collect(),
                book.title.clone(),
                place(book.ppm),
                place(book.furthest_ppm),
                book.annotations.to_string(),
                utc(book.wall_ms),
            ]);
        }
        page.table(&table);
    })
}
