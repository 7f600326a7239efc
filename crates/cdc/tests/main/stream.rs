//! What comes through the stream.

use crate::support::{Cluster, Follower, database, eventually, versions};
use std::time::Duration;

#[tokio::test]
async fn changes_come_in_order_with_their_ordinals() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        client.batch_execute("insert into t.doc values (1, 'one'), (2, 'two')").await.unwrap();
        client
            .batch_execute(
                "begin; update t.doc set body = 'zwei' where id = 2; insert into t.other values (1); \
                 delete from t.doc where id = 1; insert into t.doc values (3, null); commit",
            )
            .await
            .unwrap();
        let changes = follower.changes(5).await;
        assert_eq!(
            changes,
            ["Insert 1 one", "Insert 2 two", "Update 2 zwei", "Delete 1 one", "Insert 3 Null"]
        );
        let ordinals: Vec<_> =
            follower.journal().changes.iter().map(|change| change.position.ordinal).collect();
        assert_eq!(ordinals, [0, 1, 0, 1, 2]);
        let status = follower.status.borrow().clone();
        assert!(status.connected && status.state == "following the database", "{status:?}");
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_large_transaction_comes_in_pieces() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        client
            .batch_execute("insert into t.doc select n, 'row ' || n from generate_series(1, 30000) n")
            .await
            .unwrap();
        let changes = follower.changes(30_000).await;
        for (at, change) in changes.iter().enumerate() {
            assert_eq!(*change, format!("Insert {0} row {0}", at + 1));
        }
        {
            let journal = follower.journal();
            assert!(journal.largest_batch <= 1_000, "{}", journal.largest_batch);
            assert_eq!(journal.changes.last().unwrap().position.ordinal, 29_999);
        }
        client.batch_execute("insert into t.doc values (0, repeat('x', 5000000))").await.unwrap();
        assert_eq!(follower.changes(30_001).await.last().unwrap().len(), "Insert 0 ".len() + 5_000_000);
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_table_whose_shape_changes_is_followed() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        for statement in [
            "insert into t.doc values (1, 'a')",
            "alter table t.doc add column more text default 'b'",
            "insert into t.doc values (2, 'a', 'c')",
            "alter table t.doc drop column more",
            "insert into t.doc values (3, 'a')",
        ] {
            client.batch_execute(statement).await.unwrap();
        }
        assert_eq!(follower.changes(3).await, ["Insert 1 a", "Insert 2 a c", "Insert 3 a"]);
        // A column that the layout needs: said with table, column and remedy, and mended by adding it.
        client.batch_execute("alter table t.doc rename column body to text").await.unwrap();
        // Whether the first row says so depends on who is first: the log, or a look at the catalogue, which begins a new epoch.
        let rows = async {
            for number in 4.. {
                let row = format!("insert into t.doc values ({number}, 'x')");
                client.batch_execute(&row).await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let status = tokio::select! {
            status = follower.wait("the missing column", |status| status.state.contains("no column body")) => status,
            () = rows => unreachable!("it goes on for ever"),
        };
        assert!(!status.connected);
        follower.stop().await;
    }
}

#[tokio::test]
async fn an_idle_table_holds_no_wal() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        client.batch_execute("insert into t.other select generate_series(1, 10000)").await.unwrap();
        let row = client.query_one("select pg_current_wal_flush_lsn()::text", &[]).await.unwrap();
        let written: String = row.get(0);
        eventually("the acknowledgement of what does not concern us", || async {
            let row = client
                .query_one(
                    "select confirmed_flush_lsn >= $1::text::pg_lsn from pg_replication_slots",
                    &[&written],
                )
                .await
                .unwrap();
            row.get::<_, bool>(0).then_some(())
        })
        .await;
        follower.wait("the acknowledged place", |status| status.acked_lsn >= written.parse().unwrap()).await;
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_feed_that_keeps_us_waiting_does_not_cost_the_connection() {
    for bin in versions() {
        let cluster = Cluster::start_with(&bin, &["wal_sender_timeout = 1500ms"]).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        let pid = "select pid, reply_time > $1::timestamptz + interval '5s' from pg_stat_replication";
        let gate = follower.gate.clone();
        let held = gate.acquire_many(1).await.unwrap();
        let began: std::time::SystemTime =
            client.query_one("select clock_timestamp()", &[]).await.unwrap().get(0);
        // More than the sockets' buffers hold.
        client
            .batch_execute("insert into t.doc select n, repeat('x', 1000) from generate_series(1, 20000) n")
            .await
            .unwrap();
        let before: i32 = client.query_one(pid, &[&began]).await.unwrap().get(0);
        eventually("five seconds of status updates", || async {
            let row = client.query_one(pid, &[&began]).await.unwrap();
            row.get::<_, bool>(1).then_some(())
        })
        .await;
        drop(held);
        follower.changes(20_000).await;
        assert_eq!(client.query_one(pid, &[&began]).await.unwrap().get::<_, i32>(0), before);
        assert_eq!(follower.status.borrow().reconnects, 0);
        follower.stop().await;
    }
}
