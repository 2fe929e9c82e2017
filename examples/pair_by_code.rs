//! Two devices that never met: one shows a code, a person says who may come in, the other joins.
//!
//! `cargo run -p catchword-examples --example pair_by_code`. Both devices are libraries in folders that
//! are removed at the end; they talk over QUIC on this machine.

use anyhow::Context as _;
use catchword::net::{Hosting, Join, Node, NodeConfig};
use catchword::{Config, Library};

#[expect(clippy::print_stdout, reason = "an example shows what it did")]
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    for line in story().await? {
        println!("{line}");
    }
    Ok(())
}

/// Pairs two devices, and returns what there is to say about it.
async fn story() -> anyhow::Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    // Port 0 is any free one. Without `with_listen` a node listens on every interface.
    let loopback = NodeConfig::default().with_listen(Some(([127, 0, 0, 1], 0).into()));
    let start = |name: &str| -> anyhow::Result<Node> {
        let config = Config::default().with_device_name(name);
        let library = Library::create(folder.path().join(name), config)?;
        Ok(Node::start(&library, &loopback)?)
    };
    let (phone, tablet) = (start("phone")?, start("tablet")?);

    // The phone draws `hosted.qr` and shows `hosted.key`. It asks before it takes anybody in: called on
    // a thread of the node, so a dialog must answer later.
    let hosting = Hosting::default().with_ask(|who, answer| answer.say(who.name == "tablet"));
    let hosted = phone.host(hosting)?;

    // The tablet scans the code and its owner types the six digits. Whoever has one of the two is not
    // let in; nobody learns anything by trying.
    let (qr, key) = (hosted.qr.clone(), hosted.key.clone());
    let address = Some(phone.address()?);
    let join = Join::Scanned { qr, key, address };
    let (host, guest) = tokio::join!(tablet.join(&join), hosted.wait());
    let (host, guest) = (host?, guest?);

    // Each pins the other's certificate; people may compare the fingerprints.
    let again = phone.host(Hosting::default())?;
    let wrong = if again.key == "000000" { "000001" } else { "000000" };
    let (qr, key) = (again.qr.clone(), wrong.to_owned());
    let refused = tablet.join(&Join::Scanned { qr, key, address }).await;
    let refused = refused.err().context("a wrong key pairs nobody")?;
    Ok(vec![
        format!("the tablet knows {}, {}", host.name, host.fingerprint.groups()),
        format!("the phone knows {}, {}", guest.name, guest.fingerprint.groups()),
        format!("with a wrong key: {refused}"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_example_does_what_it_says() -> anyhow::Result<()> {
        let told = story().await?;
        assert!(told[0].starts_with("the tablet knows phone, "), "{}", told[0]);
        assert!(told[1].starts_with("the phone knows tablet, "), "{}", told[1]);
        assert!(told[2].starts_with("with a wrong key: "), "{}", told[2]);
        Ok(())
    }
}
