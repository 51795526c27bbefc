//! Files of objects: found, read, and checked before anything is sent.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use margay_agent::model::{self, MAX_INPUT, Resource};

use crate::{
    args::Source,
    exit::{Code, Failure, Outcome},
    readable::count,
};

/// The objects of all files, in the order written.
pub struct Manifest {
    objects: Vec<Entry>,
}

struct Entry {
    /// The file, for people.
    file: String,
    resource: Resource,
}

impl Manifest {
    /// Reads the files that a command line names.
    ///
    /// # Errors
    /// A file cannot be read, or something in it is not an object. Every such fault is named, and what is wrong
    /// with the other objects.
    pub fn read(source: &Source) -> Outcome<Self> {
        let mut objects = Vec::new();
        let mut faults = Vec::new();
        for path in expand(&source.files)? {
            let file = if is_stdin(&path) { "standard input".to_owned() } else { path.display().to_string() };
            let text = contents(&path, &file)?;
            let (resources, errors) = model::sift(&text);
            objects.extend(resources.into_iter().map(|resource| Entry { file: file.clone(), resource }));
            faults.extend(errors.iter().map(|error| format!("{file}: {error}")));
        }
        if let Some(namespace) = &source.namespace {
            for entry in &mut objects {
                faults.extend(entry.move_to(namespace));
            }
        }
        if objects.is_empty() && faults.is_empty() {
            faults.push("there is no object in what was read".to_owned());
        }
        let manifest = Self { objects };
        if !faults.is_empty() {
            faults.extend(manifest.invalid());
        }
        refuse(faults)?;
        Ok(manifest)
    }

    /// Reads the files of a cluster: of a directory also those in the directories inside, since a policy that
    /// is passed over may be the one that matters.
    ///
    /// # Errors
    /// As those of [`Self::read`].
    pub fn read_cluster(path: &Path) -> Outcome<Self> {
        let files = if path.is_dir() { with_subdirectories(path)? } else { vec![path.to_owned()] };
        Self::read(&Source { files, namespace: None })
    }

    /// Checks each object as the agent would, without knowing what the agent has stored.
    ///
    /// # Errors
    /// Every wrong field of every object, with its value and what to write instead.
    pub fn check(&self) -> Outcome<()> {
        let mut faults = Vec::new();
        let mut keys = BTreeSet::new();
        for Entry { file, resource } in &self.objects {
            match resource.clone().admit() {
                Ok(admitted) => {
                    let key = admitted.key();
                    if !keys.insert(key.clone()) {
                        faults.push(format!("{file}: {key}: is named twice; keep one of them"));
                    }
                }
                Err(errors) => {
                    let key = resource.key();
                    faults.extend(errors.iter().map(|error| format!("{file}: {key}: {error}")));
                }
            }
        }
        refuse(faults)
    }

    /// Checks each object by Calico's rules alone: what this version does not honour yet is no fault.
    ///
    /// # Errors
    /// As those of [`Self::check`].
    pub fn validate(&self) -> Outcome<()> {
        refuse(self.invalid())
    }

    fn invalid(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut keys = BTreeSet::new();
        for Entry { file, resource } in &self.objects {
            let key = resource.key();
            faults.extend(resource.validate().iter().map(|error| format!("{file}: {key}: {error}")));
            if !keys.insert(key.clone()) {
                faults.push(format!("{file}: {key}: is named twice; keep one of them"));
            }
        }
        faults
    }

    /// The objects, in the order written.
    pub fn resources(&self) -> impl DoubleEndedIterator<Item = &Resource> {
        self.objects.iter().map(|entry| &entry.resource)
    }

    /// The objects as the agent takes them.
    pub fn to_json(&self) -> Vec<String> {
        self.resources().map(Resource::to_json).collect()
    }
}

impl Entry {
    /// Gives the object the namespace that the command line names, unless it has another.
    fn move_to(&mut self, namespace: &str) -> Option<String> {
        let key = self.resource.key();
        if !key.kind.is_namespaced() {
            return None;
        }
        if key.namespace.is_empty() || key.namespace == namespace {
            namespace.clone_into(&mut self.resource.metadata_mut().namespace);
            return None;
        }
        let file = &self.file;
        Some(format!(
            "{file}: {key}: is not in the namespace {namespace} of --namespace; leave out one of the two"
        ))
    }
}

fn refuse(faults: Vec<String>) -> Outcome<()> {
    if faults.is_empty() {
        return Ok(());
    }
    let number = count(faults.len() as u64, "fault", "faults");
    Err(Failure::usage(
        format!("the objects are not valid: {number}"),
        faults.join("\n"),
        "correct the fields above, and check with `margayctl validate -f FILE`",
    ))
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Directories become their files of objects, in the order of their names.
fn expand(paths: &[PathBuf]) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if is_stdin(path) || !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let found = directory(path).map_err(|error| unreadable(&path.display().to_string(), &error))?;
        if found.is_empty() {
            return Err(Failure::usage(
                format!("there is nothing to read in {}", path.display()),
                "it has no file that ends in .yaml, .yml or .json",
                "name the files themselves, or another directory",
            ));
        }
        files.extend(found);
    }
    Ok(files)
}

fn directory(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in entries(path)? {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "json")) && !path.is_dir() {
            files.push(path);
        }
    }
    Ok(files)
}

/// In the order of their names.
fn entries(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries =
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    entries.sort();
    Ok(entries)
}

