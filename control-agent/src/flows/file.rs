//! Records of flows as JSON, one a line, in a file of bounded size: a full one is moved aside, and the oldest goes.

use super::line::Line;
use margay_api::control::v1::ObservedFlow;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where and how much.
#[derive(Clone, Debug)]
pub struct FileSettings {
    /// The file; those moved aside are called `PATH.1`, `PATH.2`..., the newest first.
    pub path: PathBuf,
    /// Bytes after which it is moved aside.
    pub bytes: u64,
    /// Files there are at most, the present one included.
    pub files: u32,
}

/// The file, open.
pub struct LogFile {
    settings: FileSettings,
    writer: BufWriter<File>,
    written: u64,
}

impl LogFile {
    /// Goes on with what is there.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(settings: FileSettings) -> io::Result<Self> {
        let (writer, written) = open(&settings.path)?;
        Ok(Self { settings, writer, written })
    }

    /// Writes these, and has them on their way to the disk.
    ///
    /// # Errors
    /// The disk is full, say: what was written of the last line stays.
    pub fn write(&mut self, flows: &[Arc<ObservedFlow>]) -> io::Result<()> {
        for line in flows.iter().filter_map(|flow| Line::of(flow)) {
            let mut bytes = serde_json::to_vec(&line)?;
            bytes.push(b'\n');
            let len = bytes.len() as u64;
            if self.written > 0 && self.written + len > self.settings.bytes {
                self.move_aside()?;
            }
            self.writer.write_all(&bytes)?;
            self.written += len;
        }
        self.writer.flush()
    }

    fn move_aside(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        let aside = |number: u32| match number {
            0 => self.settings.path.clone(),
            _ => {
                let mut name = self.settings.path.clone().into_os_string();
                name.push(format!(".{number}"));
                PathBuf::from(name)
            }
        };
        for number in (0..self.settings.files.saturating_sub(1)).rev() {
            match fs::rename(aside(number), aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.settings.files <= 1 {
            fs::remove_file(&self.settings.path)?;
        }
        (self.writer, self.written) = open(&self.settings.path)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let written = file.metadata()?.len();
    Ok((BufWriter::new(file), written))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{allowed, denied};
    use super::*;

    #[test]
    fn lines_are_json_and_files_are_bounded_in_size_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        let settings = FileSettings { path: path.clone(), bytes: 4000, files: 3 };
        let mut file = LogFile::open(settings.clone()).unwrap();
        let flows = [Arc::new(allowed()), Arc::new(denied())];
        (0..10).for_each(|_| file.write(&flows).unwrap());
        // And once more: it goes on where it was.
        LogFile::open(settings).unwrap().write(&flows).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["flows.jsonl", "flows.jsonl.1", "flows.jsonl.2"]);
        for name in names {
            let text = fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(!text.is_empty() && text.len() <= 4000);
            for line in text.lines() {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(value["source"]["name"], "web");
                assert!(value["original"]["source"].is_string());
            }
        }
    }

    #[test]
    fn one_file_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        let mut file = LogFile::open(FileSettings { path: path.clone(), bytes: 1, files: 1 }).unwrap();
        (0..3).for_each(|_| file.write(&[Arc::new(denied())]).unwrap());
        assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 1);
    }
}
