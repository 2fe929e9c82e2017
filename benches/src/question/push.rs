//! Positions pushed to a server, each durable before it is answered.
//!
//! The ledger is asked as the server asks it, signatures included, without HTTP: calls of an account are
//! limited there. The floor on PostgreSQL is pgbench with a transaction of the same shape on the same
//! tables, the floor on redb a bare commit of the same bytes, of all that wait where many push.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use catchword_model::edit::Edit;
use catchword_model::locator::Locator;
use catchword_model::position::{Intent, Position};
use catchword_proto::cloud::api::{AccountId, Entry, Outcome, TokenId};
use catchword_server::entry::Batch;
use catchword_server::ledger::{
    AccountRow, DeviceRow, Ledger, PostgresLedger, Projected, RedbLedger,
};
use redb::{Database, TableDefinition};

use crate::figure::{Case, Figure, Reach};
use crate::workload::Workspace;
use cluster::Cluster;
use devices::{Device, doc};

#[path = "../../../crates/catchword-server/tests/it/cluster.rs"]
#[expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    dead_code,
    reason = "the cluster of the server's tests"
)]
mod cluster;
#[path = "../../../crates/catchword-server/tests/it/devices.rs"]
#[expect(clippy::unwrap_used, dead_code, reason = "the devices of the server's tests")]
mod devices;

/// Changes of one entry, as a client sends them.
const RECORDS: usize = 500;
/// Connections of one server process.
const CONNECTIONS: usize = 16;

/// Measures pushes of one client and of many, on both ledgers.
///
/// # Errors
///
/// What a contestant met.
pub(crate) fn ask(workspace: &Workspace) -> anyhow::Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let cluster = Cluster::start();
    let (one, many) = if workspace.quick { (100, 10) } else { (1_000, 200) };
    let mut figures = Vec::new();
    for (clients, each) in [(1, one), (64, many)] {
        let work = Work::of_positions(clients, each);
        let ours = runtime.block_on(async {
            let file = workspace.fresh(&format!("push-{clients}.redb"))?;
            work.push(Arc::new(RedbLedger::open(&file)?)).await
        })?;
        let floor = bare_redb(&work, &workspace.fresh(&format!("push-bare-{clients}.redb"))?)?;
        let case = ours.case(format!("{clients} on redb")).with("redb alone", "each", floor, "us");
        figures.extend(case.figures());
        let Some(cluster) = &cluster else { continue };
        let url = cluster.database(&format!("push_{clients}"));
        let ours = runtime.block_on(async {
            work.push(Arc::new(PostgresLedger::open(&url, CONNECTIONS).await?)).await
        })?;
        let seconds = if workspace.quick { 2 } else { 10 };
        let floor = pgbench(cluster, &runtime, clients, seconds)?;
        let case = ours.case(format!("{clients} on PostgreSQL"));
        let case = case.with("pgbench", "each", floor, "us").must(Reach::Ratio(2.0));
        figures.extend(case.figures());
        figures.extend(sizes(cluster, &runtime, &format!("push_{clients}"), &work)?);
        if 1 < clients {
            figures.extend(looks(cluster, &runtime, &format!("push_{clients}"), &work)?);
        }
    }
    if let Some(cluster) = &cluster {
        figures.extend(annotations(workspace, cluster, &runtime)?);
    }
    Ok(figures)
}

/// What clients push, made before anything is measured.
struct Work {
    clients: Vec<(AccountId, Vec<Entry>)>,
}

/// How long pushes took, in microseconds.
struct Took {
    each: f64,
    p50: f64,
    p99: f64,
}

impl Took {
    fn case(&self, name: String) -> Case {
        let case = Case::new("push", name).with("catchword", "each", self.each, "us");
        case.with("catchword", "p50", self.p50, "us").with("catchword", "p99", self.p99, "us")
    }
}

