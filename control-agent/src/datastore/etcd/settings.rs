//! How etcd is reached.

use super::ANSWER;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Pings on an idle connection: etcd's servers take one every 5 s at most.
const PING: Duration = Duration::from_secs(10);

/// Where an etcd cluster is, and as whom to go there.
#[derive(Clone, Debug)]
pub struct Settings {
    /// URLs of its members: `http://` or `https://`, all alike.
    pub endpoints: Vec<String>,
    /// Before every key.
    pub prefix: String,
    /// Of `https`.
    pub tls: Tls,
    /// As whom, where etcd asks.
    pub user: Option<User>,
}

/// Certificates, in PEM files. They are read at each connection: renewed ones are taken up.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Who may have signed etcd's certificate.
    pub ca: Option<PathBuf>,
    /// Ours, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A user of etcd.
#[derive(Clone, Debug)]
pub struct User {
    /// Its name.
    pub name: String,
    /// A file that holds its password, and perhaps a newline.
    pub password: PathBuf,
}

impl Settings {
    /// Connects; where a user is given, to log in too.
    pub(super) async fn connect(&self) -> Result<Client, String> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(ANSWER)
            .with_keep_alive(PING, ANSWER)
            // A member cut off from the others must not be believed.
            .with_require_leader(true);
        if self.endpoints.iter().any(|endpoint| endpoint.starts_with("https:")) {
            options = options.with_tls(self.tls.options()?);
        }
        if let Some(User { name, password }) = &self.user {
            let password = read(password)?;
            let password = String::from_utf8(password).map_err(|_| "the password is not UTF-8".to_owned())?;
            options = options.with_user(name, password.trim_end_matches(['\r', '\n']));
            options = options.with_auto_token_refresh(true);
        }
        Client::connect(&self.endpoints, Some(options)).await.map_err(|error| error.to_string())
    }
}

impl Tls {
    fn options(&self) -> Result<TlsOptions, String> {
        let mut options = TlsOptions::new();
        if let Some(ca) = &self.ca {
            options = options.ca_certificate(Certificate::from_pem(read(ca)?));
        }
        if let Some((certificate, key)) = &self.identity {
            options = options.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(options)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}
