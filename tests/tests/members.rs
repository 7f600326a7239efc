//! Streams of one patient, and of the members of a Group who come and go.

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use tests::tail::{Tail, files};
use tests::{Case, Client, Context, Cut, Ended, Reader, SOON, Site, Subscribe, What, cases, http, seed};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each one_patient_and_what_leaves_him,
        each a_group_whose_members_come_and_go,
        once a_group_that_grows_takes_nothing_back,
        once a_member_for_a_while,
        once a_group_that_is_not_there_any_more,
        once a_download_of_a_group,
        once random_members_and_crashes,
    ]
}

pub(crate) fn group(id: &str, query: &str) -> Subscribe {
    Subscribe { path: format!("/fhir/Group/{id}/$export"), ..Subscribe::with(Client::Raw, query) }
}

fn patient(id: &str, client: Client) -> Subscribe {
    Subscribe { path: format!("/fhir/Patient/{id}/$export"), ..Subscribe::all(client) }
}

pub(crate) async fn note(site: &Site, id: &str, whose: &str) -> Result<()> {
    let sql = format!(
        r#"select fhir.put('Basic', '{id}', '{{"resourceType":"Basic","subject":{{"reference":"Patient/{whose}"}}}}')"#
    );
    Ok(site.sql.batch_execute(&sql).await?)
}

