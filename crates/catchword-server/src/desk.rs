//! Threads that hash passwords: few, behind everything else, with a short queue.
//!
//! A password takes some 20 ms of a processor and 19 MiB of its memory. So they are looked at by threads
//! of their own, on half of the processors, at the lowest priority: whoever floods the server with
//! sign-ins takes that time from other sign-ins, not from devices that are signed in.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Passwords that are looked at at once, whatever the machine has.
const THREADS_MAX: usize = 4;
/// Passwords that wait; the next is refused at once. As many as are looked at in about a second.
const WAITING_MAX: usize = 64;
/// How long a password waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Does its work when it is its turn, or says that it came too late.
type Job = Box<dyn FnOnce() + Send>;

/// Carries out work on few threads. They end when it goes.
pub(crate) struct Desk {
    jobs: mpsc::SyncSender<Job>,
}

impl Desk {
    /// Starts the threads.
    pub(crate) fn open() -> std::io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with((processors / 2).clamp(1, THREADS_MAX))
    }

    fn with(threads: usize) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::sync_channel::<Job>(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads {
            let waiting = Arc::clone(&waiting);
            let thread = std::thread::Builder::new().name("password".to_owned());
            thread.spawn(move || work_all(&waiting))?;
        }
        Ok(Self { jobs })
    }

    /// Does something in its turn; `None` if too many wait, or it waited too long.
    pub(crate) async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let came = Instant::now();
        let job: Job = Box::new(move || {
            // Whoever asked may be gone.
            if came.elapsed() < WAIT_MAX && !reply.is_closed() {
                drop(reply.send(work()));
            }
        });
        self.jobs.try_send(job).ok()?;
        answer.await.ok()
    }
}

fn work_all(waiting: &Mutex<mpsc::Receiver<Job>>) {
    stand_back();
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        job();
    }
}

/// Gives this thread the lowest priority, where a thread has one of its own.
fn stand_back() {
    #[cfg(target_os = "linux")]
    {
        /// The lowest that there is.
        const LOWEST: i32 = 19;
        // Without it, sign-ins are only less polite.
        let _set = rustix::process::nice(LOWEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn beyond_the_queue_work_is_refused_at_once_and_what_is_in_it_is_done() {
        let desk = Desk::with(1).unwrap();
        let (go, gate) = mpsc::channel::<()>();
        let (started, has_started) = oneshot::channel();
        let first = desk.in_turn(move || {
            started.send(()).unwrap();
            gate.recv().unwrap();
        });
        let rest = async {
            has_started.await.unwrap();
            let mut waiting: Vec<_> =
                (0..WAITING_MAX).map(|n| Box::pin(desk.in_turn(move || n))).collect();
            let polled = std::future::poll_fn(|context| {
                let pending = waiting.iter_mut().map(|one| one.as_mut().poll(context).is_pending());
                std::task::Poll::Ready(pending.filter(|pending| *pending).count())
            });
            assert_eq!(polled.await, WAITING_MAX);
            assert_eq!(desk.in_turn(|| ()).await, None, "one more than may wait");
            go.send(()).unwrap();
            for (n, waiting) in waiting.into_iter().enumerate() {
                assert_eq!(waiting.await, Some(n));
            }
        };
        let (first, ()) = tokio::join!(first, rest);
        assert_eq!(first, Some(()));
        assert_eq!(desk.in_turn(|| 7).await, Some(7));
    }
}
