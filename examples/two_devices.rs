//! One library on two devices: both work apart, meet, and are equal.
//!
//! `cargo run -p catchword-examples --example two_devices`. Both devices are libraries in folders that
//! are removed at the end; they talk over QUIC on this machine.

use std::path::Path;

use anyhow::Context as _;
use catchword::net::{Hosting, Join, Node, NodeConfig};
use catchword::{AnnotationEdit, Book, Config, Library, Locator, NewAnnotation, WHOLE_BOOK};

#[expect(clippy::print_stdout, reason = "an example shows what it did")]
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    for line in story().await? {
        println!("{line}");
    }
    Ok(())
}

/// A device: its library, and the library on the network.
struct Device {
    library: Library,
    node: Node,
}

impl Device {
    fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let config = Config::default().with_device_name(name);
        let library = Library::create(folder.join(name), config)?;
        // An application that stays takes `with_discovery(..).with_lasting(true)` instead: it is found
        // by multicast, and syncs when a peer appears, after every change, and every minute.
        let listen = Some(([127, 0, 0, 1], 0).into());
        let node = Node::start(&library, &NodeConfig::default().with_listen(listen))?;
        Ok(Self { library, node })
    }

    fn book(&self) -> anyhow::Result<Book> {
        let first = self.library.books()?.into_iter().next().context("there is a book")?;
        self.library.book(first.book)?.context("it is still there")
    }
}

/// Lives through an evening apart, and returns what there is to say about it.
async fn story() -> anyhow::Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let (phone, tablet) =
        (Device::new(folder.path(), "phone")?, Device::new(folder.path(), "tablet")?);
    let sample =
        catchword_formats::sample::all().into_iter().next().context("there are samples")?;
    let file = folder.path().join(sample.file_name);
    std::fs::write(&file, sample.bytes)?;
    phone.library.import(&file)?;
    let marked = phone.book()?.annotate(NewAnnotation::highlight("the lamp"))?.id;

    // Once: see `pair_by_code`.
    let hosted = phone.node.host(Hosting::default())?;
    let (qr, key) = (hosted.qr.clone(), hosted.key.clone());
    let join = Join::Scanned { qr, key, address: Some(phone.node.address()?) };
    let (host, guest) = tokio::join!(tablet.node.join(&join), hosted.wait());
    let (host, _guest) = (host?, guest?);

    // The first sync brings the book; its file stays where it is.
    let address = Some(phone.node.address()?);
    let first = tablet.node.sync(host.fingerprint, address).await?;

    // Apart, both change one highlight, and read on from different places.
    phone.book()?.edit(marked, &AnnotationEdit::new().color("red"))?;
    tablet.book()?.edit(marked, &AnnotationEdit::new().color("green"))?;
    for (device, ppm) in [(&phone, 700_000), (&tablet, 250_000)] {
        let mut session = device.book()?.session("two_devices")?;
        session.restored();
        session.turned(Locator::new().with_total_ppm(ppm))?;
        session.close()?;
    }

    // Together: one round trip, and both are equal. Nothing was lost: the other colour is still there.
    let second = tablet.node.sync(host.fingerprint, address).await?;
    let (left, right) = (phone.book()?, tablet.book()?);
    let colour = left.annotations(WHOLE_BOOK)?.first().and_then(|it| it.color.clone());
    let place = left.place()?.context("a page was turned")?;
    Ok(vec![
        format!("first sync: {} changes, in sync: {}", first.changes_received, first.in_sync),
        format!("second sync: {} round trip, in sync: {}", second.round_trips, second.in_sync),
        format!("equal: {}", left.view()?.heads == right.view()?.heads),
        format!(
            "place: {}, furthest: {}",
            place.position.ppm,
            left.furthest()?.map_or(0, |it| it.ppm)
        ),
        format!(
            "colour: {}, of {} disagreements",
            colour.unwrap_or_default(),
            left.conflicts()?.len()
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_example_does_what_it_says() -> anyhow::Result<()> {
        let told = story().await?;
        assert!(told[0].ends_with("in sync: true"), "{}", told[0]);
        assert_eq!(told[1], "second sync: 1 round trip, in sync: true");
        assert_eq!(told[2], "equal: true");
        assert_eq!(told[3], "place: 250000, furthest: 700000");
        assert!(told[4].ends_with("of 2 disagreements"), "{}", told[4]);
        Ok(())
    }
}
