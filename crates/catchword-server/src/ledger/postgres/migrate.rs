//! The schema: numbered steps, each in a transaction of its own, one process at a time.

use tokio_postgres::{Client, Config};

use super::connect::Connect;
use crate::ledger::LedgerError;

/// The steps, in order. One that was published stays as it is.
const STEPS: &[&str] = &[
    include_str!("../../../migrations/0001-ledger.sql"),
    include_str!("../../../migrations/0002-projection.sql"),
    include_str!("../../../migrations/0003-forks.sql"),
    include_str!("../../../migrations/0004-tags.sql"),
];

/// Names the lock under which the schema is changed: "catchword" in ASCII, cut to 8 bytes.
const LOCK: i64 = 0x6361_7463_6877_6f72;

/// The oldest PostgreSQL that the tests run against.
const VERSION_MIN: i32 = 150_000;

const PREPARE: &str = "
    CREATE SCHEMA IF NOT EXISTS catchword;
    CREATE TABLE IF NOT EXISTS catchword.migrations (
        step integer PRIMARY KEY,
        applied timestamptz NOT NULL DEFAULT now()
    );
    DO $$
    DECLARE
        name text;
    BEGIN
        FOREACH name IN ARRAY ARRAY['catchword_service', 'catchword_projector'] LOOP
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
                BEGIN
                    EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS', name);
                EXCEPTION WHEN duplicate_object OR unique_violation THEN
                    NULL;
                END;
            END IF;
            IF NOT pg_has_role(current_user, name, 'MEMBER') THEN
                EXECUTE format('GRANT %I TO %I', name, current_user);
            END IF;
        END LOOP;
    END $$;
    GRANT USAGE ON SCHEMA catchword TO catchword_service, catchword_projector;";

/// Brings the schema up to date.
pub(super) async fn migrate(config: &Config, connect: Connect) -> Result<(), LedgerError> {
    let (client, connection) = config.connect(connect).await.map_err(LedgerError::database)?;
    let connection = tokio::spawn(connection);
    let done = under_lock(&client).await;
    // The lock ends with the connection.
    drop(client);
    connection.await.map_err(LedgerError::database)?.map_err(LedgerError::database)?;
    done
}

async fn under_lock(client: &Client) -> Result<(), LedgerError> {
    let version = "SELECT current_setting('server_version_num')::integer";
    let row = client.query_one(version, &[]).await.map_err(LedgerError::database)?;
    let version: i32 = row.try_get(0).map_err(LedgerError::database)?;
    if version < VERSION_MIN {
        let detail = format!("PostgreSQL 15 or newer is needed, this is {}", version / 10_000);
        return Err(LedgerError::Unfit { detail });
    }
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await.map_err(LedgerError::database)?;
    client.batch_execute(PREPARE).await.map_err(LedgerError::database)?;
    let last = "SELECT COALESCE(max(step), 0) FROM catchword.migrations";
    let row = client.query_one(last, &[]).await.map_err(LedgerError::database)?;
    let last: i32 = row.try_get(0).map_err(LedgerError::database)?;
    let done = usize::try_from(last).unwrap_or_default();
    if STEPS.len() < done {
        let detail = format!("its schema is at step {last}; this release knows {}", STEPS.len());
        return Err(LedgerError::Unfit { detail });
    }
    for (index, step) in STEPS.iter().enumerate().skip(done) {
        let number = index + 1;
        let sql = format!(
            "BEGIN; {step} INSERT INTO catchword.migrations (step) VALUES ({number}); COMMIT"
        );
        client.batch_execute(&sql).await.map_err(LedgerError::database)?;
        tracing::info!(step = number, "the schema moved on");
    }
    Ok(())
}
