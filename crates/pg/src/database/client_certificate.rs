//! The certificate by which we show who we are, and its key:
//! <https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-CLIENTCERT>.

use super::InvalidDatabaseUrl;
use super::settings::{Environment, home};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A chain of certificates, ours first, and the key.
pub(super) type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

const CERTIFICATE: &str = ".postgresql/postgresql.crt";
const KEY: &str = ".postgresql/postgresql.key";

fn invalid(message: String) -> InvalidDatabaseUrl {
    InvalidDatabaseUrl(message)
}

/// Reads both; `None` if none is named and none lies where libpq looks.
pub(super) fn read(
    certificate: Option<&Path>,
    key: Option<&str>,
    environment: Environment<'_>,
) -> Result<Option<ClientCertificate>, InvalidDatabaseUrl> {
    let certificate = match certificate {
        Some(path) => path.to_owned(),
        None => match home(environment, CERTIFICATE).filter(|path| path.exists()) {
            Some(path) => path,
            None => return Ok(None),
        },
    };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(&certificate).and_then(Iterator::collect).map_err(|error| {
            invalid(format!(
                "the client certificate {} (sslcert) cannot be read: {error}",
                certificate.display()
            ))
        })?;
    if chain.is_empty() {
        return Err(invalid(format!("{} (sslcert) holds no certificate in PEM form", certificate.display())));
    }
    if key.is_some_and(|key| key.contains(':') && !key.starts_with('/')) {
        return Err(invalid(
            "sslkey cannot name a key of an OpenSSL engine: give it the path of a file".to_owned(),
        ));
    }
    let key = key.map(PathBuf::from).or_else(|| home(environment, KEY)).ok_or_else(|| {
        invalid("there is a client certificate (sslcert), but no key to it: set sslkey".to_owned())
    })?;
    Ok(Some((chain, read_key(&key)?)))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, InvalidDatabaseUrl> {
    let shown = path.display();
    let cannot = |error: &dyn std::fmt::Display| {
        invalid(format!("the key {shown} of the client certificate (sslkey) cannot be read: {error}"))
    };
    let metadata = std::fs::metadata(path).map_err(|error| cannot(&error))?;
    if !metadata.is_file() {
        return Err(cannot(&"it is not a file"));
    }
    // As libpq: a key of root's may be read by its group.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(invalid(format!(
            "the key {shown} (sslkey) can be read by others: set its mode to 0600, or to 0640 if root owns it"
        )));
    }
    let text = std::fs::read(path).map_err(|error| cannot(&error))?;
    let has = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
    if has(b"ENCRYPTED") {
        return Err(invalid(format!(
            "the key {shown} (sslkey) is encrypted, which is not supported: decrypt it (openssl pkey -in … -out …, mode 0600)"
        )));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        invalid(format!("{shown} (sslkey) holds no key in PEM form: convert it with openssl pkey"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_wrong_with_a_key_is_named() {
        let home = tempfile::tempdir().unwrap();
        let environment = |name: &str| (name == "HOME").then(|| home.path().to_string_lossy().into_owned());
        assert!(read(None, None, &environment).unwrap().is_none());
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["ann".to_owned()]).unwrap().self_signed(&pair).unwrap();
        std::fs::create_dir(home.path().join(".postgresql")).unwrap();
        std::fs::write(home.path().join(CERTIFICATE), certificate.pem()).unwrap();
        let error = |key: Option<&str>| read(None, key, &environment).unwrap_err().to_string();
        assert!(error(None).contains("postgresql.key"));
        let key = home.path().join(KEY);
        let write = |text: &str, mode: u32| {
            std::fs::write(&key, text).unwrap();
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write(&pair.serialize_pem(), 0o600);
        assert!(read(None, None, &environment).unwrap().is_some());
        write(&pair.serialize_pem(), 0o644);
        assert!(error(None).contains("0600"));
        write("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", 0o600);
        assert!(error(None).contains("is encrypted"));
        write("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n", 0o600);
        assert!(error(None).contains("is encrypted"));
        write("nonsense", 0o600);
        assert!(error(None).contains("no key in PEM form"));
        assert!(error(Some("pkcs11:x")).contains("engine"));
        assert!(error(Some("/no/such")).contains("/no/such"));
        let missing = read(Some(Path::new("/no/crt")), None, &environment).unwrap_err().to_string();
        assert!(missing.contains("/no/crt") && missing.contains("sslcert"), "{missing}");
    }
}
