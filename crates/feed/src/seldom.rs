//! A signal that hardly ever comes, waited for beside something that comes all the time.
//!
//! Who waits for two things polls both whenever one of them moves, and to poll most signals takes a lock that all who
//! wait for it share: with a thousand subscribers that is one lock, a thousand times for each event.

use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Release};
use std::task::{Context, Poll, Wake, Waker};

/// Waits for a future that is polled only when it has asked to be.
pub async fn seldom<F: Future>(future: F) -> F::Output {
    let bell = Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() };
    when_rung(Arc::new(bell), future).await
}

/// Polls the future when the bell has been rung, which it is given as its waker.
async fn when_rung<F: Future>(bell: Arc<Bell>, future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::clone(&bell));
    poll_fn(move |context| {
        // Before the look, so that what rings after it wakes the task. Each time: what rang took the waker away, perhaps after
        // the look that saw it.
        bell.task.register(context.waker());
        if bell.rung.swap(false, AcqRel) {
            future.as_mut().poll(&mut Context::from_waker(&waker))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// What the future wakes instead of its task.
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
        self.task.wake();
    }
}

impl Bell {
    fn ring(&self) {
        self.rung.store(true, Release);
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
    async fn what_moves_beside_it_does_not_poll_it() {
        let (notify, polls) = (Notify::new(), AtomicUsize::new(0));
        let mut notified = pin!(notify.notified());
        let counted = poll_fn(|context| {
            polls.fetch_add(1, SeqCst);
            notified.as_mut().poll(context)
        });
        let mut signal = pin!(seldom(counted));
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

    /// The signal and the task that moves to another waker meet in any order.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_signal_is_lost() {
        for _ in 0..2_000 {
            let notify = Arc::new(Notify::new());
            let waiting = Arc::clone(&notify);
            let (send, mut receive) = mpsc::unbounded_channel();
            let task = tokio::spawn(async move {
                let mut signal = pin!(seldom(waiting.notified()));
                loop {
                    tokio::select! {
                        biased;
                        () = &mut signal => return,
                        Some(()) = receive.recv() => {}
                    }
                }
            });
            for _ in 0..3 {
                // Its end may be there before the last.
                let _ = send.send(());
                notify.notify_one();
            }
            tokio::time::timeout(LIMIT, task).await.expect("a signal was lost").unwrap();
        }
    }

    /// The task may have seen the ring, for nothing, before it is woken for it.
    #[test]
    fn no_signal_is_lost_that_overtook_its_wake_up() {
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        let mut signal = pin!(when_rung(Arc::clone(&bell), std::future::pending::<()>()));

        bell.ring();
        assert!(signal.as_mut().poll(&mut context).is_pending());
        bell.task.wake();
        assert!(signal.as_mut().poll(&mut context).is_pending());
        bell.wake_by_ref();
        assert_eq!(woken.0.load(SeqCst), 2);
    }

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
}
