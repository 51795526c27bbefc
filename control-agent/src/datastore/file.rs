//! Objects in one file: a redb database, a copy-on-write B-tree with checksums, whose commit is durable when it returns.

use super::{Change, Entry, StoreError};
use crate::model::{Key, Kind};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// (kind, namespace, name) to (version, canonical JSON).
const OBJECTS: TableDefinition<(&str, &str, &str), (u64, &str)> = TableDefinition::new("objects");
/// "format" and "revision".
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
/// Of the tables above. A file with another one is refused, not guessed at.
const FORMAT: u64 = 1;

/// An open file, which no other process has open.
pub(super) struct File {
    database: Database,
    path: PathBuf,
}

/// What a file holds.
pub(super) struct Content {
    pub entries: Vec<Entry>,
    pub revision: u64,
}

impl File {
    /// Opens the file, or creates it and the directories above it.
    pub fn open(path: &Path) -> Result<(Self, Content), StoreError> {
        let wrong = |reason: String| StoreError::File { path: path.to_owned(), reason };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent)
                .map_err(|error| wrong(format!("its directory cannot be made: {error}")))?;
        }
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => wrong(
                "another process has it open; stop that agent, or give this one a file of its own".into(),
            ),
            error => wrong(error.to_string()),
        })?;
        restrict(path).map_err(|error| wrong(format!("its permissions cannot be set: {error}")))?;
        let content = load(&database).map_err(wrong)?;
        Ok((Self { database, path: path.to_owned() }, content))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stores the changes; after them the file is at `revision`.
    pub fn store<'a>(
        &self,
        changes: impl IntoIterator<Item = &'a Change>,
        revision: u64,
    ) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
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

    /// Stores these in the place of all that it holds.
    pub fn replace(&self, content: &Content) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        transaction.delete_table(OBJECTS)?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for Entry { key, json, version } in &content.entries {
                let place = (key.kind.name(), key.namespace.as_str(), key.name.as_str());
                objects.insert(place, (*version, &**json))?;
            }
            transaction.open_table(NUMBERS)?.insert("revision", content.revision)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Policy tells who may talk to whom: not for everybody's eyes.
fn restrict(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

fn load(database: &Database) -> Result<Content, String> {
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
    Ok(Content { entries: entries.collect::<Result<_, String>>()?, revision })
}