impl Work {
    /// Each client has an account of its own, and turns the pages of one book.
    fn of_positions(clients: usize, each: u32) -> Self {
        let entries = |number: usize| {
            let mut device = Device::new(u8::try_from(number + 1).unwrap_or(u8::MAX));
            let position = |n: u32| {
                let locator = Locator::new().with_cfi("epubcfi(/6/14[chap07]!/4/2/16[p8]/1:112)");
                let (intent, wall_ms) = (Intent::Advance, devices::MONDAY_MS + u64::from(n));
                let ppm = 100 * n + 1;
                let locator = locator.with_total_ppm(ppm);
                let seen = catchword_model::hlc::Hlc::ZERO;
                Edit::SetPosition(Position { locator, ppm, intent, pass: 1, wall_ms, seen })
            };
            let entry = |n: u32| {
                let change = device.write(doc(1), &[position(n)]);
                device.entry_of(doc(1), u64::from(n), &[change], &[])
            };
            (0..each).map(entry).collect()
        };
        let account = |number: usize| AccountId((number as u128).to_be_bytes());
        Self { clients: (0..clients).map(|number| (account(number), entries(number))).collect() }
    }

    fn count(&self) -> usize {
        self.clients.iter().map(|(_, entries)| entries.len()).sum()
    }

    fn changes(&self) -> usize {
        let entries = self.clients.iter().flat_map(|(_, entries)| entries);
        entries.map(|entry| entry.changes.len()).sum()
    }

    async fn push<L: Ledger>(&self, ledger: Arc<L>) -> anyhow::Result<Took> {
        for (account, _) in &self.clients {
            let row = AccountRow { password_hash: String::new() };
            ledger.add_account(*account, row, device_row()).await?;
        }
        let start = Instant::now();
        let mut clients = tokio::task::JoinSet::new();
        for (account, entries) in self.clients.clone() {
            clients.spawn(push_all(Arc::clone(&ledger), account, entries));
        }
        let mut all = Vec::with_capacity(self.count());
        while let Some(client) = clients.join_next().await {
            all.extend(client??);
        }
        let each = micros(start, all.len());
        all.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| all.get(all.len() * percent / 100).copied().unwrap_or(0.0);
        Ok(Took { each, p50: at(50), p99: at(99) })
    }
}

/// Returns how many microseconds each of so many took.
fn micros(start: Instant, count: usize) -> f64 {
    start.elapsed().as_secs_f64() * 1e6 / float(count)
}

/// No count here is beyond a u32.
fn float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

fn device_row() -> DeviceRow {
    let id = TokenId([0; 16]);
    DeviceRow { id, name: String::new(), token_hash: [0; 32], created_ms: 0, expires_ms: 0 }
}

async fn push_all<L: Ledger>(
    ledger: Arc<L>,
    account: AccountId,
    entries: Vec<Entry>,
) -> anyhow::Result<Vec<f64>> {
    let mut took = Vec::with_capacity(entries.len());
    for entry in &entries {
        let start = Instant::now();
        let batch = Arc::new(Batch::read(std::slice::from_ref(entry)));
        let ingested = ledger.admit(account, batch).await?;
        took.push(start.elapsed().as_secs_f64() * 1e6);
        let taken = ingested.answers.iter().all(|one| matches!(one.outcome, Outcome::Accepted(_)));
        anyhow::ensure!(taken, "{:?}", ingested.answers);
    }
    Ok(took)
}

/// Bare commits of the same bytes: of one client each its own, of many what waits in one.
fn bare_redb(work: &Work, file: &std::path::Path) -> anyhow::Result<f64> {
    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bare");
    let database = Database::create(file)?;
    let changes: Vec<&[u8]> = work
        .clients
        .iter()
        .flat_map(|(_, entries)| entries)
        .flat_map(|entry| &entry.changes)
        .map(|change| change.0.as_slice())
        .collect();
    let start = Instant::now();
    for (number, group) in changes.chunks(work.clients.len()).enumerate() {
        let mut write = database.begin_write()?;
        write.set_quick_repair(true);
        let mut table = write.open_table(TABLE)?;
        for (place, change) in group.iter().enumerate() {
            table.insert((number * work.clients.len() + place) as u64, change)?;
        }
        drop(table);
        write.commit()?;
    }
    Ok(micros(start, changes.len()))
}

