//! Connections between devices, on loopback, and the attacks they must withstand.

mod files;
mod forged;
mod lending;
mod libraries;
mod mdns;
mod node;
mod peers;
mod requests;
mod support;
mod tls;

/// Says what a test has covered; `cargo test -- --nocapture` shows it.
fn report(figures: &str) {
    #[expect(clippy::print_stderr, reason = "a test's figures are for whoever runs it")]
    {
        eprintln!("{figures}");
    }
}
