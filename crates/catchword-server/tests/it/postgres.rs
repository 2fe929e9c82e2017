//! The suite against PostgreSQL, and what only several processes on one database do.

use std::collections::BTreeSet;

use catchword_server::entry::Batch;
use catchword_server::ledger::{LedgerError, PostgresLedger, SIGNED_OUT};
use tokio_postgres::NoTls;

use crate::cluster::{self, Cluster};
use crate::conformance::{Ledgers, receipt};
use crate::devices::{Device, doc};

const CONNECTIONS: usize = 6;

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// Each check has a database, so that they can run beside each other.
pub(crate) fn fresh(cluster: &Cluster) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    cluster.database(&format!("check_{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn run(check: impl AsyncFnOnce(Ledgers)) {
    let Some(cluster) = cluster::shared() else { return };
    let url = fresh(cluster);
    block_on(async {
        check(Ledgers::new(PostgresLedger::open(&url, CONNECTIONS).await.unwrap())).await;
    });
}

crate::conformance::suite!(run);

#[test]
fn processes_on_one_database_behave_as_one() {
    let Some(cluster) = cluster::shared() else { return };
    let url = fresh(cluster);
    block_on(async {
        // All of them bring the schema up to date at once.
        let (one, other) = tokio::join!(
            PostgresLedger::open(&url, CONNECTIONS),
            PostgresLedger::open(&url, CONNECTIONS)
        );
        let (one, other) = (Ledgers::new(one.unwrap()), Ledgers::new(other.unwrap()));
        let anna = one.account("anna").await;
        let of_other = other.of("anna");
        let mut nudges = of_other.ledger.nudges();
        let (mut phone, mut tablet) = (Device::new(1), Device::new(2));
        let mut known = BTreeSet::new();
        for n in 0..20_u64 {
            let change = phone.annotate(doc(1), &n.to_string());
            let beside = tablet.annotate(doc(1), &n.to_string());
            let here = phone.entry(doc(1), &known, 0);
            let there = tablet.entry(doc(1), &known, 0);
            let (here, there) = tokio::join!(anna.push_one(&here), of_other.push_one(&there));
            let versions = BTreeSet::from([receipt(&here).version, receipt(&there).version]);
            assert_eq!(versions, BTreeSet::from([2 * n + 1, 2 * n + 2]));
            known.extend([change.hash().0, beside.hash().0]);
        }
        assert_eq!(anna.feed().await, of_other.feed().await);
        let heard = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            while nudges.recv().await.unwrap() != (anna.account, 40) {}
        });
        heard.await.unwrap();

        // Growing and signing out are heard of, both, however close together.
        let id = anna.ledger.devices(anna.account).await.unwrap()[0].id;
        phone.annotate(doc(1), "more");
        anna.push(&[phone.entry(doc(1), &known, 0)]).await;
        assert!(anna.ledger.remove_device(anna.account, id).await.unwrap());
        let heard = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            let mut left = BTreeSet::from([SIGNED_OUT, 41]);
            while !left.is_empty() {
                let (account, end) = nudges.recv().await.unwrap();
                assert_eq!(account, anna.account);
                left.remove(&end);
            }
        });
        heard.await.unwrap();
        assert_eq!(of_other.ledger.device(anna.account, id).await.unwrap(), None);
    });
}

/// Makes a database in which two accounts have a turned page and an annotation each, and their plain rows.
async fn two_accounts(url: &str) -> Ledgers {
    let ledger = PostgresLedger::open(url, CONNECTIONS).await.unwrap();
    let projector = PostgresLedger::open(url, CONNECTIONS).await.unwrap();
    let ledgers = Ledgers::new(ledger);
    for name in ["anna", "bert"] {
        let of = ledgers.account(name).await;
        let mut phone = Device::new(1);
        phone.turn(
            doc(1),
            crate::devices::stamp(5),
            (catchword_model::position::Intent::Advance, 1, 9),
        );
        phone.annotate(doc(1), name);
        of.push(&[phone.entry(doc(1), &BTreeSet::new(), 0)]).await;
        projector.project(of.account, 9).await.unwrap();
    }
    ledgers
}