/// A transaction of the shape of a push: its account, the document locked, the feed numbered, the
/// version swapped, a fold and a record written.
const TRANSACTION: &str = "\
BEGIN;
SELECT set_config('app.account_id', lpad(to_hex(:client_id + 1000), 32, '0'), true);
SELECT version, events, actors FROM catchword.documents WHERE account_id = decode(lpad(to_hex(:client_id + 1000), 32, '0'), 'hex') AND document = '\\x01' FOR UPDATE;
UPDATE catchword.accounts SET feed = feed + 1 WHERE account_id = decode(lpad(to_hex(:client_id + 1000), 32, '0'), 'hex') RETURNING feed \\gset
UPDATE catchword.documents SET version = version + 1 WHERE account_id = decode(lpad(to_hex(:client_id + 1000), 32, '0'), 'hex') AND document = '\\x01';
INSERT INTO catchword.folds VALUES (decode(lpad(to_hex(:client_id + 1000), 32, '0'), 'hex'), '\\x01', '\\x02', decode(repeat('ab', 250), 'hex')) ON CONFLICT (account_id, document, register) DO UPDATE SET value = excluded.value;
INSERT INTO catchword.records VALUES (decode(lpad(to_hex(:client_id + 1000), 32, '0'), 'hex'), :feed, :feed, '\\x01', :feed, 0, '\\x0102030405060708090a0b0c0d0e0f10', :feed, sha256(int8send(:feed)), :feed, :feed, '\\x0102030405060708090a0b0c0d0e0f1011121314', '\\x0102030405060708090a0b0c0d0e0f1011121314', 0, decode(repeat('cd', 300), 'hex'), decode(repeat('ef', 350), 'hex'));
COMMIT;
";

/// Returns microseconds of each transaction.
fn pgbench(
    cluster: &Cluster,
    runtime: &tokio::runtime::Runtime,
    clients: usize,
    seconds: u32,
) -> anyhow::Result<f64> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("floor_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let url = cluster.database(&name);
    drop(runtime.block_on(PostgresLedger::open(&url, 2))?);
    let accounts = "INSERT INTO catchword.accounts SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), '' \
                    FROM generate_series(1000, 1063) n";
    let documents = "INSERT INTO catchword.documents SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), \
                     '\\x01', 'book' FROM generate_series(1000, 1063) n";
    query(cluster, &name, accounts)?;
    query(cluster, &name, documents)?;
    let mut command = cluster.command("pgbench");
    command.args(["-h", "127.0.0.1", "-U", "keeper", "-n", "-M", "prepared", "-f", "-"]);
    command.args(["-p", &cluster.port.to_string(), "-T", &seconds.to_string()]);
    command.args(["-c", &clients.to_string(), "-j", "2", &name]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("pgbench has no input")?.write_all(TRANSACTION.as_bytes())?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "pgbench: {said}");
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next());
    let rate: f64 = rate.with_context(|| format!("pgbench: {text}{said}"))?.parse()?;
    Ok(1e6 / rate)
}

