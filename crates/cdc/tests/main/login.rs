//! Ways in: sockets, passwords, TLS. Both connections have to find each.

use crate::support::{Cluster, Follower, database, versions};
use pg::{Database, Retry};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::path::Path;

/// Lets the role in by TCP in this way only, and everybody by the Unix socket.
async fn allow(cluster: &Cluster, lines: &str) {
    cluster.install("pg_hba.conf", &format!("local all all trust\n{lines}\n"));
    cluster.client().await.batch_execute("select pg_reload_conf()").await.unwrap();
}

/// Follows, and says whether the walsender's connection was encrypted.
async fn follows(cluster: &Cluster, url: &str) -> bool {
    let mut follower = Follower::new(database(url));
    follower.connected().await;
    let row = cluster
        .client()
        .await
        .query_one("select ssl from pg_stat_ssl join pg_stat_replication using (pid)", &[])
        .await
        .unwrap();
    follower.stop().await;
    row.get(0)
}

/// Does not get in by either connection, and says what to do.
async fn refused(url: &str, what: &str) {
    let mut follower = Follower::new(database(url));
    let status = follower.wait(what, |status| status.state.contains(what)).await;
    assert_eq!(status.needs, Some(Retry::Operator), "{status:?}");
    assert!(!status.state.contains("secret"), "{status:?}");
    follower.stop().await;
}

#[tokio::test]
async fn by_password() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let client = cluster.client().await;
        let url = |password: &str| format!("postgres://ann:{password}@127.0.0.1:{}/postgres", cluster.port);
        assert!(!follows(&cluster, &cluster.url()).await);
        assert!(!follows(&cluster, &url("any")).await);
        for (method, encryption) in
            [("scram-sha-256", "scram-sha-256"), ("md5", "md5"), ("md5", "scram-sha-256")]
        {
            client
                .batch_execute(&format!(
                    "set password_encryption = '{encryption}'; alter role ann password 'secret p@ss'"
                ))
                .await
                .unwrap();
            allow(
                &cluster,
                &format!("host all all 127.0.0.1/32 {method}\nhost replication all 127.0.0.1/32 {method}"),
            )
            .await;
            assert!(!follows(&cluster, &url("secret%20p%40ss")).await);
            refused(&url("secret2"), "password authentication failed").await;
        }
        refused(&format!("postgres://ann@127.0.0.1:{}/postgres", cluster.port), "password missing").await;
    }
}

/// Certificates for a server, in PEM.
struct Certificates {
    authority: String,
    /// Signed by the authority, for `localhost`.
    server: (String, String),
    /// Signed by the authority, for the role `ann`.
    client: (String, String),
    /// Signed by itself and marked as an authority, as `openssl req -x509` makes them.
    own: (String, String),
}

fn certificates() -> Certificates {
    let ca = || {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let authority_key = KeyPair::generate().unwrap();
    let authority = ca().self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(ca(), authority_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = params.signed_by(&key, &issuer).unwrap();
    let client_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "ann");
    let client = params.signed_by(&client_key, &issuer).unwrap();
    let own_key = KeyPair::generate().unwrap();
    let own = ca().self_signed(&own_key).unwrap();
    Certificates {
        authority: authority.pem(),
        server: (server.pem(), key.serialize_pem()),
        client: (client.pem(), client_key.serialize_pem()),
        own: (own.pem(), own_key.serialize_pem()),
    }
}

async fn present(cluster: &Cluster, (certificate, key): &(String, String)) {
    cluster.install("server.crt", certificate);
    cluster.install("server.key", key);
    let client = cluster.client().await;
    client.batch_execute("alter system set ssl = on").await.unwrap();
    client.batch_execute("select pg_reload_conf()").await.unwrap();
}

/// Waits until new connections are as the reloaded configuration says.
async fn settled(cluster: &Cluster, mode: &str) {
    let url = format!("postgres://ann@localhost:{}/postgres?sslmode={mode}", cluster.port);
    crate::support::eventually("TLS", || async { database(&url).connect("test").await.ok().map(drop) }).await;
}

#[tokio::test]
async fn by_tls() {
    for bin in versions() {
        if !has_tls(&bin) {
            continue;
        }
        let cluster = Cluster::start(&bin).await;
        let directory = tempfile::tempdir().unwrap();
        let certificates = certificates();
        let file = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let authority = file("authority.crt", &certificates.authority);
        let own = file("own.crt", &certificates.own.0);
        let url = |host: &str, parameters: &str| {
            format!("postgres://ann:secret@{host}:{}/postgres?{parameters}", cluster.port)
        };

        assert!(!follows(&cluster, &url("localhost", "sslmode=prefer")).await);
        refused(&url("localhost", "sslmode=require"), "TLS").await;

        present(&cluster, &certificates.server).await;
        settled(&cluster, "require").await;
        assert!(!follows(&cluster, &url("localhost", "sslmode=disable")).await);
        for parameters in [
            "sslmode=prefer".to_owned(),
            "sslmode=require".to_owned(),
            format!("sslmode=require&sslrootcert={authority}"),
            format!("sslmode=verify-ca&sslrootcert={authority}"),
            format!("sslmode=verify-full&sslrootcert={authority}"),
        ] {
            assert!(follows(&cluster, &url("localhost", &parameters)).await, "{parameters}");
        }
        // The certificate is for another name: only verify-full minds.
        assert!(
            follows(&cluster, &url("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={authority}"))).await
        );
        refused(&url("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={authority}")), "certificate")
            .await;
        // Another authority: whoever verifies minds, `require` too once it has a root.
        for mode in ["require", "verify-ca", "verify-full"] {
            refused(&url("localhost", &format!("sslmode={mode}&sslrootcert={own}")), "certificate").await;
        }

        // SCRAM over TLS is bound to the channel.
        let client = cluster.client().await;
        client.batch_execute("alter role ann password 'secret'").await.unwrap();
        allow(&cluster, "hostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256")
            .await;
        crate::support::eventually("the new rules", || async {
            database(&url("localhost", "sslmode=disable")).connect("test").await.err().map(drop)
        })
        .await;
        assert!(follows(&cluster, &url("localhost", "sslmode=require&channel_binding=require")).await);
        assert!(follows(&cluster, &url("localhost", "sslmode=require&channel_binding=disable")).await);
        assert!(follows(&cluster, &url("localhost", "sslmode=prefer")).await);
        refused(&url("localhost", "sslmode=disable"), "no pg_hba.conf entry").await;

        // Only without TLS is allowed: `prefer` finds that way too.
        allow(
            &cluster,
            "hostnossl all all 127.0.0.1/32 scram-sha-256\nhostnossl all all ::1/128 scram-sha-256",
        )
        .await;
        crate::support::eventually("the new rules", || async {
            database(&url("localhost", "sslmode=require")).connect("test").await.err().map(drop)
        })
        .await;
        assert!(!follows(&cluster, &url("localhost", "sslmode=prefer")).await);

        // A certificate that signed itself, given as the root.
        allow(&cluster, "host all all 127.0.0.1/32 trust\nhost all all ::1/128 trust").await;
        present(&cluster, &certificates.own).await;
        let own_url = url("localhost", &format!("sslmode=verify-full&sslrootcert={own}"));
        crate::support::eventually("the other certificate", || async {
            database(&own_url).connect("test").await.ok().map(drop)
        })
        .await;
        assert!(follows(&cluster, &own_url).await);
        refused(&url("localhost", &format!("sslmode=verify-ca&sslrootcert={authority}")), "certificate")
            .await;
    }
}

