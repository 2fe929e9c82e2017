//! `catchword init`: a new library.

use catchword::Library;
use serde::Serialize;

use crate::args::InitArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::plain;

#[derive(Serialize)]
struct Initialized {
    device: String,
    name: String,
}

/// Makes the library.
pub(crate) fn run(args: &InitArgs, context: &Context) -> Result<(), Failure> {
    let config = context.config().with_device_name(&args.name);
    let library = Library::create(&context.folder, config)?;
    let made = Initialized { device: library.device().to_string(), name: args.name.clone() };
    context.output.print(&made, |page| {
        page.line(format_args!("made the library of {}", plain(&made.name)));
        page.property("device", &made.device);
        page.property("folder", context.folder.display());
    })
}