pub(crate) async fn put_group(site: &Site, id: &str, members: &[&str]) -> Result<()> {
    let member = |reference: &&str| format!(r#"{{"entity":{{"reference":"{reference}"}}}}"#);
    let members = members.iter().map(member).collect::<Vec<_>>().join(",");
    let sql = format!(
        r#"select fhir.put('Group', '{id}', '{{"resourceType":"Group","type":"person","actual":true,"member":[{members}]}}')"#
    );
    Ok(site.sql.batch_execute(&sql).await?)
}

/// What the client has: the version of each resource that was not taken back.
pub(crate) fn copy(reader: &Reader) -> BTreeMap<String, i64> {
    let mut copy = BTreeMap::new();
    for heard in &reader.heard {
        match &heard.what {
            What::Resource { key, version, .. } => {
                copy.insert(key.to_string(), *version);
            }
            What::Deletion { key, .. } => {
                copy.remove(&key.to_string());
            }
            What::Notice { code, .. } if code == "reset-all" => copy.clear(),
            What::Notice { .. } => {}
        }
    }
    copy
}

fn has(reader: &Reader, keys: &[&str]) -> bool {
    copy(reader).keys().map(String::as_str).collect::<Vec<_>>() == keys
}

async fn one_patient_and_what_leaves_him(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    for id in ["ann", "bob"] {
        site.put("Patient", id).await?;
    }
    note(&site, "n1", "ann").await?;
    note(&site, "n2", "bob").await?;
    site.ready().await?;
    for client in [Client::Raw, Client::EventSource] {
        note(&site, "n1", "ann").await?;
        let mut ann = site.live(patient("ann", client)).await?;
        ensure!(has(&ann, &["Basic/n1", "Patient/ann"]), "{}", ann.tail());
        note(&site, "n1", "bob").await?;
        ann.hear("what left", SOON, |ann| has(ann, &["Patient/ann"])).await?;
        note(&site, "n3", "ann").await?;
        ann.hear("what came", SOON, |ann| has(ann, &["Basic/n3", "Patient/ann"])).await?;
        // While nobody listens, and the service crashes.
        ann.cut();
        note(&site, "n3", "bob").await?;
        note(&site, "n4", "ann").await?;
        site.server.kill().await?;
        note(&site, "n5", "ann").await?;
        site.server.start().await?;
        site.ready().await?;
        let at = site.server.listening()?;
        let ended = ann.read(at, Cut::Never, |ann| has(ann, &["Basic/n4", "Basic/n5", "Patient/ann"])).await;
        ensure!(ended == Ended::Done, "{ended:?}: {}", ann.tail());
        ensure!(!ann.noticed("reset") && !ann.noticed("reset-all"), "{}", ann.tail());
        ensure!(ann.about("n2").count() == 0 && ann.about("bob").count() == 0, "{}", ann.tail());
        site.sql.batch_execute("delete from fhir.resource where id in ('n4', 'n5')").await?;
        ann.hear("the deletions", SOON, |ann| has(ann, &["Patient/ann"])).await?;
    }
    // Who was not there before the client came is refused; who is gone since is told of.
    let at = site.server.listening()?;
    let asks = "Prefer: respond-eventsource\r\n";
    ensure!(http::get(at, "/fhir/Patient/nobody/$export", asks).await?.status == 404);
    let mut bob = site.live(patient("bob", Client::Raw)).await?;
    bob.cut();
    site.delete("Patient", "bob").await?;
    let gone = |bob: &Reader| !copy(bob).contains_key("Patient/bob");
    ensure!(bob.read(at, Cut::Never, gone).await == Ended::Done, "{}", bob.tail());
    Ok(())
}

async fn a_group_whose_members_come_and_go(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    for id in ["ann", "bob", "cyd", "dan"] {
        site.put("Patient", id).await?;
        note(&site, &format!("n-{id}"), id).await?;
    }
    note(&site, "n2-bob", "bob").await?;
    put_group(&site, "others", &["Patient/ann", "Patient/dan"]).await?;
    put_group(&site, "payer", &["Patient/ann", "Patient/cyd"]).await?;
    site.ready().await?;
    let query = "_type=Basic,Group";
    let mut payer = site.live(group("payer", query)).await?;
    let mut away = site.live(group("payer", query)).await?;
    away.cut();
    ensure!(has(&payer, &["Basic/n-ann", "Basic/n-cyd", "Group/payer"]), "{}", payer.tail());

    put_group(&site, "payer", &["Patient/ann", "Patient/cyd", "Patient/bob"]).await?;
    let all = ["Basic/n-ann", "Basic/n-bob", "Basic/n-cyd", "Basic/n2-bob", "Group/payer"];
    payer.hear("who joins", SOON, |payer| has(payer, &all) && payer.noticed("members")).await?;
    // The same members in another order mean nothing, but the Group is sent.
    put_group(&site, "payer", &["Patient/bob", "Patient/ann", "Patient/cyd"]).await?;
    note(&site, "n-cyd", "cyd").await?;
    payer.hear("a change", SOON, |payer| payer.about("n-cyd").count() == 2).await?;
    ensure!(payer.notices("members").count() == 1, "{}", payer.tail());

    put_group(&site, "payer", &["Patient/ann", "Patient/cyd", "Group/more"]).await?;
    payer
        .hear("who leaves", SOON, |payer| has(payer, &["Basic/n-ann", "Basic/n-cyd", "Group/payer"]))
        .await?;
    // Silent from then on; and a Group within it that comes to be.
    note(&site, "n-bob", "bob").await?;
    put_group(&site, "more", &["Patient/dan"]).await?;
    let with_dan = ["Basic/n-ann", "Basic/n-cyd", "Basic/n-dan", "Group/payer"];
    payer.hear("who joins by another", SOON, |payer| has(payer, &with_dan)).await?;
    // It may be taken back twice; what it holds now is not for this client.
    let sent = payer.about("n-bob").filter(|what| matches!(what, What::Resource { .. })).count();
    ensure!(sent == 1, "{}", payer.tail());

    // Who was away, across a crash.
    site.server.kill().await?;
    put_group(&site, "more", &["Patient/bob"]).await?;
    site.server.start().await?;
    site.ready().await?;
    let at = site.server.listening()?;
    let with_bob = ["Basic/n-ann", "Basic/n-bob", "Basic/n-cyd", "Basic/n2-bob", "Group/payer"];
    for reader in [&mut payer, &mut away] {
        let ended = reader.read(at, Cut::Never, |reader| has(reader, &with_bob)).await;
        ensure!(ended == Ended::Done, "{ended:?}: {}", reader.tail());
        ensure!(!reader.noticed("reset-all"), "{}", reader.tail());
    }
    // Most of them leave: everything anew.
    put_group(&site, "payer", &["Patient/cyd"]).await?;
    let anew = |payer: &Reader| payer.noticed("reset-all") && has(payer, &["Basic/n-cyd", "Group/payer"]);
    payer.hear("everything anew", SOON, anew).await?;
    Ok(())
}

/// Who comes has left nobody: however many they are, nothing is taken back, and nothing begins anew.
async fn a_group_that_grows_takes_nothing_back(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    for id in PATIENTS {
        site.put("Patient", id).await?;
    }
    put_group(&site, "g", &["Patient/a"]).await?;
    site.ready().await?;
    let mut reader = site.live(group("g", "_type=Patient")).await?;
    let all = PATIENTS.map(|id| format!("Patient/{id}"));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    put_group(&site, "g", &all).await?;
    reader.hear("who joins", SOON, |reader| has(reader, &all) && reader.noticed("members")).await?;
    let taken_back = reader.heard.iter().any(|heard| matches!(heard.what, What::Deletion { .. }));
    ensure!(!taken_back && !reader.noticed("reset-all"), "{}", reader.tail());
    Ok(())
}

/// Nobody writes anything when the period ends.
async fn a_member_for_a_while(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    for id in ["ann", "bob"] {
        site.put("Patient", id).await?;
    }
    site.ready().await?;
    let sql = r#"select fhir.put('Group', 'g', format('{"resourceType":"Group","type":"person","actual":true,"member":[
        {"entity":{"reference":"Patient/ann"}},
        {"entity":{"reference":"Patient/bob"},"period":{"start":"%s","end":"%s"}}]}',
        to_char(clock_timestamp() at time zone 'UTC' + interval '4 s', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        to_char(clock_timestamp() at time zone 'UTC' + interval '8 s', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))::json)"#;
    site.sql.batch_execute(sql).await?;
    let mut reader = site.live(group("g", "_type=Patient")).await?;
    ensure!(has(&reader, &["Patient/ann"]), "{}", reader.tail());
    reader.hear("who has begun", SOON, |reader| has(reader, &["Patient/ann", "Patient/bob"])).await?;
    reader.hear("who has ended", SOON, |reader| has(reader, &["Patient/ann"])).await?;
    Ok(())
}

