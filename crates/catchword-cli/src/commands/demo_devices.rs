//! The second half of the demonstration: two devices, then a third, each a library of its own with keys
//! of its own, over real connections on this machine.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use catchword::net::{Discovery, Hosting, Join, Mdns, Near, NodeConfig, SyncReport};
use catchword::{
    AnnotationEdit, AnnotationId, Book, BookId, Library, Locator, NewAnnotation, WHOLE_BOOK,
};
use serde::Serialize;

use crate::commands::conflicts::Cards;
use crate::commands::demo::{broken, chapter, open, say, turn};
use crate::commands::demo_cloud::{self, CloudAct};
use crate::context::Context;
use crate::failure::Failure;
use crate::network::Network;
use crate::output::{count, percent, size};

/// How long the other device is looked for: an announcement is answered within a second, and a machine that
/// is busy takes a few.
const FIND_MAX: Duration = Duration::from_secs(5);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(20);

/// What the devices did.
#[derive(Serialize)]
pub(crate) struct Devices {
    /// Whether they found each other by multicast.
    found: bool,
    round_trips: u64,
    bytes_sent: u64,
    bytes_received: u64,
    in_sync: bool,
    idle_bytes: u64,
    disagreements: usize,
    third_in_sync: bool,
    cloud: CloudAct,
}

/// One device of the story.
struct Device {
    name: &'static str,
    library: Library,
    network: Network,
}

impl Device {
    fn start(name: &'static str, library: Library, mdns: bool) -> Result<Self, Failure> {
        let discovery = Mdns::new().ok().filter(|_| mdns);
        let discovery = discovery.map(|mdns| Arc::new(mdns) as Arc<dyn Discovery>);
        let network = Network::start(&library, &NodeConfig::default().with_discovery(discovery))?;
        Ok(Self { name, library, network })
    }

    fn new(
        name: &'static str,
        folder: &Path,
        context: &Context,
        mdns: bool,
    ) -> Result<Self, Failure> {
        let config = context.config().with_device_name(name);
        Self::start(name, Library::create(folder.join(name), config)?, mdns)
    }

    /// Brings this device and another to the same state, over loopback.
    fn sync(&self, other: &Self) -> Result<SyncReport, Failure> {
        let peer = other.network.node().fingerprint();
        let address = ([127, 0, 0, 1], other.network.listening()?.port()).into();
        Ok(self.network.run(self.network.node().sync(peer, Some(address)))?)
    }
}

/// Lives through the second half with the library of the first, about one of its books.
pub(crate) fn run(
    context: &Context,
    library: Library,
    folder: &Path,
    id: BookId,
) -> Result<Devices, Failure> {
    let out = &context.output;
    chapter(out, "A second device")?;
    let phone = Device::start("phone", library, true)?;
    let tablet = Device::new("tablet", folder, context, true)?;
    let found = pair(context, &phone, &tablet)?;
    let first = tablet.sync(&phone)?;
    let (changes, bytes) = (count(first.changes_received, "change"), size(first.bytes_received));
    say(out, &format!("first sync: the tablet received {changes} in {bytes}"))?;
    let (on_phone, on_tablet) = (open(&phone.library, id)?, open(&tablet.library, id)?);
    must_equal(&on_phone, &on_tablet)?;

    apart(context, &on_phone, &on_tablet, || tablet.sync(&phone).map(drop))?;
    let synced = tablet.sync(&phone)?;
    told(context, &synced)?;
    must_equal(&on_phone, &on_tablet)?;
    say(out, "both libraries are equal, and where they had disagreed, both say so:")?;
    let cards = Cards::of(&tablet.library, [id])?;
    out.say_page(|page| cards.write(page, usize::MAX))?;
    let idle = tablet.sync(&phone)?;
    let idle_bytes = idle.bytes_sent + idle.bytes_received;
    say(
        out,
        &format!("once more: nothing to do, said in {} and one round trip", size(idle_bytes)),
    )?;

    let act = demo_cloud::run(context, folder, id, [&phone.library, &tablet.library], || {
        tablet.sync(&phone).map(drop)
    })?;
    let third_in_sync = third(context, phone, &tablet, folder, id)?;
    tablet.network.close();
    Ok(Devices {
        found,
        round_trips: synced.round_trips,
        bytes_sent: synced.bytes_sent,
        bytes_received: synced.bytes_received,
        in_sync: synced.in_sync,
        idle_bytes,
        disagreements: cards.len(),
        third_in_sync,
        cloud: act,
    })
}

/// Pairs two devices as people do: one shows a code, the other finds it. Returns whether it was found by
/// multicast.
fn pair(context: &Context, host: &Device, joiner: &Device) -> Result<bool, Failure> {
    let out = &context.output;
    let hosted = host.network.run(async { host.network.node().host(Hosting::default()) })?;
    let (qr, key) = (hosted.qr.clone(), hosted.key.clone());
    say(out, &format!("the {} shows a QR code and the key {key}", host.name))?;
    let near = find(joiner, hosted.port);
    let found = near.is_some();
    let invitation = match near {
        Some(host) => Join::Near { key, host },
        None => Join::Scanned { qr, key, address: Some(([127, 0, 0, 1], hosted.port).into()) },
    };
    joiner.network.run(joiner.network.node().join(&invitation))?;
    host.network.run(hosted.wait())?;
    let how = if found {
        "found it by multicast and was given the key"
    } else {
        "was given the code and the key, since multicast does not carry on this machine"
    };
    say(out, &format!("the {} {how}: paired, certificates pinned", joiner.name))?;
    Ok(found)
}