/// Asks as somebody who may see everything, and returns one line.
fn query(cluster: &Cluster, database: &str, sql: &str) -> anyhow::Result<String> {
    let mut psql = cluster.command("psql");
    psql.args(["-h", "127.0.0.1", "-p", &cluster.port.to_string(), "-U", "keeper"]);
    let output = psql.args(["-d", database, "-q", "-A", "-t", "-c", sql]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "psql: {said}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn number(cluster: &Cluster, database: &str, sql: &str) -> anyhow::Result<f64> {
    Ok(query(cluster, database, sql)?.parse()?)
}

const LEDGER_BYTES: &str = "SELECT pg_total_relation_size('catchword.records') \
     + pg_total_relation_size('catchword.folds') + pg_total_relation_size('catchword.documents')";
const PLAIN_BYTES: &str = "SELECT pg_total_relation_size('catchword.annotations') \
     + pg_total_relation_size('catchword.places')";
const COMPACT: &str = "VACUUM FULL";

/// What the changes of a database take, after it was compacted, before and behind the projector.
fn sizes(
    cluster: &Cluster,
    runtime: &tokio::runtime::Runtime,
    database: &str,
    work: &Work,
) -> anyhow::Result<Vec<Figure>> {
    let count = float(work.changes());
    query(cluster, database, COMPACT)?;
    let ledger = number(cluster, database, LEDGER_BYTES)? / count;
    let rows = "SELECT (SELECT count(*) FROM catchword.records) \
                + (SELECT count(*) FROM catchword.folds) + (SELECT count(*) FROM catchword.documents)";
    let rows = number(cluster, database, rows)? / count;
    let start = Instant::now();
    runtime.block_on(project_all(&cluster.url(database), work))?;
    let projected = micros(start, work.changes());
    query(cluster, database, COMPACT)?;
    let plain = number(cluster, database, PLAIN_BYTES)? / count;
    let case = Case::new("push", format!("{count} changes, PostgreSQL"))
        .with("catchword", "ledger", ledger, "B")
        .with("catchword", "rows", rows, "")
        .with("plain rows", "size", plain, "B")
        .with("plain rows", "each", projected, "us");
    Ok(case.figures())
}

/// What it costs to be connected: whether the token still counts, asked again and again.
fn looks(
    cluster: &Cluster,
    runtime: &tokio::runtime::Runtime,
    database: &str,
    work: &Work,
) -> anyhow::Result<Vec<Figure>> {
    const LOOKS: usize = 200;
    let each = runtime.block_on(async {
        let ledger = Arc::new(PostgresLedger::open(&cluster.url(database), CONNECTIONS).await?);
        let start = Instant::now();
        let mut looking = tokio::task::JoinSet::new();
        for (account, _) in &work.clients {
            let (account, ledger) = (*account, Arc::clone(&ledger));
            looking.spawn(async move {
                for _ in 0..LOOKS {
                    ledger.device(account, TokenId([0; 16])).await?.context("no device")?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(looked) = looking.join_next().await {
            looked??;
        }
        anyhow::Ok(micros(start, LOOKS * work.clients.len()))
    })?;
    let case = Case::new("push", "64 ask for a token").with("on PostgreSQL", "each", each, "us");
    Ok(case.figures())
}

async fn project_all(url: &str, work: &Work) -> anyhow::Result<()> {
    let ledger = PostgresLedger::open(url, 2).await?;
    for (account, _) in &work.clients {
        let end = ledger.end(*account).await?;
        while ledger.project(*account, RECORDS).await? != Projected::UpTo(end) {}
    }
    Ok(())
}

/// Annotations as a first sign-in brings them: many in an entry.
fn annotations(
    workspace: &Workspace,
    cluster: &Cluster,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<Vec<Figure>> {
    let count = if workspace.quick { 2_000 } else { 20_000 };
    let mut device = Device::new(1);
    let quote = "It is a truth universally acknowledged, that a single man in possession of it, ";
    let changes: Vec<_> =
        (0..count).map(|n| device.annotate(doc(1), &format!("{quote}{n}"))).collect();
    let mut version = 0;
    let entries = changes.chunks(RECORDS).map(|part| {
        let entry = device.entry_of(doc(1), version, part, &[]);
        version += part.len() as u64;
        entry
    });
    let batches = entries.collect();
    let work = Work { clients: vec![(AccountId([1; 16]), batches)] };
    let url = cluster.database("annotations");
    let postgres = runtime.block_on(async {
        work.push(Arc::new(PostgresLedger::open(&url, CONNECTIONS).await?)).await
    })?;
    let redb = runtime.block_on(async {
        let file = workspace.fresh("push-annotations.redb")?;
        work.push(Arc::new(RedbLedger::open(&file)?)).await
    })?;
    let case = Case::new("push", format!("{count} annotations"))
        .with("on PostgreSQL", "each", postgres.each / float(RECORDS), "us")
        .with("on redb", "each", redb.each / float(RECORDS), "us");
    let mut figures = case.figures();
    figures.extend(sizes(cluster, runtime, "annotations", &work)?);
    Ok(figures)
}
