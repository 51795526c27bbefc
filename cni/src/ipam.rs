//! IPAM plugins: other people's programs that assign addresses, called as the specification says.

use crate::{
    config::{Config, Version},
    environment::Environment,
    error::{Code, Error},
    result::Added,
};
use serde_json::Value;
use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

/// The plugin that a network's configuration names.
pub struct Plugin<'a> {
    environment: &'a Environment,
    config: &'a Config,
}

impl<'a> Plugin<'a> {
    /// None where the agent assigns addresses.
    pub fn of(environment: &'a Environment, config: &'a Config) -> Option<Self> {
        (!config.network.ipam.is_ours()).then_some(Self { environment, config })
    }

    /// Has it assign addresses.
    ///
    /// # Errors
    /// It is not there, or says why not.
    pub fn add(&self) -> Result<Added, Error> {
        let text = self.call("ADD")?;
        let name = &self.config.network.ipam.plugin;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|error| Error::new(Code::Decode, format!("{name} wrote no result: {error}")))?;
        let added = Added::parse(&value, name)?;
        if added.ips.is_empty() {
            return Err(Error::new(Code::Decode, format!("{name} assigned no address")));
        }
        Ok(added)
    }

    /// Has it release them.
    ///
    /// # Errors
    /// It is not there, or says why not.
    pub fn del(&self) -> Result<(), Error> {
        self.call("DEL").map(drop)
    }

    /// Asks whether they are still assigned.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self) -> Result<(), Error> {
        self.call("CHECK").map(drop)
    }

    /// Has it release all but the valid ones, or asks how it is: `GC` or `STATUS`, which are new in 1.1.0.
    ///
    /// # Errors
    /// It is not there, or says why not.
    pub fn tell(&self, command: &str) -> Result<(), Error> {
        if self.config.version < Version::V1_1_0 { Ok(()) } else { self.call(command).map(drop) }
    }

    fn call(&self, command: &str) -> Result<Vec<u8>, Error> {
        let name = &self.config.network.ipam.plugin;
        let program = self.find()?;
        let failed = |error| Error::new(Code::Io, format!("{}: {error}", program.display()));
        // All else in the environment is as we were given it.
        let mut child = Command::new(&program)
            .env("CNI_COMMAND", command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            let config = Value::Object(self.config.raw.clone()).to_string();
            // One that ends without reading says why by its status.
            let _ = input.write_all(config.as_bytes());
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let code = told["code"].as_u64().and_then(|code| u32::try_from(code).ok()).filter(|code| *code != 0);
        let details = [&told["msg"], &told["details"]].map(|text| text.as_str().unwrap_or_default());
        let details = details.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
        let message = if details.is_empty() { output.status.to_string() } else { details };
        Err(Error::new(code.map_or(Code::Io, Code::Delegate), format!("{name}: {message}")))
    }

    fn find(&self) -> Result<PathBuf, Error> {
        let name = &self.config.network.ipam.plugin;
        let found = self.environment.path.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        found.ok_or_else(|| {
            let folders: Vec<_> =
                self.environment.path.iter().map(|path| path.display().to_string()).collect();
            let message = format!(
                "ipam.type: there is no plugin {name:?} in CNI_PATH ({}): install it, or use margay-ipam",
                folders.join(":")
            );
            Error::new(Code::Config, message)
        })
    }
}
