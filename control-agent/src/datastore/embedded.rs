//! Objects in one file on this machine.
//!
//! The file is a redb database: a copy-on-write B-tree with checksums, whose commit is durable
//! when it returns. Reads never touch it after the start.

use super::{Change, Datastore, Entry, Listing, Run, StoreError, Watch, Write, Written, image::Image};
use crate::{
    health::Health,
    model::{Key, Kind},
};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Mutex;

/// (kind, namespace, name) to (version, canonical JSON).
const OBJECTS: TableDefinition<(&str, &str, &str), (u64, &str)> = TableDefinition::new("objects");
/// "format" and "revision".
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
/// Of the tables above. A file with another one is refused, not guessed at.
const FORMAT: u64 = 1;

/// A store in a file.
pub struct Embedded {
    image: Arc<Image>,
    database: Arc<Database>,
    writer: Arc<Mutex<()>>,
    path: PathBuf,
    health: Health,
}

impl Embedded {
    /// Opens the file, or creates it and the directories above it.
    ///
    /// # Errors
    /// The file cannot be read or written, another process has it open, or it is not a store.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let wrong = |reason: String| StoreError::File { path: path.to_owned(), reason };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent)
                .map_err(|error| wrong(format!("its directory cannot be made: {error}")))?;
        }
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => wrong(
                "another process has it open; stop that agent, or give this one a store of its own".into(),
            ),
            error => wrong(error.to_string()),
        })?;
        restrict(path).map_err(|error| wrong(format!("its permissions cannot be set: {error}")))?;
        let (entries, revision) = load(&database).map_err(wrong)?;

        let health = Health::starting("store", "");
        health.good(format!("{} open", path.display()));
        let image = Image::new(entries, revision);
        let database = Arc::new(database);
        Ok(Self { image, database, writer: Arc::default(), path: path.to_owned(), health })
    }
}

#[tonic::async_trait]
impl Datastore for Embedded {
    async fn list(&self) -> Result<Listing, StoreError> {
        Ok(self.image.list())
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.image.get(key))
    }

    async fn watch(&self, revision: u64) -> Result<Watch, StoreError> {
        Ok(self.image.watch(revision))
    }

    async fn commit(&self, writes: Vec<Write>, run: Run) -> Result<Written, StoreError> {
        // Owned, and carried into the blocking task: a caller that goes away in the middle must
        // not let the next writer in before this one has published what it stored.
        let writer = self.writer.clone().lock_owned().await;
        let plan = self.image.plan(&writes)?;
        if plan.changes.is_empty() || run == Run::Dry {
            return Ok(plan.written);
        }
        let database = self.database.clone();
        let image = self.image.clone();
        let changes = plan.changes;
        let revision = plan.written.revision;
        let stored = tokio::task::spawn_blocking(move || {
            store(&database, &changes, revision)?;
            image.publish(changes);
            drop(writer);
            Ok::<(), redb::Error>(())
        })
        .await;
        let reason = match stored {
            Ok(Ok(())) => {
                self.health.good(format!("{} open", self.path.display()));
                return Ok(plan.written);
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.health.bad(format!("{}: {reason}", self.path.display()));
        Err(StoreError::File { path: self.path.clone(), reason })
    }

    fn health(&self) -> &Health {
        &self.health
    }
}

/// Policy tells who may talk to whom: not for everybody's eyes.
fn restrict(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

fn load(database: &Database) -> Result<(Vec<Entry>, u64), String> {
    let read = || -> Result<_, redb::Error> {
        let setup = database.begin_write()?;
        let (format, revision) = {
            setup.open_table(OBJECTS)?;
            let mut numbers = setup.open_table(NUMBERS)?;
            let format = numbers.get("format")?.map(|format| format.value());
            if format.is_none() {
                numbers.insert("format", FORMAT)?;
            }
            let revision = numbers.get("revision")?.map_or(0, |revision| revision.value());
            (format.unwrap_or(FORMAT), revision)
        };
        setup.commit()?;
        let transaction = database.begin_read()?;
        let objects = transaction.open_table(OBJECTS)?;
        let mut rows = Vec::new();
        for row in objects.iter()? {
            let (key, value) = row?;
            let (kind, namespace, name) = key.value();
            let (version, json) = value.value();
            rows.push((
                kind.to_owned(),
                namespace.to_owned(),
                name.to_owned(),
                version,
                Arc::<str>::from(json),
            ));
        }
        Ok((format, revision, rows))
    };
    let (format, revision, rows) = read().map_err(|error| error.to_string())?;
    if format != FORMAT {
        return Err(format!(
            "it has format {format} and this agent reads format {FORMAT}: run the agent that wrote it"
        ));
    }
    let entries = rows.into_iter().map(|(kind, namespace, name, version, json)| {
        let kind = Kind::parse(&kind)
            .map_err(|error| format!("it holds an object that is not known here: {error}"))?;
        Ok(Entry { key: Key { kind, namespace, name }, json, version })
    });
    Ok((entries.collect::<Result<_, String>>()?, revision))
}

fn store(database: &Database, changes: &[Change], revision: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for change in changes {
            let Entry { key, json, version } = change.entry();
            let place = (key.kind.name(), key.namespace.as_str(), key.name.as_str());
            match change {
                Change::Added(_) | Change::Modified(_) => {
                    objects.insert(place, (*version, &**json))?;
                }
                Change::Deleted(_) => {
                    objects.remove(place)?;
                }
            }
        }
        transaction.open_table(NUMBERS)?.insert("revision", revision)?;
    }
    transaction.commit()?;
    Ok(())
}
