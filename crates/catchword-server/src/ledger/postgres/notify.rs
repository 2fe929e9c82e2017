//! What server processes on one database tell each other: whose feed has grown, and whose devices were
//! signed out.
//!
//! A notice is a transaction of its own behind the commit it is about, at most one each 10 ms: `NOTIFY`
//! takes a lock that every committing transaction with a notice waits for. What is lost with a
//! connection is found by polling.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use catchword_proto::cloud::api::AccountId;
use deadpool_postgres::Pool;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Config};

use super::connect::Connect;
use crate::ledger::SIGNED_OUT;

/// Between two notices of a process.
const NOTICE_INTERVAL: Duration = Duration::from_millis(10);
/// Before a lost connection is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const CHANNEL: &str = "catchword";

/// Tells and hears.
#[derive(Debug)]
pub(super) struct Notices {
    waiting: Arc<Waiting>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug, Default)]
struct Waiting {
    ends: Mutex<Ends>,
    some: Notify,
}

/// The end of the feed of each account, and whether a device of it was signed out: neither hides the other.
type Ends = BTreeMap<(AccountId, bool), u64>;

impl Notices {
    pub(super) fn start(
        to: (Config, Connect),
        pool: Pool,
        nudges: broadcast::Sender<(AccountId, u64)>,
    ) -> Self {
        let waiting = Arc::new(Waiting::default());
        let tell = tokio::spawn(tell_all(pool, Arc::clone(&waiting)));
        let hear = tokio::spawn(hear_all(to, nudges));
        Self { waiting, tasks: [tell, hear] }
    }

    pub(super) fn tell(&self, account: AccountId, end: u64) {
        let mut ends = self.waiting.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ends.entry((account, end == SIGNED_OUT)).or_insert(end);
        *known = end.max(*known);
        drop(ends);
        self.waiting.some.notify_one();
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn tell_all(pool: Pool, waiting: Arc<Waiting>) {
    const TELL: &str = "SELECT pg_notify($1, text) FROM unnest($2::text[]) AS text";
    loop {
        waiting.some.notified().await;
        let ends =
            std::mem::take(&mut *waiting.ends.lock().unwrap_or_else(PoisonError::into_inner));
        let texts: Vec<String> =
            ends.iter().map(|((account, _), end)| format!("{account} {end}")).collect();
        if let Ok(client) = pool.get().await {
            let told = client.execute(TELL, &[&CHANNEL, &texts]).await;
            if let Err(error) = told {
                tracing::warn!(%error, "other processes were not told");
            }
        }
        tokio::time::sleep(NOTICE_INTERVAL).await;
    }
}

async fn hear_all(to: (Config, Connect), nudges: broadcast::Sender<(AccountId, u64)>) {
    loop {
        if let Err(error) = hear(&to, &nudges).await {
            tracing::warn!(%error, "notices of other processes are not heard; polling goes on");
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

async fn hear(
    (config, connect): &(Config, Connect),
    nudges: &broadcast::Sender<(AccountId, u64)>,
) -> Result<(), tokio_postgres::Error> {
    let (client, mut connection) = config.connect(connect.clone()).await?;
    let listen = format!("LISTEN {CHANNEL}");
    let mut listening = std::pin::pin!(client.batch_execute(&listen));
    let mut listens = false;
    loop {
        let message = std::future::poll_fn(|context| connection.poll_message(context));
        tokio::select! {
            done = &mut listening, if !listens => {
                done?;
                listens = true;
            }
            message = message => match message {
                None => return Ok(()),
                Some(message) => {
                    if let AsyncMessage::Notification(notice) = message?
                        && let Some(heard) = parse(notice.payload())
                    {
                        // Nobody may be listening.
                        drop(nudges.send(heard));
                    }
                }
            },
        }
    }
}

fn parse(text: &str) -> Option<(AccountId, u64)> {
    let (account, end) = text.split_once(' ')?;
    Some((account.parse().ok()?, end.parse().ok()?))
}
