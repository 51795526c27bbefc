//! Mutual TLS: certificate, key and authorities from files, read again when they change.

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use std::{fs, io, os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc, time::SystemTime};

/// PEM files of a server.
#[derive(Clone, Debug)]
pub struct Files {
    /// The server's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Certificates of those who sign callers'.
    pub client_ca: PathBuf,
}

/// The files are no good.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// One does not hold what it should.
    #[error("{path} holds no {what} in PEM: {error}")]
    Empty {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What was found.
        error: String,
    },
    /// They do not belong together, or are not supported.
    #[error("{certificate} and its key or authorities cannot be used: {error}")]
    Unusable {
        /// The server's certificate.
        certificate: PathBuf,
        /// Why.
        error: String,
    },
}

/// What connections are accepted by, as the files last were when they were good.
pub(super) struct Current {
    files: Files,
    protocol: &'static str,
    read: Vec<Option<Seen>>,
    config: Arc<ServerConfig>,
}

impl Current {
    /// For connections that speak this protocol, as ALPN calls it.
    ///
    /// # Errors
    /// The files are no good.
    pub fn of(files: Files, protocol: &'static str) -> Result<Self, TlsError> {
        let read = seen_of(&files);
        let config = config(&files, protocol)?;
        Ok(Self { files, protocol, read, config })
    }

    /// By the files as they are now.
    pub fn config(&mut self) -> Arc<ServerConfig> {
        let seen = seen_of(&self.files);
        if seen != self.read {
            self.read = seen;
            match config(&self.files, self.protocol) {
                Ok(config) => {
                    tracing::info!(certificate = %self.files.certificate.display(), "certificates read again");
                    self.config = config;
                }
                Err(error) => {
                    tracing::warn!(%error, "A011 the new certificates are no good: those before stay in use")
                }
            }
        }
        self.config.clone()
    }
}

/// By what a file is known to be another one, or to be changed: its number, its length, and when it was written.
type Seen = (u64, u64, SystemTime);

fn seen_of(files: &Files) -> Vec<Option<Seen>> {
    let paths = [&files.certificate, &files.key, &files.client_ca];
    let seen = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
    };
    paths.into_iter().map(seen).collect()
}

fn config(files: &Files, protocol: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |error: String| TlsError::Unusable { certificate: files.certificate.clone(), error };
    let chain = certificates(&files.certificate)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.client_ca)? {
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(|error| TlsError::Empty {
        path: files.key.clone(),
        what: "key",
        error: error.to_string(),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = verifier.build().map_err(|error| unusable(error.to_string()))?;
    let config =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let config = config.map_err(|error| unusable(error.to_string()))?.with_client_cert_verifier(verifier);
    let mut config = config.with_single_cert(chain, key).map_err(|error| unusable(error.to_string()))?;
    config.alpn_protocols = vec![protocol.into()];
    Ok(Arc::new(config))
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let empty = |error: String| TlsError::Empty { path: path.clone(), what: "certificate", error };
    let found = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| empty(error.to_string()))?;
    if found.is_empty() { Err(empty("nothing".into())) } else { Ok(found) }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Unreadable { path: path.clone(), error })
}
