//! Slot and publication: made, missing, moved on, made anew.

use crate::support::{Cluster, Follower, Journal, database, eventually, versions};
use cdc::RunError;
use tokio_postgres::Client;

async fn insert(client: &Client, id: i32) {
    client.execute("insert into t.doc values ($1, 'x')", &[&id]).await.unwrap();
}

/// What makes the next run begin a new epoch: done between two runs. `fork`: what was published may be gone.
async fn begins_anew(break_it: &str, fork: bool) {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        insert(&client, 1).await;
        follower.changes(1).await;
        let journal = follower.stop().await;
        eventually("a slot that nobody uses", || async {
            let row = client.query_one("select active from pg_replication_slots", &[]).await.unwrap();
            (!row.get::<_, bool>(0)).then_some(())
        })
        .await;
        for statement in break_it.split(';') {
            client.batch_execute(statement).await.unwrap();
        }
        let mut follower = Follower::resume(database(&cluster.url()), journal);
        follower.connected().await;
        insert(&client, 100).await;
        assert_eq!(follower.changes(2).await.last().unwrap(), "Insert 100 x");
        {
            let journal = follower.journal();
            assert_eq!(journal.epochs.len(), 2, "{break_it}");
            let epoch = &journal.epochs[1];
            assert_eq!(epoch.fork, fork, "{break_it}");
            assert!(epoch.start > journal.epochs[0].start);
            assert!(epoch.since > journal.epochs[0].since);
        }
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_new_slot_begins_a_new_epoch() {
    // It may be missing because the database is a copy from before it was there.
    begins_anew("insert into t.doc values (2, 'missed'); select pg_drop_replication_slot('fhir_tail')", true)
        .await;
}

/// By then there is a slot again, which says nothing of it.
#[tokio::test]
async fn a_fork_is_not_forgotten_when_its_epoch_could_not_be_begun() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        let journal = follower.stop().await;
        eventually("a slot that can be dropped", || async {
            client.batch_execute("select pg_drop_replication_slot('fhir_tail')").await.ok()
        })
        .await;
        journal.lock().unwrap().epoch_errors.push(feed::PublishError::Reopened);
        let mut follower = Follower::resume(database(&cluster.url()), journal);
        follower.connected().await;
        let forks: Vec<_> = follower.journal().epochs.iter().map(|epoch| epoch.fork).collect();
        assert_eq!(forks, [false, true]);
        follower.stop().await;
    }
}

/// As after a kill while the journal's disk is full: the next process finds a slot that has moved on.
#[tokio::test]
async fn a_fork_is_not_forgotten_when_the_process_ends_before_its_epoch() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        let journal = follower.stop().await;
        eventually("a slot that can be dropped", || async {
            client.batch_execute("select pg_drop_replication_slot('fhir_tail')").await.ok()
        })
        .await;
        // More than there will be attempts.
        journal.lock().unwrap().epoch_errors = vec![feed::PublishError::Reopened; 10_000];
        let follower = Follower::resume(database(&cluster.url()), journal);
        eventually("a slot that is whole", || async {
            let made = "select 1 from pg_replication_slots where confirmed_flush_lsn is not null";
            client.query_opt(made, &[]).await.unwrap()
        })
        .await;
        let journal = follower.stop().await;
        journal.lock().unwrap().epoch_errors.clear();
        let mut follower = Follower::resume(database(&cluster.url()), journal);
        follower.connected().await;
        let forks: Vec<_> = follower.journal().epochs.iter().map(|epoch| epoch.fork).collect();
        assert_eq!(forks, [false, true]);
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_slot_that_somebody_else_moved_on_begins_a_new_epoch() {
    begins_anew(
        "insert into t.doc values (2, 'missed'); \
         select pg_replication_slot_advance('fhir_tail', pg_current_wal_flush_lsn())",
        false,
    )
    .await;
}

#[tokio::test]
async fn a_publication_made_anew_begins_a_new_epoch() {
    begins_anew(
        "drop publication docs; insert into t.doc values (2, 'missed'); create publication docs for table t.doc",
        false,
    )
    .await;
}

#[tokio::test]
async fn a_table_made_anew_begins_a_new_epoch() {
    begins_anew(
        "drop table t.doc; create table t.doc (id int primary key, body text); alter publication docs add table t.doc",
        true,
    )
    .await;
}

#[tokio::test]
async fn a_publication_that_was_narrowed_for_a_while_begins_a_new_epoch() {
    begins_anew(
        "alter publication docs set (publish = 'delete'); insert into t.doc values (2, 'missed'); \
         alter publication docs set (publish = 'insert, update, delete, truncate')",
        false,
    )
    .await;
}

#[tokio::test]
async fn a_column_made_anew_begins_a_new_epoch() {
    begins_anew("alter table t.doc drop column body; alter table t.doc add column body text", true).await;
}