/// A directory and those in it, at any depth. What is hidden and what is linked to is left alone.
fn with_subdirectories(path: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = vec![path.to_owned()];
    let mut at = 0;
    while let Some(directory) = found.get(at).cloned() {
        at += 1;
        let inner = |path: &PathBuf| {
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            !hidden && !path.is_symlink() && path.is_dir()
        };
        let entries =
            entries(&directory).map_err(|error| unreadable(&directory.display().to_string(), &error))?;
        found.extend(entries.into_iter().filter(inner));
    }
    // One without files of objects is no fault where another has some.
    let has_files = |path: &PathBuf| directory(path).is_ok_and(|files| !files.is_empty());
    let first = found[0].clone();
    found.retain(has_files);
    Ok(if found.is_empty() { vec![first] } else { found })
}

fn contents(path: &Path, file: &str) -> Outcome<String> {
    // One byte more than is taken, so that what is too long is refused and not cut off.
    let limit = MAX_INPUT as u64 + 1;
    let mut text = String::new();
    let read = if is_stdin(path) {
        io::stdin().lock().take(limit).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|opened| opened.take(limit).read_to_string(&mut text))
    };
    read.map_err(|error| unreadable(file, &error))?;
    if text.len() > MAX_INPUT {
        return Err(Failure::usage(
            format!("{file} is too long"),
            format!("it has more than {MAX_INPUT} bytes"),
            "split it into several files",
        ));
    }
    Ok(text)
}

fn unreadable(file: &str, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::InvalidData => Code::Usage,
        _ => Code::Failed,
    };
    Failure::new(
        code,
        format!("cannot read {file}"),
        error.to_string(),
        "check the name and that you may read it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIER: &str =
        "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: NAME}\nspec: {order: 10}\n";
    const SET: &str = "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: bad-guys}\nspec: {nets: [10.0.0.0/8]}\n";

    fn read(files: &[(&str, &str)], namespace: Option<&str>) -> Outcome<Manifest> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let source =
            Source { files: vec![directory.path().to_owned()], namespace: namespace.map(str::to_owned) };
        Manifest::read(&source)
    }

    fn names(manifest: &Manifest) -> Vec<&str> {
        manifest.resources().map(Resource::name).collect()
    }

    #[test]
    fn a_directory_is_read_in_order_and_other_files_are_left_alone() {
        let tier = |name: &str| TIER.replace("NAME", name);
        let (a, b) = (tier("a"), tier("b"));
        let manifest = read(&[("2.yml", &b), ("1.yaml", &a), ("notes.txt", "not: [yaml")], None).unwrap();
        assert_eq!(names(&manifest), ["a", "b"]);
        assert!(manifest.check().is_ok());
        assert_eq!(read(&[("notes.txt", "")], None).err().map(|failure| failure.code), Some(Code::Usage));
    }

    #[test]
    fn a_cluster_is_read_with_the_directories_inside() {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("policies/shop/1.yaml", &TIER.replace("NAME", "c"));
        write("policies/0.yaml", &TIER.replace("NAME", "b"));
        write(
            "tiers.json",
            r#"[{"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "a"}}]"#,
        );
        write("empty/notes.txt", "");
        write(".git/1.yaml", "no: [object");
        let manifest = Manifest::read_cluster(directory.path()).unwrap();
        assert_eq!(names(&manifest), ["a", "b", "c"]);
        assert_eq!(names(&Manifest::read_cluster(&directory.path().join("tiers.json")).unwrap()), ["a"]);
        let failure = Manifest::read_cluster(&directory.path().join("empty")).err().unwrap();
        assert_eq!(failure.code, Code::Usage);
    }

    #[test]
    fn an_object_named_twice_is_refused() {
        let tier = TIER.replace("NAME", "a");
        let failure = read(&[("1.yaml", &tier), ("2.yaml", &tier)], None).unwrap().check().unwrap_err();
        assert_eq!(failure.code, Code::Usage);
        assert!(failure.to_string().contains("Tier a: is named twice"), "{failure}");
    }

    #[test]
    fn the_namespace_is_filled_in_and_never_overruled() {
        let manifest = read(&[("set.yaml", SET)], Some("shop")).unwrap();
        assert_eq!(manifest.resources().map(Resource::namespace).collect::<Vec<_>>(), ["shop"]);
        let other = SET.replace("name: bad-guys", "name: bad-guys, namespace: lab");
        let failure = read(&[("set.yaml", &other)], Some("shop")).err().unwrap();
        assert!(
            failure.to_string().contains("NetworkSet lab/bad-guys: is not in the namespace shop"),
            "{failure}"
        );
    }

    #[test]
    fn nothing_to_read_is_a_fault() {
        let failure = read(&[("empty.yaml", "")], None).err().unwrap();
        assert_eq!(failure.code, Code::Usage);
        let source = Source { files: vec!["/nonexistent/x.yaml".into()], namespace: None };
        assert_eq!(Manifest::read(&source).err().map(|failure| failure.code), Some(Code::Usage));
    }

    #[test]
    fn what_calico_accepts_is_valid_even_where_apply_refuses_it() {
        let peer = "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: a}\nspec: {peerIP: 192.0.2.1, reachableBy: 192.0.2.2}\n";
        let manifest = read(&[("peer.yaml", peer)], None).unwrap();
        assert!(manifest.validate().is_ok());
        assert!(manifest.check().unwrap_err().to_string().contains("spec.reachableBy"));
        let wrong = peer.replace("peerIP: 192.0.2.1", "node: a, nodeSelector: all()");
        let failure = read(&[("peer.yaml", &wrong)], None).unwrap().validate().unwrap_err();
        assert!(
            failure.code == Code::Usage && failure.to_string().contains("spec.node: cannot be combined"),
            "{failure}"
        );
    }
}