async fn projector_sees_numbers_alone(client: &tokio_postgres::Client) {
    // Who finds the accounts that are behind sees their ids and numbers, and nothing else.
    client.batch_execute("RESET ROLE; SET ROLE catchword_projector").await.unwrap();
    let found = client.query("SELECT account_id, feed FROM catchword.accounts", &[]).await;
    assert_eq!(found.unwrap().len(), 2);
    for column in ["accounts.password_hash", "places.ppm", "annotations.quote", "records.bytes"] {
        let (table, _) = column.split_once('.').unwrap();
        let sql = format!("SELECT {table}.* FROM catchword.{table}");
        assert!(client.query(&sql, &[]).await.is_err(), "{column}");
        let sql = format!("SELECT {column} FROM catchword.{table}");
        assert!(client.query(&sql, &[]).await.is_err(), "{column}");
    }
}

/// T-SRV-1, the part below HTTP: raw SQL as the service role.
#[test]
fn without_naming_an_account_the_service_sees_and_writes_nothing() {
    const TABLES: [&str; 8] = [
        "accounts",
        "devices",
        "documents",
        "records",
        "folds",
        "projections",
        "places",
        "annotations",
    ];
    let Some(cluster) = cluster::shared() else { return };
    let url = fresh(cluster);
    block_on(async {
        let ledgers = two_accounts(&url).await;
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut crossed = 0;
        let rows = async |table: &str| -> i64 {
            let sql = format!("SELECT count(*) FROM catchword.{table}");
            client.query_one(&sql, &[]).await.unwrap().get(0)
        };
        // A turn and an annotation are two records.
        let of_each = |table: &str| if table == "records" { 2 } else { 1 };
        for table in TABLES {
            let all = rows(table).await;
            assert_eq!(all, 2 * of_each(table), "{table}: as the owner, who is a superuser");
        }
        client.batch_execute("SET ROLE catchword_service").await.unwrap();
        for table in TABLES {
            crossed += rows(table).await;
        }
        // One account named: one row of each, and nothing of the other can be changed or made.
        let anna = ledgers.of("anna").account;
        let bert = ledgers.of("bert").account;
        client.batch_execute("BEGIN").await.unwrap();
        let name = format!("SET LOCAL app.account_id = '{anna}'");
        client.batch_execute(&name).await.unwrap();
        for table in TABLES {
            assert_eq!(rows(table).await, of_each(table), "{table}");
            let sql =
                format!("DELETE FROM catchword.{table} WHERE account_id = decode('{bert}', 'hex')");
            crossed += i64::try_from(client.execute(&sql, &[]).await.unwrap()).unwrap();
        }
        let forged = format!(
            "INSERT INTO catchword.documents (account_id, document, name) \
             VALUES (decode('{bert}', 'hex'), 'x', 'library')"
        );
        assert!(client.batch_execute(&forged).await.is_err());
        client.batch_execute("ROLLBACK").await.unwrap();
        // And the name ends with the transaction.
        for table in TABLES {
            crossed += rows(table).await;
        }
        projector_sees_numbers_alone(&client).await;
        eprintln!("T-SRV-1, below HTTP: {crossed} rows crossed, {} cases", 3 * TABLES.len() + 1);
        assert_eq!(crossed, 0);
        drop(client);
        connection.await.unwrap().unwrap();
    });
}

#[test]
fn a_role_that_sees_everything_and_a_newer_schema_are_refused() {
    let Some(cluster) = Cluster::start() else { return };
    let url = cluster.database("roles");
    block_on(async {
        drop(PostgresLedger::open(&url, CONNECTIONS).await.unwrap());
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        client.batch_execute("ALTER ROLE catchword_service BYPASSRLS").await.unwrap();
        let refused = PostgresLedger::open(&url, CONNECTIONS).await;
        assert!(matches!(refused, Err(LedgerError::Unfit { .. })), "{refused:?}");
        client.batch_execute("ALTER ROLE catchword_service NOBYPASSRLS").await.unwrap();
        drop(PostgresLedger::open(&url, CONNECTIONS).await.unwrap());
        let newer = "INSERT INTO catchword.migrations (step) \
                     SELECT 1 + max(step) FROM catchword.migrations";
        client.batch_execute(newer).await.unwrap();
        let refused = PostgresLedger::open(&url, CONNECTIONS).await;
        assert!(matches!(refused, Err(LedgerError::Unfit { .. })), "{refused:?}");
        drop(client);
        connection.await.unwrap().unwrap();
    });
}

