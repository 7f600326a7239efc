//! What is left when connections and servers go.

use crate::support::{Cluster, Follower, Stop, database, eventually, versions};
use feed::{Lsn, PublishError};

fn inserts(from: usize, to: usize) -> String {
    format!("insert into t.doc select n, 'row ' || n from generate_series({from}, {to}) n")
}

fn expected(to: usize) -> Vec<String> {
    (1..=to).map(|n| format!("Insert {n} row {n}")).collect()
}

#[tokio::test]
async fn a_killed_walsender_loses_nothing() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        for round in 0..5 {
            for step in 0..20 {
                let first = round * 2000 + step * 100 + 1;
                client.batch_execute(&inserts(first, first + 99)).await.unwrap();
            }
            let killed =
                client.query("select pg_terminate_backend(pid) from pg_stat_replication", &[]).await.unwrap();
            assert!(killed.len() <= 1);
        }
        assert_eq!(follower.changes(10_000).await, expected(10_000));
        assert_eq!(follower.journal().epochs.len(), 1);
        assert!(follower.status.borrow().reconnects > 0);
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_restarted_server_is_followed_on() {
    for bin in versions() {
        let mut cluster = Cluster::start(&bin).await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        for (round, how) in [Stop::Fast, Stop::Immediate, Stop::Fast].into_iter().enumerate() {
            let client = cluster.client().await;
            client.batch_execute(&inserts(round * 1000 + 1, round * 1000 + 1000)).await.unwrap();
            drop(client);
            cluster.stop(how).await;
            follower.wait("the loss of the connection", |status| !status.connected).await;
            cluster.run().await;
            follower.connected().await;
        }
        assert_eq!(follower.changes(3000).await, expected(3000));
        assert_eq!(follower.journal().epochs.len(), 1);
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_us() {
    for bin in versions() {
        let mut cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        // Nothing is ever acknowledged ...
        let mut follower = Follower::without_sync(database(&cluster.url()));
        follower.connected().await;
        client.batch_execute(&inserts(1, 1000)).await.unwrap();
        follower.changes(1000).await;
        // ... and the feed keeps us waiting, with more in the sockets than they hold.
        let gate = follower.gate.clone();
        let held = gate.acquire_many(1).await.unwrap();
        client
            .batch_execute(
                "insert into t.doc select n, repeat('x', 1000) from generate_series(1001, 20000) n",
            )
            .await
            .unwrap();
        drop(client);
        cluster.stop(Stop::Fast).await;
        drop(held);
        follower.wait("the loss of the connection", |status| !status.connected).await;
        cluster.run().await;
        follower.changes(20_000).await;
        assert_eq!(follower.journal().epochs.len(), 1);
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_stop_of_ours_leaves_nothing_to_be_sent_again() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        client.batch_execute(&inserts(1, 1000)).await.unwrap();
        follower.changes(1000).await;
        let journal = follower.stop().await;
        let last = journal.lock().unwrap().changes.last().unwrap().position.commit_lsn.to_string();
        eventually("the last acknowledgement", || async {
            let row = client
                .query_one(
                    "select confirmed_flush_lsn > $1::text::pg_lsn and not active from pg_replication_slots",
                    &[&last],
                )
                .await
                .unwrap();
            row.get::<_, bool>(0).then_some(())
        })
        .await;
        client.batch_execute(&inserts(1001, 1500)).await.unwrap();
        let follower = Follower::resume(database(&cluster.url()), journal);
        assert_eq!(follower.changes(1500).await, expected(1500));
        assert_eq!(follower.journal().epochs.len(), 1);
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_journal_that_was_reopened_is_filled_from_where_it_stands() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        follower.journal().errors.push(PublishError::Reopened);
        client.batch_execute(&inserts(1, 1000)).await.unwrap();
        assert_eq!(follower.changes(1000).await, expected(1000));
        assert_eq!(follower.journal().epochs.len(), 1);
        // Another history under the same name.
        follower.journal().errors.push(PublishError::Fork(Lsn::new(1)));
        client.batch_execute(&inserts(1001, 1100)).await.unwrap();
        follower.changes(1100).await;
        let forks: Vec<_> = follower.journal().epochs.iter().map(|epoch| epoch.fork).collect();
        assert_eq!(forks, [false, true]);
        follower.stop().await;
    }
}
