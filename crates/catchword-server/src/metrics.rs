//! What Prometheus reads: counts and times, of nobody in particular.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bounds of the buckets of request times, in milliseconds.
const BUCKETS_MS: [u64; 8] = [1, 5, 10, 50, 100, 500, 1_000, 10_000];

#[derive(Debug, Default, Clone)]
struct Route {
    by_status: BTreeMap<u16, u64>,
    buckets: [u64; BUCKETS_MS.len()],
    total_ms: f64,
    count: u64,
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    routes: Mutex<BTreeMap<(String, String), Route>>,
    pub(crate) live: AtomicI64,
    pub(crate) connections: AtomicI64,
    pub(crate) records_taken: AtomicU64,
    pub(crate) entries_refused: AtomicU64,
    pub(crate) sign_ins_failed: AtomicU64,
}

impl Metrics {
    pub(crate) fn observe(&self, method: &str, route: &str, status: u16, took: Duration) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let of = routes.entry((route.to_owned(), method.to_owned())).or_default();
        *of.by_status.entry(status).or_default() += 1;
        let ms = took.as_secs_f64() * 1_000.0;
        for (bucket, bound) in of.buckets.iter_mut().zip(BUCKETS_MS) {
            *bucket += u64::from(took <= Duration::from_millis(bound));
        }
        of.total_ms += ms;
        of.count += 1;
    }

    /// Returns everything in Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        out.push_str("# TYPE catchword_requests_total counter\n");
        for ((route, method), of) in &routes {
            for (status, count) in &of.by_status {
                line(
                    &mut out,
                    "catchword_requests_total",
                    &[("route", route), ("method", method), ("status", &status.to_string())],
                    count,
                );
            }
        }
        out.push_str("# TYPE catchword_request_milliseconds histogram\n");
        for ((route, method), of) in &routes {
            let name = "catchword_request_milliseconds";
            let labels = [("route", route.as_str()), ("method", method.as_str())];
            for (bucket, bound) in of.buckets.iter().zip(BUCKETS_MS) {
                let bound = bound.to_string();
                line(
                    &mut out,
                    &format!("{name}_bucket"),
                    &[labels[0], labels[1], ("le", &bound)],
                    bucket,
                );
            }
            line(
                &mut out,
                &format!("{name}_bucket"),
                &[labels[0], labels[1], ("le", "+Inf")],
                &of.count,
            );
            line(&mut out, &format!("{name}_sum"), &labels, &of.total_ms);
            line(&mut out, &format!("{name}_count"), &labels, &of.count);
        }
        for (name, kind, value) in [
            ("catchword_live_connections", "gauge", self.live.load(Ordering::Relaxed)),
            ("catchword_connections", "gauge", self.connections.load(Ordering::Relaxed)),
        ] {
            let _written = writeln!(out, "# TYPE {name} {kind}\n{name} {value}");
        }
        for (name, value) in [
            ("catchword_records_taken_total", &self.records_taken),
            ("catchword_entries_refused_total", &self.entries_refused),
            ("catchword_sign_ins_failed_total", &self.sign_ins_failed),
        ] {
            let value = value.load(Ordering::Relaxed);
            let _written = writeln!(out, "# TYPE {name} counter\n{name} {value}");
        }
        out
    }
}

fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: &impl std::fmt::Display) {
    let labels: Vec<String> =
        labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    let _written = writeln!(out, "{name}{{{}}} {value}", labels.join(","));
}
