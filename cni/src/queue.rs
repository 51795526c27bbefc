//! What the agent could not be told, because it was away: deletions, each an empty file whose name says
//! of what. The next command that reaches the agent tells it first.

use crate::{
    agent::{Agent, AgentError},
    error::{Code, Error},
};
use margay_api::control::v1::CniAttachment;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Which network and container cannot contain.
const SEPARATOR: char = '@';

/// The directory.
pub struct Queue(PathBuf);

impl Queue {
    /// In the plugin's state directory.
    pub fn of(state_dir: &Path) -> Self {
        Self(state_dir.join("deleted"))
    }

    /// Keeps a deletion until the agent can be told.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, attachment: &CniAttachment) -> Result<(), Error> {
        let path = self.0.join(name(attachment));
        fs::create_dir_all(&self.0)
            .and_then(|()| File::create(&path)?.sync_all())
            .and_then(|()| File::open(&self.0)?.sync_all())
            .map_err(|error| failed(&path, &error))
    }

    /// Tells the agent of every deletion that waits.
    ///
    /// One process at a time: a deletion must not be told after the attachment was added anew.
    ///
    /// # Errors
    /// The agent does not answer, or the directory cannot be read.
    pub async fn replay(&self, agent: &mut Agent) -> Result<(), AgentError> {
        if self.waiting()?.is_empty() {
            return Ok(());
        }
        let folder = File::open(&self.0).map_err(|error| failed(&self.0, &error))?;
        folder.lock().map_err(|error| failed(&self.0, &error))?;
        for (path, attachment) in self.waiting()? {
            agent.del(attachment).await?;
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&path, &error).into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn waiting(&self) -> Result<Vec<(PathBuf, CniAttachment)>, Error> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| failed(&self.0, &error))?,
        };
        let mut waiting = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed(&self.0, &error))?;
            // What is called otherwise is not ours.
            if let Some(attachment) = entry.file_name().to_str().and_then(parse) {
                waiting.push((entry.path(), attachment));
            }
        }
        Ok(waiting)
    }
}

fn name(attachment: &CniAttachment) -> String {
    let CniAttachment { network, container_id, interface } = attachment;
    format!("{network}{SEPARATOR}{container_id}{SEPARATOR}{interface}")
}

fn parse(name: &str) -> Option<CniAttachment> {
    let mut parts = name.splitn(3, SEPARATOR).map(str::to_owned);
    Some(CniAttachment { network: parts.next()?, container_id: parts.next()?, interface: parts.next()? })
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::new(Code::Io, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container: &str, interface: &str) -> CniAttachment {
        CniAttachment { network: "net".into(), container_id: container.into(), interface: interface.into() }
    }

    #[test]
    fn what_is_put_waits_once() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::of(&dir.path().join("not/there/yet"));
        assert!(queue.waiting().unwrap().is_empty());
        // An interface may be called so.
        let odd = attachment("a_1.b-2", "eth@0");
        for _ in 0..2 {
            queue.put(&odd).unwrap();
        }
        queue.put(&attachment("b", "eth0")).unwrap();
        let mut waiting: Vec<_> = queue.waiting().unwrap().into_iter().map(|(_, of)| of).collect();
        waiting.sort_by(|a, b| a.container_id.cmp(&b.container_id));
        assert_eq!(waiting, [odd, attachment("b", "eth0")]);
    }
}