#[tokio::test]
async fn a_publication_that_would_lose_changes_is_refused() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        client.batch_execute("alter publication docs set (publish = 'insert')").await.unwrap();
        let status =
            follower.wait("a refusal", |status| status.state.contains("leaves out inserts or updates")).await;
        assert_eq!(status.needs, Some(pg::Retry::Operator), "{status:?}");
        client.batch_execute("alter publication docs set (publish = 'update, insert')").await.unwrap();
        follower.connected().await;
        assert_eq!(follower.journal().epochs.len(), 2);
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_table_that_a_subscription_writes_to_is_refused() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        // Nothing has to come of it: it is in the catalogue.
        client
            .batch_execute(
                "create subscription other connection 'dbname=nowhere' publication p \
                 with (connect = false, slot_name = none)",
            )
            .await
            .unwrap();
        let add = "insert into pg_subscription_rel (srsubid, srrelid, srsubstate) \
                   select s.oid, 't.doc'::regclass, 'r' from pg_subscription s";
        client.batch_execute("set allow_system_table_mods = on").await.unwrap();
        client.batch_execute(add).await.unwrap();
        let status = follower.wait("a refusal", |status| status.state.contains("past the triggers")).await;
        assert!(status.state.contains("alter subscription \"other\" refresh publication"), "{status:?}");
        client.batch_execute("delete from pg_subscription_rel").await.unwrap();
        follower.connected().await;
        follower.stop().await;
    }
}

/// Where standbys keep copies of slots, ours is one of them.
#[tokio::test]
async fn a_slot_is_kept_by_standbys_where_the_server_waits_for_them() {
    for bin in versions() {
        let mut cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let known = "select current_setting('synchronized_standby_slots', true) is not null";
        let known: bool = client.query_one(known, &[]).await.unwrap().get(0);
        if known {
            client.execute("select pg_create_physical_replication_slot('standby')", &[]).await.unwrap();
            client.batch_execute("alter system set synchronized_standby_slots = 'standby'").await.unwrap();
            drop(client);
            cluster.stop(crate::support::Stop::Fast).await;
            cluster.run().await;
        }
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        // Earlier versions have no such column.
        let kept = "select coalesce((to_jsonb(s) ->> 'failover')::bool, false) from pg_replication_slots s \
                    where slot_name = 'fhir_tail'";
        let kept: bool = cluster.client().await.query_one(kept, &[]).await.unwrap().get(0);
        assert_eq!(kept, known);
        follower.stop().await;
    }
}

#[tokio::test]
async fn who_finds_the_slot_taken_serves_nobody_until_it_is_free() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut first = Follower::new(database(&cluster.url()));
        first.connected().await;
        let mut second = Follower::new(database(&cluster.url()));
        second.wait("another", |status| status.state.contains("another process reads")).await;
        assert!(second.journal().epochs.is_empty() && !second.journal().leads);
        assert!(first.journal().leads);
        insert(&client, 1).await;
        first.changes(1).await;
        first.stop().await;
        second.connected().await;
        assert!(second.journal().leads);
        insert(&client, 2).await;
        assert_eq!(second.changes(1).await, ["Insert 2 x"]);
        second.stop().await;
    }
}

#[tokio::test]
async fn a_publication_made_anew_while_it_is_followed_is_noticed() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        client.batch_execute("drop publication docs").await.unwrap();
        client.batch_execute("create publication docs for table t.doc").await.unwrap();
        eventually("a new epoch", || async { (follower.journal().epochs.len() == 2).then_some(()) }).await;
        follower.connected().await;
        insert(&client, 7).await;
        assert_eq!(follower.changes(1).await, ["Insert 7 x"]);
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_journal_of_another_cluster_is_refused() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        let journal = follower.stop().await;
        journal.lock().unwrap().epochs[0].origin.system += 1;
        let error = Follower::resume(database(&cluster.url()), journal).given_up().await;
        assert!(matches!(error, RunError::OtherSystem { .. }));
    }
}

