//! A signal that hardly ever comes, waited for beside something that comes all the time.
//!
//! Who waits for two things polls both whenever one of them moves, and to poll most signals takes a lock that all who
//! wait for it share: with a thousand subscribers that is one lock, a thousand times for each event.

use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::task::{Context, Poll, Wake, Waker};

/// Waits for a future that is polled only when it has asked to be.
pub async fn seldom<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
    let waker = Waker::from(Arc::clone(&bell));
    let mut registered = None::<Waker>;
    poll_fn(move |context| {
        let rung = bell.rung.load(Acquire);
        if !rung && registered.as_ref().is_some_and(|registered| registered.will_wake(context.waker())) {
            return Poll::Pending;
        }
        // Before the look, so that what rings after it wakes the task.
        bell.task.register(context.waker());
        registered = Some(context.waker().clone());
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
        self.rung.store(true, Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use tokio::sync::{Notify, mpsc};

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
            task.await.unwrap();
        }
    }
}
