//! How the host's side of a container's link is called.

use sha1::{Digest, Sha1};

/// `cali` and eleven digits of a digest: not longer than the kernel's names, and another for each
/// `whose`, which for a pod is `NAMESPACE.NAME`, as Calico's CNI plugin has it.
pub fn host_interface(whose: &str) -> String {
    let digest = Sha1::digest(whose);
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("cali{}", &hex[..11])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_what_calico_calls_it() {
        // `printf x.a | sha1sum`
        assert_eq!(host_interface("x.a"), "cali456b416f2bf");
    }
}