/// Picks the host from those that show a code: others may, on this network.
fn find(joiner: &Device, port: u16) -> Option<Near> {
    let until = Instant::now() + FIND_MAX;
    while Instant::now() < until {
        let is_host = |near: &Near| near.addresses.iter().any(|address| address.port() == port);
        if let Some(near) = joiner.network.node().near().into_iter().find(is_host) {
            return Some(near);
        }
        std::thread::sleep(LOOK);
    }
    None
}

/// What both do while they cannot see each other, after `common` has given both the same.
fn apart(
    context: &Context,
    phone: &Book,
    tablet: &Book,
    common: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let out = &context.output;
    let marked = |quote: &str, ppm| -> Result<AnnotationId, Failure> {
        let place = Locator::new().with_total_ppm(ppm);
        Ok(phone.annotate(NewAnnotation::highlight(quote).at(place))?.id)
    };
    let passage = marked("a passage both will colour", 200_000)?;
    let doubtful = marked("a passage one keeps and one deletes", 210_000)?;
    common()?;

    chapter(out, "Apart")?;
    phone.edit(passage, &AnnotationEdit::new().color("red"))?;
    a_moment_later();
    tablet.edit(passage, &AnnotationEdit::new().color("green"))?;
    say(out, "one passage: the phone makes it red, the tablet green")?;
    tablet.delete(doubtful)?;
    phone.edit(doubtful, &AnnotationEdit::new().note("this one matters"))?;
    say(out, "another: the tablet deletes it, the phone writes a note to it")?;
    turn(phone, 700_000, 900)?;
    a_moment_later();
    turn(tablet, 50_000, 60)?;
    say(out, "the phone reads on to 70.0 %, the tablet goes back to 5.0 %")?;

    chapter(out, "Together")
}

/// Two writes of one millisecond have no order that a person would recognise.
fn a_moment_later() {
    std::thread::sleep(LOOK);
}

fn told(context: &Context, report: &SyncReport) -> Result<(), Failure> {
    if !report.in_sync {
        return Err(broken("two devices are not in sync after a sync"));
    }
    let line = format!(
        "one sync: {}, {} there and {} back",
        count(report.round_trips, "round trip"),
        size(report.bytes_sent),
        size(report.bytes_received)
    );
    say(&context.output, &line)
}

/// The story is a test, too.
fn must_equal(one: &Book, other: &Book) -> Result<(), Failure> {
    let (left, right) = (one.view()?, other.view()?);
    if left.heads != right.heads || left.place != right.place || left.tags != right.tags {
        return Err(broken("two devices that are in sync show different things"));
    }
    if one.annotations(WHOLE_BOOK)? != other.annotations(WHOLE_BOOK)? {
        return Err(broken("two devices that are in sync show different annotations"));
    }
    Ok(())
}

/// A third device that meets the second alone gets what the first wrote.
fn third(
    context: &Context,
    phone: Device,
    tablet: &Device,
    folder: &Path,
    id: BookId,
) -> Result<bool, Failure> {
    let out = &context.output;
    chapter(out, "A third device, through the second")?;
    let on_phone = open(&phone.library, id)?;
    let last =
        NewAnnotation::highlight("written on the phone").at(Locator::new().with_total_ppm(1));
    let last = on_phone.annotate(last)?.id;
    tablet.sync(&phone)?;
    phone.network.close();
    let Device { network, .. } = phone;
    drop(network);
    say(out, "the phone writes a last highlight, gives it to the tablet, and is switched off")?;

    let reader = Device::new("e-reader", folder, context, false)?;
    pair_by_code(&tablet.network, &reader.network)?;
    let synced = reader.sync(tablet)?;
    let on_reader = open(&reader.library, id)?;
    if on_reader.annotation(last)?.is_none() {
        return Err(broken("a highlight did not pass through the second device"));
    }
    must_equal(&on_phone, &on_reader)?;
    let place = on_reader.place()?.map_or(0, |place| place.position.ppm);
    say(
        out,
        &format!("the e-reader meets the tablet alone, has it, and opens at {}", percent(place)),
    )?;
    reader.network.close();
    Ok(synced.in_sync)
}

fn pair_by_code(host: &Network, joiner: &Network) -> Result<(), Failure> {
    let hosted = host.run(async { host.node().host(Hosting::default().with_qr_only(true)) })?;
    let (qr, key) = (hosted.qr.clone(), hosted.key.clone());
    let address = Some(([127, 0, 0, 1], hosted.port).into());
    joiner.run(joiner.node().join(&Join::Scanned { qr, key, address }))?;
    host.run(hosted.wait())?;
    Ok(())
}
