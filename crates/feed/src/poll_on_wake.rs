//! Waits for a rare signal (shutdown, slot lost) beside a frequent one, without polling it for each
//! event.
//!
//! A task that waits for two futures polls both whenever one of them wakes it. Polling most signals
//! takes a lock that all waiters share: with a thousand subscribers that is one lock, taken a thousand
//! times for each event.

use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Release};
use std::task::{Context, Poll, Wake, Waker};

/// Waits for a future that is polled only after it was woken.
pub async fn poll_on_wake<F: Future>(future: F) -> F::Output {
    let flag = WakeFlag { woken: AtomicBool::new(true), task: AtomicWaker::new() };
    poll_when_woken(Arc::new(flag), future).await
}

/// Polls the future when the flag is set. The future gets the flag as its waker.
async fn poll_when_woken<F: Future>(flag: Arc<WakeFlag>, future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::clone(&flag));
    poll_fn(move |context| {
        // Registered before the flag is read, so that a later wake-up reaches the task. Registered at
        // each poll, because a wake-up takes the registered waker, perhaps after the poll that saw it.
        flag.task.register(context.waker());
        if flag.woken.swap(false, AcqRel) {
            future.as_mut().poll(&mut Context::from_waker(&waker))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// The future's waker: notes the wake-up, then wakes the task.
struct WakeFlag {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set();
        self.task.wake();
    }
}

impl WakeFlag {
    fn set(&self) {
        self.woken.store(true, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;
    use tokio::sync::{Notify, mpsc};

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn wake_ups_for_other_futures_do_not_poll_it() {
        let (notify, polls) = (Notify::new(), AtomicUsize::new(0));
        let mut notified = pin!(notify.notified());
        let counted = poll_fn(|context| {
            polls.fetch_add(1, SeqCst);
            notified.as_mut().poll(context)
        });
        let mut signal = pin!(poll_on_wake(counted));
        let (send, mut receive) = mpsc::channel(1);
        for _ in 0..100 {
            send.send(()).await.unwrap();
            tokio::select! {
                biased;
                () = &mut signal => panic!("nothing was signalled"),
                _ = receive.recv() => {}
            }
        }
        assert_eq!(polls.load(SeqCst), 1);
        notify.notify_one();
        signal.await;
        assert_eq!(polls.load(SeqCst), 2);
    }

    /// The signal and the change of the waker happen in any order.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_signal_is_lost_when_the_task_changes_its_waker() {
        for _ in 0..2_000 {
            let notify = Arc::new(Notify::new());
            let waiting = Arc::clone(&notify);
            let (send, mut receive) = mpsc::unbounded_channel();
            let task = tokio::spawn(async move {
                let mut signal = pin!(poll_on_wake(waiting.notified()));
                loop {
                    tokio::select! {
                        biased;
                        () = &mut signal => return,
                        Some(()) = receive.recv() => {}
                    }
                }
            });
            for _ in 0..3 {
                // The task may have ended before the last one.
                let _ = send.send(());
                notify.notify_one();
            }
            tokio::time::timeout(LIMIT, task).await.expect("a signal was lost").unwrap();
        }
    }

    /// A poll may see the flag, and find nothing, before the task is woken for it.
    #[test]
    fn no_signal_is_lost_when_the_poll_precedes_its_wake_up() {
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let flag = Arc::new(WakeFlag { woken: AtomicBool::new(true), task: AtomicWaker::new() });
        let mut signal = pin!(poll_when_woken(Arc::clone(&flag), std::future::pending::<()>()));

        flag.set();
        assert!(signal.as_mut().poll(&mut context).is_pending());
        flag.task.wake();
        assert!(signal.as_mut().poll(&mut context).is_pending());
        flag.wake_by_ref();
        assert_eq!(woken.0.load(SeqCst), 2);
    }

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
}
