//! `catchword check`: what is wrong with the library, if anything is.

use catchword::{Checked, Derived, End, Library, Mismatch, RecordName, Repair};
use serde::Serialize;

use crate::args::CheckArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::interrupt::{Interrupt, stopped};
use crate::output::{Page, count, plain};

#[derive(Serialize)]
struct Report {
    clean: bool,
    documents: u64,
    changes: u64,
    events: u64,
    annotations: u64,
    files: u64,
    differences: u64,
    named: Vec<Named>,
    damaged: Vec<Unusable>,
    damaged_files: Vec<String>,
    missing_files: Vec<String>,
    leftovers: u64,
    repaired: u64,
}

/// A place where a table differs from the log.
#[derive(Serialize)]
struct Named {
    document: Option<String>,
    table: &'static str,
    mismatch: &'static str,
    entry: String,
}

/// A record that cannot be used.
#[derive(Serialize)]
struct Unusable {
    document: String,
    record: String,
    reason: String,
}

/// Checks the library, and fails if anything is wrong and was not repaired.
pub(crate) fn run(args: &CheckArgs, context: &Context) -> Result<(), Failure> {
    let interrupt = context.interrupt()?;
    if args.repair {
        salvage(context, &interrupt)?;
    }
    let library = context.open()?;
    let repair = if args.repair { Repair::Rebuild } else { Repair::ReportOnly };
    let checked = check(&library, repair, context, &interrupt)?;
    // What a repair left is for a second look to say.
    let again = match repair {
        Repair::Rebuild if !checked.is_clean() => {
            Some(check(&library, Repair::ReportOnly, context, &interrupt)?)
        }
        Repair::Rebuild | Repair::ReportOnly => None,
    };
    let clean = again.as_ref().unwrap_or(&checked).is_clean();
    let report = Report { clean, ..Report::from(checked) };
    context.output.print(&report, |page| write(page, &report))?;
    if clean {
        return Ok(());
    }
    let advice = match (report.damaged.is_empty(), args.repair) {
        (true, false) if 0 < report.differences => "run `catchword check --repair`",
        (true, _) => "import the named files again",
        (false, _) => {
            "bring a backup back with `catchword restore`, or go on without what is named"
        }
    };
    Err(Failure::message(Exit::Failed, "the library is damaged", advice))
}

/// Saves what can be read of a library that has rotted, unless the process that has it open says that
/// it can be read.
fn salvage(context: &Context, interrupt: &Interrupt) -> Result<(), Failure> {
    if context.daemon.is_some() {
        return Ok(());
    }
    let progress = context.output.progress("read", 0);
    let saved = Library::salvage(&context.folder, &context.config(), &mut |now| {
        progress.set(now.done, now.total);
        interrupt.flow()
    })?;
    drop(progress);
    if saved.check.is_some() || 0 < saved.wal_pages_lost {
        context.output.complain(&format!(
            "catchword: lost {} of the library ({}) and {} of what was written last; \
             the old files are kept as `library.damaged` and `wal.damaged`",
            count(saved.pages_lost, "page"),
            saved.tables.join(", "),
            count(saved.wal_pages_lost, "page"),
        ));
    }
    Ok(())
}

fn check(
    library: &Library,
    repair: Repair,
    context: &Context,
    interrupt: &Interrupt,
) -> Result<Checked, Failure> {
    let progress = context.output.progress("check", 0);
    let checked = library.check(repair, &mut |now| {
        progress.set(now.done, now.total);
        interrupt.flow()
    })?;
    drop(progress);
    match checked.end {
        End::Finished => Ok(checked),
        End::Stopped => Err(stopped("the check did not look at everything")),
    }
}

impl From<Checked> for Report {
    fn from(checked: Checked) -> Self {
        let clean = checked.is_clean();
        let ids = |books: &[catchword::BookId]| books.iter().map(ToString::to_string).collect();
        let library = checked.library;
        let named = library.named.into_iter().map(|difference| Named {
            document: difference.document.map(|document| document.to_string()),
            table: table(difference.derived),
            mismatch: mismatch(difference.mismatch),
            entry: difference.entry,
        });
        let damaged = library.damaged.into_iter().map(|damaged| Unusable {
            document: damaged.document.to_string(),
            record: match damaged.record {
                RecordName::Change { sequence } => format!("change {sequence}"),
                RecordName::Event { writer, n } => format!("event {n} of writer {writer}"),
            },
            reason: damaged.reason,
        });
        Self {
            clean,
            documents: library.documents,
            changes: library.changes,
            events: library.events,
            annotations: library.annotations,
            files: checked.files,
            differences: library.differences,
            named: named.collect(),
            damaged: damaged.collect(),
            damaged_files: ids(&checked.damaged_files),
            missing_files: ids(&checked.missing_files),
            leftovers: library.leftovers,
            repaired: library.repaired,
        }
    }
}

fn write(page: &mut Page, report: &Report) {
    page.line(format_args!(
        "read {}, {}, {}, {}",
        count(report.documents, "document"),
        count(report.changes, "change"),
        count(report.events, "reading event"),
        count(report.files, "book file"),
    ));
    for named in &report.named {
        let document = named.document.as_deref().unwrap_or("library");
        page.line(format_args!(
            "differs  {document}  {} {} {}",
            named.table,
            named.mismatch,
            plain(&named.entry)
        ));
    }
    let unnamed = report.differences.saturating_sub(report.named.len() as u64);
    if 0 < unnamed {
        page.line(format_args!("differs  {} more", count(unnamed, "place")));
    }
    for one in &report.damaged {
        page.line(format_args!(
            "damaged  {}  {}: {}",
            one.document,
            one.record,
            plain(&one.reason)
        ));
    }
    for book in &report.damaged_files {
        page.line(format_args!("damaged  {book}  its file has changed"));
    }
    for book in &report.missing_files {
        page.line(format_args!("missing  {book}  its file is gone"));
    }
    if 0 < report.repaired {
        page.line(format_args!("rebuilt {}", count(report.repaired, "document")));
    }
    if report.clean {
        page.line("nothing is wrong");
    }
}

fn table(derived: Derived) -> &'static str {
    match derived {
        Derived::Numbers => "numbers",
        Derived::Documents => "documents",
        Derived::Annotations => "annotations",
        Derived::Places => "places",
        Derived::Fields => "fields",
        Derived::Hashes => "hashes",
        Derived::Chains => "chains",
        Derived::Recent => "recent",
        Derived::Journals => "journals",
        Derived::NextNumber => "next_number",
    }
}

fn mismatch(mismatch: Mismatch) -> &'static str {
    match mismatch {
        Mismatch::Missing => "missing",
        Mismatch::Unexpected => "unexpected",
        Mismatch::Different => "different",
        Mismatch::Unreadable => "unreadable",
    }
}