#[test]
fn after_the_database_was_killed_the_ledger_goes_on_and_has_what_it_answered() {
    let Some(mut cluster) = Cluster::start() else { return };
    let url = cluster.database("killed");
    block_on(async {
        let ledgers = Ledgers::new(PostgresLedger::open(&url, CONNECTIONS).await.unwrap());
        let anna = ledgers.account("anna").await;
        let mut phone = Device::new(1);
        phone.annotate(doc(1), "before");
        let first = phone.entry(doc(1), &BTreeSet::new(), 0);
        assert_eq!(anna.push(std::slice::from_ref(&first)).await.cursor, 1);

        cluster.kill();
        phone.annotate(doc(1), "while it is gone");
        let second = phone.entry(doc(1), &BTreeSet::new(), 0);
        let batch = std::sync::Arc::new(Batch::read(std::slice::from_ref(&second)));
        let gone = anna.ledger.admit(anna.account, batch).await;
        assert!(matches!(gone, Err(LedgerError::Database(_))), "{gone:?}");
        assert!(anna.ledger.check().await.is_err());

        cluster.run();
        anna.ledger.check().await.unwrap();
        assert_eq!(anna.end().await, 1);
        assert_eq!(receipt(&anna.push_one(&second).await).version, 2);
        assert_eq!(anna.feed().await.len(), 2);
    });
}

#[test]
fn the_server_speaks_tls_with_a_database_that_has_the_right_certificate() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = [
        ("server.crt", made.cert.pem()),
        ("server.key", made.signing_key.serialize_pem()),
        ("postgresql.auto.conf", "ssl = on\n".to_owned()),
        ("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n".to_owned()),
    ];
    let Some(cluster) =
        Cluster::start_with(&files.each_ref().map(|(name, text)| (*name, text.as_str())))
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let roots = |name: &str, pem: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, pem).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let (right, wrong) =
        (roots("right.pem", &made.cert.pem()), roots("wrong.pem", &other.cert.pem()));
    let by_address = cluster.database("encrypted");
    let by_name = by_address.replace("127.0.0.1", "localhost");
    block_on(async {
        let open = async |url: &str, query: &str| {
            PostgresLedger::open(&format!("{url}?{query}"), CONNECTIONS).await
        };
        for mode in ["require", "verify-full"] {
            let query = format!("sslmode={mode}&sslrootcert={right}");
            let ledgers = Ledgers::new(open(&by_name, &query).await.unwrap());
            let anna = ledgers.account(mode).await;
            let mut nudges = ledgers.ledger.nudges();
            let change = Device::new(1).annotate(doc(1), "over TLS");
            anna.push(&[Device::new(1).entry_of(doc(1), 0, &[change], &[])]).await;
            assert_eq!(anna.end().await, 1);
            assert_eq!(nudges.recv().await.unwrap(), (anna.account, 1));
        }
        let refused = [
            (&by_name, "sslmode=disable".to_owned()),
            (&by_name, format!("sslmode=require&sslrootcert={wrong}")),
            // The certificate is for a name.
            (&by_address, format!("sslmode=require&sslrootcert={right}")),
        ];
        for (url, query) in refused {
            let refused = open(url, &query).await;
            assert!(matches!(refused, Err(LedgerError::Database(_))), "{query}: {refused:?}");
        }
    });
}