#[tokio::test]
async fn a_database_that_stands_before_the_journal_is_a_fork() {
    // As if there had been more than this copy of the database has: a change, or log without one.
    let more: [fn(&mut Journal); 2] = [
        |journal| journal.changes[0].position.commit_lsn = feed::Lsn::MAX,
        |journal| journal.passed = feed::Lsn::MAX,
    ];
    for (bin, more) in versions().into_iter().flat_map(|bin| more.map(|more| (bin.clone(), more))) {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        insert(&client, 1).await;
        follower.changes(1).await;
        let journal = follower.stop().await;
        more(&mut journal.lock().unwrap());
        let mut follower = Follower::resume(database(&cluster.url()), journal);
        follower.connected().await;
        let forks: Vec<_> = follower.journal().epochs.iter().map(|epoch| epoch.fork).collect();
        assert_eq!(forks, [false, true]);
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_new_timeline_is_a_fork_only_where_history_says_so() {
    for bin in versions() {
        let mut cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower.connected().await;
        insert(&client, 1).await;
        follower.changes(1).await;
        let journal = follower.stop().await;
        drop(client);
        // The server becomes its own standby and is promoted: its history is the same.
        cluster.stop(crate::support::Stop::Fast).await;
        cluster.install("standby.signal", "");
        cluster.run_as_standby().await;
        cluster.promote().await;
        let mut follower = Follower::resume(database(&cluster.url()), journal);
        follower.connected().await;
        {
            let journal = follower.journal();
            let timelines: Vec<_> = journal.epochs.iter().map(|epoch| epoch.origin.timeline).collect();
            assert_eq!(timelines, [1, 2]);
            assert!(!journal.epochs[1].fork);
        }
        let client = cluster.client().await;
        insert(&client, 2).await;
        assert_eq!(follower.changes(2).await, ["Insert 1 x", "Insert 2 x"]);
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_standby_is_named_and_followed_once_it_is_promoted() {
    for bin in versions() {
        let mut cluster = Cluster::start(&bin).await;
        cluster.stop(crate::support::Stop::Fast).await;
        cluster.install("standby.signal", "");
        cluster.run_as_standby().await;
        let mut follower = Follower::new(database(&cluster.url()));
        follower
            .wait("a refusal", |status| !status.connected && status.state.contains("the server is a standby"))
            .await;
        assert!(!follower.journal().leads);
        cluster.promote().await;
        follower.connected().await;
        insert(&cluster.client().await, 1).await;
        assert_eq!(follower.changes(1).await, ["Insert 1 x"]);
        follower.stop().await;
    }
}

#[tokio::test]
async fn the_making_of_a_slot_waits_for_open_transactions() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let (client, holder) = (cluster.client().await, cluster.client().await);
        holder.batch_execute("begin; insert into t.doc values (1, 'before')").await.unwrap();
        let mut follower = Follower::new(database(&cluster.url()));
        eventually("a slot that is being made", || async {
            let row = client.query_opt("select 1 from pg_replication_slots", &[]).await.unwrap();
            row.map(drop)
        })
        .await;
        assert!(!follower.status.borrow().connected);
        holder.batch_execute("commit").await.unwrap();
        follower.connected().await;
        insert(&client, 2).await;
        assert_eq!(follower.changes(1).await, ["Insert 2 x"]);
        follower.stop().await;
    }
}

#[tokio::test]
async fn what_somebody_has_to_mend_is_said_and_gone_on_from() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        client
            .batch_execute(
                "create role bob login; grant usage on schema t to bob; grant select on t.doc to bob",
            )
            .await
            .unwrap();
        let url = cluster.url().replace("ann", "bob");
        let mut follower = Follower::new(database(&url));
        let mut said = async |what: &str, mended: &str| {
            let status = follower.wait(what, |status| status.state.contains(what)).await;
            assert_eq!(status.needs, Some(pg::Retry::Operator), "{status:?}");
            client.batch_execute(mended).await.unwrap();
        };
        said("alter role … replication", "alter role bob replication").await;
        said("create publication \"docs\" for table \"t\".\"doc\";", "create publication docs").await;
        said("alter publication \"docs\" add table \"t\".\"doc\";", "alter publication docs add table t.doc")
            .await;
        follower.connected().await;
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_slot_of_another_kind_is_left_alone() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        client
            .execute("select pg_create_logical_replication_slot('fhir_tail', 'test_decoding')", &[])
            .await
            .ok();
        if client.query_opt("select 1 from pg_replication_slots", &[]).await.unwrap().is_none() {
            // Without the contrib modules a physical one.
            client.execute("select pg_create_physical_replication_slot('fhir_tail')", &[]).await.unwrap();
        }
        let mut follower = Follower::new(database(&cluster.url()));
        follower.wait("a refusal", |status| status.state.contains("choose another name")).await;
        follower.stop().await;
    }
}

#[tokio::test]
async fn a_slot_that_holds_too_much_is_given_up_for_the_databases_sake() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let mut follower = Follower::without_sync_and_with_at_most(1 << 20, database(&cluster.url()));
        follower.connected().await;
        insert(&client, 1).await;
        follower.changes(1).await;
        let filler = "select pg_logical_emit_message(false, 'filler', repeat('x', 3000000))";
        client.batch_execute(filler).await.unwrap();
        eventually("a new epoch", || async { (follower.journal().epochs.len() > 1).then_some(()) }).await;
        follower.connected().await;
        let held = "select pg_current_wal_flush_lsn() - restart_lsn < 1048576 from pg_replication_slots";
        assert!(
            client.query_one(held, &[]).await.unwrap().get::<_, bool>(0),
            "the new slot holds nothing old"
        );
        assert!(!follower.journal().epochs[1].fork, "it was us who dropped it");
        insert(&client, 2).await;
        assert_eq!(follower.changes(2).await.last().unwrap(), "Insert 2 x");
        follower.stop().await;
    }
}
