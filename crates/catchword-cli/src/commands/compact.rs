//! `catchword compact`: the same library in less room.

use catchword::{CompactReport, End};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::stopped;
use crate::output::{count, size};

#[derive(Serialize)]
struct Report {
    changes: u64,
    blocks: u64,
    damaged: u64,
    bytes_before: u64,
    bytes_after: u64,
}

/// Packs the history, until it is done or stopped.
pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let library = context.open()?;
    let interrupt = context.interrupt()?;
    let progress = context.output.progress("compact", 0);
    let report = library.compact(&mut |now| {
        progress.set(now.done, now.total);
        interrupt.flow()
    })?;
    drop(progress);
    let CompactReport { end, changes, blocks, damaged, bytes_before, bytes_after } = report;
    let packed = format!("packed {} into {}", count(changes, "change"), count(blocks, "block"));
    match end {
        End::Stopped => Err(stopped(&packed)),
        End::Finished => {
            let report = Report { changes, blocks, damaged, bytes_before, bytes_after };
            context.output.print(&report, |page| {
                page.line(&packed);
                page.line(format_args!("{} before, {} now", size(bytes_before), size(bytes_after)));
                if 0 < damaged {
                    let records = count(damaged, "damaged record");
                    page.line(format_args!("{records} left alone: `catchword check` names them"));
                }
            })
        }
    }
}