async fn a_group_that_is_not_there_any_more(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.put("Patient", "ann").await?;
    put_group(&site, "g", &["Patient/ann"]).await?;
    site.ready().await?;
    let mut reader = site.live(group("g", "")).await?;
    site.delete("Group", "g").await?;
    reader.hear("the end", SOON, |reader| reader.noticed("end")).await?;
    ensure!(copy(&reader).contains_key("Patient/ann"), "{}", reader.tail());
    let at = site.server.listening()?;
    let ask = |target: &'static str| http::get(at, target, "Prefer: respond-eventsource\r\n");
    ensure!(ask("/fhir/Group/g/$export").await?.status == 404);
    // With its id, too; and when the Group is there again it does not end at the same place for ever.
    let id = reader.last_id.clone().context("no id")?;
    let asks = format!("Prefer: respond-eventsource\r\nLast-Event-ID: {id}\r\n");
    ensure!(http::get(at, "/fhir/Group/g/$export", &asks).await?.status == 404);
    site.put("Patient", "bob").await?;
    put_group(&site, "g", &["Patient/bob"]).await?;
    let again = |reader: &Reader| has(reader, &["Group/g", "Patient/bob"]);
    // The stream may end once more while the feed has not come to the commit.
    reader.hear_on(|| Some(at), "the Group again", SOON, again).await?;
    ensure!(reader.noticed("reset-all"), "{}", reader.tail());
    let devices =
        r#"select fhir.put('Group', 'd', '{"resourceType":"Group","type":"device","actual":true}')"#;
    site.sql.batch_execute(devices).await?;
    let refused = ask("/fhir/Group/d/$export").await?;
    ensure!(refused.status == 422, "{}", refused.status);
    // Nobody in it is nobody, and not everybody.
    put_group(&site, "empty", &[]).await?;
    let empty = site.live(group("empty", "_type=Patient")).await?;
    ensure!(copy(&empty).is_empty(), "{}", empty.tail());
    Ok(())
}

async fn a_download_of_a_group(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    for id in ["ann", "bob"] {
        site.put("Patient", id).await?;
        note(&site, &format!("n-{id}"), id).await?;
    }
    put_group(&site, "payer", &["Patient/ann"]).await?;
    site.ready().await?;
    let url = format!("http://{}/fhir", site.server.listening()?);
    let output = context.directory().join("payer");
    let options = ["--group", "payer", "--output", &output.display().to_string(), "--until-live"];
    let mut tail = Tail::new(context.directory(), &url, &options)?;
    tail.start()?;
    let ended = tail.exited(SOON).await?;
    ensure!(ended.success(), "{ended}: {}", tail.log()?);
    let written = files(&output)?;
    let keys = written.values().flatten().filter_map(|what| what.key().map(ToString::to_string));
    let keys: BTreeSet<_> = keys.collect();
    let wanted = ["Basic/n-ann", "Group/payer", "Patient/ann"].map(str::to_owned);
    ensure!(keys == BTreeSet::from(wanted), "{keys:?}");
    Ok(())
}

const PATIENTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// What the tables have of a Group's members.
pub(crate) async fn in_tables(site: &Site) -> Result<BTreeMap<String, i64>> {
    let sql = "with recursive tree(id) as (select 'g' union
            select split_part(m #>> '{entity,reference}', '/', 2) from tree join fhir.resource r
                on r.resource_type = 'Group' and r.id = tree.id, json_array_elements(r.content -> 'member') m
             where m #>> '{entity,reference}' like 'Group/%'),
        members as (select m #>> '{entity,reference}' as reference from tree join fhir.resource r
                on r.resource_type = 'Group' and r.id = tree.id, json_array_elements(r.content -> 'member') m)
        select resource_type || '/' || id, version_id from fhir.resource r
         where exists (select from members where reference = r.content #>> '{subject,reference}'
                           or reference = resource_type || '/' || id) and resource_type in ('Patient', 'Basic')";
    let rows = site.sql.query(sql, &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

async fn random_members_and_crashes(context: Context) -> Result<()> {
    let seed = seed()?;
    let mut random = Rng::with_seed(seed);
    let mut site = Site::start(&context).await?;
    for id in PATIENTS {
        site.put("Patient", id).await?;
    }
    put_group(&site, "g", &["Patient/a", "Patient/b", "Patient/c"]).await?;
    site.ready().await?;
    let mut readers = Vec::new();
    for _ in 0..6 {
        readers.push(Reader::new(group("g", "_type=Patient,Basic")));
    }
    for step in 0..400 {
        let mut some = |most: usize| -> Vec<String> {
            let mut chosen: BTreeSet<_> = (0..most).map(|_| PATIENTS[random.usize(..6)]).collect();
            chosen.insert(PATIENTS[step % 2]);
            chosen.into_iter().map(|id| format!("Patient/{id}")).collect()
        };
        let (members, nested) = (some(4), some(2));
        match random.u8(..20) {
            0..9 => note(&site, &random.u8(..12).to_string(), PATIENTS[random.usize(..6)]).await?,
            9..11 => site.delete("Basic", &random.u8(..12).to_string()).await?,
            11..13 => {
                let mut members: Vec<_> = members.iter().map(String::as_str).collect();
                if random.bool() {
                    members.push("Group/h");
                }
                put_group(&site, "g", &members).await?;
            }
            13 => put_group(&site, "h", &nested.iter().map(String::as_str).collect::<Vec<_>>()).await?,
            14..19 => {
                let reader = &mut readers[random.usize(..6)];
                let events = random.u64(1..12);
                let at = site.server.listening()?;
                let read = reader.read(at, Cut::Events(events), |_| false);
                // There may be nothing to come.
                let _ =
                    tokio::time::timeout(std::time::Duration::from_millis(random.u64(1..300)), read).await;
                if random.bool() {
                    reader.cut();
                }
            }
            _ if step % 5 == 0 => {
                readers.iter_mut().for_each(Reader::cut);
                site.server.kill().await?;
                site.server.start().await?;
                site.ready().await?;
            }
            _ => {}
        }
    }
    let at = site.server.listening()?;
    let wanted = in_tables(&site).await.context("the tables' own answer")?;
    for reader in &mut readers {
        let done = |reader: &Reader| reader.noticed("live") && copy(reader) == wanted;
        let ended = tokio::time::timeout(SOON, reader.read(at, Cut::Never, done)).await;
        ensure!(
            matches!(ended, Ok(Ended::Done)),
            "seed {seed}: {ended:?}: has {:?} and not {wanted:?}: {}",
            copy(reader),
            reader.tail()
        );
        no_version_twice(reader).with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

/// A version comes once, unless it was taken back; and never an older one.
pub(crate) fn no_version_twice(reader: &Reader) -> Result<()> {
    let mut held = BTreeMap::new();
    for heard in &reader.heard {
        match &heard.what {
            What::Resource { key, version, .. } => {
                let before = held.insert(key.to_string(), *version);
                ensure!(
                    before.is_none_or(|before| before < *version),
                    "{key}: {version} after {before:?}: {}",
                    reader.tail()
                );
            }
            What::Deletion { key, .. } => {
                held.remove(&key.to_string());
            }
            What::Notice { code, .. } if code == "reset-all" => held.clear(),
            What::Notice { .. } => {}
        }
    }
    Ok(())
}
