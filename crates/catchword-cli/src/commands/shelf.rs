//! `catchword shelf`: shelves and the books on them.

use catchword::{BookId, Library, ShelfId, ShelfView};

use crate::args::ShelfArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Page, count, plain};
use crate::shapes::Shelf;

/// Changes a shelf, if asked to, and lists it; or lists all.
pub(crate) fn run(args: &ShelfArgs, context: &Context) -> Result<(), Failure> {
    let library = context.open()?;
    let shelves = match &args.name {
        None => library.shelves()?,
        Some(name) if args.delete => {
            library.delete_shelf(required(&library, name)?)?;
            Vec::new()
        }
        Some(name) => {
            let id = change(&library, name, args)?;
            library.shelves()?.into_iter().filter(|shelf| shelf.id == id).collect()
        }
    };
    let shelves: Vec<Shelf> = shelves.into_iter().map(shape).collect();
    context.output.print(&shelves, |page| match shelves.as_slice() {
        [] if args.delete => page.line("deleted the shelf; its books are still in the library"),
        [] => page.line("no shelves yet: `catchword shelf NAME --add BOOK` makes one"),
        shelves => shelves.iter().for_each(|shelf| write(page, &library, shelf)),
    })
}

fn change(library: &Library, name: &str, args: &ShelfArgs) -> Result<ShelfId, Failure> {
    let books = |names: &[String]| -> Result<Vec<BookId>, Failure> {
        names.iter().map(|name| Ok(library.find(name)?.id())).collect()
    };
    let (add, remove) = (books(&args.add)?, books(&args.remove)?);
    let id = match find(library, name)? {
        None if !add.is_empty() => library.create_shelf(name)?,
        _ => required(library, name)?,
    };
    library.fill_shelf(id, &add, &remove)?;
    Ok(id)
}

/// Returns the shelf that a person means.
pub(crate) fn required(library: &Library, name: &str) -> Result<ShelfId, Failure> {
    find(library, name)?.ok_or_else(|| {
        Failure::message(
            Exit::NotFound,
            format_args!("no shelf is called {name:?}"),
            "`catchword shelf` lists the shelves; --add BOOK makes one",
        )
    })
}

fn find(library: &Library, name: &str) -> Result<Option<ShelfId>, Failure> {
    let shelves = library.shelves()?;
    let id = name.parse::<ShelfId>().ok();
    if let Some(found) = shelves.iter().find(|shelf| Some(shelf.id) == id) {
        return Ok(Some(found.id));
    }
    let named: Vec<ShelfId> =
        shelves.iter().filter(|shelf| shelf.name == name).map(|shelf| shelf.id).collect();
    match named.as_slice() {
        [] => Ok(None),
        [id] => Ok(Some(*id)),
        ids => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let advice = format!("name one of them by its id: {}", ids.join(", "));
            let message = format!("{} shelves are called {name:?}", ids.len());
            Err(Failure::message(Exit::NotFound, message, &advice))
        }
    }
}

fn shape(view: ShelfView) -> Shelf {
    Shelf {
        id: view.id.to_string(),
        name: view.name,
        books: view.books.iter().map(ToString::to_string).collect(),
    }
}

fn write(page: &mut Page, library: &Library, shelf: &Shelf) {
    let books = count(shelf.books.len() as u64, "book");
    page.line(format_args!("{}  {}  {books}", shelf.id, plain(&shelf.name)));
    for id in &shelf.books {
        let book = id.parse().ok().and_then(|id| library.book(id).ok().flatten());
        let title = book.and_then(|book| book.title().ok()).unwrap_or_default();
        let id: String = id.chars().take(12).collect();
        page.line(format_args!("    {id}  {}", plain(&title)));
    }
}
