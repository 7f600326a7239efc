//! TLS as `sslmode` and `sslrootcert` ask for it, and the channel binding of SCRAM.

use super::InvalidDatabaseUrl;
use super::client_certificate::ClientCertificate;
use crate::Retry;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use std::path::Path;
use std::sync::Arc;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc5912;

/// Whether a connection is encrypted.
#[derive(Clone)]
pub(crate) enum TlsMode {
    /// Never.
    Disable,
    /// If the server does not let us in without.
    Allow(Arc<ClientConfig>),
    /// If the server can; else without. No protection against anybody, as libpq's documentation says.
    Prefer(Arc<ClientConfig>),
    /// Always, with whatever the configuration verifies.
    Require(Arc<ClientConfig>),
}

/// One way to try.
pub(crate) enum Attempt {
    Plain,
    Tls { config: Arc<ClientConfig>, required: bool },
}

impl TlsMode {
    /// The ways to try, in order. `allow` and `prefer` go the other way when a handshake or a login failed, as libpq
    /// does.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        match self {
            Self::Disable => vec![Attempt::Plain],
            Self::Allow(config) => {
                vec![Attempt::Plain, Attempt::Tls { config: config.clone(), required: true }]
            }
            Self::Prefer(config) => {
                vec![Attempt::Tls { config: config.clone(), required: false }, Attempt::Plain]
            }
            Self::Require(config) => vec![Attempt::Tls { config: config.clone(), required: true }],
        }
    }
}

/// How much of the server's certificate is verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verify {
    /// Nothing but that the server has its key.
    Nothing,
    /// The chain, not the name.
    Chain,
    /// The chain and the name.
    Name,
}

/// Where the certificates come from that others are verified by.
pub(crate) enum Roots<'a> {
    None,
    System,
    File(&'a Path),
}

/// What we offer and show of ourselves.
pub(super) struct ClientSide {
    pub(super) certificate: Option<ClientCertificate>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    /// Whether the host's name is told before anything is encrypted (SNI).
    pub(super) names_the_host: bool,
}

/// The configuration that verifies as much as is asked for.
pub(super) fn configuration(
    verify: Verify,
    roots: &Roots<'_>,
    client: ClientSide,
) -> Result<Arc<ClientConfig>, InvalidDatabaseUrl> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match verify {
        Verify::Nothing => Arc::new(Unverified(provider.clone())),
        Verify::Chain | Verify::Name => Arc::new(Verifier::new(verify, roots, &provider)?),
    };
    let unusable = |error: Error| InvalidDatabaseUrl(format!("TLS cannot be set up: {error}"));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&client.versions)
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match client.certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
            InvalidDatabaseUrl(format!("the client certificate (sslcert, sslkey) cannot be used: {error}"))
        })?,
    };
    config.enable_sni = client.names_the_host;
    // PostgreSQL 17 and later insist on it where TLS begins without being asked for.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Arc::new(config))
}

/// Whether a failed handshake can succeed later: not when it was the certificate that was refused.
pub(crate) fn retry(error: &std::io::Error) -> Retry {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) {
        Some(_) => Retry::Operator,
        None if error.kind() == std::io::ErrorKind::InvalidInput => Retry::Operator,
        None => Retry::Backoff,
    }
}

/// What SCRAM binds a login to: the hash of the server's certificate, by the hash function that signed it
/// (`tls-server-end-point`, RFC 5929). `None` where there is no such function (Ed25519).
pub(crate) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    use sha2::Digest;
    let parsed = Certificate::from_der(certificate).ok()?;
    match parsed.signature_algorithm.oid {
        // SHA-1 is raised to SHA-256 by RFC 5929.
        rfc5912::SHA_1_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256 => Some(sha2::Sha256::digest(certificate).to_vec()),
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => {
            Some(sha2::Sha384::digest(certificate).to_vec())
        }
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 => {
            Some(sha2::Sha512::digest(certificate).to_vec())
        }
        _ => None,
    }
}

fn load(roots: &Roots<'_>) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), InvalidDatabaseUrl> {
    let mut store = RootCertStore::empty();
    let certificates = match roots {
        Roots::None => Vec::new(),
        Roots::System => rustls_native_certs::load_native_certs().certs,
        Roots::File(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| {
                InvalidDatabaseUrl(format!(
                    "the root certificate {} cannot be read: {error}; set sslrootcert to a PEM file",
                    path.display()
                ))
            })?,
    };
    store.add_parsable_certificates(certificates.iter().cloned());
    if store.is_empty() {
        return Err(InvalidDatabaseUrl(match roots {
            Roots::File(path) => format!("{} holds no certificate in PEM form", path.display()),
            Roots::System => "the system has no root certificates; install ca-certificates".to_owned(),
            Roots::None => {
                "sslmode verifies the server's certificate, but there is nothing to verify it by: set \
                 sslrootcert to a PEM file or to 'system'"
                    .to_owned()
            }
        }));
    }
    Ok((store, certificates))
}

/// Verifies the chain, and the name where asked.
#[derive(Debug)]
struct Verifier {
    verify: Verify,
    roots: Arc<RootCertStore>,
    /// A self-signed certificate that was made with `openssl req -x509` is marked as an authority,
    /// which webpki refuses to meet at the end of a chain; libpq takes it if it is the one in the file.
    pinned: Vec<CertificateDer<'static>>,
    webpki: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(
        verify: Verify,
        roots: &Roots<'_>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, InvalidDatabaseUrl> {
        let (store, certificates) = load(roots)?;
        let store = Arc::new(store);
        let webpki = WebPkiServerVerifier::builder_with_provider(store.clone(), provider.clone())
            .build()
            .map_err(|error| InvalidDatabaseUrl(format!("the root certificates cannot be used: {error}")))?;
        let pinned = if matches!(roots, Roots::File(_)) { certificates } else { Vec::new() };
        Ok(Self { verify, roots: store, pinned, webpki, provider: provider.clone() })
    }

    fn verify_chain(
        &self,
        certificate: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.pinned.iter().any(|pinned| pinned.as_ref() == certificate.as_ref()) {
            return verify_validity(certificate, now);
        }
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            parsed,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )
    }
}

fn verify_validity(certificate: &[u8], now: UnixTime) -> Result<(), Error> {
    let parsed = Certificate::from_der(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let validity = parsed.tbs_certificate.validity;
    let now = now.as_secs();
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        self.verify_chain(end_entity, &parsed, intermediates, now)?;
        if self.verify == Verify::Name {
            rustls::client::verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Takes any certificate, as `prefer` and `require` do, but lets the server prove that it has its key:
/// SCRAM binds the login to that certificate, which means nothing without the proof.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
