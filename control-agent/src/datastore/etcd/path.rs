//! Where an object is in etcd.

use crate::model::{Key, Kind};

/// Paths beneath one prefix.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    prefix: String,
}

impl Paths {
    /// `prefix` with or without a slash at its end.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: format!("{}/", prefix.trim_end_matches('/')) }
    }

    /// All that is ours.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What every commit writes.
    pub fn commits(&self) -> String {
        format!("{}commits", self.prefix)
    }

    /// No part of a key has a slash in it: the model sees to that.
    pub fn object(&self, key: &Key) -> String {
        format!("{}{}/{}/{}", self.objects(), key.kind, key.namespace, key.name)
    }

    /// All objects.
    pub fn objects(&self) -> String {
        format!("{}objects/", self.prefix)
    }

    /// The object at a path; `None` for a path that is not one of an object.
    pub fn key(&self, path: &[u8]) -> Option<Result<Key, String>> {
        let path = std::str::from_utf8(path).ok()?;
        let object = path.strip_prefix(&self.objects())?;
        let mut parts = object.split('/');
        let (Some(kind), Some(namespace), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Some(Err(format!("{path} is not KIND/NAMESPACE/NAME: delete it")));
        };
        let kind = match Kind::parse(kind) {
            Ok(kind) => kind,
            Err(error) => return Some(Err(format!("{path} is not known here: {error}"))),
        };
        Some(Ok(Key { kind, namespace: namespace.into(), name: name.into() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_path() {
        let paths = Paths::new("/margay/v1");
        for key in [Key::global(Kind::Tier, "a.b"), Key::namespaced(Kind::NetworkPolicy, "ns", "default.x")] {
            assert_eq!(paths.key(paths.object(&key).as_bytes()), Some(Ok(key)));
        }
        assert_eq!(paths.object(&Key::global(Kind::Tier, "a")), "/margay/v1/objects/Tier//a");
        assert_eq!(paths.commits(), Paths::new("/margay/v1/").commits());
        assert_eq!(paths.key(paths.commits().as_bytes()), None);
        assert_eq!(paths.key(b"/other/objects/Tier//a"), None);
        let wrong = |path: &[u8]| paths.key(path).unwrap().unwrap_err();
        assert!(wrong(b"/margay/v1/objects/Tier/a").contains("is not KIND/NAMESPACE/NAME"));
        assert!(wrong(b"/margay/v1/objects/Tigers//a").contains("is not known here"));
    }
}