#[tokio::test]
async fn by_client_certificate() {
    use std::os::unix::fs::PermissionsExt;
    for bin in versions() {
        if !has_tls(&bin) {
            continue;
        }
        let cluster = Cluster::start(&bin).await;
        let directory = tempfile::tempdir().unwrap();
        let certificates = certificates();
        let file = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path.display().to_string()
        };
        let authority = file("authority.crt", &certificates.authority);
        let (certificate, key) =
            (file("client.crt", &certificates.client.0), file("client.key", &certificates.client.1));
        cluster.install("authority.crt", &certificates.authority);
        let client = cluster.client().await;
        client.batch_execute("alter system set ssl_ca_file = 'authority.crt'").await.unwrap();
        present(&cluster, &certificates.server).await;
        settled(&cluster, "require").await;
        allow(&cluster, "hostssl all all 127.0.0.1/32 cert\nhostssl all all ::1/128 cert").await;
        let url = |user: &str, parameters: &str| {
            format!(
                "postgres://{user}@localhost:{}/postgres?sslrootcert={authority}&{parameters}",
                cluster.port
            )
        };
        let shown = format!("sslcert={certificate}&sslkey={key}");
        crate::support::eventually("the new rules", || async {
            database(&url("ann", "sslmode=verify-full")).connect("test").await.err().map(drop)
        })
        .await;
        for mode in
            ["require", "verify-full", "verify-full&ssl_min_protocol_version=TLSv1.3", "prefer", "allow"]
        {
            let parameters = format!("{shown}&sslmode={mode}&sslsni=0");
            assert!(follows(&cluster, &url("ann", &parameters)).await, "{mode}");
        }
        // TLS 1.2 asks for it at another point.
        assert!(
            follows(
                &cluster,
                &url("ann", &format!("{shown}&sslmode=require&ssl_max_protocol_version=TLSv1.2"))
            )
            .await
        );
        refused(&url("ann", "sslmode=verify-full"), "certificate").await;
        refused(&url("ann", &format!("{shown}&sslmode=require&sslcertmode=disable")), "certificate").await;
        refused(&url("postgres", &format!("{shown}&sslmode=require")), "certificate authentication failed")
            .await;
    }
}

#[tokio::test]
async fn the_server_at_a_socket_runs_as_whom_it_has_to() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        let url = |user: &str| format!("{}?requirepeer={user}", cluster.url());
        let owner = std::fs::metadata(cluster.directory.path().join("data")).unwrap();
        let owner = nix::unistd::Uid::from_raw(std::os::unix::fs::MetadataExt::uid(&owner));
        let owner = nix::unistd::User::from_uid(owner).unwrap().unwrap().name;
        assert!(!follows(&cluster, &url(&owner)).await);
        let error = database(&url("somebody")).connect("test").await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("requirepeer") && cause.contains("somebody"), "{cause}");
    }
}

/// Whether the server was built with TLS.
fn has_tls(bin: &Path) -> bool {
    let output = std::process::Command::new(bin.join("pg_config")).arg("--configure").output();
    output.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        text.contains("--with-openssl") || text.contains("--with-ssl=openssl")
    })
}

#[tokio::test]
async fn the_primary_is_found_among_the_hosts() {
    for bin in versions() {
        let cluster = Cluster::start(&bin).await;
        // A host where nobody listens is passed over.
        let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let url = format!("postgres://ann@127.0.0.1:{nobody},{}/postgres", cluster.unix());
        assert!(!follows(&cluster, &url).await);
        let error: Database = database(&format!("postgres://ann@127.0.0.1:{nobody}/postgres"));
        let error = error.connect("test").await.unwrap_err();
        assert_eq!((error.retry(), error.sql_state()), (Retry::Backoff, None));
        assert!(error.to_string().contains(&format!("postgres://ann@127.0.0.1:{nobody}/postgres")));
    }
}