/// What the documentation says about backup and restore.
#[test]
fn a_database_that_was_dumped_and_restored_goes_on_and_makes_its_plain_rows_again() {
    let Some(cluster) = cluster::shared() else { return };
    let (from, to) = (fresh(cluster), fresh(cluster));
    let run = |program: &str, arguments: &[&str]| {
        let mut command = cluster.command(program);
        command.args(["-h", "127.0.0.1", "-p", &cluster.port.to_string(), "-U", "keeper"]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let name = |url: &str| url.rsplit('/').next().unwrap().to_owned();
    let file = format!("{}.dump", name(&from));
    block_on(async {
        let ledger = PostgresLedger::open(&from, CONNECTIONS).await.unwrap();
        let ledgers = Ledgers::new(ledger);
        let anna = ledgers.account("anna").await;
        let mut phone = Device::new(1);
        for quote in ["one", "two"] {
            phone.annotate(doc(1), quote);
        }
        anna.push(&[phone.entry(doc(1), &BTreeSet::new(), 0)]).await;
        let projector = PostgresLedger::open(&from, CONNECTIONS).await.unwrap();
        projector.project(anna.account, 1).await.unwrap();
        let feed = anna.feed().await;

        let left_out = ["projections", "places", "annotations"]
            .map(|table| format!("--exclude-table-data=catchword.{table}"));
        let [a, b, c] = left_out.each_ref().map(String::as_str);
        run("pg_dump", &["-Fc", a, b, c, "-f", &file, &name(&from)]);
        run("pg_restore", &["--exit-on-error", "-d", &name(&to), &file]);

        let ledger = PostgresLedger::open(&to, CONNECTIONS).await.unwrap();
        let restored = Ledgers::new(ledger).of("anna");
        assert_eq!(restored.feed().await, feed);
        let projector = PostgresLedger::open(&to, CONNECTIONS).await.unwrap();
        let projected = projector.project(anna.account, 9).await.unwrap();
        assert_eq!(projected, catchword_server::ledger::Projected::UpTo(2));
        let known = phone.history(doc(1)).changes().map(|change| change.hash().0).collect();
        phone.annotate(doc(1), "three");
        restored.push(&[phone.entry(doc(1), &known, 2)]).await;
        assert_eq!((restored.end().await, anna.end().await), (3, 2));
    });
}

/// Plans are made while the tables are empty, and stay.
#[test]
fn no_table_is_ever_read_as_a_whole() {
    const TABLES: &str = "('documents', 'records', 'folds', 'places', 'annotations')";
    let Some(cluster) = cluster::shared() else { return };
    let url = fresh(cluster);
    block_on(async {
        let ledger = PostgresLedger::open(&url, CONNECTIONS).await.unwrap();
        let projector = PostgresLedger::open(&url, CONNECTIONS).await.unwrap();
        let ledgers = Ledgers::new(ledger);
        let anna = ledgers.account("anna").await;
        let mut phone = Device::new(1);
        let mut known = BTreeSet::new();
        for n in 0..300_u16 {
            let of = doc(u8::try_from(n % 3).unwrap());
            known.insert(phone.annotate(of, &n.to_string()).hash().0);
            if n % 10 == 9 {
                let entries = [0, 1, 2].map(|of| phone.entry(doc(of), &BTreeSet::new(), 0));
                anna.push(&entries).await;
                projector.project(anna.account, 500).await.unwrap();
            }
        }
        assert_eq!(anna.feed().await.len(), known.len());
        anna.ledger.books(anna.account, None, 9).await.unwrap();
        drop((anna, ledgers, projector));

        // What a connection counted is seen when it has ended.
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let sql = format!(
            "SELECT min(idx_scan), sum(seq_tup_read)::bigint FROM pg_stat_user_tables \
             WHERE schemaname = 'catchword' AND relname IN {TABLES}"
        );
        let mut counts = (0, 0);
        for _ in 0..200 {
            let row = client.query_one(&sql, &[]).await.unwrap();
            counts = (row.get::<_, i64>(0), row.get::<_, i64>(1));
            if 20 < counts.0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        eprintln!(
            "looked up by index at least {} times in each table, {} rows read",
            counts.0, counts.1
        );
        assert!(20 < counts.0, "each is used");
        assert_eq!(counts.1, 0, "rows that were read without an index");
        drop(client);
        connection.await.unwrap().unwrap();
    });
}
