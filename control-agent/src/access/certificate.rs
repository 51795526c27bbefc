//! Who a certificate is of. Its signature and its use have been checked by rustls, which shows nothing of what it says; this reads
//! its subject, and nothing else: X.509 (RFC 5280, section 4.1) in DER.

use super::{Caller, Role};
use std::collections::BTreeSet;

/// Before the role in `O`.
const ROLE: &str = "margay:";
/// Before the name in `OU`.
const NAMESPACE: &str = "namespace:";

/// DER's tags of what is looked at.
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const VERSION: u8 = 0xa0;
/// UTF8String, PrintableString and IA5String: all of them UTF-8 in what they may hold.
const STRINGS: [u8; 3] = [0x0c, 0x13, 0x16];

/// Attributes of a name (X.520): 2.5.4.3, .10 and .11.
const COMMON_NAME: [u8; 3] = [0x55, 4, 3];
const ORGANIZATION: [u8; 3] = [0x55, 4, 10];
const ORGANIZATIONAL_UNIT: [u8; 3] = [0x55, 4, 11];

/// The certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate {0}: have it signed with CN=NAME and O=margay:ROLE")]
pub struct CertificateError(String);

/// The caller that a certificate names.
pub(super) fn caller(der: &[u8]) -> Result<Caller, CertificateError> {
    let subject = subject(der).ok_or_else(|| CertificateError("cannot be read".into()))?;
    let all = |oid: [u8; 3], prefix: &str| -> Vec<String> {
        let of = subject.iter().filter(|(kind, _)| *kind == oid);
        of.filter_map(|(_, value)| value.strip_prefix(prefix).map(str::to_owned)).collect()
    };
    let names = all(COMMON_NAME, "");
    let [name] = names.as_slice() else {
        return Err(CertificateError(format!("has {} common names", names.len())));
    };
    let wrong = |what: String| CertificateError(format!("of {name:?} {what}"));
    let roles = all(ORGANIZATION, ROLE);
    let [role] = roles.as_slice() else { return Err(wrong(format!("has {} roles", roles.len()))) };
    let role: Role = role.parse().map_err(|why| wrong(format!("has no role that there is: {why}")))?;
    let namespaces: BTreeSet<String> = all(ORGANIZATIONAL_UNIT, NAMESPACE).into_iter().collect();
    if !namespaces.is_empty() && matches!(role, Role::Admin | Role::Node) {
        return Err(wrong(format!("confines role {role} to a namespace, which is not possible")));
    }
    Ok(Caller { name: name.clone(), role, namespaces })
}

/// The attributes of the subject's name that are texts, in their order.
fn subject(der: &[u8]) -> Option<Vec<(&[u8], &str)>> {
    let (certificate, _) = expect(SEQUENCE, der)?;
    let (signed, _) = expect(SEQUENCE, certificate)?;
    // Version, serial number, algorithm, issuer, validity: none of our business.
    let mut rest = signed;
    let fields = if signed.first() == Some(&VERSION) { 5 } else { 4 };
    for _ in 0..fields {
        (_, _, rest) = value(rest)?;
    }
    let (mut names, _) = expect(SEQUENCE, rest)?;
    let mut attributes = Vec::new();
    while !names.is_empty() {
        let (mut set, more) = expect(SET, names)?;
        names = more;
        while !set.is_empty() {
            let (attribute, others) = expect(SEQUENCE, set)?;
            set = others;
            let (kind, text) = expect(OID, attribute)?;
            let (tag, text, _) = value(text)?;
            if STRINGS.contains(&tag) {
                attributes.push((kind, std::str::from_utf8(text).ok()?));
            }
        }
    }
    Some(attributes)
}

/// The content of the first value, which has this tag, and what follows it.
fn expect(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = value(der)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of the first value, and what follows it (X.690, section 8.1). Tags of more bytes, and lengths of more
/// than four, are in no certificate.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    fn signed(subject: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_subject_says_who_and_what_for() {
        use DnType::{CommonName, OrganizationName, OrganizationalUnitName};
        let read = |subject: &[(DnType, &str)]| caller(&signed(subject));
        // Longer than what a length of one byte can say.
        let name = "ann of the shop, ".repeat(20);
        let ann = read(&[
            (CommonName, &name),
            (OrganizationName, "margay:operator"),
            (OrganizationalUnitName, "namespace:shop"),
        ]);
        let expected =
            Caller { namespaces: ["shop".to_owned()].into(), ..Caller::new(&*name, Role::Operator) };
        assert_eq!(ann.unwrap(), expected);
        let node = read(&[(OrganizationName, "margay:node"), (CommonName, "node-a")]);
        assert_eq!(node.unwrap(), Caller::new("node-a", Role::Node));
        for (subject, why) in [
            (vec![(CommonName, "ann")], "has 0 roles"),
            (vec![(CommonName, "ann"), (OrganizationName, "admin")], "has 0 roles"),
            (vec![(OrganizationName, "margay:admin")], "has 0 common names"),
            (vec![(CommonName, "ann"), (OrganizationName, "margay:root")], "none of admin"),
            (
                vec![
                    (CommonName, "ann"),
                    (OrganizationName, "margay:admin"),
                    (OrganizationalUnitName, "namespace:shop"),
                ],
                "confines role admin",
            ),
        ] {
            let error = read(&subject).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("O=margay:ROLE"), "{error}");
        }
        assert!(caller(b"no certificate").unwrap_err().to_string().contains("cannot be read"));
    }

    proptest! {
        #[test]
        fn whatever_it_is_it_is_read_or_refused(
            cut in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut der = signed(&[(DnType::CommonName, "ann"), (DnType::OrganizationName, "margay:viewer")]);
            for (at, byte) in changes {
                let at = at.index(der.len());
                der[at] = byte;
            }
            let _ = caller(&der);
            der.truncate(cut.index(der.len()));
            prop_assert!(caller(&der).is_err());
        }
    }
}
